//! Maps errors of the SDK to kinds. [`crate::store::response`] decides what an answer means; this file extracts the
//! answer from the SDK's error.

use std::error::Error;
use std::fmt::Debug;
use std::{fmt, io, iter};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::response::{StoreResponse, WriteResponse};
use crate::store::{PutOutcome, ReplaceOutcome, SizeLimit, StoreError, StoreErrorKind};
use crate::text;

/// The relevant parts of an SDK error.
#[derive(Debug)]
pub(super) struct S3Failure {
    pub(super) kind: StoreErrorKind,
    /// The HTTP status, if there was an answer.
    pub(super) status: Option<u16>,
    /// The server's error code.
    pub(super) code: Option<String>,
    /// The answer had no body.
    pub(super) is_bare: bool,
    /// The request was certainly not sent.
    pub(super) is_unsent: bool,
    pub(super) detail: String,
    /// The ETag of an object that is too large.
    pub(super) etag: Option<String>,
}

/// An error document has its code within this many bytes.
const DOCUMENT_LEN: usize = 4096;

/// The most characters that are reported of an answer that is not the store's.
const PAGE_CHARS_MAX: usize = 80;

impl<E> From<SdkError<E, HttpResponse>> for S3Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(e: SdkError<E, HttpResponse>) -> Self {
        let response = e.raw_response();
        let status = response.map(|r| r.status().as_u16());
        let body = response.map(|r| r.body().bytes());
        let is_bare = body.is_some_and(|body| body.is_some_and(<[u8]>::is_empty));
        // The SDK gives an empty 404 a code that the server never sent.
        let code = e.as_service_error().and_then(|e| e.code()).filter(|_| !is_bare).map(str::to_owned);
        let answer = StoreResponse { status, code: code.as_deref(), has_no_body: is_bare };
        if let Some(error) = credentials_error(&e) {
            return Self::without_credentials(error);
        }
        let unsent = unsent_kind(&e);
        let kind = unsent.unwrap_or_else(|| answer.error_kind());
        let operation = operation::<E>();
        let detail = match e.as_service_error().and_then(|e| e.message()) {
            Some(message) => {
                let code = code.as_deref().map(|c| format!("{c}: ")).unwrap_or_default();
                let status = status.map(|s| format!(", status {s}")).unwrap_or_default();
                format!("{code}{message}{status}")
            }
            None => match (&code, status) {
                (Some(code), Some(status)) => format!("{code}, status {status}"),
                (None, Some(status)) => {
                    let kind = response.and_then(|response| response.headers().get("content-type"));
                    describe_page(status, kind, body.flatten(), &error_chain_text(&e))
                }
                _ => error_chain_text(&e),
            },
        };
        let detail = format!("{operation}: {detail}");
        Self { kind, status, code, is_bare, is_unsent: unsent.is_some(), detail, etag: None }
    }
}

/// The S3 name of the operation with this error type: `GetObject`.
fn operation<E>() -> &'static str {
    let name = std::any::type_name::<E>();
    let name = name.rsplit("::").next().unwrap_or(name);
    name.strip_suffix("Error").unwrap_or(name)
}

/// The kind of an error because of which a request was certainly not sent.
fn unsent_kind<E: Error + Send + Sync + 'static>(error: &SdkError<E, HttpResponse>) -> Option<StoreErrorKind> {
    match error {
        SdkError::ConstructionFailure(_) => Some(StoreErrorKind::Invalid),
        SdkError::DispatchFailure(d) if d.as_connector_error().is_some_and(|e| is_bad_certificate(e)) => {
            Some(StoreErrorKind::Untrusted)
        }
        _ => None,
    }
}

/// The reason why there are no credentials: without them the SDK does not send the request.
fn credentials_error<E: Error + Send + Sync + 'static>(error: &SdkError<E, HttpResponse>) -> Option<&CredentialsError> {
    let SdkError::DispatchFailure(failure) = error else { return None };
    error_chain(failure.as_connector_error()?).find_map(|e| e.downcast_ref())
}

