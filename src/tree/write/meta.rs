//! Sets owner, mode, attributes and time of what was written.
//!
//! The order matters: a change of owner drops set-ID bits and capabilities, an ACL changes the mode's group bits, and
//! all of them require that this user still owns the file.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::{AttachPath as _, ExistingObject, RestoreTarget, WriteError, WriteErrorKind};
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath, Xattr};
use crate::tree::flags::{self, FileFlags};
pub(super) use crate::tree::write::deferred_flags::DeferredFlags;
use crate::tree::write::deferred_flags::{DeferredFlagFile, FLAGGED_MAX};
pub(super) use crate::tree::write::metadata_failures::MetadataFailures;
pub use crate::tree::write::metadata_failures::{MetadataFailure, MetadataKind};

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;

/// The path in `/proc` of an open file, for the calls that refuse a descriptor opened with `O_PATH`. The kernel
/// resolves it to exactly that file, even if it is a symbolic link.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// How the file is opened.
#[derive(Clone, Copy)]
pub(super) enum MetadataHandle<'a> {
    /// Opened for reading or writing.
    Open(BorrowedFd<'a>),
    /// Opened with `O_PATH`: links, pipes, devices, and files that this user may not read.
    PathOnly(BorrowedFd<'a>),
}

impl MetadataHandle<'_> {
    fn chown(self, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            MetadataHandle::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            MetadataHandle::PathOnly(fd) => rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn chmod(self, mode: u16) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(u32::from(mode));
        match self {
            MetadataHandle::Open(fd) => rustix::fs::fchmod(fd, mode),
            MetadataHandle::PathOnly(fd) => rustix::fs::chmod(proc_path(fd), mode),
        }
    }

    fn set_mtime(self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            MetadataHandle::Open(fd) => rustix::fs::futimens(fd, times),
            MetadataHandle::PathOnly(fd) => {
                rustix::fs::utimensat(rustix::fs::CWD, proc_path(fd), times, AtFlags::empty())
            }
        }
    }

    fn list_xattrs(self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            MetadataHandle::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            MetadataHandle::PathOnly(fd) => rustix::fs::listxattr(proc_path(fd), buffer),
        }
    }

    fn xattr(self, name: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            MetadataHandle::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            MetadataHandle::PathOnly(fd) => rustix::fs::getxattr(proc_path(fd), name, buffer),
        }
    }

    fn set_xattr(self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            MetadataHandle::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            MetadataHandle::PathOnly(fd) => rustix::fs::setxattr(proc_path(fd), name, value, XattrFlags::empty()),
        }
    }

    fn remove_xattr(self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            MetadataHandle::Open(fd) => rustix::fs::fremovexattr(fd, name),
            MetadataHandle::PathOnly(fd) => rustix::fs::removexattr(proc_path(fd), name),
        }
    }

    /// The names of the attributes, each ended by a NUL.
    fn xattr_names(self) -> rustix::io::Result<Vec<u8>> {
        // Most files have no attributes or one label; the second size is the kernel's limit.
        let mut small = [0; 512];
        match self.list_xattrs(&mut small) {
            Ok(n) => Ok(small[..n].to_vec()),
            Err(Errno::RANGE) => {
                let mut large = vec![0; 65536];
                let n = self.list_xattrs(&mut large)?;
                large.truncate(n);
                Ok(large)
            }
            Err(Errno::NOTSUP | Errno::NOSYS) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn has_xattr(self, name: &[u8], value: &[u8]) -> bool {
        // One byte more, so that a longer value is not taken for an equal one.
        let mut buffer = vec![0; value.len() + 1];
        self.xattr(name, &mut buffer).is_ok_and(|n| buffer[..n] == *value)
    }
}

/// Whether the file lacks a flag that the entry has.
fn flags_missing(held: MetadataHandle<'_>, entry: &ManifestEntry) -> rustix::io::Result<bool> {
    let wanted = FileFlags::of_entry(&entry.xattrs);
    if wanted.is_empty() {
        return Ok(false);
    }
    match held {
        MetadataHandle::Open(fd) => Ok(!rustix::fs::ioctl_getflags(fd)?.contains(wanted.as_inode_flags())),
        MetadataHandle::PathOnly(_) => Err(Errno::OPNOTSUPP),
    }
}

/// Adds flags to those that the file has.
fn add_flags(fd: BorrowedFd<'_>, wanted: FileFlags) -> rustix::io::Result<()> {
    let now = rustix::fs::ioctl_getflags(fd)?;
    rustix::fs::ioctl_setflags(fd, now | wanted.as_inode_flags())
}

/// Whether the existing object is of the entry's type, and the same device if it is one.
pub(super) fn is_of_kind(found: &ExistingObject, kind: &EntryKind) -> bool {
    match kind {
        EntryKind::File { .. } => found.is_file(),
        EntryKind::Dir => found.is_dir(),
        EntryKind::Symlink { .. } => found.kind == FileType::Symlink,
        EntryKind::Fifo => found.kind == FileType::Fifo,
        EntryKind::CharDevice { major, minor } => {
            (found.kind, found.device) == (FileType::CharacterDevice, (*major, *minor))
        }
        EntryKind::BlockDevice { major, minor } => {
            (found.kind, found.device) == (FileType::BlockDevice, (*major, *minor))
        }
        EntryKind::Hardlink { .. } => false,
    }
}

fn xattr_kind(name: &[u8]) -> MetadataKind {
    match name {
        b"system.posix_acl_access" | b"system.posix_acl_default" => MetadataKind::Acl,
        b"security.capability" => MetadataKind::Capability,
        _ => MetadataKind::Xattr,
    }
}

/// Attributes that belong to the tree's content: those that the snapshot lacks are removed. Labels and the like
/// (`security.selinux`, `trusted.*`) belong to the host and stay.
fn is_restored_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || xattr_kind(name) != MetadataKind::Xattr
}

