"""What a tracker knows: pairs, cuts, averages and splits beside plain loops; a training with and without; bad input."""
import functools
import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array

from ptl_nb import cluster_contrast as cc
from ptl_nb import runs
from ptl_nb.adaptation import plan
from ptl_nb.camera_bn import reestimate_bn
from ptl_nb.clustering import JaccardDistance, dbscan, hold_pairs, stability
from ptl_nb.data import Images, pixels
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import extract
from ptl_nb.methods import parse_method
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.reranking import jaccard_similarity
from ptl_nb.ssg import SSG, SSGRecipe, quality
from ptl_nb.starts import load_start
from ptl_nb.store import Store
from ptl_nb.ties import (
    Ties, broken, cannot_link, cut_tracklets, find_ties, jump_limit, pretended_tracks, tied_clusters, tied_similarity)
from ptl_nb.trainer import Session, fit

NONE = np.zeros((0, 2), np.int64)


def unit(x) -> np.ndarray: return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def video(switched: float = 0.3, count: int = 24, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    "Features of people under two cameras, seven crops in each, and their tracks, some crops and times missing."
    rng = np.random.default_rng(seed)
    people = pd.DataFrame({"pid": np.repeat(np.arange(count), 14), "camid": np.tile(np.repeat([1, 2], 7), count)})
    rows = pretended_tracks(people, switched, seed).assign(pid=people.pid)
    x = unit(rng.normal(size=(count, 16))[people.pid] + 0.6 * rng.normal(size=(len(rows), 16)))
    rows.loc[rng.random(len(rows)) < .1, "time"] = -1
    rows.loc[rng.random(len(rows)) < .05, "tracklet"] = -1
    kept = rng.permutation(len(rows))[: len(rows) * 4 // 5]
    return x[kept], rows.iloc[kept].reset_index(drop=True)


def columns(rows: pd.DataFrame) -> tuple[np.ndarray, ...]:
    return tuple(rows[c].to_numpy() for c in ("tracklet", "camid", "time"))


def ties_of(x: np.ndarray, rows: pd.DataFrame) -> Ties:
    pieces, cut = cut_tracklets(x, *columns(rows))
    return Ties(pieces, cannot_link(pieces, *columns(rows)[1:]), cut)


# beside plain loops

@pytest.mark.parametrize("seed", range(3))
def test_pairs_that_are_apart_equal_a_plain_loop(seed):
    _, rows = video(seed=seed)
    met = set()
    for a, b in combinations(rows.itertuples(), 2):
        known = min(a.tracklet, b.tracklet, a.time, b.time) >= 0
        if known and a.tracklet != b.tracklet and (a.camid, a.time) == (b.camid, b.time):
            met.add((min(a.tracklet, b.tracklet), max(a.tracklet, b.tracklet)))
    assert len(met) > 20 and cannot_link(*columns(rows)).tolist() == sorted(map(list, met))


@pytest.mark.parametrize("seed", range(3))
def test_cuts_equal_a_plain_loop(seed):
    x, rows = video(seed=seed)
    tracklets, camids, times = columns(rows)
    near, of = [], {t: [] for t in np.unique(tracklets[tracklets >= 0])}
    for t in of:
        of[t] = sorted((i for i in range(len(rows)) if tracklets[i] == t and times[i] >= 0), key=lambda i: times[i])
        near += [1 - x[i] @ x[j] for i, j in zip(of[t], of[t][1:])]
    far = []           # neighbours of a moment, in the order of tracklets
    for moment in {(c, t) for c, t in zip(camids, times) if t >= 0}:
        here = sorted((i for i in range(len(rows)) if (camids[i], times[i]) == moment and tracklets[i] >= 0),
                      key=lambda i: tracklets[i])
        far += [1 - x[i] @ x[j] for i, j in zip(here, here[1:])]
    limit = min(d for d in near + far if np.mean(np.array(far) <= d) >= np.mean(np.array(near) > d))
    assert jump_limit(np.array(near), np.array(far)) == pytest.approx(limit, abs=1e-6)
    pieces, cut = cut_tracklets(x, tracklets, camids, times)
    expected, cuts = {}, 0
    for t, rows_of in of.items():
        groups = [[]]
        for i in rows_of:
            if groups[-1] and 1 - x[groups[-1][-1]] @ x[i] > limit + 1e-6: groups.append([])
            groups[-1].append(i)
        cuts += len(groups) > 1
        undated = [i for i in range(len(rows)) if tracklets[i] == t and times[i] < 0]
        if len(groups) == 1: groups[0] += undated
        for g in groups: expected |= {i: frozenset(g) for i in g}
    assert cut == cuts > 0
    found = {i: frozenset(np.flatnonzero(pieces == pieces[i])) for i in np.flatnonzero(pieces >= 0)}
    assert found == expected and set(pieces) == set(range(pieces.max() + 1)) | ({-1} if -1 in pieces else set())


def test_most_switches_are_cut_and_little_else():
    x, rows = video(switched=0.3)
    pieces, cut = cut_tracklets(x, *columns(rows))
    def mixed(of): return (rows.pid[of >= 0].groupby(of[of >= 0]).nunique() > 1).sum()
    assert mixed(rows.tracklet.to_numpy()) > 10 and mixed(pieces) < mixed(rows.tracklet.to_numpy()) / 4
    x, rows = video(switched=0)
    assert cut_tracklets(x, *columns(rows))[1] < 48 / 5


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_averages_equal_a_plain_loop(least):
    x, rows = video(count=8)
    S, ties = jaccard_similarity(x, 8, 4), ties_of(x, rows)
    dense, apart = S.toarray().astype(float), set(map(tuple, ties.apart))
    of = [np.flatnonzero(ties.units == u) for u in range(ties.units.max() + 1)]
    assert [len(rows) for rows in of[ties.pieces.max() + 1:]] == [1] * (ties.pieces < 0).sum() and sum(map(len, of)) == len(x)
    expected = np.zeros((len(of), len(of)))
    for s, t in np.ndindex(*expected.shape):
        mean = dense[np.ix_(of[s], of[t])].mean()
        expected[s, t] = 1 if s == t else 0 if (min(s, t), max(s, t)) in apart or mean < least else mean
    found = tied_similarity(S, ties, least)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-6)
    assert found.dtype == np.float32 and len(apart) > 5


def naively_split(cluster: dict, size: dict, sums: dict, apart: set, least: int) -> dict:
    "Group of each unit: the plain form of the rule."
    out = {}
    for c in sorted({v for v in cluster.values() if v >= 0}):
        members = sorted(u for u in cluster if cluster[u] == c)
        foes = {u: {v for v in members if (min(u, v), max(u, v)) in apart} for u in members}
        groups = []
        def near(u, g): return sums[u] @ (s := sum(sums[v] for v in g)) / np.linalg.norm(s)
        for u in sorted((u for u in members if foes[u]), key=lambda u: (-size[u], u)):
            able = [g for g in groups if not foes[u] & set(g)]
            if able: max(able, key=lambda g: near(u, g)).append(u)
            else: groups.append([u])
        seeds = [list(g) for g in groups] or [members]
        groups = [list(g) for g in seeds]
        for u in members:
            if not any(u in g for g in groups): groups[max(range(len(seeds)), key=lambda k: near(u, seeds[k]))].append(u)
        for k, g in enumerate(groups):
            whole = len(groups) == 1 or sum(size[u] for u in g) >= least
            out |= {u: (c, k) if whole else None for u in g}
    return out


@pytest.mark.parametrize("seed, least", [(0, 2), (1, 4), (2, 9)])
def test_splits_equal_a_plain_loop(seed, least):
    x, rows = video(seed=seed)
    ties, rng = ties_of(x, rows), np.random.default_rng(seed)
    labels = np.where(rng.random(len(x)) < .2, -1, rows.pid.to_numpy() % 3)      # eight people in each cluster
    units = np.where(ties.pieces >= 0, ties.pieces, 1000 + np.arange(len(x)))
    cluster = {}
    for u in np.unique(units):
        votes = [v for v in labels[units == u] if v >= 0]
        cluster[u] = max(sorted(set(votes)), key=votes.count) if votes else -1
    size = {u: (units == u).sum() for u in cluster}
    sums = {u: x[units == u].sum(0).astype(float) for u in cluster}
    group = naively_split(cluster, size, sums, set(map(tuple, ties.apart)), least)
    found = tied_clusters(labels, x, ties, least)
    assert broken(labels, ties) > 20 and broken(found, ties) == 0 and set(found) <= set(range(-1, found.max() + 1))
    for i, j in combinations(range(len(x)), 2):
        one, other = group.get(units[i]), group.get(units[j])
        assert (found[i] == found[j] >= 0) == (one is not None and one == other)
    assert all((found[i] < 0) == (group.get(units[i]) is None) for i in range(len(x)))


def test_broken_pairs_equal_a_plain_loop():
    x, rows = video()
    ties, labels = ties_of(x, rows), rows.pid.to_numpy() % 4 - 1
    clusters = [set(labels[(ties.pieces == p) & (labels >= 0)]) for p in range(ties.pieces.max() + 1)]
    assert broken(labels, ties) == sum(bool(clusters[s] & clusters[t]) for s, t in ties.apart) > 0


def test_a_piece_is_in_one_cluster_by_its_distance_alone():
    x, rows = video()
    ties = ties_of(x, rows)
    units = JaccardDistance(tied_similarity(jaccard_similarity(x, 8, 4), ties))
    held = replace(hold_pairs(units, .6), units=ties.units)
    labels = dbscan(held, .5, 4)
    every = csr_array(units.similarity.toarray()[np.ix_(ties.units, ties.units)])      # the same of all images
    plain = dbscan(JaccardDistance(every), .5, 4)
    assert (pd.Series(plain).groupby(labels).nunique() == 1).all() and (pd.Series(labels).groupby(plain).nunique() == 1).all()
    assert ((labels < 0) == (plain < 0)).all() and stability(held, .5, .2, 4) == pytest.approx(stability(JaccardDistance(every), .5, .2, 4))
    assert labels.max() > 3 and (pd.Series(labels)[ties.pieces >= 0].groupby(ties.pieces[ties.pieces >= 0]).nunique() == 1).all()


# what is no such target

def images(n: int = 6, **known) -> Images:
    return Images(np.zeros((n, 4, 2, 3), np.uint8), **{k: np.asarray(v) for k, v in known.items()})


def test_what_a_tracklet_cannot_be_is_refused():
    with pytest.raises(ValueError, match="without cameras; each is of one camera: give camids"): images(tracklets=[0] * 6)
    with pytest.raises(ValueError, match="tracklet 3 is in the cameras 1 and 2: number tracklets anew in each"):
        images(camids=[1, 1, 1, 2, 2, 1], tracklets=[-1, 3, 3, 3, -1, -1])
    with pytest.raises(ValueError, match="tracklets holds 5 rows for 6 images"): images(camids=[1] * 6, tracklets=[0] * 5)
    with pytest.raises(ValueError, match="times holds 7 rows for 6 images"): images(times=[0] * 7)
    with pytest.raises(ValueError, match=r"times are float64 of shape \(6,\); expected an array \(N\) of integers"): images(times=[0.] * 6)


def test_what_is_not_known_ties_nothing():
    x, camids = unit(np.random.default_rng(0).normal(size=(6, 8))), [1] * 6
    assert find_ties(x, images()) is None and find_ties(x, images(camids=camids, tracklets=[-1] * 6)) is None
    undated = find_ties(x, images(camids=camids, tracklets=[0, 0, 1, 1, 2, -1]))
    assert (undated.cut, undated.tied, len(undated.apart)) == (0, 2, 0) and undated.pieces.tolist() == [0, 0, 1, 1, 2, -1]
    one = find_ties(x, images(camids=camids, tracklets=[4] * 6, times=range(6)))
    assert (one.cut, one.tied, len(one.apart), one.pieces.tolist()) == (0, 1, 0, [0] * 6)
    assert tied_clusters(np.array([0, 0, -1, 1, -1, 1]), x, one).tolist() == [0] * 6
    assert tied_clusters(np.full(6, -1), x, one).tolist() == [-1] * 6
    elsewhere = find_ties(x, images(camids=[1, 1, 1, 2, 2, 2], tracklets=[0, 0, 0, 1, 1, 1], times=[0, 1, 2] * 2))
    assert len(elsewhere.apart) == 0
    alike = find_ties(np.ones((6, 1), np.float32), images(camids=camids, tracklets=[0, 1] * 3, times=[0, 0, 1, 1, 2, 2]))
    assert (alike.cut, alike.apart.tolist()) == (0, [[0, 1]])


# a training

RECIPE = cc.ContrastRecipe("test", k1=8, eps=0.5, identities=4, images=4, rounds=3, iterations=4, lr=1e-3, max_share=0.5)


@functools.cache
def crowd() -> tuple[np.ndarray, pd.DataFrame]:
    "Noisy two-coloured people (96, 32, 16, 3) under three cameras, and their tracks."
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"pid": np.repeat(np.arange(8), 12), "camid": np.tile(np.repeat([1, 2, 3], 4), 8)})
    colours = rng.integers(20, 236, (8, 2, 3))
    body = np.repeat(colours[people.pid], 16, 1)[:, :, None].repeat(16, 2)
    x = np.clip(body + rng.normal(0, 90, body.shape), 0, 255).astype(np.uint8)
    return x, pretended_tracks(people, .2).assign(pid=people.pid)


