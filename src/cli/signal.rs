//! SIGINT and SIGTERM: the first asks the job to stop, the second ends the process where it stands. Both are safe: what is
//! not committed is garbage for the next prune, and nothing stays locked.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::ExitKind;
use super::terminal;
use crate::job::node::cancel::CancelToken;

const STOPPING: &str = "stopping: what runs comes to its end first; a second signal ends it at once";

/// How a person hears that a signal was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalNotice {
    /// In a sentence: what runs may take a while.
    Message,
    /// In the log, which is what a daemon says.
    Log,
    /// Not at all: there is nothing that takes time, and a signal is how it ends.
    Silent,
}

impl SignalNotice {
    fn print(self) {
        match self {
            // Below the `^C` that a terminal shows, or the bar.
            Self::Message if terminal::errors_are_seen() => {
                terminal::write_error(&format!("\n{}", terminal::error_page().wrap("", 2, STOPPING)));
            }
            Self::Message => terminal::write_error(&format!("{STOPPING}\n")),
            Self::Log => tracing::info!("{STOPPING}"),
            Self::Silent => {}
        }
    }
}

/// How long a command may take to end. Everything in them ends sooner; a thread that waits for a server that hangs does
/// not, and a service manager kills it without a word: by the units that are shipped after 60 and 90 seconds.
pub const END_MAX: Duration = Duration::from_secs(55);
/// The same for a daemon.
pub const DAEMON_END_MAX: Duration = Duration::from_secs(88);

/// Turns the first signal into `cancel` and ends the process with 130 on the second, or when what is told to end
/// does not.
///
/// # Errors
/// The handlers cannot be installed.
pub fn watch(cancel: CancelToken, end_max: Duration, announced: SignalNotice) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(ExitKind::Interrupted.code().into());
            }
            cancel.cancel();
            announced.print();
            // A thread of its own: whatever hangs, it does not.
            std::thread::spawn(move || exit_after(end_max));
        }
    });
    Ok(())
}

fn exit_after(end_max: Duration) {
    std::thread::sleep(end_max);
    let seconds = end_max.as_secs();
    terminal::write_error(&format!(
        "error: what was told to stop did not within {seconds} s: the process ends as it stands\n"
    ));
    std::process::exit(ExitKind::Interrupted.code().into());
}
