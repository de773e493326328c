"""Label datasets and imported labels: malformed files, real shapes without a stand-in's marker, all or nothing."""
import json
import os
import shutil
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

import ptl_nb.label_import as li
from ptl_nb import densepose, label_data, label_sets, peta, rap
from ptl_nb.domain import STANDIN_MARKER
from ptl_nb.domains import load_domain
from ptl_nb.label_runs import ImportedLabels, label_sources
from ptl_nb.label_scores import attribute_scores
from ptl_nb.labels import (
    Vocabulary, attribute_auc, part_iou, read_attributes, read_parts, read_provenance, write_attributes)
from ptl_nb.standins import truth_store
from ptl_nb.store import Store


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    "A few persons in every form; tests work on copies."
    base = tmp_path_factory.mktemp("forms")
    densepose.export_densepose(base / "densepose", limit=20)
    peta.export_peta_tree(base / "peta", limit=30)
    peta.export_peta_mat(base / "peta-mat", limit=20)
    rap.export_rap(base / "rap", limit=20)
    rap.export_rap(base / "rap1", limit=20, version=1)
    return base


@pytest.fixture
def copy(written, tmp_path):
    def of(name):
        shutil.copytree(written / name, tmp_path / name)
        return tmp_path / name
    return of


# DensePose

TRAIN = densepose.DP_FILE.format("train")


def edited(folder, edit, file=TRAIN):
    "The folder after `edit(content)` of one annotation file."
    content = json.loads((folder / file).read_text())
    edit(content)
    (folder / file).write_text(json.dumps(content))
    return folder


def person(**changes): return lambda c: c["annotations"][2].update(changes)
def mask(**changes): return lambda c: next(m for m in c["annotations"][2]["dp_masks"] if m).update(changes)


@pytest.mark.parametrize("edit, says", [
    (mask(size=[256, 255]), "has size [256, 255], expected [256, 256]"),
    (mask(size=None), "has size None"),
    (mask(counts=""), "is no run-length code"),
    (mask(counts="~~~~"), "is no run-length code"),
    (mask(counts=[0, 65536]), "is no run-length code"),
    (person(dp_masks=["x"] * 14), "has size None"),
    (lambda c: c["annotations"][2]["dp_masks"].append([]), "15 dp_masks, expected 14"),
    (lambda c: c["annotations"][2]["dp_masks"].pop(), "13 dp_masks, expected 14"),
    (person(bbox=[0, 0, 66, 128]), "bbox [0.0, 0.0, 66.0, 128.0]"),
    (person(bbox=[-1, 0, 60, 128]), "outside its image"),
    (person(bbox=[0, 0, 0, 128]), "outside its image"),
    (person(bbox=[0, 0, 64]), "outside its image"),
    (person(bbox=[0, float("nan"), 64, 128]), "outside its image"),
    (person(bbox=None), "outside its image"),
    (person(image_id=999), "is of image 999, which is not listed"),
    (lambda c: c["images"][2].pop("height"), "without id, file_name, height or width"),
    (lambda c: c.pop("annotations"), "has no list 'annotations'"),
    (lambda c: [a.pop("dp_masks") for a in c["annotations"]], "has dp_masks: these are other annotations"),
])
def test_densepose_annotations_are_refused(copy, edit, says):
    folder = edited(copy("densepose"), edit)
    (folder / densepose.DP_FILE.format("minival")).unlink()
    with pytest.raises(ValueError) as error: densepose.read_densepose(folder)
    assert says in str(error.value) and TRAIN in str(error.value)


def test_densepose_without_files(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds none of densepose_coco_2014_train.json"):
        densepose.read_densepose(tmp_path)
    folder = copy("densepose")
    with pytest.raises(FileNotFoundError, match="valminusminival"):
        densepose.read_densepose(folder, ["valminusminival"])
    with pytest.raises(ValueError, match="unknown split 'val'"): densepose.read_densepose(folder, ["val"])
    (folder / TRAIN).write_text("{")
    with pytest.raises(ValueError, match="is not JSON"): densepose.read_densepose(folder)


def test_densepose_images_missing_or_other(copy, tmp_path):
    folder = copy("densepose")
    first, second = sorted((folder / "train2014").iterdir())[:2]
    Image.new("RGB", (32, 64)).save(second)
    labels = densepose.read_densepose(folder, ["train"])
    with pytest.raises(ValueError, match=f"{second.name} is 64x32, its annotation says 128x64"):
        label_sets.crops(labels, (64, 32), tmp_path / "cache")
    second.write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"cannot decode the image .*{second.name}"):
        label_sets.crops(densepose.read_densepose(folder, ["train"]), (64, 32), tmp_path / "cache")
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".lock"}, "something half-written stayed"
    first.unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of the 18 images .* the first '{first.name}'"):
        densepose.read_densepose(folder)


