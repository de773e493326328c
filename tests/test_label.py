"""Labelling any domain as a user does: a plain folder, labels of another model, a killed run that goes on, real
crops where there are some."""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ENV, ROOT, outputs, refusal, smoke_run
from PIL import Image

from ptl_nb import label_runs, shipped_labels
from ptl_nb.domains import load_domain
from ptl_nb.label_runs import AttributeRun, LabelRun, ParserRun, label_sources
from ptl_nb.labels import part_file, read_attributes, read_parts, read_provenance
from ptl_nb.parameters import choose_recipe
from ptl_nb.shipped_labels import ShippedLabels
from ptl_nb.standins import truth_store
from ptl_nb.store import Store


@pytest.fixture
def label(tmp_path, monkeypatch):
    "Runs the notebook; gives what it shows, the folder of its results, and its label store."
    monkeypatch.setitem(ENV, "TMPDIR", str(tmp_path))
    def run(*parameters):
        smoke_run("label", tmp_path / "out.ipynb", *parameters)
        results = next(tmp_path.glob("ptl-smoke-*"))
        assert not (results / "smoke/label").exists(), "pictures of people who are not known to be rendered"
        folder = results / "own/smoke/label"
        facts = json.loads(next(folder.glob("*.json")).read_text())
        return outputs(tmp_path / "out.ipynb"), folder, results / "runs" / facts["labels"], facts
    return run


@pytest.fixture
def crops(tmp_path):
    "A plain folder of 40 crops, one of another size: a stand-in's images without its marker, and the stand-in's paths."
    plaza = load_domain("plaza")
    paths = plaza.train.path[::30].tolist()[:40]
    for i, path in enumerate(paths):
        file = tmp_path / "shop" / f"cam{i % 2}" / f"{i:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plaza.root / path, file)
    Image.open(tmp_path / "shop/cam0/000.jpg").resize((50, 110)).save(tmp_path / "shop/cam0/000.jpg")
    return tmp_path / "shop", paths


@pytest.mark.slow
def test_plain_folder(label, crops, tmp_path):
    shown, folder, store, facts = label(f"domain={crops[0]}", "images=2")
    assert ("40 images (train)" in shown and "40 of 40 images have both "
            "kinds" in shown and "no truth to measure with" in shown)
    assert facts["standin"] and "learnt from rendered people" in facts["title"] and facts["images"]["both"] == 40
    stem = f"with-standins-shop-{load_domain(crops[0]).data_hash()[:8]}"
    assert sorted(p.name.removeprefix(stem) for p in folder.iterdir()) == sorted(
        ["-attributes.csv", "-doubtful.csv", "-doubtful.png", "-parts.csv", "-people.png", "-statistics.png", ".json"])
    listed = pd.read_csv(folder / f"{stem}-doubtful.csv").path
    assert listed.str.fullmatch(r"cam[01]/\d{3}\.jpg").all()
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), f"{file.name} names a path of this machine"
    assert (read_parts(store, ["cam0/000.jpg"]).shape == (1, 110, 50)
            and read_parts(store, ["cam1/001.jpg"]).shape == (1, 128, 64))
    assert read_provenance(store)["attributes"]["count"] == 40


@pytest.mark.slow
def test_labels_of_another_model(label, crops, tmp_path):
    folder, paths = crops
    names = [f"cam{i % 2}/{i:03d}.jpg" for i in range(40)]
    patches = np.array([0, 23, 2, 15, 19, 7, 11, 5], np.uint8)
    true = read_parts(truth_store("plaza"), paths)
    for name, m in list(zip(names, true))[1:30]:                # not the resized one, not the last ten
        file = (tmp_path / "maps" / name).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patches[m]).save(file)
    pd.DataFrame({"path": [*names[:35], "cam9/1.jpg"], "hat": .75,
                  "bag": .25}).to_csv(tmp_path / "their.csv", index=False)
    shown, out, store, facts = label(f"domain={folder}", f"parts_from={tmp_path / 'maps'}", "parts_mapping=densepose24",
                                     f"attributes_from={tmp_path / 'their.csv'}", "made_by=somebody", "images=2")
    assert ("29 images, 11 missing" in shown and "35 images, 5 missing" in shown and "1 foreign" in shown and "29 "
            "of 40 images have both kinds" in shown)
    assert "parser on" not in shown and "attributes on" not in shown, "something was trained"
    assert (read_parts(store, names[1:30]) == true[1:30]).all() and not part_file(store, names[35]).exists()
    assert read_attributes(store, names[:35])[1][0, :, 1].tolist() == [.75, .25]
    assert (not facts["standin"] and facts["provenance"]["parts"]["predicted_by"] == "somebody"
            and (out / f"shop-{load_domain(folder).data_hash()[:8]}-imported.json").is_file())


