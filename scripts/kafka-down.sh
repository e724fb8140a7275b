#!/usr/bin/env bash
# Stops the Kafka that kafka-up.sh has started. With CLEAN=1 its data goes too.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${KAFKA_DIR:-target/kafka}
pid_file="$dir/pid"

if [ -f "$pid_file" ]; then
    pid=$(cat "$pid_file")
    # A process id may be somebody else's by now.
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "kafka.Kafka $dir/server.properties"; then
        kill -TERM "$pid"
        for _ in $(seq 300); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        echo "Kafka is stopped."
    fi
    rm -f "$pid_file"
else
    echo "No Kafka was started from here."
fi
if [ -n "${CLEAN:-}" ]; then
    rm -rf "$dir"
fi
