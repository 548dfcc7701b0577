# Sourced by run.sh and test.sh: `make_environment EXTRA` makes the virtual environment from the pinned constraints, once for each state of them.
venv=${BEATLINE_VENV:-.venv}

make_environment() {
  local extra=$1 python=${PYTHON:-} stamp want what
  if [ -z "$python" ]; then
    for python in python3.11 python3.12 python3.13 python3; do
      "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && break
      python=
    done
  fi
  [ -n "$python" ] || { echo "${0##*/}: no Python 3.11 to 3.13 found: install one, or name it: PYTHON=/path/to/python3.11 $0" >&2; exit 2; }
  stamp="$venv/.beatline-$extra"
  want=$(cat constraints.txt pyproject.toml | cksum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
  echo "install  $venv from constraints.txt (a few minutes the first time)"
  "$python" -m venv "$venv"
  for what in "--upgrade pip" "--no-compile -e .[$extra]"; do # Python 3.11 brings a pip that needs twice the time
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt $what 2> >(grep -v '^WARNING: Location' >&2)
  done
  echo "$want" > "$stamp"
}
