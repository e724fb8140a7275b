//! Tuning of state stores.

use std::collections::BTreeMap;

use rocksdb::statistics::StatsLevel;
use rocksdb::{BlockBasedIndexType, BlockBasedOptions, DBCompressionType, DataBlockIndexType, LogLevel, Options};

use super::reserved;
use crate::memory::MemoryBudget;

/// How many files may wait in level 0 before writes are refused until compactions have made room.
pub(super) const LEVEL0_FILES_TO_STOP: u16 = 24;

/// Options of state stores: those that matter for this job with a type and a default, and any RocksDB option by its own name.
///
/// A change takes effect when a store is next opened; none needs a store to be rebuilt.
#[derive(Debug, Clone, PartialEq)]
pub struct RocksDbOptions {
    /// Bytes that a store collects in memory before it writes a file. It bounds what a crash costs: the changelog is replayed
    /// from the last flush. Default 64 MiB, but a sixteenth of the memory budget at most.
    pub write_buffer_size: usize,
    /// Bytes of rows in a block before compression: what one read brings into the cache. Default 16 KiB.
    pub block_size: usize,
    /// Bits that the bloom filter takes for each row; 10 lets 1 % of the lookups of absent rows through. 0: no filter.
    pub bloom_bits_per_key: f64,
    /// How files are compressed, those of the last level excepted. Default [`Compression::Lz4`].
    pub compression: Compression,
    /// How the last level is compressed, where most of the data lies. Default [`Compression::Zstd`].
    pub bottommost_compression: Compression,
    /// Threads for flushes and compactions, shared by all stores. Default 2.
    pub max_background_jobs: u16,
    /// Any other option of RocksDB 11, by the name and in the notation of its option strings: options of the instance, of the
    /// column families and of the block-based table. They win over the fields above, and apply to all column families alike.
    pub named: BTreeMap<String, String>,
}

impl Default for RocksDbOptions {
    fn default() -> Self {
        Self {
            write_buffer_size: 64 << 20,
            block_size: 16 << 10,
            bloom_bits_per_key: 10.0,
            compression: Compression::Lz4,
            bottommost_compression: Compression::Zstd,
            max_background_jobs: 2,
            named: BTreeMap::new(),
        }
    }
}

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast, to about half the size.
    Lz4,
    /// Slower, smaller.
    Zstd,
}

impl From<Compression> for DBCompressionType {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}

/// An option that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("RocksDB option {name}: {reason}")]
pub struct InvalidOption {
    /// The option's name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Sees, and may change, the options of each store before it opens: tuning of one store apart from the others.
///
/// What Kafka Streams' `RocksDBConfigSetter` is. It gets typed options and names instead of RocksDB's objects, so that a
/// wrong option is refused here as it is in a configuration file.
pub trait RocksDbConfigSetter: Send + Sync + 'static {
    /// Called before a partition of that store opens, with the options that all stores have.
    fn set_config(&self, store: &str, options: &mut RocksDbOptions);
}

/// RocksDB's options for one store.
pub(super) struct StoreOptions {
    /// The instance, and the column family of the rows.
    pub(super) rows: Options,
    /// The other column families: metadata, what is derived, and the default one, which is never used.
    pub(super) small: Options,
}

impl RocksDbOptions {
    /// Checks every option without opening anything.
    ///
    /// # Errors
    /// The first option with an unknown name, a value that RocksDB does not read, or that a store sets itself.
    pub fn validate(&self) -> Result<(), InvalidOption> {
        self.build(&MemoryBudget::new(self.write_buffer_size), Options::default()).map(|_| ())
    }

    /// RocksDB's options under that budget. `base` carries what all stores of a provider share.
    pub(super) fn build(&self, budget: &MemoryBudget, base: Options) -> Result<StoreOptions, InvalidOption> {
        let mut rows = base;
        self.set_typed(&mut rows, budget);
        let mut table = self.table();
        budget.charge(&mut rows, &mut table);
        rows.set_block_based_table_factory(&table);
        let mut rows = set_named(rows, &self.named)?;
        set_invariants(&mut rows);
        let mut small = rows.clone();
        // A few small entries for each commit or window; a full-size arena for each partition would waste the budget.
        small.set_arena_block_size(64 << 10);
        Ok(StoreOptions { rows, small })
    }

    fn set_typed(&self, options: &mut Options, budget: &MemoryBudget) {
        let write_buffer_size = self.write_buffer_size.min(budget.bytes() / 16);
        options.set_write_buffer_size(write_buffer_size);
        options.set_max_write_buffer_number(3);
        options.set_target_file_size_base(write_buffer_size as u64);
        options.set_max_bytes_for_level_base(4 * write_buffer_size as u64);
        options.set_compression_type(self.compression.into());
        options.set_bottommost_compression_type(self.bottommost_compression.into());
        options.set_max_background_jobs(self.max_background_jobs.into());
        // A commit asks for many rows that are not there yet: the first clicks of each ad in a window.
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
        // Only one thread writes to a store.
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);
        // Spread the writing of files, or the kernel does it all at once and holds up everybody.
        options.set_bytes_per_sync(1 << 20);
        options.set_skip_stats_update_on_db_open(true);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(1 << 20);
        options.set_keep_log_file_num(2);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
    }

    fn table(&self) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_size(self.block_size);
        if self.bloom_bits_per_key > 0.0 {
            table.set_bloom_filter(self.bloom_bits_per_key, false);
            table.set_whole_key_filtering(true);
        }
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        // In parts, so that a small cache need not hold the whole filter of a file to answer for one key.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(8 << 10);
        table.set_pin_top_level_index_and_filter(true);
        table
    }
}

