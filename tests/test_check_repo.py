"""The check of the repository finds what it is there to find."""
import check_repo
import pytest


@pytest.mark.parametrize("allowed, says", [
    ({120: 0.1, 140: 0.0}, []),
    ({120: 0.05, 140: 0.0}, ["10.00% of the lines are wider than 120 characters, at most 5.00% may be"])])
def test_wide_lines_are_counted(tmp_path, monkeypatch, allowed, says):
    "In modules, tests and tools together; what nbdev generates does not count."
    lines = {"ptl_nb/a.py": ["x" * 120] * 8, "ptl_nb/_modidx.py": ["x" * 200], "tools/b.py": ["x" * 121],
             "tests/c.py": ["x"]}
    for name, text in lines.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(text))
    monkeypatch.setattr(check_repo, "ROOT", tmp_path)
    monkeypatch.setattr(check_repo, "WIDEST", allowed)
    assert check_repo.check_width() == says


@pytest.mark.parametrize("code, says", [
    ("def f(): return 1", []),
    ("from .disk import _hidden", ["ptl_nb/a.py, line 1: _hidden is private to disk"]),
    ("from ptl_nb.disk import __all__", []),
    ("f = lambda: 1", ["ptl_nb/a.py, line 1: a lambda with a name; define a function"]),
    ("x = {}\nx.clear(), x.clear()", ["ptl_nb/a.py, line 2: an expression evaluated for its effect; write statements"])])
def test_style_is_checked(tmp_path, monkeypatch, code, says):
    (tmp_path / "ptl_nb").mkdir()
    (tmp_path / "ptl_nb/a.py").write_text(code)
    monkeypatch.setattr(check_repo, "ROOT", tmp_path)
    assert check_repo.check_style() == says
