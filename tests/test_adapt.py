"Somebody's own folder: every kind of bad file, and the whole way from crops to a deployed model as papermill runs it."
import json
import os
import re
import shutil
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ENV, outputs, papermill, refusal, smoke_run
from PIL import Image

from ptl_nb.data import decode
from ptl_nb.deploy import load_deploy, model_card
from ptl_nb.domains import load_domain
from ptl_nb.evidence import conflicts, evidence, verdict
from ptl_nb.image_files import MAX_PIXELS, load_checked, open_rgb, remarks, upright_size
from ptl_nb.labels import read_parts
from ptl_nb.own_images import FilesRefused
from ptl_nb.standins import truth_store


@pytest.fixture(scope="module")
def people():
    "Rendered people, as arrays and paths of the stand-in campus."
    campus = load_domain("campus")
    table = campus.train.iloc[::30].head(40)
    return [Image.open(f).convert("RGB") for f in campus.files(table)], table.path.tolist()


def put(folder, name, image, **options):
    "An image file, its folder made where there is none."
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    return file


def odd_files(folder, images):
    "One file of every kind that is taken, by name."
    half = images[0].copy()
    turned = Image.Exif()
    half.putalpha(128)
    turned[0x0112] = 8
    deep = Image.fromarray(np.asarray(images[0].convert("L")).astype(np.uint16) * 257)
    clear = images[0].quantize(8)
    clear.info["transparency"] = 0
    kinds = {"plain one.jpg": (images[0], {}), "grey, 1.png": (images[0].convert("L"), {}),
             "людина.png": (images[0].quantize(16), {}), "印.jpg": (images[0].convert("CMYK"), {}),
             "16bit.png": (deep, {}),
             "half.png": (half, {}), "clear.png": (clear, {"transparency": 0}),
             "turned.jpg": (images[0].transpose(Image.Transpose.ROTATE_270), {"exif": turned}),
             "bit.bmp": (images[0].convert("1"), {}),
             "wrong ending.jpg": (images[0], {"format": "PNG"}), "LARGE.TIFF": (images[0].resize((300, 900)), {}),
             "narrow.webp": (images[0].resize((9, 40)), {}), "it's \"x\".jpg": (images[0], {})}
    for name, (image, options) in kinds.items(): put(folder, name, image, **options)
    return list(kinds)


def test_every_kind_of_image_is_taken(tmp_path, people):
    images, _ = people
    names = odd_files(tmp_path / "my shop", images)
    domain, report = load_checked(tmp_path / "my shop")
    assert (sorted(report.path) == sorted(names) and (report.fault == "").all() and domain.name == "my shop"
            and domain.cameras == {1: "."})
    for path in names: assert decode(domain.root / path, (128, 64)).shape == (128, 64, 3)
    said = remarks(report)["images"]
    assert (said["transparent: put on black"] == 2
            and said["turned upright"] == said["16 bits made 8"] == said["narrower than 16 pixels"] == 1)
    sizes = {p: (h, w) for p, h, w in zip(report.path, report.height, report.width)}
    assert sizes["turned.jpg"] == upright_size(domain.root / "turned.jpg") == images[0].size[::-1]


def test_pixels_are_the_right_ones(tmp_path, people):
    image = np.asarray(people[0][0]).astype(int)
    odd_files(tmp_path, people[0])
    def take(name): return np.asarray(open_rgb(tmp_path / name)).astype(int)
    grey = np.asarray(people[0][0].convert("L")).astype(int)
    assert (take("16bit.png")[..., 0] == grey).all() and (take("wrong ending.jpg") == image).all()
    assert np.abs(take("half.png") - image * 128 / 255).max() <= 1
    assert np.abs(take("turned.jpg") - image).mean() < 6 < np.abs(take("turned.jpg")[::-1, ::-1] - image).mean()
    gone = np.asarray(people[0][0].quantize(8)) == 0
    assert (take("clear.png")[gone] == 0).all() and gone.any()


