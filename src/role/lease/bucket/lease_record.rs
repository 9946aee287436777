//! The content of a role's lease object, and what follows from it. Pure: `V` names a version of the object, whatever
//! the store uses for that.
//!
//! A lease record stands for itself, or names the process object of its holder
//! ([`ProcessRecord`](super::process_record::ProcessRecord)), which says whether the holder lives. Versions of this
//! program without process objects take every record for one that stands for itself. So a record that names a process
//! says that it lasts for [`TTL_MAX`], and is rewritten in that time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::process_record::ProcessKey;
use super::watched_version::{FoundObject, HasInstance, TTL_MAX, WatchedVersion, has_expired};
use crate::ids::{InstanceId, NodeId};
use crate::role::lease::LeaseHolder;
use crate::text;

/// A lease record that names a process is rewritten this early: a process that takes it for one that stands for itself
/// never sees it unchanged for its whole length, even by a clock that is a tenth faster.
const REWRITE_AFTER: Duration = Duration::from_mins(54);

/// The format version of the lease object.
const FORMAT: u32 = 1;

/// A role's lease object as it was found.
pub(super) type FoundLease<V> = FoundObject<V, LeaseRecord>;

/// The content of the lease object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    v: u32,
    node: NodeId,
    name: String,
    pub(super) instance: InstanceId,
    /// How long the record keeps other processes out, in milliseconds.
    ttl_ms: u64,
    /// Grows with every write by any process, so that no content comes twice.
    count: u64,
    /// The holder gave the lease up.
    pub(super) released: bool,
    /// The process object that says whether the holder lives, and still has the role. `None`: this object does, by
    /// changing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<ProcessKey>,
}

impl LeaseRecord {
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms).min(TTL_MAX)
    }

    pub(super) fn holder(&self) -> LeaseHolder {
        LeaseHolder { node: self.node, label: text::line(&self.name).into_owned(), instance: self.instance }
    }

    /// The same holder's next record.
    pub(super) fn renewed(self) -> Self {
        Self { count: self.count + 1, ..self }
    }

    /// The next record, which gives the lease up.
    pub(super) fn released_record(self) -> Self {
        Self { released: true, ..self.renewed() }
    }
}

/// Whether a record that names a process, last written at `written`, must be rewritten before a grant of `ttl` is built
/// on it.
pub(super) fn is_rewrite_due(written: Duration, now: Duration, ttl: Duration) -> bool {
    now.saturating_sub(written) + ttl >= REWRITE_AFTER
}

impl HasInstance for LeaseRecord {
    fn instance(&self) -> InstanceId {
        self.instance
    }
}

/// The process that requests the lease, and for how long.
#[derive(Debug, Clone)]
pub(super) struct LeaseRequester {
    pub(super) me: LeaseHolder,
    pub(super) ttl: Duration,
}

impl LeaseRequester {
    /// The record that the process writes: it stands for itself, or names `process`.
    pub(super) fn lease_record(&self, count: u64, process: Option<ProcessKey>) -> LeaseRecord {
        let ttl = if process.is_some() { TTL_MAX } else { self.ttl };
        LeaseRecord {
            v: FORMAT,
            node: self.me.node,
            name: self.me.label.clone(),
            instance: self.me.instance,
            ttl_ms: ttl.as_millis() as u64,
            count,
            released: false,
            process,
        }
    }
}

/// What to do about the object that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BucketLeaseStep<V> {
    /// There is no object: create it, with this count.
    Create(u64),
    /// The lease is ours, free or dead: replace exactly this version, with this count.
    Replace(V, u64),
    /// The lease names another process, whose own object decides. If that process is dead or no longer has the role,
    /// replace this version, with this count.
    AskFor(ProcessKey, V, u64),
    /// Another process has the lease.
    Leave { by: Option<LeaseHolder>, alive: bool },
}

/// Decides what to do. `asked` is the boot time at which the read of the object began: the object was there then or
/// later.
pub(super) fn bucket_lease_step<V: Clone + Eq>(
    requester: &LeaseRequester,
    found: Option<&FoundLease<V>>,
    watched: Option<&WatchedVersion<V>>,
    asked: Duration,
) -> BucketLeaseStep<V> {
    let Some(found) = found else { return BucketLeaseStep::Create(1) };
    // A record that cannot be read counts as another process's lease of our own length: it may be of a newer version.
    let (free, ttl, count) = match &found.content {
        Some(there) => (there.released || there.instance == requester.me.instance, there.ttl(), there.count),
        None => (false, requester.ttl, 0),
    };
    let process = found.content.as_ref().and_then(|there| there.process.clone()).filter(|_| !free);
    if let Some(process) = process {
        return BucketLeaseStep::AskFor(process, found.version.clone(), count + 1);
    }
    if free || has_expired(&found.version, watched, ttl, asked) {
        return BucketLeaseStep::Replace(found.version.clone(), count + 1);
    }
    let alive = watched.is_some_and(|watched| watched.version == found.version && watched.renewed);
    BucketLeaseStep::Leave { by: found.content.as_ref().map(LeaseRecord::holder), alive }
}

