# shellcheck shell=bash disable=SC2034
# What the scripts in ci/ share: where things lie, which Pythons there are, and how to speak to the user.
# Sourced, never run. It starts no process and changes nothing: ci/python sources it on every call.

set -euo pipefail

ROOT=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd)
CACHE=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/hotstamp
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET in /*) ;; *) TARGET=$PWD/$TARGET ;; esac

# The suites of Debian that carry the supported patch releases of CPython 3.14, the first being the one that
# everything is built and tested with by default. `expected_release` says what each is known to carry.
PRIMARY_SUITE=forky
ALL_SUITES=(forky sid)
ALL_ARCHES=(x86_64 aarch64)

expected_release() { case $1 in forky) echo 3.14.8 ;; sid) echo 3.14.10 ;; esac; }

# One tree of packages per (suite, architecture). The shared libpython is for Rust tests that embed an interpreter.
PYTHON_PACKAGES=(python3.14 python3.14-minimal libpython3.14 libpython3.14-stdlib libpython3.14-dev python3.14-venv
    python3-pip-whl libc6 libgcc-s1 libstdc++6 zlib1g libzstd1 libffi8 libexpat1 libssl3t64)
TESTSUITE_PACKAGES=(libpython3.14-testsuite)

# Raised when the way a tree or a site folder is made changes, so that caches made the old way are left alone.
RECIPE_VERSION=1

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
warn() { printf '%s: warning: %s\n' "${0##*/}" "$*" >&2; }
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

host_arch() {
    case ${HOSTTYPE:-} in
        x86_64 | aarch64) HOST_ARCH=$HOSTTYPE ;;
        *) die "this project runs on x86_64 and aarch64 Linux, not on ${HOSTTYPE:-an unknown machine}" ;;
    esac
}
host_arch

# Sets ARCH from what a user may call it.
normalise_arch() {
    case $1 in
        x86_64 | x86-64 | amd64) ARCH=x86_64 ;;
        aarch64 | arm64) ARCH=aarch64 ;;
        *) die "unknown architecture '$1': x86_64 or aarch64" ;;
    esac
}

debian_arch() { case $1 in x86_64) echo amd64 ;; aarch64) echo arm64 ;; esac; }
triplet() { echo "$1-linux-gnu"; }
rust_triple() { echo "$1-unknown-linux-gnu"; }
is_native() { [[ $1 == "$HOST_ARCH" ]]; }

# Short content hash of the arguments and of standard input's files named by them.
content_hash() { printf '%s\n' "$@" | sha256sum | cut -c1-10; }

python_packages() {
    local packages=("${PYTHON_PACKAGES[@]}")
    [[ $1 != "$PRIMARY_SUITE" ]] || packages+=("${TESTSUITE_PACKAGES[@]}")
    local IFS=,
    echo "${packages[*]}"
}

# The folder that holds one provisioned Python: tree/ (its packages), include/ (its headers alone), facts.sh.
python_home() {
    local suite=$1 arch=$2 existing
    if [[ $suite == "$PRIMARY_SUITE" ]] && is_native "$arch" && existing=$(existing_python); then
        echo "$CACHE/python-existing-$(content_hash "$RECIPE_VERSION" "$existing" "$(stat -Lc %Y "$existing")")"
    else
        echo "$CACHE/python-$suite-$arch-$(content_hash "$RECIPE_VERSION" "$(python_packages "$suite")")"
    fi
}

# A python3.14 that is already on the machine (HOTSTAMP_PYTHON, else PATH) and can be used for the native architecture:
# a GIL build with its internal headers. Prints its path.
existing_python() {
    local exe=${HOTSTAMP_PYTHON:-}
    [[ $exe != none ]] || return 1
    if [[ -z $exe ]]; then
        exe=$(command -v python3.14) || return 1
    fi
    "$exe" -I -S -c '
import os, sys, sysconfig
ok = sys.version_info[:2] == (3, 14) and sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
ok = ok and sys.version_info.releaselevel == "final" and sys.prefix == sys.base_prefix
ok = ok and os.path.exists(os.path.join(sysconfig.get_path("include"), "internal", "pycore_interpframe.h"))
sys.exit(not ok)' 2>/dev/null || return 1
    echo "$exe"
}

# The third-party Python packages of one architecture, for every suite's Python.
site_home() {
    echo "$CACHE/site-$1-$(content_hash "$RECIPE_VERSION" "$(<"$ROOT/ci/requirements.txt")")"
}

# Where this checkout's own Python of one architecture lies: PREFIX/bin/python3.14 has hotstamp installed.
# `ci/build` makes it; a release other than the primary one has it beside.
python_prefix() { echo "$TARGET/python/$1${2:+-$2}"; }

# The folder with libclang 22, or nothing.
libclang_dir() {
    local dir
    for dir in "${LIBCLANG_PATH:-}" "$(command -v llvm-config-22 >/dev/null && llvm-config-22 --libdir)" /usr/lib/llvm-22/lib; do
        if [[ -n $dir ]] && compgen -G "$dir/libclang*.so*" >/dev/null; then
            echo "$dir"
            return
        fi
    done
}

