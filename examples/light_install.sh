#!/usr/bin/env bash
# Installs what `beatline tag` needs to run an export, without PyTorch, into an environment of its own; says its size, and tags a file with it.
#   examples/light_install.sh EXPORT FILE [FOLDER]
set -euo pipefail
export=$(realpath "$1") file=$(realpath "$2")
folder=${3:-$(mktemp -d)/light}
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv "$folder"
bare=$(du -sm "$folder" | cut -f1)
"$folder/bin/pip" install -q --disable-pip-version-check -r requirements-onnx.txt
"$folder/bin/pip" install -q --disable-pip-version-check --no-deps .
echo "installed in $folder: $(($(du -sm "$folder" | cut -f1) - bare)) MB, and $bare MB for the bare environment"
"$folder/bin/beatline" tag "$file" --model "$export" --engine onnx
