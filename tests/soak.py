"""SIGKILL at random moments, round after round: what was killed goes on and ends with the bytes of a run that was never touched.

    python tests/soak.py --kills 20 --seconds 30                       # every stage, 20 kills each
    python tests/soak.py --kills 20 --stages training --seed 1         # one stage
    python tests/soak.py --processes 2,4 --stages ""                   # only several processes on one store

One row per kill in results/reliability.csv, rewritten after each, so that the soak may itself be stopped; rows of stages that are not run again stay. A new stage is a function in STAGES that fills a run store
(and prepares what it starts from in PREPARE).
"""
import argparse
import functools
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMES = {"run.json", "labels.json"}      # files that hold times; everything else must be equal in every byte


# what is killed: each fills `root/runs` from an empty store, or from what PREPARE left there

def parts(root: Path, facts: dict):
    "Store, recipe, domains and label stores that the stages share; states are saved often, so that a short run has something to go on from."
    from ptl_nb import experiments
    from ptl_nb.domains import load_domain
    from ptl_nb.standins import truth
    from ptl_nb.trainer import fit

    fill_run = experiments.fill_run

    def logged(name: str, *arguments) -> None:
        fill_run(name, *arguments)
        with open(root / "made.log", "a") as log: log.write(f"{name}\n")
    experiments.fit, experiments.CHUNK, experiments.fill_run = functools.partial(fit, save_seconds=0.5), 128, logged
    recipe = experiments.choose_recipe("smoke", epochs=facts.get("epochs", 1), milestones=(facts.get("epochs", 1),), parser_iterations=1, attribute_epochs=1, attribute_share=0.02, attribute_batch=8, parser_width=16)
    source, target = load_domain("plaza"), load_domain("campus")
    (root / "started").touch()
    return experiments.Store(root / "runs", progress=False), recipe, source, target, {d.name: truth(d.name) for d in (source, target)}


def training(root: Path, facts: dict) -> None:
    from ptl_nb.experiments import parse_methods, train_method
    store, recipe, source, target, labels = parts(root, facts)
    train_method(store, recipe, parse_methods("PTL")[0], source, target, 0, labels)


def labelling(root: Path, facts: dict) -> None:
    from ptl_nb.domains import load_domain
    from ptl_nb.experiments import label_domain, label_sources
    store, recipe, *_ = parts(root, facts)
    for name in ("plaza", "campus", "corridor"): label_domain(store, recipe, load_domain(name), label_sources(origin="standin"), ("train", "query", "gallery"))


def label_models(root: Path, facts: dict) -> None:
    from ptl_nb.experiments import label_sources, train_attributes_once, train_parser_once
    store, recipe, *_ = parts(root, facts)
    for train in (train_parser_once, train_attributes_once): train(store, recipe, label_sources(origin="standin"))


def extraction(root: Path, facts: dict) -> None:
    "Scores of one model on three domains, with and without BN re-estimation."
    from ptl_nb.domains import load_domain
    from ptl_nb.experiments import parse_methods, score_model, train_method
    store, recipe, source, target, labels = parts(root, facts)
    run = train_method(store, recipe, parse_methods("BL")[0], source, target, 0, labels)
    for name in ("campus", "corridor", "plaza"):
        for bn in (False, True): score_model(store, recipe, run, load_domain(name), bn)


def baseline(root: Path, facts: dict) -> None:
    from ptl_nb.experiments import parse_methods, train_method
    store, recipe, source, target, labels = parts(root, facts)
    train_method(store, recipe, parse_methods("BL")[0], source, target, 0, labels)


def true_labels(root: Path, facts: dict) -> None:
    "The stand-ins' true labels as label stores, which say where their labels come from."
    from ptl_nb.labels import write_provenance
    from ptl_nb.standins import truth
    for name in ("plaza", "campus"):
        shutil.copytree(truth(name), root / "labels" / name)
        for kind in ("parts", "attributes"): write_provenance(root / "labels" / name, kind, "the truth of a stand-in", "none", 1, True, ["true"])


def ssg(root: Path, facts: dict) -> None:
    "Clustering and training in turn: full SSG, with re-ranking."
    from ptl_nb.experiments import SSG_RECIPES, parse_methods, train_ssg
    store, recipe, source, target, labels = parts(root, facts)
    train_ssg(store, recipe, parse_methods("BL+SSG")[0], source, target, 0, labels, replace(SSG_RECIPES["smoke"], rounds=facts.get("rounds", 2), epochs=2))


def table(root: Path, facts: dict) -> None:
    "A table of three rows and two seeds, with what is saved of it."
    from ptl_nb.experiments import Experiment, compare, parse_methods, save_comparison
    store, recipe, source, target, labels = parts(root, facts)
    made = compare(Experiment(store, recipe, source, target, parse_methods(facts.get("methods", "BL, PTL, PTL+BN^t")), [0, 1], {name: root / "labels" / name for name in labels}))
    save_comparison(made, root / "table")


