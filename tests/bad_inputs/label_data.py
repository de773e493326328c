"The public data that label models learn from: PETA, RAP, COCO DensePose."
import functools
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.io import loadmat, savemat
from scipy.sparse import csr_array

from ptl_nb import densepose, label_data, label_sets, peta, rap
from ptl_nb.matfile import read_mat

from bad_inputs.catalogue import Case, add
from bad_inputs.made import MATS, TRAIN, V73, damaged, encoded, written

CASES: list[Case] = []
bad = functools.partial(add, CASES)


# PETA and RAP as MATLAB files

def field(form: str, name: str | int, edit: Callable, **options) -> Callable:
    "A .mat with one field of its structure changed (None: left out)."
    variable, file = MATS[form]

    def damage(folder):
        struct = loadmat(folder / file)[variable]
        fields = {k: struct[k][0, 0] for k in struct.dtype.names}
        key = name if isinstance(name, str) else struct.dtype.names[name]
        fields[key] = edit(fields[key])
        savemat(folder / file, {variable: {k: v for k, v in fields.items() if v is not None}})
    return damaged(form, damage, **options)


def put(row: int, column: int, value: float) -> Callable:
    "One number of a table changed."
    def edit(array):
        array = array.astype(np.float64)
        array[row, column] = value
        return array
    return edit


def cell(index: int, value) -> Callable:
    "One cell of a column changed."
    def edit(cells):
        cells = cells.copy()
        cells[index, 0] = np.array([value])
        return cells
    return edit


def partition(edit: Callable) -> Callable:
    "The rows of every split of the fourth partition changed."
    def change(cells):
        cells, names = cells.copy(), cells.ravel()[3].dtype.names
        cells.ravel()[3] = {k: edit(v) for k, v in zip(names, cells.ravel()[3][0, 0])}
        return cells
    return change


for name, at, edit, *words in [
    ("NaN", 0, put(4, 10, np.nan), "image 'images/00005.png'", "is not a number"),
    ("a 2", 0, put(4, 10, 2), "is 2, expected 0 or 1"),
    ("a negative", 0, put(4, 10, -1), "is -1, expected 0 or 1"),
    ("a fraction", 0, put(4, 10, .5), "is 0.5, expected 0 or 1"),
    ("a column too few", 0, lambda t: t[:, :-1], "a table of 108 columns with 105 names"),
    ("text for the table", 0, lambda t: np.full(t.shape, "x", dtype=object), "data"),
    ("a cube for the table", 0, lambda t: t[None], "the structure has the fields"),
    ("an empty table", 0, lambda t: t[:0], "PETA.mat"), ("complex numbers", 0, lambda t: t + 1j, "PETA.mat"),
    ("an unknown attribute", 1, cell(3, "upperBodyGren"),
     "unknown attribute 'upperBodyGren'; did you mean 'upperBodyGreen'"),
    ("a left-out attribute", 1, cell(3, "accessoryShawl"), "104 of PETA's 105 attributes occur"),
    ("an attribute twice", 1, cell(3, "upperBodyBlack"), "104 of PETA's 105 attributes occur"),
    ("numbers for names", 1, lambda c: np.arange(105)[:, None], "unknown attribute"),
    ("rows beyond the table", 3, partition(lambda v: v + 5), "of partition 3 holds rows"),
    ("rows from 0", 3, partition(lambda v: v * 0), "of partition 3 holds rows 0..0"),
    ("fractions of rows", 3, partition(lambda v: v + .5), "partition 3", "whole numbers"),
    ("NaN rows", 3, partition(lambda v: v * np.nan), "partition 3", "whole numbers"),
    ("text for rows", 3, partition(lambda v: "abc"), "partition 3", "whole numbers"),
    ("numbers for partitions", 3, lambda c: np.arange(5)[:, None],
     "partition 0 is not a structure of train, val, test"),
    ("no partitions", 3, lambda c: None, "the structure has the fields data, attribute, selected_attribute"),
]:
    bad("PETA.mat", name, field("peta-mat", at, edit), "PETA.mat", *words)
