//! Parse, build, run, exit code.

use std::process::ExitCode;

use runner::cli::args::{self, CliCommand};
use runner::cli::output::CommandOutput;
use runner::cli::{run, terminal, usage_hints};
use runner::process::harden;

/// Threads of the runtime: it waits for stores and timers, while reading, hashing and compressing have threads of their own.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    harden::keep_memory_secret();
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and versions come this way, too, and go to standard output with code 0.
        Err(e) if !e.use_stderr() => e.exit(),
        Err(e) => {
            let words: Vec<_> = std::env::args_os().collect();
            let (text, document) = usage_hints::refusal(&args::shown_command(), &e, &words);
            terminal::write_error(&terminal::error_page().wrap_lines(&text));
            // Where nobody reads it the exit code says the same.
            let _ = document.map(|document| CommandOutput::new(terminal::output()).document(&document));
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    // A guarded command is its caller's own, and is given what its caller had open.
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
    // Whatever still runs in the background was given up: its result would be nobody's.
    runtime.shutdown_background();
    exit.into()
}
