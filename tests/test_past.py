"""PAST against plain loops, killed in the middle of a round, and on clusters that cannot be trained on."""
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from ptl_nb import past
from ptl_nb.data import Images, LabelledImages
from ptl_nb.evaluator import reestimate_bn
from ptl_nb.model import PTLNet
from ptl_nb.reranking import jaccard_similarity
from ptl_nb.ssg import quality
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills, same
from tests.small_people import target_crowd

pytestmark = pytest.mark.xdist_group("past")      # one run that nobody stopped for all of them

RECIPE = past.PASTRecipe("test", k1=8, min_samples=3, min_cluster=3, eta=None, images=4, identities=4, cycles=2, renewals=1,
                         iterations=4, passes=None, optimiser="adam", lr=1e-3, max_share=0.5)


def network() -> PTLNet:
    torch.manual_seed(0)
    net = PTLNet(5, backbone_name="mini")
    reestimate_bn(net, target_crowd()[0].pixels)
    return net


def run(folder: Path | None = None, recipe: past.PASTRecipe = RECIPE, images: Images | None = None):
    "Network and records of a training from one and the same start."
    torch.set_num_threads(1)
    net, (target, pids) = network(), target_crowd()
    session = Session(precision="fp32", state=folder and folder / "state.safetensors")
    method = past.PAST() if images else past.PAST().observed(functools.partial(quality, truth=pids))
    return net, fit(net, None, recipe, method, images or target, session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


@pytest.fixture(scope="module")
def people() -> tuple[torch.Tensor, np.ndarray]:
    "Unit features (96, 16) of twelve people and a stranger or two, and who they are."
    chance = torch.Generator().manual_seed(0)
    person = F.normalize(torch.randn(12, 16, generator=chance))
    noise = 0.25 * torch.randn(96, 16, generator=chance)
    return F.normalize(person.repeat_interleave(8, 0) + noise), np.repeat(np.arange(12), 8)


# clusters and rank lists

@pytest.mark.parametrize("samples, least", [(4, 4), (3, 5), (10, 5)])
def test_clusters_of_the_sparse_graph_are_those_of_all_pairs(people, samples, least):
    x, who = people
    similarity = jaccard_similarity(x, 10, 3)
    found = past.hdbscan(similarity, samples, least)
    dense = np.maximum(1 - similarity.toarray().astype(np.float64), 1e-9)
    whole = HDBSCAN(min_samples=samples, min_cluster_size=least, metric="precomputed", copy=True).fit_predict(dense)
    inside = found >= 0
    assert adjusted_rand_score(whole[inside], found[inside]) > 0.9 and found.dtype == np.int64
    assert np.bincount(found[inside]).min() >= least and adjusted_rand_score(who[inside], found[inside]) > 0.05


def test_the_order_of_the_images_hardly_matters(people):
    similarity, order = jaccard_similarity(people[0], 10, 3), np.random.default_rng(0).permutation(96)
    found, there = past.hdbscan(similarity, 4, 4), past.hdbscan(similarity[order][:, order], 4, 4)
    both = (found[order] >= 0) & (there >= 0)                  # equal distances may be cut in either order
    assert adjusted_rand_score(found[order][both], there[both]) > 0.9 and both.sum() > 60


def test_people_without_anybody_alike_are_outliers_whatever_lies_beside_them():
    block = np.kron(np.eye(3), np.ones((5, 5))) * 0.8 + 0.2 * np.eye(15)
    similarity = np.zeros((25, 25))
    similarity[:15, :15] = block
    similarity[np.arange(15, 25), np.arange(15, 25)] = 1
    found = past.hdbscan(csr_array(similarity.astype(np.float32)), 3, 3)
    assert (found[15:] == -1).all() and adjusted_rand_score(np.repeat([0, 1, 2], 5), found[:15]) == 1


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_rank_lists_are_those_of_all_pairs(people, weight):
    x, _ = people
    similarity = jaccard_similarity(x, 10, 3)
    plain = np.array([[float(((a - b) ** 2).sum()) for b in x.double()] for a in x.double()])
    full = weight * plain / plain.max(1, keepdims=True) + (1 - weight) * (1 - similarity.toarray())
    np.fill_diagonal(full, np.inf)
    lists = past.rank_lists(x, similarity, 20, weight)
    np.testing.assert_allclose(np.take_along_axis(full, lists, 1), np.sort(full, 1)[:, :20], atol=2e-5)
    assert all(len(set(row)) == 20 and i not in row for i, row in enumerate(lists))


# batches and losses

def test_positives_come_from_the_first_ranks_and_negatives_from_the_next():
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(np.delete(np.arange(60), i))[:14] for i in range(60)])
    labels, rows = np.repeat(np.arange(8), 5), rng.permutation(60)[:40]
    for batch in past.ranked_epoch(labels, rows, lists, 4, 3, rng):
        anchor, positive, negative = batch.reshape(3, 12)
        gaps = past.rank_gaps(batch, lists)
        for a, p, n, gap in zip(anchor, positive, negative, gaps):
            first, second = list(lists[a]).index(p), list(lists[a]).index(n)
            assert first < 7 <= second and gap == pytest.approx((second - first) / 14)
        assert set(anchor) <= set(rows)


