"Label stores, and labels made elsewhere: part maps, attribute tables, provenance, arrays."
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ptl_nb import label_import, label_scores, labels
from ptl_nb.domains import load_domain
from ptl_nb.image_files import examine
from ptl_nb.standins import truth_store

from bad_inputs.catalogue import Case, add, call, put_content
from bad_inputs.made import BROKEN_MAPS, encoded
from test_domains import csv, touch

CASES: list[Case] = []
bad = functools.partial(add, CASES)


# the label store: part maps

def stored(content: Image.Image | bytes | Callable, **options) -> Callable:
    "A part map with this content, read from a store; the image is 8 x 4 (height x width)."
    def make(folder):
        file = labels.part_file(folder, "train/a.jpg")
        file.parent.mkdir(parents=True)
        put_content(file, content)
        return lambda: labels.read_parts(folder, ["train/a.jpg"], **({"image_sizes": [(8, 4)]} | options))
    return make


for name, content in BROKEN_MAPS.items():
    bad(
        "part map", name, stored(content), "part map", "train/a.png", "cannot be decoded",
        "delete it and predict it again")
for mode in ("RGB", "RGBA", "LA", "1", "I;16", "P"):
    bad(
        "part map", f"mode {mode}", stored(Image.new(mode, (4, 8))), "train/a.png", f"has mode '{mode}'",
        "Save class numbers, not colours")
bad(
    "part map", "class 8", stored(Image.new("L", (4, 8), 8)), "train/a.png", "classes 8..8, expected 0..7",
    "Map other class sets")
bad("part map", "class 255", stored(Image.new("L", (4, 8), 255)), "classes 255..255, expected 0..7")
bad(
    "part map", "another size", stored(Image.new("L", (4, 6))), "train/a.png is 6x4, its image 8x4",
    "Predict them again")
bad(
    "part map", "not there", stored(lambda file: None), "no part map", "train/a.png",
    "predict the domain's labels again", error=FileNotFoundError)
bad("part map", "a folder", stored(lambda file: file.mkdir()), "train/a.png", "cannot be decoded")
bad(
    "part map", "an unknown way to resize", stored(Image.new("L", (4, 8)), size=(4, 2), variant="as_papr"),
    "unknown variant 'as_papr'", "'as_paper' or 'as_code'")
