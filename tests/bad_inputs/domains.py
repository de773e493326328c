"ReID domains: names of files, domain.csv, folders, layouts of the published data sets, CUHK03's split file."
import functools
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ptl_nb.dataset_readers import CUHK03_SPLIT, LAYOUTS, parse_names
from ptl_nb.domain import STANDIN_MARKER
from ptl_nb.domains import load_domain

from bad_inputs.catalogue import Case, add, call
from bad_inputs.made import V73, encoded
from test_domains import DUKE, MARKET, csv, mat, touch, tree

CASES: list[Case] = []
bad = functools.partial(add, CASES)


# file names

def names(layout: str, name: str) -> Callable:
    return call(parse_names, [LAYOUTS[layout].example, name], LAYOUTS[layout], Path("data/query"))


for layout, name in [
    ("market", "holiday.jpg"),
    ("market", "0004_c0s1_000000_00.jpg"),
    ("market", "-2_c1s1_000000_00.jpg"),
    ("market", "0004_c1_f0000001.jpg"),
    ("market", "0002_c1s1_000451_03"),
    ("market", "0002_C1S1_000451_03.jpg"),
    ("market", " 0002_c1s1_000451_03.jpg"),
    ("market", "99999999999999999999_c1s1_000451_03.jpg"),
    ("market", "0002_c99999999999999999999s1_000451_03.jpg"),
    ("market", "\u0660\u0661_c1s1_000451_03.jpg"),
    ("market", "0002_c1s1_000451_03.jpg\n"),
    ("market", "\udcff_c1s1_000451_03.jpg"),
    ("duke", "0002_c1s1_000451_03.jpg"),
    ("duke", "0001_c2_f.jpg"),
    ("duke", "_c2_f0046182.jpg"),
    ("cuhk03", "0001_c2_f0046182.png"),
    ("cuhk03", "1_001_1_01.png")]:
    bad(
        "file name", f"{layout} {name!a}", names(layout, name), "1 of 2 images in data/query break the name pattern",
        repr(name), "expected such as", "move what does not belong there")


# specifications of rendered worlds

for text, *words in [
    ("world:0x16", "people 0 cannot be", "from 2"),
    ("world:20x4x3,seen_by=4", "seen_by 4 cannot be", "more cameras than there are"),
    ("world:20", "no specification of a world", "world:PEOPLExIMAGESxCAMERAS"),
    ("world:20x4,sed=1", "'sed=1' is no setting", "did you mean 'seed'"),
    ("world:20x4,seed=1,seed=2", "sets something twice", "keep one"),
    ("world:20x4,rain=nan", "rain is nan", "between 0 (off) and 1")]:
    bad("world", text, call(load_domain, text), text, *words)


# domain.csv

def line(text: str, files: tuple[str, ...] = ()) -> Callable:
    "A ninth line in a good table."
    def make(folder):
        table = csv(folder, text)
        for file in files: touch(folder / file, 99)
        return functools.partial(load_domain, table)
    return make


