//! The memory that all RocksDB instances of a process share, under one budget.

use rocksdb::{BlockBasedOptions, Cache, LruCacheOptions, Options, WriteBufferManager};

/// What RocksDB charges to nobody: buffers of flushes and compactions, table readers, the state of iterators.
const UNCHARGED_BYTES: usize = 32 << 20;

/// What part of the budget is left to the allocator, which never fits blocks of many sizes without gaps.
const ALLOCATOR_SHARE: usize = 8;

/// From this capacity on, the cache has four shards, each with a lock of its own.
const SHARDED_CAPACITY: usize = 128 << 20;

/// What part of the budget memtables may take before they are flushed.
const MEMTABLE_SHARE: usize = 4;

/// With what part of the budget in memtables nothing more is written before some are flushed.
const FULL_SHARE: usize = 2;

/// One block cache and one write-buffer manager for all stores and the embedded broker of a process.
///
/// - The cache gets the budget but for an eighth and 32 MiB (half of it at least): what RocksDB takes without charging it has to
///   fit in too. Blocks of data, index and filters live in the cache, and memtables are charged to it: as they grow, blocks go.
/// - Memtables start to be flushed when they reach a quarter of the budget. Where writes outrun flushes, restores wait once memtables hold
///   three eighths of it, and at half nothing is written.
/// - The cache is not strict: where everything in it is pinned it takes one block more rather than fail a read. What is pinned is
///   the memtables, bounded as above, and one block for each level and iterator.
///
/// Clones share the same memory.
#[derive(Clone)]
pub struct MemoryBudget {
    bytes: usize,
    cache: Cache,
    write_buffers: WriteBufferManager,
}

impl MemoryBudget {
    /// A budget of that many bytes. Less than 128 MiB works, but the process will take more than that.
    pub fn new(bytes: usize) -> Self {
        let uncharged = (bytes / ALLOCATOR_SHARE + UNCHARGED_BYTES).min(bytes / 2);
        let cache = lru_cache(bytes - uncharged);
        // Stalls by the write-buffer manager would hang on a full disk, where no flush can make room.
        let allow_stall = false;
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(bytes / MEMTABLE_SHARE, allow_stall, cache.clone());
        Self { bytes, cache, write_buffers }
    }

    /// The budget in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a RocksDB instance under this budget: its memtables through `options`, its blocks (index and filters among them)
    /// through `table`. The caller then sets `table` as the table factory of every column family's options.
    pub fn charge(&self, options: &mut Options, table: &mut BlockBasedOptions) {
        options.set_write_buffer_manager(&self.write_buffers);
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
    }

    /// Whether memtables hold so much that nothing more may be written before some are flushed.
    pub fn memtables_are_full(&self) -> bool {
        self.write_buffers.get_usage() >= self.bytes / FULL_SHARE
    }

    /// Whether memtables hold so much that what can wait has to: the room that is left is for whoever counts.
    pub fn memtables_are_scarce(&self) -> bool {
        self.write_buffers.get_usage() >= self.bytes / FULL_SHARE / 4 * 3
    }

    /// What is in use now.
    pub fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            cache_bytes: self.cache.get_usage(),
            pinned_bytes: self.cache.get_pinned_usage(),
            memtable_bytes: self.write_buffers.get_usage(),
        }
    }
}

/// Not the clock cache, which goes past its capacity where memtables pin most of it. Few shards, so that those pins, a quarter
/// of a megabyte each, spread evenly.
fn lru_cache(capacity: usize) -> Cache {
    let shard_bits = if capacity < SHARDED_CAPACITY { 0 } else { 2 };
    let mut options = LruCacheOptions::default();
    options.set_capacity(capacity);
    options.set_num_shard_bits(shard_bits);
    Cache::new_lru_cache_opts(&options)
}

impl std::fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBudget").field("bytes", &self.bytes).field("usage", &self.usage()).finish()
    }
}

/// What of a [`MemoryBudget`] is in use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// What the cache holds: blocks, and the memtables charged to it.
    pub cache_bytes: usize,
    /// The part of the cache that cannot be evicted now: memtables, and blocks being read.
    pub pinned_bytes: usize,
    /// Memtables, those being flushed included.
    pub memtable_bytes: usize,
}
