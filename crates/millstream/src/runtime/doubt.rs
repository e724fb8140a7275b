//! What was committed stays committed: where brokers break that, nothing more is counted.
//!
//! A broker can take back a transaction that it has answered for: Apache Kafka 4.3 and 4.4 forget to mark one as ended that they finish
//! while its partitions have no leader, and when the producer's next transaction is aborted, both are. Going on would count
//! twice what was committed, or leave it out.

use crate::broker::CommittedOffset;
use crate::record::{Offset, TopicPartition};
use crate::task::TaskError;

/// Makes sure that the position of the group is not before one that was committed.
///
/// # Errors
/// [`TaskError::Halt`] where it is.
pub(super) fn check_commit_lasts(input: &TopicPartition, ours: Offset, found: Option<&CommittedOffset>) -> Result<(), TaskError> {
    let found = found.map(|committed| committed.offset);
    if found >= Some(ours) {
        return Ok(());
    }
    let found = found.map_or("gone".to_owned(), |offset| offset.to_string());
    Err(TaskError::Halt(format!(
        "the group's position in {input} is {found}, though {ours} was committed from here: unless it was reset or its topic deleted, the brokers have \
         lost a transaction that they had committed, and going on would make wrong counts: stop every instance and count anew \
         (clickmill reset)"
    )))
}
