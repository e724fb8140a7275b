//! All instances and what they hold, from what the group has told, and what each instance has told of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::broker::group::{Directory, InstanceInfo};
use millstream::query::{InstanceStatus, TaskReport};
use millstream::record::TopicPartition;
use millstream::task::{Role, TaskState};

use super::mill::{Application, KnownTask, Mill};
use super::status::{Cluster, Instance, Quarantined, TaskStatus};
use crate::peers::{Heard, LinkChange, Peers, SILENT_AFTER};

/// After so long without a word from an owner, this instance cannot answer for all.
const OWNER_LOST_AFTER: Duration = Duration::from_secs(5);

/// All instances and what they hold.
pub(super) fn describe(mill: &dyn Mill, peers: Option<&Arc<Peers>>) -> Cluster {
    let (application, directory, own) = (mill.application(), mill.directory(), mill.status());
    let heard = peers.map(|peers| peers.heard()).unwrap_or_default();
    let names: BTreeSet<&Arc<str>> = directory.instances.keys().chain([&own.instance]).collect();
    let known = |name: &Arc<str>| match *name == own.instance {
        true => Some((&own, Some(0))),
        false => {
            let heard = heard.get(name)?;
            Some((heard.status.as_ref()?, heard.at.map(|at| at.elapsed().as_millis() as u64)))
        }
    };
    let instances: Vec<Instance> = names
        .iter()
        .map(|name| {
            let (status, last_heard_ms) = known(name).map_or((None, None), |(status, heard)| (Some(status), heard));
            let endpoint = (**name == own.instance).then_some(&application.endpoint);
            instance(name, endpoint, &directory, &application, status, last_heard_ms)
        })
        .collect();
    let assigned: BTreeSet<&str> =
        instances.iter().flat_map(|instance| &instance.active_tasks).map(|task| task.task.as_str()).collect();
    let unassigned = application.tasks.iter().filter(|task| !assigned.contains(task.id.to_string().as_str()));
    Cluster {
        generation: directory.generation,
        unassigned: unassigned.map(|task| TaskStatus::not_reported(task, "unassigned")).collect(),
        quarantined: names.iter().filter_map(|name| known(name)).flat_map(|(status, _)| quarantined(status)).collect(),
        application_id: application.id,
        instances,
    }
}

fn instance(
    name: &Arc<str>,
    endpoint: Option<&String>,
    directory: &Directory,
    application: &Application,
    status: Option<&InstanceStatus>,
    last_heard_ms: Option<u64>,
) -> Instance {
    let info = directory.instances.get(name);
    let reports: BTreeMap<&TopicPartition, &TaskReport> =
        status.iter().flat_map(|status| &status.tasks).map(|task| (&task.input, task)).collect();
    let tasks = |told: &BTreeSet<TopicPartition>| {
        let known = told.iter().filter_map(|input| application.tasks.iter().find(|task| task.input == *input));
        known
            .map(|task| match reports.get(&task.input) {
                Some(report) => TaskStatus::from((*report).clone()),
                None => TaskStatus::not_reported(task, "unknown"),
            })
            .collect()
    };
    let of_role = |role: Role| {
        let reported = status.iter().flat_map(|status| &status.tasks).filter(move |task| task.role == role);
        reported.map(|task| task.input.clone()).collect::<BTreeSet<_>>()
    };
    let roles = directory.assignment.members.get(name);
    // Before the group has told anything, an instance knows its own.
    let active = roles.map_or_else(|| of_role(Role::Active), |roles| roles.active.clone());
    let standby = roles.map_or_else(|| of_role(Role::Standby), |roles| roles.standby.clone());
    let warmup = roles.map(|roles| roles.warmup.clone()).unwrap_or_default();
    let told = |info: &InstanceInfo| info.endpoint.as_ref().map(ToString::to_string);
    Instance {
        id: name.to_string(),
        endpoint: info.and_then(told).or_else(|| endpoint.cloned()),
        rack: info.and_then(|info| info.rack.as_ref()).map(ToString::to_string),
        version: status.map(|status| status.version.clone()),
        state: state(status, &active).to_owned(),
        last_heard_ms,
        active_tasks: tasks(&active),
        standby_tasks: tasks(&standby),
        warmup_tasks: tasks(&warmup),
    }
}

