"""Pairs that a person is asked about, drawn with known chances, and the page that asks: its CSV, its keys, its safety."""
import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ptl_nb import pair_page as module
from ptl_nb.pair_page import pairs_to_label, write_pair_page
from ptl_nb.threshold import read_pairs

BAD = ['a"<script>alert(1)</script>,b.jpg', "Straße, Köln/Müller.jpg", "two\nli\rnes.jpg", " blank .jpg ", "'=1+1'.jpg",
       "\u2028.jpg", "</script><img src=x onerror=alert(2)>.jpg", "plain.jpg"]


def world(people: int = 15, each: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Features, people and cameras of crops in random order."
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(people), each))
    x = rng.normal(size=(people, 16))[who] + rng.normal(size=(len(who), 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), who, rng.integers(1, 4, len(who))


# the draw

@pytest.mark.parametrize("k", [1, 3, 9])
def test_near_candidates_equal_a_plain_loop(k, monkeypatch):
    x, _, groups = world()
    expected = set()
    for i in range(len(x)):
        others = sorted((1 - float(x[i] @ x[j]), j) for j in range(len(x)) if groups[j] != groups[i])
        expected |= {tuple(sorted((i, j))) for _, j in others[:k]}
    for block in (7, 1024):
        monkeypatch.setattr(module, "BLOCK", block)
        a, b, stands_for, _ = module._candidates(x, groups, k, np.random.default_rng(0), "cpu")
        near = stands_for == 1
        assert {*zip(a[near].tolist(), b[near].tolist())} == expected
        assert len({*zip(a.tolist(), b.tolist())}) == len(a) and (groups[a] != groups[b]).all() and (a < b).all()
        assert set(stands_for[~near]) == {(len(x) - 1) / (2 * k)}


def test_free_pairs_and_their_chances_equal_a_plain_loop():
    rng = np.random.default_rng(1)
    a, b = np.array(list(combinations(range(7), 2))[::2]).T
    rates = rng.uniform(.1, 5, len(a))
    clocks = np.random.default_rng(5)
    expected = set()
    for _ in range(2):
        rings = clocks.exponential(1 / rates)
        for k in range(len(a)):
            rivals = [m for m in range(len(a)) if m != k and {a[m], b[m]} & {a[k], b[k]}]
            if all(rings[k] < rings[m] for m in rivals): expected.add(k)
    free, chance = module._free(a, b, rates, 7, np.random.default_rng(5))
    assert set(np.flatnonzero(free)) == expected
    one = [rates[k] / sum(rates[m] for m in range(len(a)) if {a[m], b[m]} & {a[k], b[k]}) for k in range(len(a))]
    np.testing.assert_allclose(chance, [1 - (1 - p) ** 2 for p in one])


def test_a_systematic_sample_takes_each_with_the_same_chance_and_fills_up_where_a_stratum_is_short():
    strata, times = np.repeat([0, 1, 4], [3, 50, 20]), np.zeros(73)
    for seed in range(3000):
        rows, stands_for = module._systematic(strata, 27, np.random.default_rng(seed))
        assert np.bincount(strata[rows]).tolist() == [3, 12, 0, 0, 12] and len(set(rows)) == 27
        times[rows] += stands_for / 3000
    np.testing.assert_allclose(times, 1, atol=.15)
    assert (np.diff(rows[strata[rows] == 1]) >= 4).all(), "evenly spaced"


@pytest.mark.parametrize("cameras", [True, False])
def test_weights_meet_the_totals_of_all_pairs_in_the_mean(cameras):
    "Horvitz-Thompson: of the number of pairs, of pairs of one person and of near pairs of two."
    x, who, camids = world()
    tracklets = None if cameras else who * 2 + np.arange(len(who)) % 2
    groups = camids if cameras else tracklets
    i, j = (rows[groups[i] != groups[j]] for (i, j) in [np.triu_indices(len(x), 1)] for rows in (i, j))
    apart = 1 - (x[i] * x[j]).sum(1)
    truth = np.array([len(i), (who[i] == who[j]).sum(), ((who[i] != who[j]) & (apart <= .6)).sum()])
    found = []
    for seed in range(200):
        d = pairs_to_label(x, camids if cameras else np.ones(len(x)), 24, seed, tracklets, k=5)
        same = who[d.a] == who[d.b]
        found.append([d.weight.sum(), d.weight[same].sum(), d.weight[~same & (d.distance <= .6)].sum()])
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 4 * error).all() and (error < .12 * truth).all()


