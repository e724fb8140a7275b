#!/usr/bin/env bash
# Clickmill and the same job on Kafka Streams in turn, on one topic of a real Kafka, three rounds each. Takes about an hour on two cores
# and 20 GiB of disk, and writes its table into docs/performance.md. SIDE_BY_SIDE_CLICKS and SIDE_BY_SIDE_ROUNDS make it shorter: then the
# table is only printed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh
exec cargo bench --locked --workspace --profile dev --bench kafka_streams
