//! Exit code and hint of the errors that other errors wrap.

use crate::cli::exit::ExitKind;
use crate::store::{StoreError, StoreErrorKind};

/// An exit code, and a hint if the error's own text has none.
pub(crate) type ErrorPolicy = (ExitKind, Option<&'static str>);

/// The exit code for a failure, with this hint.
pub(crate) fn failed(advice: &'static str) -> ErrorPolicy {
    (ExitKind::Failed, Some(advice))
}

/// The exit code for a failure; the error's text needs no hint.
pub(crate) const PLAIN: ErrorPolicy = (ExitKind::Failed, None);

pub(crate) fn store(error: &StoreError) -> ErrorPolicy {
    match error.kind {
        StoreErrorKind::NotFound => failed(
            "'runner verify ROLE' tells whether more is missing, and 'runner repair ROLE --dry-run' what comes back.",
        ),
        StoreErrorKind::NoSuchStore if error.store.starts_with("s3:") => failed(
            "check [store] url and endpoint. If there was a store, keep what is there and find out what happened to \
             it; create the bucket only for a new store.",
        ),
        StoreErrorKind::NoSuchStore => failed(
            "check [store] url, and whether the disk is mounted. If there was a store, keep what is there and find \
             out what happened to it; create the directory only for a new store.",
        ),
        StoreErrorKind::Denied if error.store.starts_with("file:") => failed(
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
        StoreErrorKind::Unreachable => {
            failed("check the network and [store] endpoint (http or https, host and port), then try again: it is safe.")
        }
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
