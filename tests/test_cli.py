"""The command `ptl`: every notebook that can be run, its options and help, and one run to its end as a user does."""
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from conftest import ENV, ROOT, result_files

from ptl_nb.cli import main, parameters, parser_of, runnable

THERE = runnable(ROOT / "nbs")


@pytest.mark.parametrize("name", THERE)
def test_every_parameter_is_an_option_with_its_help_and_default(name):
    shown = " ".join(parser_of(name, THERE[name]).format_help().split())
    for p in parameters(THERE[name]):
        assert p.option in shown and p.help.split()[0] in shown, p
        assert p.kind in ("str", "int", "float", "bool"), p


def test_what_is_not_given_is_left_to_the_notebook():
    given = vars(parser_of("adapt", THERE["adapt"]).parse_args(["a folder", "--time", "007", "--onnx", "no"]))
    assert given == {"target": "a folder", "time": "007", "onnx": False}


def test_the_command_is_installed():
    (found,) = entry_points(group="console_scripts", name="ptl")
    assert found.load() is main


@pytest.mark.parametrize("words, code, says", [
    (["adpat"], 2, "did you mean 'adapt'"), ([], 0, "adapt "), (["--help"], 0, "usage: ptl")])
def test_without_a_notebook(words, code, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(words) == code
    out, errors = capsys.readouterr()
    assert says in out + errors


@pytest.mark.slow
def test_a_notebook_to_its_end_and_one_that_refuses(tmp_path):
    before = result_files()
    def ptl(*words):
        return subprocess.run([sys.executable, "-c", "import sys; from ptl_nb.cli import main; sys.exit(main())", *words],
                              cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)

    made = ptl("label", "plaza", "--smoke", "true", "--images", "2", "--out", str(tmp_path / "made.ipynb"))
    assert made.returncode == 0, made.stderr[-3000:]
    assert f"executed notebook: {tmp_path / 'made.ipynb'}" in made.stdout and "plaza" in made.stdout
    refused = ptl("label", "plaza", "--smoke", "true", "--images", "0", "--out", str(tmp_path / "refused.ipynb"))
    assert refused.returncode == 1 and "ptl label: ValueError: images is 0; show at least one person" in refused.stderr
    assert (tmp_path / "refused.ipynb").is_file() and "Traceback" not in refused.stderr
    assert result_files() == before, "a smoke run wrote into results/"
