"""The compiled data path against tensors, and the pixel cache under two processes."""
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ptl_nb import data
from ptl_nb.data import STD, Augment, Images, augment, augmented_pixels, batch, normalise, to_tensor
from ptl_nb.domains import load_domain


def reference(x, draws): return normalise(augment(to_tensor(x), draws))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (13, 7), (96, 48), (128, 64), (64, 33)])
def test_fused_is_the_tensors(shape):
    "Every size, also smaller than the blur's reach, and each image with all five operations."
    x = np.random.default_rng(0).integers(0, 256, (24, *shape, 3), np.uint8)
    x[0], x[1] = 0, 255
    for chances in (Augment(), Augment(unchanged=0, probability=1), Augment(flip=1, unchanged=0, strength=0.9)):
        draws = chances.draw(len(x), torch.Generator().manual_seed(3))
        ours = augmented_pixels(x, np.arange(len(x)), draws)
        theirs = reference(x, draws)
        assert ours.shape == theirs.shape and ours.is_contiguous(memory_format=torch.channels_last)
        assert float(((ours - theirs) * torch.tensor(STD).view(3, 1, 1)).abs().max()) < 1e-5


def test_rows_by_index():
    "Repeated and unordered rows of a read-only mapping, one row, no row."
    x = np.random.default_rng(1).integers(0, 256, (20, 16, 8, 3), np.uint8)
    x.flags.writeable = False
    for rows in ([3, 3, 19, 0], [7], np.zeros(0, np.int64)):
        assert torch.allclose(augmented_pixels(x, rows), normalise(to_tensor(x[rows])), atol=1e-5)


def test_same_draws_as_a_call_on_tensors():
    "`Augment(x, parts, generator)` and `batch` spend the generator alike and move part maps alike."
    x = np.random.default_rng(2).integers(0, 256, (16, 24, 12, 3), np.uint8)
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    b = batch(Images(x, parts=x[:, ::2, ::2, 0].copy()), np.arange(16), Augment(), one)
    moved, parts = Augment()(to_tensor(x), torch.from_numpy(x[:, ::2, ::2, 0].copy()), two)
    assert torch.equal(parts, b["parts"]) and torch.allclose(normalise(moved), b["x"], atol=1e-4)
    assert torch.equal(one.get_state(), two.get_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_the_cpu():
    x = np.random.default_rng(3).integers(0, 256, (32, 64, 32, 3), np.uint8)
    def made(device: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return batch(Images(x), np.arange(32), Augment(unchanged=0), generator, device)["x"].cpu()
    assert torch.equal(made("cpu"), made("cuda"))           # made on the CPU for both


@pytest.mark.slow
def test_two_processes_decode_into_one_cache(tmp_path):
    "Both finish, both read the same array, one file is left."
    code = """
import hashlib, sys
import numpy as np
from ptl_nb.data import pixels
from ptl_nb.domains import load_domain
seen = np.ascontiguousarray(pixels(load_domain("corridor"), "query", (64, 32), sys.argv[1]))
print(hashlib.sha256(seen).hexdigest())
"""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, tmp_path]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    seen = {run.communicate(timeout=600)[0].split()[-1] for run in runs}
    corridor = load_domain("corridor")
    naive = np.stack([data.decode(file, (64, 32)) for file in corridor.files(corridor.query)])
    assert seen == {hashlib.sha256(naive).hexdigest()}
    assert len(list(tmp_path.iterdir())) == 2, "the array and its lock"


def test_a_broken_file_leaves_no_cache(tmp_path):
    "The error names the file, and nothing half-written stays."
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    with pytest.raises(ValueError, match="b.png"):
        data._write_array(tmp_path / "out" / "x.npy", (2, 16, 8, 3), lambda array: data._decode_into(array, files))
    assert not list((tmp_path / "out").iterdir())