for text, *words in [
    ("crops/9.jpg,1,1,train", "path 'crops/9.jpg' does not exist", "place the image there"),
    ("crops/0.jpg,1,1,query", "more than once", "one split, once"),
    ("./crops//0.jpg,1,1,train", "more than once"),
    ("../x.jpg,1,1,train", "leaves the folder", "copy the images next to it"),
    ("/etc/x.jpg,1,1,train", "is absolute", "relative to the csv"),
    ("crops/../../x.jpg,1,1,train", "leaves the folder"),
    (",1,1,train", "path '' is empty"),
    ("crops\\0.jpg,1,1,train", "forward slashes"),
    ("crops,1,1,train", "path 'crops'"),
    ("x\0.jpg,1,1,train", "path"),
    ("x.jpg\x1b[2J,1,1,train", "path"),
    ("x" * 300 + ".jpg,1,1,train", "does not exist"),
    ("~/x.jpg,1,1,train", "does not exist"),
    ("http://host/x.jpg,1,1,train", "does not exist"), ("domain.csv,1,1,train", "does not end like an image"),
    ("x.jpg,1.5,1,train", "pid '1.5' is not an integer"),
    ("x.jpg,,1,train", "pid '' is not an integer"),
    ("x.jpg,1e3,1,train", "pid '1e3'"),
    ("x.jpg,0x1,1,train", "pid '0x1'"),
    ("x.jpg,99999999999999999999,1,train", "pid '99999999999999999999'"),
    ("x.jpg,\u0661,1,train", "pid", "is not an integer"),
    ("x.jpg,nan,1,train", "pid 'nan'"),
    ("x.jpg,-3,1,train", "is negative"),
    ("x.jpg,1.0,1,train", "pid '1.0' is not an integer: write 1"),
    ("x.jpg,1,2.,train", "camid '2.' is not an integer: write 2"),
    ("x.jpg,1.5,2,train", "write a whole number, such as 12"),
    ("x.jpg,0,1,train", "pid '0' marks a distractor", "count people from 1"),
    ("x.jpg,0,1,query", "pid '0' marks a distractor", "count people from 1"),
    ("crops/0.jpg\u00a0,1,1,train", "looks the same", "same letters and blanks"),
    ("x.jpg,1,c2,train", "camid 'c2' is not an integer"),
    ("x.jpg,1,0,train", "count from 1"),
    ("x.jpg,1,-1,train", "count from 1"),
    ("x.jpg,-1,1,query", "cannot be a query"),
    ("x.jpg,-1,1,train", "label all of them or none"),
    ("x.jpg,1,1,trian", "did you mean 'train'"),
    ("x.jpg,1,1,test", "known: train, query, gallery"),
    ("x.jpg,1,1", "split '' is unknown"),
    ("x.jpg,1,1,Train", "split 'Train' is unknown"), ("x.jpg;1;1;train", "split"),
]:
    bad("domain.csv", f"line {text!a:.40}", line(text), "domain.csv, line 10", *words)
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
    ("empty", b"", "cannot be read"),
    ("a header alone", HEAD, "lists no images"),
    ("blank lines alone", HEAD + b"\n\n\n", "lists no images"),
    ("Latin-1", HEAD + b"\xe9.jpg,1,1,train\n", "UTF-8"),
    ("UTF-16", (HEAD + GOOD).decode().encode("utf-16"), "UTF-8"),
    ("a misspelt column", b"path,pids,camid,split\n" + GOOD, "no column 'pid'", "did you mean 'pids'"),
    ("semicolons", (HEAD + GOOD).replace(b",", b";"), "no column 'path'"),
    ("tabs", (HEAD + GOOD).replace(b",", b"\t"), "no column 'path'"),
    ("no header", GOOD, "no column 'path'"),
    ("a column twice", b"path,pid,pid,camid,split\ncrops/0.jpg,1,9,1,train\n", "column 'pid' twice"),
    ("a column twice but for blanks", b"path,pid, pid,camid,split\ncrops/0.jpg,1,9,1,train\n", "column 'pid' twice"),
    ("a picture", encoded("PNG"), "cannot be read"),
    ("one identity in train", HEAD + b"crops/0.jpg,1,1,train\n", "fewer than two identities in train", "only pid 1"),
    ("queries without a gallery", HEAD + b"crops/0.jpg,1,1,query\n", "no gallery images"),
    ("a gallery without queries", HEAD + b"crops/0.jpg,1,1,gallery\ncrops/1.jpg,2,1,gallery\n", "no query images"),
    ("NUL bytes", HEAD + bytes(40), "domain.csv"),
]:
    bad("domain.csv", name, table(content), "domain.csv", *words)


def linked(path: str, target: Callable) -> Callable:
    "A line whose path is a link."
    def make(folder):
        own = folder / "own"
        listed = csv(own, f"{path},1,1,train")
        (own / path.split("/")[0]).symlink_to(target(folder))
        return functools.partial(load_domain, listed)
    return make


bad(
    "domain.csv", "a link to an image elsewhere", linked("x.jpg", lambda f: touch(f / "secret/0.jpg")), "line 10",
    "'x.jpg' leaves the folder")
bad(
    "domain.csv", "a link to a folder elsewhere", linked("there/0.jpg", lambda f: touch(f / "secret/0.jpg").parent),
    "line 10", "'there/0.jpg' leaves the folder")
