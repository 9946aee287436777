//! What a bucket keeps of objects that are overwritten and deleted.

use aws_sdk_s3::types::{BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration};

use super::S3Store;
use super::error::S3Failure;
use crate::store::{ObjectLock, StoreErrorKind, Versioning};

impl S3Store {
    pub(super) async fn ask_versioning(&self) -> Versioning {
        let asked = self.client.get_bucket_versioning().bucket(&self.bucket).send().await;
        match asked.map_err(S3Failure::from) {
            Ok(answer) if answer.status == Some(BucketVersioningStatus::Enabled) => {
                Versioning::Kept { lock: self.ask_lock().await }
            }
            // Suspended: new objects have no version that would be kept.
            Ok(_) => Versioning::None,
            Err(failure) if failure.kind == StoreErrorKind::Denied => Versioning::Denied { why: failure.detail },
            Err(failure) => Versioning::Unknown { why: failure.detail },
        }
    }

    async fn ask_lock(&self) -> ObjectLock {
        let asked = self.client.get_object_lock_configuration().bucket(&self.bucket).send().await;
        match asked.map_err(S3Failure::from) {
            Ok(answer) => lock(answer.object_lock_configuration),
            Err(failure) if failure.kind == StoreErrorKind::Denied => ObjectLock::Denied { why: failure.detail },
            // Without a configuration the answer is 404; servers without locks do not know the request.
            Err(_) => ObjectLock::None,
        }
    }
}

fn lock(configuration: Option<ObjectLockConfiguration>) -> ObjectLock {
    let retention = configuration.and_then(|c| c.rule).and_then(|rule| rule.default_retention);
    let words = |DefaultRetention { days, years, .. }: DefaultRetention| match (days, years) {
        (Some(1), _) => Some("1 day".to_owned()),
        (Some(days), _) => Some(format!("{days} days")),
        (None, Some(1)) => Some("1 year".to_owned()),
        (None, Some(years)) => Some(format!("{years} years")),
        (None, None) => None,
    };
    retention.and_then(words).map_or(ObjectLock::None, |time| ObjectLock::ByDefault { time })
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockRetentionMode, ObjectLockRule};

    use super::*;

    #[test]
    fn a_lock_without_a_default_locks_nothing() {
        let enabled = || ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled);
        let of = |retention| {
            lock(Some(enabled().rule(ObjectLockRule::builder().default_retention(retention).build()).build()))
        };
        assert_eq!(lock(None), ObjectLock::None);
        assert_eq!(lock(Some(enabled().build())), ObjectLock::None);
        let retention = || DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance);
        assert_eq!(of(retention().build()), ObjectLock::None);
        assert_eq!(of(retention().days(30).build()), ObjectLock::ByDefault { time: "30 days".to_owned() });
        assert_eq!(of(retention().years(1).build()), ObjectLock::ByDefault { time: "1 year".to_owned() });
    }
}
