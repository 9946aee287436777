//! Repeated requests without an answer: which of the failures are logged, over all roles of a process, and when an
//! unanswered lease is kept as a failure for the role's status.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, iter};

use parking_lot::Mutex;

use crate::env::Env;
use crate::ids::RoleName;
use crate::journal::register::RegisterError;
use crate::outage::Outage;
use crate::store::{StoreError, StoreErrorKind};

/// From this number of consecutive unanswered requests on, a lost answer is no longer the likely cause.
const KEPT_FROM: u32 = 3;

/// A cause that keeps this node from its work. All roles meet the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutageCause {
    /// The store does not answer.
    Store,
    /// The store answers, but refuses.
    Refusal,
    /// Etcd does not answer.
    Etcd,
    /// Failure of one role alone, in this step.
    Role(RoleName, RoleStep),
    /// A role's runs fail. Each failure is a slot that may be missed, so it is logged independently of other causes.
    Runs(RoleName),
}

/// A step of a role on its way to a run. Success in a step ends only that step's failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RoleStep {
    /// Reading its journal.
    Journal,
    /// Requesting its lease.
    Lease,
    /// Taking the role over.
    Takeover,
}

impl OutageCause {
    /// The cause of an error that `role` met in this `step`.
    pub(super) fn of(role: &RoleName, step: RoleStep, error: &(dyn StdError + 'static)) -> Self {
        for error in error_chain(error) {
            if let Some(error) = error.downcast_ref::<StoreError>() {
                match store_answered(error.kind) {
                    Some(false) => return Self::Store,
                    None => return Self::Refusal,
                    // The error concerns one object, not the store.
                    Some(true) => {}
                }
            }
            if let Some(RegisterError::Unreachable(_)) = error.downcast_ref() {
                return Self::Etcd;
            }
        }
        Self::Role(role.clone(), step)
    }

    /// Logged at the end of the outage. It states only what was seen.
    fn recovery_text(&self) -> String {
        match self {
            Self::Store | Self::Etcd => format!("{self} answers again"),
            Self::Refusal => format!("{self} accepts again what it refused"),
            Self::Role(_, RoleStep::Journal) => format!("{self}: its journal can be read again"),
            Self::Role(_, RoleStep::Lease) => format!("{self}: its lease service answers again"),
            Self::Role(_, RoleStep::Takeover) => format!("{self}: the takeover succeeded"),
            Self::Runs(_) => format!("{self}: a run succeeded again"),
        }
    }
}

/// An error and its chain of sources.
fn error_chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

impl fmt::Display for OutageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store | Self::Refusal => f.write_str("the store"),
            Self::Etcd => f.write_str("etcd"),
            Self::Role(role, _) | Self::Runs(role) => write!(f, "role {role}"),
        }
    }
}

/// Whether an error of this kind shows that the store answers. `None`: the store answers, but refuses.
pub(super) fn store_answered(kind: StoreErrorKind) -> Option<bool> {
    let is_away = matches!(
        kind,
        StoreErrorKind::Unreachable
            | StoreErrorKind::NoCredentials
            | StoreErrorKind::NoSuchStore
            | StoreErrorKind::DiskFault
            | StoreErrorKind::Other
    );
    (!kind.is_refusal()).then_some(!is_away)
}

/// Decides what is logged of all causes together: see [`Outage`].
#[derive(Debug)]
pub(super) struct OutageLog {
    env: Env,
    causes: Mutex<BTreeMap<OutageCause, Outage>>,
}

impl OutageLog {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), causes: Mutex::default() }
    }

    /// Notes a failure. Returns whether it is to be logged.
    pub(super) fn note_failure(&self, cause: &OutageCause, why: &str) -> bool {
        let now = self.env.clock.boottime();
        let mut causes = self.causes.lock();
        let is_logged = causes.entry(cause.clone()).or_default().note_failure(why, now);
        drop(causes);
        if !is_logged {
            tracing::debug!("again, {cause}: {why}");
        }
        is_logged
    }

    /// Notes a failure with this error. A different object in the request is no news about the store.
    pub(super) fn note_error(&self, cause: &OutageCause, error: &(dyn StdError + 'static)) -> bool {
        let store = error_chain(error).find_map(|error| error.downcast_ref::<StoreError>());
        let words = store.map(|error| format!("{}: {} ({})", error.store, error.kind, error.detail));
        self.note_failure(cause, &words.unwrap_or_else(|| error.to_string()))
    }

    /// Whether the end of the outage is still to be logged.
    #[cfg(test)]
    pub(super) fn is_logged(&self, cause: &OutageCause) -> bool {
        self.causes.lock().get(cause).is_some_and(Outage::is_told)
    }

    /// Notes that the outage is over.
    pub(super) fn note_answer(&self, cause: &OutageCause) {
        let mut causes = self.causes.lock();
        let is_over = causes.get_mut(cause).is_some_and(Outage::note_answer);
        drop(causes);
        if is_over {
            tracing::info!("{}", cause.recovery_text());
        }
    }
}

