use crate::record::Timestamp;

/// A key and the window it was counted in.
///
/// Two layouts, both Kafka Streams' own (`WindowKeySchema`):
/// - on output topics: `key ‖ i64 window start`
/// - on changelogs: `key ‖ i64 window start ‖ i32 sequence number`, the number always 0
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowedKey<'a> {
    /// The key's bytes.
    pub key: &'a [u8],
    /// The window's start.
    pub start: Timestamp,
}

impl<'a> WindowedKey<'a> {
    /// Appends the layout of output topics.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.key);
        into.extend_from_slice(&self.start.0.to_be_bytes());
    }

    /// Reads the layout of output topics, or gives none where the bytes are too short.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (key, start) = bytes.split_last_chunk::<8>()?;
        Some(Self { key, start: Timestamp(i64::from_be_bytes(*start)) })
    }

    /// Appends the layout of changelogs.
    pub fn encode_for_changelog(&self, into: &mut Vec<u8>) {
        self.encode(into);
        into.extend_from_slice(&0i32.to_be_bytes());
    }

    /// Reads the layout of changelogs, or gives none where it is not that.
    pub fn decode_from_changelog(bytes: &'a [u8]) -> Option<Self> {
        let (windowed, sequence) = bytes.split_last_chunk::<4>()?;
        if *sequence != [0; 4] {
            return None;
        }
        Self::decode(windowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_those_of_kafka_streams() {
        let windowed = WindowedKey { key: b"ad-1", start: Timestamp(300_000) };
        let mut bytes = Vec::new();
        windowed.encode_for_changelog(&mut bytes);
        assert_eq!(bytes, b"ad-1\x00\x00\x00\x00\x00\x04\x93\xe0\x00\x00\x00\x00");
    }

    proptest! {
        #[test]
        fn windowed_keys_round_trip(key in prop::collection::vec(any::<u8>(), 0..20), start in any::<i64>()) {
            let windowed = WindowedKey { key: &key, start: Timestamp(start) };
            let (mut output, mut changelog) = (Vec::new(), Vec::new());
            windowed.encode(&mut output);
            windowed.encode_for_changelog(&mut changelog);
            prop_assert_eq!(WindowedKey::decode(&output), Some(windowed));
            prop_assert_eq!(WindowedKey::decode_from_changelog(&changelog), Some(windowed));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            prop_assert_eq!(WindowedKey::decode(&bytes).is_some(), bytes.len() >= 8);
            let _ = WindowedKey::decode_from_changelog(&bytes);
        }
    }
}
