"""MMT against plain loops, killed in the middle of a round, and on clusters that cannot be trained on."""
import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptl_nb import mmt
from ptl_nb.cluster_contrast import ClusterContrast
from ptl_nb.data import Images, LabelledImages
from ptl_nb.evaluator import reestimate_bn
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.ssg import quality
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills, same
from tests.small_people import target_crowd

pytestmark = pytest.mark.xdist_group("mmt")      # one run that nobody stopped for all of them

RECIPE = mmt.MMTRecipe("test", None, 6.0, identities=4, images=3, rounds=3, iterations=3, ema=0.6, lr=1e-3)


def network() -> PTLNet:
    torch.manual_seed(0)
    net = PTLNet(5, backbone_name="mini")
    reestimate_bn(net, target_crowd()[0].pixels)
    return net


def run(folder: Path | None = None, recipe: mmt.MMTRecipe = RECIPE, images: Images | None = None, method=mmt.MMT()):
    "Network and records of a training from one and the same start."
    torch.set_num_threads(1)
    net, (target, pids) = network(), target_crowd()
    session = Session(precision="fp32", state=folder and folder / "state.safetensors")
    if not images: method = method.observed(functools.partial(quality, truth=pids))
    return net, fit(net, None, recipe, method, images or target, session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


# the equations

def draws(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losses_by_hand(smoothing):
    f, logits, f_t, logits_t = draws(15, 8, seed=0), draws(15, 5, seed=1), draws(15, 8, seed=2), draws(15, 5, seed=3)
    y = torch.arange(15) % 5
    expected = {name: [] for name in ("id", "id_soft", "triplet", "triplet_soft")}
    for i in range(15):
        p, p_t = (np.exp(x[i].numpy()) / np.exp(x[i].numpy()).sum() for x in (logits, logits_t))
        hard = np.full(5, smoothing / 5)
        hard[y[i]] += 1 - smoothing
        expected["id"].append(-(hard * np.log(p)).sum())
        expected["id_soft"].append(-(p_t * np.log(p)).sum())
        away = (f - f[i]).norm(dim=1)
        positive = max((j for j in range(15) if y[j] == y[i]), key=lambda j: away[j])
        negative = min((j for j in range(15) if y[j] != y[i]), key=lambda j: away[j])
        q, q_t = (1 / (1 + math.exp((x[i] - x[positive]).norm() - (x[i] - x[negative]).norm())) for x in (f, f_t))
        expected["triplet"].append(-math.log(q))
        expected["triplet_soft"].append(-q_t * math.log(q) - (1 - q_t) * math.log(1 - q))
    found = mmt.mutual_losses((f, logits), (f_t, logits_t), y, smoothing)
    by_hand = {name: np.mean(values) for name, values in expected.items()}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(by_hand, rel=1e-9)


def test_a_cluster_of_one_image_has_itself_as_its_positive_and_a_gradient_that_is_finite():
    f = draws(4, 3, seed=0).requires_grad_()
    y = torch.tensor([0, 0, 1, 1])
    alone = torch.stack([f[0], f[0], f[2], f[3]])
    losses = mmt.mutual_losses((alone, draws(4, 2, seed=1)), (alone.detach(), draws(4, 2, seed=2)), y)
    losses["triplet"].backward()
    assert f.grad.isfinite().all()
    positive, negative = mmt.hardest_pairs(f.detach(), torch.tensor([0, 1, 2, 3]))
    assert positive.tolist() == [0, 1, 2, 3] and (negative != torch.arange(4)).all()


def test_likeness_is_the_cosine_of_the_matrices_of_inner_products():
    a, b = (x.float().numpy() for x in (draws(20, 6, seed=0), draws(20, 6, seed=1)))
    p, q = ([[x @ y for y in f - f.mean(0)] for x in f - f.mean(0)] for f in (a, b))
    cosine = np.sum(np.multiply(p, q)) / np.linalg.norm(p) / np.linalg.norm(q)
    assert mmt.likeness(a, b) == pytest.approx(cosine, rel=1e-5)
    assert mmt.likeness(a, 2 * a[:, ::-1].copy() + 1) == pytest.approx(1) and mmt.likeness(a, b) < 0.9


def test_a_teacher_is_the_plain_mean_at_first_and_forgets_later():
    teacher, student = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    by_hand = None
    for t in range(30):
        with torch.no_grad(): student.weight.copy_(draws(2, 2, seed=t))
        kept = min(1 - 1 / (t + 1), 0.9)
        by_hand = student.weight.clone() if t == 0 else kept * by_hand + (1 - kept) * student.weight
        mmt.update_teacher(teacher, student, t, 0.9)
        torch.testing.assert_close(teacher.weight, by_hand)
        if t == 5: torch.testing.assert_close(by_hand, sum(draws(2, 2, seed=k).float() for k in range(6)) / 6)


# a training

class Watched(mmt.MMT):
    "Keeps what a setting holds after each step."
    def after_step(self, s, batches):
        before = [p.clone() for p in s.extra["teacher"].parameters()]
        super().after_step(s, batches)
        type(self).seen.append((s, before, batches["target"]))


def test_the_teachers_follow_their_own_students_and_the_views_differ():
    Watched.seen = []
    net, records = run(recipe=replace(RECIPE, rounds=1, iterations=2), method=Watched())
    (s, before, b), _ = Watched.seen[1], Watched.seen[0]
    for old, new, now in zip(before, s.extra["teacher"].parameters(), s.extra["students"][1].parameters(), strict=True):
        torch.testing.assert_close(new, 0.5 * old + 0.5 * now)           # t is 1
    assert not same(s.extra["students"][0], s.extra["students"][1]) and not same(net, s.extra["teacher"])
    assert s.net is net and not net.training and s.facts["steps"] == 2
    assert not torch.equal(b["x"], b["second"]) and b["x"].shape == b["second"].shape == (12, 3, 32, 16)
    start = dict(network().named_parameters())
    assert torch.equal(start["reid.classifier.weight"], net.reid.classifier.weight)


def test_a_teacher_takes_no_gradient_and_each_student_learns_from_the_other_ones():
    "Losses of a batch, by hand from the four networks."
    Watched.seen = []
    run(recipe=replace(RECIPE, rounds=1, iterations=1), method=Watched())
    (s, _, b), = Watched.seen
    for module in (s.net, s.extra): module.train().zero_grad(set_to_none=True)
    found = mmt.MMT().losses(s, {"target": b})
    sum(found.values()).backward()
    taught = [p for m in (s.net, s.extra["teacher"], s.extra["classifiers"][2:]) for p in m.parameters()]
    learnt = [p for student in s.extra["students"] for p in student.backbone.parameters()]
    assert all(p.grad is None for p in taught) and all(p.grad is not None for p in learnt)
    nets, classifiers = [*s.extra["students"], s.net, s.extra["teacher"]], s.extra["classifiers"]
    with torch.no_grad():
        f, g = zip(*(net.reid.embed(net.backbone(x)) for net, x in zip(nets, (b["x"], b["second"]) * 2)))
        out = [(f[i], classifiers[i](g[i])) for i in range(4)]
        one, two = (mmt.mutual_losses(out[i], out[3 - i], b["labels"][0], 0.1) for i in range(2))
    by_hand = {name: (one[name] + two[name]).item() for name in one}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(by_hand, rel=1e-5)


def test_records_are_those_of_the_clusters(uninterrupted):
    net, records = uninterrupted
    assert records["round"].tolist() == [1, 2, 3] and (records["stopped"] == "").all()
    assert (records["clusters"] == 12).all() and (records["images"] == 72).all() and (records["iterations"] == 3).all()
    assert records["largest"].between(1 / 12, 0.5).all() and records["purity"].min() > 0.6
    assert records["teachers"][0] == pytest.approx(1, abs=1e-5) and records["teachers"][1:].between(0.1, 0.9999).all()
    assert math.isnan(records["agreement"][0]) and records["agreement"][1:].min() > 0.3
    assert np.isfinite(records.filter(like="loss_")).all(axis=None) and not same(net, network())


def test_it_learns_its_clusters():
    records = run(recipe=replace(RECIPE, rounds=2, iterations=12))[1]
    assert records["loss_triplet"][1] < records["loss_triplet"][0] and records["loss_id"][1] < records["loss_id"][0]


def test_a_round_goes_over_the_images_so_many_times():
    lengths = {passes: run(recipe=replace(RECIPE, rounds=1, iterations=7, passes=passes))[1]["iterations"].item()
               for passes in (0.01, 0.5, None)}
    assert lengths == {0.01: 1, 0.5: 3, None: 7}


def test_truth_never_trains(uninterrupted):
    target, pids = target_crowd()
    assert same(uninterrupted[0], run(images=target)[0])
    with pytest.raises(TypeError, match="a target is unlabelled"):
        run(images=LabelledImages(target.pixels, pids))


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_in_its_second_round_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, 5, "mmt.MMT.after_step", run, tmp_path, after=True)


# the guard

def test_what_cannot_be_trained_on_ends_the_training_with_a_reason():
    with pytest.warns(UserWarning, match="MMT stops in round 1"):
        net, records = run(images=Images(np.repeat(target_crowd()[0].pixels[:1], 60, 0)))
    assert len(records) == 1 and "only 1 of 10 clusters have images" in records["stopped"][0] and same(net, network())


def test_the_weights_are_those_of_the_last_sound_round(monkeypatch):
    first = run(recipe=replace(RECIPE, rounds=1))[0]
    whole, calls = mmt.kmeans, []

    def collapses(features, *arguments):
        calls.append(1)
        labels, centroids = whole(features, *arguments)
        return labels if len(calls) == 1 else np.zeros_like(labels), centroids

    monkeypatch.setattr(mmt, "kmeans", collapses)
    with pytest.warns(UserWarning, match="stops in round 2"): net, records = run()
    assert len(records) == 2 and records["stopped"][0] == "" and "1 of 12 clusters" in records["stopped"][1]
    assert same(net, first)


@pytest.mark.parametrize("changes, says", [
    ({}, "11 images of the target do not fill a batch of 4 clusters with 3 images each; give at least 12"),
    ({"clusters": 11, "images_per_cluster": None}, r"11 images of the target in 11 clusters \(clusters is 11\)"),
    ({"images_per_cluster": 11.0}, r"in 1 clusters \(images_per_cluster is 11.0\)")])
def test_too_few_images_are_refused_with_the_number_and_the_remedy(changes, says):
    with pytest.raises(ValueError, match=says):
        run(recipe=replace(RECIPE, **changes), images=Images(target_crowd()[0].pixels[:11]))


@pytest.mark.parametrize("changes, says", [
    ({"clusters": 10}, "follows one of them"), ({"images_per_cluster": 0.5}, "images_per_cluster is 0.5"),
    ({"identities": 1}, "identities is 1"), ({"images": 1}, "images is 1"), ({"rounds": 0}, "rounds is 0"),
    ({"iterations": 0}, "iterations is 0"), ({"ema": 1.0}, "ema is 1.0"), ({"smoothing": -0.1}, "smoothing is -0.1"),
    ({"soft_id": 1.1}, "soft_id is 1.1"), ({"soft_triplet": math.nan}, "soft_triplet is nan"),
    ({"lr": 0.0}, "lr is 0.0"), ({"lr": "1"}, "lr is '1'"),
    ({"passes": 0.0}, "passes is 0.0"), ({"erase_area": (0.4, 0.02)}, "ascending"),
    ({"erase_aspect": 0.0}, "aspect lies in"), ({"weight_decay": 2.0}, "weight_decay is 2.0")])
def test_constants_that_cannot_be_are_refused(changes, says):
    with pytest.raises(ValueError, match=says): replace(RECIPE, **changes)


# as a row of a table

def test_constants_go_with_the_recipes_name_and_the_key_does_not_know_it():
    method = mmt.MMT()
    assert all(method.constants(RECIPES[name]) == mmt.MMT_RECIPES[name] for name in ("paper", "mini", "smoke"))
    assert method.constants(RECIPES["camera"]).lr == ClusterContrast().constants(RECIPES["camera"]).lr
    assert method.constants(RECIPES["camera"], RECIPE) == RECIPE          # what somebody gives is taken as it is
    assert method.key(RECIPE) == method.key(replace(RECIPE, name="mine")) != method.key(replace(RECIPE, lr=1e-4))
    with pytest.raises(ValueError, match="no constants of MMT go with the recipe 'start_rendered'"):
        method.constants(RECIPES["start_rendered"])
