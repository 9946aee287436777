//! Compares two trees by what the kernel says about them, and by nothing else: no type, no decoder and no hash of the
//! program under test stands here, so that a mistake there cannot hide itself.
//!
//! Everything goes relative to directory descriptors: trees deeper than `PATH_MAX` compare like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

/// One thing that is not equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeDifference {
    /// Relative to the two roots; empty for the roots themselves.
    pub path: Vec<u8>,
    /// What differs.
    pub what: DifferenceKind,
}

/// The kinds of [`TreeDifference`]; pairs are (left, right).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the left tree has it.
    OnlyLeft,
    /// Only the right tree has it.
    OnlyRight,
    /// A file here, a directory there.
    Type(String, String),
    /// Sizes of regular files.
    Size(u64, u64),
    /// Equally long files differ first at this offset.
    Content(u64),
    /// The permission bits with setuid, setgid and sticky.
    Mode(u32, u32),
    /// Numeric owner and group.
    Owner((u32, u32), (u32, u32)),
    /// Seconds and nanoseconds.
    Mtime((i64, u64), (i64, u64)),
    /// Where a symbolic link points.
    LinkTarget(Vec<u8>, Vec<u8>),
    /// Major and minor number of a device.
    Device((u32, u32), (u32, u32)),
    /// The names that share one inode with this one.
    HardLinks(BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>),
    /// An extended attribute (an ACL and a capability are some): its name, and whether each side has it.
    Xattr(Vec<u8>, bool, bool),
    /// The left file has holes and the right one fills them: bytes allocated.
    Sparse(u64, u64),
    /// One side could not be read, so nothing is known.
    Unreadable(&'static str, Errno),
}

impl fmt::Display for TreeDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.path.escape_ascii().to_string(), self.what)
    }
}

/// Holes that a file system may fill, in bytes, before we say that a file is no longer sparse: block sizes differ, and
/// extents are rounded.
const SPARSE_SLACK: u64 = 1 << 20;

/// All differences between two trees, the roots' own metadata included, in the order of a walk. Access and change times,
/// inode numbers and directory sizes are nobody's promise. Sockets are left out: there is nothing in them to restore.
pub fn compare_trees(left: &Path, right: &Path) -> Vec<TreeDifference> {
    let mut walk = TreeComparison::default();
    let (l, r) = (stat(CWD, left.as_os_str().as_bytes()), stat(CWD, right.as_os_str().as_bytes()));
    let (l, r) = (
        l.unwrap_or_else(|e| panic!("{}: {e}", left.display())),
        r.unwrap_or_else(|e| panic!("{}: {e}", right.display())),
    );
    walk.entry((CWD, left.as_os_str().as_bytes(), &l), (CWD, right.as_os_str().as_bytes(), &r), b"");
    walk.hard_links();
    walk.found
}

/// Fails with the first differences if there is any.
pub fn assert_same(left: &Path, right: &Path) {
    let found = compare_trees(left, right);
    let shown: Vec<String> = found.iter().take(20).map(ToString::to_string).collect();
    assert!(
        found.is_empty(),
        "{} and {} differ in {} places:\n{}",
        left.display(),
        right.display(),
        found.len(),
        shown.join("\n")
    );
}

/// One side of an entry: the directory it is in, its name there, its metadata.
type Side<'a> = (BorrowedFd<'a>, &'a [u8], &'a Stat);

/// Device and inode → the paths that lead there.
type Names = BTreeMap<(u64, u64), BTreeSet<Vec<u8>>>;

#[derive(Default)]
struct TreeComparison {
    found: Vec<TreeDifference>,
    /// Per side: what has several names.
    links: [Names; 2],
}

impl TreeComparison {
    fn differ(&mut self, path: &[u8], what: DifferenceKind) {
        self.found.push(TreeDifference { path: path.to_vec(), what });
    }

