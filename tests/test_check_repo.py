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
