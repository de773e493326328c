"""ECN against plain loops, killed in the middle, as a row of a table; and the terms that all peers share."""
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from ptl_nb import ecn
from ptl_nb.data import Images, LabelledImages
from ptl_nb.domains import load_domain
from ptl_nb.model import PTLNet
from ptl_nb.ptl import PTL
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.store import Store
from ptl_nb.trainer import Session, Setting, fit
from tests.killed import ends_as_if_never_killed, kills
from tests.small_people import crowd

pytestmark = pytest.mark.xdist_group("ecn")       # one run that nobody stopped for all of them

RECIPE = Recipe("test", backbone="mini", weights=None, height=32, width=16, lr=2e-3, identities=4, images=3,
                target_batch=12, epochs=4, milestones=(3,), precision="fp32")
METHOD = ecn.ECN()


def run(folder: Path | None = None, method=METHOD, recipe: Recipe = RECIPE, own=None, target: Images | None = None):
    "Network and history of a training from one and the same start."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = PTLNet(12, backbone_name="mini")
    session = Session(every=1, state=folder and folder / "state.safetensors", save_seconds=0)
    target = target or Images(crowd(1)[0])
    return net, fit(net, LabelledImages(*crowd(0)), method.constants(recipe, own), method, target, session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


# the equations

def unit(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 16, generator=torch.Generator().manual_seed(seed)).double())


@pytest.mark.parametrize("k", [0, 1, 4, 20])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_is_that_of_a_loop(k, temperature):
    z, slots, index = unit(6, 0), unit(20, 1), torch.tensor([4, 0, 19, 7, 3, 3])
    total = 0.0
    for feature, own in zip(z.numpy(), index.tolist()):
        cosines = [float(feature @ v) for v in slots.numpy()]
        log_sum = math.log(sum(math.exp(c / temperature) for c in cosines))
        for j in range(20):
            closer = sum(c > cosines[j] for c in cosines)
            weight = 1 if j == own else 1 / k if closer < k else 0
            total -= weight * (cosines[j] / temperature - log_sum)
    assert float(ecn.invariance_loss(z, slots, index, k, temperature)) == pytest.approx(total / 6, rel=1e-9)


def test_weights_of_a_row_sum_to_one_and_its_neighbours():
    slots = unit(20, 1)
    w = ecn.slot_weights(slots[:5] @ slots.T, torch.arange(5), 6)           # each is its own nearest
    assert w.sum(1).tolist() == pytest.approx([1 + 5 / 6] * 5)
    assert (w > 0).sum(1).tolist() == [6] * 5 and w[torch.arange(5), torch.arange(5)].tolist() == [1.0] * 5


def test_it_is_computed_in_float32_under_autocast():
    z, slots = unit(6, 0).float(), unit(20, 1).float()
    with torch.autocast("cpu", torch.bfloat16): half = ecn.invariance_loss(z, slots, torch.arange(6), 3, 0.05)
    assert half.item() == ecn.invariance_loss(z, slots, torch.arange(6), 3, 0.05).item()


# the memory

class Watched(ecn.ECN):
    "Keeps what the training did to its memory."
    seen = []

    def after_step(self, s, batches):
        before = s.extra["memory"].slots.clone()
        super().after_step(s, batches)
        b = batches["target"]
        self.seen.append((before, s.extra["memory"].slots.clone(), b["index"].clone(), b["z"], s.facts["share"]))


def test_slots_of_the_batch_move_and_no_others():
    Watched.seen.clear()
    run(method=Watched())
    assert [share for *_, share in Watched.seen] == pytest.approx(np.arange(12) / 12)
    for before, after, index, z, share in Watched.seen:
        expected = before.clone()
        for i, feature in zip(index.tolist(), z):
            mixed = 0.6 * share * before[i] + (1 - 0.6 * share) * feature
            expected[i] = mixed / mixed.norm()
        torch.testing.assert_close(after, expected)
        rest = np.setdiff1d(np.arange(72), index.numpy())
        assert torch.equal(after[rest], before[rest]) and len(rest) == 60


def test_the_memory_starts_with_features_that_differ_and_leaves_the_network_alone():
    torch.manual_seed(0)
    net = PTLNet(12, backbone_name="mini")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    slots = ecn.first_features(Setting(net, METHOD.constants(RECIPE), target=Images(crowd(1)[0])))
    assert slots.shape == (72, 192) and slots.norm(dim=1).numpy() == pytest.approx(np.ones(72), rel=1e-5)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert abs((slots @ slots.T).mean()) < 0.2, "all lie in one direction"