/// The lease record in an object; `None` if it is damaged, or of a newer version.
pub(super) fn parse(bytes: &[u8]) -> Option<LeaseRecord> {
    serde_json::from_slice::<LeaseRecord>(bytes).ok().filter(|record| record.v == FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::role::lease::bucket::watched_version::observe_version;

    const TTL: Duration = Duration::from_mins(1);

    fn holder(n: u8) -> LeaseHolder {
        LeaseHolder { node: NodeId([n; 16]), label: format!("node{n}"), instance: InstanceId([n; 8]) }
    }

    fn found(version: u32, of: Option<u8>) -> FoundLease<u32> {
        let record = |n| LeaseRecord {
            v: FORMAT,
            node: holder(n).node,
            name: holder(n).label,
            instance: holder(n).instance,
            ttl_ms: TTL.as_millis() as u64,
            count: 7,
            released: false,
            process: None,
        };
        FoundObject { version, content: of.map(record) }
    }

    #[test]
    fn each_write_counts() {
        let requester = LeaseRequester { me: holder(1), ttl: TTL };
        assert_eq!(
            bucket_lease_step::<u32>(&requester, None, None, Duration::ZERO),
            BucketLeaseStep::Create(1),
            "the role has no holder"
        );
        assert_eq!(
            bucket_lease_step(&requester, Some(&found(3, Some(1))), None, Duration::ZERO),
            BucketLeaseStep::Replace(3, 8),
            "it is this process's own"
        );
    }

    /// A lease record of node `n` that names its process.
    fn naming(version: u32, n: u8) -> FoundLease<u32> {
        let mut found = found(version, Some(n));
        found.content.as_mut().unwrap().process = Some("app/live/processes/0202020202020202-1".parse().unwrap());
        found
    }

    #[test]
    fn a_paper_that_names_a_process_is_never_over_by_itself() {
        let requester = LeaseRequester { me: holder(1), ttl: TTL };
        let there = naming(3, 2);
        let watched = observe_version(None, Some(&there), Duration::ZERO);
        let long = TTL_MAX * 10;
        let process = there.content.as_ref().unwrap().process.clone().unwrap();
        assert_eq!(
            bucket_lease_step(&requester, Some(&there), watched.as_ref(), long),
            BucketLeaseStep::AskFor(process, 3, 8)
        );
        let released = FoundObject { content: there.content.map(LeaseRecord::released_record), ..there };
        assert_eq!(
            bucket_lease_step(&requester, Some(&released), None, Duration::ZERO),
            BucketLeaseStep::Replace(3, 9),
            "whatever the process says"
        );
        assert_eq!(
            bucket_lease_step(&requester, Some(&naming(3, 1)), None, Duration::ZERO),
            BucketLeaseStep::Replace(3, 8),
            "it is this process's own"
        );
    }

    /// A process of a version without process objects reads what it knows, and waits for an hour.
    #[test]
    fn who_knows_no_process_leaves_the_paper_alone_for_an_hour() {
        #[derive(Deserialize)]
        struct Old {
            v: u32,
            instance: InstanceId,
            ttl_ms: u64,
            released: bool,
        }
        let requester = LeaseRequester { me: holder(2), ttl: TTL };
        let record = requester.lease_record(7, naming(1, 2).content.unwrap().process);
        let old: Old = serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!((old.v, old.instance, old.ttl_ms, old.released), (1, holder(2).instance, 3_600_000, false));
        // The record is rewritten in that time, whatever is granted meanwhile.
        for ttl in [TTL, Duration::from_mins(20), TTL_MAX] {
            let due =
                (0..1 << 20).map(Duration::from_secs).find(|age| is_rewrite_due(Duration::ZERO, *age, ttl)).unwrap();
            assert!(due + ttl <= (TTL_MAX * 9 / 10).max(ttl), "{ttl:?}: {due:?}");
        }
        let plain = serde_json::to_string(&requester.lease_record(7, None)).unwrap();
        assert!(!plain.contains("process") && plain.contains("\"ttl_ms\":60000"), "{plain}");
    }

    #[test]
    fn a_paper_that_names_something_else_cannot_be_read() {
        let record = LeaseRequester { me: holder(2), ttl: TTL }.lease_record(7, naming(1, 2).content.unwrap().process);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(parse(text.as_bytes()), Some(record));
        for other in ["app/journal/0000000000000007", "../x/live/processes/0202020202020202-1", ""] {
            let text = text.replace("app/live/processes/0202020202020202-1", other);
            assert_eq!(parse(text.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn only_who_wrote_before_has_renewed() {
        let seen = |before: Option<&WatchedVersion<u32>>, found: &FoundLease<u32>, at| {
            observe_version(before.cloned(), Some(found), Duration::from_secs(at)).unwrap()
        };
        let first = seen(None, &found(1, Some(2)), 10);
        assert!(!first.renewed && first.since == Duration::from_secs(10));
        let same = seen(Some(&first), &found(1, Some(2)), 20);
        assert!(!same.renewed && same.since == Duration::from_secs(10), "the record is the same");
        let renewed = seen(Some(&same), &found(2, Some(2)), 30);
        assert!(renewed.renewed && renewed.since == Duration::from_secs(30));
        assert!(!seen(Some(&renewed), &found(3, Some(3)), 40).renewed, "another process has it now");
        let unreadable = seen(Some(&renewed), &found(4, None), 40);
        assert!(!unreadable.renewed, "the owner is unknown");
        assert!(!seen(Some(&unreadable), &found(5, None), 50).renewed);
    }
}
