use std::fmt;

/// What an instance is for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It counts: it alone reads the task's inputs and commits.
    Active,
    /// It keeps a copy of the task's store, and takes the task over in place. (A warm-up is one too: only the group tells them apart.)
    Standby,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Standby => "standby",
        })
    }
}
