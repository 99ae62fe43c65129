#!/bin/sh
# Does a checkpoint of `dure train` answer the same everywhere? Greedy tokens of dure on the checkpoint,
# of dure and llama.cpp (F32 cache) on the GGUF file that `dure convert` makes of it, and of
# transformers on the checkpoint.
#
#   tools/interop.sh [OPTION]... CHECKPOINT        a folder OUT/step-NNNNNN, or OUT: its last one
#
# tools/interop.sh --help tells the options. Needs build/dure (or $DURE) and the environment of
# tools/ref/setup.sh (or $PYTHON). One line per prompt and program: "ok", or "FAIL" with the first token
# that differs and its logits. Exit status 1 if something failed.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-${DURE_REF_VENV:-$HOME/.cache/dure/ref}/bin/python}
if [ ! -x "$python" ] && ! command -v "$python" >/dev/null; then
    echo "interop.sh: no Python at $python; run tools/ref/setup.sh" >&2
    exit 1
fi
exec "$python" "$root/tools/ref/interop.py" --dure "${DURE:-$root/build/dure}" "$@"
