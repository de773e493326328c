"""Search against a plain sort on many random galleries, an index that survives an interrupted save, and find from a
shell."""
import json
import re
import shutil
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import outputs, papermill, refusal

from ptl_nb import gallery as index_module
from ptl_nb import search as search_module
from ptl_nb.domains import load_domain
from ptl_nb.export import write_model
from ptl_nb.gallery import GalleryIndex, add_images, build_index, full_rows, load_index, remove_images, save_index
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.search import (
    allowed_rows, camera_number, camera_numbers, choose_rule, excluded_rows, named_gallery, query_rows, search)


def gallery(n: int, d: int, rng: np.random.Generator, levels: int = 3) -> GalleryIndex:
    "Features of few different values, so that many similarities are equal and all are exact."
    x = rng.integers(-levels, levels + 1, (n, d)).astype(np.float32)
    rows = pd.DataFrame({
        "path": [f"{i}.jpg" for i in range(n)],
        "pid": rng.integers(1, 7, n),
        "camid": rng.integers(1, 4, n),
        "time": rng.integers(0, 50, n),
    })
    return GalleryIndex(x, full_rows(rows), "m", Path("somewhere"))


def plain(index: GalleryIndex, queries: GalleryIndex, top: int, camera, since, rule: str) -> list[list[int]]:
    "Rows of the answers to each query, by the words of the rules."
    out = []
    for feature, asked in zip(queries.features, queries.rows.itertuples()):
        may = [i for i, r in enumerate(index.rows.itertuples()) if (camera is None or r.camid in camera)
               and (since is None or r.time >= since) and r.path != asked.path
               and not (rule == "camera" and r.camid == asked.camid)
               and not (rule == "evaluation" and r.camid == asked.camid and r.pid == asked.pid)]
        out.append(sorted(may, key=lambda i: (-float(index.features[i] @ feature), i))[:top])
    return out


