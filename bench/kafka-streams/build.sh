#!/usr/bin/env bash
# Builds into target/, unless nothing has changed since, and prints the classpath: java -cp "$(bench/kafka-streams/build.sh)" …
set -euo pipefail
cd "$(dirname "$0")"

built=target/built
if [ ! -e "$built" ] || [ -n "$(find pom.xml src -newer "$built" -print -quit)" ]; then
    rm -rf target # what was removed from the sources must not live on as a class
    mvn --quiet --batch-mode process-classes >&2
    touch "$built"
fi
# A file of its own or a wildcard: java expands the latter itself, so quote it.
echo "$PWD/target/classes:$PWD/target/libs/*"
