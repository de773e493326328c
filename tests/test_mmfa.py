"""MMFA's discrepancy against a double loop, killed in the middle, and as a row of a table."""
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ptl_nb import mmfa
from ptl_nb.data import Images, LabelledImages, batch
from ptl_nb.domains import load_domain
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.standins import truth_store
from ptl_nb.store import Store
from ptl_nb.trainer import Session, Setting, fit, train_step
from tests.killed import ends_as_if_never_killed, kills, same
from tests.small_people import described_crowd

pytestmark = pytest.mark.xdist_group("mmfa")       # one run that nobody stopped for all of them

RECIPE = Recipe("test", backbone="mini", weights=None, height=32, width=16, lr=2e-3, identities=4, images=3,
                target_batch=12, epochs=4, milestones=(3,), precision="fp32", attribute_hidden=8)
METHOD = mmfa.MMFA()
WIDTHS = mmfa.MMFAConstants().widths
WITHOUT = mmfa.MMFAConstants(weight_middle=0.0, weight_embeddings=0.0)


def source() -> LabelledImages:
    x, pids, attributes = described_crowd(0)
    return LabelledImages(x, pids, attributes=attributes)


def target() -> Images: return Images((described_crowd(1)[0] * np.array([0.4, 0.7, 1.0])).astype(np.uint8))       # a colour cast


def network() -> PTLNet:
    torch.manual_seed(0)
    return PTLNet(12, 0, (2, 2), "mini", attribute_hidden=8)


def run(folder: Path | None = None, recipe: Recipe = RECIPE, own=None):
    "Network and history of a training from one and the same start."
    torch.set_num_threads(1)
    net = network()
    session = Session(every=1, state=folder and folder / "state.safetensors", save_seconds=0)
    return net, fit(net, source(), METHOD.constants(recipe, own), METHOD, target(), session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


# the discrepancy

def by_loop(x: np.ndarray, y: np.ndarray, widths: tuple[float, ...]) -> float:
    both = np.concatenate([x, y])
    squared = np.array([[((u - v) ** 2).sum() for v in both] for u in both])
    pairs = sorted(squared[i, j] for i in range(len(both)) for j in range(i))
    median = pairs[(len(pairs) - 1) // 2]
    total, n = 0.0, len(x)
    for i in range(len(both)):
        for j in range(len(both)):
            k = sum(math.exp(-squared[i, j] / (2 * a * median)) for a in widths)
            if i < n and j < n: total += k / n**2
            elif i >= n and j >= n: total += k / (len(both) - n) ** 2
            else: total -= k / (n * (len(both) - n))               # both orders are met
    return total


@pytest.mark.parametrize("n, m, shift", [(8, 8, 0.0), (5, 12, 0.7), (1, 9, 3.0)])
@pytest.mark.parametrize("widths", [WIDTHS, (1.0,), (0.25, 4.0)])
def test_the_discrepancy_is_that_of_a_double_loop(n, m, shift, widths):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 5)), rng.normal(size=(m, 5)) + shift
    assert mmfa.mmd(torch.from_numpy(x), torch.from_numpy(y), widths).item() == pytest.approx(by_loop(x, y, widths))


def test_many_at_once_are_each_by_itself_and_none_knows_its_scale():
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(3, 10, 4))), torch.from_numpy(rng.normal(size=(3, 7, 4)) + 1)
    scales = torch.tensor([1e-2, 1.0, 1e3]).double()[:, None, None]
    found = mmfa.mmd(scales * x, scales * y, WIDTHS)
    assert found.tolist() == pytest.approx([by_loop(a, b, WIDTHS) for a, b in zip(x.numpy(), y.numpy())])
    assert torch.allclose(found, mmfa.mmd(y, x, WIDTHS)) and (found > 0).all()


def test_a_step_against_the_gradient_brings_the_domains_together_at_any_scale():
    for scale in (0.01, 1.0, 100.0):
        x, y = scale * torch.randn(30, 6), scale * (torch.randn(20, 6) + 1)
        moving = y.clone().requires_grad_()
        before = mmfa.mmd(x, moving, WIDTHS)
        before.backward()
        step = 0.1 * scale * moving.grad / moving.grad.abs().max()
        assert mmfa.mmd(x, y - step, WIDTHS) < before - 1e-3


def test_features_that_are_all_alike_have_no_discrepancy_and_a_finite_gradient():
    x = torch.ones(4, 3, requires_grad=True)
    loss = mmfa.mmd(x, torch.ones(5, 3), WIDTHS)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and torch.equal(x.grad, torch.zeros(4, 3))


