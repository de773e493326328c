"""Backbones that come from elsewhere: what is said when they are not to be had."""
import sys

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from ptl_nb.model import backbone


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'ptl_nb\[backbones\]'"): backbone("timm:resnet10t")


def test_weights_of_timm_offline(monkeypatch):
    "The remedy is named, and only a wish for weights asks the network."
    real = timm.create_model
    def create(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return real(*args, **kwargs)
    monkeypatch.setattr(timm, "create_model", create)
    backbone("timm:mobilenetv3_small_050")
    with pytest.raises(FileNotFoundError, match="give a .safetensors file"):
        backbone("timm:mobilenetv3_small_050", "imagenet")


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_mobilenets(name, tmp_path, monkeypatch):
    "A weights file is used whole, with or without its classifier; offline the file to place is named."
    torch.manual_seed(0)
    whole = getattr(torchvision.models, name)(weights=None)
    state = whole.state_dict()
    for kept in (state, {k: v for k, v in state.items() if not k.startswith("classifier.")}):
        save_file(kept, tmp_path / "w.safetensors")
        net, channels = backbone(name, str(tmp_path / "w.safetensors"))
        assert all(torch.equal(v, state[f"features.{k}"]) for k, v in net.state_dict().items())
    assert channels == net.eval()(torch.zeros(1, 3, 64, 32)).shape[1]
    def refuse(*args, **kwargs):
        raise OSError("no route to host")
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    with pytest.raises(FileNotFoundError, match=f"{name}.*place https.*\\.pth"): backbone(name, "imagenet")


def test_renamed_timm_weights(tmp_path):
    "timm writes stages.0 in its files and stages_0 in its feature extractors; a tensor of another shape is refused."
    whole = timm.create_model("convnext_atto").eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    net, _ = backbone("timm:convnext_atto", str(tmp_path / "w.safetensors"))
    x = torch.randn(1, 3, 64, 32)
    with torch.no_grad(): assert torch.equal(net.eval()(x), whole.stages(whole.stem(x)))
    with pytest.raises(ValueError, match="holds no convnext_femto"):
        backbone("timm:convnext_femto", str(tmp_path / "w.safetensors"))
