//! What each node tells the others about itself: one small object below `live/`. It shows which nodes there are, when
//! each was last there, and whether it runs the same program with the same config. No decision about who works rests on
//! it.
//!
//! Only this node writes that object. If the node finds there an object that none of its own processes wrote, and finds
//! one again after it has overwritten the first, there is a running clone that appends nothing, or a writer without the
//! key replays an object: a person is warned, and nothing stops.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::LeaseKind;
use crate::ids::{Digest, InstanceId, NodeId, RoleName};
use crate::job::health::RunningBackup;
use crate::job::local_state::LocalState;
use crate::job::local_state::authors::boot_evidence::{self, BootEvidence};
use crate::job::local_state::run_failure::RunFailure;
use crate::job::local_state::saved_state::LastAnnouncement;
use crate::job::node::context::NodeContext;
use crate::job::node::heartbeat;
use crate::job::node::run_failure_file::RunFailureFile;
use crate::job::report::whoami::{PeerInfo, PeerPresence, RoleWarning};
use crate::job::repository::open::Repository;
use crate::repo::crypto::DerivedKeys;
use crate::repo::{mac_line, object_keys};
use crate::role::clone_detection;
use crate::store::{SizeLimit, StoreError};
use crate::text;

/// A node that has published nothing for this long counts as gone.
pub const GONE: SignedDuration = SignedDuration::from_hours(24 * 7);

/// The version of the object.
const VERSION: u32 = 1;

/// Maximum number of nodes of a role that are read.
const NODES_MAX: usize = 64;

/// Objects below `live/` that belong to no node: the lease, the heartbeat and others.
const LIVE_OTHERS_MAX: usize = 16;

/// Number of objects fetched at once.
const CONCURRENT_MAX: usize = 8;

/// Maximum number of processes that may have written this node's object without getting an answer; with more of them
/// the writer counts as unknown.
const AUTHORS_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PresenceRecord {
    v: u32,
    #[serde(flatten)]
    node: PeerInfo,
    instance: InstanceId,
    /// By the node's own clock. A reader uses the store's time instead.
    time: Timestamp,
    /// The lease by which the node excludes others, in the config's word.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    lease: Option<String>,
    /// How the node's last run failed, sealed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    failure: Option<String>,
    /// The node could not remember that this process wrote the object, so the object is no evidence of a clone.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    unremembered: bool,
    /// This process is in the notes in memory of its machine's boot. If the reader's notes lack it, it runs on another
    /// machine.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    noted: bool,
}

