#!/usr/bin/env bash
# Lays out onnxruntime as its releases are, include/ and lib/, from what Debian and PyPI have: the headers of Debian 13's libonnxruntime-dev and the library in the
# installed Python package. An older header works with a newer library. Only for machines that have no release of onnxruntime at hand, on Debian.
#   examples/cpp/onnxruntime.sh [FOLDER [PYTHON]]
set -euo pipefail
folder=${1:-$(dirname "$0")/onnxruntime}
python=${2:-python3}
[ -e "$folder/lib/libonnxruntime.so" ] && exit
library=$("$python" -c 'import glob, importlib.util as u, os; print(glob.glob(os.path.join(os.path.dirname(u.find_spec("onnxruntime").origin), "capi/libonnxruntime.so.*"))[0])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get update --print-uris | sed -n "s|^'\(.*/debian/\)dists/.*|\1|p" | sort -u | head -n 1)  # that of this machine's own sources
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
alone=(-q=2 -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
apt-get "${alone[@]}" update
(cd "$work" && apt-get "${alone[@]}" download libonnxruntime-dev)
dpkg-deb -x "$work"/*.deb "$work/unpacked"
rm -rf "$folder"
mkdir -p "$folder/lib"
cp -r "$work/unpacked/usr/include/onnxruntime" "$folder/include"
ln -s "$library" "$folder/lib/libonnxruntime.so.1"
ln -s libonnxruntime.so.1 "$folder/lib/libonnxruntime.so"