def index(root: Path, facts: dict) -> None:
    "Galleries indexed in the store, and joined one after the other in a folder of their own."
    from ptl_nb.domains import load_domain
    from ptl_nb.experiments import load_reid, parse_methods, train_method
    from ptl_nb.search import INDEX_FILE, _seen_from, add_images, load_index, open_gallery, save_index
    store, recipe, source, target, labels = parts(root, facts)
    net, place = load_reid(train_method(store, recipe, parse_methods("BL")[0], source, target, 0, labels), recipe), root / "table" / "index"
    for name in ("campus", "corridor", "plaza"):
        more = open_gallery(store, net, recipe, load_domain(name))
        if not (place / INDEX_FILE).exists(): save_index(more, place)
        elif _seen_from((there := load_index(place)).root, more)[0] not in there.places: add_images(there, more, place)


STAGES = {"training": training, "labelling": labelling, "extraction": extraction, "ssg": ssg, "table": table, "label_models": label_models, "index": index}
PREPARE = {"labelling": label_models, "extraction": baseline, "ssg": baseline, "index": baseline, "table": true_labels}


# killing, and looking at what is there

def child(stage: str, root: Path, facts: dict) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, __file__, "--child", stage, str(root), json.dumps(facts)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def at_work(process: subprocess.Popen, root: Path) -> float:
    "When the process had done its imports; kills before that would find nothing to break."
    while process.poll() is None and not (root / "started").exists(): time.sleep(0.01)
    return time.monotonic()


def ended(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    if process.returncode: raise SystemExit(f"a process ended with {process.returncode}:\n{errors[-3000:]}")


def digests(root: Path) -> dict[str, str]:
    "SHA-256 of every file of finished runs and tables, without those that hold times."
    files = [p for part in ("runs", "table") for p in (root / part).rglob("*") if p.is_file()]
    plain = [p for p in files if p.name not in TIMES and not (p.parent.name == "table" and p.suffix == ".json") and p.suffix != ".lock"]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(plain)}


def saved(root: Path, start: Path) -> tuple[str, str]:
    "Which run was being made when the process died, and what the next process finds that was not there at the start."
    from safetensors import safe_open
    count = lambda place, what: len(list((place / "runs").glob(what)))
    drafts = sorted((root / "runs").glob(".*.partial"))
    new = {name: count(root, what) - count(start, what) for name, what in (("finished runs", "[!.]*/run.json"), ("scores", "[!.]*/scores*.npz"), ("chunks", ".*.partial/chunks/*.npy"))}
    found = [f"{n} {name}" for name, n in new.items() if n]
    for state in (s for draft in drafts for s in draft.rglob("state.safetensors")):
        with safe_open(state, "pt") as file: facts = json.loads(file.metadata()["facts"])
        found.append(f"{len(facts['records'])} rounds" if "records" in facts else f"iteration {facts['iteration']}")
    return ", ".join(draft.name.strip(".").rpartition("-")[0] for draft in drafts) or "no run", ", ".join(found) or "nothing"


