//! One partition of the changelog has no leader: the task that writes to it waits, and every other goes on counting.

use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::partitioner::partition_for_key;
use millstream::record::Partition;

use crate::service::{Service, pause};
use crate::topic;

/// For how long the partition has no leader while it is looked whether the others go on.
const WITHOUT_LEADER: Duration = Duration::from_secs(40);

#[test]
fn a_changelog_without_a_leader_keeps_only_its_own_task_waiting() {
    let cluster = Cluster::start(3);
    let servers = cluster.bootstrap_servers();
    topic::create_on(servers, "leaderless-clicks", &[&[1, 2], &[2, 1]], &[]);
    // Brokers are numbered from 1. Each partition has one copy, the first of them on the broker that is killed.
    topic::create_on(
        servers,
        "leaderless-ad-clicks-store-changelog",
        &[&[3], &[1]],
        &[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")],
    );
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[engine]\napplication_id = \"leaderless\"\nmemory = \"256MiB\"\nthreads = 1\nidle_timeout = \"off\"\n\
         [clicks]\ntopic = \"leaderless-clicks\"\n\
         [kafka]\nbootstrap.servers = \"{servers}\"\n"
    );
    let mut service = Service::new(dir.path(), &configuration);
    service.start_and_wait();
    let [waiting, others] = [0, 1].map(|partition| ad_of(Partition(partition)));
    click(&service, &waiting);
    click(&service, &others);
    service.wait_until("counted", |service| clicks(service, &waiting) == Some(1) && clicks(service, &others) == Some(1));

    cluster.kill(2);
    let (began, mut last, mut counted, mut longest) = (Instant::now(), Instant::now(), 1, Duration::ZERO);
    let mut posted = 1;
    while began.elapsed() < WITHOUT_LEADER {
        posted += u64::from(click(&service, &others)) + u64::from(click(&service, &others));
        click(&service, &waiting);
        if let Some(found) = clicks(&service, &others).filter(|found| *found > counted) {
            (counted, longest) = (found, longest.max(last.elapsed()));
            last = Instant::now();
        }
        pause(Duration::from_millis(50));
    }
    println!("the others were counted on, with {:.1?} between two counts at most", longest.max(last.elapsed()));
    assert!(last.elapsed() < Duration::from_secs(20) && counted > 1, "the other partition stands still\n{}", service.log());
    let task = |service: &Service, task: &str| {
        let tasks = service.try_get("/v1/cluster")?.json["instances"][0]["active_tasks"].as_array()?.clone();
        tasks.into_iter().find(|found| found["task"] == task)
    };
    service.wait_until("told", |service| task(service, "1_0").is_some_and(|task| task["state"] == "restoring"));

    cluster.start_again(2);
    service.wait_until("all counted", |service| clicks(service, &others) == Some(posted) && clicks(service, &waiting) > Some(1));
    service.wait_until_ready();
    service.stop();
}

/// An ad that is counted in that partition of the store.
fn ad_of(partition: Partition) -> String {
    (0..).map(|number| format!("ad-{number}")).find(|ad| partition_for_key(ad.as_bytes(), 2) == partition).unwrap()
}

/// Clicks on an ad. Whether the click was taken.
fn click(service: &Service, ad: &str) -> bool {
    service.post(&format!("{{\"ad_id\": \"{ad}\"}}\n"), None).is_some_and(|answer| answer.status == 202)
}

/// The clicks of an ad, where it is answered for.
fn clicks(service: &Service, ad: &str) -> Option<u64> {
    let answer = service.try_get(&format!("/v1/ads/{ad}/clicks?from=-1h"))?;
    (answer.status == 200).then(|| answer.json["clicks"].as_u64().unwrap())
}
