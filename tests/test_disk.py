"""Full, read-only and forbidden disks at every place that writes: the message names the place and the remedy, older
files stay whole, nothing half is left, and the same call succeeds afterwards.

A full and a read-only disk are small file systems of their own where one can be mounted (root, or `unshare -rm python
-m pytest tests/test_disk.py` as anybody). Everywhere else a limit on the size of a file and a folder without rights
take their place.
"""
import ast
import ctypes
import errno
import hashlib
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
import types
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from check_repo import PAPERMILL, ROOT

from ptl_nb import data, provenance, runs
from ptl_nb.checkpoint import Checkpointer, save_state, save_weights
from ptl_nb.data import pixels
from ptl_nb.densepose import export_densepose, part_maps
from ptl_nb.deploy import write_card
from ptl_nb.disk import FullDisk, atomic_folder, atomic_write, file_lock, write_csv, write_json
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import evaluate
from ptl_nb.export import export_int8, export_onnx, write_model
from ptl_nb.gallery import GalleryIndex, full_rows, save_index
from ptl_nb.label_data import load_labels
from ptl_nb.label_import import import_attributes, import_parts
from ptl_nb.label_sets import crops
from ptl_nb.labels import (
    ATTRIBUTES_FILE, Vocabulary, read_provenance, write_attributes, write_parts, write_provenance)
from ptl_nb.methods import parse_method
from ptl_nb.mixed_precision import loss_scaler
from ptl_nb.model import PTLNet
from ptl_nb.peta import export_peta_mat, export_peta_tree
from ptl_nb.plots import write_figure
from ptl_nb.rap import export_rap
from ptl_nb.recipe import RECIPES
from ptl_nb.runs import score_model
from ptl_nb.search import faiss_engine
from ptl_nb.site import build_site
from ptl_nb.standins import archive_path, export_layout, extract_archive, truth_store, write_archive
from ptl_nb.store import FunctionRun, Store

# disks that refuse

MEGABYTES = 48


class Mounted:
    "A small file system of its own."
    def __init__(self, place: Path):
        self.place = place
        self.ballast = place / "ballast"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)],
                              capture_output=True, text=True)
        if done.returncode:
            pytest.skip("no file system can be mounted here; "
                        f"'limit' and 'rights' take its place ({done.stderr.strip()})")

    def fill(self, room: int) -> None:
        with open(self.ballast, "wb", buffering=0) as out:
            try:
                while out.write(bytes(1 << 16)): pass
            except OSError: out.truncate(out.tell() - room)

    def read_only(self) -> None: self._remount("ro")
    def heal(self) -> None:
        self._remount("rw"); self.ballast.unlink(missing_ok=True)
    def _remount(self, how: str) -> None: subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=True)
    def close(self) -> None: subprocess.run(["umount", "-l", str(self.place)], check=True)


class Full(Mounted):
    says = FullDisk
    def refuse(self, room: int) -> None: self.fill(room)


class ReadOnly(Mounted):
    says = FullDisk
    def refuse(self, room: int) -> None: self.read_only()


class Limit:
    "No file may grow beyond some bytes: the nearest to a full disk that needs no rights."
    says = FullDisk
    def __init__(self, place: Path): self.place, self.before = place, resource.getrlimit(resource.RLIMIT_FSIZE)
    def refuse(self, room: int) -> None: resource.setrlimit(resource.RLIMIT_FSIZE, (room, self.before[1]))
    def heal(self) -> None: resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
    close = heal


class Rights:
    """Folders without the right to write; binding for root too, who gives up the capability to override them for a
    while."""
    says = PermissionError
    def __init__(self, place: Path): self.place = place
    def refuse(self, room: int) -> None: self._set(0o555, False)
    def heal(self) -> None: self._set(0o755, True)
    close = heal

    def _set(self, mode: int, override: bool) -> None:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # 3: effective, permitted, inheritable; two words
        sets = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None, use_errno=True)
        libc.capget(header, sets)
        # CAP_DAC_OVERRIDE
        sets[0] = sets[0] | (sets[1] & 2) if override else sets[0] & ~2
        libc.capset(header, sets)
        for folder in (self.place, *(p for p in self.place.rglob("*") if p.is_dir())): folder.chmod(mode)


