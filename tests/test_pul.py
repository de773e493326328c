"""PUL against plain loops, killed in the middle of a round, and on clusters that cannot be trained on."""
import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptl_nb import pul
from ptl_nb.data import Images, LabelledImages
from ptl_nb.evaluator import extract, reestimate_bn
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.ssg import quality
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills, same
from tests.small_people import target_crowd

pytestmark = pytest.mark.xdist_group("pul")      # one run that nobody stopped for all of them

RECIPE = pul.PULRecipe("test", None, 6.0, threshold=0.5, centred=True, batch=16, rounds=3, iterations=4, lr=4e-3)


def network() -> PTLNet:
    torch.manual_seed(0)
    net = PTLNet(5, backbone_name="mini")
    reestimate_bn(net, target_crowd()[0].pixels)
    return net


def run(folder: Path | None = None, recipe: pul.PULRecipe = RECIPE, images: Images | None = None):
    "Network and records of a training from one and the same start."
    torch.set_num_threads(1)
    net, (target, pids) = network(), target_crowd()
    session = Session(precision="fp32", state=folder and folder / "state.safetensors")
    method = pul.PUL() if images else pul.PUL().observed(functools.partial(quality, truth=pids))
    return net, fit(net, None, recipe, method, images or target, session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


# the choice of images

def blobs(signed: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Features (200, 24), not of unit length, their clusters and centroids."
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(10, 24))[np.repeat(np.arange(10), 20)] + 0.9 * rng.normal(size=(200, 24))).astype(np.float32)
    x = x if signed else np.maximum(x, 0)
    return x, *pul.kmeans(x, 12, 0)


@pytest.mark.parametrize("centred, threshold", [(False, 0.85), (False, 0.5), (True, 0.5), (True, 0.8)])
def test_reliable_images_by_hand(centred, threshold):
    x, labels, centroids = blobs(signed=centred)
    around = x - x.mean(0) if centred else x
    expected = []
    for i, y in enumerate(labels):
        members = [j for j in range(len(x)) if labels[j] == y]
        centre = min(members, key=lambda j: np.linalg.norm(x[j] - centroids[y]))
        cosine = around[i] @ around[centre] / np.linalg.norm(around[i]) / np.linalg.norm(around[centre])
        expected.append(i == centre or cosine > threshold)
    found = pul.reliable(x, labels, centroids, replace(RECIPE, centred=centred, threshold=threshold))
    np.testing.assert_array_equal(found, expected)
    assert 12 < found.sum() < 200


def test_the_centred_rule_does_not_know_what_all_images_share_and_the_other_does():
    x, labels, centroids = blobs(signed=False)
    raw, own = replace(RECIPE, centred=False, threshold=0.85), RECIPE
    before, after = ([pul.reliable(x + more, labels, centroids + more, r) for r in (raw, own)] for more in (0, 5))
    assert after[0].all() and not before[0].all()
    np.testing.assert_array_equal(before[1], after[1])


def test_signed_features_are_refused_where_they_are_not_centred():
    with pytest.raises(ValueError, match="threshold of 0.85 .* give centred=True"):
        pul.reliable(*blobs(), pul.PULRecipe())


def test_k_means_is_a_fixed_point_of_lloyd_and_repeats():
    x, labels, centroids = blobs()
    nearest = np.linalg.norm(x[:, None] - centroids[None], axis=2).argmin(1)
    np.testing.assert_array_equal(labels, nearest)
    np.testing.assert_allclose(centroids, np.stack([x[labels == k].mean(0) for k in range(12)]), atol=1e-5)
    again = pul.kmeans(x, 12, 0)
    assert (again[0] == labels).all() and (again[1] == centroids).all()


def test_mean_cosine_by_hand():
    x = blobs()[0][:30]
    pairs = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i in range(30) for j in range(i)]
    assert pul.mean_cosine(x) == pytest.approx(np.mean(pairs), abs=1e-6) and math.isnan(pul.mean_cosine(x[:1]))


def test_k_follows_the_images_and_the_papers_is_given():
    assert [pul.cluster_count(n, replace(RECIPE, images_per_cluster=16.0)) for n in (40, 1000)] == [2, 62]
    assert pul.cluster_count(12_936, pul.PULRecipe()) == 750


# a training

def test_records_are_those_of_the_clusters(uninterrupted):
    net, records = uninterrupted
    assert records["round"].tolist() == [1, 2, 3] and (records["stopped"] == "").all()
    assert (records["clusters"] == 12).all() and records["images"].between(16, 72).all()
    np.testing.assert_allclose(records["reliable"], records["images"] / 72)
    assert records["purity"].min() > 0.6 and np.isfinite(records["loss"]).all() and (records["iterations"] == 4).all()
    assert not same(net, network())


def test_it_learns_its_clusters():
    records = run(recipe=replace(RECIPE, rounds=1, iterations=30))[1]
    assert records["loss"].item() < 0.8 * math.log(12)