/// The attributes of an entry without the flags.
fn attributes(entry: &ManifestEntry) -> impl Iterator<Item = &Xattr> {
    entry.xattrs.iter().filter(|x| x.name != flags::ATTRIBUTE)
}

impl RestoreTarget {
    /// Sets the entry's metadata on the existing object at its path, and returns whether any was different. The object
    /// must be `expected` (device and inode number), and have no other name that would change with it.
    pub fn set_metadata(&self, entry: &ManifestEntry, expected: Option<(u64, u64)>) -> Result<bool, WriteError> {
        self.with_existing(entry, expected, |held, found| {
            if found.has_more_names() {
                let kind = WriteErrorKind::Changed;
                return if self.differs(held, entry, found) {
                    Err(WriteError { path: entry.path.clone(), kind })
                } else {
                    Ok(false)
                };
            }
            Ok(self.apply(held, entry, found))
        })
    }

    /// Whether the metadata of the existing object at the entry's path, which must be `expected`, differ from the
    /// entry's.
    pub fn metadata_differ(&self, entry: &ManifestEntry, expected: &ExistingObject) -> Result<bool, WriteError> {
        self.with_existing(entry, Some(expected.inode), |held, found| Ok(self.differs(held, entry, found)))
    }

    fn with_existing<T>(
        &self,
        entry: &ManifestEntry,
        expected: Option<(u64, u64)>,
        act: impl FnOnce(MetadataHandle<'_>, &ExistingObject) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let parent = match entry.path.parent() {
            None => None,
            Some(parent) => Some(self.resolver.dir(&parent).at_path(&entry.path)?),
        };
        let (base, name) = match &parent {
            Some(dir) => (dir.as_fd(), entry.path.name()),
            None => (self.resolver.root().at_path(&entry.path)?, &b"."[..]),
        };
        let open = |flags| rustix::fs::openat(base, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let readable = match entry.kind {
            EntryKind::Dir => open(OFlags::RDONLY | OFlags::DIRECTORY).ok(),
            EntryKind::File { .. } => open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).ok(),
            _ => None,
        };
        let (fd, named) = match readable {
            Some(fd) => (fd, false),
            None => (open(OFlags::PATH).at_path(&entry.path)?, true),
        };
        let found = ExistingObject::from(rustix::fs::fstat(&fd).at_path(&entry.path)?);
        if expected.is_some_and(|expected| expected != found.inode) {
            return Err(WriteError { path: entry.path.clone(), kind: WriteErrorKind::Changed });
        }
        act(if named { MetadataHandle::PathOnly(fd.as_fd()) } else { MetadataHandle::Open(fd.as_fd()) }, &found)
    }

