"Files of weights to start from, of runs, and of trainings under way."
import functools
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from ptl_nb import model
from ptl_nb.checkpoint import load_state
from ptl_nb.label_runs import load_parser
from ptl_nb.recipe import RECIPES
from ptl_nb.runs import load_reid

from bad_inputs.catalogue import Case, add, call, put_content
from bad_inputs.made import SMALL

CASES: list[Case] = []
bad = functools.partial(add, CASES)


def weights_file(content: Callable | bytes, name: str = "w.safetensors", load: Callable | None = None) -> Callable:
    "A backbone started from this file."
    def make(folder):
        put_content(folder / name, content)
        return (lambda: load(folder)) if load else lambda: model.backbone("resnet18", str(folder / name))
    return make


def saved(tensors: dict) -> Callable: return lambda file: save_file(tensors, file)


def cut_off(file: Path) -> None:
    "Weights that end twenty bytes early."
    save_file({"conv1.weight": torch.zeros(64)}, file)
    file.write_bytes(file.read_bytes()[:-20])


@functools.lru_cache
def resnet18() -> dict:
    import torchvision
    return torchvision.models.resnet18(weights=None).state_dict()


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


WEIGHTS = [
    ("empty", b"", "cannot be read"),
    ("text", b"no weights", "cannot be read"),
    ("a pickle renamed", pickle.dumps({"fc.weight": [1.0]}), "cannot be read", "pickle"),
    ("a torch.save renamed", lambda file: torch.save({"conv1.weight": torch.zeros(1)}, file), "cannot be read",
     "pickle"),
    ("cut off", cut_off, "cannot be read"),
    ("a header longer than the file", header(b"{}", 2**40), "cannot be read"),
    ("a header that is no JSON", header(b"{{{{{{{{"), "cannot be read"),
    ("offsets outside the file", header(b'{"conv1.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
     "cannot be read"),
    ("a shape of 10^18",
     header(b'{"conv1.weight":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,16]}}') + bytes(16),
     "cannot be read"),
    ("a folder", lambda file: file.mkdir(), "no weights file"),
    ("other names", saved({"layer.weight": torch.zeros(3)}), "it lacks", "has unknown ['layer.weight']",
     "as torchvision does"),
    ("another network", lambda file: save_file({k: v for k, v in resnet18().items() if "layer4" not in k}, file),
     "it lacks ['layer4"),
    ("another shape", lambda file: save_file({**resnet18(), "conv1.weight": torch.zeros(64, 3, 3, 3)}, file),
     "conv1.weight", "(64, 3, 3, 3)"),
    ("NaN", lambda file: save_file({**resnet18(), "conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, file),
     "conv1.weight", "not finite"),
]
for prefix in ("module.", "_orig_mod.", "state_dict.", "module._orig_mod."):
    def write_behind(file, prefix=prefix): save_file({prefix + k: v for k, v in resnet18().items()}, file)
    words = f"behind '{prefix}'", "DataParallel", f"with '{prefix}' taken off"
    WEIGHTS.append((f"names behind {prefix}", write_behind, *words))
for name, content, *words in WEIGHTS:
    bad(
        "weights", name, weights_file(content), "w.safetensors", *words,
        error=FileNotFoundError if name == "a folder" else ValueError)
for name in ("w.pth", "w.pt", "w.bin", "w.ckpt", "w.pkl"):
    bad(
        "weights", f"a {name.split('.')[1]} file",
        weights_file(lambda file: torch.save({"conv1.weight": torch.zeros(1)}, file), name), name, "safetensors",
        "pickle")


def behind_module(folder):
    import timm
    net = timm.create_model("resnet10t", features_only=True, out_indices=(-1,))
    save_file({f"module.{k}": v.clone() for k, v in net.state_dict().items()}, folder / "w.safetensors")
    return lambda: model.backbone("timm:resnet10t", str(folder / "w.safetensors"))


bad("weights", "timm's names behind module.", behind_module, "w.safetensors", "behind 'module.'", "taken off")
bad(
    "weights", "not there", call(model.backbone, "resnet18", "gone/w.safetensors"),
    "no weights file gone/w.safetensors", ".safetensors", error=FileNotFoundError)
bad(
    "weights", "of a backbone that has none", call(model.backbone, "mini", "imagenet"),
    "'mini' has no pretrained weights", "weights=None")
bad(
    "weights", "of an unknown backbone", call(model.backbone, "resnet5O"), "unknown backbone 'resnet5O'",
    "did you mean 'resnet50'")
RUN = "model.safetensors"


def load_model(run: Path): return load_reid(run, RECIPES["smoke"])
def load_label_model(run: Path): return load_parser(run, RECIPES["smoke"])


for what, load in {"a ReID model": load_model, "a parser": load_label_model}.items():
    for name, content, *words in [
        ("a pickle renamed", pickle.dumps({"a": 1}), "is no file of weights, or not whole"),
        ("cut off", cut_off, "or not whole"),
        ("other names", saved({"layer.weight": torch.zeros(3)})),
        ("not there", lambda file: None, "is no file of weights")]:
        bad(
            "weights", f"{what}: {name}", weights_file(content, RUN, load), RUN, *words,
            "move or delete the folder of this run")


def resumed(content: Callable | bytes) -> Callable:
    "A training that would go on from a file with this content."
    def make(folder):
        put_content(folder / "state.safetensors", content)
        net = model.PTLNet(2, **SMALL)
        return lambda: load_state(folder / "state.safetensors", net, torch.optim.Adam(net.parameters()))
    return make


def with_facts(facts: str) -> Callable:
    return lambda file: save_file({"net.a": torch.zeros(1)}, file, {"facts": facts})


for name, content in {
    "text": b"no state", "a pickle renamed": pickle.dumps({"a": 1}), "without facts": saved({"net.a": torch.zeros(1)}),
    "facts that are no JSON": with_facts("{"), "another network's": with_facts("{}")}.items():
    bad(
        "training state", name, resumed(content), "state.safetensors", "is not a training state of this network",
        "delete it to start anew")
