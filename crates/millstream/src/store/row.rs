//! The rows of a window store.
//!
//! Key: `i64 window start ‖ key`, big-endian, so that a window is one contiguous range in the order of its keys. (Starts are
//! not negative.) Value: `u8 1 ‖ varint (largest event time − window start) ‖ aggregate (compact)`.

use super::{StoreError, StoreErrorKind};
use crate::record::Timestamp;
use crate::varint;

const VERSION: u8 = 1;

/// A row's key.
pub(crate) fn key(start: Timestamp, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + key.len());
    bytes.extend_from_slice(&start.0.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// The first key that a row of a window with that start, or a later one, can have.
pub(crate) fn first_key(start: Timestamp) -> [u8; 8] {
    start.0.max(0).to_be_bytes()
}

/// Reads a row's key as (window start, key).
#[inline]
pub(crate) fn split_key(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (start, key) = bytes.split_first_chunk::<8>()?;
    Some((Timestamp(i64::from_be_bytes(*start)), key))
}

/// Appends everything of a row's value but the aggregate, which goes right behind.
#[inline]
pub(crate) fn encode_head(start: Timestamp, latest: Timestamp, into: &mut Vec<u8>) {
    into.push(VERSION);
    varint::put_unsigned(latest.0.saturating_sub(start.0).max(0) as u64, into);
}

/// Reads a row's value as (largest event time, aggregate in compact form).
#[inline]
pub(crate) fn decode(start: Timestamp, bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (&VERSION, mut rest) = bytes.split_first()? else { return None };
    let into_window = i64::try_from(varint::take_unsigned(&mut rest)?).ok()?;
    Some((Timestamp(start.0.checked_add(into_window)?), rest))
}

/// Reads a row of counts.
#[inline]
pub(crate) fn decode_count(bytes: &[u8]) -> Option<i64> {
    let (&VERSION, mut rest) = bytes.split_first()? else { return None };
    varint::take_unsigned(&mut rest)?;
    let count = varint::take_signed(&mut rest)?;
    rest.is_empty().then_some(count)
}

/// The error for a row that cannot be read.
pub(crate) fn unreadable(start: Timestamp, key: &[u8]) -> StoreError {
    let key = String::from_utf8_lossy(key);
    StoreError::new(StoreErrorKind::Corrupt, format!("the row of key {key:?} in the window from {start} cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_stands() {
        assert_eq!(key(Timestamp(300_000), b"ad"), b"\x00\x00\x00\x00\x00\x04\x93\xe0ad");
        let mut value = Vec::new();
        encode_head(Timestamp(300_000), Timestamp(300_200), &mut value);
        varint::put_signed(42, &mut value);
        assert_eq!(value, [1, 0xc8, 1, 84]);
        assert_eq!(decode_count(&value), Some(42));
    }

    proptest! {
        #[test]
        fn rows_round_trip_and_keys_keep_their_order(
            a in (0i64..1 << 60, prop::collection::vec(any::<u8>(), 0..6)),
            b in (0i64..1 << 60, prop::collection::vec(any::<u8>(), 0..6)),
            into_window in 0i64..1 << 40, count in any::<i64>(),
        ) {
            let (key_a, key_b) = (key(Timestamp(a.0), &a.1), key(Timestamp(b.0), &b.1));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(split_key(&key_a), Some((Timestamp(a.0), a.1.as_slice())));

            let (start, latest) = (Timestamp(a.0), Timestamp(a.0 + into_window));
            let mut value = Vec::new();
            encode_head(start, latest, &mut value);
            varint::put_signed(count, &mut value);
            prop_assert_eq!(decode(start, &value).map(|(t, _)| t), Some(latest));
            prop_assert_eq!(decode_count(&value), Some(count));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..24), start in any::<i64>()) {
            let _ = (split_key(&bytes), decode(Timestamp(start), &bytes), decode_count(&bytes));
        }
    }
}
