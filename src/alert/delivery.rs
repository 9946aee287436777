//! How an attempt to deliver an alert ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;

use crate::file::access::FileExposure;

/// The receiver's acceptance of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryReceipt {
    /// The status of the answer; `None`: a program ended with exit code 0.
    pub status: Option<u16>,
}

/// Why an attempt delivered nothing. No text here contains a URL or another secret.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A file with a secret cannot be read.
    #[error("{path} cannot be read: {error}", path = .path.display())]
    SecretUnreadable {
        /// The file.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// Others can replace a file with a secret.
    #[error("it is not used, since other users of this host can change what is in it: {0}")]
    SecretExposed(FileExposure),
    /// A file with a secret holds something else.
    #[error("{path}: {problem}", path = .path.display())]
    SecretInvalid {
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        problem: SecretProblem,
    },
    /// There was no answer.
    #[error("{server}: {reason}")]
    Unreachable {
        /// The server's name.
        server: String,
        /// Why there was none.
        reason: String,
    },
    /// There was no answer in time.
    #[error("{server}: no answer in {}", humantime::format_duration(*.timeout))]
    TimedOut {
        /// The server's name.
        server: String,
        /// The time that it had.
        timeout: Duration,
    },
    /// The answer leads to another server or path. It is not followed: the alert would go to whom the answer names.
    #[error("{server}: answers {status}, a redirect{}, which is not followed", target_text(.target.as_deref()))]
    Redirected {
        /// The server's name.
        server: String,
        /// The status.
        status: StatusCode,
        /// The name of the server to which the answer leads.
        target: Option<String>,
    },
    /// The answer is an error.
    #[error("{server}: answers {status}{}", body_text(.line))]
    Refused {
        /// The server's name.
        server: String,
        /// The status.
        status: StatusCode,
        /// The first line of the answer.
        line: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer has a status of success, and is not the one that the service documents.
    #[error("{server}: answers {status}, and not {expected}{}", body_text(.line))]
    Unexpected {
        /// The server's name.
        server: String,
        /// The status.
        status: StatusCode,
        /// The documented answer.
        expected: &'static str,
        /// The first line of the answer.
        line: String,
    },
    /// A program did not end well.
    #[error("{0}")]
    Command(String),
}

/// What is wrong with the content of a file with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretProblem {
    /// There is no URL.
    #[error("it does not hold one URL that begins with http:// or https://")]
    NoUrl,
    /// There is no token.
    #[error("it does not hold one token of visible ASCII characters")]
    NoToken,
    /// The key is too short.
    #[error("it holds a key of fewer than 16 bytes")]
    ShortKey,
}

impl DeliveryError {
    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            DeliveryError::Redirected { status, .. }
            | DeliveryError::Refused { status, .. }
            | DeliveryError::Unexpected { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            DeliveryError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn target_text(target: Option<&str>) -> String {
    target.map(|target| format!(" to {target}")).unwrap_or_default()
}

fn body_text(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!(": {line}") }
}