def test_truncated_mask_is_named_when_decoded(copy, tmp_path):
    def cut(content):
        m = content["annotations"][2]["dp_masks"]
        i = next(i for i, x in enumerate(m) if x)
        m[i]["counts"] = m[i]["counts"][:-3]
    labels = densepose.read_densepose(edited(copy("densepose"), cut), ["train"])
    with pytest.raises(ValueError,
                       match="COCO_train2014_000000000003.jpg, the person at .* a dp_mask cannot be "
                       "decoded .the runs of dp_mask"):
        densepose.part_maps(labels, (128, 64), tmp_path / "cache")
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".lock"}


def test_persons_without_masks_are_counted(copy):
    def some(content):
        content["annotations"][0].pop("dp_masks")
        content["annotations"][1]["dp_masks"] = [[]] * 14
    labels = densepose.read_densepose(edited(copy("densepose"), some))
    assert labels.report["persons without dp_masks"] == 2 and len(labels) == 18 and labels.report["persons"] == 20


def test_a_split_without_masks_is_empty_not_an_error(copy):
    folder = edited(copy("densepose"), lambda c: [a.pop("dp_masks") for a in c["annotations"]],
                    densepose.DP_FILE.format("minival"))
    labels = densepose.read_densepose(folder)
    assert (len(labels.split("minival")) == 0 and len(labels.split("train")) == 18
            and labels.report["persons without dp_masks"] == 2)


def test_annotations_folder_and_real_name(copy):
    folder = copy("densepose")
    (folder / "annotations").mkdir()
    for file in folder.glob("*.json"):
        if file.name != STANDIN_MARKER: file.rename(folder / "annotations" / file.name)
    (folder / STANDIN_MARKER).unlink()
    (folder / "train2014").rename(folder / "coco_train2014")
    labels = densepose.read_densepose(folder)
    assert ((labels.name, labels.standin, labels.title) == ("densepose", False, "densepose")
            and labels.paths[0].startswith("coco_train2014/"))


def test_an_image_of_several_persons_is_decoded_once(tmp_path, monkeypatch):
    labels = densepose.read_densepose(densepose.export_densepose(tmp_path / "coco", limit=20, persons=4))
    opened = []
    decode = label_sets.decode
    monkeypatch.setattr(label_sets, "decode", lambda file, size: opened.append(file) or decode(file, size))
    x = label_sets.crops(labels, (64, 32), tmp_path / "cache")
    # 18 in fours, 2
    assert len(labels) == len(x) == 20 and len(opened) == len(set(opened)) == len(set(labels.paths)) == 6
    label_sets.crops(labels, (64, 32), tmp_path / "cache")
    assert len(opened) == 6, "decoded again"


def test_a_box_inside_an_image_by_a_naive_loop(tmp_path):
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 8, (128, 64)).astype(np.uint8)
    Image.fromarray(rng.integers(0, 256, (90, 70, 3)).astype(np.uint8)).save(tmp_path / "COCO_val2014_1.png")
    x, y, w, h = box = [12.3, 20.7, 30.9, 55.2]
    content = {"images": [{"id": 1, "file_name": "COCO_val2014_1.png", "height": 90, "width": 70}],
               "annotations": [{"id": 5, "image_id": 1, "bbox": box, "dp_masks": densepose.encode_parts(parts)}]}
    (tmp_path / densepose.DP_FILE.format("minival")).write_text(json.dumps(content))
    maps = densepose.part_maps(densepose.read_densepose(tmp_path), (20, 10), tmp_path / "cache")[0]
    grid = parts.repeat(2, 0).repeat(4, 1)
    for i in range(20):
        for j in range(10):
            row, column = 21 + (i + .5) * (76 - 21) / 20, 12 + (j + .5) * (43 - 12) / 10
            assert maps[i, j] == grid[int((row - y) / h * 256), max(0, int((column - x) / w * 256))]
    crop = Image.open(tmp_path / "COCO_val2014_1.png").crop((12, 21, 43,
                                                             76)).resize((10, 20), Image.Resampling.BILINEAR)
    assert (label_sets.crops(densepose.read_densepose(tmp_path), (20, 10),
                             tmp_path / "cache")[0] == np.asarray(crop)).all()


# PETA, the tree

def label(folder, place="VIPeR"): return folder / "PETA dataset" / place / "archive" / "Label.txt"


