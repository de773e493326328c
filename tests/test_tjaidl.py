"""TJ-AIDL's losses against plain loops, its two stages, killed in the middle, and as a row of a table."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ptl_nb import tjaidl
from ptl_nb.data import Images, LabelledImages
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.standins import truth_store
from ptl_nb.store import Store
from ptl_nb.tables import TABLE5_ROWS
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills
from tests.small_people import described_crowd

pytestmark = pytest.mark.xdist_group("tjaidl")       # one run that nobody stopped for all of them

RECIPE = Recipe("test", backbone="mini", weights=None, height=32, width=16, lr=2e-3, identities=4, images=3,
                target_batch=12, epochs=4, milestones=(3,), precision="fp32", attribute_hidden=8)
METHOD = tjaidl.TJAIDL()
FIRST = 9            # of 12 iterations, those before the adaptation


def source() -> LabelledImages:
    x, pids, attributes = described_crowd(0)
    return LabelledImages(x, pids, attributes=attributes)


def run(folder: Path | None = None, method=METHOD, recipe: Recipe = RECIPE, own=None):
    "Network and history of a training from one and the same start."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = PTLNet(12, 0, (2, 2), "mini", attribute_hidden=8)
    session = Session(every=1, state=folder and folder / "state.safetensors", save_seconds=0)
    return net, fit(net, source(), method.constants(recipe, own), method, Images(described_crowd(1)[0]), session=session)


class Watched(tjaidl.TJAIDL):
    "Keeps what every step left behind."
    seen = []

    def after_step(self, s, batches):
        kept = {"identity": s.net.identity, "attributes": s.net.attributes, "inferred": s.net.inferred}
        pieces = {of: torch.cat([p.detach().flatten() for p in net.parameters()]) for of, net in kept.items()}
        pieces["backbone"] = torch.cat([p.detach().flatten() for p in s.net.backbone.parameters()])
        self.seen.append(pieces | {"pseudo": s.extra["pseudo"].soft.clone(), "rows": batches["target"]["index"]})


@pytest.fixture(scope="module")
def uninterrupted():
    Watched.seen.clear()
    return run(method=Watched())


# the equations

def by_loop(p, e, g, back, attributes) -> dict[str, float]:
    def softmax(z): return np.exp(z) / np.exp(z).sum()
    terms = {"attributes": [], "inferred": [], "reconstruction": [], "agreement": []}
    for i in range(len(p)):
        for j in range(p.shape[1]):
            seen, said = softmax(p[i, j]), softmax(e[i, j])
            terms["attributes"].append(-sum(attributes[i, j] * np.log(seen)))
            terms["inferred"].append(-sum(attributes[i, j] * np.log(said)))
            terms["agreement"] += [(a - b) ** 2 for a, b in zip(seen, said)]
        terms["reconstruction"] += [(a - b) ** 2 for a, b in zip(g[i], back[i])]
    return {name: float(np.mean(values)) for name, values in terms.items()}


@pytest.mark.parametrize("classes", [2, 4])
def test_the_losses_are_those_of_a_loop(classes):
    rng = np.random.default_rng(classes)
    p, e = rng.normal(size=(2, 6, 3, classes))
    g, back = rng.normal(size=(2, 6, 5))
    a = rng.dirichlet(np.ones(classes), (6, 3))
    found = tjaidl.joint_losses(*map(torch.from_numpy, (p, e, g, back, a)))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(by_loop(p, e, g, back, a))


def test_the_agreement_draws_both_predictions_to_each_other():
    chance = torch.Generator().manual_seed(0)
    p, e = (torch.randn(4, 3, 2, generator=chance).requires_grad_() for _ in range(2))
    g = torch.zeros(4, 2)
    before = tjaidl.joint_losses(p, e, g, g, torch.full((4, 3, 2), 0.5))["agreement"]
    before.backward()
    for moved in ((p - p.grad, e), (p, e - e.grad)):
        after = tjaidl.joint_losses(*moved, g, g, torch.full((4, 3, 2), 0.5))["agreement"]
        assert after < before - 1e-4


def test_the_decoder_mirrors_the_encoder_and_sees_attributes_only():
    net = tjaidl.Inferred(20, 6, 3, (16, 8))
    shapes = [[tuple(layer.weight.shape) for layer in part if hasattr(layer, "weight")]
              for part in (net.encoder, net.decoder)]
    assert shapes == [[(16, 20), (8, 16), (18, 8)], [(8, 18), (16, 8), (20, 16)]]
    g = torch.randn(5, 20)
    logits, back = net(g)
    assert logits.shape == (5, 6, 3) and torch.equal(back, net.decoder(logits.softmax(-1).flatten(1)))
    assert tjaidl.Inferred(20, 6, 3, ())(g)[0].shape == (5, 6, 3)


# a training

def test_source_first_then_the_target_with_what_the_source_had_taught(uninterrupted):
    net, history = uninterrupted
    seen = Watched.seen
    assert (history["id"] > 0).tolist() == [True] * FIRST + [False] * 3 and (history["triplet"][FIRST:] == 0).all()
    assert list(history.columns) == ["iteration", "lr", "id", "triplet", "attributes", "inferred", "reconstruction",
                                     "agreement"]
    assert np.isfinite(history).all().all() and not hasattr(net, "identity") and not hasattr(net, "inferred")
    for step, (before, now) in enumerate(zip(seen, seen[1:]), 1):
        learns = step < FIRST
        assert torch.equal(before["identity"], now["identity"]) != learns
        for of in ("attributes", "inferred", "backbone"): assert not torch.equal(before[of], now[of])
        assert bool(now["pseudo"].any()) != learns
    for now in seen[FIRST:]: assert torch.equal(now["pseudo"], seen[-1]["pseudo"])
    torch.testing.assert_close(seen[-1]["pseudo"].sum(-1), torch.ones(72, 2))


def test_pseudo_attributes_are_those_of_the_network_at_the_end_of_the_source():
    class Stopped(tjaidl.TJAIDL):
        def after_step(self, s, batches):
            if s.facts["share"] >= (FIRST - 1) / 12:
                s.net.eval()
                with torch.no_grad():
                    x = torch.cat([*tjaidl.batches(s.target.pixels, 72)])
                    Watched.expected = s.net(x, ("attributes",))["attributes"].softmax(-1)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt): run(method=Stopped())
    Watched.seen.clear()
    run(method=Watched())
    torch.testing.assert_close(Watched.seen[-1]["pseudo"], Watched.expected)


def test_without_an_adaptation_the_target_changes_nothing_but_what_is_scored_is_the_attribute_branch():
    net, history = run(own=tjaidl.TJAIDLConstants(adapts_from=1.0))
    assert (history["id"] > 0).all() and net.reid.neck.running_mean.any()
    assert net.reid.neck.weight.eq(1).all(), "no loss of people reaches the scored branch"


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_in_the_adaptation_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, FIRST + 2, "tjaidl.joint_losses", run, tmp_path)


# what cannot be

@pytest.mark.parametrize("given, says", [({"encoder": (512, 0)}, "at least 1 unit"),
                                         ({"encoder": (1.5,)}, "encoder is"),
                                         ({"weight_agreement": -1.0}, "at least 0"), ({"adapts_from": 2.0}, "share"),
                                         ({"weight_reconstruction": float("nan")}, "weight_reconstruction is nan")])
def test_constants_that_cannot_be_are_named(given, says):
    with pytest.raises(ValueError, match=says): tjaidl.TJAIDLConstants(**given)


def test_what_cannot_be_trained_is_refused_with_the_remedy():
    net, recipe = PTLNet(12, 0, (2, 2), "mini", attribute_hidden=8), METHOD.constants(RECIPE)
    with pytest.raises(ValueError, match="TJ-AIDL needs soft attributes of the source domain; predict them first"):
        fit(net, replace(source(), attributes=None), recipe, METHOD, Images(described_crowd(1)[0]))
    with pytest.raises(ValueError, match="method TJ-AIDL needs target images"): fit(net, source(), recipe, METHOD)
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    with pytest.raises(ValueError, match="TJ-AIDL needs proxy labels of plaza"):
        ReIDRun(RECIPES["smoke"], METHOD, plaza, corridor)


# as a row of a table

def row(recipe: Recipe = RECIPES["smoke"], own=None) -> ReIDRun:
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    return ReIDRun(recipe, parse_method("TJ-AIDL"), plaza, corridor, labels={"plaza": truth_store("plaza")}, own=own)


@pytest.mark.slow
def test_a_row_is_trained_and_read_back(tmp_path):
    store = Store(tmp_path, progress=False)
    folder = store.make(row())
    assert {"inferred", "agreement"} <= set(pd.read_csv(folder / "history.csv"))
    assert store.make(row()) == folder and load_reid(folder, RECIPES["smoke"]).attributes is None


def test_runs_of_different_constants_never_share_a_key():
    keys = [row(own=own).key("cpu") for own in (None, tjaidl.TJAIDLConstants(weight_reconstruction=1.0),
                                                tjaidl.TJAIDLConstants(weight_agreement=1.0),
                                                tjaidl.TJAIDLConstants(encoder=(64,)),
                                                tjaidl.TJAIDLConstants(adapts_from=0.5))]
    keys += [row(replace(RECIPES["smoke"], attribute_hidden=9)).key("cpu")]
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])
    assert list(keys[0]["labels"]) == ["plaza"] and keys[0]["method"] == "TJ-AIDL"


def test_its_name_is_read_alone_with_statistics_and_from_a_start():
    assert [m.name for m in parse_methods(TABLE5_ROWS) if "TJ" in m.name] == ["TJ-AIDL", "TJ-AIDL+BN^t"]
    started = parse_method("start+TJ-AIDL")
    assert (started.name, started.trained, type(started)) == ("start+TJ-AIDL", "start+TJ-AIDL", tjaidl.TJAIDL)
    with pytest.raises(ValueError, match="unknown method"): parse_method("TJAIDL")
