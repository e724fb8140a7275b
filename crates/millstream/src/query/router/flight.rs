//! Partitions that one instance is asked for, and the second requests for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Open, RequestId};
use crate::query::ReadOptions;
use crate::query::part::{Parts, Question, Standing};
use crate::record::Partition;

/// Partitions that are asked for together.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// Who is asked, and the newest generation that was known then.
    pub(super) instance: Arc<str>,
    pub(super) generation: i32,
    /// Whether it was asked as the owner of all of them.
    pub(super) is_to_owner: bool,
    /// What was asked for, as it was before.
    pub(super) partitions: BTreeMap<Partition, Open>,
    /// When it is sent a second time; none once it was, or where it is not to be.
    pub(super) hedge_at: Option<Duration>,
    /// The first request; none once it is lost.
    first: Option<RequestId>,
    seconds: BTreeMap<RequestId, Arc<str>>,
    /// What second requests have brought.
    kept: Vec<(Arc<str>, Parts)>,
}

impl Flight {
    pub(super) fn new(
        first: RequestId,
        instance: Arc<str>,
        generation: i32,
        hedge_at: Option<Duration>,
        partitions: BTreeMap<Partition, Open>,
    ) -> Self {
        let (seconds, kept) = (BTreeMap::new(), Vec::new());
        Self { instance, generation, is_to_owner: false, partitions, hedge_at, first: Some(first), seconds, kept }
    }

    pub(super) fn has(&self, id: RequestId) -> bool {
        self.is_first(id) || self.seconds.contains_key(&id)
    }

    /// Whether the answer is the one of the first request.
    pub(super) fn is_first(&self, id: RequestId) -> bool {
        self.first == Some(id)
    }

    /// Whether it is an answer to what was asked: for some of the partitions, each once, and as good as was asked for.
    pub(super) fn is_answer(&self, parts: &Parts, question: &Question, read: ReadOptions) -> bool {
        let mut seen = BTreeSet::new();
        let is_good = |standing: Standing| match standing {
            Standing::Active => true,
            Standing::Stale { lag } => read.takes_copy(lag),
        };
        let are_asked = parts
            .parts
            .iter()
            .all(|part| self.partitions.contains_key(&part.partition) && seen.insert(part.partition) && is_good(part.standing));
        are_asked && !seen.is_empty() && parts.counts.answers(question)
    }

    /// The partitions to be asked for a second time, if it is time for that.
    pub(super) fn take_hedge(&mut self, now: Duration) -> Option<Vec<Partition>> {
        self.hedge_at.take_if(|at| *at <= now)?;
        Some(self.partitions.keys().copied().collect())
    }

    pub(super) fn add_second(&mut self, id: RequestId, instance: Arc<str>) {
        self.seconds.insert(id, instance);
    }

    /// Keeps the answer of a second request, where no other has brought the same partition before.
    pub(super) fn keep(&mut self, id: RequestId, parts: Parts) {
        let Some(instance) = self.seconds.remove(&id) else { return };
        let mut before = self.kept.iter().flat_map(|(_, kept)| &kept.parts);
        if !before.any(|kept| parts.parts.iter().any(|part| part.partition == kept.partition)) {
            self.kept.push((instance, parts));
        }
    }

    /// Whether second requests have brought all of it.
    pub(super) fn is_answered_by_others(&self) -> bool {
        self.kept.iter().map(|(_, kept)| kept.parts.len()).sum::<usize>() == self.partitions.len() || self.is_lost()
    }

    pub(super) fn lose(&mut self, id: RequestId) {
        if self.is_first(id) {
            self.first = None;
            // Whoever is gone is not asked a second time.
            self.hedge_at = None;
        }
        self.seconds.remove(&id);
    }

    /// Whether nothing more will come.
    pub(super) fn is_lost(&self) -> bool {
        self.first.is_none() && self.seconds.is_empty()
    }

    pub(super) fn take_kept(&mut self) -> Vec<(Arc<str>, Parts)> {
        std::mem::take(&mut self.kept)
    }

    /// Takes out of it what an answer is of.
    pub(super) fn split(&mut self, parts: &Parts) -> Self {
        let mut of_parts = Self::new(0, self.instance.clone(), self.generation, None, BTreeMap::new());
        for part in &parts.parts {
            of_parts.partitions.extend(self.partitions.remove_entry(&part.partition));
        }
        of_parts
    }
}
