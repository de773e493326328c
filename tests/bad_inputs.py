"""A catalogue of bad inputs: what is made, what is called with it, and the error that must come of it.

Every case must be refused by an error of this package (raised in `ptl_nb`, not deeper in a library) of exactly the type given,
whose message holds the words given: the file or value, what is wrong, what to do. `python tests/bad_inputs.py` prints the whole catalogue with the messages.
"""
import functools
import io
import json
import os
import pickle
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import loadmat, savemat
from scipy.sparse import csr_array

import ptl_nb
from ptl_nb import (clustering, evaluator, experiments, label_data, label_import, labellers, labels, launch, losses,
                    model, multi, parallel, ssg, standins, trainer)
from ptl_nb.data import Images, batches, decode, identity_classes, identity_epoch, pixels, random_epoch
from ptl_nb.domains import CUHK03_SPLIT, LAYOUTS, STANDIN_MARKER, load_domain, parse_names

from test_domains import DUKE, MARKET, csv, mat, touch, tree


@dataclass(frozen=True)
class Case:
    area: str                    # kind of input
    name: str                    # what is bad about it
    make: Callable               # empty folder -> the call that must be refused
    words: tuple[str, ...]       # all must be in the message
    error: type = ValueError

    @property
    def id(self) -> str: return f"{self.area}: {self.name}"


CASES: list[Case] = []


def bad(area: str, name: str, make: Callable, *words: str, error: type = ValueError) -> None:
    "A row of the catalogue."
    CASES.append(Case(area, name, make, words, error))


def call(f: Callable, *arguments, **named) -> Callable:
    "A case that needs nothing made."
    return lambda folder: functools.partial(f, *arguments, **named)


SECONDS = 20     # no refusal may take longer, a hang included


def refusal(case: Case) -> str:
    "The message that a case is refused with; AssertionError where it is accepted, or refused by something else than a documented error."
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = case.make(Path(folder))
        signal.signal(signal.SIGALRM, _late)
        signal.alarm(SECONDS)
        try: result = refused()
        except Exception as error:
            signal.alarm(0)
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = str(error).replace(folder, "<folder>")
            assert Path(where.filename).parent == Path(ptl_nb.__path__[0]), f"raised in {where.filename}, line {where.lineno}: {type(error).__name__}: {text}"
            own = type(error).__module__.startswith("ptl_nb.")        # a kind of it that the package defines
            assert isinstance(error, case.error) if own else type(error) is case.error, f"{type(error).__name__}, expected {case.error.__name__}: {text}"
            missing = [w for w in case.words if w not in text]
            assert not missing, f"lacks {missing}: {text}"
            return text
        finally: signal.alarm(0)
    raise AssertionError(f"accepted: {result!r:.200}")


def _late(*_): raise TimeoutError(f"not refused within {SECONDS} seconds")


# images

def image_file(content: bytes | Callable, name: str = "a.jpg") -> Callable:
    "Decoding a file with this content."
    def make(folder):
        content(folder / name) if callable(content) else (folder / name).write_bytes(content)
        return lambda: decode(folder / name, (8, 4))
    return make


def encoded(form: str, size=(40, 80), **options) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes: return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    "A PNG of a given header and no pixels."
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)) + b"".join(chunks) + chunk(b"IEND", b"")


REPLACE = ("cannot decode the image", "a.jpg", "replace the file or take it out")
for name, content in {
    "text named .jpg": b"no image at all", "empty": b"", "JPEG cut in half": encoded("JPEG")[:900], "JPEG header only": encoded("JPEG")[:20],
    "PNG cut off": encoded("PNG")[:3000], "PNG without pixels": png(4, 8), "PNG with a broken checksum": encoded("PNG").replace(b"IHDR", b"IHDX", 1),
    "PNG of 60,000 x 60,000 (a bomb)": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(100)))),
    "PNG with a text chunk that unpacks to 70 MB": png(4, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70 << 20), 1))),
    "PNG with broken zlib data": png(4, 8, chunk(b"IDAT", b"not zlib data")), "PNG of a bit depth that is none": png(4, 8, depth=7),
    "WebP cut off": encoded("WEBP")[:200], "BMP cut off": encoded("BMP")[:500], "TIFF cut off": encoded("TIFF")[:300],
    "TIFF with a directory outside the file": b"II*\0\xff\xff\xff\x7f", "GIF header only": b"GIF89a\x04\0\x08\0", "a zip archive": zipfile.ZipFile and b"PK\x03\x04" + bytes(30),
    "a folder": lambda file: file.mkdir(),
}.items(): bad("image", name, image_file(content), *REPLACE)
for name, content in {"missing": lambda file: None, "a link to nothing": lambda file: file.symlink_to(file.parent / "gone.jpg")}.items():
    bad("image", name, image_file(content), "no image", "a.jpg", "extract the data set again", error=FileNotFoundError)


def one_broken(folder):
    domain = load_domain(csv(folder))
    (folder / "crops" / "1.jpg").write_bytes(b"x")
    return lambda: pixels(domain, "train", (8, 4), folder / "cache")


bad("image", "one of a domain's", one_broken, "cannot decode the image", "crops/1.jpg", "replace the file")


# file names

def names(layout: str, name: str) -> Callable: return call(parse_names, [LAYOUTS[layout].example, name], LAYOUTS[layout], Path("data/query"))


for layout, name in [
    ("market", "holiday.jpg"), ("market", "0004_c0s1_000000_00.jpg"), ("market", "-2_c1s1_000000_00.jpg"), ("market", "0004_c1_f0000001.jpg"), ("market", "0002_c1s1_000451_03"),
    ("market", "0002_C1S1_000451_03.jpg"), ("market", " 0002_c1s1_000451_03.jpg"), ("market", "99999999999999999999_c1s1_000451_03.jpg"),
    ("market", "0002_c99999999999999999999s1_000451_03.jpg"), ("market", "\u0660\u0661_c1s1_000451_03.jpg"), ("market", "0002_c1s1_000451_03.jpg\n"), ("market", "\udcff_c1s1_000451_03.jpg"),
    ("duke", "0002_c1s1_000451_03.jpg"), ("duke", "0001_c2_f.jpg"), ("duke", "_c2_f0046182.jpg"), ("cuhk03", "0001_c2_f0046182.png"), ("cuhk03", "1_001_1_01.png")]:
    bad("file name", f"{layout} {name!a}", names(layout, name), "1 of 2 images in data/query break the name pattern", repr(name), "expected such as", "move what does not belong there")


# domain.csv

def line(text: str, files: tuple[str, ...] = ()) -> Callable:
    "A ninth line in a good table."
    def make(folder):
        table = csv(folder, text)
        for file in files: touch(folder / file, 99)
        return functools.partial(load_domain, table)
    return make


for text, *words in [
    ("crops/9.jpg,1,1,train", "path 'crops/9.jpg' does not exist", "place the image there"), ("crops/0.jpg,1,1,query", "more than once", "one split, once"),
    ("./crops//0.jpg,1,1,train", "more than once"), ("../x.jpg,1,1,train", "leaves the folder", "copy the images next to it"), ("/etc/x.jpg,1,1,train", "is absolute", "relative to the csv"),
    ("crops/../../x.jpg,1,1,train", "leaves the folder"), (",1,1,train", "path '' is empty"), ("crops\\0.jpg,1,1,train", "forward slashes"), ("crops,1,1,train", "path 'crops'"),
    ("x\0.jpg,1,1,train", "path"), ("x.jpg\x1b[2J,1,1,train", "path"), ("x" * 300 + ".jpg,1,1,train", "does not exist"), ("~/x.jpg,1,1,train", "does not exist"),
    ("http://host/x.jpg,1,1,train", "does not exist"), ("domain.csv,1,1,train", "does not end like an image"),
    ("x.jpg,1.5,1,train", "pid '1.5' is not an integer"), ("x.jpg,,1,train", "pid '' is not an integer"), ("x.jpg,1e3,1,train", "pid '1e3'"), ("x.jpg,0x1,1,train", "pid '0x1'"),
    ("x.jpg,99999999999999999999,1,train", "pid '99999999999999999999'"), ("x.jpg,\u0661,1,train", "pid", "is not an integer"), ("x.jpg,nan,1,train", "pid 'nan'"), ("x.jpg,-3,1,train", "is negative"),
    ("x.jpg,1.0,1,train", "pid '1.0' is not an integer: write 1"),
    ("x.jpg,1,2.,train", "camid '2.' is not an integer: write 2"),
    ("x.jpg,1.5,2,train", "write a whole number, such as 12"),
    ("x.jpg,1,c2,train", "camid 'c2' is not an integer"), ("x.jpg,1,0,train", "count from 1"), ("x.jpg,1,-1,train", "count from 1"), ("x.jpg,-1,1,query", "cannot be a query"),
    ("x.jpg,-1,1,train", "label all of them or none"), ("x.jpg,1,1,trian", "is 'train' meant"), ("x.jpg,1,1,test", "use train, query or gallery"), ("x.jpg,1,1", "split '' is unknown"),
    ("x.jpg,1,1,Train", "split 'Train' is unknown"), ("x.jpg;1;1;train", "split"),
]: bad("domain.csv", f"line {text!a:.40}", line(text), "domain.csv, line 10", *words)
bad("domain.csv", "a fifth field", line("x.jpg,1,1,train,9"), "domain.csv", "cannot be read", "line 10")
bad("domain.csv", "an open quote", line('"x.jpg,1,1,train'), "domain.csv", "cannot be read", "EOF inside string")


def table(content: bytes) -> Callable:
    "A whole table."
    def make(folder):
        csv(folder).write_bytes(content)
        return functools.partial(load_domain, folder / "domain.csv")
    return make


HEAD, GOOD = b"path,pid,camid,split\n", b"crops/0.jpg,1,1,train\ncrops/1.jpg,2,1,train\n"
for name, content, *words in [
    ("empty", b"", "cannot be read"), ("a header alone", HEAD, "lists no images"), ("blank lines alone", HEAD + b"\n\n\n", "lists no images"), ("Latin-1", HEAD + b"\xe9.jpg,1,1,train\n", "UTF-8"),
    ("UTF-16", (HEAD + GOOD).decode().encode("utf-16"), "UTF-8"), ("a misspelt column", b"path,pids,camid,split\n" + GOOD, "no column 'pid'", "is 'pids' meant"), ("semicolons", (HEAD + GOOD).replace(b",", b";"), "no column 'path'"),
    ("tabs", (HEAD + GOOD).replace(b",", b"\t"), "no column 'path'"), ("no header", GOOD, "no column 'path'"), ("a column twice", b"path,pid,pid,camid,split\ncrops/0.jpg,1,9,1,train\n", "column 'pid' twice"),
    ("a column twice but for blanks", b"path,pid, pid,camid,split\ncrops/0.jpg,1,9,1,train\n", "column 'pid' twice"), ("a picture", encoded("PNG"), "cannot be read"),
    ("one identity in train", HEAD + b"crops/0.jpg,1,1,train\n", "fewer than two identities in train", "only pid 1"), ("queries without a gallery", HEAD + b"crops/0.jpg,1,1,query\n", "no gallery images"),
    ("a gallery without queries", HEAD + b"crops/0.jpg,1,1,gallery\ncrops/1.jpg,2,1,gallery\n", "no query images"), ("NUL bytes", HEAD + bytes(40), "domain.csv"),
]: bad("domain.csv", name, table(content), "domain.csv", *words)


def linked(path: str, target: Callable) -> Callable:
    "A line whose path is a link."
    def make(folder):
        own = folder / "own"
        listed = csv(own, f"{path},1,1,train")
        (own / path.split("/")[0]).symlink_to(target(folder))
        return functools.partial(load_domain, listed)
    return make


bad("domain.csv", "a link to an image elsewhere", linked("x.jpg", lambda f: touch(f / "secret/0.jpg")), "line 10", "'x.jpg' leaves the folder")
bad("domain.csv", "a link to a folder elsewhere", linked("there/0.jpg", lambda f: touch(f / "secret/0.jpg").parent), "line 10", "'there/0.jpg' leaves the folder")
bad("domain.csv", "a link to nothing", linked("x.jpg", lambda f: f / "own" / "gone.jpg"), "line 10", "does not exist")
bad("domain.csv", "a link to itself", linked("x.jpg", lambda f: f / "own" / "x.jpg"), "line 10", "x.jpg")


def pipe(folder):
    listed = csv(folder, "x.jpg,1,1,train")
    os.mkfifo(folder / "x.jpg")
    return lambda: load_domain(listed).data_hash()