@pytest.mark.parametrize("edit, says", [
    (lambda t: t + "0777 upperBodyBlack\n", "1 of 4 ids in .*Label.txt have no image, the first '0777'"),
    (lambda t: t.split("\n", 1)[1], "1 of 3 images in .* have no line in Label.txt, the first '0001_1.jpg'"),
    (lambda t: t.replace("\n", " upperBodyBlak\n", 1),
     "Label.txt, line 1: unknown attribute 'upperBodyBlak'; did you mean 'upperBodyBlack'"),
    (lambda t: t + "0001 upperBodyPink\n", "line 4: id '0001' has other attributes than before"),
    (lambda t: "", "have no line in Label.txt"),
])
def test_label_txt_is_refused(copy, edit, says):
    folder = copy("peta")
    label(folder).write_text(edit(label(folder).read_text()))
    with pytest.raises(ValueError, match=says): peta.read_peta_tree(folder)


def test_peta_tree_counts_what_it_leaves_out(copy):
    folder = copy("peta")
    lines = label(folder).read_text().splitlines()
    label(folder).write_text("\n".join([lines[0] + " accessoryShawl lowerBodyLogo", "", *lines[1:-1],
                                        "0777 personalMale"]))
    (label(folder).parent / "Thumbs.db").write_bytes(b"x")
    labels = peta.read_peta_tree(folder, strict=False)
    assert (labels.report == {"identities": 30, "images without a line": 1, "ids without an image": 1,
                              "uses of left-out names": 2, "other files": 1} and len(labels) == 29)


def test_peta_tree_not_text_and_not_there(copy, tmp_path):
    folder = copy("peta")
    label(folder).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"): peta.read_peta_tree(folder)
    label(folder, "GRID").unlink(); shutil.rmtree(label(folder, "MIT").parent)
    with pytest.raises(FileNotFoundError, match="lacks GRID/archive/Label.txt, MIT/archive/Label.txt"):
        peta.read_peta_tree(folder)
    assert len(peta.read_peta_tree(folder / "PETA dataset", folders=["PRID", "CUHK"])) == 6
    with pytest.raises(FileNotFoundError): peta.read_peta_tree(tmp_path / "nowhere")


def test_ids_with_and_without_endings(tmp_path):
    archive = tmp_path / "PETA dataset" / "CUHK" / "archive"
    archive.mkdir(parents=True)
    for name in ("7.png", "8_a.png", "8_b.bmp", "9.jpeg"): Image.new("RGB", (4, 8)).save(archive / name)
    (archive / "Label.txt").write_text("7.png hairBald\n8 personalMale\r\n9\tpersonalMale  hairLong\n")
    labels = peta.read_peta_tree(tmp_path, folders=["CUHK"])
    names = [[n for n, v in zip(labels.vocabulary.names, row[:, 1]) if v] for row in labels.attributes]
    assert (names == [["hairBald"], ["personalMale"], ["personalMale"], ["personalMale", "hairLong"]]
            and not labels.standin and labels.name == "peta")


# MATLAB files

def field(folder, variable, file, name, edit):
    "The folder after `edit(value)` of one field of a .mat, by name or position."
    struct = loadmat(folder / file)[variable]
    fields = {k: struct[k][0, 0] for k in struct.dtype.names}
    key = name if isinstance(name, str) else struct.dtype.names[name]
    fields[key] = edit(fields[key])
    savemat(folder / file, {variable: {k: v for k, v in fields.items() if v is not None}})
    return folder


def put(row, column, value):
    def edit(table): table = table.astype(np.float64); table[row, column] = value; return table
    return edit


def cell(index, value):
    def edit(cells): cells = cells.copy(); cells[index, 0] = np.array([value]); return cells
    return edit


def out_of_range(cells):
    cells = cells.copy()
    cells.ravel()[3] = {k: v + 5 for k, v in zip(cells.ravel()[3].dtype.names, cells.ravel()[3][0, 0])}
    return cells


@pytest.mark.parametrize("name, edit, says", [
    (0, put(4, 10, np.nan), "image 'images/00005.png', attribute .* is not a number"),
    (0, put(4, 10, 2), "image 'images/00005.png', attribute .* is 2, expected 0 or 1"),
    (0, put(4, 10, -1), "is -1, expected 0 or 1"),
    (0, lambda t: t[:, :-1], "a table of 108 columns with 105 names"),
    (1, cell(3, "upperBodyGren"), "unknown attribute 'upperBodyGren'; did you mean 'upperBodyGreen'"),
    (1, cell(3, "accessoryShawl"), "104 of PETA's 105 attributes occur"),
    (1, cell(3, "upperBodyBlack"), "104 of PETA's 105 attributes occur"),
    (3, out_of_range, "of partition 3 holds rows 6..25, the table has 1..20|of partition 3 holds rows"),
    (3, lambda c: np.arange(5)[:, None], "partition 0 is not a structure of train, val, test"),
    (3, lambda c: None, "the structure has the fields data, attribute, selected_attribute"),
])
def test_peta_mat_is_refused(copy, name, edit, says):
    folder = field(copy("peta-mat"), "peta", "PETA.mat", name, edit)
    with pytest.raises(ValueError, match=says) as error: peta.read_peta_mat(folder)
    assert "PETA.mat" in str(error.value)


