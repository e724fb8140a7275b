use std::time::Duration;

/// How an aggregate is kept: the name of its store and how long its windows stay.
#[derive(Debug, Clone)]
pub struct Materialized<S = ()> {
    pub(super) store: String,
    pub(super) retention: Option<Duration>,
    pub(super) value_serde: S,
}

impl Materialized {
    /// Kept in a store of that name, from which its changelog and repartition topics take theirs. (`as` is a word of Rust's.)
    pub fn as_(store: impl Into<String>) -> Self {
        Self { store: store.into(), retention: None, value_serde: () }
    }

    /// The serde of the aggregate's value, for `aggregate`.
    pub fn with_value_serde<S>(self, value_serde: S) -> Materialized<S> {
        Materialized { store: self.store, retention: self.retention, value_serde }
    }
}

impl<S> Materialized<S> {
    /// How long a window can be queried after its end, in stream time; at least window size + grace, which is the default.
    pub fn with_retention(self, retention: Duration) -> Self {
        Self { retention: Some(retention), ..self }
    }
}