def test_every_round_begins_from_the_first_network_with_the_clusters_of_the_last(monkeypatch):
    "The second round alone, from the first network and the clusters of the first round's."
    first, second = (run(recipe=replace(RECIPE, rounds=n))[0] for n in (1, 2))
    whole, calls = pul.extract, []
    clustered = []

    def features(adapter, *arguments):
        calls.append(1)
        x = whole(adapter if len(calls) == 1 else pul.PooledFeatures(first), *arguments)
        clustered.append(x)
        return x

    monkeypatch.setattr(pul, "extract", features)
    begun = []
    whole_begin = pul._begin_again
    def begin(s, generator):
        whole_begin(s, generator)
        begun.append(same(s.net, network()))
    monkeypatch.setattr(pul, "_begin_again", begin)
    assert same(run(recipe=replace(RECIPE, rounds=2))[0], second) and begun == [True, True]
    np.testing.assert_array_equal(clustered[1], extract(pul.PooledFeatures(first), target_crowd()[0].pixels, "fp32"))
    assert not np.array_equal(clustered[0], clustered[1])


def test_a_round_goes_over_the_reliable_images_so_many_times():
    images = run(recipe=replace(RECIPE, rounds=1, iterations=1))[1]["images"].item()
    length = run(recipe=replace(RECIPE, rounds=1, iterations=None, passes=1.5))[1]["iterations"].item()
    assert length == math.ceil(1.5 * images / 16)


def test_truth_never_trains(uninterrupted):
    target, pids = target_crowd()
    assert same(uninterrupted[0], run(images=target)[0])
    with pytest.raises(TypeError, match="a target is unlabelled"):
        run(images=LabelledImages(target.pixels, pids))


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_in_its_second_round_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, 6, "pul.PUL.after_step", run, tmp_path, after=True)


# the guard

def alike() -> Images: return Images(np.repeat(target_crowd()[0].pixels[:1], 60, 0))


@pytest.mark.parametrize("images, changes, says", [
    (alike, {}, "only 1 of 10 clusters have images"),
    (None, {"threshold": 1.0}, "12 of 72 images are reliable and do not fill a batch of 16"),
    (None, {"threshold": 1.0, "batch": 8}, "fewer than two of 12 clusters have a reliable image beside their centre")])
def test_what_cannot_be_trained_on_ends_the_training_with_a_reason(images, changes, says):
    with pytest.warns(UserWarning, match="PUL stops in round 1"):
        net, records = run(recipe=replace(RECIPE, **changes), images=images and images())
    assert len(records) == 1 and says in records["stopped"][0] and "; " in records["stopped"][0]
    assert same(net, network())


def test_the_weights_are_those_of_the_last_sound_round(monkeypatch):
    first = run(recipe=replace(RECIPE, rounds=1))[0]
    whole, calls = pul.reliable, []

    def collapses(features, *arguments):
        calls.append(1)
        return whole(features, *arguments) if len(calls) == 1 else np.zeros(len(features), bool)

    monkeypatch.setattr(pul, "reliable", collapses)
    with pytest.warns(UserWarning, match="stops in round 2"): net, records = run()
    assert len(records) == 2 and records["stopped"][0] == "" and "0 of 72 images are reliable" in records["stopped"][1]
    assert same(net, first)


@pytest.mark.parametrize("changes, says", [
    ({}, "15 images of the target do not fill a batch of 16; give more, or lower `batch`"),
    ({"clusters": 15, "images_per_cluster": None}, r"15 images of the target in 15 clusters \(clusters is 15\)"),
    ({"images_per_cluster": 12.0}, r"in 1 clusters \(images_per_cluster is 12.0\)")])
def test_too_few_images_are_refused_with_the_number_and_the_remedy(changes, says):
    with pytest.raises(ValueError, match=says):
        run(recipe=replace(RECIPE, **changes), images=Images(target_crowd()[0].pixels[:15]))


@pytest.mark.parametrize("changes, says", [
    ({"clusters": 10}, "follows one of them"), ({"images_per_cluster": None}, "follows one of them"),
    ({"clusters": 1, "images_per_cluster": None}, "clusters is 1; a classifier needs at least 2"),
    ({"images_per_cluster": 0.5}, "images_per_cluster is 0.5"), ({"threshold": 0.0}, "threshold is 0.0"),
    ({"threshold": 1.1}, "threshold is 1.1"), ({"batch": 1}, "batch is 1"), ({"rounds": 0}, "rounds is 0"),
    ({"iterations": 0}, "iterations is 0"), ({"passes": 0.0}, "passes is 0.0"), ({"lr": "1"}, "lr is '1'"),
    ({"lr": math.nan}, "lr is nan"), ({"dropout": 1.0}, "dropout is 1.0"), ({"momentum": -0.1}, "momentum is -0.1")])
def test_constants_that_cannot_be_are_refused(changes, says):
    with pytest.raises(ValueError, match=says): replace(RECIPE, **changes)


# as a row of a table

def test_constants_go_with_the_recipes_name_and_the_key_does_not_know_it():
    method = pul.PUL()
    assert all(method.constants(RECIPES[name]) == own for name, own in pul.PUL_RECIPES.items())
    assert method.key(RECIPE) == method.key(replace(RECIPE, name="mine")) != method.key(replace(RECIPE, lr=1e-3))
    with pytest.raises(ValueError, match="no constants of PUL go with the recipe 'start_rendered'"):
        method.constants(RECIPES["start_rendered"])
