//! A group that is held by members of another kind.

use super::describe::{self, DescribedGroup};
use crate::ffi::Failure;
use crate::wire::{CoordinatorLine, codes};

/// So many members are named.
const NAMED: usize = 5;

/// The failure of joining, which names whoever holds the group as far as that can be told.
pub(super) fn failure(line: &mut CoordinatorLine, group: &str) -> Failure {
    let failure = Failure::of_number(codes::INCONSISTENT_GROUP_PROTOCOL.into());
    match describe::ask(line, group) {
        Ok(described) => Failure { reason: format!("{failure}: {}", in_words(&described)), ..failure },
        Err(reason) => {
            tracing::debug!(group, %reason, "the members of the group cannot be asked for");
            failure
        }
    }
}

fn in_words(group: &DescribedGroup) -> String {
    let named = group.members.iter().take(NAMED);
    let named: Vec<_> =
        named.map(|member| format!("client id {} at {} (member {})", member.client_id, member.host, member.id)).collect();
    let more = group.members.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let protocol = if group.protocol.is_empty() { &group.protocol_type } else { &group.protocol };
    format!(
        "{}{more} hold it with protocol {protocol}, which is another one than this version speaks: stop all instances of the previous version \
         first, then start this one",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::DescribedMember;
    use super::*;

    #[test]
    fn who_holds_the_group_and_the_way_out_are_named() {
        let member = |number: usize| DescribedMember {
            id: format!("id-{number}"),
            client_id: "rdkafka".to_owned(),
            host: "10.0.0.1".to_owned(),
            introduction: None,
        };
        let group = DescribedGroup {
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocol: "cooperative-sticky".to_owned(),
            members: (0..7).map(member).collect(),
        };
        let words = in_words(&group);
        for part in ["rdkafka at 10.0.0.1 (member id-0)", "id-4", "and 2 more", "cooperative-sticky", "stop all instances"] {
            assert!(words.contains(part), "{part} is not in {words}");
        }
        assert!(!words.contains("id-5"));
    }
}
