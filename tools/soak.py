"""SIGKILL at random moments, round after round: what was killed goes on and ends with the bytes of an untouched run.

    python tools/soak.py --kills 20 --seconds 30                    # every stage of stages.py, 20 kills each
    python tools/soak.py --kills 20 --stages training --seed 1      # one stage
    python tools/soak.py --kills 0 --stages "" --processes 2,4,8    # only several processes on one
        # run store, one label store and one pixel cache, the first of them killed

One row per kill in results/reliability.csv, rewritten after each, so that the soak may itself be stopped; rows of
stages that are not run again stay, so two soaks of different stages may run side by side into one file. Every process
has one thread and is forked from a server that has done the imports. A new stage is a function in stages.py.
"""
import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TIMES = {"run.json", "labels.json"}      # files that hold times; everything else must be equal in every byte
STAGES = ("training", "label_models", "labelling", "extraction", "ssg", "index", "export", "table")
KEPT = ("runs", "table", "index", "export", "cache")      # what stages fill
FOUND = {"finished runs": "runs/[!.]*/run.json", "scores": "runs/[!.]*/scores*.npz", "index": "index/index.json",
         "chunks": "runs/.*.partial/chunks/*.npy", "exported files": "export/[!.]*", "arrays": "cache/*/[!.]*.npy"}


# killing, and looking at what is there

