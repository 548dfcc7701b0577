#!/usr/bin/env bash
# The GPU benchmarks on a machine that has PyTorch and a GPU but reaches no package index, such as a lent one.
#   bash benchmarks/gpu_offline.sh wheels [3.12]      here: what that machine lacks beside PyTorch, for its Python, into .whl (5 MB, which git ignores)
#   bash benchmarks/gpu_offline.sh run FOLDER         there, in a copy of this folder with .whl: results.json, RESULTS.md and what each benchmark said, into FOLDER
# It takes some eight minutes. ESPnet's step is left out where one of its own packages is missing; which one is said.
set -euo pipefail
cd "$(dirname "$0")/.."
beatline=(soundfile cffi pycparser soxr jsonargparse)
espnet=(espnet humanfriendly librosa audioread pooch decorator torch-complex torcheval typeguard)
case ${1:-} in
  wheels)
    rm -rf .whl
    pinned=$(cat constraints.txt benchmarks/peers.txt)
    wanted=$(for name in "${beatline[@]}" "${espnet[@]}"; do grep -i -m1 "^${name//-/[-_]}==" <<<"$pinned"; done)
    platforms=$(for glibc in 2_28 2_27 2_17; do echo --platform "manylinux_${glibc}_x86_64"; done)
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version "${2:-3.12}" --implementation cp $platforms --platform manylinux2014_x86_64 -d .whl $wanted
    git rev-parse --short HEAD >.whl/commit
    du -sh .whl
    ;;
  run)
    mkdir -p "$2"
    python3 -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --target "$2/.site" .whl/*.whl
    export PYTHONPATH="$2/.site:$PWD/src" BEATLINE_COMMIT=$(cat .whl/commit) OMP_NUM_THREADS=8 OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
    for name in gpu_train gpu_infer gpu_agreement; do
      python3 "benchmarks/$name.py" --results="$2" "${@:3}" 2>&1 | tee "$2/$name.log" || echo "$name failed"
    done
    rm -rf "$2/.site"
    ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
