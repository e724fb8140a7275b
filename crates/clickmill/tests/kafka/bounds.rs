//! What an answer may say: a complete one lies between what was known before the question and what had been sent when it came, and nothing
//! that was final changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::committed::Committed;
use crate::sent::{Sent, Sums, Windows, number_of};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Totals,
    Top,
    /// The ad with the most clicks.
    Ad,
}

/// The ad that is asked for.
const AD: u64 = 1;

/// How many ads are asked for.
const LIMIT: usize = 100;

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Totals, Self::Top, Self::Ad];

    /// The path of a question for that period, `from=…&to=…`.
    pub(crate) fn path(self, period: &str) -> String {
        match self {
            Self::Totals => format!("/v1/clicks?{period}"),
            Self::Top => format!("/v1/ads/top?{period}&limit={LIMIT}"),
            Self::Ad => format!("/v1/ads/ad-{AD}/clicks?{period}"),
        }
    }
}

/// What is known for certain of the counts.
pub(crate) struct Bounds {
    sent: Arc<Sent>,
    /// What was read of the changelog, if it is followed.
    committed: Option<Committed>,
    answered: Mutex<Answered>,
}

/// What complete answers have said.
#[derive(Debug, Clone, Default)]
struct Answered {
    /// The largest counts.
    largest: Sums,
    /// The counts of final windows, of all ads and of the one that is asked for.
    finals: BTreeMap<(Kind, i64), i64>,
}

/// What was known before a question.
pub(crate) struct Known {
    answered: Answered,
    committed: Sums,
}

impl Bounds {
    pub(crate) fn new(sent: Arc<Sent>, committed: Option<Committed>) -> Self {
        Self { sent, committed, answered: Mutex::default() }
    }

    pub(crate) fn known(&self) -> Known {
        let committed = self.committed.as_ref().map(Committed::sums).unwrap_or_default();
        Known { answered: self.answered().clone(), committed }
    }

    /// Checks a complete answer that has just come, and remembers it.
    pub(crate) fn take_complete(&self, kind: Kind, known: &Known, answer: &Value) -> Result<(), String> {
        let said = Said::of(kind, answer);
        self.check_sent(kind, &said)?;
        check_at_least(kind, &said, &known.answered.largest).map_err(|error| format!("{error} in an answer before"))?;
        check_at_least(kind, &said, &known.committed).map_err(|error| format!("{error} committed before"))?;
        for (window, clicks) in
            known.answered.finals.iter().filter(|((of, _), _)| *of == kind).map(|((_, at), clicks)| (at, clicks))
        {
            let now = said.windows.get(window).copied().unwrap_or(0);
            if now != *clicks {
                return Err(format!("window {window} was final with {clicks} clicks and has {now}"));
            }
        }
        self.remember(kind, &said);
        Ok(())
    }

    /// Checks what there is of an answer that is not complete.
    pub(crate) fn check_part(&self, kind: Kind, answer: &Value) -> Result<(), String> {
        self.check_sent(kind, &Said::of(kind, answer))
    }

    fn check_sent(&self, kind: Kind, said: &Said) -> Result<(), String> {
        let sent = self.sent.sums();
        let of_windows = windows_of(kind, &sent);
        let too_many = said.windows.iter().find(|(window, clicks)| of_windows.and_then(|sent| sent.get(window)) < Some(clicks));
        if let Some((window, clicks)) = too_many {
            return Err(format!("window {window} has {clicks} clicks, more than were sent"));
        }
        let too_many = said.ads.iter().find(|(ad, clicks)| sent.ads.get(ad) < Some(clicks));
        too_many.map_or(Ok(()), |(ad, clicks)| Err(format!("ad {ad} has {clicks} clicks, more than were sent")))
    }

    fn remember(&self, kind: Kind, said: &Said) {
        let mut answered = self.answered();
        let largest = &mut answered.largest;
        let windows = match kind {
            Kind::Ad => largest.ad_windows.entry(AD).or_default(),
            _ => &mut largest.windows,
        };
        for (window, clicks) in &said.windows {
            let before = windows.entry(*window).or_default();
            *before = (*before).max(*clicks);
        }
        for (ad, clicks) in &said.ads {
            let before = largest.ads.entry(*ad).or_default();
            *before = (*before).max(*clicks);
        }
        answered.finals.extend(said.finals.iter().map(|(window, clicks)| ((kind, *window), *clicks)));
    }

    fn answered(&self) -> MutexGuard<'_, Answered> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer says.
#[derive(Default)]
struct Said {
    windows: Windows,
    finals: Windows,
    /// In the order of the answer.
    ads: Vec<(u64, i64)>,
}

impl Said {
    fn of(kind: Kind, answer: &Value) -> Self {
        let clicks = |of: &Value| of["clicks"].as_i64().unwrap();
        if kind == Kind::Top {
            let ads = answer["ads"].as_array().unwrap().iter();
            let ads = ads.map(|ad| (number_of(ad["ad_id"].as_str().unwrap()), clicks(ad))).collect();
            return Self { ads, ..Self::default() };
        }
        let windows = answer["windows"].as_array().unwrap();
        let of = |window: &Value| (crate::answers::millis(&window["start"]), clicks(window));
        let finals = windows.iter().filter(|window| window["final"] == true).map(of).collect();
        let said = Self { windows: windows.iter().map(of).collect(), finals, ads: Vec::new() };
        assert_eq!(said.windows.values().sum::<i64>(), clicks(answer), "the windows add up");
        said
    }
}

fn windows_of(kind: Kind, sums: &Sums) -> Option<&Windows> {
    match kind {
        Kind::Totals => Some(&sums.windows),
        Kind::Ad => sums.ad_windows.get(&AD),
        Kind::Top => None,
    }
}

/// Whether an answer has what was known: every window, and every ad that belongs on the list.
fn check_at_least(kind: Kind, said: &Said, known: &Sums) -> Result<(), String> {
    for (window, clicks) in windows_of(kind, known).into_iter().flatten() {
        let now = said.windows.get(window).copied().unwrap_or(0);
        if now < *clicks {
            return Err(format!("window {window} has {now} clicks, of {clicks}"));
        }
    }
    if kind != Kind::Top {
        return Ok(());
    }
    let listed: HashMap<u64, i64> = said.ads.iter().copied().collect();
    let is_sorted = said.ads.windows(2).all(|two| (two[1].1, name(two[0].0)) < (two[0].1, name(two[1].0)));
    if listed.len() != said.ads.len() || !is_sorted {
        return Err(format!("the list is no ranking: {:?}, with what was", said.ads));
    }
    // Where the list is not full, there is no more.
    let last = if said.ads.len() == LIMIT { said.ads.last().map_or(0, |(_, clicks)| *clicks) } else { 0 };
    for (ad, clicks) in known.ads.iter().filter(|(_, clicks)| **clicks > last) {
        let now = listed.get(ad).copied().unwrap_or(0);
        if now < *clicks {
            return Err(format!("ad {ad} has {now} clicks on a list that ends with {last}, of {clicks}"));
        }
    }
    Ok(())
}

fn name(ad: u64) -> String {
    format!("ad-{ad}")
}
