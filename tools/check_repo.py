"""The repository, checked without running it: drift between notebooks and modules, parameters cells, notebook sizes,
outputs, the width of lines, README against results.

    python tools/check_repo.py                   # says what is wrong
    python tools/check_repo.py --write-readme    # README's tables anew from results/
"""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAPERMILL = {"table1", "table2", "table3", "table4", "table5", "fig1", "fig3", "fig4", "train_labellers", "label",
             "adapt", "find", "benchmarks", "ablation", "precision", "gpu"}
# characters -> share of lines that may be wider: only ever lowered, to 2 % wider than 120 and none wider than 140
WIDEST = {120: 0.088, 140: 0.048}
NOT_COPIED = (".git", ".venv", "venv", "results", "data", "standin_data", "__pycache__", "*.egg-info", "build", "dist")


def notebooks() -> list[Path]:
    return sorted((ROOT / "nbs").rglob("*.ipynb"))


def check_notebook(path: Path) -> list[str]:
    "What is wrong with one notebook as it is committed."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells, wrong = notebook["cells"], []
    code = [c for c in cells if c["cell_type"] == "code"]
    if path.stat().st_size > 1_000_000: wrong.append(f"{path.stat().st_size / 1e6:.1f} MB, over 1 MB")
    if cells[0]["cell_type"] != "markdown" or not "".join(cells[0]["source"]).startswith("# "):
        wrong.append("does not open with a title")
    if any(o.get("output_type") == "error" for c in code for o in c["outputs"]):
        wrong.append("saved with an error output")
    if not any(c["outputs"] for c in code): wrong.append("saved without outputs")
    tagged = sum("parameters" in c["metadata"].get("tags", []) for c in code)
    expected = int(path.stem in PAPERMILL)
    if tagged != expected: wrong.append(f"{tagged} cells tagged 'parameters', expected {expected}")
    lengths = [sum(1 for line in c["source"] if line.strip()) for c in code]
    long = [n for n in lengths if n > 50]    # a class with documented fields may be long
    if long: wrong.append(f"{len(long)} code cells over 50 lines")
    for cell in cells:
        text = "".join(cell["source"]) + json.dumps(cell.get("outputs", ""))
        found = re.search(r"(?<![\w.])/(work|tmp|root|home|opt)/\w+", text)
        if found: wrong.append(f"names a path of a machine: {found.group()}")
    return wrong


def check_export() -> list[str]:
    "Modules exported anew from the notebooks must equal the committed ones."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
        for module in (copy / "ptl_nb").glob("*.py"):
            if module.name != "__init__.py": module.unlink()
        subprocess.run(["nbdev_export"], cwd=copy, check=True, env={**os.environ, "PYTHONPATH": str(copy)})
        subprocess.run(["nbdev_clean"], cwd=copy, check=True)
        paths = {p.relative_to(root) for root in (copy, ROOT) for p in root.glob("ptl_nb/*.py")}
        paths |= {p.relative_to(ROOT) for p in notebooks()}
        differing = [p for p in sorted(paths) if not same(copy / p, ROOT / p)]
        return [f"{p} differs from its notebook: run nbdev_export and nbdev_clean" for p in differing]


def same(one: Path, other: Path) -> bool:
    "Whether both are files with the same bytes."
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def check_width() -> list[str]:
    "The share of wide lines in modules, tests and tools; what nbdev generates does not count."
    files = [p for folder in ("ptl_nb", "tests", "tools") for p in sorted((ROOT / folder).glob("*.py"))]
    lines = [line for p in files if p.name != "_modidx.py" for line in p.read_text(encoding="utf-8").splitlines()]
    wrong = []
    for width, allowed in WIDEST.items():
        share = sum(len(line) > width for line in lines) / len(lines)
        if share > allowed:
            wrong.append(f"{share:.2%} of the lines are wider than {width} characters, at most {allowed:.2%} may be")
    return wrong


TABLE = re.compile(r"<!-- table: (\S+) -->\n.*?<!-- end -->", re.S)


def readme() -> str:
    "README.md with its tables built anew from the files in results/ that they name."
    import pandas as pd

    from ptl_nb.deploy import markdown_table
    from ptl_nb.experiments import display_table

    def shown(table: pd.DataFrame) -> pd.DataFrame:
        "A comparison, or any other table."
        if "method" in table: return display_table(table)
        return table.dropna(axis=1, how="all").set_index(table.columns[0])

    def built(match: re.Match) -> str:
        return f"<!-- table: {match[1]} -->\n{markdown_table(shown(pd.read_csv(ROOT / match[1])))}\n<!-- end -->"

    return TABLE.sub(built, (ROOT / "README.md").read_text(encoding="utf-8"))


def check_readme() -> list[str]:
    "README's tables come from results/; its links lead somewhere; every notebook is named."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wrong = []
    if readme() != text:
        remedy = "run python tools/check_repo.py --write-readme"
        wrong.append(f"README.md: a table differs from its file in results/: {remedy}")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    wrong += [f"README.md: dead link {link}" for link in links if not (ROOT / link).exists()]
    names = [p.relative_to(ROOT).as_posix() for p in notebooks()]
    return wrong + [f"README.md does not name {name}" for name in names if name not in text]


def check_imports() -> list[str]:
    "`import ptl_nb` and the modules that need no torch must not load it."
    light = "ptl_nb ptl_nb.domains ptl_nb.standins ptl_nb.labels".split()
    code = "import sys; " + "; ".join(f"import {m}" for m in light) + "; sys.exit('torch' in sys.modules)"
    wrong = []
    if subprocess.run([sys.executable, "-c", code]).returncode:
        wrong.append(f"torch is loaded by importing {', '.join(light)}")
    for module in (ROOT / "ptl_nb").glob("*.py"):
        imports = [n for n in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
        if any(name.name == "*" for n in imports for name in n.names): wrong.append(f"{module.name} has a star import")
    return wrong


def main() -> None:
    if sys.argv[1:2] == ["--write-readme"]:
        (ROOT / "README.md").write_text(readme(), encoding="utf-8")
        return
    wrong = [f"{p.name}: {w}" for p in notebooks() for w in check_notebook(p)]
    wrong += check_width()
    wrong += check_export()
    wrong += check_imports()
    wrong += check_readme()
    print("\n".join(wrong) or f"{len(notebooks())} notebooks checked")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
