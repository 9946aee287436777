//! The warnings of a role that need a person's attention, one sentence each: for `whoami`, `status` and monitoring.
//!
//! Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::RenderContext;
use super::browse::escaped;
use crate::cli::units::{count, counted, duration, minute, relative, time};
use crate::config::LeaseKind;
use crate::ids::{RepoId, RoleName};
use crate::job::health::Severity;
use crate::job::report::run_summary::{RunStep, RunSummary};
use crate::job::report::snapshot::EmptySources;
use crate::job::report::whoami::{MissedCause, RoleWarning, UnreadableInput};
use crate::job::report::{ADVICE, RunOutcome};
use crate::journal::future_dates::{FutureDates, WrongClock};
use crate::repo::entry::TreePath;
use crate::role::slot::MISSED_MAX;

/// One sentence without a full stop. The most important part comes first, because monitoring cuts it.
pub(super) fn text(role: &RoleName, warning: &RoleWarning, view: &RenderContext) -> String {
    match warning {
        RoleWarning::SlotsMissed { last, count, cause, .. } => {
            let last = format!("{} ({})", minute(*last, &view.zone), relative(*last, view.now));
            let missed = match count {
                0 | 1 => format!("the slot {last} was missed"),
                &MISSED_MAX => format!("{MISSED_MAX} slots or more were missed, the last {last}"),
                n => format!("{n} slots were missed, the last {last}"),
            };
            format!("{missed}{}", missed_cause(cause, view))
        }
        RoleWarning::RunFailed(run) => failed(run, view),
        RoleWarning::NoRepository => format!(
            "there is no repository in the store, so nothing is backed up. {ADVICE}if there should be one, check \
             [store] url and whether the disk is mounted; for a new role 'runner init' makes it"
        ),
        RoleWarning::NoSnapshot { since } => {
            let since = since.map(|since| format!(" since the repository was made {}", relative(since, view.now)));
            format!("no snapshot yet: nothing was committed{}", since.unwrap_or_default())
        }
        RoleWarning::ScheduleMissing { last } => schedule_missing(role, *last, view),
        RoleWarning::Paused { by, since, until, why, too_long } => {
            let until = match until {
                Some(until) => format!("until {}", minute(*until, &view.zone)),
                None if *too_long => "for more than a day, without an end".to_owned(),
                None => "until it is resumed".to_owned(),
            };
            let why = why.as_deref().map(|why| format!(": {}", escaped(why.as_bytes()))).unwrap_or_default();
            format!("paused {until} (on {by} {}){why}", relative(*since, view.now))
        }
        RoleWarning::LeaseDrift { node, theirs, own } => format!(
            "{node} uses {} and this node uses {}: they do not exclude each other, so both nodes may be active",
            lease(*theirs),
            lease(*own)
        ),
        RoleWarning::LeaseUnread { why } => {
            format!("the holder of the lease cannot be read, so this node cannot take the lease: {why}")
        }
        RoleWarning::StateUnwritable { why, stands_by } => state_unwritable(why, *stands_by),
        RoleWarning::DaemonSilent => {
            "the daemon of this node does not answer: it may hang, or get no processor time".to_owned()
        }
        RoleWarning::Exposed(exposure) => format!("{exposure}. {ADVICE}{}", exposure.remedy()),
        RoleWarning::ClockOff(seconds) => {
            let way = if *seconds < 0 { "ahead of" } else { "behind" };
            let by = duration(Duration::from_secs(seconds.unsigned_abs()));
            format!("this node's clock is {by} {way} the store's. {ADVICE}set the wrong clock right")
        }
        RoleWarning::StoreUnreadable { why } => {
            format!("the store cannot be read, so neither snapshots nor terms are known: {why}")
        }
        RoleWarning::Drift { node, version, config } => {
            let version = version.as_ref().map(|version| format!("runner {version}"));
            let config = config.then(|| "another config".to_owned());
            let what: Vec<String> = version.into_iter().chain(config).collect();
            format!(
                "{node} differs from this node: it runs {}, and may act differently after a takeover",
                what.join(" and ")
            )
        }
        RoleWarning::Incomplete { unreadable } => {
            format!("the newest snapshot is incomplete: {} could not be read", counted(*unreadable, "file", "files"))
        }
        RoleWarning::NoContent => format!(
            "the newest snapshot has no content: it holds only empty files, links and special files. {ADVICE}if that \
             is meant, set allow_empty = true for this role"
        ),
        RoleWarning::EmptySources(empty) => format!(
            "{}: no file was there when the newest snapshot was made. {ADVICE}check the mount, the path and \
             'exclude'. The warning ends when a snapshot holds a file of it; what is never to be backed up is \
             removed from the config",
            empty_sources(empty)
        ),
        RoleWarning::Lost { packs, files: None, by, time } => format!(
            "content is lost in the store: {} missing or damaged, seen by {} {}. The next run stores again what its sources have",
            counted(*packs, "pack is", "packs are"),
            escaped(by.as_bytes()),
            relative(*time, view.now)
        ),
        RoleWarning::Lost { files: Some(files), by, time, .. } => format!(
            "{} of earlier snapshots cannot be restored: the content is lost in the store, and its source is gone \
             (seen by {} {}). {ADVICE}'runner verify {role}' names them",
            counted(*files, "file", "files"),
            escaped(by.as_bytes()),
            relative(*time, view.now)
        ),
        RoleWarning::OnlyNode => format!(
            "no other node was seen in this store. All nodes of the role must reach this same directory: two nodes \
             with separate directories are both active. {ADVICE}check the directory on the other nodes. If there is \
             no other node, name this one in 'nodes'"
        ),
        RoleWarning::FormerNodes { count } => format!(
            "{} of this name, with other IDs, seen before this one was created: the state directory is not kept, as \
             in a container without a volume, or another machine has this name. Without its state directory each \
             start is a new node: it waits until the old lease expires, and reads all files again. {ADVICE}keep the \
             state directory (--state-dir)",
            counted(*count, "node", "nodes")
        ),
        RoleWarning::RepositoryGone { repository } => format!(
            "no backup can be made: the repository that this node knows ({}) is not in the store. {ADVICE}check \
             whether the store is mounted. Do not run 'runner init' before that is clear",
            short_repository_id(*repository)
        ),
        RoleWarning::AnotherRepository { known, found } => format!(
            "no backup is made here: the store holds another repository ({}) than this node knows there ({}). \
             {ADVICE}check which disk is mounted, and whether an operator began a new history on purpose",
            short_repository_id(*found),
            short_repository_id(*known)
        ),
        RoleWarning::JournalHead { why, .. } => {
            format!("no backup can be made, because the journal cannot be written: {why}")
        }
        RoleWarning::Twin { other } => format!(
            "process {other} uses this node's ID again and again, and this node did not start it. {ADVICE}if a \
             machine was copied with its state directory, stop the copy, or give it an identity of its own there: \
             runner init --new-identity"
        ),
        RoleWarning::StoreRolledBack => format!(
            "the store shows less than this node has seen already: it is an older copy, or was rolled back. Nothing \
             is backed up to it until that is resolved. {ADVICE}check that the right store is mounted, and named in \
             the config. If what is missing is lost for good, 'runner repair {role} --dry-run' tells what is left"
        ),
        RoleWarning::Unread { what, why, .. } => {
            let what = match what {
                UnreadableInput::Peers => "the status of the other nodes cannot be read",
                UnreadableInput::Records => {
                    "it cannot be checked whether the store still has all records of the journal"
                }
                UnreadableInput::Losses => "the notes on content that is lost in the store cannot be read",
                UnreadableInput::Memory => {
                    "this node's memory of the journal cannot be read, so a rollback of the store would not be noticed"
                }
                UnreadableInput::LastRun => "the result of this node's last run cannot be read",
                UnreadableInput::Repository => "this node's note on its repository in the store cannot be read",
                UnreadableInput::Identity => {
                    "this node's identity cannot be read, so the role counts as another node's here"
                }
            };
            format!("{what}: {}", escaped(why.as_bytes()))
        }
        RoleWarning::RecordsLost { first, count } => format!(
            "the store has lost {} of the journal, from record {first} on. This node has read them; a host without \
             that memory cannot read past the gap. {ADVICE}'runner repair {role} --dry-run' tells what is lost",
            counted(*count, "record", "records")
        ),
        RoleWarning::FutureDates(future) => future_dates(role, future, view),
    }
}

