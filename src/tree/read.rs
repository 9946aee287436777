//! Reads what the cache does not cover: link targets, attributes, content. Runs in worker threads; nothing here waits
//! for anything but the file system.
//!
//! An entry is made from the metadata of the opened object, never from what the walk read under the name before.

mod extents;
mod xattrs;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use crate::repo::entry::{EntryKind, Extent, ManifestEntry, TreePath, Xattr};
use crate::tree::flags;
use crate::tree::owner_names::OwnerNames;
use crate::tree::problem::{PathProblem, PathProblemKind};
use crate::tree::roots::{LIST, SourceRoots};
use crate::tree::scan::ScannedEntry;
use crate::tree::stat::{FileType, Stat};
use extents::DataRuns;
pub use extents::EXTENTS_MAX;
use xattrs::XattrTarget;

/// Files of at least this size are announced to the kernel as read sequentially, so that it reads further ahead.
const SEQUENTIAL_MIN: u64 = 1 << 20;

/// The most data of one file, in bytes, holes not counted. A file may claim more than there are disks for, and some
/// file systems let one block appear in it any number of times.
pub const DATA_MAX: u64 = 16 << 40;

/// How many times the holes of a file may move while they are searched.
const HOLES_MOVED_MAX: u32 = 1000;

/// An entry as it is stored, without the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadEntry {
    /// The entry; for a file with its size and without chunks yet.
    pub entry: ManifestEntry,
    /// The object's metadata just before its attributes were read. This is the one to cache.
    pub stat: Stat,
    /// The attributes that could not be read and are missing in the entry.
    pub problem: Option<PathProblem>,
}

/// Reads everything but the content: link target, extended attributes, names of the owners.
///
/// For a file whose content is read too, [`open_file`] and [`OpenFile::to_entry`] save a second open.
///
/// # Errors
/// The object vanished, its type changed, or it cannot be read.
pub fn read_entry(roots: &SourceRoots, scanned: &ScannedEntry, names: &OwnerNames) -> Result<ReadEntry, PathProblem> {
    let path = &scanned.path;
    let failed = |e: io::Error| PathProblem::io(path.clone(), &e);
    if scanned.stat.kind == FileType::File {
        return Ok(open_file(roots, path)?.to_entry(path, names));
    }
    // A directory that may be entered but not listed still has attributes.
    let listable = (scanned.stat.kind == FileType::Dir).then(|| roots.open_at(path, LIST).ok()).flatten();
    let (fd, readable) = match listable {
        Some(fd) => (fd, true),
        // Opening anything else for reading may have effects. `O_PATH` only refers to it.
        None => (roots.open_at(path, OFlags::PATH).map_err(failed)?, false),
    };
    let stat = Stat::of(&fd).map_err(failed)?;
    if stat.kind != scanned.stat.kind {
        return Err(PathProblem { path: path.clone(), kind: PathProblemKind::Vanished });
    }
    let kind = match stat.kind {
        FileType::Dir => EntryKind::Dir,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&fd, c"", Vec::new()).map_err(|e| failed(e.into()))?;
            EntryKind::Symlink { target: target.into_bytes() }
        }
        FileType::Fifo => EntryKind::Fifo,
        FileType::CharDevice => EntryKind::CharDevice { major: stat.rdev.0, minor: stat.rdev.1 },
        FileType::BlockDevice => EntryKind::BlockDevice { major: stat.rdev.0, minor: stat.rdev.1 },
        FileType::Socket => return Err(PathProblem { path: path.clone(), kind: PathProblemKind::Socket }),
        FileType::File | FileType::Unknown => {
            return Err(PathProblem { path: path.clone(), kind: PathProblemKind::Vanished });
        }
    };
    let object = if readable { XattrTarget::Open(fd.as_fd()) } else { XattrTarget::PathOnly(fd.as_fd()) };
    Ok(assemble(path, kind, stat, names, object))
}

fn assemble(path: &TreePath, kind: EntryKind, stat: Stat, names: &OwnerNames, object: XattrTarget<'_>) -> ReadEntry {
    let (mut xattrs, unread): (Vec<Xattr>, _) = object.xattrs();
    // A name outside the kernel's namespaces, made up by a file system, would be taken for flags.
    xattrs.retain(|x| x.name != flags::ATTRIBUTE);
    if matches!(stat.kind, FileType::File | FileType::Dir)
        && let Some(flags) = stat.flags.attribute()
    {
        let at = xattrs.partition_point(|x| x.name < flags.name);
        xattrs.insert(at, flags);
    }
    let problem = unread.map(|why| PathProblem { path: path.clone(), kind: PathProblemKind::Attribute(why) });
    let entry = ManifestEntry { path: path.clone(), kind, owner: names.owner(&stat), mtime: stat.mtime, xattrs };
    ReadEntry { entry, stat, problem }
}

/// A regular file, open for reading.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    stat: Stat,
}

/// Opens the regular file at `path`.
///
/// # Errors
/// The path vanished, is no regular file (any more), or may not be read.
pub fn open_file(roots: &SourceRoots, path: &TreePath) -> Result<OpenFile, PathProblem> {
    let failed = |e: io::Error| PathProblem::io(path.clone(), &e);
    let fd = roots.open_file(path).map_err(failed)?;
    let stat = Stat::of(&fd).map_err(failed)?;
    if stat.kind != FileType::File {
        return Err(PathProblem { path: path.clone(), kind: PathProblemKind::Vanished });
    }
    if stat.size >= SEQUENTIAL_MIN {
        // Only advice: a file system that ignores it is read all the same.
        let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
    }
    Ok(OpenFile { fd, stat })
}