def target(*known: str) -> Images:
    x, tracks = crowd()
    return Images(x, camids=tracks.camid.to_numpy(), **{k: tracks[k.removesuffix("s")].to_numpy() for k in known})


def run(to: Images, recipe: cc.ContrastRecipe = RECIPE, method: cc.ClusterContrast = cc.ClusterContrast(), state: Path | None = None):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = PTLNet(5, backbone_name="mini")
    reestimate_bn(net, to.pixels)
    return net, fit(net, None, recipe, method, to, session=Session(precision="fp32", state=state))


def same(net: PTLNet, other: PTLNet) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(theirs[name], value) for name, value in net.state_dict().items())


@pytest.fixture(scope="module")
def tied(): return run(target("tracklets", "times"))


COLUMNS = ["tracklets", "cut", "apart", "broken", "broken_after"]


def test_rounds_tell_of_ties_and_no_pair_that_is_apart_stays_together(tied):
    records = tied[1]
    assert (records[COLUMNS].dtypes == np.int64).all() and (records.tracklets > 20).all() and (records.cut >= 0).all()
    assert (records.apart > 20).all() and (records.broken_after == 0).all() and (records.broken <= records.apart).all()


def test_without_tracklets_not_a_digit_changes(tied):
    net, records = run(target())
    without, unknown = replace(RECIPE, ties=False), replace(target("times"), tracklets=np.full(96, -1))
    for to, recipe in ((target("times"), RECIPE), (target("tracklets", "times"), without), (target(), without),
                       (unknown, RECIPE)):
        other, rows = run(to, recipe)
        assert same(net, other)
        pd.testing.assert_frame_equal(rows, records, check_exact=True)
    assert not set(COLUMNS) & set(records) and not same(net, tied[0])


