//! The pauses of a role according to its journal. Pure.

use jiff::Timestamp;

use crate::journal::state::JournalPause;
use crate::role::clock_tolerance;

/// One pause. The end instant is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PauseInterval {
    pub(crate) from: Timestamp,
    /// `None`: the pause has no end yet.
    until: Option<Timestamp>,
    /// A record ended the pause, instead of its stated end.
    ended: bool,
    /// The node on which the operator paused the role.
    pub(crate) by: String,
    /// The operator's reason.
    pub(crate) why: Option<String>,
}

/// All pauses, oldest first, without overlap.
#[derive(Debug, Clone, Default)]
pub(crate) struct PauseHistory(Vec<PauseInterval>);

impl PauseHistory {
    /// Begins a pause, which replaces one that has not ended.
    pub(crate) fn begin(&mut self, paused: &JournalPause) {
        self.end(paused.time);
        let (by, why) = (paused.node.name.clone(), paused.why.clone());
        self.0.push(PauseInterval { from: paused.time, until: paused.until, ended: false, by, why });
    }

    /// Adds a past pause that a record ended, at its `until` at the latest.
    pub(crate) fn past(&mut self, paused: &JournalPause) {
        self.begin(paused);
        if let Some(last) = self.0.last_mut() {
            last.ended = true;
        }
    }

    /// Ends the last pause at `at`, if it has not ended.
    pub(crate) fn end(&mut self, at: Timestamp) {
        if let Some(last) = self.0.last_mut()
            && last.until.is_none_or(|until| until > at)
        {
            (last.until, last.ended) = (Some(at), true);
        }
    }

    /// The last pause, if it has no end.
    pub(crate) fn open(&self) -> Option<&PauseInterval> {
        self.0.last().filter(|span| span.until.is_none())
    }

    /// The first of the pauses that together cover `from` to `to` without a gap, and the end of the last of them. A
    /// pause whose recorded end is in the future is over already, and its real end is unknown: it covers nothing.
    pub(crate) fn covering(
        &self,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
    ) -> Option<(&PauseInterval, Timestamp)> {
        let (mut covered, mut first) = (from, None);
        let is_sound = |span: &&PauseInterval| {
            !(span.ended && span.until.is_some_and(|until| clock_tolerance::is_in_future(until, now)))
        };
        for span in self.0.iter().filter(is_sound) {
            if span.from <= covered && span.until.is_none_or(|until| until > covered) {
                first = first.or(Some(span));
                match span.until {
                    Some(until) if until <= to => covered = until,
                    until => return first.map(|span| (span, until.unwrap_or(Timestamp::MAX))),
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::journal::body::WriterNode;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn paused(minute: i64, until: Option<i64>, why: &str) -> JournalPause {
        let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
        JournalPause { node, time: at(minute), until: until.map(at), why: Some(why.to_owned()) }
    }

    #[test]
    fn a_pause_covers_what_lies_wholly_in_it() {
        let mut pauses = PauseHistory::default();
        pauses.begin(&paused(10, Some(100), "swap"));
        let covers = |pauses: &PauseHistory, from, to| {
            pauses.covering(at(from), at(to), at(1000)).and_then(|(span, _)| span.why.clone())
        };
        assert_eq!(covers(&pauses, 10, 99).as_deref(), Some("swap"));
        assert_eq!((covers(&pauses, 9, 50), covers(&pauses, 50, 100), covers(&pauses, 200, 201)), (None, None, None));
        // The pause is repeated with another end and reason; then an operator resumes the role.
        pauses.begin(&paused(40, None, "still"));
        assert_eq!(covers(&pauses, 20, 500).as_deref(), Some("swap"), "together they leave nothing free");
        pauses.end(at(60));
        pauses.end(at(70));
        assert_eq!((covers(&pauses, 20, 59).as_deref(), covers(&pauses, 20, 60)), (Some("swap"), None));
        pauses.begin(&paused(61, None, "again"));
        assert_eq!(covers(&pauses, 20, 70), None, "between them there was a minute");
        assert_eq!(covers(&pauses, 61, 70).as_deref(), Some("again"));
        let end = |from, to| pauses.covering(at(from), at(to), at(1000)).map(|(_, end)| end);
        assert_eq!((end(20, 59), end(61, 70)), (Some(at(60)), Some(Timestamp::MAX)));
    }

    #[test]
    fn a_recorded_end_beyond_the_present_covers_nothing() {
        let mut pauses = PauseHistory::default();
        pauses.begin(&paused(10, None, "swap"));
        assert!(pauses.covering(at(20), at(30), at(100)).is_some());
        pauses.end(at(9_000));
        assert_eq!(pauses.covering(at(20), at(30), at(100)), None, "it is over, and its start is unknown");
        assert!(pauses.covering(at(20), at(30), at(9_000)).is_some());
        let mut stated = PauseHistory::default();
        stated.begin(&paused(10, Some(9_000), "swap"));
        assert!(stated.covering(at(20), at(30), at(100)).is_some(), "an end that is meant may lie ahead");
        let mut past = PauseHistory::default();
        past.past(&paused(10, Some(9_000), "swap"));
        assert_eq!(past.covering(at(20), at(30), at(100)), None);
    }
}