bad("domain.csv", "a named pipe", pipe, "line 10", "'x.jpg'", "not a file")


# names and places of domains

for name, options, *words in [
    ("markt", {}, "is 'market' meant"), ("Plaza", {}, "is 'plaza' meant"), ("zzz", {}, "Known are market"), ("", {}, "unknown domain ''"), ("market", {"origin": "reel"}, "unknown origin 'reel'", "standin"),
    ("plaza", {"origin": "real"}, "there is no real one"), ("x.csv/", {"origin": "standin"}, "does not go with the path")]:
    bad("domain", f"{name!r} {options}", call(load_domain, name, **options), *words)
bad("domain", "a file that is no csv", lambda f: functools.partial(load_domain, touch(f / "one.jpg")), "one.jpg", "is a file, but not a .csv")
bad("domain", "a path that is not there", call(load_domain, "./gone/domain.csv"), "gone/domain.csv", "does not exist", "give a path", error=FileNotFoundError)
bad("domain", "a folder without images", lambda f: functools.partial(load_domain, f), "holds no images")
for name in ("market", "duke", "cuhk03"):
    bad("domain", f"{name} that is not there", lambda f, name=name: functools.partial(load_domain, name, f, "real"), "is not under", "place its archive's folder there", error=FileNotFoundError)


# layouts

def layout(name: str, damage: Callable, pattern: str = MARKET) -> Callable:
    "A tree of three folders, damaged."
    def make(folder):
        damage(tree(folder / name, pattern))
        return functools.partial(load_domain, name, folder, "real")
    return make


HALF = ("half-extracted", "extract the archive again")
for name, damage, *words in [
    ("no query folder", lambda f: shutil.rmtree(f / "query"), "query: missing"), ("an empty gallery", lambda f: [p.unlink() for p in (f / "bounding_box_test").iterdir()], "bounding_box_test: empty"),
    ("train alone", lambda f: [shutil.rmtree(f / p) for p in ("query", "bounding_box_test")], "bounding_box_train: 12 images"),
    ("a file in a folder's place", lambda f: [shutil.rmtree(f / "query"), (f / "query").write_text("x")], "half-extracted")]:
    bad("layout", name, layout("market", damage), *HALF, *words, error=FileNotFoundError)
for name, damage, *words in [
    ("a picture that does not belong", lambda f: touch(f / "bounding_box_train/holiday.jpg"), "1 of 13 images", "'holiday.jpg'", "move what does not belong"),
    ("an identity in train and in test", lambda f: touch(f / "query/0001_c1s1_000009_00.jpg"), "both in train and in query or gallery", "first pid 1"),
    ("one identity in train", lambda f: [p.unlink() for p in f.glob("bounding_box_train/000[12]*")], "fewer than two identities in train"),
    ("junk alone in query", lambda f: [p.rename(p.with_name(p.name.replace(p.name[:4], "-1"))) for p in list((f / "query").iterdir())], "no query images besides junk"),
    ("a marker that is no JSON", lambda f: (f / STANDIN_MARKER).write_text("{"), STANDIN_MARKER, "export the stand-in again"),
    ("a marker without a name", lambda f: (f / STANDIN_MARKER).write_text("{}"), STANDIN_MARKER, "needs name and stands_for"),
    ("a marker of deep JSON", lambda f: (f / STANDIN_MARKER).write_text("[" * 100_000), STANDIN_MARKER, "export the stand-in again"),
    ("a marker of another dataset", lambda f: (f / STANDIN_MARKER).write_text('{"name": "campus", "stands_for": "duke"}'), "stand-in for duke, not for market"),
    ("a marker whose name is a path", lambda f: (f / STANDIN_MARKER).write_text('{"name": "../../evil", "stands_for": "market"}'), STANDIN_MARKER, "../../evil"),
    ("a marker whose name is a number", lambda f: (f / STANDIN_MARKER).write_text('{"name": 7, "stands_for": "market"}'), STANDIN_MARKER),
]: bad("layout", name, layout("market", damage), *words)
bad("layout", "Duke's names in Market's place", layout("market", lambda f: None, DUKE), "break the name pattern of Market-1501")
bad("layout", "Market's names in Duke's place", layout("duke", lambda f: None), "break the name pattern of DukeMTMC-reID")


def outward(folder):
    secret = touch(folder / "secret.jpg", 77)
    (tree(folder / "data/market") / "query" / MARKET.format(4, 2, 9)).symlink_to(secret)
    return functools.partial(load_domain, "market", folder / "data", "real")


bad("layout", "an image that is a link out of the dataset", outward, "links", MARKET.format(4, 2, 9))


# MATLAB files

def protocol(**changes) -> Callable:
    "CUHK03's split file with other contents."
    return lambda folder: functools.partial(load_domain, "cuhk03", mat(folder / "cuhk03", **changes).parent, "real")


u16 = lambda *values: np.array(values, np.uint16)[:, None]
for name, changes, *words in [
    ("no labels", {"labels": None}, "has no labels"), ("a row 0", {"query_idx": u16(0, 1)}, "query_idx runs from 0"), ("a row beyond the list", {"train_idx": u16(1, 25)}, "images 1 to 24"),
    ("lists of other lengths", {"labels": u16(1)}, "differ in length"), ("no training rows", {"train_idx": np.zeros((0, 1), np.uint16)}, "no train images"), ("an image in two splits", {"gallery_idx": u16(13, 14)}, "more than once"),
    ("NaN labels", {"labels": np.full((24, 1), np.nan)}, "labels", "whole numbers"), ("fractions", {"train_idx": np.array([[1.5], [2]])}, "train_idx", "whole numbers"), ("text as labels", {"labels": np.array(["one"])}, "labels"),
    ("cells as labels", {"labels": np.array([[1], "x"] * 12, dtype=object)}, "labels", "whole numbers"), ("cameras from 0", {"camId": np.zeros((24, 1), np.uint8)}, "camId", "from 1"),
    ("negative identities", {"labels": np.full((24, 1), -5)}, "labels", "-5"), ("a list of numbers", {"filelist": np.arange(24)[:, None]}, "12 of the 12 train images", "first '0'"), ("empty names", {"filelist": np.array([""] + ["x"] * 23, dtype=object)[:, None]}, "12 of the 12 train images", "first ''"),
    ("labels beyond 64 bits", {"labels": np.full((24, 1), 1e30)}, "labels"), ("a structure for a list", {"camId": {"a": 1}}, "camId"),
]: bad("CUHK03 .mat", name, protocol(**changes), "cuhk03", *words)


def not_mat(content: bytes) -> Callable:
    def make(folder):
        (mat(folder / "cuhk03") / CUHK03_SPLIT).write_bytes(content)
        return functools.partial(load_domain, "cuhk03", folder, "real")
    return make


V73 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(400)
for name, content in {"text": b"not a mat file", "empty": b"", "MATLAB 7.3": V73, "a pickle": pickle.dumps([1])}.items(): bad("CUHK03 .mat", name, not_mat(content), CUHK03_SPLIT, "cannot be read as a MATLAB 5 file", "fetch it again")


def missing_image(folder):
    (mat(folder / "cuhk03") / "images_detected/1_001_1_01.png").unlink()
    return functools.partial(load_domain, "cuhk03", folder, "real")


bad("CUHK03 .mat", "an image that is listed but missing", missing_image, "1 of the 12 train images", "'1_001_1_01'", "extract the images again")


@functools.lru_cache(maxsize=None)
def written(form: str) -> Path:
    "A few persons of a label stand-in in one of the published forms, kept until the process ends."
    folder = Path(tempfile.mkdtemp(prefix="ptl-bad-inputs-"))
    import atexit
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    writers = {"densepose": label_data.export_densepose, "peta": label_data.export_peta_tree, "peta-mat": label_data.export_peta_mat, "rap": label_data.export_rap, "rap1": functools.partial(label_data.export_rap, version=1)}
    return writers[form](folder / form, limit=12 if form != "peta" else 20)


READERS = {"densepose": label_data.read_densepose, "peta": label_data.read_peta_tree, "peta-mat": label_data.read_peta_mat, "rap": label_data.read_rap, "rap1": label_data.read_rap}
MATS = {"peta-mat": ("peta", "PETA.mat"), "rap": ("RAP_annotation", "RAP_annotation/RAP_annotation.mat"), "rap1": ("RAP_annotation", "RAP_annotation/RAP_annotation.mat")}


def damaged(form: str, damage: Callable, **options) -> Callable:
    "A label dataset, damaged, then read."
    def make(folder):
        shutil.copytree(written(form), folder / form)
        damage(folder / form)
        return lambda: READERS[form](folder / form, **options)
    return make


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
    def edit(array): array = array.astype(np.float64); array[row, column] = value; return array
    return edit


def cell(index: int, value) -> Callable:
    def edit(cells): cells = cells.copy(); cells[index, 0] = np.array([value]); return cells
    return edit


def partition(edit: Callable) -> Callable:
    "The rows of every split of the fourth partition changed."
    def change(cells):
        cells, names = cells.copy(), cells.ravel()[3].dtype.names
        cells.ravel()[3] = {k: edit(v) for k, v in zip(names, cells.ravel()[3][0, 0])}
        return cells
    return change


AGAIN = "etch"      # "Fetch ... again" or "fetch ... again"
for name, at, edit, *words in [
    ("NaN", 0, put(4, 10, np.nan), "image 'images/00005.png'", "is not a number"), ("a 2", 0, put(4, 10, 2), "is 2, expected 0 or 1"), ("a negative", 0, put(4, 10, -1), "is -1, expected 0 or 1"), ("a fraction", 0, put(4, 10, .5), "is 0.5, expected 0 or 1"),
    ("a column too few", 0, lambda t: t[:, :-1], "a table of 108 columns with 105 names"), ("text for the table", 0, lambda t: np.full(t.shape, "x", dtype=object), "data"), ("a cube for the table", 0, lambda t: t[None], "the structure has the fields"),
    ("an empty table", 0, lambda t: t[:0], "PETA.mat"), ("complex numbers", 0, lambda t: t + 1j, "PETA.mat"),
    ("an unknown attribute", 1, cell(3, "upperBodyGren"), "unknown attribute 'upperBodyGren', is 'upperBodyGreen' meant"), ("a left-out attribute", 1, cell(3, "accessoryShawl"), "104 of PETA's 105 attributes occur"),
    ("an attribute twice", 1, cell(3, "upperBodyBlack"), "104 of PETA's 105 attributes occur"), ("numbers for names", 1, lambda c: np.arange(105)[:, None], "unknown attribute"),
    ("rows beyond the table", 3, partition(lambda v: v + 5), "of partition 3 holds rows"), ("rows from 0", 3, partition(lambda v: v * 0), "of partition 3 holds rows 0..0"), ("fractions of rows", 3, partition(lambda v: v + .5), "partition 3", "whole numbers"),
    ("NaN rows", 3, partition(lambda v: v * np.nan), "partition 3", "whole numbers"), ("text for rows", 3, partition(lambda v: "abc"), "partition 3", "whole numbers"), ("numbers for partitions", 3, lambda c: np.arange(5)[:, None], "partition 0 is not a structure of train, val, test"),
    ("no partitions", 3, lambda c: None, "the structure has the fields data, attribute, selected_attribute"),
]: bad("PETA.mat", name, field("peta-mat", at, edit), "PETA.mat", *words)
for name, form, at, edit, options, *words in [
    ("NaN", "rap", "data", put(4, 10, np.nan), {}, "tarid4_", "is not a number"), ("a 3", "rap", "data", put(4, 10, 3), {}, "is 3, expected 0 or 1 or 2"), ("a 7 (v1)", "rap1", "label", put(4, 10, 7), {}, "is 7, expected 0 or 1 or 2"),
    ("a row too few", "rap", "data", lambda t: t[:-1], {}, "for 12 images"), ("a sparse matrix for the table", "rap", "data", lambda t: csr_array(t), {}, "a table of (0, 0)"), ("an attribute too few", "rap", "attribute", lambda c: c[:-1], {}, "55 attributes"), ("text for the table", "rap", "data", lambda t: np.full(t.shape, "x", dtype=object), {}, "data"),
    ("no attachment-Baby", "rap", "attribute", cell(55, "something"), {}, "has no attribute 'attachment-Baby'"), ("an attribute twice", "rap", "attribute", lambda c: cell(1, str(c[0, 0][0]))(c), {}, "twice"),
    ("rows beyond the table", "rap", "partition_attribute", partition(lambda v: v + 5), {}, "of partition 3 holds rows"), ("no partitions", "rap", "partition_attribute", lambda c: None, {}, "neither RAPv1", "nor RAPv2"),
    ("no names (v1)", "rap1", "imagesname", lambda c: None, {}, "neither RAPv1", "nor RAPv2"), ("no attribute_exp (v1)", "rap1", "attribute_exp", lambda c: None, {}, "attribute_exp"), ("an image path that leaves the folder", "rap", "name", cell(0, "../../secret.png"), {}, "are not in", "'../../secret.png'"),
    ("no selected_attribute", "rap", "selected_attribute", lambda c: None, {"columns": "selected"}, "selected_attribute"), ("columns beyond the table", "rap", "selected_attribute", lambda v: v + 2, {"columns": "selected"}, "the table has 56 columns"),
    ("NaN columns", "rap", "selected_attribute", lambda v: v * np.nan, {"columns": "selected"}, "selected_attribute"), ("an image twice", "rap", "name", lambda c: cell(1, str(c[0, 0][0]))(c), {}, "twice"),
]:
    error = FileNotFoundError if "path" in name else ValueError
    bad("RAP .mat", name, field(form, at, edit, **options), "RAP_annotation.mat", *words, error=error)
