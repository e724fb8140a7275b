//! `clickmill status`: the instances and what they do.

use std::io::{self, Write};

use clap::Args;

use crate::client::{Client, ClusterAnswer, InstanceStatus, Quarantined, TaskStatus, TotalsAnswer};

use super::error::CommandError;
use super::server::{ReadArgs, ServerArgs, completeness_line};
use super::{table, watch};

const ACTIVE: &str = "active";
const STANDBY: &str = "standby";
const WARM_UP: &str = "warm-up";
const NO_OWNER: &str = "no owner";

/// A copy that is further behind than so many changelog records is shown with `--brief`.
const MUCH: u64 = 1_000;

/// Show the instances, their tasks, state and lag, and what counts rest on now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill status
  clickmill status --brief --watch                       as it changes, until Ctrl-C
  clickmill status --json --url http://clicks.example:8080

docs/operations.md says what each state means and what to do.")]
pub(super) struct StatusArgs {
    /// A line for each instance, and one for each task that needs a look
    #[arg(long, conflicts_with = "json")]
    brief: bool,
    /// Show it again every second
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print the service's answer as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: &StatusArgs) -> Result<(), CommandError> {
    let client = args.server.client()?;
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", client.get("/v1/cluster", &[])?)?);
    }
    if args.watch {
        return watch::redraw(|| match ask(&client, args) {
            Err(CommandError::Client(error)) if error.is_transient() => Ok(watch::waiting(&error)),
            picture => picture,
        });
    }
    Ok(writeln!(io::stdout(), "{}", ask(&client, args)?)?)
}

