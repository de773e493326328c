"""A table filled by jobs equals one filled here; jobs that fail are named; an estimate changes no weights."""
import hashlib
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

submitit = pytest.importorskip("submitit")

from conftest import ENV, outputs, smoke_run

from ptl_nb import tables
from ptl_nb.domains import load_domain
from ptl_nb.label_runs import label_sources
from ptl_nb.labels import read_attributes, write_attributes, write_provenance
from ptl_nb.launch import (
    STAGES, DataLocation, Job, estimate, failures, job_executor, launch_runs, parse_launch, run_jobs, stage_jobs)
from ptl_nb.methods import parse_methods
from ptl_nb.parameters import choose_recipe
from ptl_nb.runs import ReIDRun
from ptl_nb.standins import truth_store
from ptl_nb.store import Store
from ptl_nb.tables import Experiment, compare, compare_labels

RECIPE = choose_recipe("smoke")
PLACES = DataLocation("plaza", "campus", origin="standin", attributes="peta")
SBATCH = """#!/bin/sh
cp "$1" {folder}/sent.sh
echo Submitted batch job 7
"""


@pytest.fixture(scope="module")
def bl() -> Experiment:
    "A baseline on the stand-ins; each test gives it a store."
    store = Store(Path("nowhere"), progress=False)
    source = load_domain("plaza")
    target = load_domain("campus")
    return Experiment(store, RECIPE, source, target, parse_methods("BL"), [0], label_sources(origin="standin"))


