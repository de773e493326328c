"""Worlds: specification, people in nobody's stand-in, the same bytes of every part, kills, two processes, errors."""
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ptl_nb import renderer, world
from ptl_nb.disk import FullDisk
from ptl_nb.domain import Domain, image_table
from ptl_nb.domains import load_domain, table1
from ptl_nb.label_runs import true_labels
from ptl_nb.labels import read_attributes, read_parts
from ptl_nb.world import Variation, World, load_world, parse_world, part_of, person, shots_of

pytestmark = pytest.mark.xdist_group("world")      # one world for all of them

TINY = "world:4x2x3,bodies=frozen"
TWO_BLOCKS = "world:12x2x3,bodies=frozen"


def digest(folder: Path) -> dict[str, str]:
    "Hash of each file of a world."
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    "A cache of this module's own."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def twelve(cache): return load_world(parse_world(TWO_BLOCKS), processes=2)


# specification and plan

def test_a_specification_is_read():
    assert parse_world("world") == World(1000, 16, 40, None, 0)
    given = parse_world("world:20x4x9,seed=3,seen_by=2,rain=0,bodies=frozen")
    assert given == World(20, 4, 9, 2, 3, "frozen", Variation(rain=0))
    assert given.name != parse_world("world:20x4x9").name == "world-20x4x9"


def test_other_specifications_are_other_folders():
    texts = ["world", "world:1000x16x41", "world:1000x16,seed=1", "world:1000x16,rain=0", "world:1000x16,seen_by=4"]
    assert len({parse_world(t).folder for t in texts}) == len({parse_world(t).name for t in texts}) == len(texts)


def test_a_person_is_the_same_in_a_larger_world():
    small, large = World(people=500), World(people=3000)
    assert [shots_of(small, k) for k in (0, 77, 499)] == [shots_of(large, k) for k in (0, 77, 499)]
    assert person(small, 3) != person(World(people=500, seed=1), 3)


@pytest.mark.slow
def test_nobody_is_in_a_stand_in():
    def body(p): return tuple(p["phenotype"].values())
    standins = {body(s["person"]) for name in renderer.DOMAINS for s in renderer.plan(name)}
    for seed in (0, *(d["seed"] for d in renderer.DOMAINS.values())):
        people = {body(person(World(seed=seed), k)) for k in range(100)}
        assert len(people) == 100 and not people & standins


def test_people_are_drawn_from_wider_ranges():
    people = [person(World(), k) for k in range(600)]
    assert {p.get("print") for p in people} == {None, *renderer.PRINTS}
    assert {p.get("thing") for p in people} == {None, *renderer.THINGS}
    assert len(renderer.PRINTS) + 4 >= 16
    assert len({tuple(p["up_shade"]) for p in people}) > 450
    def outfit(p): return (p["upper"], p["lower"], *p["up_shade"], *p["low_shade"])
    alike = len(people) - len({outfit(p) for p in people})
    assert .1 < alike / len(people) < .2


def test_a_look_alike_is_of_the_same_sex_and_somebody_else():
    everybody = World(variation=Variation(alike=1))
    for k in range(1, 40):
        p = person(everybody, k)
        models = [m for m in (world._own_person(everybody, i) for i in range(k)) if m["phase"] == p["phase"]]
        assert len(models) == 1 and models[0]["female"] == p["female"] and models[0]["phenotype"] != p["phenotype"]


def test_colour_names_are_those_of_the_colours():
    for p in (person(World(), k) for k in range(60)):
        rgb = np.array(renderer.COLOURS[p["up"]]) + p["up_shade"]
        assert np.allclose(np.clip(rgb, .03, .95), rgb) and world.colour_name(rgb) == p["up"]


def test_a_person_is_seen_by_as_many_cameras_as_may_be():
    seen = [len({s["camid"] for s in shots_of(World(), k)}) for k in range(200)]
    assert min(seen) == 4 and max(seen) == 8
    assert {len({s["camid"] for s in shots_of(World(20, 4, 9, 2), k)}) for k in range(20)} == {2}


@pytest.mark.parametrize("name", [f.name for f in fields(Variation)])
def test_a_variation_that_is_off_is_never_drawn(name):
    on, off = (World(4, 2, 3, variation=Variation(**{name: share})) for share in (1, 0))
    assert world._drawn(on, name, 1, 1) is not None and world._drawn(off, name, 1, 1) is None


def test_turning_one_off_changes_nothing_else():
    dry = World(4, 2, 3, variation=Variation(things=0))
    for k in range(60):
        with_thing, without = person(World(4, 2, 3), k), person(dry, k)
        assert {c: v for c, v in with_thing.items() if not c.startswith("thing")} == without


# rendering

