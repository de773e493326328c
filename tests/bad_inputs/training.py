"Samplers, images, networks and losses: what a training is given."
import functools
from collections.abc import Callable

import numpy as np
import torch

from ptl_nb import evaluator, labellers, losses, model
from ptl_nb.data import Images, LabelledImages, batches, identity_classes, identity_epoch, pixels, random_epoch
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_method
from ptl_nb.ptl import check_images
from ptl_nb.recipe import RECIPES
from ptl_nb.trainer import Session, Setting, fit

from bad_inputs.catalogue import Case, add, call
from bad_inputs.made import PIXELS, SMALL
from test_domains import csv, touch

CASES: list[Case] = []
bad = functools.partial(add, CASES)


# samplers, images, training

IMAGES = LabelledImages(PIXELS, np.array([0, 0, 0, 1, 1, 1]))
SMOKE = RECIPES["smoke"]


def checked(method: str, source: Images, target: Images | None = None) -> Callable:
    "What a training checks first."
    return call(lambda: check_images(Setting(None, SMOKE, source, target), parse_method(method)))


bad("training", "one identity", call(identity_classes, [4, 4, 4]), "1 identity in 3 training images", "at least two")
bad(
    "training", "fewer identities than a batch",
    call(identity_epoch, np.array([0, 0, 1, 1]), 16, 4, np.random.default_rng(0)), "a batch of 16 identities from 2",
    "lower `identities`")
bad(
    "training", "fewer images than a batch", call(random_epoch, 5, 32, np.random.default_rng(0)),
    "5 images do not fill one batch of 32", "lower the batch size")
bad(
    "training", "labels of other images", call(LabelledImages, PIXELS, np.zeros(5, np.int64)),
    "classes holds 5 rows for 6 images")
bad(
    "training", "a target without part maps", checked("PTL", IMAGES, Images(PIXELS)),
    "needs part maps of the target domain", "predict them first")
bad("training", "no target", checked("PTL", IMAGES), "method PTL needs target images")
bad("training", "no identities", checked("BL", Images(PIXELS)), "the source has no identities", "identity_classes")
for name, given, *words in [
    ("classes that are fractions", {"classes": np.zeros(6)}, "classes are float64 of shape (6,)", "(N) of integers"),
    ("classes as a column", {"classes": np.zeros((6, 1), int)}, "classes are int64 of shape (6, 1)"),
    ("classes as a list", {"classes": [0] * 6}, "classes are list"),
    ("flat part maps", {"parts": np.zeros((6, 4), np.uint8)}, "parts are uint8 of shape (6, 4)", "(N, h, w)"),
    ("part maps of fractions", {"parts": np.zeros((6, 4, 2))}, "parts are float64"),
    ("a table of attributes", {"attributes": np.zeros((6, 2))}, "attributes are float64 of shape (6, 2)", "(N, A, M)"),
    ("text for attributes", {"attributes": np.full((6, 1, 2), "yes")}, "attributes are <U3"),
    ("float pixels", {"pixels": PIXELS / 255}, "pixels are float64", "uint8"),
    ("one image", {"pixels": PIXELS[0]}, "pixels are uint8 of shape (8, 4, 3)"),
    ("images without rows", {"pixels": PIXELS[:, :0]}, "pixels are uint8 of shape (6, 0, 4, 3)"),
    ("a list of images", {"pixels": list(PIXELS)}, "pixels are list"),
    ("a tensor", {"pixels": torch.zeros(6, 8, 4, 3, dtype=torch.uint8)}, "pixels are torch.uint8")]:
    bad("images", name, call(LabelledImages, **{"pixels": PIXELS, "classes": IMAGES.classes, **given}), *words)
bad("images", "in batches of none", call(batches, PIXELS, 0), "a batch of 0 images")
bad("images", "in batches of less than none", call(batches, PIXELS, -1), "a batch of -1 images")
for size in (0, -1):
    bad(
        "images", f"parsed in batches of {size}",
        lambda f, size=size: lambda: labellers.predict_parts(
            labellers.parser_network(SMOKE), PIXELS, SMOKE, size=size), f"a batch of {size} images")
    bad(
        "images", f"described in batches of {size}",
        lambda f, size=size: lambda: labellers.predict_attributes(
            model.PTLNet(attributes=(2, 2), **SMALL), PIXELS, SMOKE, size=size),
        f"a batch of {size} images")
    bad(
        "images", f"extracted in batches of {size}",
        lambda f, size=size: lambda: evaluator.extract(model.PTLNet(2, **SMALL), PIXELS, size=size), f"size is {size}")
    bad(
        "training", f"a batch of {size}", call(random_epoch, 5, size, np.random.default_rng(0)),
        f"a batch of {size} images")
bad(
    "images", "statistics of one at a time",
    lambda f: lambda: evaluator.reestimate_bn(model.PTLNet(2, **SMALL), PIXELS, 1), "size is 1", "at least 2")
bad(
    "images", "of a split that is none", lambda f: lambda: pixels(load_domain(csv(f)), "trian", (8, 4)),
    "unknown split 'trian'", "train, query, gallery")
bad(
    "images", "of a split without any",
    lambda f: functools.partial(pixels, load_domain(touch(f / "own" / "a.jpg").parent), "query", (8, 4)),
    "has no query images")
bad("training", "identities of fractions", call(identity_classes, [1.0, 2.5]), "identities are float64", "integers")
bad("training", "identities as a column", call(identity_classes, [[1], [2]]), "identities are int64 of shape (2, 1)")
bad(
    "training", "a batch of no identities",
    call(identity_epoch, np.array([0, 0, 1, 1]), 0, 4, np.random.default_rng(0)),
    "a batch of 0 identities with 4 images each")
