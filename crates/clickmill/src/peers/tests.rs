//! Two and three instances over real sockets in one process. What they have counted is made up: partition `p` has `1 << p` clicks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use millstream::broker::group::InstanceInfo;
use millstream::query::{
    Cancellation, Completeness, CountQueries, KeyCount, Part, PartialCounts, QueryError, Standing, TaskReport,
};
use millstream::record::{Partition, Timestamp, TopicPartition};
use millstream::task::{Role, TaskId, TaskState};
use millstream::time::TimeWindows;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::*;
use crate::click::{ClickDecoder, ClickFields, TimestampSource};
use crate::http::{
    AppendError, Appended, Application, ClicksTopic, HttpOptions, Idempotency, IncomingClick, KnownTask, Readiness, router,
};
use crate::metrics::{EngineStats, EngineTotals, Metrics};

const PARTITIONS: u32 = 3;
const NOW: Timestamp = Timestamp(1_767_226_000_000);
const SOON: Duration = Duration::from_secs(10);

/// What a test may change of an instance while it runs.
#[derive(Default)]
struct FakeMill {
    name: String,
    incarnation: u64,
    directory: Mutex<Arc<Directory>>,
    owned: Mutex<Vec<u32>>,
    copies: Mutex<Vec<u32>>,
    /// Answers nothing while it is set.
    stuck: AtomicBool,
    /// Answers slowly once.
    slow_once: AtomicBool,
}

fn task(partition: u32) -> TopicPartition {
    TopicPartition::new("shuffled", Partition(partition))
}

impl FakeMill {
    fn report(&self, partition: u32, role: Role) -> TaskReport {
        TaskReport {
            id: TaskId { subtopology: 1, partition: Partition(partition) },
            input: task(partition),
            role,
            state: if role == Role::Active { TaskState::Running } else { TaskState::Restoring },
            position: None,
            lag: Some(4),
            closed_through: 0,
            restore: None,
            trouble: None,
            quarantined_since: None,
        }
    }
}

impl CountQueries for FakeMill {
    fn windows(&self) -> TimeWindows {
        TimeWindows::of_size_with_no_grace(Duration::from_secs(300))
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn earliest(&self, _: Timestamp) -> Option<Timestamp> {
        None
    }

    #[allow(clippy::disallowed_methods, reason = "it plays one that is slow")]
    fn parts(&self, ask: &Ask, _: &Cancellation) -> Result<Parts, QueryError> {
        while self.stuck.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.slow_once.swap(false, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(700));
        }
        let (owned, copies) = (self.owned.lock().unwrap().clone(), self.copies.lock().unwrap().clone());
        let standing = |partition: &Partition| match (owned.contains(&partition.0), copies.contains(&partition.0)) {
            (true, _) => Some(Standing::Active),
            (false, true) if ask.read.takes_copy(Some(4)) => Some(Standing::Stale { lag: Some(4) }),
            _ => None,
        };
        let there = ask.partitions.iter().filter_map(|partition| Some((*partition, standing(partition)?)));
        let parts: Vec<Part> =
            there.map(|(partition, standing)| Part { partition, standing, position: None, closed_through: NOW.0 }).collect();
        let count = parts.iter().map(|part| 1 << part.partition.0).sum();
        let start = Timestamp(NOW.0 - NOW.0 % 300_000);
        let counts = match &ask.question {
            Question::Top { .. } => {
                let key =
                    |part: &Part| KeyCount { key: format!("ad-{}", part.partition.0).into_bytes(), count: 1 << part.partition.0 };
                let mut keys: Vec<_> = parts.iter().map(key).collect();
                keys.reverse();
                PartialCounts::Keys(keys)
            }
            _ if parts.is_empty() => PartialCounts::Windows(Vec::new()),
            _ => PartialCounts::Windows(vec![(start, count)]),
        };
        Ok(Parts { generation: self.directory.lock().unwrap().generation, parts, counts })
    }

    fn put_lag(&self, _: &mut Completeness, _: &[Partition]) -> Result<(), QueryError> {
        Ok(())
    }
}

impl Mill for FakeMill {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn clicks_topic(&self) -> ClicksTopic {
        ClicksTopic { partitions: PARTITIONS, max_record_bytes: 1 << 20 }
    }

