//! SIGINT and SIGTERM: the first asks the job to stop, the second ends the process at once. Both are safe: uncommitted
//! data is garbage for the next prune, and nothing stays locked.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::ExitKind;
use super::terminal;

const STOPPING: &str = "stopping: the current work ends first; a second signal ends it at once";

/// How the first signal is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalNotice {
    /// With a sentence, because stopping may take a while.
    Message,
    /// With a log message, as a daemon does.
    Log,
    /// Not at all: nothing takes time, and a signal is the usual end.
    Silent,
}

impl SignalNotice {
    fn print(self) {
        match self {
            // Below the `^C` that a terminal shows, or below the bar.
            Self::Message if terminal::errors_are_seen() => {
                terminal::write_error(&format!("\n{}", terminal::error_page().wrap("", 2, STOPPING)));
            }
            Self::Message => terminal::write_error(&format!("{STOPPING}\n")),
            Self::Log => tracing::info!("{STOPPING}"),
            Self::Silent => {}
        }
    }
}

/// How long a command may take to end. All work ends sooner, except a thread that waits for a server that hangs. A
/// service manager would kill it without a message: with the shipped units after 60 and 90 seconds.
pub const END_MAX: Duration = Duration::from_secs(55);
/// As [`END_MAX`], for a daemon.
pub const DAEMON_END_MAX: Duration = Duration::from_secs(88);

/// Turns the first signal into `cancel`. Ends the process with exit code 130 on the second one, or if the job does not
/// end in time.
///
/// # Errors
/// The handlers cannot be installed.
pub fn watch(cancel: CancellationToken, end_max: Duration, announced: SignalNotice) -> io::Result<()> {
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
            // A thread of its own, so that nothing else can block it.
            std::thread::spawn(move || exit_after(end_max));
        }
    });
    Ok(())
}

fn exit_after(end_max: Duration) {
    std::thread::sleep(end_max);
    let seconds = end_max.as_secs();
    terminal::write_error(&format!("error: the work did not stop within {seconds} s: the process exits now\n"));
    std::process::exit(ExitKind::Interrupted.code().into());
}
