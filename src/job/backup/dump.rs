//! Commands whose standard output becomes a file of the snapshot.
//!
//! A command that fails, is killed, or runs too long fails the whole run, because a partial dump is not a backup. A
//! command without output fails too, unless the role may be empty, because even an empty database has a dump.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::Duration;

use crate::config::DumpSettings;
use crate::job::backup::worker::{EntryResult, ReadWorker};
use crate::job::backup::{BackupError, PipelineContext};
use crate::job::node::stall::{RunActivity, check_interval};
use crate::process::{self, CommandBuilder, ProcessTree, UserAccount};
use crate::repo::entry::{EntryKind, ManifestEntry, OwnerAndMode, TreePath};

/// Bytes of a failed command's standard error that are shown, from its end.
const STDERR_TAIL: usize = 2000;

/// Interval at which a running command is checked for an interrupt.
const POLL: Duration = Duration::from_millis(100);

/// Why a dump failed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The name leads out of the snapshot, or into a source.
    #[error("is no valid file name in the snapshot, or is inside a source")]
    Name,
    /// The user does not exist.
    #[error("there is no user {0}")]
    User(String),
    /// The command could not be started.
    #[error("could not be started: {0}")]
    Start(std::io::Error),
    /// The output could not be read.
    #[error("its output could not be read: {0}")]
    Read(std::io::Error),
    /// The command failed.
    #[error("{status}{}", if stderr.is_empty() { String::new() } else { format!(": {stderr}") })]
    Status {
        /// The exit status or signal.
        status: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// The command succeeded without output.
    #[error("it succeeded and printed nothing")]
    Empty,
    /// The command ran too long and was killed.
    #[error("killed after {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

/// Runs one dump command and stores its output.
pub(crate) fn run(
    shared: &PipelineContext,
    worker: &mut ReadWorker<'_>,
    (name, dump): (&str, &DumpSettings),
    told: &[(&str, String)],
    allow_empty: bool,
) -> Result<EntryResult, BackupError> {
    let failed = |error| BackupError::Dump { name: name.to_owned(), error };
    let path = TreePath::new(name).filter(|p| !p.as_bytes().is_empty()).ok_or_else(|| failed(DumpError::Name))?;
    let seen = shared.observed_at();
    shared.progress.begin(RunActivity::Dump(name.to_owned()));
    let account = match &dump.user {
        None => None,
        Some(user) => {
            let unknown = || failed(DumpError::User(user.clone()));
            Some(UserAccount::named(user).ok().flatten().ok_or_else(unknown)?)
        }
    };
    let (uid, gid) = account.as_ref().map_or((0, 0), |account| (account.uid.as_raw(), account.gid.as_raw()));
    let owner = OwnerAndMode { mode: 0o600, uid, gid, ..OwnerAndMode::default() };
    let program = CommandBuilder::configured(&dump.command, &dump.environment, told, account);
    let started = program.and_then(|program| program.piped(false).start_blocking());
    let (mut child, members) = started.map_err(|error| failed(DumpError::Start(error)))?;
    let mut stdout = child.stdout.take().expect("standard output was asked for");
    let mut stderr = child.stderr.take().expect("standard error was asked for");
    let members = &members;
    let (over, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let words = scope.spawn(move || tail(&mut stderr));
        let watch = scope.spawn(move || enforce_timeout(shared, members, dump.timeout, &ended));
        let content = worker.stream(&mut stdout);
        if !matches!(content, Ok(Ok(_))) {
            members.kill();
        }
        drop(stdout);
        let status = child.wait();
        drop(over);
        let timed_out = watch.join().unwrap_or(false);
        let stderr = words.join().unwrap_or_default();
        let (chunks, size) = content?.map_err(|e| failed(DumpError::Read(e)))?;
        shared.check()?;
        if timed_out {
            return Err(failed(DumpError::Timeout(dump.timeout)));
        }
        let status = status.map_err(|e| failed(DumpError::Read(e)))?;
        if !status.success() {
            return Err(failed(DumpError::Status { status: describe(status), stderr }));
        }
        if size == 0 && !allow_empty {
            return Err(failed(DumpError::Empty));
        }
        let kind = EntryKind::File { size, extents: None, chunks };
        let entry = ManifestEntry { path, kind, owner, mtime: seen, xattrs: Vec::new() };
        Ok(EntryResult { entry: Some(entry.into()), ..EntryResult::default() })
    })
}

/// Keeps the modification time of an unchanged output, so that an unchanged dump gives an unchanged snapshot.
pub(crate) fn keep_time(entry: &mut ManifestEntry, base: &ManifestEntry) {
    if entry.kind == base.kind && entry.owner == base.owner {
        entry.mtime = base.mtime;
    }
}

/// Kills the command when its time is over or the run is stopped. Returns true if the time was over. The processor time
/// of a command without output counts as progress of the run.
fn enforce_timeout(
    shared: &PipelineContext,
    members: &ProcessTree,
    timeout: Duration,
    ended: &mpsc::Receiver<()>,
) -> bool {
    let started = shared.env.clock.boottime();
    let (look, mut looked, mut mark) = (check_interval(shared.stall_timeout), started, 0);
    let mut burnt = (0, started);
    loop {
        match ended.recv_timeout(POLL) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            _ => return false,
        }
        let now = shared.env.clock.boottime();
        if now.saturating_sub(looked) >= look {
            looked = now;
            // If the run makes progress elsewhere, the processor time is not examined.
            let moved = std::mem::replace(&mut mark, shared.progress.mark()) != mark;
            if !moved {
                let (before, since) = std::mem::replace(&mut burnt, (process::cpu_ticks(members.group()), now));
                if process::is_cpu_work(burnt.0.saturating_sub(before), now.saturating_sub(since)) {
                    shared.progress.step();
                    mark = shared.progress.mark();
                }
            }
        }
        let over = now.saturating_sub(started) >= timeout;
        if over || shared.check().is_err() {
            members.kill();
            return over;
        }
    }
}

fn tail(source: &mut dyn Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = source.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..n]);
        let excess = kept.len().saturating_sub(STDERR_TAIL);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
