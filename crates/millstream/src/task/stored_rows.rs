//! Rows as a store gave them, one behind the other: a row of a count is a few bytes, and an allocation for each would take many times that.

/// The rows that a commit changes, as they stand in the store. It lives from before the transaction until it has ended.
#[derive(Debug, Default)]
pub(crate) struct StoredRows {
    bytes: Vec<u8>,
    /// The length of each; none where the store has no such row.
    lengths: Vec<Option<u32>>,
}

impl StoredRows {
    /// Room for so many rows.
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { bytes: Vec::new(), lengths: Vec::with_capacity(rows) }
    }

    /// Appends one, or that there is none.
    pub(crate) fn push(&mut self, row: Option<&[u8]>) {
        self.bytes.extend_from_slice(row.unwrap_or_default());
        self.lengths.push(row.map(|row| row.len() as u32));
    }

    /// The rows in the order in which they were appended.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |length| {
            let (row, tail) = rest.split_at((*length)? as usize);
            rest = tail;
            Some(row)
        })
    }

    /// The memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.lengths.capacity() * size_of::<Option<u32>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_given_as_they_were_appended(
            rows in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..40),
        ) {
            let mut stored = StoredRows::with_capacity(rows.len());
            rows.iter().for_each(|row| stored.push(row.as_deref()));
            prop_assert_eq!(stored.iter().collect::<Vec<_>>(), rows.iter().map(Option::as_deref).collect::<Vec<_>>());
        }
    }
}
