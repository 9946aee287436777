//! One entry of a manifest: a file, directory, link or special file as it is stored.
//!
//! Nothing here depends on the node that made the entry: inode, device and ctime are left out, so that the same tree
//! read by another node gives the same bytes. A node keeps those in its own cache.
//!
//! Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::ChunkId;
use crate::text;

/// A path below `/`, without the leading slash: components separated by `/`, any byte in a name but `/` and NUL. The
/// root itself is the empty path.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The path with these bytes. `None` if a component is empty, `.` or `..`, or if it contains a NUL: such a path
    /// could lead a restore out of its target.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        let sound = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
        (bytes.is_empty() || bytes.split(|&b| b == b'/').all(sound)).then_some(Self(bytes))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the top.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// The path without its last component; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        &self.0[start..]
    }

    /// The path one component deeper. `None` if `name` is not a valid name.
    pub fn join(&self, name: &[u8]) -> Option<TreePath> {
        let sound = !name.is_empty() && name != b"." && name != b".." && !name.contains(&0) && !name.contains(&b'/');
        sound.then(|| {
            let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
            bytes.extend_from_slice(&self.0);
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name);
            Self(bytes)
        })
    }

    /// Whether this is `other` or lies below it.
    pub fn starts_with(&self, other: &TreePath) -> bool {
        other.0.is_empty()
            || (self.0.starts_with(&other.0) && (self.0.len() == other.0.len() || self.0[other.0.len()] == b'/'))
    }

    /// The path for messages: absolute, with bytes escaped that are not UTF-8 or not printable (`\xNN`, `\n`).
    pub fn display(&self) -> String {
        format!("/{}", text::exact(&self.0))
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        TreePath::new(Vec::<u8>::deserialize(d)?).ok_or_else(|| serde::de::Error::custom("not a path"))
    }
}

impl std::fmt::Debug for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.display())
    }
}

/// Path order is the order of a walk that visits a directory before its content and names bytewise: `/` sorts before
/// every other byte, so `a`, `a/x`, `a-b`.
impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        let common = common_prefix_len(&self.0, &other.0);
        // The end of a path sorts first, then a separator, then the other bytes.
        let rank = |p: &[u8]| p.get(common).map_or(0, |&b| if b == b'/' { 1 } else { u16::from(b) + 2 });
        rank(&self.0).cmp(&rank(&other.0))
    }
}

/// The length of the common beginning of two paths, in bytes.
pub(crate) fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    let (words, _) = a.as_chunks::<16>();
    let (others, _) = b.as_chunks::<16>();
    let alike = words.iter().zip(others).take_while(|(a, b)| a == b).count() * 16;
    alike + a[alike..].iter().zip(&b[alike..]).take_while(|(a, b)| a == b).count()
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A point in time in nanoseconds since 1970-01-01T00:00:00Z, negative before; `stat(2)` gives it as seconds and
/// nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixNanos(pub i128);

impl UnixNanos {
    /// From the two numbers of `stat(2)`.
    pub fn new(seconds: i64, nanoseconds: u32) -> Self {
        Self(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds))
    }

    /// Whole seconds (rounded down) and the nanoseconds after them.
    pub fn seconds_and_nanos(self) -> (i64, u32) {
        (self.0.div_euclid(1_000_000_000) as i64, self.0.rem_euclid(1_000_000_000) as u32)
    }
}

/// Owner and permissions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OwnerAndMode {
    /// The permission bits with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The owner's name on the node that made the backup; empty if it had none.
    pub user: Arc<str>,
    /// The group's name; empty if it had none.
    pub group: Arc<str>,
}

/// One extended attribute; POSIX ACLs (`system.posix_acl_access`) and capabilities (`security.capability`) are some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The name with its namespace.
    pub name: Vec<u8>,
    /// The value of the attribute.
    pub value: Vec<u8>,
}

/// A run of bytes of a sparse file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The length in bytes; never 0.
    pub len: u64,
}

/// The type of an entry, with the data of that type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Size in bytes, holes included.
        size: u64,
        /// `None`: the chunks are the whole content. `Some`: the file has holes; the chunks are the content of these
        /// extents one after another. The extents are in ascending order and do not touch each other.
        extents: Option<Vec<Extent>>,
        /// The chunks of the content, in order.
        chunks: Vec<ChunkId>,
    },
    /// A further name of a file whose entry comes earlier in the manifest.
    Hardlink {
        /// The first name in path order; its entry has the content.
        target: TreePath,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// The target of the link, as written.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl EntryKind {
    /// Size of the content in bytes, holes included; 0 for an entry that is no regular file.
    pub fn size(&self) -> u64 {
        match self {
            EntryKind::File { size, .. } => *size,
            _ => 0,
        }
    }

    /// The chunks of the content; empty for an entry that is no regular file.
    pub fn chunks(&self) -> &[ChunkId] {
        match self {
            EntryKind::File { chunks, .. } => chunks,
            _ => &[],
        }
    }
}

/// One entry of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestEntry {
    /// The path of the entry.
    pub path: TreePath,
    /// The type of the entry.
    pub kind: EntryKind,
    /// Owner and permissions.
    pub owner: OwnerAndMode,
    /// When the content last changed.
    pub mtime: UnixNanos,
    /// The extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn path_order_is_the_order_of_a_walk() {
        let sorted = ["", "a", "a/b", "a/b/c", "a/x", "a-b", "a.c", "ab", "b"].map(path);
        let mut shuffled = sorted.clone();
        shuffled.reverse();
        shuffled.sort();
        assert_eq!(shuffled, sorted);
    }

    #[test]
    fn no_path_leads_out() {
        for bad in ["/a", "a/", "a//b", "..", "a/../b", ".", "a/.", "a\0b"] {
            assert!(TreePath::new(bad).is_none(), "{bad:?}");
        }
        assert!(path("a").join(b"..").is_none() && path("a").join(b"b/c").is_none());
        assert_eq!(path("").join(b"b"), Some(path("b")));
    }

    #[test]
    fn below_means_a_whole_component() {
        assert!(path("a/b").starts_with(&path("a")) && path("a").starts_with(&path("")));
        assert!(!path("ab").starts_with(&path("a")));
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(path("")));
        assert_eq!((path("").parent(), path("a/b").name()), (None, &b"b"[..]));
    }

    #[test]
    fn times_before_the_epoch_keep_their_nanoseconds() {
        assert_eq!(UnixNanos::new(-1, 999_999_999), UnixNanos(-1));
        assert_eq!(UnixNanos(-1).seconds_and_nanos(), (-1, 999_999_999));
    }
}