    fn entry(&mut self, left: Side<'_>, right: Side<'_>, path: &[u8]) {
        let (l, r) = (left.2, right.2);
        let (kind, other) = (kind_of(l), kind_of(r));
        if kind != other {
            self.differ(path, DifferenceKind::Type(format!("{kind:?}"), format!("{other:?}")));
            return;
        }
        self.metadata(l, r, path, kind);
        match (xattrs(left), xattrs(right)) {
            (Ok(l), Ok(r)) => {
                let names: BTreeSet<&Vec<u8>> = l.keys().chain(r.keys()).collect();
                for name in names {
                    let (a, b) = (l.get(name), r.get(name));
                    if a != b {
                        self.differ(path, DifferenceKind::Xattr(name.clone(), a.is_some(), b.is_some()));
                    }
                }
            }
            (Err(e), _) => self.differ(path, DifferenceKind::Unreadable("left", e)),
            (_, Err(e)) => self.differ(path, DifferenceKind::Unreadable("right", e)),
        }
        for (side, s) in [l, r].into_iter().enumerate() {
            if kind != FileType::Directory && s.st_nlink > 1 {
                self.links[side].entry((s.st_dev, s.st_ino)).or_default().insert(path.to_vec());
            }
        }
        match kind {
            FileType::RegularFile => self.content(left, right, path),
            FileType::Directory => self.directory(left, right, path),
            FileType::Symlink => {
                let target = |s: Side<'_>| readlinkat(s.0, s.1, Vec::new()).map(std::ffi::CString::into_bytes);
                match (target(left), target(right)) {
                    (Ok(l), Ok(r)) if l == r => {}
                    (Ok(l), Ok(r)) => self.differ(path, DifferenceKind::LinkTarget(l, r)),
                    (Err(e), _) => self.differ(path, DifferenceKind::Unreadable("left", e)),
                    (_, Err(e)) => self.differ(path, DifferenceKind::Unreadable("right", e)),
                }
            }
            _ => {}
        }
    }

