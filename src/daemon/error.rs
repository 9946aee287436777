//! Errors that end a daemon.

use std::io;

use crate::daemon::socket::SocketError;
use crate::role::identity::IdentityError;

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The socket cannot be opened.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The signal handlers cannot be installed.
    #[error("{0}")]
    Signals(#[from] io::Error),
    /// The state directory no longer has the identity that the daemon works with.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}
