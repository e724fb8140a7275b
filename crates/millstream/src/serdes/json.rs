use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::primitive::not_null;
use super::{Deserializer, Rejection, Serializer};

/// JSON through serde. A value that borrows from the record needs a [`Deserializer`] of its own.
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// The serde for `T`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Json<T> {}

impl<T: DeserializeOwned + 'static> Deserializer for Json<T> {
    type Output<'r> = T;

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<T, Rejection> {
        serde_json::from_slice(not_null(bytes)?).map_err(|error| Rejection::new(format!("not the JSON expected: {error}")))
    }
}

impl<T: Serialize + 'static> Serializer<T> for Json<T> {
    /// A value that serde cannot write (a map with keys that are no strings) becomes null.
    fn serialize(&self, value: &T, into: &mut Vec<u8>) -> bool {
        let start = into.len();
        let written = serde_json::to_writer(&mut *into, value).is_ok();
        if !written {
            into.truncate(start);
        }
        written
    }
}
