"""What is fuzzed: every reader with a strategy for its input. A reader returns, or raises a documented error of this package; nothing else.

`test_fuzz.py` runs a few hundred examples of each; `soak_fuzz.py` runs for as long as it is told.
"""
import functools
import io
import json
import shutil
import signal
import struct
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

import ptl_nb
from ptl_nb import experiments, label_data, label_import, labels, model, ssg, standins, trainer
from ptl_nb.data import decode
from ptl_nb.domains import CUHK03_SPLIT, LAYOUTS, STANDIN_MARKER, load_domain, parse_names

from bad_inputs import MATS, READERS, TRAIN, TRUTH, encoded, written
from test_domains import csv, mat, tree

DOCUMENTED = (ValueError, FileNotFoundError)     # what a reader may raise, see the docstrings
SECONDS = 10                                     # one example may take, hangs included


def late(*_): raise TimeoutError(f"not done within {SECONDS} seconds")


def outcome(read: Callable, value) -> str:
    "'read' or 'refused'; AssertionError for any other end."
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(value)
        return "read"
    except Exception as error:
        signal.alarm(0)
        where = traceback.extract_tb(error.__traceback__)[-1]
        ours = Path(where.filename).parent == Path(ptl_nb.__path__[0])
        assert ours and isinstance(error, DOCUMENTED), f"{type(error).__name__} raised in {where.filename}, line {where.lineno}: {error!s:.300}"
        return "refused"
    finally: signal.alarm(0)


# strategies

def apply(valid: bytes, edits: list) -> bytes:
    "A file after some edits: each at a place, overwriting, inserting, deleting, doubling or cutting off."
    out = bytearray(valid)
    for at, kind, data in edits:
        at = at % (len(out) + 1)
        if kind == "write": out[at:at + len(data)] = data
        elif kind == "insert": out[at:at] = data
        elif kind == "delete": del out[at:at + len(data)]
        elif kind == "double": out[at:at] = out[at:at + 8 * len(data)]
        elif kind == "cut": del out[at:]
    return bytes(out)


def mutated(valid: bytes, head: int = 0):
    "Bytes near a valid file; `head`: places among the first so many, where the headers are."
    places = st.integers(0, len(valid)) if not head else st.one_of(st.integers(0, head), st.integers(0, len(valid)))
    data = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1", b"\1\0\0\0"]))
    return st.lists(st.tuples(places, st.sampled_from(["write", "write", "insert", "delete", "double", "cut"]), data), min_size=1, max_size=5).map(functools.partial(apply, valid))


ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from([10**400, -1, 0, "", [], {}, float("nan"), 2**63, "../x", "/etc/x", "\0"]))
JSON = st.recursive(ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4), max_leaves=8)


def paths(value, here=()) -> list:
    "Places of all nodes of a JSON value."
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(p for k, v in inner for p in paths(v, (*here, k)))]


def changed(value, edits: list):
    "The value with some nodes replaced or left out."
    value = json.loads(json.dumps(value))
    for number, new, drop in edits:
        places = paths(value)[1:]
        if not places: return new
        *way, last = places[number % len(places)]
        parent = functools.reduce(lambda v, k: v[k], way, value)
        if drop: del parent[last]
        else: parent[last] = new
    return value


def json_near(valid):
    "JSON text near a valid value, and bytes near that text."
    text = st.lists(st.tuples(st.integers(0, 10**6), JSON, st.booleans()), min_size=1, max_size=4).map(lambda edits: json.dumps(changed(valid, edits)).encode())
    return st.one_of(text, text, mutated(json.dumps(valid).encode()), JSON.map(lambda v: json.dumps(v).encode()))


def table_near(valid: str, *words: str):
    "A table made of its own words and others, or bytes near it."
    cell = st.one_of(st.sampled_from([*words, *valid.replace("\n", ",").split(",")]), st.text(max_size=8), st.integers().map(str), st.floats().map(str), st.sampled_from(['"', '""', "\0", "\r", "\n", ",", "\ufeff", "'", " ", "../x.jpg", "/x.jpg"]))
    rows = st.lists(st.lists(cell, min_size=1, max_size=6).map(",".join), max_size=8).map("\n".join)
    head = valid.split("\n")[0]
    return st.one_of(rows.map(lambda r: f"{head}\n{r}".encode("utf-8", "surrogatepass")), rows.map(lambda r: f"{valid}{r}\n".encode("utf-8", "surrogatepass")), mutated(valid.encode()), st.binary(max_size=200))


