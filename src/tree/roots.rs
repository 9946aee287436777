//! The sources of a backup, held open, and the path resolution from them to everything below.
//!
//! The invariant that lives here: below a source no symbolic link is ever followed, not even in the middle of a path
//! that another process swaps during the resolution. How a source itself is reached is the operator's choice: its
//! parents may be links. A path may be longer than the kernel takes at once.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::repo::entry::TreePath;
use crate::tree::stat::{FileType, Stat};

/// The longest path that the kernel takes, with its NUL.
const PATH_MAX: usize = 4096;

/// Flags to open a directory without reading it, so that no read permission is needed.
pub(super) const PASS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// Flags to list a directory.
pub(super) const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// Flags to read a file. `O_NONBLOCK` and `O_NOCTTY`, because it may have become a pipe or a terminal since it was
/// listed.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// How long a read waits for a file on which another process holds a lease (`F_SETLEASE`). A file server that holds one
/// for its client releases it within milliseconds of the kernel's signal; a holder that ignores the signal keeps it for
/// `fs.lease-break-time` (45 s). Any user may take a lease on a file of theirs.
const LEASE_WAIT_MAX: Duration = Duration::from_secs(2);

/// The limit of these waits for all files of a walk together; after it each file is tried once.
const LEASE_WAITS_MAX: Duration = Duration::from_mins(1);

/// The first and the longest pause between two tries.
const LEASE_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// A source that cannot be backed up. Nothing is committed without it.
#[derive(Debug, thiserror::Error)]
#[error("source {}: {why}", source_path.display())]
pub struct ScanError {
    /// The path as it was configured.
    pub source_path: PathBuf,
    /// What is wrong with it.
    pub why: ScanErrorKind,
}

/// The kinds of [`ScanError`].
#[derive(Debug, thiserror::Error)]
pub enum ScanErrorKind {
    /// No object has that name.
    #[error("it does not exist")]
    Missing,
    /// The object exists and cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// The path is relative, or contains `..`.
    #[error("it is no absolute path without ..")]
    NotAbsolute,
    /// The source is a symbolic link. Only the link itself would be stored, never its target.
    #[error("it is a symbolic link to {}", .0.display())]
    Link(PathBuf),
    /// The source is a socket, a pipe, a device or an unknown type: it has a name and no content.
    #[error("there is nothing in it to back up")]
    Nothing,
}

/// The sources in path order, none of them below another.
#[derive(Debug)]
pub struct SourceRoots {
    sources: Vec<SourceRoot>,
    way: PathResolution,
    /// Time spent waiting for files under a lease, in milliseconds.
    lease_waited_ms: AtomicU64,
}

/// One source that is held open.
#[derive(Debug)]
pub(super) struct SourceRoot {
    /// The source's path.
    pub(super) path: TreePath,
    /// The source's metadata at the time it was opened.
    pub(super) stat: Stat,
    /// The source itself if it is a directory, else its parent.
    base: OwnedFd,
    /// How many bytes of a path below this source lead to `base`.
    base_len: usize,
}

/// How a path without links is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathResolution {
    /// `openat2(2)`, one call for up to [`PATH_MAX`] bytes.
    OpenAt2,
    /// One call for each component: kernels before 5.6, and sandboxes that forbid `openat2`.
    Stepwise,
}

impl SourceRoots {
    /// Opens `sources`. A source inside another must exist too, but is covered by the other and dropped, as is a
    /// repeated one.
    ///
    /// # Errors
    /// The first source that is missing or unreadable.
    pub fn open(sources: &[PathBuf]) -> Result<Self, ScanError> {
        let mut roots: Vec<SourceRoot> = Vec::with_capacity(sources.len());
        let mut named = sources
            .iter()
            .map(|s| tree_path(s).map(|path| (path, s)).ok_or_else(|| error(s, ScanErrorKind::NotAbsolute)))
            .collect::<Result<Vec<_>, _>>()?;
        named.sort();
        for (path, source) in named {
            let root = SourceRoot::open(path).map_err(|why| error(source, why))?;
            if roots.last().is_none_or(|outer| !root.path.starts_with(&outer.path)) {
                roots.push(root);
            }
        }
        let slash = openat2(CWD, c"/", PASS | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS);
        let way = if slash.is_ok() { PathResolution::OpenAt2 } else { PathResolution::Stepwise };
        Ok(Self { sources: roots, way, lease_waited_ms: AtomicU64::new(0) })
    }