    /// Sets the metadata of an object just made in `dir` under a temporary name. A user who may write to `dir` may have
    /// exchanged it.
    pub(super) fn set_metadata_of_new(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        entry: &ManifestEntry,
    ) -> Result<(), WriteError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).at_path(&entry.path)?;
        let found = ExistingObject::from(rustix::fs::fstat(&fd).at_path(&entry.path)?);
        if found.names != 1 || !is_of_kind(&found, &entry.kind) {
            return Err(WriteError { path: entry.path.clone(), kind: WriteErrorKind::Changed });
        }
        self.apply(MetadataHandle::PathOnly(fd.as_fd()), entry, &found);
        Ok(())
    }

    /// Whether [`RestoreTarget::apply`] would change anything.
    fn differs(&self, held: MetadataHandle<'_>, entry: &ManifestEntry, found: &ExistingObject) -> bool {
        let (mode, is_link) = (entry.owner.mode & 0o7777, matches!(entry.kind, EntryKind::Symlink { .. }));
        let names = held.xattr_names().unwrap_or_default();
        let names = || names.split(|&b| b == 0).filter(|n| !n.is_empty());
        (found.uid, found.gid) != self.ids.resolve(&entry.owner)
            || (!is_link && found.mode != mode)
            || found.mtime != entry.mtime
            || names().filter(|n| is_restored_xattr(n)).any(|n| !attributes(entry).any(|x| x.name == n))
            || attributes(entry).any(|x| !names().any(|n| n == x.name) || !held.has_xattr(&x.name, &x.value))
            || flags_missing(held, entry).is_ok_and(|missing| missing)
    }

    /// Sets the flags that the entry has and the file lacks: at once, or at the end if they would prevent the rename.
    fn sync_flags(&self, held: MetadataHandle<'_>, entry: &ManifestEntry, found: &ExistingObject) -> bool {
        let wanted = FileFlags::of_entry(&entry.xattrs);
        let note = |error: &str| self.note_trouble(MetadataKind::Flags, &entry.path, error);
        match flags_missing(held, entry) {
            Ok(false) => false,
            Ok(true) if wanted.prevent_changes() => {
                let mut flagged = self.flagged.0.lock();
                let room = flagged.len() < FLAGGED_MAX;
                if room {
                    flagged.push(DeferredFlagFile { path: entry.path.clone(), inode: found.inode, wanted });
                } else {
                    note(&format!("more than {FLAGGED_MAX} files have them"));
                }
                room
            }
            Ok(true) => {
                let MetadataHandle::Open(fd) = held else { return false };
                add_flags(fd, wanted).map_err(|e| note(&std::io::Error::from(e).to_string())).is_ok()
            }
            Err(e) => {
                note(&std::io::Error::from(e).to_string());
                false
            }
        }
    }

    /// Sets the deferred flags. To be called when every file has its final name.
    pub fn set_flags(&self) {
        let flagged = std::mem::take(&mut *self.flagged.0.lock());
        for DeferredFlagFile { path, inode, wanted } in flagged {
            let set = || {
                let dir = self.resolver.dir(&path.parent().unwrap_or_default())?;
                let name = if path.as_bytes().is_empty() { b"." } else { path.name() };
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&*dir, name, flags, Mode::empty())?;
                if ExistingObject::from(rustix::fs::fstat(&fd)?).inode != inode {
                    return Err(Errno::STALE);
                }
                add_flags(fd.as_fd(), wanted)
            };
            if let Err(e) = set() {
                self.note_trouble(MetadataKind::Flags, &path, &std::io::Error::from(e).to_string());
            }
        }
    }

    /// Sets what differs from `found`. What cannot be set is noted once for each kind.
    pub(super) fn apply(&self, held: MetadataHandle<'_>, entry: &ManifestEntry, found: &ExistingObject) -> bool {
        let note = |kind, errno: Errno| {
            self.troubles.note(kind, &entry.path, || std::io::Error::from(errno).to_string());
        };
        let is_link = matches!(entry.kind, EntryKind::Symlink { .. });
        let mut changed = false;
        let mut mode = entry.owner.mode & 0o7777;

        let (uid, gid) = self.ids.resolve(&entry.owner);
        let owner_differs = (found.uid, found.gid) != (uid, gid);
        if owner_differs {
            match held.chown(Some(uid), Some(gid)) {
                Ok(()) => changed = true,
                Err(errno) => {
                    // Without privileges the group can still be set to another of the user's own groups.
                    let group_set = held.chown(None, Some(gid)).is_ok();
                    changed |= group_set && found.gid != gid;
                    let own = uid == found.uid;
                    if !(own && group_set) {
                        note(MetadataKind::Owner, errno);
                    }
                    // POSIX: if the owner cannot be set, set-ID bits must not lend this user's rights.
                    if !own {
                        mode &= !SETUID;
                    }
                    if !group_set {
                        mode &= !SETGID;
                    }
                }
            }
        }

        changed |= self.sync_xattrs(held, entry);

        if !is_link && (found.mode != mode || owner_differs) {
            match held.chmod(mode) {
                Ok(()) => changed |= found.mode != mode,
                Err(errno) => note(MetadataKind::Mode, errno),
            }
        }
        if found.mtime != entry.mtime {
            let (seconds, nanoseconds) = entry.mtime.seconds_and_nanos();
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
            };
            match held.set_mtime(&times) {
                Ok(()) => changed = true,
                Err(errno) => note(MetadataKind::Time, errno),
            }
        }
        changed |= self.sync_flags(held, entry, found);
        changed
    }

    fn sync_xattrs(&self, held: MetadataHandle<'_>, entry: &ManifestEntry) -> bool {
        // A link inherits no ACL, and cannot have user attributes.
        if entry.xattrs.is_empty() && matches!(entry.kind, EntryKind::Symlink { .. }) {
            return false;
        }
        let note = |name: &[u8], errno: Errno| {
            self.troubles.note(xattr_kind(name), &entry.path, || {
                format!("{}: {}", name.escape_ascii(), std::io::Error::from(errno))
            });
        };
        let mut changed = false;
        // New files may have attributes too: the default ACL of the parent directory is inherited.
        let names = held.xattr_names().unwrap_or_default();
        let names = || names.split(|&b| b == 0).filter(|n| !n.is_empty());
        for name in names().filter(|n| is_restored_xattr(n)) {
            if !attributes(entry).any(|x| x.name == name) {
                match held.remove_xattr(name) {
                    Ok(()) => changed = true,
                    Err(errno) => note(name, errno),
                }
            }
        }
        for xattr in attributes(entry) {
            if names().any(|n| n == xattr.name) && held.has_xattr(&xattr.name, &xattr.value) {
                continue;
            }
            match held.set_xattr(&xattr.name, &xattr.value) {
                Ok(()) => changed = true,
                Err(errno) => note(&xattr.name, errno),
            }
        }
        changed
    }

    /// Notes metadata that could not be set for a reason other than a system error.
    pub fn note_trouble(&self, kind: MetadataKind, path: &TreePath, error: &str) {
        self.troubles.note(kind, path, || error.to_owned());
    }
}
