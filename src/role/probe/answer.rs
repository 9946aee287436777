//! The answers of probes, with their evidence.

use std::fmt;
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::HttpUrl;

/// The answer of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
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
