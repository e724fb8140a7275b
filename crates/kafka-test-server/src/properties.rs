//! The servers' properties.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The ports of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) broker: u16,
    pub(crate) controller: u16,
}

/// What the properties file of a node holds, but for its directory.
pub(crate) fn server_properties(index: usize, ports: &[Ports], more: &[(&str, &str)]) -> String {
    let Ports { broker, controller } = ports[index];
    let voter = |(index, ports): (usize, &Ports)| format!("{}@127.0.0.1:{}", index + 1, ports.controller);
    let copies = ports.len().min(3);
    let in_sync = if copies == 3 { "2" } else { "1" };
    let copies = copies.to_string();
    let mut properties: BTreeMap<&str, String> = BTreeMap::from([
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", (index + 1).to_string()),
        ("controller.quorum.voters", ports.iter().enumerate().map(voter).collect::<Vec<_>>().join(",")),
        ("listeners", format!("PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{broker}")),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("default.replication.factor", copies.clone()),
        ("min.insync.replicas", in_sync.to_owned()),
        ("offsets.topic.replication.factor", copies.clone()),
        ("transaction.state.log.replication.factor", copies),
        ("transaction.state.log.min.isr", in_sync.to_owned()),
    ]);
    // Small and quick: few partitions of the internal topics, no wait for further members, short sessions allowed, and a lost broker is missed soon.
    let small = [
        ("offsets.topic.num.partitions", "4"),
        ("transaction.state.log.num.partitions", "4"),
        // By default a quarter of the heap, for nothing: the logs are small.
        ("log.cleaner.dedupe.buffer.size", "16777216"),
        ("num.network.threads", "2"),
        ("num.io.threads", "4"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.min.session.timeout.ms", "1000"),
        ("broker.session.timeout.ms", "3000"),
        ("broker.heartbeat.interval.ms", "500"),
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    ];
    properties.extend(small.iter().chain(more).map(|(key, value)| (*key, (*value).to_owned())));
    properties.iter().fold(String::new(), |mut file, (key, value)| {
        writeln!(file, "{key}={value}").expect("a string can be written to");
        file
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_keep_three_copies_and_know_each_other() {
        let ports = [1, 2, 3].map(|n| Ports { broker: 9000 + n, controller: 9100 + n });
        let file = server_properties(1, &ports, &[("num.io.threads", "9")]);
        let lines: Vec<_> = file.lines().collect();
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103",
            "listeners=PLAINTEXT://127.0.0.1:9002,CONTROLLER://127.0.0.1:9102",
            "default.replication.factor=3",
            "min.insync.replicas=2",
            "num.io.threads=9",
        ] {
            assert!(lines.contains(&line), "{line} is missing in\n{file}");
        }
    }
}