RAP = "RAP_annotation/RAP_annotation.mat"


@pytest.mark.parametrize("form, name, edit, says", [
    ("rap", "data", put(4, 10, np.nan), "tarid4_.*attribute .* is not a number"),
    ("rap", "data", put(4, 10, 3), "is 3, expected 0 or 1 or 2"),
    ("rap", "data", lambda t: t[:-1], r"a table of \(19, 56\) for 20 images and 56 attributes"),
    ("rap", "attribute", lambda c: c[:-1], r"a table of \(20, 56\) for 20 images and 55 attributes"),
    ("rap", "attribute", cell(55, "something"), "has no attribute 'attachment-Baby'"),
    ("rap", "partition_attribute", out_of_range, "of partition 3 holds rows"),
    ("rap", "partition_attribute", lambda c: None, "neither RAPv1 .* nor RAPv2"),
    ("rap1", "label", put(4, 10, 7), "is 7, expected 0 or 1 or 2"),
    ("rap1", "imagesname", lambda c: None, "neither RAPv1 .* nor RAPv2"),
])
def test_rap_mat_is_refused(copy, form, name, edit, says):
    folder = field(copy(form), "RAP_annotation", RAP, name, edit)
    with pytest.raises(ValueError, match=says): rap.read_rap(folder)


def test_rap_selected_columns_out_of_range(copy):
    folder = field(copy("rap"), "RAP_annotation", RAP, "selected_attribute", lambda v: v + 2)
    assert len(rap.read_rap(folder).vocabulary) == 55
    with pytest.raises(ValueError, match="the table has 56 columns"): rap.read_rap(folder, columns="selected")
    with pytest.raises(ValueError, match="unknown columns 'all'"): rap.read_rap(folder, columns="all")
    with pytest.raises(ValueError, match="unsure is 'no'"): rap.read_rap(folder, unsure="no")


@pytest.mark.parametrize("content, says", [
    (b"", "cannot be read as a MATLAB 5 file"), (b"text", "cannot be read as a MATLAB 5 file"),
    (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(400), "7.3"),
])
def test_files_that_are_no_mat(copy, content, says):
    for form, file, read in (("rap", RAP, rap.read_rap), ("peta-mat", "PETA.mat", peta.read_peta_mat)):
        folder = copy(form)
        (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=says): read(folder)


def test_other_variables_and_truncated(copy):
    folder = copy("rap")
    whole = (folder / RAP).read_bytes()
    (folder / RAP).write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read"): rap.read_rap(folder)
    savemat(folder / RAP, {"peta": np.zeros(3), "x": 1})
    with pytest.raises(ValueError, match=r"has no structure 'RAP_annotation' \(it has peta, x\)"): rap.read_rap(folder)


@pytest.mark.parametrize("form, read", [("rap", rap.read_rap), ("peta-mat", peta.read_peta_mat)])
def test_images_listed_but_missing(copy, form, read):
    folder = copy(form)
    sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))[0].unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 20 images .* are not in"): read(folder)


def real_rap(folder, version, columns, count=4):
    "RAP's shape without a stand-in's marker: all columns, a handful of images."
    (folder / "RAP_annotation").mkdir(parents=True); (folder / "RAP_dataset").mkdir()
    names = [f"a{j}" for j in range(columns)]
    if version == 2: names[96] = rap.RAP_BEFORE
    files = [f"CAM01_{i}.png" for i in range(count)]
    def column(v): return label_sets.mat_cells(v, (-1, 1))
    for f in files: Image.new("RGB", (4, 8)).save(folder / "RAP_dataset" / f)
    # a viewpoint, boxes: not two-way
    data = np.zeros((count, columns)); data[:, 100 if version == 2 else 60] = 4; data[0, 1] = 2
    rows = np.arange(1, count + 1)[None]
    if version == 2:
        partition = {"train_index": rows[:, :2], "val_index": rows[:, 2:3], "test_index": rows[:, 3:]}
        struct = {"name": column(files), "data": data, "attribute": column(names),
                  "selected_attribute": np.array([[1, 3]]), "person_identity": np.zeros((count, 1)),
                  "partition_attribute": label_sets.mat_cells([partition] * 5, (1, 5))}
    else:
        struct = {"partion": column([{"train": rows[:, :3], "test": rows[:, 3:]}] * 5), "label": data,
                  "attribute_chinese": column(names), "attribute_eng": column(names),
                  "position": np.zeros((count, 16)), "imagesname": column(files), "attribute_exp": column(names[:51])}
    savemat(folder / RAP, {"RAP_annotation": struct})
    return folder


