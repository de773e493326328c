"""A training that a test module's `run` makes, killed at a call of a function of the package, and ended afterwards."""
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
kills = pytest.mark.skipif(os.name != "posix", reason="SIGKILL")


def killed_at(
    call: int,           # which one kills, counted from 1
    of: str,             # such as "ecn.update_centres" or "pul.PUL.after_step", of the package
    run: Callable,       # (folder) trains; of a module of tests
    folder: Path,
    after: bool = False,  # once the call has returned; else before it begins
) -> int:
    "Exit status of a process that kills itself there."
    arguments = [run.__module__.rpartition(".")[2], run.__name__, of, str(call), str(folder), "after" if after else "before"]
    return subprocess.run([sys.executable, "-m", "tests.killed", *arguments], cwd=ROOT, timeout=240,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True).returncode


def same(net: torch.nn.Module, other: torch.nn.Module) -> bool:
    "Whether two networks have equal weights and buffers."
    theirs = other.state_dict()
    return all(torch.equal(theirs[name], value) for name, value in net.state_dict().items())


def ends_as_if_never_killed(
    whole: tuple,        # network and history of a run that nobody stopped
    call: int,           # these as in `killed_at`
    of: str,
    run: Callable,
    folder: Path,
    after: bool = False,
    saved: bool = True,   # whether it had anything to go on from
) -> None:
    "A run is killed, begun again and ends with the same weights and history, in every bit."
    assert killed_at(call, of, run, folder, after) == -signal.SIGKILL
    assert (folder / "state.safetensors").exists() == saved
    net, history = run(folder)
    assert same(net, whole[0])
    pd.testing.assert_frame_equal(history, whole[1], check_exact=True)


if __name__ == "__main__":
    test, run, of, call, folder, when = sys.argv[1:]
    module, *inner, name = of.split(".")
    owner = reduce(getattr, inner, import_module(f"ptl_nb.{module}"))
    whole, calls = getattr(owner, name), []

    def counted(*arguments, **options):
        calls.append(1)
        last = len(calls) == int(call)
        if last and when == "before": os.kill(os.getpid(), signal.SIGKILL)
        made = whole(*arguments, **options)
        if last: os.kill(os.getpid(), signal.SIGKILL)
        return made

    setattr(owner, name, counted)
    getattr(import_module(f"tests.{test}"), run)(Path(folder))