def test_the_ranked_triplet_is_that_of_a_loop():
    a, p, n = torch.randn(3, 30, 8, generator=torch.Generator().manual_seed(0)).double()
    gap = torch.rand(30, generator=torch.Generator().manual_seed(1)).double()
    loop = [max(0.0, 0.3 * float(g) + float((x - y).norm()) - float((x - z).norm())) for x, y, z, g in zip(a, p, n, gap)]
    assert float(past.ranked_triplet(a, p, n, gap, 0.3)) == pytest.approx(np.mean(loop)) and 0 < loop.count(0.0) < 30


def test_a_step_moves_the_classifier_and_forgets_it_in_the_next_round():
    net, recipe = network(), replace(RECIPE, cycles=1)
    seen = []

    class Watched(past.PAST):
        def after_step(self, s, batches): seen.append(s.extra["classifier"].weight.detach().clone())

    fit(net, None, recipe, Watched(), target_crowd()[0], session=Session(precision="fp32"))
    still, moved = seen[:4], seen[4:]
    assert not torch.stack(still).any() and not torch.equal(moved[0], moved[-1])
    assert len(moved[0]) == 72 // 3


# a training

def test_records_are_those_of_the_stages(uninterrupted):
    net, records = uninterrupted
    assert records["stage"].tolist() == ["conservative", "promoting"] * 2 and records["cycle"].tolist() == [1, 1, 2, 2]
    assert (records["images"] + records["outliers"] == 72).all() and (records["stopped"] == "").all()
    assert records["lr"].tolist() == pytest.approx([1e-3, 5e-4] * 2) and records["purity"][0] > 0.8
    assert records["loss_classes"].isna().tolist() == [True, False] * 2 == (~records["loss_ranks"].isna()).tolist()
    assert not same(net, network())


def test_a_stage_clusters_as_often_as_it_is_told_and_by_sgd_too():
    records = run(recipe=replace(RECIPE, cycles=1, renewals=2, optimiser="sgd", iterations=2))[1]
    assert records["stage"].tolist() == ["conservative"] * 2 + ["promoting"] * 2 and records["cycle"].nunique() == 1


def test_truth_never_trains(uninterrupted):
    target, pids = target_crowd()
    assert same(uninterrupted[0], run(images=target)[0])
    with pytest.raises(TypeError, match="a target is unlabelled"):
        run(images=LabelledImages(target.pixels, pids))


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    # in the second promoting stage, after one of each
    ends_as_if_never_killed(uninterrupted, 14, "past.PAST.losses", run, tmp_path)


# what cannot be

@pytest.mark.parametrize("images, changes, says", [
    (lambda: Images(np.repeat(target_crowd()[0].pixels[:1], 80, 0)), {}, "1 cluster of 80 images, the largest with 100%"),
    (None, {"min_cluster": 37}, "no clusters of 72 images"),
    (None, {"max_share": 0.02}, "more than max_share = 2%"),
    (None, {"min_clusters": 60}, "training needs 60")])
def test_what_cannot_be_trained_on_ends_the_training_with_a_reason(images, changes, says):
    with pytest.warns(UserWarning, match="PAST stops in round 1"):
        net, records = run(recipe=replace(RECIPE, **changes), images=images and images())
    assert len(records) == 1 and says in records["stopped"][0] and "; " in records["stopped"][0]
    assert same(net, network())


@pytest.mark.parametrize("images, changes, says", [
    (15, {}, "15 images of the target do not fill a batch of 16; give at least 16"),
    (16, {"k1": 16}, "give at least 17, or lower `k1`"),
    (30, {"eta": 20}, "have no 40 neighbours"),
    (20, {"min_samples": 21}, "fewer than min_samples = 21")])
def test_too_few_images_are_refused_with_the_number_and_the_remedy(images, changes, says):
    with pytest.raises(ValueError, match=says):
        run(recipe=replace(RECIPE, **changes), images=Images(target_crowd()[0].pixels[:images]))


def test_names_keys_and_constants_that_cannot_be():
    method = past.PAST()
    assert (method.name, method.trained, method.uses_source(RECIPE)) == ("BL+PAST", "BL+PAST", False)
    assert method.key(RECIPE) == method.key(replace(RECIPE, name="mine")) != method.key(replace(RECIPE, eta=5))
    for name, value, says in (("eta", 0, "eta is 0"), ("optimiser", "lion", "'sgd' or 'adam'"),
                              ("margin", -1.0, "margin is -1")):
        with pytest.raises(ValueError, match=says): replace(RECIPE, **{name: value})
