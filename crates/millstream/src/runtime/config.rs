use std::time::Duration;

use crate::broker::group::transactional_id;
use crate::record::Topic;

/// How an application runs. Every thread of every instance of an application has the same but for `instance_id`, `rack` and `endpoint`.
#[derive(Debug, Clone)]
pub struct StreamsConfig {
    /// The application: its consumer group, and the beginning of the names of its internal topics.
    pub application_id: String,
    /// This instance: part of its producers' transactional ids, and the same after a restart.
    pub instance_id: String,
    /// How often to commit when all there is has been read.
    pub commit_interval: Duration,
    /// How often to commit while there is more to read than comes in one poll.
    pub commit_interval_backlog: Duration,
    /// How much memory a thread's uncommitted work may take, roughly, before it commits early.
    pub uncommitted_bytes: usize,
    /// How much memory a query may take that ranks keys, roughly. With less it reads more often.
    pub query_bytes: usize,
    /// How many rows of final windows a task sends on with one commit, where they are sent on at all.
    pub final_rows_per_commit: usize,
    /// How many rows of each final window are ranked, for the keys with the largest counts to be found quickly; 0 ranks none.
    pub ranked_rows: usize,
    /// How often to delete records that nobody needs any more, as Kafka Streams' `repartition.purge.interval.ms`.
    pub purge_interval: Duration,
    /// After how long without a record a source partition counts as idle; none is never.
    pub idle_timeout: Option<Duration>,
    /// Another with every start of the process.
    pub incarnation: u64,
    /// What the group called this instance in its last life, if that is known: it goes on as that member.
    pub member: Option<String>,
    /// How many other instances keep a copy of each store, where there are as many.
    pub num_standbys: u32,
    /// The rack that this instance stands in, if it is known: copies of a store go to different racks where they can.
    pub rack: Option<String>,
    /// Where other instances reach this one, if they can.
    pub endpoint: Option<String>,
    /// Whether to count only what lies on the repartition topics: nothing is read of the source topics, and no position there moves.
    pub drain: bool,
}

impl StreamsConfig {
    /// The defaults for an application: commits after 100 ms, 1 s on a backlog, 64 MiB of uncommitted work, idle after a minute.
    pub fn new(application_id: impl Into<String>) -> Self {
        Self {
            application_id: application_id.into(),
            instance_id: "0".to_owned(),
            commit_interval: Duration::from_millis(100),
            commit_interval_backlog: Duration::from_secs(1),
            uncommitted_bytes: 64 << 20,
            query_bytes: 64 << 20,
            final_rows_per_commit: 20_000,
            ranked_rows: 1_024,
            purge_interval: Duration::from_secs(30),
            idle_timeout: Some(Duration::from_secs(60)),
            incarnation: 0,
            member: None,
            num_standbys: 0,
            rack: None,
            endpoint: None,
            drain: false,
        }
    }

    /// `<application.id>-<store>-repartition`
    pub fn repartition_topic(&self, store: &str) -> Topic {
        format!("{}-{store}-repartition", self.application_id).into()
    }

    /// `<application.id>-<store>-changelog`
    pub fn changelog_topic(&self, store: &str) -> Topic {
        format!("{}-{store}-changelog", self.application_id).into()
    }

    /// `<application.id>-late`
    pub fn late_topic(&self) -> Topic {
        format!("{}-late", self.application_id).into()
    }

    /// `<application.id>-dead-letter`
    pub fn dead_letter_topic(&self) -> Topic {
        format!("{}-dead-letter", self.application_id).into()
    }

    /// `<application.id>-<instance id>-<number>`: 0 is what partitions join with, the threads have the numbers from 1 on.
    pub fn transactional_id(&self, number: usize) -> String {
        transactional_id(&self.application_id, &self.instance_id, number)
    }
}