def test_real_shapes_of_rap(tmp_path):
    with pytest.warns(UserWarning, match="lists 4 images, 84,928 were published"):
        two = rap.read_rap(real_rap(tmp_path / "2", 2, 152), unsure="mask")
    assert ((len(two.vocabulary), two.name, two.standin, two.report) == (96, "rap", False, {"unsure values (2)": 1})
            and not two.known[0, 1])
    with pytest.warns(UserWarning):
        assert rap.read_rap(tmp_path / "2", columns="selected").vocabulary.names == ("a0", "a2")
    with pytest.warns(UserWarning, match="41,585"): one = rap.read_rap(real_rap(tmp_path / "1", 1, 92))
    assert len(one.vocabulary) == 51 and [len(one.split(s, of="4")) for s in ("train", "test")] == [3, 1]
    for version, columns in ((1, 91), (2, 151)):
        with pytest.raises(ValueError, match=f"RAPv{version} has .* columns"):
            rap.read_rap(real_rap(tmp_path / f"bad{version}", version, columns))


def test_the_order_of_petas_columns_does_not_matter(copy):
    folder = copy("peta-mat")
    before = peta.read_peta_mat(folder)
    order = np.random.default_rng(0).permutation(105)
    field(folder, "peta", "PETA.mat", 0, lambda t: np.concatenate([t[:, :4], t[:, 4:][:, order]], 1))
    field(folder, "peta", "PETA.mat", 1, lambda c: c[order])
    assert (peta.read_peta_mat(folder).attributes == before.attributes).all()


# finding data

def test_load_labels(written, tmp_path):
    with pytest.warns(UserWarning, match="RENDERED STAND-IN 'mall'"): standin = label_data.load_labels("rap", tmp_path)
    assert standin.title == "mall (rendered stand-in for rap)" and len(standin) == 1520
    for name, form in (("densepose", "coco"), ("peta", "peta"), ("peta-mat", "PETA-New"), ("rap", "rap")):
        shutil.copytree(written / name, tmp_path / form)
        (tmp_path / form / STANDIN_MARKER).unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*were published")
        # found, and not taken for RAP
        with pytest.raises(ValueError, match="RAPv2 has 152 columns"): label_data.load_labels("rap", tmp_path)
        found = {n: label_data.load_labels(n, tmp_path, "real") for n in ("densepose", "peta", "peta-mat")}
    assert [(n, len(s), s.standin) for n, s in found.items()] == [("densepose", 20, False), ("peta", 30, False),
                                                                  ("peta-mat", 20, False)]
    assert label_data.load_labels("peta", tmp_path, "standin").standin
    with pytest.raises(ValueError, match="unknown origin"): label_data.load_labels("peta", tmp_path, "fake")


def test_export_refuses_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(densepose, "encode_parts", lambda m: 1 / 0)
    with pytest.raises(ZeroDivisionError): densepose.export_densepose(tmp_path / "new", limit=5)
    (tmp_path / "full").mkdir(); (tmp_path / "full" / "mine").touch()
    for write in (peta.export_peta_tree, peta.export_peta_mat, rap.export_rap):
        with pytest.raises(ValueError, match="exists and is not empty"): write(tmp_path / "full", limit=5)
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_hash_knows_labels_and_pixels(copy):
    folder = copy("rap")
    first = rap.read_rap(folder)
    assert rap.read_rap(folder).data_hash() == first.data_hash()
    field(folder, "RAP_annotation", RAP, "data", put(0, 0, 1 - first.attributes[0, 0, 1]))
    assert rap.read_rap(folder).data_hash() != first.data_hash()
    image = folder / first.paths[0]
    image.write_bytes(image.read_bytes() + b"x")
    assert len({first.data_hash(), rap.read_rap(folder).data_hash()}) == 2


# imports

@pytest.fixture
def domain(tmp_path):
    "Three training images, one query, two gallery images, and part maps for all of them."
    rows = [("train/1.jpg", 1, 1, "train"), ("train/2.png", 1, 2, "train"), ("train/3.jpg", 2, 1, "train"),
            ("q/1.jpg", 3, 1, "query"), ("g/1.jpg", 3, 2, "gallery"), ("g/2.jpg", 4, 2, "gallery")]
    root = tmp_path / "domain"
    for i, (path, *_) in enumerate(rows):
        for base, mode in ((root, "RGB"), (tmp_path / "maps", "L")):
            file = base / path if mode == "RGB" else (base / path).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (4, 6 + i), i).save(file)
    pd.DataFrame(rows, columns=["path", "pid", "camid", "split"]).to_csv(root / "domain.csv", index=False)
    return load_domain(root / "domain.csv")