for name, form, at, edit, options, *words in [
    ("NaN", "rap", "data", put(4, 10, np.nan), {}, "tarid4_", "is not a number"),
    ("a 3", "rap", "data", put(4, 10, 3), {}, "is 3, expected 0 or 1 or 2"),
    ("a 7 (v1)", "rap1", "label", put(4, 10, 7), {}, "is 7, expected 0 or 1 or 2"),
    ("a row too few", "rap", "data", lambda t: t[:-1], {}, "for 12 images"),
    ("a sparse matrix for the table", "rap", "data", lambda t: csr_array(t), {}, "a table of (0, 0)"),
    ("an attribute too few", "rap", "attribute", lambda c: c[:-1], {}, "55 attributes"),
    ("text for the table", "rap", "data", lambda t: np.full(t.shape, "x", dtype=object), {}, "data"),
    ("no attachment-Baby", "rap", "attribute", cell(55, "something"), {}, "has no attribute 'attachment-Baby'"),
    ("an attribute twice", "rap", "attribute", lambda c: cell(1, str(c[0, 0][0]))(c), {}, "twice"),
    ("rows beyond the table", "rap", "partition_attribute", partition(lambda v: v + 5), {},
     "of partition 3 holds rows"),
    ("no partitions", "rap", "partition_attribute", lambda c: None, {}, "neither RAPv1", "nor RAPv2"),
    ("no names (v1)", "rap1", "imagesname", lambda c: None, {}, "neither RAPv1", "nor RAPv2"),
    ("no attribute_exp (v1)", "rap1", "attribute_exp", lambda c: None, {}, "attribute_exp"),
    ("an image path that leaves the folder", "rap", "name", cell(0, "../../secret.png"), {}, "are not in",
     "'../../secret.png'"),
    ("no selected_attribute", "rap", "selected_attribute", lambda c: None, {"columns": "selected"},
     "selected_attribute"),
    ("columns beyond the table", "rap", "selected_attribute", lambda v: v + 2, {"columns": "selected"},
     "the table has 56 columns"),
    ("NaN columns", "rap", "selected_attribute", lambda v: v * np.nan, {"columns": "selected"}, "selected_attribute"),
    ("an image twice", "rap", "name", lambda c: cell(1, str(c[0, 0][0]))(c), {}, "twice"),
]:
    error = FileNotFoundError if "path" in name else ValueError
    bad("RAP .mat", name, field(form, at, edit, **options), "RAP_annotation.mat", *words, error=error)
bad(
    "RAP .mat", "columns that are none", damaged("rap", lambda f: None, columns="all"), "unknown columns 'all'",
    "'paper', 'selected'")
bad(
    "RAP .mat", "a meaning of 2 that is none", damaged("rap", lambda f: None, unsure="no"), "unsure is 'no'",
    "'clip' or 'mask'")


def holding(form: str, content: bytes) -> Callable:
    "The .mat of a form, with other bytes."
    return damaged(form, lambda folder: (folder / MATS[form][1]).write_bytes(content))


def with_variable(form: str, name: str, value) -> Callable:
    "The .mat of a form, with this variable and no other."
    return damaged(form, lambda folder: savemat(folder / MATS[form][1], {name: value}))


def cut_in_half(form: str) -> Callable:
    def damage(folder):
        file = folder / MATS[form][1]
        file.write_bytes(file.read_bytes()[:400])
    return damaged(form, damage)


def without_an_image(folder) -> None:
    sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))[0].unlink()


def without_its_mat(form: str) -> Callable: return damaged(form, lambda folder: (folder / MATS[form][1]).unlink())


