//! Between the engine's types and the protocol's messages. What cannot be understood is none.

use std::time::Duration;

use millstream::clock::BootTime;
use millstream::query::{
    Ask, InstanceStatus, KeyCount, Part, PartialCounts, Parts, Period, Question, ReadOptions, Standing, TaskReport,
};
use millstream::record::{Offset, Partition, Timestamp, TopicPartition};
use millstream::runtime::RestoreProgress;
use millstream::task::{Role, TaskId, TaskState};

use super::proto::{self, ask_request, ask_response};

const STATES: [(TaskState, proto::State); 6] = [
    (TaskState::Created, proto::State::Created),
    (TaskState::Restoring, proto::State::Restoring),
    (TaskState::Running, proto::State::Running),
    (TaskState::Suspended, proto::State::Suspended),
    (TaskState::Quarantined, proto::State::Quarantined),
    (TaskState::Closed, proto::State::Closed),
];

pub(super) fn ask_request(application_id: &str, to_instance: &str, ask: &Ask) -> proto::AskRequest {
    let Period { from, to } = ask.question.period();
    let question = match &ask.question {
        Question::Key { key, .. } => ask_request::Question::Key(proto::Key { key: key.clone() }),
        Question::Top { limit, .. } => {
            ask_request::Question::Top(proto::Top { limit: u32::try_from(*limit).unwrap_or(u32::MAX) })
        }
        Question::Totals { .. } => ask_request::Question::Totals(proto::Totals {}),
    };
    proto::AskRequest {
        application_id: application_id.to_owned(),
        to_instance: to_instance.to_owned(),
        partitions: ask.partitions.iter().map(|partition| partition.0).collect(),
        from_ms: from.0,
        to_ms: to.0,
        allow_stale: ask.read.allow_stale,
        max_stale_records: ask.read.max_stale_records,
        question: Some(question),
    }
}

pub(super) fn ask(request: proto::AskRequest) -> Option<Ask> {
    let period = Period { from: Timestamp(request.from_ms), to: Timestamp(request.to_ms) };
    let question = match request.question? {
        ask_request::Question::Key(proto::Key { key }) => Question::Key { key, period },
        ask_request::Question::Top(proto::Top { limit }) => Question::Top { period, limit: limit as usize },
        ask_request::Question::Totals(proto::Totals {}) => Question::Totals { period },
    };
    let read =
        ReadOptions { allow_partial: false, allow_stale: request.allow_stale, max_stale_records: request.max_stale_records };
    Some(Ask { question, partitions: request.partitions.into_iter().map(Partition).collect(), read })
}

pub(super) fn ask_response(parts: Parts) -> proto::AskResponse {
    let counts = match parts.counts {
        PartialCounts::Windows(windows) => {
            let (start_ms, count) = windows.into_iter().map(|(start, count)| (start.0, count)).unzip();
            ask_response::Counts::Windows(proto::Windows { start_ms, count })
        }
        PartialCounts::Keys(keys) => {
            let (key, count) = keys.into_iter().map(|KeyCount { key, count }| (key, count)).unzip();
            ask_response::Counts::Keys(proto::Keys { key, count })
        }
    };
    let parts_ = parts.parts.into_iter().map(part_message).collect();
    proto::AskResponse { generation: parts.generation, parts: parts_, counts: Some(counts) }
}

pub(super) fn parts(response: proto::AskResponse) -> Option<Parts> {
    let counts = match response.counts? {
        ask_response::Counts::Windows(proto::Windows { start_ms, count }) => {
            let is_whole = start_ms.len() == count.len();
            let windows = start_ms.into_iter().map(Timestamp).zip(count).collect();
            PartialCounts::Windows(is_whole.then_some(windows)?)
        }
        ask_response::Counts::Keys(proto::Keys { key, count }) => {
            let is_whole = key.len() == count.len();
            let keys = key.into_iter().zip(count).map(|(key, count)| KeyCount { key, count }).collect();
            PartialCounts::Keys(is_whole.then_some(keys)?)
        }
    };
    let parts = response.parts.iter().map(part).collect::<Option<_>>()?;
    Some(Parts { generation: response.generation, parts, counts })
}

fn part_message(part: Part) -> proto::Part {
    let (standing, lag) = match part.standing {
        Standing::Active => (proto::Standing::Active, None),
        Standing::Stale { lag } => (proto::Standing::Stale, lag),
    };
    proto::Part {
        partition: part.partition.0,
        standing: standing.into(),
        lag,
        position: part.position.map(|position| position.0),
        closed_through_ms: part.closed_through,
    }
}

fn part(message: &proto::Part) -> Option<Part> {
    let standing = match message.standing() {
        proto::Standing::Active => Standing::Active,
        proto::Standing::Stale => Standing::Stale { lag: message.lag },
        proto::Standing::Unspecified => return None,
    };
    let (partition, position) = (Partition(message.partition), message.position.map(Offset));
    Some(Part { partition, standing, position, closed_through: message.closed_through_ms })
}

pub(super) fn status_message(status: InstanceStatus, said_at: BootTime) -> proto::InstanceStatus {
    proto::InstanceStatus {
        instance: status.instance.to_string(),
        incarnation: status.incarnation,
        generation: status.generation,
        version: status.version,
        tasks: status.tasks.into_iter().map(task_message).collect(),
        said_at_ms: said_at.as_millis(),
    }
}

