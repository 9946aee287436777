//! Errors of a store, and of the repository in it.

use std::io;

use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, PLAIN, failed, hinted};
use crate::cli::exit::ExitKind;
use crate::job::repository::init::error::InitError;
use crate::job::repository::open::{OpenError, SecretFileError};
use crate::repo::format::FormatError;
use crate::repo::reader::RepositoryReadError;
use crate::store::{StoreError, StoreErrorKind};

/// The hint for a passphrase file that is missing.
const PASSPHRASE: &str = "write the passphrase into it, on one line, and 'chmod 600' it: 'runner init' makes none. \
                          An existing repository needs the passphrase that the other nodes have.";

/// The hint for a store with more key slots than are tried.
pub(super) const TOO_MANY_SLOTS: &str = "find out who writes to the store: foreign key slots keep yours from being tried. A node that has opened the \
     repository before remembers its slot, and a key from 'runner key export' needs no slot: list the slots there \
     ('runner key list ROLE'), and delete the foreign ones from the bucket.";

/// The hint for a store that no longer shows what was in it.
const GONE: &str = "mount it, or correct [store] url. Only if that history is lost for good, 'runner init --new \
                    ROLE' begins a new one; other nodes may still see the old one.";

/// The hint for a store that shows another history than before.
const ANOTHER: &str = "find out which of the two is right: another disk may be mounted, or another bucket may be \
                       meant. Only if an operator began a new history on purpose, 'runner init --new ROLE' on this \
                       node accepts the repository in the store.";

impl CommandPolicy for StoreError {
    fn policy(&self) -> ErrorPolicy {
        match self.kind {
            StoreErrorKind::NotFound => failed(
                "'runner verify ROLE' tells whether more is missing, and 'runner repair ROLE --dry-run' what comes back.",
            ),
            StoreErrorKind::NoSuchStore if self.store.starts_with("s3:") => failed(
                "check [store] url and endpoint. If there was a store, keep what is there and find out what happened to \
                 it; create the bucket only for a new store.",
            ),
            StoreErrorKind::NoSuchStore => failed(
                "check [store] url, and whether the disk is mounted. If there was a store, keep what is there and find \
                 out what happened to it; create the directory only for a new store.",
            ),
            StoreErrorKind::Denied if self.store.starts_with("file:") => failed(
                "run it as the user that makes the backups, which is root for the units (sudo runner …), or check the directory's owner and mode.",
            ),
            StoreErrorKind::Denied => failed("check the credentials, and what the bucket's policy allows them."),
            StoreErrorKind::NoCredentials => failed(
                "name a file that has them with [store] credentials_file: a line [default], then aws_access_key_id = … and \
                 aws_secret_access_key = …, mode 0600. Or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: in the shell, or for the systemd units in \
                 /etc/runner/environment.",
            ),
            StoreErrorKind::ReadOnly => failed(
                "if only a systemd unit's sandbox prevents writing, 'runner config show --systemd=/etc/systemd/system' \
                 opens it. Otherwise find out why the store's file system is read-only (a disk that fails, a mount \
                 option) and make it writable. Restores work meanwhile.",
            ),
            StoreErrorKind::NoSpace => failed(
                "make room on the store's disk or raise the quota; 'runner prune ROLE' frees what retention no longer keeps. Earlier \
                 backups are not touched.",
            ),
            StoreErrorKind::DiskFault => failed(
                "look at the kernel's log and at the health of the store's disk; 'runner verify ROLE --read-data' names what is damaged.",
            ),
            StoreErrorKind::Unreachable => failed(
                "check the network and [store] endpoint (http or https, host and port), then try again: it is safe.",
            ),
            StoreErrorKind::TooLarge => failed(
                "runner writes no object of that size: another program wrote it, or the disk is damaged. Find out who \
                 can write to the store, and keep what is there; 'runner verify ROLE' names what is affected.",
            ),
            StoreErrorKind::NotAnObject => failed(
                "find out who put it there, and remove it: runner does not. If a folder of the store is on another disk, \
                 mount it there instead of linking to it.",
            ),
            StoreErrorKind::Unsupported => PLAIN,
            StoreErrorKind::Invalid => failed("check [store] region, endpoint and ca_file, and this node's clock."),
            StoreErrorKind::Untrusted => failed(
                "name the authority that signed the certificate with [store] ca_file, and have an expired certificate \
                 renewed. Check that [store] endpoint matches the name in the certificate, and check this node's clock.",
            ),
            StoreErrorKind::Other => failed("look at the store's disk or the server's log."),
        }
    }
}

impl CommandPolicy for RepositoryReadError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            RepositoryReadError::Store(error) => error.policy(),
            RepositoryReadError::Pack { .. }
            | RepositoryReadError::Index { .. }
            | RepositoryReadError::Missing(_)
            | RepositoryReadError::Content { .. }
            | RepositoryReadError::Manifest { .. } => failed(
                "'runner verify ROLE' names everything that is damaged, and 'runner repair ROLE --dry-run' what comes back.",
            ),
        }
    }
}

impl CommandPolicy for OpenError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            OpenError::Store(error) => error.policy(),
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
            OpenError::Secret { error, is_passphrase, .. } => secret_file(error, *is_passphrase),
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
}

/// The policy for a key or passphrase file: what to do depends on which of the two it is.
fn secret_file(error: &SecretFileError, is_passphrase: bool) -> ErrorPolicy {
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

impl CommandPolicy for InitError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            InitError::Open(error) => error.policy(),
            InitError::Store(error) => error.policy(),
            InitError::Gone { .. } => failed(GONE),
            InitError::Unread { .. } => failed("make that file readable. 'runner init --new ROLE' goes on without it."),
            InitError::NotEmpty { .. } => failed(
                "choose another prefix in [store] url. If there was a repository here, keep what is left of it and find \
                 out what happened to its format: 'runner verify ROLE' tells what is there.",
            ),
            InitError::Unproved { .. } => failed(
                "nothing was created. Check the network and the store's server, then run init again: it is safe.",
            ),
            InitError::Proof { .. } => failed(
                "nothing was created. Use a server that keeps conditional writes, or a directory (file://), or configure \
                 [etcd]: the journal can live there.",
            ),
            InitError::EtcdHead(error) => error.policy(),
            InitError::Register(error) => error.policy(),
            InitError::KeyFile { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                failed("make it first (mkdir), or name another key_file.")
            }
            InitError::KeyFile { .. } => {
                failed("make the file's directory writable for this user, or name another key_file.")
            }
            InitError::ExportedKey(_) => failed("name a key_file that does not exist yet: init makes it."),
            InitError::Unknown { .. } => hinted(ExitKind::Unknown, "run it again: it is safe."),
        }
    }
}