for form, area in {"peta-mat": "PETA.mat", "rap": "RAP .mat"}.items():
    variable, file = MATS[form]
    no_structure = f"no structure '{variable}'"
    for name, case, *words in [
        ("text", holding(form, b"text"), "cannot be read as a MATLAB 5 file"),
        ("empty", holding(form, b""), "cannot be read as a MATLAB 5 file"),
        ("MATLAB 7.3", holding(form, V73), "7.3"),
        ("a pickle", holding(form, pickle.dumps({"a": 1})), "cannot be read"),
        ("cut in half", cut_in_half(form), "cannot be read as a MATLAB 5 file"),
        ("another variable", with_variable(form, "other", 1), f"{no_structure} (it has other)"),
        ("a sparse matrix for the structure", with_variable(form, variable, csr_array(np.eye(3))), no_structure),
        ("a number for the structure", with_variable(form, variable, 5), no_structure)]:
        bad(area, name, case, Path(file).name, *words)
    bad(
        area, "an image missing", damaged(form, without_an_image), "1 of the 12 images", "are not in",
        "extract the images there", error=FileNotFoundError)
    bad(
        area, "no file", without_its_mat(form), "is not there", "place the annotation file", error=FileNotFoundError)


# DensePose

def annotations(edit: Callable) -> Callable:
    "The annotations of a few persons, edited."
    def damage(folder):
        content = json.loads((folder / TRAIN).read_text())
        edit(content)
        (folder / TRAIN).write_text(json.dumps(content))
        (folder / densepose.DP_FILE.format("minival")).unlink()
    return damaged("densepose", damage)


def person(**changes): return lambda c: c["annotations"][2].update(changes)
def mask(**changes): return lambda c: next(m for m in c["annotations"][2]["dp_masks"] if m).update(changes)
def picture(**changes): return lambda c: c["images"][2].update(changes)


for name, edit, *words in [
    ("a mask of another size", mask(size=[256, 255]), "has size [256, 255], expected [256, 256]"),
    ("a mask without a size", mask(size=None), "has size None"),
    ("no run-length code", mask(counts=""), "is no run-length code"),
    ("other letters", mask(counts="~~~~"), "is no run-length code"),
    ("numbers for a code", mask(counts=[0, 65536]), "is no run-length code"),
    ("text for masks", person(dp_masks=["x"] * 14), "has size None"),
    ("15 masks", lambda c: c["annotations"][2]["dp_masks"].append([]), "15 dp_masks, expected 14"),
    ("13 masks", lambda c: c["annotations"][2]["dp_masks"].pop(), "13 dp_masks, expected 14"),
    ("a number for masks", person(dp_masks=7), "dp_masks"),
    ("a dictionary for masks", person(dp_masks={"a": 1}), "dp_masks"),
    ("a text for masks", person(dp_masks="abc"), "dp_masks"),
    ("a box beyond the image", person(bbox=[0, 0, 66, 128]), "bbox [0.0, 0.0, 66.0, 128.0]", "outside its image"),
    ("a negative corner", person(bbox=[-1, 0, 60, 128]), "outside its image"),
    ("a box of no width", person(bbox=[0, 0, 0, 128]), "outside its image"),
    ("three numbers for a box", person(bbox=[0, 0, 64]), "outside its image"),
    ("NaN in a box", person(bbox=[0, float("nan"), 64, 128]), "outside its image"),
    ("infinity in a box", person(bbox=[0, 0, float("inf"), 128]), "outside its image"),
    ("no box", person(bbox=None), "outside its image"),
    ("text for a box", person(bbox="0 0 64 128"), "bbox"),
    ("text in a box", person(bbox=[0, 0, "wide", 128]), "bbox"),
    ("nested boxes", person(bbox=[[0], [0, 1]]), "bbox"),
    ("a dictionary for a box", person(bbox={"x": 0}), "bbox"),
    ("an image that is not listed", person(image_id=999), "is of image 999, which is not listed"),
    ("a list for an image id", person(image_id=[1]), "image_id"),
    ("ids of two kinds", person(id="three"), "id"),
    ("an image without a height", lambda c: c["images"][2].pop("height"), "without id, file_name, height or width"),
    ("text for a height", picture(height="tall"), "height"),
    ("a height of 0", picture(height=0), "height"),
    ("a negative width", picture(width=-64), "width"),
    ("NaN for a height", picture(height=float("nan")), "height"),
    ("a fraction of a pixel", picture(width=64.5), "width"),
    ("a number for a file name", picture(file_name=7), "file_name"),
    ("a list for an image's id", picture(id=[3]), "id"),
    ("an image id twice", lambda c: c["images"].append(dict(c["images"][2], file_name="other.jpg")), "twice"),
    ("an image that is a number", lambda c: c["images"].append(7), "image"),
    ("an annotation that is a number", lambda c: c["annotations"].append(7), "annotation"),
    ("an annotation that is null", lambda c: c["annotations"].append(None), "annotation None"),
    ("the image id 0 twice", lambda c: c["images"].extend([dict(c["images"][2], id=0)] * 2), "image id 0 twice"),
    ("no annotations", lambda c: c.pop("annotations"), "has no list 'annotations'"),
    ("text for images", lambda c: c.update(images="abc"), "has no list 'images'"),
    ("nobody with masks", lambda c: [a.pop("dp_masks") for a in c["annotations"]],
     "has dp_masks: these are other annotations"),
]:
    bad("DensePose JSON", name, annotations(edit), TRAIN, *words)