    fn append(
        &self,
        _: &[IncomingClick<'_>],
        _: Timestamp,
        _: Instant,
        _: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError> {
        Err(AppendError::ShuttingDown)
    }

    fn stored_answer(&self, _: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        Ok(None)
    }

    fn queries(&self) -> &dyn CountQueries {
        self
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: true, ..Readiness::default() }
    }

    fn intake_trouble(&self) -> Option<String> {
        None
    }

    fn application(&self) -> Application {
        let known = |p| KnownTask { id: TaskId { subtopology: 1, partition: Partition(p) }, input: task(p), lag: Some(9) };
        Application {
            id: "app".to_owned(),
            endpoint: String::new(),
            store_input: "shuffled".into(),
            tasks: (0..PARTITIONS).map(known).collect(),
        }
    }

    fn directory(&self) -> Arc<Directory> {
        self.directory.lock().unwrap().clone()
    }

    fn status(&self) -> InstanceStatus {
        let active = self.owned.lock().unwrap().clone().into_iter().map(|p| self.report(p, Role::Active));
        let copies = self.copies.lock().unwrap().clone().into_iter().map(|p| self.report(p, Role::Standby));
        InstanceStatus {
            instance: self.name.as_str().into(),
            incarnation: self.incarnation,
            generation: self.directory().generation,
            version: "1".to_owned(),
            tasks: active.chain(copies).collect(),
        }
    }

    fn retry_task(&self, _: &str) -> bool {
        false
    }
}

struct Idle;

impl EngineStats for Idle {
    fn totals(&self) -> EngineTotals {
        EngineTotals::default()
    }
}

struct Node {
    mill: Arc<FakeMill>,
    peers: Option<Arc<Peers>>,
    address: SocketAddr,
    api: Router,
    /// All that it does for others runs here, and ends with it.
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.die();
    }
}

impl Node {
    async fn start(number: u32, secret: Option<&str>) -> Self {
        let name = format!("i{number}");
        let mill = Arc::new(FakeMill { name: name.clone(), incarnation: u64::from(number) + 1, ..FakeMill::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let secret = secret.map(|text| PeerSecret::new(text).unwrap());
        let identity = Identity { application_id: "app".to_owned(), instance: name.as_str().into(), secret };
        let started = {
            let mill = mill.clone();
            runtime.spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                (listener.local_addr().unwrap(), Peers::start(identity, listener, mill))
            })
        };
        let (address, peers) = started.await.unwrap();
        let options = HttpOptions {
            max_body: 1 << 20,
            intake_bytes: 1 << 20,
            max_concurrent_requests: 64,
            request_timeout: Duration::from_secs(8),
            max_query_period: Duration::from_secs(86_400),
            failover_wait: Duration::from_secs(1),
            ready_wait: Duration::from_secs(60),
        };
        let decoder = ClickDecoder::new(ClickFields::default(), TimestampSource::Field, Duration::from_secs(600));
        let api = router(mill.clone(), Some(peers.clone()), decoder, Arc::new(Metrics::new(Arc::new(Idle))), options);
        Self { mill, peers: Some(peers), address, api, runtime: Some(runtime) }
    }

    async fn get(&self, uri: &str) -> (u16, Value) {
        let response = self.api.clone().oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
    }

