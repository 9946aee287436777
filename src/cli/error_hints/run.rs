//! Errors of a guarded run: a backup, a command of `exec`, a prune.

use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, PLAIN, failed, hinted, unhinted};
use crate::cli::exit::ExitKind;
use crate::job::error::{BackupError, DumpError, GuardError};
use crate::job::exec::ExecError;
use crate::job::local_state::LockError;
use crate::job::node::stall::{RunActivity, RunStall};
use crate::job::prune::error::PruneError;
use crate::tree::scan::{ScanError, ScanErrorKind};

impl CommandPolicy for GuardError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            GuardError::Store(error) => error.policy(),
            GuardError::Open(error) => error.policy(),
            GuardError::Backup(error) => error.policy(),
            GuardError::LeaseProof { .. } => failed(
                "find out what changed in the store's server: it must keep conditional writes. Where none does, the lease can live in \
                 etcd: [etcd], and lease = \"etcd\" in the role.",
            ),
            GuardError::LeaseUnproved { .. } => {
                hinted(ExitKind::Unknown, "check the network and the store's server, then try again: it is safe.")
            }
            GuardError::LeaseInBucket { .. } => hinted(
                ExitKind::Usage,
                "write lease = \"etcd\" in the role: its store ignores the conditional writes that a lease needs.",
            ),
            GuardError::LeaseLocked { .. } => hinted(
                ExitKind::Usage,
                "use a bucket without a default retention, or write lease = \"etcd\" in the role, with an [etcd] section.",
            ),
            GuardError::NoEtcd { .. } | GuardError::NoSchedule { .. } | GuardError::Schedule { .. } => PLAIN,
        }
    }
}

impl CommandPolicy for BackupError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            BackupError::Interrupted => unhinted(ExitKind::Interrupted),
            // In this case the store is the cause, wherever the stall was noticed.
            BackupError::Stalled(RunStall { store_error: Some(_), .. }) => {
                failed("see whether the store answers: 'runner whoami' shows it.")
            }
            BackupError::Stalled(stall) => match stall.last {
                Some(RunActivity::Walking(_) | RunActivity::Reading(_)) => failed(
                    "check whether the files that it reads are on a disk or server that hangs. A run that is only slow \
                     needs a longer stall_timeout.",
                ),
                Some(RunActivity::Dump(_) | RunActivity::Hook(_)) => failed(
                    "run the command by hand, and see what it waits for. A command that prints nothing for a long time \
                     needs a longer stall_timeout.",
                ),
                None => failed("see whether the store answers: 'runner whoami' shows it."),
            },
            BackupError::Store(error) => error.policy(),
            BackupError::Repo(error) => error.policy(),
            BackupError::Journal(error) => error.policy(),
            BackupError::Append(error) => error.policy(),
            BackupError::Scan(ScanError { why: ScanErrorKind::Link(_), .. }) => {
                failed("name the target of the link as the source: only the link itself would be stored.")
            }
            BackupError::Scan(_) => failed("mount it, or correct the role's sources."),
            BackupError::EmptySource { .. } => failed(
                "check that the volume is mounted. If it is meant to be empty, set allow_empty = true for this role.",
            ),
            BackupError::Nothing { .. } | BackupError::NoContent { .. } => failed(
                "check that the volume is mounted, and that exclude leaves something. If it is meant to be empty, set \
                 allow_empty = true for this role.",
            ),
            BackupError::NothingRead { .. } => failed("run it as a user who may read the sources."),
            BackupError::Pattern(_) => failed("write it as in a .gitignore file."),
            BackupError::Proof(_) => {
                failed("make no more backups to this store until its server keeps conditional writes again.")
            }
            BackupError::Unproved(_) => failed("check the network and the store's server, then try again: it is safe."),
            BackupError::Lock(LockError::Busy { .. }) => failed("wait until it is done."),
            BackupError::Lock(LockError::Io { .. }) | BackupError::State { .. } => {
                failed("make the state directory writable, or name another with --state-dir.")
            }
            BackupError::Hook(_) => failed("run the hook's command by hand, and see why it fails."),
            BackupError::Dump { error: DumpError::Empty, .. } => failed(
                "run the command by hand as that user, and see why. If it may print nothing, set allow_empty = true for this \
                 role.",
            ),
            BackupError::Dump { .. } => failed("run the command by hand as that user, and see why it fails."),
            BackupError::Cache(_) | BackupError::Pruned => failed("run it again."),
            BackupError::Stopped | BackupError::Internal(_) => failed("run it again with -vv and report what it logs."),
        }
    }
}

impl CommandPolicy for ExecError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            ExecError::Guard(error) => error.policy(),
            ExecError::Command { .. } => PLAIN,
        }
    }
}

impl CommandPolicy for PruneError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            PruneError::KeepsAll(_) => hinted(ExitKind::Usage, "write keep = { daily = 14, weekly = 8 } in the role."),
            PruneError::Damaged { .. } | PruneError::Index(_) | PruneError::Read(_) => {
                failed("'runner verify ROLE --read-data' names what is damaged. Nothing was forgotten or deleted.")
            }
            PruneError::MayNotDelete(_) => failed("run it with credentials that may delete below packs/ and index/."),
            PruneError::NoRoom { .. } => failed(
                "free that much space on the store's disk: move other files away, then run it again. Nothing was \
                 forgotten or deleted.",
            ),
            PruneError::Session(error) => error.policy(),
            PruneError::Guard(error) => error.policy(),
            PruneError::Store(error) => error.policy(),
        }
    }
}
