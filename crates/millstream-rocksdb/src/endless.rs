//! Damage that RocksDB would read for ever.
//!
//! Manifests and write-ahead logs are blocks of 32 KiB with records in them: `u32 CRC ‖ u16 length ‖ u8 type ‖ data`, little-endian. Some
//! types belong to log files that are used again and again, which ours never are. Where a damaged byte makes one of them in the middle
//! of a file, RocksDB (11.8: `log::Reader::ReadPhysicalRecord`) gives it up without going past it, and so meets it again at once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const TYPE: usize = 6;

/// A type that RocksDB does not know: it goes by the checksum, which is wrong then.
const UNKNOWN_TYPE: u8 = 0x7f;

/// Where the type of the first record is that would be read for ever; none in a file as RocksDB writes it.
pub(crate) fn endless_record(path: &Path) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let mut block = Vec::with_capacity(BLOCK);
    for number in 0_u64.. {
        block.clear();
        if (&mut file).take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            break;
        }
        if let Some(at) = endless_in_block(&block) {
            return Ok(Some(number * BLOCK as u64 + at as u64));
        }
        if block.len() < BLOCK {
            break;
        }
    }
    Ok(None)
}

/// Makes such a record one that is only damaged, so that RocksDB does about it what it does about damage.
pub(crate) fn end(path: &Path, at: u64) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[UNKNOWN_TYPE])?;
    file.sync_all()
}

fn endless_in_block(block: &[u8]) -> Option<usize> {
    let mut rest = block;
    while let Some((header, data)) = rest.split_first_chunk::<HEADER>() {
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        match header[TYPE] {
            // Reused: full, first, middle, last, timestamp size, predecessor.
            5..=8 | 11 | 131 => return Some(block.len() - rest.len() + TYPE),
            // RocksDB leaves the block here.
            0 if length == 0 => return None,
            _ => rest = data.get(length..)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: u16) -> Vec<u8> {
        let mut bytes = vec![0xC5; 4];
        bytes.extend(length.to_le_bytes());
        bytes.push(kind);
        bytes.resize(bytes.len() + usize::from(length), 7);
        bytes
    }

    fn found(bytes: &[u8]) -> Option<u64> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let found = endless_record(file.path()).unwrap();
        if let Some(at) = found {
            end(file.path(), at).unwrap();
            assert_ne!(endless_record(file.path()).unwrap(), found);
        }
        found
    }

    #[test]
    fn records_of_reused_files_are_found_wherever_they_lie() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[record(1, 100), record(2, 5), record(4, 0)].concat()), None);
        for kind in [5, 6, 7, 8, 11, 131] {
            assert_eq!(found(&[record(1, 100), record(kind, 5), record(1, 9)].concat()), Some(113));
        }
        let mut blocks = record(1, 100);
        blocks.resize(BLOCK, 0);
        assert_eq!(found(&[blocks.clone(), record(3, 2), record(7, 2)].concat()), Some(BLOCK as u64 + 15));
        // What lies behind a length that leads out of the block is not read, nor what is too short for a record.
        assert_eq!(found(&[record(1, 3), record(1, 60_000)[..9].to_vec(), record(6, 0)].concat()), None);
        assert_eq!(found(&[record(1, 3), vec![5; 6]].concat()), None);
    }
}
