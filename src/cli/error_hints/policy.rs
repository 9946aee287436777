//! The exit code and the hint of an error, and the trait by which each error of a command has them.

use std::error::Error as StdError;

use crate::cli::exit::ExitKind;

/// The exit code of an error, and a hint if the error's own text has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPolicy {
    /// The exit code.
    pub exit: ExitKind,
    /// What to do about the error.
    pub hint: Option<String>,
}

/// An error that a command may end with. In a command, `?` on an error without this trait does not compile.
///
/// An error that wraps another one returns the policy of the wrapped error, unless it knows a better one.
pub trait CommandPolicy: StdError + Send + Sync + 'static {
    /// The exit code and the hint.
    fn policy(&self) -> ErrorPolicy;

    /// The text without its hints, and these hints, for a document that has a field for each. `None`: the text contains
    /// no hints.
    fn separate_hints(&self) -> Option<(String, Option<String>)> {
        None
    }
}

/// The exit code for a failure; the error's text needs no hint.
pub(super) const PLAIN: ErrorPolicy = unhinted(ExitKind::Failed);

/// The exit code for a failure, with this hint.
pub(super) fn failed(hint: impl Into<String>) -> ErrorPolicy {
    hinted(ExitKind::Failed, hint)
}

/// This exit code with this hint.
pub(super) fn hinted(exit: ExitKind, hint: impl Into<String>) -> ErrorPolicy {
    ErrorPolicy { exit, hint: Some(hint.into()) }
}

/// This exit code without a hint.
pub(super) const fn unhinted(exit: ExitKind) -> ErrorPolicy {
    ErrorPolicy { exit, hint: None }
}
