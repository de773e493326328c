"""No pickle is loaded, nothing given is run as code, archives stay in their folder, and what CI installs is locked
with hashes."""
import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lock import LOCK, SBOM, requirements
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {  # name as called -> why; the last parts of a dotted name decide
    "eval": "runs text as code", "exec": "runs text as code", "os.system": "runs a shell", "os.popen": "runs a shell",
    "pickle.load": "unpickles", "pickle.loads": "unpickles", "pickle.Unpickler": "unpickles",
    "cloudpickle.load": "unpickles", "cloudpickle.loads": "unpickles", "dill.load": "unpickles",
    "dill.loads": "unpickles", "joblib.load": "unpickles", "read_pickle": "unpickles", "marshal.loads": "runs bytecode",
    "shelve.open": "unpickles",
    "yaml.load": "makes objects", "yaml.unsafe_load": "makes objects", "torch.hub.load": "runs a repository's code",
    "tarfile.open": "has no limits here: use standins.extract_archive",
    "shutil.unpack_archive": "has no limits: use standins.extract_archive",
    "loadmat": "crashes on broken files: use matfile.read_mat"}
NEEDS = {  # call -> (keyword, value) it must have
    "torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False),
    "get_state_dict": ("weights_only", True), "load_state_dict_from_url": ("weights_only", True),
    "np.save": ("allow_pickle", False), "extractall": ("members", None)}


def findings(code: str) -> list[str]:
    "Calls in Python code that load pickles, run text, open a shell or unpack without limits."
    out = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call): continue
        name = ast.unparse(node.func)
        given = {k.arg: k.value for k in node.keywords}
        def ends(known): return name == known or name.endswith("." + known)
        out += [f"line {node.lineno}: {name} {why}" for known, why in FORBIDDEN.items()
                if (name == known if known in ("eval", "exec") else ends(known))]
        for known, (keyword, value) in NEEDS.items():
            if not ends(known): continue
            right = (len(node.args) > 1 if known == "extractall" else isinstance(given.get(keyword), ast.Constant)
                     and given[keyword].value is value)
            if not right:
                out.append(f"line {node.lineno}: {name} without {keyword}{'' if value is None else f'={value}'}")
        if isinstance(given.get("shell"), ast.Constant) and given["shell"].value:
            out.append(f"line {node.lineno}: {name} with shell=True")
        if "trust_remote_code" in given: out.append(f"line {node.lineno}: {name} trusts remote code")
    return out


@pytest.mark.parametrize("code", ["eval(x)", "exec(x)", "pickle.loads(x)", "pd.read_pickle(x)", "torch.load(x)",
                                  "torch.load(x, weights_only=False)", "np.load(x)", "np.load(x, allow_pickle=True)",
                                  "yaml.load(x)", "subprocess.run(x, shell=True)", "os.system(x)",
                                  "z.extractall(x)", "weights.get_state_dict(check_hash=True)", "scipy.io.loadmat(x)",
                                  "AutoModel.from_pretrained(x, trust_remote_code=True)", "joblib.load(x)"])
def test_the_scan_finds(code): assert findings(code)


def test_the_scan_passes_what_is_safe():
    assert not findings("np.load(x, allow_pickle=False); torch.load(x, weights_only=True); net.eval(); z.extractall(x, "
                        "checked(z)); subprocess.run(['git']); ast.literal_eval(x)")


def sources() -> dict[str, str]:
    "All code of modules, notebooks and tests."
    out = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for folder in ("ptl_nb", "tests", "tools")
           for p in sorted((ROOT / folder).rglob("*.py"))}
    for p in sorted((ROOT / "nbs").rglob("*.ipynb")):
        for i, cell in enumerate(json.loads(p.read_text(encoding="utf-8"))["cells"]):
            code = (re.sub(r"^\s*[%!].*$", "", "".join(cell["source"]), flags=re.M) if cell["cell_type"] == "code"
                    else "")
            out[f"{p.relative_to(ROOT).as_posix()}, cell {i}"] = code
    return out


# read what they have written themselves, with SciPy's reader
COMPARED = ("nbs/lib/matfile.ipynb", "nbs/lib/renderer.ipynb", "nbs/lib/rap.ipynb", "tests/")


# its `refusal` runs the cells of this repository's own notebooks, as papermill would
RUNS_CELLS = "tests/conftest.py"


def may(where: str, finding: str) -> bool:
    "Whether a finding is known and harmless where it is."
    if "exec runs text as code" in finding: return where == RUNS_CELLS
    return "loadmat" in finding and where.startswith(COMPARED)


def test_no_code_does():
    found = {where: wrong for where, code in sources().items()
             if (wrong := [w for w in findings(code) if not may(where, w)])}
    assert not found


@pytest.mark.slow
def test_nothing_is_unpickled_from_data_to_scores(tmp_path):
    """A hook that sees every class that a pickle asks for, while a stand-in is read, a model is saved, loaded and
    scored."""
    code = f'''
import sys
from pathlib import Path
import numpy as np, torch
from ptl_nb.checkpoint import save_weights
from ptl_nb.data import decode
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import evaluate, extract
from ptl_nb.labels import read_attributes, read_parts
from ptl_nb.model import PTLNet
from ptl_nb.recipe import RECIPES
from ptl_nb.runs import load_reid
from ptl_nb.standins import truth_store
asked = []
sys.addaudithook(lambda event, arguments: asked.append(arguments[0]) if event == "pickle.find_class" else None)
domain, folder = load_domain("corridor"), Path({str(tmp_path)!r})
paths = domain.train.path[:4]
read_parts(truth_store("corridor"), paths), read_attributes(truth_store("corridor"), paths)
save_weights(PTLNet(3, backbone_name="mini"), folder / "model.safetensors")
x = np.stack([decode(f, (48, 24)) for f in domain.files(domain.query[:8])])
g = extract(load_reid(folder, RECIPES["smoke"]), x)
who = 1 + np.arange(8) // 2
evaluate(g, g, who, who, np.zeros(8), np.ones(8))
print(sorted({{m for m in asked if not m.startswith("numba")}}))       # numba hands its own compiled functions around as pickles in memory
'''
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")})
    assert run.returncode == 0 and run.stdout.strip() == "[]", run.stdout + run.stderr[-2000:]


def locked() -> dict[str, tuple[str, int]]:
    "Version and number of hashes of every locked package."
    entries = re.findall(r"^([A-Za-z0-9._-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
                         LOCK.read_text(encoding="utf-8"), re.M)
    return {canonicalize_name(name): (version, hashes.count("sha256:")) for name, version, hashes in entries}


def test_all_requirements_are_locked_with_hashes():
    pins = locked()
    lines = [l for l in LOCK.read_text(encoding="utf-8").splitlines() if "==" in l and not l.startswith("#")]
    assert len(lines) == len(pins) and all(count for _, count in pins.values()), "a line without hashes"
    wrong = [r for r in map(Requirement, requirements()) if canonicalize_name(r.name) not in pins
             or not r.specifier.contains(pins[canonicalize_name(r.name)][0])]
    assert not wrong, f"not in {LOCK.name}, run python tools/lock.py: {wrong}"


def test_the_bill_of_materials_lists_what_is_locked():
    bill = json.loads(SBOM.read_text(encoding="utf-8"))
    assert (bill["bomFormat"] == "CycloneDX"
            and {canonicalize_name(c["name"]): c["version"]
                 for c in bill["components"]} == {name: version for name, (version, _) in locked().items()})
