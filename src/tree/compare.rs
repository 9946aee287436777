//! Whether something changed, decided from what is remembered and what is seen. Pure.

use crate::repo::entry::{Entry, Kind, Nanos};
use crate::tree::stat::{FileType, Stat};

/// What a node remembers for itself of an entry, beside the entry. Good on this node only. The device number is not part
/// of it: it changes with the order in which disks are found, and a different file with the same inode number, ctime, size
/// and mtime to the nanosecond is not to be feared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Local {
    /// The number within the file system.
    pub ino: u64,
    /// When content or metadata last changed; nobody can set it back.
    pub ctime: Nanos,
}

/// The kernel stamps files with a clock that ticks at least this often (100 Hz, and one tick to be safe).
const TICK: Nanos = Nanos(20_000_000);

/// The coarsest time stamps of a file system that has no nanoseconds (FAT: 2 s).
const COARSE: Nanos = Nanos(2_000_000_000);

impl Local {
    /// What to remember of an object that was seen as `stat` at `seen` or later, by this host's wall clock. `None` if it
    /// changed so shortly before that it could change again without a new ctime.
    pub fn remember(stat: &Stat, seen: Nanos) -> Option<Self> {
        let has_nanoseconds = stat.ctime.parts().1 != 0;
        let settled = stat.ctime.0 + if has_nanoseconds { TICK.0 } else { COARSE.0 };
        (settled < seen.0).then_some(Self { ino: stat.ino, ctime: stat.ctime })
    }
}

/// Whether `entry` is still what `stat` shows, by what this node remembers of it: nothing of it needs to be read then,
/// neither content nor link target nor attributes, because changing any of them changes the ctime.
///
/// Of a further name of a file it says only that the file is unchanged, not which name comes first.
pub fn vouches(entry: &Entry, local: &Local, stat: &Stat) -> bool {
    (local.ino, local.ctime) == (stat.ino, stat.ctime) && entry.mtime == stat.mtime && same_kind(&entry.kind, stat)
}

/// Whether a regular file is believed to be `entry` by what `stat` shows: size and mtime, and everything else that
/// it shows. For a role that came from another node and `takeover_trust = "mtime"`. Anything else costs no read of content
/// and is never believed.
pub fn same_by_mtime(entry: &Entry, stat: &Stat) -> bool {
    let owner = (entry.owner.mode, entry.owner.uid, entry.owner.gid);
    stat.kind == FileType::File
        && entry.mtime == stat.mtime
        && owner == (stat.mode, stat.uid, stat.gid)
        && same_kind(&entry.kind, stat)
}

/// Type, size and device number, as far as the entry tells them.
fn same_kind(kind: &Kind, stat: &Stat) -> bool {
    match kind {
        Kind::File { size, .. } => stat.kind == FileType::File && *size == stat.size,
        // The size stands at the first name.
        Kind::Hardlink { .. } => !matches!(stat.kind, FileType::Dir | FileType::Socket | FileType::Unknown),
        Kind::Dir => stat.kind == FileType::Dir,
        Kind::Symlink { target } => stat.kind == FileType::Symlink && target.len() as u64 == stat.size,
        Kind::Fifo => stat.kind == FileType::Fifo,
        Kind::CharDevice { major, minor } => stat.kind == FileType::CharDevice && (*major, *minor) == stat.rdev,
        Kind::BlockDevice { major, minor } => stat.kind == FileType::BlockDevice && (*major, *minor) == stat.rdev,
    }
}

/// What became of a path between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Not there before.
    New,
    /// There, and different.
    Changed {
        /// The type, the content, the link target or the device number differs.
        content: bool,
        /// Owner, permissions, mtime or extended attributes differ.
        metadata: bool,
    },
    /// Equal.
    Unchanged,
    /// No longer there.
    Removed,
}

