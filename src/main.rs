//! Parses the arguments, builds the runtime, runs the command and sets the exit code.

use std::process::ExitCode;

use runner::cli::args::{self, CliCommand};
use runner::cli::output::CommandOutput;
use runner::cli::{run, terminal, usage_hints};
use runner::process::harden;

/// Number of runtime threads: they wait for stores and timers, while reading, hashing and compressing have their own
/// threads.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    harden::keep_memory_secret();
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and version texts come as errors too; they go to standard output with code 0.
        Err(e) if !e.use_stderr() => e.exit(),
        Err(e) => {
            let words: Vec<_> = std::env::args_os().collect();
            let (text, document) = usage_hints::refusal(&args::shown_command(), &e, &words);
            terminal::write_error(&terminal::error_page().wrap_lines(&text));
            // If standard output is closed the exit code says the same.
            let _ = document.map(|document| CommandOutput::new(terminal::output()).document(&document));
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    // A command under `exec` belongs to the caller, and keeps the caller's open descriptors.
    if !matches!(cli.command, CliCommand::Exec(_)) {
        harden::keep_descriptors();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            terminal::write_error(&format!("error: cannot start: {e}\n"));
            return ExitCode::FAILURE;
        }
    };
    let exit = runtime.block_on(async {
        harden::keep_ignored_signals();
        run::run(cli).await
    });
    // Work that is still running in the background was given up; its result is not needed.
    runtime.shutdown_background();
    exit.into()
}
