#!/usr/bin/env bash
# The dependency rule: the engine is pure, and dependencies point one way: millstream <- millstream-rocksdb, millstream-kafka <- clickmill. Within the
# engine they point one way too.
set -euo pipefail
cd "$(dirname "$0")/.."

# The names of all crates that a crate is built with, itself excluded.
dependencies() {
    cargo tree --locked --package "$1" --edges normal,build --prefix none --format '{p}' | cut -d ' ' -f 1 | sort -u | grep -vx "$1"
}

failed=0
refuse() { # CRATE PATTERN WHY
    local found
    found=$(dependencies "$1" | grep -xE "$2" || true)
    if [ -n "$found" ]; then
        echo "$1 must not depend on" $found "($3)" >&2
        failed=1
    fi
}

native='.*-sys|cc|cmake|bindgen|cxx|pkg-config'
storage='rocksdb'
runtime='tokio.*|async-std|smol|mio|futures.*'
# The client's wrapper is built on the traits of futures; what would run them is not wanted.
runtime_itself='tokio.*|async-std|smol|mio'
http='http|http-.*|hyper.*|axum.*|tower.*|reqwest|ureq.*|h2'
kafka='rdkafka.*|kafka.*'
refuse millstream "$native|$storage|$runtime|$http|$kafka|clickmill|millstream-.*" "the engine is pure: no C++, storage, runtime, HTTP or Kafka"
refuse millstream-rocksdb "$runtime|$http|$kafka|clickmill" "storage knows no runtime, HTTP, Kafka or service"
refuse millstream-kafka "$storage|librocksdb-sys|$runtime_itself|$http|clickmill|millstream-rocksdb" "the Kafka client knows no storage, runtime, HTTP or service"

# Within the engine a module uses those before it in this list and none behind it, tests apart: no circles.
modules=(varint kept record clock partitioner serdes broker time store operators task topology runtime query testing)
source=crates/millstream/src
for number in "${!modules[@]}"; do
    module=${modules[$number]}
    later=$(IFS='|'; echo "${modules[*]:$((number + 1))}")
    [ -n "$later" ] || continue
    for file in $(find "$source/$module" "$source/$module.rs" -name '*.rs' 2>/dev/null); do
        found=$(sed '/^#\[cfg(test)\]/,$d' "$file" | grep -vE '^ *//' | grep -oE "crate::($later)\b" | sort -u || true)
        if [ -n "$found" ]; then
            echo "$file must not use" $found "(module $module comes before)" >&2
            failed=1
        fi
    done
done
for file in "$source"/*/ "$source"/*.rs; do
    name=$(basename "$file" .rs)
    if [ "$name" != lib ] && [[ " ${modules[*]} " != *" $name "* ]]; then
        echo "module $name of the engine is in no order: name it in $0" >&2
        failed=1
    fi
done
exit $failed