bad(
    "DensePose JSON", "a path that leaves the folder", annotations(picture(file_name="../../secret.jpg")), TRAIN,
    "are not in", "'../../secret.jpg'", error=FileNotFoundError)
bad(
    "DensePose JSON", "an absolute path", annotations(picture(file_name="/etc/secret.jpg")), TRAIN, "are not in",
    error=FileNotFoundError)
for name, content, *words in [
    ("cut off", b"{", "is not JSON"),
    ("empty", b"", "is not JSON"),
    ("a list", b"[]", "has no list 'images'"),
    ("nested 100,000 deep", b"[" * 100_000, "is not JSON"),
    ("not UTF-8", b'{"images": "\xff"}', "is not JSON"),
    ("a picture", encoded("PNG"), "is not JSON"),
    ("a number of 10,000 digits", b'{"images": [' + b"9" * 10_000 + b'], "annotations": []}', TRAIN)]:
    bad(
        "DensePose JSON", name, damaged("densepose", lambda f, content=content: (f / TRAIN).write_bytes(content)),
        TRAIN, *words)
bad(
    "DensePose JSON", "no files", lambda f: functools.partial(densepose.read_densepose, f),
    "holds none of densepose_coco_2014_train.json", "place DensePose's annotations there", error=FileNotFoundError)
bad(
    "DensePose JSON", "a split that is none", damaged("densepose", lambda f: None, splits=["val"]),
    "unknown split 'val'", "valminusminival")
bad(
    "DensePose JSON", "a split that is not there", damaged("densepose", lambda f: None, splits=["test"]),
    "is not there", "place DensePose's annotations", error=FileNotFoundError)


def code(text: str) -> Callable:
    "A person whose first mask has this run-length code, decoded."
    masks = [{"size": [256, 256], "counts": text}] + [[]] * 13
    return lambda folder: functools.partial(densepose.person_parts, masks)


for name, text in {
    "cut off inside a number": "PPYo", "too few cells": "010", "too many cells": "0" + "o" * 3 + "0",
    "a negative run": "0N2", "a number of 100 bits": "0" + "o" * 20 + "0",
    "a number that overflows to a good sum": "P" * 13 + "0" + "PPR2"}.items():
    bad("DensePose RLE", name, code(text), "the runs of dp_mask 1 (torso)", "of 65536 cells")


def in_file(folder):
    "The same through the reader, which names image and person."
    make = annotations(mask(counts="010"))(folder)
    return lambda: densepose.part_maps(make(), (128, 64), folder / "cache")


bad(
    "DensePose RLE", "in a file", in_file, "COCO_train2014_000000000003.jpg", "the person at",
    "a dp_mask cannot be decoded", "Fetch the annotations again")


# PETA's tree

def label_txt(edit: Callable, **options) -> Callable:
    def damage(folder):
        file = folder / "PETA dataset/VIPeR/archive/Label.txt"
        content = edit(file.read_text())
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return damaged("peta", damage, **options)


