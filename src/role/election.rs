//! The election: who is active, decided from evidence that others gathered. Pure, no clock, no I/O.
//!
//! The invariant that lives here: nobody else makes a [`Candidacy`], and it is made for a clear yes only. A probe that
//! cannot tell, a journal that cannot be read and a lease that is not held are all `unknown` or less, never active.
//!
//! Where only the journal excludes others (`lease = "none"`), two nodes may both be eligible. The newest takeover wins.
//! The node that lost it goes on only on an occasion that cannot repeat by itself, otherwise both would take the role from
//! each other for ever: that is a [`State::Conflict`].

use jiff::Timestamp;

use super::permit::Candidacy;
use super::probe::{Answer, Assessment, Evidence};
use crate::config::{Lease, RoleSettings};
use crate::ids::{NodeId, Term};

/// Everything that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The role.
    pub role: &'a RoleSettings,
    /// This node.
    pub node: NodeId,
    /// Its label: what `nodes` lists.
    pub label: &'a str,
    /// What the probes said; `None` when they were not asked.
    pub assessment: Option<&'a Assessment>,
    /// What the journal says; `None` when it cannot be read.
    pub history: Option<&'a History>,
    /// What speaks for taking the role again after another node took it.
    pub occasion: Occasion,
}

/// What the journal says about who had the role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The newest takeover; `None` in an empty journal.
    pub holder: Option<Holding>,
    /// The term of this node's own newest takeover.
    pub own_term: Option<Term>,
    /// The newest slot that is committed.
    pub last_slot: Option<Timestamp>,
}

/// One takeover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Whose.
    pub node: NodeId,
    /// That node's label then.
    pub label: String,
    /// Its term.
    pub term: Term,
    /// When, by that node's clock.
    pub since: Timestamp,
}

/// What may let a node that was overtaken take the role again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Nothing: somebody only looks, or a long-running node just goes on.
    None,
    /// A person started the run, and answers for it.
    ByHand,
    /// A run for this slot. It counts while the slot is not committed, so once for each slot.
    Slot(Timestamp),
}

/// What was decided, and on what.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What this node is for the role.
    pub state: State,
    /// What the probes found.
    pub evidence: Vec<Evidence>,
}

/// What a node is for a role.
#[derive(Debug, Clone)]
pub enum State {
    /// It may take the role over, or go on with it.
    Active {
        /// The proof.
        candidacy: Candidacy,
        /// What it builds on.
        claim: Claim,
    },
    /// It should not.
    Standby(StandbyReason),
    /// It cannot tell.
    Unknown(UnknownReason),
    /// It is eligible, and so was another node that took the role from it.
    Conflict {
        /// That node's takeover.
        holder: Holding,
    },
}

/// What an active node's claim builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody had the role before.
    First,
    /// This node has it.
    Mine {
        /// Its term.
        term: Term,
    },
    /// Another node had it, and this one never.
    Moved {
        /// The other one's takeover.
        from: Holding,
    },
    /// This node had it, then another one; now it takes it again.
    Again {
        /// The other one's takeover.
        from: Holding,
    },
}

/// Why a node stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyReason {
    /// `nodes` does not list it.
    NotListed,
    /// The probes say no.
    NotEligible,
}

/// Why a node cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownReason {
    /// The probes cannot.
    Probes,
    /// The journal cannot be read, and it decides who won.
    Journal,
    /// The role wants this lease, and nothing here can hold it.
    Lease(Lease),
}

/// What a node is for a role as far as that is told without the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligibility {
    /// It may stand for the role; whether it has it, the journal decides.
    Yes,
    /// It should not.
    No(StandbyReason),
    /// It cannot tell.
    Unknown(UnknownReason),
}

