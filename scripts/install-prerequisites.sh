#!/usr/bin/env bash
# Installs what is missing to build Clickmill on Debian or Ubuntu. Says nothing where nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh

fail() {
    echo "$*" >&2
    exit 1
}

# RocksDB is C++, and its bindings are made with libclang (its C interface: libclang-cpp alone is not enough).
has_libclang() {
    local pattern
    for pattern in "${LIBCLANG_PATH:-/nowhere}" /usr/lib/llvm-\*/lib /usr/lib/\*-linux-gnu /usr/lib /usr/lib64; do
        if compgen -G "$pattern/libclang.so*" >/dev/null || compgen -G "$pattern/libclang-[0-9]*.so*" >/dev/null; then
            return
        fi
    done
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || fail "neither root nor sudo: run as root: $*"
        sudo "$@"
    fi
}

install() {
    command -v apt-get >/dev/null || fail "this system has no apt-get: install by hand: $*"
    echo "Installing: $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$@" >/dev/null
}

# The Kafka client is C: built with make, and linked to the system's OpenSSL and zlib.
has_library() { # PKG-CONFIG-NAME
    command -v pkg-config >/dev/null && pkg-config --exists "$1"
}

missing=()
command -v cc >/dev/null || missing+=(gcc)
command -v c++ >/dev/null || missing+=(g++)
has_libclang || missing+=(libclang-dev)
command -v make >/dev/null || missing+=(make)
command -v pkg-config >/dev/null || missing+=(pkg-config)
has_library openssl || missing+=(libssl-dev)
has_library zlib || missing+=(zlib1g-dev)
# The tests start a real Apache Kafka, whose jars come through Maven.
command -v java >/dev/null || missing+=(default-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
[ ${#missing[@]} -eq 0 ] || install "${missing[@]}" || fail "could not install ${missing[*]}"

if ! command -v cargo >/dev/null && ! command -v rustup >/dev/null; then
    install ca-certificates rustup || fail "this release has no package for rustup: install Rust as https://rustup.rs says"
fi
if command -v rustup >/dev/null; then
    cargo --version >/dev/null 2>&1 || rustup default stable
    for component in rustfmt clippy; do
        rustup component list --installed | grep -q "^$component" || rustup component add "$component"
    done
fi
cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || fail "cargo has no rustfmt or clippy: install them beside it"

needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(cargo --version | cut -d ' ' -f 2)
[ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" = "$needed" ] ||
    fail "Rust $needed or newer is needed, this is $found: run \`rustup update stable\`"
