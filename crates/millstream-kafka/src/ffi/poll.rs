//! Serving a consumer's own events.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as sys;

use super::Failure;
use super::admin::native_elements;
use super::event::{Event, EventQueue};

/// Serves a consumer's events, up to an error, a rebalance, which its context is told, or a record, which is dropped: none belongs
/// there. Waits for them so long.
pub(crate) fn poll<C: ConsumerContext>(consumer: &BaseConsumer<C>, max_wait: Duration) -> Option<Result<(), Failure>> {
    let (queue, began) = (EventQueue::of(consumer.client()), Instant::now());
    while let Some(event) = queue.next(max_wait.saturating_sub(began.elapsed())) {
        match event.kind() {
            sys::RD_KAFKA_EVENT_LOG => event.log(&**consumer.client().context()),
            sys::RD_KAFKA_EVENT_ERROR => {
                if let Err(failure) = event.error(&**consumer.client().context()) {
                    return Some(Err(failure));
                }
            }
            sys::RD_KAFKA_EVENT_REBALANCE => {
                rebalance(consumer, &event);
                return None;
            }
            sys::RD_KAFKA_EVENT_FETCH => return Some(Ok(())),
            _ => {}
        }
    }
    None
}

fn rebalance<C: ConsumerContext>(consumer: &BaseConsumer<C>, event: &Event) {
    let assign = RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    let operation = if event.number() == assign as i32 { assign } else { RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS };
    let mut list = TopicPartitionList::new();
    // SAFETY: the event lends its list for as long as it lives; each element is copied, its name by the call that adds it.
    unsafe {
        for element in native_elements(sys::rd_kafka_event_topic_partition_list(event.native())) {
            let added = sys::rd_kafka_topic_partition_list_add(list.ptr(), (*element).topic, (*element).partition);
            (*added).offset = (*element).offset;
        }
    }
    consumer.context().rebalance(consumer, operation, &mut list);
}
