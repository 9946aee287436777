//! SIGINT and SIGTERM: the first asks the job to stop, the second ends the process where it stands. Both are safe: what is
//! not committed is garbage for the next prune, and nothing stays locked.

use std::io::{self, Write as _};

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;
use crate::job::cancel::Cancel;

/// Turns the first signal into `cancel` and ends the process with 130 on the second.
///
/// # Errors
/// The handlers cannot be installed.
pub fn watch(cancel: Cancel) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(Exit::Interrupted.code().into());
            }
            cancel.cancel();
            let _ = writeln!(io::stderr(), "stopping; once more to stop at once");
        }
    });
    Ok(())
}
