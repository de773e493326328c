"""Table 5 as a user runs it: stand-in numbers apart from quoted ones, bad directions refused before any training."""
import pytest
from conftest import refusal, smoke_run, tables


@pytest.mark.slow
def test_standin_numbers_have_a_table_of_their_own(tmp_path):
    smoke_run("table5", tmp_path / "out.ipynb", "directions=cuhk03>market", "methods=BL,BL+BN^t")
    quoted, ours, other = tables(tmp_path / "out.ipynb", "table5_blocks(")
    assert quoted.count("quoted by the paper") == 5 and quoted.count("the paper's own") == 1
    assert "PAST" in quoted and "73.1 (1st)" in quoted and "BN^t" not in quoted and "STAND-IN" not in quoted
    assert "STAND-IN NUMBERS" in ours and "ranked among themselves only" in ours and "PAST" not in ours
    assert "PCB-PAST" in other and "(1st)" not in other and "read at" in other
    assert "(1st)" in quoted and "(1st)" in ours


def test_a_direction_without_published_rows_is_refused():
    refused = refusal("table5", "directions=market>duke,market>cuhk03")
    assert "unknown direction 'market>cuhk03'" in refused.says
    assert "parse_directions(" in refused.cell and not refused.runs, "something was trained first"
