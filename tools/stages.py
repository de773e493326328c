"""What `soak.py` kills: each stage fills a folder from an empty one, or from what `soak.prepared` left there. Imported
once, by the server that the processes are forked from, with the compiled functions ready."""
import functools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ptl_nb import data, label_runs, runs
from ptl_nb import ssg as ssg_module
from ptl_nb import store as store_module
from ptl_nb.data import augmented_pixels, pixels
from ptl_nb.deploy import write_card
from ptl_nb.disk import write_json
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import evaluate
from ptl_nb.export import export_int8, export_onnx, write_model
from ptl_nb.gallery import INDEX_FILE, add_images, build_index, load_index, open_gallery, save_index
from ptl_nb.label_runs import AttributeRun, LabelRun, ParserRun, label_sources
from ptl_nb.labels import read_attributes, write_provenance
from ptl_nb.launch import label_model_times, per_iteration, training_step
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.model import PTLNet
from ptl_nb.parameters import choose_recipe
from ptl_nb.runs import ReIDRun, load_reid, score_model
from ptl_nb.search import faiss_engine
from ptl_nb.ssg import SSG_RECIPES, pseudo_labels, set_head
from ptl_nb.standins import truth_store
from ptl_nb.store import Store
from ptl_nb.tables import Experiment, compare, save_comparison
from ptl_nb.trainer import Session

DOMAINS = ("campus", "corridor", "plaza")


def logged(root: Path, module, name: str, what) -> None:
    "From now on a function of a module writes down what it has made."
    real = getattr(module, name)

    def call(*given):
        real(*given)
        with open(root / "made.log", "a") as log: log.write(f"{what(*given)}\n")

    setattr(module, name, call)


def phase(root: Path, name: str, called: str) -> None:
    "From now on a function of SSG writes down that its phase has begun."
    real = getattr(ssg_module, name)

    def call(*given):
        (root / "phase").write_text(called)
        return real(*given)

    setattr(ssg_module, name, call)


def parts(root: Path, facts: dict):
    "Store, recipe, domains and label stores that the stages share; states are saved often, for short runs."
    logged(root, store_module, "fill_run", lambda store, run, draft: run.name)
    logged(root, data, "_write_array", lambda target, *rest: target.name)
    phase(root, "pseudo_labels", "clustering")
    phase(root, "ssg_losses", "training")
    if facts.get("cold"): os.environ["PTL_CACHE"] = str(root / "cache")       # stand-ins and pixels are made anew
    label_runs.CHUNK = 128
    for module in (runs, label_runs): module.Session = functools.partial(Session, save_seconds=0.5)
    epochs = facts.get("epochs", 1)
    recipe = choose_recipe(
        "smoke", epochs=epochs, milestones=(epochs,), parser_iterations=facts.get("parser_iterations", 1),
        parser_width=16, attribute_epochs=facts.get("attribute_epochs", 1), attribute_milestones=(1,),
        attribute_share=facts.get("attribute_share", 0.02), attribute_batch=8)
    source, target = load_domain("plaza"), load_domain("campus")
    (root / "started").touch()
    labels = {d.name: truth_store(d.name) for d in (source, target)}
    return Store(root / "runs", progress=False), recipe, source, target, labels


def baseline(root: Path, facts: dict) -> Path:
    store, recipe, source, target, labels = parts(root, facts)
    return store.make(ReIDRun(recipe, parse_method("BL"), source, target, 0, labels))


def training(root: Path, facts: dict) -> None:
    store, recipe, source, target, labels = parts(root, facts)
    store.make(ReIDRun(recipe, parse_method("PTL"), source, target, 0, labels))


def label_models(root: Path, facts: dict) -> None:
    "Parser and attribute model."
    store, recipe, *_ = parts(root, facts)
    for kind in (ParserRun, AttributeRun): store.make(kind(recipe, label_sources(origin="standin")))


def labelling(root: Path, facts: dict) -> None:
    store, recipe, *_ = parts(root, facts)
    sources = label_sources(origin="standin")
    splits = ("train", "query", "gallery")
    for name in DOMAINS: store.make(LabelRun(recipe, load_domain(name), sources, splits))


def extraction(root: Path, facts: dict) -> None:
    "Scores of one model on three domains, with and without BN re-estimation."
    store, recipe, source, target, labels = parts(root, facts)
    run = store.make(ReIDRun(recipe, parse_method("BL"), source, target, 0, labels))
    for name in DOMAINS:
        for method in parse_methods("BL, BL+BN^t"): score_model(store, recipe, run, load_domain(name), method)


