/// A grouping key as bytes: what partitions, stores and changelogs know it by. Equal keys have equal bytes.
///
/// Text and bytes are borrowed as they lie in the record; integers are written big-endian, as Kafka's serializers do.
pub trait KeyBytes {
    /// Calls `use_key` with the key's bytes, or gives none for a null key.
    fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R>;
}

impl KeyBytes for [u8] {
    #[inline]
    fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        Some(use_key(self))
    }
}

impl KeyBytes for str {
    #[inline]
    fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        Some(use_key(self.as_bytes()))
    }
}

impl KeyBytes for String {
    #[inline]
    fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        Some(use_key(self.as_bytes()))
    }
}

impl KeyBytes for Vec<u8> {
    #[inline]
    fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        Some(use_key(self))
    }
}

impl<K: KeyBytes + ?Sized> KeyBytes for &K {
    #[inline]
    fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        (**self).with_bytes(use_key)
    }
}

impl<K: KeyBytes> KeyBytes for Option<K> {
    #[inline]
    fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.as_ref()?.with_bytes(use_key)
    }
}

macro_rules! integer_keys {
    ($($integer:ty),*) => {$(
        impl KeyBytes for $integer {
            #[inline]
            fn with_bytes<R>(&self, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
                Some(use_key(&self.to_be_bytes()))
            }
        }
    )*};
}

integer_keys!(i32, i64, u32, u64);
