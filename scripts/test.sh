#!/usr/bin/env bash
# All checks, the quick ones first.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh

step() {
    echo "== $*"
}

step "formatting"
cargo fmt --all --check

step "dependencies between crates"
scripts/check-dependencies.sh

step "licences of dependencies"
scripts/check-licences.sh

step "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

step "tests"
cargo test --locked --workspace --no-fail-fast