    /// The paths of the sources, in path order.
    pub fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.sources.iter().map(|r| &r.path)
    }

    /// The sources.
    pub(super) fn all(&self) -> &[SourceRoot] {
        &self.sources
    }

    /// Opens `path` without following links, with `flags`.
    pub(super) fn open_at(&self, path: &TreePath, flags: OFlags) -> io::Result<OwnedFd> {
        // No source lies below another, so only the last one that is not after `path` can contain it.
        let after = self.sources.partition_point(|r| r.path <= *path);
        let root = after.checked_sub(1).map(|i| &self.sources[i]).filter(|r| path.starts_with(&r.path));
        let root = root.ok_or_else(|| io::Error::other("it is outside of the sources"))?;
        let below = path.as_bytes().get(root.base_len..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Ok(self.way.open(root.base.as_fd(), below, flags)?)
    }

    #[cfg(test)]
    pub(super) fn has_waited_enough(&mut self) {
        *self.lease_waited_ms.get_mut() = LEASE_WAITS_MAX.as_millis() as u64;
    }

    /// Opens the file at `path` for reading, with a bounded wait for leases. The object may have stopped being a file
    /// meanwhile.
    pub(super) fn open_file(&self, path: &TreePath) -> io::Result<OwnedFd> {
        let (mut waited, mut pause) = (Duration::ZERO, LEASE_PAUSE.0);
        loop {
            match self.open_at(path, READ) {
                // The kernel has signalled the holder of the lease. Nothing but a lease, and hardly a device, gives
                // this error.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let all = Duration::from_millis(self.lease_waited_ms.load(Ordering::Relaxed));
                    if waited + pause > LEASE_WAIT_MAX || all + pause > LEASE_WAITS_MAX {
                        return Err(io::Error::other("another process holds a lease on it (F_SETLEASE)"));
                    }
                    std::thread::sleep(pause);
                    self.lease_waited_ms.fetch_add(pause.as_millis() as u64, Ordering::Relaxed);
                    waited += pause;
                    pause = (pause * 2).min(LEASE_PAUSE.1);
                }
                opened => return opened,
            }
        }
    }
}

impl SourceRoot {
    fn open(path: TreePath) -> Result<Self, ScanErrorKind> {
        let failed = |e: Errno| match e {
            Errno::NOENT | Errno::NOTDIR => ScanErrorKind::Missing,
            e => ScanErrorKind::Unreadable(e.into()),
        };
        let slash = openat(CWD, c"/", PASS | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        let Some(parent) = path.parent() else {
            return Self::directory(path, slash.as_fd(), b".");
        };
        let base = open_following_links(slash.as_fd(), parent.as_bytes(), PASS).map_err(failed)?;
        let name = CString::new(path.name()).expect("no component of a TreePath holds a NUL");
        let stat = Stat::at(base.as_fd(), &name)
            .map_err(|e| failed(Errno::from_io_error(&e).expect("statx gives an errno")))?;
        match stat.kind {
            FileType::Dir => return Self::directory(path.clone(), base.as_fd(), path.name()),
            // Below a source a link is an entry like any other; a source that is a link stands for its target.
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&base, &name, Vec::new()).map_err(failed)?;
                return Err(ScanErrorKind::Link(OsString::from_vec(target.into_bytes()).into()));
            }
            FileType::Socket | FileType::Unknown | FileType::Fifo | FileType::CharDevice | FileType::BlockDevice => {
                return Err(ScanErrorKind::Nothing);
            }
            // Opening anything else may have effects. A file must be readable now rather than fail later; a lease on it
            // is no reason to fail the whole backup.
            FileType::File => match open_following_links(base.as_fd(), path.name(), READ | OFlags::NOFOLLOW) {
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(e) => return Err(failed(e)),
            },
        }
        Ok(Self { base_len: parent.as_bytes().len(), path, stat, base })
    }

    fn directory(path: TreePath, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Self, ScanErrorKind> {
        let unreadable = |e: Errno| ScanErrorKind::Unreadable(e.into());
        let base = open_following_links(parent, name, LIST | OFlags::NOFOLLOW).map_err(unreadable)?;
        let stat = Stat::of(&base).map_err(ScanErrorKind::Unreadable)?;
        Ok(Self { base_len: path.as_bytes().len(), path, stat, base })
    }
}

fn error(source: &Path, why: ScanErrorKind) -> ScanError {
    ScanError { source_path: source.to_owned(), why }
}

/// The path below `/` that an absolute `source` names, in the form of entries; `None` if it is no absolute path without
/// `..`.
pub(crate) fn tree_path(source: &Path) -> Option<TreePath> {
    let mut components = source.components();
    if components.next() != Some(Component::RootDir) {
        return None;
    }
    let names = components.map(|c| match c {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    });
    TreePath::new(names.collect::<Option<Vec<_>>>()?.join(&b'/'))
}

