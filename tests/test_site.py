"""The site: real notebooks as pages, links that resolve, nothing from a network, all notebooks in the side bar."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT

from ptl_nb.site import (
    Addresses, SiteError, all_notebooks, build_site, check_site, definitions, navigation, read_page)

pytestmark = pytest.mark.xdist_group("site")      # one site for all of them

CHOSEN = {"05_losses": "method/05_losses", "07_trainer": "method/07_trainer", "table2": "table2"}
SCHEME = re.compile(r"^(\w+:)?//|^(?!data:)\w+:")


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    "Three real notebooks, the real README cut down to links among them, and the picture they share."
    root = tmp_path_factory.mktemp("repository")
    (root / "nbs" / "method").mkdir(parents=True)
    for path in CHOSEN.values(): shutil.copy(ROOT / "nbs" / f"{path}.ipynb", root / "nbs" / f"{path}.ipynb")
    shutil.copy(ROOT / "nbs" / "framework.svg", root / "nbs")
    shutil.copy(ROOT / "ptl_nb" / "standin_data" / "DATASHEET.md", root)
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    links = [f"[{n}](nbs/{path}.ipynb)" for n, path in CHOSEN.items()] + ["[datasheet](DATASHEET.md)"]
    (root / "README.md").write_text(f"{text}\n\n{' '.join(links)}\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def site(repository) -> Path: return build_site(repository, repository / "_site", progress=False).parent


@pytest.fixture(scope="module")
def pages(site) -> dict[str, BeautifulSoup]:
    return {p.name: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in site.glob("*.html")}


@pytest.mark.slow
def test_pages_and_links(site, pages):
    assert set(pages) == {"index.html", "DATASHEET.html", *(f"{n}.html" for n in CHOSEN)}
    assert check_site(site) == []
    assert {f"{n}.html" for n in CHOSEN} <= {a["href"] for a in pages["index.html"].select("main a")}
    picture = site / pages["index.html"].select_one("main img")["src"]
    assert picture.read_bytes() == (ROOT / "nbs" / "framework.svg").read_bytes()
    imported = {a["href"] for a in pages["07_trainer.html"].select(".highlight a")}
    assert "05_losses.html" in imported, "from ptl_nb.losses import ..."


@pytest.mark.slow
def test_nothing_is_fetched(site, pages):
    for name, soup in pages.items():
        loads = Addresses((site / name).read_text(encoding="utf-8")).loads
        assert loads and not [u for u in loads if SCHEME.match(u)], name
        assert all(t.get("src") or "MathJax" in t.get_text() for t in soup.find_all("script")), name
    assert not re.findall(r"url\(|@import", (site / "style.css").read_text())


def test_a_cdn_is_found(repository, tmp_path):
    "The check can fail: a page with nbconvert's own scripts, an output with a picture from elsewhere."
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_filename(str(ROOT / "nbs" / "table2.ipynb"))
    (tmp_path / "table2.html").write_text(html, encoding="utf-8")
    assert any("cdnjs" in w for w in check_site(tmp_path))


@pytest.mark.slow
def test_equations(site, pages):
    notebook = (ROOT / "nbs" / "method" / "05_losses.ipynb").read_text(encoding="utf-8")
    assert len(pages["05_losses.html"].select(".math.wide")) == notebook.count("$$") // 2 > 0
    assert "$$" not in pages["05_losses.html"].get_text()
    assert (site / "mathjax" / "MathJax.js").is_file() and list((site / "mathjax").rglob("*.woff"))


@pytest.mark.slow
def test_order(pages):
    names = ["index.html", *(f"{n}.html" for n in CHOSEN)]
    for before, name, after in zip([None, *names], names, [*names[1:], None]):
        around = [pages[name].select_one(f"a[rel={rel}]") for rel in ("prev", "next")]
        assert [a and a["href"] for a in around] == [before, after], name
    headings = [h["id"] for h in pages["05_losses.html"].select("main :is(h2, h3)")]
    assert [a["href"] for a in pages["05_losses.html"].select(".contents a")] == [f"#{i}" for i in headings] != []
    assert [a["href"] for a in pages["table2.html"].select("[aria-current]")] == ["table2.html"]


@pytest.mark.slow
def test_names(pages):
    losses = pages["05_losses.html"]
    assert "def attribute_loss" in losses.find(id="ptl_nb.losses.attribute_loss").find_parent("div").get_text()
    assert "#| export" not in losses.get_text() and losses.select(".celltag_exported")
    defined = definitions(all_notebooks(ROOT))
    for module in (ROOT / "ptl_nb").glob("[a-z]*.py"): assert f"ptl_nb.{module.stem}" in defined


@pytest.mark.slow
def test_every_notebook_is_in_the_side_bar():
    notebooks = all_notebooks(ROOT)
    groups = navigation(notebooks)
    assert sorted(sum(groups.values(), [])) == notebooks
    assert all((p.parent.name == "method") == (group == "Method") for group, members in groups.items() for p in members)
    addresses = [read_page(p).address for p in notebooks]
    assert len(set(addresses)) == len(addresses) and "index.html" not in addresses


@pytest.fixture
def small(tmp_path) -> Path:
    "A repository of one short notebook."
    (tmp_path / "nbs").mkdir()
    one = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One")])
    nbformat.write(one, tmp_path / "nbs" / "00_one.ipynb")
    (tmp_path / "README.md").write_text("# small\n\n[one](nbs/00_one.ipynb)\n")
    return tmp_path


def test_replaced_whole(small):
    site = build_site(small, small / "_site", progress=False).parent
    (site / "stale.html").write_text("old")
    build_site(small, site, progress=False)
    assert not (site / "stale.html").exists() and (site / "index.html").exists()
    assert sorted(p.name for p in small.iterdir()) == ["README.md", "_site", "nbs"]


def test_refusals(small):
    site = build_site(small, small / "_site", progress=False).parent
    before = (site / "index.html").read_bytes()
    (small / "README.md").write_text("# small\n\n[gone](nbs/gone.ipynb)")
    with pytest.raises(SiteError, match="gone.ipynb"): build_site(small, site, progress=False)
    (small / "nbs" / "01_two.ipynb").write_text("{")
    with pytest.raises(SiteError, match="01_two.ipynb"): build_site(small, site, progress=False)
    with pytest.raises(FileExistsError, match="nbs"): build_site(small, small / "nbs", progress=False)
    assert (site / "index.html").read_bytes() == before
    assert sorted(p.name for p in small.iterdir()) == ["README.md", "_site", "nbs"]


def test_pages_of_one_name(small):
    "A page of results may bear a notebook's name; two sources at one address are refused."
    (small / "results").mkdir()
    (small / "results" / "00_one.md").write_text("# Results of one\n\n[back](../nbs/00_one.ipynb)\n")
    (small / "README.md").write_text("# small\n\n[one](nbs/00_one.ipynb) [results](results/00_one.md)\n")
    site = build_site(small, small / "_site", progress=False).parent
    assert sorted(p.name for p in site.glob("*.html")) == ["00_one.html", "index.html", "results-00_one.html"]
    assert 'href="00_one.html"' in (site / "results-00_one.html").read_text().split("<main>")[1]
    (small / "00_One.md").write_text("# The same again\n")
    (small / "README.md").write_text("# small\n\n[again](00_One.md)\n")
    with pytest.raises(SiteError, match=r"00_one\.ipynb and .*00_One\.md"): build_site(small, site, progress=False)
    assert (site / "results-00_one.html").is_file(), "the site before is lost"


def test_command_says_where_to_start(tmp_path):
    command = [sys.executable, "-m", "ptl_nb.site", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "README.md" in done.stderr and "Traceback" not in done.stderr
