use std::fmt;

/// What a task is doing.
///
/// | from \ to    | Created | Restoring | Running | Suspended | Quarantined | Closed |
/// |--------------|---------|-----------|---------|-----------|-------------|--------|
/// | Created      |         | yes       |         |           |             | yes    |
/// | Restoring    |         |           | yes     |           | yes         | yes    |
/// | Running      |         | yes       |         | yes       | yes         | yes    |
/// | Suspended    |         | yes       | yes     |           | yes         | yes    |
/// | Quarantined  |         | yes       |         |           |             | yes    |
/// | Closed       |         |           |         |           |             |        |
///
/// - **Created**: assigned, nothing read yet.
/// - **Restoring**: the store is being brought to the end of its changelog, and a source task of a new partition waits until
///   every aggregate task knows of it. Nothing is fetched.
/// - **Running**: records are processed and committed. It goes back to restoring when the outcome of a commit is unknown, or a
///   partition that it writes to cannot be written.
/// - **Suspended**: its store cannot take what has committed (a full disk). Nothing is processed until it can; what it holds can be
///   queried.
/// - **Quarantined**: something is there that must not be, and going on would make wrong numbers. Nothing is read, and what it has
///   counted can be queried; the other tasks go on. An operator has to look, and lets it try again from restoring.
/// - **Closed**: given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Assigned, nothing read yet.
    Created,
    /// The store is being brought up to date.
    Restoring,
    /// Records are processed.
    Running,
    /// Waiting for the store.
    Suspended,
    /// Waiting for an operator.
    Quarantined,
    /// Given up.
    Closed,
}

/// A transition that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task cannot go from {from} to {to}")]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: TaskState,
    /// The state it was to go to.
    pub to: TaskState,
}

impl TaskState {
    /// The state after going to `to`.
    ///
    /// # Errors
    /// Where the table has no such transition.
    pub fn transition(self, to: TaskState) -> Result<TaskState, IllegalTransition> {
        use TaskState::{Closed, Created, Quarantined, Restoring, Running, Suspended};
        let legal = match self {
            Created | Quarantined => matches!(to, Restoring | Closed),
            Restoring => matches!(to, Running | Quarantined | Closed),
            Running => matches!(to, Restoring | Suspended | Quarantined | Closed),
            Suspended => matches!(to, Restoring | Running | Quarantined | Closed),
            Closed => false,
        };
        if legal { Ok(to) } else { Err(IllegalTransition { from: self, to }) }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Created => "created",
            TaskState::Restoring => "restoring",
            TaskState::Running => "running",
            TaskState::Suspended => "suspended",
            TaskState::Quarantined => "quarantined",
            TaskState::Closed => "closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState::{Closed, Created, Quarantined, Restoring, Running, Suspended};

    /// The table of the documentation, row by row.
    #[test]
    fn transitions_are_those_of_the_table() {
        let states = [Created, Restoring, Running, Suspended, Quarantined, Closed];
        let table = [
            [false, true, false, false, false, true],
            [false, false, true, false, true, true],
            [false, true, false, true, true, true],
            [false, true, true, false, true, true],
            [false, true, false, false, false, true],
            [false; 6],
        ];
        for (from, row) in states.into_iter().zip(table) {
            for (to, legal) in states.into_iter().zip(row) {
                assert_eq!(from.transition(to).is_ok(), legal, "{from} to {to}");
            }
        }
    }
}
