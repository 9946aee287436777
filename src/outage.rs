//! Decides which failures of a repeated request are logged while a service does not answer. Pure.
//!
//! The invariant that lives here: one cause writes at most one line a minute, however many callers meet it and however
//! often its text changes; and the end of an outage is logged only if the outage was.

use std::time::Duration;

/// How often the same text is logged.
const SAME_INTERVAL: Duration = Duration::from_mins(10);

/// A different text is logged no more often than this: an error may contain a number that is new each time.
const OTHER_INTERVAL: Duration = Duration::from_mins(1);

/// The failures of one cause.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    /// The text that was logged last, and when.
    logged: Option<(String, Duration)>,
    /// A failure was logged, and there was no answer since.
    is_logged: bool,
}

impl Outage {
    /// Records a failure at `now`. True: it should be logged.
    pub fn note_failure(&mut self, why: &str, now: Duration) -> bool {
        let is_due =
            |(words, at): &(String, Duration)| now >= *at + if words == why { SAME_INTERVAL } else { OTHER_INTERVAL };
        let is_logged = self.logged.as_ref().is_none_or(is_due);
        if is_logged {
            self.is_logged = true;
            self.logged = Some((why.to_owned(), now));
        }
        is_logged
    }

    /// Records an answer. True: an outage that was logged is over.
    pub fn note_answer(&mut self) -> bool {
        std::mem::take(&mut self.is_logged)
    }

    /// Whether a logged outage is not over.
    #[cfg(test)]
    pub fn is_told(&self) -> bool {
        self.is_logged
    }
}

/// The message that nothing came within `patience`, with the failure of the `last` attempt, if known.
pub fn no_answer_text(patience: Duration, last: Option<&str>) -> String {
    let silent = format!("no answer within {}", humantime::format_duration(patience));
    match last {
        Some(last) => format!("{silent}; the last try failed: {last}"),
        None => silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_logged_rarely_and_others_once_a_minute() {
        let mut outage = Outage::default();
        let mut failed = |why: &str, at| outage.note_failure(why, Duration::from_secs(at));
        assert!(failed("denied", 0));
        assert!((1..600).all(|at| !failed("denied", at)));
        assert!(failed("denied", 600), "it goes on");
        let logged = (601..1201).filter(|at| failed(&format!("no answer within {at} ms"), *at)).count();
        assert_eq!(logged, 10);
    }

    #[test]
    fn an_end_is_told_once_and_only_of_what_was_told() {
        let mut outage = Outage::default();
        let at = Duration::from_secs;
        assert!(!outage.note_answer());
        assert!(outage.note_failure("reset", at(2)));
        assert!(!outage.note_failure("reset", at(7)));
        assert!(outage.note_answer());
        assert!(!outage.note_answer());
        // An outage that comes and goes fills the log neither with its failures nor with its ends.
        assert!(!outage.note_failure("reset", at(11)));
        assert!(!outage.note_answer());
    }
}
