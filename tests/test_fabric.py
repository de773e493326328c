"""Several processes on one training: one that dies ends the run, which goes on to the same weights; a table finds what
they trained. That their number changes no result is shown in parallel and multi."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")

from conftest import small_training

from ptl_nb import runs
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_methods
from ptl_nb.parameters import choose_recipe
from ptl_nb.store import Store
from ptl_nb.tables import Experiment, compare

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fabric")]      # two processes each: not two of these at once

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SCORES = """
import sys
import numpy as np
from ptl_nb import evaluator
from ptl_nb.parallel import start_processes
ranks = start_processes(int(sys.argv[1]))
evaluator.BLOCK_BYTES = 4 * 90 * 20             # blocks of twenty queries; not equally many for each process
rng = np.random.default_rng(0)
query, gallery = (rng.integers(-3, 4, (n, 8)).astype(np.float32) for n in (50, 90))      # many ties
labels = [1 + rng.integers(0, high, n) for high, n in ((12, 50), (12, 90), (3, 50), (3, 90))]
scores = evaluator.evaluate(query, gallery, *labels, ranks=ranks)
found = {name: getattr(scores, name) for name in ("ap", "inp", "cmc", "first_rank")}
np.savez(f"{sys.argv[2]}/{ranks.rank}.npz", **found)
"""


def finished(run: subprocess.Popen, folder: Path) -> str:
    "Hash of the weights of a training that ends well."
    _, errors = run.communicate(timeout=300)
    assert not run.returncode, errors[-3000:]
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def alive(pid: int) -> bool:
    try: status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError: return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    "Hash of the weights of a training on two processes that nobody killed."
    folder = tmp_path_factory.mktemp("whole")
    return finished(small_training(folder, 2), folder)


@pytest.mark.parametrize("dies", [0, 1])
def test_a_dead_process_ends_the_run_and_it_goes_on(tmp_path, whole, dies):
    state = tmp_path / "state.safetensors"
    run = small_training(tmp_path, 2)
    while run.poll() is None and not state.exists(): time.sleep(0.02)
    pids = [int((tmp_path / f"pid{r}").read_text()) for r in range(2)]
    os.kill(pids[dies], signal.SIGKILL)
    end = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < end:
        run.poll()
        time.sleep(0.1)
    assert not any(map(alive, pids)), "a process is left behind"
    assert run.wait(60) != 0
    assert state.exists() and not (tmp_path / "model.safetensors").exists()
    assert finished(small_training(tmp_path, 2), tmp_path) == whole


def test_queries_shared_in_blocks_score_as_before(tmp_path):
    "Also with more processes than blocks: three blocks, one of them cut short, on one, two and four processes."
    script = tmp_path / "scores.py"
    script.write_text(SCORES)
    for processes in (1, 2, 4):
        (tmp_path / str(processes)).mkdir()
        command = [sys.executable, script, str(processes), tmp_path / str(processes)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ONE_THREAD)
        assert not run.returncode, run.stderr[-3000:]
    expected = dict(np.load(tmp_path / "1" / "0.npz", allow_pickle=False))
    assert np.isnan(expected["ap"]).sum() < 50
    assert len(list(tmp_path.glob("*/*.npz"))) == 7
    for file in tmp_path.glob("*/*.npz"):
        found = np.load(file, allow_pickle=False)
        for name, value in expected.items():
            where = f"{file.parent.name} processes, process {file.stem}: {name}"
            np.testing.assert_array_equal(found[name], value, err_msg=where)


def test_a_table_finds_what_two_processes_trained(tmp_path, monkeypatch):
    "Started by torchrun; elsewhere they are started by Fabric."
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words = ["train", "--processes", "2", "--device", "cpu", "--method", "BL+BN^t", "--recipe", "smoke",
             "--origin", "standin", "--results-root", tmp_path]
    command = [*torchrun, "-m", "ptl_nb.multi", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=ONE_THREAD)
    assert not done.returncode, done.stderr[-3000:]
    run, = (tmp_path / "runs").glob("[!.]*")
    assert json.loads((run / "run.json").read_text())["processes"] == 2

    def never(*_, **__):
        raise AssertionError("it was trained or scored again")
    for name in ("fit", "score_net"): monkeypatch.setattr(runs, name, never)
    store = Store(tmp_path / "runs", progress=False)
    plaza = load_domain("plaza")
    campus = load_domain("campus")
    wanted = Experiment(store, choose_recipe("smoke"), plaza, campus, parse_methods("BL+BN^t"), [0], {})
    assert np.isfinite(compare(wanted).scores["BL+BN^t"][0].mAP)
