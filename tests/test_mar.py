"""MAR's losses against plain loops, killed in the middle, and as a row of a table."""
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from ptl_nb import mar
from ptl_nb.data import Images, LabelledImages
from ptl_nb.domains import load_domain
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.store import Store
from ptl_nb.trainer import Session, fit
from tests.killed import ends_as_if_never_killed, kills
from tests.small_people import crowd

pytestmark = pytest.mark.xdist_group("mar")       # one run that nobody stopped for all of them

RECIPE = Recipe("test", backbone="mini", weights=None, height=32, width=16, lr=2e-3, identities=4, images=3,
                target_batch=12, epochs=4, milestones=(3,), precision="fp32")
METHOD = mar.MAR()


def target(cameras: bool = True) -> Images:
    return Images(crowd(1)[0], camids=np.tile([0, 0, 1, 1, 2, 5], 12) if cameras else None)


def run(folder: Path | None = None, method=METHOD, recipe: Recipe = RECIPE, own=None, images: Images | None = None):
    "Network and history of a training from one and the same start."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = PTLNet(12, backbone_name="mini")
    session = Session(every=1, state=folder and folder / "state.safetensors", save_seconds=0)
    source = LabelledImages(*crowd(0))
    return net, fit(net, source, method.constants(recipe, own), method, images or target(), session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


# the equations

def unit(n: int, seed: int, d: int = 5) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double())


@pytest.mark.parametrize("margin", [0.01, 0.5, 1.0, 3.0])
def test_agents_and_images_against_a_loop(margin):
    z, others, agents, classes = unit(7, 0), unit(4, 1), unit(6, 2), torch.tensor([0, 5, 5, 1, 2, 0, 3])
    terms = []
    for i, f in enumerate([*z.numpy(), *others.numpy()]):
        own = classes[i].item() if i < 7 else None
        squared = [((f - a) ** 2).sum() for a in agents.numpy()]
        if own is not None: terms.append(squared[own])
        near = [margin - d for c, d in enumerate(squared) if c != own and d < margin]
        if near: terms.append(np.mean(near))
    assert mar.joint_loss(z, classes, others, agents, margin).item() == pytest.approx(np.mean(terms))


def test_statistics_of_cameras_against_a_loop():
    logs, camids = unit(10, 3), torch.tensor([3, 8, 3, 3, 0, 8, 8, 1, 0, 3])          # camera 1 has one image
    running = torch.stack([unit(1, 4)[0], unit(1, 5)[0].abs()])
    found = mar.camera_statistics(logs, camids)
    terms = []
    for row, camera in enumerate((0, 3, 8)):
        inside = logs.numpy()[camids.numpy() == camera]
        np.testing.assert_allclose(found[0, row], inside.mean(0))
        np.testing.assert_allclose(found[1, row], inside.std(0, ddof=1))
        terms += [((inside.mean(0) - running[0].numpy()) ** 2).sum()]
        terms += [((inside.std(0, ddof=1) - running[1].numpy()) ** 2).sum()]
    assert mar.consistency_loss(found, running).item() == pytest.approx(np.mean(terms))


def test_equal_labels_of_a_camera_have_a_finite_gradient_and_single_images_none():
    logs = torch.ones(4, 3, requires_grad=True)
    running = torch.zeros(2, 3)
    mar.consistency_loss(mar.camera_statistics(logs, torch.tensor([0, 0, 1, 1])), running).backward()
    assert logs.grad.isfinite().all()
    alone = mar.consistency_loss(mar.camera_statistics(logs, torch.arange(4)), running)
    assert alone.item() == 0 and mar.camera_statistics(logs, torch.arange(4)).shape == (2, 0, 3)


@pytest.mark.parametrize("count", [1, 10, 28])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_hard_negatives_against_a_loop(level, count):
    z, labels = unit(8, 6), unit(8, 7).mul(3).softmax(1)
    pairs = []
    for i in range(8):
        for j in range(i + 1, 8):
            agree = 1 - sum(abs(a - b) for a, b in zip(labels[i].tolist(), labels[j].tolist())) / 2
            pairs.append((((z[i] - z[j]) ** 2).sum().item(), agree))
    np.testing.assert_allclose(mar.agreement(labels), [agree for _, agree in pairs])
    groups = {True: [], False: []}
    for squared, agree in sorted(pairs)[:count]: groups[agree > level].append(math.exp(-squared))
    p, n = (np.mean(groups[of]) if groups[of] else instead for of, instead in ((True, 1.0), (False, 0.5)))
    found = mar.discriminative_loss(z, mar.agreement(labels), torch.tensor(level).double(), count)
    assert found.item() == pytest.approx(-math.log(p / (p + n)))


