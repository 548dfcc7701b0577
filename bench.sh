#!/usr/bin/env bash
# Measures beatline against what users have today, in an environment of its own (.venv-bench, 2.4 GB), and writes benchmarks/RESULTS.md and results.json.
#   ./bench.sh                          what compares with others and needs no GPU (about an hour and a half on two cores)
#   ./bench.sh encoder metrics          some: the names are those of the files in benchmarks/
#   ./bench.sh store decode prepare manifest inspection     preparing data, some 40 minutes; with AUDIOSET=CSVDIR also AudioSet-20K whole (20 GB)
#   ./bench.sh serve_load serve_fuzz   the server: a crowd, slow clients, mutated files, bombs, an OpenAPI fuzzer; a quarter of an hour
#   ./bench.sh --smoke [names]          tiny sizes, nothing is written: do the benchmarks themselves work?
#   ./bench.sh gpu_train gpu_infer gpu_agreement       on a machine with a GPU; without a package index: benchmarks/gpu_offline.sh
# A ratio is a median of interleaved pairs (ours, theirs, ours, ...); what has no quartiles was measured once. Two threads unless OMP_NUM_THREADS says otherwise. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")"
names=() options=()
for word in "$@"; do
  case $word in
    --help | -h) sed -n '2,9s/^# \{0,1\}//p' bench.sh; exit ;;
    --*) options+=("$word") ;;
    *) [ -f "benchmarks/$word.py" ] || { echo "bench.sh: there is no benchmarks/$word.py" >&2; exit 2; }; names+=("$word") ;;
  esac
done
[ ${#names[@]} -gt 0 ] || names=(encoder roofline int8 tagging train_step filter_bank metrics start install scaling_length communication prepare_espnet espnet_zip)

BEATLINE_VENV=${BEATLINE_BENCH_VENV:-.venv-bench}
source ./environment.sh
make_environment train
python=$venv/bin/python
want=$(cat benchmarks/peers.txt constraints.txt pyproject.toml bench.sh | cksum)
if [ "$(cat "$venv/.peers" 2>/dev/null)" != "$want" ]; then
  echo "install  the peers of benchmarks/peers.txt"
  "$python" -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peers.txt 2> >(grep -v '^WARNING: Location' >&2)
  rm -f "$venv"/lib/python*/site-packages/torchaudio/lib/*.so # they do not load beside a CPU torch; the Kaldi module is pure Python
  # g2p_en, which espnet imports and no benchmark uses, would download these two when it does not find them
  "$python" - <<'PYTHON'
import sys, zipfile
from pathlib import Path
for name in ("taggers/averaged_perceptron_tagger", "taggers/averaged_perceptron_tagger_eng", "corpora/cmudict"):
    path = Path(sys.prefix, "nltk_data", f"{name}.zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{path.stem}/empty", "")
PYTHON
  "$python" -W ignore -c 'import espnet2.bin.cls_inference, openbeats.model, openvino, onnxruntime, onnxscript, transformers, torchmetrics, torcheval, sklearn, kaldi_native_fbank'
  echo "$want" >"$venv/.peers"
fi

unset PYTHONDONTWRITEBYTECODE # a start is timed as it is from the second time on
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
for name in "${names[@]}"; do
  echo "== $name"
  "$python" "benchmarks/$name.py" ${options[@]+"${options[@]}"}
done