def scale(stage: str, seconds: float) -> dict:
    "Epochs or rounds that make a stage last about so long on this machine."
    if stage not in ("training", "table", "ssg"): return {}
    from ptl_nb.experiments import parse_methods
    from ptl_nb.launch import per_iteration, training_step
    with tempfile.TemporaryDirectory() as folder: _, recipe, source, target, _ = parts(Path(folder), {})
    iterations, step = training_step(recipe, parse_methods("PTL")[0], source, target, (2,) * 105, "cpu")
    epochs = max(1, round(seconds / (per_iteration(step) * iterations)))
    return {"training": {"epochs": epochs}, "table": {"epochs": max(1, epochs // 4)}, "ssg": {"rounds": max(3, round(seconds / 6))}}[stage]


def prepared(stage: str, root: Path, facts: dict) -> Path:
    "A folder that the stage starts from."
    (root / "start" / "runs").mkdir(parents=True)
    if stage in PREPARE: ended(subprocess.Popen([sys.executable, __file__, "--child", PREPARE[stage].__name__, str(root / "start"), json.dumps(facts)], stderr=subprocess.PIPE, text=True))
    (root / "start" / "started").unlink(missing_ok=True)
    return root / "start"


def undisturbed(stage: str, root: Path, start: Path, facts: dict) -> tuple[dict[str, str], float]:
    "Digests of a run that nobody killed, and its seconds at work."
    shutil.copytree(start, root / "whole")
    process = child(stage, root / "whole", facts)
    begin = at_work(process, root / "whole")
    ended(process)
    return digests(root / "whole"), time.monotonic() - begin


def kill_once(stage: str, root: Path, start: Path, facts: dict, moment: float) -> tuple[str, str] | None:
    "Start, kill at a moment, start again: what was running and what was found again; None if it had ended before."
    if root.exists(): shutil.rmtree(root)
    shutil.copytree(start, root)
    process = child(stage, root, facts)
    at_work(process, root)
    try: process.wait(moment)
    except subprocess.TimeoutExpired: process.kill()
    process.communicate()
    if process.returncode != -9: return None
    seen = saved(root, start)
    ended(child(stage, root, facts))
    return seen


def kills(stage: str, number: int, seconds: float, seed: int, record) -> None:
    "`number` kills of a stage, each a round of its own; `record(row)` keeps it."
    moments = random.Random(f"{stage} {seed}")
    with tempfile.TemporaryDirectory(prefix="ptl-soak-") as folder:
        root, facts = Path(folder), scale(stage, seconds)
        start = prepared(stage, root, facts)
        expected, length = undisturbed(stage, root, start, facts)
        print(f"{stage}: {length:.0f} s undisturbed, {len(expected)} files compared, {facts}", flush=True)
        done = 0
        while done < number:
            moment, begin = moments.uniform(0, length), time.monotonic()
            if not (seen := kill_once(stage, root / "killed", start, facts, moment)): continue        # it was faster this time; another moment
            (running, found), got, done = seen, digests(root / "killed"), done + 1
            record({"stage": stage, "seed": seed, "kill": done, "moment_s": round(moment, 2), "of_s": round(length, 1), "running": running, "found_again": found,
                    "resumed": found != "nothing", "identical": got == expected, "files": len(expected), "seconds": round(time.monotonic() - begin, 1)})


def together(processes: int, seconds: float, seed: int, record, facts: dict | None = None) -> dict:
    "Several processes fill one table; the first is killed under way, and the others take over what it held."
    with tempfile.TemporaryDirectory(prefix="ptl-soak-") as folder:
        root, facts = Path(folder), facts or scale("table", seconds)
        start = prepared("table", root, facts)
        expected, length = undisturbed("table", root, start, facts)
        shutil.copytree(start, root / "shared")
        moment, begin = random.Random(f"{processes} {seed}").uniform(0.3, 0.9) * length, time.monotonic()
        group = [child("table", root / "shared", facts) for _ in range(processes)]
        at_work(group[0], root / "shared")
        try: group[0].wait(moment)
        except subprocess.TimeoutExpired: group[0].kill()
        group[0].communicate()
        running, found = saved(root / "shared", start)
        for process in group[1:]: ended(process)
        made = [sorted((root / place / "made.log").read_text().splitlines()) for place in ("whole", "shared")]      # each run once
        row = {"stage": f"table, {processes} processes, one killed", "seed": seed, "kill": 1, "moment_s": round(moment, 2), "of_s": round(length, 1), "running": running, "found_again": found,
               "resumed": found != "nothing", "identical": digests(root / "shared") == expected and made[0] == made[1], "files": len(expected), "seconds": round(time.monotonic() - begin, 1)}
        record(row)
        return row


def keep(out: Path, rows: list[dict]) -> None:
    "The rows into the file, with the rows of other stages that were there."
    import pandas as pd

    from ptl_nb.experiments import write_csv
    new = pd.DataFrame(rows)
    if out.exists(): old = pd.read_csv(out, keep_default_na=False); new = pd.concat([old[~old.stage.isin(new.stage)], new])
    write_csv(out, new)


def main() -> None:
    if sys.argv[1:2] == ["--child"]: return globals()[sys.argv[2]](Path(sys.argv[3]), json.loads(sys.argv[4]))
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--kills", type=int, default=20, help="of each stage")
    ask.add_argument("--seconds", type=float, default=30, help="length of an undisturbed training")
    ask.add_argument("--stages", default=",".join(STAGES), help="separated by commas")
    ask.add_argument("--processes", default="", help="numbers of processes on one store, such as 2,4,8")
    ask.add_argument("--seed", type=int, default=0, help="of the moments")
    ask.add_argument("--out", type=Path, default=ROOT / "results" / "reliability.csv")
    given = ask.parse_args()
    rows: list[dict] = []
    def record(row: dict) -> None:
        rows.append(row); keep(given.out, rows)
        print({k: row[k] for k in ("stage", "kill", "moment_s", "running", "found_again", "identical", "seconds")}, flush=True)
    for stage in filter(None, given.stages.split(",")):
        if stage not in STAGES: raise SystemExit(f"unknown stage {stage!r}: one of {', '.join(STAGES)}")
        kills(stage, given.kills, given.seconds, given.seed, record)
    for number in filter(None, given.processes.split(",")): together(int(number), given.seconds, given.seed, record)
    bad = [row for row in rows if not row["identical"]]
    print(f"{len(rows)} kills, {len(rows) - len(bad)} identical endings")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
