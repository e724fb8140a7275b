//! Requests to the cluster that are neither a producer's nor a consumer's.

use std::ptr::NonNull;
use std::time::Duration;

use millstream::broker::{Isolation, TopicDescription};
use millstream::record::{Offset, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;
use sys::rd_kafka_admin_op_t as Op;

use super::{Failure, array, c_string, codes, millis, text};

/// Sends requests through a client and waits for each answer.
pub(crate) struct Admin<'a, C: ClientContext> {
    client: &'a Client<C>,
    timeout: Duration,
}

/// A topic to be created.
pub(crate) struct NewTopic<'a> {
    pub(crate) name: &'a str,
    pub(crate) partitions: i32,
    /// Copies of each partition; -1 is the broker's default.
    pub(crate) replication: i32,
    pub(crate) settings: &'a [(String, String)],
}

/// Which end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Earliest,
    Latest,
}

/// What a request is sent with: its options and the queue that the answer comes to.
pub(super) struct Request {
    options: NonNull<sys::rd_kafka_AdminOptions_t>,
    queue: NonNull<sys::rd_kafka_queue_t>,
}

/// An answer.
pub(super) struct Answer(NonNull<sys::rd_kafka_event_t>);

impl<'a, C: ClientContext> Admin<'a, C> {
    pub(crate) fn new(client: &'a Client<C>, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn native(&self) -> *mut sys::rd_kafka_t {
        self.client.native_ptr()
    }

    pub(super) fn request(&self, op: Op) -> Result<Request, Failure> {
        let request = Request::new(self.native(), op);
        let (mut buffer, timeout) = ([0; 512], millis(self.timeout));
        // SAFETY: the options live as long as the request, and the buffer for the call.
        Failure::check(unsafe {
            let options = request.options.as_ptr();
            codes::rd_kafka_AdminOptions_set_request_timeout(options, timeout, buffer.as_mut_ptr(), buffer.len())
        })?;
        Ok(request)
    }

    /// A topic's id and partitions; none where there is no such topic.
    pub(crate) fn describe_topic(&self, topic: &str) -> Result<Option<TopicDescription>, Failure> {
        let answer = self.described(topic)?;
        let mut partitions = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        unsafe {
            let topic = answer.topic()?;
            match Failure::read(sys::rd_kafka_TopicDescription_error(topic)) {
                Err(failure) if is_unknown(failure.code) => return Ok(None),
                outcome => outcome?,
            }
            sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
            let id = text(sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic)));
            Ok(Some(TopicDescription { id, partitions: partitions.try_into().unwrap_or(u32::MAX) }))
        }
    }

    /// The answer to a request for what one topic is like.
    pub(super) fn described(&self, topic: &str) -> Result<Answer, Failure> {
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS)?;
        let name = c_string(topic);
        let mut names = [name.as_ptr()];
        // SAFETY: the names are copied into the collection, the collection into the request before it is destroyed.
        unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            sys::rd_kafka_DescribeTopics(self.native(), topics, request.options.as_ptr(), request.queue.as_ptr());
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
        request.answer(self.timeout)
    }

    /// Creates a topic.
    pub(crate) fn create_topic(&self, topic: &NewTopic<'_>) -> Result<(), Failure> {
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_CREATETOPICS)?;
        let (name, mut buffer) = (c_string(topic.name), [0; 512]);
        // SAFETY: name and buffer live for the call. The topic is ours until it is destroyed, and copied into the request before.
        unsafe {
            let (size, partitions) = (buffer.len(), topic.partitions);
            let new = sys::rd_kafka_NewTopic_new(name.as_ptr(), partitions, topic.replication, buffer.as_mut_ptr(), size);
            if new.is_null() {
                return Err(Failure::new(RDKafkaErrorCode::InvalidArgument, text(buffer.as_ptr())));
            }
            for (key, value) in topic.settings {
                sys::rd_kafka_NewTopic_set_config(new, c_string(key).as_ptr(), c_string(value).as_ptr());
            }
            sys::rd_kafka_CreateTopics(self.native(), [new].as_mut_ptr(), 1, request.options.as_ptr(), request.queue.as_ptr());
            sys::rd_kafka_NewTopic_destroy(new);
        }
        let answer = request.answer(self.timeout)?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        unsafe {
            let result = sys::rd_kafka_event_CreateTopics_result(answer.0.as_ptr());
            let topics = array(sys::rd_kafka_CreateTopics_result_topics(result, &mut count), count);
            let topic = *topics.first().ok_or_else(Failure::timed_out)?;
            Failure::check_with(codes::rd_kafka_topic_result_error(topic), || {
                text(sys::rd_kafka_topic_result_error_string(topic))
            })
        }
    }

    /// The offset at an end of a log, as a reader of that isolation sees it.
    pub(crate) fn offset(&self, partition: &TopicPartition, end: End, isolation: Isolation) -> Result<Offset, Failure> {
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS)?;
        let spec = match end {
            End::Earliest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST,
            End::Latest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST,
        };
        let level = match isolation {
            Isolation::ReadCommitted => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            Isolation::ReadUncommitted => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let asked = native_partitions([(partition, spec as i32 as i64)]);
        // SAFETY: the options and the list live for the calls, which copy what they need; the error is ours.
        unsafe {
            Failure::take(sys::rd_kafka_AdminOptions_set_isolation_level(request.options.as_ptr(), level))?;
            sys::rd_kafka_ListOffsets(self.native(), asked.ptr(), request.options.as_ptr(), request.queue.as_ptr());
        }
        let answer = request.answer(self.timeout)?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(answer.0.as_ptr());
            let infos = array(sys::rd_kafka_ListOffsets_result_infos(result, &mut count), count);
            let info = *infos.first().ok_or_else(Failure::timed_out)?;
            let found = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
            Failure::check(codes::of_partition(found))?;
            // Not an offset, and no error either: an answer that says nothing.
            if (*found).offset < 0 {
                return Err(Failure::timed_out());
            }
            Ok(Offset((*found).offset))
        }
    }

    /// Deletes the records before an offset.
    pub(crate) fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), Failure> {
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_DELETERECORDS)?;
        // A negative one would mean the end.
        let asked = native_partitions([(partition, before.0.max(0))]);
        // SAFETY: the list is copied into the deletion, and that into the request before it is destroyed.
        unsafe {
            let deletion = sys::rd_kafka_DeleteRecords_new(asked.ptr());
            sys::rd_kafka_DeleteRecords(
                self.native(),
                [deletion].as_mut_ptr(),
                1,
                request.options.as_ptr(),
                request.queue.as_ptr(),
            );
            sys::rd_kafka_DeleteRecords_destroy(deletion);
        }
        let answer = request.answer(self.timeout)?;
        // SAFETY: the answer is to this kind of request; the list it lends lives as long as it does.
        unsafe {
            let result = sys::rd_kafka_event_DeleteRecords_result(answer.0.as_ptr());
            let mut results = native_elements(sys::rd_kafka_DeleteRecords_result_offsets(result));
            results.try_for_each(|result| Failure::check(codes::of_partition(result)))
        }
    }
}