/// Asks the service, and puts its answers into one picture.
fn ask(client: &Client, args: &StatusArgs) -> Result<String, CommandError> {
    let cluster: ClusterAnswer = client.get_json("/v1/cluster", &[])?;
    let counts = match client.get_json::<TotalsAnswer>("/v1/clicks", &args.read.parameters()) {
        Ok(answer) => completeness_line(&answer.completeness),
        Err(error) if error.is_transient() => table::printable(&error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let picture = if args.brief { brief(&cluster) } else { format!("{}\n\n{}", instances(&cluster), tasks(&cluster)) };
    Ok(format!("{picture}{}\n\ncounts: {counts}", in_quarantine(&cluster)))
}

/// A line for each task in quarantine.
fn in_quarantine(cluster: &ClusterAnswer) -> String {
    let line = |Quarantined { task, reason, since }: &Quarantined| format!("in quarantine: {task} since {since}: {reason}");
    cluster.quarantined.iter().map(|task| format!("\n{}", table::printable(&line(task)))).collect()
}

fn instances(cluster: &ClusterAnswer) -> String {
    let headings = ["instance", "endpoint", "rack", "version", "state", "heard ms ago", "lag", "active", "standby", "warm-up"];
    let mut table = table::table(&headings);
    for instance in &cluster.instances {
        let InstanceStatus { id, endpoint, rack, version, state, last_heard_ms, .. } = instance;
        let count = |tasks: &[TaskStatus]| table::number(tasks.len() as u64);
        table.add_row([
            table::text(id),
            table::text(endpoint.as_deref().unwrap_or_default()),
            table::text(rack.as_deref().unwrap_or_default()),
            table::text(version.as_deref().unwrap_or_default()),
            table::text(state),
            table::number(*last_heard_ms),
            table::number(lag(&instance.active_tasks)),
            count(&instance.active_tasks),
            count(&instance.standby_tasks),
            count(&instance.warmup_tasks),
        ]);
    }
    table.to_string()
}

/// A line for each instance, and one for each task that is not as it should be.
fn brief(cluster: &ClusterAnswer) -> String {
    let mut table = table::table(&["instance", "endpoint", "state", "heard ms ago", "lag", "active", "standby", "warm-up"]);
    for instance in &cluster.instances {
        let InstanceStatus { id, endpoint, state, last_heard_ms, active_tasks, standby_tasks, warmup_tasks, .. } = instance;
        table.add_row([
            table::text(id),
            table::text(endpoint.as_deref().unwrap_or_default()),
            table::text(state),
            table::number(*last_heard_ms),
            table::number(lag(active_tasks)),
            table::text(&names(active_tasks)),
            table::text(&names(standby_tasks)),
            table::text(&names(warmup_tasks)),
        ]);
    }
    let notable = all_tasks(cluster).filter_map(|(instance, role, task)| {
        let what = what_is_up(role, task)?;
        let held_by = if instance.is_empty() { String::new() } else { format!(" of {instance}") };
        Some(format!("\n{}", table::printable(&format!("{} ({role}{held_by}): {what}", task.task))))
    });
    let notable: String = notable.collect();
    format!("{table}{notable}")
}

/// What somebody may want to know of a task; none where it is as it should be.
fn what_is_up(role: &str, task: &TaskStatus) -> Option<String> {
    let is_copy = matches!(role, STANDBY | WARM_UP);
    let is_as_it_should_be = match role {
        ACTIVE => task.state == "running",
        // A copy restores for as long as it is one.
        STANDBY | WARM_UP => task.state == "restoring" && task.lag.is_some_and(|lag| lag <= MUCH),
        _ => false,
    };
    if is_as_it_should_be && task.trouble.is_none() {
        return None;
    }
    let behind = if is_copy { "changelog records to copy" } else { "records wait" };
    let lag = task.lag.map_or_else(String::new, |lag| format!(", {lag} {behind}"));
    let trouble = task.trouble.as_ref().map_or_else(String::new, |trouble| format!(": {trouble}"));
    Some(format!("{}{lag}{trouble}", state(task)))
}

fn names(tasks: &[TaskStatus]) -> String {
    tasks.iter().map(|task| task.task.as_str()).collect::<Vec<_>>().join(" ")
}

/// Of all the tasks together; none where it is not known of one of them.
fn lag(tasks: &[TaskStatus]) -> Option<u64> {
    tasks.iter().map(|task| task.lag).sum()
}

fn tasks(cluster: &ClusterAnswer) -> String {
    let mut table = table::table(&["instance", "task", "role", "state", "reads", "position", "lag", "trouble"]);
    for (instance, role, task) in all_tasks(cluster) {
        table.add_row([
            table::text(instance),
            table::text(&task.task),
            table::text(role),
            table::text(&state(task)),
            table::text(&format!("{}-{}", task.topic, task.partition)),
            table::text(&task.position.map_or_else(String::new, |position| position.to_string())),
            table::number(task.lag),
            table::text(task.trouble.as_deref().unwrap_or_default()),
        ]);
    }
    table.to_string()
}

/// Every task with the instance that holds it, if any, and its role there.
fn all_tasks(cluster: &ClusterAnswer) -> impl Iterator<Item = (&str, &'static str, &TaskStatus)> {
    let held = cluster.instances.iter().flat_map(|instance| {
        let roles = [(ACTIVE, &instance.active_tasks), (STANDBY, &instance.standby_tasks), (WARM_UP, &instance.warmup_tasks)];
        roles.into_iter().flat_map(move |(role, tasks)| tasks.iter().map(move |task| (instance.id.as_str(), role, task)))
    });
    held.chain(cluster.unassigned.iter().map(|task| ("", NO_OWNER, task)))
}

/// The state, and while the state of the task is being restored how much of it is there.
fn state(task: &TaskStatus) -> String {
    task.restore.map_or_else(|| task.state.clone(), |restore| format!("{} {} %", task.state, restore.percent()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterAnswer {
        let task = |name: &str, state: &str, lag: u64| {
            serde_json::json!({"task": name, "state": state, "topic": "clicks", "partition": 0, "position": 1, "lag": lag,
                               "restore": null, "trouble": null})
        };
        let instance = |id: &str, active, standby| {
            serde_json::json!({"id": id, "endpoint": "127.0.0.1:1", "state": "running", "last_heard_ms": 3, "active_tasks": active,
                               "standby_tasks": standby, "warmup_tasks": []})
        };
        let a = instance("a", vec![task("0_0", "running", 2), task("1_0", "running", 3)], vec![task("1_1", "restoring", 9)]);
        let b = instance("b", vec![task("1_1", "created", 4)], vec![task("1_0", "restoring", 5_000)]);
        let quarantined = serde_json::json!([{"task": "1_7", "reason": "a record\u{1b}", "since": "2026-01-01T00:05:00.000Z"}]);
        let answer =
            serde_json::json!({"instances": [a, b], "unassigned": [task("0_1", "unassigned", 7)], "quarantined": quarantined});
        serde_json::from_value(answer).expect("an answer")
    }

    #[test]
    fn in_brief_there_is_a_line_for_each_instance_and_each_task_that_is_not_as_it_should_be() {
        let picture = brief(&cluster());
        let lines: Vec<Vec<_>> = picture.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a", "127.0.0.1:1", "running", "3", "5", "0_0", "1_0", "1_1"]);
        assert_eq!(lines[2], ["b", "127.0.0.1:1", "running", "3", "4", "1_1", "1_0"]);
        let notable: Vec<_> = picture.lines().skip(3).collect();
        assert_eq!(
            notable,
            [
                "1_1 (active of b): created, 4 records wait",
                "1_0 (standby of b): restoring, 5000 changelog records to copy",
                "0_1 (no owner): unassigned, 7 records wait",
            ]
        );
    }

    #[test]
    fn every_task_is_in_the_full_list_and_quarantine_has_its_reason() {
        let cluster = cluster();
        assert_eq!(tasks(&cluster).lines().count(), 1 + 6);
        assert_eq!(in_quarantine(&cluster), "\nin quarantine: 1_7 since 2026-01-01T00:05:00.000Z: a record\\u{1b}");
    }
}