def test_import_of_all_splits_and_of_junk(domain, tmp_path):
    # in the folder, not in the tables
    Image.new("RGB", (4, 4)).save(domain.root / "train" / "junk.jpg")
    Image.new("L", (4, 4)).save(tmp_path / "maps" / "train" / "junk.png")
    found = li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "store", "me", "abc",
                            splits=("train", "query", "gallery"))
    assert found == li.Coverage(6, (), ()) and read_parts(tmp_path / "store", ["g/1.jpg"]).max() == 4
    assert li.import_parts(tmp_path / "maps", {i: 7 - i for i in range(5)}, domain, tmp_path / "second",
                           "me").labelled == 3
    assert (read_parts(tmp_path / "second", ["train/2.png"]).max() == 6
            and read_provenance(tmp_path / "second")["parts"]["lacking"] == ["background", "head", "torso"])
    assert (read_provenance(tmp_path / "second")["parts"]["standin"] is False
            and read_provenance(tmp_path / "store")["parts"]["weights"] == "abc")


@pytest.mark.parametrize("image, says", [
    (Image.new("L", (4, 7), 8), "class 8 is not in the mapping"), (Image.new("L", (4, 6)), "is 6x4, its image 7x4"),
    (Image.new("RGBA", (4, 7)), "has mode 'RGBA'"),
    (Image.new("I;16", (4, 7)), "has mode 'I;16'"), (Image.new("1", (4, 7)), "has mode '1'"),
    (None, "cannot be decoded"),
])
def test_import_names_the_file_and_leaves_the_store(domain, tmp_path, image, says):
    pd.DataFrame({"path": domain.train.path, "hat": [0, 1, 1]}).to_csv(tmp_path / "a.csv", index=False)
    li.import_attributes(tmp_path / "a.csv", domain, tmp_path / "store", "me")
    before = {p: p.read_bytes() for p in (tmp_path / "store").rglob("[!.]*")}
    file = tmp_path / "maps" / "train" / "2.png"
    if image:
        image.save(file)
    else:
        file.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "store", "me")
    assert says in str(error.value) and "train/2.png" in str(error.value)
    assert ({p: p.read_bytes() for p in (tmp_path / "store").rglob("[!.]*")} == before
            and not list(tmp_path.glob(".store*.tmp")))


def test_import_rolls_back_when_the_provenance_cannot_be_written(domain, tmp_path, monkeypatch):
    li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "store", "me")
    pd.DataFrame({"path": domain.train.path, "hat": [0, 1, 1]}).to_csv(tmp_path / "a.csv", index=False)
    replace = os.replace

    def full(source, target):
        if os.fspath(target) == os.fspath(tmp_path / "store" / li.PROVENANCE_FILE):
            raise OSError("disk full")
        return replace(source, target)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        li.import_attributes(tmp_path / "a.csv", domain, tmp_path / "store", "me")
    assert (sorted(p.name for p in (tmp_path / "store").glob("[!.]*")) == ["labels.json", "parts"]
            and not list(tmp_path.glob(".store*.tmp")))


def test_foreign_labels(domain, tmp_path):
    shutil.copyfile(tmp_path / "maps/train/1.png", tmp_path / "maps/train/other.png")
    with pytest.raises(ValueError, match="holds 1 labels of no image of .*, the first 'train/other.png'"):
        li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "s", "me")
    assert li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "s", "me",
                           missing="report").foreign == ("train/other.png",)
    with pytest.raises(ValueError, match="missing is 'skip'"):
        li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "t", "me", missing="skip")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        li.import_parts(tmp_path / "none", "parts", domain, tmp_path / "t", "me")
    with pytest.raises(ValueError, match="splits are"):
        li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "t", "me", splits=("test",))