@pytest.mark.parametrize("seed", range(40))
def test_every_search_is_a_stable_sort_of_what_may_be_found(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(search_module, "BLOCK_ROWS", int(rng.integers(1, 40)))
    monkeypatch.setattr(search_module, "BLOCK_BYTES", int(rng.integers(4, 2000)))
    index = gallery(int(rng.integers(20, 90)), 3, rng)
    queries = index.take(rng.permutation(len(index))[:5])
    camera = [None, [1], [1, 3]][seed % 3]
    since = [None, 10][seed % 2]
    top = int(rng.integers(1, 30))
    rule = ["self", "camera", "evaluation"][seed // 2 % 3]
    found = search(index, queries, top, camera, since, leave_out=rule)
    assert [found[found["query"] == q].row.tolist() for q in range(5)] == plain(index, queries, top, camera, since,
                                                                                rule)


def test_similarities_of_all_pairs_are_never_held():
    rng = np.random.default_rng(0)
    index = gallery(40_000, 16, rng)
    queries = index.take(np.arange(1000))
    tracemalloc.start()
    search(index, queries, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000 * 1000 * 4 / 2


def test_an_interrupted_save_leaves_the_old_index(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    old, new = gallery(30, 4, rng), gallery(50, 4, rng)
    save_index(old, tmp_path)
    for victim in ("write_json", "write_csv"):
        with monkeypatch.context() as patch:
            patch.setattr(index_module, victim, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt): save_index(new, tmp_path)
        assert load_index(tmp_path).rows.equals(old.rows)
    reader = load_index(tmp_path)
    save_index(new, tmp_path)
    assert np.array_equal(reader.features, old.features), "a reader's mapped features were changed under it"
    assert len(load_index(tmp_path)) == 50 and len(list(tmp_path.glob("[!.]*"))) == 3


def test_an_index_is_read_while_it_is_replaced(tmp_path):
    "The files of the index before are gone as soon as there is a new one: whoever was about to open them opens those."
    rng = np.random.default_rng(0)
    over = threading.Event()
    read = 0
    made = gallery(30, 4, rng), gallery(50, 4, rng)
    save_index(made[0], tmp_path)
    def replace_it() -> None:
        for i in range(150): save_index(made[i % 2 - 1], tmp_path)
        over.set()
    writer = threading.Thread(target=replace_it)
    writer.start()
    while not over.is_set():
        assert len(load_index(tmp_path)) in (30, 50)
        read += 1
    writer.join()
    assert read > 20


@pytest.mark.slow
def test_a_large_index_is_never_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "BLOCK_IMAGES", 1000)
    whole = gallery(30_000, 128, np.random.default_rng(0))
    size = whole.features.nbytes
    save_index(whole.take(np.arange(28_000)), tmp_path)
    more = whole.take(np.arange(28_000, 30_000))
    expected = whole.features[7:]
    del whole
    tracemalloc.start()
    index = load_index(tmp_path)
    for step in (lambda: add_images(index, more, tmp_path),
                 lambda: remove_images(index, [f"{i}.jpg" for i in range(7)], tmp_path)):
        index = step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(index.features, np.memmap) and np.array_equal(index.features, expected)
    # what there is are the rows' names, times and places
    assert len(list(tmp_path.glob("[!.]*"))) == 3 and peak < size, f"{peak / size:.2f} of the features"


def test_building_in_a_folder_or_in_memory_is_the_same_to_the_bit(tmp_path, monkeypatch):
    corridor = load_domain("corridor")
    torch.manual_seed(0)
    net = PTLNet(3, backbone_name="mini")
    whole = build_index(net, RECIPES["smoke"], corridor)
    monkeypatch.setattr(index_module, "BLOCK_IMAGES", 256)
    mapped = build_index(net, RECIPES["smoke"], corridor, folder=tmp_path)
    assert isinstance(mapped.features, np.memmap) and len(mapped) == len(corridor.gallery) > 256
    assert (np.array_equal(mapped.features, whole.features) and mapped.rows.equals(whole.rows)
            and mapped.root == corridor.root)
    saved = load_index(save_index(whole, tmp_path / "again"))
    assert Path(saved.features.filename).name == Path(mapped.features.filename).name, "another content hash"


def test_features_that_are_too_few_leave_no_index(tmp_path, monkeypatch):
    whole = gallery(30, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="20 features for 30 images"):
        index_module._save(tmp_path, [whole.features[:20]], whole.rows, "m", tmp_path, False, None)
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize("break_it, says", [
    (lambda f: (f / "index.json").write_text("{"), "cannot be read"),
    (lambda f: next(f.glob("*.npy")).unlink(), "cannot be read"),
    (lambda f: (f / "index.json").write_text("[]"), "cannot be read"),
    (lambda f: next(f.glob("*.npy")).write_bytes(b"text"), "cannot be read"),
    (lambda f: next(f.glob("*.npy")).write_bytes(b""), "cannot be read"),
    (lambda f: next(f.glob("*.csv")).write_text(""), "cannot be read"),
    (lambda f: next(f.glob("*.csv")).write_bytes(b"path\n\xff\n"), "cannot be read"),
    (lambda f: next(f.glob("*.csv")).write_text("path,pid,camid,time\na.jpg,1,1,\n"), "30 features for 1 images"),
    (lambda f: (f / "index.json").write_text((f / "index.json").read_text().replace('"images": 30', '"images": 31')),
     "its index.json says (31, 4)"),
])
def test_a_damaged_index_is_refused(tmp_path, break_it, says):
    save_index(gallery(30, 4, np.random.default_rng(0)), tmp_path)
    break_it(tmp_path)
    with pytest.raises(ValueError) as error: load_index(tmp_path)
    assert says in str(error.value)


@pytest.mark.parametrize("table", ["domain.csv", "DOMAIN.CSV", "~"])
def test_times_of_a_csv_reach_the_index(tmp_path, monkeypatch, table):
    monkeypatch.setenv("HOME", str(tmp_path))
    place, table = ("~", "domain.csv") if table == "~" else (tmp_path, table)
    campus = load_domain("campus")
    names = sorted(Path(shutil.copy(file, tmp_path)).name for file in campus.files(campus.gallery[:3]))
    named = enumerate(zip(names, ("2024-05-01T08:00", "", "2024-05-01T09:00")))
    (tmp_path / table).write_text("path,pid,camid,split,time\n"
                                  + "".join(f"{n},-1,{i + 1},train,{t}\n" for i, (n, t) in named))
    domain, times = named_gallery(f"{place}/{table}", campus)
    torch.manual_seed(0)
    index = build_index(PTLNet(3, backbone_name="mini"), RECIPES["smoke"], domain, times=times)
    assert search(index, index.take([0]), since="2024-05-01").path.tolist() == [names[2]]


def test_a_folder_that_holds_a_table_has_its_times_and_labels(tmp_path):
    campus = load_domain("campus")
    for file in campus.files(campus.gallery[:4]): shutil.copy(file, tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    rows = zip(names, (1, 2, 1, 2), (1, 1, 2, 2), ("query", "query", "gallery", "gallery"), "7 8 9 ".split(" "))
    (tmp_path / "domain.csv").write_text(
        "path,pid,camid,split,time\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    )
    for place in (tmp_path, tmp_path / "domain.csv"):
        domain, times = named_gallery(str(place), campus)
        assert len(domain.gallery) == 2 and times[names[0]] == 7 and pd.isna(times[names[3]])
    asked = query_rows(str(tmp_path), None)[1]
    assert asked.path.tolist() == names[:2] and asked.pid.tolist() == [1, 2] and asked.camid.tolist() == [1, 1]


def timed(*times) -> GalleryIndex:
    rows = pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(times))], "camid": 1, "time": times})
    return GalleryIndex(np.eye(len(times), dtype=np.float32), full_rows(rows), "m", Path("somewhere"))


@pytest.mark.parametrize("until, last", [
    ("2024-05-01", "2024-05-01T23:59:59.999999"), ("2024-05", "2024-05-31T23:59:59.999999"),
    ("2024-05-01T10", "2024-05-01T10:59:59.999999"), ("2024-05-01T10:30", "2024-05-01T10:30:59.999999"),
    ("2024-05-01 10:30:15", "2024-05-01T10:30:15.999999"), ("20240501T1030", "2024-05-01T10:30:59.999999"),
    ("2024-05-01T10:30+02:00", "2024-05-01T08:30:59.999999"), ("2024-05-01T24:00", "2024-05-02T00:00"),
    (pd.Timestamp("2024-05-01T10:30"), "2024-05-01T10:30"),
    (np.datetime64("2024-05-01"), "2024-05-01T23:59:59.999999")])
def test_a_coarse_upper_bound_means_its_end(until, last):
    last = pd.Timestamp(last)
    index = timed(last - pd.Timedelta(1, "us"), last, last + pd.Timedelta(1, "us"), None)
    assert allowed_rows(index, until=until).tolist() == [0, 1]


@pytest.mark.parametrize("bounds, rows", [
    ({"until": 0}, [0, 1]), ({"until": "0"}, [0, 1]), ({"since": 0}, [1, 2, 3]), ({"since": "-1", "until": "-1"}, [0]),
    ({"since": "", "until": ""}, [0, 1, 2, 3, 4])])
def test_0_is_a_bound_and_empty_is_none(bounds, rows):
    assert allowed_rows(timed(-1, 0, 1, 1714550400.5, None), **bounds).tolist() == rows


def test_nobody_is_nobodys_match():
    "Pid -1 is unknown and 0 a distractor: neither is a person that somebody asks for, whatever number the query has."
    index = timed(*range(4))
    index = replace(index, rows=index.rows.assign(pid=[-1, 0, 1, 0]))
    asked = index.take([2])
    assert [out.tolist() for out in excluded_rows(index, asked, "evaluation")] == [[2]]
    nobody = index.take([1])
    assert choose_rule(index, nobody, "auto") == "self" and search(index, nobody).same.tolist() == ["?", "no", "?"]
    with pytest.raises(ValueError, match="nobody knows who query '1.jpg' is .people are counted from 1"):
        excluded_rows(index, nobody, "evaluation")


def test_cameras_of_query_and_gallery_are_told_by_name():
    "Two folders number their cameras each for itself."
    index = replace(timed(1, 2, 3), cameras={1: "door", 2: "till"}, rows=timed(1, 2, 3).rows.assign(camid=[1, 2, 2]))
    asked = replace(index.take([0]), root=Path("elsewhere"), cameras={1: "till"})
    assert [out.tolist() for out in excluded_rows(index, asked, "camera")] == [[1, 2]]


@pytest.mark.parametrize("text, cameras, camid", [
    ("1", {1: "0", 2: "1", 3: "2"}, 2), ("0", {1: "0", 2: "1", 3: "2"}, 1), ("", {1: "0"}, 0), ("2", None, 2),
    ("Tu\u0308r", {4: "Tür"}, 4), ("1", {1: "01", 7: "07"}, 1), ("2", {1: "door", 2: "till"}, 2)])
def test_a_camera_is_named_the_same_way_everywhere(text, cameras, camid):
    assert camera_number(text, cameras) == camid and camera_numbers(text, cameras) == ([camid] if text else None)


def test_features_of_any_memory_layout():
    index = gallery(30, 4, np.random.default_rng(0))
    same = [
        np.asfortranarray(index.features),
        np.repeat(index.features, 2, 1)[:, ::2],
        index.features[::-1].copy()[::-1],
    ]
    for x in same:
        other = replace(index, features=x)
        assert other.content == index.content
        assert search(other, index.take([0])).equals(search(index, index.take([0])))
    odd = (index.features.astype(">f4"), ">f4"), (index.features.tolist(), "a list")
    nothing = np.full_like(index.features, np.nan)
    for x, says in (*odd, (nothing, "not finite")):
        with pytest.raises(ValueError, match=says): replace(index, features=x)
    assert len(search(index, index.take([0]), 10**9)) == 29


def test_features_of_two_lengths_never_replace_an_index(tmp_path):
    index = gallery(30, 4, np.random.default_rng(0))
    other = replace(gallery(3, 2, np.random.default_rng(0)), root=Path("other"))
    save_index(index, tmp_path)
    with pytest.raises(ValueError, match="2 and of 4 dimensions"): add_images(load_index(tmp_path), other, tmp_path)
    assert np.array_equal(load_index(tmp_path).features, index.features)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    net = PTLNet(3, backbone_name="mini")
    folder = tmp_path_factory.mktemp("model")
    save_index(build_index(net, RECIPES["smoke"], load_domain("corridor"), ["gallery"]), folder / "index")
    write_model(net, RECIPES["smoke"], folder / "exported")
    return folder / "exported"


@pytest.mark.slow
def test_find_with_an_exported_model_in_a_folder_of_ones_own(tmp_path, model):
    corridor = load_domain("corridor")
    crops = tmp_path / "Größe und 東京"
    for i, file in enumerate(corridor.files(corridor.gallery[:9])):
        place = crops / ("Tür", "Kasse 2")[i % 2] / f"Person {i} é t{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    run = papermill("find", tmp_path / "out.ipynb", f"model={model}", f"gallery={crops}",
                    f"query={crops / 'Tür/Person 4 é t4.png'}", "top=3", "maps=2", "parts=False", "camera=Tür",
                    r"gallery_time=t(\d+)", "until=6")
    assert run.returncode == 0, run.stderr[-3000:]
    shown = outputs(tmp_path / "out.ipynb")
    assert ("9 images x" in shown and "leave out: self" in shown and "1 Kasse 2, "
            "2 T" in shown and "with 4 Axes" in shown and "with 2 Axes" in shown)
    said = "".join(t for c in json.loads((tmp_path / "out.ipynb").read_text())["cells"] for o in c.get("outputs", [])
                   for t in o.get("text", []) if o["output_type"] == "stream")
    results = [line for line in said.splitlines() if line.startswith("own/smoke/find/")]
    assert len(results) == 4 and any(line.endswith("-maps.png") for line in results)
    assert "Market-1501 is not under" not in shown, "a warning about domains that are not used"
    found = re.findall(r"Person (\d)", shown.split("similarity")[1])
    assert found and {int(i) for i in found} <= {0, 2, 4, 6}


