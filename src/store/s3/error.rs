//! What the many S3 servers answer, as kinds. The decisions are pure functions of status and code.

use std::error::Error;
use std::fmt::Debug;
use std::{io, iter};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::{PutOutcome, ReplaceOutcome, StoreError, StoreErrorKind};

/// What is left of an SDK's error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    /// The HTTP status, where there was an answer.
    pub(super) status: Option<u16>,
    /// The server's error code.
    pub(super) code: Option<String>,
    pub(super) detail: String,
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(e: SdkError<E, HttpResponse>) -> Self {
        let status = e.raw_response().map(|r| r.status().as_u16());
        let code = e.as_service_error().and_then(|e| e.code()).map(str::to_owned);
        let kind = match &e {
            SdkError::ConstructionFailure(_) => StoreErrorKind::Invalid,
            // Without credentials the SDK does not even try.
            SdkError::DispatchFailure(d) if d.as_connector_error().is_some_and(|e| is_bad_certificate(e)) => {
                StoreErrorKind::Invalid
            }
            SdkError::DispatchFailure(d) if !d.is_io() && !d.is_timeout() && d.as_other().is_none() => {
                StoreErrorKind::Denied
            }
            SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => StoreErrorKind::Unreachable,
            _ => classify(status, code.as_deref()),
        };
        let detail = match e.as_service_error().and_then(|e| e.message()) {
            Some(message) => {
                let code = code.as_deref().map(|c| format!("{c}: ")).unwrap_or_default();
                let status = status.map(|s| format!(", status {s}")).unwrap_or_default();
                format!("{code}{message}{status}")
            }
            None => match (&code, status) {
                (Some(code), Some(status)) => format!("{code}, status {status}"),
                _ => words(&e),
            },
        };
        Self { kind, status, code, detail }
    }
}

/// What an error says, and what it was made of, each once.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = iter::successors(Some(error), |e| behind(*e)).map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}

/// Whether the server's certificate was refused: by an unknown authority, for another host, out of date.
pub(super) fn is_bad_certificate(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |e| behind(*e))
        .any(|e| matches!(e.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
}

/// What an error was made of. One of `io` does not name what it carries as its source, only what is behind that.
fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|e| e as _),
        None => error.source(),
    }
}

/// The kind of an answer. Codes come first: statuses are less exact.
fn classify(status: Option<u16>, code: Option<&str>) -> StoreErrorKind {
    if let Some(kind) = code.and_then(classify_code) {
        return kind;
    }
    match status {
        Some(401 | 403) => StoreErrorKind::Denied,
        Some(404) => StoreErrorKind::NotFound,
        Some(501) => StoreErrorKind::Unsupported,
        Some(507) => StoreErrorKind::NoSpace,
        Some(408 | 409 | 429 | 500..) => StoreErrorKind::Unreachable,
        Some(300..) => StoreErrorKind::Invalid,
        // No answer, or a success that could not be read.
        Some(_) | None => StoreErrorKind::Unreachable,
    }
}

/// What a code says by itself, where it says anything.
pub(super) fn classify_code(code: &str) -> Option<StoreErrorKind> {
    Some(match code {
        "NoSuchBucket" => StoreErrorKind::NoSuchStore,
        "NoSuchKey" => StoreErrorKind::NotFound,
        "AccessDenied" | "ExpiredToken" | "InvalidToken" => StoreErrorKind::Denied,
        // Ceph, MinIO, Wasabi.
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientCapacity" => {
            StoreErrorKind::NoSpace
        }
        "NotImplemented" => StoreErrorKind::Unsupported,
        // 403, but no permission would mend it.
        "RequestTimeTooSkewed" => StoreErrorKind::Invalid,
        // The first is a 400 on AWS, when the body did not come in time.
        "RequestTimeout" | "SlowDown" | "Throttling" | "InternalError" | "ServiceUnavailable" => {
            StoreErrorKind::Unreachable
        }
        _ => return None,
    })
}

impl Failure {
    pub(super) fn about(self, store: &str, key: Option<&str>) -> StoreError {
        StoreError::new(self.kind, store, key, self.detail)
    }

    /// For calls that do not speak of one existing object: what is not found is the bucket.
    pub(super) fn about_bucket(mut self, store: &str, key: Option<&str>) -> StoreError {
        if self.kind == StoreErrorKind::NotFound {
            self.kind = StoreErrorKind::NoSuchStore;
        }
        self.about(store, key)
    }

    /// What a conditional put came to that was not answered by success.
    pub(super) fn into_outcome(self, store: &str, key: &str) -> Result<PutOutcome, StoreError> {
        Ok(match self.into_refusal(store, key)? {
            Refusal::Condition => PutOutcome::Exists,
            Refusal::Doubt { why } => PutOutcome::Unknown { why },
        })
    }