/// The state directory cannot be written, and what follows.
pub(super) fn state_unwritable(why: &str, stands_by: bool) -> String {
    let so = if stands_by { "this node could not take the role" } else { "no run can succeed here" };
    format!("the state directory cannot be written, so {so}: {why}")
}

/// A role has lost its schedule, with a hint.
pub(super) fn schedule_missing(role: &RoleName, last: Timestamp, view: &RenderContext) -> String {
    format!(
        "the config has no schedule for this role, and had one: the last scheduled run is from {}, and no further \
         run starts by itself. {ADVICE}set schedule or every in [role.{role}] again",
        relative(last, view.now)
    )
}

/// Records are dated in the future, with a hint.
fn future_dates(role: &RoleName, future: &FutureDates, view: &RenderContext) -> String {
    let dates = counted(future.count, "date lies", "dates lie");
    let latest = format!("{} ({})", minute(future.latest, &view.zone), relative(future.latest, view.now));
    let by = future.node.as_ref().map(|node| format!(" by {}", node.name)).unwrap_or_default();
    let todo = match future.clock {
        WrongClock::Writer => format!(
            "a clock was wrong then. They close no other slot and count for no retention. {ADVICE}'runner journal \
             amend {role}' dates them now"
        ),
        WrongClock::Reader => format!("this node's clock is behind the store's. {ADVICE}set it right"),
        WrongClock::LikelyReader => format!(
            "this node's clock is probably behind: no record is dated by it, or several nodes agree against it. \
             {ADVICE}compare it with another one and set it right"
        ),
        WrongClock::Unclear => format!(
            "either the writer's clock was ahead, or this node's clock is behind. {ADVICE}compare the clocks of the \
             nodes. If this node's clock is right, run 'runner journal amend {role}'"
        ),
    };
    format!("{dates} beyond the present, the latest{by} at {latest}: {todo}")
}

