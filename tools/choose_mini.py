"""How recipe `mini` got its learning rate: on a third of plaza's TRAINING identities, held out. No test identity and no
target domain is looked at.

    python tools/choose_mini.py      # writes results/mini/choice.csv (stand-in numbers), a few minutes
"""
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from ptl_nb.data import LabelledImages, identity_classes, pixels
from ptl_nb.disk import write_csv
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import evaluate, extract
from ptl_nb.methods import parse_method
from ptl_nb.model import PTLNet
from ptl_nb.provenance import repository_root
from ptl_nb.recipe import RECIPES
from ptl_nb.runs import in_percent
from ptl_nb.trainer import Session, fit

domain = load_domain("plaza")
base = RECIPES["mini"]
rows = []
x = np.array(pixels(domain, "train", base.size))
pid, camid = domain.train.pid.to_numpy(), domain.train.camid.to_numpy()
held = np.isin(pid, np.unique(pid)[::3])
train = LabelledImages(x[~held], identity_classes(pid[~held]))
seen = pd.DataFrame({"pid": pid[held], "camid": camid[held]})
first = ~seen.duplicated().to_numpy()      # one query per person and camera

for lr in (0.002, 0.004):
    # 100 identities: 6 iterations an epoch, 360 in all, as many as mini's 40 epochs of 9
    recipe = replace(base, lr=lr, epochs=60, milestones=(36, 51))
    torch.manual_seed(0)
    net = PTLNet(int(train.classes.max()) + 1, backbone_name=recipe.backbone)

    def watch(epoch):
        if epoch % 10: return
        f = extract(net, x[held], recipe.precision)
        scores = evaluate(f[first], f, pid[held][first], pid[held], camid[held][first], camid[held])
        rows.append({"domain": domain.title, "lr": lr, "iteration": 6 * epoch, **in_percent(scores)})

    fit(net, train, recipe, parse_method("BL"), session=Session(watch=watch, progress=f"lr {lr}"))

write_csv(repository_root() / "results" / "mini" / "choice.csv", pd.DataFrame(rows).round(4))
print(pd.DataFrame(rows).round(3).to_string())
