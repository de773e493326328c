"Scores, intervals and clusters."
import functools
from collections.abc import Callable

import numpy as np

from ptl_nb import clustering, evaluator, neighbours

from bad_inputs.catalogue import Case, add, call

CASES: list[Case] = []
bad = functools.partial(add, CASES)


# scores

RNG = np.random.default_rng(0)
Q, G = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(5, 4)).astype(np.float32)
FOUR = [[1, 2, 3], [1, 2, 3, 1, 2], [1, 1, 1], [2, 2, 2, 2, 2]]


def scored(query=Q, gallery=G, **changes) -> Callable:
    "A scoring of three queries among five gallery images, with what is changed."
    names = ("query_pids", "gallery_pids", "query_camids", "gallery_camids")
    four = [changes.get(name, default) for name, default in zip(names, FOUR)]
    return call(evaluator.evaluate, query, gallery, *four)


nan_row = np.array(Q)
nan_row[1, 2] = np.nan
for name, case, *words in [
    ("NaN in query features", scored(nan_row), "query_features: 1 features are not finite, first at row 1"),
    ("infinity in gallery features", scored(gallery=np.full_like(G, np.inf)),
     "gallery_features: 5 features are not finite"),
    ("features of another model", scored(gallery=G[:, :2]), "query features have 4 dimensions, gallery features 2",
     "one model"),
    ("flat features", scored(Q[0]), "query_features must be (images, dimensions), got shape (4,)"),
    ("no dimensions", scored(Q[:, :0], G[:, :0]), "query_features"),
    ("no queries", scored(Q[:0], query_pids=[], query_camids=[]), "nothing to score: 0 queries"),
    ("no gallery", scored(gallery=G[:0], gallery_pids=[], gallery_camids=[]), "nothing to score", "0 gallery images"),
    ("text for features", scored(np.array([["a"] * 4] * 3)), "query_features", "numbers"),
    ("objects for features", scored(np.array([[None] * 4] * 3)), "query_features", "numbers"),
    ("complex features", scored(Q + 1j), "query_features", "numbers"),
    ("a pid too few", scored(query_pids=[1, 2]), "query_pids has shape (2,)", "(3,)"),
    ("fractions of pids", scored(query_pids=[1, 2.5, 3]), "query_pids must be integers", "1.0"),
    ("NaN pids", scored(query_pids=[1, np.nan, 3]), "query_pids must be integers"),
    ("infinite pids", scored(query_pids=[1, np.inf, 3]), "query_pids must be integers"),
    ("text for pids", scored(query_pids=["a", "b", "c"]), "query_pids must be integers"),
    ("negative pids", scored(gallery_pids=[1, 2, 3, -1, 2]), "gallery_pids holds -1", "drop them before scoring"),
    ("truth values for pids", scored(query_pids=[True, False, True]), "query_pids must be integers"),
    ("camids of another length", scored(gallery_camids=[1]), "gallery_camids has shape (1,)"),
    ("text for camids", scored(query_camids=["c1", "c2", "c3"]), "query_camids must be integers"),
    ("ragged features", scored([[1.0, 2.0], [3.0]]), "query_features are no matrix"),
    ("pids beyond half precision", scored(query_pids=np.array([1, 2, 4096], np.float16)), "query_pids holds",
     "too large for float16", "give int64"),
    ("pids beyond double", scored(query_pids=[1, 2, 1e300]), "query_pids holds", "too large for float64"),
    ("pids beyond int64", scored(query_pids=np.array([1, 2, 2**63 + 5], np.uint64)), "query_pids holds",
     "too large for uint64"),
    ("no valid query: one camera", scored(gallery_camids=[1] * 5), "none of the 3 queries has a match",
     "camids differ"),
    ("no valid query: other people", scored(gallery_pids=[7, 8, 9, 7, 8]), "none of the 3 queries has a match",
     "same list")]:
    bad("evaluate", name, case, *words)
D = RNG.random((3, 5))
nan_distance = np.array(D)
nan_distance[2, 0] = np.nan
for name, distance, four, *words in [
    ("NaN distances", nan_distance, FOUR, "the distances of query 2 hold NaN"),
    ("flat distances", D[0], FOUR, "must be a (queries, gallery) matrix, got shape (5,)"),
    ("no queries", D[:0], [[], FOUR[1], [], FOUR[3]], "nothing to score"),
    ("a pid too few", D, [[1, 2], *FOUR[1:]], "query_pids has shape (2,)"),
    ("text for distances", np.array([["a"] * 5] * 3), FOUR, "distance")]:
    bad("score", name, call(evaluator.score, distance, *four), *words)


def compared(**options) -> Callable:
    return lambda f: lambda: evaluator.bootstrap(evaluator.evaluate(Q, G, *FOUR), **options)


for name, case, *words in [
    ("an unknown measure", compared(measure="map"), "unknown measure 'map'", "mAP"),
    ("a level of 2", compared(level=2), "level is 2"),
    ("no resamples", compared(resamples=0), "resamples is 0"),
    ("a level of NaN", compared(level=float("nan")), "level is nan")]:
    bad("bootstrap", name, case, *words)
bad(
    "bootstrap", "other queries",
    lambda f: lambda: evaluator.bootstrap_difference(
        evaluator.evaluate(Q, G, *FOUR), evaluator.evaluate(Q[:2], G, FOUR[0][:2], FOUR[1], FOUR[2][:2], FOUR[3])),
    "of different queries (3 and 2)", "score both on one test set")


