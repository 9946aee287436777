//! The election decides which node is active, from evidence that the callers gathered. Pure, no clock, no I/O.
//!
//! The invariant that lives here: only this code makes a [`Candidacy`], and only for a clear yes. A probe that cannot
//! tell, a journal that cannot be read and a lease that is not held all lead to `unknown` or less, never to active.
//!
//! Where only the journal excludes others (`lease = "none"`), two nodes may both be eligible. The newest takeover wins.
//! The node that lost goes on only for a reason that cannot repeat by itself; otherwise both nodes would take the role
//! from each other for ever. Without such a reason the state is [`ElectionState::Conflict`].
//!
//! Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::candidacy::{Candidacy, Deadline};
pub use super::clock_tolerance::{CLOCK_OFFSET_MAX, is_clock_off};
use super::lease::LeaseHolder;
use super::probe::{ProbeAnswer, ProbeAssessment, ProbeResult};
use super::slot::SlotSchedule;
use super::slot_commits::SlotCommits;
use crate::config::{LeaseKind, LeaseUnreachablePolicy, RoleSettings};
use crate::ids::{NodeId, Term};

/// All inputs of a decision.
#[derive(Debug, Clone, Copy)]
pub struct ElectionInputs<'a> {
    /// The role's settings.
    pub role: &'a RoleSettings,
    /// This node.
    pub node: NodeId,
    /// This node's label, as `nodes` lists it.
    pub label: &'a str,
    /// This node's wall clock.
    pub now: Timestamp,
    /// The store's clock minus this node's; `None` if the store has not told its time.
    pub clock_offset: Option<SignedDuration>,
    /// The answer of the probes; `None` if they were not evaluated.
    pub assessment: Option<&'a ProbeAssessment>,
    /// The lease service's answer.
    pub lease: LeaseView<'a>,
    /// The journal's content; `None` if it cannot be read.
    pub history: Option<&'a ElectionHistory>,
    /// The role's schedule, if it has one.
    pub plan: Option<&'a SlotSchedule>,
    /// The reason for taking the role again after another node took it.
    pub retake_reason: RetakeReason,
}

/// What is known about the role's lease.
#[derive(Debug, Clone, Copy)]
pub enum LeaseView<'a> {
    /// The lease has not been asked for yet.
    Unasked,
    /// This process holds the lease until this deadline.
    Held(&'a Deadline),
    /// Another process holds the lease.
    Taken(Option<&'a LeaseHolder>),
    /// The lease service cannot be reached.
    Unreachable,
}

/// What the journal says about the holders of the role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ElectionHistory {
    /// The newest takeover; `None` in an empty journal.
    pub holder: Option<TakeoverInfo>,
    /// The term of this node's own newest takeover.
    pub own_term: Option<Term>,
    /// The slots that are committed.
    pub commits: SlotCommits,
    /// The pause that is in force.
    pub paused: Option<RolePause>,
    /// This node exists twice: another machine has its ID.
    pub cloned: bool,
}

/// One takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverInfo {
    /// The node that took the role.
    pub node: NodeId,
    /// That node's label at that time.
    pub label: String,
    /// The term that began.
    pub term: Term,
    /// When the takeover happened, by that node's clock.
    pub since: Timestamp,
    /// When a person gave the role to this node, if the node has had it since then, in any term.
    pub handed_over: Option<Timestamp>,
    /// The takeover was a fallback: no eligible node did what was due.
    pub stood_in: bool,
}

/// A pause: a person told all nodes not to run the role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolePause {
    /// The label of the node on which the role was paused.
    pub by: String,
    /// When it was paused, by that node's clock.
    pub since: Timestamp,
    /// The end of the pause; `None` if it lasts until `resume`.
    pub until: Option<Timestamp>,
    /// The reason, in that person's words.
    pub why: Option<String>,
}

/// A reason for which a node that lost the role may take it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetakeReason {
    /// No reason: a command that only reads, or a long-running node that just goes on.
    None,
    /// A person started the run, and answers for it.
    ByHand,
    /// This node's own eligibility was lost and came back.
    Returned,
    /// The holder lets slots pass and shows no sign of life.
    HolderSilent,
    /// A run for this slot. The reason counts while the slot is not committed, so once for each slot.
    DueSlot(Timestamp),
}

