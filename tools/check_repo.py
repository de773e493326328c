"""The repository, checked without running it: drift between notebooks and modules, parameters cells, notebook sizes,
outputs, style and width of lines, pages against results.

    python tools/check_repo.py                   # says what is wrong
    python tools/check_repo.py --write-pages     # tables of the pages anew from results/
"""
import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAPERMILL = {"table1", "table2", "table3", "table4", "table5", "fig1", "fig3", "fig4", "train_labellers",
             "train_start", "train_shipped_labeller", "label", "adapt", "find", "benchmarks", "ablation", "precision", "gpu",
             "world_curve", "target_sizes", "failures", "crops", "ties_trial", "tracker", "engine_scale"}
# characters -> share of lines that may be wider
WIDEST = {120: 0.02, 140: 0}
NOT_COPIED = (".git", ".venv", "venv", "results", "data", "standin_data", "__pycache__", "*.egg-info", "build", "dist")


def notebooks() -> list[Path]:
    return sorted((ROOT / "nbs").rglob("*.ipynb"))


def check_notebook(path: Path) -> list[str]:
    "What is wrong with one notebook as it is committed."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    wrong = []
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
        if cell["cell_type"] == "markdown": wrong += dead_links("".join(cell["source"]), path.parent)
    return wrong


def dead_links(text: str, folder: Path) -> list[str]: # Markdown, and where its file lies
    "Links to files that are not there; code and addresses elsewhere are left out."
    text = re.sub(r"```.*?```|`[^`\n]*`", "code", text, flags=re.S)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not re.match(r"\w+:", link)]
    return [f"dead link {link}" for link in links if not (folder / link).exists()]


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


def python_files() -> list[Path]:
    "Modules, tests and tools; what nbdev generates does not count."
    files = [p for folder in ("ptl_nb", "tests", "tools") for p in sorted((ROOT / folder).rglob("*.py"))]
    return [p for p in files if p.name != "_modidx.py"]


def check_style() -> list[str]:
    "Private names stay in their module; functions are defined, statements are no expressions."
    wrong = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT).as_posix()}, line {getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("ptl_nb")):
                crossing = [a.name for a in node.names if re.match("_[^_]", a.name)]
                if crossing: wrong.append(f"{where}: {crossing[0]} is private to {node.module}")
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and isinstance(node.targets[0], ast.Name):
                wrong.append(f"{where}: a lambda with a name; define a function")
            if isinstance(node, ast.Expr) and isinstance(node.value, (ast.Tuple, ast.IfExp, ast.BoolOp)):
                wrong.append(f"{where}: an expression evaluated for its effect; write statements")
    return wrong


def check_width() -> list[str]:
    "The share of wide lines."
    lines = [line for p in python_files() for line in p.read_text(encoding="utf-8").splitlines()]
    wrong = []
    for width, allowed in WIDEST.items():
        share = sum(len(line) > width for line in lines) / len(lines)
        if share > allowed:
            wrong.append(f"{share:.2%} of the lines are wider than {width} characters, at most {allowed:.2%} may be")
    return wrong


TABLE = re.compile(r"<!-- table: (.+?) -->\n.*?<!-- end -->", re.S)
INTERVAL = re.compile(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]")      # difference [low, high], as tables show it
README_LINES, SENTENCE_WORDS = 100, 35


def pages() -> list[Path]:
    "README.md and the pages that hold what it has no room for."
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*.md"))]


def shown_table(file: str):
    "A CSV of results/ as pages show it: a comparison with its intervals, or any other table."
    import pandas as pd

    from ptl_nb.rows import display_table

    table = pd.read_csv(ROOT / file)
    comparison = {"method", "paper_mAP"} <= set(table)
    if comparison: return display_table(table)
    table = table.dropna(axis=1, how="all")
    for name in table.select_dtypes("float"):       # counts, of which some are not known
        if (table[name].dropna() % 1 == 0).all(): table[name] = table[name].astype("Int64").astype("string").fillna("")
    return table.set_index(table.columns[0])


def built_table(
    asked: str, # `a.csv`; of it or of several `rows="a|b"`, `columns="c|d"`; for several `headings="of a|of b"`
) -> str: # Markdown
    "A table of results/ as Markdown; of several files the columns stand side by side under their headings."
    import pandas as pd

    from ptl_nb.deploy import markdown_table

    words = shlex.split(asked)
    options = {name: value.split("|") for name, value in (w.split("=", 1) for w in words if "=" in w)}
    if unknown := options.keys() - {"rows", "columns", "headings"}:
        raise ValueError(f"{asked}: no option {unknown}")
    tables = [shown_table(w) for w in words if "=" not in w]
    rows, columns = options.get("rows", tables[0].index.unique()), options.get("columns", list(tables[0].columns))
    if lacking := set(rows) - {row for t in tables for row in t.index}:
        raise ValueError(f"{asked}: no row {lacking}")
    if lacking := {c for t in tables for c in columns if c not in t}:
        raise ValueError(f"{asked}: no column {lacking}")
    headings = options.get("headings", [""])
    if len(headings) != len(tables):
        raise ValueError(f"{asked}: {len(tables)} files, {len(headings)} headings")
    kept = [t.loc[[r for r in rows if r in t.index], columns] for t in tables]      # all rows of a name
    named = [t.rename(columns=dict(zip(columns, [f"{c}, {h}" if h else c for c in columns])))
             for t, h in zip(kept, headings)]
    joined = named[0] if len(named) == 1 else pd.concat(named, axis=1).loc[rows]
    return markdown_table(joined.rename_axis(tables[0].index.name))


