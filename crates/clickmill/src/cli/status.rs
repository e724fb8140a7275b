//! `clickmill status`: the instances and what they do.

use std::io::{self, Write};

use clap::Args;

use crate::client::{ClusterAnswer, TaskStatus};

use super::error::CommandError;
use super::server::ServerArgs;
use super::table;

/// Show the instances, their tasks, state and lag.
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
    server: ServerArgs,
}

pub(super) fn run(args: &StatusArgs) -> Result<(), CommandError> {
    let client = args.server.client()?;
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", client.get("/v1/cluster", &[])?)?);
    }
    let cluster: ClusterAnswer = client.get_json("/v1/cluster", &[])?;
    Ok(writeln!(io::stdout(), "{}", picture(&cluster))?)
}

fn picture(cluster: &ClusterAnswer) -> String {
    let mut table = table::table(&["instance", "endpoint", "task", "role", "state", "reads", "position", "lag", "trouble"]);
    for instance in &cluster.instances {
        let active = instance.active_tasks.iter().map(|task| (task, "active"));
        let standby = instance.standby_tasks.iter().map(|task| (task, "standby"));
        for (task, role) in active.chain(standby) {
            table.add_row([
                table::text(&instance.id),
                table::text(&instance.endpoint),
                table::text(&task.task),
                table::text(role),
                table::text(&state(task)),
                table::text(&format!("{}-{}", task.topic, task.partition)),
                table::text(&task.position.map_or_else(String::new, |position| position.to_string())),
                table::number(task.lag),
                table::text(task.trouble.as_deref().unwrap_or_default()),
            ]);
        }
    }
    table.to_string()
}

/// The state, and while the state of the task is being restored how much of it is there.
fn state(task: &TaskStatus) -> String {
    task.restore.map_or_else(|| task.state.clone(), |restore| format!("{} {} %", task.state, restore.percent()))
}
