//! Stops while brokers do not answer: they end in time, and what was not committed is counted by the next start.

use std::path::Path;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;

use crate::proxy::{Loss, Proxy};
use crate::service::Service;
use crate::topic;

/// What is documented, and a margin for a machine that is busy.
const LONGEST: Duration = Duration::from_secs(20 + 5);

#[test]
fn a_service_whose_brokers_are_gone_ends_in_time_and_the_next_counts_what_it_had_not_committed() {
    let proxy = Proxy::start();
    let cluster = Cluster::start_with(1, &[("advertised.listeners", &format!("PLAINTEXT://{}", proxy.address()))]);
    proxy.lead_to(cluster.bootstrap_servers().rsplit_once(':').unwrap().1.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut service = service(dir.path(), &proxy.address());
    service.start_and_wait();
    click(&service, 100);
    service.wait_until_counted();
    // From the middle of a commit on, nothing is answered.
    proxy.arm(Loss::Request);
    click(&service, 100);
    proxy.wait_until_silent();
    end(&mut service, "are silent");
    assert!(service.log().contains("stopped without a last commit"), "{}", service.log());

    proxy.heal();
    service.start_and_wait();
    click(&service, 100);
    cluster.kill(0);
    end(&mut service, "are dead");

    cluster.start_again(0);
    service.start_and_wait();
    service.wait_until_counted();
    assert_eq!(service.query("/v1/clicks?from=-1h")["clicks"], 300);
    service.stop();
}

fn service(dir: &Path, servers: &str) -> Service {
    topic::create(servers, "stops-clicks", 2, &[]);
    let configuration = format!(
        "[engine]\napplication_id = \"stops\"\nmemory = \"256MiB\"\nthreads = 2\n\
         [clicks]\ntopic = \"stops-clicks\"\n\
         [kafka]\nbootstrap.servers = \"{servers}\"\nsession.timeout.ms = 8000\n"
    );
    Service::new(dir, &configuration)
}

fn click(service: &Service, clicks: usize) {
    let lines: String = (0..clicks).map(|ad| format!("{{\"ad_id\": \"ad-{ad}\"}}\n")).collect();
    let answer = service.post(&lines, None).unwrap();
    assert_eq!(answer.status, 202, "{}\n{}", answer.json, service.log());
}

fn end(service: &mut Service, brokers: &str) {
    let began = Instant::now();
    service.signal("TERM");
    let status = service.wait_for_end();
    println!("SIGTERM while the brokers {brokers}: ended after {:.1?}", began.elapsed());
    assert_eq!(status.code(), Some(0), "{}", service.log());
    assert!(began.elapsed() < LONGEST, "{:?}\n{}", began.elapsed(), service.log());
}
