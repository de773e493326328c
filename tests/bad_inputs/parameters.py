"papermill's parameters, seeds, methods, devices, test sets, and how to launch."
import functools
from collections.abc import Callable
from pathlib import Path

from ptl_nb import launch, multi, parallel
from ptl_nb.domains import load_domain
from ptl_nb.methods import parse_method, parse_methods
from ptl_nb.parameters import check_parameters, choose_device, parse_seeds
from ptl_nb.recipe import RECIPES, Recipe
from ptl_nb.tables import check_domains

from bad_inputs.catalogue import Case, add, call
from test_domains import touch

CASES: list[Case] = []
bad = functools.partial(add, CASES)


# papermill parameters, methods, seeds

def parameters(injected: str, **values) -> Callable:
    "A notebook's globals after a parameters cell and papermill's."
    cells = [
        "%matplotlib inline\nimport os",
        'source: str = "market"  # labelled domain\nseeds: str = "0"\n'
        "epochs: int = 3\nlr: float = 0.1\nsmoke: bool = None",
        f"# Parameters\n{injected}\n"]
    return call(
        check_parameters,
        {"In": cells, "source": "market", "seeds": "0", "epochs": 3, "lr": 0.1, "smoke": None} | values)


for name, injected, values, *words in [
    ("a misspelt name", 'sorce = "duke"', {}, "unknown parameter 'sorce'", "did you mean 'source'"),
    ("an unknown name", "x = 1", {}, "unknown parameter 'x'", "known: source"),
    ("text for a number", 'epochs = "3"', {"epochs": "3"}, "parameter epochs is '3'", "must be int"),
    ("a fraction for a number", "epochs = 1.5", {"epochs": 1.5}, "parameter epochs is 1.5"),
    ("a truth value for a number", "epochs = True", {"epochs": True}, "parameter epochs is True"),
    ("text for a fraction", 'lr = "fast"', {"lr": "fast"}, "parameter lr is 'fast'", "must be float"),
    ("NaN", 'lr = float("nan")', {"lr": float("nan")}, "parameter lr is nan"),
    ("text for a truth value", 'smoke = "yes"', {"smoke": "yes"}, "parameter smoke is 'yes'", "must be bool"),
    ("a list for text", "source = [1]", {"source": [1]}, "parameter source is [1]", "must be str"),
    ("code for text", 'source = __import__("os").getcwd()', {"source": Path.cwd()}, "parameter source is",
     "must be str")]:
    bad("parameter", name, parameters(injected, **values), *words)
for name, value, *words in [
    ("a word", "one", "seeds is 'one'", "whole numbers"),
    ("a fraction", "1.5", "seeds is '1.5'"),
    ("empty", "", "seeds is ''"),
    ("a negative", "-1", "seeds is '-1'", "from 0"),
    ("the same twice", "1,1", "seeds is '1,1'", "different numbers"),
    ("an empty list", [], "seeds is []"),
    ("a truth value", True, "seeds is True"),
    ("nothing", None, "seeds is None"),
    ("beyond 32 bits", 2**40, f"seeds is {2**40}"),
    ("a number of 5,000 digits", "9" * 5000, "seeds is"),
    ("code", "__import__('os')", "seeds is \"__import__('os')\""),
    ("a range", "0-4", "seeds is '0-4'")]:
    bad("seeds", name, call(parse_seeds, value), *words)