/// The result of a decision, with the evidence.
#[derive(Debug, Clone)]
pub struct ElectionOutcome {
    /// This node's state for the role.
    pub state: ElectionState,
    /// The results of the probes.
    pub results: Vec<ProbeResult>,
}

/// A node's state for a role.
#[derive(Debug, Clone)]
pub enum ElectionState {
    /// The node may take the role over, or go on with it.
    Active {
        /// The proof that the election agreed.
        candidacy: Candidacy,
        /// What the claim builds on.
        claim: ClaimBasis,
    },
    /// Only the lease is missing, and it has not been asked for: the node may ask.
    Candidate,
    /// The node should not work for the role.
    Standby(StandbyReason),
    /// The node cannot tell.
    Unknown(UnknownReason),
    /// The node is eligible, and so was another node that took the role from it.
    Conflict {
        /// The other node's takeover.
        holder: TakeoverInfo,
    },
    /// A person paused the role.
    Paused(RolePause),
    /// This node exists twice, and nothing tells which of the two has the role.
    Cloned,
}

/// What an active node's claim builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimBasis {
    /// No node had the role before.
    First,
    /// This node has the role.
    Mine {
        /// Its term.
        term: Term,
    },
    /// Another node had the role, and this one never did.
    Moved {
        /// The other node's takeover.
        from: TakeoverInfo,
    },
    /// This node had the role, then another node did; now this node takes it again.
    Again {
        /// The other node's takeover.
        from: TakeoverInfo,
    },
}

/// Why a node stands by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandbyReason {
    /// `nodes` does not list it.
    NotListed,
    /// The probes say no.
    NotEligible,
    /// The node is not eligible, but may work as a fallback after eligible nodes had their time.
    Fallback {
        /// The end of the eligible nodes' time; `None` if nothing is due.
        from: Option<Timestamp>,
    },
    /// Another process holds the lease; `None` if its record cannot be read.
    LeaseTaken(Option<LeaseHolder>),
    /// An operator gave the role to another node, and that node still has time to show itself.
    HandedOver {
        /// That node's takeover.
        to: TakeoverInfo,
        /// The end of that time.
        until: Timestamp,
    },
}

impl StandbyReason {
    /// Whether another node than `node` has the role: the lease may be held by another process of the same node.
    pub fn is_elsewhere(&self, node: NodeId) -> bool {
        match self {
            Self::LeaseTaken(by) => by.as_ref().is_some_and(|by| by.node != node),
            Self::NotListed | Self::NotEligible | Self::Fallback { .. } | Self::HandedOver { .. } => true,
        }
    }
}

/// Why a node cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownReason {
    /// The probes cannot tell.
    Probes,
    /// The journal cannot be read, and it decides which node won.
    Journal,
    /// The lease service cannot be reached.
    Lease(LeaseKind),
    /// This node's clock is too far from the store's, so the node cannot tell which slot is due.
    Clock {
        /// The store's clock minus this node's.
        offset: SignedDuration,
    },
}

/// Whether a node may work for a role, as far as settings and probes tell without lease and journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eligibility {
    /// The node may have the role; lease and journal decide.
    Yes,
    /// The node may work as a fallback, if the journal says that no eligible node did.
    Fallback,
    /// The node should not work for the role.
    No(StandbyReason),
    /// The node cannot tell.
    Unknown(UnknownReason),
}

