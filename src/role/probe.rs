//! Probes: evidence on this node that it should be active. There are three answers, because a node that cannot tell
//! must not act as if it could: `unknown` stays unknown under `not`, and only another probe with a decisive answer can
//! outvote it (Kleene's logic).
//!
//! Every probe is evaluated, even if the first one decides, so that status and logs show all the evidence.

pub(crate) mod answer;
mod command;
mod http;
pub(crate) mod leaves;
pub mod mounted;
pub mod unit;
pub mod vip;

use std::fmt::Debug;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

pub use self::answer::{ProbeAnswer, ProbeDetail, ProbeResult, ProbeSubject};
pub use self::command::CommandVariables;
use self::leaves::collect_leaves;
use self::vip::events::ProbeHints;
use crate::config::Probe;
use crate::env::Env;

/// How many probes of one role run at the same time: each may be a process.
const CONCURRENT_MAX: usize = 8;

/// The answer of a role's probes, with the results behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAssessment {
    /// Whether this node is eligible, from all results together.
    pub answer: ProbeAnswer,
    /// Whether this node may work as a fallback if no eligible node does; `None` if the role has no fallback.
    pub fallback: Option<ProbeAnswer>,
    /// The results of all simple probes, in the order of the config.
    pub results: Vec<ProbeResult>,
}

impl ProbeAssessment {
    /// Whether this node may work for the role as far as probes tell, now or later.
    pub fn may_work(&self) -> bool {
        self.answer == ProbeAnswer::Yes || self.fallback == Some(ProbeAnswer::Yes)
    }
}

/// Evaluates simple probes.
#[async_trait]
pub trait ProbeRunner: Debug + Send + Sync {
    /// Evaluates `leaf`, a probe that is not made of others.
    async fn ask(&self, leaf: &Probe, context: &CommandVariables) -> (ProbeAnswer, ProbeDetail);

    /// Hints for evaluating `probe` again before the next poll.
    fn hints(&self, probe: Option<&Probe>) -> ProbeHints;
}

/// The probes of this host: its addresses and mounts, and the commands, servers and units that it can ask.
#[derive(Debug, Clone, Copy)]
pub struct HostProbeRunner;

#[async_trait]
impl ProbeRunner for HostProbeRunner {
    async fn ask(&self, leaf: &Probe, context: &CommandVariables) -> (ProbeAnswer, ProbeDetail) {
        match leaf {
            Probe::Vip { address, interface } => vip::ask(*address, interface.as_deref()),
            Probe::Command { command, timeout } => command::ask(command, *timeout, context).await,
            Probe::Http { url, status, body, timeout, ca_file } => {
                let question = http::HttpProbe { url, status, body: body.as_deref(), ca_file: ca_file.as_deref() };
                http::ask(question, *timeout).await
            }
            Probe::Mounted { path } => mounted::ask(path).await,
            Probe::Unit { unit, timeout } => unit::ask(unit, *timeout, context).await,
            Probe::All(_) | Probe::Any(_) | Probe::Not(_) => unreachable!("only simple probes are asked"),
        }
    }

    fn hints(&self, probe: Option<&Probe>) -> ProbeHints {
        ProbeHints::of(probe)
    }
}

/// Evaluates every simple probe of `eligible` and `fallback`, and combines the answers.
pub async fn assess(
    eligible: &Probe,
    fallback: Option<&Probe>,
    context: &CommandVariables,
    senses: &dyn ProbeRunner,
    env: &Env,
) -> ProbeAssessment {
    let mut leaves = Vec::new();
    collect_leaves(eligible, &mut leaves);
    let first = leaves.len();
    if let Some(fallback) = fallback {
        collect_leaves(fallback, &mut leaves);
    }
    // The futures are made one by one: a closure over a borrowing future could not be sent to another thread.
    let mut asked = Vec::new();
    for leaf in leaves {
        asked.push(ask(leaf, context, senses, env));
    }
    let mut evidence: Vec<ProbeResult> = stream::iter(asked).buffered(CONCURRENT_MAX).collect().await;
    evidence.iter_mut().skip(first).for_each(|evidence| evidence.fallback = true);
    let mut answers = evidence.iter().map(|e| e.answer);
    let answer = combine(eligible, &mut answers);
    let fallback = fallback.map(|fallback| combine(fallback, &mut answers));
    ProbeAssessment { answer, fallback, results: evidence }
}

async fn ask(leaf: &Probe, context: &CommandVariables, senses: &dyn ProbeRunner, env: &Env) -> ProbeResult {
    let start = env.clock.boottime();
    let (answer, detail) = senses.ask(leaf, context).await;
    let taken = env.clock.boottime();
    ProbeResult {
        subject: subject(leaf),
        answer,
        detail,
        latency: taken.saturating_sub(start),
        answered_at: taken,
        fallback: false,
    }
}

