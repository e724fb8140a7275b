use std::collections::HashMap;

use serde_json::Value;

use super::*;

const NOW: i64 = 1_767_225_600_000;

fn traffic() -> Traffic {
    Traffic {
        seed: 7,
        ads: 1_000,
        zipf: 1.0,
        disorder: Duration::from_secs(30),
        late: 0.02,
        late_by: Duration::from_secs(1_800),
        bad: 0.01,
    }
}

fn lines(traffic: &Traffic, count: usize) -> (Vec<u8>, Vec<Generated>) {
    let mut generator = ClickGenerator::new(traffic).expect("traffic in range");
    let mut out = Vec::new();
    let kinds = (0..count).map(|_| generator.write_click(NOW, &mut out)).collect();
    (out, kinds)
}

fn parsed(out: &[u8]) -> Vec<Option<Value>> {
    out.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).ok()).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let (first, _) = lines(&traffic(), 5_000);
    assert_eq!(first, lines(&traffic(), 5_000).0);
    assert_ne!(first, lines(&Traffic { seed: 8, ..traffic() }, 5_000).0);
}

/// The bytes are also those of yesterday: files made from a seed stay comparable from version to version.
#[test]
fn the_first_click_of_a_seed_is_fixed() {
    let (out, _) = lines(&Traffic { late: 0.0, bad: 0.0, ..traffic() }, 1);
    assert_eq!(String::from_utf8(out).expect("text"), GOLDEN);
}

const GOLDEN: &str = concat!(
    r#"{"click_id":"c-7-1","ad_id":"ad-97","timestamp":1767225594961,"user_id":"u-810440","campaign":"campaign-110","#,
    r#""url":"https://shop.example/p/16951","country":"FR","user_agent":"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1)"}"#,
    "\n"
);

#[test]
fn ads_follow_zipfs_law() {
    let count = 200_000;
    let (out, _) = lines(&Traffic { late: 0.0, bad: 0.0, ..traffic() }, count);
    let mut clicks: HashMap<String, f64> = HashMap::new();
    for click in parsed(&out).into_iter().flatten() {
        *clicks.entry(click["ad_id"].as_str().expect("a string").to_owned()).or_default() += 1.0;
    }
    let harmonic: f64 = (1..=1_000).map(|k| 1.0 / f64::from(k)).sum();
    for rank in [1, 2, 3, 10, 50] {
        let expected = count as f64 / (f64::from(rank) * harmonic);
        let seen = clicks[&format!("ad-{rank}")];
        let deviations = (seen - expected).abs() / expected.sqrt();
        assert!(deviations < 5.0, "ad-{rank}: {seen} clicks, {expected:.0} expected");
    }
}

#[test]
fn without_zipf_all_ads_are_alike() {
    let (out, _) = lines(&Traffic { ads: 10, zipf: 0.0, late: 0.0, bad: 0.0, ..traffic() }, 100_000);
    let mut clicks: HashMap<Value, u32> = HashMap::new();
    for click in parsed(&out).into_iter().flatten() {
        *clicks.entry(click["ad_id"].clone()).or_default() += 1;
    }
    assert_eq!(clicks.len(), 10);
    assert!(clicks.values().all(|seen| (9_500..10_500).contains(seen)), "{clicks:?}");
}

#[test]
fn shares_and_event_times_are_as_asked() {
    let count = 100_000;
    let (out, kinds) = lines(&traffic(), count);
    let clicks = parsed(&out);
    assert_eq!(clicks.len(), count);
    let share = |kind| kinds.iter().filter(|k| **k == kind).count() as f64 / count as f64;
    assert!((0.018..0.022).contains(&share(Generated::Late)), "{}", share(Generated::Late));
    assert!((0.009..0.011).contains(&share(Generated::Bad)), "{}", share(Generated::Bad));
    for (kind, click) in kinds.iter().zip(&clicks) {
        let behind = |click: &Option<Value>| NOW - click.as_ref().and_then(|c| c["timestamp"].as_i64()).expect("a timestamp");
        match kind {
            Generated::Click => assert!((0..=30_000).contains(&behind(click))),
            Generated::Late => assert!((1_800_000..=3_600_000).contains(&behind(click))),
            Generated::Bad => {}
        }
    }
}

#[test]
fn a_click_has_about_two_hundred_bytes() {
    let (out, _) = lines(&Traffic { late: 0.0, bad: 0.0, ..traffic() }, 10_000);
    let mean = out.len() / 10_000;
    assert!((180..260).contains(&mean), "{mean}");
}

#[test]
fn bad_lines_are_bad_each_in_its_way() {
    let (out, kinds) = lines(&Traffic { late: 0.0, bad: 1.0, ..traffic() }, 1_000);
    assert!(kinds.iter().all(|kind| *kind == Generated::Bad));
    let mut unreadable = 0;
    for click in parsed(&out) {
        let Some(click) = click else {
            unreadable += 1;
            continue;
        };
        let good_id = click["ad_id"].as_str().is_some_and(|id| (1..=256).contains(&id.len()));
        let good_time = click["timestamp"].as_i64().is_some_and(|time| (0..NOW + 3_600_000).contains(&time));
        assert!(!(good_id && good_time), "{click}");
    }
    assert!((80..180).contains(&unreadable), "one in eight is not JSON: {unreadable}");
}

#[test]
fn traffic_out_of_range_is_refused() {
    let refused = |traffic: Traffic| ClickGenerator::new(&traffic).expect_err("refused");
    assert_eq!(refused(Traffic { ads: 0, ..traffic() }), TrafficError::Ads);
    assert_eq!(refused(Traffic { zipf: -0.1, ..traffic() }), TrafficError::Zipf);
    assert_eq!(refused(Traffic { zipf: f64::NAN, ..traffic() }), TrafficError::Zipf);
    assert_eq!(refused(Traffic { late: 0.6, bad: 0.6, ..traffic() }), TrafficError::Shares);
    assert_eq!(refused(Traffic { bad: f64::NAN, ..traffic() }), TrafficError::Shares);
}