fn is_unknown(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
}

/// A list for a request, with an offset for each partition.
pub(super) fn native_partitions<'a>(partitions: impl IntoIterator<Item = (&'a TopicPartition, i64)>) -> TopicPartitionList {
    let list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        let number = partition.partition.0.try_into().unwrap_or(i32::MAX);
        // SAFETY: the list and the name live for the call, which copies the name; the new element is in the list until that goes.
        unsafe {
            let name = c_string(&partition.topic);
            let element = sys::rd_kafka_topic_partition_list_add(list.ptr(), name.as_ptr(), number);
            (*element).offset = offset;
        }
    }
    list
}

/// The elements of a list. Pointers, never references: the error code in an element may be none that the wrapper knows.
///
/// # Safety
/// `list` is null or lives, unchanged, for as long as the elements are used.
pub(super) unsafe fn native_elements(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> impl Iterator<Item = *const sys::rd_kafka_topic_partition_t> {
    let (first, count): (*const sys::rd_kafka_topic_partition_t, usize) = if list.is_null() {
        (std::ptr::null(), 0)
    } else {
        // SAFETY: it is not null, and the caller vouches that it lives.
        unsafe { ((*list).elems, (*list).cnt.try_into().unwrap_or(0)) }
    };
    // The list has so many elements, one behind the other.
    (0..count).map(move |index| first.wrapping_add(index))
}

impl Request {
    fn new(client: *mut sys::rd_kafka_t, op: Op) -> Self {
        // SAFETY: the client lives for the calls, and longer than the request, which does not leave this module.
        let (options, queue) = unsafe { (sys::rd_kafka_AdminOptions_new(client, op), sys::rd_kafka_queue_new(client)) };
        Self {
            options: NonNull::new(options).expect("there are options for every kind of request"),
            queue: NonNull::new(queue).expect("librdkafka never returns a null queue"),
        }
    }

    pub(super) fn options(&self) -> *mut sys::rd_kafka_AdminOptions_t {
        self.options.as_ptr()
    }

    pub(super) fn queue(&self) -> *mut sys::rd_kafka_queue_t {
        self.queue.as_ptr()
    }

    pub(super) fn answer(&self, timeout: Duration) -> Result<Answer, Failure> {
        // The request has a deadline of its own: this one is for a client that does not keep it.
        // SAFETY: the queue lives, and the event it gives is ours.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis(timeout + Duration::from_secs(5))) };
        let answer = Answer(NonNull::new(event).ok_or_else(Failure::timed_out)?);
        // SAFETY: the event lives, and its text as long.
        unsafe {
            Failure::check_with(codes::rd_kafka_event_error(event), || text(sys::rd_kafka_event_error_string(event)))?;
        }
        Ok(answer)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: both are ours, and dropped once.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
            sys::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
        }
    }
}

impl Answer {
    pub(super) fn event(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }

    /// What the one topic that was asked about is like.
    ///
    /// # Safety
    /// The answer is to a request for what topics are like. The topic lives as long as the answer.
    pub(super) unsafe fn topic(&self) -> Result<*const sys::rd_kafka_TopicDescription_t, Failure> {
        let mut count = 0;
        // SAFETY: the caller vouches for it.
        let described = unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.event());
            array(sys::rd_kafka_DescribeTopics_result_topics(result, &mut count), count)
        };
        described.first().copied().ok_or_else(Failure::timed_out)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: it is ours, and dropped once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}