@pytest.mark.parametrize("n", [8, 16, 60])
def test_what_is_drawn_keeps_to_the_design(n):
    x, who, camids = world(60, 5)
    drawn = pairs_to_label(x, camids, n)
    assert len(drawn) == n and (camids[drawn.a] != camids[drawn.b]).all() and (drawn.weight >= 1).all()
    assert np.bincount(drawn[["a", "b"]].to_numpy().ravel()).max() <= 2
    assert len({frozenset(p) for p in zip(drawn.a, drawn.b)}) == n, "no pair twice"
    assert drawn.stratum.value_counts().between(n // 8, n // 8 + 3).all() and drawn.stratum.nunique() == 8
    np.testing.assert_allclose(drawn.distance, 1 - (x[drawn.a] * x[drawn.b]).sum(1), atol=1e-5)
    bounds = drawn.groupby("stratum").distance.agg(["min", "max"])
    assert (bounds["min"].to_numpy()[1:] > bounds["max"].to_numpy()[:-1]).all() and not drawn.stratum.is_monotonic_increasing
    pd.testing.assert_frame_equal(pairs_to_label(x, camids, n), drawn)
    assert not pairs_to_label(x, camids, n, seed=1).equals(drawn)


def test_of_one_camera_no_pair_is_within_a_tracklet_and_near_pairs_are_of_many_people():
    x, who, _ = world(40, 10)
    one, tracklets = np.ones(len(x)), np.where(np.arange(len(x)) % 10 == 0, -1, who * 3 + np.arange(len(x)) % 3)
    drawn = pairs_to_label(x, one, 80, tracklets=tracklets)
    both = tracklets[drawn.a], tracklets[drawn.b]
    assert ((both[0] != both[1]) | (both[0] < 0)).all() and (np.stack(both) == -1).any()
    same = who[drawn.a] == who[drawn.b]
    assert same.sum() > 8 and pd.Series(who[drawn.a[same]]).value_counts().max() <= 4


def test_few_crops_give_few_pairs():
    x, who, camids = world(3, 4)
    drawn = pairs_to_label(x, camids, 120)
    assert 1 <= len(drawn) <= 12 and np.bincount(drawn[["a", "b"]].to_numpy().ravel()).max() <= 2


def test_input_that_does_not_fit():
    x, _, camids = world()
    with pytest.raises(ValueError, match="60 features, 59 cameras and no tracklets"): pairs_to_label(x, camids[1:])
    with pytest.raises(ValueError, match="60 features, 60 cameras and 2 tracklets"): pairs_to_label(x, camids, tracklets=[1, 2])
    with pytest.raises(ValueError, match="n is 7 .* ask for 8"): pairs_to_label(x, camids, 7)
    with pytest.raises(ValueError, match="k is 0"): pairs_to_label(x, camids, k=0)
    with pytest.raises(ValueError, match="2 crops: give 3"): pairs_to_label(x[:2], camids[:2])
    with pytest.raises(ValueError, match="must be L2-normalised"): pairs_to_label(3 * x, camids)
    with pytest.raises(ValueError, match="not finite"): pairs_to_label(x * np.nan, camids)
    with pytest.raises(ValueError, match="one camera and one tracklet"):
        pairs_to_label(x, np.ones(60), tracklets=np.ones(60))


# the page

@pytest.fixture(scope="module")
def page(tmp_path_factory):
    "A page of eight crops whose names are as bad as names get."
    folder = tmp_path_factory.mktemp("page")
    for i, name in enumerate(BAD):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 300), (30 * i, 99, 0)).save(folder / name, "JPEG")
    pairs = pd.DataFrame({"a": [0, 1, 2, 3, 4, 5, 6], "b": [1, 2, 3, 4, 0, 6, 7], "weight": [1.5, 2, 3e6, 1 / 3, 7, 8, 9]})
    return write_pair_page(folder / "new/pairs.html", pairs, BAD, folder, "ptl adapt <b>mine</b>"), pairs


class Tags(HTMLParser):
    "Elements, their attributes and the text of scripts and styles."
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip(): self.texts.append(data)


