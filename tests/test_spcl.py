"""SpCL against plain loops, killed in the middle of a round, and on clusters that cannot be trained on."""
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ptl_nb import spcl
from ptl_nb.cluster_contrast import contrast_loss
from ptl_nb.clustering import JaccardDistance, dbscan
from ptl_nb.data import Images, LabelledImages
from ptl_nb.evaluator import reestimate_bn
from ptl_nb.model import PTLNet
from ptl_nb.reranking import jaccard_similarity
from ptl_nb.ssg import quality
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills, same
from tests.small_people import target_crowd

pytestmark = pytest.mark.xdist_group("spcl")      # one run that nobody stopped for all of them

RECIPE = spcl.SpCLRecipe("test", k1=8, eps=0.5, identities=4, images=4, rounds=3, iterations=4, lr=1e-3, max_share=0.5)


def source() -> LabelledImages:
    images, pids = target_crowd(1)
    return LabelledImages(images.pixels, pids, camids=images.camids)


def network() -> PTLNet:
    torch.manual_seed(0)
    net = PTLNet(5, backbone_name="mini")
    reestimate_bn(net, target_crowd()[0].pixels)
    return net


def run(folder: Path | None = None, recipe: spcl.SpCLRecipe = RECIPE, images: Images | None = None, labelled=None):
    "Network and records of a training from one and the same start."
    torch.set_num_threads(1)
    net, (target, pids) = network(), target_crowd()
    session = Session(precision="fp32", state=folder and folder / "state.safetensors")
    method = spcl.SpCL() if images else spcl.SpCL().observed(functools.partial(quality, truth=pids))
    return net, fit(net, labelled or source(), recipe, method, images or target, session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


def unit(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 16, generator=torch.Generator().manual_seed(seed)))


# which clusters are trusted

def members(labels: np.ndarray, i: int) -> set[int]:
    "Images of an image's cluster, by a loop; itself where it has none."
    return {j for j in range(len(labels)) if j == i or labels[i] >= 0 and labels[j] == labels[i]}


def trusted_by_loops(labels, tight, loose, share, level):
    "The published rule, cluster by cluster and image by image."
    def ratio(other, i):
        a, b = members(labels, i), members(other, i)
        return len(a & b) / len(a | b)

    of = {c: [i for i in range(len(labels)) if labels[i] == c] for c in range(labels.max() + 1)}
    independence = {c: max(ratio(loose, i) for i in rows) for c, rows in of.items()}
    if level is None: level = sorted(independence.values(), reverse=True)[max(1, round(share * len(of))) - 1]
    out, number = np.full(len(labels), -1), 0
    for c, rows in of.items():
        best = max(ratio(tight, i) for i in rows)
        kept = [i for i in rows if ratio(tight, i) >= best]
        if independence[c] < level or len(kept) < 2: continue
        out[kept], number = number, number + 1
    return out, level


