"""Every reader under spoilt inputs for as long as you like; each target in a process of its own with bounded memory, a
crash of which is a finding too.

    python tools/soak_fuzz.py --minutes 15                      # shared out evenly
    python tools/soak_fuzz.py --only "RAP .mat" --seed 1        # one of the targets, other examples
"""
import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed as seeded, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "tests")]

from fuzzing import TARGETS, outcome

MEMORY = 6 << 30     # bytes of address space that a target's process may grow by (PyTorch alone maps some)


def fuzz(name: str, seconds: float, seed: int, told) -> None:
    "Examples of one target until the time is over; what came of them goes through the pipe."
    target = TARGETS[name]()
    seen = {"read": 0, "refused": 0}
    end = time.monotonic() + seconds
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    while time.monotonic() < end:
        @seeded(seed)
        @settings(max_examples=500, database=None, deadline=None, suppress_health_check=list(HealthCheck),
                  phases=[Phase.generate, Phase.shrink])
        @given(st.data())
        def examples(data):
            value = data.draw(target.strategy)
            told.send(("try", repr(value)[:2000]))
            seen[outcome(target.read, value)] += 1
        try: examples()
        except Exception as error:
            told.send(("finding", f"{type(error).__name__}: {error!s:.600}"))
            break
        seed += 1
    told.send(("done", seen | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}))


def watched(name: str, seconds: float, seed: int) -> dict:
    "The result of a target's process, or how that process ended."
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=fuzz, args=(name, seconds, seed, theirs))
    process.start()
    theirs.close()
    result = {"read": 0, "refused": 0, "finding": ""}
    last = ""
    tried = 0
    while process.is_alive() or ours.poll():
        if not ours.poll(1): continue
        try: kind, value = ours.recv()
        except EOFError: break
        if kind == "try": last, tried = value, tried + 1
        elif kind == "finding": result["finding"] = f"{value} (after {last})"
        else: result |= value
    process.join()
    if process.exitcode: result["finding"] = f"the process ended with {process.exitcode} (after {last})"
    return {"target": name, "tried": tried, **result}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--minutes", type=float, default=15)
    ask.add_argument("--only", choices=TARGETS)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--out", type=Path, help="JSON file for the results")
    given_ = ask.parse_args()
    names = [given_.only] if given_.only else list(TARGETS)
    rows = []
    start = time.monotonic()
    for i, name in enumerate(names):
        left = given_.minutes * 60 - (time.monotonic() - start)
        rows.append(watched(name, left / (len(names) - i), given_.seed * 1_000_000))
        print("{target}: {tried:,} tried, {read:,} read, {refused:,} refused, {finding}".format(**rows[-1]), flush=True)
    findings = [r for r in rows if r["finding"]]
    minutes = (time.monotonic() - start) / 60
    print(f"{sum(r['tried'] for r in rows):,} examples in {minutes:.1f} minutes, {len(findings)} findings, "
          f"peak {max(r.get('peak', 0) for r in rows)} MB")
    if given_.out:
        told = json.dumps({"minutes": minutes, "targets": rows}, indent=1)
        given_.out.write_text(told + "\n", encoding="utf-8")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