@pytest.mark.parametrize("share, neighbours", [(1.0, 0), (0.5, 6), (0.0, 12)])
def test_neighbours_count_after_a_share_of_the_training(monkeypatch, share, neighbours):
    whole, asked = ecn.slot_weights, []

    def weights(similarity, index, k):
        asked.append(k)
        return whole(similarity, index, k)

    monkeypatch.setattr(ecn, "slot_weights", weights)
    run(own=ecn.ECNConstants(neighbours=3, neighbours_from=share))
    assert asked == [0] * (12 - neighbours) + [3] * neighbours


# a training

def test_a_target_that_weighs_nothing_leaves_the_losses_of_the_baseline_in_the_first_step():
    ours, plain = run(own=ecn.ECNConstants(weight=0.0))[1], run(method=PTL())[1]
    assert ours.loc[0, ["id", "triplet"]].equals(plain.loc[0, ["id", "triplet"]])
    assert ours["lr"].equals(plain["lr"]) and list(ours.columns) == [*plain.columns, "invariance"]


def test_it_learns_to_tell_the_images_apart(uninterrupted):
    exemplars = run(own=ecn.ECNConstants(neighbours_from=1.0), recipe=replace(RECIPE, epochs=10, milestones=(9,)))[1]
    assert exemplars["invariance"][-3:].mean() < 0.9 * math.log(72) and np.isfinite(uninterrupted[1]).all().all()


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, 7, "ecn.update_centres", run, tmp_path, after=True)


def test_a_state_of_other_constants_is_refused(tmp_path):
    run(tmp_path, recipe=replace(RECIPE, epochs=1, milestones=(1,)))
    with pytest.raises(ValueError, match="belongs to another training .other recipe"):
        run(tmp_path, recipe=replace(RECIPE, epochs=1, milestones=(1,)), own=ecn.ECNConstants(momentum=0.5))


# what cannot be

@pytest.mark.parametrize("field, value", [("temperature", 0.0), ("weight", 1.1), ("neighbours", 0), ("momentum", -0.1),
                                          ("neighbours_from", 2.0), ("neighbours", 1.5), ("weight", math.nan)])
def test_constants_that_cannot_be_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"): ecn.ECNConstants(**{field: value})


def test_what_cannot_be_trained_is_refused_with_the_remedy():
    source, x = LabelledImages(*crowd(0)), crowd(1)[0]
    net, recipe = PTLNet(12, backbone_name="mini"), METHOD.constants(RECIPE)
    with pytest.raises(ValueError, match=r"train it with ECN\(\).constants\(recipe\)"):
        fit(net, source, RECIPE, METHOD, Images(x))
    with pytest.raises(ValueError, match="method ECN needs target images"): fit(net, source, recipe, METHOD)
    with pytest.raises(ValueError, match="neighbours is 6, the target has 4 images"):
        fit(net, source, recipe, METHOD, Images(x[:4]))
    with pytest.raises(ValueError, match="the source has no identities"): fit(net, Images(x), recipe, METHOD, Images(x))
    with pytest.raises(TypeError, match="init"): ecn.ECN(tasks=("HP^t",))


# as a row of a table

@pytest.mark.slow
def test_a_row_is_trained_and_read_back(tmp_path):
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    store, made = Store(tmp_path, progress=False), ReIDRun(RECIPES["smoke"], METHOD, plaza, corridor)
    folder = store.make(made)
    history = pd.read_csv(folder / "history.csv")
    assert {"id", "triplet", "invariance"} <= set(history) and np.isfinite(history["invariance"]).all()
    assert store.make(made) == folder and load_reid(folder, RECIPES["smoke"]).reid is not None


def test_runs_of_different_constants_never_share_a_key():
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")

    def key(recipe=RECIPES["smoke"], own=None, method=METHOD):
        return ReIDRun(recipe, method, plaza, corridor, own=own).key("cpu")

    others = [key(own=ecn.ECNConstants(**{name: value})) for name, value in (
        ("temperature", 0.1), ("weight", 0.5), ("neighbours", 5), ("neighbours_from", 0.5), ("momentum", 0.1))]
    others += [key(replace(RECIPES["smoke"], target_batch=16)), key(replace(RECIPES["smoke"], lr=1e-3)),
               key(method=PTL())]
    assert all(one != other for i, one in enumerate(others) for other in [key(), *others[:i]])
    assert key() == key(own=ecn.ECNConstants()) == key(replace(RECIPES["smoke"], name="mine"))
    assert key()["source"] and key()["target"] and key()["labels"] == {}
