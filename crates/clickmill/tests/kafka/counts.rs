//! The comparison that every scenario ends with.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::found;
use crate::scenario::{Scenario, running_tasks};
use crate::service::{Service, pause};
use crate::tally::{Counts, Tally};
use crate::topic;

/// How long nothing may move before everything is counted.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until every click is counted or set aside and every closed window is sent on, and compares all of it with the tally.
pub(crate) fn check(scenario: &Scenario) -> Tally {
    let Scenario { servers, application_id, clicks_topic, .. } = scenario;
    let tally = Tally::of(servers, clicks_topic, scenario.grace_ms);
    let expected = scenario.clicks.count;
    assert_eq!(tally.records, expected, "the clicks topic holds every click once");
    wait_until_read(scenario);
    wait_until_sent_on(scenario, &tally);
    let late = found::diverted(servers, &format!("{application_id}-late"), clicks_topic);
    let dead_lettered = found::diverted(servers, &format!("{application_id}-dead-letter"), clicks_topic);
    println!(
        "{application_id}: {} records: {} counted, {} late, {} dead-lettered; {} counts of an ad in a window, {} of them final",
        tally.records,
        tally.counted(),
        late.len(),
        dead_lettered.len(),
        tally.counts.len(),
        tally.final_counts().len()
    );
    assert_eq!(tally.records, tally.counted() + late.len() as u64 + dead_lettered.len() as u64);
    assert!(late == tally.late, "{} late, {} expected", late.len(), tally.late.len());
    assert!(
        dead_lettered == tally.dead_lettered,
        "{} dead-lettered, {} expected",
        dead_lettered.len(),
        tally.dead_lettered.len()
    );
    assert_same("the changelog", &found::changelog(servers, application_id), &tally.counts);
    let closed = found::closed(servers, application_id);
    assert_eq!(closed.open_rows, 0, "rows of windows without an end");
    assert_same("the closed windows", &closed.counts, &tally.final_counts());
    tally
}

/// The store's own counts, over HTTP, of an instance that has all tasks or is about to get them.
pub(crate) fn check_answers(scenario: &Scenario, service: &mut Service, tally: &Tally) {
    service.wait_until("alone", |service| running_tasks(service) == scenario.task_count());
    let totals = tally.totals();
    let (Some((first, _)), Some((last, _))) = (totals.first_key_value(), totals.last_key_value()) else { return };
    let period = format!("from={first}&to={}", last + crate::tally::SIZE_MS);
    let answer = service.query(&format!("/v1/clicks?{period}"));
    let windows = answer["windows"].as_array().unwrap();
    let clicks = windows.iter().map(|window| window["clicks"].as_i64().unwrap());
    assert!(clicks.eq(totals.values().copied()), "the store's totals by window");
    let mut of_ads = HashMap::<&str, i64>::new();
    tally.counts.iter().for_each(|((ad, _), count)| *of_ads.entry(ad).or_default() += count);
    for ad in service.query(&format!("/v1/ads/top?{period}&limit=1000"))["ads"].as_array().unwrap() {
        let name = ad["ad_id"].as_str().unwrap();
        assert_eq!(ad["clicks"].as_i64(), of_ads.get(name).copied(), "{name}");
    }
}

/// Waits until the group has committed the end of every partition of the clicks.
fn wait_until_read(scenario: &Scenario) {
    let Scenario { servers, application_id, clicks_topic, .. } = scenario;
    let ends: Vec<_> = topic::ranges(servers, clicks_topic).into_iter().map(|(_, end)| Some(end)).collect();
    wait_while_moving("all clicks are read", || {
        let committed = topic::committed(servers, application_id, clicks_topic);
        let is_done = committed == ends;
        (is_done, committed)
    });
}

/// Waits until what was read has passed the shuffle, and every window that is final has an end on every partition.
fn wait_until_sent_on(scenario: &Scenario, tally: &Tally) {
    let Scenario { servers, application_id, .. } = scenario;
    wait_while_moving("all clicks are counted", || {
        let counted = found::changelog(servers, application_id).values().sum::<i64>() as u64;
        (counted >= tally.counted(), counted)
    });
    let rows = tally.final_counts().len();
    wait_while_moving("all final windows are sent on", || {
        let closed = found::closed(servers, application_id);
        (closed.counts.len() >= rows && closed.open_rows == 0, closed.counts.len())
    });
}

fn wait_while_moving<T: PartialEq + std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (bool, T)) {
    let (mut since, mut before) = (Instant::now(), None);
    loop {
        let (is_done, seen) = look();
        if is_done {
            return;
        }
        if before.as_ref() != Some(&seen) {
            (since, before) = (Instant::now(), Some(seen));
        }
        assert!(since.elapsed() < PATIENCE, "not {what}, and nothing moves: {before:?}");
        pause(Duration::from_millis(200));
    }
}

pub(crate) fn assert_same(what: &str, found: &Counts, expected: &Counts) {
    let differs = expected.iter().filter(|(row, count)| found.get(*row) != Some(count));
    let differences: Vec<_> = differs.map(|(row, count)| (row, *count, found.get(row))).take(5).collect();
    assert!(differences.is_empty(), "{what}: row, expected, found: {differences:?}");
    let more: Vec<_> = found.keys().filter(|row| !expected.contains_key(*row)).take(5).collect();
    assert!(more.is_empty(), "{what}: rows that should not be there: {more:?}");
}
