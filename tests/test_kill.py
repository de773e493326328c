"""SIGKILL at random moments of a training: the run goes on from its last saved state and ends with the same bytes.
Several processes on one store; in large: tools/soak.py."""
import hashlib
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import soak
from conftest import small_training

from ptl_nb.disk import write_json
from ptl_nb.store import FunctionRun, Store


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.safetensors", "history.csv")]


@pytest.mark.slow
def test_killed_training_ends_with_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = small_training(whole)
    assert undisturbed.wait(120) == 0, undisturbed.stderr.read()[-2000:]
    moments = random.Random(0)
    kills = 0
    for _ in range(12):
        run = small_training(killed)
        deadline = time.monotonic() + 60
        while run.poll() is None and not (killed / "state.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.1, 1.0))
        if run.poll() is None and kills < 3:
            run.kill()
            run.wait()
            kills += 1
        elif run.wait(120) == 0: break
        else:
            raise AssertionError(run.stderr.read()[-2000:])
    assert kills >= 2, "the training was too short to be killed"
    assert digests(killed) == digests(whole)
    assert (killed / "state.safetensors").exists(), "until somebody has written the weights and removes it"


def make_all(root: Path, hold: float = 0.02) -> None:
    "A process that wants twelve runs; each notes who made it."
    for i in range(12):
        def fill(folder: Path) -> None:
            with open(root / "made.log", "a") as log: log.write(f"{i}\n")
            time.sleep(hold)
            write_json(folder / "a.json", {"i": i, "long": "x" * 100_000})
        Store(root / "runs").make(FunctionRun(f"run {i}", {"i": i}, fill))


def forked(*arguments) -> multiprocessing.Process:
    "A process that makes all runs."
    return multiprocessing.get_context("fork").Process(target=make_all, args=arguments)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_several_processes_make_each_run_once(tmp_path, processes):
    group = [forked(tmp_path) for _ in range(processes)]
    for p in group: p.start()
    for p in group: p.join(60)
    assert all(p.exitcode == 0 for p in group)
    assert sorted(map(int, (tmp_path / "made.log").read_text().split())) == list(range(12))
    assert len(list((tmp_path / "runs").glob("run-*/a.json"))) == 12
    assert not list((tmp_path / "runs").glob(".*.partial"))


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    owner, other = forked(tmp_path, 60), forked(tmp_path)
    owner.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "made.log").exists() and time.monotonic() < deadline: time.sleep(0.01)
    other.start()
    other.join(0.5)
    assert other.exitcode is None, "a lock that is held kept nobody out"
    os.kill(owner.pid, 9)
    owner.join()
    other.join(30)
    assert other.exitcode == 0
    assert len(list((tmp_path / "runs").glob("run-*/a.json"))) == 12


@pytest.mark.slow
def test_two_processes_fill_one_table_and_one_is_killed():
    rows = []
    row = soak.together(2, "table", 1, 0, rows.append, {"epochs": 1, "methods": "BL"})
    assert row["identical"] and rows == [row]
