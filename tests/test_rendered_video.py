"""Rendered people before a camera, with true boxes and ids; and how far other ids agree, against plain loops."""
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ptl_nb.domains import load_domain
from ptl_nb.rendered_video import Walks, cut_out, detected, followed, id_scores, ids_page, plan_walks, render_video
from ptl_nb.tracks import Rules, cut_tracks, find_recordings, read_boxes, read_frames

SHORT = Walks(seconds=16, fps=5, away=(1., 2.))
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)


def drawn(people: int = 4, figures: int = 4) -> dict[int, list[np.ndarray]]:
    "People of one colour each: figures that are opaque but for a border."
    def one(colour):
        out = np.zeros((100, 40, 4), np.uint8)
        out[2:-2, 2:-2] = (*colour, 255)
        return out
    return {10 + i: [one(COLOURS[i])] * figures for i in range(people)}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    "Two cameras' folder, and the truth of the first."
    folder = tmp_path_factory.mktemp("film")
    truths = [render_video(folder / name, drawn(), SHORT, ("plaza", k), seed=k)
              for k, name in enumerate(("door", "till"), start=1)]
    return folder, truths[0]


def loops(truth: pd.DataFrame, found: pd.DataFrame) -> tuple[float, int]:
    "IDF1 and switches, by all one-to-one maps of ids and of each frame's boxes."
    def iou(a, b):
        w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
        h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
        return w * h / (a.w * a.h + b.w * b.h - w * h) if w > 0 and h > 0 else 0.
    overlap = {(a.frame, a.id, b.id): iou(a, b) for a in truth.itertuples() for b in found.itertuples()
               if a.frame == b.frame and iou(a, b) >= .5}
    ids, other = sorted(set(truth.id)), sorted(set(found.id)) + [None] * truth.id.nunique()
    agreeing = max(sum((f, t, dict(zip(ids, p))[t]) in overlap for f, t in zip(truth.frame, truth.id))
                   for p in set(permutations(other, len(ids))))
    last, switches = {}, 0
    for frame in sorted(set(truth.frame)):
        mine = list(truth.id[truth.frame == frame])
        theirs = list(found.id[found.frame == frame]) + [None] * len(mine)
        def worth(p):
            pairs = [(t, g) for t, g in zip(mine, p) if (frame, t, g) in overlap]
            return sum(1000 * (last.get(t) == g) + 10 + overlap[frame, t, g] for t, g in pairs)
        best = max(permutations(theirs, len(mine)), key=worth)
        for t, g in zip(mine, best):
            if (frame, t, g) not in overlap: continue
            switches += last.get(t, g) != g
            last[t] = g
    return 200 * agreeing / (len(truth) + len(found)), switches


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    truth = pd.DataFrame([(f, i, 20. * i + rng.normal(0, 4), 10., 30., 60.) for f in range(9) for i in (1, 2, 3)
                          if rng.random() < .9], columns=["frame", "id", "x", "y", "w", "h"])
    found = truth.assign(x=truth.x + rng.normal(0, 6, len(truth)))[rng.random(len(truth)) < .9].reset_index(drop=True)
    mixed = found.groupby("frame").id.transform(lambda i: rng.permutation([4, 5, 6])[:len(i)])
    found["id"] = np.where(found.frame.isin(rng.permutation(9)[:4]), mixed, found.id + 3)
    scores = id_scores(truth, found)
    idf1, switches = loops(truth, found)
    assert np.isclose(scores["IDF1"], idf1) and scores["switches"] == switches
    assert scores["covered"] == 100 * len(followed(truth, found)) / len(truth)


def test_ids_of_nobody_score_nothing():
    truth = pd.DataFrame({"frame": [1, 2], "id": 1, "x": 0., "y": 0., "w": 9., "h": 9.})
    assert id_scores(truth, truth[:0]) == {"IDF1": 0., "switches": 0, "ids_per_person": 0., "ids": 0, "covered": 0.}
    with pytest.raises(ValueError, match="no box"): id_scores(truth[:0], truth)
    with pytest.raises(ValueError, match="found has an id twice"): id_scores(truth, pd.concat([truth, truth]))


