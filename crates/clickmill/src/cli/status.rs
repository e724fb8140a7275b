//! `clickmill status`: the instances and what they do.

use std::io::{self, Write};

use clap::Args;

use crate::client::{ClusterAnswer, InstanceStatus, TaskStatus, TotalsAnswer};

use super::error::CommandError;
use super::server::{ReadArgs, ServerArgs, completeness_line};
use super::table;

/// Show the instances, their tasks, state and lag, and what counts rest on now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill status
  clickmill status --json --url http://clicks.example:8080")]
pub(super) struct StatusArgs {
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
    let cluster: ClusterAnswer = client.get_json("/v1/cluster", &[])?;
    let counts = match client.get_json::<TotalsAnswer>("/v1/clicks", &args.read.parameters()) {
        Ok(answer) => completeness_line(&answer.completeness),
        Err(error) if error.is_transient() => table::printable(&error.to_string()),
        Err(error) => return Err(error.into()),
    };
    Ok(writeln!(io::stdout(), "{}\n\ncounts: {counts}", picture(&cluster))?)
}

fn picture(cluster: &ClusterAnswer) -> String {
    format!("{}\n\n{}", instances(cluster), tasks(cluster))
}

fn instances(cluster: &ClusterAnswer) -> String {
    let mut table =
        table::table(&["instance", "endpoint", "rack", "version", "state", "heard ms ago", "active", "standby", "warm-up"]);
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
            count(&instance.active_tasks),
            count(&instance.standby_tasks),
            count(&instance.warmup_tasks),
        ]);
    }
    table.to_string()
}

fn tasks(cluster: &ClusterAnswer) -> String {
    let mut table = table::table(&["instance", "task", "role", "state", "reads", "position", "lag", "trouble"]);
    let mut add = |instance: &str, role: &str, tasks: &[TaskStatus]| {
        for task in tasks {
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
    };
    for instance in &cluster.instances {
        add(&instance.id, "active", &instance.active_tasks);
        add(&instance.id, "standby", &instance.standby_tasks);
        add(&instance.id, "warm-up", &instance.warmup_tasks);
    }
    add("", "none", &cluster.unassigned);
    table.to_string()
}

/// The state, and while the state of the task is being restored how much of it is there.
fn state(task: &TaskStatus) -> String {
    task.restore.map_or_else(|| task.state.clone(), |restore| format!("{} {} %", task.state, restore.percent()))
}
