//! Reading what the cache does not vouch for: link targets, attributes, content. For worker threads; nothing here waits
//! for anything but the file system.
//!
//! An entry is made from what the opened object says of itself, never from what the walk saw under the name before.

mod xattrs;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use crate::repo::entry::{Entry, Extent, Kind, TreePath, Xattr};
use crate::tree::names::Names;
use crate::tree::problem::{Problem, ProblemKind};
use crate::tree::roots::{LIST, READ, Roots};
use crate::tree::scan::Scanned;
use crate::tree::stat::{FileType, Stat};
use xattrs::Object;

/// Files from this size on are announced to the kernel as read from front to back, so that it reads further ahead.
const SEQUENTIAL_MIN: u64 = 1 << 20;

/// The most extents of one file. What comes after the last of them is one extent, holes and all: a file of many
/// terabytes with a hole in every other block must not need gigabytes to describe.
pub const EXTENTS_MAX: usize = 1 << 16;

/// An entry as it is stored, but for the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// The entry; a file has its size and no chunks yet.
    pub entry: Entry,
    /// What the object said of itself just before its attributes were read. The one to remember.
    pub stat: Stat,
    /// Attributes that could not be read and are missing in the entry.
    pub problem: Option<Problem>,
}

/// Reads everything but the content: link target, extended attributes, names of the owners.
///
/// For a file whose content is to be read too, [`open`] and [`OpenFile::complete`] spare opening it twice.
///
/// # Errors
/// It vanished, became something of another type, or cannot be read.
pub fn complete(roots: &Roots, scanned: &Scanned, names: &Names) -> Result<Completed, Problem> {
    let path = &scanned.path;
    let failed = |e: io::Error| Problem::io(path.clone(), &e);
    if scanned.stat.kind == FileType::File {
        return Ok(open(roots, path)?.complete(path, names));
    }
    // A directory that may be passed but not listed has attributes all the same.
    let listable = (scanned.stat.kind == FileType::Dir).then(|| roots.open_at(path, LIST).ok()).flatten();
    let (fd, readable) = match listable {
        Some(fd) => (fd, true),
        // Nothing else may be opened for reading without effects. `O_PATH` only points to it.
        None => (roots.open_at(path, OFlags::PATH).map_err(failed)?, false),
    };
    let stat = Stat::of(&fd).map_err(failed)?;
    if stat.kind != scanned.stat.kind {
        return Err(Problem { path: path.clone(), kind: ProblemKind::Vanished });
    }
    let kind = match stat.kind {
        FileType::Dir => Kind::Dir,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&fd, c"", Vec::new()).map_err(|e| failed(e.into()))?;
            Kind::Symlink { target: target.into_bytes() }
        }
        FileType::Fifo => Kind::Fifo,
        FileType::CharDevice => Kind::CharDevice { major: stat.rdev.0, minor: stat.rdev.1 },
        FileType::BlockDevice => Kind::BlockDevice { major: stat.rdev.0, minor: stat.rdev.1 },
        FileType::Socket => return Err(Problem { path: path.clone(), kind: ProblemKind::Socket }),
        FileType::File | FileType::Unknown => {
            return Err(Problem { path: path.clone(), kind: ProblemKind::Vanished });
        }
    };
    let object = if readable { Object::Open(fd.as_fd()) } else { Object::Pointed(fd.as_fd()) };
    Ok(assemble(path, kind, stat, names, object))
}

