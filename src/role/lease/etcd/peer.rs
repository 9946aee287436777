//! Which processes are alive, by their registrations in etcd, and which of them is a clone. Pure.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, InstanceId, NodeId};
use crate::role::identity::Machine;

/// One living process: the value of its registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The version of this value.
    pub v: u32,
    /// Its node.
    pub node: NodeId,
    /// Which process.
    pub instance: InstanceId,
    /// What the node is called.
    pub name: String,
    /// What its host is called.
    pub hostname: String,
    /// What tells its machine apart.
    pub machine: Machine,
    /// What tells this run of its kernel apart, as a hash.
    pub boot: Option<Digest>,
    /// The program's version.
    pub version: String,
    /// [`crate::config::Settings::hash`].
    pub config_hash: String,
}

/// The processes among `peers` that have the node ID of `me` and cannot be on its machine: one was cloned from the other, state
/// directory included. A machine that has just been started again sees its own past until that one's lease has run out, so
/// believe it when it stays for longer than that.
pub fn twins<'a>(me: &Peer, peers: &'a [Peer]) -> Vec<&'a Peer> {
    // What one side does not know speaks neither for nor against.
    fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
        a.is_some() && b.is_some() && a != b
    }
    let elsewhere = |peer: &Peer| {
        peer.hostname != me.hostname
            || differ(&peer.boot, &me.boot)
            || differ(&peer.machine.machine_id, &me.machine.machine_id)
            || differ(&peer.machine.product_uuid, &me.machine.product_uuid)
    };
    peers.iter().filter(|peer| peer.node == me.node && peer.instance != me.instance && elsewhere(peer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: u8, instance: u8, boot: &str, hostname: &str) -> Peer {
        Peer {
            v: 1,
            node: NodeId([node; 16]),
            instance: InstanceId([instance; 8]),
            name: "east".into(),
            hostname: hostname.into(),
            machine: Machine { machine_id: Some("m".into()), product_uuid: None },
            boot: Some(Digest(*blake3::hash(boot.as_bytes()).as_bytes())),
            version: "1".into(),
            config_hash: "x".into(),
        }
    }

    #[test]
    fn a_clone_is_told_from_a_second_process() {
        let me = peer(1, 1, "b", "h");
        let twin = |other: Peer| twins(&me, &[me.clone(), other]).len();
        assert_eq!(twin(peer(1, 2, "b", "h")), 0, "another process of this node");
        assert_eq!(twin(peer(2, 2, "c", "i")), 0, "another node");
        assert_eq!(twin(peer(1, 2, "c", "h")), 1, "another kernel runs there");
        assert_eq!(twin(peer(1, 2, "b", "i")), 1, "a container of the same kernel");
        assert_eq!(twin(Peer { boot: None, ..peer(1, 2, "b", "h") }), 0, "what is not known is no evidence");
        let machine = Machine { machine_id: Some("n".into()), product_uuid: None };
        assert_eq!(twin(Peer { machine, ..peer(1, 2, "b", "h") }), 1);
    }
}
