#!/usr/bin/env bash
# Builds, starts a real Kafka and three instances of Clickmill with generated clicks, and shows on one screen what there is to look at and
# to kill. An instance that has ended is started again after RESTART_AFTER seconds. Ctrl-C ends all of it and deletes CLUSTER_DIR.
# Ports are free ones from PORT (8080) and KAFKA_PORT (9092) on; RATE is how many clicks come in a second.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh

readonly instances=3
dir=${CLUSTER_DIR:-target/cluster}
rate=${RATE:-300}
restart_after=${RESTART_AFTER:-15}
topic=click-events-topic
lock=$dir/pid

# A port from that on which nothing listens.
free_port() {
    local port=$1
    while (exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port"); do port=$((port + 1)); done
    echo "$port"
}

is_running() {
    [ -n "$1" ] && kill -0 "$1" 2>/dev/null
}

# What each of them is doing: the processes of instance N and of its clicks, since when it is gone, and how often it was started.
pids=() generate_pids=() gone_since=() starts=() ports=()

# Ends the processes: each is told, then waited for, and killed where it takes too long. One that was stopped hears it when it goes on.
end_all() {
    local pid deadline=$((SECONDS + 15))
    for pid in "$@"; do kill -TERM "$pid" 2>/dev/null && kill -CONT "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        while is_running "$pid" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

# Ends what a run has left behind that was killed itself. A process id may be somebody else's by now.
end_leftovers() {
    local file pid
    for file in "$dir"/*.pid; do
        pid=$(cat "$file" 2>/dev/null) || continue
        if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "^$clickmill "; then end_all "$pid"; fi
    done
    KAFKA_DIR=$dir/kafka scripts/kafka-down.sh >/dev/null
}

stop() {
    trap '' INT TERM
    trap - EXIT
    echo "Ending the instances and Kafka …"
    end_all ${generate_pids[@]+"${generate_pids[@]}"}
    end_all ${pids[@]+"${pids[@]}"}
    KAFKA_DIR=$dir/kafka scripts/kafka-down.sh >/dev/null
    if [ "$1" = 0 ] || [ -n "${started:-}" ]; then
        rm -rf "$dir"
        echo "All of it has ended, and $dir is deleted."
    else
        rm -f "$lock"
        echo "All of it has ended; the logs are in $dir." >&2
    fi
    exit "$1"
}

# died WHAT LOG: shows how it ended, and ends everything.
died() {
    printf '\n%s has ended:\n' "$1" >&2
    tail -n 5 "$2" >&2
    started=""
    stop 1
}

start_instance() {
    local n=$1
    # In sessions of their own, so that Ctrl-C reaches this script alone and each is ended in its turn.
    setsid "$clickmill" serve --config "$dir/clickmill.toml" --listen "127.0.0.1:${ports[n]}" --data-dir "$dir/instance-$n" \
        >>"$dir/instance-$n.log" 2>&1 </dev/null &
    pids[n]=$!
    disown "$!"
    echo "${pids[n]}" >"$dir/instance-$n.pid"
    gone_since[n]=""
    starts[n]=$((${starts[n]:-0} + 1))
}

start_clicks() {
    local n=$1
    setsid "$clickmill" generate --url "http://127.0.0.1:${ports[n]}" --rate $(((rate + instances - 1) / instances)) --disorder 10s \
        --seed "$RANDOM" >>"$dir/clicks-$n.log" 2>&1 </dev/null &
    generate_pids[n]=$!
    disown "$!"
    echo "${generate_pids[n]}" >"$dir/clicks-$n.pid"
}

# Starts again what has been gone for long enough.
tend() {
    local n
    for ((n = 1; n <= instances; n++)); do
        if is_running "${pids[n]}"; then
            is_running "${generate_pids[n]}" || start_clicks "$n"
        elif [ -z "${gone_since[n]}" ]; then
            gone_since[n]=$SECONDS
        elif [ $((SECONDS - gone_since[n])) -ge "$restart_after" ]; then
            start_instance "$n"
        fi
    done
}

# The state of a process that runs, as ps shows it: T is stopped.
process_state() {
    sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null || true
}

process_line() {
    local n=$1 what="pid ${pids[$1]}"
    if [ -n "${gone_since[n]}" ]; then
        what="has ended (it was pid ${pids[n]}), and starts again in $((restart_after - SECONDS + gone_since[n])) s"
    elif [ "$(process_state "${pids[n]}")" = T ]; then
        what="pid ${pids[n]}, stopped: kill -CONT ${pids[n]}"
    elif [ "${starts[n]}" -gt 1 ]; then
        what="pid ${pids[n]}, started again (start ${starts[n]})"
    fi
    echo "  instance $n  http://127.0.0.1:${ports[n]}/  $(instance_id "$n")  $what"
}

# The id by which an instance is known to the others.
instance_id() {
    cat "$dir/instance-$1/instance-id" 2>/dev/null || echo "(no id yet)"
}

# What can be done to the instances that run: one thing to each.
examples() {
    local n url=""
    for ((n = 1; n <= instances; n++)); do
        is_running "${pids[n]}" || continue
        case $n in
            1) printf '  %-22s its tasks go on elsewhere, and the others answer for all\n' "kill -9 ${pids[n]}" ;;
            2) printf '  %-22s it falls silent, until kill -CONT %s\n' "kill -STOP ${pids[n]}" "${pids[n]}" ;;
            *) printf '  %-22s it commits, hands over and leaves\n' "kill ${pids[n]}" ;;
        esac
        url=http://127.0.0.1:${ports[n]}
    done
    [ -z "$url" ] || echo "  curl '$url/v1/ads/top?from=-15m'"
}

# What the first instance that answers says of all of them.
answers() {
    local n url
    for ((n = 1; n <= instances; n++)); do
        url=http://127.0.0.1:${ports[n]}
        if is_running "${pids[n]}" && [ "$(process_state "${pids[n]}")" != T ] &&
            timeout 2 "$clickmill" status --brief --url "$url" >"$dir/status" 2>"$dir/status-error"; then
            echo "All instances, as instance $n tells:"
            cat "$dir/status"
            echo
            timeout 2 "$clickmill" top --limit 5 --from -15m --url "$url" 2>&1 || true
            return
        fi
    done
    echo "No instance answers yet:"
    tail -n 1 "$dir/status-error" 2>/dev/null || true
}

screen() {
    local n
    echo "Clickmill: $instances instances with one standby each, on Kafka at 127.0.0.1:$kafka_port, with $rate clicks a second. Logs: $dir/*.log"
    for ((n = 1; n <= instances; n++)); do process_line "$n"; done
    echo
    echo "Try, in another terminal (what ends is started again after $restart_after s; Ctrl-C here ends all of it):"
    examples
    echo
    answers
}

# Draws the screen in place on a terminal, else now and then below the one before.
show() {
    local text clear_to_end_of_line=$'\e[K'
    text=$(screen)
    if [ -t 1 ]; then
        # A line that is too long, or too many of them, would move what is above.
        text=$(head -n $(($(tput lines) - 1)) <<<"$text" | cut -c "1-$(tput cols)" | sed "s/\$/$clear_to_end_of_line/")
        printf '\e[H%s\e[J\n' "$text"
        sleep 1
    else
        printf '%s\n\n' "$text"
        for _ in {1..10}; do
            tend
            sleep 1
        done
    fi
}

if [ -f "$lock" ] && is_running "$(cat "$lock")"; then
    echo "A cluster runs already (process $(cat "$lock")): end it, or choose another directory with CLUSTER_DIR=…" >&2
    exit 1
fi
if [ -e "$dir" ] && [ ! -f "$lock" ] && [ ! -f "$dir/clickmill.toml" ]; then
    echo "$dir is there and is no cluster's: choose another directory with CLUSTER_DIR=…, for this one would be deleted" >&2
    exit 1
fi
cargo build --locked --workspace
clickmill="${CARGO_TARGET_DIR:-target}/debug/clickmill"

[ ! -e "$dir" ] || end_leftovers
rm -rf "$dir"
mkdir -p "$dir"
echo "$$" >"$lock"
trap 'stop 0' INT TERM
trap 'stop $?' EXIT

kafka_port=$(free_port "${KAFKA_PORT:-9092}")
controller_port=$(free_port $((kafka_port + 1)))
echo "Starting Kafka at 127.0.0.1:$kafka_port"
KAFKA_DIR=$dir/kafka KAFKA_PORT=$kafka_port KAFKA_CONTROLLER_PORT=$controller_port scripts/kafka-up.sh >"$dir/kafka.log" 2>&1 ||
    died "Kafka" "$dir/kafka.log"
kafka_pid=$(cat "$dir/kafka/pid")

cat >"$dir/clickmill.toml" <<EOF
[engine]
application_id = "cluster"
num_standbys = 1
memory = "256MiB"
[clicks]
topic = "$topic"
partitions = 4
[kafka]
bootstrap.servers = "127.0.0.1:$kafka_port"
EOF
until "$clickmill" topics --config "$dir/clickmill.toml" --create --create-clicks-topic >"$dir/topics.log" 2>&1; do
    is_running "$kafka_pid" || died "Kafka" "$dir/kafka/server.log"
    [ "$SECONDS" -lt 600 ] || died "The creation of the topics" "$dir/topics.log"
    sleep 0.5
done

next_port=${PORT:-8080}
for ((n = 1; n <= instances; n++)); do
    ports[n]=$(free_port "$next_port")
    next_port=$((ports[n] + 1))
    start_instance "$n"
    start_clicks "$n"
done
started=yes
[ ! -t 1 ] || clear
while true; do
    is_running "$kafka_pid" || died "Kafka" "$dir/kafka/server.log"
    tend
    show
done