/// The result of [`OpenFile::read_whole`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeRead {
    /// How many bytes were appended.
    pub len: usize,
    /// The file was written to meanwhile: the bytes may be a mixture of old and new, or fewer or more than its size.
    pub changed: bool,
    /// The file reports size 0, did not change, and has content, as files in `/proc` do. Nothing was appended: only
    /// reading to the end shows how much there is.
    pub unsized_content: bool,
}

/// Reads a file whose size is unknown, sequentially.
#[derive(Debug)]
pub struct SequentialReader<'a> {
    file: &'a OpenFile,
    at: u64,
}

impl io::Read for SequentialReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = retry_on_intr(|| rustix::io::pread(&self.file.fd, &mut *buffer, self.at))?;
        self.at += len as u64;
        if self.at > DATA_MAX { Err(too_much_data_error()) } else { Ok(len) }
    }
}

/// The error for a file with more data than [`DATA_MAX`].
pub fn too_much_data_error() -> io::Error {
    io::Error::other(format!("it has more than {} TiB of data", DATA_MAX >> 40))
}

impl OpenFile {
    /// The file's metadata at the time it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The file as an entry without content: no chunks, no extents.
    pub fn to_entry(&self, path: &TreePath, names: &OwnerNames) -> ReadEntry {
        let kind = EntryKind::File { size: self.stat.size, extents: None, chunks: Vec::new() };
        assemble(path, kind, self.stat, names, XattrTarget::Open(self.fd.as_fd()))
    }

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut len = 0;
        while len < buffer.len() {
            match retry_on_intr(|| rustix::io::pread(&self.fd, &mut buffer[len..], offset + len as u64))? {
                0 => break,
                more => len += more,
            }
        }
        Ok(len)
    }

    /// Appends a small file's content to `buffer`, at most the size it had when it was opened, and reports whether it
    /// changed meanwhile. Usually this is one read: room for one byte more shows that the end was reached.
    ///
    /// # Errors
    /// The read failed; `buffer` is unchanged.
    pub fn read_whole(&self, buffer: &mut Vec<u8>) -> io::Result<WholeRead> {
        let start = buffer.len();
        let size = usize::try_from(self.stat.size).map_err(|_| io::Error::from(Errno::FBIG))?;
        buffer.reserve(size + 1);
        let result = self.append(buffer, start, size);
        let len = buffer.len() - start;
        buffer.truncate(start + if result.is_ok() { len.min(size) } else { 0 });
        result?;
        let changed = self.changed()?;
        let unsized_content = size == 0 && len > 0 && !changed;
        Ok(WholeRead { len: len.min(size), changed: changed || (len != size && !unsized_content), unsized_content })
    }

    /// A reader of the content from the beginning to the real end, whatever size the file reports.
    pub fn sequential_reader(&self) -> SequentialReader<'_> {
        SequentialReader { file: self, at: 0 }
    }

    fn append(&self, buffer: &mut Vec<u8>, start: usize, size: usize) -> io::Result<()> {
        loop {
            let len = buffer.len() - start;
            let more = retry_on_intr(|| rustix::io::pread(&self.fd, spare_capacity(buffer), len as u64))?;
            // A regular file returns less than asked for only at its end; network file systems sometimes break that, so
            // a short read is believed only where the end is expected.
            if more == 0 || len + more >= size {
                return Ok(());
            }
        }
    }

    /// Whether the file was written to since it was opened.
    pub fn changed(&self) -> io::Result<bool> {
        Ok(!self.stat.unchanged_in(&Stat::of(&self.fd)?))
    }

    /// The ranges of the file that hold data. `None` if the file has no hole, or the file system cannot tell. Returns
    /// at most `max` ranges, which is [`EXTENTS_MAX`] outside tests: beyond that the smallest holes count as data.
    ///
    /// # Errors
    /// The holes keep moving while they are searched.
    pub fn extents(&self, max: usize) -> io::Result<Option<Vec<Extent>>> {
        let size = self.stat.size;
        if self.stat.blocks.saturating_mul(512) >= size {
            return Ok(None);
        }
        let mut runs = DataRuns::new(size, max);
        let mut moved = 0;
        let mut at = 0;
        while at < size {
            let offset = match rustix::fs::seek(&self.fd, SeekFrom::Data(at)) {
                Ok(offset) if offset < size => offset.max(at),
                Ok(_) | Err(Errno::NXIO) => break,
                Err(_) => return Ok(None),
            };
            match rustix::fs::seek(&self.fd, SeekFrom::Hole(offset)) {
                Ok(end) if end > offset => at = runs.add(offset, end.min(size)),
                // The file is being punched or truncated at this moment, and will be found changed.
                Ok(_) | Err(Errno::NXIO) if moved < HOLES_MOVED_MAX => moved += 1,
                Ok(_) | Err(Errno::NXIO) => return Err(io::Error::other("its holes move while they are looked for")),
                Err(_) => return Ok(None),
            }
        }
        Ok(runs.finish())
    }
}

#[cfg(test)]
mod tests;
