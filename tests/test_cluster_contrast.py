"""Cluster Contrast against plain loops, killed in the middle of a round, and on clusters that cannot be trained on."""
import functools
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from ptl_nb import cluster_contrast as cc
from ptl_nb.data import Images, LabelledImages, pixels
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import reestimate_bn
from ptl_nb.methods import parse_method
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.ssg import quality
from ptl_nb.standins import truth_store
from ptl_nb.starts import read_start
from ptl_nb.store import Store
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills, same
from tests.small_people import target_crowd

pytestmark = pytest.mark.xdist_group("cluster_contrast")      # one run that nobody stopped for all of them

RECIPE = cc.ContrastRecipe("test", k1=8, eps=0.5, identities=4, images=4, rounds=3, iterations=4, lr=1e-3, max_share=0.5)


def network() -> PTLNet:
    torch.manual_seed(0)
    net = PTLNet(5, backbone_name="mini")
    reestimate_bn(net, target_crowd()[0].pixels)
    return net


def run(folder: Path | None = None, recipe: cc.ContrastRecipe = RECIPE, images: Images | None = None):
    "Network and records of a training from one and the same start."
    torch.set_num_threads(1)
    net, (target, pids) = network(), target_crowd()
    session = Session(precision="fp32", state=folder and folder / "state.safetensors")
    method = cc.ClusterContrast() if images else cc.ClusterContrast().observed(functools.partial(quality, truth=pids))
    return net, fit(net, None, recipe, method, images or target, session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


# the equations

def unit(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 16, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9, 1.0])
def test_the_memory_is_updated_image_by_image(momentum):
    centres, z = unit(9, 0), unit(50, 1)
    labels = torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(2))      # two clusters have no image
    expected = centres.clone()
    for feature, y in zip(z, labels):
        expected[y] = momentum * expected[y] + (1 - momentum) * feature
        expected[y] /= expected[y].norm()
    found = centres.clone()
    cc.update_centres(found, z, labels, momentum)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[7:], centres[7:], rtol=0, atol=0)


def test_the_order_of_a_clusters_images_counts():
    centres, z, labels = unit(2, 0), unit(8, 1), torch.tensor([0, 1] * 4)
    forwards, backwards = centres.clone(), centres.clone()
    cc.update_centres(forwards, z, labels, 0.1)
    cc.update_centres(backwards, z.flip(0), labels.flip(0), 0.1)
    assert (forwards * z[-2:]).sum(1).min() > 0.9 and not torch.allclose(forwards, backwards)


def test_the_loss_is_cross_entropy_by_hand():
    z, centres, labels = unit(6, 3).double(), unit(4, 4).double(), torch.tensor([0, 1, 2, 3, 3, 0])
    by_hand = []
    for feature, y in zip(z, labels):
        weights = [np.exp(float(feature @ c) / 0.05) for c in centres]
        by_hand.append(-np.log(weights[y] / sum(weights)))
    np.testing.assert_allclose(float(cc.contrast_loss(z, centres, labels, 0.05)), np.mean(by_hand), rtol=1e-9)


def test_a_step_against_the_gradient_moves_features_to_their_own_cluster():
    z, centres = unit(40, 5).requires_grad_(), unit(6, 6)
    labels = torch.arange(40) % 6
    cc.contrast_loss(z, centres, labels, 0.05).backward()
    moved = F.normalize(z.detach() - 0.5 * z.grad)
    own = torch.arange(40), labels
    assert ((moved @ centres.T)[own] > (z.detach() @ centres.T)[own]).all()
    assert cc.contrast_loss(moved, centres, labels, 0.05) < cc.contrast_loss(z, centres, labels, 0.05)


# batches

def test_a_batch_has_p_clusters_of_k_images_and_prefers_other_cameras():
    rng = np.random.default_rng(0)
    labels, camids = rng.integers(0, 30, 300), rng.integers(0, 3, 300)
    camids[labels == 3] = 1                                              # this one was seen by one camera only
    seen = set()
    for rows in cc.camera_epoch(labels, camids, 7, 4, rng):
        blocks = rows.reshape(7, 4)
        assert (labels[blocks] == labels[blocks[:, :1]]).all()
        assert not seen & set(labels[blocks[:, 0]])
        seen |= set(labels[blocks[:, 0]])
        for first, *others in blocks:
            mates = np.flatnonzero(labels == labels[first])
            across = mates[camids[mates] != camids[first]]
            allowed = across if len(across) else mates[mates != first]
            assert set(others) <= set(allowed)
            assert len(allowed) < 3 or len(set(others)) == 3
    assert len(seen) == 28, "two of 30 clusters do not fill a batch of 7"


