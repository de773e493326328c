"""Several processes on one training: a process that dies ends the run, which goes on to the same weights; a table finds what they trained. That their number changes no result is shown in parallel and multi."""
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

from ptl_nb import experiments
from ptl_nb.domains import load_domain
from ptl_nb.experiments import Experiment, Store, choose_recipe, compare, parse_methods

CHILD = """
import os, sys
from pathlib import Path
import numpy as np, torch
from ptl_nb.data import Images
from ptl_nb.experiments import save_net
from ptl_nb.model import PTLNet
from ptl_nb.parallel import start
from ptl_nb.trainer import Recipe, fit
folder = Path(sys.argv[1])
ranks = start(2, minutes=5)
(folder / f"pid{ranks.rank}").write_text(str(os.getpid()))
recipe = Recipe("tiny", backbone="mini", weights=None, height=48, width=24, identities=8, images=4, target_batch=16, epochs=60, milestones=(40,))
rng = np.random.default_rng(0)
x = rng.integers(0, 256, (96, 48, 24, 3), dtype=np.uint8)
source = Images(x, np.repeat(np.arange(16), 6))
target = Images(x, parts=rng.integers(0, 8, (96, 12, 6), dtype=np.uint8), attributes=rng.dirichlet((1, 1), (96, 5)).astype(np.float32))
torch.manual_seed(0)
net = PTLNet(16, 8, (2,) * 5, "mini")
fit(net, source, recipe, "PTL", target, state=folder / "state.safetensors", save_seconds=0.1, ranks=ranks)
if ranks.first: save_net(net, folder / "model.safetensors")
"""


SCORES = """
import sys
import numpy as np
from ptl_nb import evaluator
from ptl_nb.parallel import start
ranks = start(int(sys.argv[1]))
evaluator.BLOCK_BYTES = 4 * 90 * 7                        # blocks of seven queries, of which every process has some, not equally many
rng = np.random.default_rng(0)
query, gallery = (rng.integers(-3, 4, (n, 8)).astype(np.float32) for n in (50, 90))      # many ties
labels = [rng.integers(0, high, n) for high, n in ((12, 50), (12, 90), (3, 50), (3, 90))]
scores = evaluator.evaluate(query, gallery, *labels, ranks=ranks)
np.savez(f"{sys.argv[2]}/{ranks.rank}.npz", ap=scores.ap, inp=scores.inp, cmc=scores.cmc, first_rank=scores.first_rank)
"""


def started(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    script = folder / "child.py"          # Fabric starts the other process by the same command
    script.write_text(CHILD)
    return subprocess.Popen([sys.executable, script, folder], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)


def finished(run: subprocess.Popen, folder: Path) -> str:
    _, errors = run.communicate(timeout=300)
    assert not run.returncode, errors[-3000:]
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def alive(pid: int) -> bool:
    try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError: return False


@pytest.mark.parametrize("dies", [0, 1])
def test_a_dead_process_ends_the_run_and_it_goes_on(tmp_path, dies):
    expected = finished(started(tmp_path / "whole"), tmp_path / "whole")
    killed = tmp_path / "killed"
    run, state = started(killed), killed / "state.safetensors"
    while run.poll() is None and not state.exists(): time.sleep(0.02)
    pids = [int((killed / f"pid{r}").read_text()) for r in range(2)]
    os.kill(pids[dies], signal.SIGKILL)
    end = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < end: run.poll(); time.sleep(0.1)
    assert not any(map(alive, pids)), "a process is left behind"
    assert run.wait(60) != 0 and state.exists() and not (killed / "model.safetensors").exists()
    assert finished(started(killed), killed) == expected


def test_queries_shared_in_blocks_score_as_before(tmp_path):
    "Also with more processes than blocks: eight blocks, one of them cut short, on one, three and nine processes."
    script = tmp_path / "scores.py"
    script.write_text(SCORES)
    for processes in (1, 3, 9):
        (tmp_path / str(processes)).mkdir()
        run = subprocess.run([sys.executable, script, str(processes), tmp_path / str(processes)], capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert not run.returncode, run.stderr[-3000:]
    expected = dict(np.load(tmp_path / "1" / "0.npz", allow_pickle=False))
    assert np.isnan(expected["ap"]).sum() < 50 and len(list(tmp_path.glob("*/*.npz"))) == 13
    for file in tmp_path.glob("*/*.npz"):
        found = np.load(file, allow_pickle=False)
        for name, value in expected.items(): np.testing.assert_array_equal(found[name], value, err_msg=f"{file.parent.name} processes, process {file.stem}: {name}")


def test_a_table_finds_what_two_processes_trained(tmp_path, monkeypatch):
    "Started by torchrun; elsewhere they are started by Fabric."
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ptl_nb.multi", "train", "--processes", "2", "--device", "cpu", "--method", "BL+BN^t", "--recipe", "smoke", "--origin", "standin", "--results-root", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert not done.returncode, done.stderr[-3000:]
    run, = (tmp_path / "runs").glob("[!.]*")
    assert json.loads((run / "run.json").read_text())["processes"] == 2

    def never(*_, **__): raise AssertionError("it was trained or scored again")
    for name in ("fit", "score_net"): monkeypatch.setattr(experiments, name, never)
    wanted = Experiment(Store(tmp_path / "runs", progress=False), choose_recipe("smoke"), load_domain("plaza"), load_domain("campus"), parse_methods("BL+BN^t"), [0], {})
    assert np.isfinite(compare(wanted).scores["BL+BN^t"][0].mAP)
