//! Requests about consumer groups as a whole: who is in them, what they have committed, and their end.

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;
use sys::rd_kafka_admin_op_t as Op;

use super::admin::{Admin, native_elements};
use super::{Failure, array, c_string, codes, text};

/// A member of a group, as the group's coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) client_id: String,
    pub(crate) host: String,
}

impl<C: ClientContext> Admin<'_, C> {
    /// The members of a group; none where there is no such group.
    pub(crate) fn members(&self, group: &str) -> Result<Vec<Member>, Failure> {
        let (request, name) = (self.request(Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS)?, c_string(group));
        // SAFETY: client, options and queue live for the call, which copies the names.
        unsafe {
            let mut names = [name.as_ptr()];
            sys::rd_kafka_DescribeConsumerGroups(self.native(), names.as_mut_ptr(), 1, request.options(), request.queue());
        }
        let answer = request.answer(self.timeout())?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does, and so do its members.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer.event());
            let groups = array(sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count), count);
            let described = *groups.first().ok_or_else(Failure::timed_out)?;
            match Failure::read(sys::rd_kafka_ConsumerGroupDescription_error(described)) {
                Err(failure) if failure.code == Code::GroupIdNotFound => return Ok(Vec::new()),
                outcome => outcome?,
            }
            let member = |index| {
                let member = sys::rd_kafka_ConsumerGroupDescription_member(described, index);
                Member {
                    id: text(sys::rd_kafka_MemberDescription_consumer_id(member)),
                    client_id: text(sys::rd_kafka_MemberDescription_client_id(member)),
                    host: text(sys::rd_kafka_MemberDescription_host(member)),
                }
            };
            Ok((0..sys::rd_kafka_ConsumerGroupDescription_member_count(described)).map(member).collect())
        }
    }

    /// Sets what a group without members has committed, metadata included. Positions of other partitions stay.
    pub(crate) fn set_committed(&self, group: &str, positions: &TopicPartitionList) -> Result<(), Failure> {
        let (request, group) = (self.request(Op::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS)?, c_string(group));
        // SAFETY: name and list live for the calls, which copy them, the metadata too; what was made is destroyed once.
        unsafe {
            let alteration = sys::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), positions.ptr());
            sys::rd_kafka_AlterConsumerGroupOffsets(
                self.native(),
                [alteration].as_mut_ptr(),
                1,
                request.options(),
                request.queue(),
            );
            sys::rd_kafka_AlterConsumerGroupOffsets_destroy(alteration);
        }
        let answer = request.answer(self.timeout())?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        unsafe {
            let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(answer.event());
            let groups = array(sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &mut count), count);
            let altered = *groups.first().ok_or_else(Failure::timed_out)?;
            Failure::read(sys::rd_kafka_group_result_error(altered))?;
            let mut partitions = native_elements(sys::rd_kafka_group_result_partitions(altered));
            partitions.try_for_each(|partition| Failure::check(codes::of_partition(partition)))
        }
    }

    /// Deletes a group without members, and with it everything that it has committed. One that is not there is no error.
    pub(crate) fn delete_group(&self, group: &str) -> Result<(), Failure> {
        let (request, group) = (self.request(Op::RD_KAFKA_ADMIN_OP_DELETEGROUPS)?, c_string(group));
        // SAFETY: the name lives for the call, which copies it; the deletion is copied into the request and destroyed once.
        unsafe {
            let deletion = sys::rd_kafka_DeleteGroup_new(group.as_ptr());
            sys::rd_kafka_DeleteGroups(self.native(), [deletion].as_mut_ptr(), 1, request.options(), request.queue());
            sys::rd_kafka_DeleteGroup_destroy(deletion);
        }
        let answer = request.answer(self.timeout())?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        let outcome = unsafe {
            let result = sys::rd_kafka_event_DeleteGroups_result(answer.event());
            let groups = array(sys::rd_kafka_DeleteGroups_result_groups(result, &mut count), count);
            Failure::read(sys::rd_kafka_group_result_error(*groups.first().ok_or_else(Failure::timed_out)?))
        };
        match outcome {
            Err(failure) if failure.code == Code::GroupIdNotFound => Ok(()),
            outcome => outcome,
        }
    }
}