def rebuilt(page: Path) -> str:
    "A page with its tables built anew from the files in results/ that they name."
    def built(match: re.Match) -> str: return f"<!-- table: {match[1]} -->\n{built_table(match[1])}\n<!-- end -->"
    return TABLE.sub(built, page.read_text(encoding="utf-8"))


def sentences(text: str) -> list[str]:
    "Sentences of a Markdown text; headings, code, tables and comments have none, an item of a list ends one."
    text = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"^(\||#).*$", "", text, flags=re.M)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    blocks = re.split(r"\n\s*\n", re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "\n\n", text, flags=re.M))
    found = [s for b in blocks for s in re.split(r"(?<=[.!?])[*_)\"]*\s+", b)]
    return [" ".join(s.split()) for s in found if s.strip()]


def check_front_page(text: str) -> list[str]: # README.md
    "The front page is read in minutes: few lines, short sentences, one small table."
    wrong = [f"README.md: {n} lines, at most {README_LINES}"] if (n := len(text.splitlines())) > README_LINES else []
    counted = [(len(s.split()), s) for s in sentences(text)]
    wrong += [f"README.md: {n} words, at most {SENTENCE_WORDS}: {s}" for n, s in counted if n > SENTENCE_WORDS]
    rows = [len(re.findall(r"^\|", table[0], re.M)) - 2 for table in TABLE.finditer(text)]
    return wrong + ([f"README.md: tables of {rows} rows; one, of at most six"] if len(rows) != 1 or rows[0] > 6 else [])


def check_page(page: Path, intervals: set[str]) -> list[str]: # those that some page's tables show
    "A page's tables come from results/, so do the intervals in its text; its links lead somewhere."
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    try: same = rebuilt(page) == text
    except (OSError, ValueError) as error: return [f"{name}: {error}"]
    command = f"python {Path(__file__).resolve().relative_to(ROOT)} --write-pages"
    wrong = [] if same else [f"{name}: a table differs from its file in results/: run {command}"]
    wrong += [f"{name}: {link}" for link in dead_links(text, page.parent)]
    return (wrong + [f"{name}: {i} stands in no table" for i in said_intervals(TABLE.sub("", text))
                     if i not in intervals])


def said_intervals(text: str) -> list[str]:
    return INTERVAL.findall(text.replace("\N{NO-BREAK SPACE}", " ").replace("\n", " "))


def shown_intervals() -> set[str]:
    "Every difference with its interval that the CSVs of comparisons hold, to one place."
    import pandas as pd

    found = set()
    for file in (ROOT / "results").rglob("*.csv"):
        if "runs" in file.relative_to(ROOT / "results").parts: continue
        table = pd.read_csv(file)
        bases = [c.removesuffix("_low") for c in table if c.endswith("_low") and c.removesuffix("_low") in table]
        for base in [*bases, *(["points"] if {"points", "low", "high"} <= set(table) else [])]:
            ends = ("low", "high") if base == "points" else (f"{base}_low", f"{base}_high")
            values = table[[base, *ends]].dropna().itertuples(index=False, name=None)
            found |= {f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" for value, low, high in values}
    return found


def check_pages() -> list[str]:
    "The front page, every page's tables and links, and that every notebook is named on one of them."
    intervals = shown_intervals()
    others = [ROOT / n for n in ("CHANGELOG.md", "RESPONSIBLE_USE.md", "SECURITY.md")]
    text = "".join(p.read_text(encoding="utf-8") for p in pages())
    wrong = check_front_page((ROOT / "README.md").read_text(encoding="utf-8"))
    wrong += [w for p in (*pages(), *others) for w in check_page(p, intervals)]
    return (wrong + [f"no page names {p.relative_to(ROOT)}" for p in notebooks()
                     if p.relative_to(ROOT).as_posix() not in text])


def write_pages() -> None:
    for page in pages(): page.write_text(rebuilt(page), encoding="utf-8")


def check_imports() -> list[str]:
    "`import ptl_nb` and the modules that need no torch must not load it."
    modules = "domain dataset_readers own_images domains standins labels"
    light = ["ptl_nb", *(f"ptl_nb.{m}" for m in modules.split())]
    code = "import sys; " + "; ".join(f"import {m}" for m in light) + "; sys.exit('torch' in sys.modules)"
    wrong = []
    if subprocess.run([sys.executable, "-c", code]).returncode:
        wrong.append(f"torch is loaded by importing {', '.join(light)}")
    for module in (ROOT / "ptl_nb").glob("*.py"):
        imports = [n for n in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
        if any(name.name == "*" for n in imports for name in n.names): wrong.append(f"{module.name} has a star import")
    return wrong


def main() -> None:
    if sys.argv[1:2] == ["--write-pages"]:
        write_pages()
        return
    wrong = [f"{p.name}: {w}" for p in notebooks() for w in check_notebook(p)]
    wrong += check_style()
    wrong += check_width()
    wrong += check_export()
    wrong += check_imports()
    wrong += check_pages()
    print("\n".join(wrong) or f"{len(notebooks())} notebooks checked")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
