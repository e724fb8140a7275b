//! One Kafka process.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a start or a stop may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// Becomes the server. A watcher stays beside it: when the test's process ends without having stopped the server, and with that the
/// pipe, it kills the server and deletes its data.
const RUN: &str = r#"exec 3<&0; dir=$1; shift
{ read -r _ <&3 || { kill -KILL $$; rm -rf "$dir"; }; } &
exec java "$@" </dev/null 3<&-"#;

/// A node: its directory, and its process while it runs.
pub(crate) struct Node {
    dir: TempDir,
    jars: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Node {
    /// A node with an empty log, not yet running.
    pub(crate) fn format(jars: &Path, port: u16, cluster_id: &str, properties: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("kafka-").tempdir().expect("there is room for a temporary directory");
        let data = data_dir(dir.path());
        std::fs::write(dir.path().join("server.properties"), format!("{properties}log.dirs={}\n", data.display()))
            .expect("the properties can be written");
        let node = Self { dir, jars: jars.to_owned(), port, process: None };
        let formatted = Command::new("java")
            .args(["-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(node.class_path())
            .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
            .arg(node.dir.path().join("server.properties"))
            .output()
            .expect("java can be run: a Java runtime of version 17 or newer is needed");
        assert!(formatted.status.success(), "Kafka's storage could not be formatted: {formatted:?}");
        node
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the node runs").id()
    }

    fn class_path(&self) -> PathBuf {
        self.jars.join("*")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    pub(crate) fn reconfigure(&self, properties: &[(&str, &str)]) {
        let mut file =
            File::options().append(true).open(self.dir.path().join("server.properties")).expect("the properties can be opened");
        // Of a property that comes twice, the last one counts.
        for (key, value) in properties {
            writeln!(file, "{key}={value}").expect("the properties can be written");
        }
    }

    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "the node runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log can be opened");
        let errors = log.try_clone().expect("a file handle can be doubled");
        let process = Command::new("sh")
            .args(["-c", RUN, "kafka"])
            .arg(self.dir.path())
            // A server without memory would hang; one that ends says so in its log.
            .args(["-Xms128m", "-Xmx1g", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-cp"])
            .arg(self.class_path())
            .arg("kafka.Kafka")
            .arg(self.dir.path().join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("a shell can be run");
        self.process = Some(process);
    }

    /// Waits until it takes connections.
    pub(crate) fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.process.as_mut().map(|process| process.try_wait().expect("the process is ours"));
            assert!(matches!(ended, Some(None)), "Kafka has ended: {}", self.log());
            assert!(began.elapsed() < PATIENCE, "Kafka does not start: {}", self.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Sends a signal by process id.
    pub(crate) fn signal(&self, signal: &str) {
        let Some(process) = &self.process else { return };
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(process.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "the server could not be sent SIG{signal}");
    }

    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let began = Instant::now();
        while let Some(process) = &mut self.process {
            if process.try_wait().expect("the process is ours").is_some() || began.elapsed() > PATIENCE {
                self.kill();
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // The watcher has nothing left to do. Where it cannot be told, it kills the same process once more.
        if let Some(pipe) = &mut process.stdin {
            let _ = pipe.write_all(b"done\n");
        }
        // It may have ended by itself.
        let _ = process.kill();
        process.wait().expect("the process is ours");
    }
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
