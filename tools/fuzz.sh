#!/bin/sh
# Builds the fuzz targets of tests/fuzz with clang's libFuzzer, under the address and undefined-
# behaviour sanitizers, and runs each.
#
#   tools/fuzz.sh [--smoke | --merge] [TARGET...]      (default: every target)
#
# Each runs FUZZ_SECONDS (default 60; --smoke 5) from the inputs in tests/fuzz/corpus/TARGET and
# those found in earlier runs, which are kept in build-fuzz/corpus/TARGET. An input that breaks
# something is kept as build-fuzz/broken/TARGET-*, and the exit status is 1.
#
# --merge runs nothing: it copies into tests/fuzz/corpus/TARGET a few found inputs of at most 1 KiB
#         that reach code which the committed ones do not.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60} mode=run
case ${1-} in
--smoke) seconds=5 ;;
--merge) mode=merge ;;
-*)
    echo "usage: tools/fuzz.sh [--smoke | --merge] [TARGET...]" >&2
    exit 2
    ;;
esac
case ${1-} in -*) shift ;; esac

if [ $# -eq 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        target=${source#*/fuzz_}
        set -- "$@" "${target%.c}"
    done
fi
cmake --preset fuzz >/dev/null
mkdir -p build-fuzz/broken
status=0
for target; do
    committed=tests/fuzz/corpus/$target found=build-fuzz/corpus/$target
    program=build-fuzz/tests/fuzz_$target
    mkdir -p "$committed" "$found"
    cmake --build build-fuzz -j "$(nproc 2>/dev/null || echo 2)" --target "fuzz_$target"
    if [ $mode = merge ]; then
        rm -rf build-fuzz/small && mkdir build-fuzz/small
        find "$found" -type f -size -3 -exec cp -t build-fuzz/small {} +
        "$program" -set_cover_merge=1 "$committed" build-fuzz/small 2>&1 | tail -1
        continue
    fi
    log=build-fuzz/fuzz_$target.log
    if "$program" "$found" "$committed" -max_total_time="$seconds" -max_len=16384 -timeout=10 \
        -rss_limit_mb=2048 -malloc_limit_mb=256 -use_value_profile=1 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/broken/$target-" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz_$target: $runs inputs in $seconds s, nothing broken"
    else
        tail -40 "$log"
        echo "fuzz_$target: broken, see $log and build-fuzz/broken/" >&2
        status=1
    fi
done
exit $status