class Stopped(cc.ClusterContrast):
    def after_step(self, s, batches):
        if s.facts["record"]["round"] == 2: raise RuntimeError("stopped here")
        super().after_step(s, batches)


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(tied, tmp_path):
    state = tmp_path / "state.safetensors"
    with pytest.raises(RuntimeError, match="stopped here"): run(target("tracklets", "times"), method=Stopped(), state=state)
    assert state.exists()
    with pytest.raises(ValueError): run(target(), state=state)      # another target
    net, records = run(target("tracklets", "times"), state=state)
    assert same(net, tied[0])
    pd.testing.assert_frame_equal(records, tied[1], check_exact=True)


def test_ssg_agrees_with_tracklets_and_without_them_not_a_digit_changes():
    recipe = SSGRecipe(distance="euclidean", rho=0.06, batch=16, rounds=2, epochs=1, lr=1e-3)
    net, records = run(target(), recipe, SSG())
    other, rows = run(target("tracklets", "times"), replace(recipe, ties=False), SSG())
    assert same(net, other) and not {"cut", "apart"} & set(rows)
    other, rows = run(target("tracklets", "times"), recipe, SSG())
    assert not same(net, other) and (rows[["tracklets", "apart"]] > 20).all().all()
    assert rows.dropped[0] <= records.dropped[0] and {"broken_whole", "broken_upper", "broken_lower"} <= set(rows)