bad("RAP .mat", "columns that are none", damaged("rap", lambda f: None, columns="all"), "unknown columns 'all'", "'paper', 'selected'")
bad("RAP .mat", "a meaning of 2 that is none", damaged("rap", lambda f: None, unsure="no"), "unsure is 'no'", "'clip' or 'mask'")
for form in ("peta-mat", "rap"):
    variable, file = MATS[form]
    write = lambda content, file=file: lambda folder: (folder / file).write_bytes(content)
    for name, damage, *words in [
        ("text", write(b"text"), "cannot be read as a MATLAB 5 file"), ("empty", write(b""), "cannot be read as a MATLAB 5 file"), ("MATLAB 7.3", write(V73), "7.3"), ("a pickle", write(pickle.dumps({"a": 1})), "cannot be read"),
        ("cut in half", lambda f, file=file: (f / file).write_bytes((f / file).read_bytes()[:400]), "cannot be read as a MATLAB 5 file"), ("another variable", lambda f, file=file: savemat(f / file, {"other": 1}), f"no structure '{variable}' (it has other)"),
        ("a sparse matrix for the structure", lambda f, file=file, variable=variable: savemat(f / file, {variable: csr_array(np.eye(3))}), f"no structure '{variable}'"),
        ("a number for the structure", lambda f, file=file, variable=variable: savemat(f / file, {variable: 5}), f"no structure '{variable}'")]:
        bad("PETA.mat" if form == "peta-mat" else "RAP .mat", name, damaged(form, damage), Path(file).name, *words)
    bad("PETA.mat" if form == "peta-mat" else "RAP .mat", "an image missing", damaged(form, lambda f: sorted(p for p in f.rglob("*") if p.suffix in (".jpg", ".png"))[0].unlink()), "1 of the 12 images", "are not in", "extract the images there", error=FileNotFoundError)
    bad("PETA.mat" if form == "peta-mat" else "RAP .mat", "no file", damaged(form, lambda f, file=file: (f / file).unlink()), "is not there", "place the annotation file", error=FileNotFoundError)


# DensePose

TRAIN = label_data.DP_FILE.format("train")


def annotations(edit: Callable) -> Callable:
    "The annotations of a few persons, edited."
    def damage(folder):
        content = json.loads((folder / TRAIN).read_text())
        edit(content)
        (folder / TRAIN).write_text(json.dumps(content))
        (folder / label_data.DP_FILE.format("minival")).unlink()
    return damaged("densepose", damage)


def person(**changes): return lambda c: c["annotations"][2].update(changes)
def mask(**changes): return lambda c: next(m for m in c["annotations"][2]["dp_masks"] if m).update(changes)
def picture(**changes): return lambda c: c["images"][2].update(changes)


for name, edit, *words in [
    ("a mask of another size", mask(size=[256, 255]), "has size [256, 255], expected [256, 256]"), ("a mask without a size", mask(size=None), "has size None"), ("no run-length code", mask(counts=""), "is no run-length code"), ("other letters", mask(counts="~~~~"), "is no run-length code"),
    ("numbers for a code", mask(counts=[0, 65536]), "is no run-length code"), ("text for masks", person(dp_masks=["x"] * 14), "has size None"), ("15 masks", lambda c: c["annotations"][2]["dp_masks"].append([]), "15 dp_masks, expected 14"),
    ("13 masks", lambda c: c["annotations"][2]["dp_masks"].pop(), "13 dp_masks, expected 14"), ("a number for masks", person(dp_masks=7), "dp_masks"), ("a dictionary for masks", person(dp_masks={"a": 1}), "dp_masks"), ("a text for masks", person(dp_masks="abc"), "dp_masks"),
    ("a box beyond the image", person(bbox=[0, 0, 66, 128]), "bbox [0.0, 0.0, 66.0, 128.0]", "outside its image"), ("a negative corner", person(bbox=[-1, 0, 60, 128]), "outside its image"), ("a box of no width", person(bbox=[0, 0, 0, 128]), "outside its image"),
    ("three numbers for a box", person(bbox=[0, 0, 64]), "outside its image"), ("NaN in a box", person(bbox=[0, float("nan"), 64, 128]), "outside its image"), ("infinity in a box", person(bbox=[0, 0, float("inf"), 128]), "outside its image"), ("no box", person(bbox=None), "outside its image"),
    ("text for a box", person(bbox="0 0 64 128"), "bbox"), ("text in a box", person(bbox=[0, 0, "wide", 128]), "bbox"), ("nested boxes", person(bbox=[[0], [0, 1]]), "bbox"), ("a dictionary for a box", person(bbox={"x": 0}), "bbox"),
    ("an image that is not listed", person(image_id=999), "is of image 999, which is not listed"), ("a list for an image id", person(image_id=[1]), "image_id"), ("ids of two kinds", person(id="three"), "id"),
    ("an image without a height", lambda c: c["images"][2].pop("height"), "without id, file_name, height or width"), ("text for a height", picture(height="tall"), "height"), ("a height of 0", picture(height=0), "height"), ("a negative width", picture(width=-64), "width"),
    ("NaN for a height", picture(height=float("nan")), "height"), ("a fraction of a pixel", picture(width=64.5), "width"), ("a number for a file name", picture(file_name=7), "file_name"), ("a list for an image's id", picture(id=[3]), "id"), ("an image id twice", lambda c: c["images"].append(dict(c["images"][2], file_name="other.jpg")), "twice"),
    ("an image that is a number", lambda c: c["images"].append(7), "image"), ("an annotation that is a number", lambda c: c["annotations"].append(7), "annotation"), ("an annotation that is null", lambda c: c["annotations"].append(None), "annotation None"), ("the image id 0 twice", lambda c: c["images"].extend([dict(c["images"][2], id=0)] * 2), "image id 0 twice"), ("no annotations", lambda c: c.pop("annotations"), "has no list 'annotations'"), ("text for images", lambda c: c.update(images="abc"), "has no list 'images'"),
    ("nobody with masks", lambda c: [a.pop("dp_masks") for a in c["annotations"]], "has dp_masks: these are other annotations"),
]: bad("DensePose JSON", name, annotations(edit), TRAIN, *words)
bad("DensePose JSON", "a path that leaves the folder", annotations(picture(file_name="../../secret.jpg")), TRAIN, "are not in", "'../../secret.jpg'", error=FileNotFoundError)
bad("DensePose JSON", "an absolute path", annotations(picture(file_name="/etc/secret.jpg")), TRAIN, "are not in", error=FileNotFoundError)
for name, content, *words in [("cut off", b"{", "is not JSON"), ("empty", b"", "is not JSON"), ("a list", b"[]", "has no list 'images'"), ("nested 100,000 deep", b"[" * 100_000, "is not JSON"), ("not UTF-8", b'{"images": "\xff"}', "is not JSON"), ("a picture", encoded("PNG"), "is not JSON"),
                              ("a number of 10,000 digits", b'{"images": [' + b"9" * 10_000 + b'], "annotations": []}', TRAIN)]:
    bad("DensePose JSON", name, damaged("densepose", lambda f, content=content: (f / TRAIN).write_bytes(content)), TRAIN, *words)
bad("DensePose JSON", "no files", lambda f: functools.partial(label_data.read_densepose, f), "holds none of densepose_coco_2014_train.json", "place DensePose's annotations there", error=FileNotFoundError)
bad("DensePose JSON", "a split that is none", damaged("densepose", lambda f: None, splits=["val"]), "unknown split 'val'", "valminusminival")
bad("DensePose JSON", "a split that is not there", damaged("densepose", lambda f: None, splits=["test"]), "is not there", "place DensePose's annotations", error=FileNotFoundError)


def code(text: str) -> Callable:
    "A person whose first mask has this run-length code, decoded."
    masks = [{"size": [256, 256], "counts": text}] + [[]] * 13
    return lambda folder: functools.partial(label_data.person_parts, masks)


for name, text in {"cut off inside a number": "PPYo", "too few cells": "010", "too many cells": "0" + "o" * 3 + "0", "a negative run": "0N2", "a number of 100 bits": "0" + "o" * 20 + "0", "a number that overflows to a good sum": "P" * 13 + "0" + "PPR2"}.items():
    bad("DensePose RLE", name, code(text), "the runs of dp_mask 1 (torso)", "of 65536 cells")


def in_file(folder):
    "The same through the reader, which names image and person."
    make = annotations(mask(counts="010"))(folder)
    return lambda: label_data.part_maps(make(), (128, 64), folder / "cache")


bad("DensePose RLE", "in a file", in_file, "COCO_train2014_000000000003.jpg", "the person at", "a dp_mask cannot be decoded", "Fetch the annotations again")


# PETA's tree

def label_txt(edit: Callable, **options) -> Callable:
    def damage(folder):
        file = folder / "PETA dataset/VIPeR/archive/Label.txt"
        content = edit(file.read_text())
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return damaged("peta", damage, **options)


for name, edit, *words in [
    ("an id without an image", lambda t: t + "0777 upperBodyBlack\n", "have no image", "'0777'", "strict=False"), ("an image without a line", lambda t: t.split("\n", 1)[1], "have no line in Label.txt", "strict=False"),
    ("an unknown attribute", lambda t: t.replace("\n", " upperBodyBlak\n", 1), "line 1: unknown attribute 'upperBodyBlak', is 'upperBodyBlack' meant"), ("an id with other attributes", lambda t: t + "0001 upperBodyPink\n", "id '0001' has other attributes than before", "Keep one"),
    ("empty", lambda t: "", "have no line in Label.txt"), ("not text", lambda t: b"\xff\xfe\x00", "is not text"), ("commas", lambda t: t.replace(" ", ","), "Label.txt"), ("control characters", lambda t: "\0\x01\x02\n" + t, "Label.txt"),
]: bad("PETA Label.txt", name, label_txt(edit), "archive", *words)
bad("PETA Label.txt", "not there", damaged("peta", lambda f: (f / "PETA dataset/GRID/archive/Label.txt").unlink()), "lacks GRID/archive/Label.txt", "unzip PETA.zip there", error=FileNotFoundError)
bad("PETA Label.txt", "no folder", lambda f: functools.partial(label_data.read_peta_tree, f / "gone"), "lacks 3DPeS/archive/Label.txt", error=FileNotFoundError)


def load_labels(*arguments, **named) -> Callable: return lambda folder: functools.partial(label_data.load_labels, *arguments, root=folder, **named)


bad("label data", "an unknown name", load_labels("pets"), "unknown label data 'pets'", "Known are")
bad("label data", "a near name", load_labels("densepos"), "is 'densepose' meant")
bad("label data", "an unknown origin", load_labels("rap", origin="reel"), "unknown origin 'reel'")
bad("label data", "a real stand-in", load_labels("mall", origin="real"), "there is no real one")
for name in ("densepose", "peta", "peta-mat", "rap"): bad("label data", f"{name} that is not there", load_labels(name, origin="real"), f"{name} is not under", "place it in", error=FileNotFoundError)


# the label store: part maps

def stored(content: Image.Image | bytes | Callable, **options) -> Callable:
    "A part map with this content, read from a store; the image is 8 x 4 (height x width)."
    def make(folder):
        file = labels.part_file(folder, "train/a.jpg")
        file.parent.mkdir(parents=True)
        content.save(file) if isinstance(content, Image.Image) else content(file) if callable(content) else file.write_bytes(content)
        return lambda: labels.read_parts(folder, ["train/a.jpg"], **({"image_sizes": [(8, 4)]} | options))
    return make