fn state(status: Option<&InstanceStatus>, active: &BTreeSet<TopicPartition>) -> &'static str {
    let Some(status) = status else { return "unknown" };
    let is_settled = |task: &&TaskReport| matches!(task.state, TaskState::Running | TaskState::Quarantined);
    let settled = status.tasks.iter().filter(|task| task.role == Role::Active && active.contains(&task.input)).filter(is_settled);
    if settled.count() == active.len() { "running" } else { "starting" }
}

fn quarantined(status: &InstanceStatus) -> impl Iterator<Item = Quarantined> + '_ {
    status.tasks.iter().filter_map(|task| {
        let since = task.quarantined_since?;
        Some(Quarantined { task: task.id.to_string(), reason: task.trouble.clone().unwrap_or_default(), since })
    })
}

/// Why this instance cannot answer for all of them now, if it cannot: it has not heard of the others yet, has lost them, or has not reached an
/// owner for long.
pub(super) fn trouble(mill: &dyn Mill, peers: Option<&Arc<Peers>>) -> Option<String> {
    let (peers, directory) = (peers?, mill.directory());
    let heard = peers.heard();
    let others: Vec<_> =
        directory.instances.iter().filter(|(name, info)| *name != peers.me() && info.endpoint.is_some()).collect();
    let unknown = others.iter().find(|(name, _)| heard.get(*name).is_none_or(|heard| heard.at.is_none() && heard.link.is_none()));
    if let Some((name, _)) = unknown {
        return Some(format!("instance {name} has not been heard yet"));
    }
    let of_others = || others.iter().filter_map(|(name, _)| Some((*name, heard.get(*name)?)));
    if !others.is_empty() && !of_others().any(|(_, heard)| is_known_now(heard)) {
        return Some("no other instance has been heard for a second".to_owned());
    }
    let is_owner = |name: &Arc<str>| directory.assignment.members.get(name).is_some_and(|roles| !roles.active.is_empty());
    let (name, heard) = of_others().find(|(name, heard)| is_owner(name) && is_lost(heard))?;
    Some(format!("instance {name} at {} owns tasks and was not reached for {} s", heard.endpoint, OWNER_LOST_AFTER.as_secs()))
}

/// Which of the copies that this instance is to keep have not caught up, if any.
pub(super) fn copies_behind(mill: &dyn Mill) -> Option<String> {
    let (directory, own) = (mill.directory(), mill.status());
    let roles = directory.assignment.members.get(&own.instance)?;
    let has_caught_up = |input: &TopicPartition| {
        own.tasks.iter().any(|task| task.role == Role::Standby && task.input == *input && task.lag == Some(0))
    };
    let behind: Vec<_> = roles.standby.iter().filter(|input| !has_caught_up(input)).map(ToString::to_string).collect();
    (!behind.is_empty()).then(|| format!("copies that have not caught up yet, of the tasks that read {}", behind.join(", ")))
}

/// Whether it was heard a moment ago, or is known to be away.
fn is_known_now(heard: &Heard) -> bool {
    let is_away = matches!(heard.link, Some((LinkChange::Refused | LinkChange::Closed | LinkChange::Reset, _)));
    is_away || heard.at.is_some_and(|at| at.elapsed() < SILENT_AFTER)
}

fn is_lost(heard: &Heard) -> bool {
    let last: Option<Instant> = heard.at.or(heard.link.as_ref().map(|(_, at)| *at));
    heard.at.is_some_and(|_| last.is_some_and(|at| at.elapsed() > OWNER_LOST_AFTER))
}

impl From<TaskReport> for TaskStatus {
    fn from(report: TaskReport) -> Self {
        Self {
            task: report.id.to_string(),
            state: report.state.to_string(),
            topic: report.input.topic.to_string(),
            partition: report.input.partition.0,
            position: report.position.map(|offset| offset.0),
            lag: report.lag,
            restore: report.restore.map(Into::into),
            trouble: report.trouble,
        }
    }
}

impl TaskStatus {
    /// A task that nobody has told anything of. What waits for it is known all the same.
    fn not_reported(task: &KnownTask, state: &str) -> Self {
        Self {
            task: task.id.to_string(),
            state: state.to_owned(),
            topic: task.input.topic.to_string(),
            partition: task.input.partition.0,
            position: None,
            lag: task.lag,
            restore: None,
            trouble: None,
        }
    }
}