/// What settings and probes alone say. It is enough to end a standby's run without the store, and never enough to
/// change the repository.
pub fn eligibility(role: &RoleSettings, label: &str, assessment: Option<&ProbeAssessment>) -> Eligibility {
    if role.nodes.as_ref().is_some_and(|nodes| !nodes.iter().any(|node| node == label)) {
        return Eligibility::No(StandbyReason::NotListed);
    }
    if role.eligible.is_some() {
        match assessment.map_or(ProbeAnswer::Unknown, |a| a.answer) {
            ProbeAnswer::Yes => {}
            // As in `any`: a clear yes outvotes what cannot be told.
            _ if assessment.is_some_and(|a| a.fallback == Some(ProbeAnswer::Yes)) => return Eligibility::Fallback,
            ProbeAnswer::No => return Eligibility::No(StandbyReason::NotEligible),
            ProbeAnswer::Unknown => return Eligibility::Unknown(UnknownReason::Probes),
        }
    }
    Eligibility::Yes
}

/// Makes the decision.
pub fn decide(inputs: ElectionInputs<'_>) -> ElectionOutcome {
    let evidence = inputs.assessment.map(|a| a.results.clone()).unwrap_or_default();
    ElectionOutcome { state: elect(inputs), results: evidence }
}

fn elect(inputs: ElectionInputs<'_>) -> ElectionState {
    let role = inputs.role;
    // Settings and probes come before the journal: a standby knows that it is one even while the store cannot be
    // reached.
    let stands_in = match eligibility(role, inputs.label, inputs.assessment) {
        Eligibility::Yes => false,
        Eligibility::Fallback => true,
        Eligibility::No(reason) => return ElectionState::Standby(reason),
        Eligibility::Unknown(reason) => return ElectionState::Unknown(reason),
    };
    // Probes and leases may say yes to both clones, and a permit fences neither.
    if inputs.history.is_some_and(|history| history.cloned) {
        return ElectionState::Cloned;
    }
    // A person's decision comes before all evidence of machines.
    if let Some(pause) = inputs.history.and_then(|history| history.paused.as_ref())
        && pause.until.is_none_or(|until| inputs.now < until)
    {
        return ElectionState::Paused(pause.clone());
    }
    // Slots are instants, so they need a correct clock. A run by hand does not.
    if let Some(offset) = inputs.clock_offset.filter(|offset| is_clock_off(*offset))
        && role.schedule.is_some()
        && inputs.retake_reason != RetakeReason::ByHand
    {
        return ElectionState::Unknown(UnknownReason::Clock { offset });
    }
    let Some(history) = inputs.history else { return ElectionState::Unknown(UnknownReason::Journal) };
    if stands_in {
        let from = stands_in_from(inputs, history);
        if from.is_none_or(|from| inputs.now < from) {
            return ElectionState::Standby(StandbyReason::Fallback { from });
        }
    }
    let deadline = match lease_deadline(inputs, history) {
        Ok(deadline) => deadline,
        Err(state) => return *state,
    };
    let exclusive = role.lease != LeaseKind::None;
    let claim = match (&history.holder, history.own_term) {
        (None, _) => ClaimBasis::First,
        (Some(holder), _) if holder.node == inputs.node => ClaimBasis::Mine { term: holder.term },
        (Some(holder), None) => ClaimBasis::Moved { from: holder.clone() },
        // A fallback works for one slot only; then the node that it replaced takes the role again. So neither repeats
        // for ever.
        (Some(holder), Some(_))
            if exclusive || stands_in || holder.stood_in || retake_reason_counts(inputs, history) =>
        {
            ClaimBasis::Again { from: holder.clone() }
        }
        (Some(holder), Some(_)) => return ElectionState::Conflict { holder: holder.clone() },
    };
    let candidacy = Candidacy::new(role.name.clone(), deadline);
    ElectionState::Active { candidacy: if stands_in { candidacy.standing_in() } else { candidacy }, claim }
}

/// When the oldest uncommitted slot has waited long enough for an eligible node.
fn stands_in_from(inputs: ElectionInputs<'_>, history: &ElectionHistory) -> Option<Timestamp> {
    let fallback = inputs.role.fallback.as_ref()?;
    let waiting = inputs.plan?.first_waiting(&history.commits, inputs.now)?;
    Some(waiting.starts.saturating_add(fallback.after).unwrap_or(Timestamp::MAX))
}

