"""table1, fig1 and fig4 from a shell: what was asked for reaches the output, and a smoke run leaves results/ alone."""
from pathlib import Path

import pytest
from conftest import outputs, smoke_run

pytestmark = pytest.mark.slow


def shown(tmp_path: Path, notebook: str, *parameters: str) -> str:
    smoke_run(notebook, tmp_path / "out.ipynb", *parameters)
    return outputs(tmp_path / "out.ipynb")


def test_table1_counts_the_domains_and_labels_it_is_given(tmp_path):
    text = shown(tmp_path, "table1", "domains=cuhk03,duke", "labels=rap")
    assert "data/table1/standin-corridor-campus.csv" in text and "data/table1/standin-mall.csv" in text
    assert "84928" in text and "smaller by design" in text and "plaza" not in text and "street" not in text


def test_fig1_compares_the_domains_it_is_given(tmp_path):
    text = shown(tmp_path, "fig1", "domains=duke,cuhk03", "images=4")
    assert "data/fig1/standin-campus-corridor-distances.csv" in text
    assert "campus - corridor" in text and "plaza" not in text
    assert "with 8 Axes" in text, "not four images of each of two domains"


def test_fig4_ranks_as_the_scores_do(tmp_path):
    text = shown(tmp_path, "fig4", "source=duke", "target=market", "queries=3", "ranks=4")
    assert "smoke/fig4/standin-campus-plaza-seed-0-rows-BL-PTL-3x4-rankings.png" in text
    assert "with 30 Axes" in text, "not three queries, twice, with four gallery images"
    assert "first match as in the scores: 6 of 6 rankings" in text
