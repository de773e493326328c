"""CASCL-style's losses against plain loops, its three stages, killed in the middle, and as a row of a table."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from ptl_nb import cascl
from ptl_nb.data import Images, LabelledImages
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.model import PTLNet
from ptl_nb.ptl import PTL
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.store import Store
from ptl_nb.tables import TABLE5_ROWS
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills
from tests.small_people import crowd

pytestmark = pytest.mark.xdist_group("cascl")       # one run that nobody stopped for all of them

RECIPE = Recipe("test", backbone="mini", weights=None, height=32, width=16, lr=2e-3, identities=4, images=3,
                target_batch=12, epochs=4, milestones=(3,), precision="fp32")
METHOD = cascl.CASCLStyle()
ALONE, GLOBAL = 6, 3         # of 12 iterations: by the source alone, then with all pairs
CAMERAS = np.tile([0, 0, 1, 1, 2, 5], 12)


def target() -> Images:
    "People under a light of each camera."
    light = np.array([[1, 1, 1], [0.5, 0.7, 1], [1, 0.6, 0.4], [0] * 3, [0] * 3, [0.6, 1, 0.6]])[CAMERAS]
    return Images((crowd(1)[0] * light[:, None, None]).astype(np.uint8), camids=CAMERAS)


def run(folder: Path | None = None, method=METHOD, recipe: Recipe = RECIPE, own=None, images: Images | None = None):
    "Network and history of a training from one and the same start."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = PTLNet(12, backbone_name="mini")
    session = Session(every=1, state=folder and folder / "state.safetensors", save_seconds=0)
    constants = method.constants(recipe, own)
    return net, fit(net, LabelledImages(*crowd(0)), constants, method, images or target(), session=session)


class Watched(cascl.CASCLStyle):
    "Keeps what every step left behind."
    seen = []

    def after_step(self, s, batches):
        self.seen.append({of: [p.detach().clone() for p in net.parameters()]
                          for of, net in (("net", s.net), ("copied", s.extra["copied"]))})


@pytest.fixture(scope="module")
def uninterrupted():
    Watched.seen.clear()
    return run(method=Watched())


# the equations

def unit(n: int, seed: int, d: int = 5) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double())


@pytest.mark.parametrize("k", [None, 1, 3, 12])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_losses_are_those_of_a_loop(k, seed):
    z, w, camids = unit(12, seed), unit(12, seed + 5), np.array([3, 8, 3, 3, 0, 8, 8, 1, 0, 3, 3, 0])
    c, before = (z @ z.T).numpy(), (w @ w.T).numpy()
    within, across, spread, kept = [], [], [], []
    for i in range(12):
        rows = {True: [], False: []}
        for j in range(12):
            if i == j: continue
            rows[camids[i] == camids[j]].append(c[i, j])
            if camids[i] == camids[j]:
                spread.append(before[i, j])
                kept.append((c[i, j] - before[i, j]) ** 2)
        within += sorted(rows[True], reverse=True)[:k]
        across += sorted(rows[False], reverse=True)[:k]
    expected = ((np.mean(within) - np.mean(across)) ** 2 + (np.std(within) - np.std(across)) ** 2) / np.var(spread)
    of_one, of_two = cascl.camera_pairs(torch.from_numpy(camids))
    scale = cascl.moments(w @ w.T, of_one)[1]
    near = [cascl.nearest_pairs(z @ z.T, pairs, k) if k else pairs for pairs in (of_one, of_two)]
    assert cascl.consistency_loss(z @ z.T, *near, scale).item() == pytest.approx(expected)
    assert cascl.kept_loss(z @ z.T, w @ w.T, of_one, scale).item() == pytest.approx(np.mean(kept) / np.var(spread))


def test_a_step_against_the_gradient_brings_both_kinds_of_pairs_together():
    camids = torch.tensor([0] * 6 + [1] * 6)
    x = (unit(12, 0) + 2 * torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]]).double()[camids]).requires_grad_()
    pairs = cascl.camera_pairs(camids)

    def loss(x):
        z = F.normalize(x)
        return cascl.consistency_loss(z @ z.T, *pairs, torch.tensor(0.2))
    before = loss(x)
    before.backward()
    assert loss(x.detach() - 0.01 * x.grad) < 0.95 * before


@pytest.mark.parametrize("camids", [[3] * 6, list(range(6)), [0, 0, 1, 2, 3, 4]])
def test_a_missing_kind_of_pairs_gives_nothing_and_a_finite_gradient(camids):
    x = torch.ones(6, 3, requires_grad=True)                                 # and all alike
    z = F.normalize(x)
    pairs = cascl.camera_pairs(torch.tensor(camids))
    scale = cascl.moments((z @ z.T).detach(), pairs[0])[1]
    losses = (cascl.consistency_loss(z @ z.T, *pairs, scale),
              cascl.kept_loss(z @ z.T, (z @ z.T).detach(), pairs[0], scale))
    sum(losses).backward()
    assert [x.item() for x in losses] == pytest.approx([0, 0], abs=1e-6) and x.grad.isfinite().all()


# a training

def test_it_is_the_baseline_until_the_target_joins_in(uninterrupted):
    history, baseline = uninterrupted[1], run(method=PTL())[1]
    assert list(history.columns) == ["iteration", "lr", "id", "triplet", "consistency", "kept"]
    assert history[["lr", "id", "triplet"]][:ALONE + 1].equals(baseline[["lr", "id", "triplet"]][:ALONE + 1])
    assert not history[["id", "triplet"]].equals(baseline[["id", "triplet"]]) and np.isfinite(history).all().all()
    assert (history["consistency"] > 0).tolist() == [False] * ALONE + [True] * 6


def test_the_copy_is_the_network_when_the_target_joins_in_and_stays(uninterrupted):
    run_before = Watched.seen[ALONE - 1]["net"]
    for step in Watched.seen[ALONE:]: assert all(map(torch.equal, step["copied"], run_before))
    assert not all(map(torch.equal, Watched.seen[ALONE]["net"], run_before))
    kept = uninterrupted[1]["kept"]
    assert kept[ALONE] == pytest.approx(0, abs=1e-6) and (kept[ALONE + 1:] > 1e-4).all()


def test_the_nearest_pairs_come_last(uninterrupted):
    history, whole = uninterrupted[1], run(own=cascl.CASCLConstants(local_from=1.0))[1]
    assert history[:ALONE + GLOBAL].equals(whole[:ALONE + GLOBAL])
    assert history["consistency"][ALONE + GLOBAL] != whole["consistency"][ALONE + GLOBAL]


def test_each_loss_lowers_itself():
    long = replace(RECIPE, epochs=12, milestones=(11,), target_batch=32)

    def last(consistency: float, kept: float) -> pd.Series:
        own = cascl.CASCLConstants(weight_consistency=consistency, weight_kept=kept, local_from=1.0)
        return run(recipe=long, own=own)[1].iloc[-12:].mean()

    neither, alike, as_before = last(0.0, 0.0), last(1.0, 0.0), last(0.0, 1.0)
    assert alike["consistency"] < 0.7 * neither["consistency"] and as_before["kept"] < 0.7 * neither["kept"]


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, 2, "cascl.kept_loss", run, tmp_path)


# what cannot be

@pytest.mark.parametrize("given, says", [({"neighbours": 0}, "neighbours is 0"),
                                         ({"target_from": 1.5}, "target_from is 1.5"),
                                         ({"local_from": 0.2}, "nearest pairs come after all pairs"),
                                         ({"weight_kept": float("nan")}, "weight_kept is nan")])
def test_constants_that_cannot_be_are_named(given, says):
    with pytest.raises(ValueError, match=says): cascl.CASCLConstants(**given)


def test_what_cannot_be_trained_is_refused_before_it_begins():
    pixels = crowd(1)[0]
    with pytest.raises(ValueError, match="CASCL-style needs the cameras of the target's images"):
        run(images=Images(pixels))
    for cameras, says in ((np.full(72, 4), "72 images of 1 camera are"),
                          (np.arange(72), "72 images of 72 cameras are")):
        with pytest.raises(ValueError, match=says): run(images=Images(pixels, camids=cameras))
    with pytest.raises(ValueError, match="neighbours is 13, more than the 12 images of a target batch"):
        run(own=cascl.CASCLConstants(neighbours=13))
    with pytest.raises(ValueError, match="method CASCL-style needs target images"):
        fit(PTLNet(12, backbone_name="mini"), LabelledImages(*crowd(0)), METHOD.constants(RECIPE), METHOD)


# as a row of a table

def row(recipe: Recipe = RECIPES["smoke"], own=None) -> ReIDRun:
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    return ReIDRun(recipe, parse_method("CASCL-style"), plaza, corridor, own=own)


@pytest.mark.slow
def test_a_row_is_trained_and_read_back(tmp_path):
    store = Store(tmp_path, progress=False)
    folder = store.make(row())
    assert pd.read_csv(folder / "history.csv")["consistency"].max() > 0
    assert store.make(row()) == folder and load_reid(folder, RECIPES["smoke"]).reid is not None


def test_runs_of_different_constants_never_share_a_key():
    changed = {"weight_consistency": 2.0, "weight_kept": 2.0, "neighbours": 2, "target_from": 0.4, "local_from": 0.8}
    keys = [row().key("cpu"), *(row(own=cascl.CASCLConstants(**{k: v})).key("cpu") for k, v in changed.items())]
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])
    assert set(changed) == set(vars(cascl.CASCLConstants())) and keys[0]["method"] == "CASCL-style"


def test_its_name_is_read_and_has_no_published_figure():
    assert [m.name for m in parse_methods(TABLE5_ROWS) if "CASCL" in m.name] == ["CASCL-style", "CASCL-style+BN^t"]
    assert parse_method("start+CASCL-style").trained == "start+CASCL-style"
    with pytest.raises(ValueError, match="unknown method"): parse_method("CASCL")
