"""Every reader under a few hundred spoilt inputs, the same ones each time: it reads or refuses, and nothing else.
`tools/soak_fuzz.py` takes longer."""
import resource

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzzing import TARGETS, outcome

GROWTH = 512 << 10      # KiB that one target may add to the peak of the process


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_reads_or_refuses(name):
    target = TARGETS[name]()
    seen = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=target.examples, derandomize=True, database=None, deadline=None,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    @given(st.data())
    def examples(data): seen.append(outcome(target.read, data.draw(target.strategy)))

    examples()
    assert len(seen) >= target.examples / 2 and "refused" in seen, "nothing was spoilt enough to be refused"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