fn missed_cause(cause: &MissedCause, view: &RenderContext) -> String {
    match cause {
        MissedCause::NotEligible => ": the probes say no here, and no node is seen to be active".to_owned(),
        MissedCause::NotListed => ": 'nodes' does not list this node, and no node is seen to be active".to_owned(),
        MissedCause::ClockOff => ": this node's clock is wrong, so it runs no slots".to_owned(),
        MissedCause::HeldBy(by) => format!(": {by} holds the lease, and committed nothing"),
        MissedCause::ActiveHere => ": this node is active. hint: check that its daemon or timer runs".to_owned(),
        MissedCause::Failing => ": the attempts failed".to_owned(),
        MissedCause::Daemon(says) => format!(": the daemon of this node runs, and says: {}", escaped(says.as_bytes())),
        MissedCause::Running { node, since, is_command: false, .. } => {
            format!(
                ": {} began a backup {}, and no end of it is recorded",
                escaped(node.as_bytes()),
                relative(*since, view.now)
            )
        }
        MissedCause::Running { node, since, is_command: true, gone: true } => format!(
            ": {} began its command for 'runner exec' {}, the journal has no end of it, and no process here runs it: \
             it was killed, or the machine restarted. The next 'runner exec --scheduled' starts it again",
            escaped(node.as_bytes()),
            relative(*since, view.now)
        ),
        MissedCause::Running { node, since, is_command: true, gone: false } => format!(
            ": {} began its command for 'runner exec' {}, and the journal has no end of it. {ADVICE}check there \
             whether it hangs. It keeps the lease while it runs, and only 'runner exec --timeout' ends it",
            escaped(node.as_bytes()),
            relative(*since, view.now)
        ),
        MissedCause::ProbesUnknown(why) => {
            let why = why.as_ref().map(|why| format!(": {}", escaped(why.as_bytes()))).unwrap_or_default();
            format!(": the probes cannot tell whether this node is to be active{why}")
        }
        MissedCause::LeaseFree => ": no node holds the lease. hint: check that a daemon or timer runs on one of the \
                                   nodes"
            .to_owned(),
        MissedCause::HasRole(by) => format!(": {} has the role, and committed nothing", escaped(by.as_bytes())),
        MissedCause::NotSeen => String::new(),
    }
}

/// The most empty sources that are named.
const EMPTY_NAMED_MAX: usize = 3;

/// `nothing of /srv/b and 2 more sources is backed up`.
pub(super) fn empty_sources(empty: &EmptySources) -> String {
    let mut parts: Vec<String> = empty.named.iter().take(EMPTY_NAMED_MAX).map(TreePath::display).collect();
    let more = empty.count().saturating_sub(parts.len() as u64);
    match (more, parts.is_empty()) {
        (0, _) => {}
        (n, true) => parts.push(format!("{} that this config does not name", counted(n, "source", "sources"))),
        (n, false) => parts.push(counted(n, "more source", "more sources")),
    }
    format!("nothing of {} is backed up", parts.join(", "))
}

/// The instant of a slot; with seconds only if the schedule has them.
pub(super) fn instant(slot: Timestamp, view: &RenderContext) -> String {
    if slot.as_second() % 60 == 0 { minute(slot, &view.zone) } else { time(slot, &view.zone) }
}

/// The start of a repository's ID, enough to tell it from others.
fn short_repository_id(repository: RepoId) -> String {
    repository.to_string().chars().take(8).collect()
}

pub(super) fn failed(run: &RunSummary, view: &RenderContext) -> String {
    let ago = relative(run.time, view.now);
    let what = match run.step {
        RunStep::Run => "last run",
        RunStep::Takeover => "last try to take the role",
        RunStep::Command => {
            let slot = run.slot.map(|slot| format!(" of slot {}", instant(slot, view))).unwrap_or_default();
            return format!("exec{slot} by node {} {} ({ago})", escaped(run.node.as_bytes()), run.error);
        }
    };
    let times = if run.failures > 1 { format!(", {} in a row", count(u64::from(run.failures))) } else { String::new() };
    let error = if run.error.is_empty() { String::new() } else { format!(": {}", escaped(run.error.as_bytes())) };
    let ended = if run.outcome == RunOutcome::Unknown { "has an unknown outcome," } else { "failed" };
    format!("{what} on {} {ended} {ago}{times}{error}", run.node)
}

fn lease(lease: LeaseKind) -> &'static str {
    match lease {
        LeaseKind::Etcd => "the lease in etcd",
        LeaseKind::Bucket => "the lease in the bucket",
        LeaseKind::None => "no lease",
    }
}

/// The severity, in the words of monitoring plugins.
pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note   ",
        Severity::Warning => "WARNING",
        Severity::Unknown => "UNKNOWN",
        Severity::Critical => "CRITICAL",
    }
}
