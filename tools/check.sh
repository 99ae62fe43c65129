#!/bin/sh
# Builds and runs the tests. The last line is `N passed, N failed, N skipped`, summed over the test
# cases of all suites; the exit status is 0 when none failed.
#
#   tools/check.sh [--all]
#
# --all  also the address and undefined-behaviour sanitizers, a short run of each fuzz target, the
#        suites that need Python references or clients, and the slow ones
set -eu
cd "$(dirname "$0")/.."
jobs=$(nproc 2>/dev/null || echo 2)
results=''

# suite PRESET BUILD_DIR [CTEST ARGUMENT...]
suite() {
    preset=$1 dir=$2
    shift 2
    cmake --preset "$preset" >/dev/null
    cmake --build "$dir" -j "$jobs"
    # A failed suite is counted from its results below.
    ctest --test-dir "$dir" -j "$jobs" --output-on-failure --output-junit results.xml \
        --test-output-size-passed 10000000 --test-output-size-failed 10000000 "$@" || true
    results="$results $dir/results.xml"
    [ -s "$dir/results.xml" ]
}

rm -f build*/results.xml
case ${1-} in
'') suite check build -LE 'slow|reference' ;;
--all)
    suite check build
    suite sanitize build-sanitize -LE 'slow|reference|tidy'
    if [ -d tests/fuzz ]; then
        tools/fuzz.sh --smoke
    fi
    ;;
*)
    echo "usage: tools/check.sh [--all]" >&2
    exit 2
    ;;
esac
# shellcheck disable=SC2086  # a list of paths without spaces
python3 tools/count_tests.py $results
