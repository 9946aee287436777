//! Probes: evidence on this node that it should be active. There are three answers, because a node that cannot tell
//! must not act as if it could: `unknown` stays unknown under `not`, and only another probe with a decisive answer can
//! outvote it (Kleene's logic).
//!
//! Every probe is evaluated, even if the first one decides, so that status and logs show all the evidence.

mod command;
mod http;
pub mod mounted;
pub mod unit;
pub mod vip;

use std::fmt::{self, Debug};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use self::vip::events::ProbeHints;
use crate::config::{EnvironmentSettings, HttpUrl, Probe};
use crate::env::Env;
use crate::ids::{RoleName, Term};

/// How many probes of one role run at the same time: each may be a process.
const CONCURRENT_MAX: usize = 8;

/// The answer of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeAnswer {
    /// This node should be active.
    Yes,
    /// This node should not be active.
    No,
    /// The probe cannot tell.
    Unknown,
}

impl ProbeAnswer {
    /// The opposite answer; unknown stays unknown.
    pub fn negated(self) -> Self {
        match self {
            ProbeAnswer::Yes => ProbeAnswer::No,
            ProbeAnswer::No => ProbeAnswer::Yes,
            #[cfg(feature = "planted")]
            ProbeAnswer::Unknown if crate::planted::is(crate::planted::PlantedBug::UnknownProbeIsNo) => {
                ProbeAnswer::Yes
            }
            ProbeAnswer::Unknown => ProbeAnswer::Unknown,
        }
    }

    /// Yes if all answers are yes, no if one is no, else unknown.
    pub fn all(answers: impl IntoIterator<Item = ProbeAnswer>) -> Self {
        answers.into_iter().fold(ProbeAnswer::Yes, |so_far, next| match (so_far, next) {
            (ProbeAnswer::No, _) | (_, ProbeAnswer::No) => ProbeAnswer::No,
            (ProbeAnswer::Unknown, _) | (_, ProbeAnswer::Unknown) => ProbeAnswer::Unknown,
            (ProbeAnswer::Yes, ProbeAnswer::Yes) => ProbeAnswer::Yes,
        })
    }

    /// Yes if one answer is yes, no if all are no, else unknown.
    pub fn any(answers: impl IntoIterator<Item = ProbeAnswer>) -> Self {
        ProbeAnswer::all(answers.into_iter().map(ProbeAnswer::negated)).negated()
    }
}

/// The result of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// What was probed.
    pub subject: ProbeSubject,
    /// The answer, before any `not` around the probe.
    pub answer: ProbeAnswer,
    /// The reason for the answer.
    pub detail: ProbeDetail,
    /// How long the answer took.
    pub latency: Duration,
    /// When the answer was complete, as boot time.
    pub answered_at: Duration,
    /// The probe belongs to `fallback`: it decides only whether this node may work as a fallback.
    pub fallback: bool,
}

impl ProbeResult {
    /// The result's age at this boot time.
    pub fn age(&self, boottime: Duration) -> Duration {
        boottime.saturating_sub(self.answered_at)
    }
}

/// What a probe looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeSubject {
    /// An address on this machine.
    Vip(IpAddr),
    /// A command, with its arguments.
    Command(Vec<String>),
    /// A server's answer.
    Http(HttpUrl),
    /// A mount point.
    Mounted(PathBuf),
    /// A systemd unit.
    Unit(String),
}

impl fmt::Display for ProbeSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeSubject::Vip(address) => write!(f, "vip {address}"),
            ProbeSubject::Command(command) => write!(f, "command {}", command.join(" ")),
            ProbeSubject::Http(url) => write!(f, "http {url}"),
            ProbeSubject::Mounted(path) => write!(f, "mounted {}", path.display()),
            ProbeSubject::Unit(unit) => write!(f, "unit {unit}"),
        }
    }
}

