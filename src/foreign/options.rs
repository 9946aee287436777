//! Pure. What the caller of an audit knows beside the listing.

use super::pattern::KeyPattern;

/// What the caller knows beside the listing.
#[derive(Debug, Clone, Default)]
pub struct ForeignAuditOptions {
    /// How keys are made, if the user says so: `{host}/{date}.tar.gz`.
    pub pattern: Option<KeyPattern>,
    /// When the bucket was listed, in seconds since 1970. Unknown for a listing from a file: then a series has stopped only
    /// in comparison with others.
    pub listed_at: Option<i64>,
}
