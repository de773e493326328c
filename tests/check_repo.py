"""Traps of the toolchain, checked: drift between notebooks and modules, parameters cells, notebook sizes, outputs, README against results, what nbdev_test really ran."""
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
PAPERMILL = {"table1", "table2", "table3", "table4", "table5", "fig1", "fig3", "fig4", "train_labellers", "label", "adapt", "find", "benchmarks", "ablation", "precision", "gpu"}


def notebooks() -> list[Path]:
    return sorted((ROOT / "nbs").rglob("*.ipynb"))


def check_notebook(path: Path) -> list[str]:
    "What is wrong with one notebook as it is committed."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells, wrong = notebook["cells"], []
    code = [c for c in cells if c["cell_type"] == "code"]
    if path.stat().st_size > 1_000_000: wrong.append(f"{path.stat().st_size / 1e6:.1f} MB, over 1 MB")
    if cells[0]["cell_type"] != "markdown" or not "".join(cells[0]["source"]).startswith("# "): wrong.append("does not open with a title")
    if any(o.get("output_type") == "error" for c in code for o in c["outputs"]): wrong.append("saved with an error output")
    if not any(c["outputs"] for c in code): wrong.append("saved without outputs")
    tagged = sum("parameters" in c["metadata"].get("tags", []) for c in code)
    if tagged != (path.stem in PAPERMILL): wrong.append(f"{tagged} cells tagged 'parameters', expected {int(path.stem in PAPERMILL)}")
    long = [n for n in (sum(1 for line in c["source"] if line.strip()) for c in code) if n > 50]    # a class with documented fields may be long
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
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "venv", "results", "data", "standin_data", "__pycache__", "*.egg-info", "build", "dist"))
        for module in (copy / "ptl_nb").glob("*.py"):
            if module.name != "__init__.py": module.unlink()
        subprocess.run(["nbdev_export"], cwd=copy, check=True, env={**os.environ, "PYTHONPATH": str(copy)})
        subprocess.run(["nbdev_clean"], cwd=copy, check=True)
        pairs = {p.relative_to(copy) for p in copy.glob("ptl_nb/*.py")} | {p.relative_to(ROOT) for p in ROOT.glob("ptl_nb/*.py")} | {p.relative_to(ROOT) for p in notebooks()}
        same = lambda p: (copy / p).is_file() and (ROOT / p).is_file() and (copy / p).read_bytes() == (ROOT / p).read_bytes()
        return [f"{p} differs from its notebook: run nbdev_export and nbdev_clean" for p in sorted(pairs) if not same(p)]


TABLE = re.compile(r"<!-- table: (\S+) -->\n.*?<!-- end -->", re.S)


def readme() -> str:
    "README.md with its tables built anew from the files in results/ that they name."
    import pandas as pd

    from ptl_nb.deploy import markdown_table
    from ptl_nb.experiments import display_table

    def shown(table: pd.DataFrame) -> pd.DataFrame: return display_table(table) if "method" in table else table.dropna(axis=1, how="all").set_index(table.columns[0])      # a comparison, or any other table
    def built(match: re.Match) -> str: return f"<!-- table: {match[1]} -->\n{markdown_table(shown(pd.read_csv(ROOT / match[1])))}\n<!-- end -->"

    return TABLE.sub(built, (ROOT / "README.md").read_text(encoding="utf-8"))


def check_readme() -> list[str]:
    "README's tables come from results/; its links lead somewhere; every notebook is named."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wrong = [] if readme() == text else ["README.md: a table differs from its file in results/: run python tests/check_repo.py --write-readme"]
    wrong += [f"README.md: dead link {link}" for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link and not (ROOT / link).exists()]
    return wrong + [f"README.md does not name {p.relative_to(ROOT)}" for p in notebooks() if p.relative_to(ROOT).as_posix() not in text]


def check_imports() -> list[str]:
    "`import ptl_nb` and the modules that need no torch must not load it."
    light = "ptl_nb ptl_nb.domains ptl_nb.standins ptl_nb.labels".split()
    code = "import sys; " + "; ".join(f"import {m}" for m in light) + "; sys.exit('torch' in sys.modules)"
    wrong = [] if subprocess.run([sys.executable, "-c", code]).returncode == 0 else [f"torch is loaded by importing {', '.join(light)}"]
    for module in (ROOT / "ptl_nb").glob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        if any(isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names) for n in ast.walk(tree)): wrong.append(f"{module.name} has a star import")
    return wrong


def check_tested(log: Path) -> list[str]:
    "nbdev_test exits 0 when it ran nothing: its log must name every notebook."
    text = log.read_text(encoding="utf-8")
    return [f"nbdev_test did not run {p.name}" for p in notebooks() if not re.search(rf"Starting .*{re.escape(p.name)}", text)]


def main() -> None:
    if sys.argv[1:2] == ["--write-readme"]: return print((ROOT / "README.md").write_text(readme(), encoding="utf-8"), "characters written")
    if sys.argv[1:2] == ["--tested"]: wrong = check_tested(Path(sys.argv[2]))
    else: wrong = [f"{p.name}: {w}" for p in notebooks() for w in check_notebook(p)] + check_export() + check_imports() + check_readme()
    print("\n".join(wrong) or f"{len(notebooks())} notebooks checked")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
