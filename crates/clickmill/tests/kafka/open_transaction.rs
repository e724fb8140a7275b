//! Another program's transaction stays open in the clicks topic: what lies behind it is not counted, and everybody is told.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::Value;

use crate::service::{Service, clickmill};
use crate::{cluster, topic};

const TIMEOUT: Duration = Duration::from_secs(30);
const TOPIC: &str = "held-back-clicks";

#[test]
fn what_is_behind_another_producers_open_transaction_is_lag_and_told() {
    let servers = cluster::shared().bootstrap_servers();
    let dir = tempfile::tempdir().unwrap();
    topic::create(servers, TOPIC, 3, &[]);
    let configuration = format!(
        "[engine]\napplication_id = \"held-back\"\nmemory = \"256MiB\"\nthreads = 1\n[clicks]\ntopic = \"{TOPIC}\"\n\
         [kafka]\nbootstrap.servers = \"{servers}\"\n"
    );
    let mut service = Service::new(dir.path(), &configuration);
    service.start_and_wait();
    post(&service, 17);
    service.wait_until_counted();
    let partition = topic::ranges(servers, TOPIC).iter().position(|(_, end)| *end == 17).unwrap();
    let other = leave_open(servers, partition as i32);
    post(&service, 50);

    let expected =
        format!("an open transaction of another producer holds back {TOPIC}-{partition} from offset 17 on (51 records)");
    service.wait_until("told", |service| completeness(service)["trouble"] == expected);
    let told = completeness(&service);
    assert!(told["complete"] == true && told["max_lag"] == 51, "{told}");
    for (path, tasks) in [("/readyz", "/tasks"), ("/v1/cluster", "/instances/0/active_tasks")] {
        let answer = service.query(path);
        for task in answer.pointer(tasks).unwrap().as_array().unwrap() {
            let is_held_back = task["topic"] == TOPIC && task["partition"] == partition;
            let expected = if is_held_back { (51, Value::from(&*expected)) } else { (0, Value::Null) };
            assert_eq!((task["lag"].as_u64().unwrap(), &task["trouble"]), (expected.0, &expected.1), "{path}: {answer}");
        }
    }
    let status = clickmill(&["status", "--url", &service.url()]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("an open transaction of another producer"), "{status:?}");

    other.commit_transaction(TIMEOUT).unwrap();
    service.wait_until_counted();
    assert_eq!(service.query("/v1/ads/ad-1/clicks")["clicks"], 68);
    assert!(completeness(&service).get("trouble").is_none());
    service.stop();
}

fn post(service: &Service, clicks: usize) {
    let answer = service.post(&"{\"ad_id\": \"ad-1\"}\n".repeat(clicks), None).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.json);
}

fn completeness(service: &Service) -> Value {
    service.query("/v1/ads/ad-1/clicks")["completeness"].clone()
}

/// Writes a click in a transaction that stays open.
fn leave_open(servers: &str, partition: i32) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("transactional.id", "somebody-else").set("transaction.timeout.ms", "120000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    let click = BaseRecord::to(TOPIC).partition(partition).key("ad-1").payload("{\"ad_id\": \"ad-1\"}");
    producer.send(click).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
    producer
}
