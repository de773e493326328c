"""What several test files share: notebooks run by papermill as a user does, or here up to their refusal; a small
training of its own."""
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import matplotlib
import pytest
from papermill.cli import _resolve_type as papermill_value
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}     # of notebooks; a test may set more in it
TRAINING = Path(__file__).with_name("small_training.py")


# notebooks

def papermill(notebook: str, out: Path, *parameters: str) -> subprocess.CompletedProcess:
    "Run a notebook as a user does, from the repository's root, in the smoke recipe."
    pairs = [x for p in parameters for x in ("-p", *p.split("=", 1))]
    asked = [f"nbs/{notebook}.ipynb", str(out), "-p", "smoke", "True", "-k", "python3", *pairs]
    command = [sys.executable, "-m", "papermill", *asked]
    return subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)


def outputs(notebook: Path) -> str:
    "All text that a notebook shows."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join(json.dumps(o) for c in cells for o in c.get("outputs", []))


def tables(notebook: Path, words: str) -> list[str]:
    "HTML of the outputs of the cells with these words in their source."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = [o.get("data", {}) for c in cells if words in "".join(c["source"]) for o in c["outputs"]]
    return ["".join(data["text/html"]) for data in shown if "text/html" in data]


def result_files() -> dict[Path, int]:
    "Every file of results/ and when it was written."
    return {p: p.stat().st_mtime_ns for p in (ROOT / "results").rglob("*") if p.is_file()}


def smoke_run(notebook: str, out: Path, *parameters: str) -> None:
    "Run a notebook in the smoke recipe to its end, leaving results/ alone."
    before = result_files()
    run = papermill(notebook, out, *parameters)
    assert run.returncode == 0, run.stderr[-3000:]
    assert result_files() == before, "a smoke run wrote into results/"


class Refusal(NamedTuple):
    "How a notebook ended that was given what it cannot take."
    says: str           # the message of the exception
    cell: str           # the code of the cell that raised it: none after it has run
    shown: str          # all text before it
    runs: list[str]     # what it had made or begun to make in the store of a smoke run


@contextlib.contextmanager
def undone(folder: str):
    "Inside, a notebook works from the repository's root with temporary files in a folder; what it sets is set back."
    with (mock.patch.dict(os.environ, MPLBACKEND="agg"), mock.patch.object(tempfile, "tempdir", folder),
          mock.patch.object(warnings, "formatwarning", warnings.formatwarning), warnings.catch_warnings(),
          matplotlib.rc_context({"backend": "agg"}), contextlib.chdir(ROOT)): yield


def refusal(notebook: str, *parameters: str) -> Refusal:
    """What a notebook in the smoke recipe says of parameters that it refuses. Its cells run in this process, which
    takes none of the seconds of `papermill`: that a refusal ends papermill too, two tests show."""
    given = dict(p.split("=", 1) for p in ("smoke=True", *parameters))
    node = load_notebook_node(str(ROOT / f"nbs/{notebook}.ipynb"))
    values = {name: papermill_value(value) for name, value in given.items()}
    cells = parameterize_notebook(node, values, kernel_name="python3", language="python").cells
    shown, space = io.StringIO(), {"__name__": "__main__", "In": [""]}    # In: the cells, as IPython keeps them
    with (tempfile.TemporaryDirectory() as folder, undone(folder), contextlib.redirect_stdout(shown),
          contextlib.redirect_stderr(shown)):
        for number, cell in enumerate(cells):
            if cell.cell_type != "code": continue
            code = compile(cell.source, f"{notebook}.ipynb, cell {number}", "exec", dont_inherit=True)
            space["In"].append(cell.source)
            try: exec(code, space)
            except Exception as error:
                runs = sorted(p.name for p in Path(folder).glob("ptl-smoke-*/runs/*") if p.is_dir())
                return Refusal(str(error), cell.source, shown.getvalue(), runs)
    pytest.fail(f"{notebook} took {', '.join(parameters)}")


# processes

def small_training(folder: Path, processes: int = 1) -> subprocess.Popen:
    "Start `small_training.py`, which leaves its weights in the folder; it may be killed and started again."
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, TRAINING, folder, str(processes)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
                            start_new_session=True)
