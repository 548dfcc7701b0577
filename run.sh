#!/usr/bin/env bash
# The main job: makes .venv, installs the pinned packages with PyTorch, and runs prepare -> train -> predict -> score -> report.
#   ./run.sh                                      on the embedded real sound (some four minutes on two quiet cores)
#   ./run.sh conf/as20k.yaml --data.audioset DIR --model.init CHECKPOINT
#   ./run.sh --help                               this text and every setting
# Run again, it does only what is missing. PYTHON names another interpreter (3.11 to 3.13), BEATLINE_VENV another environment.
set -euo pipefail
cd "$(dirname "$0")"
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then sed -n '2,6s/^# \{0,1\}//p' run.sh; fi
source ./environment.sh
make_environment train
export OMP_WAIT_POLICY=passive
exec "$venv/bin/beatline" run "$@"
