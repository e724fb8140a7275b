#!/usr/bin/env bash
# Installs what is missing to build Clickmill on Debian or Ubuntu. Says nothing where nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh

fail() {
    echo "$*" >&2
    exit 1
}

# RocksDB is C++, and its bindings are made with libclang.
has_libclang() {
    local pattern
    for pattern in "${LIBCLANG_PATH:-/nowhere}" /usr/lib/llvm-\*/lib /usr/lib/\*-linux-gnu /usr/lib /usr/lib64; do
        if compgen -G "$pattern/libclang*.so*" >/dev/null; then
            return
        fi
    done
    return 1
}

missing=()
command -v c++ >/dev/null || missing+=(g++)
command -v cc >/dev/null || missing+=(gcc)
has_libclang || missing+=(libclang-dev)
command -v cargo >/dev/null || missing+=(rustup)

if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    by_hand="install by hand: ${missing[*]}"
    command -v apt-get >/dev/null || fail "cannot install on this system without apt-get; $by_hand"
    [ ${#as_root[@]} -eq 0 ] || command -v sudo >/dev/null || fail "cannot install without root or sudo; $by_hand"
    echo "Installing: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends ca-certificates "${missing[@]}" >/dev/null ||
        fail "apt-get could not install all of it (an old release has no rustup: see https://rustup.rs); $by_hand"
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
