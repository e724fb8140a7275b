//! The clicks topic gets more partitions while clicks come in over HTTP: they are used and counted soon, unless each ad has to stay where
//! it is.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::service::{Service, pause};
use crate::{cluster, topic};

/// How long the intake may take to notice, with a machine that has other things to do.
const SOON: Duration = Duration::from_secs(30);

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
    topic::add_partitions(servers, "grows-clicks", 6);
    topic::add_partitions(servers, "grows-keyed-clicks", 6);
    let added = |name: &str| topic::ranges(servers, name)[2..].iter().map(|(_, end)| *end).collect::<Vec<_>>();
    let began = Instant::now();
    while added("grows-clicks").contains(&0) {
        assert!(began.elapsed() < SOON, "the new partitions are not used: {:?}\n{}", added("grows-clicks"), grows.log());
        // Under load: no click is refused because of it.
        for service in [&grows, &keyed] {
            post(service);
        }
        posted += 100;
        pause(Duration::from_millis(50));
    }
    // What went to the new partitions is counted, too.
    grows.wait_until("counted", |service| total(service) == posted);
    println!("the new partitions are used and counted after {:.1?}", began.elapsed());
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
