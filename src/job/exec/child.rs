//! A guarded command: it runs in a process group of its own, gets the signals that this program gets, and does not
//! outlive its permission to run.

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::EnvironmentSettings;
use crate::process::CommandBuilder;
pub use crate::process::ProcessExit;

/// The signals that are passed on: those that people and service managers send. `SIGKILL` and `SIGSTOP` cannot be
/// passed on.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Limit of signals that wait to be passed on; further ones are dropped.
const SIGNALS_MAX: usize = 16;

/// Signals that ask for the end of the command.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Runs `command` until it ends, or until `stop` resolves: then the whole process group gets `SIGTERM`, and `SIGKILL`
/// after `grace`. If a passed-on signal asked for the end, the remaining processes have `grace` to end after the first
/// process. Returns the exit and the result of `stop`.
///
/// # Errors
/// The command cannot be started or waited for.
pub(super) async fn run<T>(
    command: &[String],
    environment: &EnvironmentSettings,
    variables: &[(&'static str, String)],
    grace: Duration,
    stop: impl Future<Output = T>,
) -> io::Result<(ProcessExit, Option<T>)> {
    // Before the command starts, so that a signal in between is not lost.
    let mut signals = signals()?;
    let mut group = CommandBuilder::from_command_line(command, environment, variables)?.start()?;
    let terminal = ControllingTerminal::hand_to(group.id());
    tokio::pin!(stop);
    let (mut why, mut told) = (None, false);
    let ended = loop {
        tokio::select! {
            ended = group.ended() => {
                ended?;
                break if told { group.end_remaining(grace).await? } else { group.wait().await? };
            }
            Some(signal) = signals.recv() => {
                told |= ENDING.contains(&signal);
                group.signal(signal);
            }
            said = &mut stop => {
                why = Some(said);
                break group.terminate(grace).await?;
            }
        }
    };
    drop(terminal);
    Ok((ended, why))
}

fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (tell, told) = mpsc::channel(SIGNALS_MAX);
    for passed in PASSED_ON {
        let mut stream = signal(SignalKind::from_raw(passed as i32))?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // `Closed`: the receiver is gone. A full queue drops the signal, since enough signals are waiting.
                if let Err(mpsc::error::TrySendError::Closed(_)) = tell.try_send(passed) {
                    return;
                }
            }
        });
    }
    Ok(told)
}

/// The terminal while it is given to the command's process group: a background group that reads from it would be
/// stopped.
struct ControllingTerminal {
    own: rustix::process::Pid,
    masked: SigSet,
}

impl ControllingTerminal {
    /// `None` if standard input is not a terminal, or not controlled by this process group.
    fn hand_to(group: Option<Pid>) -> Option<Self> {
        let (group, own) = (rustix::process::Pid::from_raw(group?.as_raw())?, getpgrp());
        if !io::stdin().is_terminal() || tcgetpgrp(io::stdin()) != Ok(own) {
            return None;
        }
        // The terminal is taken back from the background, which would stop this process.
        let mut masked = SigSet::empty();
        masked.add(Signal::SIGTTOU);
        masked.thread_block().ok()?;
        tcsetpgrp(io::stdin(), group).ok()?;
        Some(Self { own, masked })
    }
}

impl Drop for ControllingTerminal {
    fn drop(&mut self) {
        // The task may run on another thread now, and each thread has its own mask.
        let _ = self.masked.thread_block();
        let _ = tcsetpgrp(io::stdin(), self.own);
        let _ = self.masked.thread_unblock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interval at which the tests check for an expected change.
    const POLL: Duration = Duration::from_millis(20);

    const LONG: Duration = Duration::from_mins(1);

    fn sh(script: &str) -> Vec<String> {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]
    }

    async fn run<T>(
        command: &[String],
        told: &[(&'static str, String)],
        grace: Duration,
        stop: impl Future<Output = T>,
    ) -> io::Result<(ProcessExit, Option<T>)> {
        super::run(command, &EnvironmentSettings::default(), told, grace, stop).await
    }

    #[tokio::test]
    async fn the_exit_code_comes_back_as_a_shell_would_give_it() {
        let never = || std::future::pending::<()>();
        let none = [];
        let (ended, why) = run(&sh("exit 7"), &none, LONG, never()).await.unwrap();
        assert_eq!((ended, ended.code(), why), (ProcessExit::Exit(7), 7, None));
        let (ended, _) = run(&sh("kill -KILL $$"), &none, LONG, never()).await.unwrap();
        assert_eq!((ended, ended.code()), (ProcessExit::Signal(9), 137));
        let error = run(&["/no/such/program".to_owned()], &none, LONG, never()).await.unwrap_err();
        assert!(error.to_string().starts_with("/no/such/program: "), "{error}");
        let role = [("RUNNER_ROLE", "app".to_owned())];
        assert_eq!(
            run(&sh("test \"$RUNNER_ROLE\" = app"), &role, LONG, never()).await.unwrap().0,
            ProcessExit::Exit(0)
        );
    }

    #[tokio::test]
    async fn without_leave_it_is_asked_to_end_and_then_made_to_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let (ready, child) = (dir.path().join("ready"), dir.path().join("child"));
        let stop = || {
            let ready = ready.clone();
            async move {
                while !ready.exists() {
                    tokio::time::sleep(POLL).await;
                }
                "over"
            }
        };
        let polite = format!("trap 'exit 3' TERM; touch {}; while :; do sleep 0.01; done", ready.display());
        let (ended, why) = run(&sh(&polite), &[], LONG, stop()).await.unwrap();
        assert_eq!((ended, why), (ProcessExit::Exit(3), Some("over")));

        std::fs::remove_file(&ready).unwrap();
        let deaf = format!(
            "trap '' TERM; (trap '' TERM; echo $$; exec sleep 1000) & echo $! > {}; touch {}; wait",
            child.display(),
            ready.display()
        );
        let (ended, why) = run(&sh(&deaf), &[], POLL, stop()).await.unwrap();
        assert_eq!((ended, why), (ProcessExit::Signal(9), Some("over")));
        let child: i32 = std::fs::read_to_string(&child).unwrap().trim().parse().unwrap();
        // The child was killed with the group. It is a zombie until init reaps it.
        let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        for _ in 0..1000 {
            if state().is_empty() || state().contains(") Z ") {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("it lives on: {}", state());
    }
}
