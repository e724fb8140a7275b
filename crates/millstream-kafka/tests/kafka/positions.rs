//! Committed positions while the group's coordinator comes up.

use kafka_test_server::Cluster;
use millstream::broker::{Broker, TopicSettings};

use crate::support::{broker_of, tp};

/// librdkafka's own request for the positions of any group ends the process here.
#[test]
fn positions_are_told_as_soon_as_the_coordinator_is_there() {
    let cluster = Cluster::start(1);
    let broker = broker_of(&cluster);
    broker.create_topic("positions", &TopicSettings::kept_for_ever(2)).unwrap();
    let partitions = [tp("positions", 0), tp("positions", 1)];
    // The first question makes the topic of all groups' positions. Different groups have different coordinators.
    for group in 0..8 {
        assert_eq!(broker.committed(&format!("group-{group}"), &partitions).unwrap(), [None, None]);
    }
    cluster.kill(0);
    cluster.start_again(0);
    for group in 0..8 {
        assert_eq!(broker.committed(&format!("group-{group}"), &partitions).unwrap(), [None, None]);
    }
}
