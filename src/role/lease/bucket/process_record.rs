//! The content of a process object, and what follows from it for a role whose lease names it. Pure, like
//! [`lease_record`](super::lease_record).
//!
//! The invariants that live here: a process object that has ended never lives again, because no other process and no
//! later object has its key; and a role is free only by an end, by an absence, or by a list without it.
//!
//! Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::watched_version::{FoundObject, HasInstance, TTL_MAX, WatchedVersion, has_expired};
use crate::ids::{InstanceId, NodeId, RoleName};
use crate::role::lease::LeaseHolder;

/// The format version of the process object.
const FORMAT: u32 = 1;

/// The place of a process object: below the prefix of one of its roles, under a name that never comes twice. A key in a
/// lease leads to no other object, for reads or for writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessKey {
    pub(super) role: RoleName,
    pub(super) instance: InstanceId,
    /// A number that no other object of this process has.
    pub(super) number: u64,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/live/processes/{}-{}", self.role, self.instance, self.number)
    }
}

/// A text that is not the key of a process object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key of a process object")]
pub(super) struct InvalidProcessKey;

impl FromStr for ProcessKey {
    type Err = InvalidProcessKey;

    fn from_str(text: &str) -> Result<Self, InvalidProcessKey> {
        let parse = || {
            let (role, rest) = text.split_once("/live/processes/")?;
            let (instance, number) = rest.split_once('-')?;
            Some(Self { role: role.parse().ok()?, instance: instance.parse().ok()?, number: number.parse().ok()? })
        };
        parse().filter(|key| key.to_string() == text).ok_or(InvalidProcessKey)
    }
}

impl Serialize for ProcessKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProcessKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The content of a process object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessRecord {
    v: u32,
    node: NodeId,
    name: String,
    instance: InstanceId,
    /// How long the object keeps other processes out, in milliseconds.
    ttl_ms: u64,
    /// Grows with every write by any process, so that no content comes twice.
    pub(super) count: u64,
    /// The process gave the object up, or another process found it silent for its whole length. It has no roles.
    pub(super) ended: bool,
    /// The roles that the process holds, or is about to.
    pub(super) roles: BTreeSet<RoleName>,
}

impl HasInstance for ProcessRecord {
    fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl ProcessRecord {
    /// The first record of a process, which renews it in less than `ttl`.
    pub(super) fn new(me: &LeaseHolder, ttl: Duration) -> Self {
        Self {
            v: FORMAT,
            node: me.node,
            name: me.label.clone(),
            instance: me.instance,
            ttl_ms: ttl.as_millis() as u64,
            count: 0,
            ended: false,
            roles: BTreeSet::new(),
        }
    }

    /// The next record, with these roles.
    pub(super) fn with_roles(&self, roles: BTreeSet<RoleName>) -> Self {
        Self { count: self.count + 1, roles, ..self.clone() }
    }

    /// The last record.
    pub(super) fn ended_record(&self) -> Self {
        Self { ended: true, ..self.with_roles(BTreeSet::new()) }
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms).min(TTL_MAX)
    }
}

/// The process record in an object; `None` if it is damaged, or of a newer version.
pub(super) fn parse(bytes: &[u8]) -> Option<ProcessRecord> {
    serde_json::from_slice::<ProcessRecord>(bytes).ok().filter(|process_record| process_record.v == FORMAT)
}

/// The status of the process whose object a role's lease names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PeerStatus<V> {
    /// The process has the role.
    Has { alive: bool },
    /// The process no longer has the role: its object has ended, is gone, or does not list the role.
    HasNot,
    /// The process has shown no sign of life for as long as its object lasts. After exactly this version is ended, with
    /// this content, the process no longer has the role.
    Silent(V, ProcessRecord),
}

