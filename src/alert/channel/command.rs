//! Sends an alert to a command: the document, or the mail, on its standard input. The command runs in its own process group, so that
//! its children end with it on a timeout.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::alert::delivery::{DeliveryError, DeliveryReceipt};
use crate::config::EnvironmentSettings;
use crate::process::{CommandBuilder, ProcessExit, log_lines};

/// How long a command that was told to end may still run.
const GRACE: Duration = Duration::from_secs(1);

/// How long to wait for output after the command ended: a child that it left behind may keep the pipe open.
const DRAIN: Duration = Duration::from_millis(200);

/// Runs the command with this input. Exit code 0 means that the alert was delivered. The command's output goes to the
/// log.
///
/// # Errors
/// The reason why it was not delivered.
pub(super) async fn send(
    command: &[String],
    environment: &EnvironmentSettings,
    input: &str,
    timeout: Duration,
) -> Result<DeliveryReceipt, DeliveryError> {
    match run(command, environment, input, timeout).await {
        Ok(()) => Ok(DeliveryReceipt { status: None }),
        Err(why) => Err(DeliveryError::Command(why)),
    }
}

async fn run(
    command: &[String],
    environment: &EnvironmentSettings,
    text: &str,
    timeout: Duration,
) -> Result<(), String> {
    let program = command.first().map(String::as_str).unwrap_or_default();
    let named = |error: io::Error| format!("{program}: {error}");
    let start =
        CommandBuilder::configured(command, environment, &[], None).and_then(|program| program.piped(true).start());
    let mut group = start.map_err(|error| error.to_string())?;
    let (input, out, err) = group.pipes();
    let streams = [
        out.map(|out| log_lines(out, program.to_owned(), || {})),
        err.map(|err| log_lines(err, program.to_owned(), || {})),
    ];
    let work = async {
        if let Some(mut input) = input {
            // A command that does not read its input may still succeed: the exit code tells.
            let _ = input.write_all(text.as_bytes()).await;
        }
        group.wait().await
    };
    let ended = tokio::time::timeout(timeout, work).await;
    let told = match ended {
        Ok(Ok(ProcessExit::Exit(0))) => Ok(()),
        Ok(Ok(ProcessExit::Exit(code))) => Err(format!("{program}: exit code {code}")),
        Ok(Ok(ProcessExit::Signal(signal))) => Err(format!("{program}: ended by signal {signal}")),
        Ok(Err(error)) => Err(named(error)),
        Err(_) => {
            group.terminate(GRACE).await.map_err(named)?;
            Err(format!("{program}: killed after {}", humantime::format_duration(timeout)))
        }
    };
    for mut stream in streams.into_iter().flatten() {
        // The output so far is logged.
        let _ = tokio::time::timeout(DRAIN, &mut stream).await;
        stream.abort();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn send(command: &[String], document: &str, timeout: Duration) -> Result<(), String> {
        run(command, &EnvironmentSettings::default(), &format!("{document}\n"), timeout).await
    }

    #[tokio::test]
    async fn the_document_is_on_its_standard_input_and_the_exit_code_tells() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("told");
        let long = Duration::from_mins(1);
        send(&sh(&format!("cat > {}", file.display())), "{\"a\":1}", long).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"a\":1}\n");
        // The document is larger than a pipe holds, and the command does not read it.
        send(&sh("exit 0"), &"x".repeat(1 << 20), long).await.unwrap();
        assert!(send(&sh("exit 3"), "", long).await.unwrap_err().contains("exit code 3"));
        assert!(send(&["/no/such/program".to_owned()], "", long).await.unwrap_err().starts_with("/no/such/program"));
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("survived");
        let script = format!("trap '' TERM; (sleep 3; touch {}) & wait", file.display());
        let why = send(&sh(&script), "", Duration::from_millis(300)).await.unwrap_err();
        assert!(why.contains("killed after 300ms"), "{why}");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(!file.exists());
    }
}
