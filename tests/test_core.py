"""The core of the package without what only notebooks, or labels of DensePose, need: those packages are hidden in a
process of its own."""
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HIDDEN = {"notebooks": ("jupyterlab", "jupyter_core", "jupyter_client", "papermill", "ipykernel", "IPython", "nbformat",
                        "nbconvert", "nbclient", "bs4", "mistune", "pygments"),
          "labels": ("pycocotools",)}
HIDE = f"""
import sys

class Hidden:
    "Finder that finds none of the hidden packages, nor anything in them."
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in {sum(HIDDEN.values(), ())}: return None
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden)
"""


def hidden(code: str) -> str: # what it printed
    "Run code where the packages are not there."
    done = subprocess.run([sys.executable, "-c", HIDE + code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_module_is_imported():
    modules = sorted(p.stem for p in (ROOT / "ptl_nb").glob("[a-z]*.py"))
    assert "site" in modules and "label_data" in modules
    code = "import importlib\nfor m in {}: importlib.import_module('ptl_nb.' + m); print(m)".format(modules)
    assert hidden(code).split() == modules


@pytest.mark.slow
def test_a_domain_a_model_features_and_a_score():
    shown = hidden("""
from ptl_nb.data import pixels
from ptl_nb.domains import load_domain
from ptl_nb.evaluator import evaluate, extract
from ptl_nb.model import PTLNet

d = load_domain("corridor", origin="standin")
query, gallery = d.query.head(8), d.gallery
images = [pixels(d, name, (32, 16))[:n] for name, n in (("query", 8), ("gallery", None))]
net = PTLNet(identities=4, backbone_name="mini").eval()
q, g = (extract(net, i) for i in images)
print(evaluate(q, g, query.pid, gallery.pid, query.camid, gallery.camid).valid_queries)
""")
    assert shown.split()[-1] == "8"


@pytest.mark.slow
@pytest.mark.parametrize("extra, use", [
    ("labels", "from ptl_nb.densepose import person_parts; person_parts([[]] * 14)"),
    ("labels", "import numpy as np; from ptl_nb.densepose import encode_parts; "
     "encode_parts(np.ones((256, 256), np.uint8))"),
    ("notebooks", "from pathlib import Path; from ptl_nb.site import read_notebook; "
     "read_notebook(Path('nbs/table2.ipynb'))"),
    ("notebooks", "from ptl_nb.site import render_markdown; render_markdown('# Title')"),
    ("notebooks", "from ptl_nb.site import style; style()"),
    ("notebooks", "import matplotlib.pyplot as plt; from ptl_nb.plots import picture; picture(plt.figure())")])
def test_the_error_names_the_extra(extra, use):
    shown = hidden(f"try:\n    {use}\nexcept ImportError as error: print(error)")
    assert f"pip install 'ptl_nb[{extra}]'" in shown
