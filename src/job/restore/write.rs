//! The writer threads: verify chunks, write files, finish metadata.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;

use super::fetch::FetchedBatch;
use super::shared::{FileChunk, FileJob, RestoreContext, WriteJob};
use crate::job::node::progress::JobProgress;
use crate::job::report::restored::RestoreProblemKind;
use crate::job::restore::error::RestoreError;
use crate::job::restore::options::OverwritePolicy;
use crate::repo::entry::{ManifestEntry, TreePath};
use crate::tree::write::{ExistingObject, NewFile, PlaceOutcome, WriteErrorKind};

/// Works until the queue of batches is closed.
pub(super) fn run(shared: &RestoreContext, batches: &Mutex<Receiver<FetchedBatch>>) {
    loop {
        let next = batches.lock().blocking_recv();
        let Some(mut fetched) = next else { return };
        let number = fetched.batch.number;
        let _over_at_the_end = shared.order.begin(number);
        let jobs = std::mem::take(&mut fetched.batch.jobs);
        let mut links = Vec::new();
        for job in jobs {
            match job {
                WriteJob::Link { .. } => links.push(job),
                other => run_job(shared, &fetched, other),
            }
        }
        if !links.is_empty() {
            // The first names may be in a batch that the other writer still works on.
            shared.order.wait_for_those_before(number);
            for job in links {
                run_job(shared, &fetched, job);
            }
        }
    }
}

fn run_job(shared: &RestoreContext, fetched: &FetchedBatch, job: WriteJob) {
    if shared.is_stopped() {
        return;
    }
    match job {
        WriteJob::Piece { file, parts } => piece(shared, fetched, &file, &parts),
        WriteJob::Node { entry, found, obstacle, dir } => {
            count_placed(shared, &entry.path, node(shared, &entry, found.as_ref(), obstacle));
            dir.leave(shared);
        }
        WriteJob::Metadata { entry, inode, dir } => {
            let set = || shared.target.set_metadata(&entry, Some(inode));
            let touched = if shared.options.dry_run { Ok(false) } else { set() };
            let placed =
                touched.map(|touched| if touched { PlaceOutcome::MetadataUpdated } else { PlaceOutcome::Unchanged });
            count_placed(shared, &entry.path, placed.map_err(RestoreProblemKind::from));
            dir.leave(shared);
        }
        WriteJob::Link { entry, first, obstacle, dir } => {
            count_placed(shared, &entry.path, link(shared, &entry, &first, obstacle));
            dir.leave(shared);
        }
    }
}

/// Counts the outcome of one entry.
fn count_placed(shared: &RestoreContext, path: &TreePath, placed: Result<PlaceOutcome, RestoreProblemKind>) {
    match placed {
        Ok(PlaceOutcome::Created) => shared.count(|c| c.restored += 1),
        Ok(PlaceOutcome::MetadataUpdated) => shared.count(|c| c.touched += 1),
        Ok(PlaceOutcome::Unchanged) => shared.count(|c| c.unchanged += 1),
        Ok(PlaceOutcome::NotAllowed) => shared.count(|c| c.skipped += 1),
        Err(problem) => shared.fail(path, &problem),
    }
}

fn node(
    shared: &RestoreContext,
    entry: &ManifestEntry,
    found: Option<&ExistingObject>,
    obstacle: bool,
) -> Result<PlaceOutcome, RestoreProblemKind> {
    if obstacle {
        clear_obstacle(shared, &entry.path)?;
    }
    if shared.options.dry_run {
        let same = found.map(|found| shared.target.is_same_node(entry, found)).transpose()?;
        return Ok(if same == Some(true) { PlaceOutcome::Unchanged } else { PlaceOutcome::Created });
    }
    shared.target.place_node(entry, found).map_err(RestoreProblemKind::from)
}

fn link(
    shared: &RestoreContext,
    entry: &ManifestEntry,
    first: &TreePath,
    obstacle: bool,
) -> Result<PlaceOutcome, RestoreProblemKind> {
    let path = &entry.path;
    if shared.may_have_failed(first) {
        return Err(RestoreProblemKind::FirstName(first.clone()));
    }
    if obstacle {
        clear_obstacle(shared, path)?;
    }
    if shared.options.dry_run {
        let inode = |path| shared.target.stat(path).ok().flatten().map(|found| found.inode);
        let same = inode(first).is_some_and(|first| inode(path) == Some(first));
        return Ok(if same { PlaceOutcome::Unchanged } else { PlaceOutcome::Created });
    }
    // A file kept by `OverwritePolicy::Never` keeps its owner too, so the owner is not compared.
    let checked = shared.options.overwrite != OverwritePolicy::Never;
    shared.target.link(first, entry, checked).map_err(|e| match e.kind {
        WriteErrorKind::NotFound if e.path == *first => RestoreProblemKind::FirstName(first.clone()),
        _ => e.into(),
    })
}

