//! Errors of this node and of its daemon.

use std::io;

use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, PLAIN, failed, hinted};
use crate::cli::exit::ExitKind;
use crate::daemon::client::ClientError;
use crate::daemon::{DaemonError, SocketError};
use crate::role::identity::IdentityError;

impl CommandPolicy for IdentityError {
    fn policy(&self) -> ErrorPolicy {
        match self {
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
}

impl CommandPolicy for ClientError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            ClientError::Denied(_) => {
                failed("run it as the user that the daemon runs as, which is root for the units: sudo runner …")
            }
            ClientError::HungUp => {
                hinted(ExitKind::Unknown, "run it again: what was committed is found, not repeated.")
            }
            ClientError::Stuck(_) => hinted(
                ExitKind::Unknown,
                "look at the daemon (systemctl status runner) and restart it; then run this again: what was committed is found, not repeated.",
            ),
            ClientError::Refused(_) | ClientError::Silent(_) | ClientError::Io(_) => PLAIN,
        }
    }
}

impl CommandPolicy for SocketError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            SocketError::Busy { .. } => failed(
                "use the daemon that runs: 'runner whoami' shows its state, and SIGHUP makes it read the config again.",
            ),
            SocketError::Io { .. } => PLAIN,
        }
    }
}

impl CommandPolicy for DaemonError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            DaemonError::Socket(error) => error.policy(),
            DaemonError::Signals(error) => error.policy(),
            DaemonError::Identity(error) => error.policy(),
        }
    }
}
