//! Files generated from the command tree: completions and manual pages.

use std::io::{self, Write};
use std::path::Path;

use clap_complete::Shell;

use super::args::command;

/// The completions for a shell.
pub fn completions(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    // The generator ends the process if it cannot write, so it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "runner", &mut text);
    out.write_all(&text)
}

/// The manual page of the program itself.
pub fn man(out: &mut dyn Write) -> io::Result<()> {
    clap_mangen::Man::new(command()).render(out)
}

/// One manual page per command, `runner-backup.1` and so on, into a directory that is created if it is missing.
pub fn man_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command().disable_help_subcommand(true), dir)
}
