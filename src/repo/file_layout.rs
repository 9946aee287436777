//! Maps a file's content to offsets in the file: contiguous, or with holes. Pure.

use std::ops::Range;

use crate::repo::entry::{EntryKind, Extent};

/// The ranges of a file that hold content, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileLayout {
    runs: Vec<ContentRun>,
    size: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct ContentRun {
    /// Offset of the run in the content.
    content: u64,
    /// Offset of the run in the file.
    file: u64,
    len: u64,
}

impl FileLayout {
    /// The layout of a regular file with `content` bytes in its chunks. The entry's sizes are used only if they add up;
    /// otherwise bytes would be lost or written to the wrong place.
    pub(crate) fn new(kind: &EntryKind, content: u64) -> Result<Self, &'static str> {
        let EntryKind::File { size, extents, .. } = kind else { return Err("not a regular file") };
        Self::of(*size, extents.as_deref(), content)
    }

    /// The layout of a file of `size` bytes with `content` bytes of data in these extents; `None`: no holes.
    pub(crate) fn of(size: u64, extents: Option<&[Extent]>, content: u64) -> Result<Self, &'static str> {
        // off_t is signed: larger offsets cannot be addressed.
        if size > i64::MAX as u64 {
            return Err("the size is impossible");
        }
        let runs = match extents {
            None if content == size => vec![ContentRun { content: 0, file: 0, len: content }],
            None => return Err("the chunks do not add up to the size"),
            Some(extents) => runs(extents, size, content)?,
        };
        Ok(Self { runs, size })
    }

    /// Bytes of data.
    pub(crate) fn content_len(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.content + run.len)
    }

    /// The parts of the file that a range of the content fills: file offset, and which part of the range goes there.
    pub(crate) fn spans(&self, content: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
        let first = self.runs.partition_point(|run| run.content + run.len <= content.start);
        self.runs[first..].iter().take_while(move |run| run.content < content.end).map(move |run| {
            let from = content.start.max(run.content);
            let to = content.end.min(run.content + run.len);
            (run.file + (from - run.content), (from - content.start) as usize..(to - content.start) as usize)
        })
    }

    /// The holes of the file.
    pub(crate) fn holes(&self) -> impl Iterator<Item = Range<u64>> {
        let ends = std::iter::once(0).chain(self.runs.iter().map(|run| run.file + run.len));
        let starts = self.runs.iter().map(|run| run.file).chain(std::iter::once(self.size));
        ends.zip(starts).map(|(from, to)| from..to).filter(|hole| !hole.is_empty())
    }
}

fn runs(extents: &[Extent], size: u64, content: u64) -> Result<Vec<ContentRun>, &'static str> {
    let (mut at, mut end) = (0_u64, 0_u64);
    let mut runs = Vec::new();
    for extent in extents {
        if extent.len == 0 || extent.offset < end {
            return Err("the extents are not in order");
        }
        end = match extent.offset.checked_add(extent.len) {
            Some(end) if end <= size => end,
            _ => return Err("an extent reaches beyond the size"),
        };
        runs.push(ContentRun { content: at, file: extent.offset, len: extent.len });
        at += extent.len;
    }
    if at == content { Ok(runs) } else { Err("the chunks do not add up to the extents") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64, extents: Option<&[(u64, u64)]>) -> EntryKind {
        let extents = extents.map(|e| e.iter().map(|&(offset, len)| Extent { offset, len }).collect());
        EntryKind::File { size, extents, chunks: Vec::new() }
    }

    #[test]
    fn a_chunk_across_extents_is_split() {
        let layout = FileLayout::new(&file(100, Some(&[(10, 5), (20, 5), (90, 10)])), 20).unwrap();
        let spans = |range| layout.spans(range).collect::<Vec<_>>();
        assert_eq!(spans(0..20), [(10, 0..5), (20, 5..10), (90, 10..20)]);
        assert_eq!(spans(3..7), [(13, 0..2), (20, 2..4)]);
        assert_eq!(spans(5..6), [(20, 0..1)]);
        assert_eq!(layout.holes().collect::<Vec<_>>(), [0..10, 15..20, 25..90]);
    }

    #[test]
    fn a_file_without_holes_is_one_run() {
        let layout = FileLayout::new(&file(9, None), 9).unwrap();
        assert_eq!(layout.spans(4..9).collect::<Vec<_>>(), [(4, 0..5)]);
        assert_eq!(layout.holes().count(), 0);
        assert_eq!(FileLayout::new(&file(0, None), 0).unwrap().spans(0..0).count(), 0);
        assert!(FileLayout::new(&file(7, Some(&[])), 0).unwrap().holes().eq(std::iter::once(0..7)));
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        assert!(FileLayout::new(&file(9, None), 8).is_err());
        assert!(FileLayout::new(&file(u64::MAX, None), u64::MAX).is_err());
        for (size, extents, content) in [
            (10, &[(0, 5), (4, 2)][..], 7),
            (10, &[(5, 6)], 6),
            (10, &[(5, 0)], 0),
            (10, &[(0, 5)], 6),
            (10, &[(5, u64::MAX)], 5),
            (10, &[(6, 2), (0, 2)], 4),
        ] {
            assert!(FileLayout::new(&file(size, Some(extents)), content).is_err(), "{extents:?}");
        }
    }
}
