#!/usr/bin/env bash
# Installs what the tests need and runs them, with the checks of style and layers.
#   ./test.sh [pytest arguments]         all: unit, parity with live peers, end to end, kills and faults, types
#   ./test.sh fast [pytest arguments]    no network, browser, Ray, kill or peer, and nothing slow: for every change
set -euo pipefail
cd "$(dirname "$0")"
source ./environment.sh
unset PYTHONDONTWRITEBYTECODE # or every program that a test starts compiles all it imports
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

check() {
  "$venv/bin/ruff" check src tests benchmarks examples/python recipes
  "$venv/bin/ruff" format --check src tests benchmarks examples/python recipes
  "$venv/bin/lint-imports" --no-cache
}

make_environment dev
if [ "${1:-}" = fast ]; then
  check
  exec "$venv/bin/python" -m pytest -n 2 --dist loadgroup -m "not (network or browser or ray or kill or peers or slow)" "${@:2}"
fi
export BEATLINE_PEERS=${BEATLINE_PEERS:-$PWD/.venv-peers}
"$venv/bin/mypy" src/beatline & # beside what waits for a network or a disk
types=$!
PYTHON=$venv/bin/python bash tests/parity/peers.sh "$BEATLINE_PEERS"
bash tests/e2e/examples.sh "$venv/bin/python"
missing=()  # Debian's names of what the tests of the page and of the microphone talk to
command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium)
command -v pulseaudio >/dev/null || missing+=(pulseaudio pulseaudio-utils libportaudio2 libasound2-plugins)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >/dev/null || echo "test.sh: ${missing[*]} could not be installed: tests that need them are skipped" >&2
  else
    echo "test.sh: not installed: ${missing[*]} (Debian's names); tests that need them are skipped" >&2
  fi
fi
wait "$types"
check
exec "$venv/bin/python" -m pytest -n 2 --dist loadgroup "$@"