def server():
    "Processes forked from one that has imported everything, runs nothing, and has one thread."
    path = os.pathsep.join([str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = "ignore:resource_tracker"
    env = {"PYTHONPATH": path, "PTL_SOAK_WARM": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": quiet}
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["stages"])
    with patch.dict(os.environ, env): forkserver.ensure_running()        # the server's environment, not ours
    return made


def run_stage(stage: str, root: Path, facts: dict) -> None:
    "In a process of its own."
    with open(root / "output.log", "a") as log:
        for stream in (1, 2): os.dup2(log.fileno(), stream)
        try:
            import stages
            getattr(stages, stage)(root, facts)
        except BaseException:
            traceback.print_exc(file=log)
            raise SystemExit(1)


def child(stage: str, root: Path, facts: dict) -> multiprocessing.Process:
    process = server().Process(target=run_stage, args=(stage, root, facts))
    process.start()
    return process


def at_work(process: multiprocessing.Process, root: Path) -> float:
    "When the process began its work."
    while process.is_alive() and not (root / "started").exists(): time.sleep(0.01)
    return time.monotonic()


def ended(process: multiprocessing.Process, root: Path) -> None:
    process.join()
    if process.exitcode:
        said = (root / "output.log").read_text()[-3000:]
        raise SystemExit(f"a process ended with {process.exitcode}:\n{said}")


def killed(process: multiprocessing.Process, moment: float) -> bool:
    "Killed after some seconds, if it had not ended before."
    process.join(moment)
    process.kill()
    process.join()
    return process.exitcode == -9


def digests(root: Path) -> dict[str, str]:
    "SHA-256 of every file that a stage left, drafts of killed processes too, without those that hold times."
    files = [p for part in KEPT for p in (root / part).rglob("*") if p.is_file()]
    timed = {p for p in files if p.name in TIMES or p.suffix == ".lock"}
    timed |= {p for p in files if p.parent.name == "table" and p.suffix == ".json"}
    plain = sorted({*files} - timed)
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in plain}


def saved(root: Path, start: Path) -> tuple[str, str]:
    "What was being made when the process died, and what the next process finds that was not there at the start."
    from safetensors import safe_open
    drafts = sorted((root / "runs").glob(".*.partial"))
    new = {name: len([*root.glob(what)]) - len([*start.glob(what)]) for name, what in FOUND.items()}
    found = [f"{n} {name}" for name, n in new.items() if n]
    for state in (s for draft in drafts for s in draft.rglob("state.safetensors")):
        with safe_open(state, "pt") as file: facts = json.loads(file.metadata()["facts"])
        found.append(f"{facts['number']} rounds" if facts["number"] else f"iteration {facts['iteration']}")
    phase = f" ({(root / 'phase').read_text()})" if (root / "phase").exists() else ""
    running = ", ".join(draft.name.strip(".").rpartition("-")[0] for draft in drafts) or "no run"
    return running + phase, ", ".join(found) or "nothing, starts over"


def scale(stage: str, seconds: float) -> dict:
    "What makes a training last so long on this machine, and another stage about a third of it."
    if stage == "ssg": return {"rounds": max(3, round(seconds / 6))}
    if stage not in ("training", "label_models", "table"): return {}
    share = {"attribute_share": 0.04}
    with tempfile.TemporaryDirectory(prefix="ptl-soak-") as folder:
        ended(child("measure", Path(folder), share), Path(folder))
        took = json.loads((Path(folder) / "measured.json").read_text())

    def number(what: str, part: int) -> int: return max(1, round(seconds / part / took[what]))
    if stage == "training": return {"epochs": number("epoch", 1)}
    if stage == "table": return {"epochs": number("epoch", 12)}
    return share | {"parser_iterations": number("parser", 6), "attribute_epochs": number("attributes", 6)}


def prepared(stage: str, root: Path, facts: dict) -> Path:
    "A folder that the stage starts from."
    (root / "start" / "runs").mkdir(parents=True)
    before = {"labelling": "label_models", "extraction": "baseline", "ssg": "baseline", "index": "baseline",
              "export": "baseline", "table": "true_labels"}
    if stage in before: ended(child(before[stage], root / "start", facts), root / "start")
    for name in ("started", "made.log", "output.log"): (root / "start" / name).unlink(missing_ok=True)
    return root / "start"


def undisturbed(stage: str, root: Path, start: Path, facts: dict) -> tuple[dict[str, str], float]:
    "Digests of a run that nobody killed, and its seconds at work."
    shutil.copytree(start, root / "whole")
    process = child(stage, root / "whole", facts)
    begin = at_work(process, root / "whole")
    ended(process, root / "whole")
    return digests(root / "whole"), time.monotonic() - begin


def kill_once(stage: str, root: Path, start: Path, facts: dict, moment: float) -> tuple[str, str] | None:
    "Start, kill at a moment, start again: what was running and what was found again; None if it had ended before."
    if root.exists(): shutil.rmtree(root)
    shutil.copytree(start, root)
    process = child(stage, root, facts)
    at_work(process, root)
    if not killed(process, moment): return None
    seen = saved(root, start)
    ended(child(stage, root, facts), root)
    return seen


def kills(stage: str, number: int, seconds: float, seed: int, record) -> None:
    "`number` kills of a stage, each a round of its own; `record(row)` keeps it."
    moments = random.Random(f"{stage} {seed}")
    with tempfile.TemporaryDirectory(prefix="ptl-soak-") as folder:
        root = Path(folder)
        facts = scale(stage, seconds)
        start = prepared(stage, root, facts)
        expected, length = undisturbed(stage, root, start, facts)
        print(f"{stage}: {length:.1f} s undisturbed, {len(expected)} files compared, {facts}", flush=True)
        done = 0
        while done < number:
            moment = moments.uniform(0, length)
            begin = time.monotonic()
            seen = kill_once(stage, root / "killed", start, facts, moment)
            if not seen: continue        # it was faster this time; another moment
            done += 1
            same = digests(root / "killed") == expected
            record(row_of(stage, seed, done, (moment, length), seen, same, len(expected), begin))


def row_of(stage: str, seed: int, kill: int, moment: tuple[float, float], seen: tuple[str, str], same: bool,
           files: int, begin: float) -> dict:
    "A row of the table: what was killed when (of how many seconds), what was found again, and whether it ended alike."
    return {"stage": stage, "seed": seed, "kill": kill, "moment_s": round(moment[0], 2), "of_s": round(moment[1], 1),
            "running": seen[0], "found_again": seen[1], "resumed": not seen[1].startswith("nothing"),
            "identical": same, "files": files, "seconds": round(time.monotonic() - begin, 1)}


TOGETHER = {"table": "one run store", "labelling": "one label store and one pixel cache"}


def together(processes: int, stage: str, seconds: float, seed: int, record, facts: dict | None = None) -> dict:
    "Several processes fill one folder with an empty pixel cache; one is killed, the others take over what it held."
    facts = {"cold": stage == "labelling"} | (scale(stage, seconds) if facts is None else facts)
    with tempfile.TemporaryDirectory(prefix="ptl-soak-") as folder:
        root = Path(folder)
        start = prepared(stage, root, facts | {"cold": False})
        expected, length = undisturbed(stage, root, start, facts)
        shutil.copytree(start, root / "shared")
        moment = random.Random(f"{stage} {processes} {seed}").uniform(0.2, 0.7) * length
        begin = time.monotonic()
        group = [child(stage, root / "shared", facts) for _ in range(processes)]
        at_work(group[0], root / "shared")
        died = killed(group[0], moment)
        seen = saved(root / "shared", start)
        for process in group[1:]: ended(process, root / "shared")
        logs = [(root / place / "made.log").read_text().splitlines() for place in ("whole", "shared")]
        once = sorted(logs[0]) == sorted(logs[1])      # each run and each array was made once
        same = digests(root / "shared") == expected and once
        name = f"{TOGETHER[stage]}, {processes} processes, {'one' if died else 'none'} killed"
        row = row_of(name, seed, int(died), (moment, length), seen, same, len(expected), begin)
        record(row)
        return row


def keep(out: Path, rows: list[dict]) -> None:
    "The rows into the file, with the rows of other stages that were there."
    import pandas as pd

    from ptl_nb.disk import file_lock, write_csv
    new = pd.DataFrame(rows)
    with file_lock(out):
        if out.exists():
            old = pd.read_csv(out, keep_default_na=False)
            new = pd.concat([old[~old.stage.isin(new.stage)], new])
        write_csv(out, new)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--kills", type=int, default=20, help="of each stage")
    ask.add_argument("--seconds", type=float, default=30, help="of an undisturbed training; other stages are shorter")
    ask.add_argument("--stages", default=",".join(STAGES), help="separated by commas")
    ask.add_argument("--processes", default="", help="numbers of processes on one store, such as 2,4,8")
    ask.add_argument("--seed", type=int, default=0, help="of the moments")
    ask.add_argument("--out", type=Path, default=ROOT / "results" / "reliability.csv")
    given = ask.parse_args()
    rows: list[dict] = []
    def record(row: dict) -> None:
        rows.append(row)
        keep(given.out, rows)
        shown = ("stage", "kill", "moment_s", "running", "found_again", "identical", "seconds")
        print({k: row[k] for k in shown}, flush=True)
    for stage in filter(None, given.stages.split(",")):
        if stage not in STAGES:
            raise SystemExit(f"unknown stage {stage!r}: one of {', '.join(STAGES)}")
        kills(stage, given.kills, given.seconds, given.seed, record)
    for number in filter(None, given.processes.split(",")):
        for stage in TOGETHER: together(int(number), stage, given.seconds, given.seed, record)
    bad = [row for row in rows if not row["identical"]]
    killed_rows = sum(row["kill"] > 0 for row in rows)
    print(f"{len(rows)} rows, {killed_rows} kills, {len(rows) - len(bad)} identical endings")
    sys.exit(bool(bad))


if __name__ == "__main__": main()
