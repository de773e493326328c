"""Domains read from files on disk: layouts, broken trees, tables that must be refused."""
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from ptl_nb.dataset_readers import CUHK03_IMAGES, CUHK03_SPLIT
from ptl_nb.domain import SPLITS, TREE
from ptl_nb.domains import load_domain, table1

MARKET, DUKE, NP = "{:04d}_c{}s1_{:06d}_00.jpg", "{:04d}_c{}_f{:07d}.jpg", "{:04d}_c{}_{:d}.png"


def touch(path, colour=0):
    "A tiny image whose bytes depend on `colour`."
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 8), (colour % 256, 0, 0)).save(path)
    return path


def tree(folder, name=MARKET):
    "Pids 1-3 in train, 4-6 in test, two cameras, one distractor: 12 train, 3 query, 10 gallery."
    for pid in range(1, 7):
        for take in range(4):
            part = "bounding_box_train" if pid < 4 else "query" if take == 0 else "bounding_box_test"
            touch(folder / part / name.format(pid, 1 + take % 2, take), pid * 10 + take)
    touch(folder / "bounding_box_test" / name.format(0, 2, 77))
    return folder


def mat(folder, suffix=".png", listed=".png", sub="", **changes):
    "CUHK03's split file and images: pids 1-3 in train, 4-6 in test, two cameras of two takes each."
    rows = [(pid, cam, take) for pid in range(1, 7) for cam in (1, 2) for take in (1, 2)]
    for i, (pid, cam, take) in enumerate(rows):
        touch(folder / CUHK03_IMAGES / sub / f"1_{pid:03d}_{cam}_{take:02d}{suffix}", i)
    pid, cam, take = np.array(rows).T
    def at(mask): return (np.flatnonzero(mask) + 1).astype(np.uint16)[:, None]
    content = {"filelist": np.array([f"1_{p:03d}_{c}_{t:02d}{listed}" for p, c, t in rows], dtype=object)[:, None],
               "labels": pid.astype(np.uint16)[:, None], "camId": cam.astype(np.uint8)[:, None],
               "train_idx": at(pid < 4),
               "query_idx": at((pid > 3) & (take == 1)), "gallery_idx": at((pid > 3) & (take == 2))}
    savemat(folder / CUHK03_SPLIT, {k: v for k, v in (content | changes).items() if v is not None})
    return folder


def csv(folder, *lines, head="path,pid,camid,split"):
    "A domain.csv with eight images (train 2, query 2, gallery 4) and the lines given."
    names = [touch(folder / "crops" / f"{i}.jpg", i).name for i in range(8)]
    rows = [f"crops/{names[0]},1,1,train", f"crops/{names[1]},2,1,train", f"crops/{names[2]},3,1,query",
            f"crops/{names[3]},4,1,query"]
    rows += [f"crops/{names[4 + i]},{3 + i % 2},2,gallery" for i in range(4)]
    (folder / "domain.csv").write_text("\n".join((head, *rows, *lines)) + "\n", encoding="utf-8")
    return folder / "domain.csv"


def sizes(domain):
    return [len(getattr(domain, split)) for split in SPLITS]


@pytest.fixture(autouse=True)
def warnings_are_errors():
    "Whatever a test does not expect to warn must not."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name, folder, pattern", [
    ("market", "market", MARKET), ("market", "Market-1501-v15.09.15", MARKET), ("market", "Market-1501", MARKET),
    ("market", "market1501/Market-1501-v15.09.15", MARKET), ("market", ".", MARKET),
    ("duke", "DukeMTMC-reID", DUKE), ("duke", "duke", DUKE), ("duke", "dukemtmc-reid/DukeMTMC-reID", DUKE),
    ("cuhk03", "cuhk03-np/detected", NP), ("cuhk03", "CUHK03", NP), ("cuhk03", "cuhk03", NP)])
def test_tree_layouts(tmp_path, name, folder, pattern):
    tree(tmp_path / folder, pattern)
    (tmp_path / folder / "query" / "Thumbs.db").touch()
    for origin in ("real", "auto"):
        domain = load_domain(name, root=tmp_path, origin=origin)
        assert (domain.name, domain.standin, sizes(domain)) == (name, False, [12, 3, 10])
    assert set(domain.gallery["pid"]) == {0, 4, 5, 6} and set(domain.train["camid"]) == {1, 2}
    assert domain.query["path"].is_monotonic_increasing and all(f.is_file() for f in domain.files(domain.gallery))


