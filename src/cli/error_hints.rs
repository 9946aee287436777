//! The exit code and the hint of each error. The kind of an error decides; this is the one table of those decisions.
//!
//! Errors wrap each other, some transparently, so that the wrapped error is not in the chain of sources. Each enum that
//! wraps another error is matched here.

mod journal;
pub(crate) mod policy;

use std::error::Error as StdError;
use std::io;

use self::journal::{append, etcd_head, journal, register};
use super::exit::ExitKind;
use super::render::browse::escaped;
use crate::cli::command_error::{ForeignListingError, Interrupted, UnvouchedError, UsageError};
use crate::cli::error_hints::policy::{ErrorPolicy, PLAIN, failed, store};
use crate::config::ConfigError;
use crate::daemon::SocketError;
use crate::daemon::client::ClientError;
use crate::foreign::bucket::BucketError;
use crate::job::browse::error::{BrowseError, PathHint};
use crate::job::browse::select::SelectError;
use crate::job::error::{BackupError, DumpError, GuardError};
use crate::job::keys::KeysError;
use crate::job::keys::rotate::plan::RotatePlanError;
use crate::job::local_state::LockError;
use crate::job::node::stall::{RunActivity, RunStall};
use crate::job::operate::OperateError;
use crate::job::prune::error::PruneError;
use crate::job::repair::error::RepairError;
use crate::job::repository::init::error::InitError;
use crate::job::repository::open::{OpenError, SecretFileError};
use crate::job::restore::error::RestoreError;
use crate::job::restore::source::SourceErrorKind;
use crate::job::verify::error::VerifyError;
use crate::journal::error::{AppendError, JournalError};
use crate::journal::repair::SalvageError;
use crate::repo::entry::EntryKind;
use crate::repo::format::FormatError;
use crate::repo::reader::RepositoryReadError;
use crate::role::identity::IdentityError;
use crate::store::{StoreError, StoreErrorKind};
use crate::tree::scan::{ScanError, ScanErrorKind};

/// The exit code for `error`, and the hint.
pub fn exit_and_hint(error: &(dyn StdError + 'static)) -> (ExitKind, Option<String>) {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(usage) = error.downcast_ref::<UsageError>() {
            return (ExitKind::Usage, Some(usage.hint.clone()));
        }
        if let Some(judged) = error.downcast_ref::<BrowseError>().map(browse) {
            return judged;
        }
        if let Some((exit, advice)) = policy_of(error) {
            return (exit, advice.map(str::to_owned));
        }
        next = error.source();
    }
    (ExitKind::Failed, None)
}

/// An error of the listing that `audit` is given, or makes.
fn foreign(error: &ForeignListingError) -> ErrorPolicy {
    match &error.error {
        BucketError::Store(error) => foreign_store(error),
        BucketError::Directory { .. } => failed("check the path, and run it as a user who may read there."),
        BucketError::Listing(error) => failed(error.hint()),
    }
}

/// As for a store, where the hint does not name the config.
fn foreign_store(error: &StoreError) -> ErrorPolicy {
    let hint = match error.kind {
        StoreErrorKind::Denied => {
            "the credentials need the right s3:ListBucket, and s3:ListBucketVersions to see overwritten keys."
        }
        StoreErrorKind::NoCredentials => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with --profile. Without any, let a person who has access \
             list the bucket, and read the listing with --listing."
        }
        StoreErrorKind::NoSuchStore => "check the bucket's name, --endpoint and --region.",
        StoreErrorKind::Unreachable => "check the network, --endpoint and --region, then try again.",
        StoreErrorKind::Invalid => "check --region and --endpoint, and this node's clock.",
        StoreErrorKind::Untrusted => {
            "check that --endpoint matches the name in the server's certificate, and this node's clock."
        }
        _ => return store(error),
    };
    failed(hint)
}

