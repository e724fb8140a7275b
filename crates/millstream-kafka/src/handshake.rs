//! Handshakes that fail: a mistake in the configuration at first, a passing fault once the cluster has answered.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use millstream::broker::{Broker as _, ErrorKind};

use crate::{KafkaBroker, KafkaConfig};

/// A server that speaks no TLS, for as long as the test runs. Gives its address.
fn without_tls() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A connection that is closed with something unread is reset, and the answer may be lost with it.
                let mut unread = [0; 1024];
                while connection.read(&mut unread).is_ok_and(|length| length > 0) {
                    // Whether it is heard makes no difference.
                    let _ = connection.write_all(b"220 this is no TLS\r\n");
                }
            });
        }
    });
    address
}

#[test]
fn a_failed_handshake_is_fatal_until_the_cluster_has_answered_once() {
    let tls = ("security.protocol".to_owned(), "ssl".to_owned());
    let config = KafkaConfig::new(without_tls(), [tls]).expect("a configuration");
    let broker = KafkaBroker::new(config.clone()).expect("a broker");
    let way_out = "check security.protocol, the sasl.* and the ssl.* properties";

    let error = broker.describe_topic("clicks").expect_err("there is no handshake");
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
    assert!(error.to_string().contains(way_out), "{error}");

    config.connection().answered();
    for error in [
        broker.describe_topic("clicks").expect_err("there is no handshake"),
        broker.cluster_id().expect_err("there is no handshake"),
        broker
            .committed("group", &[millstream::record::TopicPartition::new("clicks", millstream::record::Partition(0))])
            .expect_err("as above"),
        broker.producer("application-0").err().expect("as above"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        assert!(error.to_string().contains(way_out), "{error}");
    }
}
