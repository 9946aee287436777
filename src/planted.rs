//! Bugs that are planted on purpose, so that the simulator shows that it would find them. Compiled in with the feature `planted` alone,
//! and even then none of them is there until somebody plants it.
//!
//! Each is one that a program of this kind could well have: what it breaks stands beside it.

use std::cell::Cell;

#[cfg(not(debug_assertions))]
compile_error!("the feature `planted` is for the simulator: a release has no bugs on purpose");

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// A lease is dated from the answer, not from the question: work goes on when the server lets the next node in.
    DeadlineFromAnswer,
    /// A record whose fate is unknown is reported as not written.
    UnknownIsFailure,
    /// The same, and what it names is deleted.
    UnknownIsCleanedUp,
    /// A node that gave the role up, and takes it again, counts terms from the start.
    TermStartsAgain,
    /// The store's conditional put overwrites.
    PutOverwrites,
    /// A prune deletes first and writes its record then.
    DeletesBeforeRecord,
    /// A prune deletes what it condemned at once, whoever still reads it.
    NoGrace,
    /// A prune's new index lacks what was moved into new packs.
    MovedIsForgotten,
    /// A commit that meets another record goes on behind it, whatever that is.
    CommitWithoutCompare,
    /// A probe that cannot tell counts as no, so that `not` makes it a yes.
    UnknownProbeIsNo,
    /// A pack that was condemned before the session began is used again.
    CondemnedIsReused,
    /// An index that no record names vouches for its packs.
    UnnamedIndexIsTrusted,
    /// A node that takes the role over does not look which slot is committed.
    SlotIsNotLookedUp,
    /// A record counts before it is in the store.
    NotMirrored,
    /// A slot counts as committed when a later one is, however far beyond the present that lies.
    LaterSlotCommits,
    /// The same, if it lies within what two clocks may be apart.
    NearSlotCommits,
    /// The newest record with this node's ID is judged whatever its age, by the processes that looked last.
    OldRecordsAreJudged,
    /// An answer that nothing shows to be the store's (a proxy's page, no HTTP at all) is taken for a definite refusal.
    UnrecognisedIsDefinite,
    /// A process that was silent for its whole length is not ended before its roles are taken, and goes on by its own object alone: either
    /// would do, but for a renewal that is on its way.
    TakenWithoutEnd,
}

/// All of them.
pub const ALL: [PlantedBug; 19] = [
    PlantedBug::TakenWithoutEnd,
    PlantedBug::DeadlineFromAnswer,
    PlantedBug::UnknownIsFailure,
    PlantedBug::UnknownIsCleanedUp,
    PlantedBug::TermStartsAgain,
    PlantedBug::PutOverwrites,
    PlantedBug::DeletesBeforeRecord,
    PlantedBug::NoGrace,
    PlantedBug::MovedIsForgotten,
    PlantedBug::CommitWithoutCompare,
    PlantedBug::UnknownProbeIsNo,
    PlantedBug::CondemnedIsReused,
    PlantedBug::UnnamedIndexIsTrusted,
    PlantedBug::SlotIsNotLookedUp,
    PlantedBug::NotMirrored,
    PlantedBug::LaterSlotCommits,
    PlantedBug::NearSlotCommits,
    PlantedBug::OldRecordsAreJudged,
    PlantedBug::UnrecognisedIsDefinite,
];

thread_local! {
    static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
}

/// From now on this thread has this bug, and no other.
pub fn plant(bug: Option<PlantedBug>) {
    PLANTED.set(bug);
}

/// Whether it is there.
pub(crate) fn is(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}
