//! The acts of operators on a role: `pause`, `resume`, `takeover`, `journal amend`. They are recorded in the journal
//! with the node's name, so that every node can see what was done where. They need no permit, because a person is
//! responsible for them.

pub mod adopt;

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::{LeaseKind, RoleSettings};
use crate::env::Env;
use crate::ids::{InstanceId, RoleName, Seq, Term};
use crate::job::local_state::LocalState;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::open::Repository;
use crate::journal::append::UnfencedAction;
use crate::journal::body::{PauseBody, TakeoverBody, TakeoverReason, WriterNode};
use crate::journal::error::{AppendError, HeadConflict, JournalError};
use crate::journal::future_dates::{FutureDates, WrongClock, future_dates};
use crate::journal::reader::Journal;
use crate::journal::state::{JournalPause, RoleHolder};
use crate::journal::view::JournalView;
use crate::outage::no_answer_text;
use crate::role::clock_tolerance;
use crate::role::election::{self, Eligibility};
use crate::role::probe::ProbeAssessment;

/// Number of attempts of an act when other records are appended meanwhile.
pub(super) const ATTEMPTS: u32 = 16;

/// Longest wait of an act for the store. A working store needs seconds, and an append with an unknown result is
/// resolved within a minute; a directory on a hanging server never answers.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Runs `act` and waits for it no longer than `patience`. `trouble` returns the error of the store's last request.
///
/// # Errors
/// The errors of the act, and a timeout.
pub async fn with_timeout<T, E: From<OperateError>>(
    env: &Env,
    patience: Duration,
    trouble: impl FnOnce() -> Option<String>,
    act: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match env.timeout(patience, act).await {
        Some(done) => done,
        None => Err(OperateError::StoreTimeout { why: no_answer_text(patience, trouble().as_deref()) }.into()),
    }
}

/// The context of an operator's act.
#[derive(Debug, Clone)]
pub struct OperatorContext<'a> {
    /// The node on which the command runs.
    pub node: WriterNode,
    /// ID of this process.
    pub instance: InstanceId,
    /// Clock and randomness.
    pub env: &'a Env,
    /// This node's state directory: a store that was rolled back accepts no acts.
    pub state_dir: Option<&'a Path>,
    /// Access to the journals' heads.
    pub journal_access: JournalAccess,
}

/// Why an operator's act was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// This node would get the role although it may not work for it.
    #[error(
        "this node {} for role {role}{}: it would have the role and not back it up, and the work of the active node \
         could no longer commit",
        if *unknown { "cannot tell whether it is to be active" } else { "is not to be active" },
        if evidence.is_empty() { String::new() } else { format!(" ({evidence})") }
    )]
    NotEligible {
        /// Name of the role.
        role: RoleName,
        /// Whether the probes have no answer; otherwise they say no, or the config does not list the node.
        unknown: bool,
        /// The answers of the probes.
        evidence: String,
    },
    /// The store did not answer in time.
    #[error("it is unknown whether it was recorded: the store: {why}")]
    StoreTimeout {
        /// The time limit, and the error of the last attempt.
        why: String,
    },
    /// The journal cannot be read or written, or another node took the role at the same moment.
    #[error("{0}")]
    Append(#[from] AppendError),
}

/// Result of an operator's act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperateReport {
    /// Name of the role.
    pub role: RoleName,
    /// What the act did.
    pub change: RoleChange,
}

