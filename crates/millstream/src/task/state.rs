use std::fmt;

/// What a task is doing.
///
/// | from \ to    | Created | Restoring | Running | Suspended | Closed |
/// |--------------|---------|-----------|---------|-----------|--------|
/// | Created      |         | yes       |         |           | yes    |
/// | Restoring    |         |           | yes     |           | yes    |
/// | Running      |         | yes       |         | yes       | yes    |
/// | Suspended    |         | yes       | yes     |           | yes    |
/// | Closed       |         |           |         |           |        |
///
/// - **Created**: assigned, nothing read yet.
/// - **Restoring**: the store is being brought to the end of its changelog, and a source task of a new partition waits until
///   every aggregate task knows of it. Nothing is fetched.
/// - **Running**: records are processed and committed. It goes back to restoring when the outcome of a commit is unknown.
/// - **Suspended**: its store cannot take what has committed (a full disk). Nothing is processed until it can; what it holds can be
///   queried.
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
        use TaskState::{Closed, Created, Restoring, Running, Suspended};
        let legal = match self {
            Created => matches!(to, Restoring | Closed),
            Restoring => matches!(to, Running | Closed),
            Running => matches!(to, Restoring | Suspended | Closed),
            Suspended => matches!(to, Restoring | Running | Closed),
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
            TaskState::Closed => "closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState::{Closed, Created, Restoring, Running, Suspended};

    /// The table of the documentation, row by row.
    #[test]
    fn transitions_are_those_of_the_table() {
        let states = [Created, Restoring, Running, Suspended, Closed];
        let table = [
            [false, true, false, false, true],
            [false, false, true, false, true],
            [false, true, false, true, true],
            [false, true, true, false, true],
            [false; 5],
        ];
        for (from, row) in states.into_iter().zip(table) {
            for (to, legal) in states.into_iter().zip(row) {
                assert_eq!(from.transition(to).is_ok(), legal, "{from} to {to}");
            }
        }
    }
}
