//! Which process wrote a record: notes of this process before it appends, and the search for a clone of this node among
//! the authors of the journal.

use crate::ids::InstanceId;
use crate::job::error::BackupError;
use crate::job::local_state::LocalState;
use crate::job::local_state::authors::boot_evidence::{self, BootEvidence};
use crate::job::local_state::saved_state::SavedState;
use crate::job::node::context::NodeContext;
use crate::journal::view::JournalView;
use crate::role::clone_detection::{self, CloneEvidence, CloneSuspicion};

/// Notes that this process is about to append to `view`. A process that cannot be noted must not append: it would be
/// taken for a clone.
pub(crate) async fn note_append_intent(
    node_context: &NodeContext,
    local: &LocalState,
    view: &JournalView,
) -> Result<(), BackupError> {
    let noted = boot_evidence::note_author(local, node_context.instance, view.next_seq()).await;
    noted.map_err(|error| BackupError::State { path: local.saved_state_file(), error })
}

/// Adds the journal up to `view` to the saved state, after judging its authors. Only with the lock held.
pub(crate) fn remember_view(
    node_context: &NodeContext,
    local: &LocalState,
    memory: &mut SavedState,
    view: &JournalView,
) {
    check_authors(node_context, local, memory, view);
    memory.view = Some(view.clone());
}

/// Judges the processes that wrote with this node's ID since the last judgement. Without earlier notes the judging
/// begins here.
pub(crate) fn check_authors(
    node_context: &NodeContext,
    local: &LocalState,
    memory: &mut SavedState,
    view: &JournalView,
) {
    // Read after the journal: the author of each record in it was noted before.
    let (notes, noted) = (local.authors(), local.authors().read());
    let head = view.head.as_ref().map(|head| head.seq);
    let is_whole = noted.mark.is_some() && noted.mark == memory.notes;
    #[cfg(feature = "planted")]
    let is_whole = is_whole || crate::planted::is(crate::planted::PlantedBug::OldRecordsAreJudged);
    if let Some(judged) = memory.settled().filter(|_| is_whole) {
        let own: Vec<InstanceId> = noted.instances().chain([node_context.instance]).collect();
        let boot_evidence = BootEvidence::collect(local, node_context.instance);
        let evidence = CloneEvidence {
            authors: view.authors.get(&node_context.node.id).map_or(&[], Vec::as_slice),
            own: &own,
            boot: &boot_evidence.own,
            mark: boot_evidence.mark.as_ref().ok().copied(),
            head: head.unwrap_or(judged),
            judged,
            before: memory.sighting,
            now: node_context.env.clock.now(),
        };
        match clone_detection::detect_clone(evidence) {
            CloneSuspicion::None | CloneSuspicion::Known => {}
            CloneSuspicion::SetBack(seq) => tracing::warn!(
                "record {seq} of the journal is by a process of this machine that its state directory does not know: the state \
                 directory was set back to an earlier state"
            ),
            CloneSuspicion::First(sighting) => {
                let undecided = boot_evidence.mark.err().map(|why| {
                    format!(
                        "; the two cannot be told apart, because the notes of this boot's writers are not complete: \
                         {why}"
                    )
                });
                tracing::warn!(
                    "record {} of the journal has this node's ID, and no process of this node wrote it: either this \
                     machine was set back to an earlier state, or it was cloned with its state directory{}",
                    sighting.seq,
                    undecided.unwrap_or_default()
                );
                memory.sighting = Some(sighting);
            }
            CloneSuspicion::Clone(other) => memory.twin = Some(other),
        }
    }
    if !is_whole {
        // Without a mark nothing is judged: a disk that takes no notes gives no evidence.
        memory.notes =
            notes.renew().inspect_err(|error| tracing::debug!("the notes of this boot's writers: {error}")).ok();
    }
    memory.judged = memory.judged.max(head);
}