def weights(root: Path) -> dict[str, str]:
    files = sorted(root.glob("[!.]*/model.safetensors"))
    return {p.parent.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def written(root: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in root.rglob("*")}


@pytest.mark.slow
def test_table_by_jobs_equals_one_made_here(tmp_path, bl):
    methods = parse_methods("BL, BL+fwd^t+BN^t")
    here = replace(bl, store=Store(tmp_path / "here", progress=False), methods=methods, seeds=[0, 1])
    by_jobs = replace(here, store=Store(tmp_path / "jobs", progress=False))
    estimate(here)                    # before a training, to see that it leaves no trace in it
    expected = compare(here)
    assert launch_runs("local parallel=2", (PLACES, by_jobs)) == 4
    assert launch_runs("local", (PLACES, by_jobs)) == 0
    assert not list(by_jobs.store.root.glob("jobs-*"))
    before = written(by_jobs.store.root)
    gathered = compare(by_jobs)
    assert written(by_jobs.store.root) == before, "the notebook made something that a job should have made"
    assert weights(by_jobs.store.root) == weights(here.store.root)
    assert gathered.summary().to_csv() == expected.summary().to_csv()
    assert gathered.by_seed().to_csv() == expected.by_seed().to_csv()


@pytest.mark.slow
def test_every_kind_of_job_makes_what_compare_finds(tmp_path, bl):
    "In this process: label models, labels, a training, an adaptation; in the order of the stages."
    short = {"parser_iterations": 1, "attribute_share": 0.02, "attribute_batch": 8, "attribute_weight_parts": 0.0}
    wanted = replace(bl, store=Store(tmp_path, progress=False), recipe=choose_recipe("smoke", **short),
                     methods=parse_methods("BL+Attr^t, BL+Attr^t+SSG†"))
    made = {}
    for stage in STAGES:
        jobs = stage_jobs(stage, PLACES, wanted)
        made[stage] = [job() for job in jobs]
        assert made[stage] == [job.run for job in jobs]
        assert not stage_jobs(stage, PLACES, wanted)
    assert [len(names) for names in made.values()] == [2, 1, 1, 1]
    before = sorted(tmp_path.rglob("*"))
    compare(wanted)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_sets_of_labels_share_the_plain_rows(tmp_path, bl, monkeypatch):
    "What needs no labels is trained, read and counted once; the rows keep their order."
    read = []
    score = tables.score_model

    def noted(store, recipe, run, domain, method):
        read.append(run.name)
        return score(store, recipe, run, domain, method)

    monkeypatch.setattr(tables, "score_model", noted)
    paths = bl.target.train.path
    labels = tmp_path / "labels"
    vocabulary, known = read_attributes(truth_store("campus"), paths)
    write_attributes(labels, paths, vocabulary, known)
    write_provenance(labels, "attributes", "the renderer", "truth", len(paths), True, vocabulary.columns)
    wanted = replace(bl, store=Store(tmp_path / "runs", progress=False), methods=parse_methods("BL, BL+Attr^t"),
                     labels={"campus": labels})
    table = compare_labels({"one": wanted, "two": wanted})
    assert list(table.scores) == ["BL", "BL+Attr^t (one)", "BL+Attr^t (two)"]
    assert sum(name.startswith("BL-plaza") for name in read) == 1
    assert table.by_seed().mAP.nunique() == 2
    assert launch_runs("local", (PLACES, wanted), (PLACES, wanted)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("table, methods, runs", [
    ("table3", "BL", ["BL-plaza"]), ("table4", "", ["BL-plaza", *["BL-Attrt-plaza-corridor"] * 3]),
    ("table5", "BL", ["BL-plaza"])])
def test_tables_by_jobs(tmp_path, monkeypatch, table, methods, runs):
    "The notebooks themselves: jobs make every run, and the table is there."
    monkeypatch.setitem(ENV, "TMPDIR", str(tmp_path))                # where a smoke run keeps its results
    given = ["origin=standin", "launch=local parallel=2", *([f"methods={methods}"] if methods else [])]
    smoke_run(table, tmp_path / "out.ipynb", *given)
    made = sorted(p.parent.name.rpartition("-seed")[0] for p in tmp_path.rglob("BL*/run.json"))
    assert made == sorted(runs)
    jobs = re.findall(r"trainings: (\d+) job", outputs(tmp_path / "out.ipynb"))
    assert sum(map(int, jobs)) == len(runs)
    assert list(tmp_path.rglob(f"smoke/{table}/*.json"))


@pytest.mark.slow
def test_a_failed_job_is_named_with_its_log(tmp_path, bl):
    store = Store(tmp_path / "runs", progress=False)
    elsewhere = DataLocation("plaza", "corridor")       # as if the node had other data
    with pytest.raises(RuntimeError) as error: launch_runs("local", (elsewhere, replace(bl, store=store)))
    logs = next(store.root.glob("jobs-*"))
    for says in ("1 of 1 jobs failed", "BL seed 0", "corridor has other images here", str(logs)):
        assert says in str(error.value)
    assert logs.stat().st_mode & 0o077 == 0, "others may enter the folder of the pickles"


class Killed(Job):
    def __call__(self): os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_job_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 1)  # its wait for a result that will not come
    dead = Killed("train", "BL", 0, PLACES, ("", ""), RECIPE, None, "", "cpu")
    named = failures(run_jobs(job_executor("local", {"timeout_min": 5}, tmp_path), [dead], 1))
    assert len(named) == 1 and named[0].startswith("BL seed 0")
    assert "BL seed 0: failed" in capsys.readouterr().out


def test_slurm_gets_what_was_asked_for(tmp_path, monkeypatch):
    "What sbatch would be given, and how the jobs of a stage become one array; a cluster is not at hand."
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("srun", "sbatch", "sacct", "scancel"):
        (commands / name).write_text(SBATCH.format(folder=tmp_path))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    asked = "slurm partition=gpu,timeout_min=600,cpus_per_task=8,array_parallelism=1"
    executor = job_executor(*parse_launch(asked, "cuda"), tmp_path / "logs")
    job = Job("train", "BL", 0, PLACES, ("", ""), RECIPE, None, "runs", "cuda")
    with executor.batch(): sent = [executor.submit(job), executor.submit(job)]
    text = (tmp_path / "sent.sh").read_text()
    for line in ("--partition=gpu", "--time=600", "--cpus-per-task=8", "--gpus-per-node=1", "--array=0-1%1"):
        assert line in text, text
    assert [j.job_id for j in sent] == ["7_0", "7_1"]
    assert job.checkpoint().function == job                          # what goes back into the queue when the time is up


@pytest.mark.slow
def test_an_estimate_changes_no_bit(tmp_path, bl):
    for name in ("plain", "after"):
        store = Store(tmp_path / name, progress=False)
        if name == "after": assert estimate(replace(bl, store=store)).what.tolist() == ["BL"]
        store.make(ReIDRun(RECIPE, bl.methods[0], bl.source, bl.target))
    assert weights(tmp_path / "plain") == weights(tmp_path / "after")