bad("part map", "resized to nothing", stored(Image.new("L", (4, 8)), size=(0, 2)), "cannot resize", "at least 1")
bad("part map", "sizes for other images", stored(Image.new("L", (4, 8)), image_sizes=[]), "0 image sizes for 1 images")
bad("part map", "no images", call(labels.read_parts, "store", []), "no part maps asked for")
for path in ("../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "a\\b.jpg", "", "."):
    bad(
        "part map", f"image path {path!r}", call(labels.read_parts, "store", [path]),
        f"image path {path!r}".replace("\\\\", "\\"), "relative to the domain's root")


def written_parts(maps, paths=("a.jpg",)) -> Callable:
    return lambda folder: functools.partial(labels.write_parts, folder, list(paths), maps)


for name, maps, *words in [
    ("class 8", [np.full((8, 4), 8)], "classes 8..8"),
    ("negative", [np.full((8, 4), -1)], "classes -1..-1"),
    ("fractions", [np.zeros((8, 4))], "float64", "expected integer classes"),
    ("colours", [np.zeros((8, 4, 3), np.uint8)], "expected integer classes (H, W)"),
    ("no pixels", [np.zeros((0, 4), np.uint8)], "expected integer classes"),
    ("two for one image", np.zeros((2, 8, 4), np.uint8), "2 part maps for 1 images")]:
    bad("part map", f"to be written: {name}", written_parts(maps), *words)
bad(
    "part map", "to be written: two images with one map",
    written_parts(np.zeros((2, 8, 4), np.uint8), ("a.jpg", "a.png")), "two images would share the part map", "a.png",
    "Rename one")
bad(
    "part map", "to be written: outside the store", written_parts(np.zeros((1, 8, 4), np.uint8), ("../../a.jpg",)),
    "image path '../../a.jpg'")


# part maps made elsewhere

def imported(content: Image.Image | bytes, mapping="parts", **options) -> Callable:
    "A tree of part maps (two good ones and this), imported."
    def make(folder):
        touch(folder / "own/crops/extra.jpg", 50)
        domain = load_domain(csv(folder / "own", "crops/extra.jpg,1,2,train"))
        for name in ("0", "1", "extra"): Image.new("L", (4, 8)).save(touch(folder / f"maps/crops/{name}.png"))
        file = folder / "maps/crops/extra.png"
        if callable(content): file.unlink()
        put_content(file, content)
        return lambda: label_import.import_parts(folder / "maps", mapping, domain, folder / "store", "me", **options)
    return make


GOOD_MAP = Image.new("L", (4, 8))
for name, content in BROKEN_MAPS.items():
    bad("imported parts", name, imported(content), "maps/crops/extra.png", "cannot be decoded", "make it again")
for mode in ("RGB", "RGBA", "LA", "1", "I;16"):
    bad(
        "imported parts", f"mode {mode}", imported(Image.new(mode, (4, 8))), "maps/crops/extra.png",
        f"has mode '{mode}'", "Save the classes, not their colours")
for name, content, options, *words in [
    ("class 8", Image.new("L", (4, 8), 8), {}, "maps/crops/extra.png", "class 8 is not in the mapping",
     "another class set"),
    ("another size", Image.new("L", (4, 6)), {}, "maps/crops/extra.png", "is 6x4, its image 8x4",
     "make the labels at the size of the images"),
    ("one missing", lambda file: None, {}, "lacks 1 of the 3 images", "'crops/extra.jpg'", "missing='report'"),
    ("one for no image",
     lambda file: [Image.new("L", (4, 8)).save(file.with_name(name)) for name in ("extra.png", "foreign.png")], {},
     "holds 1 labels of no image", "'crops/foreign.png'"),
    ("an unknown mapping", GOOD_MAP, {"mapping": "lipp"}, "unknown mapping 'lipp'; did you mean 'lip'"),
    ("a mapping to class 9", GOOD_MAP, {"mapping": {0: 9}}, "mapping 0 -> 9", "one of ours, 0..7"),
    ("a mapping from text", GOOD_MAP, {"mapping": {"head": 1}}, "mapping 'head' -> 1"),
    ("a mapping from a fraction", GOOD_MAP, {"mapping": {1.0: 1}}, "mapping 1.0 -> 1"),
    ("a mapping to a fraction", GOOD_MAP, {"mapping": {0: 1.0}}, "mapping 0 -> 1.0"),
    ("a mapping from NaN", GOOD_MAP, {"mapping": {float("nan"): 1}}, "mapping nan -> 1"),
    ("a mapping from -1", GOOD_MAP, {"mapping": {-1: 0}}, "mapping -1 -> 0"),
    ("a mapping that is a list", GOOD_MAP, {"mapping": [0, 1, 2]}, "mapping", "dictionary"),
    ("an empty mapping", GOOD_MAP, {"mapping": {}}, "mapping"),
    ("no splits", GOOD_MAP, {"splits": ()}, "splits are []"),
    ("a split that is none", GOOD_MAP, {"splits": ("test",)}, "splits are ['test']", "train, query, gallery"),
    ("missing that is none", GOOD_MAP, {"missing": "ignore"}, "missing is 'ignore'", "'error' or 'report'"),
]:
    bad("imported parts", name, imported(content, **options), *words)
bad(
    "imported parts", "no folder",
    lambda f: functools.partial(label_import.import_parts, f / "gone", "parts", load_domain(csv(f)), f / "store", "me"),
    "gone is not a folder", error=FileNotFoundError)


def no_png(folder):
    touch(folder / "a.jpg")
    domain = load_domain(csv(folder / "own"))
    for file in folder.rglob("*.png"): file.rename(file.with_suffix(".jpg"))
    return functools.partial(label_import.import_parts, folder, "parts", domain, folder / "store", "me")


bad("imported parts", "no PNG", no_png, "holds no PNG", "class numbers")
bad(
    "imported parts", "two for one image",
    imported(lambda file: [GOOD_MAP.save(file.with_name(name), format="png") for name in ("extra.png", "extra.PNG")]),
    "'crops/extra.PNG' and 'crops/extra.png' for the same image", "keep one")


def twice(folder):
    make = imported(GOOD_MAP)(folder)
    make()
    return make


bad(
    "imported parts", "a store that has some already", twice, "store/parts is there already and is not overwritten",
    "name another store")


def linked_map(file: Path) -> None:
    secret = file.parents[2] / "secret.png"
    GOOD_MAP.save(secret)
    file.symlink_to(secret)


bad("link", "a part map that is one", imported(linked_map), "maps/crops/extra.png links out of")


# attribute tables

def read_table(text: str | bytes, paths=("a.jpg",)) -> Callable:
    "A label store's table, read."
    def make(folder):
        put_content(folder / labels.ATTRIBUTES_FILE, text)
        return functools.partial(labels.read_attributes, folder, list(paths))
    return make


def import_table(text: str | bytes) -> Callable:
    "A table made elsewhere, imported."
    def make(folder):
        put_content(folder / "attributes.csv", text)
        return functools.partial(
            label_import.import_attributes, folder / "attributes.csv", load_domain(csv(folder / "own")),
            folder / "store", "me", missing="report")
    return make


T = "path,hat=no,hat=yes\n"
ROWS = [
    ("NaN", T + "a.jpg,nan,1\n", "'a.jpg', column 'hat=no' is nan: is not a number"),
    ("infinity", T + "a.jpg,inf,0\n", "is inf: is not a number"),
    ("beyond a float", T + "a.jpg,1e999,0\n", "is inf: is not a number"),
    ("a negative", T + "a.jpg,-1,2\n", "is -1.0: is negative"),
    ("above one", T + "a.jpg,2,0\n", "is 2.0: is above one"),
    ("percentages", T + "a.jpg,30,70\n", "is above one"),
    ("a sum of 0.9", T + "a.jpg,0.5,0.4\n", "columns of 'hat' sum to 0.9, not to one", "Divide them by their sum"),
    ("all zeros", T + "a.jpg,0,0\n", "sum to 0, not to one"),
    ("text", T + "a.jpg,yes,no\n", "column 'hat=no' is 'yes': is not a number"),
    ("an empty cell", T + "a.jpg,,1\n", "column 'hat=no' is '': is not a number"),
    ("a formula", T + "a.jpg,=1+1,0\n", "is '=1+1': is not a number"),
    ("a decimal comma", T + 'a.jpg,"0,5","0,5"\n', "is '0,5': is not a number"),
    ("an image twice", T + "a.jpg,0,1\na.jpg,1,0\n", "image 'a.jpg' appears twice", "Keep one"),
    ("a field too many", T + "a.jpg,0,1,1\n", "line 2: 4 fields, the header has 3"),
    ("a field too few", T + "a.jpg,0\n", "line 2: 2 fields, the header has 3"),
    ("an open quote", T + '"a.jpg,0,1\n', "attributes.csv"),
    ("a field of 200,000 letters", T + "a" * 200_000 + ",0,1\n", "attributes.csv"),
    ("empty", "", "the first column is [], expected 'path'"),
    ("no path column", "name,hat=no,hat=yes\nx,0,1\n", "the first column is ['name']"),
    ("an image without a name", T + ",0,1\n,1,0\n", "line 2: the path is empty"),
    ("a column without a name, twice", "path,,\na.jpg,0,1\n", "column '' appears twice"),
    ("a column twice", "path,hat=no,hat=no\na.jpg,0,1\n", "column 'hat=no' appears twice"),
    ("one class alone", "path,hat=yes\na.jpg,1\n", "'hat' has classes ['yes']", "at least two"),
    ("classes apart", "path,hat=no,bag=no,hat=yes,bag=yes\na.jpg,0,0,1,1\n", "stands apart", "side by side"),
    ("an empty name", "path,=no,=yes\na.jpg,0,1\n", "cannot be a name"),
    ("Latin-1", (T + "é.jpg,0,1\n").encode("latin-1"), "UTF-8"),
    ("UTF-16", (T + "a.jpg,0,1\n").encode("utf-16"), "UTF-8"),
    ("a picture", encoded("PNG"), "UTF-8"),
    ("NUL bytes", bytes(50), "attributes.csv"),
    ("semicolons", "path;hat=no;hat=yes\na.jpg;0;1\n", "the first column is"),
]
for name, text, *words in ROWS:
    bad("attribute table", name, read_table(text), "attributes.csv", *words)
    bad(
        "imported attributes", name,
        import_table(text.replace("a.jpg", "crops/0.jpg") if isinstance(text, str) else text), "attributes.csv",
        *(w.replace("a.jpg", "crops/0.jpg") for w in words))
bad(
    "attribute table", "a column without a class", read_table("path,hat\na.jpg,1\n"),
    "column 'hat' is not of the form attribute=class")
bad("attribute table", "no columns", read_table("path\na.jpg\n"), "attributes.csv", "0 attributes")
bad(
    "attribute table", "images missing", read_table(T + "a.jpg,0,1\n", ("a.jpg", "b.jpg")),
    "lacks 1 of 2 images, the first 'b.jpg'", "Predict the labels of this domain again")
bad(
    "attribute table", "not there", lambda f: functools.partial(labels.read_attributes, f, ["a.jpg"]),
    "no attribute table", "predict the domain's attributes first", error=FileNotFoundError)
for name, text, *words in [
    ("no rows", "path,hat\n", "holds 0 images"),
    ("no columns", "path\ncrops/0.jpg\n", "0 columns of attributes"),
    ("another domain's", "path,hat\nelsewhere.jpg,1\n", "are these the labels of another domain", "'elsewhere.jpg'"),
    ("mixed forms", "path,hat=no,hat=yes,bag\ncrops/0.jpg,0,1,1\n", "All columns have that form, or none"),
    ("a probability of 2", "path,hat\ncrops/0.jpg,2\n", "'crops/0.jpg', column 'hat' is 2.0: is above one",
     "the probability of yes"),
    ("a path that leaves the folder", "path,hat\n../../crops/0.jpg,1\n", "'../../crops/0.jpg'"),
    ("an absolute path", "path,hat\n/etc/passwd,1\n", "holds no label for any of the 2 images",
     "Paths must be relative")]:
    bad("imported attributes", name, import_table(text), "attributes.csv", *words)
bad(
    "imported attributes", "not there",
    lambda f: functools.partial(label_import.import_attributes, f / "gone.csv", load_domain(csv(f)), f / "store", "me"),
    "gone.csv is not there", error=FileNotFoundError)

HAT = labels.Vocabulary.two_way(["hat"])


def soft(*rows) -> np.ndarray: return np.array(rows, np.float32)[:, None]


for name, values, paths, *words in [
    ("NaN", soft([np.nan, 1]), ["a.jpg"], "'a.jpg', column 'hat=no' is nan", "softmax"),
    ("a sum of 2", soft([1, 1]), ["a.jpg"], "sum to 2, not to one"),
    ("logits", soft([-3, 4]), ["a.jpg"], "is negative"),
    ("one image too few", soft([0, 1]), ["a.jpg", "b.jpg"], "probabilities for 1 images", "expected 2 images"),
    ("an image twice", soft([0, 1], [0, 1]), ["a.jpg", "a.jpg"], "image 'a.jpg' appears twice"),
    ("a class too many", np.ones((1, 1, 3)) / 3, ["a.jpg"], "3 classes", "and 2 classes"),
    ("a flat table", np.ones((1, 2)) / 2, ["a.jpg"], "probabilities of shape (1, 2): expected (N, A, M)"),
    ("a path that leaves the store", soft([0, 1]), ["../a.jpg"], "image path '../a.jpg'")]:
    bad(
        "soft labels", name,
        lambda f, values=values, paths=paths: functools.partial(labels.write_attributes, f, paths, HAT, values), *words)
for name, columns, *words in [
    ("a name twice", ["hat=no", "hat=yes", "bag=no", "bag=yes", "hat=maybe"], "column 'hat=maybe' stands apart"),
    ("no columns", [], "0 attributes"),
    ("a line break", ["hat\n=no", "hat\n=yes"], "cannot be a name"),
    ("a class twice", ["hat=no", "hat=no"], "all different")]:
    bad("vocabulary", name, call(labels.Vocabulary.from_columns, columns), *words)
bad(
    "vocabulary", "an unknown attribute", call(labels.select_attributes, HAT, soft([0, 1]), ["hut"]),
    "unknown attribute 'hut'", "did you mean 'hat'")


# arrays of other kinds, and nothing at all

SOFT = np.array([[[0, 1]]] * 2, np.float32)
MAPS = np.zeros((2, 8, 4), np.uint8)
for kind in (bool, float, np.float16, object, complex, str):
    for f in (labels.colour_parts, label_scores.part_statistics, functools.partial(labels.part_iou, MAPS),
              functools.partial(label_scores.doubtful, ["a", "b"])):
        bad(
            "array", f"part maps of {np.dtype(kind)} for {getattr(f, 'func', f).__name__}", call(f, MAPS.astype(kind)),
            "expected integer classes")
for kind in (object, complex, str):
    bad(
        "array", f"probabilities of {np.dtype(kind)}", call(labels.join_attributes, SOFT.astype(kind)),
        "expected numbers")
bad("array", "NaN made hard", call(labels.one_hot, SOFT * np.nan), "a probability is NaN")
for f in (functools.partial(label_scores.attribute_statistics, HAT),
          functools.partial(label_scores.doubtful, ["a", "b"], None, HAT)):
    bad(
        "array", f"NaN for {f.func.__name__}", call(f, SOFT * np.nan), "a probability is NaN",
        "predict these labels again")
bad(
    "array", "known of a half", call(label_scores.attribute_scores, HAT, SOFT, SOFT, np.full((2, 1), .5)),
    "known holds other values")
bad(
    "array", "probabilities without vocabulary", call(label_scores.doubtful, ["a", "b"], None, None, SOFT),
    "without their vocabulary")
for f in (functools.partial(labels.read_parts, "store"),
          functools.partial(labels.read_attributes, truth_store("corridor"))):
    bad("array", f"one path for {f.func.__name__}", call(f, "a.jpg"), "paths is 'a.jpg'", "a list of paths")
bad(
    "array", "letters for paths of attributes", call(labels.write_attributes, "store", "ab", HAT, SOFT),
    "paths is 'ab'", "a list of paths")
bad(
    "array", "letters for paths of part maps", call(labels.write_parts, "store", "ab", MAPS), "paths is 'ab'",
    "a list of paths")
bad("array", "letters for doubtful paths", call(label_scores.doubtful, "ab", MAPS), "paths is 'ab'", "a list of paths")
bad(
    "array", "a path that is no UTF-8",
    lambda f: functools.partial(labels.write_attributes, f, ["\udcff.jpg"], HAT, SOFT[:1]),
    "'\\udcff.jpg' is not text in UTF-8", "rename the image")
bad(
    "array", "no images to score", call(label_scores.attribute_statistics, HAT, SOFT[:0]),
    "attributes are a table of (0, 2)")
bad(
    "array", "no splits to look at", lambda f: functools.partial(examine, load_domain(csv(f)), ()), "splits are []",
    "train, query, gallery")


def provenance(text: str | bytes) -> Callable:
    def make(folder):
        put_content(folder / labels.PROVENANCE_FILE, text)
        return functools.partial(labels.read_provenance, folder)
    return make


for name, text, *words in [
    ("cut off", "{", "is not JSON", "delete it"),
    ("nested 100,000 deep", "[" * 100_000, "is not JSON"),
    ("not UTF-8", b"\xff", "is not JSON"),
    ("a list", "[]", "expected an object"),
    ("another key", '{"other": {}}', "expected an object with the keys parts, attributes"),
    ("text for an entry", '{"parts": "me"}', "expected an object")]:
    bad("labels.json", name, provenance(text), "labels.json", *words)
bad(
    "labels.json", "not there", lambda f: functools.partial(labels.read_provenance, f),
    "it is unknown who predicted these labels", "write_provenance", error=FileNotFoundError)
