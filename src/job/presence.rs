//! What each node tells the others of itself: one small object below `live/`, by which whoever looks sees who else there is, when
//! it was last there, and whether it runs the same program with the same config. No decision on who works rests on it.
//!
//! Only this node writes that object. Who finds there what none of its own processes wrote, and finds it again after having
//! written over it, has a living twin that otherwise keeps still.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, InstanceId, NodeId, RoleName};
use crate::job::report::whoami::{PeerInfo, PeerSeen, Warning};
use crate::job::runner::Runner;
use crate::repo::names;
use crate::role::twin::{self, Suspicion};
use crate::store::{Store, StoreError};

/// For so long a node that is there says nothing new.
pub const INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// A node that has said nothing for so long is not there any more.
pub const GONE: SignedDuration = SignedDuration::from_hours(24 * 7);

/// The version of the object.
const VERSION: u32 = 1;

/// The most nodes of a role that are looked at.
const NODES_MAX: usize = 64;

/// Objects fetched at once.
const CONCURRENT_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Presence {
    v: u32,
    #[serde(flatten)]
    node: PeerInfo,
    instance: InstanceId,
    /// By the node's own clock. Who reads it goes by the store's.
    time: Timestamp,
}

/// What this node remembers of having told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    what: Digest,
    at: Timestamp,
    /// What was there before was written by none of this node's processes.
    stranger: bool,
}

impl Announced {
    /// Whether this node, told like this, has to be told again.
    fn is_due(&self, what: Digest, now: Timestamp) -> bool {
        // A clock that was set back makes it due as well.
        self.what != what || now.duration_since(self.at).abs() >= INTERVAL
    }
}

/// What announcing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// To be remembered.
    pub(crate) announced: Announced,
    /// A process with this node's ID that is none of its own writes there, again and again.
    pub(crate) twin: Option<InstanceId>,
}

