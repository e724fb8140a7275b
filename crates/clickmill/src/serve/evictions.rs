//! Instances whose process has ended or stands still, as the links to them show: the group need not wait for their sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::runtime::Registry;
use millstream_kafka::boot_time;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::peers::{LinkChange, LinkEvent, SILENT_AFTER, STATUS_INTERVAL, Words};

/// How often is looked who is silent.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Reports the instances that are silent, for ever. A process that has just stood still itself has to listen first.
pub(super) async fn report_the_silent(words: Words, registry: Registry) {
    let mut looked_at = boot_time();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let has_listened = boot_time().since(looked_at) < STATUS_INTERVAL + LOOK_INTERVAL;
        looked_at = boot_time();
        if has_listened {
            registry.report_silent(words.silent(SILENT_AFTER));
        }
    }
}

/// Reports the instances that have died, for as long as there are links. A process has ended where a connection to it broke and nobody listens at its
/// address any more. A connection that breaks alone shows nothing, nor does an address where nobody was heard before.
pub(super) async fn report_the_dead(mut events: Receiver<LinkEvent>, registry: Registry) {
    let mut broken = Broken::default();
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some((instance, incarnation)) = broken.note(event) {
                    registry.report_dead(instance, incarnation);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Connections that broke, each with the process that was at their other end.
#[derive(Default)]
struct Broken(BTreeMap<(Arc<str>, Arc<str>), u64>);

impl Broken {
    /// The life of an instance that has ended, where this shows it.
    fn note(&mut self, event: LinkEvent) -> Option<(Arc<str>, u64)> {
        let LinkEvent { instance, endpoint, incarnation, change, .. } = event;
        let link = (instance.clone(), endpoint);
        match (change, incarnation) {
            (LinkChange::Closed | LinkChange::Reset, Some(incarnation)) => {
                self.0.insert(link, incarnation);
                None
            }
            (LinkChange::Refused, _) => Some((instance, self.0.remove(&link)?)),
            _ => {
                self.0.remove(&link);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn event(incarnation: Option<u64>, change: LinkChange) -> LinkEvent {
        LinkEvent { instance: "i1".into(), endpoint: "127.0.0.1:1".into(), incarnation, at: Instant::now(), change }
    }

    #[test]
    fn a_process_is_dead_where_its_connection_broke_and_nobody_listens_any_more() {
        let mut broken = Broken::default();
        assert_eq!(broken.note(event(None, LinkChange::Refused)), None, "nobody was there yet");
        assert_eq!(broken.note(event(Some(7), LinkChange::Heard)), None);
        assert_eq!(broken.note(event(Some(7), LinkChange::Refused)), None, "no connection broke");
        assert_eq!(broken.note(event(Some(7), LinkChange::Reset)), None);
        assert_eq!(broken.note(event(Some(7), LinkChange::Unreachable("no route".to_owned()))), None, "it may be the network");
        assert_eq!(broken.note(event(Some(7), LinkChange::Refused)), None);
        assert_eq!(broken.note(event(Some(7), LinkChange::Closed)), None);
        assert_eq!(broken.note(event(Some(7), LinkChange::Refused)), Some(("i1".into(), 7)));
        assert_eq!(broken.note(event(Some(7), LinkChange::Refused)), None, "once");
    }
}
