//! Helpers that the tests of this module share.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::repo::entry::{TreePath, UnixNanos};
use crate::tree::flags::FileFlags;
use crate::tree::stat::{FileType, Stat};

/// A fresh directory that every user may enter, and its path in a tree.
pub(crate) fn dir() -> (tempfile::TempDir, TreePath) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = tree_path(dir.path());
    (dir, path)
}

/// The path of `path` in a tree.
pub(crate) fn tree_path(path: &Path) -> TreePath {
    use std::os::unix::ffi::OsStrExt;
    TreePath::new(path.strip_prefix("/").unwrap().as_os_str().as_bytes()).unwrap()
}

/// `below` as seen from `base`.
pub(crate) fn at(base: &TreePath, below: impl AsRef<[u8]>) -> TreePath {
    TreePath::new([base.as_bytes(), b"/", below.as_ref()].concat()).unwrap()
}

/// The attributes of a small regular file.
pub(crate) fn stat() -> Stat {
    Stat {
        kind: FileType::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        size: 3,
        mtime: UnixNanos(50),
        ctime: UnixNanos(60),
        dev: 9,
        ino: 7,
        nlink: 1,
        rdev: (0, 0),
        blocks: 8,
        flags: FileFlags::default(),
    }
}

/// Runs `f` in a thread that has no more rights on files than the user `nobody`, whichever user runs the tests. The
/// file system user belongs to the thread, and leaving 0 takes away the capabilities that override permissions.
pub(crate) fn without_privileges<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let run = || {
        if Uid::effective().is_root() {
            setfsgid(Gid::from_raw(65534));
            setfsuid(Uid::from_raw(65534));
        }
        f()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