def test_junk_is_dropped_and_links_are_followed(tmp_path):
    tree(tmp_path / "elsewhere")
    touch(tmp_path / "elsewhere/bounding_box_test/-1_c1s1_000001_00.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/market").symlink_to(tmp_path / "elsewhere")
    assert sizes(load_domain("market", root=tmp_path / "data", origin="real")) == [12, 3, 10]


@pytest.mark.parametrize("options", [{}, {"suffix": ".jpg"}, {"suffix": ".JPG", "sub": "camera pair 1"}])
def test_cuhk03_mat(tmp_path, options):
    domain = load_domain("cuhk03", root=mat(tmp_path / "cuhk03", **options).parent, origin="real")
    assert (sizes(domain) == [12, 6, 6] and set(domain.query["pid"]) == {4, 5, 6}
            and str(domain.query["pid"].dtype) == "int64")
    assert (domain.query["path"][0].startswith("images_detected/")
            and all(f.is_file() for f in domain.files(domain.train)))


@pytest.mark.parametrize("changes, says", [
    ({"labels": None}, "has no labels"), ({"query_idx": np.uint16([[0], [1]])}, "query_idx runs from 0"),
    ({"train_idx": np.uint16([[1], [25]])}, "images 1 to 24"), ({"labels": np.uint16([[1]])}, "differ in length"),
    ({"train_idx": np.zeros((0, 1), np.uint16)}, "no train images"),
    ({"gallery_idx": np.uint16([[13], [14]])}, "more than once")])