/// What settings and probes alone say: enough to send a standby away without the store, never enough to change the repository.
pub fn eligibility(role: &RoleSettings, label: &str, assessment: Option<&Assessment>) -> Eligibility {
    if role.nodes.as_ref().is_some_and(|nodes| !nodes.iter().any(|node| node == label)) {
        return Eligibility::No(StandbyReason::NotListed);
    }
    if role.eligible.is_some() {
        match assessment.map_or(Answer::Unknown, |a| a.answer) {
            Answer::Yes => {}
            Answer::No => return Eligibility::No(StandbyReason::NotEligible),
            Answer::Unknown => return Eligibility::Unknown(UnknownReason::Probes),
        }
    }
    if role.lease != Lease::None {
        return Eligibility::Unknown(UnknownReason::Lease(role.lease));
    }
    Eligibility::Yes
}

/// Decides.
pub fn decide(inputs: Inputs<'_>) -> Verdict {
    let evidence = inputs.assessment.map(|a| a.evidence.clone()).unwrap_or_default();
    Verdict { state: state(inputs), evidence }
}

fn state(inputs: Inputs<'_>) -> State {
    let role = inputs.role;
    // It comes before the journal: a standby knows that it is one also while the store cannot be reached.
    match eligibility(role, inputs.label, inputs.assessment) {
        Eligibility::Yes => {}
        Eligibility::No(reason) => return State::Standby(reason),
        Eligibility::Unknown(reason) => return State::Unknown(reason),
    }
    let Some(history) = inputs.history else { return State::Unknown(UnknownReason::Journal) };
    let claim = match (&history.holder, history.own_term) {
        (None, _) => Claim::First,
        (Some(holder), _) if holder.node == inputs.node => Claim::Mine { term: holder.term },
        (Some(holder), None) => Claim::Moved { from: holder.clone() },
        (Some(holder), Some(_)) if counts(inputs.occasion, history) => Claim::Again { from: holder.clone() },
        (Some(holder), Some(_)) => return State::Conflict { holder: holder.clone() },
    };
    State::Active { candidacy: Candidacy::new(role.name.clone(), None), claim }
}

