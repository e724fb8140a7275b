//! The disk of the state is full for a while: the service waits, goes on by itself when there is room, and nothing is counted twice
//! or left out.
//!
//! The disk is a small tmpfs in a mount namespace of its own: the test runs itself again inside `unshare`, so that nothing stays
//! mounted whatever happens. It needs root, or user namespaces.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::clicks::Clicks;
use crate::scenario::Scenario;
use crate::service::pause;
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

const SERVERS: &str = "EXACTLY_ONCE_FULL_DISK_SERVERS";

#[test]
fn a_full_disk_changes_no_count() {
    if let Ok(servers) = std::env::var(SERVERS) {
        return on_a_small_disk(&servers);
    }
    let status = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", "exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg("full_disk::a_full_disk_changes_no_count")
        .env(SERVERS, cluster::shared().bootstrap_servers())
        .status()
        .expect("unshare (util-linux) runs");
    assert!(status.success(), "in a mount namespace of its own: {status}");
}

fn on_a_small_disk(servers: &str) {
    let rounds = short_or_full(2, 10);
    // Many large rows, so that there is something to write.
    let clicks = Clicks { ads: 1_000_000, ad_padding: 200, ..Clicks::mixed(size::clicks(120_000, 1_000_000), size::seed()) };
    let scenario = Scenario::new("full-disk", servers, clicks);
    let mut service = scenario.instance(0);
    mount(&scenario.instance_dir(0).join("data"));
    let writer = scenario.start_writing(rounds * 8);
    service.start_and_wait();
    for round in 0..rounds {
        let ballast = service.data_dir().join("ballast");
        fill(&ballast);
        service.wait_until("out of room", |service| service.log().contains("the task cannot go on for now"));
        pause(Duration::from_secs(3));
        if round % 2 == 1 {
            // Killed on the full disk.
            service.kill();
            service.start();
            pause(Duration::from_secs(2));
        }
        fs::remove_file(&ballast).unwrap();
        service.wait_until_ready();
    }
    writer.finish();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    println!("{rounds} times without room, {} starts", service.starts());
    service.stop();
}

fn mount(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"]).arg(dir).status().unwrap();
    assert!(mounted.success(), "a small disk can be mounted");
}

/// Takes all room that there is.
fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    let zeros = vec![0; 64 << 10];
    while file.write_all(&zeros).is_ok() {}
}
