"""What a notebook cannot test about itself: papermill runs from a shell, the wheel, bad parameters."""
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, "MPLBACKEND": "agg"}


def papermill(notebook: str, out: Path, *parameters: str) -> subprocess.CompletedProcess:
    "Run a notebook as a user does, from the repository's root, in the smoke recipe."
    pairs = [x for p in parameters for x in ("-p", *p.split("=", 1))]
    return subprocess.run([sys.executable, "-m", "papermill", f"nbs/{notebook}.ipynb", str(out), "-p", "smoke", "True", "-k", "python3", *pairs],
                          cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)


def outputs(notebook: Path) -> str:
    "All text that a notebook shows."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join(json.dumps(o) for c in cells for o in c.get("outputs", []))


def smoke_run(notebook: str, out: Path, *parameters: str) -> None:
    "Run a notebook in the smoke recipe to its end, leaving results/ alone."
    before = sorted(p for p in (ROOT / "results").rglob("*") if p.is_file())
    run = papermill(notebook, out, *parameters)
    assert run.returncode == 0, run.stderr[-3000:]
    assert sorted(p for p in (ROOT / "results").rglob("*") if p.is_file()) == before, "a smoke run wrote into results/"


def test_table2_runs_with_what_it_is_given(tmp_path):
    smoke_run("table2", tmp_path / "out.ipynb", "source=duke", "target=market", "methods=BL+BN^t")   # one row, and not the baseline
    shown = outputs(tmp_path / "out.ipynb")
    assert "campus (" in shown and "recipe smoke" in shown and "STAND-IN NUMBERS" in shown and "BL+BN^t" in shown


def test_table2_says_what_is_found(tmp_path):
    smoke_run("table2", tmp_path / "out.ipynb", "methods=BL,PTL,BL+BN^t")
    shown = outputs(tmp_path / "out.ipynb")
    assert all(question in shown for question in ("PTL better than BL?", "BN^t alone better than BL?", "PTL better than BN^t alone?"))
    assert "PTL+BN^t better than" not in shown, "asked of rows that are not there"


def table(notebook: Path) -> str:
    "The results table of table2 as text."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return next("".join(o["data"]["text/html"]) for c in cells if "display_table(summary)" in "".join(c["source"]) for o in c["outputs"] if "text/html" in o.get("data", {}))


def test_standins_in_the_original_layouts_give_the_same_numbers(tmp_path):
    from ptl_nb.standins import export_layout
    for name in ("plaza", "campus"): export_layout(name, tmp_path / "data")
    embedded = papermill("table2", tmp_path / "embedded.ipynb", "methods=BL,BL+Attr^t+BN^t")
    exported = papermill("table2", tmp_path / "exported.ipynb", "methods=BL,BL+Attr^t+BN^t", "origin=real", f"data_root={tmp_path / 'data'}")
    assert embedded.returncode == exported.returncode == 0, embedded.stderr[-2000:] + exported.stderr[-2000:]
    assert table(tmp_path / "embedded.ipynb") == table(tmp_path / "exported.ipynb")
    assert "STAND-IN NUMBERS" in outputs(tmp_path / "exported.ipynb"), "the marker file was lost"


@pytest.mark.skipif("PTL_REAL" not in os.environ, reason="PTL_REAL names no folder of real crops")
def test_real_crops_as_an_unlabelled_target(tmp_path):
    run = papermill("table2", tmp_path / "out.ipynb", "source=plaza", f"target={Path(os.environ['PTL_REAL']) / 'domain.csv'}", "methods=BL,PTL")
    assert run.returncode == 0, run.stderr[-3000:]
    assert "PTL" in table(tmp_path / "out.ipynb") and "STAND-IN NUMBERS" in outputs(tmp_path / "out.ipynb")


@pytest.mark.parametrize("parameter, says", [
    ("sorce=duke", "did you mean 'source'"), ("source=markt", "market"), ("methods=BL+HP", "unknown method"), ("recipe=mimi", "mini"),
    ("origin=reel", "real"), ("variant=as_papr", "as_paper")])
def test_bad_parameters_are_refused(tmp_path, parameter, says):
    extra = ("smoke=False",) if parameter.startswith("recipe") else ()
    run = papermill("table2", tmp_path / "out.ipynb", parameter, *extra)
    assert run.returncode != 0 and "seed 0" not in outputs(tmp_path / "out.ipynb"), "something was trained first"
    assert says in run.stderr.split("Traceback")[-1], run.stderr[-2000:]


def test_wheel_holds_modules_and_archives(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True, timeout=300)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for wanted in ("ptl_nb/trainer.py", "ptl_nb/published.csv", *(f"ptl_nb/standin_data/{n}.zip" for n in ("plaza", "campus", "corridor", "studio", "street", "mall"))): assert wanted in names