@pytest.mark.parametrize("text, says", [
    ("path,hat\n", "holds 0 images"), ("path\ntrain/1.jpg\n", "0 columns of attributes"), ("", "the first column"),
    ("name,hat\nx,1\n", "the first column is"),
    ("path,hat\ntrain/1.jpg,1\ntrain/1.jpg,0\n", "appears twice"), ("path,hat\ntrain/1.jpg,1,0\n", "line 2"),
    ("path,hat\ntrain/1.jpg,yes\n", "is 'yes': is not a number"),
    ("path,hat\ntrain/1.jpg,inf\n", "is inf: is not a number"), ("path,hat\ntrain/1.jpg,2\n", "is 2.0: is above one"),
    ("path,hat=yes\ntrain/1.jpg,1\n", "at least two"),
    ("path,hat=no,hat=yes\ntrain/1.jpg,nan,1\n", "is not a number"),
    ("path,hat=no,hat=yes\ntrain/1.jpg,-1,2\n", "is negative"),
    ("path,hat\nelsewhere.jpg,1\n", "are these the labels of another domain"),
])
def test_attribute_tables_are_refused(domain, tmp_path, text, says):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError) as error:
        li.import_attributes(tmp_path / "a.csv", domain, tmp_path / "store", "me", missing="report")
    assert says in str(error.value) and "a.csv" in str(error.value) and not (tmp_path / "store").exists()


def test_attribute_table_of_another_encoding_and_not_there(domain, tmp_path):
    (tmp_path / "a.csv").write_bytes("path,hüt\ntrain/1.jpg,1\n".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-8"):
        li.import_attributes(tmp_path / "a.csv", domain, tmp_path / "store", "me")
    with pytest.raises(FileNotFoundError, match="is not there"):
        li.import_attributes(tmp_path / "b.csv", domain, tmp_path / "store", "me")


def test_the_stores_own_table_is_imported_as_it_is(tmp_path):
    street = load_domain("street")
    assert li.import_attributes(truth_store("street") / "attributes.csv", street, tmp_path / "store", "the renderer",
                                "truth").labelled == 1520
    (v, a), (w, b) = read_attributes(tmp_path / "store",
                                     street.train.path), read_attributes(truth_store("street"), street.train.path)
    assert v == w and (a == b).all() and read_provenance(tmp_path / "store")["attributes"]["standin"]


# forms and spellings that data comes in

def unmarked(written, form: str, place: Path) -> Path:
    "A stand-in's form without its marker, as real data would lie."
    shutil.copytree(written / form, place)
    (place / STANDIN_MARKER).unlink()
    return place


@pytest.mark.parametrize("name", ["peta", "peta-mat"])
@pytest.mark.parametrize("form, count", [("peta", 30), ("peta-mat", 20)])
def test_peta_is_found_in_the_form_that_is_there(written, tmp_path, name, form, count):
    unmarked(written, form, tmp_path / "PETA")
    with warnings.catch_warnings():
        warnings.simplefilter("error")                                  # a stand-in is taken with a warning
        warnings.filterwarnings("ignore", "(?s).*were published")
        found = label_data.load_labels(name, tmp_path)
    assert (found.name, len(found), found.standin) == ("peta", count, False)


def test_label_sources_take_peta_mat(written, tmp_path):
    unmarked(written, "peta-mat", tmp_path / "PETA")
    with pytest.warns(UserWarning) as told: sources = label_sources(tmp_path)
    assert not sources.attributes.standin and len(sources.attributes) == 20, [str(w.message)[:80] for w in told]


def test_densepose_under_the_names_of_detectron2(written, tmp_path):
    folder = unmarked(written, "densepose", tmp_path / "coco")
    (folder / "annotations").mkdir()
    for split in ("train", "minival"):
        (folder / densepose.DP_FILE.format(split)).rename(folder / f"annotations/densepose_{split}2014.json")
    found = label_data.load_labels("densepose", tmp_path, "real")
    assert len(found) == 20 and {s: len(r) for s, r in found.splits["published"].items()} == {"train": 18, "minival": 2}


@pytest.mark.parametrize("form, read, images",
                         [("peta-mat", peta.read_peta_mat, "images"), ("rap", rap.read_rap, "RAP_dataset"),
                          ("densepose", densepose.read_densepose, "train2014")])
def test_images_with_endings_in_capitals(copy, form, read, images):
    folder = copy(form)
    for file in list((folder / images).iterdir()): file.rename(file.with_suffix(file.suffix.upper()))
    labels = read(folder)
    assert len(labels) == 20 and all((labels.root / p).is_file() for p in labels.paths)


def test_part_maps_with_endings_in_capitals_and_hidden_files(domain, tmp_path):
    for file in list((tmp_path / "maps").rglob("*.png")): file.rename(file.with_suffix(".PNG"))
    (tmp_path / "maps/train/._1.PNG").write_bytes(b"of a file manager")
    # in the folder, not in the tables
    Image.new("RGB", (4, 4)).save(domain.root / "train" / "junk.JPG", format="jpeg")
    Image.new("L", (4, 4)).save(tmp_path / "maps" / "train" / "junk.PNG", format="png")
    assert li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "store", "me") == li.Coverage(3, (), ())
    store = Store(tmp_path / "runs", progress=False)
    first = store.make(ImportedLabels(domain, tmp_path / "maps"))
    Image.new("L", (4, 6), 7).save(tmp_path / "maps/train/1.PNG", format="png")
    assert store.make(ImportedLabels(domain, tmp_path / "maps")) != first, "a changed map was taken for the old one"


