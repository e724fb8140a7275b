//! What the command line reads of the service's answers.

use serde::Deserialize;
use serde_json::Value;

/// The answer to clicks sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ClicksAnswer {
    /// How many are in the clicks topic.
    pub accepted: u64,
    /// Those that are not, each with its reason.
    pub rejected: Vec<Rejected>,
    /// Whether the service had them already, by an earlier request with the same key.
    #[serde(skip)]
    pub replayed: bool,
}

/// The reason of a click that may be stored or not.
const UNKNOWN: &str = "unknown";

impl ClicksAnswer {
    /// The places of the clicks that may be stored or not, ascending.
    pub fn unknown(&self) -> impl Iterator<Item = usize> + '_ {
        self.rejected.iter().filter(|rejected| rejected.is_unknown()).map(|rejected| rejected.index)
    }
}

/// A click that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rejected {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Why not.
    pub reason: String,
}

impl Rejected {
    /// Whether it may be stored all the same.
    pub fn is_unknown(&self) -> bool {
        self.reason == UNKNOWN
    }
}

/// The most clicked ads of a period.
#[derive(Debug, Clone, Deserialize)]
pub struct TopAnswer {
    /// The period's start.
    pub from: String,
    /// The period's end.
    pub to: String,
    /// Most clicks first.
    pub ads: Vec<TopAd>,
    /// What the answer rests on.
    pub completeness: Completeness,
}

/// One of the most clicked ads.
#[derive(Debug, Clone, Deserialize)]
pub struct TopAd {
    /// From 1.
    pub rank: u64,
    /// The ad.
    pub ad_id: String,
    /// Its clicks in the period.
    pub clicks: u64,
}

/// The clicks of one ad in a period.
#[derive(Debug, Clone, Deserialize)]
pub struct AdAnswer {
    /// The ad.
    pub ad_id: String,
    /// The period's start.
    pub from: String,
    /// The period's end.
    pub to: String,
    /// All windows together.
    pub clicks: u64,
    /// The windows with clicks, ascending.
    pub windows: Vec<WindowCount>,
    /// What the answer rests on.
    pub completeness: Completeness,
}

/// What the clicks of all ads together rest on.
#[derive(Debug, Clone, Deserialize)]
pub struct TotalsAnswer {
    /// What the answer rests on.
    pub completeness: Completeness,
}

/// The clicks of one window.
#[derive(Debug, Clone, Deserialize)]
pub struct WindowCount {
    /// The window's start.
    pub start: String,
    /// The window's end.
    pub end: String,
    /// Its clicks.
    pub clicks: u64,
    /// Whether no further click can change it.
    pub r#final: bool,
}

/// What an answer rests on.
#[derive(Debug, Clone, Deserialize)]
pub struct Completeness {
    /// Whether every partition answered.
    pub complete: bool,
    /// The partitions of the store.
    pub partitions: u32,
    /// How many of them answered.
    pub answered: u32,
    /// Partitions that a copy answered for.
    #[serde(default)]
    pub stale: Vec<Stale>,
    /// Records not yet counted that the answer could miss.
    pub max_lag: Option<u64>,
    /// The smallest stream time of the source partitions.
    pub stream_time: Option<String>,
    /// Every window that ends by then is final.
    pub final_until: Option<String>,
    /// What the answer waits for that will not end by itself soon.
    pub trouble: Option<String>,
}

/// A partition that a copy answered for.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Stale {
    /// The partition.
    pub partition: u32,
    /// How many changelog records the copy is behind; none where that is not known.
    pub lag: Option<u64>,
}

/// All instances of the application.
#[derive(Debug, Clone, Deserialize)]
pub struct ClusterAnswer {
    /// The generation of the group.
    #[serde(default)]
    pub generation: i32,
    /// The instances.
    pub instances: Vec<InstanceStatus>,
    /// The tasks that no instance owns now.
    #[serde(default)]
    pub unassigned: Vec<TaskStatus>,
    /// The tasks that read nothing more until an operator lets them try again.
    #[serde(default)]
    pub quarantined: Vec<Quarantined>,
}

/// A task that reads nothing more until an operator lets it try again.
#[derive(Debug, Clone, Deserialize)]
pub struct Quarantined {
    /// `<subtopology>_<partition>`.
    pub task: String,
    /// What was found.
    pub reason: String,
    /// Since when.
    pub since: String,
}

/// One instance and what it does.
#[derive(Debug, Clone, Deserialize)]
pub struct InstanceStatus {
    /// Its id.
    pub id: String,
    /// How others reach it.
    pub endpoint: Option<String>,
    /// The rack that it stands in, if that is known.
    pub rack: Option<String>,
    /// Its program's version, once it was heard.
    pub version: Option<String>,
    /// The state's name.
    #[serde(default)]
    pub state: String,
    /// How long ago the instance that was asked has heard of it.
    pub last_heard_ms: Option<u64>,
    /// The tasks it runs.
    pub active_tasks: Vec<TaskStatus>,
    /// The tasks of which it keeps a copy of the state.
    pub standby_tasks: Vec<TaskStatus>,
    /// The tasks whose state it builds, to take them over once it has it.
    #[serde(default)]
    pub warmup_tasks: Vec<TaskStatus>,
}

/// One task.
#[derive(Debug, Clone, Deserialize)]
pub struct TaskStatus {
    /// `<subtopology>_<partition>`.
    pub task: String,
    /// The state's name.
    pub state: String,
    /// The topic it reads.
    pub topic: String,
    /// The partition it reads.
    pub partition: u32,
    /// The offset of the next record to read.
    pub position: Option<i64>,
    /// Records not yet processed; none where that is not known.
    pub lag: Option<u64>,
    /// How far its restore has come, while there is one.
    pub restore: Option<RestoreProgress>,
    /// What keeps it from going on for now.
    pub trouble: Option<String>,
}

/// How far a restore has come, in offsets of the changelog.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct RestoreProgress {
    /// Where it started.
    pub start: i64,
    /// Where it is.
    pub position: i64,
    /// Where it ends.
    pub end: i64,
}

impl RestoreProgress {
    /// The share that is done, in percent.
    pub fn percent(&self) -> u64 {
        let (done, all) = (self.position - self.start, self.end - self.start);
        if all <= 0 { 100 } else { (done.clamp(0, all) as u128 * 100 / all as u128) as u64 }
    }
}

/// Title and detail of a problem (RFC 9457), or the start of whatever came instead of one.
pub(super) fn problem_in_one_line(text: &str) -> String {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let field = |name: &str| problem.get(name).and_then(Value::as_str);
    let whole = match (field("title"), field("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => text.chars().take(200).collect(),
    };
    let line = whole.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "no reason given".to_owned() } else { line }
}

/// The type of a problem; empty where it has none.
pub(super) fn problem_type(text: &str) -> String {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    problem.get("type").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::problem_in_one_line;

    #[test]
    fn a_problem_is_one_line() {
        assert_eq!(
            problem_in_one_line(r#"{"title":"Bad Request","detail":"from is\nafter to","status":400}"#),
            "Bad Request: from is after to"
        );
        assert_eq!(problem_in_one_line(r#"{"detail":"too early"}"#), "too early");
        assert_eq!(problem_in_one_line("<html>\n<b>gone</b>"), "<html> <b>gone</b>");
        assert_eq!(problem_in_one_line(""), "no reason given");
    }
}