# from a table to a training

@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "A domain of one's own with tracklets and times."
    place = tmp_path_factory.mktemp("own")
    x, tracks = crowd()
    for i, image in enumerate(x): Image.fromarray(image).save(place / f"{i:03d}.png")
    table = pd.DataFrame({"path": [f"{i:03d}.png" for i in range(len(x))], "pid": -1, "camid": tracks.camid, "split": "train",
                          "time": tracks.time, "tracklet": "id" + tracks.tracklet.astype(str)})
    table.to_csv(place / "domain.csv", index=False)
    table.drop(columns=["tracklet", "time"]).to_csv(place / "plain.csv", index=False)
    return place


def test_a_run_learns_from_the_tracklets_of_its_target_and_its_key_knows_them(folder, tmp_path, monkeypatch):
    seen = []
    def stop(net, source, recipe, method, to, *rest):
        if to is None: return fit(net, source, recipe, method, to, *rest)      # the start
        seen.append(to)
        raise KeyboardInterrupt
    monkeypatch.setattr(runs, "fit", stop)
    source, keys = load_domain("plaza", origin="standin"), []
    for name, time in (("domain.csv", "time"), ("plain.csv", "")):
        own = load_domain(str(folder / name), time=time)
        made = runs.ReIDRun(replace(RECIPES["smoke"], start="rendered"), parse_method("start+CC"), source, own, own=RECIPE)
        keys.append(made.key("cpu"))
        with pytest.raises(KeyboardInterrupt): Store(tmp_path, progress=False).make(made)
    assert keys[0]["target"] != keys[1]["target"] and keys[0]["recipe"] == keys[1]["recipe"] and keys[0]["recipe"]["ties"] is True
    tracks, plain = seen
    assert plain.tracklets is None and plain.times is None and (tracks.camids == plain.camids).all()
    known = crowd()[1]
    assert (pd.Series(tracks.tracklets).groupby(known.tracklet).nunique() == 1).all()
    assert len(set(tracks.tracklets)) == known.tracklet.nunique()
    assert (tracks.times == pd.factorize(known.time, sort=True)[0]).all()


