//! The heartbeat of a backup: one small object below `live/` that changes while a run goes on, however long the run
//! takes and however little it commits. A node that considers taking the role from a silent holder without a lease
//! checks whether it changes. A command that shows the role's status learns from it for which slot a run is in
//! progress, which no record tells before its end.
//!
//! It proves nothing: the journal fences. It only keeps a healthy long upload from being taken for a dead node. It
//! cannot be forged to keep a role for a dead node: it is sealed with the repository's key, and a heartbeat that is
//! replayed later is too old to count.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::RoleSettings;
use crate::env::TaskHandle;
use crate::ids::{Digest, InstanceId, NodeId};
use crate::job::health::RunningBackup;
use crate::job::node::context::NodeContext;
use crate::job::repository::open::Repository;
use crate::repo::{mac_line, object_keys};
use crate::store::{SizeLimit, StoreError};
use crate::text;

/// The heartbeat changes four times within the silence that others wait for, within these bounds.
const PART: u32 = 4;
const INTERVAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(1));

/// Maximum difference between the clocks of two nodes that work at all: each is at most five minutes away from the
/// store's.
const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_mins(10);

/// The first line of the object.
#[derive(Debug, Serialize, Deserialize)]
struct HeartbeatRecord {
    node: NodeId,
    name: String,
    instance: InstanceId,
    time: Timestamp,
    /// Random, so that no two heartbeats are equal.
    n: String,
    /// Slot of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    slot: Option<Timestamp>,
    /// Start of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    since: Option<Timestamp>,
}

/// What a run publishes its heartbeat for.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeartbeatSlot {
    /// The slot; `None`: a run by hand.
    pub slot: Option<Timestamp>,
    /// Latest start of a run for that slot: by then the heartbeat must show that this one has started.
    pub start_by: Option<Timestamp>,
}

/// Publishes the heartbeat until it is dropped.
#[derive(Debug)]
pub struct Heartbeat(TaskHandle<()>);