/// Decides the status. `asked` is the boot time at which the read of the object began; `own` is how long a process
/// object of this process lasts.
pub(super) fn peer_status<V: Clone + Eq>(
    role: &RoleName,
    me: &LeaseHolder,
    own: Duration,
    found: Option<&FoundObject<V, ProcessRecord>>,
    watched: Option<&WatchedVersion<V>>,
    asked: Duration,
) -> PeerStatus<V> {
    let Some(found) = found else { return PeerStatus::HasNot };
    let (ttl, end) = match &found.content {
        Some(there) if there.ended || !there.roles.contains(role) => return PeerStatus::HasNot,
        Some(there) => (there.ttl(), there.ended_record()),
        // As with a lease that cannot be read.
        None => (own, ProcessRecord::new(me, own).ended_record()),
    };
    if has_expired(&found.version, watched, ttl, asked) {
        return PeerStatus::Silent(found.version.clone(), end);
    }
    PeerStatus::Has { alive: watched.is_some_and(|watched| watched.version == found.version && watched.renewed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::lease::bucket::watched_version::observe_version;

    const TTL: Duration = Duration::from_mins(1);

    fn me(n: u8) -> LeaseHolder {
        LeaseHolder { node: NodeId([n; 16]), label: format!("node{n}"), instance: InstanceId([n; 8]) }
    }

    fn role(name: &str) -> RoleName {
        name.parse().unwrap()
    }

    fn of(
        there: Option<&FoundObject<u32, ProcessRecord>>,
        watched: Option<&WatchedVersion<u32>>,
        asked: Duration,
    ) -> PeerStatus<u32> {
        peer_status(&role("app"), &me(1), TTL, there, watched, asked)
    }

    fn listing(names: &[&str]) -> ProcessRecord {
        ProcessRecord::new(&me(2), TTL).with_roles(names.iter().map(|name| role(name)).collect())
    }

    #[test]
    fn a_role_is_free_by_an_end_an_absence_or_a_list_without_it_alone() {
        let found = |process_record: ProcessRecord| FoundObject { version: 3, content: Some(process_record) };
        assert_eq!(of(None, None, Duration::ZERO), PeerStatus::HasNot, "it is gone");
        assert_eq!(of(Some(&found(listing(&["db"]))), None, Duration::ZERO), PeerStatus::HasNot, "not listed");
        assert_eq!(
            of(Some(&found(listing(&["app"]).ended_record())), None, Duration::ZERO),
            PeerStatus::HasNot,
            "ended"
        );
        let damaged = FoundObject { version: 3, content: None };
        for there in [found(listing(&["app", "db"])), damaged] {
            assert_eq!(
                of(Some(&there), None, TTL * 100),
                PeerStatus::Has { alive: false },
                "the object was not watched"
            );
            let watched = observe_version(None, Some(&there), Duration::from_secs(7));
            let just_before = (Duration::from_secs(7) + TTL).saturating_sub(Duration::from_millis(1));
            assert_eq!(of(Some(&there), watched.as_ref(), just_before), PeerStatus::Has { alive: false });
            let PeerStatus::Silent(3, end) = of(Some(&there), watched.as_ref(), Duration::from_secs(7) + TTL) else {
                panic!("it has shown nothing for its whole length")
            };
            assert!(
                end.ended && end.roles.is_empty() && end.count > there.content.as_ref().map_or(0, |there| there.count)
            );
            let newer = FoundObject { version: 4, ..there.clone() };
            let watched = observe_version(watched, Some(&newer), Duration::from_mins(1));
            let alive = newer.content.is_some();
            assert_eq!(of(Some(&newer), watched.as_ref(), TTL + Duration::from_secs(7)), PeerStatus::Has { alive });
        }
    }

    #[test]
    fn a_process_lasts_an_hour_at_most() {
        let long = ProcessRecord { ttl_ms: u64::MAX, ..listing(&["app"]) };
        let there = FoundObject { version: 3, content: Some(long) };
        let watched = observe_version(None, Some(&there), Duration::ZERO);
        assert!(matches!(of(Some(&there), watched.as_ref(), TTL_MAX), PeerStatus::Silent(3, _)));
    }

    #[test]
    fn a_key_is_one_text() {
        let key = ProcessKey { role: role("app"), instance: InstanceId([2; 8]), number: 7 };
        assert_eq!(key.to_string(), "app/live/processes/0202020202020202-7");
        assert_eq!(key.to_string().parse(), Ok(key));
        for stray in [
            "app/live/processes/0202020202020202-07",
            "app/live/processes/0202020202020202-+7",
            "app/live/processes/0202020202020202",
            "app/live/lease",
            "app/x/live/processes/0202020202020202-7",
            "../live/processes/0202020202020202-7",
            "",
        ] {
            assert_eq!(stray.parse::<ProcessKey>(), Err(InvalidProcessKey), "{stray}");
        }
    }
}