/// The reason for a probe's answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeDetail {
    /// The address is on an interface.
    #[error("on {interface}")]
    Present {
        /// The interface.
        interface: String,
    },
    /// The address is on no interface.
    #[error("not on this machine")]
    Absent,
    /// The address is only on `lo`, where every real server behind a load balancer has it.
    #[error("only on {interface}, which counts only with interface = {interface:?}")]
    Loopback {
        /// The loopback interface's name.
        interface: String,
    },
    /// The address is on another interface than configured.
    #[error("on {found}, not on {wanted}")]
    Elsewhere {
        /// The interface that has the address.
        found: String,
        /// The interface that should have it.
        wanted: String,
    },
    /// The interface with the address is down.
    #[error("on {interface}, which is down")]
    Down {
        /// The interface.
        interface: String,
    },
    /// IPv6: duplicate address detection for the address is still running.
    #[error("tentative on {interface}: duplicate address detection is running")]
    Tentative {
        /// The interface.
        interface: String,
    },
    /// IPv6: another machine has the address.
    #[error("refused on {interface}: another machine has this address")]
    Duplicate {
        /// The interface.
        interface: String,
    },
    /// The kernel did not say which addresses there are.
    #[error("the addresses of this machine cannot be read: {0}")]
    Unlisted(String),
    /// The command exited.
    #[error("exit {code}{}", line_suffix(line.as_ref()))]
    Exit {
        /// Its exit code.
        code: i32,
        /// The first line that the command wrote.
        line: Option<String>,
    },
    /// The command was killed by a signal.
    #[error("killed by signal {signal}{}", line_suffix(line.as_ref()))]
    Signal {
        /// The signal's number.
        signal: i32,
        /// The first line that the command wrote.
        line: Option<String>,
    },
    /// The command took too long, and was killed with all its children.
    #[error("no answer within {}{}", humantime::format_duration(*after), line_suffix(line.as_ref()))]
    TimedOut {
        /// The limit.
        after: Duration,
        /// The first line that the command wrote.
        line: Option<String>,
    },
    /// The command could not be started or watched.
    #[error("cannot be run: {0}")]
    NotRun(String),
    /// The server's answer is the configured one.
    #[error("answered {status}{}", if *body { " with the expected text" } else { "" })]
    Answered {
        /// The HTTP status.
        status: u16,
        /// Whether the body was checked, too.
        body: bool,
    },
    /// The server's answer has another status.
    #[error("answered {status}, not {wanted}{}", if *redirect { "; redirects are not followed" } else { "" })]
    OtherStatus {
        /// The HTTP status.
        status: u16,
        /// The configured statuses, or `2xx`.
        wanted: String,
        /// The status is a redirect.
        redirect: bool,
    },
    /// The server's answer has the right status, but its body lacks the configured text.
    #[error("answered {status}, but without {wanted:?}{}", line_suffix(line.as_ref()))]
    OtherBody {
        /// The HTTP status.
        status: u16,
        /// The text that the body should contain.
        wanted: String,
        /// The first line of the body.
        line: Option<String>,
    },
    /// The server did not answer, or its answer could not be understood or trusted.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// A file system is mounted there.
    #[error("mounted from {device} ({filesystem})")]
    Mounted {
        /// The device or share.
        device: String,
        /// The type of the file system.
        filesystem: String,
    },
    /// The path is not a mount point.
    #[error("nothing is mounted there")]
    NotMounted,
    /// The path is an autofs trap: a file system would be mounted on the first access.
    #[error("only an automount point; nothing is mounted on it now")]
    Automount,
    /// The kernel did not say what is mounted.
    #[error("the mounts of this machine cannot be read: {0}")]
    MountsUnlisted(String),
    /// The state of the unit, as systemd reports it.
    #[error("{active} ({sub})")]
    UnitState {
        /// The general state (`ActiveState`).
        active: String,
        /// The state in the terms of the unit's type (`SubState`).
        sub: String,
    },
    /// The unit is neither loaded nor running.
    #[error("systemd knows no such unit")]
    NoUnit,
    /// systemctl succeeded, but reported no state.
    #[error("systemctl does not show its state")]
    UnitUnread,
}

fn line_suffix(line: Option<&String>) -> String {
    line.map(|line| format!(": {line}")).unwrap_or_default()
}

/// The environment variables that commands of a role get.
#[derive(Debug, Clone)]
pub struct CommandVariables {
    /// `RUNNER_NODE`: the node's label.
    pub node: String,
    /// `RUNNER_ROLE`.
    pub role: RoleName,
    /// `RUNNER_TERM`, where known.
    pub term: Option<Term>,
    /// `RUNNER_SLOT`, where there is one.
    pub slot: Option<Timestamp>,
    /// The variables that the config sets for the role's commands.
    pub environment: EnvironmentSettings,
}

impl CommandVariables {
    /// The variables of a role on a node, without term, slot and the config's variables.
    pub fn new(node: impl Into<String>, role: RoleName) -> Self {
        Self { node: node.into(), role, term: None, slot: None, environment: EnvironmentSettings::default() }
    }

    /// The variables whose values are known.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![("RUNNER_NODE", self.node.clone()), ("RUNNER_ROLE", self.role.to_string())];
        variables.extend(self.term.map(|term| ("RUNNER_TERM", term.to_string())));
        variables.extend(self.slot.map(|slot| ("RUNNER_SLOT", slot.to_string())));
        variables
    }
}

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

fn collect_leaves<'a>(probe: &'a Probe, leaves: &mut Vec<&'a Probe>) {
    match probe {
        Probe::Vip { .. } | Probe::Command { .. } | Probe::Http { .. } | Probe::Mounted { .. } | Probe::Unit { .. } => {
            leaves.push(probe);
        }
        Probe::All(probes) | Probe::Any(probes) => probes.iter().for_each(|p| collect_leaves(p, leaves)),
        Probe::Not(inner) => collect_leaves(inner, leaves),
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
