"""Every bad input of the catalogue is refused by an error of this package that names it and says what to do."""
import sys
from pathlib import Path

import bad_inputs
import pytest
from bad_inputs.catalogue import refusal

CASES = [case for area in bad_inputs.AREAS for case in bad_inputs.cases_of(area)]

COMPILED = "clustering", "evaluate"      # areas whose functions are compiled on first use: once, on one worker


def parameter(case):
    marks = [pytest.mark.xdist_group("compiled"), pytest.mark.slow] if case.area in COMPILED else []
    return pytest.param(case, id=case.id.encode("ascii", "backslashreplace").decode(), marks=marks)


@pytest.mark.parametrize("case", [parameter(case) for case in CASES])
def test_is_refused(case):
    refusal(case)


def test_catalogue_is_a_catalogue():
    assert len(CASES) >= 150 and len({case.id for case in CASES}) == len(CASES) and all(case.words for case in CASES)


def test_every_module_of_an_area_is_in_it():
    folder = bad_inputs.__path__[0]
    helpers = {"__init__", "__main__", "catalogue", "made"}
    assert {p.stem for p in Path(folder).glob("*.py")} - helpers == set(bad_inputs.AREAS)


def test_an_area_that_cannot_be_built_is_one_case_that_fails(monkeypatch):
    monkeypatch.setattr(bad_inputs, "__path__", [])
    monkeypatch.delitem(sys.modules, "bad_inputs.images", raising=False)
    broken, = bad_inputs.cases_of("images")
    assert broken.id == "images: its cases cannot be built"
    with pytest.raises(ModuleNotFoundError, match="bad_inputs.images"): refusal(broken)
