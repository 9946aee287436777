//! What the notes of this boot prove about the processes that wrote with this node's ID.

use std::io;

use crate::ids::{InstanceId, Seq};
use crate::job::local_state::LocalState;
use crate::job::local_state::authors::AuthorNote;

/// Notes that a process is about to append record `seq`: in memory if possible, and in the state directory.
///
/// # Errors
/// The note cannot be written in the state directory.
pub(crate) async fn note_author(local: &LocalState, instance: InstanceId, seq: Seq) -> io::Result<()> {
    let boot = note_in_boot_dir(local, instance).await;
    local.authors().note(AuthorNote { instance, seq, boot }).await
}

/// Notes a process in memory only. Returns the mark of the notes, or `None` if they cannot be written.
pub(crate) async fn note_in_boot_dir(local: &LocalState, instance: InstanceId) -> Option<u64> {
    let noted = match local.boot_notes() {
        Ok(notes) => notes.note(instance).await,
        Err(error) => Err(error),
    };
    noted.inspect_err(|error| tracing::debug!("the notes of this boot's writers: {error}")).ok()
}

/// What the notes in memory say about the processes that write with this node's ID.
#[derive(Debug)]
pub(crate) struct BootEvidence {
    /// The noted processes of this machine.
    pub(crate) own: Vec<InstanceId>,
    /// The mark of the notes, or why they are not complete.
    pub(crate) mark: Result<u64, String>,
}

impl BootEvidence {
    /// Reads the notes for process `instance`; if there are none, they begin now.
    pub(crate) fn collect(local: &LocalState, instance: InstanceId) -> Self {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::PlantedBug::OldRecordsAreJudged) {
            return Self { own: Vec::new(), mark: Ok(0) };
        }
        let (authors, notes) = (
            local.authors(),
            match local.boot_notes() {
                Ok(notes) => notes,
                Err(error) => return Self { own: Vec::new(), mark: Err(error.to_string()) },
            },
        );
        let mark = notes.mark(|mark| authors.try_note(AuthorNote { instance, seq: Seq(0), boot: Some(mark) }));
        let mark = mark.map_err(|error| error.to_string()).and_then(|mark| {
            let lacking = || {
                "a process without the right to write there, or of another user, uses this state directory".to_owned()
            };
            if authors.read().all_noted_under(mark) { Ok(mark) } else { Err(lacking()) }
        });
        Self { own: notes.read().instances().collect(), mark }
    }
}