/// What an act did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleChange {
    /// The role is paused.
    Paused(JournalPause),
    /// A pause was ended.
    Resumed(JournalPause),
    /// There was no pause. The act is recorded nevertheless: a pause with an unknown result may still be in flight, and
    /// then finds its number taken.
    NotPaused,
    /// This node holds the role now.
    TookOver {
        /// The new term.
        term: Term,
        /// The holder before.
        from: Option<RoleHolder>,
        /// The kind of lease that also separates the nodes; this node does not hold it yet.
        lease: LeaseKind,
    },
    /// This node held the role already; nothing was written.
    AlreadyHolder {
        /// The present term.
        term: Term,
    },
    /// The store's last record is the journal's head again.
    Adopted {
        /// What was wrong with the head.
        was: HeadConflict,
        /// The number of the new head.
        seq: Seq,
        /// The new term of this node.
        term: Term,
    },
    /// The head in etcd is sound; nothing was written.
    HeadSound,
    /// The journal's head is in the store, so there is no head to adopt.
    JournalInBucket,
    /// Dates in the future were amended to the present. The slots stay committed.
    Amended(FutureDates),
    /// There were no future dates; nothing was written.
    NoFutureDates,
    /// Probably this node's clock is wrong; nothing was written.
    OwnClockSuspect(FutureDates),
    /// This node's clock differs too much from the store's; nothing was written.
    ClockOff {
        /// The store's clock minus its own.
        offset: SignedDuration,
    },
}

impl OperatorContext<'_> {
    /// The journal, and this node's saved view of it.
    pub(crate) fn journal(&self, repository: &Repository) -> Result<(Journal, Option<JournalView>), JournalError> {
        let local = self.state_dir.map(|dir| LocalState::peek(self.env, dir, repository.keys.repo()));
        let known = local.as_ref().and_then(LocalState::last_view);
        Ok((self.journal_access.journal(repository, self.env, &self.node, self.instance)?, known))
    }

    async fn open(&self, repository: &Repository) -> Result<(Journal, JournalView), AppendError> {
        let (journal, known) = self.journal(repository)?;
        let view = journal.read(known.as_ref()).await?;
        Ok((journal, view))
    }

    /// Pauses the role on all nodes, until `until` or a resume.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub async fn pause(
        &self,
        repository: &Repository,
        until: Option<Timestamp>,
        why: Option<String>,
    ) -> Result<OperateReport, AppendError> {
        // Every node would end the pause by this node's wrong clock.
        if until.is_some()
            && let Some(off) = clock_off(repository).await
        {
            return Ok(off);
        }
        let view = self.note(repository, UnfencedAction::Pause(PauseBody { until, why }), |_| true).await?;
        let paused = view.state.paused.expect("the newest record is a pause");
        Ok(OperateReport { role: view.role, change: RoleChange::Paused(paused) })
    }

    /// Ends a pause, even one whose append is still in flight. The end is dated by the store's time if it is known, so
    /// the role runs again whatever this node's clock says.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub async fn resume(&self, repository: &Repository) -> Result<OperateReport, AppendError> {
        repository.store.measure_clock_offset().await;
        let mut before = None;
        let view = self
            .note(repository, UnfencedAction::Resume, |view| {
                before.clone_from(&view.state.paused);
                view.head.is_some()
            })
            .await?;
        Ok(OperateReport { role: view.role, change: before.map_or(RoleChange::NotPaused, RoleChange::Resumed) })
    }

    /// Declares that all dates in the future were written by a wrong clock. Without `force` this is refused if probably
    /// this node's clock is wrong.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub async fn amend(&self, repository: &Repository, force: bool) -> Result<OperateReport, AppendError> {
        // The act would amend correct dates to this node's wrong time.
        if let Some(off) = clock_off(repository).await {
            return Ok(off);
        }
        let store = repository.store.as_ref();
        let look = |view: &JournalView| future_dates(view, self.node.id, self.env.clock.now(), store.clock_offset());
        let (journal, view) = self.open(repository).await?;
        // An audit reads older records, which are neither in this node's saved view nor in the newest checkpoint.
        let known = if look(&view).is_none() { Some(journal.with_all_dates(view).await?) } else { None };
        let mut found = None;
        self.note(repository, UnfencedAction::Amend, |view| {
            found = look(view).or_else(|| look(known.as_ref()?));
            found.as_ref().is_some_and(|found| force || !is_reader_clock_suspect(found))
        })
        .await?;
        let change = match found {
            None => RoleChange::NoFutureDates,
            Some(found) if is_reader_clock_suspect(&found) && !force => RoleChange::OwnClockSuspect(found),
            Some(found) => RoleChange::Amended(found),
        };
        Ok(OperateReport { role: repository.role().clone(), change })
    }

    /// Appends `act` if `makes_sense` returns true. Returns the view after it, or the view for which `makes_sense`
    /// returned false.
    async fn note(
        &self,
        repository: &Repository,
        act: UnfencedAction,
        mut makes_sense: impl FnMut(&JournalView) -> bool,
    ) -> Result<JournalView, AppendError> {
        let (journal, mut view) = self.open(repository).await?;
        for _ in 0..ATTEMPTS {
            if !makes_sense(&view) {
                return Ok(view);
            }
            match journal.append_unfenced(&view, act.clone()).await {
                Err(AppendError::Moved(now)) => view = *now,
                result => return result,
            }
        }
        Err(AppendError::Moved(Box::new(view)))
    }

    /// Gives the role to this node. Without `force` only if config and probes say that this node may work for it.
    ///
    /// # Errors
    /// This node may not work for the role; the journal cannot be read or written; another node took the role at the
    /// same moment.
    pub async fn take_over(
        &self,
        repository: &Repository,
        role: &RoleSettings,
        assessment: Option<&ProbeAssessment>,
        force: bool,
    ) -> Result<OperateReport, OperateError> {
        let forced = require_eligible(role, &self.node.name, assessment, force)?;
        let body = TakeoverBody { forced, ..TakeoverBody::new(TakeoverReason::Operator) };
        let (journal, mut view) = self.open(repository).await?;
        for _ in 0..ATTEMPTS {
            let from = view.state.holder.clone();
            if let Some(holder) = from.as_ref().filter(|holder| holder.node.id == self.node.id) {
                return Ok(OperateReport {
                    role: role.name.clone(),
                    change: RoleChange::AlreadyHolder { term: holder.term },
                });
            }
            match journal.take_over_as(&view, &election::operator_candidacy(role), body.clone()).await {
                Ok((permit, _)) => {
                    let change = RoleChange::TookOver { term: permit.term(), from, lease: role.lease };
                    return Ok(OperateReport { role: role.name.clone(), change });
                }
                Err(AppendError::Moved(now)) => view = *now,
                Err(error) => return Err(error.into()),
            }
        }
        Err(AppendError::Moved(Box::new(view)).into())
    }
}

