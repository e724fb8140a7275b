//! Every instance is asked everything all the time, and every answer is checked: what a complete one says (`bounds`), and that every other says
//! what is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

use crate::bounds::{Bounds, Kind};
use crate::service::{Answer, pause, read};

/// What is waited between two questions of a kind to an instance.
const PAUSE: Duration = Duration::from_millis(10);

/// How long an answer is waited for. Longer than any instance is silent here.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A question that came to its end.
#[derive(Debug, Clone)]
struct Asked {
    instance: usize,
    kind: Kind,
    allow_stale: bool,
    /// Whether the instance was alive, and was to stay, all the time.
    of_living: bool,
    began: Instant,
    ended: Instant,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Complete,
    /// An answer with what there is, which says so.
    Part,
    /// No answer, with the kind of problem.
    Refused(String),
    /// The connection was refused, or broke.
    Failed(String),
}

/// An instance, as its clients see it.
struct Target {
    url: String,
    lives: AtomicBool,
    /// How often that has changed.
    changes: AtomicU64,
    /// When it has changed last.
    since: Mutex<Instant>,
}

struct Shared {
    bounds: Bounds,
    period: String,
    targets: Vec<Target>,
    asked: Mutex<Vec<Asked>>,
    wrong: Mutex<Vec<String>>,
    stops: AtomicBool,
}

