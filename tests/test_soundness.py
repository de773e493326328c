"""Warnings without labels: what they may see, and input that does not fit together."""
import inspect

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from ptl_nb import soundness as module
from ptl_nb.clustering import PlainDistance, dbscan, eps_from_rho, rho_from_neighbours, stability
from ptl_nb.soundness import LIMITS, augmented_copies, copies_found, rows_to_copy, soundness, warnings_of

SOUND = {"images": 800, "cameras": 2, "clusters": 100, "largest": 0.01, "times_median": 1.2, "outliers": 0.3,
         "stability": 0.8, "across": 0.9, "copies": 0.9}


def crowd(people: int = 40, each: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Unit features (people · each, 32), clusters and cameras."
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(people, 32)), each, 0) + 0.3 * rng.normal(size=(people * each, 32))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    distance = PlainDistance(x, "cosine")
    labels = dbscan(distance, eps_from_rho(distance, rho_from_neighbours(4.9, len(x))))
    return x, labels, np.tile(np.arange(each) % 2, people)


def test_sound_clusters_give_no_warning():
    assert warnings_of(SOUND) == []
    assert warnings_of(soundness(*crowd())) == []


@pytest.mark.parametrize("kind, change", [
    ("giant", {"largest": 0.51, "times_median": 1.0}), ("giant", {"largest": 0.11, "times_median": 5.1}),
    ("outliers", {"outliers": 0.76}), ("unstable", {"stability": 0.49}), ("cameras", {"across": 0.19}),
    ("copies", {"copies": 0.33}), ("few", {"clusters": 15}), ("one camera", {"cameras": 1, "across": np.nan}),
])
def test_each_limit_by_itself_gives_its_own_warning(kind, change):
    (said,) = warnings_of(SOUND | change)
    assert said.startswith(f"{kind}: ")


def test_what_was_not_measured_is_not_warned_of():
    assert warnings_of(SOUND | dict.fromkeys(("stability", "across", "copies", "times_median"), np.nan)) == []
    # a tenth of all images is usual in a small folder, and a cluster of many frames in a large one
    assert warnings_of(SOUND | {"largest": 0.17}) == warnings_of(SOUND | {"times_median": 9}) == []


def test_every_limit_is_used():
    assert all(f'limit["{name}"]' in inspect.getsource(warnings_of) for name in LIMITS)


def test_neither_identities_nor_scores_can_enter():
    for name in module.__all__:
        if callable(function := getattr(module, name)):
            assert not {"pids", "pid", "truth", "scores", "mAP"} & set(inspect.signature(function).parameters)


@pytest.mark.parametrize("change, said", [
    ({"labels": np.zeros(3)}, r"clusters \(3,\)"), ({"camids": np.zeros((320, 1))}, r"cameras \(320, 1\)"),
    ({"features": np.zeros(320)}, r"features \(320,\)"), ({"rows": np.arange(3)}, "give both or none"),
    ({"copies": np.zeros((3, 32))}, "give both or none"),
    ({"copies": np.zeros((3, 31)), "rows": np.arange(3)}, "from one model"),
    ({"copies": np.zeros((2, 32)), "rows": np.arange(3)}, "one row per copy"),
    ({"copies": np.zeros((2, 32)), "rows": np.array([0, 320])}, "rows from 0 to 320 of 320 images"),
    ({"eps": 0.0}, "radius"), ({"eps": np.nan}, "radius"), ({"metric": "plain"}, "unknown metric 'plain'"),
])
def test_input_that_does_not_fit_together_is_refused(change, said):
    x, labels, camids = crowd()
    with pytest.raises(ValueError, match=said):
        soundness(**{"features": x, "labels": labels, "camids": camids} | change)


def test_one_image_and_features_that_are_not_finite_are_refused():
    x, labels, camids = crowd()
    with pytest.raises(ValueError, match="1 images have no clusters"): soundness(x[:1], labels[:1], camids[:1])
    x[7, 3] = np.nan
    with pytest.raises(ValueError, match="finite"): soundness(x, labels, camids)


def test_nothing_clustered_and_no_copies_are_said_not_guessed():
    x, _, camids = crowd()
    found = soundness(x, np.full(len(x), -1), camids, eps=1e-6)
    assert found["outliers"] == 1 and found["largest"] == 0 and np.isnan(found["stability"])
    assert [w.split(":")[0] for w in warnings_of(found)] == ["outliers", "few"]
    assert np.isnan(copies_found(x, x[:0], np.arange(0)))
    assert augmented_copies(np.zeros((0, 8, 4, 3), np.uint8)).shape == (0, 8, 4, 3)


def test_copies_are_few_and_spread_and_need_no_whole_matrix():
    assert list(rows_to_copy(3)) == [0, 1, 2] and len(rows_to_copy(10**6)) == 500
    x, labels, camids = crowd()
    rows = rows_to_copy(len(x))
    naive = np.mean([(x @ copy).argmax() == row for copy, row in zip(x[::-1], rows)])
    assert copies_found(x, x[::-1], rows) == naive and copies_found(x, x, rows) == 1.0


@pytest.mark.parametrize("metric, eps", [("cosine", 0.1), ("cosine", 0.05), ("euclidean", 0.45), ("euclidean", 0.9)])
def test_stability_is_what_two_clusterings_of_the_whole_matrix_agree_by(metric, eps):
    x, _, _ = crowd()
    cosine = np.clip(1 - x.astype(np.float64) @ x.T, 0, None)
    dense = cosine if metric == "cosine" else np.sqrt(2 * cosine)
    tight, loose = (DBSCAN(eps=f * eps, min_samples=4, metric="precomputed").fit_predict(dense) for f in (0.9, 1.1))
    tight[tight < 0] = 1000 + np.flatnonzero(tight < 0)
    naive = adjusted_rand_score(tight[loose >= 0], loose[loose >= 0])
    assert abs(stability(PlainDistance(x, metric), eps) - naive) < 1e-9


def test_a_network_that_has_collapsed_does_not_find_its_own_copies():
    rng = np.random.default_rng(0)
    common = np.concatenate([[50.0], np.zeros(31)])             # the same for everybody, and what an image adds is chance
    x, copies = (common + rng.normal(size=(320, 32)) for _ in range(2))
    x, copies = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, copies))
    labels = dbscan(PlainDistance(x, "cosine"), 1e-3)
    said = warnings_of(soundness(x, labels, np.arange(320) % 2, 1e-3, copies, np.arange(320)))
    assert "copies" in [w.split(":")[0] for w in said]