def png(chunks):
    "A PNG of given chunks."
    body = b"".join(len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
                    for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_all_bad_files_are_named_at_once(tmp_path, people):
    images, _ = people
    own = tmp_path / "own"
    secret = put(tmp_path, "secret/x.jpg", images[0])
    good = put(own, "cam 1/good.jpg", images[0]).read_bytes()
    put(own, "animated.png", images[0], save_all=True, append_images=[images[1]])
    put(own, "moving.webp", images[0], save_all=True, append_images=[images[1]])
    put(own, "pages.tif", images[0], save_all=True, append_images=[images[1]])
    put(own, "gif.jpg", images[0], format="GIF", save_all=True, append_images=[images[1]])
    put(own, "float.tif", Image.fromarray(np.ones((8, 4), np.float32)))
    put(own, "twin.jpg", images[0])
    put(own, "twin.png", images[0])
    put(own, "tab\there.jpg", images[0])
    put(own, "back\\slash.jpg", images[0])
    for side, name in ((9_000, "large.png"), (200_000, "bomb.png")):
        (own / name).write_bytes(png([(b"IHDR", side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])),
                                      (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")]))
    (own / "text bomb.png").write_bytes(png([(b"IHDR", bytes([0, 0, 0, 4, 0, 0, 0, 8, 8, 0, 0, 0, 0])),
                                             (b"zTXt", b"k\0\0" + zlib.compress(bytes(70 << 20), 1)), (b"IEND", b"")]))
    (own / "cut.jpg").write_bytes(good[:600])
    (own / "empty.jpg").touch()
    (own / "film.jpg").write_bytes(b"\0\0\0\x18ftypmp42")
    (own / "out.jpg").symlink_to(secret)
    (own / "gone.jpg").symlink_to(own / "nothing")
    (own / "self.jpg").symlink_to(own / "self.jpg")
    (own / "inside.jpg").symlink_to(own / "cam 1/good.jpg")
    os.mkfifo(own / "pipe.jpg")
    with pytest.raises(FilesRefused) as refused: load_checked(own)
    said = str(refused.value)
    faults = refused.value.faults
    expected = {"animated.png": "2 pictures", "moving.webp": "2 pictures", "pages.tif": "2 pictures",
                "gif.jpg": "2 pictures", "text bomb.png": "cannot be decoded", "float.tif": "32-bit",
                "twin.jpg": "in its ending only", "twin.png": "in its ending only",
                "tab\there.jpg": "control character",
                "back\\slash.jpg": "backslash", "large.png": "9000 x 9000",
                "bomb.png": "cut the person out|cannot be decoded", "cut.jpg": "cannot be decoded",
                "empty.jpg": "cannot be decoded", "film.jpg": "cannot be decoded",
                "out.jpg": "leaves the folder", "gone.jpg": "link to nothing", "self.jpg": "link to nothing",
                "pipe.jpg": "not a regular file"}
    assert set(faults) == set(expected) and said.startswith(f"{own}: {len(expected)} files cannot be used")
    for name, why in expected.items(): assert any(w in faults[name] for w in why.split("|")) and repr(name) in said
    for name in expected: os.unlink(own / name)
    assert load_checked(own)[0].train.path.tolist() == ["cam 1/good.jpg", "inside.jpg"]


def test_a_file_that_may_not_be_read_is_named(tmp_path, people, monkeypatch):
    for name in ("open.jpg", "locked.jpg"): put(tmp_path, name, people[0][0])
    real = Image.open
    def opened(file, *arguments):
        if str(file).endswith("locked.jpg"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *arguments)
    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(FilesRefused) as refused: load_checked(tmp_path)
    assert list(refused.value.faults) == ["locked.jpg"] and "Permission denied" in refused.value.faults["locked.jpg"]


def test_limits_of_size(tmp_path):
    side = int(MAX_PIXELS**.5)
    put(tmp_path, "just.png", Image.new("1", (side, side)))
    put(tmp_path, "over.png", Image.new("1", (side + 1, side + 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_rgb(tmp_path / "just.png").size == (side, side)
        with pytest.raises(ValueError, match="over.png has .* pixels, which is no crop"):
            decode(tmp_path / "over.png", (8, 4))


def test_a_thousand_bad_files_are_counted(tmp_path):
    for i in range(130): (tmp_path / f"{i:04d}.jpg").touch()
    with pytest.raises(ValueError, match="130 files cannot be used") as refused: load_checked(tmp_path)
    assert "and 30 more" in str(refused.value) and len(refused.value.faults) == 130


def test_what_is_left_out_is_said(tmp_path, people):
    images, _ = people
    for name in ("a.jpg", ".hidden.jpg", ".cache/b.jpg", "sub/c.jpg"): put(tmp_path / "own", name, images[0])
    for name in ("film.mp4", "photo.heic", "._a.jpg", "Thumbs.db", ".DS_Store"): (tmp_path / "own" / name).touch()
    (tmp_path / "own/elsewhere").symlink_to(tmp_path)
    with pytest.warns(UserWarning) as warned: domain = load_domain(tmp_path / "own")
    assert domain.train.path.tolist() == ["a.jpg", "sub/c.jpg"] and domain.cameras == {1: ".", 2: "sub"}
    said = [str(w.message) for w in warned]
    assert (any("not an image (3 in all): elsewhere, film.mp4, photo.heic" in s for s in said)
            and any("hidden (3 in all)" in s for s in said))


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "own").mkdir()
    for litter in (None, "film.mp4", ".hidden.jpg"):
        if litter: (tmp_path / "own" / litter).touch()
        with warnings.catch_warnings(), pytest.raises(ValueError, match="own holds no images"):
            warnings.simplefilter("ignore")
            load_checked(tmp_path / "own")


def test_a_folder_that_cannot_be_listed_is_not_skipped(tmp_path, people, monkeypatch):
    put(tmp_path, "a.jpg", people[0][0])
    put(tmp_path, "locked/b.jpg", people[0][0])
    real = os.scandir
    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match="locked cannot be listed .Permission denied"): load_domain(tmp_path)


@pytest.mark.parametrize("camera, time, cameras, times", [
    ("", "", {1: "east", 2: "west"}, None), (r"_c(\d)", r"t(\d+)", {3: "3", 4: "4"}, [7, 8, 7]),
    ("(ea|we)st", r"(t\d+)", {1: "ea", 2: "we"}, ["t7", "t8", "t7"])])
def test_cameras_and_times_from_names(tmp_path, people, camera, time, cameras, times):
    for name in ("east/1_c3_t7.jpg", "east/2_c3_t8.jpg", "west/1_c4_t7.jpg"): put(tmp_path, name, people[0][0])
    domain = load_domain(tmp_path, camera=camera, time=time)
    assert (domain.cameras == cameras
            and domain.train.camid.map(cameras).tolist() == [cameras[c] for c in domain.train.camid])
    assert ("time" in domain.train) == (times is not None) and (times is None or domain.train.time.tolist() == times)


@pytest.mark.parametrize("options, says",
                         [({"camera": "_x(.)"}, "2 files.*has no camera"), ({"time": "_x(.)"}, "has no time"),
                          ({"camera": "a"}, "put brackets"), ({"camera": "(a)(b)"}, "2 groups"),
                          ({"time": "["}, "no regular expression")])
def test_patterns_that_do_not_fit(tmp_path, people, options, says):
    for name in ("a_x1.jpg", "b_y1.jpg", "c_y1.jpg"): put(tmp_path, name, people[0][0])
    with pytest.raises(ValueError) as refused: load_domain(tmp_path, **options)
    assert re.search(says, str(refused.value), re.S)
    with pytest.raises(ValueError, match="go with the path"): load_domain("plaza", **options)


def test_csv_with_columns_of_its_own_and_all_faults(tmp_path, people):
    for i in range(4): put(tmp_path, f"c/{i}.jpg", people[0][i])
    rows = ["c/0.jpg,-1,hall,train,09:00", "c/1.jpg,-1,door,train,09:01", "c/2.jpg,-1,hall,train,09:02"]
    table = tmp_path / "domain.csv"
    def write(*lines): return table.write_text("\n".join(("path,pid,where,split,when", *lines)), encoding="utf-8")
    write(*rows)
    domain = load_domain(table, camera="where", time="when")
    assert (domain.cameras == {1: "door", 2: "hall"} and domain.train.camid.tolist() == [2, 1, 2]
            and domain.train.time.tolist()[1] == "09:01")
    with pytest.raises(ValueError, match="no column 'camid'"): load_domain(table)
    with pytest.raises(ValueError, match="no column 'wher'; did you mean 'where'"): load_domain(table, camera="wher")
    (tmp_path / "c/2.jpg").write_bytes(b"broken")
    write(*rows, "c/9.jpg,-1,hall,train,", "c/3.jpg,x,hall,train,", "c/3.jpg,-1,,train,")
    with pytest.raises(ValueError) as refused: load_checked(table, camera="where", time="when")
    for says in ("line 5: path 'c/9.jpg' does not exist", "line 6: pid 'x'", "line 7: camera '' is empty",
                 "'c/2.jpg' cannot be decoded"):
        assert says in str(refused.value)


def test_unknown_times_are_left_out_of_the_evidence(tmp_path, people):
    "Eight of forty rows have a time: the other thirty-two were not taken at one moment."
    for i in range(40): put(tmp_path, f"{i:02d}.jpg", people[0][i % 8])
    def load(times):
        rows = [f"{i:02d}.jpg,-1,{1 + i % 2},train,{time}" for i, time in enumerate(times)]
        (tmp_path / "domain.csv").write_text("\n".join(["path,pid,camid,split,when", *rows]), encoding="utf-8")
        return load_domain(tmp_path, time="when").train
    rng = np.random.default_rng(0)
    features = {
        name: tuple(
            x / np.linalg.norm(x, axis=1, keepdims=True)
            for x in (
                rng.normal(size=(40, 8)),
                np.repeat(rng.normal(size=(8, 8)), 5, 0) + 0.1 * rng.normal(size=(40, 8)),
            )
        )
        for name in ("BL", "PTL")
    }
    some, none = load([5 * (i // 4) if i < 8 else "" for i in range(40)]), load([""] * 40)
    labels = np.arange(40) // 5
    known = pd.DataFrame({"camid": some.camid[:8], "time": [0] * 4 + [5] * 4, "label": labels[:8]})
    pairs = [
        (a, b)
        for a in range(8)
        for b in range(a)
        if known.camid[a] == known.camid[b] and known.time[a] == known.time[b]
    ]
    assert conflicts(labels, some.camid, some.time) == np.mean([labels[a] == labels[b] for a, b in pairs])
    assert np.isnan(conflicts(labels, none.camid, none.time))
    table = evidence(features, "PTL", ("BL",), none.camid, none.time)
    said = verdict(table, "PTL", ("BL",))
    assert table.loc["conflicts", "vs BL_says"] == "not measured" and "not measured: conflicts" in " ".join(said)
    assert "| conflicts | not measured | not measured |" in model_card("x", {}, {}, said, table)


@pytest.fixture
def adapt(tmp_path, monkeypatch):
    "Runs the notebook; gives what it shows, its results, its deployed files."
    monkeypatch.setitem(ENV, "TMPDIR", str(tmp_path))
    def run(*parameters):
        smoke_run("adapt", tmp_path / "out.ipynb", *parameters)
        results = next(tmp_path.glob("ptl-smoke-*"))
        folder, deployed = next(results.glob("own/smoke*/adapt")), next(results.glob("deploy/smoke*/*"))
        return outputs(tmp_path / "out.ipynb"), folder, deployed, results
    return run


@pytest.mark.slow
def test_a_dozen_images_of_one_camera(adapt, tmp_path, people):
    odd_files(tmp_path / "my shop, ü", people[0])
    shown, folder, deployed, _ = adapt(f"target={tmp_path / 'my shop, ü'}")
    for says in ("ONLY 13 IMAGES: the target batch is 13", "ONE CAMERA ONLY", "no labelled images", "was not measured",
                 "is not shown by this run", "turned upright"):
        assert says in shown
    card = (deployed / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert ("Identification was not measured" in card and "Rendered stand-ins have a "
            "part" in card and "One camera only" in card and "better "
            "than" not in card.replace("is better than BL is not shown", ""))
    net, told = load_deploy(deployed)
    assert told["method"] == "PTL+BN^t" and told["standin"] and told["input"]["height"] == 48
    assert list(folder.glob("*-evidence.csv")) and not list(folder.glob("*scores*"))
    for file in (*folder.iterdir(), *deployed.iterdir()):
        assert str(tmp_path).encode() not in file.read_bytes(), f"{file.name} names a path of this machine"


@pytest.mark.slow
def test_labelled_rows_and_labels_of_another_model(adapt, tmp_path, people):
    images, paths = people
    campus = load_domain("campus")
    true = read_parts(truth_store("campus"), paths)
    rows = []
    own = tmp_path / "own"
    for i, (image, parts) in enumerate(zip(images, true)):
        put(own, f"t {i:02d}.jpg", image)
        put(tmp_path / "maps", f"t {i:02d}.png", Image.fromarray(parts))
        rows.append((f"t {i:02d}.jpg", -1, ["east", "west"][i % 2], "train", i // 2))
    both = campus.gallery.groupby("pid").camid.nunique().pipe(lambda n: n[n > 2]).index[:6]
    for j, (path, pid, camid) in enumerate(campus.gallery[campus.gallery.pid.isin(both)].itertuples(index=False)):
        shutil.copyfile(campus.root / path, own / f"x{j}.jpg")
        rows.append((f"x{j}.jpg", pid, f"c{camid}", "query"
                     if camid == campus.gallery[campus.gallery.pid == pid].camid.min() else "gallery", 100 + j))
    pd.DataFrame(rows, columns=["path", "pid", "where", "split", "when"]).to_csv(own / "domain.csv", index=False)
    pd.DataFrame({"path": [r[0] for r in rows[:40]], "hat": .75,
                  "bag": np.linspace(0, 1, 40)}).to_csv(tmp_path / "their.csv", index=False)
    shown, folder, deployed, results = adapt(f"target={own / 'domain.csv'}", "camera=where", "time=when",
                                             f"parts_from={tmp_path / 'maps'}",
                                             f"attributes_from={tmp_path / 'their.csv'}", "deploy=BL+BN^t")
    assert ("6 people are labelled" in shown and "parser on" not in shown and "conflicts" in shown and "measured on "
            "the images that were adapted to" not in shown.lower())
    table = pd.read_csv(next(folder.glob("*scores.csv"))).set_index("method")
    assert {"BL", "BL+BN^t", "BL+BN^c", "PTL+BN^t"} == set(table.index)
    facts = json.loads(next(folder.glob("*.json")).read_text())
    assert facts["method"] == "BL+BN^t" and set(facts["cameras"].values()) >= {"east", "west"}
    assert any(line.startswith("**Identification**") and "BL+BN^t" in line for line in facts["verdict"])
    assert "mAP (trapezoid)" in (deployed / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_from_a_start_that_ships_no_label_is_made_and_no_source_learnt(adapt, tmp_path):
    "The default way at smoke length: start, its controls, clusters from 200 images on."
    corridor = load_domain("corridor")
    (tmp_path / "own").mkdir()
    some = corridor.train[:210]
    for i, path in enumerate(some.path): shutil.copyfile(corridor.root / path, tmp_path / f"own/{i}.jpg")
    tracked = some.assign(path=[f"{i}.jpg" for i in range(210)], split="train", tracklet=some.pid, pid=-1,
                          time=some.groupby(["pid", "camid"]).cumcount().to_numpy())      # all walk at the same time
    tracked.to_csv(tmp_path / "own/domain.csv", index=False)
    shown, folder, deployed, results = adapt(f"target={tmp_path / 'own/domain.csv'}", "time=time",
                                             "changes=start=rendered")
    assert "no step learns from proxy labels" in shown and "210 images, 200 or more" in shown
    assert {run.name.rsplit("-", 1)[0] for run in (results / "runs").glob("[!.]*")} == {
        "start-plaza-seed-0", "start-CC-plaza-own-seed-0"}
    net, told = load_deploy(deployed)
    rounds = pd.read_csv(next(folder.glob("*-rounds.csv")))
    stopped = isinstance(rounds.stopped.iloc[0], str)
    assert told["method"] == ("start" if stopped else "start+CC") and told["input"]["height"] == 128
    card = (deployed / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "1,000 rendered people; photographs seen: none" in card and "source: " not in card
    limits = told["threshold"]
    assert 0 < limits["distance"] < 1 and limits["wanted"] == .01 and limits["text"] in card and limits["text"] in shown
    assert card.startswith("---\nlicense: ") and list(folder.glob("*-threshold.png"))
    again = pd.read_csv(next(folder.glob("*-reassociation.csv")))
    assert set(again.model) >= {"start"} and again.found.between(0, 1).all() and "Tracklets found again within a camera" in card
    assert json.loads((deployed / "tracker.json").read_text())["threshold"]["distance"] == limits["distance"]
    assert not list(folder.glob("*-people.png")) and not list(folder.glob("*scores*"))
    page = next(folder.glob("*-pairs.html")).read_text(encoding="utf-8")
    assert "pairs.html: open it in a browser" in shown and 20 < page.count('"weight"') <= 120


@pytest.mark.slow
def test_bad_files_stop_it_before_any_training(tmp_path, people, monkeypatch):
    monkeypatch.setitem(ENV, "TMPDIR", str(tmp_path))
    for i in range(13): put(tmp_path / "own", f"{i}.jpg", people[0][i])
    (tmp_path / "own/gone.jpg").symlink_to("nowhere")
    for name in ("x.jpg", "y.jpg"): (tmp_path / "own" / name).write_bytes(b"no image")
    done = papermill("adapt", tmp_path / "out.ipynb", f"target={tmp_path / 'own'}")
    last = done.stderr.split("Traceback")[-1]
    assert (done.returncode != 0 and "3 files cannot be used" in last and "x.jpg" in last and "y.jpg" in last
            and "gone.jpg" in last)
    assert set(re.findall(r"(\d+) files? cannot be used", done.stderr)) == {"3"}, "a shorter list is shown first"
    assert "seed 0: " not in outputs(tmp_path / "out.ipynb") and not list(tmp_path.glob("ptl-smoke-*/runs"))


@pytest.mark.parametrize("images, parameter, says", [
    (11, "seed=0", "own has 11 images to adapt to; give at least 12"),
    (13, "steps=start,cluster", "steps names 'cluster'; did you mean 'clusters'?"),
    (13, "steps=ptl", "write start, then ptl if wanted"),
    (13, "attributes_from=their.csv", "attributes of 2 to 3 classes"),
    (13, "deploy=PTL+SSG", "this run makes BL, BL+BN^t, PTL+BN^t"),
    (13, "changes=start=rendred", "there is no start 'rendred'; did you mean 'rendered'?"),
    (13, "changes=start=rendered,backbone=resnet18", "but the start 'rendered' has 'mini'")])
def test_what_cannot_be_adapted_to_is_refused_before_any_training(tmp_path, people, images, parameter, says):
    for i in range(images): put(tmp_path / "own", f"{i}.jpg", people[0][i])
    third = [1 / 3] * 3
    pd.DataFrame([(f"{i}.jpg", .5, .5, *third) for i in range(images)],
                 columns=["path", "hat=no", "hat=yes", "hair=none", "hair=short",
                          "hair=long"]).to_csv(tmp_path / "their.csv", index=False)
    refused = refusal("adapt", f"target={tmp_path / 'own'}",
                      parameter.replace("their.csv", str(tmp_path / "their.csv")))
    assert says in refused.says
    assert "parser on" not in refused.shown and "seed 0: " not in refused.shown
    assert all(run.startswith("imported") for run in refused.runs), refused.runs


@pytest.mark.slow
@pytest.mark.skipif("PTL_REAL" not in os.environ,
                    reason="set PTL_REAL to a folder with crops/ and a domain.csv of real people")
def test_real_crops_of_a_stranger(adapt):
    shown, folder, deployed, _ = adapt(f"target={Path(os.environ['PTL_REAL']) / 'crops'}", r"camera=_c(\d)",
                                       r"time=_(\d{6})_", "steps=start,ptl,ssg†")
    assert ("586 images to adapt to" in shown and "LEARNT FROM RENDERED PEOPLE" in shown and "was not measured" in shown)
    assert (load_deploy(deployed)[1]["method"] in ("PTL+SSG†", "PTL")
            and os.environ["PTL_REAL"].encode() not in next(folder.glob("*.json")).read_bytes())