def test_every_image_is_drawn_in_the_long_run_and_without_cameras_too():
    labels = np.repeat(np.arange(8), 5)
    for camids in (None, np.tile([0, 0, 0, 1, 1], 8)):
        rng = np.random.default_rng(0)
        drawn = np.concatenate([cc.camera_epoch(labels, camids, 4, 3, rng).ravel() for _ in range(60)])
        assert set(drawn) == set(range(40))


# a training

def test_records_are_those_of_the_clusters(uninterrupted):
    net, records = uninterrupted
    assert records["round"].tolist() == [1, 2, 3] and (records["stopped"] == "").all()
    assert (records["images"] + records["outliers"] == 72).all() and records["clusters"].between(4, 18).all()
    assert records["purity"].min() > 0.8 and records["agreement"][1:].min() > 0.5 and np.isfinite(records["loss"]).all()
    assert not same(net, network())


def test_the_rate_falls_with_the_rounds():
    assert run(recipe=replace(RECIPE, step=2, iterations=1))[1]["lr"].tolist() == pytest.approx([1e-3, 1e-3, 1e-4])


def test_truth_never_trains(uninterrupted):
    target, pids = target_crowd()
    assert same(uninterrupted[0], run(images=target)[0])
    with pytest.raises(TypeError, match="a target is unlabelled"):
        run(images=LabelledImages(target.pixels, pids))


@pytest.mark.slow
@kills
@pytest.mark.parametrize("step", [2, 6, 12])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path, step):
    ends_as_if_never_killed(uninterrupted, step, "cluster_contrast.update_centres", run, tmp_path, after=True,
                            saved=step > RECIPE.iterations)


# the guard

def alike() -> Images: return Images(np.repeat(target_crowd()[0].pixels[:1], 300, 0))


@pytest.mark.parametrize("images, changes, says", [
    (alike, {}, "1 cluster of 300 images, the largest with 100% of them"),
    (None, {"min_samples": 70}, "none of 72 images lies in a cluster"),
    (None, {"eps": 1.0, "k1": 71}, "1 cluster of 72 images"),
    (None, {"max_share": 0.02}, "more than max_share = 2%"),
    (None, {"min_clusters": 60}, "training needs 60")])
def test_what_cannot_be_trained_on_ends_the_training_with_a_reason(images, changes, says):
    with pytest.warns(UserWarning, match="Cluster Contrast stops in round 1"):
        net, records = run(recipe=replace(RECIPE, **changes), images=images and images())
    assert len(records) == 1 and says in records["stopped"][0] and "; " in records["stopped"][0]
    assert same(net, network())


def test_the_weights_are_those_of_the_last_sound_round(monkeypatch):
    first = run(recipe=replace(RECIPE, rounds=1))[0]
    whole, calls = cc.jaccard_clusters, []

    def collapses(features, *arguments):
        calls.append(1)
        return whole(features, *arguments) if len(calls) == 1 else (np.zeros(len(features), np.int64), {})

    monkeypatch.setattr(cc, "jaccard_clusters", collapses)
    with pytest.warns(UserWarning, match="stops in round 2"): net, records = run()
    assert len(records) == 2 and len(calls) == 2 and records["stopped"][0] == "" and "1 cluster" in records["stopped"][1]
    assert same(net, first)


@pytest.mark.parametrize("images, changes, says", [
    (15, {}, "15 images of the target do not fill a batch of 4 clusters with 4 images each; give at least 16"),
    (7, {"identities": 2}, "7 images .* give at least 8"),
    (16, {"k1": 16}, "give at least 17, or lower `k1`")])
def test_too_few_images_are_refused_with_the_number_and_the_remedy(images, changes, says):
    with pytest.raises(ValueError, match=says):
        run(recipe=replace(RECIPE, **changes), images=Images(target_crowd()[0].pixels[:images]))


# how many neighbours

