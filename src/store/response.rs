//! What the answer to a request means. Pure: status and error code in, meaning out.
//!
//! The invariant that lives here: a conditional write counts as refused only if the answer is positively known to be
//! the store's own definite refusal, which is a status together with an error code of the list below. Everything else
//! is ambiguous: no answer, an answer that is no HTTP, a page of a proxy, a code that the list does not have. An
//! ambiguous write may have taken effect, and an ambiguous read has not shown that an object is absent.

use super::StoreErrorKind;

/// The relevant parts of the answer to one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreResponse<'a> {
    /// The HTTP status; `None`: no answer, or one that is no HTTP.
    pub status: Option<u16>,
    /// The code in the S3 error document that is the answer's body; `None`: the body is no such document.
    pub code: Option<&'a str>,
    /// The answer has no body at all.
    pub has_no_body: bool,
}

/// The meaning of the answer to a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResponse {
    /// The condition did not hold; nothing was written.
    ConditionFailed,
    /// The object does not exist; nothing was written.
    NoSuchKey,
    /// A definite refusal; nothing was written.
    Refused(StoreErrorKind),
    /// It is unknown whether anything was written.
    Unknown,
}

impl StoreResponse<'_> {
    /// The meaning of this answer to a conditional write. Not for answers that report success.
    pub fn write_response(self) -> WriteResponse {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::PlantedBug::UnrecognisedIsDefinite) && self.is_not_from_store() {
            return WriteResponse::Refused(StoreErrorKind::Denied);
        }
        match (self.status, self.code) {
            // No proxy evaluates the condition, and some servers send no document with this status.
            (Some(412), Some("PreconditionFailed")) => WriteResponse::ConditionFailed,
            (Some(412), None) if self.has_no_body => WriteResponse::ConditionFailed,
            (Some(404), Some("NoSuchKey")) => WriteResponse::NoSuchKey,
            (Some(300..), Some(code)) => match classify_code(code) {
                // A temporary error may come before or after the effect.
                None | Some(StoreErrorKind::Unreachable | StoreErrorKind::NotFound) => WriteResponse::Unknown,
                Some(kind) => WriteResponse::Refused(kind),
            },
            _ => WriteResponse::Unknown,
        }
    }

    /// The kind of error of an idempotent call with this answer. Codes come first: statuses are less exact, and without
    /// an S3 error document they need not come from the store, because a proxy answers 403 and 404 as well.
    pub fn error_kind(self) -> StoreErrorKind {
        let Some(code) = self.code else { return StoreErrorKind::Unreachable };
        if let Some(kind) = classify_code(code) {
            return kind;
        }
        match self.status {
            Some(401 | 403) => StoreErrorKind::Denied,
            Some(501) => StoreErrorKind::Unsupported,
            Some(507) => StoreErrorKind::NoSpace,
            // 404: with another code it does not mean that the object is absent.
            Some(404 | 408 | 409 | 429 | 500..) | None => StoreErrorKind::Unreachable,
            Some(300..) => StoreErrorKind::Invalid,
            // A success whose body could not be read.
            Some(_) => StoreErrorKind::Unreachable,
        }
    }

    /// Whether nothing in the answer shows that the store gave it.
    pub fn is_not_from_store(self) -> bool {
        self.code.is_none() && !(self.has_no_body && self.status == Some(412))
    }
}

