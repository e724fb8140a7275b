use super::{Deserializer, Rejection, Serializer};

/// Bytes as they are, null included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes;

/// UTF-8 text (Kafka's `StringSerializer`). Null is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Utf8;

/// 64-bit integers, big-endian (Kafka's `LongSerializer`). Null is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Long;

/// 32-bit integers, big-endian (Kafka's `IntegerSerializer`). Null is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Int;

impl Deserializer for Bytes {
    type Output<'r> = Option<&'r [u8]>;

    fn deserialize<'r>(&self, bytes: Option<&'r [u8]>) -> Result<Option<&'r [u8]>, Rejection> {
        Ok(bytes)
    }
}

impl Deserializer for Utf8 {
    type Output<'r> = &'r str;

    fn deserialize<'r>(&self, bytes: Option<&'r [u8]>) -> Result<&'r str, Rejection> {
        std::str::from_utf8(not_null(bytes)?).map_err(|_| Rejection::new("not UTF-8"))
    }
}

impl Deserializer for Long {
    type Output<'r> = i64;

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<i64, Rejection> {
        let bytes = not_null(bytes)?.try_into().map_err(|_| Rejection::new("not 8 bytes long"))?;
        Ok(i64::from_be_bytes(bytes))
    }
}

impl Deserializer for Int {
    type Output<'r> = i32;

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<i32, Rejection> {
        let bytes = not_null(bytes)?.try_into().map_err(|_| Rejection::new("not 4 bytes long"))?;
        Ok(i32::from_be_bytes(bytes))
    }
}

impl<T: AsRef<[u8]> + ?Sized> Serializer<T> for Bytes {
    fn serialize(&self, value: &T, into: &mut Vec<u8>) -> bool {
        into.extend_from_slice(value.as_ref());
        true
    }
}

impl<T: AsRef<str> + ?Sized> Serializer<T> for Utf8 {
    fn serialize(&self, value: &T, into: &mut Vec<u8>) -> bool {
        into.extend_from_slice(value.as_ref().as_bytes());
        true
    }
}

impl Serializer<i64> for Long {
    fn serialize(&self, value: &i64, into: &mut Vec<u8>) -> bool {
        into.extend_from_slice(&value.to_be_bytes());
        true
    }
}

impl Serializer<i32> for Int {
    fn serialize(&self, value: &i32, into: &mut Vec<u8>) -> bool {
        into.extend_from_slice(&value.to_be_bytes());
        true
    }
}

pub(super) fn not_null(bytes: Option<&[u8]>) -> Result<&[u8], Rejection> {
    bytes.ok_or_else(|| Rejection::new("null"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_round_trip(long in any::<i64>(), int in any::<i32>(), text in ".*") {
            let mut bytes = Vec::new();
            prop_assert!(Long.serialize(&long, &mut bytes));
            prop_assert_eq!(Long.deserialize(Some(&bytes)), Ok(long));
            bytes.clear();
            prop_assert!(Int.serialize(&int, &mut bytes));
            prop_assert_eq!(Int.deserialize(Some(&bytes)), Ok(int));
            bytes.clear();
            prop_assert!(Utf8.serialize(&text, &mut bytes));
            prop_assert_eq!(Utf8.deserialize(Some(&bytes)), Ok(text.as_str()));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::option::of(prop::collection::vec(any::<u8>(), 0..12))) {
            let bytes = bytes.as_deref();
            let _ = Utf8.deserialize(bytes);
            prop_assert_eq!(Long.deserialize(bytes).is_ok(), bytes.is_some_and(|b| b.len() == 8));
            prop_assert_eq!(Int.deserialize(bytes).is_ok(), bytes.is_some_and(|b| b.len() == 4));
        }
    }
}