/// What the lease allows: the deadline for work, or the state that forbids it.
fn lease_deadline(inputs: ElectionInputs<'_>, history: &ElectionHistory) -> Result<Deadline, Box<ElectionState>> {
    let role = inputs.role;
    if role.lease == LeaseKind::None {
        return Ok(Deadline::endless());
    }
    let mine = history.holder.as_ref().is_some_and(|holder| holder.node == inputs.node);
    // Otherwise the lease's holder would take the role straight back from the node that an operator gave it to.
    if let Some(holder) = history.holder.as_ref().filter(|_| !mine)
        && let Some(since) = holder.handed_over
    {
        let until = since.saturating_add(role.takeover_after).unwrap_or(Timestamp::MAX);
        // A handover dated by a clock that is ahead would reserve the role for as long as that clock is ahead.
        let is_ahead = is_clock_off(inputs.now.duration_since(since)) && inputs.now < since;
        if inputs.now < until && !is_ahead {
            return Err(Box::new(ElectionState::Standby(StandbyReason::HandedOver { to: holder.clone(), until })));
        }
    }
    match inputs.lease {
        LeaseView::Held(deadline) => Ok(deadline.clone()),
        LeaseView::Unasked => Err(Box::new(ElectionState::Candidate)),
        LeaseView::Taken(by) => Err(Box::new(ElectionState::Standby(StandbyReason::LeaseTaken(by.cloned())))),
        // The journal still fences, and the operator chose to rely on it.
        LeaseView::Unreachable if mine && role.on_lease_unreachable == LeaseUnreachablePolicy::HolderContinues => {
            Ok(Deadline::endless())
        }
        LeaseView::Unreachable => Err(Box::new(ElectionState::Unknown(UnknownReason::Lease(role.lease)))),
    }
}

/// The candidacy for an operator's `takeover`: a person answers for it, whatever probes and leases say.
pub fn operator_candidacy(role: &RoleSettings) -> Candidacy {
    Candidacy::new(role.name.clone(), Deadline::endless())
}

