//! The clicks topic gets more partitions while clicks come in: they are used and counted soon, unless each ad has to stay where it is.

use std::path::Path;
use std::time::{Duration, Instant};

use millstream::partitioner::partition_for_key;
use millstream::record::Partition;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::service::{Service, pause};
use crate::{cluster, topic};

/// How long it may take from the moment that a topic grows until clicks go to all of its partitions, and until they are counted.
const SOON: Duration = Duration::from_secs(10);

/// How long it is waited for that.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn clicks_go_to_new_partitions_soon_unless_keyed_by_ad() {
    let servers = cluster::shared().bootstrap_servers();
    let dir = tempfile::tempdir().unwrap();
    let mut grows = start(&dir.path().join("grows"), servers, "grows", false);
    let mut keyed = start(&dir.path().join("keyed"), servers, "grows-keyed", true);
    let mut posted = 0;
    for service in [&grows, &keyed] {
        post(service);
    }
    posted += 100;
    let began = Instant::now();
    topic::add_partitions(servers, "grows-clicks", 6);
    topic::add_partitions(servers, "grows-keyed-clicks", 6);
    let added = |name: &str| topic::ranges(servers, name)[2..].iter().map(|(_, end)| *end).collect::<Vec<_>>();
    while added("grows-clicks").contains(&0) {
        assert!(began.elapsed() < PATIENCE, "the new partitions are not used: {:?}\n{}", added("grows-clicks"), grows.log());
        // Under load: no click is refused because of it.
        for service in [&grows, &keyed] {
            post(service);
        }
        posted += 100;
        pause(Duration::from_millis(50));
    }
    // What went to the new partitions is counted, too.
    let used = began.elapsed();
    grows.wait_until("counted", |service| total(service) == posted);
    let counted = began.elapsed();
    println!("the new partitions are used after {used:.1?} and counted after {counted:.1?}");
    assert!(counted < SOON, "used after {used:?}, counted after {counted:?}\n{}", grows.log());
    assert!(grows.log().contains("topic grows-clicks has grown from 2 to 6 partitions"), "{}", grows.log());
    assert_eq!(added("grows-keyed-clicks"), [0; 4], "an ad has moved");
    // Each ad is counted where it was, and the partitions that came are refused one by one.
    let reasons = keyed.wait_for_quarantine(4);
    for part in ["grows-keyed-clicks-5 was added to a topic that is keyed", "keeps its 2 partitions for life", "clickmill reset"]
    {
        assert!(reasons.contains(part), "{part} is not in: {reasons}");
    }
    keyed.wait_until("counted", |service| total(service) == posted);
    grows.stop();
    keyed.stop();
}

/// Somebody else places clicks by the partitions that the topic has now: an ad goes where it always went, or elsewhere.
#[test]
fn a_keyed_partition_counts_on_until_the_first_ad_that_belongs_elsewhere() {
    const TOPIC: &str = "regrows-clicks";
    let servers = cluster::shared().bootstrap_servers();
    let dir = tempfile::tempdir().unwrap();
    let mut service = start(dir.path(), servers, "regrows", true);
    let ad = |before: u32, now: u32| {
        let placed = |ad: &str, partitions| partition_for_key(ad.as_bytes(), partitions) == Partition(0);
        let place = |number: &u32| {
            let ad = format!("ad-{number}");
            placed(&ad, 2) == (before == 0) && placed(&ad, 3) == (now == 0)
        };
        format!("ad-{}", (0..).find(place).unwrap())
    };
    let (stays, comes, other) = (ad(0, 0), ad(1, 0), ad(1, 1));
    write(servers, TOPIC, 0, &stays, 3);
    service.wait_until("counted", |service| clicks(service, &stays) == 3);

    topic::add_partitions(servers, TOPIC, 3);
    service.wait_for_quarantine(1);
    write(servers, TOPIC, 0, &stays, 4);
    service.wait_until("counted on", |service| clicks(service, &stays) == 7);
    assert_eq!(service.query("/v1/cluster")["quarantined"].as_array().unwrap().len(), 1, "no more than the new partition");

    write(servers, TOPIC, 0, &comes, 1);
    write(servers, TOPIC, 0, &stays, 1);
    let reasons = service.wait_for_quarantine(2);
    for part in [&format!("record {TOPIC}-0@"), "is not keyed by what it is grouped by", &comes, "belongs to partition 1"] {
        assert!(reasons.contains(part), "{part} is not in: {reasons}");
    }
    // The partition beside it goes on, and no ad is in two stores.
    write(servers, TOPIC, 1, &other, 5);
    service.wait_until("counted on", |service| clicks(service, &other) == 5);
    assert_eq!((clicks(&service, &stays), clicks(&service, &comes)), (7, 0));
    service.stop();
}

/// Writes clicks as another program does that knows how many partitions there are.
fn write(servers: &str, topic: &str, partition: i32, ad: &str, clicks: usize) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let value = format!("{{\"ad_id\": \"{ad}\"}}");
    for _ in 0..clicks {
        let click = BaseRecord::to(topic).partition(partition).key(ad).payload(&value);
        producer.send(click).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// The clicks of an ad that are counted.
fn clicks(service: &Service, ad: &str) -> u64 {
    service.query(&format!("/v1/ads/{ad}/clicks?from=-1h"))["clicks"].as_u64().unwrap()
}

fn start(dir: &Path, servers: &str, application_id: &str, keyed_by_ad: bool) -> Service {
    let topic = format!("{application_id}-clicks");
    topic::create(servers, &topic, 2, &[]);
    let configuration = format!(
        "[engine]\napplication_id = \"{application_id}\"\nmemory = \"256MiB\"\nthreads = 1\n\
         [clicks]\ntopic = \"{topic}\"\nkeyed_by_ad = {keyed_by_ad}\n\
         [kafka]\nbootstrap.servers = \"{servers}\"\n"
    );
    let mut service = Service::new(dir, &configuration);
    service.start_and_wait();
    service
}

/// The clicks that are counted, as far as is known.
fn total(service: &Service) -> u64 {
    service.query("/v1/clicks?from=-1h")["clicks"].as_u64().unwrap()
}

/// Sends clicks of so many ads that there are some for each partition.
fn post(service: &Service) {
    let lines: String = (0..100).map(|ad| format!("{{\"ad_id\": \"ad-{ad}\"}}\n")).collect();
    let answer = service.post(&lines, None).unwrap();
    assert_eq!((answer.status, &answer.json["accepted"]), (202, &100.into()), "{}\n{}", answer.json, service.log());
}
