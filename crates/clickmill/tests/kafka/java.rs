//! The Kafka Streams program of `bench/kafka-streams` beside the service: equal counts, and a move in place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::clicks::{Clicks, MINUTE_MS};
use crate::scenario::Scenario;
use crate::service::pause;
use crate::{cluster, counts, found, size, topic};

const PATIENCE: Duration = Duration::from_secs(120);

/// Kafka Streams judges lateness behind the shuffle, where the partitions' times mix: it drops none where nothing can be late.
const LONG_GRACE_MS: i64 = 180 * MINUTE_MS;

#[test]
fn kafka_streams_and_the_service_count_the_same() {
    let clicks = Clicks { bad_share: 0.0, ..Clicks::mixed(size::clicks(40_000, 1_000_000), size::seed()) };
    let scenario = Scenario::new("beside-java", cluster::shared().bootstrap_servers(), clicks);
    let scenario = Scenario { grace_ms: LONG_GRACE_MS, ..scenario };
    scenario.write_all();
    let mut java = StreamsProgram::start(&scenario, "java-beside");
    let mut service = scenario.instance(0);
    service.start_and_wait();
    let tally = counts::check(&scenario);
    wait_until_counted(&scenario.servers, "java-beside", tally.counted(), || java.assert_it_runs());
    java.stop();
    service.stop();
    counts::assert_same("Kafka Streams' changelog", &found::changelog(&scenario.servers, "java-beside"), &tally.counts);
    // Its own deserializers read both changelogs, and find the same.
    let [ours, theirs] = ["beside-java", "java-beside"].map(|application_id| java_reads_changelog(&scenario, application_id));
    assert!(!ours.is_empty() && ours == theirs, "as Kafka Streams reads them, the changelogs differ");
    assert_eq!(&java_reads_stream_times(&scenario, "beside-java"), tally.stream_times(), "beside the committed positions");
}

/// What another program writes, compressed as it likes, is counted as it has tallied by itself.
#[test]
fn the_clicks_of_another_program_are_counted() {
    let clicks = Clicks::mixed(size::clicks(40_000, 2_000_000), size::seed());
    let scenario = Scenario::new("of-java", cluster::shared().bootstrap_servers(), clicks);
    let expected = scenario.dir.path().join("expected");
    let mut generate = java("Generate");
    generate.args(["--bootstrap", &scenario.servers, "--topic", &scenario.clicks_topic, "--compression", "zstd"]);
    generate.args(["--count", &scenario.clicks.count.to_string(), "--seed", &scenario.clicks.seed.to_string()]);
    generate
        .args(["--disorder-ms", "30000", "--late", "0.01", "--grace-ms", &scenario.grace_ms.to_string()])
        .arg("--expected")
        .arg(&expected);
    let generated = generate.output().unwrap();
    assert!(generated.status.success(), "{}", String::from_utf8_lossy(&generated.stderr));
    let expected = fs::read_to_string(expected).unwrap();
    let total = expected.lines().map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()).sum();
    let mut service = scenario.instance(0);
    service.start_and_wait();
    wait_until_counted(&scenario.servers, "of-java", total, || {});
    service.wait_until_counted();
    service.stop();
    assert!(java_reads_changelog(&scenario, "of-java") == expected, "the counts are not those of the generator");
}

#[test]
fn an_application_moves_from_kafka_streams_in_place_and_back() {
    let mixed = Clicks::mixed(size::clicks(40_000, 1_000_000), size::seed());
    let clicks = Clicks { bad_share: 0.0, late_share: 0.0, ..mixed };
    let scenario = Scenario::new("moved", cluster::shared().bootstrap_servers(), clicks);
    // Live, so that the partitions' times are close to each other: some windows are final in the end, and nothing is late.
    let scenario = Scenario { grace_ms: 90 * MINUTE_MS, ..scenario };
    let mut java = StreamsProgram::start(&scenario, "moved");
    java.wait_until_running();
    let writer = scenario.start_writing(40);
    wait_until_counted(&scenario.servers, "moved", scenario.clicks.count / 4, || java.assert_it_runs());
    java.stop();
    let repartition = "moved-ad-clicks-store-repartition";
    let ends: Vec<_> = topic::ranges(&scenario.servers, repartition).into_iter().map(|(_, end)| end).collect();
    let read = topic::committed(&scenario.servers, "moved", repartition);
    println!("moved with the repartition topic at {ends:?}, read to {read:?}");
    let mut service = scenario.instance(0);
    service.start_and_wait();
    wait_until_counted(&scenario.servers, "moved", scenario.clicks.count / 2, || {});
    service.stop();
    service.drain();
    // It finds its state as it left it, and on the changelog what the service has counted since.
    let before = counted(&scenario.servers, "moved");
    let mut java = StreamsProgram::start(&scenario, "moved");
    java.wait_until_running();
    wait_until_counted(&scenario.servers, "moved", before + scenario.clicks.count / 100, || java.assert_it_runs());
    java.stop();
    service.start_and_wait();
    writer.finish();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    assert!(!tally.final_counts().is_empty(), "some windows are final");
    service.stop();
}