/// The subject of a simple probe.
fn subject(leaf: &Probe) -> ProbeSubject {
    match leaf {
        Probe::Vip { address, .. } => ProbeSubject::Vip(*address),
        Probe::Command { command, .. } => ProbeSubject::Command(command.clone()),
        Probe::Http { url, .. } => ProbeSubject::Http(url.clone()),
        Probe::Mounted { path } => ProbeSubject::Mounted(path.clone()),
        Probe::Unit { unit, .. } => ProbeSubject::Unit(unit.clone()),
        Probe::All(_) | Probe::Any(_) | Probe::Not(_) => unreachable!("only simple probes are asked"),
    }
}

/// The answer of a whole probe, from the answers of its simple probes in the order of [`collect_leaves`].
fn combine(probe: &Probe, leaves: &mut dyn Iterator<Item = ProbeAnswer>) -> ProbeAnswer {
    match probe {
        Probe::Vip { .. } | Probe::Command { .. } | Probe::Http { .. } | Probe::Mounted { .. } | Probe::Unit { .. } => {
            leaves.next().unwrap_or(ProbeAnswer::Unknown)
        }
        // Collected first: every leaf below must be taken from the iterator, even after the answer is clear.
        Probe::All(probes) => ProbeAnswer::all(probes.iter().map(|p| combine(p, leaves)).collect::<Vec<_>>()),
        Probe::Any(probes) => ProbeAnswer::any(probes.iter().map(|p| combine(p, leaves)).collect::<Vec<_>>()),
        Probe::Not(inner) => combine(inner, leaves).negated(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ProbeAnswer::{No, Unknown, Yes};
    use super::*;

    fn leaf() -> Probe {
        Probe::Vip { address: "192.0.2.1".parse().unwrap(), interface: None }
    }

    #[test]
    fn only_a_decisive_probe_outvotes_unknown() {
        for (answers, all, any) in [
            (vec![Yes, Yes], Yes, Yes),
            (vec![Yes, No], No, Yes),
            (vec![No, No], No, No),
            (vec![Yes, Unknown], Unknown, Yes),
            (vec![No, Unknown], No, Unknown),
            (vec![Unknown, Unknown], Unknown, Unknown),
        ] {
            let reversed: Vec<ProbeAnswer> = answers.iter().rev().copied().collect();
            for answers in [answers, reversed] {
                assert_eq!(ProbeAnswer::all(answers.clone()), all, "all {answers:?}");
                assert_eq!(ProbeAnswer::any(answers.clone()), any, "any {answers:?}");
            }
        }
        assert_eq!([Yes, No, Unknown].map(ProbeAnswer::negated), [No, Yes, Unknown]);
    }

    #[test]
    fn whom_the_probes_speak_for_may_work_now_or_stand_in() {
        let speaks = |answer, fallback| ProbeAssessment { answer, fallback, results: Vec::new() }.may_work();
        for fallback in [None, Some(No), Some(Unknown), Some(Yes)] {
            assert!(speaks(Yes, fallback));
            for answer in [No, Unknown] {
                assert_eq!(speaks(answer, fallback), fallback == Some(Yes), "{answer:?} {fallback:?}");
            }
        }
    }

    #[test]
    fn every_leaf_keeps_its_own_answer_in_a_nest() {
        // any[ all[a, b], not c, d ]
        let probe =
            Probe::Any(vec![Probe::All(vec![leaf(), leaf()]), Probe::Not(Box::new(leaf())), Probe::All(vec![leaf()])]);
        let combined = |answers: [ProbeAnswer; 4]| combine(&probe, &mut answers.into_iter());
        assert_eq!(combined([Yes, Yes, Yes, No]), Yes);
        assert_eq!(combined([No, Yes, Yes, No]), No);
        assert_eq!(combined([No, Yes, No, No]), Yes);
        assert_eq!(combined([No, Yes, Yes, Yes]), Yes);
        assert_eq!(combined([No, Yes, Unknown, No]), Unknown, "not of unknown is unknown");
        let mut leaves = Vec::new();
        collect_leaves(&probe, &mut leaves);
        assert_eq!(leaves.len(), 4);
    }

    #[tokio::test]
    async fn real_probes_are_all_asked_and_dated() {
        let env = Env::host();
        let run = |script: &str| Probe::Command {
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            timeout: Duration::from_secs(30),
        };
        let probe = Probe::Any(vec![run("exit 0"), run("echo broken >&2; exit 7"), leaf()]);
        let context = CommandVariables::new("east", "app".parse().unwrap());
        let before = env.clock.boottime();
        let assessment = assess(&probe, Some(&Probe::Not(Box::new(leaf()))), &context, &HostProbeRunner, &env).await;
        assert_eq!(assessment.answer, Yes);
        assert_eq!(assessment.results.iter().map(|e| e.answer).collect::<Vec<_>>(), [Yes, Unknown, No, No]);
        assert_eq!(assessment.fallback, Some(Yes), "its only probe says no, under a not");
        assert_eq!(assessment.results.iter().map(|e| e.fallback).collect::<Vec<_>>(), [false, false, false, true]);
        assert_eq!(assessment.results[1].detail.to_string(), "exit 7: broken");
        assert_eq!(assessment.results[2].subject.to_string(), "vip 192.0.2.1");
        assert!(
            assessment.results.iter().all(|e| e.answered_at >= before + e.latency && e.age(e.answered_at).is_zero())
        );
    }
}