def test_the_gradient_draws_pairs_that_agree_together_and_the_others_apart():
    z = unit(6, 8).requires_grad_()
    agree = torch.tensor([1.0] + [0.0] * 14)                                    # images 0 and 1 only
    mar.discriminative_loss(z, agree, torch.tensor(0.5), 15).backward()
    before, after = F.pdist(z.detach()), F.pdist(z.detach() - 0.2 * z.grad)
    assert after[0] < before[0] and after[1:].mean() > before[1:].mean()


def test_soft_labels_are_smoothed_from_the_second_visit_on():
    soft, first, second = mar.SoftLabels(5, 3), unit(2, 9, 3).softmax(1).float(), unit(2, 10, 3).softmax(1).float()
    assert torch.equal(soft.visit(torch.tensor([1, 3]), first, 0.9), first)
    found = soft.visit(torch.tensor([3, 4]), second, 0.9)
    torch.testing.assert_close(found, torch.stack([0.9 * first[1] + 0.1 * second[0], second[1]]))
    assert torch.equal(soft.labels[1], first[0]) and not soft.labels[[0, 2]].any()


# a training

class Watched(mar.MAR):
    "Keeps what the training did to its buffers."
    seen = []

    def after_step(self, s, batches):
        soft = s.extra["soft"]
        self.seen.append({k: v.clone() for k, v in soft.state_dict().items()} | {"index": batches["target"]["index"]})


def test_buffers_follow_the_batches():
    Watched.seen.clear()
    history = run(method=Watched())[1]
    assert (history["MDL"] > 0).tolist() == [False] + [True] * 11              # from 1/20 of twelve steps on
    visited = set()
    for step, now in enumerate(Watched.seen):
        if step: visited |= set(now["index"].tolist())
        assert set(now["labels"].sum(1).nonzero()[:, 0].tolist()) == visited
        assert now["running"].isfinite().all() and now["level"].isnan() == (step == 0)
        torch.testing.assert_close(now["labels"].sum(1)[sorted(visited)], torch.ones(len(visited)))


def test_it_learns_the_agents(uninterrupted):
    history = run(recipe=replace(RECIPE, epochs=10, milestones=(9,)))[1]
    assert history["AL"][-3:].mean() < history["AL"][:3].mean() and history["RJ"][-3:].mean() < history["RJ"][:3].mean()
    assert list(uninterrupted[1].columns) == ["iteration", "lr", "id", "triplet", "AL", "RJ", "CML", "MDL"]
    assert np.isfinite(uninterrupted[1]).all().all()


def test_cameras_of_single_images_train_too():
    history = run(images=Images(crowd(1)[0], camids=np.arange(72)))[1]
    assert (history["CML"] == 0).all() and np.isfinite(history).all().all()


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, 7, "mar._target_losses", run, tmp_path, after=True)


# what cannot be

@pytest.mark.parametrize("field, value", [("mined", 0.0), ("mined", 1.5), ("scale", -1.0), ("rate", 0.0),
                                          ("weight_joint", -0.1), ("smoothing", math.nan), ("discriminative_from", 2.0)])
def test_constants_that_cannot_be_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"): mar.MARConstants(**{field: value})


def test_what_cannot_be_trained_is_refused_before_it_begins():
    with pytest.raises(ValueError, match="needs the cameras of the target's images"): run(images=target(cameras=False))
    with pytest.raises(ValueError, match="mined is 0.01, which is no pair of a batch of 12 target images"):
        run(own=mar.MARConstants(mined=0.01))
    with pytest.raises(ValueError, match="method MAR needs target images"):
        fit(PTLNet(12, backbone_name="mini"), LabelledImages(*crowd(0)), METHOD.constants(RECIPE), METHOD)


# as a row of a table

def row(recipe: Recipe = RECIPES["smoke"], own=None) -> ReIDRun:
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    return ReIDRun(recipe, METHOD, plaza, corridor, own=own)


@pytest.mark.slow
def test_a_row_is_trained_and_read_back(tmp_path):
    store = Store(tmp_path, progress=False)
    folder = store.make(row())
    history = pd.read_csv(folder / "history.csv")
    assert {"id", "triplet", "AL", "RJ", "CML", "MDL"} <= set(history) and history["MDL"].max() > 0
    assert store.make(row()) == folder and load_reid(folder, RECIPES["smoke"]).reid is not None


def test_runs_of_different_constants_never_share_a_key():
    changed = {"scale": 20.0, "margin": 0.9, "weight_agents": 2.0, "weight_joint": 0.1, "weight_consistency": 0.0,
               "weight_discriminative": 1.0, "mined": 0.1, "discriminative_from": 0.5, "rate": 0.2, "smoothing": 0.5}
    keys = [row().key("cpu"), *(row(own=mar.MARConstants(**{k: v})).key("cpu") for k, v in changed.items()),
            row(replace(RECIPES["smoke"], target_batch=16)).key("cpu")]
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])
    assert set(changed) == set(vars(mar.MARConstants())) and row(own=mar.MARConstants()).key("cpu") == keys[0]
