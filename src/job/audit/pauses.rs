//! When a role was paused, as the journal tells. Pure.

use jiff::Timestamp;

use crate::journal::state::Paused;

/// One pause. The end is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    /// `None`: it goes on.
    until: Option<Timestamp>,
    /// On which node it was said.
    pub(crate) by: String,
    /// Why.
    pub(crate) why: Option<String>,
}

/// All pauses, oldest first, none over another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pauses(Vec<Span>);

impl Pauses {
    /// A pause begins, in place of one that still goes on.
    pub(crate) fn begin(&mut self, paused: &Paused) {
        self.end(paused.time);
        let (by, why) = (paused.node.name.clone(), paused.why.clone());
        self.0.push(Span { from: paused.time, until: paused.until, by, why });
    }

    /// An operator ended it.
    pub(crate) fn end(&mut self, at: Timestamp) {
        if let Some(last) = self.0.last_mut()
            && last.until.is_none_or(|until| until > at)
        {
            last.until = Some(at);
        }
    }

    /// The one that no person has ended.
    pub(crate) fn open(&self) -> Option<&Span> {
        self.0.last().filter(|span| span.until.is_none())
    }

    /// The first of the pauses that together leave no moment from `from` to `to` free.
    pub(crate) fn cover(&self, from: Timestamp, to: Timestamp) -> Option<&Span> {
        let (mut covered, mut first) = (from, None);
        for span in &self.0 {
            if span.from <= covered && span.until.is_none_or(|until| until > covered) {
                first = first.or(Some(span));
                match span.until {
                    Some(until) if until <= to => covered = until,
                    _ => return first,
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
    use crate::journal::record::NodeRef;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn paused(minute: i64, until: Option<i64>, why: &str) -> Paused {
        let node = NodeRef { id: NodeId([1; 16]), name: "east".to_owned() };
        Paused { node, time: at(minute), until: until.map(at), why: Some(why.to_owned()) }
    }

    #[test]
    fn a_pause_covers_what_lies_wholly_in_it() {
        let mut pauses = Pauses::default();
        pauses.begin(&paused(10, Some(100), "swap"));
        let covers = |pauses: &Pauses, from, to| pauses.cover(at(from), at(to)).and_then(|span| span.why.clone());
        assert_eq!(covers(&pauses, 10, 99).as_deref(), Some("swap"));
        assert_eq!((covers(&pauses, 9, 50), covers(&pauses, 50, 100), covers(&pauses, 200, 201)), (None, None, None));
        // It is said again, with another end and reason; then somebody resumes.
        pauses.begin(&paused(40, None, "still"));
        assert_eq!(covers(&pauses, 20, 500).as_deref(), Some("swap"), "together they leave nothing free");
        pauses.end(at(60));
        pauses.end(at(70));
        assert_eq!((covers(&pauses, 20, 59).as_deref(), covers(&pauses, 20, 60)), (Some("swap"), None));
        pauses.begin(&paused(61, None, "again"));
        assert_eq!(covers(&pauses, 20, 70), None, "between them there was a minute");
        assert_eq!(covers(&pauses, 61, 70).as_deref(), Some("again"));
    }
}
