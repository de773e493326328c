"Recipes of trainings and of adaptations by clusters, and what an adaptation is given."
import functools
from collections.abc import Callable

import numpy as np
import torch

from ptl_nb import cluster_contrast, labellers, model, ssg
from ptl_nb.parameters import choose_recipe

from bad_inputs.catalogue import Case, add, call
from bad_inputs.made import PIXELS, SMALL

CASES: list[Case] = []
bad = functools.partial(add, CASES)


# recipes

def recipe(**changes) -> Callable: return call(choose_recipe, "smoke", **changes)


for name, changes, *words in [
    ("unknown name", None, "unknown recipe 'papper'", "did you mean 'paper'"),
    ("unknown field", {"epoch": 3}, "unknown recipe field 'epoch'", "did you mean 'epochs'"),
    ("unknown variant", {"variant": "as_papr"}, "variant is 'as_papr'"),
    ("unknown pooling", {"pooling": "mean"}, "pooling is 'mean'"),
    ("unknown precision", {"precision": "fp8"}, "precision is 'fp8'"),
    ("no epochs", {"epochs": 0}, "epochs is 0", "at least 1"),
    ("text for a number", {"epochs": "40"}, "epochs is '40'", "int"),
    ("a fraction of an epoch", {"epochs": 1.5}, "epochs is 1.5", "int"),
    ("a truth value for a number", {"epochs": True}, "epochs is True", "int"),
    ("nothing for a number", {"epochs": None}, "epochs is None"),
    ("a rate of 0", {"lr": 0}, "lr is 0", "above 0"),
    ("a negative rate", {"lr": -1e-3}, "lr is -0.001"),
    ("a rate of NaN", {"lr": float("nan")}, "lr is nan"),
    ("an infinite rate", {"lr": float("inf")}, "lr is inf"),
    ("text for a rate", {"lr": "3.5e-4"}, "lr is '3.5e-4'", "float"),
    ("a rate of NaN for the attribute model", {"attribute_lr": float("nan")}, "attribute_lr is nan"),
    ("a negative weight", {"weight_parts": -0.1}, "weight_parts is -0.1"),
    ("a weight of NaN", {"weight_id": float("nan")}, "weight_id is nan"),
    ("a negative decay", {"weight_decay": -1e-4}, "weight_decay is -0.0001"),
    ("a margin of NaN", {"margin": float("nan")}, "margin is nan"),
    ("a negative margin", {"margin": -0.3}, "margin is -0.3"),
    ("milestones that descend", {"milestones": (3, 1)}, "milestones are (3, 1)", "ascend"),
    ("text for milestones", {"milestones": "24,34"}, "milestones is '24,34'"),
    ("a number for milestones", {"milestones": 24}, "milestones is 24"),
    ("fractions of milestones", {"milestones": (1.5,)}, "milestones"),
    ("milestones of the attribute model that descend", {"attribute_milestones": (9, 3)},
     "attribute_milestones are (9, 3)"),
    ("negative milestones", {"milestones": (-1, 3)}, "milestones"),
    ("one identity", {"identities": 1}, "at least 2"),
    ("one image", {"images": 1}, "at least 2"),
    ("a warm-up of 1", {"warmup": 1}, "warmup is 1", "[0, 1)"),
    ("a warm-up of NaN", {"warmup": float("nan")}, "warmup is nan"),
    ("statistics of one image", {"bn_batch": 1}, "bn_batch is 1", "at least 2"),
    *((f"{name} of one image", {name: 1}, f"{name} is 1", "at least 2 images")
      for name in ("target_batch", "attribute_batch", "parser_batch")),
    ("no channels", {"parsing_hidden": 0}, "parsing_hidden is 0"),
    ("a negative width", {"attribute_hidden": -8}, "attribute_hidden is -8"),
    ("a height of 0", {"height": 0}, "height is 0"),
    ("a parser's height of 100", {"parser_height": 100}, "parser_height is 100", "multiple of 16"),
    ("a parser's height of 0", {"parser_height": 0}, "parser_height is 0"),
    ("a parser of no channels", {"parser_width": 0}, "parser_width is 0"),
    ("a share of 1", {"attribute_share": 1.0}, "attribute_share is 1.0", "(0, 1)"),
    ("a negative weight of parts", {"attribute_weight_parts": -1.0}, "attribute_weight_parts is -1.0"),
    ("a number for a name", {"backbone": 50}, "backbone is 50", "str"),
    ("a number for weights", {"weights": 1}, "weights is 1"),
    ("text for a truth value", {"attribute_weighted": "no"}, "attribute_weighted is 'no'", "bool"),
]:
    bad("recipe", name, call(choose_recipe, "papper") if changes is None else recipe(**changes), *words)
