//! Errors of a store, and their kinds, by which callers decide.

use std::fmt::Debug;

use crate::store::object_version::ObjectVersion;
use crate::text;

/// An error of a store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{store}: {}{}{}", kind.message(store), key.as_ref().map(|k| format!(": {k}")).unwrap_or_default(), if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
pub struct StoreError {
    /// The kind of error, which decides how callers react.
    pub kind: StoreErrorKind,
    /// The store's URL as in [`Store::describe`](super::Store::describe); for S3 also the endpoint.
    pub store: String,
    /// The key of the object concerned.
    pub key: Option<String>,
    /// The backend's own message.
    pub detail: String,
    /// The version of the thing at the key that [is no object](Self::is_not_an_object), so that a
    /// [`Store::replace`](super::Store::replace) can replace exactly it; set by [`Store::get_versioned`](super::Store::get_versioned).
    pub version: Option<Box<ObjectVersion>>,
}

/// The kinds of [`StoreError`]; callers decide by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// The object does not exist.
    #[error("not found")]
    NotFound,
    /// The bucket or the root directory itself does not exist.
    #[error("there is no such bucket or directory")]
    NoSuchStore,
    /// The credentials or file permissions do not allow it.
    #[error("access denied")]
    Denied,
    /// No credentials were found, so no request was sent.
    #[error("no credentials")]
    NoCredentials,
    /// The file system is mounted read-only.
    #[error("the store is read-only")]
    ReadOnly,
    /// No space, or a quota.
    #[error("no space left in the store")]
    NoSpace,
    /// The disk reported an I/O error.
    #[error("the store's disk failed")]
    DiskFault,
    /// No answer, a temporary refusal, or an answer that is not recognisably the store's. Retries, where they may help,
    /// were already made.
    #[error("cannot be reached")]
    Unreachable,
    /// The object is larger than any object of its kind may be; none of it was kept.
    #[error("too large")]
    TooLarge,
    /// A link, a FIFO, a device or a socket is in the place of the object. Only directory stores have such.
    #[error("not an object")]
    NotAnObject,
    /// The backend does not support this call.
    #[error("the store cannot do this")]
    Unsupported,
    /// The request is wrong (bad key, bad region, clock skew that breaks the signature …).
    #[error("the store refused the request")]
    Invalid,
    /// The server's certificate is not trusted, out of date, or another host's. No request was sent.
    #[error("the server's certificate is not accepted")]
    Untrusted,
    /// Anything else.
    #[error("failed")]
    Other,
}

impl StoreErrorKind {
    /// Whether the store answers, but refuses to do its work.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Denied | Self::ReadOnly | Self::NoSpace | Self::Invalid | Self::Untrusted)
    }

    /// The message of this kind, for a store with this URL.
    fn message(self, store: &str) -> String {
        match self {
            Self::NoSuchStore if store.starts_with("s3:") => "there is no such bucket".to_owned(),
            Self::NoSuchStore if store.starts_with("file:") => "there is no such directory".to_owned(),
            kind => kind.to_string(),
        }
    }
}

impl StoreError {
    /// An error of `store` about `key`. `detail` may be a server's text; it is reduced to one line, because it becomes
    /// part of a one-line report.
    pub fn new(kind: StoreErrorKind, store: &str, key: Option<&str>, detail: impl Into<String>) -> Self {
        let detail = text::line(&detail.into()).into_owned();
        Self { kind, store: store.to_owned(), key: key.map(str::to_owned), detail, version: None }
    }

    /// Adds the version of the thing at the key.
    pub(in crate::store) fn with_version(self, version: Option<ObjectVersion>) -> Self {
        Self { version: version.map(Box::new), ..self }
    }

    /// The object does not exist (while the store does).
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// The key is occupied by something that this program never writes; it is treated like an object whose bytes are
    /// damaged.
    pub fn is_not_an_object(&self) -> bool {
        matches!(self.kind, StoreErrorKind::TooLarge | StoreErrorKind::NotAnObject)
    }

    /// The error concerns this object alone: it is no object, or a disk sector under it is bad.
    pub fn concerns_one_object(&self) -> bool {
        self.is_not_an_object() || matches!(self.kind, StoreErrorKind::DiskFault | StoreErrorKind::Other)
    }
}
