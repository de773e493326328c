"""A short training that saves its state all the time, for tests that kill it: `small_training.py FOLDER PROCESSES`."""
import os
import sys
from pathlib import Path

import numpy as np
import torch

from ptl_nb.checkpoint import save_weights
from ptl_nb.data import Images, LabelledImages
from ptl_nb.methods import parse_method
from ptl_nb.model import PTLNet
from ptl_nb.parallel import start_processes
from ptl_nb.recipe import Recipe
from ptl_nb.trainer import Session, fit

folder, processes = Path(sys.argv[1]), int(sys.argv[2])
ranks = start_processes(processes, minutes=5)          # Fabric starts the other processes by the same command
(folder / f"pid{ranks.rank}").write_text(str(os.getpid()))
epochs = 60 if processes == 1 else 20      # processes that share the cores wait for each other in every step
recipe = Recipe("tiny", backbone="mini", weights=None, height=48, width=24,
                identities=8, images=4, target_batch=16, epochs=epochs, milestones=(2 * epochs // 3,))
rng = np.random.default_rng(0)
x = rng.integers(0, 256, (96, 48, 24, 3), dtype=np.uint8)
source = LabelledImages(x, np.repeat(np.arange(16), 6))
parts = rng.integers(0, 8, (96, 12, 6), dtype=np.uint8)
attributes = rng.dirichlet((1, 1), (96, 5)).astype(np.float32)
torch.manual_seed(0)
net = PTLNet(16, 8, (2,) * 5, "mini")
session = Session(state=folder / "state.safetensors", save_seconds=0.1, ranks=ranks)
target = Images(x, parts=parts, attributes=attributes)
history = fit(net, source, recipe, parse_method("PTL"), target, session=session)
if ranks.first:
    history.to_csv(folder / "history.csv")
    save_weights(net, folder / "model.safetensors")