/// Describes an answer that has no S3 error document.
fn describe_page(status: u16, kind: Option<&str>, body: Option<&[u8]>, words: &str) -> String {
    // The text begins within this many bytes.
    let body = body.map(|body| &body[..body.len().min(16 * PAGE_CHARS_MAX)]);
    let text = String::from_utf8_lossy(body.unwrap_or_default());
    let short = |text: &str| -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(PAGE_CHARS_MAX).collect()
    };
    let text = short(&text);
    let kind = kind.map(|kind| format!(", {}", short(kind).escape_debug())).unwrap_or_default();
    let said = match body {
        None => words.to_owned(),
        Some(_) if text.is_empty() => "nothing in it".to_owned(),
        Some(_) => format!("{text:?}"),
    };
    format!("status {status}{kind}, and the answer is not an S3 store's: {said}")
}

/// Whether an answer's body is an S3 error document.
pub(super) fn is_error_document(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let mut text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("<?xml") {
        text = text.split_once("?>").map_or("", |(_, rest)| rest).trim_start();
    }
    let root = text.strip_prefix("<Error").is_some_and(|rest| rest.starts_with(['>', ' ', '\n', '\r', '\t']));
    root && text.contains("<Code>")
}

/// Messages with which the layers of the client only wrap the error of the layer below. They add nothing to the lowest
/// one.
pub(super) const LAYERS: [&str; 7] = [
    "dispatch failure",
    "service error",
    "io error",
    "other",
    "client error (Connect)",
    "client error (SendRequest)",
    "tcp connect error",
];

/// The messages of an error and its causes, each once.
fn error_chain_text(error: &(dyn Error + 'static)) -> String {
    let all: Vec<String> = error_chain(error).map(ToString::to_string).collect();
    let mut words: Vec<&str> = all.iter().map(String::as_str).filter(|words| !LAYERS.contains(words)).collect();
    words.dedup();
    if words.is_empty() {
        words.extend(all.last().map(String::as_str));
    }
    let words = words.join(": ");
    text::without_os_error(&text::of_tls(&words)).into_owned()
}

/// Describes in a few words why one attempt failed; `None` if it had a valid answer, whatever that says.
pub(super) fn attempt_failure(error: &(dyn Error + 'static), response: Option<&HttpResponse>) -> Option<String> {
    let Some(response) = response else { return Some(error_chain_text(error)) };
    let (status, body) = (response.status(), response.body().bytes().unwrap_or_default());
    if status.as_u16() == 429 || status.is_server_error() {
        let text = String::from_utf8_lossy(&body[..body.len().min(DOCUMENT_LEN)]);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let code = code.map(|(code, _)| format!("{}, ", text::line(code))).unwrap_or_default();
        return Some(format!("{code}status {}", status.as_u16()));
    }
    // A success whose body is a page or breaks off.
    status.is_success().then(|| error_chain_text(error))
}

/// Whether the server's certificate was refused: unknown authority, another host, out of date.
pub(super) fn is_bad_certificate(error: &(dyn Error + 'static)) -> bool {
    error_chain(error).any(|e| matches!(e.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
}

/// An error and its causes.
pub(super) fn error_chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |e| source_of(*e))
}

/// The cause of an error. An `io::Error` does not return the error it carries as its source, only that error's source.
fn source_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|e| e as _),
        None => error.source(),
    }
}

impl S3Failure {
    fn without_answer(kind: StoreErrorKind, detail: String) -> Self {
        Self { kind, status: None, code: None, is_bare: false, is_unsent: false, detail, etag: None }
    }