def test_the_plan_tells_of_tracklets_where_there_are_any():
    recipe = RECIPES["camera"]
    assert "tracklets" not in plan(5000, recipe).reasons and "tracklets" not in plan(5000, recipe, tracklets=[-1, -1]).reasons
    assert "3 tracklets" in plan(5000, recipe, tracklets=[0, 0, 4, 7, -1]).reasons["tracklets"]
    assert "left out" in plan(100, recipe, tracklets=[0, 0, 4]).reasons["tracklets"]
    assert "one cluster" in plan(5000, recipe, "start,ssg", tracklets=[0, 0, 4]).reasons["tracklets"]


# real pixels

@pytest.mark.slow
@pytest.mark.skipif("PTL_REAL" not in os.environ, reason="PTL_REAL is unset")
def test_real_crops_of_tracks_with_and_without_switched_ids():
    real = load_domain(os.environ["PTL_REAL"])
    table = pd.concat([real.query, real.gallery], ignore_index=True)
    x = np.concatenate([extract(load_start("rendered"), pixels(real, split, (128, 64)), "fp32") for split in ("query", "gallery")])
    frame = table.path.str.extract(r"_(\d{6})_")[0].astype(int).to_numpy()
    who = table.groupby(["pid", "camid"]).ngroup().to_numpy()
    one = np.ones(len(table), np.int64)                 # the two halves of the film are one camera
    pieces, cut = cut_tracklets(x, who, one, frame)
    apart = cannot_link(who, one, frame)
    names = table.pid.groupby(who).first().to_numpy()
    assert len(apart) > 10 and (names[apart[:, 0]] != names[apart[:, 1]]).all()
    assert (table.pid.groupby(pieces).nunique() == 1).all() and cut <= len(set(who)) / 2
    labels = dbscan(JaccardDistance(jaccard_similarity(x, 20, 6)), .5, 4)
    found = tied_clusters(labels, x, Ties(who, apart, 0), 4)
    assert broken(found, Ties(who, apart, 0)) == 0
    assert quality(found, table.pid.to_numpy())["purity"] >= quality(labels, table.pid.to_numpy())["purity"]
