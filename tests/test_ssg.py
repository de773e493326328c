"""SSG killed in the middle of a round: what a notebook cannot test about itself."""
import json
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open

from ptl_nb import ssg
from ptl_nb.evaluator import reestimate_bn
from ptl_nb.model import PTLNet
from ptl_nb.trainer import Session
from tests.killed import killed_at, kills
from tests.small_people import crowd

pytestmark = pytest.mark.xdist_group("ssg")      # one run that nobody stopped for all of them

RECIPE = ssg.SSGRecipe(distance="euclidean", rho=0.04, batch=16, rounds=3, epochs=2, lr=1e-3)


def run(folder: Path | None = None) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    "Weights and records of an adaptation from one and the same start."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = PTLNet(5, backbone_name="mini")
    images, pids = crowd(0)
    reestimate_bn(net, images)
    session = Session(precision="auto", state=folder and folder / "state.safetensors")
    records = ssg.adapt(net, images, RECIPE, session=session, truth=pids)
    return net.state_dict(), records


@pytest.fixture(scope="module")
def uninterrupted(): return run()


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_in_the_middle_of_a_round_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    weights, records = uninterrupted
    assert len(records) == 3 and (records["iterations"] > 1).all()
    middle = records["iterations"].iloc[0] + records["iterations"].iloc[1] // 2 + 1
    assert killed_at(int(middle), "ssg.ssg_losses", run, tmp_path) == -signal.SIGKILL
    with safe_open(tmp_path / "state.safetensors", "pt") as file: facts = json.loads(file.metadata()["facts"])
    assert [row["round"] for row in facts["rows"]] == [1] and facts["number"] == 1, "one round was finished"
    again, rows = run(tmp_path)
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    pd.testing.assert_frame_equal(rows, records, check_exact=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.safetensors"]


def test_a_finished_run_is_not_trained_again(uninterrupted, tmp_path):
    weights, records = uninterrupted
    (tmp_path / ".state.safetensors.1.tmp").write_text("{")          # what a killed process left unfinished is ignored
    run(tmp_path)
    before = (tmp_path / "state.safetensors").stat().st_mtime_ns
    again, rows = run(tmp_path)
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    pd.testing.assert_frame_equal(rows, records, check_exact=True)
    assert (tmp_path / "state.safetensors").stat().st_mtime_ns == before