/// Whether a takeover by this node is forced, because config and probes do not say that it may work for the role.
///
/// # Errors
/// A takeover would have to be forced, and `force` is not set.
pub(crate) fn require_eligible(
    role: &RoleSettings,
    node: &str,
    assessment: Option<&ProbeAssessment>,
    force: bool,
) -> Result<bool, OperateError> {
    let unfit = match election::eligibility(role, node, assessment) {
        Eligibility::Yes => None,
        Eligibility::No(_) | Eligibility::Fallback => Some(false),
        Eligibility::Unknown(_) => Some(true),
    };
    match unfit {
        Some(unknown) if !force => {
            Err(OperateError::NotEligible { role: role.name.clone(), unknown, evidence: evidence_text(assessment) })
        }
        unfit => Ok(unfit.is_some()),
    }
}

/// Whether probably this node's clock is wrong.
fn is_reader_clock_suspect(found: &FutureDates) -> bool {
    matches!(found.clock, WrongClock::Reader | WrongClock::LikelyReader)
}

/// The result of an act that depends on this node's clock, if the clock differs too much from the store's.
async fn clock_off(repository: &Repository) -> Option<OperateReport> {
    repository.store.measure_clock_offset().await;
    let offset = repository.store.clock_offset().filter(|offset| clock_tolerance::is_clock_off(*offset))?;
    Some(OperateReport { role: repository.role().clone(), change: RoleChange::ClockOff { offset } })
}

