#!/bin/sh
# Checks the names in the object files of a build folder.
#
#   tools/check_symbols.sh BUILD_DIR
#
# defined   global names begin with du_ (inside) or dure_ (only in api, the installed interface);
#           those of the program with du_cli_, and there is main
# used      the heap only in base/mem.c; the environment and standard output only in cli/; ending
#           the process and standard error there and in base/err.c (our own bugs); the functions of
#           src/base/poison.h nowhere
set -eu
[ -d "${1-}" ] || {
    echo "usage: tools/check_symbols.sh BUILD_DIR" >&2
    exit 2
}
cd "$1"
objects=$(find CMakeFiles -path '*/dure*.dir/src/*' -name '*.o' | sort)
[ -n "$objects" ] || {
    echo "no object files under $1/CMakeFiles" >&2
    exit 1
}

# shellcheck disable=SC2086  # object files have no blanks in their names
nm -A -g $objects | awk '
    function is_one_of(name, words) { return name ~ ("^(" words ")$") }
    function complain(why) { print file ": " name ": " why; bad = 1 }
    BEGIN {
        banned = "v?sprintf|stpcpy|strcpy|strcat|strtok|gets|ato[ifl]|atoll|rand|srand|system|tmpnam|mktemp|alloca"
        heap = "malloc|calloc|realloc|reallocarray|free|aligned_alloc|posix_memalign|memalign|strdup|strndup|v?asprintf|getline|getdelim"
        output = "getenv|secure_getenv|setenv|v?printf|puts|putchar|perror|stdout|setlocale|signal|sigaction"
        ending = "stderr|exit|_exit|_Exit|abort"
    }
    {
        # CMakeFiles/dure_base.dir/src/base/mem.c.o:0000000000000000 T du_alloc
        file = $1
        sub(/:[^:]*$/, "", file)
        sub(/.*\.dir\//, "", file)
        kind = $(NF - 1)
        name = $NF
    }
    kind == "U" || kind == "w" {
        sub(/@.*/, "", name)
        sub(/^__isoc99_/, "", name)
        if (name ~ /^__.*_chk$/) { sub(/^__/, "", name); sub(/_chk$/, "", name) }
        cli = file ~ /^src\/cli\//
        if (is_one_of(name, banned)) complain("banned (src/base/poison.h)")
        if (is_one_of(name, heap) && file != "src/base/mem.c.o") complain("the heap is reached through base/mem.h")
        if (is_one_of(name, output) && !cli) complain("belongs to cli/")
        if (is_one_of(name, ending) && !cli && file != "src/base/err.c.o") complain("belongs to cli/")
        next
    }
    {
        form = "^du_"
        if (file ~ /^src\/api\//) form = "^(dure_|du_api_)"
        if (file ~ /^src\/cli\//) form = "^du_cli_"
        if (file == "src/cli/main.c.o" && name == "main") next
        if (name !~ form) complain("a global name outside " form)
    }
    END { exit bad }'
