//! How RocksDB is set up to hold a log: written once, read from anywhere, deleted from the head.

use rocksdb::{BlockBasedOptions, DBCompressionType, DBRecoveryMode, Options, ReadOptions, WriteOptions};

use crate::memory::MemoryBudget;

/// A memtable is flushed at this size, or earlier where the budget is short.
const WRITE_BUFFER: usize = 32 << 20;

/// What a restart replays at most, near enough.
const WAL_BYTES: u64 = 128 << 20;

/// Batches from this size on lie in blob files: written once by the flush, never moved by a compaction, and removed as a file
/// when nothing in it is left.
const MIN_BLOB: u64 = 4 << 10;

/// Writes wait for compactions from so many files in level 0 on.
const LEVEL0_FILES_TO_STOP: i32 = 36;

/// The options of the instance and of both column families.
pub(super) struct LogOptions {
    pub(super) instance: Options,
    pub(super) batches: Options,
    pub(super) entries: Options,
}

impl LogOptions {
    pub(super) fn new(memory: &MemoryBudget) -> Self {
        let mut instance = Options::default();
        instance.create_if_missing(true);
        instance.create_missing_column_families(true);
        instance.set_max_background_jobs(2);
        instance.set_max_total_wal_size(WAL_BYTES);
        instance.set_max_open_files(512);
        // RocksDB's own diary, which would grow for as long as the process runs.
        instance.set_max_log_file_size(4 << 20);
        instance.set_keep_log_file_num(4);
        // The log ends at the first record that is not whole: a write that a power loss cut off had not been acknowledged,
        // whichever of its pages reached the disk. The manifest knows how far closed log files were synced.
        instance.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        instance.set_track_and_verify_wals_in_manifest(true);
        let mut table = BlockBasedOptions::default();
        table.set_block_size(16 << 10);
        table.set_bloom_filter(10.0, false);
        memory.charge(&mut instance, &mut table);

        let mut family = instance.clone();
        family.set_block_based_table_factory(&table);
        family.set_write_buffer_size(WRITE_BUFFER.min(memory.bytes() / 16));
        family.set_compression_type(DBCompressionType::Lz4);
        // A write is never slowed down, only refused where it would be stopped.
        family.set_level_zero_slowdown_writes_trigger(LEVEL0_FILES_TO_STOP);
        family.set_level_zero_stop_writes_trigger(LEVEL0_FILES_TO_STOP);
        let entries = family.clone();
        let mut batches = family;
        batches.set_enable_blob_files(true);
        batches.set_min_blob_size(MIN_BLOB);
        batches.set_blob_file_size(64 << 20);
        batches.set_blob_compression_type(DBCompressionType::Lz4);
        batches.set_enable_blob_gc(true);
        batches.set_blob_gc_force_threshold(0.5);
        Self { instance, batches, entries }
    }
}

/// Every write is synced: what the broker acknowledges is on the disk. One that would have to wait is refused: RocksDB would
/// wait for a flush that a full disk keeps from ending.
pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options.set_no_slowdown(true);
    options
}

/// Reads of a log, up to that key. They leave the cache to those who read a thing twice.
pub(super) fn sequential(upper_bound: [u8; 16]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_iterate_upper_bound(upper_bound);
    options
}
