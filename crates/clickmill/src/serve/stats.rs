//! The engine's totals, for the metrics.

use std::borrow::Cow;
use std::sync::Arc;

use millstream::record::TopicPartition;
use millstream::runtime::TaskStatus;
use millstream::task::TaskState;

use super::click_log::ClickLog;
use super::engine::Engine;
use crate::click::Refusal;
use crate::http::KnownTask;
use crate::metrics::{EngineStats, EngineTotals, PartitionTotals, RestoreTotals};

/// Reads the totals of an engine.
pub(super) struct Totals<L: ClickLog>(pub(super) Arc<Engine<L>>);

impl<L: ClickLog> EngineStats for Totals<L> {
    fn totals(&self) -> EngineTotals {
        let engine = &self.0;
        let (records, tasks) = (engine.registry.records(), engine.registry.tasks());
        let statistics = engine.stores.statistics();
        let (cache, memory) = (statistics.cache, statistics.memory);
        let stores = |bytes: fn(&millstream_rocksdb::state::StoreSize) -> u64| statistics.stores.iter().map(bytes).sum::<u64>();
        EngineTotals {
            consumed: records.read,
            counted: records.counted,
            late: records.late,
            dead_lettered: records.dead_lettered.iter().map(|(reason, count)| (label(reason), *count)).collect(),
            partitions: tasks.iter().map(|task| partition(engine, task)).chain(unowned_partitions(engine)).collect(),
            quarantined: tasks
                .iter()
                .filter(|task| task.state == TaskState::Quarantined)
                .map(|task| task.id.to_string())
                .collect(),
            replayed: engine.registry.restored_records(),
            restores: tasks.iter().filter_map(restore).collect(),
            rocksdb_sizes: vec![
                ("budget".into(), statistics.budget_bytes as u64),
                ("cache".into(), memory.cache_bytes as u64),
                ("cache_pinned".into(), memory.pinned_bytes as u64),
                ("memtables".into(), memory.memtable_bytes as u64),
                ("log".into(), engine.log.disk_bytes()),
                ("sst".into(), stores(|store| store.file_bytes)),
                ("table_readers".into(), stores(|store| store.table_reader_bytes)),
                ("pending_compaction".into(), stores(|store| store.pending_compaction_bytes)),
            ],
            rocksdb_cache_hits: cache.data_hits + cache.index_hits + cache.filter_hits,
            rocksdb_cache_misses: cache.data_misses + cache.index_misses + cache.filter_misses,
        }
    }
}

/// The label of a reason, which the engine knows by its words.
fn label(reason: &str) -> Cow<'static, str> {
    let known = Refusal::ALL.into_iter().find(|refusal| refusal.text() == reason);
    known.map_or_else(|| Cow::Owned(reason.to_owned()), |refusal| Cow::Borrowed(refusal.label()))
}

fn partition<L: ClickLog>(engine: &Engine<L>, task: &TaskStatus) -> PartitionTotals {
    PartitionTotals {
        topic: task.input().topic.to_string(),
        partition: task.input().partition.0,
        lag: engine.counts.records_behind(task.input(), task.committed),
        stream_time_ms: task.stream_time.map(|time| time.0),
    }
}

/// The partitions that nobody counts now: what waits there must not be lost from sight, so that every instance tells it.
fn unowned_partitions<L: ClickLog>(engine: &Engine<L>) -> Vec<PartitionTotals> {
    let directory = engine.registry.directory();
    if directory.instances.is_empty() {
        return Vec::new();
    }
    let is_owned = |input: &TopicPartition| directory.assignment.members.values().any(|roles| roles.active.contains(input));
    let unowned = engine.all_tasks().into_iter().filter(|task| !is_owned(&task.input));
    let totals = |task: KnownTask| PartitionTotals {
        topic: task.input.topic.to_string(),
        partition: task.input.partition.0,
        lag: task.lag,
        stream_time_ms: None,
    };
    unowned.map(totals).collect()
}

fn restore(task: &TaskStatus) -> Option<RestoreTotals> {
    let restore = task.restore?;
    let offsets = |from: i64, to: i64| (to - from).max(0) as u64;
    Some(RestoreTotals {
        task: task.id.to_string(),
        restored: offsets(restore.from.0, restore.position.0),
        remaining: offsets(restore.position.0, restore.end.0),
    })
}