/// Statistics for all stores whose options are made from these.
pub(super) fn shared_options() -> Options {
    let mut options = Options::default();
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options
}

/// What a store's promises rest on, set last so that nothing undoes it.
fn set_invariants(options: &mut Options) {
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    // RocksDB must not slow writes down: it refuses them (see `RocksStore::write`), or lets them pass.
    options.set_level_zero_slowdown_writes_trigger(LEVEL0_FILES_TO_STOP.into());
    options.set_level_zero_stop_writes_trigger(LEVEL0_FILES_TO_STOP.into());
    options.set_soft_pending_compaction_bytes_limit(0);
}

fn set_named(mut options: Options, named: &BTreeMap<String, String>) -> Result<Options, InvalidOption> {
    for (name, value) in named {
        options = set_one(options, name, value.trim()).map_err(|reason| InvalidOption { name: name.clone(), reason })?;
    }
    Ok(options)
}

/// A name is looked up among the options of instance and column families first, then among those of the block-based table.
/// No name means two things.
fn set_one(mut options: Options, name: &str, value: &str) -> Result<Options, String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("is not a name".to_owned());
    }
    if let Some(reason) = reserved::reason(name) {
        return Err(format!("cannot be set: {reason}"));
    }
    // With so many files the store refuses writes until a compaction has made room: it has to begin before.
    if name == "level0_file_num_compaction_trigger"
        && !value.parse().is_ok_and(|files: u16| (1..LEVEL0_FILES_TO_STOP).contains(&files))
    {
        return Err(format!("`{value}` is refused: a whole number from 1 to {} is accepted", LEVEL0_FILES_TO_STOP - 1));
    }
    if !is_one_value(value) {
        return Err(format!("`{value}` is not one value; a list of options goes into braces"));
    }
    let of_database = options.get_options_from_string(format!("{name}={value}"));
    let refused = match of_database {
        Ok(set) => return Ok(set),
        Err(refused) => refused,
    };
    if !is_unknown(&refused) {
        return Err(format!("`{value}` is refused: {refused}"));
    }
    options.get_options_from_string(format!("block_based_table_factory={{{name}={value}}}")).map_err(|refused| {
        if is_unknown(&refused) { "RocksDB has no such option".to_owned() } else { format!("`{value}` is refused: {refused}") }
    })
}

fn is_unknown(error: &rocksdb::Error) -> bool {
    ["Could not find option", "option not recognized"].iter().any(|text| error.as_ref().contains(text))
}

/// Whether an option string would read `value` as the value of one option: plain, or one pair of braces around the whole.
fn is_one_value(value: &str) -> bool {
    let mut depth = 0_usize;
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'{' if at == 0 || depth > 0 => depth += 1,
            b'}' if depth > 1 || (depth == 1 && at + 1 == value.len()) => depth -= 1,
            b'{' | b'}' => return false,
            b';' if depth == 0 => return false,
            _ => {}
        }
    }
    depth == 0 && !value.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_named(name: &str, value: &str) -> Result<(), InvalidOption> {
        let named = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        RocksDbOptions { named, ..Default::default() }.validate()
    }

    #[test]
    fn any_option_is_known_by_its_own_name() {
        for (name, value) in [
            ("max_open_files", "500"),
            ("bytes_per_sync", "4M"),
            ("write_buffer_size", "8M"),
            ("compression_per_level", "kNoCompression:kLZ4Compression:kZSTD"),
            ("compression_opts", "{level=3;max_dict_bytes=16384}"),
            ("ttl", "3600"),
            ("block_size", "8192"),
            ("filter_policy", "ribbonfilter:12"),
            ("metadata_block_size", "4096"),
            ("memtable_insert_with_hint_prefix_extractor", "rocksdb.FixedPrefix.8"),
        ] {
            assert_eq!(with_named(name, value), Ok(()));
        }
    }

    #[test]
    fn a_wrong_name_or_value_is_refused_with_its_name() {
        for (name, value) in [
            ("max_open_fils", "500"),
            ("max_open_files", "many"),
            ("block_size", "big"),
            ("compression", "kBest"),
            ("max_open_files", "5;paranoid_checks=false"),
            ("max_open_files", "{5};paranoid_checks=false"),
            ("max_open_files", "5}"),
            ("block_size", "4096;checksum=kNoChecksum"),
            ("max_open_files=3;ttl", "5"),
            ("", ""),
            ("ttl", ""),
        ] {
            let refused = with_named(name, value).expect_err(value);
            assert_eq!(refused.name, name);
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }

    #[test]
    fn what_the_store_owns_is_refused_with_the_reason() {
        for (name, value) in [("atomic_flush", "false"), ("comparator", "x"), ("block_cache", "1M"), ("wal_dir", "/tmp")] {
            let refused = with_named(name, value).expect_err(name);
            assert!(refused.reason.starts_with("cannot be set: "), "{refused}");
        }
    }
}