/// Removes a directory that stands at the path of a finished object.
fn clear_obstacle(shared: &RestoreContext, path: &TreePath) -> Result<(), RestoreProblemKind> {
    if shared.options.delete && shared.scope.may_delete_at(path) {
        shared.remove(path);
        return Ok(());
    }
    if !shared.options.dry_run {
        shared.target.remove_empty_dir(path)?;
    }
    shared.count(|c| c.deleted += 1);
    Ok(())
}

fn piece(shared: &RestoreContext, fetched: &FetchedBatch, file: &FileJob, parts: &[FileChunk]) {
    let failed = file.state.lock().failed.is_some();
    if !failed && let Err(problem) = write_parts(shared, fetched, file, parts) {
        file.fail(problem);
    }
    if file.pieces.fetch_sub(1, Ordering::AcqRel) == 1 {
        finish(shared, file);
    }
}

fn write_parts(
    shared: &RestoreContext,
    fetched: &FetchedBatch,
    file: &FileJob,
    parts: &[FileChunk],
) -> Result<(), RestoreProblemKind> {
    let mut old: Option<File> = None;
    let mut buffer = Vec::new();
    let (mut reused, mut written) = (0, 0);
    let new = if shared.options.dry_run { None } else { Some(new_file(shared, file)?) };
    for part in parts {
        let range = part.at..part.at + u64::from(part.len);
        written += u64::from(part.len);
        if part.place.is_none() {
            reused += u64::from(part.len);
        }
        let Some(new) = &new else { continue };
        let bytes = if let Some(place) = &part.place {
            fetched.chunk(part, place)?
        } else {
            let old = match &old {
                Some(old) => old,
                None => old.insert(shared.target.open_file(&file.entry.path, None)?),
            };
            buffer.resize(part.len as usize, 0);
            file.layout
                .spans(range.clone())
                .try_for_each(|(offset, part)| old.read_exact_at(&mut buffer[part], offset))
                .map_err(|_| RestoreProblemKind::Changed)?;
            &buffer
        };
        if shared.source.chunk_id(bytes) != part.chunk {
            return Err(match part.place {
                Some(_) => {
                    let detail = "its bytes do not have its hash".to_owned();
                    RestoreProblemKind::Damaged { chunk: part.chunk, detail }
                }
                None => RestoreProblemKind::Changed,
            });
        }
        for (offset, span) in file.layout.spans(range) {
            if file.is_sparse() {
                new.write_data_at(offset, &bytes[span])?;
            } else {
                new.write_at(offset, &bytes[span])?;
            }
        }
        JobProgress::add(&shared.progress.bytes_read, u64::from(part.len));
    }
    if let Some(new) = &new {
        new.check_free_space()?;
    }
    shared.count_bytes(|b| {
        b.reused += reused;
        b.written += written;
    });
    Ok(())
}

fn new_file(shared: &RestoreContext, file: &FileJob) -> Result<Arc<NewFile>, RestoreProblemKind> {
    let mut state = file.state.lock();
    if let Some(new) = &state.new {
        return Ok(Arc::clone(new));
    }
    if let Some(failed) = &state.failed {
        return Err(failed.clone());
    }
    let new = Arc::new(shared.target.create_file(&file.entry.path, file.layout.content_len())?);
    new.check_free_space()?;
    state.new = Some(Arc::clone(&new));
    Ok(new)
}

fn finish(shared: &RestoreContext, file: &FileJob) {
    let (new, failed, dir) = {
        let mut state = file.state.lock();
        (state.new.take(), state.failed.take(), state.dir.take())
    };
    let entry = &file.entry;
    let clear = || if file.obstacle { clear_obstacle(shared, &entry.path) } else { Ok(()) };
    let done = match (failed, new.map(Arc::into_inner)) {
        (Some(failed), _) => Err(failed),
        // A dry run.
        (None, None) => clear().map(|()| PlaceOutcome::Created),
        (None, Some(Some(new))) => clear()
            .and_then(|()| shared.target.finish_file(new, entry).map_err(RestoreProblemKind::from))
            .map(|()| PlaceOutcome::Created),
        (None, Some(None)) => {
            shared.stop(RestoreError::Broken("a finished file is still being written".to_owned()));
            return;
        }
    };
    count_placed(shared, &entry.path, done);
    JobProgress::add(&shared.progress.files, 1);
    if let Some(dir) = dir {
        dir.leave(shared);
    }
}
