//! Bugs that are planted on purpose, to test that the simulator would find them. They are compiled in only with the
//! feature `planted`, and even then none is active until a test plants it.
//!
//! Each is a realistic bug for a program of this kind; its comment says what it breaks.

use std::cell::Cell;

#[cfg(not(debug_assertions))]
compile_error!("the feature `planted` is for the simulator: a release has no bugs on purpose");

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// A lease is dated from the answer, not from the request: work goes on when the server already grants the lease to
    /// the next node.
    DeadlineFromAnswer,
    /// A record with an unknown outcome is reported as not written.
    UnknownIsFailure,
    /// A record with an unknown outcome is reported as not written, and the objects that it names are deleted.
    UnknownIsCleanedUp,
    /// A node that gave the role up, and takes it again, counts its terms from the start.
    TermStartsAgain,
    /// The store's conditional put overwrites.
    PutOverwrites,
    /// A prune deletes packs first and writes its record afterwards.
    DeletesBeforeRecord,
    /// A prune deletes condemned packs at once, while a reader may still use them.
    NoGrace,
    /// A prune's new index lacks the chunks that were moved into new packs.
    MovedIsForgotten,
    /// A commit that meets another record appends behind it, whatever that record is.
    CommitWithoutCompare,
    /// A probe without a result counts as no, so that `not` makes it a yes.
    UnknownProbeIsNo,
    /// A pack that was condemned before the session began is used again.
    CondemnedIsReused,
    /// Packs are trusted because of an index object that no record names.
    UnnamedIndexIsTrusted,
    /// A node that takes the role over does not check which slot is committed.
    SlotIsNotLookedUp,
    /// A record counts before its copy is in the store.
    NotMirrored,
    /// A slot counts as committed when a later one is, even one far in the future.
    LaterSlotCommits,
    /// A slot counts as committed when a later one is that lies within the allowed difference of two clocks.
    NearSlotCommits,
    /// The newest record with this node's ID is judged, whatever its age, by the processes that read the journal last.
    OldRecordsAreJudged,
    /// An answer that is not recognisably the store's (a proxy's page, no HTTP at all) is taken for a definite refusal.
    UnrecognisedIsDefinite,
    /// A process that was silent for the whole lease time is not ended before its roles are taken, and goes on by its
    /// own object alone. Each check alone would be enough, except for a renewal that is in flight.
    TakenWithoutEnd,
    /// A one-shot run that stands by does not look for missed slots, so a role that no node backs up is not reported.
    StandbyIgnoresMissedSlots,
}

/// All planted bugs.
pub const ALL: [PlantedBug; 20] = [
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
    PlantedBug::StandbyIgnoresMissedSlots,
];

thread_local! {
    static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
}

/// Activates this bug in this thread, and no other.
pub fn plant(bug: Option<PlantedBug>) {
    PLANTED.set(bug);
}

/// Whether the bug is active in this thread.
pub(crate) fn is(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}
