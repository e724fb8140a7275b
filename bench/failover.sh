#!/usr/bin/env bash
# How long clients notice that an instance is gone: three instances with one copy of each other's counts on a real Kafka of one node, two million
# clicks of a million ads in a day of windows, 5,000 clicks a second meanwhile, and every instance asked for totals, the top 100 and one ad of that
# day all the time. Each answer is checked. Instances are killed (kill -9), hang (SIGSTOP), are stopped (SIGTERM) and restarted in turn; a table comes
# last. A few rounds take five minutes; the full number:
#   FAILOVER_KILLS=100 FAILOVER_HANGS=30 FAILOVER_RESTARTS=30 bench/failover.sh
# FAILOVER_KILLS (3), FAILOVER_HANGS (3) and FAILOVER_RESTARTS (3: so many of SIGTERM, and of rolling restarts) choose the rounds,
# FAILOVER_CLICKS (2000000) and FAILOVER_RATE (5000) the clicks before and a second.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/rust-path.sh
exec cargo test --locked --workspace --test kafka -- --ignored --exact failover::how_long_clients_notice_failures --nocapture