/// Those who ask. They end with it.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to ask for a period, `from=…&to=…`. Until told otherwise all instances are dead.
    pub(crate) fn start(urls: Vec<String>, period: String, bounds: Bounds) -> Self {
        let target =
            |url| Target { url, lives: AtomicBool::new(false), changes: AtomicU64::new(0), since: Mutex::new(Instant::now()) };
        let targets: Vec<_> = urls.into_iter().map(target).collect();
        let (asked, wrong, stops) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { bounds, period, targets, asked, wrong, stops });
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, false)).chain([(Kind::Totals, true)]);
        let threads = (0..shared.targets.len()).flat_map(|instance| kinds.clone().map(move |kind| (instance, kind)));
        let ask = |(instance, (kind, allow_stale))| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.ask_all_the_time(instance, kind, allow_stale))
        };
        let threads = threads.map(ask).collect();
        Self { shared, threads }
    }

    /// From now on the instance has to answer, or need not.
    pub(crate) fn expect(&self, instance: usize, lives: bool) {
        let target = &self.shared.targets[instance];
        *lock(&target.since) = Instant::now();
        target.lives.store(lives, Ordering::SeqCst);
        target.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn is_expected(&self, instance: usize) -> bool {
        self.shared.targets[instance].lives.load(Ordering::SeqCst)
    }

    /// Fails where an answer was wrong.
    pub(crate) fn assert_nothing_was_wrong(&self) {
        let wrong = lock(&self.shared.wrong);
        assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
    }

    /// What became of the questions since then.
    pub(crate) fn since(&self, from: Instant) -> Seen {
        let all = lock(&self.shared.asked);
        let asked = all.iter().rev().take_while(|asked| asked.ended + TIMEOUT >= from).filter(|asked| asked.ended >= from);
        let survived = |instance: usize| *lock(&self.shared.targets[instance].since) < from;
        Seen::of(from, asked.filter(|asked| asked.of_living), survived)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

impl Shared {
    fn ask_all_the_time(&self, instance: usize, kind: Kind, allow_stale: bool) {
        let agent: Agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).proxy(None).build().into();
        while !self.stops.load(Ordering::SeqCst) {
            self.ask(&agent, instance, kind, allow_stale);
            pause(PAUSE);
        }
    }

    fn ask(&self, agent: &Agent, instance: usize, kind: Kind, allow_stale: bool) {
        let target = &self.targets[instance];
        let state = || (target.lives.load(Ordering::SeqCst), target.changes.load(Ordering::SeqCst));
        let stale = if allow_stale { "&allow_stale=true" } else { "" };
        let path = kind.path(&self.period) + stale;
        let (known, before) = (self.bounds.known(), state());
        let began = Instant::now();
        let answer = agent.get(format!("{}{path}", target.url)).call();
        let answer = answer.map_err(|error| error.to_string()).and_then(|answer| read(answer).ok_or("broken off".to_owned()));
        let ended = Instant::now();
        let (outcome, checked) = match &answer {
            Err(error) => (Outcome::Failed(error.clone()), Ok(())),
            Ok(Answer { status: 200, json, .. }) if json["completeness"]["complete"] == true => {
                let checked = check_complete(&json["completeness"]);
                (Outcome::Complete, checked.and_then(|()| self.bounds.take_complete(kind, &known, json)))
            }
            Ok(Answer { status: 200, json, .. }) => {
                let checked = check_part(&json["completeness"], allow_stale);
                (Outcome::Part, checked.and_then(|()| self.bounds.check_part(kind, json)))
            }
            Ok(Answer { status, json, .. }) => (Outcome::Refused(problem(json)), check_refusal(*status, json)),
        };
        if let (Err(error), Ok(answer)) = (checked, &answer) {
            let mut text = answer.json.to_string();
            text.truncate(2_000);
            lock(&self.wrong).push(format!("instance {instance} to {path} after {:?}: {error}\n{text}", ended - began));
        }
        let of_living = before.0 && before == state();
        lock(&self.asked).push(Asked { instance, kind, allow_stale, of_living, began, ended, outcome });
    }
}

fn check_complete(completeness: &Value) -> Result<(), String> {
    let is_empty = |of: &str| completeness[of].as_array().is_some_and(Vec::is_empty);
    let says_so = is_empty("missing") && is_empty("stale") && completeness["answered"] == completeness["partitions"];
    says_so.then_some(()).ok_or_else(|| "it calls itself complete and is not".to_owned())
}

fn check_part(completeness: &Value, allow_stale: bool) -> Result<(), String> {
    let is_empty = |of: &str| completeness[of].as_array().is_none_or(Vec::is_empty);
    match (is_empty("missing"), is_empty("stale")) {
        (true, false) if allow_stale => Ok(()),
        (true, true) => Err("it does not say why it is not complete".to_owned()),
        _ => Err("nobody asked for such an answer".to_owned()),
    }
}

/// A refusal says which partitions are missing, or what else keeps the instance from answering.
fn check_refusal(status: u16, json: &Value) -> Result<(), String> {
    let says_what = match problem(json).as_str() {
        "incomplete" => json["missing"].as_array().is_some_and(|missing| !missing.is_empty()),
        // It has started a moment ago, and has not heard of the group's positions.
        "store-unavailable" => json["detail"].as_str().is_some_and(|detail| detail.contains("is not known yet")),
        "not-ready" | "shutting-down" | "overloaded" | "timed-out" => true,
        _ => false,
    };
    (status == 503 && says_what).then_some(()).ok_or_else(|| format!("status {status}, which does not say what is missing"))
}

fn problem(json: &Value) -> String {
    json["type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
}

/// What became of the questions to living instances in some time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) complete: usize,
    /// Those without an answer, and answers that were not complete; where stale answers were allowed, the former only. By what they said.
    pub(crate) incomplete: BTreeMap<String, usize>,
    pub(crate) failed: BTreeMap<String, usize>,
    /// Since the failure, when the first and the last of those came.
    unanswered: Option<(Duration, Duration)>,
    pub(crate) stale: usize,
    /// Of those which allowed stale answers, those without any.
    pub(crate) stale_failed: usize,
    /// Until complete answers to each kind of question were there again at each instance that lived all the time.
    pub(crate) back_after: BTreeMap<Kind, Duration>,
    /// The longest that an instance has given no complete answer to a kind of question.
    pub(crate) longest_gap: Duration,
    pub(crate) slowest: Duration,
}

impl Seen {
    fn of<'a>(from: Instant, asked: impl Iterator<Item = &'a Asked>, survived: impl Fn(usize) -> bool) -> Self {
        let mut seen = Self::default();
        let mut complete: BTreeMap<(Kind, usize), Vec<&Asked>> = BTreeMap::new();
        for asked in asked {
            match &asked.outcome {
                Outcome::Complete => seen.complete += 1,
                Outcome::Part => seen.stale += 1,
                Outcome::Refused(kind) => *seen.incomplete.entry(kind.clone()).or_default() += 1,
                Outcome::Failed(error) => *seen.failed.entry(error.clone()).or_default() += 1,
            }
            let is_answered = matches!(asked.outcome, Outcome::Complete | Outcome::Part);
            if !is_answered {
                let at = asked.ended - from;
                let (first, last) = seen.unanswered.unwrap_or((at, at));
                seen.unanswered = Some((first.min(at), last.max(at)));
            }
            seen.stale_failed += usize::from(asked.allow_stale && !is_answered);
            seen.slowest = seen.slowest.max(asked.ended - asked.began);
            if asked.outcome == Outcome::Complete && !asked.allow_stale {
                complete.entry((asked.kind, asked.instance)).or_default().push(asked);
            }
        }
        for ((kind, instance), mut answers) in complete {
            answers.sort_by_key(|asked| asked.ended);
            let gaps = answers.windows(2).map(|two| two[1].ended - two[0].ended);
            seen.longest_gap = gaps.max().unwrap_or_default().max(seen.longest_gap);
            if survived(instance)
                && let Some(first) = answers.iter().find(|asked| asked.began >= from)
            {
                let back = seen.back_after.entry(kind).or_default();
                *back = (*back).max(first.ended - from);
            }
        }
        seen
    }

    /// Questions without an answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.incomplete.values().chain(self.failed.values()).sum()
    }

    /// Until all kinds of questions were answered completely again.
    pub(crate) fn back(&self) -> Duration {
        self.back_after.values().copied().max().unwrap_or_default()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { complete, incomplete, failed, stale, stale_failed, .. } = self;
        write!(f, "{complete} complete, refused {incomplete:?}, failed {failed:?}, {stale} stale, ")?;
        if let Some((first, last)) = self.unanswered {
            write!(f, "those without an answer from {first:.2?} to {last:.2?}, ")?;
        }
        write!(f, "{stale_failed} without one though stale was allowed; ")?;
        let (back, gap, slowest) = (self.back(), self.longest_gap, self.slowest);
        write!(f, "complete again after {back:.2?}, longest gap {gap:.2?}, slowest answer {slowest:.2?}")
    }
}

/// A time of an answer.
pub(crate) fn millis(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
