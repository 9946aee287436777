//! A command as evidence: exit 0 is yes, 1 is no, everything else is unknown, a timeout too.
//!
//! The command runs in its own process group, so that a timeout ends the children of a shell script as well.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

use super::{ProbeAnswer, ProbeDetail};
use crate::config::EnvironmentSettings;
use crate::ids::{RoleName, Term};
use crate::process::{CommandBuilder, ProcessExit};
use crate::text;

/// How much output is kept, in bytes, to find its first line.
const OUTPUT_MAX: usize = 4096;

/// How much of the first line is shown, in bytes.
const LINE_MAX: usize = 200;

/// How long to wait for output after the command ended. What it wrote is in the pipe by then; only a child that it left
/// behind can keep the pipe open, and the probe does not wait for that.
const DRAIN: Duration = Duration::from_millis(200);

pub(super) async fn ask(
    command: &[String],
    timeout: Duration,
    context: &CommandVariables,
) -> (ProbeAnswer, ProbeDetail) {
    let finished = match run(command, timeout, context).await {
        Ok(finished) => finished,
        Err(e) => return (ProbeAnswer::Unknown, ProbeDetail::NotRun(e.to_string())),
    };
    let answer = match finished.ended {
        Some(ProcessExit::Exit(0)) => ProbeAnswer::Yes,
        Some(ProcessExit::Exit(1)) => ProbeAnswer::No,
        _ => ProbeAnswer::Unknown,
    };
    (answer, finished.detail(timeout))
}

/// How a command ended, and the beginning of its output.
pub(super) struct FinishedCommand {
    /// `None`: the command timed out.
    pub(super) ended: Option<ProcessExit>,
    pub(super) out: Vec<u8>,
    err: Vec<u8>,
}

impl FinishedCommand {
    /// How the command ended, with the first line of its output.
    pub(super) fn detail(&self, timeout: Duration) -> ProbeDetail {
        let line = first_line(&self.err).or_else(|| first_line(&self.out));
        match self.ended {
            None => ProbeDetail::TimedOut { after: timeout, line },
            Some(ProcessExit::Exit(code)) => ProbeDetail::Exit { code, line },
            Some(ProcessExit::Signal(signal)) => ProbeDetail::Signal { signal, line },
        }
    }
}

/// Runs a command until it ends, or until the timeout.
///
/// # Errors
/// The command could not be started or watched.
pub(super) async fn run(
    command: &[String],
    timeout: Duration,
    context: &CommandVariables,
) -> Result<FinishedCommand, std::io::Error> {
    let program = CommandBuilder::configured(command, &context.environment, &context.variables(), None)?;
    let mut group = program.piped(false).start()?;
    let (_, out, err) = group.pipes();
    let (out, err) = (OutputHead::of(out), OutputHead::of(err));
    let ended = if let Ok(ended) = tokio::time::timeout(timeout, group.wait()).await {
        Some(ended?)
    } else {
        group.kill();
        // Reaped, so that no zombie is left. After SIGKILL only the kernel can delay this.
        group.wait().await?;
        None
    };
    let (err, out) = (err.finish().await, out.finish().await);
    Ok(FinishedCommand { ended, out, err })
}

