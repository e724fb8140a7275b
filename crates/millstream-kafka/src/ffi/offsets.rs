//! Requests for the offsets of many partitions at once.

use std::ffi::CStr;

use millstream::broker::Isolation;
use millstream::record::{Offset, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka_sys as sys;
use sys::rd_kafka_IsolationLevel_t as Level;
use sys::rd_kafka_OffsetSpec_t as Spec;
use sys::rd_kafka_admin_op_t as Op;

use super::admin::{Admin, End, native_partitions};
use super::{Failure, array, c_string, codes};

/// Which offset of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    End(End),
    /// The first record with this timestamp or a later one, in milliseconds; not negative.
    Time(i64),
}

impl<C: ClientContext> Admin<'_, C> {
    /// The offsets there, in the order asked, as a reader of that isolation sees them; none where a time lies behind every record.
    /// One request; no partition may be named twice.
    pub(crate) fn offsets(
        &self,
        partitions: &[TopicPartition],
        at: At,
        isolation: Isolation,
    ) -> Result<Vec<Option<Offset>>, Failure> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS)?;
        let asked_for = match at {
            At::End(End::Earliest) => Spec::RD_KAFKA_OFFSET_SPEC_EARLIEST as i32 as i64,
            At::End(End::Latest) => Spec::RD_KAFKA_OFFSET_SPEC_LATEST as i32 as i64,
            At::Time(time) => time.max(0),
        };
        let level = match isolation {
            Isolation::ReadCommitted => Level::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            Isolation::ReadUncommitted => Level::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let asked = native_partitions(partitions.iter().map(|partition| (partition, asked_for)));
        // SAFETY: the options and the list live for the calls, which copy what they need; the error is ours.
        unsafe {
            Failure::take(sys::rd_kafka_AdminOptions_set_isolation_level(request.options(), level))?;
            sys::rd_kafka_ListOffsets(self.native(), asked.ptr(), request.options(), request.queue());
        }
        let answer = request.answer(self.timeout())?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        let found: Vec<*const sys::rd_kafka_topic_partition_t> = unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(answer.event());
            let infos = array(sys::rd_kafka_ListOffsets_result_infos(result, &mut count), count);
            infos.iter().map(|info| sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info)).collect()
        };
        // SAFETY: the elements live as long as the answer.
        partitions.iter().map(|partition| unsafe { offset_of(partition, &found) }).collect()
    }
}

/// # Safety
/// The elements live.
unsafe fn offset_of(
    partition: &TopicPartition,
    found: &[*const sys::rd_kafka_topic_partition_t],
) -> Result<Option<Offset>, Failure> {
    let (name, number) = (c_string(&partition.topic), i32::try_from(partition.partition.0).unwrap_or(i32::MAX));
    let is_it = |element: &&*const sys::rd_kafka_topic_partition_t| {
        // SAFETY: the caller vouches that the element lives; its name ends with a zero byte and lives as long.
        unsafe { (***element).partition == number && CStr::from_ptr((***element).topic) == name.as_c_str() }
    };
    let element = *found.iter().find(is_it).ok_or_else(Failure::timed_out)?;
    // SAFETY: as above.
    let (error, offset) = unsafe { (codes::of_partition(element), (*element).offset) };
    Failure::check(error)?;
    Ok((offset >= 0).then_some(Offset(offset)))
}
