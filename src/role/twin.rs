//! Whether this node exists twice: a machine that was cloned, state directory included, has the same node ID and the same
//! permit, so neither the fence nor the machine's fingerprint tells the two apart. Pure.
//!
//! Each process has a random ID of its own, and notes it in its node's state directory before it writes. A record with this
//! node's ID by a process that this state directory has never seen was written by somebody else who has a copy of it. Once may
//! be a machine that was set back to an earlier state, which meets its own past; who sees it again after that has a living twin.

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, Seq};

/// The newest record with this node's ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// Its number.
    pub seq: Seq,
    /// The process that wrote it.
    pub instance: InstanceId,
}

/// What is to be thought of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// It is this node's own.
    None,
    /// It was written by nobody this node knows, for the first time: remember this number.
    First(Seq),
    /// It is the same record that was suspect before.
    Known,
    /// There is a second node with this ID.
    Twin,
}

/// Judges `newest`. `own`: the processes that this state directory has seen; `suspected`: what was remembered before.
pub fn judge(newest: Option<Newest>, own: &[InstanceId], suspected: Option<Seq>) -> Suspicion {
    match (newest, suspected) {
        (None, _) => Suspicion::None,
        (Some(newest), _) if own.contains(&newest.instance) => Suspicion::None,
        (Some(newest), None) => Suspicion::First(newest.seq),
        (Some(newest), Some(before)) if newest.seq <= before => Suspicion::Known,
        (Some(_), Some(_)) => Suspicion::Twin,
    }
}

/// Judges `found`, the process that wrote last where only this node writes. `met`: it was a stranger before as well, and this node
/// wrote over it.
pub fn judge_presence(found: Option<InstanceId>, own: &[InstanceId], met: bool) -> Suspicion {
    match found {
        Some(found) if !own.contains(&found) && met => Suspicion::Twin,
        Some(found) if !own.contains(&found) => Suspicion::Known,
        _ => Suspicion::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_with_this_nodes_id_is_a_twin_when_it_writes_again() {
        let own = [InstanceId([1; 8]), InstanceId([2; 8])];
        let newest = |seq, instance| Some(Newest { seq: Seq(seq), instance: InstanceId([instance; 8]) });
        assert_eq!(judge(None, &own, None), Suspicion::None);
        assert_eq!(judge(newest(4, 2), &own, None), Suspicion::None);
        assert_eq!(judge(newest(5, 9), &own, None), Suspicion::First(Seq(5)));
        assert_eq!(judge(newest(5, 9), &own, Some(Seq(5))), Suspicion::Known, "a machine that was set back sees this");
        assert_eq!(judge(newest(6, 1), &own, Some(Seq(5))), Suspicion::None, "then it goes on by itself");
        assert_eq!(judge(newest(8, 9), &own, Some(Seq(5))), Suspicion::Twin);
        assert_eq!(judge(newest(8, 7), &own, Some(Seq(5))), Suspicion::Twin, "a twin's next process");
    }

    #[test]
    fn who_writes_where_only_this_node_writes_is_a_twin_the_second_time() {
        let own = [InstanceId([1; 8])];
        let found = |instance| Some(InstanceId([instance; 8]));
        assert_eq!(judge_presence(None, &own, true), Suspicion::None);
        assert_eq!(judge_presence(found(1), &own, true), Suspicion::None);
        assert_eq!(judge_presence(found(9), &own, false), Suspicion::Known, "a machine that was set back meets itself");
        assert_eq!(judge_presence(found(8), &own, true), Suspicion::Twin);
    }
}