fn retake_reason_counts(inputs: ElectionInputs<'_>, history: &ElectionHistory) -> bool {
    match inputs.retake_reason {
        RetakeReason::None => false,
        RetakeReason::ByHand | RetakeReason::Returned | RetakeReason::HolderSilent => true,
        RetakeReason::DueSlot(at) => !history.commits.is_closed(at, inputs.now),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock_reading::ClockReading;
    use crate::config::{FallbackSettings, KeySource, Probe, Schedule};
    use crate::ids::InstanceId;
    use crate::role::candidacy::LeaseGrant;
    use crate::role::probe::{ProbeDetail, ProbeSubject};

    const ME: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);

    fn role(eligible: bool) -> RoleSettings {
        let probe = Probe::Vip { address: "192.0.2.1".parse().unwrap(), interface: None };
        RoleSettings {
            eligible: eligible.then_some(probe),
            ..RoleSettings::new("app".parse().unwrap(), KeySource::None, vec!["/srv".into()])
        }
    }

    fn assessment(answer: ProbeAnswer) -> ProbeAssessment {
        let evidence = ProbeResult {
            subject: ProbeSubject::Vip("192.0.2.1".parse().unwrap()),
            answer,
            detail: ProbeDetail::Absent,
            latency: Duration::ZERO,
            answered_at: Duration::ZERO,
            fallback: false,
        };
        ProbeAssessment { answer, fallback: None, results: vec![evidence] }
    }

    fn holding(node: NodeId, term: u64) -> TakeoverInfo {
        TakeoverInfo {
            node,
            label: "x".into(),
            term: Term(term),
            since: Timestamp::UNIX_EPOCH,
            handed_over: None,
            stood_in: false,
        }
    }

    fn history(holder: Option<TakeoverInfo>, own_term: Option<u64>) -> ElectionHistory {
        let commits = SlotCommits::new([at("2026-11-20T01:00:00Z")], None);
        ElectionHistory { holder, own_term: own_term.map(Term), commits, paused: None, cloned: false }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn another_process_of_the_node_is_not_elsewhere() {
        let by = |node| LeaseHolder { node, label: "x".into(), instance: InstanceId([1; 8]) };
        let taken = |by| StandbyReason::LeaseTaken(by).is_elsewhere(ME);
        assert_eq!([taken(None), taken(Some(by(ME))), taken(Some(by(OTHER)))], [false, false, true]);
        assert!(StandbyReason::NotListed.is_elsewhere(ME));
    }

    /// The state as one word and its reason.
    fn says(
        role: &RoleSettings,
        answer: Option<ProbeAnswer>,
        history: Option<&ElectionHistory>,
        retake_reason: RetakeReason,
    ) -> String {
        with_lease(role, answer, LeaseView::Unasked, history, retake_reason)
    }

    fn with_lease(
        role: &RoleSettings,
        answer: Option<ProbeAnswer>,
        lease: LeaseView<'_>,
        history: Option<&ElectionHistory>,
        retake_reason: RetakeReason,
    ) -> String {
        let assessment = answer.map(assessment);
        let (assessment, now): (Option<&ProbeAssessment>, _) = (assessment.as_ref(), at(AT));
        let clock_offset = Some(SignedDuration::from_secs(-2));
        let (label, plan) = ("east", None);
        let inputs = ElectionInputs {
            role,
            node: ME,
            label,
            now,
            clock_offset,
            assessment,
            lease,
            history,
            plan,
            retake_reason,
        };
        let verdict = decide(inputs);
        assert_eq!(verdict.results.len(), usize::from(answer.is_some()), "evidence is shown whatever is decided");
        match (eligibility(role, "east", assessment), &verdict.state) {
            (
                Eligibility::Yes,
                ElectionState::Active { .. }
                | ElectionState::Conflict { .. }
                | ElectionState::Candidate
                | ElectionState::Paused(_)
                | ElectionState::Cloned
                | ElectionState::Standby(StandbyReason::LeaseTaken(_) | StandbyReason::HandedOver { .. })
                | ElectionState::Unknown(UnknownReason::Journal | UnknownReason::Lease(_) | UnknownReason::Clock { .. }),
            ) => {}
            (Eligibility::No(early), ElectionState::Standby(late)) => assert_eq!(early, *late),
            (Eligibility::Unknown(early), ElectionState::Unknown(late)) => assert_eq!(early, *late),
            apart => panic!("the journal never changes a no or an unknown: {apart:?}"),
        }
        match verdict.state {
            ElectionState::Active { candidacy, claim } => {
                assert_eq!(candidacy.role(), &role.name);
                match claim {
                    ClaimBasis::First => "active first".into(),
                    ClaimBasis::Mine { term } => format!("active mine {term}"),
                    ClaimBasis::Moved { from } => format!("active moved {}", from.term),
                    ClaimBasis::Again { from } => format!("active again {}", from.term),
                }
            }
            ElectionState::Standby(StandbyReason::LeaseTaken(by)) => {
                format!("standby, {} has the lease", by.map_or("an unknown node".to_owned(), |by| by.label))
            }
            ElectionState::Standby(StandbyReason::HandedOver { to, .. }) => {
                format!("standby, handed over to {}", to.term)
            }
            ElectionState::Standby(reason) => format!("standby {reason:?}"),
            ElectionState::Unknown(reason) => format!("unknown {reason:?}"),
            ElectionState::Conflict { holder } => format!("conflict {}", holder.term),
            ElectionState::Candidate => "candidate".into(),
            ElectionState::Paused(pause) => format!("paused by {}", pause.by),
            ElectionState::Cloned => "cloned".into(),
        }
    }

    const AT: &str = "2026-11-21T01:00:00Z";

    #[test]
    fn the_probes_answer_carries_over() {
        let empty = ElectionHistory::default();
        let with = |answer| says(&role(true), answer, Some(&empty), RetakeReason::ByHand);
        assert_eq!(with(Some(ProbeAnswer::Yes)), "active first");
        assert_eq!(with(Some(ProbeAnswer::No)), "standby NotEligible");
        let cloned = ElectionHistory { cloned: true, ..ElectionHistory::default() };
        assert_eq!(says(&role(true), Some(ProbeAnswer::Yes), Some(&cloned), RetakeReason::ByHand), "cloned");
        assert_eq!(
            says(&role(true), Some(ProbeAnswer::No), Some(&cloned), RetakeReason::ByHand),
            "standby NotEligible"
        );
        assert_eq!(with(Some(ProbeAnswer::Unknown)), "unknown Probes");
        assert_eq!(with(None), "unknown Probes", "a probe that was not asked has not said yes");
        assert_eq!(says(&role(false), None, Some(&empty), RetakeReason::None), "active first", "always active");
    }

    #[test]
    fn without_the_journal_a_yes_is_not_enough_but_a_no_is() {
        assert_eq!(says(&role(true), Some(ProbeAnswer::Yes), None, RetakeReason::ByHand), "unknown Journal");
        assert_eq!(says(&role(true), Some(ProbeAnswer::No), None, RetakeReason::ByHand), "standby NotEligible");
    }

    #[test]
    fn nodes_are_listed_by_label() {
        let mut role = role(true);
        role.nodes = Some(vec!["east".into()]);
        let empty = ElectionHistory::default();
        assert_eq!(says(&role, Some(ProbeAnswer::Yes), Some(&empty), RetakeReason::None), "active first");
        role.nodes = Some(vec!["west".into(), "east.example.net".into()]);
        assert_eq!(says(&role, Some(ProbeAnswer::Yes), Some(&empty), RetakeReason::ByHand), "standby NotListed");
    }

    #[test]
    fn a_lease_is_needed_as_well_as_the_probes_and_the_journal() {
        let asked = ClockReading { boot: Duration::ZERO, wall: at(AT) };
        let deadline = Deadline::granted(LeaseGrant { asked, ttl: Duration::from_mins(1) });
        let other = LeaseHolder { node: OTHER, label: "west".into(), instance: InstanceId([1; 8]) };
        let history = history(Some(holding(OTHER, 6)), Some(5));
        for kind in [LeaseKind::Etcd, LeaseKind::Bucket] {
            let role = RoleSettings { lease: kind, ..role(true) };
            let with = |lease| with_lease(&role, Some(ProbeAnswer::Yes), lease, Some(&history), RetakeReason::None);
            assert_eq!(with(LeaseView::Unasked), "candidate");
            assert_eq!(with(LeaseView::Taken(Some(&other))), "standby, west has the lease");
            assert_eq!(with(LeaseView::Taken(None)), "standby, an unknown node has the lease");
            assert_eq!(with(LeaseView::Unreachable), format!("unknown Lease({kind:?})"));
            assert_eq!(
                with(LeaseView::Held(&deadline)),
                "active again 6",
                "the lease settles what would be a conflict"
            );
            let held = LeaseView::Held(&deadline);
            assert_eq!(
                with_lease(&role, Some(ProbeAnswer::No), held, Some(&history), RetakeReason::None),
                "standby NotEligible"
            );
            assert_eq!(with_lease(&role, Some(ProbeAnswer::Yes), held, None, RetakeReason::None), "unknown Journal");
        }
    }

    #[test]
    fn only_the_holder_goes_on_without_its_lease_service_and_only_if_told() {
        let on_lease_unreachable = LeaseUnreachablePolicy::HolderContinues;
        let role = RoleSettings { lease: LeaseKind::Etcd, on_lease_unreachable, ..role(true) };
        let (mine, theirs) = (history(Some(holding(ME, 5)), Some(5)), history(Some(holding(OTHER, 6)), Some(5)));
        let with = |answer, history| {
            with_lease(&role, Some(answer), LeaseView::Unreachable, Some(history), RetakeReason::ByHand)
        };
        assert_eq!(with(ProbeAnswer::Yes, &mine), "active mine 5");
        assert_eq!(with(ProbeAnswer::Yes, &theirs), "unknown Lease(Etcd)");
        assert_eq!(with(ProbeAnswer::No, &mine), "standby NotEligible");
    }

    #[test]
    fn a_person_has_the_last_word_but_not_for_ever() {
        let pause = |until: Option<&str>| RolePause {
            by: "west".into(),
            since: at("2026-11-20T00:00:00Z"),
            until: until.map(at),
            why: None,
        };
        let with = |paused| {
            let history = ElectionHistory { paused: Some(paused), ..ElectionHistory::default() };
            says(&role(true), Some(ProbeAnswer::Yes), Some(&history), RetakeReason::ByHand)
        };
        assert_eq!(with(pause(None)), "paused by west");
        assert_eq!(with(pause(Some("2026-11-21T01:00:01Z"))), "paused by west");
        assert_eq!(with(pause(Some(AT))), "active first", "it is over");

        let role = RoleSettings { lease: LeaseKind::Bucket, ..role(true) };
        let given = |node, since| {
            let holder =
                TakeoverInfo { handed_over: Some(at(since)), since: at("2026-11-21T00:59:00Z"), ..holding(node, 6) };
            says(&role, Some(ProbeAnswer::Yes), Some(&history(Some(holder), Some(5))), RetakeReason::ByHand)
        };
        assert_eq!(given(OTHER, "2026-11-21T00:50:00Z"), "standby, handed over to 6");
        assert_eq!(given(OTHER, "2026-11-21T00:45:00Z"), "candidate", "it had a quarter of an hour");
        assert_eq!(given(OTHER, "2026-11-21T01:05:00Z"), "standby, handed over to 6", "clocks differ a little");
        assert_eq!(given(OTHER, "2026-11-21T01:05:01Z"), "candidate", "that node does not know the time");
        assert_eq!(given(ME, "2026-11-21T00:50:00Z"), "candidate");
    }

    #[test]
    fn a_node_with_another_time_than_the_store_has_no_word_on_slots() {
        let asked = ClockReading { boot: Duration::ZERO, wall: at(AT) };
        let deadline = Deadline::granted(LeaseGrant { asked, ttl: Duration::from_mins(1) });
        let mine = history(Some(holding(ME, 5)), Some(5));
        let slots = RoleSettings { schedule: Some(Schedule::Every(Duration::from_hours(1))), ..role(true) };
        let with = |role: &RoleSettings, answer, seconds, retake_reason| {
            let assessment = assessment(answer);
            let state = decide(ElectionInputs {
                role,
                node: ME,
                label: "east",
                now: at(AT),
                clock_offset: Some(SignedDuration::from_secs(seconds)),
                assessment: Some(&assessment),
                lease: LeaseView::Held(&deadline),
                history: Some(&mine),
                plan: None,
                retake_reason,
            });
            match state.state {
                ElectionState::Active { .. } => "active".to_owned(),
                ElectionState::Unknown(UnknownReason::Clock { offset }) => format!("off by {}", offset.as_secs()),
                ElectionState::Standby(_) => "standby".to_owned(),
                other => panic!("{other:?}"),
            }
        };
        let slot = RetakeReason::DueSlot(at(AT));
        assert_eq!(with(&slots, ProbeAnswer::Yes, 300, RetakeReason::None), "active");
        assert_eq!(with(&slots, ProbeAnswer::Yes, 301, RetakeReason::None), "off by 301");
        assert_eq!(
            with(&slots, ProbeAnswer::Yes, -3600, slot),
            "off by -3600",
            "whichever way, and with the lease in hand"
        );
        assert_eq!(with(&slots, ProbeAnswer::Yes, -3600, RetakeReason::HolderSilent), "off by -3600");
        assert_eq!(with(&slots, ProbeAnswer::Yes, -3600, RetakeReason::ByHand), "active", "a person needs no slot");
        assert_eq!(
            with(&role(true), ProbeAnswer::Yes, -3600, RetakeReason::None),
            "active",
            "nor does a role without any"
        );
        assert_eq!(with(&slots, ProbeAnswer::No, -3600, RetakeReason::None), "standby", "no clock is needed for a no");
    }

    #[test]
    fn who_had_it_decides_what_the_claim_builds_on() {
        let role = role(true);
        let with = |history: ElectionHistory| says(&role, Some(ProbeAnswer::Yes), Some(&history), RetakeReason::None);
        assert_eq!(with(history(Some(holding(ME, 5)), Some(5))), "active mine 5");
        assert_eq!(with(history(Some(holding(OTHER, 6)), None)), "active moved 6");
        assert_eq!(with(history(Some(holding(OTHER, 6)), Some(5))), "conflict 6");
    }

    #[test]
    fn who_stands_in_waits_for_the_eligible_and_gives_way_to_them() {
        let probe = Probe::Vip { address: "192.0.2.1".parse().unwrap(), interface: None };
        let mut role = role(true);
        role.fallback = Some(FallbackSettings { probe, after: Duration::from_mins(15) });
        role.schedule = Some(Schedule::Every(Duration::from_hours(1)));
        let plan = SlotSchedule::new(&role, &jiff::tz::TimeZone::UTC).unwrap();
        let with = |answer, fallback, now: &str, history: &ElectionHistory| {
            let assessment = ProbeAssessment { fallback: Some(fallback), ..assessment(answer) };
            let inputs = ElectionInputs {
                role: &role,
                node: ME,
                label: "east",
                now: at(now),
                clock_offset: None,
                assessment: Some(&assessment),
                lease: LeaseView::Unasked,
                history: Some(history),
                plan: plan.as_ref(),
                retake_reason: RetakeReason::None,
            };
            match decide(inputs).state {
                ElectionState::Active { candidacy, .. } => format!("active, stands in: {}", candidacy.stands_in()),
                ElectionState::Standby(StandbyReason::Fallback { from: Some(from) }) => format!("from {from}"),
                other => format!("{other:?}"),
            }
        };
        let (no, yes) = (ProbeAnswer::No, ProbeAnswer::Yes);
        let mut history = history(Some(holding(OTHER, 6)), Some(5));
        assert_eq!(
            with(no, yes, "2026-11-20T01:59:59Z", &history),
            "Standby(Fallback { from: None })",
            "nothing is due"
        );
        assert_eq!(with(no, yes, "2026-11-20T02:14:59Z", &history), "from 2026-11-20T02:15:00Z");
        for answer in [no, ProbeAnswer::Unknown] {
            assert_eq!(with(answer, yes, "2026-11-20T02:15:00Z", &history), "active, stands in: true");
            assert_eq!(with(answer, yes, AT, &history), "active, stands in: true", "the oldest slot counts");
        }
        assert_eq!(with(no, no, AT, &history), "Standby(NotEligible)");
        assert_eq!(with(no, ProbeAnswer::Unknown, AT, &history), "Standby(NotEligible)");
        assert!(with(yes, yes, AT, &history).starts_with("Conflict"));
        history.holder.as_mut().unwrap().stood_in = true;
        assert_eq!(with(yes, yes, AT, &history), "active, stands in: false");
        let pause = RolePause { by: "west".into(), since: at(AT), until: None, why: None };
        let paused = ElectionHistory { paused: Some(pause), ..history };
        assert!(with(no, yes, AT, &paused).starts_with("Paused"));
    }

    #[test]
    fn a_fenced_node_takes_again_only_on_an_occasion_that_ends() {
        let overtaken = history(Some(holding(OTHER, 6)), Some(5));
        let with = |retake_reason| says(&role(true), Some(ProbeAnswer::Yes), Some(&overtaken), retake_reason);
        assert_eq!(with(RetakeReason::ByHand), "active again 6");
        assert_eq!(with(RetakeReason::DueSlot(AT.parse().unwrap())), "active again 6");
        assert_eq!(
            with(RetakeReason::DueSlot("2026-11-20T01:00:00Z".parse().unwrap())),
            "conflict 6",
            "that slot is committed"
        );
        assert_eq!(with(RetakeReason::None), "conflict 6");
        let no = says(&role(true), Some(ProbeAnswer::No), Some(&overtaken), RetakeReason::ByHand);
        assert_eq!(no, "standby NotEligible", "not eligible any more, so there is no conflict");
    }
}
