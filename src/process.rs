//! A command in a process group of its own, which does not outlive whoever started it: what is told to end ends with all its
//! children, and what is dropped is killed.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// How often a command that was told to end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// What a shell would make of it: the exit code, or 128 and the signal's number.
    pub fn code(self) -> u8 {
        let code = match self {
            Ended::Exit(code) => code,
            Ended::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exit(code),
            (None, signal) => Ended::Signal(signal.unwrap_or_default()),
        }
    }
}

/// Kills the whole group if it is dropped while the command runs.
#[derive(Debug)]
pub struct Group(Child);

impl Group {
    /// Starts the command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self(command.process_group(0).spawn()?))
    }

    /// Its pipes, where they were asked for.
    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        self.0.wait().await.map(Ended::of)
    }

    /// Gone once the command is reaped, so that the number cannot belong to anybody else.
    pub fn id(&self) -> Option<Pid> {
        self.0.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }

    /// Sends a signal to all of it.
    pub fn send(&self, signal: Signal) {
        if let Some(id) = self.id() {
            // An error means that all of it is gone already.
            let _ = killpg(id, signal);
        }
    }

    /// `SIGTERM`, time to end, then `SIGKILL` to whatever of the group is left.
    ///
    /// # Errors
    /// The kernel does not tell how it ended.
    pub async fn end(&mut self, grace: Duration) -> io::Result<Ended> {
        self.send(Signal::SIGTERM);
        // A stopped process handles no signal but this and SIGKILL.
        self.send(Signal::SIGCONT);
        let left = async {
            while !self.id().is_none_or(has_ended) {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(grace, left).await;
        // Before the command is reaped: only as long is the group surely its own.
        self.send(Signal::SIGKILL);
        self.wait().await
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.send(Signal::SIGKILL);
    }
}

/// The kernel's ticks in a second, as it counts them for programs on every architecture.
const TICKS_PER_SECOND: u32 = 100;

/// A process group that burns less than this part of a processor waits: a loop that looks for something every moment burns some hundredths.
const WORK_PART: u32 = 20;

/// Whether so much processor time, in ticks, within that time is work, and no mere looking whether there is any.
pub fn is_work(ticks: u64, within: Duration) -> bool {
    let burnt = Duration::from_secs(ticks) / TICKS_PER_SECOND;
    ticks > 0 && burnt >= within / WORK_PART
}

/// How much processor time a process group has burnt so far, its children that have ended included, in ticks of the kernel. 0 where
/// that cannot be told.
pub fn burnt(group: Pid) -> u64 {
    let Ok(list) = fs::read_dir("/proc") else { return 0 };
    let processes = list.flatten().filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    processes
        .filter_map(|entry| ticks(&fs::read_to_string(entry.path().join("stat")).ok()?, group.as_raw()))
        .fold(0, u64::wrapping_add)
}

/// What one line of proc_pid_stat(5) says of a process of `group`. A command's name may hold anything, blanks and brackets included.
fn ticks(stat: &str, group: i32) -> Option<u64> {
    // After the name: state, parent, group, and with number 14 of the line the four times.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields.get(2)?.parse::<i32>().ok()? != group {
        return None;
    }
    fields.get(11..15)?.iter().map(|time| time.parse::<u64>().ok()).try_fold(0, |sum, time| Some(sum + time?))
}

/// Whether the process has ended, without reaping it.
fn has_ended(id: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(id), flags), Ok(WaitStatus::StillAlive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_group() {
        let line = "7 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 5 6 7 8 20 0 1 0 100 1 2";
        assert_eq!((ticks(line, 42), ticks(line, 41)), (Some(26), None));
        assert_eq!(ticks("7 (a) S 1 42", 42), None);
    }

    #[test]
    fn who_only_looks_whether_there_is_work_does_none() {
        let work = [0, 1, 24, 25, 500].map(|ticks| is_work(ticks, Duration::from_secs(5)));
        assert_eq!(work, [false, false, false, true, true]);
        assert!(!is_work(0, Duration::ZERO) && is_work(1, Duration::from_millis(50)));
    }

    #[tokio::test]
    async fn a_command_that_works_burns_time_and_one_that_sleeps_does_not() {
        let start = |script: &str| Group::spawn(Command::new("sh").args(["-c", script])).unwrap();
        let (busy, idle) = (start("while :; do :; done"), start("exec sleep 600"));
        let burn = |group: &Group| burnt(group.id().unwrap());
        let before = burn(&idle);
        while burn(&busy) < 5 {
            tokio::time::sleep(POLL).await;
        }
        assert!(burn(&idle) - before < 3, "what it takes to start");
    }
}