def ssg(root: Path, facts: dict) -> None:
    "Clustering and training in turn: full SSG, re-ranked. A clustering is not written: it is made with its round."
    store, recipe, source, target, labels = parts(root, facts)
    short = replace(SSG_RECIPES["smoke"], rounds=facts.get("rounds", 2), epochs=1)
    store.make(ReIDRun(recipe, parse_method("BL+SSG"), source, target, 0, labels, short))


def true_labels(root: Path, facts: dict) -> None:
    "Label stores for `table`, which asks where labels come from: the truth of the stand-ins, said to be that."
    for name in DOMAINS:
        folder = root / "labels" / name
        shutil.copytree(truth_store(name), folder)
        paths = load_domain(name).train.path
        vocabulary, _ = read_attributes(folder, paths)
        write_provenance(folder, "parts", "truth", "truth", len(paths), True)
        write_provenance(folder, "attributes", "truth", "truth", len(paths), True, vocabulary.columns)


def table(root: Path, facts: dict) -> None:
    "A table of three rows and two seeds, with what is saved of it."
    store, recipe, source, target, _ = parts(root, facts)
    labels = {d.name: root / "labels" / d.name for d in (source, target)}
    methods = parse_methods(facts.get("methods", "BL, PTL, PTL+BN^t"))
    wanted = Experiment(store, recipe, source, target, methods, [0, 1], labels)
    save_comparison(compare(wanted), root / "table")


def index(root: Path, facts: dict) -> None:
    "A gallery as a run of the store, and a saved index that grows piece by piece, with a FAISS index beside it."
    store, recipe, source, target, labels = parts(root, facts)
    net = load_reid(store.make(ReIDRun(recipe, parse_method("BL"), source, target, 0, labels)), recipe)
    for name in DOMAINS: open_gallery(store, net, recipe, load_domain(name))
    place = root / "index"
    indexed = [build_index(net, recipe, target, (split,)) for split in ("train", "gallery")]
    pieces = [one.take(np.arange(i, 400, 16)) for one in indexed for i in range(16)]
    grown = load_index(place) if (place / INDEX_FILE).is_file() else None      # goes on from the images in it
    for piece in pieces:
        if grown is not None and grown.places.get_indexer(piece.places)[0] >= 0: continue
        grown = load_index(save_index(piece, place)) if grown is None else add_images(grown, piece, place)
    try: faiss_engine(grown, "flat", folder=place)
    except ImportError: pass


def export(root: Path, facts: dict) -> None:
    "The files of a deployed model as `adapt` leaves them: weights, recipe, card, ONNX, int8; written anew each time."
    store, recipe, source, target, labels = parts(root, facts)
    net = load_reid(store.make(ReIDRun(recipe, parse_method("BL"), source, target, 0, labels)), recipe)
    place = root / "export"
    seen = np.array(pixels(target, "query", recipe.size)[:40])
    write_model(net, recipe, place)
    write_card(place, "a card\n" * 100)
    try:
        export_onnx(net, place / "model.onnx", recipe.size, seen)
        export_int8(place / "model.onnx", place / "int8.onnx", seen)
    except ImportError: pass


def measure(root: Path, facts: dict) -> None:
    "Seconds of an epoch of PTL, an iteration of the parser, an epoch of the attribute model."
    _, recipe, source, target, _ = parts(root, facts)
    iterations, step = training_step(recipe, parse_method("PTL"), source, target, (2,) * 105, "cpu")
    models = label_model_times(recipe, label_sources(origin="standin"), "cpu")
    attributes = models["attribute model"]
    write_json(root / "measured.json", {"epoch": iterations * per_iteration(step), "parser": models["parser"][1],
                                        "attributes": attributes[0] * attributes[1]})


def warm() -> None:
    "Compile what a stage compiles; on one thread, so that nothing runs when processes are forked."
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (64, 48, 24, 3), np.uint8)
    who = np.arange(64) % 8 + 1
    augmented_pixels(x, np.arange(64), data.Augment().draw(64, torch.Generator().manual_seed(0)))
    features = rng.random((64, 16), np.float32)
    evaluate(features, features, who, who, who * 0, who * 0 + 1)
    for recipe in (replace(SSG_RECIPES["smoke"], distance=d) for d in ("jaccard", "euclidean")):
        net = PTLNet(4, backbone_name="mini").eval()
        set_head(net, recipe)
        pseudo_labels(net, x, recipe, source=x[:, ::-1].copy() if recipe.distance == "jaccard" else None)


if os.environ.get("PTL_SOAK_WARM"): warm()
