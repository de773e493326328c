"""What `check_repo.py` says of the pages: each check on a hand-sized case that it must refuse, and the pages as they
are."""
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
(FILE,) = ROOT.glob("t*/check_repo.py")
SPEC = importlib.util.spec_from_file_location("check_repo", FILE)
check_repo = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_repo)


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    "A repository of a README and two tables."
    monkeypatch.setattr(check_repo, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.csv").write_text("what,x,y\np,1,2\nq,3,4\n")
    (tmp_path / "results" / "b.csv").write_text("what,x\nq,5\n")
    return tmp_path


def test_pages_are_right(): assert check_repo.check_pages() == []


def test_sentences():
    text = "# A long heading\n\nOne [two](three.md) **four.** Five?\nSix\n\n- seven\n- eight. Nine!\n\n"
    text += "| a | b |\n\n```\ncode. x\n```\n"
    assert check_repo.sentences(text) == ["One two **four.", "Five?", "Six", "seven", "eight.", "Nine!"]


def test_dead_links_of_pages_and_notebooks(small):
    text = "[a](results/a.csv#x) [out](https://nobody.example/b.csv) `[code](c.csv)` [gone](d.csv#y)"
    assert check_repo.dead_links(text, small) == ["dead link d.csv"]
    wrong = {p.name: [w for w in check_repo.check_notebook(p) if "dead link" in w]
             for p in (ROOT / "nbs").rglob("*.ipynb")}
    assert wrong and not any(wrong.values())


def test_front_page_of_many_lines_words_or_rows():
    table = "<!-- table: a.csv -->\n| a |\n| --- |\n| 1 |\n<!-- end -->\n"
    assert check_repo.check_front_page(table + "word " * 35) == []
    assert "36 words" in check_repo.check_front_page(table + "word " * 36)[0]
    assert "101 lines" in check_repo.check_front_page(table + "word.\n" * 96)[0]
    assert "[7] rows" in check_repo.check_front_page(table.replace("| 1 |", "\n".join(["| 1 |"] * 7)))[0]
    assert "[1, 1] rows" in check_repo.check_front_page(table * 2)[0]


def test_rows_and_columns_of_one_and_of_two_files(small):
    one = check_repo.built_table('results/a.csv rows="q" columns="y"')
    assert one == "| what | y |\n| --- | --- |\n| q | 4 |"
    (small / "results" / "c.csv").write_text("what,x,n\np,1.5,2\np,2,\n")
    assert check_repo.built_table("results/c.csv").splitlines()[2:] == ["| p | 1.500 | 2 |", "| p | 2.000 |  |"]
    two = check_repo.built_table('results/a.csv results/b.csv rows="q|p" columns="x" headings="a|b"').splitlines()
    assert two[0] == "| what | x, a | x, b |" and two[2].startswith("| q | 3 | 5") and two[3].startswith("| p | 1 |  |")


@pytest.mark.parametrize("asked, says", [
    ('results/a.csv rows="r"', "row {'r'}"), ('results/a.csv columns="z"', "column {'z'}"),
    ('results/a.csv row="p"', "no option"),
    ('results/a.csv results/b.csv columns="x" rows="q"', "1 headings"), ("results/c.csv", "c.csv")])
def test_a_table_that_cannot_be_built_is_named(small, asked, says):
    page = small / "README.md"
    page.write_text(f"<!-- table: {asked} -->\n<!-- end -->\n")
    (wrong,) = check_repo.check_page(page, set())
    assert "README.md" in wrong and says in wrong


def test_stale_tables_dead_links_and_numbers_of_no_table(small, monkeypatch):
    monkeypatch.setattr(check_repo, "__file__", str(small / "check_repo.py"))
    page = small / "results" / "page.md"
    table = "<!-- table: results/a.csv -->\n| old |\n<!-- end -->\n"
    page.write_text(f"[a](a.csv) [gone](gone.md) +1.0 [-0.1,\n+2.0] +3.0 [+2.0, +4.0]\n\n{table}")
    wrong = check_repo.check_page(page, {"+1.0 [-0.1, +2.0]"})
    assert [w.partition(": ")[2].split(":")[0] for w in wrong] == [
        "a table differs from its file in results/", "dead link gone.md", "+3.0 [+2.0, +4.0] stands in no table"]
    page.write_text(check_repo.rebuilt(page))
    assert "a table differs" not in "".join(check_repo.check_page(page, set()))


def test_intervals_of_comparisons_and_findings(small):
    (small / "results" / "c.csv").write_text("method,vs_BL,vs_BL_low,vs_BL_high\nBL,,,\nPTL,8.04,6.26,9.91\n")
    (small / "results" / "f.csv").write_text("question,points,low,high\nany,-1,-2,0.04\n")
    assert check_repo.shown_intervals() == {"+8.0 [+6.3, +9.9]", "-1.0 [-2.0, +0.0]"}
