"""Table 5 as a user runs it: stand-in numbers apart from quoted ones, bad directions refused before anything is trained."""
import json
from pathlib import Path

from test_repo import papermill, smoke_run


def shown(out: Path, words: str) -> list[str]:
    "HTML of the outputs of the cell with these words in its source."
    cells = json.loads(out.read_text(encoding="utf-8"))["cells"]
    return ["".join(o["data"]["text/html"]) for c in cells if words in "".join(c["source"]) for o in c["outputs"] if "text/html" in o.get("data", {})]


def test_standin_numbers_have_a_table_of_their_own(tmp_path):
    smoke_run("table5", tmp_path / "out.ipynb", "directions=cuhk03>market", "methods=BL,BL+BN^t")
    quoted, ours = shown(tmp_path / "out.ipynb", "table5_blocks(")
    assert quoted.count("quoted: ") == 5 and "PCB-PAST" in quoted and "BN^t" not in quoted and "STAND-IN" not in quoted
    assert "STAND-IN NUMBERS" in ours and "ranked among themselves only" in ours and "PCB-PAST" not in ours
    assert "(1st)" in quoted and "(1st)" in ours


def test_a_direction_without_published_rows_is_refused(tmp_path):
    run = papermill("table5", tmp_path / "out.ipynb", "directions=market>duke,market>cuhk03")
    assert run.returncode != 0 and "unknown direction 'market>cuhk03'" in run.stderr.split("Traceback")[-1], run.stderr[-2000:]
    assert not shown(tmp_path / "out.ipynb", "table5_blocks("), "something was trained first"
