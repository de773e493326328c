"""Run notebooks with nbdev_test on two workers, and remember which passed, by the content of everything they run.

    python tools/notebooks.py                          # all of them
    python tools/notebooks.py --changed --seconds 90   # those that changed since they passed, as many as fit
    python tools/notebooks.py --changed --list         # which these are

A notebook has changed when its code cells, a module that it imports (through others too), a data file that such a
module names, or the version of a package or of Python is not what it passed with. What passed is kept in the git
directory, shared by its worktrees, never in the tree.
"""
import argparse
import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, NOTEBOOKS = ROOT / "ptl_nb", ROOT / "nbs"
WORKERS = 2
LIMIT = 1500     # seconds until nbdev_test is ended: it has no limit of its own
UNKNOWN = 20     # seconds expected of a notebook that never passed
KEPT = 20        # passes remembered of each notebook: those of other branches and worktrees too


# what a notebook runs

def cells(notebook: Path) -> str:
    "The code of a notebook."
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in found if cell["cell_type"] == "code")


@functools.cache
def modules() -> dict[str, str]:
    "Module -> its code; comments and line breaks do not count, so that another number of a cell changes nothing."
    files = (p for p in sorted(PACKAGE.glob("*.py")) if p.name != "_modidx.py")
    return {p.stem: ast.unparse(ast.parse(p.read_text(encoding="utf-8"))) for p in files}


def named(code: str) -> set[str]:
    "Modules of the package that code names: in imports, and in the text of scripts that it starts."
    found = re.findall(r"\b(?:ptl_nb|from )\.(\w+)", code)
    listed = re.findall(r"\bfrom (?:ptl_nb|\.) import ([^\n(]+|\([^)]*\))", code)
    return {*found, *re.findall(r"\w+", " ".join(listed))} & modules().keys()


def closure(code: str) -> set[str]:
    "Modules that code imports, through others too."
    found = {"__init__"}
    left = named(code)
    while left:
        found |= left
        left = set().union(*(named(modules()[m]) for m in left)) - found
    return found


@functools.cache
def digest(place: Path) -> str:
    "SHA-256 of a file, or of all files below a folder with their names."
    if place.is_file(): return hashlib.sha256(place.read_bytes()).hexdigest()
    below = sorted(p for p in place.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return hashlib.sha256("".join(f"{p.relative_to(place)} {digest(p)}\n" for p in below).encode()).hexdigest()


def files(notebook: Path, code: str, used: set[str]) -> set[Path]:
    "Data of the package that the code or its modules name, and files of the repository that the code names."
    text = "\n".join([code, *(modules()[m] for m in used)])
    found = {p for p in PACKAGE.iterdir() if p.suffix != ".py" and p.name != "__pycache__" and p.name in text}
    words = re.findall(r"[\w./-]+\.(?:ipynb|md|svg|csv)\b", code)
    found |= {p for w in words for p in (ROOT / w.lstrip("/"), NOTEBOOKS / w.lstrip("/")) if p.is_file()}
    return found - {notebook} | ({*all_notebooks()} - {notebook} if "all_notebooks(" in code else set())


@functools.cache
def versions() -> str:
    "Python and every package beside ours."
    found = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions() if d.name != PACKAGE.name}
    return "\n".join([sys.version, platform.platform(), *sorted(found)])


def key(notebook: Path) -> str:
    "Another one when anything that the notebook runs has changed."
    code = cells(notebook)
    used = closure(code)
    told = [versions(), code, *(modules()[m] for m in sorted(used))]
    told += [f"{p.relative_to(ROOT)} {digest(p)}" for p in sorted(files(notebook, code, used))]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def all_notebooks() -> list[Path]:
    "As nbdev_test finds and orders them; their names, by which it is told some of them, must differ."
    found = sorted(NOTEBOOKS.rglob("[!._]*.ipynb"))
    if len({p.name for p in found}) != len(found):
        raise SystemExit("two notebooks have the same file name")
    return found


# what passed

def memory() -> Path | None:
    "The file in the git directory; None outside a checkout."
    asked = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    try: done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError: return None
    return Path(done.stdout.strip()) / "notebooks-passed.json" if done.returncode == 0 else None


