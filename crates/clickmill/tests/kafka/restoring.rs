//! One store is restored from the changelog for long, as over a slow network: every other task goes on counting meanwhile.

use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::partitioner::partition_for_key;
use millstream::record::Partition;
use serde_json::Value;

use crate::proxy::Proxy;
use crate::service::{Service, pause};
use crate::size::short_or_full;
use crate::topic;

const PARTITIONS: u32 = 4;

/// The partition whose store is deleted, and the tasks that have it and that read it.
const RESTORED: Partition = Partition(0);
const RESTORING_TASK: &str = "1_0";
const SOURCE_TASK: &str = "0_0";

/// What a connection carries to a client while the store is restored.
const BYTES_PER_SECOND: u64 = 128 << 10;

/// What an answer to a fetch has of a partition, at most. All stores of a start are read over one connection, and an answer that has to wait
/// there makes all of them wait: as large as usual (2 MiB) it would fill such a slow connection for a quarter of a minute.
const FETCH_BYTES: u64 = 32 << 10;

/// What ads have on top, so that few of them make a long changelog: a record of it has at least so many bytes.
const AD_PADDING: usize = 230;

/// For so much longer than it is looked at the restore would go on.
const SPARE: Duration = Duration::from_secs(20);

/// Between two counts of what is clicked on all the time. Two commits are a fifth of a second; the rest is for a machine that is busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[test]
fn a_store_that_is_restored_for_long_holds_up_no_other_task() {
    let looked_at = Duration::from_secs(short_or_full(12, 60));
    let proxy = Proxy::start();
    let cluster = Cluster::start_with(1, &[("advertised.listeners", &format!("PLAINTEXT://{}", proxy.address()))]);
    proxy.lead_to(cluster.bootstrap_servers().rsplit_once(':').unwrap().1.parse().unwrap());
    let servers = proxy.address();
    topic::create(&servers, "restoring-clicks", PARTITIONS, &[]);
    let dir = tempfile::tempdir().unwrap();
    // One thread and one updater: whoever waits holds up all others.
    let configuration = format!(
        "[engine]\napplication_id = \"restoring\"\nmemory = \"256MiB\"\nthreads = 1\nidle_timeout = \"off\"\n\
         [clicks]\ntopic = \"restoring-clicks\"\n\
         [kafka]\nbootstrap.servers = \"{servers}\"\nfetch.message.max.bytes = {FETCH_BYTES}\nbatch.size = {FETCH_BYTES}\n"
    );
    let mut service = Service::new(dir.path(), &configuration);
    service.start_and_wait();
    let rows = (looked_at + SPARE).as_secs() * BYTES_PER_SECOND / AD_PADDING as u64;
    let many = ads_of(RESTORED, AD_PADDING).take(rows as usize).collect::<Vec<_>>();
    many.chunks(5_000).for_each(|ads| click(&service, ads));
    let ads: Vec<_> = (0..PARTITIONS).map(|partition| ads_of(Partition(partition), 0).next().unwrap()).collect();
    click(&service, &ads);
    service.wait_until_counted();
    service.stop();

    std::fs::remove_dir_all(service.data_dir().join("state/restoring/ad-clicks-store").join(RESTORED.to_string())).unwrap();
    proxy.throttle(BYTES_PER_SECOND);
    service.start();
    let started = Instant::now();
    service.wait_until("running but for one task", |service| {
        let tasks = tasks(service);
        tasks.len() == 2 * PARTITIONS as usize && tasks.iter().all(|task| is_restored(task) != (task["state"] == "running"))
    });
    let until_running = started.elapsed();
    let (began, mut posted, mut pauses) = (Instant::now(), 1, Pauses::new(PARTITIONS as usize));
    while began.elapsed() < looked_at {
        click(&service, &ads);
        posted += 1;
        let tasks = tasks(&service);
        let of_restored = tasks.iter().find(|task| is_restored(task)).unwrap();
        assert_eq!(of_restored["state"], "restoring", "it was to last for longer: {of_restored}\n{}", service.log());
        // Of the ads of that partition nothing is known: it is looked whether their clicks are read.
        let source = tasks.iter().find(|task| task["task"] == SOURCE_TASK).and_then(|task| task["position"].as_u64());
        let counts = ads[1..].iter().map(|ad| clicks(&service, ad));
        pauses.note([source].into_iter().chain(counts));
        pause(Duration::from_millis(50));
    }
    println!(
        "one store was restored for {looked_at:?} and more; the others ran after {until_running:.1?}, with {:.1?} between two counts at most",
        pauses.longest()
    );
    assert!(pauses.longest() < LONGEST_PAUSE, "{:?}\n{}", pauses.longest, service.log());

    proxy.heal();
    service.wait_until_ready();
    service.wait_until("counted", |service| ads.iter().all(|ad| clicks(service, ad) == Some(posted)));
    let all = service.query("/v1/clicks?from=-1h")["clicks"].as_u64();
    assert_eq!(all, Some(rows + u64::from(PARTITIONS) * posted), "the restored store has every row");
    service.stop();
}

/// The longest time in which each of some numbers did not rise.
struct Pauses {
    last: Vec<(u64, Instant)>,
    longest: Vec<Duration>,
}

impl Pauses {
    fn new(numbers: usize) -> Self {
        Self { last: vec![(0, Instant::now()); numbers], longest: vec![Duration::ZERO; numbers] }
    }

    /// The numbers as of now; none where one is not known.
    fn note(&mut self, numbers: impl Iterator<Item = Option<u64>>) {
        for ((number, last), longest) in numbers.zip(&mut self.last).zip(&mut self.longest) {
            *longest = last.1.elapsed().max(*longest);
            if let Some(number) = number.filter(|number| *number > last.0) {
                *last = (number, Instant::now());
            }
        }
    }

    fn longest(&self) -> Duration {
        self.longest.iter().copied().max().unwrap_or_default()
    }
}

fn is_restored(task: &Value) -> bool {
    task["task"] == RESTORING_TASK
}

fn tasks(service: &Service) -> Vec<Value> {
    let answer = service.try_get("/readyz");
    answer.and_then(|answer| Some(answer.json["tasks"].as_array()?.clone())).unwrap_or_default()
}

/// Ads that are counted in that partition of the store, with so many bytes on top.
fn ads_of(partition: Partition, padding: usize) -> impl Iterator<Item = String> {
    let ads = (0..).map(move |number| format!("ad-{number}{}", "x".repeat(padding)));
    ads.filter(move |ad| partition_for_key(ad.as_bytes(), PARTITIONS) == partition)
}

/// Clicks on each ad.
fn click(service: &Service, ads: &[String]) {
    let lines: String = ads.iter().map(|ad| format!("{{\"ad_id\": \"{ad}\"}}\n")).collect();
    let answer = service.post(&lines, None).unwrap();
    assert_eq!((answer.status, answer.json["accepted"].as_u64()), (202, Some(ads.len() as u64)), "{}", answer.json);
}

/// The clicks of an ad, where it is answered for.
fn clicks(service: &Service, ad: &str) -> Option<u64> {
    let answer = service.try_get(&format!("/v1/ads/{ad}/clicks?from=-1h"))?;
    (answer.status == 200).then(|| answer.json["clicks"].as_u64().unwrap())
}
