"""The run store under bad input: folders that cannot be written, full disks, broken and foreign files, other versions,
contradictions."""
import hashlib
import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ptl_nb import checkpoint
from ptl_nb.checkpoint import save_weights
from ptl_nb.disk import FullDisk, ensure_writable, write_csv, write_json
from ptl_nb.domains import load_domain
from ptl_nb.label_runs import load_attribute_model, load_parser
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.parameters import check_parameters, choose_recipe, parse_seeds
from ptl_nb.runs import ReIDRun, load_reid, score_model
from ptl_nb.store import FunctionRun, Store

pytestmark = pytest.mark.xdist_group("store")      # one trained run for all of them

RECIPE, BL = choose_recipe("smoke"), parse_method("BL")


@pytest.fixture(scope="module")
def data(): return load_domain("plaza"), load_domain("campus")


def baseline(data) -> ReIDRun: return ReIDRun(RECIPE, BL, *data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    "A store with one scored run, for reading only."
    store = Store(tmp_path_factory.mktemp("store"), progress=False)
    run = store.make(baseline(data))
    score_model(store, RECIPE, run, data[1], BL)
    return store, run


@pytest.fixture
def copy(tmp_path, trained):
    "The same, to be broken."
    store = Store(tmp_path / "runs", progress=False)
    subprocess.run(["cp", "-r", trained[0].root, store.root], check=True)
    return store, store.root / trained[1].name


@pytest.fixture
def small_disk(tmp_path):
    "A file system of its own: `small_disk(size)` mounts it or changes its size."
    place = tmp_path / "disk"
    place.mkdir()
    def mount(options: str) -> Path:
        again = "remount," if os.path.ismount(place) else ""
        command = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode: pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        return place
    yield mount
    if os.path.ismount(place): subprocess.run(["umount", "-l", str(place)], check=True)


def never(folder):
    raise AssertionError("something was made before the folder was tried")


def contents(folder: Path) -> dict[str, str]:
    "File -> hash, without locks."
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(".lock")]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# folders that cannot be written

def test_a_folder_that_cannot_be_made_is_named_first(tmp_path, data):
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file/runs")
    for work in (lambda: store.make(FunctionRun("a", {}, never)), lambda: store.make(baseline(data))):
        with pytest.raises(OSError, match=f"cannot write to the folder {tmp_path}/file/runs"): work()


def test_a_read_only_file_system_is_named_first(small_disk):
    place = small_disk("size=1m")
    store = Store(place / "runs")
    kept = store.make(FunctionRun("kept", {}, lambda folder: write_json(folder / "a.json", {})))
    small_disk("ro")
    with pytest.raises(FullDisk, match="cannot write to the folder .*disk/runs"):
        store.make(FunctionRun("a", {}, never))
    assert store.make(FunctionRun("kept", {}, never)) == kept, "reading needs no writing"


@pytest.mark.skipif(os.getuid() == 0, reason="rights do not bind the superuser")
def test_a_folder_without_rights_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot write to the folder"): ensure_writable(tmp_path / "runs")


# a full disk; every single writer: test_disk.py

def test_a_training_meets_a_full_disk_and_goes_on_with_space(small_disk, data, trained):
    place = small_disk("size=1m")
    store = Store(place, progress=False)
    kept = store.make(FunctionRun("kept", {}, lambda folder: write_json(folder / "a.json", {"a": 1})))
    before = contents(kept)
    with pytest.raises(FullDisk) as error: store.make(baseline(data))
    for says in (str(store.root), "runs beside it are whole", "run the same again"): assert says in str(error.value)
    assert contents(kept) == before and store.find(FunctionRun("kept", {}, never)) == kept
    assert not list(store.root.rglob("*.tmp")), "half a file still takes space"
    small_disk("size=64m")
    run = store.make(baseline(data))
    assert contents(run)["model.safetensors"] == contents(trained[1])["model.safetensors"]


NET = torch.nn.Linear(600, 600)


