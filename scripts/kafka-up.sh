#!/usr/bin/env bash
# Starts a real Apache Kafka of one node for a developer. Its data stays in KAFKA_DIR (target/kafka) until `make kafka-down CLEAN=1`.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${KAFKA_DIR:-target/kafka}
port=${KAFKA_PORT:-9092}
controller_port=${KAFKA_CONTROLLER_PORT:-9093}
pid_file="$dir/pid"

command -v java >/dev/null || {
    echo "Apache Kafka needs Java 17 or newer: apt-get install openjdk-17-jre-headless" >&2
    exit 1
}
if [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; then
    echo "Kafka runs already (process $(cat "$pid_file")): 127.0.0.1:$port"
    exit
fi
if (exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port"); then
    echo "Something listens on 127.0.0.1:$port already: stop it, or choose another port with KAFKA_PORT=9192 make kafka-up" >&2
    exit 1
fi

libs=$(scripts/kafka-jars.sh)
mkdir -p "$dir"
properties="$dir/server.properties"
cat >"$properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$PWD/$dir/data
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
EOF
sed -i "s|^log.dirs=$PWD//|log.dirs=/|" "$properties"
if [ ! -f "$dir/data/meta.properties" ]; then
    id=$(java -cp "$libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)
    java -cp "$libs/*" kafka.tools.StorageTool format -t "$id" -c "$properties" >"$dir/server.log" 2>&1
fi

setsid java -Xmx1g -cp "$libs/*" kafka.Kafka "$properties" >>"$dir/server.log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pid_file"
until (exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port"); do
    kill -0 "$pid" 2>/dev/null || {
        echo "Kafka has ended:" >&2
        tail -n 20 "$dir/server.log" >&2
        rm -f "$pid_file"
        exit 1
    }
    sleep 0.2
done
echo "Kafka listens on 127.0.0.1:$port (process $pid, data and log in $dir). Stop it with make kafka-down."