impl Heartbeat {
    /// Publishes heartbeats for a run that begins now.
    pub fn start(
        node_context: &NodeContext,
        role: &RoleSettings,
        repository: &Repository,
        cause: HeartbeatSlot,
    ) -> Self {
        let (node_context, repository, key) = (node_context.clone(), repository.clone(), object_keys::beat(&role.name));
        let interval = (role.takeover_after / PART).clamp(INTERVAL.0, INTERVAL.1);
        let since = node_context.env.clock.now();
        let left = cause.start_by.map(|by| Duration::try_from(by.duration_since(since)).unwrap_or_default());
        // A run that is shorter than the first pause needs no heartbeat.
        let mut pause = left.map_or(interval, |left| interval.min(left / 2));
        let env = node_context.env.clone();
        Self(env.spawn(async move {
            loop {
                node_context.env.sleep(pause).await;
                let object = object(&node_context, &repository, cause.slot, since);
                if let Err(error) = repository.store.put(&key, object).await {
                    tracing::debug!("the heartbeat: {error}");
                }
                pause = interval;
            }
        }))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn object(node_context: &NodeContext, repository: &Repository, slot: Option<Timestamp>, since: Timestamp) -> Bytes {
    let (node, instance, time) = (node_context.node.clone(), node_context.instance, node_context.env.clock.now());
    let n = hex::encode(node_context.env.random_bytes::<8>());
    let beat = HeartbeatRecord { node: node.id, name: node.name, instance, time, n, slot, since: Some(since) };
    mac_line::seal(&serde_json::to_vec(&beat).unwrap_or_default(), &repository.keys).into()
}

/// The backup in progress for a slot, on any node, according to its heartbeat; `None`: there is no heartbeat, or it
/// names no slot.
///
/// # Errors
/// The store fails.
pub(crate) async fn running_backup(
    repository: &Repository,
    now: Timestamp,
) -> Result<Option<RunningBackup>, StoreError> {
    Ok(read(repository).await?.and_then(|(beat, _)| fresh_backup(&beat, now)))
}

/// The heartbeat, and the digest of its object; `None`: it is missing, or not sealed with the repository's key.
async fn read(repository: &Repository) -> Result<Option<(HeartbeatRecord, Digest)>, StoreError> {
    let object = match repository.store.get(&object_keys::beat(repository.role()), SizeLimit::LIVE).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() || error.is_not_an_object() => return Ok(None),
        Err(error) => return Err(error),
    };
    let beat = mac_line::open(&object, &repository.keys).ok().and_then(|line| serde_json::from_slice(line).ok());
    Ok(beat.map(|beat| (beat, Digest(*blake3::hash(&object).as_bytes()))))
}

/// The backup that a heartbeat names, unless the heartbeat is so old that its run has surely ended.
fn fresh_backup(beat: &HeartbeatRecord, now: Timestamp) -> Option<RunningBackup> {
    let fresh = CLOCKS_APART_MAX.saturating_add(SignedDuration::try_from(INTERVAL.1 * 2).unwrap_or_default());
    let is_fresh = now.duration_since(beat.time).abs() <= fresh;
    let (slot, since) = (beat.slot.filter(|_| is_fresh)?, beat.since?);
    Some(RunningBackup { node: text::line(&beat.name).into_owned(), slot, since })
}

/// The heartbeat of a role that this process saw last.
#[derive(Debug, Default)]
pub struct LastHeartbeat(Mutex<Option<Digest>>);

/// Digest of the current heartbeat, to be compared with an earlier one. A missing, stale or forged heartbeat counts as
/// unchanged since `last`.
///
/// # Errors
/// The store fails.
pub async fn current_heartbeat(
    repository: &Repository,
    role: &RoleSettings,
    last: &LastHeartbeat,
    now: Timestamp,
) -> Result<Digest, StoreError> {
    let beat = read(repository).await?;
    let fresh =
        SignedDuration::try_from(role.takeover_after).unwrap_or(SignedDuration::MAX).saturating_add(CLOCKS_APART_MAX);
    let mut last = last.0.lock();
    if let Some((_, digest)) = beat.filter(|(beat, _)| now.duration_since(beat.time).abs() <= fresh) {
        *last = Some(digest);
    }
    Ok(last.unwrap_or(Digest([0; 32])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::testing::JobFixture;

    #[tokio::test]
    async fn a_beat_tells_for_which_slot_a_run_is_under_way_while_it_beats() {
        let rig = JobFixture::new().await;
        let (node_context, key, now) = (rig.node_context(), object_keys::beat(&rig.role.name), rig.env.clock.now());
        let told = async |now| running_backup(&rig.repository, now).await.unwrap();
        assert_eq!(told(now).await, None);
        rig.store.put(&key, object(&node_context, &rig.repository, None, now)).await.unwrap();
        assert_eq!(told(now).await, None, "a run by hand");
        let slot = now - SignedDuration::from_mins(1);
        let cause = HeartbeatSlot { slot: Some(slot), start_by: Some(now) };
        let beat = Heartbeat::start(&node_context, &rig.role, &rig.repository, cause);
        let run = loop {
            if let Some(run) = told(now).await {
                break run;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((run.slot, run.node.as_str()), (slot, node_context.node.name.as_str()));
        drop(beat);
        assert_eq!(told(now + SignedDuration::from_mins(13)).await, None, "its node is gone");
        let forged = rig.store.get(&key, SizeLimit::LIVE).await.unwrap();
        let forged = String::from_utf8(forged.to_vec()).unwrap().replace("\"n\":\"", "\"n\":\"00");
        rig.store.put(&key, Bytes::from(forged)).await.unwrap();
        assert_eq!(told(now).await, None, "of a writer without the key");
    }

    #[tokio::test]
    async fn only_a_fresh_beat_with_the_key_counts() {
        let rig = JobFixture::new().await;
        let (node_context, key, last) =
            (rig.node_context(), object_keys::beat(&rig.role.name), LastHeartbeat::default());
        let now = rig.env.clock.now();
        let look = async |now| current_heartbeat(&rig.repository, &rig.role, &last, now).await.unwrap();
        let none = look(now).await;
        assert_eq!(none, Digest([0; 32]));
        let first = object(&node_context, &rig.repository, None, now);
        rig.store.put(&key, first.clone()).await.unwrap();
        let seen = look(now).await;
        assert_ne!(seen, none);
        // A forgery by a writer without the key, an object that no version writes, and no object.
        let forged = String::from_utf8(first.to_vec()).unwrap().replace("\"n\":\"", "\"n\":\"00");
        for object in [Some(Bytes::from(forged)), Some(Bytes::from(vec![b' '; 1 << 20])), None] {
            match object {
                Some(object) => rig.store.put(&key, object).await.unwrap(),
                None => rig.store.delete(std::slice::from_ref(&key)).await.unwrap(),
            }
            assert_eq!(look(now).await, seen, "it has not changed");
        }
        rig.store.put(&key, object(&node_context, &rig.repository, None, now)).await.unwrap();
        let second = look(now).await;
        assert_ne!(second, seen);
        // A replay long after its node has gone.
        rig.store.put(&key, first).await.unwrap();
        let later = now + SignedDuration::try_from(rig.role.takeover_after).unwrap() + CLOCKS_APART_MAX * 2;
        assert_eq!(look(later).await, second);
    }
}