def people(each: int, count: int = 48) -> tuple[torch.Tensor, np.ndarray]:
    "Unit features (count · each, 64), four people at a time somewhat alike, and who is who."
    rng = np.random.default_rng(each)
    person, group, own = (rng.normal(size=(n, 64)) for n in (count, count // 4, count * each))
    who = np.repeat(np.arange(count), each)
    return F.normalize(torch.from_numpy((person + group[np.arange(count) // 4])[who] + 1.3 * own).float(), dim=1), who


@pytest.mark.parametrize("each", (6, 24))
def test_k1_follows_the_images_of_each_person_without_being_told(each):
    x, who = people(each)
    tried = {k1: cc.jaccard_clusters(x, replace(RECIPE, k1=k1)) for k1 in (6, 8, 12, 20, 30)}
    labels, made = cc.jaccard_clusters(x, replace(RECIPE, k1_tried=tuple(tried)))
    assert made == max((made for _, made in tried.values()), key=lambda of: of["stability"])
    assert (labels == tried[made["k1"]][0]).all()
    truth = {k1: adjusted_rand_score(who, labels) for k1, (labels, _) in tried.items()}
    assert truth[made["k1"]] > max(truth.values()) - 0.05 and max(truth.values()) - min(truth.values()) > 0.2


def test_k1_whose_clusters_cannot_be_trained_on_are_not_taken():
    x, _ = people(6)
    stable = {k1: cc.jaccard_clusters(x, replace(RECIPE, k1=k1)) for k1 in (6, 200)}
    assert stable[200][0].max() == 0 and stable[200][1]["stability"] == 1.0        # a giant is stable for certain
    assert cc.jaccard_clusters(x, replace(RECIPE, k1_tried=(200, 6)))[1]["k1"] == 6
    assert cc.jaccard_clusters(x, replace(RECIPE, k1_tried=(200,)))[1]["k1"] == 200


def test_a_round_says_its_k1_and_a_target_has_to_have_that_many_neighbours():
    records = run(recipe=replace(RECIPE, rounds=1, k1_tried=(8, 12)))[1]
    assert records["k1"][0] in (8, 12) and 0 < records["stability"][0] <= 1
    with pytest.raises(ValueError, match="16 images .* have no 20 neighbours; give at least 21, or lower `k1_tried`"):
        run(recipe=replace(RECIPE, k1_tried=(8, 20)), images=Images(target_crowd()[0].pixels[:16]))


# as a row of a table

@pytest.mark.slow
def test_a_row_is_trained_on_a_rendered_stand_in(tmp_path):
    "BL for one epoch at 48x24, its statistics anew, then Cluster Contrast on unlabelled images of `corridor`."
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    store = Store(tmp_path, progress=False)
    own = replace(cc.CONTRAST_RECIPES["smoke"], max_share=0.9)
    made = ReIDRun(RECIPES["smoke"], parse_method("BL+BN^t+CC"), plaza, corridor, own=own)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        folder = store.make(made)
    history = pd.read_csv(folder / "history.csv", keep_default_na=False, na_values=[""])
    images = len(pixels(corridor, "train", RECIPES["smoke"].size))
    assert (history["images"] + history["outliers"] == images).all() and (history["clusters"] >= 2).all()
    assert history["largest"].between(0, 0.9).all() and history["purity"].between(0, 1).all()
    assert len(history) == own.rounds and history["stopped"].isna().all()
    assert store.make(made) == folder


def test_the_key_does_not_know_the_recipes_name():
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    keys = [ReIDRun(RECIPES["smoke"], parse_method("BL+CC"), plaza, corridor, own=own).key("cpu")
            for own in (None, replace(cc.CONTRAST_RECIPES["smoke"], name="mine"), RECIPE)]
    assert keys[0] == keys[1] != keys[2] and keys[0]["source"] is None and keys[0]["target"]


def test_from_a_start_that_ships_at_a_tenth_of_its_rate():
    camera = replace(RECIPES["camera"], start="rendered")
    method = parse_method("start+CC")
    assert method.constants(camera).lr == pytest.approx(0.1 * read_start("rendered")["recipe"]["lr"])
    own = replace(cc.CONTRAST_RECIPES["camera"], lr=1e-5)
    assert method.constants(camera, own).lr == 1e-5                  # what somebody gives is taken as it is
    assert parse_method("BL+CC").constants(RECIPES["mini"]).lr == 3.5e-4


def test_a_round_goes_over_a_small_target_so_many_times():
    lengths = {passes: run(recipe=replace(RECIPE, iterations=50, rounds=1, passes=passes))[1]["iterations"].item()
               for passes in (0.5, 1.0, None)}
    assert 0 < lengths[0.5] < lengths[1.0] < lengths[None] == 50


def test_tasks_beside_the_clusters_need_labels_of_the_target():
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    with pytest.raises(ValueError, match="proxy labels of corridor"):
        ReIDRun(RECIPES["smoke"], parse_method("BL+CC+HP^t"), plaza, corridor)


@pytest.mark.slow
def test_a_row_with_tasks_beside_the_clusters(tmp_path):
    "Its heads are dropped in the end, and its labels are in its key."
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    own, labels = replace(cc.CONTRAST_RECIPES["smoke"], max_share=0.9), {"corridor": truth_store("corridor")}
    made = ReIDRun(RECIPES["smoke"], parse_method("BL+BN^t+CC+HP^t+Attr^t"), plaza, corridor, labels=labels, own=own)
    folder = Store(tmp_path, progress=False).make(made)
    assert {"loss", "loss_HP^t", "loss_Attr^t"} <= set(pd.read_csv(folder / "history.csv"))
    assert list(made.key("cpu")["labels"]) == ["corridor"] and load_reid(folder, RECIPES["smoke"]).parts is None
