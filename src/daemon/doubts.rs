//! A lease that is asked for in vain, again and again: when that is logged, and when it is told to people. Pure.

use std::time::Duration;

/// So many questions in a row without an answer are no lost answer any more.
const KEPT_FROM: u32 = 3;

/// How often the same words are logged.
const LOG_INTERVAL: Duration = Duration::from_mins(10);

/// Other words are logged no more often than this: an error may have a number in it that is new each time.
const NEWS_INTERVAL: Duration = Duration::from_mins(1);

/// Questions in a row that had no answer.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    count: u32,
    /// The words that were logged last, and when.
    logged: Option<(String, Duration)>,
    /// Some were kept.
    is_kept: bool,
    /// An earlier process may have kept some; the first answer takes them back.
    was_answered: bool,
}

/// What is done about one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) is_logged: bool,
    /// It is kept for people who ask how the role stands.
    pub(super) is_kept: bool,
}

impl Doubts {
    /// One more question without an answer, at `now`.
    pub(super) fn add(&mut self, why: &str, now: Duration) -> Doubt {
        self.count = self.count.saturating_add(1);
        let is_logged = self.log(why, now);
        let is_kept = self.count >= KEPT_FROM && (is_logged || !self.is_kept);
        self.is_kept |= is_kept;
        Doubt { is_logged, is_kept }
    }

    /// The lease cannot even be asked for, for a reason that is known: kept from the first time on. True: it is logged, and kept anew.
    pub(super) fn fail(&mut self, why: &str, now: Duration) -> bool {
        self.is_kept = true;
        self.log(why, now)
    }

    fn log(&mut self, why: &str, now: Duration) -> bool {
        let is_due =
            |(words, at): &(String, Duration)| now >= *at + if words == why { LOG_INTERVAL } else { NEWS_INTERVAL };
        let is_logged = self.logged.as_ref().is_none_or(is_due);
        if is_logged {
            self.logged = Some((why.to_owned(), now));
        }
        is_logged
    }

    /// There was an answer. True: what was kept is over.
    pub(super) fn end(&mut self) -> bool {
        let is_over = self.is_kept || !self.was_answered;
        *self = Self { logged: self.logged.take(), was_answered: true, ..Self::default() };
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_from_asking_is_kept_at_once_and_logged_rarely() {
        let mut doubts = Doubts::default();
        doubts.end();
        assert!(doubts.fail("denied", Duration::ZERO));
        for at in 1..600 {
            assert!(!doubts.fail("denied", Duration::from_secs(at)), "{at} s");
        }
        assert!(doubts.fail("denied", Duration::from_mins(10)));
        assert!(doubts.end(), "it is over");
    }

    #[test]
    fn a_lost_answer_is_not_kept_and_the_same_words_are_logged_rarely() {
        let mut doubts = Doubts::default();
        let add = |doubts: &mut Doubts, why, at| {
            let seen = doubts.add(why, Duration::from_secs(at));
            (seen.is_logged, seen.is_kept)
        };
        assert_eq!(add(&mut doubts, "reset", 0), (true, false));
        assert!(doubts.end(), "an earlier process may have kept some");
        assert_eq!(add(&mut doubts, "reset", 5), (false, false));
        assert_eq!(add(&mut doubts, "reset", 10), (false, false));
        assert_eq!(add(&mut doubts, "reset", 15), (false, true), "three in a row");
        assert_eq!(add(&mut doubts, "reset", 20), (false, false), "once");
        assert_eq!(add(&mut doubts, "read-only", 40), (false, false), "words that change do not fill the log");
        assert_eq!(add(&mut doubts, "read-only", 60), (true, true));
        assert_eq!(add(&mut doubts, "read-only", 659), (false, false));
        assert_eq!(add(&mut doubts, "read-only", 660), (true, true), "it goes on");
        assert!(doubts.end());
        assert!(!doubts.end(), "nothing was kept since");
    }
}