for name, text, *words in [
    ("a field without a value", "height", "changes is 'height'", "'height' in it is not name=value"),
    ("a value without a field", "=128", "'=128' in it is not name=value"),
    ("an empty value", "height=,width=24", "'height=' in it is not name=value"),
    ("a comma too many", "height=64,", "'' in it is not name=value"),
    ("a path with a comma", "weights=a,b.safetensors", "'b.safetensors' in it is not name=value"),
    ("a misspelt field", "heigth=128", "unknown recipe field 'heigth'", "did you mean 'height'"),
    ("a field twice", "height=64,height=96", "it names height twice"),
    ("the name", "name=mine", "names the field name", "named after its changes"),
    ("text for a number", "height=tall", "changes: height is 'tall'; it must be int"),
    ("a fraction for a number", "height=1.5", "changes: height is '1.5'; it must be int"),
    ("text for a rate", "lr=fast", "changes: lr is 'fast'; it must be float"),
    ("nothing for a number", "height=none", "changes: height is 'none'; it must be int"),
    ("a word for a truth value", "attribute_weighted=maybe", "'maybe'; it must be True or False"),
    ("milestones as a range", "milestones=24-34", "milestones is '24-34'", "such as 24+34"),
    ("milestones that descend", "milestones=34+24", "milestones are (34, 24)", "ascend"),
    ("a rate of NaN", "lr=nan", "lr is nan"),
    ("a number of 5,000 digits", f"epochs={'9' * 5000}", "epochs is '999", "it must be int"),
    ("an unknown network", "backbone=mobilenet_v4", "unknown backbone 'mobilenet_v4'", "did you mean 'mobilenet_v2'"),
    ("weights of mini", "weights=imagenet", "the backbone 'mini' has no pretrained weights")]:
    bad("changed recipe", name, recipe(changes=text), *words)
bad(
    "changed recipe", "weights that are not there", recipe(changes="backbone=resnet18,weights=no.safetensors"),
    "no weights file no.safetensors", error=FileNotFoundError)
bad(
    "changed recipe", "a parameter of its own", recipe(variant="as_code", changes="variant=as_paper"),
    "changes names variant, which is a parameter of its own here")
bad(
    "recipe", "an unknown parser", lambda f: lambda: labellers_network(parser="unett"), "unknown parser 'unett'",
    "unet")


def labellers_network(**changes):
    "The parser of a recipe."
    return labellers.parser_network(choose_recipe("smoke", **changes))


for name, changes, *words in [
    ("an unknown pooling", {"pooling": "sum"}, "pooling is 'sum'", "average, max"),
    ("an unknown distance", {"distance": "manhattan"}, "distance is 'manhattan'"),
    ("an unknown head", {"head": "tail"}, "head is 'tail'"),
    ("k1 of 0", {"k1": 0}, "k1 is 0", "at least 1"),
    ("k2 above k1", {"k1": 5}, "k2 is 6, k1 is 5"),
    ("text for k1", {"k1": "20"}, "k1 is '20'", "int"),
    ("a fraction of a round", {"rounds": 2.5}, "rounds is 2.5", "int"),
    ("no rounds", {"rounds": 0}, "rounds is 0"),
    ("a batch of one cluster", {"batch": 4}, "batch is 4"),
    ("a batch that does not divide", {"batch": 30}, "batch is 30 and images is 4"),
    ("no images", {"images": 0}, "images is 0"),
    ("a rate of 0", {"lr": 0.0}, "lr is 0.0"),
    ("a rate of NaN", {"lr": float("nan")}, "lr is nan"),
    ("an infinite rate", {"lr": float("inf")}, "lr is inf"),
    ("a source weight of 1", {"source_weight": 1.0}, "source_weight is 1.0"),
    ("a probability of 2", {"flip": 2.0}, "flip is 2.0", "[0, 1]"),
    ("a rho of 0", {"rho": 0.0}, "rho is 0.0", "(0, 1]"),
    ("a rho of NaN", {"rho": float("nan")}, "rho is nan"),
    ("a share above 1", {"max_share": 1.5}, "max_share is 1.5"),
    ("areas that descend", {"erase_area": (0.2, 0.02)}, "erase_area is (0.2, 0.02)"),
    ("one area", {"erase_area": (0.2,)}, "erase_area"),
    ("an aspect of 0", {"erase_aspect": 0.0}, "erase_aspect 0.0"),
    ("two colours", {"erase_value": (0.1, 0.2)}, "erase_value"),
    ("a negative decay", {"weight_decay": -1.0}, "weight_decay is -1.0"),
    ("a negative margin", {"margin": -1.0}, "margin is -1.0"),
    ("a rate as text", {"lr": "6e-5"}, "lr is '6e-5'"),
]:
    bad("SSG recipe", name, lambda f, changes=changes: lambda: ssg.SSGRecipe(**changes), *words)
