"""Exported files as a deployer meets them: without torch or extra, after a failed comparison, at the paper's size."""
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ptl_nb import export
from ptl_nb.checkpoint import save_weights
from ptl_nb.deploy import write_card
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import extract
from ptl_nb.export import SNIPPET, export_int8, export_onnx, onnx_features, read_model, write_model
from ptl_nb.gallery import index_files, model_hash
from ptl_nb.mixed_precision import resolve_precision
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.runs import load_reid

SIZE = RECIPES["smoke"].size


def network(identities: int = 4, backbone: str = "mini", seed: int = 0) -> PTLNet:
    torch.manual_seed(seed)
    return PTLNet(identities, backbone_name=backbone).eval()


def in_a_process(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_the_snippet_runs_without_torch_and_gives_the_same_similarities(tmp_path):
    net = network()
    campus = load_domain("campus")
    export_onnx(net, tmp_path / "model.onnx", SIZE)
    (tmp_path / "compare.py").write_text(SNIPPET)
    assert len([line for line in SNIPPET.splitlines() if line]) <= 10
    blocked = """
import runpy, sys
sys.modules['torch'] = sys.modules['ptl_nb'] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
    files = [tmp_path / "compare.py", tmp_path / "model.onnx", *campus.files(campus.query[:4])]
    run = in_a_process(blocked, *map(str, files))
    assert run.returncode == 0 and not run.stderr, run.stderr
    shown = np.array(run.stdout.replace("[", " ").replace("]", " ").split(), float).reshape(4, 4)
    x = index_files(net, RECIPES["smoke"], campus.root, campus.query[:4]).features
    precise = x @ x.T
    rounds = resolve_precision(RECIPES["smoke"].precision) != "fp32"      # a machine that extracts in bf16
    assert np.abs(shown - precise).max() < (0.02 if rounds else 2e-4)


@pytest.mark.slow
def test_resnet50_agrees_at_the_papers_size(tmp_path):
    net = network(751, "resnet50")
    images = np.random.default_rng(1).integers(0, 256, (3, 256, 128, 3), np.uint8)
    assert export_onnx(net, tmp_path / "resnet50.onnx", (256, 128), images) <= 1e-4
    assert np.abs(onnx_features(tmp_path / "resnet50.onnx", images, 2) - extract(net, images, "fp32")).max() <= 1e-4


def test_a_file_that_disagrees_is_not_left_and_the_old_one_stays(tmp_path, monkeypatch):
    file = tmp_path / "model.onnx"
    net = network()
    export_onnx(net, file, SIZE)
    export_int8(file, tmp_path / "int8.onnx", np.random.default_rng(0).integers(0, 256, (20, *SIZE, 3), np.uint8))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    run = export.onnx_features

    def shifted(f, x, *rest):
        shift = 2e-4 if f == file else 3e-4
        return run(f, x, *rest) + (-shift if "int8" in f.name else shift)

    def turned(f, x, *rest): return run(f, x, *rest) if f == file else -run(f, x, *rest)

    monkeypatch.setattr(export, "onnx_features", shifted)
    with pytest.raises(RuntimeError, match="differs from the network by"): export_onnx(net, file, SIZE)
    monkeypatch.setattr(export, "onnx_features", turned)
    with pytest.raises(RuntimeError, match="point|was not written"):
        export_int8(file, tmp_path / "int8.onnx", np.zeros((4, *SIZE, 3), np.uint8))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_the_extra_the_message_names_it(module, tmp_path):
    code = f"""
import sys; sys.modules['{module}'] = None
from ptl_nb.export import export_onnx
from ptl_nb.model import PTLNet
try: export_onnx(PTLNet(2, backbone_name='mini'), '{tmp_path}/m.onnx', (48, 24))
except ImportError as error: print(error)
"""
    assert "pip install 'ptl_nb[export]'" in in_a_process(code).stdout and not list(tmp_path.iterdir())


def test_a_run_that_ssg_adapted_finds_the_recipe_it_started_from(tmp_path):
    write_model(network(), RECIPES["smoke"], tmp_path / "ssg-run")
    (tmp_path / "ssg-run" / "recipe.json").unlink()
    (tmp_path / "start").mkdir()
    recipe = {"backbone": "mini", "height": 48, "width": 24, "milestones": [1], "epochs": 1}
    computed = {"kind": "reid", "precision": "fp32", "device": "cpu"}
    keys = {"start": {"start": None, "recipe": recipe}, "ssg-run": {"start": "start", "recipe": {"pooling": "max"}}}
    for name, key in keys.items(): (tmp_path / name / "run.json").write_text(json.dumps({"key": key | computed}))
    net, recipe = read_model(tmp_path / "ssg-run")
    x = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
    assert recipe.size == SIZE and np.array_equal(extract(net, x, "fp32"), extract(network(), x, "fp32"))


def test_a_model_is_read_back_with_the_pooling_that_it_learnt_with(tmp_path):
    "Weights alone do not say it: a network that pools otherwise gives other features, and has another name."
    torch.manual_seed(0)
    average = PTLNet(4, backbone_name="mini", pooling="average").eval()
    x = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
    assert np.abs(extract(average, x, "fp32") - extract(network(), x, "fp32")).max() > 1e-3
    assert model_hash(average, SIZE) != model_hash(network(), SIZE)
    recipe = replace(RECIPES["smoke"], pooling="average")
    write_model(average, recipe, tmp_path)
    net, read = read_model(tmp_path)
    assert read == recipe and np.array_equal(extract(net, x, "fp32"), extract(average, x, "fp32"))
    save_weights(average, tmp_path / "model.safetensors")
    assert np.array_equal(extract(load_reid(tmp_path, recipe), x, "fp32"), extract(average, x, "fp32"))


def rewrite(file, change):
    "A JSON file with its content changed."
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("break_it", [
    lambda f: f.write_text("[]"), lambda f: f.write_text("[" * 100_000), lambda f: f.write_bytes(b"\xff"),
    lambda f: rewrite(f, lambda c: c.update(weights=[])), lambda f: rewrite(f, lambda c: c.update(recipe=None))])
def test_a_damaged_recipe_is_named(tmp_path, break_it):
    write_model(network(), RECIPES["smoke"], str(tmp_path))
    break_it(tmp_path / "recipe.json")
    with pytest.raises(ValueError, match=f"the recipe of {tmp_path} cannot be read"): read_model(tmp_path)


def test_what_belongs_to_a_model_is_never_overwritten(tmp_path):
    "A fact takes no name of the recipe's own, an int8 file not that of its source, and a card not that of another."
    with pytest.raises(ValueError, match="a fact is called 'weights'"):
        write_model(network(), RECIPES["smoke"], tmp_path, weights="ours")
    export_onnx(network(), tmp_path / "model.onnx", SIZE)
    images = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match="is the file that is read"):
        export_int8(tmp_path / "model.onnx", tmp_path / "model.onnx", images)
    (tmp_path / "MODEL_CARD.md").write_bytes(b"\xff")
    assert (write_card(tmp_path, "mine").name == "MODEL_CARD.new.md"
            and (tmp_path / "MODEL_CARD.md").read_bytes() == b"\xff")


def test_images_that_a_file_does_not_take(tmp_path):
    export_onnx(network(), tmp_path / "model.onnx", SIZE)
    images = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8)
    file = tmp_path / "model.onnx"
    cases = (images / 255, "float64"), (images.astype(">u2"), ">u2"), (images[:0],
                                                                       "0 images"), (images[..., 0], "takes")
    for wrong, says in cases:
        with pytest.raises(ValueError, match=says): onnx_features(file, wrong)
    turned = images[:, ::-1, :, ::-1]
    assert np.array_equal(onnx_features(file, turned), onnx_features(file, turned.copy())), "a view is another image"
    file.write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot be read as an ONNX model"): onnx_features(file, images)
    with pytest.raises(FileNotFoundError, match="is no file"): onnx_features(tmp_path / "gone.onnx", images)
