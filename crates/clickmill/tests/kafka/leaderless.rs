//! One partition of the changelog has no leader: the task that writes to it waits, and every other goes on counting.

use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::partitioner::partition_for_key;
use millstream::record::Partition;

use crate::service::{Service, pause};
use crate::topic;

/// For how long the partition has no leader while it is looked whether the others go on.
const WITHOUT_LEADER: Duration = Duration::from_secs(40);

/// Once the task that waits has been set aside, the others commit without it: nothing makes them wait for a transaction that fails, which
/// takes ten seconds and more.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

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
    let is_set_aside = |service: &Service| {
        let task = |answer: &serde_json::Value| {
            let tasks = answer["instances"][0]["active_tasks"].as_array()?;
            Some(tasks.iter().any(|found| found["task"] == "1_0" && found["state"] == "restoring"))
        };
        service.try_get("/v1/cluster").and_then(|answer| task(&answer.json)).unwrap_or(false)
    };
    let began = Instant::now();
    let (mut posted, mut counted) = (1, 1);
    let mut post_and_look = |service: &Service| {
        posted += u64::from(click(service, &others)) + u64::from(click(service, &others));
        click(service, &waiting);
        pause(Duration::from_millis(50));
        let found = clicks(service, &others).filter(|found| *found > counted);
        counted = found.unwrap_or(counted);
        (posted, found.is_some())
    };
    while !is_set_aside(&service) {
        assert!(began.elapsed() < Duration::from_secs(60), "the task is not set aside\n{}", service.log());
        post_and_look(&service);
    }
    // What was under way when it was set aside is counted first.
    let set_aside = Instant::now();
    while !post_and_look(&service).1 {
        assert!(set_aside.elapsed() < Duration::from_secs(20), "the other partition stands still\n{}", service.log());
    }
    let (began, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while began.elapsed() < WITHOUT_LEADER {
        if post_and_look(&service).1 {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    }
    longest = longest.max(last.elapsed());
    println!("the others were counted on, with {longest:.1?} between two counts at most");
    assert!(longest < LONGEST_PAUSE, "{longest:.1?} without a count\n{}", service.log());
    assert!(is_set_aside(&service));
    let posted = post_and_look(&service).0;

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
