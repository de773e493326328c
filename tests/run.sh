#!/usr/bin/env bash
# tests/run.sh         everything, as CI does
# tests/run.sh fast    static checks, the unit tests, and the notebooks whose code or imports changed since they passed
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-all}
[ "$mode" = all ] || [ "$mode" = fast ] || { echo "usage: bash tests/run.sh [fast]" >&2; exit 2; }
tree() { [ -z "$(git status --porcelain 2>&1)" ] && git rev-parse 'HEAD^{tree}' || echo changed; }    # of a clean checkout
before=$(tree)

# the environment: made once, and again when what is asked for has changed
venv=${PTL_VENV:-.venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
venv=$(cd "$venv" && pwd)
export PATH="$venv/bin:$PATH"
wanted=$(cat requirements-ci.lock settings.ini setup.py | python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$wanted" != "$(cat "$venv/ptl_nb-requirements.sha256" 2>/dev/null)" ]; then
  pip() { python -m pip install -q --disable-pip-version-check "$@"; }
  if python -c 'import platform, sys; sys.exit(not ((3, 11, 5) <= sys.version_info < (3, 12) and (platform.system(), platform.machine()) == ("Linux", "x86_64")))'; then
    pip --require-hashes --only-binary :all: -r requirements-ci.lock     # every package as it was tested, by its hash
    pip --no-deps --no-build-isolation -e .
  else
    pip -e '.[dev]'
  fi
  echo "$wanted" > "$venv/ptl_nb-requirements.sha256"
fi

# one thread each for two workers; this tree, whichever one the environment was made for
export PYTHONHASHSEED=0 MPLBACKEND=agg OMP_NUM_THREADS=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
unit() { python -m pytest -q -n 2 --dist loadgroup "$@"; }
python tools/check_repo.py
if [ "$mode" = fast ]; then
  unit -m "not slow"
  python tools/notebooks.py --changed --seconds $((110 - SECONDS))
else
  python tools/notebooks.py
  unit
  if [ "$before" != changed ] && [ "$before" = "$(tree)" ]; then echo "$before" > "$(git rev-parse --git-path tests-passed)"; fi
fi
