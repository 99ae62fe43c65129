#!/bin/sh
# Measures dure and other engines on one model file, taking turns, and prints the ratios:
#
#   bench/compare.sh --model FILE --peer LLAMA_BENCH [OPTION]...
#
# compare.sh --help tells the options. Takes paths of built programs; builds nothing.
exec "${PYTHON:-python3}" "$(dirname "$0")/compare.py" "$@"