    /// The same for a replace, which needs the object to be there.
    pub(super) fn into_replace_outcome(self, store: &str, key: &str) -> Result<ReplaceOutcome, StoreError> {
        if self.kind == StoreErrorKind::NotFound {
            return Ok(ReplaceOutcome::Changed);
        }
        Ok(match self.into_refusal(store, key)? {
            Refusal::Condition => ReplaceOutcome::Changed,
            Refusal::Doubt { why } => ReplaceOutcome::Unknown { why },
        })
    }

    /// Only what certainly changed nothing, whatever the object is, is an error.
    fn into_refusal(self, store: &str, key: &str) -> Result<Refusal, StoreError> {
        match (self.status, self.kind) {
            (Some(412), _) => Ok(Refusal::Condition),
            // 409 on AWS: another conditional put was in the way. 5xx, timeouts, broken connections: who knows.
            (_, StoreErrorKind::Unreachable | StoreErrorKind::Other) => Ok(Refusal::Doubt { why: self.detail }),
            _ => Err(self.about_bucket(store, Some(key))),
        }
    }
}

/// Why a conditional put did not succeed.
enum Refusal {
    /// The condition did not hold.
    Condition,
    /// It cannot be told.
    Doubt { why: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: Option<&str>) -> Failure {
        let kind = classify(Some(status), code);
        Failure { kind, status: Some(status), code: code.map(str::to_owned), detail: String::new() }
    }

    #[test]
    fn an_error_is_told_in_the_words_of_all_that_it_was_made_of() {
        #[derive(Debug, thiserror::Error)]
        #[error("dispatch failure")]
        struct Dispatch(#[source] io::Error);
        let refused = io::Error::other(io::Error::other("connection refused"));
        assert_eq!(words(&Dispatch(refused)), "dispatch failure: connection refused");
    }

    #[test]
    fn a_conditional_put_is_unknown_unless_it_is_certain() {
        let outcome = |status, code| failure(status, code).into_outcome("s3://b/", "k").map_err(|e| e.kind);
        let unknown = Ok(PutOutcome::Unknown { why: String::new() });
        assert_eq!(outcome(412, Some("PreconditionFailed")), Ok(PutOutcome::Exists));
        assert_eq!(outcome(412, None), Ok(PutOutcome::Exists));
        for (status, code) in [
            (409, Some("ConditionalRequestConflict")),
            (500, Some("InternalError")),
            (502, None),
            (503, Some("SlowDown")),
            (504, None),
            (429, None),
            (400, Some("RequestTimeout")),
            (200, None),
        ] {
            assert_eq!(outcome(status, code), unknown, "{status} {code:?}");
        }
        assert_eq!(outcome(403, Some("AccessDenied")), Err(StoreErrorKind::Denied));
        assert_eq!(outcome(404, Some("NoSuchBucket")), Err(StoreErrorKind::NoSuchStore));
        assert_eq!(outcome(404, None), Err(StoreErrorKind::NoSuchStore));
        assert_eq!(outcome(507, None), Err(StoreErrorKind::NoSpace));
        assert_eq!(outcome(403, Some("QuotaExceeded")), Err(StoreErrorKind::NoSpace));
        assert_eq!(outcome(501, Some("NotImplemented")), Err(StoreErrorKind::Unsupported));
        assert_eq!(outcome(400, Some("InvalidRequest")), Err(StoreErrorKind::Invalid));
        assert_eq!(outcome(403, Some("RequestTimeTooSkewed")), Err(StoreErrorKind::Invalid));
    }

    #[test]
    fn a_replace_finds_the_object_changed_also_when_it_is_gone() {
        let outcome = |status, code| failure(status, code).into_replace_outcome("s3://b/", "k").map_err(|e| e.kind);
        for (status, code) in [(412, Some("PreconditionFailed")), (412, None), (404, Some("NoSuchKey")), (404, None)] {
            assert_eq!(outcome(status, code), Ok(ReplaceOutcome::Changed), "{status} {code:?}");
        }
        for (status, code) in [(409, Some("ConditionalRequestConflict")), (500, None), (503, Some("SlowDown"))] {
            assert_eq!(outcome(status, code), Ok(ReplaceOutcome::Unknown { why: String::new() }), "{status} {code:?}");
        }
        assert_eq!(outcome(404, Some("NoSuchBucket")), Err(StoreErrorKind::NoSuchStore));
        assert_eq!(outcome(403, Some("AccessDenied")), Err(StoreErrorKind::Denied));
        assert_eq!(outcome(501, Some("NotImplemented")), Err(StoreErrorKind::Unsupported));
    }
}