@pytest.fixture(params=[Full, ReadOnly, Limit, Rights], ids=lambda kind: kind.__name__.lower())
def disk(request, tmp_path):
    (tmp_path / "disk").mkdir()
    made = request.param(tmp_path / "disk")
    yield made
    made.close()


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.suffix != ".lock" and p.name != "ballast"}


# every place that writes: writes into a folder, other content for each version; returns what it wrote

rng = np.random.default_rng(0)
noise = rng.integers(0, 8, (8, 96, 96), dtype=np.uint8)
corridor = load_domain("corridor")
EIGHT = [f"{i}.jpg" for i in range(8)]


def index(version: int) -> GalleryIndex:
    n = 200 * version
    return GalleryIndex(np.random.default_rng(version).random((n, 32), np.float32),
                        full_rows(pd.DataFrame({"path": [f"{i}.jpg" for i in range(n)]})), "m", Path("somewhere"))


def net(version: int) -> PTLNet:
    torch.manual_seed(version)
    return PTLNet(4, backbone_name="mini").eval()


def small_repository(root: Path, version: int) -> Path:
    (root / "nbs").mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# One {version}")]),
                   root / "nbs/00_one.ipynb")
    (root / "README.md").write_text("# small\n\n[one](nbs/00_one.ipynb)\n")
    return root


def scores(place: Path, version: int) -> Path:
    run = place / "run"
    who = np.arange(1, 41)
    run.mkdir(exist_ok=True)
    made = evaluate(rng.random((40, 8), np.float32), rng.random((40, 8), np.float32), who, who, who * 0, who * 0 + 1)
    with patch.multiple(runs, scored_network=lambda *a: None, score_net=lambda *a: made):
        score_model(Store(place), RECIPES["smoke"], run, corridor, parse_method("BL+BN^t" if version == 2 else "BL"))
    return run


def imported_parts(place: Path, version: int) -> Path:
    import_parts(truth_store("corridor") / "parts", "parts", corridor, place / f"store{version}", "me")
    return place / f"store{version}"


def imported_attributes(place: Path, version: int) -> Path:
    import_attributes(truth_store("corridor") / ATTRIBUTES_FILE, corridor, place / f"store{version}", "me")
    return place / f"store{version}"


def onnx(place: Path, version: int) -> Path:
    pytest.importorskip("onnxruntime")
    export_onnx(net(version), place / "model.onnx", (48, 24))
    return place / "model.onnx"


def int8(place: Path, version: int) -> Path:
    pytest.importorskip("onnxruntime")
    for v in (1, 2):                                        # what is made small is there before the disk refuses
        if not (place.parent / f"{v}.onnx").exists(): export_onnx(net(v), place.parent / f"{v}.onnx", (48, 24))
    export_int8(place.parent / f"{version}.onnx", place / "int8.onnx",
                np.random.default_rng(0).integers(0, 256, (20, 48, 24, 3), np.uint8))
    return place / "int8.onnx"


def faiss(place: Path, version: int) -> Path:
    pytest.importorskip("faiss")
    faiss_engine(index(version), "flat", folder=place)
    return place


def run_of_a_store(place: Path, version: int) -> Path:
    long = {"a": list(range(9000))}
    run = FunctionRun("run", {"version": version}, lambda folder: write_json(folder / "a.json", long))
    return Store(place, progress=False).make(run)


def state(place: Path, version: int) -> Path:
    part = torch.nn.Linear(100 * version, 100)
    save_state(place / "state.safetensors", part, torch.optim.Adam(part.parameters()), [], {})
    return place / "state.safetensors"


def round_of_a_training(place: Path, version: int) -> Path:
    part = torch.nn.Linear(100 * version, 100)
    file = place / "state.safetensors"
    optimiser = torch.optim.SGD(part.parameters(), 0.1)
    Checkpointer(file, part, optimiser, loss_scaler("fp32"), {}).write([], number=version, rows=[{"round": version}])
    return file


def figure(place: Path, version: int) -> Path:
    fig = plt.figure()
    fig.figimage(rng.integers(0, 255, (200, 200)))
    write_figure(place / "figure.png", fig)
    plt.close(fig)
    return place / "figure.png"


def file_by(name: str, write):
    def writer(place: Path, version: int) -> Path:
        write(place / name, version)
        return place / name
    return writer


