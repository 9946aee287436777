//! Copies the needed chunks of wasteful packs into new packs. Every chunk is checked against its ID, so damage is not
//! copied.

use std::collections::HashMap;

use super::RepositoryReadError;
use super::plan::PackAction;
use super::usage::RepositoryUsage;
use crate::ids::PackId;
use crate::job::admission::session::RoleSession;
use crate::job::backup::pack_writer::PackWriter;
use crate::job::error::BackupError;
use crate::job::prune::error::PruneError;
use crate::repo::pack::PackTable;

/// Frames of one pack that are fetched with one call.
const FRAMES_AT_ONCE: usize = 8;

/// Copies the needed chunks; returns the tables of the new packs.
pub(super) async fn repack(
    session: &RoleSession<'_>,
    survey: &RepositoryUsage,
    fates: &[(PackId, PackAction)],
) -> Result<Vec<PackTable>, PruneError> {
    let fates: HashMap<PackId, PackAction> = fates.iter().copied().collect();
    let (repository, node_context) = (session.repository(), session.node_context());
    let writer = || PackWriter::new(repository, &node_context.env, Some(&node_context.progress));
    let (mut data, mut nodes) = (writer(), writer());
    for table in survey.tables.iter().filter(|table| fates.get(&table.id) == Some(&PackAction::Repack)) {
        let place = survey.reader.index().packs().iter().find(|place| place.id == table.id);
        let place = place.expect("every table is in the index");
        let wanted = |frame: &u32| {
            table.frames[*frame as usize].chunks.iter().any(|chunk| survey.is_needed_in(&chunk.id, table.id))
        };
        let frames: Vec<u32> = (0..table.frames.len() as u32).filter(wanted).collect();
        for numbers in frames.chunks(FRAMES_AT_ONCE) {
            if node_context.cancel.is_cancelled() {
                return Err(BackupError::Interrupted.into());
            }
            let contents = survey.reader.frames(place, numbers).await?;
            for (number, content) in numbers.iter().zip(contents) {
                let mut at = 0;
                for chunk in &table.frames[*number as usize].chunks {
                    let bytes = content.slice(at..at + chunk.len as usize);
                    at += chunk.len as usize;
                    if !survey.is_needed_in(&chunk.id, table.id) {
                        continue;
                    }
                    if repository.keys.chunk_id(&bytes) != chunk.id {
                        return Err(RepositoryReadError::Content { chunk: chunk.id, pack: table.id }.into());
                    }
                    let writer = if survey.nodes.contains(&chunk.id) { &mut nodes } else { &mut data };
                    writer.push(*chunk, &bytes).await?;
                }
            }
        }
    }
    let mut tables = data.finish().await?;
    tables.extend(nodes.finish().await?);
    Ok(tables)
}