# targets

@dataclass(frozen=True)
class Target:
    strategy: object
    read: Callable           # one example
    examples: int = 150      # in the quick profile


@functools.lru_cache(maxsize=None)
def scratch() -> Path:
    import atexit
    folder = Path(tempfile.mkdtemp(prefix="ptl-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def through(file: Path, read: Callable) -> Callable:
    "Reads content after writing it to a file."
    def run(content: bytes):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return read()
    return run


def table() -> Target:
    file = csv(scratch() / "csv")
    good = st.tuples(st.permutations(range(8)), st.lists(st.tuples(st.sampled_from(["1", "2", "3", " 4", "0", "-1"]), st.sampled_from(["1", "2", "07"]), st.sampled_from(["train", "query", "gallery", "train "])), min_size=8, max_size=8))
    rows = good.map(lambda case: ("path,pid,camid,split\n" + "".join(f"crops/{i}.jpg,{','.join(row)}\n" for i, row in zip(*case))).encode())
    return Target(rows | table_near(file.read_text(), "train", "query", "gallery", "-1", "crops", "crops/../crops/0.jpg", "."), through(file, lambda: load_domain(file)), 200)


def names() -> Target:
    tokens = st.one_of(st.sampled_from(["0002", "_c", "c1", "s1", "_", "000451", ".jpg", ".JPG", "-1", "_f", "9" * 20, "\u0661", "\n", "\udcff", "/"]), st.text(max_size=4))
    near = st.sampled_from([l.example for l in LAYOUTS.values()]).flatmap(lambda e: mutated(e.encode())).map(lambda b: b.decode("utf-8", "surrogateescape"))
    return Target(st.tuples(st.sampled_from(sorted(LAYOUTS)), st.lists(tokens, max_size=10).map("".join) | near), lambda case: parse_names([case[1], LAYOUTS[case[0]].example], LAYOUTS[case[0]], Path("folder")), 300)


def marker() -> Target:
    folder = tree(scratch() / "marker" / "market")
    return Target(json_near({"name": "plaza", "stands_for": "market"}), through(folder / STANDIN_MARKER, lambda: load_domain("market", folder.parent, "real")), 100)


def form(name: str) -> Path:
    "A label dataset of our own to spoil."
    folder = scratch() / name
    if not folder.exists(): shutil.copytree(written(name), folder)
    return folder


def protocol() -> Target:
    folder = mat(scratch() / "protocol" / "cuhk03")
    file = folder / CUHK03_SPLIT
    return Target(mutated(file.read_bytes(), 400), through(file, lambda: load_domain("cuhk03", folder.parent, "real")), 120)


def structure(name: str, packed: bool) -> Target:
    from scipy.io import loadmat
    folder = form(name) if packed else scratch() / f"{name}-plain"
    if not folder.exists(): shutil.copytree(written(name), folder)
    variable, inner = MATS[name]
    if not packed: savemat(folder / inner, {variable: {k: v[0, 0] for k, v in ((k, loadmat(folder / inner)[variable][k]) for k in loadmat(folder / inner)[variable].dtype.names)}})
    return Target(mutated((folder / inner).read_bytes(), 2000), through(folder / inner, lambda: READERS[name](folder)), 60)


def annotations() -> Target:
    folder = form("densepose")
    valid = json.loads((folder / TRAIN).read_text())
    valid = {"images": valid["images"][:3], "annotations": valid["annotations"][:3]}

    def read():
        people = label_data.read_densepose(folder, ["train"])
        return [label_data.person_parts(m) for m in people.masks]
    return Target(json_near(valid), through(folder / TRAIN, read), 150)


def runs() -> Target:
    "Run-length codes alone and beside others; what the check lets through must decode to what the check counted."
    def read(counts: str):
        masks = [{"size": [256, 256], "counts": counts}] + [[]] * 13
        label_data._check_masks({"dp_masks": masks}, "file")
        if (label_data.person_parts(masks) > 0).sum() != label_data._rle_runs(counts)[1::2].sum(): raise RuntimeError("the decoder and the check disagree")
    valid = label_data.encode_parts(np.repeat(np.arange(8), 32)[:, None].repeat(256, 1).astype(np.uint8))
    good = [m["counts"] for m in valid if m]
    near = st.sampled_from(good).flatmap(lambda c: mutated(c.encode())).map(lambda b: b.decode("latin-1"))
    return Target(st.one_of(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40), near, st.text(max_size=10)), read, 200)


def label_txt() -> Target:
    folder = form("peta")
    file = folder / "PETA dataset/VIPeR/archive/Label.txt"
    words = st.one_of(st.sampled_from(["0001", "0002", "upperBodyBlack", "personalMale", "accessoryShawl", "hairLong", "\n", "\r", "\t", "\u2028", "\ufeff"]), st.text(max_size=8))
    return Target(st.one_of(st.lists(words, max_size=20).map(lambda w: " ".join(w).encode("utf-8", "surrogatepass")), mutated(file.read_bytes())), through(file, lambda: label_data.read_peta_tree(folder, folders=["VIPeR"])), 120)


def part_map() -> Target:
    out = io.BytesIO()
    Image.fromarray(np.arange(32, dtype=np.uint8).reshape(8, 4) % 8).save(out, "PNG")
    file = labels.part_file(scratch() / "store", "a.jpg")
    return Target(mutated(out.getvalue(), 60), through(file, lambda: labels.read_parts(scratch() / "store", ["a.jpg"], image_sizes=[(8, 4)])), 250)


def foreign_map() -> Target:
    domain = load_domain(csv(scratch() / "foreign"))
    for name in ("0", "1"):
        (scratch() / "maps/crops").mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 8)).save(scratch() / f"maps/crops/{name}.png")
    out = io.BytesIO()
    Image.fromarray(np.arange(32, dtype=np.uint8).reshape(8, 4) % 8).save(out, "PNG")

    def read():
        shutil.rmtree(scratch() / "imported", ignore_errors=True)
        return label_import.import_parts(scratch() / "maps", "parts", domain, scratch() / "imported", "me")
    return Target(mutated(out.getvalue(), 60), through(scratch() / "maps/crops/1.png", read), 60)