def test_the_page_needs_no_network_and_names_inject_nothing(page):
    text = page[0].read_text(encoding="utf-8")
    found = Tags(text)
    assert [tag for tag, _ in found.tags].count("script") == 2 and text.lower().count("</script>") == 2
    assert not any(key.startswith("on") or key in ("src", "href", "style") for _, own in found.tags for key in own)
    assert "alert(" not in re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)
    assert not re.search(r"https?:|@import|url\(", text)
    style, data, script = found.texts
    assert "<" not in data and all(f"id=\"{name}\"" in text for name in ("left", "right", "progress", "save", "s", "d", "u"))
    policy = next(own["content"] for tag, own in found.tags if own.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for part in (style, script):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" in policy
    assert all(own.get("type") == "button" for tag, own in found.tags if tag == "button")
    assert all(own.get("alt") for tag, own in found.tags if tag == "img") and "prefers-color-scheme: dark" in style


def test_the_page_holds_every_crop_once_and_neither_distance_nor_name_is_shown(page):
    file, pairs = page
    text = file.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert [(p["a"], p["b"]) for p in data["pairs"]] == [(BAD[a], BAD[b]) for a, b in zip(pairs.a, pairs.b)]
    assert [float(p["weight"]) for p in data["pairs"]] == pytest.approx(pairs.weight.tolist(), rel=1e-5)
    assert len(data["images"]) == len(BAD) and set(data["pairs"][0]) == {"a", "b", "weight", "left", "right"}
    for p in data["pairs"]:
        raw = base64.b64decode(data["images"][p["left"]].removeprefix("data:image/jpeg;base64,"))
        (file.parent / "crop.jpg").write_bytes(raw)
        crop = Image.open(file.parent / "crop.jpg")
        assert crop.size == (38, 192) and abs(crop.getpixel((5, 5))[0] - 30 * BAD.index(p["a"])) < 12
    script = text[text.rindex("<script>"):]
    assert re.findall(r"(\w+)\.(?:a|b|weight)\b", script.replace("p.a, p.b", "", 1)) == ["p"], "only the CSV has them"


def test_two_hundred_pairs_of_busy_crops_are_less_than_5_mb(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(8):
        small = Image.fromarray(rng.integers(0, 255, (64, 32, 3), np.uint8)).resize((128, 256))
        small.save(tmp_path / f"{i}.png")
    pairs = pd.DataFrame({"a": [0, 2, 4, 6], "b": [1, 3, 5, 7], "weight": 1.})
    page = write_pair_page(tmp_path / "pairs.html", pairs, [f"{i}.png" for i in range(8)], tmp_path)
    assert page.stat().st_size / 4 * 200 < 5e6


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    Image.new("RGB", (20, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "pairs.html").write_text("old")
    pairs = pd.DataFrame({"a": [0], "b": [1], "weight": [1.]})
    with pytest.raises(FileNotFoundError, match="gone.jpg"):
        write_pair_page(tmp_path / "pairs.html", pairs, ["a.jpg", "gone.jpg"], tmp_path)
    with pytest.raises(ValueError, match="no UTF-8 text"):
        write_pair_page(tmp_path / "pairs.html", pairs, ["a.jpg", "b\udcff.jpg"], tmp_path)
    with pytest.raises(ValueError, match="no pairs"): write_pair_page(tmp_path / "pairs.html", pairs[:0], ["a.jpg"], tmp_path)
    assert (tmp_path / "pairs.html").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


# its script, run with a page that is made of plain objects

BROWSER = r"""
const fs = require("fs"), [file, keys, kept] = JSON.parse(fs.readFileSync(0, "utf8"));
const text = fs.readFileSync(file, "utf8"), elements = {}, handlers = {}, shown = [];
const element = id => elements[id] ??= {on: {}, set: {}, addEventListener(name, f) { this.on[name] = f; },
                                        setAttribute(name, value) { this.set[name] = String(value); }};
element("data").textContent = text.match(/id="data">([^]*?)<\/script>/)[1];
let store = kept, saved = null, named = null;
globalThis.localStorage = {
  getItem: () => { if (kept === "refused") throw Error("no"); return store; },
  setItem: (key, value) => { if (kept === "refused") throw Error("no"); named = key; store = value; }};
globalThis.document = {getElementById: element, addEventListener: (name, f) => { handlers[name] = f; },
                       createElement: () => ({click() {}})};
globalThis.Blob = class { constructor(parts) { this.text = parts.join(""); } };
URL.createObjectURL = blob => { saved = blob.text; return "blob:x"; };
globalThis.setTimeout = () => {};
(0, eval)(text.slice(text.lastIndexOf("<script>") + 8, text.lastIndexOf("</script>")));
const look = () => shown.push(["progress", "place", "counts", "note"].map(id => elements[id]?.textContent ?? ""));
look();
for (const key of keys) {
  if (key.startsWith("click ")) element(key.slice(6)).on.click();
  else if (key.startsWith("hold ")) handlers.keydown({key: key.slice(5), repeat: true, preventDefault() {}});
  else if (key.startsWith("ctrl ")) handlers.keydown({key: key.slice(5), ctrlKey: true, preventDefault() {}});
  else handlers.keydown({key, preventDefault() {}});
  look();
}
element("save").on.click();
const pick = ["s", "d", "u"].filter(id => elements[id].set["aria-pressed"] === "true");
process.stdout.write(JSON.stringify({shown, saved, store, named, pick, end: !elements.end.hidden, both: !elements.both.hidden,
                                     command: elements.command.textContent}));
"""
node = pytest.mark.skipif(not shutil.which("node"), reason="no JavaScript engine (node)")


def used(file, keys: list[str], kept: str | None = None) -> dict:
    "What a person sees and saves who presses these keys."
    done = subprocess.run(["node", "-e", BROWSER], input=json.dumps([str(file), keys, kept]).encode(), capture_output=True)
    assert not done.returncode, done.stderr.decode()
    return json.loads(done.stdout.decode("utf-8"))


@node
def test_what_the_page_saves_is_what_read_pairs_reads(page, tmp_path):
    file, pairs = page
    found = used(file, ["s", "D", "u", "s", "d", "d", "s"])
    (tmp_path / "pairs.csv").write_bytes(found["saved"].encode("utf-8"))
    back = read_pairs(tmp_path / "pairs.csv", BAD, np.ones(len(BAD)))
    kept = [0, 1, 3, 4, 5, 6]
    assert (back.a.tolist(), back.b.tolist()) == (pairs.a[kept].tolist(), pairs.b[kept].tolist())
    assert back.same.tolist() == [True, False, True, False, False, True]
    np.testing.assert_allclose(back.weight, pairs.weight[kept], rtol=1e-5)
    lines = found["saved"].split("\r\n")
    assert lines[0] == "path_a,path_b,same,weight" and lines[-1] == "", "RFC 4180: lines end in CR LF"
    assert lines[1] == '"a""<script>alert(1)</script>,b.jpg","Straße, Köln/Müller.jpg",1,1.5'
    assert found["end"] and not found["both"] and found["command"] == "ptl adapt <b>mine</b>"


@node
def test_keys_go_forth_and_back_and_a_held_key_answers_once(page):
    found = used(page[0], ["s", "hold s", "ctrl d", "x", "click d", "ArrowLeft", "Backspace", "u", "ArrowRight", "click u"])
    assert [s[:2] for s in found["shown"]] == [
        ["0 of 7", "pair 1: open"], ["1 of 7", "pair 2: open"], ["1 of 7", "pair 2: open"], ["1 of 7", "pair 2: open"],
        ["1 of 7", "pair 2: open"], ["2 of 7", "pair 3: open"], ["2 of 7", "pair 2: different"], ["2 of 7", "pair 1: same"],
        ["2 of 7", "pair 2: different"], ["2 of 7", "pair 3: open"], ["3 of 7", "pair 4: open"]]
    assert found["shown"][-1][2] == "0 same, 1 different, 2 unsure (left out)" and not found["end"] and found["pick"] == []
    assert json.loads(found["store"]) == ["u", "d", "u", "", "", "", ""] and found["named"].startswith("pairs-")
    assert used(page[0], ["ArrowLeft"])["shown"][1][1] == "pair 1: open" and used(page[0], ["d", "ArrowLeft"])["pick"] == ["d"]


@node
def test_a_closed_page_goes_on_where_it_was_and_damage_is_no_answer(page):
    before = used(page[0], ["s", "d"])
    after = used(page[0], [], before["store"])
    assert after["shown"][0][:2] == ["2 of 7", "pair 3: open"] and after["saved"] == before["saved"]
    for kept in ("{", '["s"]', '["s","d","x","","","",""]', '"sdsdsds"'):
        assert used(page[0], [], kept)["shown"][0][0] == "0 of 7"
    refused = used(page[0], ["s"], "refused")
    assert refused["shown"][1][0] == "1 of 7" and "save pairs.csv before" in refused["shown"][1][3]
    assert used(page[0], ["d"] * 7)["both"], "one kind only"


def test_other_pairs_are_kept_apart(page, tmp_path):
    file, pairs = page
    other = write_pair_page(tmp_path / "o.html", pairs[:6], BAD, file.parents[1])
    again = write_pair_page(tmp_path / "p.html", pairs, BAD, file.parents[1])
    keys = [re.search(r'"key": "(pairs-\w+)"', f.read_text(encoding="utf-8"))[1] for f in (file, other, again)]
    assert keys[0] == keys[2] != keys[1]
