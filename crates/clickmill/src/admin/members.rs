//! Who is a member of the application's group.

use millstream_kafka::KafkaBroker;

/// Refuses what only an application without running instances may be asked for.
///
/// # Errors
/// Where the group has members, with their names.
pub fn refuse_members(broker: &KafkaBroker, group: &str) -> anyhow::Result<()> {
    let members = broker.group_members(group)?;
    if members.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = members.iter().map(|member| format!("{} at {}", member.id, member.host)).collect();
    anyhow::bail!(
        "group {group} has {} members ({}): stop every instance first; one that was killed is a member until its session times out",
        members.len(),
        names.join(", ")
    )
}