@pytest.mark.slow
def test_the_domain_is_whole(twelve):
    assert twelve.standin and twelve.stands_for is None and "rendered" in twelve.title and "rendered" in repr(twelve)
    assert len(twelve.train) == 24 and sorted(set(twelve.train.pid)) == list(range(1, 13))
    assert len(twelve.query) == len(twelve.gallery) == 0 and set(twelve.train.camid) <= {1, 2, 3}
    assert {Image.open(f).size for f in twelve.files(twelve.train)} == {(64, 128)}
    assert not (twelve.root / "blocks").exists() and not list(twelve.root.parent.glob("*.unfinished"))
    assert table1(twelve).loc[twelve.title, "images"].tolist() == [24, 0, 0]


@pytest.mark.slow
def test_truth_comes_with_it(twelve):
    paths = twelve.train.path
    store = true_labels(twelve, paths[0])
    parts = read_parts(store, paths)
    assert parts[0].shape == (128, 64) and set(np.unique(parts)) == set(range(8))
    assert {"personalMale", "ub-TShirt", "carryingOther"} <= set(read_attributes(store, paths)[0].names)
    truth = pd.read_csv(store / "attributes.csv", index_col="path").loc[paths, "personalMale=yes"]
    women = {pid: person(parse_world(TWO_BLOCKS), pid - 1)["female"] for pid in twelve.train.pid}
    assert [not v for v in twelve.train.pid.map(women)] == truth.astype(bool).tolist()
    views = pd.read_csv(store / "shots.csv")
    assert views.path.tolist() == paths.tolist() and views.yaw.between(0, 359).all() and (views.person > 0).any()


@pytest.mark.slow
def test_read_back_without_rendering(twelve, monkeypatch):
    monkeypatch.setattr(world, "render_block", None)
    monkeypatch.setattr(importlib.util, "find_spec", None)
    assert load_domain(TWO_BLOCKS).train.equals(twelve.train)


@pytest.mark.slow
def test_a_part_has_the_same_bytes(twelve):
    part = digest(load_world(parse_world("world:9x2x3,bodies=frozen"), processes=1).root)
    whole = digest(twelve.root)
    images = [p for p in part if p.endswith((".jpg", ".png"))]
    assert len(images) == 36 and all(part[p] == whole[p] for p in images)


RUN = """
import sys
from ptl_nb.domains import load_domain
if __name__ == "__main__": print(load_domain(sys.argv[1]).root)
"""