    fn metadata(&mut self, l: &Stat, r: &Stat, path: &[u8], kind: FileType) {
        if l.st_mode & 0o7777 != r.st_mode & 0o7777 {
            self.differ(path, DifferenceKind::Mode(l.st_mode & 0o7777, r.st_mode & 0o7777));
        }
        if (l.st_uid, l.st_gid) != (r.st_uid, r.st_gid) {
            self.differ(path, DifferenceKind::Owner((l.st_uid, l.st_gid), (r.st_uid, r.st_gid)));
        }
        if mtime(l) != mtime(r) {
            self.differ(path, DifferenceKind::Mtime(mtime(l), mtime(r)));
        }
        if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) && l.st_rdev != r.st_rdev {
            let numbers = |s: &Stat| (rustix::fs::major(s.st_rdev), rustix::fs::minor(s.st_rdev));
            self.differ(path, DifferenceKind::Device(numbers(l), numbers(r)));
        }
    }

    fn content(&mut self, left: Side<'_>, right: Side<'_>, path: &[u8]) {
        let (l, r) = (left.2, right.2);
        if l.st_size != r.st_size {
            self.differ(path, DifferenceKind::Size(l.st_size as u64, r.st_size as u64));
            return;
        }
        let allocated = |s: &Stat| s.st_blocks as u64 * 512;
        if allocated(l) < l.st_size as u64 && allocated(r) > allocated(l) + SPARSE_SLACK {
            self.differ(path, DifferenceKind::Sparse(allocated(l), allocated(r)));
        }
        // No link is followed and no pipe waits: what we open is what we looked at, or nothing.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match (openat(left.0, left.1, flags, Mode::empty()), openat(right.0, right.1, flags, Mode::empty())) {
            (Ok(l), Ok(r)) => match first_difference(&mut File::from(l), &mut File::from(r)) {
                Ok(None) => {}
                Ok(Some(offset)) => self.differ(path, DifferenceKind::Content(offset)),
                Err(e) => {
                    self.differ(
                        path,
                        DifferenceKind::Unreadable("one side", Errno::from_io_error(&e).unwrap_or(Errno::IO)),
                    );
                }
            },
            (Err(e), _) => self.differ(path, DifferenceKind::Unreadable("left", e)),
            (_, Err(e)) => self.differ(path, DifferenceKind::Unreadable("right", e)),
        }
    }

    fn directory(&mut self, left: Side<'_>, right: Side<'_>, path: &[u8]) {
        let ((l, left_names), (r, right_names)) = match (list(left), list(right)) {
            (Ok(l), Ok(r)) => (l, r),
            (Err(e), _) => return self.differ(path, DifferenceKind::Unreadable("left", e)),
            (_, Err(e)) => return self.differ(path, DifferenceKind::Unreadable("right", e)),
        };
        let names: BTreeSet<&Vec<u8>> = left_names.keys().chain(right_names.keys()).collect();
        for name in names {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name);
            match (left_names.get(name), right_names.get(name)) {
                (Some(a), Some(b)) => self.entry((l.as_fd(), name, a), (r.as_fd(), name, b), &below),
                (Some(_), None) => self.differ(&below, DifferenceKind::OnlyLeft),
                _ => self.differ(&below, DifferenceKind::OnlyRight),
            }
        }
    }

    /// Files that share an inode on one side must share one on the other, and only those.
    fn hard_links(&mut self) {
        let group = |side: usize| -> BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> {
            let several = self.links[side].values().filter(|names| names.len() > 1);
            several.flat_map(|names| names.iter().map(|n| (n.clone(), names.clone()))).collect()
        };
        let (left, right) = (group(0), group(1));
        let paths: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
        for path in paths {
            let (l, r) = (left.get(path).cloned().unwrap_or_default(), right.get(path).cloned().unwrap_or_default());
            if l != r {
                self.found.push(TreeDifference { path: path.clone(), what: DifferenceKind::HardLinks(l, r) });
            }
        }
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn mtime(stat: &Stat) -> (i64, u64) {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the types differ between architectures")]
    (stat.st_mtime as i64, stat.st_mtime_nsec as u64)
}

fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// An open directory and what is in it, without sockets.
fn list(side: Side<'_>) -> Result<(OwnedFd, BTreeMap<Vec<u8>, Stat>), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(side.0, side.1, flags, Mode::empty())?;
    let mut found = BTreeMap::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let stat = stat(dir.as_fd(), name)?;
        if kind_of(&stat) != FileType::Socket {
            found.insert(name.to_vec(), stat);
        }
    }
    Ok((dir, found))
}

/// The extended attributes, of a link itself too: by the descriptor of its directory, since there is no `lgetxattrat` in
/// the kernels we support.
fn xattrs(side: Side<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut path = if side.0.as_raw_fd() == CWD.as_raw_fd() {
        Vec::new()
    } else {
        format!("/proc/self/fd/{}/", side.0.as_raw_fd()).into_bytes()
    };
    path.extend_from_slice(side.1);
    // The kernel's own limits: XATTR_LIST_MAX and XATTR_SIZE_MAX.
    let mut buffer = vec![0_u8; 65536];
    let used = match rustix::fs::llistxattr(path.as_slice(), &mut buffer[..]) {
        // A file system without attributes has none, which is an answer.
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut found = BTreeMap::new();
    for name in buffer[..used].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 65536];
        let length = rustix::fs::lgetxattr(path.as_slice(), name, &mut value[..])?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// Where two streams differ first; their end counts.
fn first_difference(left: &mut impl Read, right: &mut impl Read) -> std::io::Result<Option<u64>> {
    let (mut a, mut b) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut offset = 0;
    loop {
        let (m, n) = (fill(left, &mut a)?, fill(right, &mut b)?);
        if a[..m] != b[..n] {
            let at = a[..m].iter().zip(&b[..n]).position(|(x, y)| x != y);
            return Ok(Some(offset + at.unwrap_or(m.min(n)) as u64));
        }
        if m == 0 {
            return Ok(None);
        }
        offset += m as u64;
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