fn assemble(path: &TreePath, kind: Kind, stat: Stat, names: &Names, object: Object<'_>) -> Completed {
    let (xattrs, unread): (Vec<Xattr>, _) = object.xattrs();
    let problem = unread.map(|why| Problem { path: path.clone(), kind: ProblemKind::Attribute(why) });
    let entry = Entry { path: path.clone(), kind, owner: names.owner(&stat), mtime: stat.mtime, xattrs };
    Completed { entry, stat, problem }
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
/// It vanished, is no regular file (any more), or may not be read.
pub fn open(roots: &Roots, path: &TreePath) -> Result<OpenFile, Problem> {
    let failed = |e: io::Error| Problem::io(path.clone(), &e);
    let fd = match roots.open_at(path, READ) {
        // With `O_NONBLOCK` a file that somebody holds a lease on (a file server for its client) is refused rather than
        // waited for. Nothing else is, so it is a file; the kernel breaks the lease within its `lease-break-time`.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => roots.open_at(path, READ.difference(OFlags::NONBLOCK)),
        result => result,
    };
    let fd = fd.map_err(failed)?;
    let stat = Stat::of(&fd).map_err(failed)?;
    if stat.kind != FileType::File {
        return Err(Problem { path: path.clone(), kind: ProblemKind::Vanished });
    }
    if stat.size >= SEQUENTIAL_MIN {
        // Only advice: what does not take it reads all the same.
        let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
    }
    Ok(OpenFile { fd, stat })
}

/// What [`OpenFile::read_whole`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// How many bytes were appended.
    pub len: usize,
    /// The file was written to meanwhile: the bytes may be a mixture of old and new, or fewer or more than its size.
    pub changed: bool,
}

impl OpenFile {
    /// What the file was when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The file as an entry, without content: no chunks, no extents.
    pub fn complete(&self, path: &TreePath, names: &Names) -> Completed {
        let kind = Kind::File { size: self.stat.size, extents: None, chunks: Vec::new() };
        assemble(path, kind, self.stat, names, Object::Open(self.fd.as_fd()))
    }

    /// Fills `buffer` from `offset`; less only at the end of the file.
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

    /// Appends a small file's content to `buffer`, at most the size that it had when it was opened, and tells whether it
    /// stayed what it was. One read as a rule: room for one byte more shows that the end was reached.
    ///
    /// # Errors
    /// The read failed; `buffer` is as it was.
    pub fn read_whole(&self, buffer: &mut Vec<u8>) -> io::Result<Whole> {
        let start = buffer.len();
        let size = usize::try_from(self.stat.size).map_err(|_| io::Error::from(Errno::FBIG))?;
        buffer.reserve(size + 1);
        let result = self.append(buffer, start, size);
        let len = buffer.len() - start;
        buffer.truncate(start + if result.is_ok() { len.min(size) } else { 0 });
        result?;
        Ok(Whole { len: len.min(size), changed: len != size || self.changed()? })
    }

    fn append(&self, buffer: &mut Vec<u8>, start: usize, size: usize) -> io::Result<()> {
        loop {
            let len = buffer.len() - start;
            let more = retry_on_intr(|| rustix::io::pread(&self.fd, spare_capacity(buffer), len as u64))?;
            // A regular file gives less than asked for only at its end; network file systems sometimes break that, so it
            // is believed only where the end is expected.
            if more == 0 || len + more >= size {
                return Ok(());
            }
        }
    }

    /// Whether the file was written to since it was opened.
    pub fn changed(&self) -> io::Result<bool> {
        Ok(!self.stat.unchanged_in(&Stat::of(&self.fd)?))
    }

    /// Where the file has data. `None` if it has no hole, or if the file system cannot tell. At most [`EXTENTS_MAX`].
    pub fn extents(&self) -> Option<Vec<Extent>> {
        let size = self.stat.size;
        if self.stat.blocks.saturating_mul(512) >= size {
            return None;
        }
        let mut extents = Vec::new();
        let mut at = 0;
        while at < size {
            let offset = match rustix::fs::seek(&self.fd, SeekFrom::Data(at)) {
                Ok(offset) if offset < size => offset,
                Ok(_) | Err(Errno::NXIO) => break,
                Err(_) => return None,
            };
            let last = extents.len() + 1 == EXTENTS_MAX;
            let end = if last { size } else { rustix::fs::seek(&self.fd, SeekFrom::Hole(offset)).ok()?.min(size) };
            if end <= offset {
                // The file is being punched under our eyes; it will be found changed.
                return None;
            }
            extents.push(Extent { offset, len: end - offset });
            at = end;
        }
        (extents != [Extent { offset: 0, len: size }]).then_some(extents)
    }
}

#[cfg(test)]
mod tests;
