#!/usr/bin/env bash
# Prints the directory with the jars of Apache Kafka, and downloads them through Maven where they are not there yet:
# kafka-jars.sh [VERSION], by default the one of kafka/pom.xml.
set -euo pipefail
pom="$(cd "$(dirname "$0")" && pwd)/kafka/pom.xml"
version=${1:-$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$pom")}
cache="${XDG_CACHE_HOME:-$HOME/.cache}/clickmill/kafka-$version"

if [ ! -d "$cache/libs" ]; then
    command -v mvn >/dev/null || {
        echo "Apache Kafka's jars are downloaded with Maven, which is missing: apt-get install maven" >&2
        exit 1
    }
    mkdir -p "$cache"
    # Moved into place whole: a download that was broken off is not taken for the jars, and two at once do no harm.
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    echo "Downloading the jars of Apache Kafka $version" >&2
    mvn --batch-mode --quiet --file "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -Dkafka.version="$version" -DoutputDirectory="$partial/libs" >&2
    mv --no-target-directory "$partial/libs" "$cache/libs" 2>/dev/null || [ -d "$cache/libs" ]
fi
echo "$cache/libs"
