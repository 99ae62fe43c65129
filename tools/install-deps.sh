#!/bin/sh
# Installs what building and testing dure needs and this machine lacks.
#
#   tools/install-deps.sh [build] [test] [extra]      (default: build)
#
# build  what `make` needs
# test   what `make check` needs beside it
# extra  what only `make check-all`, `make fuzz` and continuous integration need
#
# When nothing is missing it is quick and touches no network. Debian and its kin: apt-get, as root
# or through sudo. Elsewhere it names the packages for dnf and pacman and exits 1.
set -eu

# group  found by                 Debian                  Fedora                     Arch
packages='
build    command:cc               gcc                     gcc                        gcc
build    file:/usr/include/stdio.h libc6-dev              glibc-devel                glibc
build    command:make             make                    make                       make
build    command:cmake            cmake                   cmake                      cmake
build    command:ninja            ninja-build             ninja-build                ninja
build    command:pkg-config       pkg-config              pkgconf-pkg-config         pkgconf
build    library:jansson          libjansson-dev          jansson-devel              jansson
build    library:libpcre2-8       libpcre2-dev            pcre2-devel                pcre2
build    library:libutf8proc      libutf8proc-dev         utf8proc-devel             libutf8proc
build    library:libzstd          libzstd-dev             libzstd-devel              zstd
build    library:libedit          libedit-dev             libedit-devel              libedit
test     command:python3          python3                 python3                    python
test     library:cmocka           libcmocka-dev           libcmocka-devel            cmocka
extra    command:mpirun           openmpi-bin             openmpi                    openmpi
extra    library:ompi-c           libopenmpi-dev          openmpi-devel              openmpi
extra    command:git              git                     git                        git
extra    command:valgrind         valgrind                valgrind                   valgrind
extra    command:clang            clang                   clang                      clang
extra    clang:libclang_rt.fuzzer-x86_64.a libclang-rt-14-dev compiler-rt compiler-rt
extra    command:clang-format-14  clang-format-14         clang-tools-extra          clang
extra    command:llvm-symbolizer-14 llvm-14               llvm                       llvm
extra    command:aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu gcc-aarch64-linux-gnu   aarch64-linux-gnu-gcc
extra    file:/usr/aarch64-linux-gnu/include/stdio.h libc6-dev-arm64-cross sysroot-aarch64-fc-glibc aarch64-linux-gnu-glibc
extra    command:qemu-aarch64     qemu-user               qemu-user                  qemu-user
'

present() {
    case $1 in
    command:*) command -v "${1#command:}" >/dev/null 2>&1 ;;
    library:*) pkg-config --exists "${1#library:}" 2>/dev/null ;;
    file:*) [ -e "${1#file:}" ] ;;
    clang:*) [ -e "$(clang -print-runtime-dir 2>/dev/null)/${1#clang:}" ] ;;
    esac
}

groups=" ${*:-build} "
for group in $groups; do
    case $group in
    build | test | extra) ;;
    *)
        echo "usage: tools/install-deps.sh [build] [test] [extra]" >&2
        exit 2
        ;;
    esac
done

missing=$(echo "$packages" | while read -r group found_by debian fedora arch; do
    case $groups in
    *" $group "*) present "$found_by" || echo "$debian $fedora $arch" ;;
    esac
done)
[ -n "$missing" ] || exit 0

column() {
    echo "$missing" | cut -d ' ' -f "$1" | sort -u | tr '\n' ' '
}

if ! command -v apt-get >/dev/null 2>&1; then
    {
        echo "install-deps.sh: packages are missing and this system has no apt-get. Install them:"
        echo "  dnf install $(column 2)"
        echo "  pacman -S --needed $(column 3)"
    } >&2
    exit 1
fi
wanted=$(column 1)
as_root=''
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    command -v sudo >/dev/null 2>&1 || {
        echo "install-deps.sh: packages are missing; there is no sudo to install them with. As root, run:"
        echo "  apt-get update && apt-get install --no-install-recommends $wanted"
        exit 1
    } >&2
fi
echo "installing: $wanted" >&2
# shellcheck disable=SC2086  # one word per package, no word for root
{
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted
} >&2
