#!/usr/bin/env bash
# Builds, starts Clickmill on its embedded broker with generated clicks, and shows the ten most clicked ads as they change.
# LISTEN and DATA_DIR choose another address and another directory than 127.0.0.1:8080 and ./data.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh

listen=${LISTEN:-127.0.0.1:8080}
data=${DATA_DIR:-data}
url="http://$listen"
host=${listen%:*} port=${listen##*:}
host=${host#[} host=${host%]}

cargo build --locked --workspace
clickmill="${CARGO_TARGET_DIR:-target}/debug/clickmill"

serve_pid="" generate_pid="" top_pid=""
stop() {
    trap - EXIT INT TERM
    local kept=""
    if is_running "$serve_pid"; then kept=yes; fi
    for pid in $top_pid $generate_pid $serve_pid; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [ -z "$kept" ] || echo "Stopped. The counts are kept in $data: the next run goes on from them."
    exit "${1:-0}"
}
trap 'stop 0' INT TERM
trap 'stop $?' EXIT

# died WHAT LOG: says how it ended, and ends everything.
died() {
    printf '\n%s has stopped:\n' "$1" >&2
    tail -n 5 "$2" >&2
    stop 1
}

is_running() {
    kill -0 "$1" 2>/dev/null
}

is_ready() {
    local status
    status=$(
        exec 2>/dev/null 3<>"/dev/tcp/$host/$port" || exit
        printf 'GET /readyz HTTP/1.0\r\nHost: %s\r\n\r\n' "$listen" >&3
        head -n 1 <&3
    ) || true
    [[ $status == *" 200 "* ]]
}

mkdir -p "$data"
log="$data/serve.log" generate_log="$data/generate.log"
if (exec 2>/dev/null 3<>"/dev/tcp/$host/$port"); then
    echo "Something listens on $listen already: stop it, or choose another address with LISTEN=127.0.0.1:8081 make run" >&2
    exit 1
fi

# In sessions of their own, so that Ctrl-C reaches this script alone and each is stopped in its turn.
setsid "$clickmill" serve --listen "$listen" --data-dir "$data" >"$log" 2>&1 </dev/null &
serve_pid=$!
echo "Starting; the log is in $log"
until is_ready; do
    is_running "$serve_pid" || died "Clickmill" "$log"
    sleep 0.2
done

setsid "$clickmill" generate --url "$url" --rate "${RATE:-500}" --disorder 10s --late 0.002 --bad 0.002 --seed "$RANDOM" \
    >"$generate_log" 2>&1 </dev/null &
generate_pid=$!

cat <<EOF

Clickmill counts generated clicks at $url. Where to look:
  The clicks, as they come       $url/
  The API, to read and to try    $url/docs
  The most clicked ads           curl '$url/v1/ads/top?from=-15m'
  One ad                         curl '$url/v1/ads/ad-1/clicks?from=-15m'
  A click of your own            curl $url/v1/clicks -H 'content-type: application/json' -d '{"ad_id": "ad-1"}'
  Metrics                        curl $url/metrics
Ctrl-C stops everything and keeps the counts.

EOF
"$clickmill" top --watch --url "$url" &
top_pid=$!
while is_running "$serve_pid" && is_running "$generate_pid" && is_running "$top_pid"; do
    wait -n "$serve_pid" "$generate_pid" "$top_pid" || true
done
is_running "$serve_pid" || died "Clickmill" "$log"
is_running "$generate_pid" || died "The generator" "$generate_log"
wait "$top_pid"
