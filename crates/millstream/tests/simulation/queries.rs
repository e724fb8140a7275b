//! What queries answer, against what is committed.

use std::collections::{BTreeMap, BTreeSet};

use millstream::broker::local::MemoryBroker;
use millstream::partitioner::partition_for_key;
use millstream::query::{Cancellation, CountQueries, Counts, KeyCount, Period, QueryError, ReadOptions, WindowCount};
use millstream::record::{Partition, Timestamp};

use crate::audit::{Audit, text};
use crate::scenario::Scenario;

const EVERYTHING: Period = Period { from: Timestamp(0), to: Timestamp(i64::MAX / 2) };
const PARTIAL: ReadOptions = ReadOptions { allow_partial: true, allow_stale: false, max_stale_records: None };

/// Asks an instance while things go on. No count may be above what is committed, and a final one must be it, for good.
pub(crate) fn ask(counts: &Counts<MemoryBroker>, ad: &str, scenario: &Scenario, audit: &mut Audit) {
    let partitions = audit.partitions_of(&scenario.changelog());
    let partition = partition_for_key(ad.as_bytes(), partitions.len() as u32);
    let answer = counts.fetch(ad.as_bytes(), EVERYTHING, PARTIAL);
    if let Some(answer) = readable(answer).filter(|answer| answer.completeness.answered > 0) {
        let committed = by_window(audit, &[partition], |key| key == ad);
        check(&answer.value, &committed, answer.completeness.final_until, scenario, audit, &[partition]);
    }
    let answer = counts.totals(EVERYTHING, PARTIAL);
    if let Some(answer) = readable(answer).filter(|answer| answer.completeness.is_complete()) {
        let committed = by_window(audit, &partitions, |_| true);
        check(&answer.value, &committed, answer.completeness.final_until, scenario, audit, &partitions);
    }
}

/// Asks an instance while things go on for the top ads of a period. They must be those that the counts of all ads add up to, for a
/// store does not change between two questions here.
pub(crate) fn ask_top(counts: &Counts<MemoryBroker>, period: Period, limit: usize, audit: &Audit) {
    let Some(top) = readable(counts.top(period, limit, PARTIAL, &Cancellation::default())) else { return };
    let ads: BTreeSet<_> = audit.kept.values().flat_map(|kept| kept.keys().map(|(_, ad)| ad.clone())).collect();
    let mut sums = Vec::new();
    for ad in ads {
        let Some(answer) = readable(counts.fetch(ad.as_bytes(), period, PARTIAL)) else { return };
        sums.push((ad, answer.value.iter().map(|window| window.count).sum::<i64>()));
    }
    // A store found damaged while it was asked answers no more.
    if readable(counts.totals(period, PARTIAL)).is_none_or(|after| after.completeness.answered < top.completeness.answered) {
        return;
    }
    assert_eq!(ranked(top.value), best(sums, limit), "the top {limit} of {period:?}");
}