/// The answers of the probes with their details.
fn evidence_text(assessment: Option<&ProbeAssessment>) -> String {
    let evidence = assessment.map(|assessment| assessment.results.as_slice()).unwrap_or_default();
    evidence.iter().map(|e| format!("{}: {}", e.subject, e.detail)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock_doubt::{ClockDoubt, ClockDoubts};
    use crate::config::Probe;
    use crate::env::Clock;
    use crate::job::backup::request::BackupOptions;
    use crate::job::repository::init::init;
    use crate::job::testing::JobFixture;
    use crate::role::probe::ProbeAnswer;
    use crate::store::dir::DirStore;
    use crate::store::{SizeLimit, Store};

    #[tokio::test]
    async fn acts_are_recorded_once_and_change_no_term() {
        let rig = JobFixture::new().await;
        let (first, second) = (rig.operator(1, "node1"), rig.operator(2, "node2"));
        let take_over = async |by: &OperatorContext<'_>| {
            by.take_over(&rig.repository, &rig.role, None, false).await.unwrap().change
        };
        let acted = first.take_over(&rig.repository, &rig.role, None, false).await.unwrap();
        assert!(matches!(acted.change, RoleChange::TookOver { term: Term(1), from: None, .. }));
        assert_eq!(take_over(&first).await, RoleChange::AlreadyHolder { term: Term(1) });
        assert_eq!(second.resume(&rig.repository).await.unwrap().change, RoleChange::NotPaused);
        let RoleChange::Paused(paused) =
            second.pause(&rig.repository, None, Some("disk swap".to_owned())).await.unwrap().change
        else {
            panic!("not paused")
        };
        assert_eq!((paused.node.name.as_str(), paused.why.as_deref()), ("node2", Some("disk swap")));
        let (_, view) = first.open(&rig.repository).await.unwrap();
        assert_eq!(
            (view.term(), view.head.as_ref().unwrap().seq.0),
            (Term(1), 3),
            "and the resume, for a pause that is on its way"
        );
        assert_eq!(first.resume(&rig.repository).await.unwrap().change, RoleChange::Resumed(paused));
        assert_eq!(first.amend(&rig.repository, false).await.unwrap().change, RoleChange::NoFutureDates);
        let RoleChange::TookOver { term, from, .. } = take_over(&second).await else { panic!("not taken over") };
        assert_eq!((term, from.unwrap().node.name.as_str()), (Term(2), "node1"));
    }

    #[tokio::test]
    async fn what_a_wrong_clock_dated_is_amended_by_a_node_that_knows_the_time() {
        let rig = JobFixture::new().await;
        rig.write("a", "1");
        let year = SignedDuration::from_hours(365 * 24);
        let now = rig.env.clock.now();
        // Dated by the store's clock, which is wrong here.
        rig.memory.set_clock_offset(year);
        let ask = BackupOptions { slot: Some(now + year), ..BackupOptions::default() };
        let wrong = rig.backup_as(&rig.node_context(), &ask).await.snapshot;
        assert!(wrong.time.duration_since(now) > year / 2);
        let operator = rig.operator(1, "node1");
        let RoleChange::ClockOff { offset } = operator.amend(&rig.repository, true).await.unwrap().change else {
            panic!("amended")
        };
        assert!(offset > year / 2, "a node with a wrong clock does not define the present");
        rig.memory.set_clock_offset(SignedDuration::ZERO);
        let RoleChange::Amended(found) = operator.amend(&rig.repository, false).await.unwrap().change else {
            panic!("not amended")
        };
        assert_eq!(
            (found.count, found.latest >= now + year, found.clock),
            (2, true, WrongClock::Writer),
            "and the takeover"
        );
        let view = rig.archive().await.view;
        let snapshot = view.state.snapshots.last().unwrap();
        assert!(
            (snapshot.id, snapshot.slot) == (wrong.id, None) && !clock_tolerance::is_in_future(snapshot.time, now),
            "{snapshot:?}"
        );
        assert_eq!(view.state.last_slot, None);
        assert!(view.commits().contains(now + year), "what is committed stays so");
        assert_eq!(operator.amend(&rig.repository, false).await.unwrap().change, RoleChange::NoFutureDates);
    }

    #[tokio::test]
    async fn an_act_on_a_store_that_hangs_ends_and_says_that_it_may_be_recorded() {
        let env = Env::host();
        let short = Duration::from_millis(20);
        let hangs = std::future::pending::<Result<(), OperateError>>();
        let trouble = || Some("SlowDown, status 503".to_owned());
        let error = with_timeout(&env, short, trouble, hangs).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is unknown whether it was recorded: the store: no answer within 20ms; the last try failed: SlowDown, \
             status 503"
        );
        assert!(with_timeout(&env, PATIENCE, || None, async { Ok::<_, OperateError>(()) }).await.is_ok());
    }

    /// A clock five hours ahead of the host's.
    #[derive(Debug)]
    struct Ahead;

    impl Clock for Ahead {
        fn now(&self) -> Timestamp {
            Env::host().clock.now() + SignedDuration::from_hours(5)
        }

        fn boottime(&self) -> Duration {
            Env::host().clock.boottime()
        }
    }

    #[tokio::test]
    async fn each_act_in_a_directory_warns_of_a_clock_that_is_ahead_without_a_time_request() {
        let (rig, dir) = (JobFixture::new().await, tempfile::tempdir().unwrap());
        let store: Arc<dyn Store> = Arc::new(DirStore::open(dir.path(), &rig.env).unwrap());
        init(store, &rig.role.name, &rig.role.key, &JournalAccess::default(), &rig.env).await.unwrap();
        for act in [UnfencedAction::Pause(PauseBody { until: None, why: None }), UnfencedAction::Resume] {
            let env = Env { clock: Arc::new(Ahead), clock_doubts: ClockDoubts::default(), ..rig.env.clone() };
            let store: Arc<dyn Store> = Arc::new(DirStore::open(dir.path(), &env).unwrap());
            let repository = Repository::open(store, &rig.role.name, &rig.role.key).await.unwrap();
            let by = OperatorContext { env: &env, ..rig.operator(1, "node1") };
            match act {
                UnfencedAction::Resume => by.resume(&repository).await.unwrap(),
                _ => by.pause(&repository, None, None).await.unwrap(),
            };
            let doubt = env.clock_doubts.of(&rig.role.name);
            let Some(ClockDoubt::Store { offset }) = doubt else { panic!("{act:?}: {doubt:?}") };
            assert!((offset + SignedDuration::from_hours(5)).abs() < SignedDuration::from_mins(1), "{offset}");
        }
    }

    #[tokio::test]
    async fn a_takeover_by_a_clock_that_is_ahead_is_warned_of_told_and_amended() {
        let rig = JobFixture::new().await;
        let hours = SignedDuration::from_hours(5);
        let env = Env { clock_doubts: ClockDoubts::default(), ..rig.env.clone() };
        let (first, second) = (rig.operator(1, "node1"), OperatorContext { env: &env, ..rig.operator(2, "node2") });
        // Dated by the store's clock, which is wrong here.
        rig.memory.set_clock_offset(hours);
        second.take_over(&rig.repository, &rig.role, None, false).await.unwrap();
        assert_eq!(env.clock_doubts.of(&rig.role.name), Some(ClockDoubt::Store { offset: hours }));
        rig.memory.set_clock_offset(SignedDuration::ZERO);
        first.take_over(&rig.repository, &rig.role, None, false).await.unwrap();
        assert_eq!(rig.env.clock_doubts.any(), None, "this one's is right");
        let future = |view: &JournalView| future_dates(view, first.node.id, rig.env.clock.now(), None);
        let (_, view) = first.open(&rig.repository).await.unwrap();
        let found = future(&view).unwrap();
        assert_eq!((found.count, found.node.unwrap().id), (1, second.node.id), "the node that has the role by now");
        for _ in 0..8 {
            first.resume(&rig.repository).await.unwrap();
        }
        // This operator has no saved view, and begins at a checkpoint without these dates, as an audit may not.
        let (_, view) = first.open(&rig.repository).await.unwrap();
        assert_eq!(future(&view), None);
        let RoleChange::Amended(found) = first.amend(&rig.repository, false).await.unwrap().change else {
            panic!("not amended")
        };
        assert_eq!((found.count, found.clock), (1, WrongClock::Writer));
        assert_eq!(first.amend(&rig.repository, false).await.unwrap().change, RoleChange::NoFutureDates);
    }

    #[tokio::test]
    async fn a_date_of_origin_beyond_the_present_is_amended() {
        let mut rig = JobFixture::new().await;
        let now = rig.env.clock.now();
        rig.made_at(now + SignedDuration::from_hours(365 * 24));
        let operator = rig.operator(1, "node1");
        let RoleChange::Amended(found) = operator.amend(&rig.repository, false).await.unwrap().change else {
            panic!("not amended")
        };
        assert_eq!((found.count, found.node), (1, None));
        let made = rig.archive().await.view.commits().created();
        assert!(made.is_some_and(|made| !clock_tolerance::is_in_future(made, now)), "{made:?}");
    }

    #[tokio::test]
    async fn a_pause_ends_by_the_clock_of_the_store() {
        let rig = JobFixture::new().await;
        let operator = rig.operator(1, "node1");
        operator.pause(&rig.repository, None, None).await.unwrap();
        let years = SignedDuration::from_hours(700 * 24);
        rig.memory.set_clock_offset(-years);
        operator.resume(&rig.repository).await.unwrap();
        let past = rig.archive().await.view.past_pause.unwrap();
        assert!(past.until.unwrap() < rig.env.clock.now() - years / 2, "{past:?}");
    }

    #[tokio::test]
    async fn a_node_that_would_not_work_takes_the_role_by_force_alone() {
        let mut rig = JobFixture::new().await;
        rig.role.eligible = Some(Probe::Mounted { path: "/srv".into() });
        let by = rig.operator(1, "node1");
        let said = |answer| ProbeAssessment { answer, fallback: None, results: Vec::new() };
        for (answer, is_unknown) in [(ProbeAnswer::No, false), (ProbeAnswer::Unknown, true)] {
            let refused = by.take_over(&rig.repository, &rig.role, Some(&said(answer)), false).await;
            let Err(OperateError::NotEligible { unknown, .. }) = refused else { panic!("{refused:?}") };
            assert_eq!(unknown, is_unknown);
        }
        assert_eq!(by.open(&rig.repository).await.unwrap().1.head, None, "nothing is written");
        let standing_in = ProbeAssessment { fallback: Some(ProbeAnswer::Yes), ..said(ProbeAnswer::No) };
        assert!(by.take_over(&rig.repository, &rig.role, Some(&standing_in), false).await.is_err());
        let forced = by.take_over(&rig.repository, &rig.role, Some(&said(ProbeAnswer::No)), true).await.unwrap();
        assert!(matches!(forced.change, RoleChange::TookOver { term: Term(1), from: None, .. }));
        let bytes =
            rig.store.get(&crate::repo::object_keys::record(&rig.role.name, Seq(1)), SizeLimit::INDEX).await.unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains(r#""body":{"forced":true,"why":"operator"}"#));
        let by = rig.operator(2, "node2");
        by.take_over(&rig.repository, &rig.role, Some(&said(ProbeAnswer::Yes)), true).await.unwrap();
        let bytes =
            rig.store.get(&crate::repo::object_keys::record(&rig.role.name, Seq(2)), SizeLimit::INDEX).await.unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains(r#""body":{"why":"operator"}"#), "no force was needed");
    }
}