/// The beginning of a stream. The rest is read and dropped, so that the command never blocks on a full pipe.
struct OutputHead {
    kept: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl OutputHead {
    fn of(source: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let reading = tokio::spawn(async move {
            let Some(mut source) = source else { return };
            let mut buffer = [0; OUTPUT_MAX];
            while let Ok(count @ 1..) = source.read(&mut buffer).await {
                let mut kept = into.lock();
                let room = OUTPUT_MAX - kept.len();
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        });
        Self { kept, reading }
    }

    /// What was read until the end of the stream, or until [`DRAIN`] is over.
    async fn finish(mut self) -> Vec<u8> {
        // Whether or not the stream ended in time, what was read so far is the answer.
        let _ = tokio::time::timeout(DRAIN, &mut self.reading).await;
        self.reading.abort();
        std::mem::take(&mut *self.kept.lock())
    }
}

/// The first line that is not empty, made safe to show.
pub(super) fn first_line(output: &[u8]) -> Option<String> {
    let output = String::from_utf8_lossy(output);
    let line = output.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(text::line(&line.chars().take(LINE_MAX).collect::<String>()).into_owned())
}

/// The environment variables that commands of a role get.
#[derive(Debug, Clone)]
pub struct CommandVariables {
    /// `RUNNER_NODE`: the node's label.
    pub node: String,
    /// `RUNNER_ROLE`.
    pub role: RoleName,
    /// `RUNNER_TERM`, where known.
    pub term: Option<Term>,
    /// `RUNNER_SLOT`, where there is one.
    pub slot: Option<Timestamp>,
    /// The variables that the config sets for the role's commands.
    pub environment: EnvironmentSettings,
}

impl CommandVariables {
    /// The variables of a role on a node, without term, slot and the config's variables.
    pub fn new(node: impl Into<String>, role: RoleName) -> Self {
        Self { node: node.into(), role, term: None, slot: None, environment: EnvironmentSettings::default() }
    }

    /// The variables whose values are known.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![("RUNNER_NODE", self.node.clone()), ("RUNNER_ROLE", self.role.to_string())];
        variables.extend(self.term.map(|term| ("RUNNER_TERM", term.to_string())));
        variables.extend(self.slot.map(|slot| ("RUNNER_SLOT", slot.to_string())));
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, timeout: Duration) -> (ProbeAnswer, String) {
        let context = CommandVariables {
            term: Some(Term(7)),
            slot: Some("2026-11-20T01:00:00Z".parse().unwrap()),
            ..CommandVariables::new("east", "app".parse().unwrap())
        };
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let (answer, detail) = ask(&command, timeout, &context).await;
        (answer, detail.to_string())
    }

    /// Longer than any of these scripts takes, even on a busy machine.
    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn the_exit_code_is_the_answer() {
        assert_eq!(sh("exit 0", LONG).await, (ProbeAnswer::Yes, "exit 0".into()));
        assert_eq!(sh("echo standby; exit 1", LONG).await, (ProbeAnswer::No, "exit 1: standby".into()));
        assert_eq!(
            sh("echo out; echo; echo ' err ' >&2; exit 2", LONG).await,
            (ProbeAnswer::Unknown, "exit 2: err".into())
        );
        assert_eq!(sh("kill -TERM $$", LONG).await, (ProbeAnswer::Unknown, "killed by signal 15".into()));
        let context = CommandVariables::new("n", "r".parse().unwrap());
        let (answer, detail) = ask(&["/no/such/program".into()], LONG, &context).await;
        assert_eq!(answer, ProbeAnswer::Unknown);
        assert!(detail.to_string().contains("/no/such/program"), "{detail}");
    }

    #[tokio::test]
    async fn it_knows_node_role_term_and_slot() {
        let said = sh("echo $RUNNER_NODE $RUNNER_ROLE $RUNNER_TERM $RUNNER_SLOT", LONG).await.1;
        assert_eq!(said, "exit 0: east app 7 2026-11-20T01:00:00Z");
        let context = CommandVariables::new("n", "r".parse().unwrap());
        assert_eq!(
            context.variables().iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["RUNNER_NODE", "RUNNER_ROLE"]
        );
    }

    #[tokio::test]
    async fn a_timeout_is_unknown_and_ends_the_children_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo waiting; wait", file.display());
        let (answer, why) = sh(&script, Duration::from_secs(2)).await;
        assert_eq!((answer, why.as_str()), (ProbeAnswer::Unknown, "no answer within 2s: waiting"));
        let child: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        // The process is gone, or a zombie that is not reaped yet.
        let alive = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => !stat.rsplit(')').next().unwrap().trim().starts_with('Z'),
            Err(_) => false,
        };
        for _ in 0..500 {
            if !alive() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the sleeping child {child} outlived its group");
    }

    #[tokio::test]
    async fn output_without_end_and_children_left_behind_do_not_hold_it_up() {
        assert_eq!(sh("yes x | head -c 1000000; exit 1", LONG).await, (ProbeAnswer::No, "exit 1: x".into()));
        // The child keeps the pipe open for much longer than an answer may take.
        let (answer, why) = sh("echo said; sleep 20 & exit 0", Duration::from_secs(10)).await;
        assert_eq!((answer, why.as_str()), (ProbeAnswer::Yes, "exit 0: said"));
    }

    #[test]
    fn a_line_is_short_and_steers_nothing() {
        assert_eq!(first_line(b"\n \x1b[31mred\x1b[0m\nmore"), Some("\\u{1b}[31mred\\u{1b}[0m".into()));
        assert_eq!(first_line(&[b'x'; 4000]).unwrap().len(), LINE_MAX);
        assert_eq!(first_line(b" \n\n"), None);
    }
}