    /// Its connections and its listener are gone, as those of a process that was killed.
    fn die(&mut self) {
        self.peers = None;
        self.api = Router::new();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Tells all of them who owns what, and at which address each is.
fn assign(nodes: &[&Node], generation: i32, owners: &[(usize, u32)], copies: &[(usize, u32)]) {
    let addresses = nodes.iter().map(|node| (node.mill.name.clone(), node.address)).collect();
    assign_at(nodes, &addresses, generation, owners, copies);
}

fn assign_at(
    nodes: &[&Node],
    addresses: &BTreeMap<String, SocketAddr>,
    generation: i32,
    owners: &[(usize, u32)],
    copies: &[(usize, u32)],
) {
    let mut directory = Directory { generation, ..Directory::default() };
    for (name, address) in addresses {
        let endpoint = Some(address.to_string().into());
        directory.instances.insert(name.as_str().into(), InstanceInfo { endpoint, ..InstanceInfo::default() });
    }
    for (number, node) in nodes.iter().enumerate() {
        let roles = directory.assignment.members.entry(node.mill.name.as_str().into()).or_default();
        let of = |pairs: &[(usize, u32)]| pairs.iter().filter(|pair| pair.0 == number).map(|pair| pair.1).collect::<Vec<_>>();
        let (owned, kept) = (of(owners), of(copies));
        roles.active.extend(owned.iter().copied().map(task));
        roles.standby.extend(kept.iter().copied().map(task));
        (*node.mill.owned.lock().unwrap(), *node.mill.copies.lock().unwrap()) = (owned, kept);
    }
    let directory = Arc::new(directory);
    nodes.iter().for_each(|node| *node.mill.directory.lock().unwrap() = directory.clone());
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < SOON, "not {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ready(nodes: &[&Node]) {
    until("ready", async || {
        for node in nodes {
            let heard = node.peers.as_ref().unwrap().heard();
            if heard.len() + 1 < nodes.len() || heard.values().any(|heard| heard.at.is_none()) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn three() -> (Node, Node, Node) {
    let nodes = (Node::start(0, Some("s")).await, Node::start(1, Some("s")).await, Node::start(2, Some("s")).await);
    let all = [&nodes.0, &nodes.1, &nodes.2];
    assign(&all, 1, &[(0, 0), (1, 1), (2, 2)], &[(0, 1), (1, 2), (2, 0)]);
    ready(&all).await;
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_answers_for_all_of_them() {
    let (a, b, c) = three().await;
    for node in [&a, &b, &c] {
        let (status, totals) = node.get("/v1/clicks").await;
        assert_eq!((status, &totals["clicks"], &totals["completeness"]["complete"]), (200, &json!(7), &json!(true)), "{totals}");
        let (_, top) = node.get("/v1/ads/top?limit=2").await;
        assert_eq!(top["ads"].as_array().unwrap().iter().map(|ad| &ad["clicks"]).collect::<Vec<_>>(), [&json!(4), &json!(2)]);
        for ad in ["a", "b", "c", "d"] {
            let partition = millstream::partitioner::partition_for_key(ad.as_bytes(), PARTITIONS);
            assert_eq!(node.get(&format!("/v1/ads/{ad}/clicks")).await.1["clicks"], 1 << partition.0);
        }
        assert_eq!(node.get("/readyz").await.0, 200);
    }
    let same = |mut cluster: Value| {
        for instance in cluster["instances"].as_array_mut().unwrap() {
            instance["last_heard_ms"] = Value::Null;
            assert_eq!((instance["state"].as_str(), instance["version"].as_str()), (Some("running"), Some("1")));
        }
        assert_eq!(cluster["unassigned"], json!([]));
        cluster
    };
    let described = [&a, &b, &c].map(|node| node.get("/v1/cluster"));
    let [first, second, third] = described;
    let first = same(first.await.1);
    assert_eq!(first["instances"].as_array().unwrap().len(), 3);
    assert_eq!([same(second.await.1), same(third.await.1)], [first.clone(), first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_the_successor_of_an_owner_that_died() {
    let (a, b, mut c) = three().await;
    let mut events = a.peers.as_ref().unwrap().events();
    c.die();
    let died = Instant::now();
    let mut changes = Vec::new();
    while !changes.contains(&LinkChange::Refused) {
        let event = tokio::time::timeout(SOON, events.recv()).await.unwrap().unwrap();
        assert_eq!((&*event.instance, event.incarnation), ("i2", Some(3)));
        changes.push(event.change);
    }
    assert!(died.elapsed() < Duration::from_millis(500), "it is noticed at once, not after {:?}", died.elapsed());
    assert!(matches!(changes[0], LinkChange::Closed | LinkChange::Reset), "{changes:?}");

    // Stale is given at once; else it waits, here for nothing.
    let asked = Instant::now();
    let (status, stale) = a.get("/v1/clicks?allow_stale=true").await;
    assert_eq!(
        (status, &stale["clicks"], &stale["completeness"]["stale"]),
        (200, &json!(7), &json!([{"partition": 2, "lag": 4}]))
    );
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    let (status, problem) = a.get("/v1/clicks").await;
    assert_eq!((status, &problem["missing"]), (503, &json!([2])));
    let (status, partial) = a.get("/v1/clicks?allow_partial=true").await;
    assert_eq!((status, &partial["clicks"], &partial["completeness"]["missing"]), (200, &json!(3), &json!([2])));

    // A successor comes in time.
    let (answer, ()) = tokio::join!(a.get("/v1/clicks"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assign(&[&a, &b], 2, &[(0, 0), (1, 1), (1, 2)], &[]);
    });
    assert_eq!((answer.0, &answer.1["clicks"], &answer.1["completeness"]["complete"]), (200, &json!(7), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_instance_is_asked_a_second_time() {
    let (a, b, _c) = three().await;
    b.mill.slow_once.store(true, Ordering::Relaxed);
    let asked = Instant::now();
    let (status, totals) = a.get("/v1/clicks").await;
    assert_eq!((status, &totals["clicks"]), (200, &json!(7)));
    assert!(asked.elapsed() < Duration::from_millis(600), "the second try was quicker: {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_hangs_is_left_when_another_owns_what_it_had() {
    let (a, b, c) = three().await;
    c.mill.stuck.store(true, Ordering::Relaxed);
    let ((status, totals), ()) = tokio::join!(a.get("/v1/clicks"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assign(&[&a, &b], 2, &[(0, 0), (1, 1), (1, 2)], &[]);
    });
    assert_eq!((status, &totals["clicks"]), (200, &json!(7)));
    c.mill.stuck.store(false, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_out_waits_for_copies() {
    let (a, _b, _c) = three().await;
    let (status, problem) = a.get("/readyz?rollout").await;
    assert_eq!(status, 503);
    assert!(problem["detail"].as_str().unwrap().contains("shuffled-1"), "{problem}");
    assert_eq!(a.get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_another_secret_is_no_peer() {
    let (a, b) = (Node::start(0, Some("one")).await, Node::start(1, Some("two")).await);
    let mut events = a.peers.as_ref().unwrap().events();
    assign(&[&a, &b], 1, &[(0, 0), (0, 1), (1, 2)], &[]);
    let event = tokio::time::timeout(SOON, events.recv()).await.unwrap().unwrap();
    assert!(matches!(&event.change, LinkChange::Rejected(reason) if reason.contains("peer_secret_file")), "{event:?}");
    let (status, problem) = a.get("/v1/clicks").await;
    assert_eq!((status, &problem["missing"]), (503, &json!([2])));
    assert_eq!(a.get("/readyz").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_at_the_address_is_no_peer() {
    let (a, b) = (Node::start(0, None).await, Node::start(1, None).await);
    let mut events = a.peers.as_ref().unwrap().events();
    let addresses = BTreeMap::from([("i0".to_owned(), a.address), ("i9".to_owned(), b.address)]);
    assign_at(&[&a], &addresses, 1, &[(0, 0)], &[]);
    let event = tokio::time::timeout(SOON, events.recv()).await.unwrap().unwrap();
    assert!(matches!(&event.change, LinkChange::Rejected(reason) if reason.contains("instance i1")), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_is_noticed_and_made_again() {
    let (a, b) = (Node::start(0, None).await, Node::start(1, None).await);
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (through, target) = (proxy.local_addr().unwrap(), b.address);
    let cut = Arc::new(tokio::sync::Notify::new());
    let cutting = cut.clone();
    tokio::spawn(async move {
        loop {
            let Ok((mut near, _)) = proxy.accept().await else { return };
            let cut = cutting.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(target).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    let mut events = a.peers.as_ref().unwrap().events();
    let addresses = BTreeMap::from([("i0".to_owned(), a.address), ("i1".to_owned(), through)]);
    assign_at(&[&a, &b], &addresses, 1, &[(0, 0), (1, 1), (1, 2)], &[]);
    until("linked", async || a.get("/v1/clicks").await.0 == 200).await;
    cut.notify_waiters();
    let mut changes = Vec::new();
    while changes.iter().filter(|change| **change == LinkChange::Heard).count() < 2 {
        changes.push(tokio::time::timeout(SOON, events.recv()).await.unwrap().unwrap().change);
    }
    assert!(changes.iter().any(|change| matches!(change, LinkChange::Closed | LinkChange::Reset)), "{changes:?}");
    let (status, totals) = a.get("/v1/clicks").await;
    assert_eq!((status, &totals["clicks"]), (200, &json!(7)));
}