/// What became of a path. `None` if it is in neither snapshot.
pub fn change(before: Option<&Entry>, now: Option<&Entry>) -> Option<Change> {
    Some(match (before, now) {
        (None, None) => return None,
        (None, Some(_)) => Change::New,
        (Some(_), None) => Change::Removed,
        (Some(a), Some(b)) => {
            let content = a.kind != b.kind;
            let metadata = (&a.owner, a.mtime, &a.xattrs) != (&b.owner, b.mtime, &b.xattrs);
            if content || metadata { Change::Changed { content, metadata } } else { Change::Unchanged }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChunkId;
    use crate::repo::entry::{Owner, TreePath, Xattr};

    fn file() -> Entry {
        Entry {
            path: TreePath::new("a").unwrap(),
            kind: Kind::File { size: 3, extents: None, chunks: vec![ChunkId::from_slice(&[1; 32]).unwrap()] },
            owner: Owner { mode: 0o644, uid: 1, gid: 2, user: "u".into(), group: "g".into() },
            mtime: Nanos(50),
            xattrs: vec![],
        }
    }

    fn stat() -> Stat {
        Stat {
            kind: FileType::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            mtime: Nanos(50),
            ctime: Nanos(60),
            dev: 9,
            ino: 7,
            nlink: 1,
            rdev: (0, 0),
            blocks: 8,
            flags: crate::tree::flags::Flags::default(),
        }
    }

    const LOCAL: Local = Local { ino: 7, ctime: Nanos(60) };

    #[test]
    fn the_cache_vouches_for_what_looks_the_same() {
        assert!(vouches(&file(), &LOCAL, &stat()));
        assert!(vouches(&file(), &LOCAL, &Stat { dev: 1, ..stat() }), "device numbers change over reboots");
        for other in [
            Stat { ino: 8, ..stat() },
            Stat { ctime: Nanos(61), ..stat() },
            Stat { mtime: Nanos(51), ..stat() },
            Stat { size: 4, ..stat() },
            Stat { kind: FileType::Fifo, ..stat() },
        ] {
            assert!(!vouches(&file(), &LOCAL, &other), "{other:?}");
        }
    }

    #[test]
    fn every_kind_is_compared_by_what_it_has() {
        let entry = |kind| Entry { kind, ..file() };
        let seen = |kind| Stat { kind, rdev: (4, 1), ..stat() };
        let device = |minor| entry(Kind::CharDevice { major: 4, minor });
        assert!(vouches(&device(1), &LOCAL, &seen(FileType::CharDevice)));
        assert!(!vouches(&device(2), &LOCAL, &seen(FileType::CharDevice)));
        assert!(!vouches(&device(1), &LOCAL, &seen(FileType::BlockDevice)));
        assert!(vouches(&entry(Kind::Symlink { target: b"abc".into() }), &LOCAL, &seen(FileType::Symlink)));
        assert!(!vouches(&entry(Kind::Symlink { target: b"ab".into() }), &LOCAL, &seen(FileType::Symlink)));
        let link = entry(Kind::Hardlink { target: TreePath::new("b").unwrap() });
        assert!(vouches(&link, &LOCAL, &seen(FileType::File)));
        assert!(!vouches(&link, &LOCAL, &seen(FileType::Dir)));
    }

    #[test]
    fn what_changed_just_now_is_not_remembered() {
        let second = 1_000_000_000;
        let at = |ctime| Stat { ctime: Nanos(ctime), ..stat() };
        let fine = at(100 * second + 1);
        assert_eq!(Local::remember(&fine, Nanos(100 * second + 1)), None, "the same tick");
        assert_eq!(Local::remember(&fine, Nanos(99 * second)), None, "a clock that was set back");
        let known = Some(Local { ino: 7, ctime: fine.ctime });
        assert_eq!(Local::remember(&fine, Nanos(100 * second + 2 + TICK.0)), known);
        let coarse = at(100 * second);
        assert_eq!(Local::remember(&coarse, Nanos(102 * second)), None);
        assert!(Local::remember(&coarse, Nanos(102 * second + 1)).is_some());
    }

    #[test]
    fn mtime_is_believed_of_regular_files_only() {
        assert!(same_by_mtime(&file(), &Stat { ino: 1, ctime: Nanos(0), ..stat() }));
        for other in [
            Stat { mtime: Nanos(51), ..stat() },
            Stat { size: 4, ..stat() },
            Stat { mode: 0o600, ..stat() },
            Stat { uid: 0, ..stat() },
            Stat { gid: 0, ..stat() },
        ] {
            assert!(!same_by_mtime(&file(), &other), "{other:?}");
        }
        let link = Entry { kind: Kind::Symlink { target: b"abc".into() }, ..file() };
        assert!(!same_by_mtime(&link, &Stat { kind: FileType::Symlink, ..stat() }));
    }

    #[test]
    fn a_change_is_of_content_or_of_metadata() {
        let same = file();
        let touched = Entry { mtime: Nanos(51), ..file() };
        let tagged = Entry { xattrs: vec![Xattr { name: b"user.a".into(), value: vec![] }], ..file() };
        let edited = Entry { kind: Kind::File { size: 3, extents: None, chunks: vec![] }, ..file() };
        let changed = |now: &Entry| change(Some(&file()), Some(now));
        assert_eq!(changed(&same), Some(Change::Unchanged));
        assert_eq!(changed(&touched), Some(Change::Changed { content: false, metadata: true }));
        assert_eq!(changed(&tagged), Some(Change::Changed { content: false, metadata: true }));
        assert_eq!(changed(&edited), Some(Change::Changed { content: true, metadata: false }));
        assert_eq!(change(None, Some(&same)), Some(Change::New));
        assert_eq!(change(Some(&same), None), Some(Change::Removed));
        assert_eq!(change(None, None), None);
    }
}
