//! librdkafka's own mock of a broker, told to fail with any code: the wrapper lets it fail with those alone that it knows.

use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaApiKey;
use rdkafka_sys as sys;

use super::{c_string, text};

/// One broker, for as long as this lives.
pub(crate) struct Mock(BaseProducer);

impl Mock {
    pub(crate) fn start() -> Self {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1");
        Self(BaseProducer::from_config(&config).expect("a client with a mock"))
    }

    fn native(&self) -> *mut sys::rd_kafka_mock_cluster_t {
        // SAFETY: the client lives for the call.
        unsafe { sys::rd_kafka_handle_mock_cluster(self.0.client().native_ptr()) }
    }

    pub(crate) fn servers(&self) -> String {
        // SAFETY: the mock lives as long as its client, and its text as long.
        unsafe { text(sys::rd_kafka_mock_cluster_bootstraps(self.native())) }
    }

    pub(crate) fn create_topic(&self, topic: &str) {
        // SAFETY: mock and name live for the call.
        unsafe { sys::rd_kafka_mock_topic_create(self.native(), c_string(topic).as_ptr(), 1, 1) };
    }

    /// Answers the next requests of that kind with these codes.
    pub(crate) fn fail(&self, request: RDKafkaApiKey, numbers: &[i32]) {
        // SAFETY: mock and numbers live for the call, which copies them. In C the type of a code is that of the numbers.
        unsafe {
            let (key, first) = (i16::from(request), numbers.as_ptr().cast());
            sys::rd_kafka_mock_push_request_errors_array(self.native(), key, numbers.len(), first);
        }
    }
}