@pytest.mark.slow
def test_find_takes_a_query_camera_by_name_and_0_for_a_bound(tmp_path, model):
    corridor = load_domain("corridor")
    for i, file in enumerate(corridor.files(corridor.gallery[:7])):
        place = tmp_path / "crops" / str(i % 3) / f"Person {i} t{i // 3}.png" if i < 6 else tmp_path / "asked.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    run = papermill(
        "find",
        tmp_path / "out.ipynb",
        f"model={model}",
        f"gallery={tmp_path / 'crops'}",
        f"query={tmp_path / 'asked.png'}",
        "query_camera=1",
        "leave_out=camera",
        r"gallery_time=t(\d+)",
        "until=0",
        "maps=0",
        "parts=False",
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert set(re.findall(r"\d/Person (\d)", outputs(tmp_path / "out.ipynb"))) == {"0", "2"}


@pytest.mark.parametrize("parameters, says", [
    (("gallery=INDEX", "method=BL"), "features of two models cannot be compared"),
    (("query=row:99999",), "has rows row:0 to"),
    (("query=nobody.jpg",), "does not exist; give an image file"),
    (("camera=door",), "these cameras have no names"),
    (("query=row:0", "query_camera=1"), "a camera goes with images given as files"),
    (("query=row:0", "leave_out=camera", "camera=1"), "leave no image that may be an answer"),
])
def test_find_refuses_what_cannot_be_asked(model, parameters, says):
    given = [p.replace("INDEX", str(model.parent / "index")) for p in parameters]
    assert says in refusal("find", "target=corridor", *given).says