def test_cuhk03_mat_refused(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        load_domain("cuhk03", root=mat(tmp_path / "cuhk03", **changes).parent)


def test_cuhk03_mat_missing_image_and_broken_file(tmp_path):
    folder = mat(tmp_path / "cuhk03")
    (folder / "images_detected/1_001_1_01.png").unlink()
    with pytest.raises(ValueError, match="1 of the 12 train images .* first '1_001_1_01'"):
        load_domain("cuhk03", root=tmp_path)
    (folder / CUHK03_SPLIT).write_bytes(b"not a mat file")
    with pytest.raises(ValueError, match="cannot be read"):
        load_domain("cuhk03", root=tmp_path)


@pytest.mark.parametrize("damage, says", [
    (lambda f: shutil.rmtree(f / "query"), "query: missing"),
    (lambda f: [p.unlink() for p in (f / "bounding_box_test").iterdir()], "bounding_box_test: empty"),
    (lambda f: [shutil.rmtree(f / p) for p in ("query", "bounding_box_test")], "bounding_box_train: 12 images")])
@pytest.mark.parametrize("origin", ["real", "auto"])
def test_half_extracted(tmp_path, damage, says, origin):
    damage(tree(tmp_path / "market"))
    with pytest.raises(FileNotFoundError, match=f"half-extracted.*{says}"):
        load_domain("market", root=tmp_path, origin=origin)


def test_missing_says_where_to_put_it(tmp_path):
    (tmp_path / "Market-1501-v15.09.15.zip").touch()
    with pytest.raises(FileNotFoundError,
                       match="zip lies there.*Market-1501-v15.09.15 with bounding_box_train, query.*market1501.*plaza"):
        load_domain("market", root=tmp_path, origin="real")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_domain("cuhk03", root=tmp_path / "nowhere", origin="real")


@pytest.mark.parametrize("file, says", [
    ("bounding_box_train/holiday.jpg", "1 of 13 images .* first 'holiday.jpg'"),
    ("query/0004_c0s1_000000_00.jpg", "break the name pattern"),
    ("query/-2_c1s1_000000_00.jpg", "break the name pattern"), ("query/0004_c1_f0000001.jpg", "Market-1501"),
    ("query/0001_c1s1_000009_00.jpg", "both in train and in query")])
def test_wrong_names(tmp_path, file, says):
    touch(tree(tmp_path / "market") / file)
    with pytest.raises(ValueError, match=says):
        load_domain("market", root=tmp_path)


def test_too_few_identities(tmp_path):
    folder = tree(tmp_path / "market")
    for path in folder.glob("bounding_box_train/000[12]*"):
        path.unlink()
    with pytest.raises(ValueError, match="fewer than two identities in train .only pid 3"):
        load_domain("market", root=tmp_path)


def test_only_junk(tmp_path):
    folder = tree(tmp_path / "market")
    for path in (folder / "query").iterdir():
        path.rename(path.with_name(path.name.replace(path.name[:4], "-1")))
    with pytest.raises(ValueError, match="no query images besides junk"):
        load_domain("market", root=tmp_path)


def test_other_entries_are_reported(tmp_path):
    folder = tree(tmp_path / "market")
    (folder / "query/notes.txt").touch()
    with pytest.warns(UserWarning, match="left out what is not an image .1 in all.: notes.txt"):
        assert sizes(load_domain("market", root=tmp_path)) == [12, 3, 10]


def test_marker_keeps_a_standin_a_standin(tmp_path):
    folder = tree(tmp_path / "market")
    (folder / "standin.json").write_text(json.dumps({"name": "plaza", "stands_for": "market", "more": 1}))
    for domain in (load_domain("market", root=tmp_path, origin="real"), load_domain(folder),
                   load_domain(folder / "query")):
        assert domain.standin and domain.title == "plaza (rendered stand-in for market)"
    tree(tmp_path / "market1501")
    assert not load_domain("market", root=tmp_path, origin="real").standin  # the recorded one goes first
    (folder / "standin.json").rename(tmp_path / "market1501/standin.json").write_text("{")
    with pytest.raises(ValueError, match="not a stand-in's marker"):
        load_domain("market", root=tmp_path / "market1501")


def test_hash_depends_on_content_only(tmp_path):
    first = load_domain("market", root=tree(tmp_path / "a/market").parent)
    second = load_domain("market", root=tree(tmp_path / "b/Market-1501").parent)
    assert first.data_hash() == second.data_hash() and len(first.data_hash()) == 64
    touch(second.files(second.train)[3], 200)
    assert second.data_hash() == first.data_hash()  # computed once
    assert load_domain("market", root=tmp_path / "b").data_hash() != first.data_hash()
    assert load_domain("market", root=tmp_path / "a").data_hash() == first.data_hash()


def test_hash_sees_labels(tmp_path):
    path = csv(tmp_path)
    before = load_domain(path).data_hash()
    path.write_text(path.read_text().replace("crops/0.jpg,1", "crops/0.jpg,9"))
    assert load_domain(path).data_hash() != before


def test_csv(tmp_path):
    domain = load_domain(csv(tmp_path / "my cameras"))
    assert (domain.name, domain.standin, sizes(domain)) == ("my cameras", False, [2, 2, 4])
    assert domain.query.to_numpy().tolist() == [["crops/2.jpg", 3, 1], ["crops/3.jpg", 4, 1]]


def test_csv_extra_columns_blank_lines_bom_junk_and_odd_names(tmp_path):
    names = ["ünïcode/人 1.jpg", "with blank/a b.png", "comma, quote\".jpg", "0.TIF"]
    for i, name in enumerate(names):
        touch(tmp_path / name, i)
    touch(tmp_path / "junk.jpg")
    rows = [f'"{name.replace(chr(34), chr(34) * 2)}", {i + 1} ,1,train,x' for i, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("path,pid,camid,split,frame\n" + "\n\n".join(rows) + "\n\n",
                                       encoding="utf-8-sig")
    domain = load_domain(tmp_path / "list.csv")
    assert (domain.name == "list" and sorted(domain.train["path"]) == sorted(names)
            and all(f.is_file() for f in domain.files(domain.train)))
    assert len(domain.data_hash()) == 64
    assert sizes(load_domain(csv(tmp_path / "c", "crops/../crops/./7b.jpg,-1,1,gallery")
                             if touch(tmp_path / "c/crops/7b.jpg") else 0)) == [2, 2, 4]


@pytest.mark.parametrize("line, says", [
    ("crops/9.jpg,1,1,train", "line 10: path 'crops/9.jpg' does not exist"),
    ("crops/0.jpg,1,1,query", "line 10: .*more than once"),
    ("./crops//0.jpg,1,1,train", "more than once"), ("../x.jpg,1,1,train", "leaves the folder"),
    ("/etc/x.jpg,1,1,train", "is absolute"),
    ("crops/../../x.jpg,1,1,train", "leaves the folder"), (",1,1,train", "path '' is empty"),
    ("crops\\0.jpg,1,1,train", "forward slashes"),
    ("x.jpg,1.5,1,train", "pid '1.5' is not an integer"), ("x.jpg,,1,train", "pid '' is not an integer"),
    ("x.jpg,1,c2,train", "camid 'c2'"),
    ("x.jpg,1,0,train", "count from 1"), ("x.jpg,-3,1,train", "is negative"), ("x.jpg,-1,1,query", "cannot be a query"),
    ("x.jpg,-1,1,train", "label all of them or none"), ("x.jpg,1,1,trian", "did you mean 'train'"),
    ("x.jpg,1,1,test", "known: train, query, gallery"),
    ("domain.csv,1,1,train", "does not end like an image"), ("x.jpg,1,1", "split '' is unknown"),
    ("x.jpg,1,1,train,9", "cannot be read")])
def test_csv_lines_refused(tmp_path, line, says):
    with pytest.raises(ValueError, match=says):
        load_domain(csv(tmp_path, line))


def test_csv_tables_refused(tmp_path):
    with pytest.raises(ValueError, match="no column 'pid'; did you mean 'pids'"):
        load_domain(csv(tmp_path, head="path,pids,camid,split"))
    for content, says in ((b"", "cannot be read"), (b"path,pid,camid,split\n", "lists no images"),
                          (b"path,pid\n\xff\xfe,1\n", "UTF-8"),
                          (b"path,pid,camid,split\ncrops/0.jpg,1,1,train\n", "fewer than two identities"),
                          (b"path,pid,camid,split\ncrops/0.jpg,1,1,query\n", "no gallery images")):
        (tmp_path / "domain.csv").write_bytes(content)
        with pytest.raises(ValueError, match=says):
            load_domain(tmp_path / "domain.csv")


@pytest.mark.parametrize("split", ["train", "query"])
def test_people_are_counted_from_1(tmp_path, split):
    "Pid 0 marks a gallery's distractors: whoever counts people from 0 would have one of them taken for nobody."
    path = csv(tmp_path)
    text = path.read_text()
    path.write_text(
        text.replace(
            {"train": "0.jpg,1,", "query": "2.jpg,3,"}[split], {"train": "0.jpg,0,", "query": "2.jpg,0,"}[split]
        )
    )
    with pytest.raises(ValueError, match=f"line {2 if split == 'train' else 4}: pid '0' .*count people from 1"):
        load_domain(path)
    path.write_text(text.replace("7.jpg,4,", "7.jpg,0,"))
    assert (load_domain(path).gallery.pid == 0).sum() == 1
    folder = tree(tmp_path / "market")
    for file in [*(folder / TREE[split]).glob("000[14]*")]: file.rename(file.with_name("0000" + file.name[4:]))
    with pytest.raises(ValueError, match=f"pid 0 in {split}"): load_domain("market", root=tmp_path)


def test_the_released_split_of_cuhk03_may_count_from_0(tmp_path):
    pids = np.repeat(np.arange(6), 4).astype(np.uint16)[:, None]
    domain = load_domain("cuhk03", root=mat(tmp_path / "cuhk03", labels=pids).parent, origin="real")
    assert [sorted(t.pid.unique()) for t in (domain.train, domain.query, domain.gallery)] == [
        [1, 2, 3],
        [4, 5, 6],
        [4, 5, 6],
    ]


def test_unknown_times_are_unknown(tmp_path):
    "As many of each: whole numbers, dates, labels; a cell that is empty is no moment, and one odd value names itself."
    path = csv(tmp_path)
    head, *rows = path.read_text().splitlines()
    def load(*values):
        path.write_text("\n".join([head + ",when", *(f"{row},{value}" for row, value in zip(rows, values))]))
        domain = load_domain(path, time="when")
        return [*domain.train.time, *domain.query.time, *domain.gallery.time]
    numbers = load("7", "", "007", "8", " ", "n/a", "NaN", "9")
    assert np.array_equal(numbers, [7, np.nan, 7, 8, np.nan, np.nan, np.nan, 9], equal_nan=True)
    dates = load("2024-05-01T24:00", "", "2024-05-02", "2024-05-02T02:00+02:00", "", "", "", "2024-05-02 00:00:00Z")
    assert len(set(dates) - {pd.NaT}) == 1 and pd.isna(dates).sum() == 4
    assert [*pd.isna(load("noon", "", "noon", "dawn", "", "", "", "dusk"))] == [
        False,
        True,
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    assert pd.isna(load(*[""] * 8)).all()
    for odd, says in ((("1", "2", "noon", "3", "", "", "", "4"), "line 4: time 'noon' is not a number, as others are"),
                      (("2024-05-01", "2024-05-02", "soon", "", "", "", "", ""), "line 4: time 'soon' is not ISO 8601"),
                      (("1", "2", "inf", "", "", "", "", ""), "line 4: time 'inf'")):
        with pytest.raises(ValueError, match=says): load(*odd)


def test_a_folder_that_holds_a_table_is_the_table(tmp_path):
    path = csv(tmp_path / "my cameras")
    by_folder, by_file = load_domain(path.parent), load_domain(path)
    assert (
        sizes(by_folder) == [2, 2, 4]
        and by_folder.name == "my cameras"
        and by_folder.data_hash() == by_file.data_hash()
    )
    with pytest.raises(ValueError, match="is read where its folder is named, so that camera and time name its columns"):
        load_domain(path.parent, camera=r"(\d)")
    assert load_domain(path.parent, camera="pid").cameras == {1: "1", 2: "2", 3: "3", 4: "4"}
    path.write_text("path,pid,camid,split\n")
    with pytest.raises(ValueError, match="domain.csv lists no images"): load_domain(path.parent)


def test_names_that_look_alike(tmp_path):
    "Composed and decomposed letters, blanks around a name, a byte-order mark: one camera, one file."
    for i, name in enumerate(("Tür/0.jpg", "Tu\u0308r/1.jpg", "Tür /2.jpg", "hall/3.jpg")):
        touch(tmp_path / "own" / name, i)
    with pytest.warns(UserWarning, match="look alike are taken for one camera"): domain = load_domain(tmp_path / "own")
    assert domain.cameras == {1: "Tür", 2: "hall"} and sorted(domain.train.camid) == [1, 1, 1, 2]
    touch(tmp_path / "table/Tu\u0308r/0.jpg")
    touch(tmp_path / "table/a.jpg")
    (tmp_path / "table/domain.csv").write_text("path,pid,camid,split\nTür/0.jpg,-1,1,train\n", encoding="utf-8-sig")
    # as the disk spells it
    assert list(load_domain(tmp_path / "table/domain.csv").train.path) == ["Tu\u0308r/0.jpg"]
    for name in ("\ufeffa.jpg", " a.jpg"):
        (tmp_path / "table/domain.csv").write_text(f"path,pid,camid,split\n{name},-1,1,train\n", encoding="utf-8-sig")
        with pytest.raises(ValueError, match="line 2: .* looks the same: write it with the same letters"):
            load_domain(tmp_path / "table/domain.csv")


def test_names_of_domains_fit_into_file_names(tmp_path):
    "File systems count bytes and take no more than 255; a letter has up to four."
    touch(tmp_path / ("東京" * 40) / "a.jpg")
    touch(tmp_path / "tab\there" / "a.jpg")
    names = [load_domain(folder).name for folder in sorted(tmp_path.iterdir(), reverse=True)]
    assert len(names[0].encode()) <= 80 and names[0].startswith("東京") and names[1] == "tab_here"


def test_a_table_of_junk_alone(tmp_path):
    touch(tmp_path / "a.jpg")
    (tmp_path / "domain.csv").write_text("path,pid,camid,split\na.jpg,-1,1,gallery\n")
    with pytest.raises(ValueError, match="lists no images besides junk"): load_domain(tmp_path / "domain.csv")


def test_csv_shared_identity_warns(tmp_path):
    with pytest.warns(UserWarning, match="both in train and in query or gallery .1 in all, first pid 1"):
        load_domain(csv(tmp_path, "crops/8.jpg,1,1,gallery") if touch(tmp_path / "crops/8.jpg") else 0)


def test_csv_links(tmp_path):
    secret = touch(tmp_path / "secret/0.jpg")
    folder = tmp_path / "own"
    csv(folder)
    (folder / "file.jpg").symlink_to(secret)
    (folder / "folder").symlink_to(secret.parent)
    (folder / "dangling.jpg").symlink_to(folder / "nothing.jpg")
    (folder / "inside.jpg").symlink_to(touch(folder / "crops/inner.jpg"))
    for path, says in (("file.jpg", "leaves the folder"), ("folder/0.jpg", "leaves the folder"),
                       ("dangling.jpg", "does not exist")):
        with pytest.raises(ValueError, match=f"line 10: path '{path}' {says}"):
            load_domain(csv(folder, f"{path},1,1,train"))
    assert sizes(load_domain(csv(folder, "inside.jpg,1,1,train"))) == [3, 2, 4]


def test_unlabelled_folder(tmp_path, monkeypatch):
    for name in ("b.png", "a.JPEG", "deep er/ü.webp"):
        touch(tmp_path / "home/pics" / name)
    (tmp_path / "home/pics/read me.txt").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.warns(UserWarning, match="read me.txt"):
        domain = load_domain("~/pics")
    assert domain.train.to_numpy().tolist() == [["a.JPEG", -1, 1], ["b.png", -1, 1], ["deep er/ü.webp", -1, 2]]
    assert domain.name == "pics" and sizes(domain) == [3, 0, 0]
    with pytest.raises(ValueError, match="no query and no gallery images"):
        domain.need("train").need("query", "gallery")


def test_unlabelled_folder_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        load_domain(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_domain(tmp_path / "gone")
    with pytest.raises(ValueError, match="not a .csv"):
        load_domain(touch(tmp_path / "one.jpg"))
    with pytest.raises(ValueError, match="does not go with the path"):
        load_domain(tmp_path / "empty", origin="standin")
    with pytest.warns(UserWarning, match="is a labelled dataset"):
        assert load_domain(tree(tmp_path / "market")).name == "market-files"


@pytest.mark.parametrize("name, options, says", [
    ("markt", {}, "did you mean 'market'"), ("Plaza", {}, "did you mean 'plaza'"), ("zzz", {}, "known: market"),
    ("", {}, "unknown domain ''"),
    ("market", {"origin": "reel"}, "unknown origin 'reel'"), ("plaza", {"origin": "real"}, "there is no real one")])
def test_misspelt(tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        load_domain(name, **options)


def test_table1_says_what_differs(tmp_path):
    table = table1(load_domain("market", root=tree(tmp_path / "market").parent))
    assert table.loc[("market", "train"), "remark"] == "12,924 images missing, 748 identities missing"
    assert table["images"].tolist() == [12, 3, 10] and table["paper images"].tolist() == [12936, 3368, 15913]
    assert "1 distractors" in table["remark"].iloc[2]
    assert table1(load_domain(csv(tmp_path / "own")))["remark"].tolist() == ["", "", ""]


def test_import_needs_no_torch():
    code = "import sys, ptl_nb.domains, ptl_nb.evaluator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not os.environ.get("PTL_REAL"), reason="PTL_REAL does not name a folder with real crops")
def test_real_pixels():
    folder = Path(os.environ["PTL_REAL"])
    domain = load_domain(folder / "domain.csv")
    assert (domain.name, sizes(domain)) == (folder.resolve().name, [361, 18, 207])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever is no image
        assert sizes(load_domain(folder)) == [361, 18, 207] and sizes(load_domain(folder / "crops")) == [586, 0, 0]


# forms that the datasets come in

@pytest.mark.parametrize("name, folder, pattern", [
    ("market", "market1501/Market-1501-v15.09.15/Market-1501-v15.09.15", MARKET),
    ("duke", "dukemtmc-reid/DukeMTMC-reID/DukeMTMC-reID/duke", DUKE),
    ("cuhk03", "cuhk03/cuhk03-np/detected", NP)])
def test_trees_in_trees(tmp_path, name, folder, pattern):
    tree(tmp_path / folder, pattern)
    assert sizes(load_domain(name, root=tmp_path)) == [12, 3, 10]


def test_a_tree_below_a_name_that_is_not_understood_is_named(tmp_path):
    tree(tmp_path / "market/downloads/unpacked")
    with pytest.raises(FileNotFoundError, match="seems to be in .*market/downloads/unpacked: move this folder to"):
        load_domain("market", root=tmp_path)


def test_cuhk03_with_cameras_from_0(tmp_path):
    tree(tmp_path / "tree/cuhk03", "{:04d}_c{}_{:d}.png")
    for file in sorted((tmp_path / "tree").rglob("*.png")):
        file.rename(file.with_name(file.name.replace("_c1_", "_c0_").replace("_c2_", "_c1_")))
    mat(tmp_path / "mat/cuhk03", camId=np.array([[c] for _ in range(6) for c in (0, 0, 1, 1)], np.uint8))
    for root in ("tree", "mat"):
        domain = load_domain("cuhk03", root=tmp_path / root)
        assert {c for s in SPLITS for c in getattr(domain, s)["camid"]} == {1, 2}


def torchreid(folder):
    (mat(folder) / CUHK03_SPLIT).unlink()
    (folder / "splits_new_detected.json").write_text("[]")


def by_hand(folder):
    (mat(folder) / CUHK03_SPLIT).rename(folder / "cuhk03_new_protocol_config_labeled.mat")
    (folder / CUHK03_IMAGES).rename(folder / "images_labeled")


def first_release(folder):
    folder.mkdir()
    (folder / "cuhk-03.mat").touch()


@pytest.mark.parametrize("make, says", [
    (torchreid, "splits_new_detected.json is a split as torchreid writes it"),
    (by_hand, "config_labeled.mat is of the boxes drawn by hand"),
    (lambda folder: tree(folder / "labeled", NP), "cuhk03/labeled is of the boxes drawn by hand"),
    (first_release, "cuhk-03.mat is the first release")])
@pytest.mark.parametrize("origin", ["real", "auto"])
def test_other_forms_of_cuhk03_are_named(tmp_path, make, says, origin):
    make(tmp_path / "cuhk03")
    with pytest.raises(FileNotFoundError,
                       match=f"{says}.*: needed are images_detected and cuhk03_new_protocol_config_detected.mat"):
        load_domain("cuhk03", root=tmp_path, origin=origin)


def test_detected_beside_labelled_is_read(tmp_path):
    tree(tmp_path / "cuhk03-np/detected", NP)
    tree(tmp_path / "cuhk03-np/labeled", NP)
    assert load_domain("cuhk03", root=tmp_path).root.name == "detected"


def test_a_table_named_in_capitals(tmp_path, monkeypatch):
    csv(tmp_path / "shop").rename(tmp_path / "shop/DOMAIN.CSV")
    monkeypatch.chdir(tmp_path / "shop")
    assert [load_domain(where).name for where in ("DOMAIN.CSV", tmp_path / "shop/DOMAIN.CSV")] == ["shop", "shop"]
    (tmp_path / "shop/crops/0.jpg").rename(tmp_path / "shop/crops/0.JPG")
    assert load_domain("DOMAIN.CSV").train["path"].tolist() == ["crops/0.JPG", "crops/1.jpg"]


def test_an_archive_in_capitals_is_seen(tmp_path):
    (tmp_path / "MARKET-1501.ZIP").touch()
    with pytest.raises(FileNotFoundError, match="MARKET-1501.ZIP lies there, but is not extracted"):
        load_domain("market", root=tmp_path, origin="real")


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    tree(tmp_path / "sets/market")
    csv(tmp_path / "shop")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (sizes(load_domain("market", root="~/sets")) == [12, 3, 10]
            and load_domain("~/shop/domain.csv").name == "shop")
    with pytest.raises(ValueError,
                       match="'~nobody-here/sets' begins with ~, but its home folder is not "
                       "known.*write the whole path"):
        load_domain("market", root="~nobody-here/sets")
