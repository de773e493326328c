"""Every bad input of the catalogue is refused by an error of this package that names it and says what to do."""
import pytest
from bad_inputs import CASES, refusal

COMPILED = "clustering", "evaluate"      # areas whose functions are compiled on first use: once, on one worker


def parameter(case):
    marks = [pytest.mark.xdist_group("compiled")] if case.area in COMPILED else []
    return pytest.param(case, id=case.id.encode("ascii", "backslashreplace").decode(), marks=marks)


@pytest.mark.parametrize("case", [parameter(case) for case in CASES])
def test_is_refused(case):
    refusal(case)


def test_catalogue_is_a_catalogue():
    assert len(CASES) >= 150 and len({case.id for case in CASES}) == len(CASES) and all(case.words for case in CASES)
