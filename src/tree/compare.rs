//! Decides whether an entry changed, from the cached and the current metadata. Pure.

use crate::repo::entry::{EntryKind, ManifestEntry, UnixNanos};
use crate::tree::stat::{FileType, Stat};

/// What a node caches of an entry beside the manifest entry; valid on this node only. The device number is left out: it
/// changes with the order in which disks are found, and a different file with the same inode number, ctime, size and
/// mtime to the nanosecond is not to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CachedStat {
    /// The inode number within the file system.
    pub ino: u64,
    /// When content or metadata last changed; a user program cannot set it back.
    pub ctime: UnixNanos,
}

/// The longest time between two steps of the clock with which the kernel stamps files (100 Hz, doubled for safety).
const TICK: UnixNanos = UnixNanos(20_000_000);

/// The coarsest time stamps of a file system that has no nanoseconds (FAT: 2 s).
const COARSE: UnixNanos = UnixNanos(2_000_000_000);

impl CachedStat {
    /// The metadata to cache of an object that was read as `stat` at `seen` or later, by this host's wall clock. `None`
    /// if the object changed so shortly before that it could change again without a new ctime.
    pub fn from_stat(stat: &Stat, seen: UnixNanos) -> Option<Self> {
        let has_nanoseconds = stat.ctime.seconds_and_nanos().1 != 0;
        let settled = stat.ctime.0 + if has_nanoseconds { TICK.0 } else { COARSE.0 };
        (settled < seen.0).then_some(Self { ino: stat.ino, ctime: stat.ctime })
    }
}

/// Whether `stat` and this node's cache show that `entry` is unchanged. Neither content nor link target nor attributes
/// need to be read then, because changing any of them changes the ctime.
///
/// For a hard link it only says that the file is unchanged, not which of its names comes first.
pub fn is_unchanged_since_cached(entry: &ManifestEntry, local: &CachedStat, stat: &Stat) -> bool {
    (local.ino, local.ctime) == (stat.ino, stat.ctime) && entry.mtime == stat.mtime && matches_kind(&entry.kind, stat)
}

/// Whether a regular file is taken to be `entry` because size, mtime and everything else in `stat` agree. Used for a
/// role that came from another node with `takeover_trust = "mtime"`. Other types have no content to save a read for, so
/// they never match.
pub fn matches_size_and_mtime(entry: &ManifestEntry, stat: &Stat) -> bool {
    let owner = (entry.owner.mode, entry.owner.uid, entry.owner.gid);
    stat.kind == FileType::File
        && entry.mtime == stat.mtime
        && owner == (stat.mode, stat.uid, stat.gid)
        && matches_kind(&entry.kind, stat)
}

/// Whether type, size and device number agree, as far as the entry has them.
fn matches_kind(kind: &EntryKind, stat: &Stat) -> bool {
    match kind {
        EntryKind::File { size, .. } => stat.kind == FileType::File && *size == stat.size,
        // The size is stored with the first name only.
        EntryKind::Hardlink { .. } => !matches!(stat.kind, FileType::Dir | FileType::Socket | FileType::Unknown),
        EntryKind::Dir => stat.kind == FileType::Dir,
        EntryKind::Symlink { target } => stat.kind == FileType::Symlink && target.len() as u64 == stat.size,
        EntryKind::Fifo => stat.kind == FileType::Fifo,
        EntryKind::CharDevice { major, minor } => stat.kind == FileType::CharDevice && (*major, *minor) == stat.rdev,
        EntryKind::BlockDevice { major, minor } => stat.kind == FileType::BlockDevice && (*major, *minor) == stat.rdev,
    }
}

/// How a path changed between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChange {
    /// The path is in the second snapshot only.
    New,
    /// The path is in both snapshots and its entry differs.
    Changed {
        /// The type, the content, the link target or the device number differs.
        content: bool,
        /// Owner, permissions, mtime or extended attributes differ.
        metadata: bool,
    },
    /// The entries are equal.
    Unchanged,
    /// The path is in the first snapshot only.
    Removed,
}