    /// No request was sent: there are no credentials, or their source does not answer.
    fn without_credentials(error: &CredentialsError) -> Self {
        let kind = match error {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                StoreErrorKind::NoCredentials
            }
            _ => StoreErrorKind::Unreachable,
        };
        let detail = match error_chain(error).find_map(|e| e.downcast_ref::<NoCredentialsFound>()) {
            Some(found) if kind == StoreErrorKind::Unreachable => format!("no credentials: {found}"),
            Some(found) => found.to_string(),
            None => error_chain_text(error),
        };
        Self { is_unsent: true, ..Self::without_answer(kind, detail) }
    }

    /// A download that broke off in its body at every attempt.
    pub(super) fn interrupted_download(detail: String) -> Self {
        Self::without_answer(StoreErrorKind::Unreachable, detail)
    }

    /// An object that is larger than allowed; it is not requested again.
    pub(super) fn too_large(limit: SizeLimit, size: Option<u64>, etag: Option<String>) -> Self {
        let StoreError { kind, detail, .. } = limit.exceeded("", "", size);
        Self { etag, ..Self::without_answer(kind, detail) }
    }

    pub(super) fn for_key(self, store: &str, key: Option<&str>) -> StoreError {
        // No request was sent, so the error concerns no object.
        let key = key.filter(|_| self.kind != StoreErrorKind::NoCredentials);
        StoreError::new(self.kind, store, key, self.detail)
    }

    /// For calls that are not about one existing object: "not found" then means the bucket.
    pub(super) fn for_bucket(mut self, store: &str, key: Option<&str>) -> StoreError {
        if self.kind == StoreErrorKind::NotFound {
            self.kind = StoreErrorKind::NoSuchStore;
        }
        self.for_key(store, key)
    }

    /// The outcome of a conditional put that did not succeed.
    pub(super) fn into_outcome(self, store: &str, key: &str) -> Result<PutOutcome, StoreError> {
        match self.write_response() {
            WriteResponse::ConditionFailed => Ok(PutOutcome::Exists),
            WriteResponse::Refused(kind) => Err(Self { kind, ..self }.for_key(store, Some(key))),
            // A put creates missing objects, so this cannot be the answer to it.
            WriteResponse::NoSuchKey | WriteResponse::Unknown => {
                Ok(PutOutcome::Unknown { why: self.doubt_reason(store) })
            }
        }
    }

    /// The same for a replace, which needs the object to exist.
    pub(super) fn into_replace_outcome(self, store: &str, key: &str) -> Result<ReplaceOutcome, StoreError> {
        match self.write_response() {
            WriteResponse::ConditionFailed | WriteResponse::NoSuchKey => Ok(ReplaceOutcome::Changed),
            WriteResponse::Refused(kind) => Err(Self { kind, ..self }.for_key(store, Some(key))),
            WriteResponse::Unknown => Ok(ReplaceOutcome::Unknown { why: self.doubt_reason(store) }),
        }
    }

    /// Describes what was received instead of an answer, and from where.
    fn doubt_reason(self, store: &str) -> String {
        format!("{store}: {}", self.detail)
    }

    fn write_response(&self) -> WriteResponse {
        if self.is_unsent && self.kind != StoreErrorKind::Unreachable {
            return WriteResponse::Refused(self.kind);
        }
        StoreResponse { status: self.status, code: self.code.as_deref(), has_no_body: self.is_bare }.write_response()
    }
}

/// The result of a search for credentials that found none: each place, with what was there.
#[derive(Debug)]
pub(super) struct NoCredentialsFound(pub(super) Vec<(String, String)>);

impl Error for NoCredentialsFound {}

