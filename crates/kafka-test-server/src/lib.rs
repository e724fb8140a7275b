//! A real Apache Kafka for tests, on free ports of 127.0.0.1 and in a temporary directory. For tests alone: whatever goes wrong
//! here panics.
//!
//! ```no_run
//! let cluster = kafka_test_server::Cluster::start(1);
//! println!("Kafka listens on {}", cluster.bootstrap_servers());
//! cluster.kill(0);
//! cluster.start_again(0);
//! ```
//!
//! Java is needed, and Maven for the first start, which downloads Kafka's jars (`scripts/kafka-jars.sh`).

mod node;
mod properties;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use node::Node;
use properties::{Ports, server_properties};

/// Kafka nodes that are brokers and controllers at once. Dropping it kills them and deletes their data.
pub struct Cluster {
    nodes: Vec<Mutex<Node>>,
    bootstrap_servers: String,
}

impl Cluster {
    /// Starts that many nodes, and waits until they can be connected to. Three are the fewest that survive the loss of one.
    pub fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[])
    }

    /// As [`Cluster::start`], with further properties of the servers, over those that are set anyway.
    pub fn start_with(nodes: usize, properties: &[(&str, &str)]) -> Self {
        Self::start_from(&jars(None), free_ports(nodes), properties)
    }

    /// One node that listens on another port too, which is returned: who connects to that one is told to go on to the address `advertised`, that of a
    /// proxy.
    pub fn start_with_another_address(advertised: &str) -> (Self, u16) {
        let ports = free_ports(2);
        let (Ports { broker, controller }, another) = (ports[0], ports[1].broker);
        let own = format!("PLAINTEXT://127.0.0.1:{broker}");
        let properties = [
            ("listeners", format!("{own},CONTROLLER://127.0.0.1:{controller},ANOTHER://127.0.0.1:{another}")),
            ("advertised.listeners", format!("{own},ANOTHER://{advertised}")),
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,ANOTHER:PLAINTEXT".to_owned()),
        ];
        let properties: Vec<_> = properties.iter().map(|(key, value)| (*key, value.as_str())).collect();
        (Self::start_from(&jars(None), vec![ports[0]], &properties), another)
    }

    /// As [`Cluster::start`], of another version of Apache Kafka than all others.
    pub fn start_version(version: &str, nodes: usize) -> Self {
        Self::start_from(&jars(Some(version)), free_ports(nodes), &[])
    }

    fn start_from(jars: &Path, ports: Vec<Ports>, properties: &[(&str, &str)]) -> Self {
        let cluster_id = random_cluster_id();
        let node = |index| {
            let properties = server_properties(index, &ports, properties);
            Mutex::new(Node::format(jars, ports[index].broker, &cluster_id, &properties))
        };
        let nodes: Vec<_> = (0..ports.len()).map(node).collect();
        let servers: Vec<_> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.broker)).collect();
        let cluster = Self { nodes, bootstrap_servers: servers.join(",") };
        // All at once: controllers need a majority before any is ready.
        (0..cluster.nodes.len()).for_each(|index| cluster.node(index).start());
        (0..cluster.nodes.len()).for_each(|index| cluster.node(index).wait_until_ready());
        cluster
    }

    /// One node that all tests of this process share, and that ends with it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1))
    }

    /// Where to connect to: `HOST:PORT`, separated by commas.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Kills a node as `kill -9` does.
    pub fn kill(&self, node: usize) {
        self.node(node).kill();
    }

    /// Stops a node in its own order.
    pub fn stop(&self, node: usize) {
        self.node(node).stop();
    }

    /// Starts a node that was killed or stopped, on its data and its ports, and waits until it can be connected to.
    pub fn start_again(&self, node: usize) {
        let mut node = self.node(node);
        node.start();
        node.wait_until_ready();
    }

    /// Gives a node properties for its next start, over those that it has.
    pub fn reconfigure(&self, node: usize, properties: &[(&str, &str)]) {
        self.node(node).reconfigure(properties);
    }

    /// Lets a node hang (SIGSTOP), with its connections open, until it is resumed.
    pub fn suspend(&self, node: usize) {
        self.node(node).signal("STOP");
    }

    /// Lets a suspended node go on.
    pub fn resume(&self, node: usize) {
        self.node(node).signal("CONT");
    }

    /// The process of a node that runs.
    pub fn process_id(&self, node: usize) -> u32 {
        self.node(node).process_id()
    }

    /// Where a node keeps its logs: a directory `<topic>-<partition>` each.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.node(node).data_dir()
    }

    fn node(&self, node: usize) -> MutexGuard<'_, Node> {
        self.nodes[node].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that runs one of Kafka's own tools, by the name of its class.
pub fn tool(class: &str) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars(None).join("*")).arg(class);
    java
}

/// The directory with Kafka's jars of that version, or of the usual one, which are downloaded if need be.
fn jars(version: Option<&str>) -> PathBuf {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka-jars.sh");
    let output = Command::new(&script)
        .args(version)
        .output()
        .unwrap_or_else(|error| panic!("{} could not be run: {error}", script.display()));
    assert!(output.status.success(), "Kafka's jars are missing: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Ports that nothing listens on now. All are held until all are known, so that no two are the same.
fn free_ports(nodes: usize) -> Vec<Ports> {
    let held: Vec<_> = (0..2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("there is a free port")).collect();
    let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
    held.chunks(2).map(|pair| Ports { broker: port(&pair[0]), controller: port(&pair[1]) }).collect()
}

/// 16 random bytes in the base64 that Kafka writes ids in. The last character holds two bits, which are left 0.
fn random_cluster_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let letter = |_| char::from(b'A' + (RandomState::new().hash_one(()) % 26) as u8);
    (0..21).map(letter).chain(['A']).collect()
}
