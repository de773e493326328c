"""What papermill hands on to the notebooks, where results go and what they are called: numbers for texts, slips,
other repositories, people of one's own."""
import ast
import inspect
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tokenize
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import ROOT, outputs, smoke_run
from papermill import inspect_notebook
from safetensors.torch import save_file

import ptl_nb
from ptl_nb import disk
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_method
from ptl_nb.model import backbone
from ptl_nb.parameters import base_name, check_parameters, choose_recipe, has_depthwise
from ptl_nb.provenance import git_revision, people_folder, repository_root, standin_mark
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.runs import ReIDRun
from ptl_nb.search import camera_numbers
from ptl_nb.store import FunctionRun, Store
from ptl_nb.tables import Comparison, set_up


def parameters_cell(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return next(("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])), "")


PAPERMILL = {file.stem: cell for file in sorted((ROOT / "nbs").glob("*.ipynb")) if (cell := parameters_cell(file))}
DECLARED = {name: {n.target.id: (n.annotation.id, ast.get_source_segment(cell, n.value)) for n in ast.parse(cell).body}
            for name, cell in PAPERMILL.items()}
# where a number's text is unambiguous
NUMBERS = {"seeds", "lengths", "since", "until", "find camera", "find query_camera",
           "target_sizes people", "target_sizes seeds", "tracker keep", "ties_trial switched",
           *(f"world_curve {name}" for name in ("people", "images", "cameras", "seeds", "targets", "real"))}


def asked(notebook: str) -> dict:
    "What a notebook, or `tables.set_up` for it, gives `check_parameters` beside its globals."
    cells = json.loads((ROOT / "nbs" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    here = next((c for c in code if "check_parameters(" in c), "")
    if not here: assert any("set_up(globals()" in c for c in code), "nobody checks the parameters"
    tree = ast.parse(here or inspect.getsource(set_up))
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call)
                and getattr(n.func, "id", "") == "check_parameters")
    return {k.arg: ast.literal_eval(k.value) for k in call.keywords}


def checked(notebook: str, **given) -> dict:
    "The globals of a notebook after its parameters were checked, with values as papermill injects them."
    space = {name: ast.literal_eval(value) for name, (_, value) in DECLARED[notebook].items()}
    injected = "# Parameters\n" + "\n".join(f"{k} = {v!r}" for k, v in given.items())
    space |= given | {"In": ["", PAPERMILL[notebook], injected]}
    check_parameters(space, **asked(notebook))
    return space


# papermill reads them all

@pytest.mark.parametrize("notebook", PAPERMILL)
def test_papermill_reads_every_parameter(notebook, caplog):
    with caplog.at_level(logging.WARNING): seen = inspect_notebook(str(ROOT / "nbs" / f"{notebook}.ipynb"))
    assert not [r.message for r in caplog.records if "Unable to parse" in r.message]
    told = {t.start[0]: t.string.lstrip("# ")
            for t in tokenize.generate_tokens(io.StringIO(PAPERMILL[notebook]).readline) if t.type == tokenize.COMMENT}
    lines = {n.target.id: told[n.lineno] for n in ast.parse(PAPERMILL[notebook]).body}
    assert {n: (p["inferred_type_name"], p["default"], p["help"])
            for n, p in seen.items()} == {n: (*DECLARED[notebook][n], lines[n]) for n in lines}


# numbers for texts

@pytest.mark.parametrize("value", [7, 202405, 1000.0, float("nan"), True, None])
@pytest.mark.parametrize("notebook", PAPERMILL)
def test_a_number_for_a_text_is_refused_or_is_its_text(notebook, value):
    for name, (kind, _) in DECLARED[notebook].items():
        if kind != "str": continue
        if {name, f"{notebook} {name}"} & NUMBERS and value not in (True, None) and value == value:
            assert checked(notebook, **{name: value})[name] == str(value)
        else:
            with pytest.raises(ValueError,
                               match=re.escape(f"parameter {name} is {value!r}; it must be str")) as refused:
                checked(notebook, **{name: value})
            assert f"-r {name}" in str(refused.value) and "./007" in str(refused.value)


def test_cameras_by_a_number_that_could_be_another_name():
    assert camera_numbers("2", {1: "door", 2: "till"}) == [2] and camera_numbers("7", {7: "007", 8: "8"}) == [7]
    assert camera_numbers("2", None) == [2]
    assert camera_numbers("2", {1: "002", 2: "till"}) == [1], "papermill makes 2 of 002"
    for cameras in ({1: "door", 2: "till"}, {1: "0", 2: "1"}):
        with pytest.raises(ValueError, match="no camera is called '3'"): camera_numbers("3", cameras)
    assert (camera_numbers("in\u0306", {1: "i\u006e\u0306"}) == [1]
            and camera_numbers("caf\u00e9", {1: "cafe\u0301"}) == [1])


@pytest.mark.parametrize("notebook", PAPERMILL)
def test_texts_that_must_not_be_empty(notebook):
    for name, (kind, default) in DECLARED[notebook].items():
        if kind != "str" or not ast.literal_eval(default) or (notebook, name) == ("table1", "labels"): continue
        with pytest.raises(ValueError, match=f"parameter {name} is ' '; it must not be empty"):
            checked(notebook, **{name: " "})


# fields of the recipe

@pytest.mark.parametrize("notebook", [name for name, declared in DECLARED.items() if "recipe" in declared])
def test_every_notebook_with_a_recipe_takes_changes_of_it(notebook):
    assert DECLARED[notebook]["changes"] == ("str", '""')
    cells = json.loads((ROOT / "nbs" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    here = [c for c in code if "choose_recipe(" in c]
    if not here: assert any("set_up(globals()" in c for c in code), "nobody chooses the recipe"
    calls = [n for c in here or [inspect.getsource(set_up)] for n in ast.walk(ast.parse(c))
             if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "choose_recipe"]
    assert calls and all("changes" in {k.arg for k in call.keywords} for call in calls)
    assert checked(notebook, changes="height=64,width=32")["changes"] == "height=64,width=32"


@pytest.mark.parametrize("text, name, expected", [
    ("", "mini", {}), (" ", "mini", {}), ("height=96, weights=none", "mini", {}),
    ("width=64,height=128", "mini+height=128,width=64", {"height": 128, "width": 64}),
    ("backbone=resnet18", "mini+backbone=resnet18", {"backbone": "resnet18"}),
    ("lr=1e-5, margin = 1", "mini+margin=1.0,lr=1e-05", {"lr": 1e-5, "margin": 1.0}),
    ("milestones=20+30", "mini+milestones=20+30", {"milestones": (20, 30)}),
    ("milestones=none", "mini+milestones=none", {"milestones": ()}),
    ("milestones=30", "mini+milestones=30", {"milestones": (30,)}),
    ("attribute_weighted=true", "mini+attribute_weighted=True", {"attribute_weighted": True}),
    ("precision=fp32,variant=as_code", "mini+variant=as_code,precision=fp32",
     {"precision": "fp32", "variant": "as_code"})])
def test_changes_are_typed_fields_and_the_recipe_is_named_after_them(text, name, expected):
    changed = choose_recipe("mini", changes=text)
    assert changed == replace(RECIPES["mini"], **expected, name=name) and base_name(changed) == "mini"
    known = {field: getattr(changed, field) for field in expected}
    assert {field: type(value) for field, value in known.items()} == {f: type(v) for f, v in expected.items()}


@pytest.mark.parametrize("name", ["paper", "mini", "smoke"])       # those without a start, which fixes the height
def test_clustering_goes_with_a_changed_recipe(name):
    plaza, campus, ssg = load_domain("plaza"), load_domain("campus"), parse_method("BL+SSG")
    plain, changed = (ReIDRun(r, ssg, plaza, campus, 0, {})
                      for r in (RECIPES[name], choose_recipe(name, changes="height=64")))
    assert changed.constants == plain.constants
    assert changed.start.constants.height == 64 and changed.key("cpu")["start"] != plain.key("cpu")["start"]


@pytest.mark.parametrize("changes, device, precision", [
    ("", "cpu", "auto"), ("height=64", "cpu", "auto"), ("backbone=resnet18", "cpu", "auto"),
    ("backbone=mobilenet_v2", "cpu", "fp32"), ("backbone=mobilenet_v2,precision=bf16", "cpu", "bf16"),
    ("backbone=mobilenet_v3_small", "cpu", "fp32"), ("backbone=mobilenet_v2", "cuda", "auto")])
def test_depthwise_networks_train_in_float32_on_a_cpu(changes, device, precision):
    before = torch.get_rng_state()
    changed = choose_recipe("mini", changes=changes, device=device)
    assert changed.precision == precision and changed.name.count("precision") == changes.count("precision")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if not r.backbone.startswith("mobilenet")])
def test_recipes_keep_the_precision_of_the_device(name):
    assert choose_recipe(name) == RECIPES[name] and RECIPES[name].precision == "auto"
    assert not has_depthwise(backbone(RECIPES[name].backbone)[0])


def test_the_recipe_for_own_cameras_is_in_float32_on_a_cpu_only():
    assert choose_recipe("camera").precision == "fp32" and choose_recipe("camera", device="cuda").precision == "auto"


def test_all_fields_changed_make_a_name_that_is_a_folder(tmp_path):
    given = {"height": 64, "width": 32, "epochs": 2, "milestones": "1+2", "variant": "as_code", "precision": "fp32"}
    numbers = {f: 32 for f, kind in Recipe.__annotations__.items() if kind in (int, "int")}
    text = ",".join(f"{f}={v}" for f, v in (numbers | given).items())
    changed = choose_recipe("mini", changes=text)
    assert disk.ensure_writable(tmp_path / changed.name / "table2").is_dir() and base_name(changed) == "mini"
    assert choose_recipe("mini", changes=f"{text},margin=0.4").name != changed.name


def weights_of(seed: int, file: Path) -> Path:
    "Weights of a ResNet-18 from its seed."
    torch.manual_seed(seed)
    save_file(torchvision.models.resnet18().state_dict(), file)
    return file


@pytest.mark.slow
def test_weights_are_told_and_kept_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    plaza, campus = load_domain("plaza"), load_domain("campus")
    file = weights_of(0, tmp_path / "mine.safetensors")

    def run(place: str = "~/mine.safetensors"):
        changed = choose_recipe("smoke", changes=f"backbone=resnet18,weights={place}")
        return changed.name, ReIDRun(changed, parse_method("BL"), plaza, campus, 0, {}).key("cpu")

    name, key = run()
    assert re.fullmatch("smoke\\+backbone=resnet18,weights=[0-9a-f]{8}", name)
    shutil.copyfile(file, tmp_path / "copy.safetensors")
    assert run("~/copy.safetensors") == (name, key)
    weights_of(1, file)
    assert run()[0] != name and run()[1] != key


@pytest.mark.slow
def test_a_table_of_a_changed_recipe(tmp_path):
    smoke_run("table2", tmp_path / "out.ipynb", "changes=width=32,height=64", "methods=BL")
    shown = outputs(tmp_path / "out.ipynb")
    assert "recipe smoke+height=64,width=32 (as_paper), mini at 64\\u00d732" in shown
    assert "smoke+height=64,width=32/table2/standin-" in shown and "smoke/table2" not in shown


# a session of one's own

def test_slips_and_cells_of_ones_own_are_passed_over():
    cells = ["%matplotlib inline", 'source: str = "market"\nsmoke: bool = None', "for", "x = (1 % 2\n% 3)", "'a\0b'",
             "# Parameters of a plot\nwidth = 3",
             "# Parameters\nimport os\nos.environ['A'] = 'b'\na, b = 1, 2\nsource = 'duke'"]
    check_parameters({"In": cells, "source": "duke", "smoke": None})
    with pytest.raises(ValueError, match="unknown parameter 'sorce'; did you mean 'source'"):
        check_parameters({"In": [*cells, "# Parameters\nimport os\nsorce = 'duke'"], "source": "duke", "smoke": None})
    check_parameters({"In": ['sorce: str = "market"\nsmoke: bool = None', 'source: str = "market"\nsmoke: bool = None',
                             "# Parameters\nsource = 'duke'"], "source": "duke", "sorce": "market", "smoke": None})


# other repositories

def git(folder, *words):
    return subprocess.run(("git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *words),
                          capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.txt").write_text("mine")
    git(folder, "init", "-q"); git(folder, "add", "mine.txt")
    git(folder, "commit", "-qm", str(folder))      # the same text twice within a second would be one commit
    return git(folder, "rev-parse", "HEAD")


def revision(path: Path, cwd: Path, **env) -> str:
    "What the package that lies in `path` says, started in `cwd`."
    code = "import ptl_nb.provenance as p; print(p.__file__, p.git_revision())"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(path), **env})
    file, said = done.stdout.split()
    assert Path(file).is_relative_to(path)
    return said


def test_the_revision_is_that_of_the_packages_own_checkout(tmp_path, monkeypatch):
    theirs = repository(tmp_path / "theirs")
    mine = git(ROOT, "rev-parse", "HEAD")
    monkeypatch.chdir(tmp_path / "theirs")
    assert git_revision().removesuffix("+changes") == mine != theirs
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs/.git"))
    assert git_revision().removesuffix("+changes") == mine


@pytest.mark.slow
def test_the_revision_of_an_installed_package_is_its_version(tmp_path):
    theirs = repository(tmp_path / "theirs")
    place = tmp_path / "theirs/venv/site-packages"
    shutil.copytree(ROOT / "ptl_nb", place / "ptl_nb", ignore=shutil.ignore_patterns("__pycache__", "standin_data"))
    (tmp_path / "elsewhere").mkdir()
    for cwd in (tmp_path / "theirs", tmp_path / "elsewhere"): assert revision(place, cwd) == ptl_nb.__version__
    # a copy of the sources, unpacked in a repository of the user's
    shutil.copyfile(ROOT / "settings.ini", place / "settings.ini")
    assert revision(place, tmp_path / "theirs") == ptl_nb.__version__
    own = repository(place)
    assert revision(place, tmp_path / "theirs").removesuffix("+changes") == own != theirs


@pytest.mark.parametrize("settings",
                         ["[DEFAULT]\nlib_name = other\n", "lib_name = ptl_nb", "[DEFAULT]\nrepo = ptl_nb\n", "\udcff"])
def test_another_nbdev_project_is_not_taken_for_this_one(tmp_path, monkeypatch, settings):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "settings.ini").write_text(settings, errors="surrogateescape")
    monkeypatch.chdir(tmp_path / "nbs")
    assert repository_root() == tmp_path / "nbs"
    monkeypatch.chdir(ROOT / "nbs")
    assert repository_root() == ROOT


# names of files

def folder_of(domain, place: Path, count: int = 3) -> Path:
    for path in domain.train.path[:count]:
        (place / "a").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(domain.root / path, place / "a" / Path(path).name)
    return place


def test_two_folders_called_alike_have_two_names(tmp_path):
    plaza, campus = load_domain("plaza"), load_domain("campus")
    one, other = (load_domain(folder_of(d, tmp_path / d.name / "crops")) for d in (plaza, campus))
    assert one.name == other.name == "crops" and one.slug != other.slug and one.slug == f"crops-{one.data_hash()[:8]}"
    assert plaza.slug == "plaza" and campus.slug == "campus"
    named = [Comparison(plaza, d, RECIPES["smoke"], {"BL": {0: None}}, {}).stem for d in (one, other, campus)]
    assert len(set(named)) == 3 and named[2] == "standin-plaza-campus-seed-0-rows-BL"
    shutil.copytree(plaza.root, tmp_path / "copy", ignore=shutil.ignore_patterns("truth"))
    # a stand-in's images under its name, and others than the stand-in's
    part = load_domain(tmp_path / "copy/bounding_box_train")
    assert part.name == "plaza" and part.standin and part.slug != "plaza"


@pytest.mark.parametrize("name", ["камера " * 30, "監視" * 40, "é" * 100, "e\u0301" * 80, "x" * 250, "a\nb", "[a]*?"])
def test_names_of_any_length_and_letters_make_files(tmp_path, name):
    place = tmp_path / name.encode()[:250].decode("utf-8", "ignore")
    domain = load_domain(folder_of(load_domain("plaza"), place))
    scores = {f"BL {i} ü": {s: None for s in range(60)} for i in range(30)}
    x = Comparison(domain, domain, RECIPES["smoke"], scores, {}, "oracle labels", True)
    for stem in (x.stem, domain.slug):
        with disk.atomic_write(tmp_path / "out" / f"{stem}-embeddings-tsne-100000.png") as draft: draft.write_text("x")
        assert stem.isprintable() and not set(stem) & set("*?[]")
    by_hand = replace(load_domain("plaza"), name=name * 3)
    made = Store(tmp_path / "runs",
                 progress=False).make(FunctionRun(f"labels {by_hand.name}", {"a": 1}, lambda folder: {}))
    assert made.is_dir() and made.name.isascii()
    other = replace(x, scores={f"{m}!": s for m, s in x.scores.items()})
    assert other.stem != x.stem


def test_pictures_of_people_who_are_not_rendered_stay_out_of_git(tmp_path):
    assert people_folder(tmp_path, True) == tmp_path and not list(tmp_path.iterdir())
    own = people_folder(tmp_path, False)
    repository(tmp_path)
    (own / "people.png").write_text("x")
    assert own == tmp_path / "own" and git(tmp_path, "status", "--porcelain") == ""
    assert [standin_mark(*x)
            for x in ((True, True), (False, True), (False, False))] == ["standin-", "with-standins-", ""]