def test_a_full_disk_without_a_mount(tmp_path, monkeypatch):
    "The same where nothing can be mounted."
    store = Store(tmp_path)
    real = save_weights
    says = "Error while serializing: I/O error: No space left on device (os error 28)"
    def full(net, path):
        raise SafetensorError(says)
    run = FunctionRun("a", {}, lambda folder: checkpoint.save_weights(NET, folder / "model.safetensors"))
    monkeypatch.setattr(checkpoint, "save_weights", full)
    with pytest.raises(FullDisk, match="is full"): store.make(run)
    monkeypatch.setattr(checkpoint, "save_weights", real)
    assert store.make(run).is_dir()


# broken and foreign files

@pytest.mark.parametrize("file, how, says", [
    ("run.json", "truncate", "not a readable run"), ("run.json", "foreign", "not a readable run"),
    ("run.json", "remove", "not a readable run"), ("model.safetensors", "truncate", "model.safetensors has"),
    ("model.safetensors", "remove", "model.safetensors is missing"), ("history.csv", "truncate", "history.csv has")])
def test_a_broken_run_is_named_when_it_is_found(copy, data, file, how, says):
    store, run = copy
    if how == "truncate": os.truncate(run / file, (run / file).stat().st_size // 2)
    if how == "foreign": (run / file).write_text("[1, 2]")
    if how == "remove": (run / file).unlink()
    before = contents(store.root)
    with pytest.raises(ValueError, match=says) as error: store.make(baseline(data))
    assert str(run) in str(error.value) and "move or delete" in str(error.value)
    assert contents(store.root) == before


def damage(file: Path, how: str) -> None:
    if how == "half": os.truncate(file, file.stat().st_size // 2)
    if how == "empty": os.truncate(file, 0)
    if how == "foreign": file.write_bytes(b"something else entirely")
    if how == "other": save_file({"a": torch.zeros(3)}, file)
    if how == "bits":
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 255
        file.write_bytes(raw)


@pytest.mark.parametrize("how", ["half", "empty", "foreign", "other"])
def test_weights_that_are_not_whole_are_named(copy, data, how):
    store, run = copy
    damage(run / "model.safetensors", how)
    for load in (load_reid, load_parser):
        with pytest.raises(ValueError, match="(?s)model.safetensors .*move or delete"): load(run, RECIPE)
    write_json(run / "vocabulary.json", {"columns": ["hat=no", "hat=yes"]})
    with pytest.raises(ValueError, match="model.safetensors"): load_attribute_model(run, RECIPE)


@pytest.mark.parametrize("how", ["half", "empty", "foreign", "bits"])
def test_scores_that_are_not_whole_are_named(copy, data, how):
    store, run = copy
    file, = run.glob("scores*.npz")
    expected = score_model(store, RECIPE, run, data[1], BL)
    damage(file, how)
    with pytest.raises(ValueError, match="delete this file") as error: score_model(store, RECIPE, run, data[1], BL)
    assert str(file) in str(error.value)
    file.unlink()                                                    # the remedy
    again = score_model(store, RECIPE, run, data[1], BL)
    assert again.mAP == expected.mAP and np.array_equal(again.ap, expected.ap, equal_nan=True)


def test_scores_of_another_kind_are_named(copy, data):
    store, run = copy
    file, = run.glob("scores*.npz")
    np.savez(file, mAP=1.0)
    with pytest.raises(ValueError, match="delete this file"): score_model(store, RECIPE, run, data[1], BL)
    file.write_bytes(b"\x93NUMPY junk")
    with pytest.raises(ValueError, match="delete this file"): score_model(store, RECIPE, run, data[1], BL)


def test_a_pickle_in_the_place_of_scores_is_not_loaded(copy, data):
    store, run = copy
    file, = run.glob("scores*.npz")
    np.savez(file, mAP=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="delete this file"): score_model(store, RECIPE, run, data[1], BL)


def test_files_of_others_beside_the_runs_do_not_matter(copy, data):
    store, run = copy
    (store.root / "notes.txt").write_text("mine")
    (store.root / "BL-plaza-seed-0-000000000000").mkdir()
    assert store.make(baseline(data)) == run


# other versions

def rewrite(run: Path, change) -> None:
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(facts["key"])
    write_json(run / "run.json", facts)


@pytest.mark.parametrize("change, says", [
    (lambda key: key["recipe"].pop("margin"), "another version: its key lacks recipe.margin"),
    (lambda key: key.update(old=1), "another version: its key has old"),
    (lambda key: key["recipe"].update(lr=1), "recipe.lr is 1, asked for"),
    (lambda key: key.update(code="0" * 12), "another version of the code")])
def test_a_key_that_does_not_fit_is_not_found_again(copy, data, change, says):
    store, run = copy
    rewrite(run, change)
    before = contents(store.root)
    with pytest.raises(ValueError, match=says): store.make(baseline(data))
    assert contents(store.root) == before


def test_a_run_of_another_version_is_left_alone_and_named(copy, data, capsys):
    store, run = copy
    old = run.rename(run.with_name("BL-plaza-seed-0-0123456789ab"))
    rewrite(old, lambda key: key["recipe"].pop("margin"))
    before = contents(old)
    made = store.make(baseline(data))
    says = f"{old.name} is not used: made by another version: its key lacks recipe.margin"
    assert says in capsys.readouterr().out
    assert made != old and contents(old) == before


def test_a_run_of_another_recipe_is_no_other_version(copy, data, capsys):
    store, _ = copy
    store.make(replace(baseline(data), recipe=replace(RECIPE, lr=1e-3)))
    assert "not used" not in capsys.readouterr().out


# a run killed just before it got its name

def test_a_finished_draft_only_gets_its_name(copy, data):
    store, run = copy
    before = contents(run)
    run.rename(store.root / f".{run.name}.partial")
    assert store.make(baseline(data)) == run and contents(run) == before


# contradictions

def test_contradictory_parameters_are_refused(data, tmp_path):
    source, target = data
    with pytest.raises(ValueError, match="no real one"): load_domain("plaza", origin="real")
    with pytest.raises(ValueError, match="give one of the two"):
        check_parameters({"In": [], "smoke": True, "recipe": "paper"})
    check_parameters({"In": [], "smoke": True, "recipe": "auto"})
    check_parameters({"In": [], "smoke": False, "recipe": "paper"})
    with pytest.raises(ValueError, match="different numbers"): parse_seeds("0,1,0")
    with pytest.raises(ValueError, match="named twice"): parse_methods("BL, BL")
    with pytest.raises(ValueError, match="BL\\+HP\\^t needs proxy labels of campus, and there are none"):
        Store(tmp_path / "runs").make(ReIDRun(RECIPE, parse_method("BL+HP^t"), source, target))
    assert not (tmp_path / "runs").exists(), "something was made first"


def test_lists_that_papermills_python_api_gives():
    cell = 'source: str = "market"\nseeds: str = "0"\nmethods: str = ""\nlengths: str = "2"'
    given = {"source": "market", "seeds": [0, 1], "methods": ["BL", "PTL"], "lengths": [2, 4]}
    check_parameters({"In": [cell, f"# Parameters\nseeds = {given['seeds']}\nmethods = {given['methods']}\n"], **given})
    assert parse_seeds(given["seeds"]) == [0, 1] and [m.name for m in parse_methods(given["methods"])] == ["BL", "PTL"]
    with pytest.raises(ValueError, match="parameter source is"):
        check_parameters({"In": [cell], **given, "source": ["market"]})


# several at once

def test_threads_make_a_run_once(tmp_path):
    made = []
    store = Store(tmp_path, progress=False)

    def fill(folder: Path) -> None:
        made.append(1)
        write_csv(folder / "a.csv", pd.DataFrame({"a": range(1000)}))

    def work() -> None:
        for i in range(8): store.make(FunctionRun(f"run {i}", {"i": i}, fill))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers: w.start()
    for w in workers: w.join()
    assert len(made) == 8 and len(list(tmp_path.glob("run-*"))) == 8
