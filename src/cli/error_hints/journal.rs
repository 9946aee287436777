//! Errors of a journal: reading it, appending to it, and the location of its head.

use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, PLAIN, failed, hinted};
use crate::cli::exit::ExitKind;
use crate::job::operate::OperateError;
use crate::journal::error::{AppendError, EtcdHeadError, HeadConflict, JournalError, RecordReplacement};
use crate::journal::record::RecordError;
use crate::journal::register::RegisterError;

impl CommandPolicy for JournalError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            JournalError::Store(error) => error.policy(),
            // Its own text says to update.
            JournalError::Record { error: RecordError::Newer(_), .. } => PLAIN,
            JournalError::Record { .. }
            | JournalError::Fold { .. }
            | JournalError::Hole(_)
            | JournalError::RolledBack { instead: RecordReplacement::Damaged(_), .. } => failed(
                "nothing is written to a damaged journal. Keep the store as it is and find out who changed it. What is \
                 before the damage can be read: name a snapshot by its ID ('runner snapshots ROLE' lists them). 'runner repair ROLE \
                 --dry-run' tells what is left.",
            ),
            JournalError::Unverified(_) => failed(
                "keep the store as it is and find out who changed it. 'runner repair ROLE --dry-run' tells what is left: \
                 run it first on a node that remembers the journal. 'runner restore ROLE --salvage --snapshot ID' writes \
                 a snapshot whose whole ID you noted before.",
            ),
            JournalError::RolledBack { .. } => failed(
                "if this is a copy of the store, or an older one is mounted, mount the right one or name it in the \
                 config: the url below [store]. Otherwise keep the store as it is, find out who rolled it back, and \
                 compare it with another copy, before anything is written to it again. What is left can be read: name a \
                 snapshot by its ID ('runner snapshots ROLE' lists them). Only if what is lost is lost for good, 'runner \
                 repair ROLE' lets the journal continue: run it with --dry-run first.",
            ),
            JournalError::Rotated { .. } => failed(
                "put the new key where the config says, or name it with --key-file. What was written before can be read with this one: name a \
                 snapshot by its ID ('runner snapshots ROLE' lists them).",
            ),
            JournalError::OlderThanKey { .. } => failed(
                "keep the store as it is, find out who rolled it back, and compare it with another copy, before anything \
                 is written to it again. Only if what is lost is lost for good, 'runner repair ROLE' lets the journal \
                 continue: run it with --dry-run first.",
            ),
            JournalError::EtcdHead(error) => error.policy(),
            JournalError::Register(error) => error.policy(),
            JournalError::HeadConflict(HeadConflict::Other(_) | HeadConflict::Damaged(_)) => failed(
                "keep both as they are, and find out who changed etcd or the store. The store has every backup that it shows, and restoring needs \
                 nothing else. Only when it is clear that the store is right, 'runner journal adopt ROLE' goes on from its last record.",
            ),
            JournalError::HeadConflict(_) => failed(
                "the store has every backup, and restoring needs nothing else. Bring back the etcd that has the newest \
                 head; if there is none, 'runner journal adopt ROLE' continues the journal from the store's last record.",
            ),
        }
    }
}

/// An append error may mean more than that the command failed.
impl CommandPolicy for AppendError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            AppendError::Fenced(_) => {
                hinted(ExitKind::Fenced, "'runner whoami ROLE' shows which node has the role now.")
            }
            AppendError::Unknown { .. } => {
                hinted(ExitKind::Unknown, "run it again: what was committed is found, not repeated.")
            }
            AppendError::Expired => hinted(ExitKind::Unknown, "run it again when this node is surely active."),
            AppendError::Moved(_) => failed("run it again."),
            AppendError::NotUnderstood(_) | AppendError::TooLarge { .. } => PLAIN,
            AppendError::Journal(error) => error.policy(),
            AppendError::Store { error, .. } => error.policy(),
            AppendError::Register { error, .. } => error.policy(),
        }
    }
}

impl CommandPolicy for EtcdHeadError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            EtcdHeadError::NoEtcd { .. } => hinted(ExitKind::Usage, "write [etcd] and its endpoints into the config."),
            EtcdHeadError::Disagrees { .. } => hinted(ExitKind::Usage, "write journal = \"auto\", or remove the line."),
        }
    }
}

impl CommandPolicy for RegisterError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            RegisterError::Unreachable(_) => {
                hinted(ExitKind::Unknown, "check the network and [etcd] endpoints, then try again: it is safe.")
            }
            RegisterError::Refused(why) if why.contains("authentication is not enabled") => {
                failed("remove user and password_file from [etcd], or enable etcd's authentication.")
            }
            RegisterError::Refused(_) => {
                failed("check in etcd who may write, how much space is left (alarms), and how large a request may be.")
            }
        }
    }
}

impl CommandPolicy for OperateError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            OperateError::NotEligible { unknown, .. } => hinted(
                if *unknown { ExitKind::Unknown } else { ExitKind::NotActive },
                "run it on the node that is to be active, or make the probes say yes here first. --force does it \
                 anyway.",
            ),
            OperateError::StoreTimeout { .. } => hinted(
                ExitKind::Unknown,
                "check whether the store answers ('runner whoami'), and then what is recorded ('runner journal show \
                 ROLE'). It is safe to run it again.",
            ),
            OperateError::Append(error) => error.policy(),
        }
    }
}