/// Asks an instance that has all partitions, at rest: everything must be exactly what is committed.
pub(crate) fn check_all(counts: &Counts<MemoryBroker>, scenario: &Scenario, audit: &Audit) {
    let partitions = audit.partitions_of(&scenario.changelog());
    let everything = Period { from: first_whole(audit, scenario, &partitions), ..EVERYTHING };
    let exact = ReadOptions::default();
    let mut by_ad: BTreeMap<String, i64> = BTreeMap::new();
    for ((start, ad), kept) in partitions.iter().filter_map(|p| audit.kept.get(p)).flatten() {
        if *start >= everything.from {
            *by_ad.entry(ad.clone()).or_default() += kept.count;
        }
    }
    for ad in by_ad.keys() {
        let partition = partition_for_key(ad.as_bytes(), partitions.len() as u32);
        let answer = counts.fetch(ad.as_bytes(), everything, exact).unwrap();
        let closed = audit.closed_through(partition);
        assert_eq!(answer.completeness.final_until.unwrap_or_default(), closed);
        let found: BTreeMap<_, _> = answer.value.iter().map(|window| (window.start, window.count)).collect();
        let mut committed = by_window(audit, &[partition], |key| key == ad);
        committed.retain(|start, _| *start >= everything.from);
        assert_eq!(found, committed, "the windows of {ad}");
        assert!(answer.value.iter().all(|window| window.is_final == (window.end <= closed)), "{answer:?}");
    }
    let sums: Vec<_> = by_ad.into_iter().collect();
    for limit in [1, 3, sums.len() + 1] {
        let top = counts.top(everything, limit, exact, &Cancellation::default()).unwrap().value;
        assert_eq!(ranked(top), best(sums.clone(), limit), "the top {limit}");
    }
    let totals = counts.totals(everything, exact).unwrap().value;
    let totals: BTreeMap<_, _> = totals.into_iter().map(|window| (window.start, window.count)).collect();
    let mut committed = by_window(audit, &partitions, |_| true);
    committed.retain(|start, _| *start >= everything.from);
    assert_eq!(totals, committed, "totals");
}

fn check(
    answer: &[WindowCount],
    committed: &BTreeMap<Timestamp, i64>,
    final_until: Option<Timestamp>,
    scenario: &Scenario,
    audit: &mut Audit,
    partitions: &[Partition],
) {
    let whole_from = first_whole(audit, scenario, partitions);
    for window in answer {
        let most = committed.get(&window.start).copied().unwrap_or_default();
        assert!(window.count <= most, "an answer has {} in the window from {}, committed are {most}", window.count, window.start);
    }
    let Some(final_until) = final_until else { return };
    let is_final = |start: &Timestamp| *start >= whole_from && scenario.windows.end_of(*start) <= final_until;
    let answered: BTreeMap<_, _> =
        answer.iter().filter(|window| is_final(&window.start)).map(|window| (window.start, window.count)).collect();
    let expected: BTreeMap<_, _> = committed.iter().filter(|(start, _)| is_final(start)).map(|(s, c)| (*s, *c)).collect();
    assert_eq!(answered, expected, "windows called final until {final_until}");
    for partition in partitions {
        let called = audit.called_final.entry(*partition).or_default();
        *called = final_until.max(*called);
    }
}

fn ranked(top: Vec<KeyCount>) -> Vec<(String, i64)> {
    top.into_iter().map(|KeyCount { key, count }| (text(&key), count)).collect()
}

fn best(mut sums: Vec<(String, i64)>, limit: usize) -> Vec<(String, i64)> {
    sums.retain(|(_, sum)| *sum > 0);
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sums.truncate(limit);
    sums
}

/// The committed counts of those ads, by window.
fn by_window(audit: &Audit, partitions: &[Partition], wanted: impl Fn(&str) -> bool) -> BTreeMap<Timestamp, i64> {
    let mut sums = BTreeMap::new();
    for ((start, ad), kept) in partitions.iter().filter_map(|p| audit.kept.get(p)).flatten() {
        if wanted(ad) {
            *sums.entry(*start).or_default() += kept.count;
        }
    }
    sums
}

/// The start of the first window that has not expired in any of the partitions.
fn first_whole(audit: &Audit, scenario: &Scenario, partitions: &[Partition]) -> Timestamp {
    let Some(retention) = scenario.retention else { return Timestamp(0) };
    let closed = partitions.iter().map(|partition| audit.closed_through(*partition).0).max().unwrap_or(0);
    // A window expires when its end lies that far back.
    Timestamp((closed - retention.as_millis() as i64 - scenario.windows.size_ms() + 1).max(0))
}

/// A store that fails just now answers nothing.
fn readable<T>(answer: Result<T, QueryError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(QueryError::Store(_) | QueryError::LagUnknown(_)) => None,
        Err(incomplete) => panic!("a partial answer was allowed: {incomplete}"),
    }
}
