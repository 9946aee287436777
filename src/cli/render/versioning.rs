//! A bucket that keeps old versions: the consequences, and what to do about them.

use std::time::Duration;

use crate::cli::units::count;
use crate::config::{LeaseKind, RoleSettings};
use crate::role::lease::keep_alive::RENEW_PART;
use crate::store::{ObjectLock, Versioning};
use crate::text::ADVICE;

/// 30 days, in seconds.
const MONTH: f64 = 30.0 * 86_400.0;

/// The warning, if there is one. `prefix`: the location of the repositories in the bucket.
pub fn warning(versioning: &Versioning, roles: &[&RoleSettings], prefix: &str) -> Option<String> {
    match versioning {
        // Servers that have no versions may not know the request.
        Versioning::None | Versioning::Unknown { .. } => None,
        Versioning::Denied { why } => Some(format!(
            "whether the bucket keeps versions cannot be told: these credentials may not read the setting ({why}). \
             If it does, deleted objects stay and cost money until a lifecycle rule removes them. {ADVICE}allow \
             s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration."
        )),
        Versioning::Kept { lock } => {
            let leases = match rewrites_per_month(roles) {
                0 => String::new(),
                n => format!(" The leases in the bucket leave about {} versions a month.", count(n)),
            };
            let locked = match lock {
                ObjectLock::None => String::new(),
                ObjectLock::ByDefault { time } => {
                    format!(" Each version is locked for {time}: no rule removes it before.")
                }
                ObjectLock::Denied { why } => format!(
                    " Whether it locks them cannot be told: these credentials may not read the setting ({why}). \
                     {ADVICE}allow s3:GetBucketObjectLockConfiguration."
                ),
            };
            Some(format!(
                "the bucket keeps versions: what prune deletes is only marked as deleted; it stays and costs money \
                 until a lifecycle rule removes it.{leases}{locked} {ADVICE}aws s3api \
                 put-bucket-lifecycle-configuration, with this rule: {}",
                rule(prefix)
            ))
        }
    }
}

/// How often the objects of these roles' leases are written per month, by one holder each.
fn rewrites_per_month(roles: &[&RoleSettings]) -> u64 {
    let ttls = roles.iter().filter(|role| role.lease == LeaseKind::Bucket).map(|role| role.bucket_lease_ttl);
    ttls.map(|ttl: Duration| (MONTH * f64::from(RENEW_PART) / ttl.as_secs_f64().max(1.0)).round() as u64).sum()
}

/// The rule that removes old versions and delete markers below `prefix`.
fn rule(prefix: &str) -> String {
    serde_json::json!({ "Rules": [{
        "ID": "runner-old-versions",
        "Status": "Enabled",
        "Filter": { "Prefix": prefix },
        "NoncurrentVersionExpiration": { "NoncurrentDays": 30 },
        "Expiration": { "ExpiredObjectDeleteMarker": true },
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 7 },
    }] })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySource;

    fn role(lease: LeaseKind, ttl: u64) -> RoleSettings {
        let role = RoleSettings::new("app".parse().unwrap(), KeySource::None, Vec::new());
        RoleSettings { lease, bucket_lease_ttl: Duration::from_secs(ttl), ..role }
    }

    #[test]
    fn a_lease_leaves_versions_with_each_renewal() {
        assert_eq!(rewrites_per_month(&[&role(LeaseKind::Bucket, 60)]), 129_600);
        assert_eq!(rewrites_per_month(&[&role(LeaseKind::Bucket, 60), &role(LeaseKind::Bucket, 600)]), 142_560);
        assert_eq!(rewrites_per_month(&[&role(LeaseKind::Etcd, 60)]), 0);
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let role = role(LeaseKind::Bucket, 60);
        let roles = [&role];
        assert_eq!(warning(&Versioning::None, &roles, "prod/"), None);
        assert_eq!(warning(&Versioning::Unknown { why: "501".to_owned() }, &roles, "prod/"), None);
        let denied = warning(&Versioning::Denied { why: "AccessDenied".to_owned() }, &roles, "prod/").unwrap();
        assert!(denied.contains("cannot be told") && !denied.contains("Rules"), "{denied}");
    }

    #[test]
    fn the_rule_is_one_to_copy() {
        let kept = Versioning::Kept { lock: ObjectLock::ByDefault { time: "30 days".to_owned() } };
        let said = warning(&kept, &[&role(LeaseKind::Bucket, 60)], "prod/").unwrap();
        let rule: serde_json::Value = serde_json::from_str(&said[said.find('{').unwrap()..]).unwrap();
        assert_eq!(rule["Rules"][0]["Filter"]["Prefix"], "prod/");
        assert!(said.contains("129,600") && said.contains("locked for 30 days"), "{said}");
    }
}