bad("domain.csv", "a link to nothing", linked("x.jpg", lambda f: f / "own" / "gone.jpg"), "line 10", "does not exist")
bad("domain.csv", "a link to itself", linked("x.jpg", lambda f: f / "own" / "x.jpg"), "line 10", "x.jpg")


def pipe(folder):
    listed = csv(folder, "x.jpg,1,1,train")
    os.mkfifo(folder / "x.jpg")
    return lambda: load_domain(listed).data_hash()


bad("domain.csv", "a named pipe", pipe, "line 10", "'x.jpg'", "not a file")


# names and places of domains

for name, options, *words in [
    ("markt", {}, "did you mean 'market'"),
    ("Plaza", {}, "did you mean 'plaza'"),
    ("zzz", {}, "known: market"),
    ("", {}, "unknown domain ''"),
    ("market", {"origin": "reel"}, "unknown origin 'reel'", "standin"),
    ("plaza", {"origin": "real"}, "there is no real one"),
    ("x.csv/", {"origin": "standin"}, "does not go with the path")]:
    bad("domain", f"{name!r} {options}", call(load_domain, name, **options), *words)
bad(
    "domain", "a file that is no csv", lambda f: functools.partial(load_domain, touch(f / "one.jpg")), "one.jpg",
    "is a file, but not a .csv")
bad(
    "domain", "a path that is not there", call(load_domain, "./gone/domain.csv"), "gone/domain.csv", "does not exist",
    "give a path", error=FileNotFoundError)
bad("domain", "a folder without images", lambda f: functools.partial(load_domain, f), "holds no images")
for name in ("market", "duke", "cuhk03"):
    bad(
        "domain", f"{name} that is not there", lambda f, name=name: functools.partial(load_domain, name, f, "real"),
        "is not under", "place its archive's folder there", error=FileNotFoundError)


# layouts

def layout(name: str, damage: Callable, pattern: str = MARKET) -> Callable:
    "A tree of three folders, damaged."
    def make(folder):
        damage(tree(folder / name, pattern))
        return functools.partial(load_domain, name, folder, "real")
    return make


HALF = ("half-extracted", "extract the archive again")
for name, damage, *words in [
    ("no query folder", lambda f: shutil.rmtree(f / "query"), "query: missing"),
    ("an empty gallery", lambda f: [p.unlink() for p in (f / "bounding_box_test").iterdir()],
     "bounding_box_test: empty"),
    ("train alone", lambda f: [shutil.rmtree(f / p) for p in ("query", "bounding_box_test")],
     "bounding_box_train: 12 images"),
    ("a file in a folder's place", lambda f: [shutil.rmtree(f / "query"), (f / "query").write_text("x")],
     "half-extracted")]:
    bad("layout", name, layout("market", damage), *HALF, *words, error=FileNotFoundError)
for name, damage, *words in [
    ("a picture that does not belong", lambda f: touch(f / "bounding_box_train/holiday.jpg"), "1 of 13 images",
     "'holiday.jpg'", "move what does not belong"),
    ("an identity in train and in test", lambda f: touch(f / "query/0001_c1s1_000009_00.jpg"),
     "both in train and in query or gallery", "first pid 1"),
    ("one identity in train", lambda f: [p.unlink() for p in f.glob("bounding_box_train/000[12]*")],
     "fewer than two identities in train"),
    ("junk alone in query",
     lambda f: [p.rename(p.with_name(p.name.replace(p.name[:4], "-1"))) for p in list((f / "query").iterdir())],
     "no query images besides junk"),
    ("a marker that is no JSON", lambda f: (f / STANDIN_MARKER).write_text("{"), STANDIN_MARKER,
     "export the stand-in again"),
    ("a marker without a name", lambda f: (f / STANDIN_MARKER).write_text("{}"), STANDIN_MARKER,
     "needs name and stands_for"),
    ("a marker of deep JSON", lambda f: (f / STANDIN_MARKER).write_text("[" * 100_000), STANDIN_MARKER,
     "export the stand-in again"),
    ("a marker of another dataset",
     lambda f: (f / STANDIN_MARKER).write_text('{"name": "campus", "stands_for": "duke"}'),
     "stand-in for duke, not for market"),
    ("a marker whose name is a path",
     lambda f: (f / STANDIN_MARKER).write_text('{"name": "../../evil", "stands_for": "market"}'), STANDIN_MARKER,
     "../../evil"),
    ("a marker whose name is a number",
     lambda f: (f / STANDIN_MARKER).write_text('{"name": 7, "stands_for": "market"}'), STANDIN_MARKER),
]:
    bad("layout", name, layout("market", damage), *words)
