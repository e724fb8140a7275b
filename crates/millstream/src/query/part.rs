//! A question for counts, and what one instance answers of it: counts of some partitions, with what each of them rests on.

use super::{KeyCount, Period, ReadOptions};
use crate::record::{Offset, Partition, Timestamp};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// One key's windows.
    Key {
        /// The key's bytes.
        key: Vec<u8>,
        /// Of which period.
        period: Period,
    },
    /// The keys with the largest counts over the period.
    Top {
        /// Of which period.
        period: Period,
        /// How many.
        limit: usize,
    },
    /// All keys together, by window.
    Totals {
        /// Of which period.
        period: Period,
    },
}

impl Question {
    /// The period that is asked for.
    pub fn period(&self) -> Period {
        match *self {
            Self::Key { period, .. } | Self::Top { period, .. } | Self::Totals { period } => period,
        }
    }
}

/// A question to one instance, for counts of some partitions. It is answered from the instance's own stores, and passed on to nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// Of which partitions of the store.
    pub partitions: Vec<Partition>,
    /// What is good enough. Which partitions are missing is for whoever asks to judge: `allow_partial` changes nothing here.
    pub read: ReadOptions,
}

/// What an instance is for a partition that it answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its owner, which still held the right to say so when the counts had been read.
    Active,
    /// A copy, or an owner without that right.
    Stale {
        /// How many changelog records it is behind; none where that is not known.
        lag: Option<u64>,
    },
}

/// One partition that an answer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The partition of the store.
    pub partition: Partition,
    /// As what the instance answers for it.
    pub standing: Standing,
    /// The position up to which it has counted its input; none for copies that are behind.
    pub position: Option<Offset>,
    /// The partition has closed every window that ends at or before it; zero for none.
    pub closed_through: i64,
}

/// What one instance answers: the counts of some partitions together. (For the top keys of many partitions it reads much less than for
/// those of each, and they merge as exactly.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The generation of the group that the instance knew when the counts had been read.
    pub generation: i32,
    /// The partitions that the counts are of: those asked for, or some of them.
    pub parts: Vec<Part>,
    /// The counts.
    pub counts: PartialCounts,
}

/// The counts of some partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartialCounts {
    /// By the start of the window, ascending.
    Windows(Vec<(Timestamp, i64)>),
    /// Largest first, equal ones by key ascending.
    Keys(Vec<KeyCount>),
}

impl PartialCounts {
    /// Nothing counted.
    pub fn none(question: &Question) -> Self {
        match question {
            Question::Key { .. } | Question::Totals { .. } => Self::Windows(Vec::new()),
            Question::Top { .. } => Self::Keys(Vec::new()),
        }
    }

    /// Whether they are what the question asks for.
    pub(super) fn answers(&self, question: &Question) -> bool {
        matches!(
            (self, question),
            (Self::Windows(_), Question::Key { .. } | Question::Totals { .. }) | (Self::Keys(_), Question::Top { .. })
        )
    }
}
