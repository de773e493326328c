"""PTL through batch normalisation only: gradients parameter by parameter, killed in the middle, as a row of a table."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ptl_nb import bn_only
from ptl_nb.data import Images, LabelledImages, batch
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.model import PTLNet
from ptl_nb.ptl import PTL
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun, load_reid
from ptl_nb.standins import truth_store
from ptl_nb.store import Store
from ptl_nb.tables import TABLE5_ROWS
from ptl_nb.trainer import Session, Setting, fit, train_step
from tests.killed import ends_as_if_never_killed, kills

pytestmark = pytest.mark.xdist_group("bn_only")       # one run that nobody stopped for all of them

RECIPE = Recipe("test", backbone="mini", weights=None, height=32, width=16, lr=2e-3, identities=4, images=3,
                target_batch=12, epochs=3, milestones=(2,), precision="fp32")
METHOD, FULL = bn_only.BNOnly(), PTL("PTL", ("HP^t", "Attr^t"))


def source() -> LabelledImages:
    x = np.random.default_rng(0).integers(0, 256, (48, 32, 16, 3), dtype=np.uint8)
    return LabelledImages(x, np.repeat(np.arange(12), 4))


def target(parts: tuple[int, int] = (8, 4)) -> Images:
    rng = np.random.default_rng(1)
    return Images(rng.integers(0, 128, (40, 32, 16, 3), dtype=np.uint8),
                  parts=rng.integers(0, 8, (40, *parts), dtype=np.uint8),
                  attributes=rng.dirichlet((1, 1), (40, 6)).astype(np.float32))


def network(backbone: str = "mini") -> PTLNet:
    torch.manual_seed(0)
    return PTLNet(12, 8, (2,) * 6, backbone, parsing_hidden=8, attribute_hidden=8)


def run(folder: Path | None = None, method: PTL = METHOD, images: Images | None = None):
    "Network and history of a training from one and the same start."
    torch.set_num_threads(1)
    net = network()
    session = Session(every=1, state=folder and folder / "state.safetensors", save_seconds=0)
    return net, fit(net, source(), RECIPE, method, images or target(), session=session)


@pytest.fixture(scope="module")
def uninterrupted(): return run()


# who gets which gradient

def stepped(method: PTL, *streams: str, backbone: str = "mini") -> PTLNet:
    "A network after one iteration with some streams, its weights left and its gradients kept."
    net = network(backbone)
    images = target(net.part_size(32, 16))
    net.train()
    both = {"source": batch(source(), np.arange(12)), "target": batch(images, np.arange(12))}
    still = torch.optim.SGD(net.parameters(), lr=0.0)
    train_step(Setting(net, RECIPE), method, still, {of: both[of] for of in streams})
    return net


def grads(net: nn.Module) -> dict[str, torch.Tensor | None]: return {k: p.grad for k, p in net.named_parameters()}


def equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or a is not None and b is not None and torch.equal(a, b)


@pytest.mark.parametrize("backbone", ["mini", "mobilenet_v2"])
def test_each_parameter_has_the_gradient_that_the_table_says(backbone):
    by_source, by_both, found = (stepped(method, *streams, backbone=backbone) for method, streams in (
        (FULL, ("source",)), (FULL, ("source", "target")), (METHOD, ("source", "target"))))
    norms = [n for n, m in found.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    of_source, of_both, of_found = map(grads, (by_source, by_both, found))
    filters = 0
    for name, grad in of_found.items():
        is_norm = name.rpartition(".")[0] in norms
        if name.startswith("backbone.") and not is_norm:
            filters += 1
            assert equal(grad, of_source[name]) and not equal(grad, of_both[name]), name
        else: assert equal(grad, of_both[name]), name
        if name.startswith("backbone.") and is_norm: assert not equal(grad, of_source[name]), name
        if name.startswith(("parts.", "attributes.")): assert of_source[name] is None and grad.any(), name
    assert filters == len(bn_only.outside_norms(found.backbone)) > 5
    for (name, a), b in zip(found.named_buffers(), by_both.buffers(), strict=True): assert torch.equal(a, b), name
    assert all(p.requires_grad for name, p in found.named_parameters() if name != "reid.neck.bias")


def test_the_target_alone_reaches_nothing_else():
    for name, grad in grads(stepped(METHOD, "target")).items():
        reached = name.startswith(("parts.", "attributes.")) or name.startswith("backbone.") and grad is not None
        assert (grad is not None) == reached
        if name.startswith("backbone.") and name.endswith("weight") and grad is not None: assert grad.ndim == 1, name


def test_weights_are_let_go_where_a_forward_fails():
    net = network()
    with pytest.raises(RuntimeError), bn_only.only_norms(net.backbone): net.backbone(torch.zeros(1, 5, 8, 8))
    assert all(p.requires_grad for p in net.backbone.parameters())


def test_what_was_held_before_stays_held():
    net = network()
    net.backbone[0][0].weight.requires_grad_(False)
    with bn_only.only_norms(net.backbone): pass
    assert not net.backbone[0][0].weight.requires_grad and net.backbone[1].body[0].weight.requires_grad


# a training

def test_it_is_neither_ptl_nor_the_baseline_but_begins_as_ptl(uninterrupted):
    net, history = uninterrupted
    (full, losses), bl = run(method=FULL), run(method=PTL())[0]
    assert history.loc[0].equals(losses.loc[0]) and not history.equals(losses)
    for other in (full, bl): assert not torch.equal(net.backbone[1].body[0].weight, other.backbone[1].body[0].weight)
    assert list(history.columns) == ["iteration", "lr", "id", "triplet", "HP^t", "Attr^t"]


@pytest.mark.slow
@kills
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    ends_as_if_never_killed(uninterrupted, 6, "bn_only.outside_norms", run, tmp_path)


# what cannot be

def test_what_cannot_be_trained_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"method PTL\(BN\) needs part maps of the target domain; predict them first"):
        run(images=replace(target(), parts=None))
    with pytest.raises(ValueError, match=r"PTL\(BN\) needs soft attributes of the target"):
        run(images=replace(target(), attributes=None))
    with pytest.raises(ValueError, match="needs target images"): fit(network(), source(), RECIPE, METHOD)
    net = network()
    net.backbone = nn.Sequential(nn.Conv2d(3, 192, 3, 8), nn.GroupNorm(4, 192))
    with pytest.raises(ValueError, match="the backbone has no batch normalisation"):
        fit(net, source(), RECIPE, METHOD, target())
    with pytest.raises(TypeError, match="init"): bn_only.BNOnly(tasks=("HP^t",))
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    with pytest.raises(ValueError, match=r"PTL\(BN\) needs proxy labels of corridor"):
        ReIDRun(RECIPES["smoke"], METHOD, plaza, corridor)


# as a row of a table

def row(method: PTL = METHOD, recipe: Recipe = RECIPES["smoke"]) -> ReIDRun:
    plaza, corridor = load_domain("plaza", origin="standin"), load_domain("corridor", origin="standin")
    return ReIDRun(recipe, method, plaza, corridor, labels={"corridor": truth_store("corridor")})


@pytest.mark.slow
def test_a_row_is_trained_and_read_back(tmp_path):
    store = Store(tmp_path, progress=False)
    folder = store.make(row(parse_method("PTL(BN)")))
    assert {"id", "triplet", "HP^t", "Attr^t"} <= set(pd.read_csv(folder / "history.csv"))
    assert store.make(row()) == folder and load_reid(folder, RECIPES["smoke"]).parts is None


def test_its_key_is_its_own_and_ptls_is_what_it_was():
    mine, full = row().key("cpu"), row(FULL).key("cpu")
    assert (mine["method"], full["method"]) == ("PTL(BN)", "BL+HP^t+Attr^t")
    assert mine["recipe"] == full["recipe"] and mine["labels"] == full["labels"] and mine["code"] != full["code"]
    assert row(recipe=replace(RECIPES["smoke"], weight_parts=0.2)).key("cpu") != mine


def test_its_name_is_read_alone_with_statistics_and_from_a_start():
    assert [m.name for m in parse_methods(TABLE5_ROWS) if "(BN)" in m.name] == ["PTL(BN)", "PTL(BN)+BN^t"]
    started = parse_method("start+PTL(BN)")
    assert (started.name, started.trained, type(started)) == ("start+PTL(BN)", "start+PTL(BN)", bn_only.BNOnly)
    for wrong in ("PTL(BN)+HP^s", "BL+PTL(BN)", "PTL(bn)"):
        with pytest.raises(ValueError, match="unknown method"): parse_method(wrong)