for name, edit, *words in [
    ("an id without an image", lambda t: t + "0777 upperBodyBlack\n", "have no image", "'0777'", "strict=False"),
    ("an image without a line", lambda t: t.split("\n", 1)[1], "have no line in Label.txt", "strict=False"),
    ("an unknown attribute", lambda t: t.replace("\n", " upperBodyBlak\n", 1),
     "line 1: unknown attribute 'upperBodyBlak'; did you mean 'upperBodyBlack'"),
    ("an id with other attributes", lambda t: t + "0001 upperBodyPink\n", "id '0001' has other attributes than before",
     "Keep one"),
    ("empty", lambda t: "", "have no line in Label.txt"),
    ("not text", lambda t: b"\xff\xfe\x00", "is not text"),
    ("commas", lambda t: t.replace(" ", ","), "Label.txt"),
    ("control characters", lambda t: "\0\x01\x02\n" + t, "Label.txt"),
]:
    bad("PETA Label.txt", name, label_txt(edit), "archive", *words)
bad(
    "PETA Label.txt", "not there", damaged("peta", lambda f: (f / "PETA dataset/GRID/archive/Label.txt").unlink()),
    "lacks GRID/archive/Label.txt", "unzip PETA.zip there", error=FileNotFoundError)
bad(
    "PETA Label.txt", "no folder", lambda f: functools.partial(peta.read_peta_tree, f / "gone"),
    "lacks 3DPeS/archive/Label.txt", error=FileNotFoundError)


def load_labels(*arguments, **named) -> Callable:
    return lambda folder: functools.partial(label_data.load_labels, *arguments, root=folder, **named)


bad("label data", "an unknown name", load_labels("pets"), "unknown label data 'pets'", "known: densepose")
bad("label data", "a near name", load_labels("densepos"), "did you mean 'densepose'")
bad("label data", "an unknown origin", load_labels("rap", origin="reel"), "unknown origin 'reel'")
bad("label data", "a real stand-in", load_labels("mall", origin="real"), "there is no real one")


def peta_of_no_form(folder):
    (folder / "PETA").mkdir()
    return functools.partial(peta.read_peta, folder / "PETA")


bad(
    "label data", "PETA in no form", peta_of_no_form, "Label.txt", "PETA.mat", "place PETA there",
    error=FileNotFoundError)
bad(
    "label data", "PETA, an unknown form first",
    lambda f: functools.partial(peta.read_peta, written("peta"), "csv"), "first is 'csv'", "'tree' or 'mat'")
for name in ("densepose", "peta", "peta-mat", "rap"):
    bad(
        "label data", f"{name} that is not there", load_labels(name, origin="real"), f"{name} is not under",
        "place it in", error=FileNotFoundError)


# links out of the data

def a_link(form: str, image: str) -> Callable:
    "A label dataset with one image that is a link to outside."
    def damage(folder):
        link = sorted(folder.glob(image))[0]
        kept = folder.parent / f"secret{link.suffix}"
        link.rename(kept)
        link.symlink_to(kept)
    return damaged(form, damage)


for form, image in {
    "densepose": "train2014/*.jpg", "peta": "PETA dataset/VIPeR/archive/*.jpg", "peta-mat": "images/*.png",
    "rap": "RAP_dataset/*"}.items():
    bad("link", f"an image of {form} that is one", a_link(form, image), "links out of", "copy the image there")


# arrays that are asked of label data

bad(
    "array", "no images of a stand-in", lambda f: functools.partial(rap.export_rap, f / "rap", limit=0),
    "limit is 0", "at least 1")
bad(
    "array", "nobody in an image",
    lambda f: functools.partial(densepose.export_densepose, f / "dp", limit=2, persons=0), "persons is 0",
    "at least 1")
bad(
    "array", "attributes of DensePose", lambda f: densepose.read_densepose(written("densepose")).varying,
    "no attributes")
bad(
    "array", "part maps of RAP",
    lambda f: functools.partial(densepose.part_maps, rap.read_rap(written("rap")), (8, 4), f), "no part masks")
bad(
    "array", "crops of no size",
    lambda f: functools.partial(label_sets.crops, rap.read_rap(written("rap")), (0, 4), f), "size is (0, 4)",
    "at least 1 pixel")
bad(
    "array", "a MATLAB file that is not there", lambda f: functools.partial(read_mat, f / "a.mat"),
    "a.mat is not there", error=FileNotFoundError)