/// Tells that this node is here, if that is due. `own`: this node's processes. What fails is tried again by the next one who looks:
/// nothing rests on it.
pub(crate) async fn announce(
    runner: &Runner,
    store: &dyn Store,
    role: &RoleName,
    before: Option<Announced>,
    own: &[InstanceId],
) -> Option<Done> {
    let node = PeerInfo {
        id: runner.node.id,
        name: runner.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_hash: runner.config_hash.clone(),
    };
    let what = Digest(*blake3::hash(&serde_json::to_vec(&node).unwrap_or_default()).as_bytes());
    let now = runner.env.clock.now();
    if before.is_some_and(|before| !before.is_due(what, now)) {
        return None;
    }
    let key = names::node(role, runner.node.id);
    let tell = async {
        let found = match store.get(&key).await {
            Ok(bytes) => serde_json::from_slice::<Presence>(&bytes).ok().map(|found| found.instance),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let presence = Presence { v: VERSION, node, instance: runner.instance, time: now };
        let mut line = serde_json::to_vec(&presence).unwrap_or_default();
        line.push(b'\n');
        store.put(&key, Bytes::from(line)).await?;
        Ok(found)
    };
    match tell.await {
        Ok(found) => {
            let suspicion = twin::judge_presence(found, own, before.is_some_and(|before| before.stranger));
            let announced = Announced { what, at: now, stranger: suspicion != Suspicion::None };
            Some(Done { announced, twin: found.filter(|_| suspicion == Suspicion::Twin) })
        }
        Err(error) => {
            tracing::debug!("role {role}: the other nodes are not told of this one: {error}");
            None
        }
    }
}

/// The nodes but `me` that told of themselves within the last days, by label.
///
/// # Errors
/// The store.
pub(crate) async fn peers(
    store: &dyn Store,
    role: &RoleName,
    me: NodeId,
    now: Timestamp,
) -> Result<Vec<PeerSeen>, StoreError> {
    let page = store.list(&names::nodes_prefix(role), None, NODES_MAX).await?;
    let own = names::node(role, me);
    let others = page.objects.into_iter().filter(|object| object.key != own);
    let alive = others.filter(|object| now.duration_since(object.modified) < GONE);
    let read = |object: crate::store::ObjectMeta| async move {
        match store.get(&object.key).await {
            // What another version writes there is that version's.
            Ok(bytes) => Ok(serde_json::from_slice::<Presence>(&bytes)
                .ok()
                .map(|presence| PeerSeen { node: presence.node, seen: object.modified })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let found: Vec<Option<PeerSeen>> = stream::iter(alive).map(read).buffered(CONCURRENT_MAX).try_collect().await?;
    let mut peers: Vec<PeerSeen> = found.into_iter().flatten().collect();
    peers.sort_by(|a, b| a.node.name.cmp(&b.node.name));
    Ok(peers)
}

/// What another node has otherwise than this one: two nodes with two configs take turns at doing two different things.
pub(crate) fn drift(peer: &PeerInfo, config_hash: &str) -> Option<Warning> {
    let version = (peer.version != env!("CARGO_PKG_VERSION")).then(|| peer.version.clone());
    let config = peer.config_hash != config_hash;
    (version.is_some() || config).then(|| Warning::Drift { node: peer.name.clone(), version, config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::testing::Rig;

    /// As if the last word were longer ago than a node keeps quiet.
    fn long_ago(done: Done) -> Announced {
        Announced { at: done.announced.at - INTERVAL, ..done.announced }
    }

    #[tokio::test]
    async fn nodes_see_each_other_and_how_they_are_set_up() {
        let rig = Rig::new().await;
        let (store, role) = (rig.store.as_ref(), &rig.role.name);
        let east = rig.runner();
        let mut west = rig.runner();
        (west.node.id, west.node.name, west.config_hash) = (NodeId([2; 16]), "west".to_owned(), "other".to_owned());
        let done = announce(&east, store, role, None, &[east.instance]).await.unwrap();
        assert_eq!(announce(&east, store, role, Some(done.announced), &[east.instance]).await, None, "it is not due");
        announce(&west, store, role, None, &[west.instance]).await.unwrap();
        rig.store.put(&format!("{}x", names::nodes_prefix(role)), Bytes::from("{}")).await.unwrap();
        let now = rig.env.clock.now();
        let seen = peers(store, role, east.node.id, now).await.unwrap();
        assert_eq!(
            seen.iter().map(|p| (p.node.name.as_str(), p.node.config_hash.as_str())).collect::<Vec<_>>(),
            [("west", "other")]
        );
        assert_eq!(peers(store, role, east.node.id, now + GONE * 2).await.unwrap(), []);
        let changed = Runner { config_hash: "new".to_owned(), ..east };
        assert!(announce(&changed, store, role, Some(done.announced), &[changed.instance]).await.is_some(), "at once");
    }

    #[tokio::test]
    async fn a_twin_that_only_stands_by_is_found() {
        let rig = Rig::new().await;
        let (store, role) = (rig.store.as_ref(), &rig.role.name);
        let mine = rig.runner();
        let clone = Runner { instance: InstanceId([9; 8]), ..rig.runner() };
        // The clone has this node's past, and not its future.
        let (own, theirs) = ([mine.instance], [mine.instance, clone.instance]);
        let mut before = long_ago(announce(&mine, store, role, None, &own).await.unwrap());
        let mut found = Vec::new();
        for _ in 0..3 {
            let cloned = announce(&clone, store, role, None, &theirs).await.unwrap();
            assert_eq!(cloned.twin, None, "it knows its past");
            let done = announce(&mine, store, role, Some(before), &own).await.unwrap();
            before = long_ago(done);
            found.push(done.twin);
        }
        assert_eq!(
            found,
            [None, Some(clone.instance), Some(clone.instance)],
            "once may be a machine that was set back"
        );
        let after = announce(&mine, store, role, Some(before), &own).await.unwrap();
        assert!(after.twin.is_none() && !after.announced.stranger, "it is gone");
    }
}