for name, changes, *words in [
    ("an eps of 0", {"eps": 0.0}, "eps is 0.0", "(0, 1]"),
    ("an eps above every distance", {"eps": 1.5}, "eps is 1.5"),
    ("a temperature of NaN", {"temperature": float("nan")}, "temperature is nan"),
    ("a momentum of 2", {"momentum": 2.0}, "momentum is 2.0", "[0, 1]"),
    ("k2 above k1", {"k1": 5}, "k2 is 6, k1 is 5"),
    ("one image of each", {"images": 1}, "images is 1", "at least 2"),
    ("one cluster", {"min_clusters": 1}, "min_clusters is 1", "at least 2"),
    ("no iterations", {"iterations": 0}, "iterations is 0", "at least 1"),
    ("a share of 0", {"max_share": 0.0}, "max_share is 0.0"),
    ("a rate as text", {"lr": "3.5e-4"}, "lr is '3.5e-4'"),
    ("areas that descend", {"erase_area": (0.4, 0.02)}, "erase_area is (0.4, 0.02)"),
]:
    bad("Cluster Contrast recipe", name, lambda f, changes=changes: lambda: cluster_contrast.ContrastRecipe(**changes),
        *words)
bad(
    "SSG recipe", "an unknown variant", call(ssg.variant, ssg.SSGRecipe(), "dager"), "unknown variant 'dager'",
    "dagger")
bad(
    "SSG recipe", "of a recipe without one", call(ssg.choose_ssg, "own", "full"),
    "no SSG recipe goes with the recipe 'own'", "give `ssg`")


def adapted(images: np.ndarray, recipe: ssg.SSGRecipe, *source: np.ndarray, **named) -> Callable:
    "An adaptation to these images."
    return lambda folder: lambda: ssg.adapt(model.PTLNet(2, **SMALL), images, recipe, *source, **named)


PLAIN = ssg.SSGRecipe(distance="euclidean")
TWELVE = np.tile(PIXELS, (2, 1, 1, 1))
for name, case, *words in [
    ("float images", adapted(PIXELS / 255, PLAIN), "pixels are float64", "uint8"),
    ("no source", adapted(TWELVE, ssg.SSGRecipe()), "needs source images", "source_weight=0"),
    ("source of another size", adapted(TWELVE, ssg.SSGRecipe(), PIXELS[:, :4]), "decode both at one size"),
    ("identities of other images", adapted(TWELVE, PLAIN, truth=np.zeros(5)), "truth holds 5 identities for 12 images"),
    ("no images", adapted(PIXELS[:0], ssg.SSGRecipe()), "0 images of the target", "two clusters of 4 have 8"),
    ("grey images", adapted(PIXELS[..., :1], ssg.SSGRecipe()), "pixels are uint8 of shape (6, 8, 4, 1)")]:
    bad("SSG input", name, case, *words)
bad(
    "SSG input", "a map of one row", call(ssg.pool, torch.zeros(2, 3, 1, 4)), "has no upper and lower half",
    "taller images")
bad(
    "SSG input", "no features", lambda f: lambda: ssg.part_features(model.PTLNet(2, **SMALL), PIXELS[:0]),
    "no images: there are no features to cluster")
bad(
    "SSG input", "clusters of other images", call(ssg.quality, [0, 0, 1], [1, 1]),
    "clusters of shape (3,) and identities of shape (2,)")
