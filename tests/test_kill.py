"""SIGKILL at random moments of a training: the run goes on from its last saved state and ends with the same bytes. Several processes on one store; in large: tests/soak.py."""
import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soak

from ptl_nb.experiments import Store, write_json

CHILD = """
import sys
from pathlib import Path
import numpy as np, torch
from ptl_nb.data import Images
from ptl_nb.experiments import save_net
from ptl_nb.model import PTLNet
from ptl_nb.trainer import Recipe, fit
folder = Path(sys.argv[1])
recipe = Recipe("tiny", backbone="mini", weights=None, height=48, width=24, identities=8, images=4, target_batch=16, epochs=60, milestones=(40,))
rng = np.random.default_rng(0)
x = rng.integers(0, 256, (96, 48, 24, 3), dtype=np.uint8)
source = Images(x, np.repeat(np.arange(16), 6))
target = Images(x, parts=rng.integers(0, 8, (96, 12, 6), dtype=np.uint8), attributes=rng.dirichlet((1, 1), (96, 5)).astype(np.float32))
torch.manual_seed(0)
net = PTLNet(16, 8, (2,) * 5, "mini")
history = fit(net, source, recipe, "PTL", target, state=folder / "state.safetensors", save_seconds=0.1)
save_net(net, folder / "model.safetensors")
history.to_csv(folder / "history.csv")
"""


def start(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.safetensors", "history.csv")]


def test_killed_training_ends_with_the_same_bytes(tmp_path):
    whole, killed, kills = start(tmp_path / "whole"), tmp_path / "killed", 0
    assert whole.wait(120) == 0, whole.stderr.read().decode()[-2000:]
    moments = random.Random(0)
    for _ in range(12):
        run = start(killed)
        deadline = time.monotonic() + 60
        while run.poll() is None and not (killed / "state.safetensors").exists() and time.monotonic() < deadline: time.sleep(0.02)
        time.sleep(moments.uniform(0.1, 1.0))
        if run.poll() is None and kills < 3:
            run.kill(); run.wait(); kills += 1
        elif run.wait(120) == 0: break
        else: raise AssertionError(run.stderr.read().decode()[-2000:])
    assert kills >= 2, "the training was too short to be killed"
    assert digests(killed) == digests(tmp_path / "whole")
    assert (killed / "state.safetensors").exists(), "until somebody has written the weights and removes it"


def make_all(root: Path, hold: float = 0.02) -> None:
    "A process that wants twelve runs; each notes who made it."
    for i in range(12):
        def fill(folder: Path) -> None:
            with open(root / "made.log", "a") as log: log.write(f"{i}\n")
            time.sleep(hold)
            write_json(folder / "a.json", {"i": i, "long": "x" * 100_000})
        Store(root / "runs").make(f"run {i}", {"i": i}, fill)


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_several_processes_make_each_run_once(tmp_path, processes):
    group = [multiprocessing.get_context("fork").Process(target=make_all, args=(tmp_path,)) for _ in range(processes)]
    for p in group: p.start()
    for p in group: p.join(60)
    assert all(p.exitcode == 0 for p in group)
    assert sorted(map(int, (tmp_path / "made.log").read_text().split())) == list(range(12))
    assert len(list((tmp_path / "runs").glob("run-*/a.json"))) == 12 and not list((tmp_path / "runs").glob(".*.partial"))


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    owner = multiprocessing.get_context("fork").Process(target=make_all, args=(tmp_path, 60))
    owner.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "made.log").exists() and time.monotonic() < deadline: time.sleep(0.01)
    other = multiprocessing.get_context("fork").Process(target=make_all, args=(tmp_path,))
    other.start()
    other.join(0.5)
    assert other.exitcode is None, "a lock that is held kept nobody out"
    os.kill(owner.pid, 9); owner.join()
    other.join(30)
    assert other.exitcode == 0 and len(list((tmp_path / "runs").glob("run-*/a.json"))) == 12


def test_two_processes_fill_one_table_and_one_is_killed():
    rows = []
    row = soak.together(2, "table", 1, 0, rows.append, {"epochs": 1, "methods": "BL"})
    assert row["identical"] and rows == [row]
