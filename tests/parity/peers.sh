#!/usr/bin/env bash
# Makes the live peers' own Python environment, for tests/parity/test_live_peers.py:
#
#   tests/parity/peers.sh [FOLDER]                       (.venv-peers in the repository when left out; 13 s, 0.8 GB)
#   BEATLINE_PEERS=$PWD/.venv-peers pytest -m peers
#
# An environment of its own, because openbeats and espnet install only without their dependencies, and torchaudio only runs beside a CPU
# build of torch once its compiled part is gone (its Kaldi filter bank is pure Python). Does nothing when this very script made it before.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
env=${1:-$here/../../.venv-peers}
python=${PYTHON:-python3}
stamp=$env/made-by-peers.sh
mine=$(sha256sum "$here/peers.sh" | cut -d ' ' -f 1)

torch=(torch==2.13.0 filelock==4.2.12 fsspec==2026.9.0 Jinja2==3.1.6 MarkupSafe==3.0.4 mpmath==1.3.0 networkx==3.6.1 setuptools==84.2.1
       sympy==1.14.0 typing_extensions==4.16.0)
peers=(espnet==202511 openbeats==0.1.1 torchaudio==2.11.0 torcheval==0.0.7 typeguard==4.6.0 numpy==2.4.6 packaging==26.3 PyYAML==6.0.3)

give_up() { echo "peers.sh: $1" >&2; exit 1; }

if [ "$(cat "$stamp" 2>/dev/null)" = "$mine" ]; then exit 0; fi
if [ -e "$env" ] && [ ! -e "$env/pyvenv.cfg" ]; then give_up "$env exists and is no virtual environment: name another folder"; fi

"$python" -m venv --clear --without-pip "$env" || give_up "cannot make a virtual environment in $env with $python"
install() {
    "$python" -m pip --python "$env/bin/python" install -qq --no-input --no-compile --disable-pip-version-check "$@" ||
        give_up "pip cannot install the live peers; their tests are skipped while BEATLINE_PEERS is unset"
}
install "${torch[@]}"
install --no-deps "${peers[@]}"
rm -f "$env"/lib/python*/site-packages/torchaudio/lib/*.so

"$env/bin/python" -c 'import openbeats.model, espnet2.asr.encoder.beats_encoder, espnet2.cls.espnet_model' ||
    give_up "the peers are installed but cannot be imported"
echo "$mine" >"$stamp"
