//! One identity, one process: a copy of a data directory is found before it takes anything from the original.

use std::collections::BTreeSet;

use anyhow::Context;

use super::instance::LastLife;
use super::{Misconfigured, read_secret};
use crate::config::Config;
use crate::peers::{Identity, living};

/// Looks whether a process is there that is this instance, where the instance was last, and where the group has it. Blocks; to be called before anything is
/// asked of the brokers in the name of the instance.
///
/// # Errors
/// A [`Misconfigured`] where there is one. It goes on, and this process must not start.
pub(super) fn refuse(config: &Config, instance: &str, last: Option<&LastLife>, members: &[String]) -> anyhow::Result<()> {
    let own = config.server.advertise.as_deref();
    let recorded = last.and_then(|last| last.endpoint.as_deref());
    let endpoints: BTreeSet<&str> = members.iter().map(String::as_str).chain(recorded).collect();
    let secret = config.server.peer_secret_file.as_deref().map(read_secret).transpose()?;
    let identity = Identity { application_id: config.engine.application_id.clone(), instance: instance.into(), secret };
    // Not every command has a runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    for endpoint in endpoints.into_iter().filter(|endpoint| Some(*endpoint) != own) {
        let Some(incarnation) = runtime.block_on(living(&identity, endpoint)) else { continue };
        return Err(Misconfigured(format!(
            "instance {instance} of application {} is running already, as the process at {endpoint} (incarnation {incarnation:016x}): data directory {} \
             is in its hands, or a copy of its own. Give each instance a data directory of its own; in a copy, delete the file instance-id, with which \
             it becomes another instance",
            config.engine.application_id,
            config.data.dir.display()
        ))
        .into());
    }
    Ok(())
}