BROKEN_MAPS = {"empty": b"", "text": b"no image", "cut off": encoded("PNG")[:200], "without pixels": png(4, 8), "a bomb": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(100)))),
               "a text chunk that unpacks to 70 MB": png(4, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70 << 20), 1))), "broken zlib data": png(4, 8, chunk(b"IDAT", b"not zlib data"))}
for name, content in BROKEN_MAPS.items(): bad("part map", name, stored(content), "part map", "train/a.png", "cannot be decoded", "delete it and predict it again")
for mode in ("RGB", "RGBA", "LA", "1", "I;16", "P"): bad("part map", f"mode {mode}", stored(Image.new(mode, (4, 8))), "train/a.png", f"has mode '{mode}'", "Save class numbers, not colours")
bad("part map", "class 8", stored(Image.new("L", (4, 8), 8)), "train/a.png", "classes 8..8, expected 0..7", "Map other class sets")
bad("part map", "class 255", stored(Image.new("L", (4, 8), 255)), "classes 255..255, expected 0..7")
bad("part map", "another size", stored(Image.new("L", (4, 6))), "train/a.png is 6x4, its image 8x4", "Predict them again")
bad("part map", "not there", stored(lambda file: None), "no part map", "train/a.png", "predict the domain's labels again", error=FileNotFoundError)
bad("part map", "a folder", stored(lambda file: file.mkdir()), "train/a.png", "cannot be decoded")
bad("part map", "an unknown way to resize", stored(Image.new("L", (4, 8)), size=(4, 2), variant="as_papr"), "unknown variant 'as_papr'", "'as_paper' or 'as_code'")
bad("part map", "resized to nothing", stored(Image.new("L", (4, 8)), size=(0, 2)), "cannot resize", "at least 1")
bad("part map", "sizes for other images", stored(Image.new("L", (4, 8)), image_sizes=[]), "0 image sizes for 1 images")
bad("part map", "no images", call(labels.read_parts, "store", []), "no part maps asked for")
for path in ("../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "a\\b.jpg", "", "."): bad("part map", f"image path {path!r}", call(labels.read_parts, "store", [path]), f"image path {path!r}".replace("\\\\", "\\"), "relative to the domain's root")


def written_parts(maps, paths=("a.jpg",)) -> Callable: return lambda folder: functools.partial(labels.write_parts, folder, list(paths), maps)


for name, maps, *words in [("class 8", [np.full((8, 4), 8)], "classes 8..8"), ("negative", [np.full((8, 4), -1)], "classes -1..-1"), ("fractions", [np.zeros((8, 4))], "float64", "expected integer classes"), ("colours", [np.zeros((8, 4, 3), np.uint8)], "expected integer classes (H, W)"),
                           ("no pixels", [np.zeros((0, 4), np.uint8)], "expected integer classes"), ("two for one image", np.zeros((2, 8, 4), np.uint8), "2 part maps for 1 images")]:
    bad("part map", f"to be written: {name}", written_parts(maps), *words)
bad("part map", "to be written: two images with one map", written_parts(np.zeros((2, 8, 4), np.uint8), ("a.jpg", "a.png")), "two images would share the part map", "a.png", "Rename one")
bad("part map", "to be written: outside the store", written_parts(np.zeros((1, 8, 4), np.uint8), ("../../a.jpg",)), "image path '../../a.jpg'")


# part maps made elsewhere

def imported(content: Image.Image | bytes, mapping="parts", **options) -> Callable:
    "A tree of part maps (two good ones and this), imported."
    def make(folder):
        domain = load_domain(csv(folder / "own", "crops/extra.jpg,1,2,train") if touch(folder / "own/crops/extra.jpg", 50) else 0)
        for name in ("0", "1", "extra"): Image.new("L", (4, 8)).save(touch(folder / f"maps/crops/{name}.png"))
        file = folder / "maps/crops/extra.png"
        if callable(content): file.unlink()
        content.save(file) if isinstance(content, Image.Image) else content(file) if callable(content) else file.write_bytes(content)
        return lambda: label_import.import_parts(folder / "maps", mapping, domain, folder / "store", "me", **options)
    return make


GOOD_MAP = Image.new("L", (4, 8))
for name, content in BROKEN_MAPS.items(): bad("imported parts", name, imported(content), "maps/crops/extra.png", "cannot be decoded", "make it again")
for mode in ("RGB", "RGBA", "LA", "1", "I;16"): bad("imported parts", f"mode {mode}", imported(Image.new(mode, (4, 8))), "maps/crops/extra.png", f"has mode '{mode}'", "Save the classes, not their colours")
for name, content, options, *words in [
    ("class 8", Image.new("L", (4, 8), 8), {}, "maps/crops/extra.png", "class 8 is not in the mapping", "another class set"), ("another size", Image.new("L", (4, 6)), {}, "maps/crops/extra.png", "is 6x4, its image 8x4", "make the labels at the size of the images"),
    ("one missing", lambda file: None, {}, "lacks 1 of the 3 images", "'crops/extra.jpg'", "missing='report'"), ("one for no image", lambda file: [Image.new("L", (4, 8)).save(file.with_name(name)) for name in ("extra.png", "foreign.png")], {}, "holds 1 labels of no image", "'crops/foreign.png'"),
    ("an unknown mapping", GOOD_MAP, {"mapping": "lipp"}, "unknown mapping 'lipp', is 'lip' meant"), ("a mapping to class 9", GOOD_MAP, {"mapping": {0: 9}}, "mapping 0 -> 9", "one of ours, 0..7"), ("a mapping from text", GOOD_MAP, {"mapping": {"head": 1}}, "mapping 'head' -> 1"),
    ("a mapping from a fraction", GOOD_MAP, {"mapping": {1.0: 1}}, "mapping 1.0 -> 1"), ("a mapping to a fraction", GOOD_MAP, {"mapping": {0: 1.0}}, "mapping 0 -> 1.0"), ("a mapping from NaN", GOOD_MAP, {"mapping": {float("nan"): 1}}, "mapping nan -> 1"), ("a mapping from -1", GOOD_MAP, {"mapping": {-1: 0}}, "mapping -1 -> 0"),
    ("a mapping that is a list", GOOD_MAP, {"mapping": [0, 1, 2]}, "mapping", "dictionary"), ("an empty mapping", GOOD_MAP, {"mapping": {}}, "mapping"), ("no splits", GOOD_MAP, {"splits": ()}, "splits are []"), ("a split that is none", GOOD_MAP, {"splits": ("test",)}, "splits are ['test']", "train, query, gallery"),
    ("missing that is none", GOOD_MAP, {"missing": "ignore"}, "missing is 'ignore'", "'error' or 'report'"),
]: bad("imported parts", name, imported(content, **options), *words)
bad("imported parts", "no folder", lambda f: functools.partial(label_import.import_parts, f / "gone", "parts", load_domain(csv(f)), f / "store", "me"), "gone is not a folder", error=FileNotFoundError)


def twice(folder):
    make = imported(GOOD_MAP)(folder)
    make()
    return make


bad("imported parts", "a store that has some already", twice, "store/parts is there already and is not overwritten", "name another store")


# attribute tables

def read_table(text: str | bytes, paths=("a.jpg",)) -> Callable:
    "A label store's table, read."
    def make(folder):
        (folder / labels.ATTRIBUTES_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
        return functools.partial(labels.read_attributes, folder, list(paths))
    return make


def import_table(text: str | bytes) -> Callable:
    "A table made elsewhere, imported."
    def make(folder):
        (folder / "attributes.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return functools.partial(label_import.import_attributes, folder / "attributes.csv", load_domain(csv(folder / "own")), folder / "store", "me", missing="report")
    return make


T = "path,hat=no,hat=yes\n"
ROWS = [
    ("NaN", T + "a.jpg,nan,1\n", "'a.jpg', column 'hat=no' is nan: is not a number"), ("infinity", T + "a.jpg,inf,0\n", "is inf: is not a number"), ("beyond a float", T + "a.jpg,1e999,0\n", "is inf: is not a number"), ("a negative", T + "a.jpg,-1,2\n", "is -1.0: is negative"),
    ("above one", T + "a.jpg,2,0\n", "is 2.0: is above one"), ("percentages", T + "a.jpg,30,70\n", "is above one"), ("a sum of 0.9", T + "a.jpg,0.5,0.4\n", "columns of 'hat' sum to 0.9, not to one", "Divide them by their sum"), ("all zeros", T + "a.jpg,0,0\n", "sum to 0, not to one"),
    ("text", T + "a.jpg,yes,no\n", "column 'hat=no' is 'yes': is not a number"), ("an empty cell", T + "a.jpg,,1\n", "column 'hat=no' is '': is not a number"), ("a formula", T + "a.jpg,=1+1,0\n", "is '=1+1': is not a number"), ("a decimal comma", T + 'a.jpg,"0,5","0,5"\n', "is '0,5': is not a number"),
    ("an image twice", T + "a.jpg,0,1\na.jpg,1,0\n", "image 'a.jpg' appears twice", "Keep one"), ("a field too many", T + "a.jpg,0,1,1\n", "line 2: 4 fields, the header has 3"), ("a field too few", T + "a.jpg,0\n", "line 2: 2 fields, the header has 3"),
    ("a blank line between", T + "a.jpg,0,1\n\nb.jpg,0,1\n", "line 3: 0 fields"), ("an open quote", T + '"a.jpg,0,1\n', "attributes.csv"), ("a field of 200,000 letters", T + "a" * 200_000 + ",0,1\n", "attributes.csv"), ("empty", "", "the first column is [], expected 'path'"), ("no path column", "name,hat=no,hat=yes\nx,0,1\n", "the first column is ['name']"),
    ("an image without a name, twice", T + ",0,1\n,1,0\n", "image '' appears twice"), ("a column without a name, twice", "path,,\na.jpg,0,1\n", "column '' appears twice"), ("a column twice", "path,hat=no,hat=no\na.jpg,0,1\n", "column 'hat=no' appears twice"), ("one class alone", "path,hat=yes\na.jpg,1\n", "'hat' has classes ['yes']", "at least two"), ("classes apart", "path,hat=no,bag=no,hat=yes,bag=yes\na.jpg,0,0,1,1\n", "stands apart", "side by side"),
    ("an empty name", "path,=no,=yes\na.jpg,0,1\n", "cannot be a name"), ("Latin-1", (T + "é.jpg,0,1\n").encode("latin-1"), "UTF-8"), ("UTF-16", (T + "a.jpg,0,1\n").encode("utf-16"), "UTF-8"), ("a picture", encoded("PNG"), "UTF-8"), ("NUL bytes", bytes(50), "attributes.csv"), ("semicolons", "path;hat=no;hat=yes\na.jpg;0;1\n", "the first column is"),
]
for name, text, *words in ROWS:
    bad("attribute table", name, read_table(text), "attributes.csv", *words)
    bad("imported attributes", name, import_table(text.replace("a.jpg", "crops/0.jpg") if isinstance(text, str) else text), "attributes.csv", *(w.replace("a.jpg", "crops/0.jpg") for w in words))
bad("attribute table", "a column without a class", read_table("path,hat\na.jpg,1\n"), "column 'hat' is not of the form attribute=class")
bad("attribute table", "no columns", read_table("path\na.jpg\n"), "attributes.csv", "0 attributes")
bad("attribute table", "images missing", read_table(T + "a.jpg,0,1\n", ("a.jpg", "b.jpg")), "lacks 1 of 2 images, the first 'b.jpg'", "Predict the labels of this domain again")
bad("attribute table", "not there", lambda f: functools.partial(labels.read_attributes, f, ["a.jpg"]), "no attribute table", "predict the domain's attributes first", error=FileNotFoundError)
for name, text, *words in [
    ("no rows", "path,hat\n", "holds 0 images"), ("no columns", "path\ncrops/0.jpg\n", "0 columns of attributes"), ("another domain's", "path,hat\nelsewhere.jpg,1\n", "are these the labels of another domain", "'elsewhere.jpg'"), ("mixed forms", "path,hat=no,hat=yes,bag\ncrops/0.jpg,0,1,1\n", "All columns have that form, or none"),
    ("a probability of 2", "path,hat\ncrops/0.jpg,2\n", "'crops/0.jpg', column 'hat' is 2.0: is above one", "the probability of yes"), ("a path that leaves the folder", "path,hat\n../../crops/0.jpg,1\n", "'../../crops/0.jpg'"), ("an absolute path", "path,hat\n/etc/passwd,1\n", "holds no label for any of the 2 images", "Paths must be relative")]:
    bad("imported attributes", name, import_table(text), "attributes.csv", *words)
bad("imported attributes", "not there", lambda f: functools.partial(label_import.import_attributes, f / "gone.csv", load_domain(csv(f)), f / "store", "me"), "gone.csv is not there", error=FileNotFoundError)

HAT = labels.Vocabulary.two_way(["hat"])
soft = lambda *rows: np.array(rows, np.float32)[:, None]
for name, values, paths, *words in [
    ("NaN", soft([np.nan, 1]), ["a.jpg"], "'a.jpg', column 'hat=no' is nan", "softmax"), ("a sum of 2", soft([1, 1]), ["a.jpg"], "sum to 2, not to one"), ("logits", soft([-3, 4]), ["a.jpg"], "is negative"), ("one image too few", soft([0, 1]), ["a.jpg", "b.jpg"], "probabilities for 1 images", "expected 2 images"),
    ("an image twice", soft([0, 1], [0, 1]), ["a.jpg", "a.jpg"], "image 'a.jpg' appears twice"), ("a class too many", np.ones((1, 1, 3)) / 3, ["a.jpg"], "3 classes", "and 2 classes"), ("a flat table", np.ones((1, 2)) / 2, ["a.jpg"], "probabilities of shape (1, 2): expected (N, A, M)"), ("a path that leaves the store", soft([0, 1]), ["../a.jpg"], "image path '../a.jpg'")]:
    bad("soft labels", name, lambda f, values=values, paths=paths: functools.partial(labels.write_attributes, f, paths, HAT, values), *words)
for name, columns, *words in [("a name twice", ["hat=no", "hat=yes", "bag=no", "bag=yes", "hat=maybe"], "column 'hat=maybe' stands apart"), ("no columns", [], "0 attributes"), ("a line break", ["hat\n=no", "hat\n=yes"], "cannot be a name"), ("a class twice", ["hat=no", "hat=no"], "all different")]:
    bad("vocabulary", name, call(labels.Vocabulary.from_columns, columns), *words)
bad("vocabulary", "an unknown attribute", call(labels.select_attributes, HAT, soft([0, 1]), ["hut"]), "unknown attribute 'hut'", "Did you mean 'hat'")


def provenance(text: str | bytes) -> Callable:
    def make(folder):
        (folder / labels.PROVENANCE_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
        return functools.partial(labels.read_provenance, folder)
    return make


for name, text, *words in [("cut off", "{", "is not JSON", "delete it"), ("nested 100,000 deep", "[" * 100_000, "is not JSON"), ("not UTF-8", b"\xff", "is not JSON"), ("a list", "[]", "expected an object"), ("another key", '{"other": {}}', "expected an object with the keys parts, attributes"), ("text for an entry", '{"parts": "me"}', "expected an object")]:
    bad("labels.json", name, provenance(text), "labels.json", *words)
bad("labels.json", "not there", lambda f: functools.partial(labels.read_provenance, f), "it is unknown who predicted these labels", "write_provenance", error=FileNotFoundError)


# weights

SMALL = dict(backbone_name="mini")


def weights_file(content: Callable | bytes, name: str = "w.safetensors", load: Callable | None = None) -> Callable:
    "A backbone started from this file."
    def make(folder):
        content(folder / name) if callable(content) else (folder / name).write_bytes(content)
        return (lambda: load(folder)) if load else lambda: model.backbone("resnet18", str(folder / name))
    return make


def saved(tensors: dict) -> Callable: return lambda file: save_file(tensors, file)


@functools.lru_cache
def resnet18() -> dict:
    import torchvision
    return torchvision.models.resnet18(weights=None).state_dict()


def header(text: bytes, length: int | None = None) -> bytes: return struct.pack("<Q", len(text) if length is None else length) + text


WEIGHTS = [
    ("empty", b"", "cannot be read"), ("text", b"no weights", "cannot be read"), ("a pickle renamed", pickle.dumps({"fc.weight": [1.0]}), "cannot be read", "pickle"), ("a torch.save renamed", lambda file: torch.save({"conv1.weight": torch.zeros(1)}, file), "cannot be read", "pickle"),
    ("cut off", lambda file: (save_file({"conv1.weight": torch.zeros(64)}, file), file.write_bytes(file.read_bytes()[:-20])), "cannot be read"), ("a header longer than the file", header(b"{}", 2**40), "cannot be read"), ("a header that is no JSON", header(b"{{{{{{{{"), "cannot be read"),
    ("offsets outside the file", header(b'{"conv1.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'), "cannot be read"), ("a shape of 10^18", header(b'{"conv1.weight":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,16]}}') + bytes(16), "cannot be read"), ("a folder", lambda file: file.mkdir(), "no weights file"),
    ("other names", saved({"layer.weight": torch.zeros(3)}), "it lacks", "has unknown ['layer.weight']", "as torchvision does"), ("another network", lambda file: save_file({k: v for k, v in resnet18().items() if "layer4" not in k}, file), "it lacks ['layer4"),
    ("another shape", lambda file: save_file({**resnet18(), "conv1.weight": torch.zeros(64, 3, 3, 3)}, file), "conv1.weight", "(64, 3, 3, 3)"), ("NaN", lambda file: save_file({**resnet18(), "conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, file), "conv1.weight", "not finite"),
]


def behind(prefix: str) -> Callable: return lambda file: save_file({prefix + k: v for k, v in resnet18().items()}, file)


for prefix in ("module.", "_orig_mod.", "state_dict.", "module._orig_mod."):
    said = f"behind '{prefix}'", "DataParallel", f"with '{prefix}' taken off"
    WEIGHTS.append((f"names behind {prefix}", behind(prefix), *said))
for name, content, *words in WEIGHTS: bad("weights", name, weights_file(content), "w.safetensors", *words, error=FileNotFoundError if name == "a folder" else ValueError)
for name in ("w.pth", "w.pt", "w.bin", "w.ckpt", "w.pkl"): bad("weights", f"a {name.split('.')[1]} file", weights_file(lambda file: torch.save({"conv1.weight": torch.zeros(1)}, file), name), name, "safetensors", "pickle")
def behind_module(folder):
    import timm
    net = timm.create_model("resnet10t", features_only=True, out_indices=(-1,))
    save_file({f"module.{k}": v.clone() for k, v in net.state_dict().items()}, folder / "w.safetensors")
    return lambda: model.backbone("timm:resnet10t", str(folder / "w.safetensors"))


bad("weights", "timm's names behind module.", behind_module, "w.safetensors", "behind 'module.'", "taken off")
bad("weights", "not there", call(model.backbone, "resnet18", "gone/w.safetensors"), "no weights file gone/w.safetensors", ".safetensors", error=FileNotFoundError)
bad("weights", "of a backbone that has none", call(model.backbone, "mini", "imagenet"), "'mini' has no pretrained weights", "weights=None")
bad("weights", "of an unknown backbone", call(model.backbone, "resnet5O"), "unknown backbone 'resnet5O'", "did you mean 'resnet50'")
RUN = "model.safetensors"
for what, load in {"a ReID model": lambda run: experiments.load_reid(run, experiments.RECIPES["smoke"]), "a parser": lambda run: experiments.load_parser(run, experiments.RECIPES["smoke"])}.items():
    for name, content, *words in [("a pickle renamed", pickle.dumps({"a": 1}), "is no file of weights, or not whole"), ("cut off", lambda file: (save_file({"conv1.weight": torch.zeros(64)}, file), file.write_bytes(file.read_bytes()[:-20])), "or not whole"), ("other names", saved({"layer.weight": torch.zeros(3)})), ("not there", lambda file: None, "is no file of weights")]:
        bad("weights", f"{what}: {name}", weights_file(content, RUN, load), RUN, *words, "move or delete the folder of this run")
for name, content in {"text": b"no state", "a pickle renamed": pickle.dumps({"a": 1}), "without facts": saved({"net.a": torch.zeros(1)}), "facts that are no JSON": lambda file: save_file({"net.a": torch.zeros(1)}, file, {"facts": "{"}), "another network's": lambda file: save_file({"net.a": torch.zeros(1)}, file, {"facts": "{}"})}.items():
    def resumed(folder, content=content):
        content(folder / "state.safetensors") if callable(content) else (folder / "state.safetensors").write_bytes(content)
        net = model.PTLNet(2, **SMALL)
        return lambda: trainer.load_state(folder / "state.safetensors", net, torch.optim.Adam(net.parameters()), [])
    bad("training state", name, resumed, "state.safetensors", "is not a training state of this network", "delete it to start anew")


# recipes

def recipe(**changes) -> Callable: return call(experiments.choose_recipe, "smoke", **changes)


for name, changes, *words in [
    ("unknown name", None, "unknown recipe 'papper'", "did you mean 'paper'"), ("unknown field", {"epoch": 3}, "unknown recipe field 'epoch'", "did you mean 'epochs'"), ("unknown variant", {"variant": "as_papr"}, "variant is 'as_papr'"), ("unknown precision", {"precision": "fp8"}, "precision is 'fp8'"),
    ("no epochs", {"epochs": 0}, "epochs is 0", "at least 1"), ("text for a number", {"epochs": "40"}, "epochs is '40'", "int"), ("a fraction of an epoch", {"epochs": 1.5}, "epochs is 1.5", "int"), ("a truth value for a number", {"epochs": True}, "epochs is True", "int"), ("nothing for a number", {"epochs": None}, "epochs is None"),
    ("a rate of 0", {"lr": 0}, "lr is 0", "above 0"), ("a negative rate", {"lr": -1e-3}, "lr is -0.001"), ("a rate of NaN", {"lr": float("nan")}, "lr is nan"), ("an infinite rate", {"lr": float("inf")}, "lr is inf"), ("text for a rate", {"lr": "3.5e-4"}, "lr is '3.5e-4'", "float"), ("a rate of NaN for the attribute model", {"attribute_lr": float("nan")}, "attribute_lr is nan"),
    ("a negative weight", {"weight_parts": -0.1}, "weight_parts is -0.1"), ("a weight of NaN", {"weight_id": float("nan")}, "weight_id is nan"), ("a negative decay", {"weight_decay": -1e-4}, "weight_decay is -0.0001"), ("a margin of NaN", {"margin": float("nan")}, "margin is nan"), ("a negative margin", {"margin": -0.3}, "margin is -0.3"),
    ("milestones that descend", {"milestones": (3, 1)}, "milestones are (3, 1)", "ascend"), ("text for milestones", {"milestones": "24,34"}, "milestones is '24,34'"), ("a number for milestones", {"milestones": 24}, "milestones is 24"), ("fractions of milestones", {"milestones": (1.5,)}, "milestones"), ("milestones of the attribute model that descend", {"attribute_milestones": (9, 3)}, "attribute_milestones are (9, 3)"),
    ("negative milestones", {"milestones": (-1, 3)}, "milestones"), ("one identity", {"identities": 1}, "at least 2"), ("one image", {"images": 1}, "at least 2"), ("a warm-up of 1", {"warmup": 1}, "warmup is 1", "[0, 1)"), ("a warm-up of NaN", {"warmup": float("nan")}, "warmup is nan"), ("statistics of one image", {"bn_batch": 1}, "bn_batch is 1", "at least 2"),
    *((f"{name} of one image", {name: 1}, f"{name} is 1", "at least 2 images")
      for name in ("target_batch", "attribute_batch", "parser_batch")),
    ("no channels", {"parsing_hidden": 0}, "parsing_hidden is 0"), ("a negative width", {"attribute_hidden": -8}, "attribute_hidden is -8"), ("a height of 0", {"height": 0}, "height is 0"), ("a parser's height of 100", {"parser_height": 100}, "parser_height is 100", "multiple of 16"), ("a parser's height of 0", {"parser_height": 0}, "parser_height is 0"), ("a parser of no channels", {"parser_width": 0}, "parser_width is 0"),
    ("a share of 1", {"attribute_share": 1.0}, "attribute_share is 1.0", "(0, 1)"), ("a negative weight of parts", {"attribute_weight_parts": -1.0}, "attribute_weight_parts is -1.0"), ("a number for a name", {"backbone": 50}, "backbone is 50", "str"), ("a number for weights", {"weights": 1}, "weights is 1"), ("text for a truth value", {"attribute_weighted": "no"}, "attribute_weighted is 'no'", "bool"),
]: bad("recipe", name, call(experiments.choose_recipe, "papper") if changes is None else recipe(**changes), *words)
bad("recipe", "an unknown parser", lambda f: lambda: labellers_network(parser="unett"), "unknown parser 'unett'", "unet")


def labellers_network(**changes):
    from ptl_nb.labellers import parser_network
    return parser_network(experiments.choose_recipe("smoke", **changes))


for name, changes, *words in [
    ("an unknown pooling", {"pooling": "sum"}, "pooling is 'sum'", "average, max"), ("an unknown distance", {"distance": "manhattan"}, "distance is 'manhattan'"), ("an unknown head", {"head": "tail"}, "head is 'tail'"), ("k1 of 0", {"k1": 0}, "k1 is 0", "at least 1"), ("k2 above k1", {"k1": 5}, "k2 is 6, k1 is 5"), ("text for k1", {"k1": "20"}, "k1 is '20'", "int"),
    ("a fraction of a round", {"rounds": 2.5}, "rounds is 2.5", "int"), ("no rounds", {"rounds": 0}, "rounds is 0"), ("a batch of one cluster", {"batch": 4}, "batch is 4"), ("a batch that does not divide", {"batch": 30}, "batch is 30 and images is 4"), ("no images", {"images": 0}, "images is 0"), ("a rate of 0", {"lr": 0.0}, "lr is 0.0"), ("a rate of NaN", {"lr": float("nan")}, "lr is nan"),
    ("an infinite rate", {"lr": float("inf")}, "lr is inf"), ("a source weight of 1", {"source_weight": 1.0}, "source_weight is 1.0"), ("a probability of 2", {"flip": 2.0}, "flip is 2.0", "[0, 1]"), ("a rho of 0", {"rho": 0.0}, "rho is 0.0", "(0, 1]"), ("a rho of NaN", {"rho": float("nan")}, "rho is nan"), ("a share above 1", {"max_share": 1.5}, "max_share is 1.5"),
    ("areas that descend", {"erase_area": (0.2, 0.02)}, "erase_area is (0.2, 0.02)"), ("one area", {"erase_area": (0.2,)}, "erase_area"), ("an aspect of 0", {"erase_aspect": 0.0}, "erase_aspect 0.0"), ("two colours", {"erase_value": (0.1, 0.2)}, "erase_value"), ("a negative decay", {"weight_decay": -1.0}, "weight_decay is -1.0"), ("a negative margin", {"margin": -1.0}, "margin is -1.0"), ("a rate as text", {"lr": "6e-5"}, "lr is '6e-5'"),
]: bad("SSG recipe", name, lambda f, changes=changes: lambda: ssg.SSGRecipe(**changes), *words)
bad("SSG recipe", "an unknown variant", call(ssg.variant, ssg.SSGRecipe(), "dager"), "unknown variant 'dager'", "dagger")
bad("SSG recipe", "of a recipe without one", call(experiments.choose_ssg, "own", ssg.parse_adapted("BL+SSG")), "no SSG recipe goes with the recipe 'own'", "give `ssg`")
PIXELS = np.zeros((6, 8, 4, 3), np.uint8)
TWELVE, EUCLIDEAN = np.tile(PIXELS, (2, 1, 1, 1)), ssg.SSGRecipe(distance="euclidean")
for name, arguments, *words in [
    ("float images", (PIXELS / 255, EUCLIDEAN, None, None), "images are float64", "uint8"),
    ("no source", (TWELVE, ssg.SSGRecipe(), None, None), "needs source images", "source_weight=0"),
    ("source of another size", (TWELVE, ssg.SSGRecipe(), PIXELS[:, :4], None), "decode both at one size"),
    ("identities of other images", (TWELVE, EUCLIDEAN, None, np.zeros(5)), "truth holds 5 identities for 12 images"),
    ("no images", (PIXELS[:0], EUCLIDEAN, None, None), "0 images of the target", "two clusters of 4 have 8"),
    ("grey images", (PIXELS[..., :1], EUCLIDEAN, None, None), "images are uint8 of shape (6, 8, 4, 1)"),
]:
    bad("SSG input", name, call(ssg.check_adapt, *arguments), *words)


bad("SSG input", "a map of one row", call(ssg.pool, torch.zeros(2, 3, 1, 4)), "has no upper and lower half",
    "taller images")
bad("SSG input", "no features", lambda f: lambda: ssg.part_features(model.PTLNet(2, **SMALL), PIXELS[:0]),
    "no images: there are no features to cluster")
bad("SSG input", "clusters of other images", call(ssg.quality, [0, 0, 1], [1, 1]),
    "clusters of shape (3,) and identities of shape (2,)")


# links out of the data

def a_link(form: str, image: str) -> Callable:
    "A label dataset with one image that is a link to outside."
    def damage(folder):
        link = sorted(folder.glob(image))[0]
        kept = folder.parent / f"secret{link.suffix}"
        link.rename(kept)
        link.symlink_to(kept)
    return damaged(form, damage)


for form, image in {"densepose": "train2014/*.jpg", "peta": "PETA dataset/VIPeR/archive/*.jpg", "peta-mat": "images/*.png", "rap": "RAP_dataset/*"}.items(): bad("link", f"an image of {form} that is one", a_link(form, image), "links out of", "copy the image there")
bad("link", "a part map that is one", imported(lambda file: (Image.new("L", (4, 8)).save(file.parents[2] / "secret.png"), file.symlink_to(file.parents[2] / "secret.png"))[0]), "maps/crops/extra.png links out of")


# papermill parameters, methods, seeds

def parameters(injected: str, **values) -> Callable:
    "A notebook's globals after a parameters cell and papermill's."
    cells = ["%matplotlib inline\nimport os", 'source: str = "market"  # labelled domain\nseeds: str = "0"\nepochs: int = 3\nlr: float = 0.1\nsmoke: bool = None', f"# Parameters\n{injected}\n"]
    return call(experiments.check_parameters, {"In": cells, "source": "market", "seeds": "0", "epochs": 3, "lr": 0.1, "smoke": None} | values)


for name, injected, values, *words in [
    ("a misspelt name", 'sorce = "duke"', {}, "unknown parameter 'sorce'", "did you mean 'source'"), ("an unknown name", "x = 1", {}, "unknown parameter 'x'", "known: source"), ("text for a number", 'epochs = "3"', {"epochs": "3"}, "parameter epochs is '3'", "must be int"), ("a fraction for a number", "epochs = 1.5", {"epochs": 1.5}, "parameter epochs is 1.5"),
    ("a truth value for a number", "epochs = True", {"epochs": True}, "parameter epochs is True"), ("text for a fraction", 'lr = "fast"', {"lr": "fast"}, "parameter lr is 'fast'", "must be float"), ("NaN", 'lr = float("nan")', {"lr": float("nan")}, "parameter lr is nan"), ("text for a truth value", 'smoke = "yes"', {"smoke": "yes"}, "parameter smoke is 'yes'", "must be bool"), ("a list for text", "source = [1]", {"source": [1]}, "parameter source is [1]", "must be str"),
    ("code for text", 'source = __import__("os").getcwd()', {"source": Path.cwd()}, "parameter source is", "must be str")]:
    bad("parameter", name, parameters(injected, **values), *words)
for name, value, *words in [("a word", "one", "seeds is 'one'", "whole numbers"), ("a fraction", "1.5", "seeds is '1.5'"), ("empty", "", "seeds is ''"), ("a negative", "-1", "seeds is '-1'", "from 0"), ("the same twice", "1,1", "seeds is '1,1'", "different numbers"), ("an empty list", [], "seeds is []"), ("a truth value", True, "seeds is True"), ("nothing", None, "seeds is None"),
                            ("beyond 32 bits", 2**40, f"seeds is {2**40}"), ("a number of 5,000 digits", "9" * 5000, "seeds is"), ("code", "__import__('os')", "seeds is \"__import__('os')\""), ("a range", "0-4", "seeds is '0-4'")]:
    bad("seeds", name, call(experiments.parse_seeds, value), *words)
for name, value, *words in [("empty", "", "unknown method ''"), ("a comma too many", "BL,", "unknown method ''"), ("an unknown task", "BL+HP", "unknown method 'BL+HP'", "'HP'"), ("lower case", "ptl", "unknown method 'ptl'"), ("a task twice", "BL+HP^t+HP^t", "each once"), ("BN not at the end", "BL+BN^t+HP^t", "at the end '+BN^t'"), ("fwd with a task", "BL+HP^t+fwd^t", "without any other task"),
                            ("a method twice", "BL, BL", "named twice in BL, BL"), ("the same method by two names", "PTL, BL+HP^t+Attr^t", "named twice"), ("a number", 5, "unknown method '5'"), ("SSG in the middle", "BL+SSG+HP^t", "unknown method"), ("SSG alone", "SSG", "unknown method"), ("nothing", None, "unknown method 'None'"), ("no methods", [], "methods"), ("a number in a list", [5], "unknown method '5'")]:
    bad("methods", name, call(experiments.parse_methods, value), *words)
bad("device", "none of this machine's", call(experiments.choose_device, "tpu"), "device is 'tpu'", "'auto' takes the best")
bad("device", "a card that is not there", call(experiments.choose_device, "cuda:99"), "device is 'cuda:99'")
bad("device", "a number", call(experiments.choose_device, 0), "device is 0")


# test sets that cannot be scored

def test_set(query: str, gallery: str) -> Callable:
    "A target whose query and gallery rows are `pid camid` pairs; what every table checks before it trains."
    def make(folder):
        test = [(pair, "query") for pair in query.split(", ")] + [(pair, "gallery") for pair in gallery.split(", ")]
        rows = [(0, 1, "train"), (1, 1, "train"), *((*map(int, pair.split()), split) for pair, split in test)]
        for i, _ in enumerate(rows): touch(folder / f"{i}.jpg", i)
        lines = [f"{i}.jpg,{pid},{camid},{split}\n" for i, (pid, camid, split) in enumerate(rows)]
        (folder / "domain.csv").write_text("path,pid,camid,split\n" + "".join(lines))
        target, methods = load_domain(folder / "domain.csv"), experiments.parse_methods("BL, PTL")
        return lambda: experiments.check_domains(experiments.RECIPES["smoke"], load_domain("plaza"), target, methods)
    return make


for name, query, gallery, *words in [
    ("one camera", "3 1, 4 1", "3 1, 4 1, 5 1",
     "0 people whom both a query and the gallery image of another camera show", "1 camera in all"),
    ("numbered apart", "3 1, 4 1", "13 2, 14 2", "0 people whom both", "2 people in 2 queries, 2 in 2 gallery images",
     "the same pid in query and gallery"),
    ("one person in two cameras", "3 1, 4 1", "3 2, 4 1, 5 2", "1 people whom both", "label at least two such people"),
    ("one person only", "3 1", "3 2, 0 2", "1 people whom both", "a score with its interval needs two")]:
    bad("test set", name, test_set(query, gallery), *words)


# launching

for name, text, *words in [
    ("no jobs at a time", "local parallel=0", "launch option parallel is 0", "at least 1"),
    ("words for jobs at a time", "local parallel=all", "parallel is 'all'"),
    ("a raised two", "local parallel=\u00b2", "launch option parallel is '\u00b2'"),
    ("an option twice", "slurm gpus_per_node=1,gpus_per_node=2", "names an option twice"),
                           ("a wide blank", "slurm\u00a0partition=gpu", "launch is", "behind a blank")]:
    bad("launch", name, call(launch.parse_launch, text), *words)
ptl = trainer.parse_method("PTL")
bad("processes", "none", call(multi.check_shares, trainer.Recipe(), ptl, 0), "0 processes", "at least 1")
bad("processes", "more than share a source batch", call(multi.check_shares, trainer.Recipe(), ptl, 3),
    "identities · images is 64, which 3 processes cannot share equally")
bad("processes", "more than share a target batch", call(multi.check_shares, trainer.Recipe(), ptl, 64),
    "target_batch is 32, which 64 processes cannot share equally")
bad("processes", "that wait for no time", call(parallel.start, 2, minutes=0), "minutes is 0")
bad("processes", "that wait for NaN minutes", call(parallel.start, 2, minutes=float("nan")), "minutes is nan")


# samplers, losses, training

IMAGES = Images(PIXELS, np.array([0, 0, 0, 1, 1, 1]))
bad("training", "one identity", call(identity_classes, [4, 4, 4]), "1 identity in 3 training images", "at least two")
bad("training", "fewer identities than a batch", call(identity_epoch, np.array([0, 0, 1, 1]), 16, 4, np.random.default_rng(0)), "a batch of 16 identities from 2", "lower `identities`")
bad("training", "fewer images than a batch", call(random_epoch, 5, 32, np.random.default_rng(0)), "5 images do not fill one batch of 32", "lower the batch size")
bad("training", "labels of other images", call(lambda: Images(PIXELS, np.zeros(5, np.int64))), "classes holds 5 rows for 6 images")
bad("training", "a target without part maps", call(trainer.check_labels, IMAGES, Images(PIXELS), trainer.parse_method("PTL")), "needs part maps of the target domain", "predict them first")
bad("training", "no target", call(trainer.check_labels, IMAGES, None, trainer.parse_method("PTL")), "method PTL needs target images")
bad("training", "no identities", call(trainer.check_labels, Images(PIXELS), None, trainer.parse_method("BL")), "the source has no identities", "identity_classes")
for name, given, *words in [
    ("classes that are fractions", {"classes": np.zeros(6)}, "classes are float64 of shape (6,)", "(N) of integers"),
    ("classes as a column", {"classes": np.zeros((6, 1), int)}, "classes are int64 of shape (6, 1)"),
    ("classes as a list", {"classes": [0] * 6}, "classes are list"),
    ("flat part maps", {"parts": np.zeros((6, 4), np.uint8)}, "parts are uint8 of shape (6, 4)", "(N, h, w)"),
    ("part maps of fractions", {"parts": np.zeros((6, 4, 2))}, "parts are float64"),
    ("a table of attributes", {"attributes": np.zeros((6, 2))}, "attributes are float64 of shape (6, 2)", "(N, A, M)"),
    ("text for attributes", {"attributes": np.full((6, 1, 2), "yes")}, "attributes are <U3"),
    ("float pixels", {"pixels": PIXELS / 255}, "pixels are float64", "uint8"),
    ("one image", {"pixels": PIXELS[0]}, "pixels are uint8 of shape (8, 4, 3)"),
    ("images without rows", {"pixels": PIXELS[:, :0]}, "pixels are uint8 of shape (6, 0, 4, 3)"),
    ("a list of images", {"pixels": list(PIXELS)}, "pixels are list"),
    ("a tensor", {"pixels": torch.zeros(6, 8, 4, 3, dtype=torch.uint8)}, "pixels are torch.uint8")]:
    bad("images", name, call(lambda given: Images(**{"pixels": PIXELS, **given}), given), *words)
bad("images", "in batches of none", call(batches, PIXELS, 0), "a batch of 0 images")
bad("images", "in batches of less than none", call(batches, PIXELS, -1), "a batch of -1 images")
for size in (0, -1):
    for what, function, net in (
        ("parsed", labellers.predict_parts, labellers_network),
        ("described", labellers.predict_attributes, lambda: model.PTLNet(attributes=(2, 2), **SMALL)),
    ):
        def cut(folder, function=function, net=net, size=size):
            return lambda: function(net(), PIXELS, experiments.RECIPES["smoke"], size=size)
        bad("images", f"{what} in batches of {size}", cut, f"a batch of {size} images")
    def cut(folder, size=size): return lambda: evaluator.extract(model.PTLNet(2, **SMALL), PIXELS, size=size)
    bad("images", f"extracted in batches of {size}", cut, f"size is {size}")
    bad("training", f"a batch of {size}", call(random_epoch, 5, size, np.random.default_rng(0)),
        f"a batch of {size} images")
bad("images", "statistics of one at a time",
    lambda f: lambda: evaluator.reestimate_bn(model.PTLNet(2, **SMALL), PIXELS, 1), "size is 1", "at least 2")
bad("images", "of a split that is none", lambda f: lambda: pixels(load_domain(csv(f)), "trian", (8, 4)),
    "unknown split 'trian'", "train, query, gallery")
bad("images", "of a split without any",
    lambda f: (touch(f / "own" / "a.jpg"), lambda: pixels(load_domain(f / "own"), "query", (8, 4)))[1],
    "has no query images")
bad("training", "identities of fractions", call(identity_classes, [1.0, 2.5]), "identities are float64", "integers")
bad("training", "identities as a column", call(identity_classes, [[1], [2]]), "identities are int64 of shape (2, 1)")
bad("training", "a batch of no identities",
    call(identity_epoch, np.array([0, 0, 1, 1]), 0, 4, np.random.default_rng(0)),
    "a batch of 0 identities with 4 images each")
bad("training", "a history without rows",
    lambda f: lambda: trainer.fit(model.PTLNet(2, **SMALL), IMAGES, experiments.RECIPES["smoke"], every=0),
    "every is 0")
bad("training", "a parser without part maps",
    call(labellers.train_parser, Images(PIXELS), experiments.RECIPES["smoke"]),
    "have no part maps for the parser to learn")
bad("training", "an attribute model without attributes",
    call(labellers.train_attributes, Images(PIXELS), experiments.RECIPES["smoke"]),
    "have no attributes for the model to learn")
# networks asked for what they have not
for name, f in {"features": evaluator.extract, "statistics": evaluator.reestimate_bn}.items():
    headless = lambda folder, f=f: lambda: f(model.PTLNet(attributes=(2, 2), **SMALL), PIXELS)
    bad("network", f"{name} of one without a ReID head", headless, "the network has no ReID head")
bad("network", "part maps of one without a parsing head", lambda f: lambda: model.PTLNet(2, **SMALL).part_size(32, 16),
    "has no parsing head")
bad("network", "attributes of one without attribute heads",
    lambda f: lambda: labellers.predict_attributes(model.PTLNet(2, **SMALL), PIXELS, experiments.RECIPES["smoke"]),
    "has no attribute heads")
bad("network", "attributes of two and of three classes",
    lambda f: lambda: labellers.predict_attributes(model.PTLNet(attributes=(2, 3), **SMALL), PIXELS,
    experiments.RECIPES["smoke"]), "2 to 3 classes")
bad("network", "a misspelt task",
    lambda f: lambda: model.PTLNet(2, **SMALL)(torch.zeros(2, 3, 32, 16), ("reid", "part")),
    "no head for the task 'part'", "built with reid")
bad("network", "a task without a head",
    lambda f: lambda: model.PTLNet(2, **SMALL)(torch.zeros(2, 3, 32, 16), ("parts",)), "no head for the task 'parts'")
zeros, logits = torch.zeros, torch.zeros(2, 8, 4, 2)
for name, f, arguments, *words in [
    ("one identity in a batch", losses.batch_hard_triplet, (zeros(4, 2), zeros(4).long()), "fewer than two identities in a batch of 4"), ("every identity once", losses.batch_hard_triplet, (zeros(4, 2), torch.arange(4)), "every identity appears once", "two images"), ("identities of other features", losses.batch_hard_triplet, (zeros(4, 2), torch.arange(3)), "expected (B, D) and (B,)"),
    ("part maps of another size", losses.parsing_loss, (logits, zeros(2, 8, 4).long()), "do not fit logits", "resize_parts"), ("float part maps", losses.parsing_loss, (logits, zeros(2, 4, 2)), "expected integer classes"), ("class 8", losses.parsing_loss, (logits, torch.full((2, 4, 2), 8)), "hold class 8"),
    ("soft labels that do not sum to one", losses.attribute_loss, (zeros(2, 3, 2), torch.ones(2, 3, 2)), "sum to 2, not to one"), ("NaN soft labels", losses.attribute_loss, (zeros(2, 3, 2), torch.full((2, 3, 2), torch.nan)), "sum to nan"), ("soft labels of another shape", losses.attribute_loss, (zeros(2, 3, 2), zeros(2, 2, 2)), "do not fit logits"),
    ("a class that the logits have not", losses.id_loss, (zeros(2, 3), torch.tensor([0, 3])), "hold class 3",
     "classes 0..2"),
    ("a class that torch would leave out", losses.id_loss, (zeros(2, 3), torch.tensor([0, -100])), "hold class -100"),
    ("classes of other images", losses.id_loss, (zeros(2, 3), zeros(3).long()), "expected (B, C) and (B,)"),
    ("no images with identities", losses.id_loss, (zeros(0, 3), zeros(0).long()), "at least one image"),
    ("classes that are fractions", losses.id_loss, (zeros(2, 3), zeros(2)), "identity labels are torch.float32"),
    ("whole numbers for features", losses.batch_hard_triplet, (zeros(4, 2).long(), torch.tensor([0, 0, 1, 1])),
    "features are torch.int64"),
    ("no images with part maps", losses.parsing_loss, (logits[:0], zeros(0, 4, 2).long()),
    "nothing to take the mean of"),
    ("no images with attributes", losses.attribute_loss, (zeros(0, 3, 2), zeros(0, 3, 2)),
    "nothing to take the mean of"),
    ("negative soft labels", losses.attribute_loss, (zeros(1, 1, 2), torch.tensor([[[-0.5, 1.5]]])),
    "soft labels hold -0.5"),
    ("weights of another shape", losses.attribute_loss, (zeros(2, 3, 2), torch.full((2, 3, 2), 0.5), zeros(2)),
    "weights of shape (2,)", "expected (A, M)"),
    ("weights beside lists", losses.attribute_loss, ([zeros(2, 2)], [torch.full((2, 2), 0.5)], zeros(1, 2)),
    "not with lists"),
    ("a list and a tensor", losses.attribute_loss, ([zeros(2, 2)], zeros(2, 1, 2)), "one is a tensor and the other a list"), ("an unknown loss", losses.total_loss, ({"HPt": zeros(())},), "unknown loss 'HPt'", "HP^t"), ("no losses", losses.total_loss, ({},), "no losses to add up")]:
    bad("loss", name, call(f, *arguments), *words)


# scores

RNG = np.random.default_rng(0)
Q, G = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(5, 4)).astype(np.float32)
FOUR = [[1, 2, 3], [1, 2, 3, 1, 2], [1, 1, 1], [2, 2, 2, 2, 2]]


def scored(query=Q, gallery=G, **changes) -> Callable:
    four = [changes.get(name, default) for name, default in zip(("query_pids", "gallery_pids", "query_camids", "gallery_camids"), FOUR)]
    return call(evaluator.evaluate, query, gallery, *four)


nan_row = np.array(Q); nan_row[1, 2] = np.nan
for name, case, *words in [
    ("NaN in query features", scored(nan_row), "query_features: 1 features are not finite, first at row 1"), ("infinity in gallery features", scored(gallery=np.full_like(G, np.inf)), "gallery_features: 5 features are not finite"), ("features of another model", scored(gallery=G[:, :2]), "query features have 4 dimensions, gallery features 2", "one model"),
    ("flat features", scored(Q[0]), "query_features must be (images, dimensions), got shape (4,)"), ("no dimensions", scored(Q[:, :0], G[:, :0]), "query_features"), ("no queries", scored(Q[:0], query_pids=[], query_camids=[]), "nothing to score: 0 queries"), ("no gallery", scored(gallery=G[:0], gallery_pids=[], gallery_camids=[]), "nothing to score", "0 gallery images"),
    ("text for features", scored(np.array([["a"] * 4] * 3)), "query_features", "numbers"), ("objects for features", scored(np.array([[None] * 4] * 3)), "query_features", "numbers"), ("complex features", scored(Q + 1j), "query_features", "numbers"),
    ("a pid too few", scored(query_pids=[1, 2]), "query_pids has shape (2,)", "(3,)"), ("fractions of pids", scored(query_pids=[1, 2.5, 3]), "query_pids must be integers", "1.0"), ("NaN pids", scored(query_pids=[1, np.nan, 3]), "query_pids must be integers"), ("infinite pids", scored(query_pids=[1, np.inf, 3]), "query_pids must be integers"), ("text for pids", scored(query_pids=["a", "b", "c"]), "query_pids must be integers"),
    ("negative pids", scored(gallery_pids=[1, 2, 3, -1, 2]), "gallery_pids holds -1", "drop them before scoring"), ("truth values for pids", scored(query_pids=[True, False, True]), "query_pids must be integers"), ("camids of another length", scored(gallery_camids=[1]), "gallery_camids has shape (1,)"), ("text for camids", scored(query_camids=["c1", "c2", "c3"]), "query_camids must be integers"),
    ("ragged features", scored([[1.0, 2.0], [3.0]]), "query_features are no matrix"),
    ("pids beyond half precision", scored(query_pids=np.array([1, 2, 4096], np.float16)), "query_pids holds",
     "too large for float16", "give int64"),
    ("pids beyond double", scored(query_pids=[1, 2, 1e300]), "query_pids holds", "too large for float64"),
    ("pids beyond int64", scored(query_pids=np.array([1, 2, 2**63 + 5], np.uint64)), "query_pids holds",
     "too large for uint64"),
    ("no valid query: one camera", scored(gallery_camids=[1] * 5), "none of the 3 queries has a match",
     "camids differ"),
    ("no valid query: other people", scored(gallery_pids=[7, 8, 9, 7, 8]), "none of the 3 queries has a match",
     "same list")]:
    bad("evaluate", name, case, *words)
D = RNG.random((3, 5))
nan_distance = np.array(D); nan_distance[2, 0] = np.nan
for name, distance, four, *words in [("NaN distances", nan_distance, FOUR, "the distances of query 2 hold NaN"), ("flat distances", D[0], FOUR, "must be a (queries, gallery) matrix, got shape (5,)"), ("no queries", D[:0], [[], FOUR[1], [], FOUR[3]], "nothing to score"), ("a pid too few", D, [[1, 2], *FOUR[1:]], "query_pids has shape (2,)"), ("text for distances", np.array([["a"] * 5] * 3), FOUR, "distance")]:
    bad("score", name, call(evaluator.score, distance, *four), *words)


def compared(**options) -> Callable: return lambda f: lambda: evaluator.bootstrap(evaluator.evaluate(Q, G, *FOUR), **options)


for name, case, *words in [("an unknown measure", compared(measure="map"), "unknown measure 'map'", "mAP"), ("a level of 2", compared(level=2), "level is 2"), ("no resamples", compared(resamples=0), "resamples is 0"), ("a level of NaN", compared(level=float("nan")), "level is nan")]: bad("bootstrap", name, case, *words)
bad("bootstrap", "other queries", lambda f: lambda: evaluator.bootstrap_difference(evaluator.evaluate(Q, G, *FOUR), evaluator.evaluate(Q[:2], G, FOUR[0][:2], FOUR[1], FOUR[2][:2], FOUR[3])), "of different queries (3 and 2)", "score both on one test set")


# clustering

X = RNG.normal(size=(30, 6)).astype(np.float32)
spoilt = np.array(X); spoilt[4, 1] = np.nan
for name, f, arguments, named, *words in [
    ("NaN", clustering.jaccard_similarity, (spoilt,), {}, "features: 1 features are not finite, first at row 4"), ("k1 above N", clustering.jaccard_similarity, (X[:10],), {}, "10 images are too few for k1=20", "a smaller k1"), ("k1 of N", clustering.jaccard_similarity, (X,), {"k1": 30}, "30 images are too few for k1=30"), ("k2 above k1", clustering.jaccard_similarity, (X,), {"k1": 5, "k2": 6}, "k1=5, k2=6: expected 1 <= k2 <= k1"),
    ("k2 of 0", clustering.jaccard_similarity, (X,), {"k2": 0}, "k2=0"), ("a fraction of k1", clustering.jaccard_similarity, (X,), {"k1": 5.5, "k2": 2}, "k1=5.5"), ("no images", clustering.jaccard_similarity, (X[:0],), {}, "features: 0 images have no pairs"), ("one image", clustering.jaccard_similarity, (X[:1],), {}, "features: 1 images have no pairs"), ("flat features", clustering.jaccard_similarity, (X[0],), {}, "must be (images, dimensions)"),
    ("no dimensions", clustering.jaccard_similarity, (X[:, :0],), {}, "features"), ("the same feature everywhere", clustering.jaccard_similarity, (np.ones((30, 4)),), {}, "are all identical"), ("text", clustering.jaccard_similarity, (np.array([["a"] * 4] * 30),), {}, "features", "numbers"), ("an unknown method", clustering.jaccard_similarity, (X,), {"method": "flann"}, "unknown method 'flann'", "'exact' or 'faiss'"),
    ("k of 0", clustering.neighbours, (X, 0), {}, "a smaller k (at least 1)"), ("more pairs than may be stored", clustering.jaccard_similarity, (X,), {"max_stored": 10}, "more than max_stored=10 pairs", "raise max_stored"),
    ("queries of another model", clustering.rerank, (X[:5], X[:, :3]), {}, "query features have 6 dimensions, gallery features 3"), ("no queries", clustering.rerank, (X[:0], X), {}, "nothing to rank: 0 queries"), ("lambda of 2", clustering.rerank, (X[:5], X), {"lambda_value": 2}, "lambda_value=2", "between 0 and 1"), ("lambda of NaN", clustering.rerank, (X[:5], X), {"lambda_value": float("nan")}, "lambda_value=nan"),
    ("NaN in a gallery", clustering.rerank, (X, spoilt), {}, "gallery_features: 1 features are not finite"), ("source of another model", clustering.source_distance, (X, X[:, :3]), {}, "features have 6 dimensions, source features 3"), ("no source", clustering.source_distance, (X, X[:0]), {}, "no distances between 30 images and 0 source images"), ("source in the place of the target", clustering.source_distance, (X, X), {}, "every image coincides"),
    ("an unknown metric", clustering.PlainDistance, (X, "manhattan"), {}, "unknown metric 'manhattan'", "'euclidean' or 'cosine'"), ("a zero feature", clustering.PlainDistance, (X * (np.arange(30) > 0)[:, None], "cosine"), {}, "1 features are zero, first at row 0")]:
    bad("clustering", name, call(f, *arguments, **named), *words)
plain = lambda: clustering.PlainDistance(X)
for name, f, *words in [("eps of 0", lambda: clustering.dbscan(plain(), 0), "eps=0", "eps_from_rho"), ("eps of NaN", lambda: clustering.dbscan(plain(), float("nan")), "eps=nan"), ("an infinite eps", lambda: clustering.dbscan(plain(), float("inf")), "eps=inf"), ("min_samples of 0", lambda: clustering.dbscan(plain(), 1.0, 0), "min_samples=0"), ("a fraction of min_samples", lambda: clustering.dbscan(plain(), 1.0, 2.5), "min_samples=2.5"),
                        ("pairs without number", lambda: clustering.dbscan(plain(), 100.0, max_edges=10), "max_edges=10", "a smaller eps or rho"), ("rho of 0", lambda: clustering.eps_from_rho(plain(), 0), "rho=0"), ("rho of 2", lambda: clustering.eps_from_rho(plain(), 2), "rho=2"), ("rho that selects no pair", lambda: clustering.eps_from_rho(plain(), 1e-9), "selects no pair", "a larger rho"),
                        ("source distances of other images", lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.zeros(5)), "source distances of shape (5,) for 30 images"), ("negative source distances", lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.full(30, -1.0)), "not negative"),
                        ("NaN source distances", lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.full(30, np.nan)), "finite values"), ("a source weight of 1", lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.zeros(30), 1.0), "source_weight=1.0")]:
    bad("clustering", name, call(f), *words)


# stand-in archives

def archive(members: dict[str, bytes] | bytes | Callable, **options) -> Callable:
    "An archive with these members, unpacked."
    def make(folder):
        file = folder / "evil.zip"
        if callable(members): members(file)
        elif isinstance(members, bytes): file.write_bytes(members)
        else:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
                for name, content in members.items(): z.writestr(name, content)
        return functools.partial(standins.extract, file, folder / "out" / "in")
    return make


def lying(file):
    "A member that unpacks to more than its header says."
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z: z.writestr("a.jpg", bytes(10_000_000))
    content = bytearray(file.read_bytes())
    for at in (22, content.rfind(b"PK\x01\x02") + 24): content[at:at + 4] = struct.pack("<I", 100)
    file.write_bytes(content)


def with_flag(file):
    "A member marked as encrypted."
    with zipfile.ZipFile(file, "w") as z: z.writestr("a.jpg", b"x")
    content = bytearray(file.read_bytes())
    for at in (6, content.rfind(b"PK\x01\x02") + 8): content[at] |= 1
    file.write_bytes(content)


def with_method(file):
    "A member packed by a method that nobody knows."
    with zipfile.ZipFile(file, "w") as z: z.writestr("a.jpg", b"x")
    content = bytearray(file.read_bytes())
    for at in (8, content.rfind(b"PK\x01\x02") + 10): content[at:at + 2] = struct.pack("<H", 77)
    file.write_bytes(content)


def many(file):
    with zipfile.ZipFile(file, "w") as z:
        for i in range(20_001): z.writestr(f"{i}", b"")


def symlink(file):
    with zipfile.ZipFile(file, "w") as z:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        z.writestr(info, "../../..")


PARTS_PNG = io.BytesIO()
Image.new("L", (4, 8)).save(PARTS_PNG, "PNG")
TRUTH = {"truth/parts.png": PARTS_PNG.getvalue(), "truth/attributes.csv": b"path,hat=no,hat=yes\na.jpg,0,1\n", "a.jpg": encoded("JPEG")}
LEAVES, OURS = ("evil.zip", "would leave the folder"), "reinstall ptl_nb"
for name, members, *words in [
    ("a member that climbs", {"../../evil.txt": b"x"}, *LEAVES, "'../../evil.txt'"), ("a member that climbs later", {"a/../../../evil.txt": b"x"}, *LEAVES), ("an absolute member", {"/etc/evil": b"x"}, *LEAVES), ("a backslash", {"..\\evil.txt": b"x"}, *LEAVES), ("a drive", {"C:/evil.txt": b"x"}, *LEAVES),
    ("a link", symlink, "evil.zip", "'link'", "link"), ("a bomb of 300 MB", {"a.jpg": bytes(300 << 20)}, "evil.zip", "over the limit of"), ("20,001 members", many, "evil.zip", "20,001 members", "over the limit of"), ("a size that lies", lying, "evil.zip", "cannot be unpacked"), ("an encrypted member", with_flag, "evil.zip", "cannot be unpacked"),
    ("an unknown method", with_method, "evil.zip", "cannot be unpacked"), ("text", b"no archive", "evil.zip", "cannot be unpacked"), ("empty", b"", "evil.zip", "cannot be unpacked"), ("a file where a folder is needed", {"truth": b"x", "truth/attributes.csv": b"path\n"}, "evil.zip", "cannot be unpacked"),
    ("a name of 300 letters", {"x" * 300: b"x"}, "evil.zip", "300 letters"), ("no truth", {"a.jpg": b"x"}, "evil.zip", "truth/attributes.csv"), ("part maps cut off", TRUTH | {"truth/parts.png": PARTS_PNG.getvalue()[:40]}, "evil.zip", "truth/parts.png"), ("part maps of other images", TRUTH | {"truth/attributes.csv": b"path\na.jpg\nb.jpg\nc.jpg\n"}, "evil.zip", "truth/parts.png"),
    ("a table whose paths climb", TRUTH | {"truth/attributes.csv": b"path\n../../../../evil.jpg\n"}, "evil.zip", "'../../../../evil.jpg'"), ("a table whose paths are absolute", TRUTH | {"truth/attributes.csv": b"path\n/etc/evil.jpg\n"}, "evil.zip", "'/etc/evil.jpg'"), ("a table that is no text", TRUTH | {"truth/attributes.csv": b"path\n\xff\n"}, "evil.zip", "truth/attributes.csv"),
    ("no images", TRUTH | {"truth/attributes.csv": b"path\n"}, "evil.zip", "truth/attributes.csv"), ("a bomb of part maps", TRUTH | {"truth/parts.png": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(100))))}, "evil.zip", "truth/parts.png"),
]: bad("archive", name, archive(members), *words, OURS)
bad("archive", "another hash", lambda f: functools.partial(standins.verify, touch(f / "a.png"), "0" * 64), "a.png is not the frozen archive", "pinned is 000", OURS)
bad("archive", "not there", lambda f: functools.partial(standins.verify, f / "a.zip", "0" * 64), "a.zip is missing from the package", OURS, error=FileNotFoundError)
bad("archive", "an unknown stand-in", call(standins.unpack, "plazza"), "There is no stand-in 'plazza'", "Did you mean 'plaza'")
bad("archive", "a stand-in's name that is a path", call(standins.unpack, "../plaza"), "There is no stand-in '../plaza'")
bad("archive", "exported over something", lambda f: functools.partial(standins.export_layout, "plaza", touch(f / "Market-1501-v15.09.15/a.png").parents[1]), "exists and is not empty", "name another folder")


def main() -> None:
    wrong = 0
    for case in CASES:
        try: verdict = refusal(case)
        except Exception as error: verdict, wrong = f"NOT AS EXPECTED: {error}", wrong + 1
        print(f"{case.id}\n    {case.error.__name__}: {verdict}", flush=True)
    print(f"{len(CASES) - wrong} of {len(CASES)} bad inputs refused as expected")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