fn counts(occasion: Occasion, history: &History) -> bool {
    match occasion {
        Occasion::None => false,
        Occasion::ByHand => true,
        Occasion::Slot(at) => history.last_slot.is_none_or(|last| last < at),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{KeySource, Probe};
    use crate::role::probe::{Detail, Subject};

    const ME: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);

    fn role(eligible: bool) -> RoleSettings {
        let probe = Probe::Vip { address: "192.0.2.1".parse().unwrap(), interface: None };
        let always = RoleSettings::new("app".parse().unwrap(), KeySource::None, vec!["/srv".into()]);
        RoleSettings { eligible: eligible.then_some(probe), ..always }
    }

    fn assessment(answer: Answer) -> Assessment {
        let evidence = Evidence {
            subject: Subject::Vip("192.0.2.1".parse().unwrap()),
            answer,
            detail: Detail::Absent,
            latency: Duration::ZERO,
            taken: Duration::ZERO,
        };
        Assessment { answer, evidence: vec![evidence] }
    }

    fn holding(node: NodeId, term: u64) -> Holding {
        Holding { node, label: "x".into(), term: Term(term), since: Timestamp::UNIX_EPOCH }
    }

    fn history(holder: Option<Holding>, own_term: Option<u64>) -> History {
        History { holder, own_term: own_term.map(Term), last_slot: Some("2026-11-20T01:00:00Z".parse().unwrap()) }
    }

    /// The state as one word and its reason.
    fn says(role: &RoleSettings, answer: Option<Answer>, history: Option<&History>, occasion: Occasion) -> String {
        let assessment = answer.map(assessment);
        let inputs = Inputs { role, node: ME, label: "east", assessment: assessment.as_ref(), history, occasion };
        let verdict = decide(inputs);
        assert_eq!(verdict.evidence.len(), usize::from(answer.is_some()), "evidence is shown whatever is decided");
        match (eligibility(role, "east", assessment.as_ref()), &verdict.state) {
            (
                Eligibility::Yes,
                State::Active { .. } | State::Conflict { .. } | State::Unknown(UnknownReason::Journal),
            ) => {}
            (Eligibility::No(early), State::Standby(late)) => assert_eq!(early, *late),
            (Eligibility::Unknown(early), State::Unknown(late)) => assert_eq!(early, *late),
            apart => panic!("the journal never changes a no or an unknown: {apart:?}"),
        }
        match verdict.state {
            State::Active { candidacy, claim } => {
                assert_eq!(candidacy.role(), &role.name);
                match claim {
                    Claim::First => "active first".into(),
                    Claim::Mine { term } => format!("active mine {term}"),
                    Claim::Moved { from } => format!("active moved {}", from.term),
                    Claim::Again { from } => format!("active again {}", from.term),
                }
            }
            State::Standby(reason) => format!("standby {reason:?}"),
            State::Unknown(reason) => format!("unknown {reason:?}"),
            State::Conflict { holder } => format!("conflict {}", holder.term),
        }
    }

    const AT: &str = "2026-11-21T01:00:00Z";

    #[test]
    fn the_probes_answer_carries_over() {
        let empty = History::default();
        let with = |answer| says(&role(true), answer, Some(&empty), Occasion::ByHand);
        assert_eq!(with(Some(Answer::Yes)), "active first");
        assert_eq!(with(Some(Answer::No)), "standby NotEligible");
        assert_eq!(with(Some(Answer::Unknown)), "unknown Probes");
        assert_eq!(with(None), "unknown Probes", "a probe that nobody asked has not said yes");
        assert_eq!(says(&role(false), None, Some(&empty), Occasion::None), "active first", "always active");
    }

    #[test]
    fn without_the_journal_a_yes_is_not_enough_but_a_no_is() {
        assert_eq!(says(&role(true), Some(Answer::Yes), None, Occasion::ByHand), "unknown Journal");
        assert_eq!(says(&role(true), Some(Answer::No), None, Occasion::ByHand), "standby NotEligible");
    }

    #[test]
    fn nodes_are_listed_by_label() {
        let mut role = role(true);
        role.nodes = Some(vec!["east".into()]);
        let empty = History::default();
        assert_eq!(says(&role, Some(Answer::Yes), Some(&empty), Occasion::None), "active first");
        role.nodes = Some(vec!["west".into(), "east.example.net".into()]);
        assert_eq!(says(&role, Some(Answer::Yes), Some(&empty), Occasion::ByHand), "standby NotListed");
    }

    #[test]
    fn a_lease_that_nothing_holds_is_not_a_yes() {
        for lease in [Lease::Etcd, Lease::Bucket] {
            let role = RoleSettings { lease, ..role(false) };
            let said = says(&role, None, Some(&History::default()), Occasion::ByHand);
            assert_eq!(said, format!("unknown Lease({lease:?})"));
        }
    }

    #[test]
    fn who_had_it_decides_what_the_claim_builds_on() {
        let role = role(true);
        let with = |history: History| says(&role, Some(Answer::Yes), Some(&history), Occasion::None);
        assert_eq!(with(history(Some(holding(ME, 5)), Some(5))), "active mine 5");
        assert_eq!(with(history(Some(holding(OTHER, 6)), None)), "active moved 6");
        assert_eq!(with(history(Some(holding(OTHER, 6)), Some(5))), "conflict 6");
    }

    #[test]
    fn a_fenced_node_takes_again_only_on_an_occasion_that_ends() {
        let overtaken = history(Some(holding(OTHER, 6)), Some(5));
        let with = |occasion| says(&role(true), Some(Answer::Yes), Some(&overtaken), occasion);
        assert_eq!(with(Occasion::ByHand), "active again 6");
        assert_eq!(with(Occasion::Slot(AT.parse().unwrap())), "active again 6");
        assert_eq!(
            with(Occasion::Slot("2026-11-20T01:00:00Z".parse().unwrap())),
            "conflict 6",
            "that slot is committed"
        );
        assert_eq!(with(Occasion::None), "conflict 6");
        let no = says(&role(true), Some(Answer::No), Some(&overtaken), Occasion::ByHand);
        assert_eq!(no, "standby NotEligible", "not eligible any more, so there is no conflict");
    }
}
