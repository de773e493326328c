"""The distance at which two crops are one person: pairs, rates and intervals beside plain loops, what it promises."""
import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ptl_nb import threshold as module
from ptl_nb.data import decode
from ptl_nb.evaluator import extract
from ptl_nb.evidence import conflicts
from ptl_nb.starts import load_start, read_start
from ptl_nb.threshold import (
    Pairs, choose_threshold, constraint_report, error_curve, errors_at, identity_pairs, pair_distances, read_pairs,
    threshold_figure, tracklet_pairs)


def unit(x) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def video(people: int = 24, length: int = 7, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    "Features of people, four at once in one of two cameras, some crops of each missing; rows in random order."
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), length)
    x = unit(np.repeat(rng.normal(size=(people, 24)), length, 0) + spread * rng.normal(size=(len(who), 24)))
    rows = pd.DataFrame({"tracklet": who, "camid": who // 4 % 2 + 1,
                         "time": who // 8 * 100 + np.tile(np.arange(length), people)})
    kept = rng.permutation(len(who))[: len(who) * 4 // 5]
    return x[kept], rows.iloc[kept].reset_index(drop=True)


def pairs_of(rows: pd.DataFrame, each: int = 10) -> Pairs:
    return tracklet_pairs(rows.tracklet, rows.camid, rows.time, each)


def one_and_other(pairs: Pairs, same: bool) -> set[tuple[int, int]]:
    "Pairs of rows, the smaller first."
    return {tuple(sorted(p)) for p in zip(pairs.a[pairs.same == same].tolist(), pairs.b[pairs.same == same].tolist())}


def test_pairs_equal_a_plain_loop():
    _, rows = video()
    same, other = set(), set()
    for _, track in rows.groupby("tracklet"):
        order = track.sort_values("time").index.tolist()
        for i in range(len(order)):
            if (j := i + len(order) // 2) < len(order) and j > i: same.add(tuple(sorted((order[i], order[j]))))
    for i, j in combinations(rows.index, 2):
        a, b = rows.loc[i], rows.loc[j]
        if a.tracklet != b.tracklet and a.camid == b.camid and a.time == b.time: other.add((i, j))
    pairs = pairs_of(rows, each=99)
    assert one_and_other(pairs, True) == same and one_and_other(pairs, False) == other
    assert len(pairs.a) == len(same) + len(other), "no pair twice"
    assert (rows.tracklet[pairs.a].to_numpy() == np.unique(rows.tracklet)[pairs.left]).all()


@pytest.mark.parametrize("each", [1, 2, 3])
def test_each_tracklet_and_each_two_give_no_more_than_asked(each):
    _, rows = video()
    some, every = pairs_of(rows, each), pairs_of(rows, 99)
    for same in (True, False):
        here, there = (pd.Series(tuple(sorted(units)) for units in zip(p.left[p.same == same], p.right[p.same == same]))
                       .value_counts() for p in (some, every))
        assert (here == there.clip(upper=each)[here.index]).all() and len(here) == len(there)
        assert one_and_other(some, same) <= one_and_other(every, same)


def test_order_of_rows_and_kinds_of_times_do_not_matter():
    x, rows = video()
    found = choose_threshold(x, pairs_of(rows, 99), .05, resamples=9)
    for order in (np.argsort(rows.time.to_numpy(), kind="stable"), np.random.default_rng(3).permutation(len(rows))):
        again = choose_threshold(x[order], pairs_of(rows.iloc[order], 99), .05, resamples=9)
        assert again.distance.value == found.distance.value
    text = pd.Timestamp("2024-05-01") + pd.to_timedelta(rows.time, unit="s")
    again = tracklet_pairs(rows.tracklet * 7 + 3, rows.camid, text.astype(str), 99)
    assert choose_threshold(x, again, .05, resamples=9).fnmr == found.fnmr


def test_unknown_tracklets_and_times_are_in_no_pair_that_needs_them():
    _, rows = video()
    rows.loc[::5, "tracklet"] = -1
    pairs = tracklet_pairs(rows.tracklet, rows.camid, ["" if i % 3 == 0 else t for i, t in enumerate(rows.time)])
    assert (rows.tracklet[pairs.a] >= 0).all() and (rows.tracklet[pairs.b] >= 0).all()
    assert not (pairs.a[~pairs.same] % 3 == 0).any() and not (pairs.b[~pairs.same] % 3 == 0).any()


def naive_errors(x: np.ndarray, pairs: Pairs, d: float) -> list[float]:
    rates = []
    for same in (False, True):
        stands_in = {}
        mine = [i for i in range(len(pairs.a)) if pairs.same[i] == same]
        for i in mine:
            for u in (pairs.left[i], pairs.right[i]): stands_in[u] = stands_in.get(u, 0) + 1
        wrong = total = 0.0
        for i in mine:
            w = 1 / stands_in[pairs.left[i]] + 1 / stands_in[pairs.right[i]]
            near = float(1 - np.float64(x[pairs.a[i]]) @ np.float64(x[pairs.b[i]])) <= d
            total, wrong = total + w, wrong + w * (near != same)
        rates.append(wrong / total)
    return rates


def test_rates_equal_a_plain_loop_and_blocks_change_nothing(monkeypatch):
    x, rows = video()
    pairs = pairs_of(rows, 3)
    found = pair_distances(x, pairs)
    expected = [1 - float(x[a] @ x[b]) for a, b in zip(pairs.a, pairs.b)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for d in (.3, .6, .8, 1.1):
        np.testing.assert_allclose(errors_at(found, pairs, d), naive_errors(x, pairs, d), atol=1e-12)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_array_equal(pair_distances(x, pairs), found)


def test_every_tracklet_counts_the_same_however_long():
    "One tracklet of many crops, all of them missed, among three that are found."
    rows = pd.DataFrame({"tracklet": [0] * 20 + [1, 1, 2, 2, 3, 3], "camid": 1, "time": [*range(20), 0, 1, 0, 1, 0, 1]})
    x = unit(np.eye(26) + 0)
    for first in (20, 22, 24): x[first + 1] = x[first]
    pairs = pairs_of(rows)
    assert pairs.same.sum() == 13
    assert errors_at(pair_distances(x, pairs), pairs, .5)[1] == pytest.approx(1 / 4)


def test_the_curve_is_the_rates_and_the_chosen_point_the_best_on_it():
    x, rows = video()
    pairs = pairs_of(rows)
    found = pair_distances(x, pairs)
    curve = error_curve(found, pairs)
    for row in curve.iloc[::40].itertuples():
        np.testing.assert_allclose(errors_at(found, pairs, row.distance), (row.fmr, row.fnmr), atol=1e-9)
    assert curve.fmr.is_monotonic_increasing and curve.fnmr.is_monotonic_decreasing and curve.fnmr.iloc[-1] < 1e-9
    for wanted in (.01, .05, .3):
        chosen = choose_threshold(x, pairs, wanted, resamples=20)
        allowed = curve[curve.fmr <= wanted + 1e-9]
        best = allowed[allowed.fnmr <= allowed.fnmr.min() + 1e-9].iloc[0]
        assert chosen.distance.value == pytest.approx(best.distance)
        assert (chosen.fmr.value, chosen.fnmr.value) == pytest.approx((best.fmr, best.fnmr))


def test_the_interval_equals_a_plain_bootstrap_over_tracklets():
    x, rows = video(12, 5)
    pairs, resamples = pairs_of(rows, 2), 40
    chosen = choose_threshold(x, pairs, .1, resamples, seed=3)
    found, rng, samples = pair_distances(x, pairs), np.random.default_rng(3), []
    rows_of = {same: np.flatnonzero(pairs.same == same) for same in (False, True)}
    weight = {same: dict(zip(mine, module._weights(pairs, mine))) for same, mine in rows_of.items()}
    for _ in range(resamples):
        m, rates = rng.multinomial(12, np.full(12, 1 / 12)), []
        for same in (False, True):
            total = wrong = 0.0
            for i, w in weight[same].items():
                w *= m[pairs.left[i]] if same else m[pairs.left[i]] * m[pairs.right[i]]
                total, wrong = total + w, wrong + w * ((found[i] <= chosen.distance.value) != same)
            rates.append(wrong / total)
        samples.append(rates)
    low, high = np.quantile(samples, [.025, .975], axis=0)
    assert (chosen.fmr.low, chosen.fmr.high) == pytest.approx((low[0], high[0]))
    assert (chosen.fnmr.low, chosen.fnmr.high) == pytest.approx((low[1], high[1]))
    assert chosen.distance.low <= chosen.distance.value <= chosen.distance.high


def test_more_crops_of_the_same_tracklets_do_not_make_it_surer():
    "Every crop four times over: a bootstrap over pairs would halve the interval."
    x, rows = video(16, 6)
    one = choose_threshold(x, pairs_of(rows, 99), .05, 200)
    often = pd.concat([rows.assign(time=rows.time * 10 + k) for k in range(4)], ignore_index=True)
    four = choose_threshold(np.tile(x, (4, 1)), pairs_of(often, 99), .05, 200)
    width = one.fnmr.high - one.fnmr.low
    assert four.fnmr.high - four.fnmr.low > .7 * width > 0


def test_switched_ids_do_not_move_the_distance():
    x, rows = video(40, 8)
    wrong = rows.copy()
    for s in range(0, 40, 4):
        late = rows.time % 100 >= 4
        wrong.loc[late & (rows.tracklet == s), "tracklet"] = s + 1
        wrong.loc[late & (rows.tracklet == s + 1), "tracklet"] = s
    right, switched = (choose_threshold(x, pairs_of(r, 99), .05, 20) for r in (rows, wrong))
    assert abs(right.distance.value - switched.distance.value) < .06
    assert switched.fnmr.value > right.fnmr.value + .2, "the tracker's errors are counted as the model's"


def test_no_false_match_is_no_proof_of_none():
    x, rows = video(10, 6, spread=.05)
    chosen = choose_threshold(x, pairs_of(rows))
    assert chosen.fmr[:2] == (0, 0) and chosen.fmr.high == pytest.approx(1 - .05 ** (1 / chosen.units[1]))
    assert "[0.0, 2" in str(chosen) and "tracklets, within cameras" in str(chosen)


@pytest.mark.parametrize("rows, said", [
    ([[0, 1, 1], [0, 1, 2]], "1 tracklets: a threshold needs two"), ([[-1, 1, 1], [-1, 1, 2]], "0 tracklets"),
    ([[0, 1, 1], [0, 1, 2], [1, 1, 3]], "no two tracklets are seen at the same time"),
    ([[0, 1, 1], [0, 1, 2], [1, 2, 1]], "no two tracklets are seen at the same time"),
    ([[0, 1, ""], [0, 1, ""], [1, 1, ""]], "no two tracklets are seen at the same time"),
    ([[0, 1, 1], [1, 1, 1]], "no tracklet has two crops"), ([[0, 1, 1], [0, 2, 2], [1, 1, 1]], "is in two cameras")])
def test_too_little_to_tell(rows, said):
    table = pd.DataFrame(rows, columns=["tracklet", "camid", "time"])
    with pytest.raises(ValueError, match=said): pairs_of(table)


def test_input_that_does_not_fit():
    x, rows = video()
    pairs = pairs_of(rows)
    with pytest.raises(ValueError, match="give one of each for every crop"): tracklet_pairs([1], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="each is 0"): pairs_of(rows, 0)
    for wanted in (0, 1, float("nan")):
        with pytest.raises(ValueError, match="wanted is"): choose_threshold(x, pairs, wanted)
    with pytest.raises(ValueError, match="resamples is 0"): choose_threshold(x, pairs, resamples=0)
    with pytest.raises(ValueError, match="give the features of all crops"): choose_threshold(x[:5], pairs)
    with pytest.raises(ValueError, match="must be L2-normalised"): choose_threshold(3 * x, pairs)
    with pytest.raises(ValueError, match="feature 0 has length nan"): choose_threshold(np.full_like(x, np.nan), pairs)
    with pytest.raises(ValueError, match="no distance keeps to it and finds anybody"):
        choose_threshold(np.tile(x[:1], (len(x), 1)), pairs)


def labelled(folder, *lines: str):
    (folder / "pairs.csv").write_text("\n".join(("path_a,path_b,same", *lines)) + "\n")
    return read_pairs(folder / "pairs.csv", [f"{i}.jpg" for i in range(8)], [1, 2] * 4)


def test_labelled_pairs(tmp_path):
    told = ["0.jpg,1.jpg,1", "1.jpg,2.jpg,YES", "4.jpg,5.jpg,true", "3.jpg,0.jpg,0", "4.jpg,7.jpg,no"]
    pairs = labelled(tmp_path, *told)
    assert pairs.same.tolist() == [True] * 3 + [False] * 2 and pairs.kind == "labelled pairs, across cameras"
    assert len({*pairs.left[:2], *pairs.right[:2], pairs.right[3]}) == 1, "a chain of pairs is one person"
    x = unit(np.random.default_rng(0).normal(size=(8, 6)))
    x[[0, 1, 2]], x[[4, 5]] = x[0], x[4]
    chosen = choose_threshold(x, pairs)
    assert chosen.fmr.value == chosen.fnmr.value == 0 and chosen.units == (2, 4) and "people" in str(chosen)
    assert labelled(tmp_path, *told, "0.jpg,2.jpg,1").kind == "labelled pairs, 83% across cameras"
    assert labelled(tmp_path, "0.jpg,2.jpg,1", "0.jpg,4.jpg,0").kind == "labelled pairs, within cameras"


@pytest.mark.parametrize("line, said", [
    ("0.jpg,2.jpg,0", "line 5: two crops are different here, and one person"),
    ("0.jpg,9.jpg,1", "line 5: path_b '9.jpg' is none"),
    ("x.jpg,1.jpg,1", "line 5: path_a 'x.jpg' is none"), ("0.jpg,3.jpg,maybe", "line 5: same 'maybe' is neither"),
    ("3.jpg,3.jpg,1", "line 5: path_b '3.jpg' is the same crop"),
    ("1.jpg,0.jpg,1", "line 5: path_a '1.jpg' stands in this pair")])
def test_labelled_pairs_that_are_refused(tmp_path, line, said):
    with pytest.raises(ValueError, match=said) as refused:
        labelled(tmp_path, "0.jpg,1.jpg,1", "1.jpg,2.jpg,1", "3.jpg,4.jpg,0", line)
    assert "pairs.csv" in str(refused.value)


def test_labelled_pairs_of_one_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 pairs of one person and 0 of two"): labelled(tmp_path, "0.jpg,1.jpg,1")
    (tmp_path / "pairs.csv").write_text("path_a,path_b\n0.jpg,1.jpg\n")
    with pytest.raises(ValueError, match="no column 'same'"): read_pairs(tmp_path / "pairs.csv", [], [])


def weighted(folder, *lines: str):
    (folder / "pairs.csv").write_text("\n".join(("path_a,path_b,same,weight", *lines)) + "\n")
    return read_pairs(folder / "pairs.csv", [f"{i}.jpg" for i in range(8)], [1, 2] * 4)


def test_weights_of_labelled_pairs_are_read_and_a_pair_counts_by_them(tmp_path):
    pairs = weighted(tmp_path, "0.jpg,1.jpg,1,2.5", "2.jpg,3.jpg,1,7.5", "4.jpg,5.jpg,0,1e2", "6.jpg,7.jpg,0,300")
    assert pairs.weight.tolist() == [2.5, 7.5, 100, 300] and pairs.kind.endswith("cameras, weighted")
    far = np.array([.1, .9, .2, .8])
    assert errors_at(far, pairs, .5) == pytest.approx((1 / 4, 3 / 4))
    curve = error_curve(far, pairs)
    assert curve.fmr.tolist() == pytest.approx([0, .25, 1, 1]) and curve.fnmr.tolist() == pytest.approx([.75, .75, .75, 0])
    assert errors_at(far, labelled(tmp_path, "0.jpg,1.jpg,1", "2.jpg,3.jpg,1", "4.jpg,5.jpg,0", "6.jpg,7.jpg,0"), .5) == (.5, .5)


@pytest.mark.parametrize("weight", ["0", "-2", "nan", "inf", "much", ""])
def test_weights_that_are_refused(tmp_path, weight):
    with pytest.raises(ValueError, match="line 3: weight .* is no number above 0"):
        weighted(tmp_path, "0.jpg,1.jpg,1,2.5", f"2.jpg,3.jpg,0,{weight}")


def test_paths_with_blanks_around_them_are_read_as_they_stand(tmp_path):
    (tmp_path / "pairs.csv").write_text("path_a,path_b,same\n a.jpg, b.jpg ,1\n a.jpg,c.jpg,0\n")
    assert read_pairs(tmp_path / "pairs.csv", [" a.jpg", " b.jpg ", "c.jpg"], [1, 2, 1]).b.tolist() == [1, 2]


def drawn_near(seed: int, weights: bool) -> tuple[np.ndarray, Pairs, np.ndarray, np.ndarray]:
    "Of a world all of whose pairs are known: pairs drawn the more often the nearer; the distances of all of both kinds."
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(60), 5)
    x = unit(rng.normal(size=(60, 24))[who] + .7 * rng.normal(size=(300, 24)))
    i, j = np.triu_indices(300, 1)
    same, apart = who[i] == who[j], 1 - (x[i] * x[j]).sum(1)
    chance = np.minimum(1, 40 / (1 + np.argsort(np.argsort(apart))))
    k = np.flatnonzero(np.random.default_rng(seed).random(len(i)) < chance)
    pairs = Pairs(i[k], j[k], same[k], who[i[k]], who[j[k]], "labelled pairs", 1 / chance[k] if weights else None)
    return x, pairs, apart[~same], apart[same]


def test_with_weights_the_promise_holds_for_all_pairs_and_without_it_does_not():
    for weights in (True, False):
        promised, true, inside = [], [], []
        for seed in range(15):
            x, pairs, other, same = drawn_near(seed, weights)
            t = choose_threshold(x, pairs, resamples=60)
            true.append(((other <= t.distance.value).mean(), (same > t.distance.value).mean()))
            promised.append((t.fmr.value, t.fnmr.value))
            inside.append([i.low <= rate <= i.high for i, rate in zip((t.fmr, t.fnmr), true[-1])])
        (fmr, fnmr), (real_fmr, real_fnmr) = np.mean(promised, 0), np.mean(true, 0)
        if weights:
            assert abs(fmr - real_fmr) < .002 and abs(fnmr - real_fnmr) < .05 and np.mean(inside, 0).min() > .7
            assert real_fmr > .007, "what is wanted is used: the distance is that of any pair, not of the few of one person"
        else: assert real_fmr < .2 * fmr and real_fnmr > fnmr + .1


def test_no_miss_among_weighted_pairs_leaves_as_much_open_as_their_effective_number_does():
    for weights in (np.ones(6), np.array([50, 1, 1, 1, 1, 1])):
        x = unit(np.repeat(np.eye(6), 2, 0) + .01)
        a = np.arange(0, 12, 2)
        pairs = Pairs(np.append(a, 0), np.append(a + 1, 2), np.append([True] * 6, False), np.append(a, 0), np.append(a, 2),
                      "labelled pairs", np.append(weights, 1))
        t = choose_threshold(x, pairs, resamples=20)
        assert t.fnmr.value == 0 and t.fnmr.high == pytest.approx(1 - .05 ** ((weights ** 2).sum() / weights.sum() ** 2))


@pytest.mark.skipif("PTL_REAL" not in os.environ,
                    reason="set PTL_REAL to a folder with crops/ and a domain.csv of real people")
def test_the_promise_on_real_crops_is_kept_once_people_who_come_back_are_one():
    "Tracks of PETS 2009: by the look of their crops those of a group are one person; no such group was ever seen together."
    folder = Path(os.environ["PTL_REAL"])
    table, size = pd.read_csv(folder / "domain.csv"), read_start("rendered")["recipe"]
    crops = np.stack([decode(folder / p, (size["height"], size["width"])) for p in table.path])
    x, track, camera = extract(load_start("rendered"), crops), table.pid.to_numpy(), np.ones(len(table))
    t = choose_threshold(x, tracklet_pairs(track, camera, table.frame))
    together = {(a, b) for _, seen in table.groupby("frame").pid for a in seen for b in seen}
    person = track.copy()
    for group in ((1, 19), (2, 13), (3, 11), (4, 12), (5, 9), (6, 10), (8, 14, 15, 18)):
        assert not together & set(combinations(group, 2))
        person[np.isin(track, group)] = group[0]
    def fmr(pairs): return errors_at(pair_distances(x, pairs), pairs, t.distance.value)[0]
    by_track, by_person = (identity_pairs(who, camera, False) for who in (track, person))
    met = by_track.same | np.array([p in together for p in zip(track[by_track.a], track[by_track.b])])
    met = replace(by_track, **{name: getattr(by_track, name)[met] for name in ("a", "b", "same", "left", "right")})
    assert len(set(person)) == 10 and fmr(by_track) > t.fmr.high, "19 ids are not 19 people"
    assert t.fmr.low <= fmr(by_person) <= .013 and t.fmr.low <= fmr(met) <= .02


@pytest.mark.parametrize("across", [False, True])
def test_pairs_of_named_people_equal_a_plain_loop(across):
    rng = np.random.default_rng(0)
    pids, camids = rng.integers(0, 9, 60), rng.integers(1, 4, 60)
    pairs = identity_pairs(pids, camids, across, each=400)
    for same in (True, False):
        expected = {(i, j) for i, j in combinations(range(60), 2)
                    if (pids[i] == pids[j]) == same and (camids[i] != camids[j]) == across}
        assert one_and_other(pairs, same) == expected, "with so many drawn, all are"
    with pytest.raises(ValueError, match="no pair of"): identity_pairs([0, 1], [1, 2], across=False)


def naive_report(labels, tracklets, camids, times) -> tuple[float, int, float]:
    images = [i for i in range(len(labels)) if tracklets[i] >= 0]
    clusters = {t: [labels[i] for i in images if tracklets[i] == t and labels[i] >= 0]
                for t in {tracklets[i] for i in images}}
    long = [c for c in clusters.values() if len(c) > 1]
    met = {frozenset((tracklets[i], tracklets[j])) for i, j in combinations(images, 2) if tracklets[i] != tracklets[j]
           and camids[i] == camids[j] and times[i] == times[j]}
    met = [tuple(m) for m in met if all(clusters[t] for t in m)]
    return (np.mean([len(set(c)) == 1 for c in long]), len(met),
            np.mean([bool(set(clusters[s]) & set(clusters[t])) for s, t in met]))


@pytest.mark.parametrize("seed", range(4))
def test_report_on_clusters_equals_a_plain_loop(seed):
    _, rows = video(seed=seed)
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(len(rows)) < .7, rows.tracklet // 2, rng.integers(-1, 12, len(rows)))
    rows.loc[rng.random(len(rows)) < .1, "tracklet"] = -1
    report = constraint_report(labels, rows.tracklet, rows.camid, rows.time)
    expected = naive_report(labels.tolist(), rows.tracklet.tolist(), rows.camid.tolist(), rows.time.tolist())
    assert (report["together"], report["met"], report["conflicts"]) == pytest.approx(expected)
    assert 0 < report["conflicts"] < 1 and 0 < report["together"] < 1


def test_report_where_each_tracklet_has_one_moment_is_that_of_the_evidence():
    rng = np.random.default_rng(0)
    labels, times = rng.integers(0, 5, 40), rng.integers(0, 10, 40)
    report = constraint_report(labels, np.arange(40), np.ones(40), times)
    assert report["conflicts"] == pytest.approx(conflicts(labels, np.ones(40), times)) and np.isnan(report["together"])


def test_figure_shows_every_curve_and_the_chosen_point():
    x, rows = video()
    pairs = pairs_of(rows)
    curve = error_curve(pair_distances(x, pairs), pairs)
    figure = threshold_figure({"a": curve, "b": curve}, choose_threshold(x, pairs, resamples=9), standin=True)
    assert [len(ax.lines) for ax in figure.axes] == [5, 3] and "rendered" in figure._suptitle.get_text()