/// The kind that a code means by itself, if any. Codes of AWS, and of the servers named below.
pub(super) fn classify_code(code: &str) -> Option<StoreErrorKind> {
    Some(match code {
        "NoSuchBucket" => StoreErrorKind::NoSuchStore,
        "NoSuchKey" => StoreErrorKind::NotFound,
        "AccessDenied"
        | "AccountProblem"
        | "AllAccessDisabled"
        | "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "NotSignedUp"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "UnauthorizedAccess" => StoreErrorKind::Denied,
        // Ceph, MinIO, Wasabi.
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientCapacity" => {
            StoreErrorKind::NoSpace
        }
        "NotImplemented" => StoreErrorKind::Unsupported,
        // The first is a 403, but no permission would fix it.
        "RequestTimeTooSkewed"
        | "AuthorizationHeaderMalformed"
        | "AuthorizationQueryParametersError"
        | "BadDigest"
        | "EntityTooLarge"
        | "IllegalLocationConstraintException"
        | "InvalidArgument"
        | "InvalidBucketName"
        | "InvalidDigest"
        | "InvalidRequest"
        | "InvalidStorageClass"
        | "InvalidURI"
        | "KeyTooLongError"
        | "MalformedXML"
        | "MethodNotAllowed"
        | "MissingContentLength"
        | "PermanentRedirect"
        | "XAmzContentSHA256Mismatch" => StoreErrorKind::Invalid,
        // The first is a 400 on AWS, when the body did not arrive in time.
        "RequestTimeout" | "SlowDown" | "Throttling" | "InternalError" | "ServiceUnavailable" => {
            StoreErrorKind::Unreachable
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use StoreErrorKind::{Denied, Invalid, NoSpace, NoSuchStore, NotFound, Unreachable, Unsupported};
    use WriteResponse::{ConditionFailed, NoSuchKey, Refused, Unknown};

    use super::*;

    /// Status, code, no body; the meaning for a write, and the error of a read.
    type Row = (Option<u16>, Option<&'static str>, bool, WriteResponse, StoreErrorKind);

    #[test]
    fn only_what_is_positively_known_to_be_definite_is_definite() {
        let table: &[Row] = &[
            // Answers of the store.
            (Some(412), Some("PreconditionFailed"), false, ConditionFailed, Invalid),
            (Some(412), None, true, ConditionFailed, Unreachable),
            (Some(404), Some("NoSuchKey"), false, NoSuchKey, NotFound),
            (Some(404), Some("NoSuchBucket"), false, Refused(NoSuchStore), NoSuchStore),
            (Some(403), Some("AccessDenied"), false, Refused(Denied), Denied),
            (Some(403), Some("SignatureDoesNotMatch"), false, Refused(Denied), Denied),
            (Some(403), Some("InvalidAccessKeyId"), false, Refused(Denied), Denied),
            (Some(400), Some("ExpiredToken"), false, Refused(Denied), Denied),
            (Some(403), Some("QuotaExceeded"), false, Refused(NoSpace), NoSpace),
            (Some(507), Some("XMinioStorageFull"), false, Refused(NoSpace), NoSpace),
            (Some(501), Some("NotImplemented"), false, Refused(Unsupported), Unsupported),
            (Some(400), Some("InvalidRequest"), false, Refused(Invalid), Invalid),
            (Some(403), Some("RequestTimeTooSkewed"), false, Refused(Invalid), Invalid),
            (Some(301), Some("PermanentRedirect"), false, Refused(Invalid), Invalid),
            // Answers of the store that are ambiguous.
            (Some(409), Some("ConditionalRequestConflict"), false, Unknown, Unreachable),
            (Some(400), Some("RequestTimeout"), false, Unknown, Unreachable),
            (Some(500), Some("InternalError"), false, Unknown, Unreachable),
            (Some(503), Some("SlowDown"), false, Unknown, Unreachable),
            // A document with an unknown code.
            (Some(403), Some("SomethingNew"), false, Unknown, Denied),
            (Some(400), Some("SomethingNew"), false, Unknown, Invalid),
            (Some(404), Some("NoSuchUpload"), false, Unknown, Unreachable),
            (Some(404), Some("SomethingNew"), false, Unknown, Unreachable),
            (Some(501), Some("SomethingNew"), false, Unknown, Unsupported),
            (Some(507), Some("SomethingNew"), false, Unknown, NoSpace),
            // A code in an answer whose status says success.
            (Some(200), Some("AccessDenied"), false, Unknown, Denied),
            // The SDK's form of an empty 404.
            (Some(404), Some("NotFound"), true, Unknown, Unreachable),
            // Pages of proxies, captive portals and load balancers.
            (Some(200), None, false, Unknown, Unreachable),
            (Some(200), None, true, Unknown, Unreachable),
            (Some(301), None, true, Unknown, Unreachable),
            (Some(302), None, false, Unknown, Unreachable),
            (Some(307), None, false, Unknown, Unreachable),
            (Some(400), None, false, Unknown, Unreachable),
            (Some(401), None, false, Unknown, Unreachable),
            (Some(403), None, false, Unknown, Unreachable),
            (Some(403), None, true, Unknown, Unreachable),
            (Some(404), None, false, Unknown, Unreachable),
            (Some(404), None, true, Unknown, Unreachable),
            (Some(405), None, false, Unknown, Unreachable),
            (Some(407), None, false, Unknown, Unreachable),
            (Some(412), None, false, Unknown, Unreachable),
            (Some(413), None, false, Unknown, Unreachable),
            (Some(429), None, true, Unknown, Unreachable),
            (Some(501), None, false, Unknown, Unreachable),
            (Some(502), None, false, Unknown, Unreachable),
            (Some(504), None, true, Unknown, Unreachable),
            (Some(507), None, false, Unknown, Unreachable),
            // No answer, or no HTTP.
            (None, None, true, Unknown, Unreachable),
            (None, None, false, Unknown, Unreachable),
        ];
        for &(status, code, is_bare, write, read) in table {
            let answer = StoreResponse { status, code, has_no_body: is_bare };
            assert_eq!((answer.write_response(), answer.error_kind()), (write, read), "{answer:?}");
        }
    }
}