impl fmt::Display for NoCredentialsFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked: Vec<String> = self.0.iter().map(|(place, found)| format!("{place}: {found}")).collect();
        write!(f, "looked at {}", looked.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: Option<&str>) -> S3Failure {
        let answer = StoreResponse { status: Some(status), code, has_no_body: code.is_none() };
        S3Failure {
            kind: answer.error_kind(),
            status: Some(status),
            code: code.map(str::to_owned),
            is_bare: answer.has_no_body,
            is_unsent: false,
            detail: String::new(),
            etag: None,
        }
    }

    #[test]
    fn an_error_is_told_in_the_words_of_all_that_it_was_made_of() {
        #[derive(Debug, thiserror::Error)]
        #[error("dispatch failure")]
        struct Dispatch(#[source] io::Error);
        let refused = io::Error::other(io::Error::from_raw_os_error(111));
        assert_eq!(error_chain_text(&Dispatch(refused)), "Connection refused");
        assert_eq!(error_chain_text(&Dispatch(io::Error::other("io error"))), "io error", "where no layer says more");
        assert_eq!(operation::<aws_sdk_s3::operation::get_object::GetObjectError>(), "GetObject");
    }

    #[test]
    fn a_conditional_put_is_unknown_unless_it_is_certain() {
        let outcome = |status, code| failure(status, code).into_outcome("s3://b/", "k").map_err(|e| e.kind);
        let unknown = Ok(PutOutcome::Unknown { why: "s3://b/: ".to_owned() });
        assert_eq!(outcome(412, Some("PreconditionFailed")), Ok(PutOutcome::Exists));
        assert_eq!(outcome(403, Some("AccessDenied")), Err(StoreErrorKind::Denied));
        for (status, code) in [(404, Some("NoSuchKey")), (404, None), (403, None), (200, None), (503, Some("SlowDown"))]
        {
            assert_eq!(outcome(status, code), unknown, "{status} {code:?}");
        }
    }

    #[test]
    fn a_replace_finds_the_object_changed_also_when_it_is_gone() {
        let outcome = |status, code| failure(status, code).into_replace_outcome("s3://b/", "k").map_err(|e| e.kind);
        for (status, code) in [(412, Some("PreconditionFailed")), (412, None), (404, Some("NoSuchKey"))] {
            assert_eq!(outcome(status, code), Ok(ReplaceOutcome::Changed), "{status} {code:?}");
        }
        for (status, code) in [(404, None), (500, None), (503, Some("SlowDown"))] {
            assert_eq!(
                outcome(status, code),
                Ok(ReplaceOutcome::Unknown { why: "s3://b/: ".to_owned() }),
                "{status} {code:?}"
            );
        }
        assert_eq!(outcome(404, Some("NoSuchBucket")), Err(StoreErrorKind::NoSuchStore));
    }

    #[test]
    fn an_error_document_is_told_from_a_page() {
        for document in [
            "<Error><Code>AccessDenied</Code></Error>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>NoSuchKey</Code></Error>",
            "\u{feff}<Error xmlns=\"x\"><Code>x</Code></Error>",
        ] {
            assert!(is_error_document(document.as_bytes()), "{document}");
        }
        for page in
            ["", "<html><Code>x</Code></html>", "<Errors><Code>x</Code></Errors>", "<Error></Error>", "{}", "\u{0}"]
        {
            assert!(!is_error_document(page.as_bytes()), "{page}");
        }
        assert_eq!(
            describe_page(407, None, Some(b"<html>\n  Proxy\x1b[2J"), ""),
            "status 407, and the answer is not an S3 store's: \"<html> Proxy\\u{1b}[2J\""
        );
        assert_eq!(
            describe_page(200, Some("application/json"), Some(b"{\"login\":\xff"), "service error"),
            "status 200, application/json, and the answer is not an S3 store's: \"{\\\"login\\\":\u{fffd}\""
        );
        assert_eq!(
            describe_page(502, Some("text/\x1b"), Some(b""), "x"),
            "status 502, text/\\u{1b}, and the answer is not an S3 store's: nothing in it"
        );
        assert_eq!(
            describe_page(200, None, None, "unhandled error"),
            "status 200, and the answer is not an S3 store's: unhandled error"
        );
        let long = describe_page(500, Some(&"t".repeat(999)), Some(&vec![b'x'; 99_999]), "");
        assert!(long.len() < 250, "{long}");
    }
}
