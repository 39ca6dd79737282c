#!/usr/bin/env bash
# Installs the Debian packages that phase4 needs and that are missing here.
#
#   tests/setup.sh build          what building and running phase4 needs (the default)
#   tests/setup.sh build test     and what its tests need
#   tests/setup.sh --check ...    installs nothing; exit status 1 and the list when something is missing
#
# Root installs. Anybody else is told exactly which packages to have installed. Quick when nothing is missing.
set -euo pipefail
export LC_ALL=C

build_packages=(cmake ninja-build gcc libc6-dev pkg-config
                openmpi-bin libopenmpi-dev libhdf5-dev libcjson-dev libopenblas0-pthread
                libpcre2-dev zlib1g-dev libzstd-dev libarchive-dev libutf8proc-dev
                libprotobuf-c-dev protobuf-c-compiler)
test_packages=(g++ clang clang-format-14 libclang-rt-14-dev libomp-14-dev hdf5-tools binutils python3 zstd)

check_only=no
wanted=()
[ $# -gt 0 ] || set -- build
for group in "$@"; do
    case $group in
    --check) check_only=yes ;;
    build) wanted+=("${build_packages[@]}") ;;
    test) wanted+=("${test_packages[@]}") ;;
    *) echo "setup.sh: \"$group\" is no group of packages: build, test" >&2; exit 2 ;;
    esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=("${build_packages[@]}")

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: this is no Debian system; needed are the equivalents of: ${wanted[*]}" >&2
    exit 0 # CMake names what is missing
fi

installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null | awk '$2 == "installed" {print $1}') || true
missing=()
for package in "${wanted[@]}"; do
    grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$check_only" = yes ]; then
    echo "missing packages: ${missing[*]}"
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "setup.sh: packages are missing and only root can install them:" >&2
    echo "    sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
echo "setup.sh: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "setup.sh: apt-get could not install: ${missing[*]}" >&2
    exit 1
fi
