//! The streams that a person reads: the only file that names standard output and standard error. What others wrote (names of files and nodes,
//! words of stores and dumps) is made safe to show here, once, and not where each text is made.

use std::io::{self, Write};

use crate::text;

/// Says something on standard error. Where even that is closed, the exit code remains.
pub fn say(words: &str) {
    let _ = io::stderr().write_all(text::lines(words).as_bytes());
}

/// Whether a person sees standard error.
pub fn errors_are_seen() -> bool {
    rustix::termios::isatty(io::stderr())
}

/// Whether a person sees standard output.
pub fn output_is_seen() -> bool {
    rustix::termios::isatty(io::stdout())
}

/// Standard output as it is, for [`super::output::Output`].
pub fn output() -> impl Write + Send + 'static {
    io::stdout()
}

/// Standard error as it is, for the log, whose messages and values are safe when they come here and whose colours are its own.
pub fn log() -> impl Write {
    io::stderr()
}
