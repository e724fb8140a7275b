//! Every option: its name, what it takes, its default and its meaning. The reference in `docs/configuration.md` is made of
//! this table, and nothing outside it is accepted.

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text but the empty one.
    Text,
    /// A name that Kafka takes for a topic or a group: letters, digits, `.`, `_` and `-`.
    Name {
        /// The longest one accepted.
        max_length: usize,
    },
    /// A directory.
    Path,
    /// An address to listen on, `HOST:PORT` with an IP address.
    SocketAddress,
    /// A host name or IP address with a port.
    HostPort,
    /// A whole number in a range.
    Integer {
        /// The smallest one accepted.
        min: u64,
        /// The largest one accepted.
        max: u64,
    },
    /// A number in a range, whole or not.
    Number {
        /// The smallest one accepted.
        min: f64,
        /// The largest one accepted.
        max: f64,
    },
    /// A whole number of threads from 1 to 1024, or `"auto"`.
    Threads,
    /// `true` or `false`.
    Boolean,
    /// A duration.
    Duration {
        /// Whether zero is accepted.
        zero: bool,
    },
    /// A duration longer than zero, or `"off"`.
    DurationOrOff,
    /// A size in bytes.
    Size {
        /// The smallest one accepted.
        min: u64,
    },
    /// A size in bytes, or `"off"`.
    SizeOrOff,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One option of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Section and key, such as `window.size`.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its value where nobody sets it.
    pub default: Option<&'static str>,
    /// What it does, in a sentence or two of Markdown.
    pub meaning: &'static str,
}

/// The sections in the order in which they are documented, each with what it is about.
pub const SECTIONS: [(&str, &str); 9] = [
    ("server", "The HTTP server."),
    ("data", "Where everything is kept."),
    ("engine", "How clicks are processed."),
    ("clicks", "The topic that clicks arrive on, and how a click is read."),
    ("window", "How clicks are counted."),
    (
        "topics",
        "How long what the application itself sends on is kept, by the records' own timestamps; on Kafka each start sets the topics' \
         `retention.ms` so. By default nothing is ever deleted: these topics are for others to read.",
    ),
    (
        KAFKA_SECTION,
        "The Kafka cluster that holds the clicks. Without this section the embedded broker does. `bootstrap.servers = \"kafka:9092\"` \
         names brokers to begin with; any other librdkafka property can be set by its own name, those for SASL and TLS among them. One that \
         librdkafka does not know, or that exact counting depends on, is refused at start.",
    ),
    (
        ROCKSDB_SECTION,
        "How state is stored. Beside the options listed, any RocksDB option is set by RocksDB's own name and in its notation, such \
         as `max_open_files = 500`. A name that RocksDB does not know, or that the store has to set itself, is refused at start.",
    ),
    ("log", "What the service says on standard error."),
];

/// The section that holds librdkafka properties.
pub(super) const KAFKA_SECTION: &str = "kafka";

/// The property of `[kafka]` without which there is no cluster.
pub(super) const BOOTSTRAP_SERVERS: &str = "bootstrap.servers";

/// The section that holds RocksDB options, ours and RocksDB's own.
pub(super) const ROCKSDB_SECTION: &str = "rocksdb";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const COMPRESSION: Kind = Kind::Choice(&["none", "lz4", "zstd"]);
const POSITIVE: Kind = Kind::Duration { zero: false };
const FROM_ZERO: Kind = Kind::Duration { zero: true };

