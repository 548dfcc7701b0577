#!/usr/bin/env bash
# Installs what the tests need and runs them all: unit, parity with live peers, end to end, kills and faults, and the checks of style and layers.
#   ./test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")"
source ./environment.sh
make_environment dev
bash tests/e2e/examples.sh "$venv/bin/python"
if ! command -v chromium chromium-browser google-chrome >/dev/null; then  # for the page's tests
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >/dev/null || echo "test.sh: Chromium could not be installed: the page's tests are skipped" >&2
  else
    echo "test.sh: no Chromium: the page's tests are skipped; install it (Debian: apt-get install chromium) to run them" >&2
  fi
fi
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
if [ -f tests/parity/peers.sh ]; then
  bash tests/parity/peers.sh "${BEATLINE_PEERS:=$PWD/.venv-peers}"
  export BEATLINE_PEERS
fi
"$venv/bin/ruff" check src tests benchmarks
"$venv/bin/mypy" src/beatline
"$venv/bin/lint-imports" --no-cache
exec "$venv/bin/python" -m pytest -n 2 --dist loadgroup "$@"