for name, value, *words in [
    ("empty", "", "unknown method ''"),
    ("a comma too many", "BL,", "unknown method ''"),
    ("an unknown task", "BL+HP", "unknown method 'BL+HP'", "'HP'"),
    ("lower case", "ptl", "unknown method 'ptl'"),
    ("a task twice", "BL+HP^t+HP^t", "each once"),
    ("BN not at the end", "BL+BN^t+HP^t", "at the end '+BN^t'"),
    ("SSG from statistics of cameras", "BL+BN^c+SSG", "nothing goes on from BN^c", "take BN^t"),
    ("statistics of all and of cameras", "BL+BN^t+BN^c", "'BN^c'", "'+BN^t' or '+BN^c'"),
    ("fwd with a task", "BL+HP^t+fwd^t", "without any other task"),
    ("a method twice", "BL, BL", "named twice in BL, BL"),
    ("the same method by two names", "PTL, BL+HP^t+Attr^t", "named twice"),
    ("a number", 5, "unknown method '5'"),
    ("SSG in the middle", "BL+SSG+HP^t", "unknown method"),
    ("SSG alone", "SSG", "unknown method"),
    ("nothing", None, "unknown method 'None'"),
    ("no methods", [], "methods"),
    ("a number in a list", [5], "unknown method '5'")]:
    bad("methods", name, call(parse_methods, value), *words)
bad(
    "device", "none of this machine's", call(choose_device, "tpu"), "device is 'tpu'",
    "'auto' takes the best")
bad("device", "a card that is not there", call(choose_device, "cuda:99"), "device is 'cuda:99'")
bad("device", "a number", call(choose_device, 0), "device is 0")


# test sets that cannot be scored

def test_set(query: str, gallery: str) -> Callable:
    "A target whose query and gallery rows are `pid camid` pairs; what every table checks before it trains."
    def make(folder):
        rows = [(1, 1, "train"), (2, 1, "train")]
        for split, pairs in (("query", query), ("gallery", gallery)):
            rows += [(*map(int, pair.split()), split) for pair in pairs.split(", ")]
        for i, _ in enumerate(rows): touch(folder / f"{i}.jpg", i)
        lines = [f"{i}.jpg,{pid},{camid},{split}" for i, (pid, camid, split) in enumerate(rows)]
        (folder / "domain.csv").write_text("\n".join(["path,pid,camid,split", *lines, ""]))
        target = load_domain(folder / "domain.csv")
        methods = parse_methods("BL, PTL")
        return lambda: check_domains(RECIPES["smoke"], load_domain("plaza"), target, methods)
    return make


for name, query, gallery, *words in [
    ("one camera", "3 1, 4 1", "3 1, 4 1, 5 1",
     "0 people whom both a query and the gallery image of another camera show", "1 camera in all"),
    ("numbered apart", "3 1, 4 1", "13 2, 14 2", "0 people whom both", "2 people in 2 queries, 2 in 2 gallery images",
     "the same pid in query and gallery"),
    ("one person in two cameras", "3 1, 4 1", "3 2, 4 1, 5 2", "1 people whom both", "label at least two such people"),
    ("one person only", "3 1", "3 2, 0 2", "1 people whom both", "a score with its interval needs two")]:
    bad("test set", name, test_set(query, gallery), *words)


# launching

for name, text, *words in [
    ("no jobs at a time", "local parallel=0", "launch option parallel is 0", "at least 1"),
    ("words for jobs at a time", "local parallel=all", "parallel is 'all'"),
    ("a raised two", "local parallel=\u00b2", "launch option parallel is '\u00b2'"),
    ("an option twice", "slurm gpus_per_node=1,gpus_per_node=2", "names an option twice"),
    ("a wide blank", "slurm\u00a0partition=gpu", "launch is", "behind a blank")]:
    bad("launch", name, call(launch.parse_launch, text), *words)
PTL = parse_method("PTL")
bad("processes", "none", call(multi.check_shares, Recipe(), PTL, 0), "0 processes", "at least 1")
bad(
    "processes", "more than share a source batch", call(multi.check_shares, Recipe(), PTL, 3),
    "identities · images is 64, which 3 processes cannot share equally")
bad(
    "processes", "more than share a target batch", call(multi.check_shares, Recipe(), PTL, 64),
    "target_batch is 32, which 64 processes cannot share equally")
bad("processes", "that wait for no time", call(parallel.start_processes, 2, minutes=0), "minutes is 0")
bad("processes", "that wait for NaN minutes", call(parallel.start_processes, 2, minutes=float("nan")), "minutes is nan")
