//! Integers of variable length, as Protocol Buffers write them: seven bits a byte, lowest first; signed ones zigzag.

/// Appends an unsigned integer.
#[inline]
pub(crate) fn put_unsigned(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Appends a signed integer.
#[inline]
pub(crate) fn put_signed(value: i64, into: &mut Vec<u8>) {
    put_unsigned(((value << 1) ^ (value >> 63)) as u64, into);
}

/// Takes an unsigned integer off the front, or gives none where there is no whole one.
#[inline]
pub(crate) fn take_unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a signed integer off the front, or gives none where there is no whole one.
#[inline]
pub(crate) fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let zigzag = take_unsigned(bytes)?;
    Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_round_trip(unsigned in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            put_unsigned(unsigned, &mut bytes);
            put_signed(signed, &mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!((take_unsigned(&mut rest), take_signed(&mut rest)), (Some(unsigned), Some(signed)));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut rest = bytes.as_slice();
            while take_signed(&mut rest).is_some() {}
        }
    }
}