def passed() -> dict[str, dict[str, int]]:
    "Notebook -> key of each pass -> its seconds, the last pass last; empty where nothing (readable) is remembered."
    place = memory()
    if place is None or not place.exists(): return {}
    try: return json.loads(place.read_text(encoding="utf-8"))
    except json.JSONDecodeError: return {}


def remember(keys: dict[str, str], seconds: dict[str, int]) -> None:
    "These notebooks passed with these keys."
    place, known = memory(), passed()
    if place is None: return
    for name, its in keys.items():
        before = known.get(name, {})
        took = seconds.get(name, next(reversed(before.values()), UNKNOWN))
        known[name] = dict([*((k, s) for k, s in before.items() if k != its), (its, took)][-KEPT:])
    draft = place.with_suffix(".tmp")
    draft.write_text(json.dumps(known, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    draft.replace(place)


def name_of(notebook: Path) -> str: return notebook.relative_to(NOTEBOOKS).as_posix()


def changed(known: dict) -> list[Path]:
    "Notebooks that did not pass as they are; those that import least come first, nearest to what was changed."
    found = [p for p in all_notebooks() if key(p) not in known.get(name_of(p), {})]
    return sorted(found, key=lambda p: len(closure(cells(p))))


def fitting(found: list[Path], known: dict, seconds: float) -> list[Path]:
    "The first of them that take about so long on all workers: at least one."
    took = [next(reversed(known.get(name_of(p), {}).values()), UNKNOWN) for p in found]
    total = 0
    for number, one in enumerate(took):
        total += one
        if number and total > seconds * WORKERS: return found[:number]
    return found


# running them

def run(chosen: list[Path]) -> bool:
    "Whether nbdev_test ran each of them, and each passed."
    keys, by_file = {name_of(p): key(p) for p in chosen}, {p.name: name_of(p) for p in chosen}
    pattern = f"^({'|'.join(re.escape(p.name) for p in chosen)})$"
    command = ["timeout", str(LIMIT), "nbdev_test", "--n_workers", str(WORKERS), "--do_print", "--timing"]
    child = subprocess.Popen([*command, "--file_re", pattern], cwd=ROOT, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = []
    for line in child.stdout:
        print(line, end="", flush=True)
        said.append(line)
    child.wait()
    return judged("".join(said), child.returncode, keys, by_file)


def judged(text: str, status: int, keys: dict[str, str], by_file: dict[str, str]) -> bool:
    "Reads nbdev_test's log: it exits 0 when it ran nothing, so `Success.` and a line for each notebook are demanded."
    failed = re.findall(r"^\t(\S+\.ipynb)$", text.partition("nbdev Tests Failed")[2], re.M)
    done = {by_file[name] for name in re.findall(r"^- Completed .*?([^/\s]+\.ipynb)$", text, re.M) if name in by_file}
    missing = keys.keys() - done
    success = bool(re.search(r"^Success\.$", text, re.M))
    if success or failed:
        seconds = {by_file[name]: int(s) + 1 for name, s in re.findall(r"^(\S+\.ipynb): (\d+) secs$", text, re.M)}
        good = done - {by_file[name] for name in failed}
        remember({name: keys[name] for name in good}, seconds)
    for name in sorted(missing): print(f"nbdev_test did not run {name}")
    if not success: print(f"nbdev_test did not say Success. (exit status {status})")
    return success and not missing and status == 0


def told(found: Iterable[Path]) -> str: return ", ".join(map(name_of, found))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--changed", action="store_true", help="only those that did not pass as they are")
    ask.add_argument("--seconds", type=float, default=float("inf"), help="about how long it may take")
    ask.add_argument("--list", action="store_true", help="say which, run none")
    given = ask.parse_args()
    known = passed()
    found = changed(known) if given.changed else all_notebooks()
    chosen = fitting(found, known, given.seconds)
    left = found[len(chosen):]
    print(f"{len(chosen)} of {len(all_notebooks())} notebooks to run: {told(chosen)}")
    if left: print(f"NOT RUN for want of time, `bash tests/run.sh` does: {told(left)}")
    if given.list or not chosen: return
    sys.exit(not run(chosen))


if __name__ == "__main__": main()