/// The absolute path in the file system of `path`.
pub fn absolute_path(path: &TreePath) -> PathBuf {
    PathBuf::from(OsString::from_vec([b"/", path.as_bytes()].concat()))
}

/// Opens `path` below `base`, following links.
fn open_following_links(base: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_in_pieces(base, path, flags, |fd, piece, flags| openat(fd, OsStr::from_bytes(piece), flags, Mode::empty()))
}

impl PathResolution {
    /// Opens `path` below `base` without following links.
    fn open(self, base: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open_in_pieces(base, path, flags | OFlags::NOFOLLOW, |fd, piece, flags| match self {
            Self::OpenAt2 => openat2(fd, OsStr::from_bytes(piece), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS),
            Self::Stepwise => {
                let mut here: Option<OwnedFd> = None;
                let (parents, last) = match piece.iter().rposition(|&b| b == b'/') {
                    Some(cut) => (&piece[..cut], &piece[cut + 1..]),
                    None => (&b""[..], piece),
                };
                for name in parents.split(|&b| b == b'/').filter(|n| !n.is_empty()) {
                    let at = here.as_ref().map_or(fd, AsFd::as_fd);
                    let pass = PASS | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    here = Some(openat(at, OsStr::from_bytes(name), pass, Mode::empty())?);
                }
                openat(here.as_ref().map_or(fd, AsFd::as_fd), OsStr::from_bytes(last), flags, Mode::empty())
            }
        })
    }
}