def start(script: Path, cache: Path) -> subprocess.Popen:
    script.write_text(RUN)
    return subprocess.Popen([sys.executable, script, TWO_BLOCKS], env={**os.environ, "PTL_CACHE": str(cache)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(twelve, tmp_path):
    running = start(tmp_path / "run.py", tmp_path / "cache")
    draft = tmp_path / "cache" / "worlds" / f"{twelve.root.name}.unfinished"
    while running.poll() is None and not list(draft.glob("truth/**/*.png")): time.sleep(.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert draft.is_dir() and twelve.root.name not in os.listdir(draft.parent)
    again = start(tmp_path / "run.py", tmp_path / "cache")
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert digest(Path(said.splitlines()[-1])) == digest(twelve.root)


@pytest.mark.slow
def test_finished_blocks_are_kept(twelve, tmp_path, monkeypatch):
    monkeypatch.setenv("PTL_CACHE", str(tmp_path))
    given = parse_world(TWO_BLOCKS)
    draft = given.folder.with_name(f"{given.folder.name}.unfinished")
    world._write_block(given, draft, 0)
    written = {p: p.stat().st_mtime_ns for p in draft.rglob("*.jpg")}
    rendered = []

    def render_blocks(given, folder, blocks, processes, bar):
        rendered.extend(blocks)
        for block in blocks: world._write_block(given, folder, block)

    monkeypatch.setattr(world, "_render_blocks", render_blocks)
    root = load_world(given).root
    assert rendered == [1] and digest(root) == digest(twelve.root)
    assert {p: (root / p.relative_to(draft)).stat().st_mtime_ns for p in written} == written


@pytest.mark.slow
def test_two_processes_at_once(twelve, tmp_path):
    def run(k):
        running = start(tmp_path / f"run{k}.py", tmp_path / "cache")
        return (*running.communicate(timeout=300), running.returncode)
    with ThreadPoolExecutor(2) as pool: done = list(pool.map(run, range(2)))
    assert [d[2] for d in done] == [0, 0], done
    assert len({d[0].splitlines()[-1] for d in done}) == 1 and sum("rendering 24 of" in d[0] for d in done) == 1
    assert digest(Path(done[0][0].splitlines()[-1])) == digest(twelve.root)


@pytest.mark.slow
@pytest.mark.skipif("PTL_ANNY" not in os.environ, reason="set PTL_ANNY=1 to build the body model (minutes, 800 MB)")
def test_bodies_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("PTL_CACHE", str(tmp_path))
    root = load_domain("world:4x2x3").root
    shots, _, parts, _ = world.render_block(parse_world("world:4x2x3"), 0)
    stored = read_parts(root / "truth", [s["path"] for s in shots])
    assert (np.asarray(stored) == np.stack(parts)).mean() > .999


# parts

@pytest.fixture
def planned(tmp_path):
    "A world as a domain whose image files hold their own paths: 20 people, 8 images, 9 cameras."
    rows = [(s["path"], s["pid"], s["camid"]) for k in range(20) for s in shots_of(World(20, 8, 9), k)]
    for path, _, _ in rows:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    train = image_table(*zip(*rows))
    return Domain("world-20x8x9", tmp_path, train, train[:0], train[:0], standin=True)


def test_a_part_has_as_many_images_of_every_camera(planned):
    part = part_of(planned, 12, 6)
    each = part.train.groupby("pid")
    assert sorted(set(part.train.pid)) == list(range(1, 13)) and set(each.size()) == {6}
    counts = part.train.groupby(["pid", "camid"]).size().groupby("pid")
    assert (counts.max() - counts.min()).max() <= 1
    cameras = planned.train.groupby("pid").camid.nunique()[:12].clip(upper=6)
    assert (each.camid.nunique() == cameras).all()
    assert part.train.path.is_monotonic_increasing and part.train.index.tolist() == list(range(72))


def test_a_part_is_another_domain_in_the_same_folder(planned):
    part, again = part_of(planned, 12, 6), part_of(part_of(planned, 16, 8), 12, 6)
    assert part.name == "world-12x6of20x8x9" and part.root == planned.root and part.standin
    assert part.data_hash() == again.data_hash() != planned.data_hash()
    assert part_of(planned, 20, 8) is planned and len(planned.train) == 160


@pytest.mark.parametrize("people, images, words", [
    (21, 4, "people is 21; world-20x8x9 has 20 people with 8 images each.*from 2 to 20"),
    (12, 9, "images is 9; .*from 2 to 8"), (1, 4, "people is 1"), (12, 2.5, "images is 2.5")])
def test_a_part_that_is_not_there(planned, people, images, words):
    with pytest.raises(ValueError, match=words): part_of(planned, people, images)


def test_only_worlds_have_parts(planned):
    with pytest.raises(ValueError, match="plaza is no rendered world"): part_of(replace(planned, name="plaza"), 2, 2)


@pytest.mark.slow
def test_a_part_is_the_world_of_its_size_with_its_truth(twelve):
    part = part_of(twelve, 9, 2)
    assert part.data_hash() == load_world(parse_world("world:9x2x3,bodies=frozen"), processes=1).data_hash()
    store = true_labels(part, part.train.path[0])
    assert len(read_parts(store, part.train.path)) == len(read_attributes(store, part.train.path)[1]) == 18


# what cannot be

@pytest.mark.parametrize("text, words", [
    ("world:0x16", "people 0 cannot be"), ("world:1x16", "people 1 cannot be; people is a whole number from 2"),
    ("world:20x1", "images 1"), ("world:20x4x1", "cameras 1"),
    ("world:20x4x3,seen_by=4", "seen_by 4 cannot be.*more cameras than there are"),
    ("world:", "write world"), ("world:20", "world:20'.*PEOPLExIMAGESxCAMERAS"), ("world:20x", "write world"),
    ("world,seed", "write world"), ("world:-3x4", "write world"), ("world:20x4,seed=", "seed is ''.*no number"),
    ("world:20x4,seed=-1", "seed -1"), ("world:20x4,sed=1", "did you mean 'seed'"),
    ("world:20x4,seed=1,seed=2", "twice"), ("world:20x4,rain=2", "rain is 2.0.*between 0"),
    ("world:20x4,rain=nan", "rain is nan"), ("world:20x4,bodies=frosen", "did you mean 'frozen'"),
    ("wrld", "did you mean 'world'"), ("world:9999999x16", "people 9999999 cannot be")])
def test_a_specification_that_cannot_be(text, words):
    with pytest.raises(ValueError, match=words): load_domain(text)


def test_there_is_no_real_world():
    with pytest.raises(ValueError, match="there is no real one"): load_domain(TINY, origin="real")
    with pytest.raises(ValueError, match="knows its cameras"): load_domain(TINY, camera="c")


def test_without_the_extra_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PTL_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", {}.get)
    with pytest.raises(ImportError, match=r"ptl_nb\[render\].*bodies=frozen"): load_domain("world:4x2")


def test_a_cache_without_room_is_told_the_size(tmp_path, monkeypatch):
    monkeypatch.setenv("PTL_CACHE", str(tmp_path))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("ptl_nb.disk.shutil.disk_usage", lambda place: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(FullDisk, match="will take 192 MB.*1 MB.* free.*PTL_CACHE"):
        load_world(World(bodies="frozen"))
    assert not list((tmp_path / "worlds").glob("*.unfinished"))


@pytest.mark.slow
def test_an_unguarded_script_is_told_what_to_do(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(f"from ptl_nb.domains import load_domain\nload_domain({TINY!r})\n")
    done = subprocess.run([sys.executable, script], env={**os.environ, "PTL_CACHE": str(tmp_path)}, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 1 and "if __name__ == '__main__'" in done.stderr.splitlines()[-1]