/// Kafka Streams' own deserializers on the changelog of an application: lines of ad, window and count.
fn java_reads_changelog(scenario: &Scenario, application_id: &str) -> String {
    let changelog = format!("{application_id}-ad-clicks-store-changelog");
    let output = java("Check").args(["changelog", "--bootstrap", &scenario.servers, "--topic", &changelog]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The stream time of each partition of the clicks, as Kafka Streams decodes it from what an application has committed.
fn java_reads_stream_times(scenario: &Scenario, application_id: &str) -> BTreeMap<i32, i64> {
    let output = java("Check").args(["offsets", "--bootstrap", &scenario.servers, "--group", application_id]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let of_clicks = lines.filter(|fields| fields[0] == scenario.clicks_topic);
    of_clicks.map(|fields| (fields[1].parse().unwrap(), fields[3].parse().unwrap())).collect()
}

/// The clicks that the application's changelog tells of.
fn counted(servers: &str, application_id: &str) -> u64 {
    found::changelog(servers, application_id).values().sum::<i64>() as u64
}

/// Waits until the application's changelog tells of so many clicks, whoever writes it.
fn wait_until_counted(servers: &str, application_id: &str, clicks: u64, mut look: impl FnMut()) {
    let (began, changelog) = (Instant::now(), format!("{application_id}-ad-clicks-store-changelog"));
    while !topic::exists(servers, &changelog) || counted(servers, application_id) < clicks {
        look();
        assert!(began.elapsed() < PATIENCE, "{clicks} clicks are not counted in time");
        pause(Duration::from_millis(300));
    }
}

/// A class of `bench/kafka-streams`.
fn java(class: &str) -> Command {
    static CLASS_PATH: OnceLock<String> = OnceLock::new();
    let class_path = CLASS_PATH.get_or_init(|| {
        let build = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bench/kafka-streams/build.sh");
        let output = Command::new(build).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "bench/kafka-streams cannot be built: Java 17 and Maven are needed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-cp", class_path]).arg(format!("clickmill.bench.{class}"));
    command
}

/// The Kafka Streams program, counting the clicks of a scenario.
pub(crate) struct StreamsProgram {
    servers: String,
    application_id: String,
    out: PathBuf,
    process: Child,
}

impl StreamsProgram {
    pub(crate) fn start(scenario: &Scenario, application_id: &str) -> Self {
        let dir = scenario.instance_dir(100);
        fs::create_dir_all(&dir).unwrap();
        let (out, err) = (dir.join("out.json"), dir.join("java.log"));
        let mut command = java("ClickCounts");
        command.args(["--bootstrap", &scenario.servers, "--topic", &scenario.clicks_topic, "--application-id", application_id]);
        command.args(["--grace-ms", &scenario.grace_ms.to_string()]).arg("--state-dir").arg(dir.join("state"));
        // The clicks are old, and so are the changelog's records.
        command.args(["--property", "windowstore.changelog.additional.retention.ms=31536000000000"]);
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(err).unwrap());
        let process = command.spawn().expect("java can be run");
        Self { servers: scenario.servers.clone(), application_id: application_id.to_owned(), out, process }
    }

    fn wait_until_running(&mut self) {
        let began = Instant::now();
        while !fs::read_to_string(&self.out).unwrap().contains("RUNNING") {
            self.assert_it_runs();
            assert!(began.elapsed() < PATIENCE, "{}", self.log());
            pause(Duration::from_millis(100));
        }
    }

    fn assert_it_runs(&mut self) {
        assert!(self.process.try_wait().unwrap().is_none(), "{}", self.log());
    }

    /// Waits until it has read the clicks and its repartition topic to their ends.
    pub(crate) fn wait_until_caught_up(&self, clicks_topic: &str) {
        let repartition = format!("{}-ad-clicks-store-repartition", self.application_id);
        let mut check = java("Check");
        check.args(["caught-up", "--bootstrap", &self.servers, "--group", &self.application_id]);
        check.args(["--topic", clicks_topic, "--topic", &repartition, "--timeout-ms", "180000"]);
        assert!(check.status().unwrap().success(), "{}", self.log());
    }

    /// Stops it in order: it commits and leaves the group. Gives its totals.
    pub(crate) fn stop(&mut self) -> serde_json::Value {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        self.process.wait().unwrap();
        let out = fs::read_to_string(&self.out).unwrap();
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(Path::new(&self.out).with_file_name("java.log")).unwrap_or_default()
    }
}

impl Drop for StreamsProgram {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
