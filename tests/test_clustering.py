"""What a notebook cannot test about clustering: thread counts, memory seen from outside, a GPU where there is one."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ptl_nb.clustering import (
    JaccardDistance, PlainDistance, dbscan, eps_from_rho, rho_from_neighbours, source_distance)
from ptl_nb.neighbours import neighbours
from ptl_nb.reranking import jaccard_similarity, rerank

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 6000

pytestmark = pytest.mark.xdist_group("clustering")      # one process is looked at by all of them


def crowd(n: int, dims: int) -> np.ndarray:
    "Features (n, dims) of about n / 12 people."
    rng = np.random.default_rng(n)
    pids = rng.integers(0, n // 12, n)
    return (rng.normal(size=(n // 12, dims))[pids] + 0.7 * rng.normal(size=(n, dims))).astype(np.float32)


def everything(x) -> list[np.ndarray]:
    "Every kind of result, as arrays."
    s = jaccard_similarity(x)
    from_source = source_distance(x, x[:200] + 0.1)
    distances = JaccardDistance(s), JaccardDistance(s, from_source), PlainDistance(x), PlainDistance(x, "cosine")
    found = [s.indptr, s.indices, s.data, rerank(x[:300], x[300:1000]), *neighbours(x, 20)]
    for d in distances:
        eps = eps_from_rho(d)
        found += [np.array(eps), dbscan(d, eps)]
    return found


def in_a_process(code: str) -> str:
    "What fresh Python prints."
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.strip()


@pytest.fixture(scope="module")
def seen() -> dict:
    "Memory and equality, looked at in a fresh process."
    return json.loads(in_a_process(f"""
import json, numpy as np, torch
from tests.test_clustering import crowd, everything
def peak():            # ru_maxrss would start at the peak of the process that started this one
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
torch.set_num_threads(1)
one = everything(crowd(1200, 64))          # compiles, and allocates blocks once
torch.set_num_threads(3)
same = [bool(np.array_equal(a, b)) for a, b in zip(one, everything(crowd(1200, 64)))]
x = crowd({IMAGES}, 64)
before = peak()
everything(x)
print(json.dumps({{"same": same, "grown": peak() - before}}))
"""))


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_threads(seen):
    assert len(seen["same"]) == 15 and all(seen["same"]), seen["same"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_memory_stays_far_under_a_matrix(seen):
    matrix = 4 * IMAGES**2
    grown = seen["grown"]
    assert 0 < grown < matrix / 2, \
        f"{grown / 2**20:.0f} MB for {IMAGES} images; one matrix of floats is {matrix / 2**20:.0f} MB"


@pytest.mark.slow
def test_nothing_is_cached_in_the_package(seen):
    rooms = "neighbours", "reranking", "clustering"
    assert not [p for room in rooms for p in (ROOT / "ptl_nb").rglob(f"{room}*.nb[ic]")]


@pytest.mark.slow
def test_faiss_missing_is_explained():
    code = ("import sys; sys.modules['faiss'] = None\nimport numpy as np\nfrom ptl_nb.neighbours import neighbours\n"
            "try: neighbours(np.random.default_rng(0).random((50, 4)), 5, 'faiss')\nexcept ImportError as e: print(e)")
    assert "ptl_nb[search]" in in_a_process(code)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_what_the_cpu_gives():
    x = crowd(1200, 64)
    for a, b in zip(everything(x), everything(torch.from_numpy(x).cuda())):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def separable(people: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    "Unit features (people · each, 64) around one direction per person, some more blurred than others; who they are."
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(people), each)
    blur = 0.7 / 8 * np.exp(0.3 * rng.normal(size=(len(pids), 1)))
    middle = rng.normal(size=(people, 64))
    x = (middle / np.linalg.norm(middle, axis=1, keepdims=True))[pids] + blur * rng.normal(size=(len(pids), 64))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), pids


def clusters_per_person(people: int, each: int, rho: float, metric: str) -> tuple[float, float]:
    "Clusters over people, and the largest cluster's share of all images."
    x, _ = separable(people, each)
    distance = JaccardDistance(jaccard_similarity(x)) if metric == "jaccard" else PlainDistance(x, metric)
    labels = dbscan(distance, eps_from_rho(distance, rho))
    return (labels.max() + 1) / people, np.bincount(labels[labels >= 0]).max() / len(x)


@pytest.mark.parametrize("each", [8, 20])
def test_a_number_of_neighbours_holds_at_any_size_and_a_share_of_pairs_does_not(each):
    people = [n // each for n in (1000, 3000, 10_000)]
    k = 0.7 * (each - 1)
    constant = k / (people[0] * each - 1)                    # the same radius among the first thousand
    old = [clusters_per_person(n, each, constant, "euclidean") for n in people]
    new = [clusters_per_person(n, each, rho_from_neighbours(k, n * each), "euclidean") for n in people]
    assert all(0.8 <= found <= 1.05 and largest < 0.03 for found, largest in new), new
    assert old[0] == new[0] and old[-1][0] < 0.2 and old[-1][1] > 0.8, old


def test_a_number_of_neighbours_holds_for_jaccard_distances_too():
    new = [clusters_per_person(n, 8, rho_from_neighbours(4.9, 8 * n), "jaccard") for n in (125, 375)]
    assert all(0.8 <= found <= 1.05 and largest < 0.03 for found, largest in new), new


def test_ten_thousand_images_are_clustered_without_a_matrix_of_them():
    grown = int(in_a_process("""
import torch
from tests.test_clustering import clusters_per_person, rho_from_neighbours
def peak(): return 1024 * int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1])
torch.set_num_threads(1)
clusters_per_person(125, 8, rho_from_neighbours(4.9, 1000), "euclidean")
before = peak()
clusters_per_person(1250, 8, rho_from_neighbours(4.9, 10_000), "euclidean")
print(peak() - before)
"""))
    assert grown < 100e6, f"{grown / 1e6:.0f} MB; one byte for each pair of images would be 100"