@pytest.mark.parametrize("x, y", [((3, 4), (3, 5)), ((2, 3, 4), (3, 4)), ((0, 4), (3, 4))])
def test_features_that_do_not_fit_are_refused(x, y):
    with pytest.raises(ValueError, match="features of shapes"): mmfa.mmd(torch.zeros(x), torch.zeros(y), WIDTHS)


# a training

def joint_step() -> tuple[PTLNet, dict, dict]:
    "A step of both streams, as the trainer makes it."
    net, recipe = network().train(), METHOD.constants(RECIPE)
    s = Setting(net, recipe)
    both = {"source": batch(source(), np.arange(0, 72, 3)), "target": batch(target(), np.arange(12))}
    seen = train_step(s, METHOD, torch.optim.SGD(net.parameters(), lr=0.0), both, joint=True)
    return net, both, seen


def test_the_losses_are_those_of_two_forwards_by_hand():
    net, both, seen = joint_step()
    by_hand = network().train()
    made = []
    for b in both.values():
        e = by_hand.backbone(b["x"])
        heads = by_hand.attributes
        hidden = torch.relu(heads.norm(heads.first(e.mean((2, 3))))).view(len(e), 2, 8)
        made.append((by_hand.reid.embed(e)[0].detach().numpy(), hidden.detach().numpy()))
    (f, h), (f_target, h_target) = made
    assert seen["MMD"].item() == pytest.approx(by_loop(f, f_target, WIDTHS), rel=1e-3)
    attributes = np.mean([by_loop(h[:, j], h_target[:, j], WIDTHS) for j in range(2)])
    assert seen["MMD of attributes"].item() == pytest.approx(attributes, rel=1e-3)
    assert same(net, by_hand)                     # running statistics too: each batch was forwarded once


def test_the_domains_end_closer_than_without(uninterrupted):
    long = replace(RECIPE, epochs=12, milestones=(11,))
    ours, without = run(recipe=long)[1], run(recipe=long, own=WITHOUT)[1]
    for name in ("MMD", "MMD of attributes"): assert ours[name][-5:].mean() < without[name][-5:].mean()
    assert ours.loc[0].equals(without.loc[0]), "the first step is the same, whatever the weights"
    assert list(uninterrupted[1].columns) == list(ours.columns) and np.isfinite(ours).all().all()


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, 7, "mmfa.attribute_loss", run, tmp_path)


# what cannot be

@pytest.mark.parametrize("given, says", [({"widths": ()}, r"widths are \(\)"), ({"widths": (1.0, -1.0)}, "above 0"),
                                         ({"widths": (1.0, "2")}, "widths is"), ({"weight_middle": -1.0}, "at least 0"),
                                         ({"weight_attributes": math.nan}, "weight_attributes is nan")])
def test_constants_that_cannot_be_are_named(given, says):
    with pytest.raises(ValueError, match=says): mmfa.MMFAConstants(**given)


def test_what_cannot_be_trained_is_refused_with_the_remedy():
    net, recipe = network(), METHOD.constants(RECIPE)
    with pytest.raises(ValueError, match="needs soft attributes of the source domain; predict them first"):
        fit(net, replace(source(), attributes=None), recipe, METHOD, target())
    with pytest.raises(ValueError, match="method MMFA needs target images"): fit(net, source(), recipe, METHOD)
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    with pytest.raises(ValueError, match="MMFA needs proxy labels of plaza"):
        ReIDRun(RECIPES["smoke"], METHOD, plaza, corridor)


# as a row of a table

def row(recipe: Recipe = RECIPES["smoke"], own=None) -> ReIDRun:
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    return ReIDRun(recipe, METHOD, plaza, corridor, labels={"plaza": truth_store("plaza")}, own=own)


@pytest.mark.slow
def test_a_row_is_trained_and_read_back(tmp_path):
    store = Store(tmp_path, progress=False)
    folder = store.make(row())
    history = pd.read_csv(folder / "history.csv")
    assert {"id", "triplet", "Attr^s", "MMD", "MMD of attributes"} <= set(history)
    assert store.make(row()) == folder and load_reid(folder, RECIPES["smoke"]).attributes is None


def test_runs_of_different_constants_never_share_a_key():
    keys = [row(own=own).key("cpu") for own in (None, WITHOUT, mmfa.MMFAConstants(weight_attributes=0.2),
                                                mmfa.MMFAConstants(widths=(1.0,)))]
    keys += [row(replace(RECIPES["smoke"], attribute_hidden=9)).key("cpu"),
             row(replace(RECIPES["smoke"], target_batch=16)).key("cpu")]
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])
    assert row(replace(RECIPES["smoke"], weight_attributes=0.5)).key("cpu") == keys[0], "it has a weight of its own"
    assert list(keys[0]["labels"]) == ["plaza"]
