#!/usr/bin/env bash
# Licences and sources of all dependencies, as deny.toml has them. Installs cargo-deny where it is not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
tools="${XDG_CACHE_HOME:-$HOME/.cache}/clickmill/tools"
deny="$tools/bin/cargo-deny"

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "Installing cargo-deny $version" >&2
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    CARGO_TARGET_DIR="$build" cargo install --quiet --locked --root "$tools" --version "$version" cargo-deny
fi
"$deny" --log-level error --locked check bans licenses sources
