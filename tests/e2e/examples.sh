#!/usr/bin/env bash
# What tests/e2e/test_examples.py and test_page.py need beyond the environment: a compiler, onnxruntime's headers, its build for browsers, axe-core. Where one is not to be had, its test is skipped and says so.
#   tests/e2e/examples.sh PYTHON      the environment's, which has onnxruntime
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v g++ > /dev/null || { apt-get -q=2 update && apt-get -q=2 install -y g++ > /dev/null; } || echo "no g++" >&2
bash examples/cpp/onnxruntime.sh examples/cpp/onnxruntime "$1" || echo "no headers of onnxruntime" >&2
for folder in examples/web tests/e2e/web; do
  if [ ! "$folder/node_modules/.package-lock.json" -nt "$folder/package.json" ]; then
    npm install --prefix "$folder" --silent --no-package-lock --no-audit --no-fund --ignore-scripts || echo "nothing from npm for $folder" >&2
  fi
done
