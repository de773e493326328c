"""Methods that change source images first: what they train on, killed in both rounds, and as rows of a table."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ptl_nb import crgan, sbsgan, spgan, translation
from ptl_nb.data import Images, LabelledImages
from ptl_nb.domains import load_domain
from ptl_nb.labels import PARTS
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.standins import truth_store
from ptl_nb.store import Store
from ptl_nb.tables import TABLE5_ROWS
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills
from tests.small_people import crowd

pytestmark = pytest.mark.xdist_group("translation")       # one run of each that nobody stopped for all of them

RECIPE = Recipe("test", backbone="mini", weights=None, height=32, width=16, lr=2e-3, identities=4, images=3,
                target_batch=12, epochs=2, milestones=(2,), precision="fp32", parsing_hidden=8)
SIZE = {"width": 4, "blocks": 1, "epochs": 1, "batch": 12}
METHODS = {"spgan": (spgan.SPGAN(), spgan.SPGANConstants(**SIZE, similar_from=0)),
           "sbsgan": (sbsgan.SBSGANStyle(), sbsgan.SBSGANConstants(**SIZE)),
           "crgan": (crgan.CRGANStyle(), crgan.CRGANConstants(**SIZE, contexts=3))}
STEPS = 6            # of the translation; as many of the training follow


def parts() -> np.ndarray:
    "People in the middle of their crops (72, 8, 4)."
    maps = np.zeros((72, 8, 4), np.uint8)
    maps[:, 1:4, 1:3], maps[:, 4:, 1:3] = 2, 5
    return maps


def images(method) -> tuple[LabelledImages, Images]:
    labels = {"parts": parts()} if method.label_kinds("source") else {}
    return LabelledImages(*crowd(0), **labels), Images(crowd(1)[0], **labels)


def train(name: str, folder: Path | None = None, method=None, **changes):
    "Network and history of a training from one and the same start."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given, own = METHODS[name]
    method = method or given
    net = PTLNet(12, len(PARTS) if method.label_kinds("source") else 0, backbone_name="mini", parsing_hidden=8)
    session = Session(every=1, state=folder and folder / "state.safetensors", save_seconds=0)
    source, target = images(method)
    return net, fit(net, source, method.constants(RECIPE, replace(own, **changes)), method, target, session=session)


def run_spgan(folder: Path | None = None): return train("spgan", folder)
def run_sbsgan(folder: Path | None = None): return train("sbsgan", folder)
def run_crgan(folder: Path | None = None): return train("crgan", folder)


@pytest.fixture(scope="module", params=METHODS)
def trained(request): return request.param, *train(request.param)


def kept(name: str):
    "The method, keeping the images that it trains on."
    base = type(METHODS[name][0])

    class Kept(base):
        def translated(self, s):
            Kept.images = super().translated(s)
            return Kept.images

    return Kept


# a training

def test_translation_first_then_as_many_steps_as_every_row_has(trained):
    name, net, history = trained
    own = METHODS[name][1]
    assert history["iteration"].tolist() == list(range(1, 2 * STEPS + 1))
    first, second = history[:STEPS], history[STEPS:]
    assert first[["id", "triplet"]].isna().all(axis=None) and second[["id", "triplet"]].notna().all(axis=None)
    losses = history.columns.difference(["iteration", "lr", "id", "triplet"])
    assert len(losses) >= 4 and np.isfinite(first[losses]).all(axis=None) and second[losses].isna().all(axis=None)
    assert first["lr"].tolist() == pytest.approx([own.lr * min(1, 2 * (1 - k / STEPS)) for k in range(STEPS)])
    assert not any("translation" in key for key in net.state_dict()) and not net.training


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_on_what_it_says(name):
    method = kept(name)
    train(name, method=method())
    x, pids = crowd(0)
    copies = {"spgan": 1, "sbsgan": 2, "crgan": 3}[name]
    assert method.images.pixels.shape == (72 * copies, 32, 16, 3) and method.images.pixels.dtype == np.uint8
    assert np.array_equal(method.images.classes, np.tile(pids, copies))
    assert np.array_equal(method.images.pixels[:72], x) == (name == "sbsgan"), "originals are trained on by SBSGAN only"
    changed = np.abs(method.images.pixels[-72:].astype(int) - x).mean()
    assert 0 < changed < 60


def test_the_first_round_leaves_the_network_alone():
    class Watched(spgan.SPGAN):
        seen = []

        def after_step(self, s, batches):
            own = {k: v.clone() for k, v in s.net.state_dict().items() if not k.startswith("translation.")}
            self.seen.append(("target" in batches, own, [p.detach().clone() for p in s.net.translation.parameters()]))

    train("spgan", method=Watched())
    for (first, a, nets), (second, b, later) in zip(Watched.seen, Watched.seen[1:]):
        assert all(torch.equal(a[k], b[k]) for k in a) == second, "only the second round moves the network"
        assert any(not torch.equal(p, q) for p, q in zip(nets, later)) == second, "only the first moves the translation"
    assert [first for first, *_ in Watched.seen] == [True] * STEPS + [False] * STEPS


def test_the_siamese_network_counts_from_its_epoch_on():
    method, own = METHODS["spgan"]
    s = type("S", (), {"recipe": method.constants(RECIPE, replace(own, epochs=4, similar_from=2)), "facts": {}})
    weights = []
    for share in (0, 0.49, 0.5, 0.9):
        s.facts["share"] = share
        weights.append(method.weights(s)["similarity"])
    assert weights == [0, 0, 2, 2]


def test_contexts_are_of_the_target_where_neither_image_has_a_person():
    method = kept("crgan")
    train("crgan", method=method(), epochs=12, lr=5e-3)
    source, target = images(METHODS["crgan"][0])
    empty = np.ones((32, 16), bool)
    empty[4:, 4:12] = False
    drawn = np.random.default_rng([0, 4]).integers(72, size=(3, 72))
    for k, rows in enumerate(drawn):
        made = method.images.pixels[72 * k:72 * (k + 1)].astype(int)
        gaps = [np.abs(made - x)[:, empty].mean() for x in (target.pixels[rows], source.pixels)]
        people = [np.abs(made - x)[:, ~empty].mean() for x in (target.pixels[rows], source.pixels)]
        assert gaps[0] < gaps[1] and people[1] < people[0]


@pytest.mark.slow
@kills
@pytest.mark.parametrize("run, call, of", [
    (run_spgan, 3, "spgan.spgan_losses"), (run_spgan, 2, "ptl.batch_hard_triplet"),
    (run_sbsgan, 2, "ptl.batch_hard_triplet"), (run_crgan, 2, "ptl.batch_hard_triplet")])
def test_a_run_that_is_killed_in_either_round_ends_as_if_it_had_not_been(tmp_path, run, call, of):
    ends_as_if_never_killed(run(), call, of, run, tmp_path)


# what cannot be

@pytest.mark.parametrize("kind, given, says", [
    (translation.TranslationConstants, {"batch": 0}, "batch is 0"),
    (translation.TranslationConstants, {"width": 1.5}, "width is 1.5"),
    (spgan.SPGANConstants, {"weight_similarity": float("nan")}, "weight_similarity is nan"),
    (spgan.SPGANConstants, {"similar_from": -1}, "similar_from is -1"),
    (sbsgan.SBSGANConstants, {"weight_again": -0.5}, "weight_again is -0.5"),
    (crgan.CRGANConstants, {"weight_context": -1.0}, "weight_context is -1.0")])
def test_constants_that_cannot_be_are_named(kind, given, says):
    with pytest.raises(ValueError, match=says): kind(**given)


@pytest.mark.parametrize("name", METHODS)
def test_what_cannot_be_trained_is_refused_before_it_begins(name):
    method, own = METHODS[name]
    source, target = images(method)
    net, recipe = PTLNet(12, len(PARTS), backbone_name="mini", parsing_hidden=8), method.constants(RECIPE, own)
    with pytest.raises(ValueError, match=f"method {method.name} needs target images"): fit(net, source, recipe, method)
    with pytest.raises(TypeError, match="a target is unlabelled"): fit(net, source, recipe, method, source)
    with pytest.raises(ValueError, match="30x16 does not divide by 4"):
        fit(net, source, replace(recipe, height=30), method, target)
    with pytest.raises(ValueError, match="72 images of a domain do not fill a batch of 73"):
        fit(net, source, replace(recipe, own=replace(own, batch=73)), method, target)


@pytest.mark.parametrize("name", ["SBSGAN-style", "CR-GAN-style"])
def test_part_maps_of_both_domains_are_needed(name):
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    with pytest.raises(ValueError, match=f"{name} needs proxy labels of plaza and corridor"):
        ReIDRun(RECIPES["smoke"], parse_method(name), plaza, corridor)


# as a row

def test_rows_of_the_table():
    rows = [m.name for m in parse_methods(TABLE5_ROWS)]
    for name in ("SPGAN", "SBSGAN-style", "CR-GAN-style"): assert name in rows and f"{name}+BN^t" in rows
    assert parse_method("start+SPGAN").trained == "start+SPGAN"


@pytest.mark.slow
def test_a_row_is_trained_found_again_and_scored_without_its_generators(tmp_path):
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    store = Store(tmp_path, progress=False)
    labels = {d.name: truth_store(d.name) for d in (plaza, corridor)}
    recipe, own = replace(RECIPES["smoke"], precision="fp32"), METHODS["crgan"][1]
    made = ReIDRun(recipe, crgan.CRGANStyle(), plaza, corridor, labels=labels, own=own)
    folder = store.make(made)
    assert store.find(made) == folder
    assert {"adversarial", "kept", "context", "id"} <= set(pd.read_csv(folder / "history.csv"))
    net = load_reid(folder, recipe)
    assert not any("translation" in k for k in net.state_dict())
    assert store.find(replace(made, own=replace(own, contexts=2))) is None, "other constants are another run"
