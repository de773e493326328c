"""Which notebooks have to run again, on a small package of three modules; and what nbdev_test's log must say."""
import json
from pathlib import Path

import notebooks
import pytest

MODULES = {"__init__": "", "disk": "WIDTH = 1", "data": "from .disk import WIDTH\nARCHIVE = 'standin_data'",
           "model": "LAYERS = 2     # of the network"}
NOTEBOOKS = {"disk": "WIDTH = 1", "data": "from ptl_nb.disk import WIDTH", "table": "from ptl_nb import data, model",
             "figure": "script = 'from ptl_nb.model import LAYERS'\n#words in README.md"}
SUCCESS = """Starting {root}/disk.ipynb
- Completed {root}/disk.ipynb
Starting {root}/table.ipynb
- Completed {root}/table.ipynb
Success.
table.ipynb: 12 secs
disk.ipynb: 3 secs
"""
FAILURE = """- Completed {root}/disk.ipynb
- Completed {root}/table.ipynb

nbdev Tests Failed On The Following Notebooks:
==================================================
\ttable.ipynb
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    "A package with its notebooks, none of which has passed."
    for folder in ("ptl_nb/standin_data", "nbs"): (tmp_path / folder).mkdir(parents=True)
    for name, code in MODULES.items(): (tmp_path / "ptl_nb" / f"{name}.py").write_text(code)
    for name, code in NOTEBOOKS.items(): write(tmp_path, name, code)
    (tmp_path / "ptl_nb/standin_data/plaza.zip").write_text("a picture")
    (tmp_path / "README.md").write_text("words")
    places = {"ROOT": tmp_path, "PACKAGE": tmp_path / "ptl_nb", "NOTEBOOKS": tmp_path / "nbs"}
    for name, place in places.items(): monkeypatch.setattr(notebooks, name, place)
    monkeypatch.setattr(notebooks, "memory", lambda: tmp_path / "passed.json")
    forget()
    yield tmp_path
    forget()


def write(root: Path, name: str, code: str, text: str = "# A title") -> None:
    cells = [{"cell_type": "markdown", "source": [text]}, {"cell_type": "code", "source": [code]}]
    (root / "nbs" / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))


def forget() -> None:
    "As in a new process."
    for known in (notebooks.modules, notebooks.digest): known.cache_clear()


def pass_all() -> None:
    found = notebooks.all_notebooks()
    notebooks.remember({p.name: notebooks.key(p) for p in found}, {p.name: 10 for p in found})


def changed() -> list[str]:
    forget()
    return [p.stem for p in notebooks.changed(notebooks.passed())]


def test_all_run_at_first_and_none_when_all_have_passed(root):
    assert sorted(changed()) == sorted(NOTEBOOKS)
    pass_all()
    assert changed() == []


@pytest.mark.parametrize("file, content, again", [
    ("ptl_nb/disk.py", "WIDTH = 2", ["data", "table"]),                            # through another module too
    ("ptl_nb/model.py", "LAYERS = 3", ["figure", "table"]),                        # named in the text of a script
    ("ptl_nb/model.py", "LAYERS = 2     # of it", []),                             # a comment
    ("ptl_nb/standin_data/plaza.zip", "another picture", ["table"]),
    ("README.md", "other words", ["figure"])])
def test_what_changed_runs_again(root, file, content, again):
    pass_all()
    (root / file).write_text(content)
    assert changed() == again


def test_a_notebook_itself(root):
    pass_all()
    write(root, "disk", NOTEBOOKS["disk"], "# Another title")
    assert changed() == []
    write(root, "disk", "WIDTH = 2")
    assert changed() == ["disk"]


def test_another_version_of_a_package(root, monkeypatch):
    pass_all()
    monkeypatch.setattr(notebooks.importlib.metadata, "distributions", lambda: [])
    notebooks.versions.cache_clear()
    assert len(changed()) == len(NOTEBOOKS)
    notebooks.versions.cache_clear()


def test_going_back_to_what_has_passed_runs_nothing(root):
    pass_all()
    write(root, "disk", "WIDTH = 2")
    forget()
    pass_all()
    write(root, "disk", NOTEBOOKS["disk"])
    assert changed() == []


def test_as_many_as_fit(root):
    pass_all()
    found = notebooks.all_notebooks()
    assert notebooks.fitting(found, notebooks.passed(), 10) == found[:2]           # ten seconds each, two at a time
    assert notebooks.fitting(found, notebooks.passed(), -5) == found[:1]
    assert notebooks.fitting(found, notebooks.passed(), float("inf")) == found


def judged(root: Path, log: str, status: int = 0) -> bool:
    chosen = [root / "nbs" / f"{name}.ipynb" for name in ("disk", "table")]
    return notebooks.judged(log.format(root=root / "nbs"), status, {p.name: notebooks.key(p) for p in chosen},
                            {p.name: p.name for p in chosen})


def test_success_is_demanded_and_remembered(root):
    assert judged(root, SUCCESS)
    assert sorted(changed()) == ["data", "figure"]
    assert {name: [*keys.values()]
            for name, keys in notebooks.passed().items()} == {"disk.ipynb": [4], "table.ipynb": [13]}


def test_of_a_failed_run_those_that_passed_are_remembered(root, capsys):
    assert not judged(root, FAILURE, 1)
    assert [*notebooks.passed()] == ["disk.ipynb"] and "did not say Success." in capsys.readouterr().out


@pytest.mark.parametrize("log, says", [
    ("No files were eligible for testing", "did not run table.ipynb"),
    (SUCCESS.replace("- Completed {root}/table.ipynb\n", ""), "did not run table.ipynb"),
    (SUCCESS.replace("Success.\n", ""), "did not say Success.")])
def test_an_exit_status_of_zero_is_not_enough(root, capsys, log, says):
    assert not judged(root, log)
    assert says in capsys.readouterr().out
