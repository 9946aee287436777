//! Errors of a listing that `audit` is given, or makes.

use crate::cli::command_error::ForeignListingError;
use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, failed};
use crate::foreign::bucket::BucketError;
use crate::store::{StoreError, StoreErrorKind};

impl CommandPolicy for ForeignListingError {
    fn policy(&self) -> ErrorPolicy {
        match &self.error {
            BucketError::Store(error) => store(error),
            BucketError::Directory { .. } => failed("check the path, and run it as a user who may read there."),
            BucketError::Listing(error) => failed(error.hint()),
        }
    }
}

/// As for a store, where the hint does not name the config.
fn store(error: &StoreError) -> ErrorPolicy {
    let hint = match error.kind {
        StoreErrorKind::Denied => {
            "the credentials need the right s3:ListBucket, and s3:ListBucketVersions to see overwritten keys."
        }
        StoreErrorKind::NoCredentials => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with --profile. Without any, let a person who has access \
             list the bucket, and read the listing with --listing."
        }
        StoreErrorKind::NoSuchStore => "check the bucket's name, --endpoint and --region.",
        StoreErrorKind::Unreachable => "check the network, --endpoint and --region, then try again.",
        StoreErrorKind::Invalid => "check --region and --endpoint, and this node's clock.",
        StoreErrorKind::Untrusted => {
            "check that --endpoint matches the name in the server's certificate, and this node's clock."
        }
        _ => return error.policy(),
    };
    failed(hint)
}