WRITERS = {
    "weights": file_by("model.safetensors", lambda file, v: save_weights(torch.nn.Linear(100 * v, 100), file)),
    "training state": state,
    "state after a round": round_of_a_training,
    "table": file_by("a.csv", lambda file, v: write_csv(file, pd.DataFrame({"a": np.arange(9000) * v}))),
    "json": file_by("a.json", lambda file, v: write_json(file, {"a": [v] * 9000})),
    "figure": figure,
    "scores": scores,
    "run": run_of_a_store,
    "part maps": file_by("store", lambda store, v: write_parts(store, EIGHT, np.roll(noise, v))),
    "attributes": file_by("store", lambda store,
                          v: write_attributes(store, [f"{i}.jpg" for i in range(2000)], Vocabulary.two_way(("hat",)),
                                              np.full((2000, 1, 2), .5, np.float32) + v * np.float32([.001, -.001]))),
    "provenance": file_by("store", lambda store,
                          v: write_provenance(store, "parts", "me", "truth", 8, True, note=[v] * 9000)),
    "imported part maps": imported_parts,
    "imported attributes": imported_attributes,
    "pixels": file_by("pixels", lambda folder, v: pixels(corridor, "query", (64, 16 * v), folder)),
    "crops of label data": file_by("crops", lambda folder,
                                   v: crops(load_labels("densepose", origin="standin").take(np.arange(40 * v)),
                                            (64, 32), folder)),
    "part maps of label "
    "data": file_by("crops", lambda folder,
                    v: part_maps(load_labels("densepose", origin="standin").take(np.arange(40 * v)), (64, 32), folder)),
    "index": file_by("index", lambda folder, v: save_index(index(v), folder)),
    "faiss index": faiss,
    "exported weights": file_by("deploy", lambda folder, v: write_model(net(v), RECIPES["smoke"], folder)),
    "onnx": onnx,
    "int8": int8,
    "model card": file_by("deploy", lambda folder,
                          v: (folder.mkdir(exist_ok=True), write_card(folder, f"card {v}" * 3000))),
    "unpacked stand-in": lambda place, v: extract_archive(archive_path("corridor"), place / f"corridor{v}"),
    "stand-in as the original": lambda place, v: export_layout("corridor", place / f"data{v}"),
    "stand-in archive": file_by("a.zip", lambda file,
                                v: write_archive(file, {"v": v}, {f"{i}.jpg": rng.bytes(4000) for i in range(8)}, noise,
                                                 [{"hat": True}] * 8)),
    "densepose form": lambda place, v: export_densepose(place / f"densepose{v}", limit=20, persons=v),
    "peta form": lambda place, v: export_peta_tree(place / f"tree{v}", limit=20),
    "peta mat form": lambda place, v: export_peta_mat(place / f"mat{v}", limit=20),
    "rap form": lambda place, v: export_rap(place / f"rap{v}", limit=20),
    "site": lambda place,
    v: build_site(small_repository(place.parent / "repository", v), place / "_site", progress=False),
}
# bytes that are left; the files of these are smaller than 12,288
ROOM = dict.fromkeys(("scores", "part maps", "imported part maps", "peta form", "rap form"), 0)


@pytest.mark.parametrize("what", WRITERS)
def test_every_writer_meets_a_disk_that_refuses(disk, what):
    write = WRITERS[what]
    place = disk.place
    write(place, 1)
    before = contents(place)
    assert before
    disk.refuse(ROOM.get(what, 12288))
    try:
        with pytest.raises(OSError) as caught: write(place, 2)
        told = str(caught.value)
        after = contents(place)
    finally: disk.heal()
    assert isinstance(caught.value, disk.says), f"{caught.value!r}"
    assert f"{place}" in told and re.search("run the same again|give another folder", told), told
    assert after == before, f"{sorted(after.keys() ^ before.keys())} {[k for k in before if after.get(k) != before[k]]}"
    written = write(place, 2)
    assert written.exists() and contents(place) != before and not list(place.rglob("*.tmp"))


# what ends a process on a full disk, without an error

