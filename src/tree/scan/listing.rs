//! The names of one directory, sorted.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

use crate::tree::stat::FileType;

/// How much the kernel returns in one call. Less costs calls, more gains nothing.
pub(super) const BUFFER_LEN: usize = 64 << 10;

/// The names of one directory in bytewise order, without `.` and `..`. Takes the names and 10 bytes for each of them.
#[derive(Debug, Default)]
pub(super) struct DirListing {
    /// For each entry: one byte for its type, the name, NUL.
    bytes: Vec<u8>,
    /// The offset in `bytes` at which each entry begins.
    starts: Vec<usize>,
}

/// The type of an entry according to the listing, before its metadata is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryTypeHint {
    Dir,
    NoDir,
    /// The file system does not report types.
    Unknown,
}

const HINTS: [EntryTypeHint; 3] = [EntryTypeHint::Dir, EntryTypeHint::NoDir, EntryTypeHint::Unknown];

impl DirListing {
    /// Reads all names of `dir`, reusing what `self` has allocated.
    ///
    /// # Errors
    /// The kernel's error; the names that were read before it are kept, in order.
    pub(super) fn read(&mut self, dir: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> io::Result<()> {
        self.bytes.clear();
        self.starts.clear();
        let mut entries = RawDir::new(dir, buffer);
        let result = loop {
            let entry = match entries.next() {
                None => break Ok(()),
                Some(Err(Errno::INTR)) => continue,
                Some(Err(e)) => break Err(e.into()),
                Some(Ok(entry)) => entry,
            };
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            let hint = match entry.file_type().into() {
                FileType::Dir => EntryTypeHint::Dir,
                FileType::Unknown => EntryTypeHint::Unknown,
                _ => EntryTypeHint::NoDir,
            };
            self.starts.push(self.bytes.len());
            self.bytes.push(hint as u8);
            self.bytes.extend_from_slice(name);
        };
        // Two names differ at the NUL of the shorter one at the latest, so the bytes behind it do not count.
        self.starts.sort_unstable_by(|&a, &b| self.bytes[a + 1..].cmp(&self.bytes[b + 1..]));
        result
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The name at `index`.
    pub(super) fn get(&self, index: usize) -> (&CStr, EntryTypeHint) {
        let start = self.starts[index];
        (name_at(&self.bytes, start), HINTS[usize::from(self.bytes[start])])
    }

    /// Whether there is an entry of this name.
    pub(super) fn contains(&self, name: &CStr) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &CStr) -> Option<usize> {
        self.starts.binary_search_by(|&start| name_at(&self.bytes, start).to_bytes().cmp(name.to_bytes())).ok()
    }

    /// Drops every name but this one.
    pub(super) fn keep_only(&mut self, name: &CStr) {
        let kept = self.find(name).map(|i| self.starts[i]);
        self.starts.clear();
        self.starts.extend(kept);
    }
}

fn name_at(bytes: &[u8], start: usize) -> &CStr {
    CStr::from_bytes_until_nul(&bytes[start + 1..]).expect("every name is stored with its NUL")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn all_names_in_order_with_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        for name in ["a", "b-x", "b.x", "ä"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let fd = std::fs::File::open(dir.path()).unwrap();
        let mut listing = DirListing::default();
        listing.read(fd.as_fd(), &mut [MaybeUninit::uninit(); 300]).unwrap();
        let all: Vec<_> = (0..listing.len()).map(|i| listing.get(i)).collect();
        let file = |name| (name, EntryTypeHint::NoDir);
        assert_eq!(all, [file(c"a"), (c"b", EntryTypeHint::Dir), file(c"b-x"), file(c"b.x"), file(c"ä")]);
        assert!(listing.contains(c"b.x") && !listing.contains(c"b."));
        listing.keep_only(c"b-x");
        assert_eq!((listing.len(), listing.get(0)), (1, file(c"b-x")));
    }
}