/// A task that cannot be understood, as one of a later version, is left out.
pub(super) fn status(message: proto::InstanceStatus) -> InstanceStatus {
    InstanceStatus {
        instance: message.instance.into(),
        incarnation: message.incarnation,
        generation: message.generation,
        version: message.version,
        tasks: message.tasks.into_iter().filter_map(task).collect(),
    }
}

fn task_message(task: TaskReport) -> proto::TaskReport {
    let role = match task.role {
        Role::Active => proto::Role::Active,
        Role::Standby => proto::Role::Standby,
    };
    let state = STATES.iter().find(|(state, _)| *state == task.state).map_or(proto::State::Unspecified, |(_, state)| *state);
    proto::TaskReport {
        subtopology: task.id.subtopology,
        topic: task.input.topic.to_string(),
        partition: task.input.partition.0,
        role: role.into(),
        state: state.into(),
        position: task.position.map(|position| position.0),
        lag: task.lag,
        closed_through_ms: task.closed_through,
        trouble: task.trouble,
        quarantined_since_ms: task.quarantined_since.map(|since| since.0),
        restore: task.restore.map(|restore| proto::Restore {
            from: restore.from.0,
            position: restore.position.0,
            end: restore.end.0,
            records: restore.records,
            elapsed_ms: restore.elapsed.as_millis() as u64,
        }),
    }
}

fn task(message: proto::TaskReport) -> Option<TaskReport> {
    let role = match message.role() {
        proto::Role::Active => Role::Active,
        proto::Role::Standby => Role::Standby,
        proto::Role::Unspecified => return None,
    };
    let state = STATES.iter().find(|(_, state)| *state == message.state()).map(|(state, _)| *state)?;
    let partition = Partition(message.partition);
    Some(TaskReport {
        id: TaskId { subtopology: message.subtopology, partition },
        input: TopicPartition::new(message.topic, partition),
        role,
        state,
        position: message.position.map(Offset),
        lag: message.lag,
        closed_through: message.closed_through_ms,
        restore: message.restore.map(|restore| RestoreProgress {
            from: Offset(restore.from),
            position: Offset(restore.position),
            end: Offset(restore.end),
            records: restore.records,
            elapsed: Duration::from_millis(restore.elapsed_ms),
        }),
        trouble: message.trouble,
        quarantined_since: message.quarantined_since_ms.map(Timestamp),
    })
}

#[cfg(test)]
mod tests {
    use millstream_kafka::boot_time;

    use super::*;

    #[test]
    fn what_is_sent_is_what_comes() {
        let period = Period { from: Timestamp(-5), to: Timestamp(7) };
        let read = ReadOptions { allow_partial: false, allow_stale: true, max_stale_records: Some(3) };
        for question in
            [Question::Key { key: vec![0, 255], period }, Question::Top { period, limit: 1_000 }, Question::Totals { period }]
        {
            let asked = Ask { question, partitions: vec![Partition(3), Partition(1)], read };
            assert_eq!(ask(ask_request("app", "a", &asked)), Some(asked));
        }
        let part = |standing, position| Part { partition: Partition(2), standing, position, closed_through: 9 };
        let all = vec![
            part(Standing::Active, Some(Offset(4))),
            part(Standing::Stale { lag: Some(1) }, None),
            part(Standing::Stale { lag: None }, None),
        ];
        for counts in [
            PartialCounts::Windows(vec![(Timestamp(1), -2), (Timestamp(2), i64::MAX)]),
            PartialCounts::Keys(vec![KeyCount { key: b"k".to_vec(), count: 3 }]),
        ] {
            let answer = Parts { generation: 7, parts: all.clone(), counts };
            assert_eq!(parts(ask_response(answer.clone())), Some(answer));
        }
        let report = TaskReport {
            id: TaskId { subtopology: 1, partition: Partition(2) },
            input: TopicPartition::new("t", Partition(2)),
            role: Role::Standby,
            state: TaskState::Quarantined,
            position: Some(Offset(1)),
            lag: Some(2),
            closed_through: 3,
            restore: None,
            trouble: Some("x".to_owned()),
            quarantined_since: Some(Timestamp(4)),
        };
        let said = InstanceStatus {
            instance: "a".into(),
            incarnation: u64::MAX,
            generation: -1,
            version: "1".to_owned(),
            tasks: vec![report],
        };
        assert_eq!(status(status_message(said.clone(), boot_time())), said);
    }

    #[test]
    fn what_is_not_whole_is_nothing() {
        let windows = proto::Windows { start_ms: vec![1, 2], count: vec![1] };
        let counts = Some(ask_response::Counts::Windows(windows));
        assert_eq!(parts(proto::AskResponse { generation: 1, parts: Vec::new(), counts }), None);
        let unknown = proto::Part { standing: 9, ..proto::Part::default() };
        let counts = Some(ask_response::Counts::Keys(proto::Keys::default()));
        assert_eq!(parts(proto::AskResponse { generation: 1, parts: vec![unknown], counts }), None);
        assert_eq!(parts(proto::AskResponse::default()), None);
        assert_eq!(ask(proto::AskRequest::default()), None);
    }
}