@pytest.mark.parametrize("share, level", [(0.9, None), (0.5, None), (1.0, None), (0.9, 0.4)])
def test_the_choice_of_clusters_is_that_of_the_loops(share, level):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 12, 90)
    loose = np.where(rng.random(90) < 0.9, labels // 2, -1)
    tight = np.where(rng.random(90) < 0.8, labels, -1)
    found, used = spcl.trusted(labels, tight, loose, share, level)
    expected, needed = trusted_by_loops(labels, tight, loose, share, level)
    np.testing.assert_array_equal(found, expected)
    assert used == pytest.approx(needed) and 0 < found.max() + 1 <= 12
    np.testing.assert_allclose(spcl.overlap(labels, loose),
                               [len(members(labels, i) & members(loose, i)) / len(members(labels, i) | members(loose, i))
                                for i in range(90)])


def test_no_cluster_and_stable_clusters_are_left_as_they_are():
    nobody, sure = np.full(20, -1), np.repeat([0, 1, -1, 2], 5)
    assert spcl.trusted(nobody, nobody, nobody)[1] is None and (spcl.trusted(nobody, nobody, nobody, level=0.3)[0] < 0).all()
    np.testing.assert_array_equal(spcl.trusted(sure, sure, sure)[0], sure)
    assert spcl.groups_of(np.array([1, -1, 0, -1])).tolist() == [1, 2, 0, 3]


def test_one_graph_gives_the_clusters_of_each_radius():
    features = F.normalize(unit(12, 0).repeat_interleave(8, 0) + 1.3 * unit(96, 1))
    found, made = spcl.three_radii(features, replace(RECIPE, slack=0.2))
    distance = JaccardDistance(jaccard_similarity(features, made["k1"], RECIPE.k2))
    for labels, eps in zip(found, (0.3, 0.5, 0.7)): np.testing.assert_array_equal(labels, dbscan(distance, eps, 4))
    assert len({labels.tobytes() for labels in found}) > 1


# the memory

def test_the_loss_over_all_entries_is_that_of_loops():
    memory, labels = spcl.HybridMemory(3, 20, 16), np.array([0, 1, 1, -1, 2] * 4)
    memory.source[:], memory.target[:] = unit(3, 0), unit(20, 1)
    memory.regroup(labels)
    z, groups = unit(5, 2).double(), torch.from_numpy(spcl.groups_of(labels))[:5] + 3
    entries = [*memory.source, *(memory.target[torch.from_numpy(labels == c)].mean(0) for c in range(3)),
               *memory.target[torch.from_numpy(labels < 0)]]
    by_hand = []
    for feature, y in zip(z, groups):
        weights = [np.exp(float(feature @ c.double()) / 0.05) for c in entries]
        by_hand.append(-np.log(weights[y] / sum(weights)))
    assert len(memory.entries()) == 3 + 3 + 4
    np.testing.assert_allclose(float(contrast_loss(z, memory.entries().double(), groups, 0.05)), np.mean(by_hand), rtol=1e-5)


def test_after_a_step_the_memory_has_moved_image_by_image():
    s = spcl.Setting(network(), RECIPE, source(), target_crowd()[0])
    s.extra["memory"] = memory = spcl.HybridMemory(12, 72, 16)
    memory.source[:], memory.target[:] = unit(12, 0), unit(72, 1)
    index, classes = torch.tensor([5, 3, 5, 70]), torch.tensor([2, 2, 0, 2])
    batches = {"source": {"z": unit(4, 2), "classes": classes}, "target": {"z": unit(4, 3), "index": index}}
    expected = {"source": memory.source.clone(), "target": memory.target.clone()}
    for name, rows in (("source", classes), ("target", index)):
        for z, y in zip(batches[name]["z"], rows):
            expected[name][y] = F.normalize(0.2 * expected[name][y] + 0.8 * z, dim=0)
    spcl.SpCL().after_step(s, batches)
    torch.testing.assert_close(memory.source, expected["source"])
    torch.testing.assert_close(memory.target, expected["target"])


# batches and batch normalisation

def test_an_epoch_has_each_cluster_k_times_and_each_lone_image_once():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(200) < 0.4, -1, rng.integers(0, 20, 200))
    rows = spcl.mixed_epoch(labels, rng.integers(0, 3, 200), 16, 4, rng)
    counts = np.bincount(labels[rows[labels[rows] >= 0]], minlength=20)
    assert rows.shape == ((80 + (labels < 0).sum()) // 16, 16) and counts.max() == 4
    assert np.unique(rows[labels[rows] < 0], return_counts=True)[1].max() == 1
    assert spcl.mixed_epoch(labels, None, 1000, 4, rng).shape == (1, 80 + (labels < 0).sum())


def test_source_images_leave_the_targets_statistics_alone():
    net = network().train()
    norms, other = spcl.SourceNorms(net).train(), spcl.SourceNorms(net)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.rand(8, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    z = norms.embed(net, x)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not torch.equal(norms.norms[0].running_mean, other.norms[0].running_mean)
    torch.testing.assert_close(z, net.embed(x))            # the weights are those of the network, at first
    norms.norms[-1].weight.data.mul_(torch.rand(192) + 0.5)
    assert not torch.allclose(norms.embed(net, x), net.embed(x))


# a training

def test_records_are_those_of_the_clusters(uninterrupted):
    net, records = uninterrupted
    assert records["round"].tolist() == [1, 2, 3] and (records["stopped"] == "").all()
    assert (records["images"] + records["instances"] == 72).all() and (records["clusters"] <= records["found"]).all()
    assert records["level"].nunique() == 1 and records["purity"][0] > 0.8
    assert np.isfinite(records[["loss", "loss_source"]]).all(axis=None) and not same(net, network())


def test_the_rate_falls_with_the_rounds():
    assert run(recipe=replace(RECIPE, step=2, iterations=1))[1]["lr"].tolist() == pytest.approx([1e-3, 1e-3, 1e-4])


def test_truth_never_trains(uninterrupted):
    target, pids = target_crowd()
    assert same(uninterrupted[0], run(images=target)[0])
    with pytest.raises(TypeError, match="a target is unlabelled"):
        run(images=LabelledImages(target.pixels, pids))


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    # between the two updates of its tenth iteration
    ends_as_if_never_killed(uninterrupted, 19, "spcl.update_centres", run, tmp_path, after=True)


# what cannot be

@pytest.mark.parametrize("images, changes, says", [
    (lambda: Images(np.repeat(target_crowd()[0].pixels[:1], 80, 0)), {}, "1 cluster of 80 images, the largest with 100%"),
    (None, {"min_samples": 70}, "no clusters of 72 images"),
    (None, {"max_share": 0.02}, "more than max_share = 2%"),
    (None, {"min_clusters": 60}, "training needs 60")])
def test_what_cannot_be_trained_on_ends_the_training_with_a_reason(images, changes, says):
    with pytest.warns(UserWarning, match="SpCL stops in round 1"):
        net, records = run(recipe=replace(RECIPE, **changes), images=images and images())
    assert len(records) == 1 and says in records["stopped"][0] and "; " in records["stopped"][0]
    assert same(net, network())


@pytest.mark.parametrize("images, changes, says", [
    (15, {}, "15 images of the target do not fill a batch of 16; give at least 16"),
    (16, {"k1": 16}, "give at least 17, or lower `k1`"),
    (72, {"identities": 13}, "12 source identities do not fill a batch of 13")])
def test_too_few_images_are_refused_with_the_number_and_the_remedy(images, changes, says):
    with pytest.raises(ValueError, match=says):
        run(recipe=replace(RECIPE, **changes), images=Images(target_crowd()[0].pixels[:images]))


def test_a_source_without_identities_and_constants_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="LabelledImages as `source`"): run(labelled=target_crowd()[0])
    for name, value, says in (("slack", 0.5, "slack is 0.5, eps is 0.5"), ("share", 0.0, "share is 0.0"),
                              ("eps", 2.0, "eps is 2.0")):
        with pytest.raises(ValueError, match=says): replace(RECIPE, **{name: value})


def test_names_and_keys():
    method = spcl.SpCL()
    assert (method.name, method.trained, method.uses_source(RECIPE)) == ("BL+SpCL", "BL+SpCL", True)
    assert method.key(RECIPE) == method.key(replace(RECIPE, name="mine")) != method.key(replace(RECIPE, slack=0.1))
