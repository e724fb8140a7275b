//! The clicks that both count.

use kafka_test_server::Cluster;

use crate::java;

/// Event time begins here, long ago, and spans an hour.
const START_MS: &str = "1767225600000";
const SPAN_MS: &str = "3600000";

/// Clicks of about 200 bytes in 8 partitions, keyed by user.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) topic: &'static str,
    pub(crate) clicks: u64,
    ads: u64,
    zipf: &'static str,
}

impl Load {
    pub(crate) fn zipf(clicks: u64) -> Self {
        Self { name: "100,000 ads, Zipf 1.0", topic: "clicks-zipf", clicks, ads: 100_000, zipf: "1.0" }
    }

    pub(crate) fn uniform(clicks: u64) -> Self {
        Self { name: "1,000,000 ads, uniform", topic: "clicks-uniform", clicks, ads: 1_000_000, zipf: "0" }
    }

    /// Writes them to their topic, which is created.
    pub(crate) fn write(&self, cluster: &Cluster) {
        let written = java::class("Generate")
            .args(["--bootstrap", cluster.bootstrap_servers(), "--topic", self.topic, "--partitions", "8", "--seed", "1"])
            .args(["--count", &self.clicks.to_string(), "--ads", &self.ads.to_string(), "--zipf", self.zipf])
            .args(["--start-ms", START_MS, "--span-ms", SPAN_MS, "--grace-ms", SPAN_MS])
            .output()
            .expect("the generator can be started");
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    }
}
