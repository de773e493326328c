"""A catalogue of bad inputs: what is made, what is called with it, and the error that must come of it.

Every case must be refused by an error of this package (raised in `ptl_nb`, not deeper in a library) of exactly the
type given, whose message holds the words given: the file or value, what is wrong, what to do. Each area has a module,
so that one whose cases cannot be built takes no other along. `python -m bad_inputs` in `tests/` prints the whole
catalogue with the messages.
"""
import importlib

from bad_inputs.catalogue import Case

AREAS = ("archives", "domains", "evaluation", "images", "label_data", "labels", "parameters", "recipes", "training",
         "weights")


def cases_of(area: str) -> list[Case]:
    "The cases of an area; where they cannot be built, one that fails with the reason."
    try: return importlib.import_module(f"bad_inputs.{area}").CASES
    except Exception as error: reason = error

    def broken(folder):
        raise reason
    return [Case(area, "its cases cannot be built", broken, ("",))]
