//! Resolves paths from the target's descriptor to a directory below it, following no link.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::repo::entry::TreePath;

/// The most directories kept open. Neighbours in path order share parents; more than the nesting of two writers gains
/// nothing.
const RECENT_MAX: usize = 32;

/// The most links on the path to an anchor, as many as the kernel would follow.
const LINKS_MAX: u32 = 40;

/// The longest path given to the kernel at once: below its `PATH_MAX` of 4096 with the final NUL.
const PIECE_MAX: usize = 4000;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

#[derive(Debug)]
pub(super) struct DirResolver {
    /// `None`: the target does not exist and is not to be made; nothing is below it.
    root: Option<OwnedFd>,
    /// Kernels before 5.6 and some container filters have no `openat2`; then every component is opened on its own.
    openat2: bool,
    recent: Mutex<VecDeque<(TreePath, Arc<OwnedFd>)>>,
    /// Directories that links of root or of this user lead to.
    anchors: Vec<(TreePath, Arc<OwnedFd>)>,
}

impl DirResolver {
    pub(super) fn new(root: Option<OwnedFd>) -> Self {
        let openat2 = root.as_ref().is_some_and(|root| open_at_once(root.as_fd(), b".").is_ok());
        Self { root, openat2, recent: Mutex::default(), anchors: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn without_openat2(mut self) -> Self {
        self.openat2 = false;
        self
    }

    pub(super) fn root(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Errno::NOENT)
    }

    /// The directory at `path`. A symbolic link anywhere on the way is `ELOOP` or `ENOTDIR`.
    pub(super) fn dir(&self, path: &TreePath) -> rustix::io::Result<Arc<OwnedFd>> {
        let (base, rest) = {
            let mut recent = self.recent.lock();
            // The deepest known ancestor saves the most calls; the directory itself saves all of them.
            let best = (0..recent.len())
                .filter(|&i| path.starts_with(&recent[i].0))
                .max_by_key(|&i| recent[i].0.as_bytes().len());
            match best.and_then(|i| recent.remove(i)) {
                Some(known) => {
                    let rest = &path.as_bytes()[known.0.as_bytes().len()..];
                    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
                    recent.push_front(known.clone());
                    (Some(known.1), rest)
                }
                None => (None, path.as_bytes()),
            }
        };
        // An anchor replaces its path, because there may be a link on the path from the root.
        let anchor =
            self.anchors.iter().filter(|(at, _)| path.starts_with(at)).max_by_key(|(at, _)| at.as_bytes().len());
        let (base, rest) = match anchor {
            Some((at, fd)) if path.as_bytes().len() - rest.len() <= at.as_bytes().len() => {
                let rest = &path.as_bytes()[at.as_bytes().len()..];
                (Some(Arc::clone(fd)), rest.strip_prefix(b"/").unwrap_or(rest))
            }
            _ => (base, rest),
        };
        if rest.is_empty()
            && let Some(known) = base
        {
            return Ok(known);
        }
        let from = match &base {
            Some(fd) => fd.as_fd(),
            None => self.root()?,
        };
        let dir = Arc::new(self.walk(from, rest)?);
        let mut recent = self.recent.lock();
        recent.push_front((path.clone(), Arc::clone(&dir)));
        recent.truncate(RECENT_MAX);
        Ok(dir)
    }

    /// Lets `path` stand for the directory it resolves to, through links of root or of this user. A link of another
    /// user could have been put there to redirect the restore. A path that does not resolve is no anchor.
    pub(super) fn anchor(&mut self, path: &TreePath) -> rustix::io::Result<()> {
        let own = |uid: u32| uid == 0 || uid == rustix::process::geteuid().as_raw();
        let mut at = rustix::fs::openat(self.root()?, ".", DIRECTORY, Mode::empty())?;
        let mut rest: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = rustix::fs::openat(&at, &name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&next)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => at = next,
                // The link's target is walked as well: its links count like this one.
                FileType::Symlink if own(stat.st_uid) && links < LINKS_MAX => {
                    links += 1;
                    let to = rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes();
                    if to.first() == Some(&b'/') {
                        at = rustix::fs::openat(&at, "/", DIRECTORY, Mode::empty())?;
                    }
                    for part in to.split(|&b| b == b'/').filter(|part| !part.is_empty()).rev() {
                        rest.push_front(part.to_vec());
                    }
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        self.anchors.push((path.clone(), Arc::new(at)));
        Ok(())
    }

    /// Whether `path` is an anchor or an ancestor of one.
    pub(super) fn leads_to_anchor(&self, path: &TreePath) -> bool {
        self.anchors.iter().any(|(anchor, _)| anchor.starts_with(path))
    }

    /// Drops `path` and everything below it from the cache: it was removed, and its name may be used again.
    pub(super) fn forget(&self, path: &TreePath) {
        self.recent.lock().retain(|(known, _)| !known.starts_with(path));
    }

    /// Whether a file system is mounted on the directory `name` of `dir`. If the kernel cannot be asked directly, a
    /// mount of the same file system goes unnoticed.
    pub(super) fn is_mount_point(&self, dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
        if self.openat2 {
            return match rustix::fs::openat2(dir, name, DIRECTORY, Mode::empty(), BENEATH | ResolveFlags::NO_XDEV) {
                Ok(_) => Ok(false),
                Err(Errno::XDEV) => Ok(true),
                Err(e) => Err(e),
            };
        }
        let below = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::fstat(below)?.st_dev != rustix::fs::fstat(dir)?.st_dev)
    }

    fn walk(&self, from: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        for piece in pieces(path, if self.openat2 { PIECE_MAX } else { 0 }) {
            let base = at.as_ref().map_or(from, AsFd::as_fd);
            at = Some(if self.openat2 {
                open_at_once(base, piece)?
            } else {
                rustix::fs::openat(base, piece, DIRECTORY, Mode::empty())?
            });
        }
        match at {
            Some(dir) => Ok(dir),
            None => rustix::fs::openat(from, ".", DIRECTORY, Mode::empty()),
        }
    }
}

fn open_at_once(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(base, path, DIRECTORY, Mode::empty(), BENEATH)
}

/// The path in runs of whole components, each at most `max` bytes long, or one component if that is longer.
fn pieces(path: &[u8], max: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let slashes = || rest.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(i, _)| i);
        let end = if rest.len() <= max {
            rest.len()
        } else {
            slashes().take_while(|&i| i <= max).last().or_else(|| slashes().next()).unwrap_or(rest.len())
        };
        let piece = &rest[..end];
        rest = rest[end..].strip_prefix(b"/").unwrap_or(&[]);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: impl Into<Vec<u8>>) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn resolvers(dir: &std::path::Path) -> [DirResolver; 2] {
        let open = || Some(rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap());
        [DirResolver::new(open()), DirResolver::new(open()).without_openat2()]
    }

    #[test]
    fn pieces_are_whole_components() {
        let cut =
            |p: &'static str, max| pieces(p.as_bytes(), max).map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(cut("a/b/c", 3), ["a/b", "c"]);
        assert_eq!(cut("a/b/c", 0), ["a", "b", "c"]);
        assert_eq!(cut("long/b", 2), ["long", "b"]);
        assert_eq!(cut("a/b", 9), ["a/b"]);
        assert_eq!(cut("", 9), [""; 0]);
    }

    #[test]
    fn no_link_is_followed_at_any_depth_in_either_way() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("real/deep")).unwrap();
        std::os::unix::fs::symlink("real", tmp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", tmp.path().join("real/out")).unwrap();
        std::fs::write(tmp.path().join("file"), "").unwrap();
        for resolver in resolvers(tmp.path()) {
            assert!(resolver.dir(&path("real/deep")).is_ok());
            for bad in ["link", "link/deep", "real/out", "real/out/etc", "file"] {
                let errno = resolver.dir(&path(bad)).unwrap_err();
                assert!(matches!(errno, Errno::LOOP | Errno::NOTDIR), "{bad}: {errno}");
            }
            assert_eq!(resolver.dir(&path("missing")).unwrap_err(), Errno::NOENT);
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_walked_in_pieces() {
        let tmp = tempfile::tempdir().unwrap();
        for resolver in resolvers(tmp.path()) {
            let mut deep = path("");
            for i in 0..30 {
                let dir = resolver.dir(&deep).unwrap();
                let name = format!("{i:0>200}");
                let made = rustix::fs::mkdirat(&*dir, name.as_str(), Mode::RWXU);
                assert!(matches!(made, Ok(()) | Err(Errno::EXIST)), "{made:?}");
                deep = deep.join(name.as_bytes()).unwrap();
            }
            resolver.forget(&path(""));
            assert!(deep.as_bytes().len() > 4096 && resolver.dir(&deep).is_ok());
        }
    }

    #[test]
    fn an_anchor_is_reached_through_links_of_root_and_this_user_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, tmp.path().join(at)).unwrap();
        std::fs::create_dir_all(tmp.path().join("real/deep")).unwrap();
        link("real/../real/./deep", "relative");
        link("relative", "twice");
        link(tmp.path().join("real").to_str().unwrap(), "absolute");
        link("loop", "loop");
        link("theirs", "through");
        link("real", "theirs");
        let [mut resolver, _] = resolvers(tmp.path());
        for name in ["relative", "twice", "absolute/deep"] {
            resolver.anchor(&path(name)).unwrap();
            let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
            assert_eq!(inode(&resolver.dir(&path(name)).unwrap()), inode(&resolver.dir(&path("real/deep")).unwrap()));
        }
        assert!(resolver.anchor(&path("loop")).is_err());
        if rustix::process::geteuid().is_root() {
            resolver.anchor(&path("through")).unwrap();
            std::os::unix::fs::lchown(tmp.path().join("theirs"), Some(65534), None).unwrap();
        }
        let theirs = rustix::process::geteuid().is_root();
        assert_eq!(resolver.anchor(&path("through")).is_err(), theirs, "a link of another user in one's own path");
    }

    #[test]
    fn what_was_forgotten_is_looked_up_again() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("a/b")).unwrap();
        let [resolver, _] = resolvers(tmp.path());
        resolver.dir(&path("a/b")).unwrap();
        std::fs::remove_dir_all(tmp.path().join("a")).unwrap();
        resolver.forget(&path("a"));
        assert_eq!(resolver.dir(&path("a/b")).unwrap_err(), Errno::NOENT);
    }
}
