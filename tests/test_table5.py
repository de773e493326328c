"""Table 5 as a user runs it: stand-in numbers apart from quoted ones, bad directions refused before anything is trained."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def papermill(out: Path, *parameters: str) -> subprocess.CompletedProcess:
    "Run table5 from the repository's root in the smoke recipe."
    pairs = [x for p in parameters for x in ("-p", *p.split("=", 1))]
    return subprocess.run([sys.executable, "-m", "papermill", "nbs/table5.ipynb", str(out), "-p", "smoke", "True", "-k", "python3", *pairs],
                          cwd=ROOT, env={**os.environ, "MPLBACKEND": "agg"}, capture_output=True, text=True, timeout=300)


def shown(out: Path, words: str) -> list[str]:
    "HTML of the outputs of the cell with these words in its source."
    cells = json.loads(out.read_text(encoding="utf-8"))["cells"]
    return ["".join(o["data"]["text/html"]) for c in cells if words in "".join(c["source"]) for o in c["outputs"] if "text/html" in o.get("data", {})]


def test_standin_numbers_have_a_table_of_their_own(tmp_path):
    before = sorted(p for p in (ROOT / "results").rglob("*") if p.is_file())
    run = papermill(tmp_path / "out.ipynb", "directions=cuhk03>market", "methods=BL,BL+BN^t")
    assert run.returncode == 0, run.stderr[-3000:]
    quoted, ours = shown(tmp_path / "out.ipynb", "table5_blocks(")
    assert quoted.count("quoted: ") == 5 and "PCB-PAST" in quoted and "BN^t" not in quoted and "STAND-IN" not in quoted
    assert "STAND-IN NUMBERS" in ours and "ranked among themselves only" in ours and "PCB-PAST" not in ours
    assert "(1st)" in quoted and "(1st)" in ours
    assert sorted(p for p in (ROOT / "results").rglob("*") if p.is_file()) == before, "a smoke run wrote into results/"


def test_a_direction_without_published_rows_is_refused(tmp_path):
    run = papermill(tmp_path / "out.ipynb", "directions=market>duke,market>cuhk03")
    assert run.returncode != 0 and "unknown direction 'market>cuhk03'" in run.stderr.split("Traceback")[-1], run.stderr[-2000:]
    assert not shown(tmp_path / "out.ipynb", "table5_blocks("), "something was trained first"