bad(
    "training", "a history without rows",
    lambda f: lambda: fit(
        model.PTLNet(2, **SMALL), IMAGES, SMOKE, parse_method("BL"), session=Session(every=0)),
    "every is 0")
bad(
    "training", "a parser without part maps",
    call(labellers.train_parser, Images(PIXELS), SMOKE),
    "have no part maps for the parser to learn")
bad(
    "training", "an attribute model without attributes",
    call(labellers.train_attributes, Images(PIXELS), SMOKE),
    "have no attributes for the model to learn")

# networks asked for what they have not

for name, f in {"features": evaluator.extract, "statistics": evaluator.reestimate_bn}.items():
    bad(
        "network", f"{name} of one without a ReID head",
        lambda folder, f=f: lambda: f(model.PTLNet(attributes=(2, 2), **SMALL), PIXELS), "the network has no ReID head")
bad(
    "network", "attributes of one without attribute heads",
    lambda f: lambda: labellers.predict_attributes(model.PTLNet(2, **SMALL), PIXELS, SMOKE),
    "has no attribute heads")
bad(
    "network", "attributes of two and of three classes",
    lambda f: lambda: labellers.predict_attributes(
        model.PTLNet(attributes=(2, 3), **SMALL), PIXELS, SMOKE), "2 to 3 classes")
bad(
    "network", "a misspelt task",
    lambda f: lambda: model.PTLNet(2, **SMALL)(torch.zeros(2, 3, 32, 16), ("reid", "part")),
    "no head for the task 'part'", "built with reid")
bad(
    "network", "a task without a head",
    lambda f: lambda: model.PTLNet(2, **SMALL)(torch.zeros(2, 3, 32, 16), ("parts",)), "no head for the task 'parts'")

# losses

zeros = torch.zeros
logits = torch.zeros(2, 8, 4, 2)
WEIGHTS = SMOKE.loss_weights
for name, f, arguments, *words in [
    ("one identity in a batch", losses.batch_hard_triplet, (zeros(4, 2), zeros(4).long()),
     "fewer than two identities in a batch of 4"),
    ("every identity once", losses.batch_hard_triplet, (zeros(4, 2), torch.arange(4)), "every identity appears once",
     "two images"),
    ("identities of other features", losses.batch_hard_triplet, (zeros(4, 2), torch.arange(3)),
     "expected (B, D) and (B,)"),
    ("part maps of another size", losses.parsing_loss, (logits, zeros(2, 8, 4).long()), "do not fit logits",
     "resize_parts"),
    ("float part maps", losses.parsing_loss, (logits, zeros(2, 4, 2)), "expected integer classes"),
    ("class 8", losses.parsing_loss, (logits, torch.full((2, 4, 2), 8)), "hold class 8"),
    ("soft labels that do not sum to one", losses.attribute_loss, (zeros(2, 3, 2), torch.ones(2, 3, 2)),
     "sum to 2, not to one"),
    ("NaN soft labels", losses.attribute_loss, (zeros(2, 3, 2), torch.full((2, 3, 2), torch.nan)), "sum to nan"),
    ("soft labels of another shape", losses.attribute_loss, (zeros(2, 3, 2), zeros(2, 2, 2)), "do not fit logits"),
    ("a class that the logits have not", losses.id_loss, (zeros(2, 3), torch.tensor([0, 3])), "hold class 3",
     "classes 0..2"),
    ("a class that torch would leave out", losses.id_loss, (zeros(2, 3), torch.tensor([0, -100])), "hold class -100"),
    ("classes of other images", losses.id_loss, (zeros(2, 3), zeros(3).long()), "expected (B, C) and (B,)"),
    ("no images with identities", losses.id_loss, (zeros(0, 3), zeros(0).long()), "at least one image"),
    ("classes that are fractions", losses.id_loss, (zeros(2, 3), zeros(2)), "identity labels are torch.float32"),
    ("whole numbers for features", losses.batch_hard_triplet, (zeros(4, 2).long(), torch.tensor([0, 0, 1, 1])),
     "features are torch.int64"),
    ("no images with part maps", losses.parsing_loss, (logits[:0], zeros(0, 4, 2).long()),
     "nothing to take the mean of"),
    ("no images with attributes", losses.attribute_loss, (zeros(0, 3, 2), zeros(0, 3, 2)),
     "nothing to take the mean of"),
    ("negative soft labels", losses.attribute_loss, (zeros(1, 1, 2), torch.tensor([[[-0.5, 1.5]]])),
     "soft labels hold -0.5"),
    ("weights of another shape", losses.attribute_loss, (zeros(2, 3, 2), torch.full((2, 3, 2), 0.5), zeros(2)),
     "weights of shape (2,)", "expected (A, M)"),
    ("weights beside lists", losses.attribute_loss, ([zeros(2, 2)], [torch.full((2, 2), 0.5)], zeros(1, 2)),
     "not with lists"),
    ("a list and a tensor", losses.attribute_loss, ([zeros(2, 2)], zeros(2, 1, 2)),
     "one is a tensor and the other a list"),
    ("an unknown loss", losses.total_loss, ({"HPt": zeros(())}, WEIGHTS), "unknown loss 'HPt'", "HP^t"),
    ("no losses", losses.total_loss, ({}, WEIGHTS), "no losses to add up")]:
    bad("loss", name, call(f, *arguments), *words)
