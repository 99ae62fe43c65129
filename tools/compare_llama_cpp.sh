#!/bin/sh
# Compares dure with llama.cpp: every model fixture converted to GGUF (logits, tokens, template), the
# tokenizer rules, and SmolLM2-135M-Instruct in Q4_1 (greedy tokens, perplexity, decode speed).
#
#   tools/compare_llama_cpp.sh [--threads N] [fixtures] [tokenizers] [smollm2]     all three by default
#
# Needs build/dure (or $DURE) and the environment of tools/ref/setup.sh (or $PYTHON). One line per
# fixture: "ok", "FAIL", or "-" where nothing is asked. Exit status 1 if something failed.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-${DURE_REF_VENV:-$HOME/.cache/dure/ref}/bin/python}
if [ ! -x "$python" ] && ! command -v "$python" >/dev/null; then
    echo "compare_llama_cpp.sh: no Python at $python; run tools/ref/setup.sh" >&2
    exit 1
fi
exec "$python" "$root/tools/ref/compare_llama_cpp.py" --dure "${DURE:-$root/build/dure}" "$@"
