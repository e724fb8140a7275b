//! Who holds what, as a generation of the group was told.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::assignor::{Assignment, Roles};

/// Who holds what in a generation of the group. Every member is told the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Directory {
    /// The generation.
    pub generation: i32,
    /// The members by the names of their instances, which a restart does not change.
    pub instances: BTreeMap<Arc<str>, InstanceInfo>,
    /// How many threads the instances had that were members and may come back: what they have left open is ended by whoever takes over from them.
    pub absent: BTreeMap<Arc<str>, u32>,
    /// What each holds. A task is named by the partition that it reads.
    pub assignment: Assignment,
}

impl Directory {
    /// How many threads each instance has or had, of those that are members or may come back.
    pub(super) fn threads(&self) -> BTreeMap<Arc<str>, u32> {
        let members = self.instances.iter().map(|(instance, info)| (instance.clone(), info.threads));
        self.absent.iter().map(|(instance, threads)| (instance.clone(), *threads)).chain(members).collect()
    }

    /// What the member of that name holds.
    pub fn roles_of(&self, member: &str) -> Option<&Roles> {
        let (instance, _) = self.instances.iter().find(|(_, info)| *info.member == *member)?;
        self.assignment.members.get(instance)
    }
}

/// What is known of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its name in the group.
    pub member: Arc<str>,
    /// Which life of the instance it is.
    pub incarnation: u64,
    /// Where others reach it, if they can.
    pub endpoint: Option<Arc<str>>,
    /// The rack that it stands in, if that is known.
    pub rack: Option<Arc<str>>,
    /// How many threads it has.
    pub threads: u32,
}
