//! The exit code and the hint of each error that a command may end with. The kind of an error decides. This file and its
//! folder are the one table of those decisions; the rooms below `cli` know no exit codes.
//!
//! The policy of an error that wraps others matches each of its variants by name, so that a new variant has to be
//! decided here as well.

mod journal;
mod keys;
mod listing;
mod node;
pub(crate) mod policy;
mod repair;
mod run;
mod snapshot;
mod store;

use std::io;

use super::exit::ExitKind;
use crate::cli::args::values::InvalidTreePath;
use crate::cli::command_error::{Interrupted, UnvouchedError, UsageError};
use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, PLAIN, failed, hinted, unhinted};
use crate::config::ConfigError;
use crate::config::value::ValueError;
use crate::ids::ParseIdError;

impl CommandPolicy for UsageError {
    fn policy(&self) -> ErrorPolicy {
        hinted(ExitKind::Usage, &self.hint)
    }
}

impl CommandPolicy for Interrupted {
    fn policy(&self) -> ErrorPolicy {
        unhinted(ExitKind::Interrupted)
    }
}

impl CommandPolicy for UnvouchedError {
    fn policy(&self) -> ErrorPolicy {
        failed(
            "run it on a node that remembers the journal. If you know the whole ID of a snapshot from before (a report, a log), name it with \
             all its 64 characters: --snapshot ID.",
        )
    }
}

impl CommandPolicy for ConfigError {
    fn policy(&self) -> ErrorPolicy {
        // Each problem has its own hints.
        unhinted(ExitKind::Usage)
    }

    fn separate_hints(&self) -> Option<(String, Option<String>)> {
        Some((self.what(), self.hints()))
    }
}

impl CommandPolicy for InvalidTreePath {
    fn policy(&self) -> ErrorPolicy {
        PLAIN
    }
}

impl CommandPolicy for ParseIdError {
    fn policy(&self) -> ErrorPolicy {
        PLAIN
    }
}

impl CommandPolicy for ValueError {
    fn policy(&self) -> ErrorPolicy {
        PLAIN
    }
}

impl CommandPolicy for io::Error {
    fn policy(&self) -> ErrorPolicy {
        PLAIN
    }
}

impl CommandPolicy for jiff::Error {
    fn policy(&self) -> ErrorPolicy {
        PLAIN
    }
}

#[cfg(test)]
mod tests;
