//! The end of topics.

use rdkafka::client::ClientContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;
use sys::rd_kafka_admin_op_t as Op;

use super::admin::Admin;
use super::{Failure, array, c_string, codes, text};

impl<C: ClientContext> Admin<'_, C> {
    /// Deletes a topic with all its records. One that is not there is no error.
    pub(crate) fn delete_topic(&self, topic: &str) -> Result<(), Failure> {
        let (request, name) = (self.request(Op::RD_KAFKA_ADMIN_OP_DELETETOPICS)?, c_string(topic));
        // SAFETY: the name lives for the call, which copies it; the deletion is copied into the request and destroyed once.
        unsafe {
            let deletion = sys::rd_kafka_DeleteTopic_new(name.as_ptr());
            sys::rd_kafka_DeleteTopics(self.native(), [deletion].as_mut_ptr(), 1, request.options(), request.queue());
            sys::rd_kafka_DeleteTopic_destroy(deletion);
        }
        let answer = request.answer(self.timeout())?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        let outcome = unsafe {
            let result = sys::rd_kafka_event_DeleteTopics_result(answer.event());
            let topics = array(sys::rd_kafka_DeleteTopics_result_topics(result, &mut count), count);
            let topic = *topics.first().ok_or_else(Failure::timed_out)?;
            Failure::check_with(codes::rd_kafka_topic_result_error(topic), || {
                text(sys::rd_kafka_topic_result_error_string(topic))
            })
        };
        match outcome {
            Err(failure) if matches!(failure.code, Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(()),
            outcome => outcome,
        }
    }
}
