"""Write `requirements-ci.lock` (every package of the tests, pinned, with hashes) from settings.ini, and `sbom.cdx.json`
(what they are, with licences) from an environment made of it.

    pip install uv cyclonedx-bom
    python tools/lock.py                            # keeps locked versions that fit; --upgrade takes the newest
    python3.11 -m venv locked && locked/bin/pip install --require-hashes -r requirements-ci.lock
    python tools/lock.py --sbom locked/bin/python
"""
import configparser
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, SBOM = ROOT / "requirements-ci.lock", ROOT / "sbom.cdx.json"
UNLOCKED = ("pose_requirements",)     # the runtime of an outside model: all tests pass without it
BUILD = ("setuptools", "wheel")     # to install the package itself without fetching anything else
PLATFORM = ("--python-version", "3.11.7", "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:")


def requirements() -> list[str]:
    "What the package, its extras but the unlocked, and its tests ask for in settings.ini, and what builds it."
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    lists = [value for name, value in settings["DEFAULT"].items()
             if name.endswith("requirements") and name not in UNLOCKED]
    return [*" ".join(lists).split(), *BUILD]


def lock(*options: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as asked:
        asked.write("\n".join(requirements()))
        asked.flush()
        command = ["uv", "pip", "compile", asked.name, "--quiet", "--generate-hashes", "--no-annotate", *PLATFORM]
        subprocess.run([*command, *options, "-o", LOCK, "--custom-compile-command", "python tools/lock.py"], check=True)


def sbom(python: str) -> None:
    "CycloneDX 1.6, the same bytes for the same environment; the package itself and pip are left out."
    command = ["cyclonedx-py", "environment", "--output-reproducible", "--of", "JSON", python]
    made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    left_out = {c["bom-ref"] for c in made["components"] if c["name"].lower() in ("pip", "ptl_nb", "ptl-nb")}
    made["components"] = [c for c in made["components"] if c["bom-ref"] not in left_out]
    made["dependencies"] = [d for d in made["dependencies"] if d["ref"] not in left_out]
    SBOM.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sbom"]: sbom(sys.argv[2])
    else: lock(*sys.argv[1:])
