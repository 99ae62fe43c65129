#!/bin/sh
# Checks the names in the object files of a build folder (STYLE.md, rules 4 and 15).
#
#   tools/check_symbols.sh BUILD_DIR
#
# defined   global names begin with du_ (inside) or dure_ (only in api, the installed interface);
#           the program itself has main
# used      the heap only in base/mem.c; the environment and standard output only in cli/; ending
#           the process and standard error there and in base/err.c (our own bugs); the functions of
#           src/base/poison.h nowhere
set -eu
[ -d "${1-}" ] || {
    echo "usage: tools/check_symbols.sh BUILD_DIR" >&2
    exit 2
}
cd "$1"
status=0

# complain OBJECT NAMES WHY
complain() {
    for name in $2; do
        echo "${1#*.dir/}: $name: $3"
        status=1
    done
}

# used OBJECT PATTERN: undefined names that match, also under the names of glibc's checked variants
used() {
    nm -u "$1" | sed -n 's/^ *U //p' | sed 's/^__\(isoc99_\)\{0,1\}\(.*\)_chk$/\2/; s/^__isoc99_//; s/@.*//' |
        grep -xE "$2" || true
}

objects=$(find CMakeFiles -path '*/dure*.dir/src/*' -name '*.o' | sort)
[ -n "$objects" ] || {
    echo "no object files under $1/CMakeFiles" >&2
    exit 1
}
for object in $objects; do
    source=${object#*.dir/src/}
    defined=$(nm -g --defined-only "$object" | awk '{ print $NF }')
    case $source in
    api/*) form='^dure_|^du_api_' ;;
    cli/main.c.o) form='^du_cli_|^main$' ;;
    cli/*) form='^du_cli_' ;;
    *) form='^du_' ;;
    esac
    complain "$object" "$(echo "$defined" | grep -vE "$form|^$" || true)" "a global name outside $form"

    complain "$object" "$(used "$object" 'v?sprintf|stpcpy|strcpy|strcat|strtok|gets|ato[ifl]|atoll|rand|srand|system|tmpnam|mktemp|alloca')" \
        'banned (src/base/poison.h)'
    [ "$source" = base/mem.c.o ] ||
        complain "$object" "$(used "$object" 'malloc|calloc|realloc|reallocarray|free|aligned_alloc|posix_memalign|memalign|strdup|strndup|v?asprintf|getline|getdelim')" \
            'the heap is reached through base/mem.h'
    case $source in
    cli/*) ;;
    base/err.c.o)
        complain "$object" "$(used "$object" 'getenv|secure_getenv|v?printf|puts|putchar|stdout|exit|_exit')" \
            'belongs to cli/'
        ;;
    *)
        complain "$object" "$(used "$object" 'getenv|secure_getenv|setenv|v?printf|puts|putchar|perror|stdout|stderr|exit|_exit|_Exit|abort|setlocale|signal|sigaction')" \
            'belongs to cli/'
        ;;
    esac
done
exit $status
