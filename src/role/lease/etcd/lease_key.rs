//! Which process has a role by its key in etcd, decided from what was read. Pure.
//!
//! The invariant that lives here: a key is this process's own only if it says so *and* is attached to the lease that
//! this process keeps alive now. A key of ours on another lease is about to expire, or was brought back by a restored
//! etcd. A key that this process gave up is never kept: its delete may still be on its way.

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, NodeId};
use crate::role::lease::LeaseHolder;
use crate::text;

/// The format version of the values in etcd.
pub(super) const FORMAT: u32 = 1;

/// The value of a role's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseKeyValue {
    pub(super) v: u32,
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) instance: InstanceId,
    pub(super) version: String,
    pub(super) config_hash: String,
}

impl LeaseKeyValue {
    /// The value of the key; `None` if this version cannot read it.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(value).ok().filter(|claim| claim.v == FORMAT)
    }

    pub(super) fn holder(&self) -> LeaseHolder {
        LeaseHolder { node: self.node, label: text::line(&self.name).into_owned(), instance: self.instance }
    }
}

/// A role's key as a linearizable read found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeaseKeyState {
    pub(super) claim: Option<LeaseKeyValue>,
    /// The lease that the key is attached to; 0 for none.
    pub(super) lease: i64,
    /// The revision that created the key. Another key of the same name has another one.
    pub(super) created: i64,
}

/// What to do about the key that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EtcdLeaseStep {
    /// There is no key: claim the role.
    Claim,
    /// The key is this process's, and was given up: delete exactly this key, so that a late delete of it finds nothing.
    Delete { created: i64 },
    /// The key is this process's, on its present lease.
    Keep { created: i64 },
    /// The key is this process's, on a lease that it no longer keeps: attach exactly this key to the present one.
    Adopt { created: i64, from: i64 },
    /// The key is another process's.
    Leave { by: Option<LeaseHolder> },
}

/// Decides what to do, for the process `me` that keeps `lease` alive. `given_up` is the key whose delete had no answer,
/// by the revision that created it.
pub(super) fn etcd_lease_step(
    me: InstanceId,
    lease: i64,
    found: Option<&LeaseKeyState>,
    given_up: Option<i64>,
) -> EtcdLeaseStep {
    let Some(found) = found else { return EtcdLeaseStep::Claim };
    match &found.claim {
        Some(claim) if claim.instance != me => EtcdLeaseStep::Leave { by: Some(claim.holder()) },
        Some(_) if given_up == Some(found.created) => EtcdLeaseStep::Delete { created: found.created },
        Some(_) if found.lease == lease => EtcdLeaseStep::Keep { created: found.created },
        Some(_) => EtcdLeaseStep::Adopt { created: found.created, from: found.lease },
        None => EtcdLeaseStep::Leave { by: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: InstanceId = InstanceId([1; 8]);

    #[test]
    fn labels_of_others_end_no_line() {
        let value = serde_json::json!({
            "v": FORMAT, "node": NodeId([2; 16]), "name": "west\n\u{1b}[2Jrole app: all is well", "instance": ME,
            "version": "1", "config_hash": "x",
        });
        let claim = LeaseKeyValue::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(claim.holder().label, "west\\n\\u{1b}[2Jrole app: all is well");
    }

    fn found(instance: InstanceId, lease: i64) -> LeaseKeyState {
        let claim = LeaseKeyValue {
            v: FORMAT,
            node: NodeId([instance.0[0]; 16]),
            name: "east".into(),
            instance,
            version: "1".into(),
            config_hash: "x".into(),
        };
        LeaseKeyState { claim: Some(claim), lease, created: 9 }
    }

    #[test]
    fn a_key_is_ours_only_on_the_lease_that_we_keep() {
        assert_eq!(etcd_lease_step(ME, 5, None, None), EtcdLeaseStep::Claim);
        assert_eq!(etcd_lease_step(ME, 5, Some(&found(ME, 5)), None), EtcdLeaseStep::Keep { created: 9 });
        assert_eq!(etcd_lease_step(ME, 5, Some(&found(ME, 4)), None), EtcdLeaseStep::Adopt { created: 9, from: 4 });
        let other = found(InstanceId([2; 8]), 5);
        let EtcdLeaseStep::Leave { by: Some(by) } = etcd_lease_step(ME, 5, Some(&other), None) else {
            panic!("not ours")
        };
        assert_eq!((by.label.as_str(), by.instance), ("east", InstanceId([2; 8])), "whatever it hangs on");
        assert_eq!(
            etcd_lease_step(ME, 5, Some(&LeaseKeyState { claim: None, lease: 5, created: 9 }), None),
            EtcdLeaseStep::Leave { by: None }
        );
    }

    #[test]
    fn what_was_given_up_is_neither_kept_nor_adopted() {
        for lease in [5, 4] {
            assert_eq!(etcd_lease_step(ME, 5, Some(&found(ME, lease)), Some(9)), EtcdLeaseStep::Delete { created: 9 });
        }
        assert_eq!(
            etcd_lease_step(ME, 5, None, Some(9)),
            EtcdLeaseStep::Claim,
            "it is gone, and its revision never comes again"
        );
        assert_eq!(
            etcd_lease_step(ME, 5, Some(&found(ME, 5)), Some(8)),
            EtcdLeaseStep::Keep { created: 9 },
            "a later key"
        );
        let other = found(InstanceId([2; 8]), 5);
        assert!(
            matches!(etcd_lease_step(ME, 5, Some(&other), Some(9)), EtcdLeaseStep::Leave { by: Some(_) }),
            "never another's"
        );
    }

    #[test]
    fn a_later_format_is_not_misread() {
        let claim = found(ME, 5).claim.unwrap();
        let text = serde_json::to_string(&claim).unwrap();
        assert_eq!(LeaseKeyValue::parse(text.as_bytes()), Some(claim));
        assert_eq!(LeaseKeyValue::parse(text.replace("\"v\":1", "\"v\":2").as_bytes()), None);
        assert_eq!(LeaseKeyValue::parse(b"etcdctl was here"), None);
    }
}
