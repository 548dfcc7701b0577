#!/usr/bin/env bash
# Makes the live peers' own Python environment, for tests/parity/test_live_peers.py:
#
#   tests/parity/peers.sh [FOLDER]                       (.venv-peers in the repository when left out)
#   BEATLINE_PEERS=$PWD/.venv-peers pytest -m peers
#
# An environment of its own, because openbeats and espnet install only without their dependencies, and torchaudio only runs beside a CPU
# build of torch once its compiled part is gone (its Kaldi filter bank is pure Python). PyTorch and what else they need is that of the
# environment of PYTHON, .venv's when left out, so that both sides compute with one build. Does nothing when this very script made it before.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
env=${1:-$here/../../.venv-peers}
python=${PYTHON:-$here/../../.venv/bin/python}
stamp=$env/made-by-peers.sh

peers=(espnet==202511 openbeats==0.1.1 torchaudio==2.11.0 torcheval==0.0.7 typeguard==4.6.0)

give_up() { echo "peers.sh: $1" >&2; exit 1; }

packages=$("$python" -c 'import sysconfig, torch; print(sysconfig.get_path("purelib"))') || give_up "$python has no PyTorch: make the environment first (environment.sh), or name another: PYTHON=/path/to/python"
mine="$(sha256sum "$here/peers.sh" | cut -d ' ' -f 1) $packages"

if [ "$(cat "$stamp" 2>/dev/null)" = "$mine" ]; then exit 0; fi
if [ -e "$env" ] && [ ! -e "$env/pyvenv.cfg" ]; then give_up "$env exists and is no virtual environment: name another folder"; fi

"$python" -m venv --clear --without-pip "$env" || give_up "cannot make a virtual environment in $env with $python"
"$python" -m pip --python "$env/bin/python" install -qq --no-input --no-compile --no-deps --disable-pip-version-check "${peers[@]}" ||
    give_up "pip cannot install the live peers; their tests are skipped while BEATLINE_PEERS is unset"
rm -f "$env"/lib/python*/site-packages/torchaudio/lib/*.so
echo "$packages" >"$(echo "$env"/lib/python*/site-packages)/shared.pth"

"$env/bin/python" -c 'import openbeats.model, espnet2.asr.encoder.beats_encoder, espnet2.cls.espnet_model' ||
    give_up "the peers are installed but cannot be imported"
echo "$mine" >"$stamp"