/// Consecutive lease requests without an answer.
#[derive(Debug, Default)]
pub(super) struct UnansweredAsks {
    count: u32,
    outage: Outage,
    /// A failure was kept for the role's status.
    is_kept: bool,
    /// Whether this process has had an answer. An earlier process may have kept a failure, which the first answer
    /// clears.
    was_answered: bool,
}

impl UnansweredAsks {
    /// Notes a lease request without an answer, at `now`. Returns whether it is to be kept as a failure for the role's
    /// status.
    pub(super) fn note_no_answer(&mut self, why: &str, now: Duration) -> bool {
        self.count = self.count.saturating_add(1);
        let is_news = self.outage.note_failure(why, now);
        let is_kept = self.count >= KEPT_FROM && (is_news || !self.is_kept);
        self.is_kept |= is_kept;
        is_kept
    }

    /// Notes that the lease cannot be requested, for a known reason. This is kept from the first time on. Returns
    /// whether it is to be kept again.
    pub(super) fn note_failure(&mut self, why: &str, now: Duration) -> bool {
        self.is_kept = true;
        self.outage.note_failure(why, now)
    }

    /// Notes an answer. Returns whether the kept failure is over.
    pub(super) fn note_answer(&mut self) -> bool {
        let is_over = self.is_kept || !self.was_answered;
        *self = Self { outage: std::mem::take(&mut self.outage), was_answered: true, ..Self::default() };
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::error::{BackupError, GuardError};
    use crate::journal::error::JournalError;

    #[test]
    fn what_keeps_from_asking_is_kept_at_once_and_anew_rarely() {
        let mut doubts = UnansweredAsks::default();
        doubts.note_answer();
        assert!(doubts.note_failure("denied", Duration::ZERO));
        for at in 1..600 {
            assert!(!doubts.note_failure("denied", Duration::from_secs(at)), "{at} s");
        }
        assert!(doubts.note_failure("denied", Duration::from_mins(10)));
        assert!(doubts.note_answer(), "it is over");
    }

    #[test]
    fn a_lost_answer_is_not_kept() {
        let mut doubts = UnansweredAsks::default();
        let add = |doubts: &mut UnansweredAsks, why, at| doubts.note_no_answer(why, Duration::from_secs(at));
        assert!(!add(&mut doubts, "reset", 0));
        assert!(doubts.note_answer(), "an earlier process may have kept some");
        assert!(!add(&mut doubts, "reset", 5));
        assert!(!add(&mut doubts, "reset", 10));
        assert!(add(&mut doubts, "reset", 15), "three in a row");
        assert!(!add(&mut doubts, "reset", 20), "once");
        assert!(!add(&mut doubts, "read-only", 40));
        assert!(add(&mut doubts, "read-only", 60), "other words");
        assert!(!add(&mut doubts, "read-only", 659));
        assert!(add(&mut doubts, "read-only", 660), "it goes on");
        assert!(doubts.note_answer());
        assert!(!doubts.note_answer(), "nothing was kept since");
    }

    #[test]
    fn what_all_roles_meet_is_one_cause() {
        let error = |kind| StoreError::new(kind, "s3://b/", Some("app/journal/1"), "");
        let role = |name: &str| name.parse::<RoleName>().unwrap();
        for name in ["app", "web"] {
            let cause = |kind| OutageCause::of(&role(name), RoleStep::Journal, &JournalError::from(error(kind)));
            assert_eq!(cause(StoreErrorKind::Unreachable), OutageCause::Store);
            assert_eq!(cause(StoreErrorKind::Denied), OutageCause::Refusal);
            assert_eq!(cause(StoreErrorKind::TooLarge), OutageCause::Role(role(name), RoleStep::Journal));
            let etcd = GuardError::from(BackupError::from(JournalError::from(RegisterError::Unreachable("x".into()))));
            assert_eq!(OutageCause::of(&role(name), RoleStep::Lease, &etcd), OutageCause::Etcd);
        }
        let outages = OutageLog::new(&Env::host());
        assert!(outages.note_failure(&OutageCause::Store, "app"));
        assert!(!outages.note_failure(&OutageCause::Store, "web"), "within the same minute");
        assert!(outages.note_failure(&OutageCause::Etcd, "web"), "another cause");
    }
}
