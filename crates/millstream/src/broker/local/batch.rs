//! The bytes of a stored record batch: one value in the storage holds many records.
//!
//! Integers are big-endian, `varint` is unsigned LEB128, `zigzag` a signed one folded into it.
//!
//! ```text
//!  0  u8   version, 1
//!  1  u32  CRC-32C of everything from byte 5 on
//!  5  u32  length of everything from byte 9 on
//!  9  i64  first offset that the batch stands for
//! 17  i64  last offset that the batch stands for
//! 25  i64  timestamp that the records' own are counted from
//! 33  i64  largest timestamp of a record
//! 41  i64  when compaction first kept the tombstones in it, -1 where it never has
//! 49  u32  number of records
//! 53  the records, each:
//!          varint offset - first offset, zigzag timestamp - base timestamp,
//!          varint key length + 1 (0: no key), key, varint value length + 1 (0: tombstone), value,
//!          varint length of the headers, headers (as `Headers` has them)
//! ```
//!
//! Offsets rise but may have holes: compaction takes records out and leaves the range of offsets as it was.

use crate::record::{Headers, Offset, Record, Timestamp};

const VERSION: u8 = 1;
const CRC_AT: usize = 1;
const LENGTH_AT: usize = 5;
const BODY_AT: usize = 9;
const RECORDS_AT: usize = 53;

/// A batch is full at this size, or at [`FULL_RECORDS`]; one record may be larger.
const FULL_BYTES: usize = 512 << 10;
const FULL_RECORDS: u32 = 4096;

/// The mark of a batch that compaction has not gone over.
pub(super) const NEVER_CLEANED: Timestamp = Timestamp(-1);

/// The bytes are not those of a batch that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct CorruptBatch(&'static str);

/// What stands before the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// The first offset that the batch stands for.
    pub(super) first: Offset,
    /// The last offset that the batch stands for.
    pub(super) last: Offset,
    /// The largest timestamp of a record.
    pub(super) max_timestamp: Timestamp,
    /// When compaction first kept the batch's tombstones.
    pub(super) tombstones_kept_since: Timestamp,
    /// How many records there are.
    pub(super) records: u32,
    base_timestamp: Timestamp,
}

/// Builds one batch. The offsets are given when it is finished, so that records may be encoded before their place is known.
#[derive(Debug, Clone)]
pub(super) struct BatchBuilder {
    bytes: Vec<u8>,
    records: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; RECORDS_AT], records: 0, base_timestamp: Timestamp(0), max_timestamp: Timestamp(i64::MIN) }
    }

    /// Adds a record at the next offset.
    pub(super) fn push(&mut self, record: &Record<'_>) {
        self.push_at(u64::from(self.records), record);
    }

    /// Adds a record so many offsets after the batch's first; they must rise.
    pub(super) fn push_at(&mut self, offset_delta: u64, record: &Record<'_>) {
        if self.records == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.records += 1;
        put_varint(&mut self.bytes, offset_delta);
        put_varint(&mut self.bytes, zigzag(record.timestamp.0.wrapping_sub(self.base_timestamp.0)));
        put_optional(&mut self.bytes, record.key);
        put_optional(&mut self.bytes, record.value);
        put_varint(&mut self.bytes, record.headers.as_bytes().len() as u64);
        self.bytes.extend_from_slice(record.headers.as_bytes());
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    pub(super) fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// Whether the next record should go into another batch.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES || self.records >= FULL_RECORDS
    }

    /// The length of the batch as it is now.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The batch for the offsets `first ..= last`.
    pub(super) fn finish(&self, first: Offset, last: Offset, tombstones_kept_since: Timestamp) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = (bytes.len() - BODY_AT) as u32;
        bytes[0] = VERSION;
        bytes[LENGTH_AT..BODY_AT].copy_from_slice(&length.to_be_bytes());
        let fields = [first.0, last.0, self.base_timestamp.0, self.max_timestamp.0, tombstones_kept_since.0];
        for (i, field) in fields.into_iter().enumerate() {
            bytes[BODY_AT + 8 * i..BODY_AT + 8 * (i + 1)].copy_from_slice(&field.to_be_bytes());
        }
        bytes[RECORDS_AT - 4..RECORDS_AT].copy_from_slice(&self.records.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[LENGTH_AT..]);
        bytes[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// Splits one batch, whole, off the front of `bytes`, and gives its header. The checksum is not looked at yet.
pub(super) fn split_batch(bytes: &[u8]) -> Result<(BatchHeader, &[u8], &[u8]), CorruptBatch> {
    let head = bytes.first_chunk::<RECORDS_AT>().ok_or(CorruptBatch("shorter than a header"))?;
    if head[0] != VERSION {
        return Err(CorruptBatch("of an unknown version"));
    }
    let length = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize;
    if length < RECORDS_AT - BODY_AT {
        return Err(CorruptBatch("of an impossible length"));
    }
    let (batch, rest) = bytes.split_at_checked(BODY_AT + length).ok_or(CorruptBatch("cut short"))?;
    let header = BatchHeader {
        first: Offset(field(head, 0)),
        last: Offset(field(head, 1)),
        base_timestamp: Timestamp(field(head, 2)),
        max_timestamp: Timestamp(field(head, 3)),
        tombstones_kept_since: Timestamp(field(head, 4)),
        records: u32::from_be_bytes([head[49], head[50], head[51], head[52]]),
    };
    Ok((header, batch, rest))
}

fn field(head: &[u8; RECORDS_AT], index: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&head[BODY_AT + 8 * index..BODY_AT + 8 * (index + 1)]);
    i64::from_be_bytes(bytes)
}

