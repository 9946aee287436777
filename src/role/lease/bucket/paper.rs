//! What stands in a lease object, and what follows from it. Pure: `V` is what names a version of the object, whatever its
//! store makes of that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, NodeId};
use crate::role::lease::LeaseHolder;

/// The longest lease that is respected: a longer one in the object is damage, and would lock everybody out.
const TTL_MAX: Duration = Duration::from_hours(1);

/// The version of the lease object.
const FORMAT: u32 = 1;

/// The content of the lease object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paper {
    v: u32,
    node: NodeId,
    name: String,
    pub(super) instance: InstanceId,
    /// How long it keeps others out, in milliseconds.
    ttl_ms: u64,
    /// Grows with every write, by whomever: no content comes twice.
    count: u64,
    /// Its holder gave it up.
    pub(super) released: bool,
}

impl Paper {
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms).min(TTL_MAX)
    }

    pub(super) fn holder(&self) -> LeaseHolder {
        LeaseHolder { node: self.node, label: self.name.clone(), instance: self.instance }
    }

    /// The same holder's next one.
    pub(super) fn renewed(self) -> Self {
        Self { count: self.count + 1, ..self }
    }

    /// The same, given up.
    pub(super) fn given_up(self) -> Self {
        Self { released: true, ..self.renewed() }
    }
}

/// The object as it was found: a version, and what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<V> {
    pub(super) version: V,
    pub(super) paper: Option<Paper>,
}

/// A version that is being watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched<V> {
    version: V,
    /// The boot time when it was first known to be there.
    since: Duration,
    /// Whether another version of the same holder was there before: it lives.
    pub(super) renewed: bool,
    instance: Option<InstanceId>,
}

/// Who asks, and for how long.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) me: LeaseHolder,
    pub(super) ttl: Duration,
}

/// What to do about what was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<V> {
    /// There is none: create it.
    Create(Paper),
    /// It is ours, free or dead: replace exactly this version.
    Replace(V, Paper),
    /// Somebody else's.
    Leave { by: Option<LeaseHolder>, alive: bool },
}

/// Decides. `asked` is the boot time at which the look at the object began: it was there then or later.
pub(super) fn step<V: Clone + Eq>(
    asker: &Asker,
    found: Option<&Found<V>>,
    watched: Option<&Watched<V>>,
    asked: Duration,
) -> Step<V> {
    let paper = |count: u64| Paper {
        v: FORMAT,
        node: asker.me.node,
        name: asker.me.label.clone(),
        instance: asker.me.instance,
        ttl_ms: asker.ttl.as_millis() as u64,
        count,
        released: false,
    };
    let Some(found) = found else { return Step::Create(paper(1)) };
    // What cannot be read counts as somebody's lease of our own length: it may be of a newer version.
    let (free, ttl, count) = match &found.paper {
        Some(there) => (there.released || there.instance == asker.me.instance, there.ttl(), there.count),
        None => (false, asker.ttl, 0),
    };
    let watched = watched.filter(|watched| watched.version == found.version);
    let over = watched.is_some_and(|watched| asked.saturating_sub(watched.since) >= ttl);
    if free || over {
        return Step::Replace(found.version.clone(), paper(count + 1));
    }
    Step::Leave { by: found.paper.as_ref().map(Paper::holder), alive: watched.is_some_and(|watched| watched.renewed) }
}

/// Goes on watching: `seen` is the boot time by which the answer was there.
pub(super) fn watch<V: Clone + Eq>(
    before: Option<Watched<V>>,
    found: Option<&Found<V>>,
    seen: Duration,
) -> Option<Watched<V>> {
    let found = found?;
    let instance = found.paper.as_ref().map(|paper| paper.instance);
    match before {
        Some(before) if before.version == found.version => Some(before),
        before => {
            let renewed = before.is_some_and(|before| instance.is_some() && before.instance == instance);
            Some(Watched { version: found.version.clone(), since: seen, renewed, instance })
        }
    }
}

/// The paper in an object; `None` if it is damaged, or of a newer version.
pub(super) fn parse(bytes: &[u8]) -> Option<Paper> {
    serde_json::from_slice::<Paper>(bytes).ok().filter(|paper| paper.v == FORMAT)
}