def test_an_attribute_table_is_read_as_forgivingly_as_a_domain_csv(domain, tmp_path):
    (tmp_path / "a.csv").write_text("path, hat=no, hat=yes\n./train/1.jpg, 0, 1\n\n,,\ntrain//2.png,1, 0\n "
                                    "train/../train/3.jpg,1,0\n\n".replace("\n train", "\ntrain"))
    assert li.import_attributes(tmp_path / "a.csv", domain, tmp_path / "store", "me").labelled == 3
    shutil.copyfile(tmp_path / "a.csv", tmp_path / "attributes.csv")
    vocabulary, soft = read_attributes(tmp_path, domain.train.path)
    assert vocabulary.columns == ["hat=no", "hat=yes"] and soft[:, 0, 1].tolist() == [1, 0, 0]


ACCENT = {form: unicodedata.normalize(form, "Tür/é 1") for form in ("NFC", "NFD")}


@pytest.mark.parametrize("disk, table", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_table_and_a_disk_may_spell_accents_otherwise(tmp_path, disk, table):
    for base, mode, ending in ((tmp_path / "own", "RGB", ".jpg"), (tmp_path / "maps", "L", ".png")):
        (base / ACCENT[disk if mode == "RGB" else table]).parent.mkdir(parents=True)
        Image.new(mode, (4, 6)).save(base / f"{ACCENT[disk if mode == 'RGB' else table]}{ending}")
    (tmp_path / "own/domain.csv").write_text(f"path,pid,camid,split\n{ACCENT[table]}.jpg,-1,1,train\n",
                                             encoding="utf-8")
    domain = load_domain(tmp_path / "own/domain.csv")
    assert domain.files(domain.train)[0].is_file() and len(domain.data_hash()) == 64
    assert li.import_parts(tmp_path / "maps", "parts", domain, tmp_path / "store", "me").labelled == 1
    (tmp_path / "a.csv").write_text(f"path,hat\n{ACCENT[table]}.jpg,1\n", encoding="utf-8")
    assert li.import_attributes(tmp_path / "a.csv", domain, tmp_path / "store", "me").labelled == 1
    assert (read_parts(tmp_path / "store", domain.train.path).shape == (1, 6, 4)
            and read_attributes(tmp_path / "store", domain.train.path)[1].max() == 1)
    (tmp_path / "a.csv").write_text(f"path,hat\n{ACCENT[table]}.jpg,1\n{ACCENT[disk]}.jpg,0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="two rows are of the image"):
        li.import_attributes(tmp_path / "a.csv", domain, tmp_path / "second", "me")


def test_nothing_at_all_is_nothing(tmp_path):
    hat = Vocabulary.two_way(["hat"])
    none = np.zeros((0, 1, 2), np.float32)
    write_attributes(tmp_path, [], hat, none)
    assert ((tmp_path / "attributes.csv").read_text() == "path,hat=no,hat=yes\n"
            and read_attributes(tmp_path, [])[1].shape == (0, 1, 2))
    with pytest.raises(ValueError, match="lacks 1 of 1 images, the first 'a.jpg'"): read_attributes(tmp_path, ["a.jpg"])
    assert attribute_auc(hat, none, none).auc.isna().all()
    nobody = label_data.load_labels("rap", origin="standin").take([])
    assert (nobody.constant() == [] and len(nobody.varying().vocabulary) == len(nobody.vocabulary)
            and label_sets.crops(nobody, (8, 4), tmp_path).shape == (0, 8, 4, 3))


def test_nobody_is_known_of_one_attribute(tmp_path):
    two = Vocabulary.two_way(["hat", "bag"])
    soft = np.array([[[0, 1], [1, 0]], [[1, 0], [0, 1]]], np.float32)
    for known in ([[True, False]] * 2, np.array([[1, 0]] * 2)):
        overall, table = attribute_scores(two, soft, soft, known)
        assert table.auc.isna().tolist() == [False, True] and overall["mA"] == 1


def test_part_maps_of_any_integer_type_and_order_score_alike():
    truth_, guess = np.random.default_rng(0).integers(0, 8, (2, 3, 8, 4))
    wanted = part_iou(guess, truth_)
    for kind in ("u1", ">i4", "u8", "<i2"):
        for made in (guess.astype(kind), np.asfortranarray(guess.astype(kind)), guess[::-1].astype(kind)[::-1]):
            pd.testing.assert_series_equal(part_iou(made, truth_.astype(kind)), wanted)
