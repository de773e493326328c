"""Every bad input of the catalogue is refused by an error of this package that names it and says what to do."""
import pytest
from bad_inputs import CASES, refusal


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id.encode("ascii", "backslashreplace").decode())
def test_is_refused(case):
    refusal(case)


def test_catalogue_is_a_catalogue():
    assert len(CASES) >= 150 and len({case.id for case in CASES}) == len(CASES) and all(case.words for case in CASES)
