//! When a run makes no progress: judged from counters and the time, and from nothing else. Pure.
//!
//! The invariants that live here: only time between two observations without movement counts, so a process that was
//! itself stopped does not accuse its runs; and whatever a run waits for on purpose counts as movement.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::repo::entry::TreePath;

/// Number of observations within the time that a run may be silent, and the bounds of the pause between two of them.
const LOOKS: u32 = 20;
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Maximum silence that one observation adds, in pauses between two observations.
const LOOK_LATE: u32 = 3;

/// Number of packs that may wait for the bandwidth of `limit_upload` before the first of them is through: two of each
/// of eight runs.
const PACKS_WAITING: u64 = 16;

/// The pause between two observations of a run that may be silent for `limit`.
pub fn check_interval(limit: Duration) -> Duration {
    (limit / LOOKS).clamp(LOOK.0, LOOK.1)
}

/// How long a run may be silent: what is configured, and, if uploads are slowed down on purpose, the time that the
/// slowdown takes.
pub fn stall_limit(stall_timeout: Duration, limit_upload: Option<u64>, pack_bytes: usize) -> Duration {
    let sent = |rate: u64| Duration::from_secs(PACKS_WAITING * pack_bytes as u64 / rate.max(1));
    stall_timeout.saturating_add(limit_upload.map(sent).unwrap_or_default())
}

/// What a run was last seen doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunActivity {
    /// Walking below this directory.
    Walking(TreePath),
    /// Reading this file.
    Reading(TreePath),
    /// Waiting for this dump's output.
    Dump(String),
    /// Running this hook.
    Hook(&'static str),
}

impl Display for RunActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Walking(path) => write!(f, "walking {}", path.display()),
            Self::Reading(path) => write!(f, "reading {}", path.display()),
            Self::Dump(name) => write!(f, "waiting for the dump {name:?}"),
            Self::Hook(hook) => write!(f, "running the hook {hook}"),
        }
    }
}

/// A run that made no progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStall {
    /// Length of the silence.
    pub silent: Duration,
    /// What the run was last seen doing; `None`: it only waited for the store.
    pub last: Option<RunActivity>,
    /// How the last request to the store failed, if none has had an answer since.
    pub store_error: Option<String>,
}

impl Display for RunStall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole seconds are enough if there is at least one.
        let silent = self.silent;
        let silent = if silent.as_secs() > 0 { Duration::from_secs(silent.as_secs()) } else { silent };
        write!(f, "made no progress for {}: ", humantime::format_duration(silent))?;
        match &self.last {
            Some(last) => write!(f, "last seen {last}")?,
            None => f.write_str("it waited for the store")?,
        }
        match &self.store_error {
            Some(trouble) => write!(f, "; the last request to the store failed: {trouble}"),
            None => Ok(()),
        }
    }
}

/// Progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StallState {
    /// The run has moved since the last observation.
    Moving,
    /// The run has not moved for this long.
    Silent(Duration),
    /// The run has not moved for longer than it may.
    Stalled(Duration),
}

/// Detects the stall of one run.
#[derive(Debug)]
pub struct StallDetector {
    limit: Duration,
    counted_max: Duration,
    mark: u64,
    looked: Duration,
    silent: Duration,
}

impl StallDetector {
    /// For a run that begins now with its counters at `mark`, and may be silent for `limit`.
    pub fn new(limit: Duration, now: Duration, mark: u64) -> Self {
        Self { limit, counted_max: check_interval(limit) * LOOK_LATE, mark, looked: now, silent: Duration::ZERO }
    }

    /// Observes the run; `mark` differs whenever something has moved.
    pub fn observe(&mut self, now: Duration, mark: u64) -> StallState {
        let passed = now.saturating_sub(self.looked).min(self.counted_max);
        self.looked = now;
        if self.mark != mark {
            (self.mark, self.silent) = (mark, Duration::ZERO);
            return StallState::Moving;
        }
        self.silent += passed;
        if self.silent >= self.limit { StallState::Stalled(self.silent) } else { StallState::Silent(self.silent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(40);

    #[test]
    fn silence_is_counted_from_the_last_move() {
        let at = Duration::from_secs;
        let mut judge = StallDetector::new(LIMIT, at(100), 7);
        for second in 1..40 {
            assert_eq!(judge.observe(at(100 + second), 7), StallState::Silent(at(second)));
        }
        assert_eq!(judge.observe(at(139), 8), StallState::Moving);
        for second in 1..40 {
            assert_eq!(judge.observe(at(139 + second), 8), StallState::Silent(at(second)));
        }
        assert_eq!(judge.observe(at(179), 8), StallState::Stalled(LIMIT));
        assert_eq!(judge.observe(at(180), 9), StallState::Moving, "the judge may let it continue");
    }

    #[test]
    fn a_process_that_was_itself_stopped_reports_no_stall() {
        let at = Duration::from_secs;
        let mut judge = StallDetector::new(LIMIT, at(0), 7);
        // Two seconds lie between two observations, so at most six of an hour count.
        assert_eq!(judge.observe(at(3600), 7), StallState::Silent(at(6)));
        assert_eq!(judge.observe(at(3602), 7), StallState::Silent(at(8)));
        assert_eq!(judge.observe(at(3600), 7), StallState::Silent(at(8)), "a clock that goes back counts for nothing");
    }

    #[test]
    fn looks_are_as_frequent_as_the_limit_needs() {
        let every = [1, 60, 900, 86_400].map(|limit| check_interval(Duration::from_secs(limit)).as_millis());
        assert_eq!(every, [50, 3_000, 5_000, 5_000]);
    }

    #[test]
    fn who_is_slowed_down_on_purpose_has_the_time_that_it_takes() {
        let stall = Duration::from_mins(15);
        assert_eq!(stall_limit(stall, None, 16 << 20), stall);
        assert_eq!(stall_limit(stall, Some(64 << 10), 16 << 20), stall + Duration::from_secs(16 * 256));
        assert_eq!(stall_limit(stall, Some(0), 1), stall + Duration::from_secs(16));
    }

    #[test]
    fn it_says_for_how_long_and_what_was_seen_last() {
        let stall = |last| RunStall { silent: Duration::from_millis(900_400), last, store_error: None }.to_string();
        let path = TreePath::new("srv/app/db").unwrap();
        assert_eq!(stall(Some(RunActivity::Reading(path))), "made no progress for 15m: last seen reading /srv/app/db");
        assert_eq!(
            stall(Some(RunActivity::Dump("app.sql".to_owned()))),
            "made no progress for 15m: last seen waiting for the dump \"app.sql\""
        );
        assert_eq!(stall(None), "made no progress for 15m: it waited for the store");
        let trouble = Some("SlowDown, status 503".to_owned());
        assert_eq!(
            RunStall { silent: Duration::from_mins(15), last: None, store_error: trouble }.to_string(),
            "made no progress for 15m: it waited for the store; the last request to the store failed: SlowDown, \
             status 503"
        );
    }
}