@pytest.mark.slow
def test_a_full_folder_of_compiled_code_stops_nothing(tmp_path):
    code = ("import resource; import numpy as np; from ptl_nb.data import augmented_pixels; "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); print(augmented_pixels(np.zeros((4, 8, 4, 3), "
            "np.uint8), np.arange(4)).shape)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert "[4, 3, 8, 4]" in done.stdout, done.stderr[-2000:]


# several at once: one pixel cache, one label store

def decode_all(folder: Path, log: Path, hold: float = 0) -> None:
    real = data._write_array
    def logged(*given):
        with open(log, "a") as out: out.write(f"{os.getpid()}\n")
        time.sleep(hold)
        real(*given)
    with patch.object(data, "_write_array", logged):
        for size in ((16, 8), (24, 12), (32, 16)): pixels(corridor, "query", size, folder)


def together(processes: int, work, *given) -> list[multiprocessing.Process]:
    group = [multiprocessing.get_context("fork").Process(target=work, args=given) for _ in range(processes)]
    for p in group: p.start()
    return group


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_several_processes_fill_one_pixel_cache_once(tmp_path, processes):
    decode_all(tmp_path / "alone", tmp_path / "log")
    group = together(processes, decode_all, tmp_path / "shared", tmp_path / "made")
    for p in group: p.join(120)
    assert [p.exitcode for p in group] == [0] * processes
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert len((tmp_path / "made").read_text().split()) == 3, "an array was decoded twice"


def test_a_dead_process_hands_its_pixels_on(tmp_path):
    owner, = together(1, decode_all, tmp_path / "shared", tmp_path / "made", 60)
    deadline = time.monotonic() + 60
    while not (tmp_path / "made").exists() and time.monotonic() < deadline: time.sleep(0.01)
    other, = together(1, decode_all, tmp_path / "shared", tmp_path / "made")
    other.join(0.3)
    assert other.exitcode is None, "a lock that is held kept nobody out"
    os.kill(owner.pid, 9); owner.join()
    other.join(60)
    assert (other.exitcode == 0 and len(list((tmp_path / "shared").glob("*.npy"))) == 3
            and not list((tmp_path / "shared").glob("*.tmp")))


def label_one(store: Path, number: int) -> None:
    names = [f"{number}/{i}.jpg" for i in range(20)]
    for _ in range(5):
        write_parts(store, names, np.repeat(noise, 3, 0)[:20])
        write_provenance(store, ("parts", "attributes")[number % 2], f"process {number}", "truth", 20, True,
                         ["hat=no", "hat=yes"])
        write_attributes(store, EIGHT, Vocabulary.two_way(("hat",)), np.full((8, 1, 2), .5, np.float32))
        read_provenance(store)


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_several_processes_write_one_label_store(tmp_path, processes):
    group = [multiprocessing.get_context("fork").Process(target=label_one, args=(tmp_path, i))
             for i in range(processes)]
    for p in group: p.start()
    for p in group: p.join(120)
    assert [p.exitcode for p in group] == [0] * processes
    kinds = set(read_provenance(tmp_path))
    assert kinds == {"parts", "attributes"}, "who wrote last took away what another had said of the other kind"
    assert len(list(tmp_path.rglob("*.png"))) == 20 * processes and not list(tmp_path.rglob("*.tmp"))


def half_written(file: Path) -> None:
    with file_lock(file), atomic_write(file) as draft:
        draft.write_text("half")
        os.kill(os.getpid(), 9)


def test_what_a_killed_process_left_is_removed(tmp_path):
    group = together(4, half_written, tmp_path / "a [1].csv")
    for p in group: p.join(30)
    assert list(tmp_path.glob("*.tmp")), "nothing was left; this shows nothing"
    with atomic_write(tmp_path / "a [1].csv") as draft: draft.write_text("all")
    assert contents(tmp_path).keys() == {"a [1].csv"}


# systems, disks and names of other kinds

@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError) as told:
        Store(tmp_path / "runs", progress=False).make(FunctionRun("run", {}, lambda folder: {}))
    assert (told.value.errno == number and f"folder {tmp_path / 'runs'} has no file locks" in str(told.value)
            and "give a folder on another disk" in str(told.value))


@pytest.mark.parametrize("name", ["n" * 250, "駅" * 83, "é" * 120 + ".csv", "n" * 200 + "a", "n" * 200 + "b"])
def test_a_name_that_fits_can_be_written(tmp_path, name):
    "255 bytes are a name's limit; hidden names made of it keep to it."
    group = together(2, half_written, tmp_path / name)
    for p in group: p.join(30)
    assert list(tmp_path.glob(".*.tmp")), "nothing was left; this shows nothing"
    with file_lock(tmp_path / name), atomic_write(tmp_path / name) as draft: draft.write_text(name)
    assert (tmp_path / name).read_text() == name and not list(tmp_path.glob(".*.tmp"))
    with atomic_folder(tmp_path / "in" / name) as draft: (draft / "a").touch()
    assert (tmp_path / "in" / name / "a").exists()


def test_long_names_that_begin_alike_have_locks_of_their_own(tmp_path):
    with file_lock(tmp_path / ("n" * 240 + "a")), file_lock(tmp_path / ("n" * 240 + "b")):
        assert len(list(tmp_path.glob(".*.lock"))) == 2


WINDOWS = """
import asyncio, os, shutil, subprocess, sys, types
import torch                                                # other packages know the system by its name, which stays
calls, hidden = [], ('fcntl', 'resource', 'pwd', 'grp')
sys.modules |= dict.fromkeys(hidden)                        # importing them is an error now
for name in ('statvfs', 'posix_fallocate'): delattr(os, name)
shutil.disk_usage = lambda _: types.SimpleNamespace(free=9e6)       # that of Windows
msvcrt = sys.modules['msvcrt'] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *given: calls.append(given))
import errno, pathlib, tempfile
import numpy as np
import ptl_nb.search, ptl_nb.explanation, ptl_nb.launch, ptl_nb.multi, ptl_nb.site, ptl_nb.export, ptl_nb.deploy
from ptl_nb.disk import FullDisk, explain_errors, file_lock, new_array
from ptl_nb.provenance import peak_memory
folder = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[1]))
with file_lock(folder / 'a'): new_array(folder / 'a', (4,))
assert calls and peak_memory() is None, calls
try:
    with explain_errors(folder / 'b'): raise OSError(errno.ENOSPC, 'full')
except FullDisk as told: print(told)
def busy(*given):
    calls.append(given)
    if len(calls) < 4: raise PermissionError(errno.EACCES, 'locked')
msvcrt.locking = busy
with file_lock(folder / 'a'): print('had to wait', len(calls))
"""


@pytest.mark.slow
def test_a_system_without_the_modules_of_unix(tmp_path):
    """As on Windows, as far as it can be shown here: no fcntl and resource, no statvfs and posix_fallocate; msvcrt
    locks."""
    done = subprocess.run([sys.executable, "-c", WINDOWS, str(tmp_path)], capture_output=True, text=True)
    for told in ("MB free", "waiting for another process", "had to wait 4"):
        assert told in done.stdout, done.stdout + done.stderr[-2000:]


def test_memory_is_in_megabytes_on_macos_too(monkeypatch):
    here = provenance.peak_memory()
    # macOS counts bytes
    held = types.SimpleNamespace(ru_maxrss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    monkeypatch.setattr(provenance.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(provenance.resource, "getrusage", lambda _: held)
    assert here <= provenance.peak_memory() <= here + 50 > 50


def test_a_folder_of_the_parameters_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT / "nbs")
    found = [provenance.from_root(p) for p in ("~/sets", "data", tmp_path / "x")]
    assert found == [tmp_path / "sets", ROOT / "data", tmp_path / "x"]
    for notebook in PAPERMILL:
        cells = [c.source for c in nbformat.read(ROOT / "nbs" / f"{notebook}.ipynb", 4).cells if c.cell_type == "code"
                 and "parameters" not in c.metadata.get("tags", [])]
        for name in ("data_root", "results_root"):
            uses = [line for line in "\n".join(cells).splitlines() if re.search(rf"\b{name}\b", line)]
            assert all(f"from_root({name})" in line for line in uses), (notebook, uses)


# no writer beside these: whatever makes a file does so inside `atomic_write`, `atomic_folder` or `draft_folder`

MAKES = {"write_text", "write_bytes", "to_csv", "to_json", "to_html", "to_parquet", "to_pickle", "savefig", "save",
         "savez", "savez_compressed", "save_file", "savemat", "savetxt", "tofile", "dump", "imsave", "open_memmap",
         "memmap", "write_index", "copyfile", "copytree", "copy2", "move", "extractall", "quantize_static",
         "NamedTemporaryFile", "mkstemp", "mkdtemp", "symlink_to", "hardlink_to"}
INSIDE = {"atomic_write", "atomic_folder", "draft_folder", "new_folder", "_addition"}
MEANT = {    # functions that are given the draft, or a file in memory, and what else is no file of ours
    "disk": {"atomic_write", "ensure_writable", "new_array", "_locked"}, "standins": {"split_parts", "stacked_png"},
    "renderer": {"_cuhk03_split", "_jpeg"}, "densepose": {"_write_pictures"},
    "export": {"_trace", "_quantise", "write_model"},
    "label_runs": {"JoinedLabels.fill"},                    # in a run's own draft
    "site": {"_write_page", "_copy_mathjax", "_fill", "_copy"}, "launch": {"launch_runs"},      # a folder of logs
    "plots": {"picture"}, "gallery": {"_stream"}, "tables": {"set_up"},        # a smoke run's folder
    "world": {"_jpeg", "_write_block"},                     # into a world that is not finished, renamed when it is
    "tracks": {"_cut_recording"},                           # into the draft of `cut_tracks`
    "engine": {"_programs", "_initialise", "local_server"},      # a database's own folder
    "pair_page": {"_jpeg"},
}


CALLED_SO = {"ast.dump",                                    # gives text
             # `checkpoint.Checkpointer`, `tables.TableSetUp`: write inside `atomic_write`
             "self.checkpoint.save", "given.save"}


def makes_a_file(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    mode = [a.value for a in [*call.args[:2], *(k.value for k in call.keywords if k.arg == "mode")]
            if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name in ("open", "ZipFile", "TarFile"): return any(re.fullmatch(r"[wax]b?\+?|r\+b?|rb\+", m) for m in mode)
    if ast.unparse(call.func) in CALLED_SO: return False
    return name in MAKES and not (name == "to_csv" and not call.args)        # without a file it gives text


def beside(code: str, meant: set[str] = frozenset()) -> list[str]:
    "Calls that make a file and do not stand inside one of INSIDE."
    found: list[str] = []
    def walk(node: ast.AST, where: tuple[str, ...], safe: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): where = (*where, node.name)
        if isinstance(node, ast.Call) and makes_a_file(node) and not safe and not {".".join(where), *where} & meant:
            found.append(f"line {node.lineno}, {'.'.join(where)}: {ast.unparse(node)[:90]}")
        if isinstance(node, ast.With):
            for item in node.items:
                walk(item, where, safe)
                safe = (safe or isinstance(item.context_expr, ast.Call)
                        and getattr(item.context_expr.func, "id", "") in INSIDE)
            for inner in node.body: walk(inner, where, safe)
        else:
            for inner in ast.iter_child_nodes(node): walk(inner, where, safe)
    walk(ast.parse(code), (), False)
    return found


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "ptl_nb").glob("[a-z]*.py")))
def test_no_module_writes_by_itself(module):
    assert beside((ROOT / "ptl_nb" / f"{module}.py").read_text(encoding="utf-8"), MEANT.get(module, set())) == []


# these two measure how fast files are written to a scratch folder
@pytest.mark.parametrize("notebook", sorted(set(PAPERMILL) - {"benchmarks", "engine_scale"}))
def test_no_notebook_of_results_writes_by_itself(notebook):
    cells = [c.source for c in nbformat.read(ROOT / "nbs" / f"{notebook}.ipynb", 4).cells if c.cell_type == "code"]
    code = "\n".join(re.sub(r"^\s*[%!].*$", "", source, flags=re.M) for source in cells)
    assert [line for line in beside(code) if "mkdtemp(prefix='ptl-smoke-')" not in line] == []


def test_the_scan_finds_what_it_looks_for():
    code = ("def f(t, p):\n    with atomic_write(p) as d, open(d, 'wb') as o: np.save(o, t)\n    t.to_csv(p)\n    open(p, "
            "'w').write('')\n    open(p).read()\n    t.to_csv()\n    p.open('a')\n    p.write_text('')\n")
    assert [int(line.split()[1].strip(",")) for line in beside(code)] == [3, 4, 7, 8] and beside(code, {"f"}) == []