def test_bad_splits_are_refused():
    assert "name some of train" in refusal("label", "domain=corridor", "splits=trian").says


CHILD = """
import sys, time
from pathlib import Path
from ptl_nb import label_runs
from ptl_nb.domains import load_domain
from ptl_nb.parameters import choose_recipe
from ptl_nb.store import Store

predict = label_runs.predict_parts
def slowly(*arguments):
    time.sleep(.3)
    return predict(*arguments)
label_runs.CHUNK, label_runs.predict_parts = 64, slowly
sources = label_runs.label_sources(origin="standin")
run = label_runs.LabelRun(choose_recipe("smoke"), load_domain("corridor"), sources)
Store(Path(sys.argv[1]), progress=False).make(run)
"""


def contents(store: Path) -> dict[str, str]:
    "Every file of a label store by its hash, times left out."
    out = {p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in store.rglob("*")
           if p.is_file()}
    run, labels = (json.loads((store / f).read_text()) for f in ("run.json", "labels.json"))
    del run["seconds"]
    for entry in labels.values(): del entry["created"]
    return out | {"run.json": run, "labels.json": labels}


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    recipe = choose_recipe("smoke")
    domain = load_domain("corridor")
    sources = label_sources(origin="standin")
    monkeypatch.setattr(label_runs, "CHUNK", 64)
    whole, killed = (Store(tmp_path / name, progress=False) for name in ("whole", "killed"))
    for kind in (ParserRun, AttributeRun): whole.make(kind(recipe, sources))
    shutil.copytree(whole.root, killed.root)
    labels = LabelRun(recipe, domain, sources)
    expected = whole.make(labels)

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(killed.root)], cwd=ROOT, env=env)
    deadline = time.monotonic() + 120
    chunks = ".labels-*.partial/chunks/[!.]*.npy"
    while not (done := list(killed.root.glob(chunks))) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and done and not list(killed.root.glob("labels-*"))
    draft = next(killed.root.glob(".labels-*.partial"))
    (draft / "parts" / ".half.png.1-1.tmp").touch()             # what a kill inside a write leaves

    seen = []
    predict = label_runs.predict_parts

    def counted(net, images, *rest):
        seen.append(len(images))
        return predict(net, images, *rest)

    monkeypatch.setattr(label_runs, "predict_parts", counted)
    resumed = killed.make(labels)
    assert 0 < sum(seen) <= len(domain.train) - 64, "finished pieces were predicted again"
    assert resumed.name == expected.name and contents(resumed) == contents(expected)
    assert len(read_parts(resumed, domain.train.path)) == len(domain.train)


def test_shipped_labels_go_on_where_they_were_interrupted(tmp_path, monkeypatch):
    T = load_domain("corridor")
    T = replace(T, train=T.train.iloc[:200])
    monkeypatch.setattr(shipped_labels, "CHUNK", 64)
    expected = Store(tmp_path / "whole", progress=False).make(ShippedLabels(T))
    seen, predict = [], shipped_labels.label_images

    def counted(net, images, device):
        if seen == [64, 64]: raise KeyboardInterrupt
        seen.append(len(images))
        return predict(net, images, device)

    monkeypatch.setattr(shipped_labels, "label_images", counted)
    store = Store(tmp_path / "killed", progress=False)
    with pytest.raises(KeyboardInterrupt): store.make(ShippedLabels(T))
    seen.clear()
    resumed = store.make(ShippedLabels(T))
    assert seen == [64, 8] and resumed.name == expected.name and contents(resumed) == contents(expected)


@pytest.mark.slow
@pytest.mark.skipif("PTL_REAL" not in os.environ,
                    reason="set PTL_REAL to a folder with crops/ and a domain.csv of real people")
def test_real_crops(label):
    csv = Path(os.environ["PTL_REAL"]) / "domain.csv"
    table = pd.read_csv(csv)
    shown, folder, store, facts = label(f"domain={csv}", "splits=train,query,gallery", "images=2")
    assert facts["standin"] and facts["images"]["both"] == len(table)        # what the models learned from was rendered
    assert ("no truth to measure with" in shown
            and os.environ["PTL_REAL"].encode() not in next(folder.glob("*.json")).read_bytes())
    sizes = [Image.open(csv.parent / p).size[::-1] for p in table.path]
    assert len(set(sizes)) > 1, "these crops have one size only"
    assert read_parts(store, table.path, (64, 32), image_sizes=sizes).shape == (len(table), 64, 32)