/// Opens `path` below `base` in pieces that the kernel takes. At most two descriptors are open at a time.
fn open_in_pieces(
    base: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    open: impl Fn(BorrowedFd<'_>, &[u8], OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let mut here: Option<OwnedFd> = None;
    let mut rest = if path.is_empty() { b"." } else { path };
    while rest.len() >= PATH_MAX {
        // A name has at most 255 bytes on every file system that Linux knows.
        let cut = rest[..PATH_MAX].iter().rposition(|&b| b == b'/').ok_or(Errno::NAMETOOLONG)?;
        let pass = PASS | (flags & OFlags::NOFOLLOW) | OFlags::CLOEXEC;
        here = Some(open(here.as_ref().map_or(base, AsFd::as_fd), &rest[..cut], pass)?);
        rest = &rest[cut + 1..];
    }
    open(here.as_ref().map_or(base, AsFd::as_fd), rest, flags)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::tree::testing::{at, dir, without_privileges};

    #[test]
    fn sources_become_paths_without_dots_or_slashes_at_the_end() {
        let path = |text: &str| tree_path(Path::new(text)).map(|p| p.display());
        assert_eq!(path("/srv/./app//x/").as_deref(), Some("/srv/app/x"));
        assert_eq!(path("/").as_deref(), Some("/"));
        assert_eq!((path("srv"), path(""), path("/srv/../etc")), (None, None, None));
    }

    #[test]
    fn nested_and_repeated_sources_are_dropped() {
        let (dir, path) = dir();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("a-b")).unwrap();
        let roots = ["a-b", "a/b", "a", "a"].map(|n| dir.path().join(n));
        let roots = SourceRoots::open(&roots).unwrap();
        assert_eq!(roots.paths().cloned().collect::<Vec<_>>(), [at(&path, "a"), at(&path, "a-b")]);
    }

    #[test]
    fn what_is_wrong_with_a_source_is_said() {
        let (dir, _) = dir();
        fs::write(dir.path().join("file"), "").unwrap();
        let why = |path: PathBuf| {
            let error = SourceRoots::open(std::slice::from_ref(&path)).unwrap_err();
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            error.why
        };
        assert!(matches!(why(dir.path().join("nothing")), ScanErrorKind::Missing));
        assert!(matches!(why(dir.path().join("file/below")), ScanErrorKind::Missing));
        assert!(matches!(why(PathBuf::from("relative")), ScanErrorKind::NotAbsolute));
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert!(matches!(why(dir.path().join("socket")), ScanErrorKind::Nothing));
    }

    #[test]
    fn the_parents_of_a_source_may_be_links_but_nothing_below_it() {
        let (dir, path) = dir();
        fs::create_dir_all(dir.path().join("real/app/sub")).unwrap();
        fs::write(dir.path().join("real/app/sub/file"), "x").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        symlink("sub", dir.path().join("real/app/inner")).unwrap();
        symlink("sub/file", dir.path().join("real/app/name")).unwrap();
        let mut roots = SourceRoots::open(&[dir.path().join("link/app")]).unwrap();
        for way in [PathResolution::OpenAt2, PathResolution::Stepwise] {
            roots.way = way;
            let open = |below: &str| roots.open_at(&at(&path, below), READ).map(drop);
            open("link/app/sub/file").unwrap();
            open("link/app").unwrap();
            assert!(open("link/app/inner/file").is_err(), "{way:?}");
            assert!(open("link/app/name").is_err(), "{way:?}");
            assert!(open("real/app/sub").unwrap_err().to_string().contains("outside"));
        }
    }

    #[test]
    fn a_single_file_is_a_source_and_what_has_no_content_is_none() {
        let (dir, path) = dir();
        fs::write(dir.path().join("file"), "x").unwrap();
        let roots = SourceRoots::open(&[dir.path().join("file")]).unwrap();
        let kinds: Vec<_> = roots.all().iter().map(|r| r.stat.kind).collect();
        assert_eq!(kinds, [FileType::File]);
        roots.open_at(&at(&path, "file"), READ).unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("pipe"), Mode::RWXU).unwrap();
        for name in [dir.path().join("pipe"), PathBuf::from("/dev/null")] {
            assert!(matches!(SourceRoots::open(&[name]).unwrap_err().why, ScanErrorKind::Nothing));
        }
    }

    #[test]
    fn a_link_as_a_source_is_refused_with_what_it_leads_to() {
        let (dir, path) = dir();
        fs::create_dir(dir.path().join("data")).unwrap();
        symlink("data", dir.path().join("link")).unwrap();
        symlink("nowhere", dir.path().join("broken")).unwrap();
        for (name, target) in [("link", "data"), ("broken", "nowhere")] {
            let error = SourceRoots::open(&[dir.path().join(name)]).unwrap_err();
            assert!(matches!(&error.why, ScanErrorKind::Link(to) if to == Path::new(target)), "{error}");
        }
        // The same where another source covers the link: the operator who names it means the data.
        let both = SourceRoots::open(&[dir.path().to_owned(), dir.path().join("link")]);
        assert!(matches!(both.unwrap_err().why, ScanErrorKind::Link(_)));
        let around = SourceRoots::open(&[dir.path().to_owned()]).unwrap();
        assert_eq!(
            Stat::of(around.open_at(&at(&path, "link"), OFlags::PATH).unwrap()).unwrap().kind,
            FileType::Symlink,
            "below a source it is an entry"
        );
    }

    #[test]
    fn the_root_of_the_file_system_is_a_source() {
        let roots = SourceRoots::open(&[PathBuf::from("/")]).unwrap();
        assert_eq!(Stat::of(roots.open_at(&TreePath::default(), LIST).unwrap()).unwrap(), roots.sources[0].stat);
        roots.open_at(&TreePath::new("proc/self").unwrap(), OFlags::PATH).unwrap();
    }

    #[test]
    fn paths_longer_than_the_kernel_takes() {
        let (dir, path) = dir();
        let roots = SourceRoots::open(&[dir.path().to_owned()]).unwrap();
        let name = "n".repeat(200);
        let mut deep = path;
        for _ in 0..50 {
            let parent = roots.open_at(&deep, PASS).unwrap();
            rustix::fs::mkdirat(&parent, &*name, Mode::RWXU).unwrap();
            deep = deep.join(name.as_bytes()).unwrap();
        }
        assert!(deep.as_bytes().len() > 2 * PATH_MAX);
        for way in [PathResolution::OpenAt2, PathResolution::Stepwise] {
            let fd = way
                .open(roots.sources[0].base.as_fd(), &deep.as_bytes()[roots.sources[0].base_len + 1..], LIST)
                .unwrap();
            assert_eq!(Stat::of(fd).unwrap().kind, FileType::Dir);
        }
        // A source may itself be that deep.
        let roots = SourceRoots::open(&[absolute_path(&deep)]).unwrap();
        assert_eq!(roots.paths().next(), Some(&deep));
    }

    #[test]
    fn a_source_that_this_user_may_not_read_fails() {
        let (dir, _) = dir();
        for name in ["dir", "file"] {
            let path = dir.path().join(name);
            if name == "dir" {
                fs::create_dir(&path).unwrap();
            } else {
                fs::write(&path, "x").unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
            let error = without_privileges(|| SourceRoots::open(std::slice::from_ref(&path)).map(drop));
            assert!(matches!(error.unwrap_err().why, ScanErrorKind::Unreadable(_)), "{name}");
        }
    }
}