/// Checks a batch that [`split_batch`] gave and appends its records from the offset `from` on.
pub(super) fn decode_records<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    from: Offset,
    into: &mut Vec<Record<'a>>,
) -> Result<(), CorruptBatch> {
    let stored = u32::from_be_bytes([batch[1], batch[2], batch[3], batch[4]]);
    if crc32c::crc32c(&batch[LENGTH_AT..]) != stored {
        return Err(CorruptBatch("its checksum does not match"));
    }
    let mut reader = RecordReader(&batch[RECORDS_AT..]);
    for _ in 0..header.records {
        let record = reader.record(header).ok_or(CorruptBatch("a record is cut short"))?;
        if record.offset >= from {
            into.push(record);
        }
    }
    if reader.0.is_empty() { Ok(()) } else { Err(CorruptBatch("bytes follow its last record")) }
}

struct RecordReader<'a>(&'a [u8]);

impl<'a> RecordReader<'a> {
    fn record(&mut self, header: &BatchHeader) -> Option<Record<'a>> {
        let offset = Offset(header.first.0.checked_add_unsigned(self.varint()?)?);
        if offset > header.last {
            return None;
        }
        let timestamp = Timestamp(header.base_timestamp.0.wrapping_add(unzigzag(self.varint()?)));
        let key = self.optional()?;
        let value = self.optional()?;
        let headers_length = self.varint()?;
        let headers = if headers_length == 0 { Headers::EMPTY } else { Headers::decode(self.take(headers_length)?)? };
        Some(Record { key, value, timestamp, offset, headers })
    }

    fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            0 => Some(None),
            length => self.take(length - 1).map(Some),
        }
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length.try_into().ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

fn put_optional(bytes: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        None => bytes.push(0),
        Some(part) => {
            put_varint(bytes, part.len() as u64 + 1);
            bytes.extend_from_slice(part);
        }
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::HeadersBuf;
    use proptest::prelude::*;

    type Owned = (Option<Vec<u8>>, Option<Vec<u8>>, i64, Option<Vec<u8>>);

    fn any_record() -> impl Strategy<Value = Owned> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..300));
        (bytes(), bytes(), any::<i64>(), bytes())
    }

    proptest! {
        #[test]
        fn records_round_trip(records in prop::collection::vec(any_record(), 0..20), first in 0..i64::MAX / 2) {
            let mut builder = BatchBuilder::new();
            let headers: Vec<HeadersBuf> = records.iter().map(|record| {
                let mut headers = HeadersBuf::new();
                if let Some(value) = &record.3 {
                    headers.push("name", value);
                }
                headers
            }).collect();
            let expected: Vec<Record<'_>> = records.iter().zip(&headers).enumerate().map(|(i, ((key, value, time, _), headers))| {
                let record = Record::new(key.as_deref(), value.as_deref(), Timestamp(*time)).with_headers(headers.as_headers());
                Record { offset: Offset(first + i as i64), ..record }
            }).collect();
            for record in &expected {
                builder.push(record);
            }
            let last = Offset(first + records.len() as i64);
            let mut bytes = builder.finish(Offset(first), last, NEVER_CLEANED);
            bytes.extend_from_slice(b"next");
            let (header, batch, rest) = split_batch(&bytes).unwrap();
            prop_assert_eq!(rest, b"next");
            prop_assert_eq!((header.first, header.last), (Offset(first), last));
            prop_assert_eq!(header.max_timestamp.0, records.iter().map(|r| r.2).max().unwrap_or(i64::MIN));
            let mut read = Vec::new();
            decode_records(&header, batch, Offset(first), &mut read).unwrap();
            prop_assert_eq!(&read, &expected);
            read.clear();
            decode_records(&header, batch, Offset(first + 3), &mut read).unwrap();
            prop_assert_eq!(&read[..], expected.get(3..).unwrap_or(&[]));
        }

        #[test]
        fn a_flipped_bit_is_noticed(records in prop::collection::vec(any_record(), 1..5), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut builder = BatchBuilder::new();
            for (key, value, time, _) in &records {
                builder.push(&Record::new(key.as_deref(), value.as_deref(), Timestamp(*time)));
            }
            let mut bytes = builder.finish(Offset(7), Offset(100), NEVER_CLEANED);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let outcome = split_batch(&bytes).and_then(|(header, batch, _)| decode_records(&header, batch, Offset(0), &mut Vec::new()));
            prop_assert!(outcome.is_err());
        }

        #[test]
        fn any_bytes_decode_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = split_batch(&bytes);
            if bytes.len() >= RECORDS_AT {
                // As a batch whose checksum is right: what the records' decoder makes of it.
                bytes[0] = VERSION;
                let length = (bytes.len() - BODY_AT) as u32;
                bytes[LENGTH_AT..BODY_AT].copy_from_slice(&length.to_be_bytes());
                let crc = crc32c::crc32c(&bytes[LENGTH_AT..]);
                bytes[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_be_bytes());
                let (header, batch, _) = split_batch(&bytes).unwrap();
                let _ = decode_records(&header, batch, Offset(0), &mut Vec::new());
            }
        }
    }

    #[test]
    fn the_layout_stands() {
        let mut headers = HeadersBuf::new();
        headers.push("h", b"x");
        let mut builder = BatchBuilder::new();
        builder.push(&Record::new(Some(b"k"), Some(b"v1"), Timestamp(1000)));
        builder.push_at(3, &Record::new(None, None, Timestamp(998)).with_headers(headers.as_headers()));
        let bytes = builder.finish(Offset(5), Offset(8), Timestamp(-1));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "01",
            "4b5eea71",
            "00000041",
            "0000000000000005",
            "0000000000000008",
            "00000000000003e8",
            "00000000000003e8",
            "ffffffffffffffff",
            "00000002",
            "0000026b03763100",
            "03030000080001680000000178",
        ];
        assert_eq!(hex, expected.concat());
    }
}
