//! What stands in a lease object, and what follows from it. Pure: `V` is what names a version of the object, whatever its
//! store makes of that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, NodeId};
use crate::role::lease::LeaseHolder;
use crate::text;

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
        LeaseHolder { node: self.node, label: text::line(&self.name).into_owned(), instance: self.instance }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    const TTL: Duration = Duration::from_mins(1);

    fn holder(n: u8) -> LeaseHolder {
        LeaseHolder { node: NodeId([n; 16]), label: format!("node{n}"), instance: InstanceId([n; 8]) }
    }

    fn found(version: u32, of: Option<u8>) -> Found<u32> {
        let paper = |n| Paper {
            v: FORMAT,
            node: holder(n).node,
            name: holder(n).label,
            instance: holder(n).instance,
            ttl_ms: TTL.as_millis() as u64,
            count: 7,
            released: false,
        };
        Found { version, paper: of.map(paper) }
    }

    #[test]
    fn each_write_counts() {
        let asker = Asker { me: holder(1), ttl: TTL };
        let Step::Create(first) = step::<u32>(&asker, None, None, Duration::ZERO) else { panic!("nobody has it") };
        assert_eq!(first.count, 1);
        let Step::Replace(3, next) = step(&asker, Some(&found(3, Some(1))), None, Duration::ZERO) else {
            panic!("it is one's own")
        };
        assert_eq!(next.count, 8);
    }

    #[test]
    fn only_who_wrote_before_has_renewed() {
        let seen = |before: Option<&Watched<u32>>, found: &Found<u32>, at| {
            watch(before.cloned(), Some(found), Duration::from_secs(at)).unwrap()
        };
        let first = seen(None, &found(1, Some(2)), 10);
        assert!(!first.renewed && first.since == Duration::from_secs(10));
        let same = seen(Some(&first), &found(1, Some(2)), 20);
        assert!(!same.renewed && same.since == Duration::from_secs(10), "it is the same paper");
        let renewed = seen(Some(&same), &found(2, Some(2)), 30);
        assert!(renewed.renewed && renewed.since == Duration::from_secs(30));
        assert!(!seen(Some(&renewed), &found(3, Some(3)), 40).renewed, "another process has it now");
        let unreadable = seen(Some(&renewed), &found(4, None), 40);
        assert!(!unreadable.renewed, "who knows whose it is");
        assert!(!seen(Some(&unreadable), &found(5, None), 50).renewed);
    }
}