/// How a path changed between two snapshots. `None` if it is in neither.
pub fn path_change(before: Option<&ManifestEntry>, now: Option<&ManifestEntry>) -> Option<PathChange> {
    Some(match (before, now) {
        (None, None) => return None,
        (None, Some(_)) => PathChange::New,
        (Some(_), None) => PathChange::Removed,
        (Some(a), Some(b)) => {
            let content = a.kind != b.kind;
            let metadata = (&a.owner, a.mtime, &a.xattrs) != (&b.owner, b.mtime, &b.xattrs);
            if content || metadata { PathChange::Changed { content, metadata } } else { PathChange::Unchanged }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChunkId;
    use crate::repo::entry::{OwnerAndMode, TreePath, Xattr};
    use crate::tree::testing::stat;

    fn file() -> ManifestEntry {
        ManifestEntry {
            path: TreePath::new("a").unwrap(),
            kind: EntryKind::File { size: 3, extents: None, chunks: vec![ChunkId::from_slice(&[1; 32]).unwrap()] },
            owner: OwnerAndMode { mode: 0o644, uid: 1, gid: 2, user: "u".into(), group: "g".into() },
            mtime: UnixNanos(50),
            xattrs: vec![],
        }
    }

    const LOCAL: CachedStat = CachedStat { ino: 7, ctime: UnixNanos(60) };

    #[test]
    fn the_cache_vouches_for_what_looks_the_same() {
        assert!(is_unchanged_since_cached(&file(), &LOCAL, &stat()));
        assert!(
            is_unchanged_since_cached(&file(), &LOCAL, &Stat { dev: 1, ..stat() }),
            "device numbers change over reboots"
        );
        for other in [
            Stat { ino: 8, ..stat() },
            Stat { ctime: UnixNanos(61), ..stat() },
            Stat { mtime: UnixNanos(51), ..stat() },
            Stat { size: 4, ..stat() },
            Stat { kind: FileType::Fifo, ..stat() },
        ] {
            assert!(!is_unchanged_since_cached(&file(), &LOCAL, &other), "{other:?}");
        }
    }

    #[test]
    fn every_kind_is_compared_by_what_it_has() {
        let entry = |kind| ManifestEntry { kind, ..file() };
        let seen = |kind| Stat { kind, rdev: (4, 1), ..stat() };
        let device = |minor| entry(EntryKind::CharDevice { major: 4, minor });
        assert!(is_unchanged_since_cached(&device(1), &LOCAL, &seen(FileType::CharDevice)));
        assert!(!is_unchanged_since_cached(&device(2), &LOCAL, &seen(FileType::CharDevice)));
        assert!(!is_unchanged_since_cached(&device(1), &LOCAL, &seen(FileType::BlockDevice)));
        assert!(is_unchanged_since_cached(
            &entry(EntryKind::Symlink { target: b"abc".into() }),
            &LOCAL,
            &seen(FileType::Symlink)
        ));
        assert!(!is_unchanged_since_cached(
            &entry(EntryKind::Symlink { target: b"ab".into() }),
            &LOCAL,
            &seen(FileType::Symlink)
        ));
        let link = entry(EntryKind::Hardlink { target: TreePath::new("b").unwrap() });
        assert!(is_unchanged_since_cached(&link, &LOCAL, &seen(FileType::File)));
        assert!(!is_unchanged_since_cached(&link, &LOCAL, &seen(FileType::Dir)));
    }

    #[test]
    fn what_changed_just_now_is_not_remembered() {
        let second = 1_000_000_000;
        let at = |ctime| Stat { ctime: UnixNanos(ctime), ..stat() };
        let fine = at(100 * second + 1);
        assert_eq!(CachedStat::from_stat(&fine, UnixNanos(100 * second + 1)), None, "the same tick");
        assert_eq!(CachedStat::from_stat(&fine, UnixNanos(99 * second)), None, "a clock that was set back");
        let known = Some(CachedStat { ino: 7, ctime: fine.ctime });
        assert_eq!(CachedStat::from_stat(&fine, UnixNanos(100 * second + 2 + TICK.0)), known);
        let coarse = at(100 * second);
        assert_eq!(CachedStat::from_stat(&coarse, UnixNanos(102 * second)), None);
        assert!(CachedStat::from_stat(&coarse, UnixNanos(102 * second + 1)).is_some());
    }

    #[test]
    fn mtime_is_believed_of_regular_files_only() {
        assert!(matches_size_and_mtime(&file(), &Stat { ino: 1, ctime: UnixNanos(0), ..stat() }));
        for other in [
            Stat { mtime: UnixNanos(51), ..stat() },
            Stat { size: 4, ..stat() },
            Stat { mode: 0o600, ..stat() },
            Stat { uid: 0, ..stat() },
            Stat { gid: 0, ..stat() },
        ] {
            assert!(!matches_size_and_mtime(&file(), &other), "{other:?}");
        }
        let link = ManifestEntry { kind: EntryKind::Symlink { target: b"abc".into() }, ..file() };
        assert!(!matches_size_and_mtime(&link, &Stat { kind: FileType::Symlink, ..stat() }));
    }

    #[test]
    fn a_change_is_of_content_or_of_metadata() {
        let same = file();
        let touched = ManifestEntry { mtime: UnixNanos(51), ..file() };
        let tagged = ManifestEntry { xattrs: vec![Xattr { name: b"user.a".into(), value: vec![] }], ..file() };
        let edited = ManifestEntry { kind: EntryKind::File { size: 3, extents: None, chunks: vec![] }, ..file() };
        let changed = |now: &ManifestEntry| path_change(Some(&file()), Some(now));
        assert_eq!(changed(&same), Some(PathChange::Unchanged));
        assert_eq!(changed(&touched), Some(PathChange::Changed { content: false, metadata: true }));
        assert_eq!(changed(&tagged), Some(PathChange::Changed { content: false, metadata: true }));
        assert_eq!(changed(&edited), Some(PathChange::Changed { content: true, metadata: false }));
        assert_eq!(path_change(None, Some(&same)), Some(PathChange::New));
        assert_eq!(path_change(Some(&same), None), Some(PathChange::Removed));
        assert_eq!(path_change(None, None), None);
    }
}
