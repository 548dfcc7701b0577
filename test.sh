#!/usr/bin/env bash
# Installs what the tests need and runs them all: unit, parity with live peers, end to end, kills and faults, and the checks of style and layers.
#   ./test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")"
source ./environment.sh
make_environment dev
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
if [ -f tests/parity/peers.sh ]; then
  bash tests/parity/peers.sh "${BEATLINE_PEERS:=$PWD/.venv-peers}"
  export BEATLINE_PEERS
fi
"$venv/bin/ruff" check src tests benchmarks
"$venv/bin/mypy" src/beatline
"$venv/bin/lint-imports" --no-cache
exec "$venv/bin/python" -m pytest -n 2 --dist loadgroup "$@"