/// The policy of one error of the chain, if its kind has one.
fn policy_of(error: &(dyn StdError + 'static)) -> Option<ErrorPolicy> {
    if error.is::<Interrupted>() {
        return Some((ExitKind::Interrupted, None));
    }
    if let Some(GuardError::LeaseProof { .. }) = error.downcast_ref::<GuardError>() {
        return Some(failed(
            "find out what changed in the store's server: it must keep conditional writes. Where none does, the lease can live in \
             etcd: [etcd], and lease = \"etcd\" in the role.",
        ));
    }
    if let Some(GuardError::LeaseUnproved { .. }) = error.downcast_ref::<GuardError>() {
        return Some((
            ExitKind::Unknown,
            Some("check the network and the store's server, then try again: it is safe."),
        ));
    }
    if let Some(GuardError::LeaseInBucket { .. }) = error.downcast_ref::<GuardError>() {
        return Some((
            ExitKind::Usage,
            Some("write lease = \"etcd\" in the role: its store ignores the conditional writes that a lease needs."),
        ));
    }
    if let Some(ClientError::Denied(_)) = error.downcast_ref::<ClientError>() {
        return Some(failed("run it as the user that the daemon runs as, which is root for the units: sudo runner …"));
    }
    if let Some(GuardError::LeaseLocked { .. }) = error.downcast_ref::<GuardError>() {
        return Some((
            ExitKind::Usage,
            Some(
                "use a bucket without a default retention, or write lease = \"etcd\" in the role, with an [etcd] section.",
            ),
        ));
    }
    if let Some(ClientError::HungUp) = error.downcast_ref::<ClientError>() {
        return Some((ExitKind::Unknown, Some("run it again: what was committed is found, not repeated.")));
    }
    if let Some(ClientError::Stuck(_)) = error.downcast_ref::<ClientError>() {
        return Some((
            ExitKind::Unknown,
            Some(
                "look at the daemon (systemctl status runner) and restart it; then run this again: what was committed is found, not repeated.",
            ),
        ));
    }
    if let Some(error) = error.downcast_ref::<IdentityError>() {
        return Some(identity(error));
    }
    if let Some(SocketError::Busy { .. }) = error.downcast_ref::<SocketError>() {
        return Some(failed(
            "use the daemon that runs: 'runner whoami' shows its state, and SIGHUP makes it read the config again.",
        ));
    }
    if error.is::<ConfigError>() {
        // Each problem has its own hints.
        return Some((ExitKind::Usage, None));
    }
    if error.is::<UnvouchedError>() {
        return Some(failed(
            "run it on a node that remembers the journal. If you know the whole ID of a snapshot from before (a report, a log), name it with \
             all its 64 characters: --snapshot ID.",
        ));
    }
    if let Some(error) = error.downcast_ref::<ForeignListingError>() {
        return Some(foreign(error));
    }
    let store = error.downcast_ref::<StoreError>().map(store);
    let journal = || error.downcast_ref::<JournalError>().map(journal);
    let append = || error.downcast_ref::<AppendError>().map(append);
    let repo = || error.downcast_ref::<RepositoryReadError>().map(repo);
    let open = || error.downcast_ref::<OpenError>().map(open);
    let init = || error.downcast_ref::<InitError>().map(init);
    let backup = || error.downcast_ref::<BackupError>().map(backup);
    let restore = || error.downcast_ref::<RestoreError>().map(restore);
    let select = || error.downcast_ref::<SelectError>().map(select);
    let keys = || error.downcast_ref::<KeysError>().map(keys);
    let verify = || error.downcast_ref::<VerifyError>().map(verify);
    let operate = || error.downcast_ref::<OperateError>().map(operate);
    let prune = || error.downcast_ref::<PruneError>().and_then(prune);
    let repair = || error.downcast_ref::<RepairError>().map(repair);
    store
        .or_else(journal)
        .or_else(append)
        .or_else(repo)
        .or_else(open)
        .or_else(init)
        .or_else(backup)
        .or_else(restore)
        .or_else(select)
        .or_else(keys)
        .or_else(verify)
        .or_else(operate)
        .or_else(prune)
        .or_else(repair)
}

/// The hint for a passphrase file that is missing.
const PASSPHRASE: &str = "write the passphrase into it, on one line, and 'chmod 600' it: 'runner init' makes none. \
                          An existing repository needs the passphrase that the other nodes have.";

/// The hint for a store with more key slots than are tried.
const TOO_MANY_SLOTS: &str = "find out who writes to the store: foreign key slots keep yours from being tried. A \
                              node that has opened the repository before remembers its slot, and a key from 'runner \
                              key export' needs no slot: list the slots there ('runner key list ROLE'), and delete \
                              the foreign ones from the bucket.";

/// The hint for a store that no longer shows what was in it.
const GONE: &str = "mount it, or correct [store] url. Only if that history is lost for good, 'runner init --new \
                    ROLE' begins a new one; other nodes may still see the old one.";

/// The hint for a store that shows another history than before.
const ANOTHER: &str = "find out which of the two is right: another disk may be mounted, or another bucket may be \
                       meant. Only if an operator began a new history on purpose, 'runner init --new ROLE' on this \
                       node accepts the repository in the store.";

fn repo(error: &RepositoryReadError) -> ErrorPolicy {
    match error {
        RepositoryReadError::Store(error) => store(error),
        RepositoryReadError::Pack { .. }
        | RepositoryReadError::Index { .. }
        | RepositoryReadError::Missing(_)
        | RepositoryReadError::Content { .. }
        | RepositoryReadError::Manifest { .. } => failed(
            "'runner verify ROLE' names everything that is damaged, and 'runner repair ROLE --dry-run' what comes back.",
        ),
    }
}

fn open(error: &OpenError) -> ErrorPolicy {
    match error {
        OpenError::Store(error) => store(error),
        OpenError::NoRepository { .. } => failed(
            "if there should be one, keep the store as it is and find out what happened to it: check the role's \
             name, [store] url and whether the disk is mounted. For a new role 'runner init' makes it.",
        ),
        OpenError::Another { .. } => failed(ANOTHER),
        OpenError::Gone { .. } => failed(
            "mount it, or correct [store] url. If other objects of it are there, 'runner repair ROLE --dry-run' \
             tells what is left. Only if that history is lost for good, 'runner init --new ROLE' begins a new one; \
             other nodes may still see the old one.",
        ),
        OpenError::Secret { error, is_passphrase, .. } => secret(error, *is_passphrase),
        OpenError::WrongSecret { untried: 1.., .. } => failed(TOO_MANY_SLOTS),
        OpenError::WrongSecret { .. } => failed(
            "use the key file or passphrase of the node that makes the backups. 'runner key rotate' on another node \
             may have replaced this one. Or its key slot is damaged: 'runner verify ROLE' tells, and 'runner repair \
             ROLE --key-slot' on a node that opened the repository before writes it again.",
        ),
        OpenError::NoKeySlots { .. } => failed(
            "keep the store as it is. Run it again: the store may have listed too little. If it stays so, find out who removed the key \
             slots; a key from 'runner key export' opens the repository without them, and 'runner repair ROLE --key-slot' on a node that \
             opened it before writes its slot again.",
        ),
        OpenError::NotEncrypted { .. } => failed(
            "keep the store and the config as they are. If this repository was ever encrypted, another one has been \
             put in its place: find out who did that, and compare with another copy of the store. Open it without a \
             key only if you know that it was created without encryption.",
        ),
        OpenError::KeyNeeded { .. } => failed("name it: key_file or passphrase_file in the config, or --key-file."),
        OpenError::Format { error: FormatError::Newer(_), .. } => PLAIN,
        OpenError::Format { error: FormatError::OtherRole { .. }, .. } => failed(
            "correct the role's name if it is mistyped; otherwise keep the store as it is, and find out who moved it.",
        ),
        OpenError::Format { .. } => {
            failed("keep the store as it is, find out who changed it, and compare with another copy of the store.")
        }
    }
}

/// The policy for errors of this node's identity.
fn identity(error: &IdentityError) -> ErrorPolicy {
    match error {
        IdentityError::NoPlace => failed("name a directory with --state-dir DIR, or set HOME."),
        IdentityError::Directory { source, .. } | IdentityError::File { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => {
                failed("run it as root, as the units do (sudo runner …), or name another with --state-dir DIR.")
            }
            io::ErrorKind::StorageFull => failed("make room on the disk of the state directory."),
            _ => failed("make the state directory readable and writable, or name another with --state-dir DIR."),
        },
        IdentityError::Exposed { .. } | IdentityError::Replaced { .. } | IdentityError::Lost { .. } => PLAIN,
    }
}

fn secret(error: &SecretFileError, is_passphrase: bool) -> ErrorPolicy {
    match error {
        SecretFileError::Exposed(_) => failed(
            "remove the permission (chmod o-w, on the file and on the directories above it), and make sure that it \
             is still the right file: 'runner key list ROLE' tells which key opens the repository.",
        ),
        SecretFileError::Io(error) => match error.kind() {
            io::ErrorKind::NotFound if is_passphrase => failed(PASSPHRASE),
            io::ErrorKind::NotFound => failed("copy the file from the node on which 'runner init' made it."),
            io::ErrorKind::IsADirectory => {
                failed("name the file in it: key_file = \"/etc/runner/repository.key\", for example.")
            }
            io::ErrorKind::FileTooLarge => failed(
                "the file is too large for a key, so another file is meant: correct key_file or passphrase_file.",
            ),
            io::ErrorKind::PermissionDenied => failed(
                "run it as the user that makes the backups, which is root for the units (sudo runner …), or check the owner and mode of the file \
                 and of the directories that it is in.",
            ),
            _ => failed("look at the disk that it is on."),
        },
        SecretFileError::Silent(_) => failed(
            "check whether it is a FIFO without a writer, or on a disk or server that hangs: 'cat' shows whether it \
             can be read.",
        ),
        SecretFileError::Content(_) if is_passphrase => failed(PASSPHRASE),
        SecretFileError::Content(_) => failed("copy the file again from the node on which 'runner init' made it."),
    }
}

fn init(error: &InitError) -> ErrorPolicy {
    match error {
        InitError::Open(error) => open(error),
        InitError::Store(error) => store(error),
        InitError::Gone { .. } => failed(GONE),
        InitError::Unread { .. } => failed("make that file readable. 'runner init --new ROLE' goes on without it."),
        InitError::NotEmpty { .. } => failed(
            "choose another prefix in [store] url. If there was a repository here, keep what is left of it and find \
             out what happened to its format: 'runner verify ROLE' tells what is there.",
        ),
        InitError::Unproved { .. } => {
            failed("nothing was created. Check the network and the store's server, then run init again: it is safe.")
        }
        InitError::Proof { .. } => failed(
            "nothing was created. Use a server that keeps conditional writes, or a directory (file://), or configure \
                 [etcd]: the journal can live there.",
        ),
        InitError::EtcdHead(error) => etcd_head(error),
        InitError::Register(error) => register(error),
        InitError::KeyFile { error, .. } if error.kind() == io::ErrorKind::NotFound => {
            failed("make it first (mkdir), or name another key_file.")
        }
        InitError::KeyFile { .. } => {
            failed("make the file's directory writable for this user, or name another key_file.")
        }
        InitError::ExportedKey(_) => failed("name a key_file that does not exist yet: init makes it."),
        InitError::Unknown { .. } => (ExitKind::Unknown, Some("run it again: it is safe.")),
    }
}

fn backup(error: &BackupError) -> ErrorPolicy {
    match error {
        BackupError::Interrupted => (ExitKind::Interrupted, None),
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
        BackupError::Store(error) => store(error),
        BackupError::Repo(error) => repo(error),
        BackupError::Journal(error) => journal(error),
        BackupError::Append(error) => append(error),
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

fn select(error: &SelectError) -> ErrorPolicy {
    match error {
        SelectError::Syntax(_) => (ExitKind::Usage, Some("'runner snapshots ROLE' lists what there is.")),
        SelectError::Ambiguous { .. } => failed("give more characters of the ID."),
        SelectError::NoSnapshots => failed("'runner backup ROLE' makes the first one."),
        _ => failed("'runner snapshots ROLE' lists what there is."),
    }
}

/// Similar paths that may have been meant are part of the hint.
fn browse(error: &BrowseError) -> (ExitKind, Option<String>) {
    let advice = match error {
        BrowseError::NotFound { hint: Some(PathHint::Near(path)), .. } => format!("did you mean {}?", path.display()),
        BrowseError::NotFound { hint: Some(PathHint::Link { at, target }), .. } => {
            format!("{} is a symbolic link to {}: look there.", at.display(), escaped(target))
        }
        BrowseError::NotFound { hint: None, .. } => {
            "'runner find ROLE NAME --snapshot all' looks for it everywhere.".to_owned()
        }
        BrowseError::NotAFile { kind: EntryKind::Dir, .. } => "'runner ls' lists what is in it.".to_owned(),
        BrowseError::NotAFile { .. } => "'runner restore --path' writes it back.".to_owned(),
        BrowseError::Unsound { .. } => "'runner verify ROLE' names everything that is damaged.".to_owned(),
        BrowseError::Pattern { .. } => return (ExitKind::Usage, Some("write it as in a .gitignore file.".to_owned())),
        BrowseError::Repo(error) => {
            let (exit, advice) = repo(error);
            return (exit, advice.map(str::to_owned));
        }
        BrowseError::Output(_) => return (ExitKind::Failed, None),
    };
    (ExitKind::Failed, Some(advice))
}

fn keys(error: &KeysError) -> ErrorPolicy {
    match error {
        KeysError::Open(OpenError::Secret { error: SecretFileError::Io(error), .. })
            if error.kind() == io::ErrorKind::NotFound =>
        {
            failed("name an existing file: write the passphrase into it first. Only --new-key-file creates a file.")
        }
        KeysError::Open(error) => open(error),
        KeysError::Store(error) => store(error),
        KeysError::Put(error) => init(error),
        KeysError::Journal(error) => journal(error),
        KeysError::Append(error) => append(error),
        KeysError::Operate(error) => operate(error),
        KeysError::Superseded { .. } => failed("put the new key where the config says, or name it with --key-file."),
        KeysError::Plan(RotatePlanError::Unaccounted(_)) => failed(
            "name the file of each key that is to stay with --keep-key-file or --keep-passphrase-file, and each \
             other key with --drop KEY.",
        ),
        KeysError::NotInPlace(_) => failed("find out who changed it, and run it again with the same files."),
        KeysError::Overtaken(_) => (
            ExitKind::Fenced,
            Some(
                "nothing was changed. Put the new key where the config says, and run it again only if another one is wanted.",
            ),
        ),
        KeysError::NotAtHand(_) => (
            ExitKind::Fenced,
            Some(
                "if the other rotation is still running, wait for it. Otherwise run it again with the file of the \
                 first try as --new-key-file or --new-passphrase-file, or name a file that it kept with \
                 --keep-key-file or --keep-passphrase-file. Nothing else opens what is written under the new key. \
                 The key in use still opens earlier backups: 'runner restore ROLE --snapshot ID'.",
            ),
        ),
        KeysError::TooManySlots(_) => failed(
            "find out who writes to the store, and delete the slots that are not yours ('runner key list ROLE' says which one is this \
             key's).",
        ),
        KeysError::InUse => failed(
            "name a file that does not exist yet: a new key is made in it. A key that stays is named with \
             --keep-key-file or --keep-passphrase-file.",
        ),
        KeysError::OpensNothing(_) => {
            failed("name a file that opens the repository now; a new key is named with --new-key-file.")
        }
        KeysError::Last(_) => failed("add another key first: runner key add ROLE --new-key-file FILE"),
        KeysError::Own(_) => failed("run it with the key that is to stay: in the config, or by --key-file."),
        KeysError::Denied { .. } => failed("use credentials that may delete there."),
        KeysError::ExportedKey(_) => failed("name a file that does not exist yet: a new key is made in it."),
        KeysError::File { error, .. } if error.kind() == io::ErrorKind::NotFound => {
            failed("make it first (mkdir), or name another file.")
        }
        KeysError::File { .. } => failed("name a file that does not exist yet, where this user may write."),
        KeysError::NotEncrypted
        | KeysError::AlreadyThere { .. }
        | KeysError::NoSuchKey { .. }
        | KeysError::Plan(_)
        | KeysError::TooManyGenerations => PLAIN,
    }
}

fn verify(error: &VerifyError) -> ErrorPolicy {
    match error {
        VerifyError::Open(error) => open(error),
        VerifyError::Store(error) => store(error),
        VerifyError::Rotated(error) => journal(error),
        // Their own text says to update.
        VerifyError::Newer { .. } | VerifyError::NotUnderstood(_) => PLAIN,
        VerifyError::Broken(_) => failed("run it again with -vv and report what it logs."),
    }
}

fn operate(error: &OperateError) -> ErrorPolicy {
    match error {
        OperateError::NotEligible { unknown, .. } => (
            if *unknown { ExitKind::Unknown } else { ExitKind::NotActive },
            Some(
                "run it on the node that is to be active, or make the probes say yes here first. --force does it \
                 anyway.",
            ),
        ),
        OperateError::StoreTimeout { .. } => (
            ExitKind::Unknown,
            Some(
                "check whether the store answers ('runner whoami'), and then what is recorded ('runner journal show \
                 ROLE'). It is safe to run it again.",
            ),
        ),
        OperateError::Append(error) => append(error),
    }
}

fn prune(error: &PruneError) -> Option<ErrorPolicy> {
    Some(match error {
        PruneError::KeepsAll(_) => (ExitKind::Usage, Some("write keep = { daily = 14, weekly = 8 } in the role.")),
        PruneError::Damaged { .. } | PruneError::Index(_) | PruneError::Read(_) => {
            failed("'runner verify ROLE --read-data' names what is damaged. Nothing was forgotten or deleted.")
        }
        PruneError::MayNotDelete(_) => failed("run it with credentials that may delete below packs/ and index/."),
        PruneError::NoRoom { .. } => failed(
            "free that much space on the store's disk: move other files away, then run it again. Nothing was \
             forgotten or deleted.",
        ),
        // Their source decides.
        PruneError::Session(_) | PruneError::Guard(_) | PruneError::Store(_) => return None,
    })
}

fn repair(error: &RepairError) -> ErrorPolicy {
    match error {
        RepairError::UntriedSlots { .. } | RepairError::Open(OpenError::WrongSecret { untried: 1.., .. }) => {
            failed(TOO_MANY_SLOTS)
        }
        RepairError::Open(OpenError::NoKeySlots { .. } | OpenError::WrongSecret { .. }) => failed(
            "keep the store as it is. A key from 'runner key export', or another node that has opened the repository \
             before, can open it.",
        ),
        RepairError::Open(OpenError::NoRepository { .. }) => failed(
            "check [store] url and whether the disk is mounted. `format` comes back on a node that has made a backup there, or by \
             a key that opens one of the key slots.",
        ),
        RepairError::Open(error) => open(error),
        RepairError::Store(error) | RepairError::Mend(SalvageError::Store(error)) => store(error),
        RepairError::Mend(SalvageError::Newer { .. }) => PLAIN,
        RepairError::Mend(SalvageError::TooMany { .. }) => failed(
            "keep the store as it is, and find out who changed it. The administrator of the store can move an object \
             away that is no record of this journal. If the store is an old copy, 'runner restore --salvage' writes \
             what is whole.",
        ),
        RepairError::Journal(error) | RepairError::Mend(SalvageError::Rotated(error)) => journal(error),
        RepairError::Busy(_) => {
            failed("run it again. If the role's slots follow each other closely, run 'runner pause ROLE' first.")
        }
        RepairError::Append(error) => append(error),
        RepairError::Operate(error) => operate(error),
        RepairError::Register(error) => register(error),
        RepairError::NoHead(_) => {
            failed("bring back the etcd that has the head, or run the repair on a node that remembers `format`.")
        }
        RepairError::Proof { .. } => failed(
            "write [etcd] into the config if the journal was there; otherwise find out what changed in the store's server.",
        ),
        RepairError::Put(error) => init(error),
        RepairError::Read(error) => repo(error),
        RepairError::Packs(error) => backup(error),
    }
}

fn restore(error: &RestoreError) -> ErrorPolicy {
    match error {
        RestoreError::Target(error) => match error.source.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                failed("there is a file in its place or on the path to it: name a directory with --target.")
            }
            io::ErrorKind::PermissionDenied => {
                failed("run it as root (sudo runner …), or choose a directory that this user may write to.")
            }
            _ => failed("choose another directory with --target."),
        },
        RestoreError::Write { .. } => {
            failed("make room or choose another --target, then run it again: what is complete is not fetched again.")
        }
        RestoreError::Source(source) if source.kind == SourceErrorKind::Unavailable => {
            failed("run it again when the store answers: what is complete is not fetched again.")
        }
        RestoreError::Source(_) | RestoreError::Unsorted { .. } => {
            failed("'runner verify ROLE' names what is damaged; an older --snapshot may be whole.")
        }
        RestoreError::Pattern { .. } => failed("write it as in a .gitignore file."),
        RestoreError::Broken(_) => failed("run it again with -vv and report what it logs."),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::ids::{Digest, InstanceId, KeyGeneration, NodeId, Seq, Term};
    use crate::job::error::GuardError;
    use crate::job::repository::init::error::InitError;
    use crate::job::restore::error::RestoreError;
    use crate::journal::body::{TakeoverReason, WriterNode};
    use crate::journal::error::{HeadConflict, RecordReplacement};
    use crate::journal::state::RoleHolder;
    use crate::repo::keyslot::SlotSecretError;
    use crate::store::StoreErrorKind;

    /// An error of a job that wraps another one.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Wrapped(#[source] BackupError);

    fn denied() -> StoreError {
        StoreError {
            kind: StoreErrorKind::Denied,
            store: "s3://backups/prod".to_owned(),
            key: None,
            detail: String::new(),
            version: None,
        }
    }

    #[test]
    fn a_fence_is_a_fence_through_every_wrapping() {
        let holder = RoleHolder {
            term: Term(8),
            takeover: Digest([8; 32]),
            seq: Seq(9),
            node: WriterNode { id: NodeId([2; 16]), name: "app02".to_owned() },
            instance: InstanceId([2; 8]),
            why: TakeoverReason::Moved,
            time: Timestamp::UNIX_EPOCH,
            command: None,
            store_time: None,
            handed_over: None,
        };
        let fenced = AppendError::Fenced(Box::new(holder));
        assert_eq!(exit_and_hint(&Wrapped(fenced.into())).0, ExitKind::Fenced);
        let unknown = || AppendError::Unknown { seq: Seq(7), why: "timeout".to_owned() };
        assert_eq!(exit_and_hint(&unknown()).0, ExitKind::Unknown);
        assert_eq!(
            exit_and_hint(&Wrapped(unknown().into())).0,
            ExitKind::Unknown,
            "transparent errors hide what they wrap"
        );
        assert_eq!(exit_and_hint(&Wrapped(AppendError::Expired.into())).0, ExitKind::Unknown);
        assert_eq!(exit_and_hint(&Wrapped(BackupError::Interrupted)).0, ExitKind::Interrupted);
        assert_eq!(exit_and_hint(&Wrapped(BackupError::Pruned)).0, ExitKind::Failed);
    }

    #[test]
    fn advice_is_about_what_was_seen() {
        let secret = |is_passphrase, kind: io::ErrorKind| {
            let error = SecretFileError::Io(kind.into());
            exit_and_hint(&OpenError::Secret { path: "/k".into(), is_passphrase, error }).1.unwrap()
        };
        assert!(secret(false, io::ErrorKind::NotFound).contains("'runner init' made it"));
        assert!(secret(true, io::ErrorKind::NotFound).contains("'runner init' makes none"), "init makes none");
        assert!(secret(false, io::ErrorKind::PermissionDenied).contains("sudo runner"));
        assert!(secret(false, io::ErrorKind::FileTooLarge).contains("another file"));
        let empty = OpenError::Secret { path: "/k".into(), is_passphrase: true, error: SlotSecretError::Empty.into() };
        assert!(exit_and_hint(&empty).1.unwrap().contains("'runner init' makes none"));

        let of =
            |kind, store: &str| exit_and_hint(&StoreError { kind, store: store.to_owned(), ..denied() }).1.unwrap();
        let directory = of(StoreErrorKind::Denied, "file:///mnt/store");
        assert!(directory.contains("sudo runner") && !directory.contains("credentials"), "{directory}");
        assert!(of(StoreErrorKind::Denied, "s3://b at http://h").contains("credentials"));
        assert!(!of(StoreErrorKind::NoSuchStore, "s3://b at http://h").contains("disk"));
        assert!(of(StoreErrorKind::NoSuchStore, "file:///mnt/store").contains("disk"));

        let target = |kind: io::ErrorKind| {
            let error = crate::tree::write::TargetError { path: "/t".into(), source: kind.into() };
            exit_and_hint(&RestoreError::Target(error)).1.unwrap()
        };
        assert!(target(io::ErrorKind::PermissionDenied).contains("sudo runner"));
        assert!(target(io::ErrorKind::NotADirectory).contains("there is a file in its place"));
        assert!(exit_and_hint(&IdentityError::NoPlace).1.unwrap().contains("--state-dir"));
    }

    #[test]
    fn a_store_gives_the_same_advice_wherever_it_fails() {
        let advice = exit_and_hint(&denied()).1;
        assert!(advice.is_some());
        assert_eq!(exit_and_hint(&JournalError::Store(denied())).1, advice);
        assert_eq!(exit_and_hint(&AppendError::Store { seq: Seq(7), error: denied() }).1, advice);
        assert_eq!(exit_and_hint(&OpenError::Store(denied())).1, advice);
        assert_eq!(exit_and_hint(&InitError::Open(OpenError::Store(denied()))).1, advice);
        assert_eq!(exit_and_hint(&Wrapped(RepositoryReadError::Store(denied()).into())).1, advice);
    }

    #[test]
    fn a_request_that_failed_is_no_broken_promise() {
        use crate::store::proof::{ProofFailure, WriteCondition};
        for kind in
            [StoreErrorKind::NoSpace, StoreErrorKind::ReadOnly, StoreErrorKind::DiskFault, StoreErrorKind::Denied]
        {
            let error = || StoreError { kind, ..denied() };
            let advice = exit_and_hint(&error()).1;
            assert_eq!(exit_and_hint(&Wrapped(ProofFailure::Store(error()).into())).1, advice, "{kind:?}");
            let lease = GuardError::of_lease_proof(&"app".parse().unwrap(), ProofFailure::Store(error()));
            assert_eq!(exit_and_hint(&lease).1, advice, "{kind:?}");
        }
        let role = "app".parse().unwrap();
        let silent = || ProofFailure::CannotTell { why: "timeout".to_owned() };
        assert!(exit_and_hint(&Wrapped(silent().into())).1.unwrap().contains("try again"));
        assert_eq!(exit_and_hint(&GuardError::of_lease_proof(&role, silent())).0, ExitKind::Unknown);
        let broken = ProofFailure::Overwritten { condition: WriteCondition::Absent, key: "k".to_owned() };
        assert!(exit_and_hint(&Wrapped(broken.into())).1.unwrap().contains("no more backups"));
    }

    /// No hint begins with a step that an attacker needs.
    #[test]
    fn no_advice_completes_an_attack() {
        let role = || "app".parse().unwrap();
        let store = || "file:///mnt/store".to_owned();
        let seq = Seq(7);
        let errors: Vec<Box<dyn StdError>> = vec![
            Box::new(OpenError::NoRepository { role: role(), store: store() }),
            Box::new(OpenError::NotEncrypted { role: role() }),
            Box::new(OpenError::NoKeySlots { role: role(), store: store() }),
            Box::new(OpenError::Format { role: role(), error: FormatError::Forged }),
            Box::new(OpenError::Format { role: role(), error: FormatError::Damaged("x".to_owned()) }),
            Box::new(OpenError::Format {
                role: role(),
                error: FormatError::OtherRole { found: "web".parse().unwrap(), wanted: role() },
            }),
            Box::new(InitError::NotEmpty { store: store(), key: "app/journal/1".to_owned() }),
            Box::new(JournalError::RolledBack { seq, seen: Digest([1; 32]), instead: RecordReplacement::Nothing }),
            Box::new(JournalError::OlderThanKey { now: KeyGeneration(0), given: KeyGeneration(1) }),
            Box::new(JournalError::Hole(seq)),
            Box::new(JournalError::HeadConflict(HeadConflict::Other(seq))),
            Box::new(StoreError { kind: StoreErrorKind::NoSuchStore, ..denied() }),
        ];
        for error in errors {
            let advice = exit_and_hint(error.as_ref()).1.unwrap();
            assert!(advice.contains("keep ") || advice.contains("Keep "), "{error}: {advice}");
            assert!(advice.contains("find out"), "{error}: {advice}");
            for harmful in ["encryption = \"none\"", "--no-encryption", "lease = \"none\"", "empty ", "delete"] {
                assert!(!advice.contains(harmful), "{error}: {advice}");
            }
        }
    }

    #[test]
    fn usage_says_itself_what_to_do() {
        let usage = UsageError { message: "x".to_owned(), hint: "y".to_owned() };
        assert_eq!(exit_and_hint(&usage), (ExitKind::Usage, Some("y".to_owned())));
        assert_eq!(exit_and_hint(&Interrupted), (ExitKind::Interrupted, None));
        assert_eq!(exit_and_hint(&io::Error::other("disk on fire")), (ExitKind::Failed, None));
    }
}