bad(
    "layout", "Duke's names in Market's place", layout("market", lambda f: None, DUKE),
    "break the name pattern of Market-1501")
bad(
    "layout", "Market's names in Duke's place", layout("duke", lambda f: None),
    "break the name pattern of DukeMTMC-reID")


def outward(folder):
    secret = touch(folder / "secret.jpg", 77)
    (tree(folder / "data/market") / "query" / MARKET.format(4, 2, 9)).symlink_to(secret)
    return functools.partial(load_domain, "market", folder / "data", "real")


bad("layout", "an image that is a link out of the dataset", outward, "links", MARKET.format(4, 2, 9))


# CUHK03's split file

def protocol(**changes) -> Callable:
    "CUHK03's split file with other contents."
    return lambda folder: functools.partial(load_domain, "cuhk03", mat(folder / "cuhk03", **changes).parent, "real")


def u16(*values) -> np.ndarray: return np.array(values, np.uint16)[:, None]


for name, changes, *words in [
    ("no labels", {"labels": None}, "has no labels"),
    ("a row 0", {"query_idx": u16(0, 1)}, "query_idx runs from 0"),
    ("a row beyond the list", {"train_idx": u16(1, 25)}, "images 1 to 24"),
    ("lists of other lengths", {"labels": u16(1)}, "differ in length"),
    ("no training rows", {"train_idx": np.zeros((0, 1), np.uint16)}, "no train images"),
    ("an image in two splits", {"gallery_idx": u16(13, 14)}, "more than once"),
    ("NaN labels", {"labels": np.full((24, 1), np.nan)}, "labels", "whole numbers"),
    ("fractions", {"train_idx": np.array([[1.5], [2]])}, "train_idx", "whole numbers"),
    ("text as labels", {"labels": np.array(["one"])}, "labels"),
    ("cells as labels", {"labels": np.array([[1], "x"] * 12, dtype=object)}, "labels", "whole numbers"),
    ("cameras below 0", {"camId": np.full((24, 1), -1)}, "camId", "from 0 or 1"),
    ("negative identities", {"labels": np.full((24, 1), -5)}, "labels", "-5"),
    ("a list of numbers", {"filelist": np.arange(24)[:, None]}, "12 of the 12 train images", "first '0'"),
    ("empty names", {"filelist": np.array([""] + ["x"] * 23, dtype=object)[:, None]}, "12 of the 12 train images",
     "first ''"),
    ("labels beyond 64 bits", {"labels": np.full((24, 1), 1e30)}, "labels"),
    ("a structure for a list", {"camId": {"a": 1}}, "camId"),
]:
    bad("CUHK03 .mat", name, protocol(**changes), "cuhk03", *words)


def not_mat(content: bytes) -> Callable:
    def make(folder):
        (mat(folder / "cuhk03") / CUHK03_SPLIT).write_bytes(content)
        return functools.partial(load_domain, "cuhk03", folder, "real")
    return make


for name, content in {
    "text": b"not a mat file", "empty": b"", "MATLAB 7.3": V73, "a pickle": pickle.dumps([1])}.items():
    bad("CUHK03 .mat", name, not_mat(content), CUHK03_SPLIT, "cannot be read as a MATLAB 5 file", "fetch it again")


def missing_image(folder):
    (mat(folder / "cuhk03") / "images_detected/1_001_1_01.png").unlink()
    return functools.partial(load_domain, "cuhk03", folder, "real")


bad(
    "CUHK03 .mat", "an image that is listed but missing", missing_image, "1 of the 12 train images", "'1_001_1_01'",
    "extract the images again")
