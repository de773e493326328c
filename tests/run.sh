#!/usr/bin/env bash
# All tests: set up an environment, check the exported modules against the notebooks, run nbdev_test and pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PTL_VENV:-.venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
export PATH="$(cd "$venv" && pwd)/bin:$PATH"
pip() { python -m pip install -q --disable-pip-version-check "$@"; }
if python -c 'import platform, sys; sys.exit(not ((3, 11, 5) <= sys.version_info < (3, 12) and (platform.system(), platform.machine()) == ("Linux", "x86_64")))'; then
  pip --require-hashes --only-binary :all: -r requirements-ci.lock     # every package as it was tested, by its hash
  pip --no-deps --no-build-isolation -e .
else
  pip -e '.[dev]'
fi
export PYTHONHASHSEED=0 MPLBACKEND=agg OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
python tests/check_repo.py
log=$(mktemp)
timeout 1200 nbdev_test --n_workers 1 --do_print 2>&1 | tee "$log"
grep -qx 'Success.' "$log" || { echo "nbdev_test did not say Success."; exit 1; }
python tests/check_repo.py --tested "$log"
rm -f "$log"
python -m pytest -q tests
