//! The proof of membership that a commit carries.

/// Generation and member id of a member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) generation: i32,
    pub(crate) member: String,
}

impl Membership {
    /// Whether a commit with it is fenced: the broker checks nothing for one that is no member.
    pub(crate) fn proves_something(generation: i32, member: &str) -> bool {
        generation >= 0 && !member.is_empty()
    }
}
