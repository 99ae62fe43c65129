#!/bin/sh
# Puts the libraries that the aarch64 cross build links, jansson and cmocka, into build-aarch64/sysroot:
# Debian's arm64 packages, unpacked. The machine's own package lists and architectures stay as they
# are. Does nothing when they are there.
set -eu
cd "$(dirname "$0")/.."
root=build-aarch64/sysroot
[ ! -e "$root/complete" ] || exit 0
mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
cd "$root"

arm64_apt() {
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
        -o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache" "$@"
}

arm64_apt update
arm64_apt download libjansson-dev libjansson4 libcmocka-dev libcmocka0
for package in *.deb; do
    dpkg-deb -x "$package" .
done
rm -rf apt ./*.deb
touch complete
