#!/bin/sh
# Makes the Python environment that tools/ref and the comparison scripts run in.
# It lies outside the tree: $DURE_REF_VENV, by default ~/.cache/dure/ref. llama-cpp-python is
# built from source, so a C++ compiler and CMake are needed and it takes some minutes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
venv=${DURE_REF_VENV:-$HOME/.cache/dure/ref}

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet -r "$here/requirements.txt"
echo "reference environment: $venv/bin/python"
