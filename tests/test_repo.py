"""What a notebook cannot test about itself: papermill runs from a shell, the wheel, bad parameters."""
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, outputs, papermill, refusal, smoke_run, tables

from ptl_nb.standins import export_layout

ARCHIVES = "plaza", "campus", "corridor", "studio", "street", "mall"


@pytest.mark.slow
def test_table2_says_what_is_found(tmp_path):
    smoke_run("table2", tmp_path / "out.ipynb", "methods=BL,PTL,BL+BN^t")
    shown = outputs(tmp_path / "out.ipynb")
    assert all(question in shown
               for question in ("PTL better than BL?", "BN^t alone better than BL?", "PTL better than BN^t alone?"))
    assert "PTL+BN^t better than" not in shown, "asked of rows that are not there"


def table(notebook: Path) -> str:
    "The results table of table2 as HTML."
    return tables(notebook, "display_table(summary)")[0]


@pytest.mark.slow
def test_table2_runs_with_what_it_is_given(tmp_path):
    "One row, and not the baseline."
    smoke_run("table2", tmp_path / "out.ipynb", "source=duke", "target=market", "methods=BL+BN^t")
    shown = outputs(tmp_path / "out.ipynb")
    for words in ("campus (", "recipe smoke", "STAND-IN NUMBERS", "BL+BN^t"): assert words in shown


@pytest.mark.slow
def test_standins_in_the_original_layouts_give_the_same_numbers(tmp_path):
    for name in ("plaza", "campus"): export_layout(name, tmp_path / "data")
    given = {"embedded": (), "exported": ("origin=real", f"data_root={tmp_path / 'data'}")}
    for name, parameters in given.items():
        run = papermill("table2", tmp_path / f"{name}.ipynb", "methods=BL,BL+Attr^t+BN^t", *parameters)
        assert run.returncode == 0, run.stderr[-2000:]
    assert table(tmp_path / "embedded.ipynb") == table(tmp_path / "exported.ipynb")
    assert "STAND-IN NUMBERS" in outputs(tmp_path / "exported.ipynb"), "the marker file was lost"


@pytest.mark.slow
@pytest.mark.skipif("PTL_REAL" not in os.environ, reason="PTL_REAL names no folder of real crops")
def test_real_crops_as_an_unlabelled_target(tmp_path):
    target = Path(os.environ["PTL_REAL"]) / "domain.csv"
    run = papermill("table2", tmp_path / "out.ipynb", "source=plaza", f"target={target}", "methods=BL,PTL")
    assert run.returncode == 0, run.stderr[-3000:]
    assert "PTL" in table(tmp_path / "out.ipynb")
    assert "STAND-IN NUMBERS" in outputs(tmp_path / "out.ipynb")


@pytest.mark.parametrize("parameter, says", [
    ("sorce=duke", "did you mean 'source'"), ("source=markt", "market"), ("methods=BL+HP", "unknown method"),
    ("recipe=mimi", "mini"), ("origin=reel", "real"), ("variant=as_papr", "as_paper")])
def test_bad_parameters_are_refused(parameter, says):
    extra = ("smoke=False",) if parameter.startswith("recipe") else ()
    refused = refusal("table2", parameter, *extra)
    assert says in refused.says
    assert "set_up(" in refused.cell and not refused.runs, "something was trained first"


@pytest.mark.slow
def test_a_refusal_ends_papermill(tmp_path):
    "Also of a parameter that the notebook does not have, which papermill itself lets pass."
    run = papermill("table2", tmp_path / "out.ipynb", "sorce=duke")
    assert run.returncode != 0
    assert "seed 0" not in outputs(tmp_path / "out.ipynb"), "something was trained first"
    assert "did you mean 'source'" in run.stderr.split("Traceback")[-1], run.stderr[-2000:]


@pytest.mark.slow
def test_wheel_holds_modules_and_archives(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for wanted in ("trainer.py", "published.csv", "paper.csv", *(f"standin_data/{name}.zip" for name in ARCHIVES)):
        assert f"ptl_nb/{wanted}" in names