def picture() -> Target:
    forms = [encoded(f, (16, 24)) for f in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")]
    return Target(st.sampled_from(forms).flatmap(lambda f: mutated(f, 100)), through(scratch() / "a.jpg", lambda: decode(scratch() / "a.jpg", (8, 4))), 250)


def attributes() -> Target:
    file = scratch() / "attributes" / labels.ATTRIBUTES_FILE
    return Target(table_near("path,hat=no,hat=yes,bag=no,bag=yes\na.jpg,0,1,0.5,0.5\n", "1e999", "nan", "0.5", "1_0", "hat=maybe"), through(file, lambda: labels.read_attributes(file.parent, ["a.jpg"])), 200)


def foreign_attributes() -> Target:
    domain = load_domain(csv(scratch() / "foreign-attributes"))

    def read():
        shutil.rmtree(scratch() / "imported-attributes", ignore_errors=True)
        return label_import.import_attributes(scratch() / "own.csv", domain, scratch() / "imported-attributes", "me", missing="report")
    return Target(table_near("path,hat,bag\ncrops/0.jpg,0,1\ncrops/1.jpg,0.5,1\n", "nan", "crops/2.jpg", "../x.jpg"), through(scratch() / "own.csv", read), 150)


def provenance() -> Target:
    file = scratch() / "provenance" / labels.PROVENANCE_FILE
    return Target(json_near({"parts": {"predicted_by": "me", "count": 3}}), through(file, lambda: labels.read_provenance(file.parent)), 150)


def weights() -> Target:
    file = scratch() / "w.safetensors"
    save_file({"conv.weight": torch.zeros(4, 3), "conv.bias": torch.zeros(4), "steps": torch.tensor(7)}, file)
    whole = file.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header, body = json.loads(whole[8:8 + size]), whole[8 + size:]
    pack = lambda text: struct.pack("<Q", len(text)) + text + body
    return Target(st.one_of(mutated(whole, size), json_near(header).map(pack)), through(file, lambda: model.read_safetensors(file)), 120)


def archive() -> Target:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in TRUTH.items(): z.writestr(name, content)
    whole, file = out.getvalue(), scratch() / "fuzzed.zip"

    def packed(members) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as z:
            for name, content, mode in members:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                with warnings.catch_warnings(): warnings.simplefilter("ignore"); z.writestr(info, content)
        return made.getvalue()

    def read():
        shutil.rmtree(scratch() / "unpacked", ignore_errors=True)
        before = set(scratch().iterdir())
        try: standins.extract(file, scratch() / "unpacked" / "deep" / "folder")
        finally:
            beside = set(scratch().iterdir()) - before - {scratch() / "unpacked"} | set((scratch() / "unpacked" / "deep").iterdir()) - {scratch() / "unpacked" / "deep" / "folder"}
            if beside: raise RuntimeError(f"left or wrote beside its folder: {beside}")
    names = st.one_of(st.sampled_from([*TRUTH, "../x", "/x", "a/../../x", "..", ".", "a", "a/b", "C:x", "a\\b", "truth/", "truth"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
    contents = st.one_of(st.binary(max_size=20), st.sampled_from(list(TRUTH.values())), st.just(b"path\n../../x.jpg\n"))
    members = st.lists(st.tuples(names, contents, st.sampled_from([0, 0o100644, 0o120777, 0o40755, 0o20644])), max_size=5)
    return Target(st.one_of(mutated(whole), members.map(packed)), through(file, read), 150)


def run_json() -> Target:
    store, key = experiments.Store(scratch() / "runs", progress=False), {"kind": "fuzz", "seed": 0}
    folder = store.folder("fuzz", key)
    return Target(json_near({"name": "fuzz", "key": key, "seconds": 1.0, "bytes": {"run.json": 9}}), through(folder / "run.json", lambda: store.find("fuzz", key)), 150)


def recipe() -> Target:
    fields = st.sampled_from([*(f for f in trainer.Recipe.__dataclass_fields__ if f != "name"), "epoch"])
    return Target(st.dictionaries(fields, st.one_of(ODD, st.lists(ODD, max_size=3).map(tuple)), max_size=3), lambda changes: experiments.choose_recipe("smoke", **changes), 300)


def ssg_recipe() -> Target:
    fields = st.sampled_from([*ssg.SSGRecipe.__dataclass_fields__])
    return Target(st.dictionaries(fields, st.one_of(ODD, st.lists(ODD, max_size=3).map(tuple)), max_size=3), lambda changes: ssg.SSGRecipe(**changes), 300)


def mapping() -> Target:
    plain = st.one_of(st.integers(-2, 300), st.text(max_size=6), st.floats(), st.none(), st.booleans())
    return Target(st.one_of(st.text(max_size=8), st.sampled_from(["lip", "lipp"]), st.dictionaries(plain, plain, max_size=4), JSON), label_import.mapping_table, 300)


def words() -> Target:
    "Seeds, methods and devices as papermill passes them."
    token = st.one_of(st.sampled_from(["BL", "PTL", "HP^t", "Attr^s", "BN^t", "SSG", "SSG†", "fwd^t", "+", ",", " ", "0", "1", "-", "cuda", ":"]), st.text(max_size=4))
    value = st.one_of(st.lists(token, max_size=8).map("".join), ODD, st.lists(ODD, max_size=3))
    return Target(st.tuples(st.sampled_from([experiments.parse_seeds, experiments.parse_methods, experiments.choose_device]), value), lambda case: case[0](case[1]), 400)


TARGETS = {"domain.csv": table, "file names": names, "standin.json": marker, "CUHK03 .mat": protocol, "PETA.mat": functools.partial(structure, "peta-mat", True), "PETA.mat, not packed": functools.partial(structure, "peta-mat", False),
           "RAP .mat": functools.partial(structure, "rap", True), "RAP .mat, not packed": functools.partial(structure, "rap", False), "DensePose JSON": annotations, "DensePose RLE": runs, "PETA Label.txt": label_txt, "part map": part_map, "imported part map": foreign_map,
           "image": picture, "attribute table": attributes, "imported attributes": foreign_attributes, "labels.json": provenance, "weights": weights, "archive": archive, "run.json": run_json, "recipe": recipe, "SSG recipe": ssg_recipe, "class mapping": mapping, "seeds, methods, devices": words}
