#!/usr/bin/env bash
# The GPU benchmarks on a machine that has PyTorch and a GPU but reaches no package index, such as a lent one.
#   bash benchmarks/gpu_offline.sh wheels [3.12]      here: what that machine lacks beside PyTorch, for its Python, into .whl (5 MB, which git ignores)
#   bash benchmarks/gpu_offline.sh run FOLDER [gpu_train gpu_infer ...] [--smoke]     there, in a copy of this folder with .whl: results.json, RESULTS.md and what each
#       benchmark said, into FOLDER; each row is there as soon as it is measured, and no benchmark takes longer than SECONDS_EACH=270. Without names gpu_train, gpu_infer, gpu_agreement.
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
    folder=$2 names=() options=()
    for word in "${@:3}"; do case $word in --*) options+=("$word") ;; *) names+=("$word") ;; esac; done
    [ ${#names[@]} -gt 0 ] || names=(gpu_train gpu_infer gpu_agreement)
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    mkdir -p "$folder"
    python3 -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --target "$site" .whl/*.whl
    export PYTHONPATH="$site:$PWD/src" BEATLINE_COMMIT=$(cat .whl/commit) OMP_NUM_THREADS=8 OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
    for name in "${names[@]}"; do
      timeout "${SECONDS_EACH:-270}" python3 "benchmarks/$name.py" --results="$folder" ${options[@]+"${options[@]}"} 2>&1 | tee "$folder/$name.log" || echo "$name did not end well"
    done
    ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
