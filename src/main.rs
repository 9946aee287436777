//! Parse, build, run, exit code.

use std::process::ExitCode;

use runner::cli::{args, run};

/// Threads of the runtime: it waits for stores and timers, while reading, hashing and compressing have threads of their own.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and versions come this way, too, and go to standard output with code 0.
        Err(e) => e.exit(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let exit = runtime.block_on(run::run(cli));
    // Whatever still runs in the background was given up: its result would be nobody's.
    runtime.shutdown_background();
    exit.into()
}
