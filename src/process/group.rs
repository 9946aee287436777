//! The process group of a started command: its end by a signal, by a grace period, or with its owner.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::members::ProcessTree;

/// How often a terminated command is checked.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessExit {
    /// The command exited with this code.
    Exit(i32),
    /// The command was killed by this signal.
    Signal(i32),
}

impl ProcessExit {
    /// The code that a shell would report: the exit code, or 128 plus the signal's number.
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

/// A command with all processes that it started. Dropping it while the command runs kills all of them.
#[derive(Debug)]
pub struct ProcessGroup {
    child: Child,
    members: Option<ProcessTree>,
}

impl ProcessGroup {
    pub(crate) fn new(child: Child, members: Option<ProcessTree>) -> Self {
        Self { child, members }
    }

    /// The pipes, if they were requested.
    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for the command's end. Its remaining children go on.
    ///
    /// # Errors
    /// The kernel does not report the exit status.
    pub async fn wait(&mut self) -> io::Result<ProcessExit> {
        self.child.wait().await.map(ProcessExit::of)
    }

    /// Waits for the command's end without reaping it, so that [`ProcessGroup::end_remaining`] may follow.
    ///
    /// # Errors
    /// The kernel does not report the end.
    pub async fn ended(&self) -> io::Result<()> {
        let mut ends = signal(SignalKind::child())?;
        while self.members().is_some_and(|members| !members.first_has_ended()) {
            ends.recv().await;
        }
        Ok(())
    }

    /// `None` once the command is reaped, because its number may then belong to another process.
    pub fn id(&self) -> Option<Pid> {
        self.members().map(ProcessTree::group)
    }

    fn members(&self) -> Option<&ProcessTree> {
        self.members.as_ref().filter(|_| self.child.id().is_some())
    }

    /// Sends a signal to all processes.
    pub fn signal(&self, signal: Signal) {
        if let Some(members) = self.members() {
            members.send(signal);
        }
    }

    /// Sends `SIGTERM`, waits up to `grace` for all processes to end, then kills the rest.
    ///
    /// # Errors
    /// The kernel does not report how the command ended.
    pub async fn terminate(&mut self, grace: Duration) -> io::Result<ProcessExit> {
        self.signal(Signal::SIGTERM);
        // A stopped process handles no signal but this one and SIGKILL.
        self.signal(Signal::SIGCONT);
        self.end_remaining(grace).await
    }

    /// Waits up to `grace` for all processes to end, then kills the rest.
    ///
    /// # Errors
    /// The kernel does not report how the command ended.
    pub async fn end_remaining(&mut self, grace: Duration) -> io::Result<ProcessExit> {
        let left = async {
            while self.members().is_some_and(ProcessTree::is_alive) {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(grace, left).await;
        // Before the command is reaped: only until then the group certainly belongs to it.
        self.kill();
        self.wait().await
    }

    /// Sends `SIGKILL` to all processes.
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
