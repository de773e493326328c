"""What several test files share: notebooks run by papermill as a user does, a small training of its own."""
import json
import os
import subprocess
import sys
from pathlib import Path

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


# processes

def small_training(folder: Path, processes: int = 1) -> subprocess.Popen:
    "Start `small_training.py`, which leaves its weights in the folder; it may be killed and started again."
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, TRAINING, folder, str(processes)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
                            start_new_session=True)
