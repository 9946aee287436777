//! Programs that are started: in surroundings that are the same wherever this process runs, and as a group which does not outlive whoever
//! started it. What is told to end has its grace as a group and ends with all its children, and what is dropped is killed.

mod account;
mod cgroup;
mod environment;
pub mod harden;
mod members;
mod output;
mod program;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};

pub use account::UserAccount;
pub use members::{ProcessTree, cpu_ticks, is_cpu_work};
pub use output::log_lines;
pub use program::CommandBuilder;

/// How often a command that was told to end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessExit {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl ProcessExit {
    /// What a shell would make of it: the exit code, or 128 and the signal's number.
    pub fn code(self) -> u8 {
        let code = match self {
            ProcessExit::Exit(code) => code,
            ProcessExit::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => ProcessExit::Exit(code),
            (None, signal) => ProcessExit::Signal(signal.unwrap_or_default()),
        }
    }
}

/// A command with all that it started. Kills all of it if it is dropped while the command runs.
#[derive(Debug)]
pub struct ProcessGroup {
    child: Child,
    members: Option<ProcessTree>,
}

impl ProcessGroup {
    fn new(child: Child, members: Option<ProcessTree>) -> Self {
        Self { child, members }
    }

    /// Its pipes, where they were asked for.
    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for the command's end. What it left behind goes on.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn wait(&mut self) -> io::Result<ProcessExit> {
        self.child.wait().await.map(ProcessExit::of)
    }

    /// Waits for the command's end, and does not reap it: [`ProcessGroup::settle`] may follow.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn ended(&self) -> io::Result<()> {
        let mut ends = signal(SignalKind::child())?;
        while self.members().is_some_and(|members| !members.first_has_ended()) {
            ends.recv().await;
        }
        Ok(())
    }

    /// Gone once the command is reaped, so that the number cannot belong to anybody else.
    pub fn id(&self) -> Option<Pid> {
        self.members().map(ProcessTree::group)
    }

    fn members(&self) -> Option<&ProcessTree> {
        self.members.as_ref().filter(|_| self.child.id().is_some())
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        if let Some(members) = self.members() {
            members.send(signal);
        }
    }

    /// `SIGTERM`, time for all of it to end, then `SIGKILL` to whatever is left.
    ///
    /// # Errors
    /// The kernel does not tell how the command ended.
    pub async fn terminate(&mut self, grace: Duration) -> io::Result<ProcessExit> {
        self.signal(Signal::SIGTERM);
        // A stopped process handles no signal but this and SIGKILL.
        self.signal(Signal::SIGCONT);
        self.end_remaining(grace).await
    }

    /// Time for all of it to end, then `SIGKILL` to whatever is left.
    ///
    /// # Errors
    /// The kernel does not tell how the command ended.
    pub async fn end_remaining(&mut self, grace: Duration) -> io::Result<ProcessExit> {
        let left = async {
            while self.members().is_some_and(ProcessTree::is_alive) {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(grace, left).await;
        // Before the command is reaped: only as long is the group surely its own.
        self.kill();
        self.wait().await
    }

    /// `SIGKILL` to all of it.
    pub fn kill(&self) {
        if let Some(members) = self.members() {
            members.kill();
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests;