def test_boxes_lie_on_the_people_and_visibility_is_what_is_seen(film):
    folder, truth = film
    recording = find_recordings(folder)[0]
    boxes, said = read_boxes(recording.text)
    assert said["not to be considered (conf 0)"] == (truth.visibility < SHORT.seen).sum() > 0
    colour_of = dict(zip(sorted(plan_walks({p: 4 for p in drawn()}, SHORT, 1).groupby("id").pid.first().items()),
                         range(4)))
    colour_of = {i: COLOURS[pid - 10] for i, pid in colour_of}
    inside = truth[(truth.x > 0) & (truth.x + truth.w < SHORT.size[1])]
    for number, frame in read_frames(recording, boxes[boxes.frame % 7 == 0]):
        for b in inside[inside.frame == number].itertuples():
            near = np.abs(frame[b.y:b.y + b.h, b.x:b.x + b.w].astype(int) - colour_of[b.id]).sum(-1) < 150
            assert abs(near.mean() - b.visibility * 36 * 96 / 4000) < .12, (number, b)
    assert (inside.visibility == 1).any() and (inside.visibility == 0).any()


def test_nobody_shows_a_figure_in_two_visits_and_seeds_decide():
    figures = {1: 5, 2: 4, 3: 6}
    plan = plan_walks(figures, Walks(), 3)
    assert plan.groupby(["pid", "figure"]).visit.nunique().max() == 1 and plan.visit.max() == 1
    assert plan.equals(plan_walks(figures, Walks(), 3)) and not plan.equals(plan_walks(figures, Walks(), 4))
    steps = plan.sort_values(["id", "visit", "frame"]).groupby(["id", "visit"])[["x", "h"]].agg(list)
    for x, h in steps.itertuples(index=False):
        assert (np.abs(np.diff(x)) <= .95 * h[0] / Walks().fps + 1e-6).all(), "nobody runs"
    gap = plan.groupby(["id", "visit"]).frame.agg(["min", "max"]).unstack()
    assert ((gap["min"][1] - gap["max"][0]).dropna() >= Walks().away[0] * Walks().fps - 1).all()


def test_the_video_is_one_that_crops_are_cut_from(film, tmp_path):
    counts = cut_tracks(film[0], tmp_path / "crops", fps=SHORT.fps, rules=Rules(stride=3, sharpness=0))
    assert (counts.crops > 20).all() and list(counts.index) == ["door", "till"]


def test_a_detector_misses_a_share_and_is_off_by_a_little(film):
    boxes, _ = read_boxes(find_recordings(film[0])[0].text)
    found = detected(boxes, seed=1)
    assert found.equals(detected(boxes, seed=1)) and not found.equals(detected(boxes, seed=2))
    assert .85 < len(found) / len(boxes) < 1 and (found[["w", "h"]] > 0).all(axis=None)
    exact = detected(boxes, jitter=0, missed=0)
    assert np.allclose(exact, boxes[exact.columns])
    assert id_scores(boxes, found.assign(id=found.index))["covered"] > 80
    with pytest.raises(ValueError, match="below 1"): detected(boxes, missed=1.)


def test_people_are_cut_out_where_the_truth_is():
    plaza = load_domain("plaza")
    people = cut_out(plaza, 2, least=3)
    assert people and all(len(f) >= 3 for f in people.values())
    figure = next(iter(people.values()))[0]
    opaque = figure[..., 3] == 255
    assert set(np.unique(figure[..., 3])) == {0, 255} and opaque[0].any() and opaque[-1].any() and opaque[:, 0].any()
    with pytest.raises(ValueError, match="camera 99"): cut_out(plaza, 99)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"visits": 0}, {"turn": 2}, {"seen": 0}])
def test_walks_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError): Walks(**wrong)


def test_nobody_walks_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="nobody walks"): render_video(tmp_path / "a", {}, SHORT)
    assert not list(tmp_path.iterdir())


def test_a_page_has_a_row_for_each_way_of_giving_ids(film):
    recording = find_recordings(film[0])[0]
    boxes, _ = read_boxes(recording.text)
    frames = dict(read_frames(recording, boxes[boxes.frame.isin(boxes.frame.unique()[5:7])]))
    page = ids_page(frames, {"true": boxes, "other": boxes.assign(id=boxes.id + 5)})
    shown = [len(ax.patches) for ax in page.axes]
    assert len(shown) == 4 and shown[:2] == shown[2:] == [int((boxes.frame == n).sum()) for n in frames]
