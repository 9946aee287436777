//! What is asked in vain, again and again: what of it is logged, over all roles of a process, and when a lease that does not answer is kept for
//! people who ask.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::iter;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::Env;
use crate::ids::RoleName;
use crate::journal::register::RegisterError;
use crate::outage::Outage;
use crate::store::{StoreError, StoreErrorKind};

/// So many questions in a row without an answer are no lost answer any more.
const KEPT_FROM: u32 = 3;

/// What keeps this node from its work. All roles meet the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutageCause {
    /// The store does not answer.
    Store,
    /// The store answers, and refuses.
    Refusal,
    /// Etcd does not answer.
    Etcd,
    /// Something of one role alone, in this step.
    Role(RoleName, RoleStep),
    /// A role's runs fail. Each of them is a slot that nobody commits, whatever else is logged at that time.
    Runs(RoleName),
}

/// What a role does on its way to a run. Each ends its own failures only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RoleStep {
    /// Reading its journal.
    Journal,
    /// Asking for its lease.
    Lease,
    /// Taking it over.
    Takeover,
}

impl OutageCause {
    /// The cause of what `role` met in this `step`.
    pub(super) fn of(role: &RoleName, step: RoleStep, error: &(dyn StdError + 'static)) -> Self {
        for error in error_chain(error) {
            if let Some(error) = error.downcast_ref::<StoreError>() {
                match store_answered(error.kind) {
                    Some(false) => return Self::Store,
                    None => return Self::Refusal,
                    // The object's own matter.
                    Some(true) => {}
                }
            }
            if let Some(RegisterError::Unreachable(_)) = error.downcast_ref() {
                return Self::Etcd;
            }
        }
        Self::Role(role.clone(), step)
    }

    /// Said when it is over. Only what was seen.
    fn recovery_text(&self) -> String {
        match self {
            Self::Store | Self::Etcd => format!("{self} answers again"),
            Self::Refusal => format!("{self} does again what it refused"),
            Self::Role(_, RoleStep::Journal) => format!("{self}: its journal is read again"),
            Self::Role(_, RoleStep::Lease) => format!("{self}: its lease is answered again"),
            Self::Role(_, RoleStep::Takeover) => format!("{self}: it is taken over now"),
            Self::Runs(_) => format!("{self}: a run was good again"),
        }
    }
}

/// An error, and what it was made of.
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

/// Whether an error of this kind shows that the store answers. `None`: it does, and not as a store that does what it is for.
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

/// What is logged of all causes together: see [`Outage`].
#[derive(Debug)]
pub(super) struct OutageLog {
    env: Env,
    causes: Mutex<BTreeMap<OutageCause, Outage>>,
}

impl OutageLog {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), causes: Mutex::default() }
    }

    /// One more failure. True: it is to be logged.
    pub(super) fn note_failure(&self, cause: &OutageCause, why: &str) -> bool {
        let now = self.env.clock.boottime();
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_logged = causes.entry(cause.clone()).or_default().note_failure(why, now);
        drop(causes);
        if !is_logged {
            tracing::debug!("again, {cause}: {why}");
        }
        is_logged
    }

    /// One more failure, by this error. Which object a store was asked for says nothing new about the store.
    pub(super) fn note_error(&self, cause: &OutageCause, error: &(dyn StdError + 'static)) -> bool {
        let store = error_chain(error).find_map(|error| error.downcast_ref::<StoreError>());
        let words = store.map(|error| format!("{}: {} ({})", error.store, error.kind, error.detail));
        self.note_failure(cause, &words.unwrap_or_else(|| error.to_string()))
    }

    /// Whether its end is still to be told.
    #[cfg(test)]
    pub(super) fn is_logged(&self, cause: &OutageCause) -> bool {
        self.causes.lock().unwrap().get(cause).is_some_and(Outage::is_told)
    }

    /// It is over.
    pub(super) fn note_answer(&self, cause: &OutageCause) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = causes.get_mut(cause).is_some_and(Outage::note_answer);
        drop(causes);
        if is_over {
            tracing::info!("{}", cause.recovery_text());
        }
    }
}

/// Questions in a row that had no answer.
#[derive(Debug, Default)]
pub(super) struct UnansweredAsks {
    count: u32,
    outage: Outage,
    /// Some were kept.
    is_kept: bool,
    /// An earlier process may have kept some; the first answer takes them back.
    was_answered: bool,
}

impl UnansweredAsks {
    /// One more question without an answer, at `now`. True: it is kept for people who ask how the role stands.
    pub(super) fn note_no_answer(&mut self, why: &str, now: Duration) -> bool {
        self.count = self.count.saturating_add(1);
        let is_news = self.outage.note_failure(why, now);
        let is_kept = self.count >= KEPT_FROM && (is_news || !self.is_kept);
        self.is_kept |= is_kept;
        is_kept
    }

    /// The lease cannot even be asked for, for a reason that is known: kept from the first time on. True: it is kept anew.
    pub(super) fn note_failure(&mut self, why: &str, now: Duration) -> bool {
        self.is_kept = true;
        self.outage.note_failure(why, now)
    }

    /// There was an answer. True: what was kept is over.
    pub(super) fn note_answer(&mut self) -> bool {
        let is_over = self.is_kept || !self.was_answered;
        *self = Self { outage: std::mem::take(&mut self.outage), was_answered: true, ..Self::default() };
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::admission::guard::GuardError;
    use crate::job::backup::BackupError;
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
