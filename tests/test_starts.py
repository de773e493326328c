"Networks that ship: what goes on from one begins with its weights, and what ships is what its description says."
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ptl_nb.domains import load_domain
from ptl_nb.export import read_model
from ptl_nb.label_runs import true_labels
from ptl_nb.methods import parse_method
from ptl_nb.parameters import choose_recipe
from ptl_nb.runs import ReIDRun, scored_network
from ptl_nb.starts import load_start, network_fields, read_start, shipped_file, start_names
from ptl_nb.store import Store


@pytest.mark.parametrize("name", start_names())
def test_a_start_that_ships_is_small_and_says_what_it_is(name):
    facts, net = read_start(name), load_start(name)
    assert facts["licence"] and facts["photographs"] and facts["world"]["people"] >= 1000 and facts["scores"]
    assert {s["target"] for s in facts["scores"]} >= {"plaza", "campus", "corridor"}
    assert net.reid is not None and net.parts is None and net.attributes is None
    assert shipped_file(name).is_file() and not any(c in str(facts) for c in ("/home", "/root", "/tmp", "/work"))


def test_all_weights_that_ship_take_at_most_12_mb():
    shipped = sorted(shipped_file("rendered").parent.rglob("*.safetensors"))
    assert len(shipped) == len(start_names()) + 1 and sum(f.stat().st_size for f in shipped) <= 12e6


def test_the_recipe_for_ones_own_cameras_is_its_starts():
    r = choose_recipe("auto", auto="camera")
    assert r.name == "camera" and {f: getattr(r, f) for f in network_fields(r.start)} == network_fields(r.start)
    other = choose_recipe("camera", changes="start=none,backbone=mini,pooling=max")
    assert other.start is None and other.pooling == "max"


@pytest.mark.slow
def test_ptl_goes_on_from_backbone_and_neck_of_the_start(tmp_path):
    plaza, corridor = load_domain("plaza"), load_domain("corridor")
    truth = true_labels(corridor, corridor.train.path.iloc[0])          # only so that no label model is trained here
    r = replace(choose_recipe("smoke", changes="start=rendered"), lr=1e-30, weight_decay=0.)
    store = Store(tmp_path, progress=False)
    run = store.make(ReIDRun(r, parse_method("start+PTL"), plaza, corridor, 0, {"corridor": truth}))
    begun, now = load_start("rendered").state_dict(), load_file(run / "model.safetensors")
    same = [k for k, v in now.items() if k in begun and v.shape == begun[k].shape]
    moved = {k for k in same if not torch.allclose(now[k], begun[k])}
    assert {k.rpartition(".")[2] for k in moved} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert len(now["reid.classifier.weight"]) == plaza.train.pid.nunique()
    assert {k.partition(".")[0] for k in same} == {"backbone", "reid"} and "parts.classifier.weight" in now
    assert [f.name.rsplit("-", 1)[0] for f in sorted(tmp_path.glob("start-*"))] == [
        "start-BL-HPt-Attrt-plaza-corridor-seed-0", "start-plaza-seed-0"]
    x = np.random.default_rng(0).integers(0, 256, (2, 128, 64, 3), np.uint8)
    net, recipe = read_model(run)                                         # its recipe is that of where it began
    assert (recipe.backbone, recipe.pooling, recipe.size) == (r.backbone, r.pooling, r.size)
    scored = scored_network(store, r, run, corridor, parse_method("start+PTL"))
    batch = torch.from_numpy(x).permute(0, 3, 1, 2) / 255
    with torch.no_grad(): assert torch.equal(net.embed(batch), scored.embed(batch))
