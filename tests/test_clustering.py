"""What a notebook cannot test about clustering: thread counts, memory seen from outside, a GPU where there is one."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ptl_nb.clustering import JaccardDistance, PlainDistance, dbscan, eps_from_rho, source_distance
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
