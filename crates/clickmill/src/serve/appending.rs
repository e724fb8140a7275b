//! What becomes of the clicks of one request, each of which is a unit of its own.

use millstream::broker::{BrokerError, ErrorKind};

use crate::http::{AppendError, Appended};

/// What became of the click of that number within its request.
pub(super) type Answered = (usize, Result<(), BrokerError>);

/// What becomes of the clicks of one request.
pub(super) struct Appending {
    outcomes: Vec<Outcome>,
    trouble: Option<BrokerError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unanswered,
    Durable,
    /// It is certain that it was not written.
    Refused,
    Unknown,
}

impl Appending {
    /// Nothing is known of any of so many clicks.
    pub(super) fn new(clicks: usize) -> Self {
        Self { outcomes: vec![Outcome::Unanswered; clicks], trouble: None }
    }

    pub(super) fn note(&mut self, (number, outcome): Answered) {
        self.outcomes[number] = match &outcome {
            Ok(()) => Outcome::Durable,
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        // The worst is told: what may have been written, then what a person has to look at.
        if let Err(error) = outcome
            && self.trouble.as_ref().is_none_or(|before| severity(before) < severity(&error))
        {
            self.trouble = Some(error);
        }
    }

    /// Those that nothing was heard of may be written yet: whoever waits is told before the deadline.
    pub(super) fn give_up(&mut self, reason: &BrokerError) {
        let unanswered: Vec<_> = self
            .outcomes
            .iter()
            .enumerate()
            .filter(|(_, outcome)| **outcome == Outcome::Unanswered)
            .map(|(number, _)| number)
            .collect();
        for number in unanswered {
            self.note((number, Err(reason.clone())));
        }
    }

    /// Whether it certainly was written.
    pub(super) fn is_durable(&self, number: usize) -> bool {
        self.outcomes[number] == Outcome::Durable
    }

    /// What goes wrong, if anything did; `cause` is what is known to be behind it.
    pub(super) fn finish(self, cause: Option<&str>) -> Result<Appended, AppendError> {
        let Some(trouble) = self.trouble else { return Ok(Appended::Now) };
        let reason = match cause {
            // What a person has to look at says itself what it is.
            Some(cause) if trouble.kind() != ErrorKind::Stop => format!("{trouble} ({cause})"),
            _ => trouble.to_string(),
        };
        let has = |outcome| self.outcomes.contains(&outcome);
        if has(Outcome::Durable) || has(Outcome::Unknown) {
            let durable = self.outcomes.iter().map(|outcome| *outcome == Outcome::Durable).collect();
            return Err(AppendError::Partly { durable, reason });
        }
        Err(match trouble.kind() {
            ErrorKind::Stop => AppendError::Failed(reason),
            _ => AppendError::Unavailable(reason),
        })
    }
}

fn severity(error: &BrokerError) -> u8 {
    match error.kind() {
        ErrorKind::OutcomeUnknown => 2,
        ErrorKind::Stop => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(outcomes: &[Result<(), ErrorKind>]) -> Result<Appended, AppendError> {
        let mut appending = Appending::new(outcomes.len());
        for (number, outcome) in outcomes.iter().enumerate() {
            appending.note((number, outcome.map_err(|kind| BrokerError::new(kind, format!("{kind:?}")))));
        }
        appending.finish(None)
    }

    #[test]
    fn a_request_that_is_durable_in_part_says_which_part() {
        assert_eq!(finished(&[Ok(()), Ok(())]).unwrap(), Appended::Now);
        let Err(AppendError::Partly { durable, reason }) =
            finished(&[Ok(()), Err(ErrorKind::Retry), Err(ErrorKind::OutcomeUnknown)])
        else {
            panic!("part of it is durable");
        };
        assert_eq!((durable, &*reason), (vec![true, false, false], "OutcomeUnknown"));
    }

    #[test]
    fn what_was_certainly_not_written_is_no_unknown() {
        assert!(matches!(finished(&[Err(ErrorKind::Retry)]), Err(AppendError::Unavailable(_))));
        assert!(matches!(finished(&[Err(ErrorKind::Retry), Err(ErrorKind::Stop)]), Err(AppendError::Failed(_))));
        assert!(matches!(finished(&[Err(ErrorKind::OutcomeUnknown)]), Err(AppendError::Partly { .. })));
    }

    #[test]
    fn what_nothing_was_heard_of_is_unknown_and_the_cause_is_told() {
        let mut appending = Appending::new(3);
        appending.note((1, Ok(())));
        appending.give_up(&BrokerError::new(ErrorKind::OutcomeUnknown, "no answer in time"));
        assert!(appending.is_durable(1) && !appending.is_durable(2));
        let Err(AppendError::Partly { durable, reason }) = appending.finish(Some("NOT_ENOUGH_REPLICAS")) else {
            panic!("part of it is durable");
        };
        assert_eq!((durable, &*reason), (vec![false, true, false], "no answer in time (NOT_ENOUGH_REPLICAS)"));
    }
}
