//! A full disk stops intake with 503 and loses nothing; when there is room again the service goes on by itself.
//!
//! The disk is a small tmpfs in a mount namespace of its own: the test runs itself again inside `unshare`, so that nothing stays
//! mounted whatever happens. It needs root, or user namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use service::{Answer, Service, pause};

const DIR: &str = "CLICKMILL_TEST_SMALL_DISK";
const CONFIGURATION: &str = "engine.memory = \"256MiB\"";
const CLICKS_IN_A_REQUEST: u64 = 500;

#[test]
fn a_full_disk_stops_intake_and_loses_nothing() {
    if let Some(dir) = std::env::var_os(DIR) {
        return on_a_small_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let script = format!("mount -t tmpfs -o size=192m tmpfs \"${DIR}/data\" && exec \"$0\" --exact \"$1\" --nocapture");
    let status = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg("a_full_disk_stops_intake_and_loses_nothing")
        .env(DIR, dir.path())
        .status()
        .expect("unshare (util-linux) runs");
    assert!(status.success(), "in a mount namespace of its own: {status}");
}

fn on_a_small_disk(dir: &Path) {
    let mut service = Service::new(dir, CONFIGURATION);
    let mut sender = Sender { random: ChaCha8Rng::seed_from_u64(1), requests: 0 };
    for ballast_mib in [100, 60] {
        let ballast = dir.join("data").join("ballast");
        fs::write(&ballast, vec![0; ballast_mib << 20]).unwrap();
        if service.starts() == 0 {
            service.start_and_wait();
        }
        let refused = sender.send_until_refused(&service);
        println!("full after {} requests: {}", sender.requests, refused.json);
        for _ in 0..20 {
            let refused = sender.send(&service);
            assert!(refused.status == 503 && refused.retry_after.is_some(), "{}", refused.json);
            assert_eq!(service.get("/healthz").status, 200);
            pause(Duration::from_millis(100));
        }
        fs::remove_file(&ballast).unwrap();
        sender.send_until_accepted(&service);
        sender.check(&mut service);
    }
    assert_eq!(service.starts(), 1, "it went on by itself");
    killed_while_full(&mut service, &mut sender);
}

/// Killed on the full disk, started on it, and started again when there is room.
fn killed_while_full(service: &mut Service, sender: &mut Sender) {
    let ballast = service.data_dir().join("ballast");
    let mut zeros = vec![0; 1 << 20];
    while fs::write(&ballast, &zeros).is_ok() {
        zeros.resize(zeros.len() + (1 << 20), 0);
    }
    sender.send_until_refused(service);
    service.kill();
    service.start();
    assert_eq!(service.wait_for_end().code(), Some(1));
    let log = service.log();
    let reason = log.lines().find_map(|line| line.strip_prefix("clickmill: ")).unwrap();
    assert!(reason.contains("data/log") && reason.contains("No space left on device"), "{reason}");
    fs::remove_file(&ballast).unwrap();
    service.start_and_wait();
    sender.check(service);
    service.stop();
}

/// Sends clicks, each request with a key of its own that a repetition keeps.
struct Sender {
    random: ChaCha8Rng,
    /// Acknowledged.
    requests: u64,
}

impl Sender {
    fn send(&mut self, service: &Service) -> Answer {
        // Text that does not compress.
        let mut bytes = [0; 512];
        let lines: String = (0..CLICKS_IN_A_REQUEST)
            .map(|number| {
                self.random.fill_bytes(&mut bytes);
                let padding: String = bytes.iter().map(|byte| char::from(b' ' + 3 + byte % 56)).collect();
                format!("{{\"ad_id\":\"ad-{}\",\"padding\":\"{padding}\"}}\n", number % 50)
            })
            .collect();
        let answer = service.post(&lines, Some(&self.requests.to_string())).unwrap();
        if answer.status == 202 {
            assert_eq!(answer.json["accepted"], CLICKS_IN_A_REQUEST);
            self.requests += 1;
        }
        answer
    }

    fn send_until_refused(&mut self, service: &Service) -> Answer {
        loop {
            let answer = self.send(service);
            if answer.status != 202 {
                assert!(answer.status == 503 && answer.retry_after.is_some(), "{}", answer.json);
                return answer;
            }
            assert!(self.requests < 5_000, "the disk is never full");
        }
    }

    fn send_until_accepted(&mut self, service: &Service) {
        let since = Instant::now();
        while self.send(service).status != 202 {
            assert!(since.elapsed() < Duration::from_secs(60), "it does not go on by itself:\n{}", service.log());
            pause(Duration::from_millis(100));
        }
        println!("goes on {:?} after there was room", since.elapsed());
        for _ in 0..5 {
            assert_eq!(self.send(service).status, 202);
        }
    }

    /// Everything acknowledged is counted once.
    fn check(&self, service: &mut Service) {
        service.wait_until_counted();
        let counted = service.query("/v1/clicks?from=-1h&to=now")["clicks"].as_u64().unwrap();
        assert_eq!(counted, self.requests * CLICKS_IN_A_REQUEST);
    }
}