/// Publishes that this node is there, by which `lease` it excludes others, and how its last run failed, if that is due.
/// Returns what to remember. `intend` saves beforehand that the object may have been written. A failed write is retried
/// at the next call: nothing rests on it.
pub(crate) async fn announce(
    node_context: &NodeContext,
    repository: &Repository,
    lease: LeaseKind,
    before: Option<&LastAnnouncement>,
    mut intend: impl FnMut(&LastAnnouncement) -> io::Result<()>,
) -> Option<LastAnnouncement> {
    let word = PresenceReport::of(node_context, repository, lease);
    let what = word.digest();
    let now = node_context.env.clock.now();
    if before.is_some_and(|before| !before.is_due(what, now)) {
        return None;
    }
    let (store, role) = (repository.store.as_ref(), repository.role());
    let key = object_keys::node(role, node_context.node.id);
    let failed = |error: &dyn std::fmt::Display| {
        tracing::debug!("role {role}: this node's status cannot be published to the other nodes: {error}");
    };
    // An object that is not sealed with the repository's key was written by an earlier version, or by a writer without
    // the key: it is no evidence.
    let found = match store.get(&key, SizeLimit::LIVE).await {
        Ok(object) => {
            let found = read(&object, &repository.keys, &key, role);
            found.filter(|found| !found.unremembered)
        }
        Err(error) if error.is_not_found() || error.is_not_an_object() => None,
        Err(error) => {
            failed(&error);
            return None;
        }
    };
    let own = before.and_then(|before| before.by.as_deref());
    let local = LocalState::peek(&node_context.env, &node_context.state_dir, repository.keys.repo());
    let BootEvidence { own: noted, mark } = BootEvidence::collect(&local, node_context.instance);
    let mark = mark.ok();
    let instance = found.as_ref().map(|found| found.instance);
    let stranger = instance.filter(|_| {
        clone_detection::is_foreign_process(instance, own)
            && clone_detection::is_foreign_process(instance, Some(&noted))
    });
    if let Some(stranger) = stranger {
        tracing::warn!(
            "role {role}: process {stranger} published its status as this node, and this node did not start it: \
             either this machine was set back to an earlier state, or it exists twice"
        );
    }
    let is_noted = found.as_ref().is_some_and(|found| found.noted);
    let is_second =
        |before: &LastAnnouncement| before.stranger.is_some() && clone_detection::is_same_boot(before.mark, mark);
    let again = stranger.is_some() && is_noted && before.is_some_and(is_second);
    // The announcement stays due until it is written.
    let (was, at) = before.map_or((Digest([0; 32]), now), |before| (before.what, before.at));
    let by = own.filter(|own| own.len() < AUTHORS_MAX || own.contains(&node_context.instance)).map(|own| {
        let others = own.iter().filter(|other| **other != node_context.instance);
        others.chain([&node_context.instance]).copied().collect()
    });
    // Without an earlier object there is nothing that another process may have written.
    let by = by.or_else(|| (before.is_none() && found.is_none()).then(|| vec![node_context.instance]));
    let last = before.map(|before| (before.stranger, before.again, before.mark));
    let (last, met, by_mark) = last.unwrap_or_default();
    if let Err(error) = intend(&LastAnnouncement { what: was, at, stranger: last, again: met, mark: by_mark, by }) {
        failed(&error);
        put_failure(node_context, repository, word).await;
        return None;
    }
    let noted = boot_evidence::note_in_boot_dir(&local, node_context.instance).await.is_some();
    match word.write(node_context, repository, if noted { PresenceTrace::Memory } else { PresenceTrace::Disk }).await {
        Ok(()) => {
            Some(LastAnnouncement { what, at: now, stranger, again, mark, by: Some(vec![node_context.instance]) })
        }
        Err(error) => {
            failed(&error);
            None
        }
    }
}

/// Publishes how this node's last run failed if the announcement cannot be remembered: the state directory may be why
/// the run failed. One process publishes the same failure once an hour.
pub(crate) async fn announce_failure(node_context: &NodeContext, repository: &Repository, lease: LeaseKind) {
    put_failure(node_context, repository, PresenceReport::of(node_context, repository, lease)).await;
}

async fn put_failure(node_context: &NodeContext, repository: &Repository, word: PresenceReport) {
    let (what, now, role) = (word.digest(), node_context.env.clock.now(), repository.role());
    if word.failure.is_none() || !node_context.memory.claim_announcement(repository.keys.repo(), what, now) {
        return;
    }
    if let Err(error) = word.write(node_context, repository, PresenceTrace::None).await {
        tracing::debug!("role {role}: the failure cannot be published to the other nodes: {error}");
    }
}

/// Where it is noted that this process wrote the presence object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PresenceTrace {
    None,
    /// In the state directory.
    Disk,
    /// Also in memory of this boot.
    Memory,
}

/// What a node publishes about itself.
struct PresenceReport {
    node: PeerInfo,
    lease: &'static str,
    failure: Option<RunFailure>,
}

impl PresenceReport {
    fn of(node_context: &NodeContext, repository: &Repository, lease: LeaseKind) -> Self {
        let node = PeerInfo {
            id: node_context.node.id,
            name: node_context.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_hash: node_context.config_hash.clone(),
        };
        Self {
            node,
            lease: lease_name(lease),
            failure: RunFailureFile::of_node(node_context, repository.role()).load(),
        }
    }

    /// Digest of what is worth publishing; a repetition of the same failure is not.
    fn digest(&self) -> Digest {
        let news = (&self.node, self.lease, self.failure.as_ref().map(RunFailure::fingerprint));
        Digest(*blake3::hash(&serde_json::to_vec(&news).unwrap_or_default()).as_bytes())
    }

    async fn write(
        self,
        node_context: &NodeContext,
        repository: &Repository,
        trace: PresenceTrace,
    ) -> Result<(), StoreError> {
        let Self { node, lease, failure } = self;
        let failure = failure.map(|failure| failure.seal(&repository.keys, node_context.node.id.0, &node_context.env));
        let (instance, time, lease) = (node_context.instance, node_context.env.clock.now(), Some(lease.to_owned()));
        let (unremembered, noted) = (trace == PresenceTrace::None, trace == PresenceTrace::Memory);
        let presence = PresenceRecord { v: VERSION, node, instance, time, lease, failure, unremembered, noted };
        let object = mac_line::seal(&serde_json::to_vec(&presence).unwrap_or_default(), &repository.keys);
        repository.store.put(&object_keys::node(repository.role(), node_context.node.id), Bytes::from(object)).await
    }
}

