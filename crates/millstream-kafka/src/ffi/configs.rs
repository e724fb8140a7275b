//! Requests about the settings of topics.

use std::collections::BTreeMap;

use rdkafka::client::ClientContext;
use rdkafka_sys as sys;
use sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET as SET;
use sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC as TOPIC;
use sys::rd_kafka_admin_op_t as Op;

use super::admin::Admin;
use super::{Failure, array, c_string, codes, text};

/// A topic as the subject of a request.
struct Resource(*mut sys::rd_kafka_ConfigResource_t);

impl Resource {
    fn topic(name: &str) -> Self {
        // SAFETY: the name lives for the call, which copies it.
        Self(unsafe { sys::rd_kafka_ConfigResource_new(TOPIC, c_string(name).as_ptr()) })
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        // SAFETY: it is ours, and dropped once; requests copy it.
        unsafe { sys::rd_kafka_ConfigResource_destroy(self.0) };
    }
}

impl<C: ClientContext> Admin<'_, C> {
    /// The settings of a topic in effect, defaults of the brokers included.
    pub(crate) fn topic_config(&self, topic: &str) -> Result<BTreeMap<String, String>, Failure> {
        let (request, resource) = (self.request(Op::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS)?, Resource::topic(topic));
        // SAFETY: client, options and queue live for the call, which copies the resource.
        unsafe {
            sys::rd_kafka_DescribeConfigs(self.native(), [resource.0].as_mut_ptr(), 1, request.options(), request.queue());
        }
        let answer = request.answer(self.timeout())?;
        let (mut count, mut entries) = (0, 0);
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConfigs_result(answer.event());
            let resources = array(sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count), count);
            let found = checked(resources)?;
            let configs = array(sys::rd_kafka_ConfigResource_configs(found, &mut entries), entries);
            let setting = |entry: &*const sys::rd_kafka_ConfigEntry_t| {
                (text(sys::rd_kafka_ConfigEntry_name(*entry)), text(sys::rd_kafka_ConfigEntry_value(*entry)))
            };
            Ok(configs.iter().map(setting).collect())
        }
    }

    /// Sets some of a topic's settings and leaves the others as they are.
    pub(crate) fn alter_topic_config(&self, topic: &str, settings: &[(&str, String)]) -> Result<(), Failure> {
        let (request, resource) = (self.request(Op::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS)?, Resource::topic(topic));
        for (name, value) in settings {
            let (name, value) = (c_string(name), c_string(value));
            // SAFETY: name and value live for the call, which copies them; the error is ours.
            unsafe {
                let added = sys::rd_kafka_ConfigResource_add_incremental_config(resource.0, name.as_ptr(), SET, value.as_ptr());
                Failure::take(added)?;
            }
        }
        // SAFETY: client, options and queue live for the call, which copies the resource.
        unsafe {
            let mut resources = [resource.0];
            sys::rd_kafka_IncrementalAlterConfigs(self.native(), resources.as_mut_ptr(), 1, request.options(), request.queue());
        }
        let answer = request.answer(self.timeout())?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        unsafe {
            let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(answer.event());
            checked(array(sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count), count)).map(drop)
        }
    }
}

/// The one resource that was asked about, unless it is in error.
///
/// # Safety
/// The resources live as long as the slice.
unsafe fn checked(resources: &[*const sys::rd_kafka_ConfigResource_t]) -> Result<*const sys::rd_kafka_ConfigResource_t, Failure> {
    let resource = *resources.first().ok_or_else(Failure::timed_out)?;
    // SAFETY: the caller vouches for it.
    unsafe {
        Failure::check_with(codes::rd_kafka_ConfigResource_error(resource), || {
            text(sys::rd_kafka_ConfigResource_error_string(resource))
        })?;
    }
    Ok(resource)
}
