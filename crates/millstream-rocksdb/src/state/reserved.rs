//! RocksDB options that the store sets itself, because its promises rest on them.

/// Why an option may not be set, or none if it may.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    RESERVED.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}

const RESERVED: &[(&[&str], &str)] = &[
    (
        &["create_if_missing", "create_missing_column_families", "error_if_exists"],
        "a store is created where there is none, and only there",
    ),
    (
        &[
            "wal_dir",
            "WAL_ttl_seconds",
            "WAL_size_limit_MB",
            "manual_wal_flush",
            "max_total_wal_size",
            "recycle_log_file_num",
            "wal_bytes_per_sync",
            "wal_compression",
            "wal_recovery_mode",
            "async_wal_precreate",
            "background_close_inactive_wals",
            "track_and_verify_wals",
            "track_and_verify_wals_in_manifest",
        ],
        "a store has no write-ahead log: the changelog is its log",
    ),
    (
        &["atomic_flush", "avoid_flush_during_shutdown", "allow_2pc"],
        "rows and position are flushed together, or a crash would lose one without the other",
    ),
    (
        &[
            "paranoid_checks",
            "best_efforts_recovery",
            "skip_checking_sst_file_sizes_on_db_open",
            "verify_sst_unique_id_in_manifest",
            "open_files_async",
            "fast_sst_open",
            "force_consistency_checks",
            "checksum",
        ],
        "a damaged store must be noticed",
    ),
    (
        &["no_block_cache", "block_cache", "cache_index_and_filter_blocks", "db_write_buffer_size", "row_cache", "blob_cache"],
        "all stores share one cache and one write-buffer manager: set the memory budget instead",
    ),
    (&["disable_auto_compactions"], "a store refuses writes until compactions have made room, and would refuse them for ever"),
    (
        &["level0_slowdown_writes_trigger", "level0_stop_writes_trigger", "soft_pending_compaction_bytes_limit"],
        "a write is refused where it would wait, so that nothing waits with it and a full disk is reported",
    ),
    (
        &["comparator", "prefix_extractor", "merge_operator", "persist_user_defined_timestamps"],
        "rows are ordered bytewise and scanned in that order",
    ),
    (
        &[
            "compaction_filter",
            "compaction_filter_factory",
            "compaction_style",
            "compaction_options_fifo",
            "inplace_update_support",
            "unordered_write",
            "two_write_queues",
            "disallow_memtable_writes",
            "allow_ingest_behind",
            "cf_allow_ingest_behind",
        ],
        "a row stays until it is deleted, and a snapshot shows one moment",
    ),
    (
        &["table_factory", "block_based_table_factory", "plain_table_factory"],
        "options of the block-based table are set by their own names",
    ),
    (&["db_paths", "cf_paths", "env", "listeners", "statistics"], "the store provides its own"),
];
