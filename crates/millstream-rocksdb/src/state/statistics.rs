//! What RocksDB says of itself, for metrics and for tuning.

use millstream::record::Partition;
use millstream::store::{Space, StoreError};
use rocksdb::Options;
use rocksdb::properties;
use rocksdb::statistics::Ticker;

use super::open_stores::OpenStoresByName;
use super::store::StoreInner;
use crate::memory::{MemoryBudget, MemoryUsage};

/// The state of all stores of a provider. Counters count from the start of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatistics {
    /// The memory budget in bytes.
    pub budget_bytes: usize,
    /// What of the budget is in use; the embedded broker's part is included where it shares it.
    pub memory: MemoryUsage,
    /// Reads through the cache.
    pub cache: CacheStatistics,
    /// Lookups of absent rows that a bloom filter answered.
    pub bloom_useful: u64,
    /// Bytes written by flushes.
    pub flush_write_bytes: u64,
    /// Bytes read by compactions.
    pub compaction_read_bytes: u64,
    /// Bytes written by compactions.
    pub compaction_write_bytes: u64,
    /// Each open store, by name and partition.
    pub stores: Vec<StoreSize>,
}

/// How often a block was in the cache when it was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Blocks of rows found.
    pub data_hits: u64,
    /// Blocks of rows read from files.
    pub data_misses: u64,
    /// Index blocks found.
    pub index_hits: u64,
    /// Index blocks read from files.
    pub index_misses: u64,
    /// Filter blocks found.
    pub filter_hits: u64,
    /// Filter blocks read from files.
    pub filter_misses: u64,
}

/// One open store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSize {
    /// The store's name.
    pub store: String,
    /// Its partition.
    pub partition: Partition,
    /// Rows, estimated.
    pub estimated_rows: u64,
    /// Bytes of the files that hold rows, metadata and rankings.
    pub file_bytes: u64,
    /// Bytes in memtables, not yet or just now being flushed.
    pub memtable_bytes: u64,
    /// Bytes that table readers hold outside the cache.
    pub table_reader_bytes: u64,
    /// Bytes that compactions have yet to rewrite.
    pub pending_compaction_bytes: u64,
    /// Files of rows in level 0.
    pub level0_files: u64,
    /// Whether writes wait for flushes or compactions now.
    pub write_stopped: bool,
    /// How often a call has waited for flushes or compactions, or was refused because of them, since the store was opened.
    pub stalls: u64,
    /// Flushes and compactions that failed since the store was opened.
    pub background_errors: u64,
}

pub(super) fn statistics(shared: &Options, budget: &MemoryBudget, stores: &OpenStoresByName) -> StoreStatistics {
    let count = |ticker| shared.get_ticker_count(ticker);
    StoreStatistics {
        budget_bytes: budget.bytes(),
        memory: budget.usage(),
        cache: CacheStatistics {
            data_hits: count(Ticker::BlockCacheDataHit),
            data_misses: count(Ticker::BlockCacheDataMiss),
            index_hits: count(Ticker::BlockCacheIndexHit),
            index_misses: count(Ticker::BlockCacheIndexMiss),
            filter_hits: count(Ticker::BlockCacheFilterHit),
            filter_misses: count(Ticker::BlockCacheFilterMiss),
        },
        bloom_useful: count(Ticker::BloomFilterUseful),
        flush_write_bytes: count(Ticker::FlushWriteBytes),
        compaction_read_bytes: count(Ticker::CompactReadBytes),
        compaction_write_bytes: count(Ticker::CompactWriteBytes),
        // A property fails only where a column family is gone, and then the store reports it on its next call.
        stores: stores.iter().filter_map(|((store, partition), inner)| size(store, *partition, inner).ok()).collect(),
    }
}

fn size(store: &str, partition: Partition, inner: &StoreInner) -> Result<StoreSize, StoreError> {
    let rows = |name| inner.database.property(Space::Rows, name);
    let all = |name| inner.database.property_of_all(name);
    Ok(StoreSize {
        store: store.to_owned(),
        partition,
        estimated_rows: rows(properties::ESTIMATE_NUM_KEYS)?,
        file_bytes: all(properties::LIVE_SST_FILES_SIZE)?,
        memtable_bytes: all(properties::CUR_SIZE_ALL_MEM_TABLES)?,
        table_reader_bytes: all(properties::ESTIMATE_TABLE_READERS_MEM)?,
        pending_compaction_bytes: all(properties::ESTIMATE_PENDING_COMPACTION_BYTES)?,
        level0_files: inner.database.level0_files(Space::Rows)?.into(),
        write_stopped: rows(properties::IS_WRITE_STOPPED)? > 0,
        stalls: inner.stalls(),
        background_errors: rows(properties::BACKGROUND_ERRORS)?,
    })
}