# An llvm-config of an LLVM 22 with static libraries, or nothing. It runs on this machine, whatever is built for.
llvm_config() {
    local config
    for config in "${HOTSTAMP_LLVM_CONFIG:-}" llvm-config-22 /usr/lib/llvm-22/bin/llvm-config; do
        if [[ -n $config ]] && config=$(command -v "$config") && [[ $("$config" --version) == 22.* && -f $("$config" --libdir)/libLLVMPasses.a ]]; then
            echo "$config"
            return
        fi
    done
}

# The static libraries of LLVM and of what it needs, for an architecture that is not the machine's.
LLVM_PACKAGES=(llvm-22-dev libzstd-dev zlib1g-dev)
llvm_home() { echo "$CACHE/llvm-$1-$(content_hash "$RECIPE_VERSION" "${LLVM_PACKAGES[@]}")"; }

# A rustc that has the standard library of the architecture, or nothing.
rustc_for() {
    local rustc
    for rustc in "${RUSTC:-rustc}" /usr/bin/rustc; do
        if command -v "$rustc" >/dev/null && compgen -G "$("$rustc" --print target-libdir --target "$(rust_triple "$1")" 2>/dev/null)/libstd-*" >/dev/null; then
            command -v "$rustc"
            return
        fi
    done
}

# Reads the facts of one provisioned Python into PY_* variables.
load_facts() {
    local home
    home=$(python_home "$1" "$2")
    [[ -f $home/facts.sh ]] || die "the Python of $1 for $2 is not provisioned: run ci/setup"
    # shellcheck source=/dev/null
    source "$home/facts.sh"
}

# Reads leading `--arch X` into ARCH; everything from the first other argument on is left in REST.
take_arch() {
    ARCH=$HOST_ARCH
    while (($#)); do
        case $1 in
            --arch)
                (($# > 1)) || die "--arch wants x86_64 or aarch64"
                normalise_arch "$2"
                shift 2
                ;;
            --arch=*)
                normalise_arch "${1#--arch=}"
                shift
                ;;
            *) break ;;
        esac
    done
    REST=("$@")
}

# How to start a program of the architecture, as words before its command line: nothing where the kernel can do it.
launcher() {
    if ! is_native "$1" && [[ ! -e /proc/sys/fs/binfmt_misc/qemu-$1 ]]; then
        echo "qemu-$1-static"
    fi
}

# Exports what cargo needs to build and test the workspace for one architecture; ci/README.md explains each.
# The Pythons have to be provisioned.
export_build_environment() {
    local arch=$1 suite also=() upper rustc
    for suite in "${ALL_SUITES[@]:1}"; do
        load_facts "$suite" "$arch"
        also+=("$PY_INCLUDE")
    done
    load_facts "$PRIMARY_SUITE" "$arch"
    local IFS=:
    export HOTSTAMP_PYTHON_INCLUDE=$PY_INCLUDE
    export HOTSTAMP_PYTHON_INCLUDE_ALSO="${also[*]}"
    unset IFS
    export HOTSTAMP_LIBPYTHON=$PY_LIB HOTSTAMP_LOADER=$PY_LOADER
    export PYO3_CONFIG_FILE="${PY_INCLUDE%/include}/pyo3.txt"
    LIBCLANG_PATH=$(libclang_dir)
    export LIBCLANG_PATH
    HOTSTAMP_LLVM_CONFIG=$(llvm_config)
    export HOTSTAMP_LLVM_CONFIG
    export CARGO_TARGET_DIR=$TARGET

    # An embedded interpreter finds its library by PYTHONHOME alone, which must not leak to other Pythons.
    upper=$(rust_triple "$arch" | tr a-z- A-Z_)
    if is_native "$arch"; then
        export "CARGO_TARGET_${upper}_RUNNER=env PYTHONHOME=$PY_PREFIX"
    else
        rustc=$(rustc_for "$arch")
        [[ -z $rustc ]] || export RUSTC=$rustc
        HOTSTAMP_LLVM_LIBRARIES=$(llvm_home "$arch")
        export HOTSTAMP_LLVM_LIBRARIES
        export CARGO_BUILD_TARGET
        CARGO_BUILD_TARGET=$(rust_triple "$arch")
        export "CARGO_TARGET_${upper}_LINKER=$(triplet "$arch")-g++"
        export "CARGO_TARGET_${upper}_RUNNER=env PYTHONHOME=$PY_PREFIX qemu-$arch-static"
        export "BINDGEN_EXTRA_CLANG_ARGS_${CARGO_BUILD_TARGET//-/_}=-isystem /usr/$(triplet "$arch")/include"
    fi
}

# The names that export_build_environment may set.
BUILD_VARIABLES='HOTSTAMP_PYTHON_INCLUDE|HOTSTAMP_PYTHON_INCLUDE_ALSO|HOTSTAMP_LIBPYTHON|HOTSTAMP_LOADER|PYO3_CONFIG_FILE|LIBCLANG_PATH|HOTSTAMP_LLVM_CONFIG|HOTSTAMP_LLVM_LIBRARIES|RUSTC|CARGO_TARGET_DIR|CARGO_BUILD_TARGET|CARGO_TARGET_[A-Z0-9_]+_(LINKER|RUNNER)|BINDGEN_EXTRA_CLANG_ARGS_[a-z0-9_]+'
