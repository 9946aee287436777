//! `cat`: writes the content of a file; every chunk is verified first.

use std::io::{self, Write};
use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ids::ChunkId;
use crate::job::browse::error::BrowseError;

use crate::job::browse::path_hint::not_found;
use crate::repo::entry::{EntryKind, TreePath};
use crate::repo::file_layout::FileLayout;
use crate::repo::reader::{RepositoryReadError, RepositoryReader};

/// Frames that are fetched ahead of the output. A frame has a few MiB.
const FRAMES_AHEAD: usize = 4;

/// Zeros for holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the file's content to `out`, its holes as zeros.
pub async fn cat(
    reader: &RepositoryReader,
    root: ChunkId,
    path: &TreePath,
    out: &mut (dyn Write + Send),
) -> Result<(), BrowseError> {
    let Some(mut entry) = reader.entry(root, path).await? else { return Err(not_found(reader, root, path).await) };
    if let EntryKind::Hardlink { target } = &entry.kind {
        let first = reader.entry(root, target).await?;
        let why = "the first name of this file is not there";
        entry = first.ok_or(BrowseError::Unsound { path: path.clone(), why })?;
    }
    let EntryKind::File { size, chunks, .. } = &entry.kind else {
        return Err(BrowseError::NotAFile { path: path.clone(), kind: entry.kind });
    };
    let content = content_len(reader, chunks)?;
    let layout =
        FileLayout::new(&entry.kind, content).map_err(|why| BrowseError::Unsound { path: path.clone(), why })?;

    let mut frames = stream::iter(shared_frames(reader, chunks))
        .map(|range| async { fetch(reader, &chunks[range]).await })
        .buffered(FRAMES_AHEAD);
    let (mut read, mut written) = (0, 0);
    while let Some(contents) = frames.try_next().await? {
        for content in contents {
            let end = read + content.len() as u64;
            for (at, part) in layout.spans(read..end) {
                zeros(out, at - written)?;
                written = at + part.len() as u64;
                out.write_all(&content[part])?;
            }
            read = end;
        }
    }
    Ok(zeros(out, size - written)?)
}

fn content_len(reader: &RepositoryReader, chunks: &[ChunkId]) -> Result<u64, RepositoryReadError> {
    let len =
        |id| reader.index().find(id).map(|(place, _)| u64::from(place.len)).ok_or(RepositoryReadError::Missing(*id));
    chunks.iter().map(len).sum()
}

/// Runs of chunks in the same frame, so that each frame is fetched once.
fn shared_frames(reader: &RepositoryReader, chunks: &[ChunkId]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut last = None;
    for (n, id) in chunks.iter().enumerate() {
        let frame = reader.index().find(id).map(|(place, _)| (place.pack, place.frame));
        match runs.last_mut() {
            Some(run) if frame == last => run.end = n + 1,
            _ => runs.push(n..n + 1),
        }
        last = frame;
    }
    runs
}

/// The contents of the chunks of one frame.
async fn fetch(reader: &RepositoryReader, chunks: &[ChunkId]) -> Result<Vec<Bytes>, RepositoryReadError> {
    let mut contents = Vec::with_capacity(chunks.len());
    let mut frame = None;
    for id in chunks {
        let (place, pack) = reader.index().find(id).ok_or(RepositoryReadError::Missing(*id))?;
        let frame = match &mut frame {
            Some(frame) => frame,
            none => none.insert(reader.frames(pack, &[place.frame]).await?.pop().expect("one frame was asked for")),
        };
        let content = frame.slice(place.offset as usize..place.offset as usize + place.len as usize);
        if reader.keys().chunk_id(&content) != *id {
            return Err(reader.mismatch_error(*id, place.pack));
        }
        contents.push(content);
    }
    Ok(contents)
}

fn zeros(out: &mut dyn Write, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let part = count.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..part as usize])?;
        count -= part;
    }
    Ok(())
}
