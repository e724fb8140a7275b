#!/usr/bin/env bash
# Shows that the service stays within its memory budget while what it keeps grows past ten times that size: clicks of ever new ads,
# window after window, with queries for the top ads of each round and of six hours, two at a time. Prints a line a round, and fails when the
# peak is above the budget.
# MEMORY (256MiB), TIMES (10) and LISTEN (127.0.0.1:8090) choose another budget, multiple and address; CLICKS (500000) how many come in a
# round, of which there are 79 at most; DIR another place for the data.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh

memory=${MEMORY:-256MiB}
listen=${LISTEN:-127.0.0.1:8090}
[[ $memory =~ ^[0-9]+MiB$ ]] || { echo "MEMORY=$memory: accepted is a number of MiB, such as 256MiB" >&2; exit 1; }
budget_kb=$((${memory%MiB} * 1024))
goal_kb=$((budget_kb * ${TIMES:-10}))
clicks=${CLICKS:-500000}
url="http://$listen"
[ -n "${CLICKMILL:-}" ] || cargo build --locked --workspace
clickmill=${CLICKMILL:-${CARGO_TARGET_DIR:-target}/debug/clickmill}

data=$(mktemp -d "${DIR:-/tmp}/clickmill-memory.XXXXXX")
serve_pid=""
stop() {
    [ -z "$serve_pid" ] || { kill -TERM "$serve_pid" && wait "$serve_pid" || true; }
    rm -rf "$data"
}
trap stop EXIT

CLICKMILL_ENGINE__MEMORY=$memory "$clickmill" serve --listen "$listen" --data-dir "$data" --log-level warn 2>"$data/serve.log" &
serve_pid=$!

status_kb() { # what /proc says of the service
    sed -n "s/^$1:\s*\([0-9]*\) kB/\1/p" "/proc/$serve_pid/status"
}
disk_kb() {
    du -sk "$data" | cut -f 1
}

top() { # of the hours since then: one that takes longer than the service lets it is told of, and ends
    "$clickmill" top --url "$url" --from "-$(($1 - 2 * round))h" --to "$end" >/dev/null || echo "no answer: that took too long"
}

round=0
while [ "$(disk_kb)" -lt "$goal_kb" ]; do
    round=$((round + 1))
    # Two hours of event time a round, so that windows close all the time; as good as every click is another ad's.
    "$clickmill" generate --url "$url" --seed "$round" --count "$clicks" --ads 1000000000 --zipf 0 \
        --start "-$((160 - 2 * round))h" --span 2h --disorder 30s >/dev/null 2>&1
    end="-$((158 - 2 * round))h"
    top 164 &
    longer=$!
    top 160
    wait "$longer"
    echo "$((round * clicks)) clicks: $(($(disk_kb) / 1024)) MiB on disk, $(($(status_kb VmRSS) / 1024)) MiB in memory," \
        "peak $(($(status_kb VmHWM) / 1024)) MiB, budget $((budget_kb / 1024)) MiB"
done
[ "$(status_kb VmHWM)" -le "$budget_kb" ] || { echo "the peak is above the budget" >&2; exit 1; }
