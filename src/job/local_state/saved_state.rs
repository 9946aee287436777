//! What the state directory keeps about a repository between runs. The field names are stored.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, InstanceId, NodeId, Seq, Term};
use crate::journal::view::JournalView;
use crate::repo::entry::TreePath;
use crate::role::clone_detection::CloneSighting;

/// Interval at which a node that is there repeats unchanged information.
pub(crate) const ANNOUNCEMENT_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// What is remembered between runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The journal as it was last seen: a store that shows less has been rolled back.
    pub view: Option<JournalView>,
    /// The takeover that successive runs of this node inherit.
    pub own: Option<OwnTakeover>,
    /// The snapshot after whose commit nothing was left unfinished in the store. If it is not the newest one, the next
    /// run looks for packs that a broken run left.
    pub clean: Option<Digest>,
    /// The node that saved this: once the machine has a new identity, `own` belongs to another node.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// Newest record for which it has been judged which process wrote with this node's ID.
    #[serde(default)]
    pub judged: Option<Seq>,
    /// Mark of the author notes that `judged` rests on: if their mark differs, they were lost or replaced.
    #[serde(default)]
    pub notes: Option<u64>,
    /// The last record with this node's ID that was written by an unknown process.
    #[serde(default)]
    pub sighting: Option<CloneSighting>,
    /// A process of a clone of this node, until the journal names it.
    #[serde(default)]
    pub twin: Option<InstanceId>,
    /// What this node last published to the other nodes.
    #[serde(default)]
    pub announced: Option<LastAnnouncement>,
    /// When the index was last compared with the store.
    #[serde(default)]
    pub compared: Option<IndexComparison>,
    /// Mount points below the sources, as the last snapshot saw them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mounts: Vec<TreePath>,
}

impl SavedState {
    pub(crate) fn head(&self) -> Option<Seq> {
        self.view.as_ref()?.head.as_ref().map(|head| head.seq)
    }

    /// Newest record that needs no judging; `None`: nothing was remembered to judge with.
    pub fn settled(&self) -> Option<Seq> {
        self.judged.max(self.head())
    }
}

/// A takeover of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnTakeover {
    /// The boot in which it was made: a clone of this machine has another.
    pub boot: Digest,
    /// Digest of the takeover record.
    pub takeover: Digest,
    /// Term that the takeover began.
    pub term: Term,
}

/// The last comparison of the index with the store. Losing it costs a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexComparison {
    /// Time of the comparison, by this node's clock.
    pub at: Timestamp,
    /// Time of the newest prune that the comparison knew of: a prune replaces the index.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pruned: Option<Timestamp>,
    /// The note on losses in the store that the comparison handled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<Digest>,
}

/// What this node remembers about its last announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAnnouncement {
    pub(crate) what: Digest,
    pub(crate) at: Timestamp,
    /// The process that wrote the object that was there before, if it is none of this node's: it announced itself as
    /// this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stranger: Option<InstanceId>,
    /// The announcement before that one also found a foreign process.
    #[serde(default)]
    pub(crate) again: bool,
    /// The mark of the notes in memory by which that was found; `None`: they were not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<u64>,
    /// The processes of this node that may have written the current object; `None`: unknown.
    #[serde(default)]
    pub(crate) by: Option<Vec<InstanceId>>,
}

impl LastAnnouncement {
    /// Whether the announcement must be repeated or updated.
    pub(crate) fn is_due(&self, what: Digest, now: Timestamp) -> bool {
        // A clock that was set back makes it due as well.
        self.what != what || now.duration_since(self.at).abs() >= ANNOUNCEMENT_INTERVAL
    }

    /// The foreign process that repeatedly announces itself as this node.
    pub fn twin(&self) -> Option<InstanceId> {
        self.stranger.filter(|_| self.again)
    }
}