# clustering

X = RNG.normal(size=(30, 6)).astype(np.float32)
spoilt = np.array(X)
spoilt[4, 1] = np.nan
for name, f, arguments, named, *words in [
    ("NaN", clustering.jaccard_similarity, (spoilt,), {}, "features: 1 features are not finite, first at row 4"),
    ("k1 above N", clustering.jaccard_similarity, (X[:10],), {}, "10 images are too few for k1=20", "a smaller k1"),
    ("k1 of N", clustering.jaccard_similarity, (X,), {"k1": 30}, "30 images are too few for k1=30"),
    ("k2 above k1", clustering.jaccard_similarity, (X,), {"k1": 5, "k2": 6}, "k1=5, k2=6: expected 1 <= k2 <= k1"),
    ("k2 of 0", clustering.jaccard_similarity, (X,), {"k2": 0}, "k2=0"),
    ("a fraction of k1", clustering.jaccard_similarity, (X,), {"k1": 5.5, "k2": 2}, "k1=5.5"),
    ("no images", clustering.jaccard_similarity, (X[:0],), {}, "features: 0 images have no pairs"),
    ("one image", clustering.jaccard_similarity, (X[:1],), {}, "features: 1 images have no pairs"),
    ("flat features", clustering.jaccard_similarity, (X[0],), {}, "must be (images, dimensions)"),
    ("no dimensions", clustering.jaccard_similarity, (X[:, :0],), {}, "features"),
    ("the same feature everywhere", clustering.jaccard_similarity, (np.ones((30, 4)),), {}, "are all identical"),
    ("text", clustering.jaccard_similarity, (np.array([["a"] * 4] * 30),), {}, "features", "numbers"),
    ("an unknown method", clustering.jaccard_similarity, (X,), {"method": "flann"}, "unknown method 'flann'",
     "'exact' or 'faiss'"),
    ("k of 0", neighbours.neighbours, (X, 0), {}, "a smaller k (at least 1)"),
    ("queries of another model", clustering.rerank, (X[:5], X[:, :3]), {},
     "query features have 6 dimensions, gallery features 3"),
    ("no queries", clustering.rerank, (X[:0], X), {}, "nothing to rank: 0 queries"),
    ("lambda of 2", clustering.rerank, (X[:5], X), {"lambda_value": 2}, "lambda_value=2", "between 0 and 1"),
    ("lambda of NaN", clustering.rerank, (X[:5], X), {"lambda_value": float("nan")}, "lambda_value=nan"),
    ("NaN in a gallery", clustering.rerank, (X, spoilt), {}, "gallery_features: 1 features are not finite"),
    ("source of another model", clustering.source_distance, (X, X[:, :3]), {},
     "features have 6 dimensions, source features 3"),
    ("no source", clustering.source_distance, (X, X[:0]), {}, "no distances between 30 images and 0 source images"),
    ("source in the place of the target", clustering.source_distance, (X, X), {}, "every image coincides"),
    ("an unknown metric", clustering.PlainDistance, (X, "manhattan"), {}, "unknown metric 'manhattan'",
     "'euclidean' or 'cosine'"),
    ("a zero feature", clustering.PlainDistance, (X * (np.arange(30) > 0)[:, None], "cosine"), {},
     "1 features are zero, first at row 0")]:
    bad("clustering", name, call(f, *arguments, **named), *words)


def too_many_pairs(folder):
    clustering.jaccard_similarity(X)            # compiles it, which may take longer than a refusal may
    return functools.partial(clustering.jaccard_similarity, X, max_stored=10)


bad(
    "clustering", "more pairs than may be stored", too_many_pairs, "more than max_stored=10 pairs", "raise max_stored")


def plain() -> clustering.PlainDistance: return clustering.PlainDistance(X)


for name, f, *words in [
    ("eps of 0", lambda: clustering.dbscan(plain(), 0), "eps=0", "eps_from_rho"),
    ("eps of NaN", lambda: clustering.dbscan(plain(), float("nan")), "eps=nan"),
    ("an infinite eps", lambda: clustering.dbscan(plain(), float("inf")), "eps=inf"),
    ("min_samples of 0", lambda: clustering.dbscan(plain(), 1.0, 0), "min_samples=0"),
    ("a fraction of min_samples", lambda: clustering.dbscan(plain(), 1.0, 2.5), "min_samples=2.5"),
    ("pairs without number", lambda: clustering.dbscan(plain(), 100.0, max_edges=10), "max_edges=10",
     "a smaller eps or rho"),
    ("rho of 0", lambda: clustering.eps_from_rho(plain(), 0), "rho=0"),
    ("rho of 2", lambda: clustering.eps_from_rho(plain(), 2), "rho=2"),
    ("rho that selects no pair", lambda: clustering.eps_from_rho(plain(), 1e-9), "selects no pair", "a larger rho"),
    ("source distances of other images",
     lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.zeros(5)),
     "source distances of shape (5,) for 30 images"),
    ("negative source distances",
     lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.full(30, -1.0)), "not negative"),
    ("NaN source distances", lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.full(30, np.nan)),
     "finite values"),
    ("a source weight of 1", lambda: clustering.JaccardDistance(clustering.jaccard_similarity(X), np.zeros(30), 1.0),
     "source_weight=1.0")]:
    bad("clustering", name, call(f), *words)
