//! Extended attributes of any object. Access control lists and capabilities are attributes like any other.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::repo::entry::Xattr;

/// Buffer size that is enough for a list of names, or one value, of most objects.
const SMALL: usize = 1 << 10;

/// Linux's limit for the list and for each value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LARGE: usize = 64 << 10;

/// The most that the attributes of one object may take, names and values; some file systems have room for thousands of
/// the largest.
const ALL: usize = 4 << 20;

/// The most unreadable attributes of one object that are named in the problem.
const NAMED_MAX: usize = 8;

/// The object whose attributes are read.
#[derive(Debug, Clone, Copy)]
pub(super) enum XattrTarget<'a> {
    /// Open for reading.
    Open(BorrowedFd<'a>),
    /// Opened with `O_PATH`. The calls for descriptors refuse it; its name in `/proc/self/fd` works for every type and
    /// any length of path, and does not follow the object if it is a link.
    PathOnly(BorrowedFd<'a>),
}

impl XattrTarget<'_> {
    /// All attributes that this process may see, sorted by name, and a description of those that could not be read.
    pub(super) fn xattrs(self) -> (Vec<Xattr>, Option<String>) {
        let names = match call_with_growing_buffer(|buffer| self.list(buffer)) {
            Ok(names) => names,
            // The file system has no attributes, or none for this type of object.
            Err(Errno::NOTSUP | Errno::NODATA) => return (Vec::new(), None),
            Err(e) => return (Vec::new(), Some(text(e))),
        };
        let mut xattrs = Vec::new();
        let mut unread = Vec::new();
        let mut taken = 0;
        for name in names.split_inclusive(|&b| b == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok()) {
            match call_with_growing_buffer(|buffer| self.get(name, buffer)) {
                Ok(value) if taken + value.len() > ALL => {
                    unread.push(format!("more than {} MiB of attributes: the rest is left out", ALL >> 20));
                    break;
                }
                Ok(value) => {
                    taken += name.count_bytes() + value.len();
                    xattrs.push(Xattr { name: name.to_bytes().to_owned(), value });
                }
                // The attribute was removed meanwhile.
                Err(Errno::NODATA) => {}
                Err(e) => unread.push(format!("{}: {}", name.to_string_lossy(), text(e))),
            }
        }
        xattrs.sort_unstable();
        let rest = unread.len().saturating_sub(NAMED_MAX);
        unread.truncate(NAMED_MAX);
        if rest > 0 {
            unread.push(format!("and {rest} more"));
        }
        (xattrs, (!unread.is_empty()).then(|| unread.join("; ")))
    }

    fn list(self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::PathOnly(fd) => rustix::fs::listxattr(name_of(fd), buffer),
        }
    }

    fn get(self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::PathOnly(fd) => rustix::fs::getxattr(name_of(fd), name, buffer),
        }
    }
}

fn name_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn text(e: Errno) -> String {
    std::io::Error::from(e).to_string()
}

/// Calls with a small buffer, and if that is too small with one that fits the largest answer.
fn call_with_growing_buffer(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; SMALL];
    match call(&mut small) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LARGE];
            let len = call(&mut large)?;
            large.truncate(len);
            large.shrink_to_fit();
            Ok(large)
        }
        Err(e) => Err(e),
    }
}
