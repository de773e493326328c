"""What is fuzzed: every reader with a strategy for its input. A reader returns, or raises a documented error of this
package; nothing else.

`test_fuzz.py` runs a few hundred examples of each; `tools/soak_fuzz.py` runs for as long as it is told.
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
from ptl_nb import cluster_contrast, densepose, label_import, labels, model, peta, ssg, standins
from ptl_nb.data import decode
from ptl_nb.dataset_readers import CUHK03_SPLIT, LAYOUTS, parse_names
from ptl_nb.domain import STANDIN_MARKER
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_methods
from ptl_nb.parameters import choose_device, choose_recipe, parse_seeds
from ptl_nb.recipe import Recipe
from ptl_nb.store import FunctionRun, Store

from bad_inputs.made import MATS, READERS, TRAIN, TRUTH, encoded, written
from test_domains import csv, mat, tree

DOCUMENTED = (ValueError, FileNotFoundError)     # what a reader may raise, see the docstrings
SECONDS = 10                                     # one example may take, hangs included


def late(*_):
    raise TimeoutError(f"not done within {SECONDS} seconds")


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
        assert ours and isinstance(error, DOCUMENTED), \
            f"{type(error).__name__} raised in {where.filename}, line {where.lineno}: {error!s:.300}"
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


NUMBERS = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1", b"\1\0\0\0"]


def mutated(valid: bytes, head: int = 0):
    "Bytes near a valid file; `head`: places among the first so many, where the headers are."
    places = st.integers(0, len(valid)) if not head else st.one_of(st.integers(0, head), st.integers(0, len(valid)))
    data = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(NUMBERS))
    kinds = st.sampled_from(["write", "write", "insert", "delete", "double", "cut"])
    return st.lists(st.tuples(places, kinds, data), min_size=1, max_size=5).map(functools.partial(apply, valid))


def containers(inner):
    "Lists and dictionaries of JSON values."
    return st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)


EDGES = [10**400, -1, 0, "", [], {}, float("nan"), 2**63, "../x", "/etc/x", "\0"]
ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(EDGES))
JSON = st.recursive(ODD, containers, max_leaves=8)


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
    edits = st.lists(st.tuples(st.integers(0, 10**6), JSON, st.booleans()), min_size=1, max_size=4)
    text = edits.map(lambda edits: json.dumps(changed(valid, edits)).encode())
    return st.one_of(text, text, mutated(json.dumps(valid).encode()), JSON.map(lambda v: json.dumps(v).encode()))


def table_near(valid: str, *words: str):
    "A table made of its own words and others, or bytes near it."
    own = st.sampled_from([*words, *valid.replace("\n", ",").split(",")])
    odd = st.sampled_from(['"', '""', "\0", "\r", "\n", ",", "\ufeff", "'", " ", "../x.jpg", "/x.jpg"])
    cell = st.one_of(own, st.text(max_size=8), st.integers().map(str), st.floats().map(str), odd)
    rows = st.lists(st.lists(cell, min_size=1, max_size=6).map(",".join), max_size=8).map("\n".join)
    head = valid.split("\n")[0]
    texts = st.one_of(rows.map(lambda r: f"{head}\n{r}"), rows.map(lambda r: f"{valid}{r}\n"))
    files = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(files, files, mutated(valid.encode()), st.binary(max_size=200))


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
    pids, camids = st.sampled_from(["1", "2", "3", " 4", "0", "-1"]), st.sampled_from(["1", "2", "07"])
    splits = st.sampled_from(["train", "query", "gallery", "train "])
    good = st.tuples(st.permutations(range(8)), st.lists(st.tuples(pids, camids, splits), min_size=8, max_size=8))

    def text(case) -> bytes:
        lines = [f"crops/{i}.jpg,{','.join(row)}\n" for i, row in zip(*case)]
        return "".join(["path,pid,camid,split\n", *lines]).encode()
    words = "train", "query", "gallery", "-1", "crops", "crops/../crops/0.jpg", "."
    near = good.map(text) | table_near(file.read_text(), *words)
    return Target(near, through(file, lambda: load_domain(file)), 200)


def names() -> Target:
    known = ["0002", "_c", "c1", "s1", "_", "000451", ".jpg", ".JPG", "-1", "_f", "9" * 20, "\u0661", "\n",
             "\udcff", "/"]
    tokens = st.one_of(st.sampled_from(known), st.text(max_size=4))
    examples = st.sampled_from([layout.example for layout in LAYOUTS.values()])
    near = examples.flatmap(lambda e: mutated(e.encode())).map(lambda b: b.decode("utf-8", "surrogateescape"))
    cases = st.tuples(st.sampled_from(sorted(LAYOUTS)), st.lists(tokens, max_size=10).map("".join) | near)

    def read(case):
        layout = LAYOUTS[case[0]]
        return parse_names([case[1], layout.example], layout, Path("folder"))
    return Target(cases, read, 300)


def marker() -> Target:
    folder = tree(scratch() / "marker" / "market")
    read = through(folder / STANDIN_MARKER, lambda: load_domain("market", folder.parent, "real"))
    return Target(json_near({"name": "plaza", "stands_for": "market"}), read, 100)


def form(name: str) -> Path:
    "A label dataset of our own to spoil."
    folder = scratch() / name
    if not folder.exists(): shutil.copytree(written(name), folder)
    return folder


def protocol() -> Target:
    folder = mat(scratch() / "protocol" / "cuhk03")
    file = folder / CUHK03_SPLIT
    read = through(file, lambda: load_domain("cuhk03", folder.parent, "real"))
    return Target(mutated(file.read_bytes(), 400), read, 120)


def structure(name: str, packed: bool) -> Target:
    from scipy.io import loadmat
    folder = form(name) if packed else scratch() / f"{name}-plain"
    if not folder.exists(): shutil.copytree(written(name), folder)
    variable, inner = MATS[name]
    if not packed:
        whole = loadmat(folder / inner)[variable]
        savemat(folder / inner, {variable: {k: whole[k][0, 0] for k in whole.dtype.names}})
    file = folder / inner
    return Target(mutated(file.read_bytes(), 2000), through(file, lambda: READERS[name](folder)), 60)


def annotations() -> Target:
    folder = form("densepose")
    valid = json.loads((folder / TRAIN).read_text())
    valid = {"images": valid["images"][:3], "annotations": valid["annotations"][:3]}

    def read():
        people = densepose.read_densepose(folder, ["train"])
        return [densepose.person_parts(m) for m in people.masks]
    return Target(json_near(valid), through(folder / TRAIN, read), 150)


def runs() -> Target:
    "Run-length codes alone and beside others; what the check lets through must decode to what the check counted."
    def read(counts: str):
        masks = [{"size": [256, 256], "counts": counts}] + [[]] * 13
        densepose._check_masks({"dp_masks": masks}, "file")
        decoded = (densepose.person_parts(masks) > 0).sum()
        if decoded != densepose._rle_runs(counts)[1::2].sum():
            raise RuntimeError("the decoder and the check disagree")
    valid = densepose.encode_parts(np.repeat(np.arange(8), 32)[:, None].repeat(256, 1).astype(np.uint8))
    good = [m["counts"] for m in valid if m]
    near = st.sampled_from(good).flatmap(lambda c: mutated(c.encode())).map(lambda b: b.decode("latin-1"))
    codes = st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40)
    return Target(st.one_of(codes, near, st.text(max_size=10)), read, 200)


def label_txt() -> Target:
    folder = form("peta")
    file = folder / "PETA dataset/VIPeR/archive/Label.txt"
    known = ["0001", "0002", "upperBodyBlack", "personalMale", "accessoryShawl", "hairLong", "\n", "\r", "\t", "\u2028",
             "\ufeff"]
    words = st.lists(st.one_of(st.sampled_from(known), st.text(max_size=8)), max_size=20)
    texts = words.map(lambda w: " ".join(w).encode("utf-8", "surrogatepass"))
    read = through(file, lambda: peta.read_peta_tree(folder, folders=["VIPeR"]))
    return Target(st.one_of(texts, mutated(file.read_bytes())), read, 120)


def part_png() -> bytes:
    "A part map of 8 x 4 pixels."
    out = io.BytesIO()
    Image.fromarray(np.arange(32, dtype=np.uint8).reshape(8, 4) % 8).save(out, "PNG")
    return out.getvalue()


def part_map() -> Target:
    store = scratch() / "store"
    read = through(labels.part_file(store, "a.jpg"), lambda: labels.read_parts(store, ["a.jpg"], image_sizes=[(8, 4)]))
    return Target(mutated(part_png(), 60), read, 250)


def foreign_map() -> Target:
    domain = load_domain(csv(scratch() / "foreign"))
    for name in ("0", "1"):
        (scratch() / "maps/crops").mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 8)).save(scratch() / f"maps/crops/{name}.png")

    def read():
        shutil.rmtree(scratch() / "imported", ignore_errors=True)
        return label_import.import_parts(scratch() / "maps", "parts", domain, scratch() / "imported", "me")
    return Target(mutated(part_png(), 60), through(scratch() / "maps/crops/1.png", read), 60)


def picture() -> Target:
    forms = [encoded(f, (16, 24)) for f in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")]
    file = scratch() / "a.jpg"
    near = st.sampled_from(forms).flatmap(lambda f: mutated(f, 100))
    return Target(near, through(file, lambda: decode(file, (8, 4))), 250)


def attributes() -> Target:
    file = scratch() / "attributes" / labels.ATTRIBUTES_FILE
    valid = "path,hat=no,hat=yes,bag=no,bag=yes\na.jpg,0,1,0.5,0.5\n"
    read = through(file, lambda: labels.read_attributes(file.parent, ["a.jpg"]))
    return Target(table_near(valid, "1e999", "nan", "0.5", "1_0", "hat=maybe"), read, 200)


def foreign_attributes() -> Target:
    domain = load_domain(csv(scratch() / "foreign-attributes"))

    def read():
        shutil.rmtree(scratch() / "imported-attributes", ignore_errors=True)
        given = scratch() / "own.csv", domain, scratch() / "imported-attributes", "me"
        return label_import.import_attributes(*given, missing="report")
    valid = "path,hat,bag\ncrops/0.jpg,0,1\ncrops/1.jpg,0.5,1\n"
    near = table_near(valid, "nan", "crops/2.jpg", "../x.jpg")
    return Target(near, through(scratch() / "own.csv", read), 150)


def provenance() -> Target:
    file = scratch() / "provenance" / labels.PROVENANCE_FILE
    read = through(file, lambda: labels.read_provenance(file.parent))
    return Target(json_near({"parts": {"predicted_by": "me", "count": 3}}), read, 150)


def weights() -> Target:
    file = scratch() / "w.safetensors"
    save_file({"conv.weight": torch.zeros(4, 3), "conv.bias": torch.zeros(4), "steps": torch.tensor(7)}, file)
    whole = file.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:8 + size])
    body = whole[8 + size:]

    def pack(text: bytes) -> bytes: return struct.pack("<Q", len(text)) + text + body
    near = st.one_of(mutated(whole, size), json_near(header).map(pack))
    return Target(near, through(file, lambda: model.read_safetensors(file)), 120)


def archive() -> Target:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in TRUTH.items(): z.writestr(name, content)
    whole = out.getvalue()
    file = scratch() / "fuzzed.zip"

    def packed(members) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as z:
            for name, content, mode in members:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    z.writestr(info, content)
        return made.getvalue()

    def read():
        folder = scratch() / "unpacked" / "deep" / "folder"
        shutil.rmtree(scratch() / "unpacked", ignore_errors=True)
        before = set(scratch().iterdir())
        try: standins.extract_archive(file, folder)
        finally:
            beside = set(scratch().iterdir()) - before - {scratch() / "unpacked"}
            beside |= set(folder.parent.iterdir()) - {folder}
            if beside:
                raise RuntimeError(f"left or wrote beside its folder: {beside}")
    known = [*TRUTH, "../x", "/x", "a/../../x", "..", ".", "a", "a/b", "C:x", "a\\b", "truth/", "truth"]
    names = st.sampled_from(known) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
    contents = st.one_of(st.binary(max_size=20), st.sampled_from(list(TRUTH.values())), st.just(b"path\n../../x.jpg\n"))
    modes = st.sampled_from([0, 0o100644, 0o120777, 0o40755, 0o20644])
    members = st.lists(st.tuples(names, contents, modes), max_size=5)
    return Target(st.one_of(mutated(whole), members.map(packed)), through(file, read), 150)


def run_json() -> Target:
    store = Store(scratch() / "runs", progress=False)
    key = {"kind": "fuzz", "seed": 0}
    run = FunctionRun("fuzz", key, lambda folder: None)
    valid = {"name": "fuzz", "key": key, "seconds": 1.0, "bytes": {"run.json": 9}}
    return Target(json_near(valid), through(store.folder(run) / "run.json", lambda: store.find(run)), 150)


VALUES = st.one_of(ODD, st.lists(ODD, max_size=3).map(tuple))


def recipe() -> Target:
    fields = st.sampled_from([*(f for f in Recipe.__dataclass_fields__ if f != "name"), "epoch"])
    changes = st.dictionaries(fields, VALUES, max_size=3)
    return Target(changes, lambda given: choose_recipe("smoke", **given), 300)


def ssg_recipe() -> Target:
    fields = st.sampled_from([*ssg.SSGRecipe.__dataclass_fields__])
    return Target(st.dictionaries(fields, VALUES, max_size=3), lambda given: ssg.SSGRecipe(**given), 300)


def contrast_recipe() -> Target:
    fields = st.sampled_from([*cluster_contrast.ContrastRecipe.__dataclass_fields__])
    return Target(st.dictionaries(fields, VALUES, max_size=3),
                  lambda given: cluster_contrast.ContrastRecipe(**given), 300)


def mapping() -> Target:
    plain = st.one_of(st.integers(-2, 300), st.text(max_size=6), st.floats(), st.none(), st.booleans())
    known = st.sampled_from(["lip", "lipp"])
    near = st.one_of(st.text(max_size=8), known, st.dictionaries(plain, plain, max_size=4), JSON)
    return Target(near, label_import.mapping_table, 300)


def words() -> Target:
    "Seeds, methods and devices as papermill passes them."
    known = ["start", "BL", "PTL", "HP^t", "Attr^s", "BN^t", "BN^c", "SSG", "SSG†", "CC", "fwd^t", "+", ",", " ", "0",
             "1", "-", "cuda", ":"]
    token = st.one_of(st.sampled_from(known), st.text(max_size=4))
    value = st.one_of(st.lists(token, max_size=8).map("".join), ODD, st.lists(ODD, max_size=3))
    readers = st.sampled_from([parse_seeds, parse_methods, choose_device])
    return Target(st.tuples(readers, value), lambda case: case[0](case[1]), 400)


TARGETS = {
    "domain.csv": table, "file names": names, "standin.json": marker, "CUHK03 .mat": protocol,
    "PETA.mat": functools.partial(structure, "peta-mat", True),
    "PETA.mat, not packed": functools.partial(structure, "peta-mat", False),
    "RAP .mat": functools.partial(structure, "rap", True),
    "RAP .mat, not packed": functools.partial(structure, "rap", False),
    "DensePose JSON": annotations, "DensePose RLE": runs, "PETA Label.txt": label_txt,
    "part map": part_map, "imported part map": foreign_map, "image": picture,
    "attribute table": attributes, "imported attributes": foreign_attributes, "labels.json": provenance,
    "weights": weights, "archive": archive, "run.json": run_json, "recipe": recipe, "SSG recipe": ssg_recipe,
    "Cluster Contrast recipe": contrast_recipe,
    "class mapping": mapping, "seeds, methods, devices": words}