const fn option(key: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> OptionSpec {
    OptionSpec { key, kind, default: Some(default), meaning }
}

/// All options, by section.
pub const OPTIONS: &[OptionSpec] = &[
    option("server.listen", Kind::SocketAddress, "127.0.0.1:8080", "The address of the HTTP server. Port 0 takes a free port."),
    OptionSpec {
        key: "server.advertise",
        kind: Kind::HostPort,
        default: None,
        meaning: "How other instances reach this one, `HOST:PORT`, as `/v1/cluster` tells. It has to lead to this instance, not to any of them. Where it \
                  is not set: the address that it listens on for them, which they cannot use where that is `0.0.0.0` or `[::]`: then set it.",
    },
    option(
        "server.peer_listen",
        Kind::SocketAddress,
        "127.0.0.1:0",
        "On Kafka: the address for the other instances of the application, which ask each other for counts there. Port 0 takes a free port. Not for \
         clients, and not for a network that others than the instances can reach.",
    ),
    OptionSpec {
        key: "server.peer_secret_file",
        kind: Kind::Path,
        default: None,
        meaning: "A file with a secret that all instances share. Without it, whoever reaches `server.peer_listen` is answered; with it, whoever does not \
                  send the same is refused. It is sent as it is: without TLS, keep the network between instances to yourself.",
    },
    option(
        "server.failover_wait",
        FROM_ZERO,
        "1s",
        "How long a query waits for a partition whose owner does not answer or has died, until another one does.",
    ),
    option(
        "server.max_body",
        Kind::Size { min: KIB },
        "16MiB",
        "The largest body of a request, a sixteenth of `engine.memory` at most. A larger one is answered 413.",
    ),
    option(
        "server.max_concurrent_requests",
        Kind::Integer { min: 1, max: 1_000_000 },
        "1024",
        "How many requests are worked on at once. What comes on top is answered 503 with `Retry-After`.",
    ),
    option(
        "server.request_timeout",
        POSITIVE,
        "30s",
        "How long a request may take from its head to the beginning of its answer. A click waits a third of it at most \
         for its turn, where more are taken in than can be. On Kafka it has half of it to be stored, \
         or `message.timeout.ms` of `[kafka]` where that is less.",
    ),
    option("server.max_query_period", POSITIVE, "31d", "The longest period of one query. A longer one is answered 400."),
    option("data.dir", Kind::Path, "data", "The directory of the log and the state. One process at a time uses it."),
    option(
        "engine.application_id",
        Kind::Name { max_length: 190 },
        "clickmill",
        "The name of the consumer group, and the prefix of all topics besides the clicks. Another name counts \
         anew all clicks that are still kept.",
    ),
    option("engine.commit_interval", POSITIVE, "100ms", "How often counts are committed, and so become visible, when caught up."),
    option(
        "engine.commit_interval_backlog",
        POSITIVE,
        "1s",
        "How often counts are committed while there is a backlog: larger commits cost less per click.",
    ),
    option(
        "engine.threads",
        Kind::Threads,
        "auto",
        "How many threads process clicks. `\"auto\"`: one for each processor core, and no more than there are tasks.",
    ),
    option(
        "engine.num_standbys",
        Kind::Integer { min: 0, max: 10 },
        "0",
        "On Kafka: how many other instances keep a copy of the state of each partition, which goes on where its owner dies. 1 is recommended. The embedded broker has \
         one instance.",
    ),
    OptionSpec {
        key: "engine.rack",
        kind: Kind::Text,
        default: None,
        meaning: "Where this instance stands: copies are kept in other racks than their owner's, where there are any. By default `client.rack` of `[kafka]`.",
    },
    option(
        "engine.memory",
        Kind::Size { min: 256 * MIB },
        "1GiB",
        "The budget of the whole process: RocksDB's caches and write buffers, uncommitted changes, clicks on their way in.",
    ),
    option(
        "engine.state_cleanup_delay",
        POSITIVE,
        "10m",
        "On Kafka: how long an instance keeps the state of a partition that is not its own any more. It may come back. Without its group it deletes nothing.",
    ),
    option(
        "engine.ready_wait",
        POSITIVE,
        "5m",
        "How long after the start `/readyz?rollout` waits for the copies that this instance is to keep.",
    ),
    option(
        "engine.idle_timeout",
        Kind::DurationOrOff,
        "1m",
        "How long a partition may bring nothing before windows close without waiting for it. `\"off\"`: they always wait.",
    ),
    option("clicks.topic", Kind::Name { max_length: 249 }, "click-events-topic", "The topic of the clicks."),
    option(
        "clicks.partitions",
        Kind::Integer { min: 1, max: 1024 },
        "8",
        "How many partitions the topic gets when it is created. It bounds how many threads can count at once.",
    ),
    option("clicks.ad_id_field", Kind::Text, "ad_id", "The field of a click that holds the ad id."),
    option("clicks.timestamp_field", Kind::Text, "timestamp", "The field of a click that holds its event time."),
    option("clicks.click_id_field", Kind::Text, "click_id", "The field of a click that holds its own id."),
    option(
        "clicks.timestamp_source",
        Kind::Choice(&["field", "record"]),
        "field",
        "Where event time comes from: `\"field\"`, the click's own field, or `\"record\"`, the time at which it arrived.",
    ),
    option(
        "clicks.max_ahead",
        FROM_ZERO,
        "10m",
        "How far event time may be ahead of the time of arrival. A click further ahead goes to the dead-letter topic.",
    ),
    option(
        "clicks.keyed_by_ad",
        Kind::Boolean,
        "false",
        "`true`: the topic's key is the ad id already, so that nothing is shuffled. Cannot be changed once clicks were counted.",
    ),
    option(
        "clicks.retention",
        Kind::DurationOrOff,
        "7d",
        "How long the embedded broker keeps clicks from their arrival on; those that are not counted yet stay. `\"off\"`: for ever.",
    ),
    option(
        "clicks.retention_bytes",
        Kind::SizeOrOff,
        "off",
        "How many bytes of clicks the embedded broker keeps of each partition. `\"off\"`: as many as there are.",
    ),
    option("window.size", POSITIVE, "5m", "The length of a window. Cannot be changed once clicks were counted."),
    option(
        "window.grace",
        FROM_ZERO,
        "15m",
        "How long after its end a window still takes clicks that come late. What comes later goes to the late topic.",
    ),
    option("window.retention", POSITIVE, "7d", "How far back counts can be asked for. At least size and grace together."),
    option(
        "topics.late_retention",
        Kind::DurationOrOff,
        "off",
        "How long late clicks are kept, by the time at which they arrived. `\"off\"`: for ever.",
    ),
    option(
        "topics.dead_letter_retention",
        Kind::DurationOrOff,
        "off",
        "How long clicks that could not be read are kept, by the time at which they arrived. `\"off\"`: for ever.",
    ),
    option(
        "topics.closed_retention",
        Kind::DurationOrOff,
        "off",
        "How long the counts of final windows are kept on their topic, by event time. `\"off\"`: for ever.",
    ),
    option(
        "rocksdb.write_buffer_size",
        Kind::Size { min: MIB },
        "64MiB",
        "How much a store collects in memory before it writes a file, a thirty-second of `engine.memory` at most. Three times as \
         much a store is the most that is replayed after a crash: one that fills, and two that wait to be written.",
    ),
    option("rocksdb.block_size", Kind::Size { min: KIB }, "16KiB", "The rows read and cached together, before compression."),
    option(
        "rocksdb.bloom_bits_per_key",
        Kind::Number { min: 0.0, max: 100.0 },
        "10",
        "Bits of bloom filter for each row; 10 lets 1 % of the lookups of absent rows through. 0: no filter.",
    ),
    option("rocksdb.compression", COMPRESSION, "lz4", "How files are compressed, those of the last level excepted."),
    option(
        "rocksdb.bottommost_compression",
        COMPRESSION,
        "zstd",
        "How the last level is compressed, where most of the data lies.",
    ),
    option(
        "rocksdb.max_background_jobs",
        Kind::Integer { min: 1, max: 256 },
        "2",
        "Threads for flushes and compactions, shared by all stores.",
    ),
    option(
        "log.level",
        Kind::Text,
        "info",
        "What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,millstream=debug`.",
    ),
    option(
        "log.format",
        Kind::Choice(&["text", "json"]),
        "text",
        "How it is logged: `\"text\"` for people, `\"json\"` for machines.",
    ),
];

/// The option of that name.
pub(super) fn find(key: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.key == key)
}

impl OptionSpec {
    /// The section of the key.
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(section, _)| section)
    }

    /// The key within its section.
    pub fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }
}

impl Kind {
    /// Whether a value of this kind is written without quotes in TOML.
    pub(crate) fn is_bare(self, text: &str) -> bool {
        match self {
            Kind::Integer { .. } | Kind::Number { .. } | Kind::Boolean => true,
            Kind::Threads => text != "auto",
            _ => false,
        }
    }
}