/// The presence in such an object, if it is sealed with the repository's key and is under its own node's name. An
/// object of another version is ignored, and so is one of a writer without the key.
fn read(object: &[u8], keys: &DerivedKeys, key: &str, role: &RoleName) -> Option<PresenceRecord> {
    let presence: PresenceRecord = serde_json::from_slice(mac_line::open(object, keys).ok()?).ok()?;
    (object_keys::node(role, presence.node.id) == key).then_some(presence)
}

/// What is published below `live/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LivePeers {
    /// The nodes that announced themselves within the last days, by label.
    pub(crate) peers: Vec<PeerPresence>,
    /// A node left a note on losses.
    pub(crate) has_losses: bool,
    /// The backup in progress, on any node.
    pub(crate) under_way: Option<RunningBackup>,
}

/// What the nodes other than `me` have published. Objects without the key's seal are ignored.
///
/// # Errors
/// The store fails.
pub(crate) async fn read_live_peers(
    repository: &Repository,
    me: NodeId,
    now: Timestamp,
) -> Result<LivePeers, StoreError> {
    let (store, keys, role) = (repository.store.as_ref(), &repository.keys, repository.role());
    let page = store.list(&object_keys::live_prefix(role), None, NODES_MAX + LIVE_OTHERS_MAX).await?;
    let (own, nodes, loss) = (object_keys::node(role, me), object_keys::nodes_prefix(role), object_keys::loss(role));
    let is_there = |key: &str| page.objects.iter().any(|object| object.key == key);
    let (has_losses, beats) = (is_there(&loss), is_there(&object_keys::beat(role)));
    let others = page.objects.into_iter().filter(|object| object.key.starts_with(&nodes) && object.key != own);
    let alive = others.filter(|object| now.duration_since(object.modified) < GONE);
    let read = |object: crate::store::ObjectMeta| async move {
        match store.get(&object.key, SizeLimit::LIVE).await {
            Ok(bytes) => Ok(read(&bytes, keys, &object.key, role).map(|presence| PeerPresence {
                node: printable(&presence.node),
                seen: object.modified,
                lease: presence.lease.as_deref().and_then(lease_of),
                failure: presence.failure,
            })),
            Err(error) if error.is_not_found() || error.is_not_an_object() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let found = stream::iter(alive).map(read).buffered(CONCURRENT_MAX).try_collect::<Vec<Option<PeerPresence>>>();
    let under_way = async { if beats { heartbeat::running_backup(repository, now).await } else { Ok(None) } };
    let (found, under_way) = tokio::try_join!(found, under_way)?;
    let mut peers: Vec<PeerPresence> = found.into_iter().flatten().collect();
    peers.sort_by(|a, b| a.node.name.cmp(&b.node.name));
    Ok(LivePeers { peers, has_losses, under_way })
}

/// A node's own information, with each text limited to one line.
fn printable(node: &PeerInfo) -> PeerInfo {
    let line = |text: &str| text::line(text).into_owned();
    PeerInfo {
        name: line(&node.name),
        version: line(&node.version),
        config_hash: line(&node.config_hash),
        ..node.clone()
    }
}

/// A lease in the config's word.
fn lease_name(lease: LeaseKind) -> &'static str {
    match lease {
        LeaseKind::Etcd => "etcd",
        LeaseKind::Bucket => "bucket",
        LeaseKind::None => "none",
    }
}

/// The lease of that word; `None`: the word of a later version.
fn lease_of(name: &str) -> Option<LeaseKind> {
    [LeaseKind::Etcd, LeaseKind::Bucket, LeaseKind::None].into_iter().find(|lease| lease_name(*lease) == name)
}

/// The warning that another node uses another kind of lease: then neither sees the other's.
pub(crate) fn lease_drift(peer: &PeerPresence, own: LeaseKind) -> Option<RoleWarning> {
    let theirs = peer.lease.filter(|theirs| *theirs != own)?;
    Some(RoleWarning::LeaseDrift { node: peer.node.name.clone(), theirs, own })
}

/// Whether `peer` has this node's name, `label`, and was not seen since this node's identity was made: it is this
/// machine before its state directory was lost. `born` is when the identity was made; `None`: not yet.
pub(crate) fn is_former_identity(peer: &PeerPresence, label: &str, born: Option<Timestamp>) -> bool {
    peer.node.name == label && born.is_none_or(|born| peer.seen < born)
}

/// The warning that another node has another version or config: such nodes do different things as the role moves
/// between them.
pub(crate) fn config_drift(peer: &PeerInfo, config_hash: &str) -> Option<RoleWarning> {
    let version = (peer.version != env!("CARGO_PKG_VERSION")).then(|| peer.version.clone());
    let config = peer.config_hash != config_hash;
    (version.is_some() || config).then(|| RoleWarning::Drift { node: peer.name.clone(), version, config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::local_state::process_memory::ProcessMemory;
    use crate::job::local_state::saved_state::ANNOUNCEMENT_INTERVAL;
    use crate::job::node::run_failure_file::RunFailureFile;
    use crate::job::report::RunOutcome;
    use crate::job::report::run_summary::RunStep;
    use crate::job::testing::{JobFixture, failure};

    #[test]
    fn a_node_of_the_same_name_that_is_seen_no_more_is_what_this_one_was() {
        let (before, born, after) = (
            Timestamp::UNIX_EPOCH,
            Timestamp::UNIX_EPOCH + ANNOUNCEMENT_INTERVAL,
            Timestamp::UNIX_EPOCH + ANNOUNCEMENT_INTERVAL * 2,
        );
        let peer = |name: &str, seen| {
            let node = PeerInfo {
                id: NodeId([2; 16]),
                name: name.to_owned(),
                version: String::new(),
                config_hash: String::new(),
            };
            PeerPresence { node, seen, lease: None, failure: None }
        };
        let former = |name, seen, born| is_former_identity(&peer(name, seen), "east", born);
        assert!(former("east", before, Some(born)));
        assert!(former("east", after, None), "this one is not made yet");
        assert!(!former("east", after, Some(born)), "it lives: another machine has the name");
        assert!(!former("west", before, Some(born)) && !former("west", before, None));
    }

    /// As if the last announcement were longer ago than the interval.
    fn long_ago(announced: LastAnnouncement) -> LastAnnouncement {
        LastAnnouncement { at: announced.at - ANNOUNCEMENT_INTERVAL, ..announced }
    }

    async fn tell(
        node_context: &NodeContext,
        rig: &JobFixture,
        before: Option<&LastAnnouncement>,
    ) -> Option<LastAnnouncement> {
        announce(node_context, &rig.repository, LeaseKind::None, before, |_| Ok(())).await
    }

    #[tokio::test]
    async fn nodes_see_each_other_and_how_they_are_set_up() {
        let rig = JobFixture::new().await;
        let role = &rig.role.name;
        let east = rig.node_context();
        let mut west = rig.node_context();
        (west.node.id, west.node.name, west.config_hash) = (NodeId([2; 16]), "west".to_owned(), "other".to_owned());
        let told = tell(&east, &rig, None).await.unwrap();
        assert_eq!(tell(&east, &rig, Some(&told)).await, None, "it is not due");
        let before = tell(&west, &rig, None).await.unwrap();
        rig.store.put(&format!("{}x", object_keys::nodes_prefix(role)), Bytes::from("{}")).await.unwrap();
        // Without the key an object is no node: neither one of its own making, nor a copy of another node's.
        let theirs = rig.store.get(&object_keys::node(role, west.node.id), SizeLimit::LIVE).await.unwrap();
        rig.store.put(&object_keys::node(role, NodeId([3; 16])), theirs.clone()).await.unwrap();
        let unsealed = theirs.slice(..=theirs.iter().position(|&byte| byte == b'\n').unwrap());
        let forged = String::from_utf8(unsealed.to_vec())
            .unwrap()
            .replace(&NodeId([2; 16]).to_string(), &NodeId([4; 16]).to_string());
        rig.store.put(&object_keys::node(role, NodeId([4; 16])), Bytes::from(forged)).await.unwrap();
        let now = rig.env.clock.now();
        let seen = read_live_peers(&rig.repository, east.node.id, now).await.unwrap().peers;
        assert_eq!(
            seen.iter().map(|p| (p.node.name.as_str(), p.node.config_hash.as_str())).collect::<Vec<_>>(),
            [("west", "other")]
        );
        assert_eq!(lease_drift(&seen[0], LeaseKind::None), None);
        assert!(matches!(
            lease_drift(&seen[0], LeaseKind::Bucket),
            Some(RoleWarning::LeaseDrift { theirs: LeaseKind::None, .. })
        ));
        assert_eq!(read_live_peers(&rig.repository, east.node.id, now + GONE * 2).await.unwrap(), LivePeers::default());
        let failed = RunFailure { time: now, ..failure("/srv/secret: permission denied") };
        let kept = RunFailureFile::of_node(&west, role);
        kept.add(failed.clone());
        let failing = tell(&west, &rig, Some(&before)).await;
        let sealed =
            read_live_peers(&rig.repository, east.node.id, now).await.unwrap().peers[0].failure.clone().unwrap();
        let opened = RunFailure::open(&sealed, &rig.repository.keys, west.node.id.0).unwrap();
        assert_eq!(opened.error, failed.error);
        kept.add(failed);
        assert_eq!(tell(&west, &rig, failing.as_ref()).await, None, "the same failure once more is no news");
        kept.clear();
        assert!(tell(&west, &rig, failing.as_ref()).await.is_some());
        assert_eq!(read_live_peers(&rig.repository, east.node.id, now).await.unwrap().peers[0].failure, None);
        rig.store.put(&object_keys::loss(role), Bytes::from("{}")).await.unwrap();
        assert!(read_live_peers(&rig.repository, east.node.id, now).await.unwrap().has_losses);
        let changed = NodeContext { config_hash: "new".to_owned(), ..east };
        assert!(tell(&changed, &rig, Some(&told)).await.is_some(), "at once");
    }

    #[tokio::test]
    async fn a_twin_that_only_stands_by_is_found() {
        let rig = JobFixture::new().await;
        let mine = rig.node_context();
        // The clone has this node's past, but neither its future nor what is in memory.
        let elsewhere = rig.dir.path().join("elsewhere");
        let clone = NodeContext { instance: InstanceId([9; 8]), state_dir: elsewhere, ..rig.node_context() };
        for node_context in [&mine, &clone] {
            LocalState::open(&rig.env, &node_context.state_dir, rig.repository.keys.repo()).unwrap();
        }
        let mut before = long_ago(tell(&mine, &rig, None).await.unwrap());
        let mut theirs = before.clone();
        let mut found = Vec::new();
        for round in 0..3 {
            theirs = long_ago(tell(&clone, &rig, Some(&theirs)).await.unwrap());
            assert_eq!(theirs.stranger.is_some(), round > 0, "its memory has its past");
            before = long_ago(tell(&mine, &rig, Some(&before)).await.unwrap());
            found.push(before.twin());
        }
        let twin = Some(clone.instance);
        assert_eq!(found, [None, twin, twin], "once may be a machine that was set back");
        let after = tell(&mine, &rig, Some(&before)).await.unwrap();
        assert_eq!((after.twin(), after.stranger), (None, None), "it is gone");
    }

    #[tokio::test]
    async fn a_state_directory_that_is_set_back_again_and_again_warns_of_no_twin() {
        let rig = JobFixture::new().await;
        let process = |instance| NodeContext { instance: InstanceId([instance; 8]), ..rig.node_context() };
        let local = LocalState::open(&rig.env, &rig.state_dir(), rig.repository.keys.repo()).unwrap();
        let kept = long_ago(tell(&process(1), &rig, None).await.unwrap());
        for instance in 2..6 {
            // Each finds what the one before published, and remembers what was there before that.
            let told = tell(&process(instance), &rig, Some(&kept)).await.unwrap();
            assert_eq!((told.stranger, told.twin()), (None, None), "it is noted in memory");
        }
        // If that is lost again and again, only a warning follows.
        let mut before = kept;
        for instance in 6..9 {
            let dir = rig.env.files.boot_dir(&rig.state_dir()).unwrap();
            std::fs::remove_dir_all(dir.path()).unwrap();
            drop(local.boot_notes().unwrap());
            before = long_ago(tell(&process(instance), &rig, Some(&before)).await.unwrap());
            before.by = Some(vec![InstanceId([1; 8])]);
            assert_eq!((before.stranger.is_some(), before.twin()), (true, None));
        }
    }

    #[tokio::test]
    async fn only_what_is_known_and_sealed_is_evidence() {
        let rig = JobFixture::new().await;
        let mine = rig.node_context();
        let key = object_keys::node(&rig.role.name, mine.node.id);
        let mut before = long_ago(tell(&mine, &rig, None).await.unwrap());
        // Any writer with access to the store can write this.
        let forged = PresenceRecord {
            v: VERSION,
            node: PeerInfo { id: mine.node.id, name: "x".into(), version: "x".into(), config_hash: "x".into() },
            instance: InstanceId([9; 8]),
            time: rig.env.clock.now(),
            lease: None,
            failure: None,
            unremembered: false,
            noted: true,
        };
        for _ in 0..3 {
            rig.store.put(&key, Bytes::from(serde_json::to_vec(&forged).unwrap())).await.unwrap();
            before = long_ago(tell(&mine, &rig, Some(&before)).await.unwrap());
            assert_eq!(before.stranger, None);
        }
        // A state of an earlier version, or one that was lost, does not say which process wrote the object.
        for before in [None, Some(LastAnnouncement { by: None, ..before.clone() })] {
            let next = NodeContext { instance: InstanceId([3; 8]), ..rig.node_context() };
            assert_eq!(tell(&next, &rig, before.as_ref()).await.unwrap().stranger, None);
        }
        // A process that dies before it gets the answer to its write still counts as this node's.
        let mut intended = None;
        let dying = NodeContext { instance: InstanceId([4; 8]), ..rig.node_context() };
        let before = long_ago(tell(&mine, &rig, None).await.unwrap());
        let keep = |announced: &LastAnnouncement| {
            intended = Some(announced.clone());
            Ok(())
        };
        announce(&dying, &rig.repository, LeaseKind::None, Some(&before), keep).await.unwrap();
        let after = tell(&mine, &rig, intended.as_ref()).await.unwrap();
        assert_eq!(after.stranger, None);
        // If the announcement cannot be remembered, it is not written.
        let full = |_: &LastAnnouncement| Err(io::ErrorKind::StorageFull.into());
        assert_eq!(announce(&dying, &rig.repository, LeaseKind::None, Some(&long_ago(after)), full).await, None);
    }

    #[tokio::test]
    async fn a_failure_is_told_although_nothing_can_be_remembered_and_is_no_evidence_of_a_twin() {
        let rig = JobFixture::new().await;
        let (mine, role) = (rig.node_context(), &rig.role.name);
        let mut before = long_ago(tell(&mine, &rig, None).await.unwrap());
        let full = |_: &LastAnnouncement| Err(io::ErrorKind::StorageFull.into());
        let told = || async {
            let found = read_live_peers(&rig.repository, NodeId([2; 16]), rig.env.clock.now()).await.unwrap().peers;
            RunFailure::open(found[0].failure.as_deref()?, &rig.repository.keys, mine.node.id.0)
                .map(|failure| failure.error)
        };
        for instance in [5, 6, 7] {
            let run = NodeContext {
                instance: InstanceId([instance; 8]),
                memory: ProcessMemory::default(),
                ..rig.node_context()
            };
            RunFailureFile::of_node(&run, role).add(RunFailure {
                outcome: RunOutcome::Failed,
                step: RunStep::Run,
                time: rig.env.clock.now(),
                slot: None,
                error: format!("no room {instance}"),
                failures: 0,
                after: None,
            });
            assert_eq!(announce(&run, &rig.repository, LeaseKind::None, Some(&before), full).await, None);
            assert_eq!(told().await, Some(format!("no room {instance}")));
            before = long_ago(tell(&mine, &rig, Some(&before)).await.unwrap());
            assert_eq!(before.stranger, None);
        }
        // One process publishes the same failure once.
        let key = object_keys::node(role, mine.node.id);
        announce_failure(&mine, &rig.repository, LeaseKind::None).await;
        assert!(told().await.is_some());
        rig.store.delete(&[key]).await.unwrap();
        announce_failure(&mine, &rig.repository, LeaseKind::None).await;
        assert_eq!(read_live_peers(&rig.repository, NodeId([2; 16]), rig.env.clock.now()).await.unwrap().peers, []);
    }
}
