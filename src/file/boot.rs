//! A directory in memory that ends with the boot of the machine: `/run/runner-boot` for root, else
//! `/dev/shm/runner-<uid>`.
//!
//! Its content cannot be set back to an earlier state while the machine runs, and a copy of a disk does not contain it.
//! That holds only in a tmpfs, and only where no other user can write: everything else is refused, and nothing is
//! concluded from it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The `statfs(2)` type of a file system in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The most state directories that have a directory here. Those that were changed longest ago are removed first.
const PLACES_MAX: usize = 1024;

/// The directory of one state directory. Its path goes through a descriptor, so that no link leads elsewhere.
#[derive(Debug, Clone)]
pub struct BootDir {
    path: PathBuf,
    _held: Option<Arc<OwnedFd>>,
}

impl BootDir {
    /// A directory at this path, which the caller guarantees to be suitable.
    pub fn at(path: PathBuf) -> Self {
        Self { path, _held: None }
    }

    /// The path, valid as long as this value exists.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory in memory of this process's user for the state directory at `state_dir`; created if it is missing.
///
/// # Errors
/// There is no directory that only this user can write and that ends with this boot.
pub fn open(state_dir: &Path) -> io::Result<BootDir> {
    let uid = geteuid().as_raw();
    let run = Path::new("/run");
    // Only root creates files in /run. In a container it is often on a disk.
    if uid == 0 && is_memory(open_dir(run)?)? {
        return below(run, "runner-boot", state_dir);
    }
    below(Path::new("/dev/shm"), &format!("runner-{uid}"), state_dir)
}

fn below(parent: &Path, name: &str, state_dir: &Path) -> io::Result<BootDir> {
    let shown = parent.join(name);
    let place = place(state_dir)?;
    let opened =
        open_own(parent, name).and_then(|dir| if is_memory(&dir)? { Ok(dir) } else { Err(refused("it is no tmpfs")) });
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", shown.display()));
    let dir = Arc::new(opened.map_err(named)?);
    let base = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let path = base.join(place);
    make_place(&base, &path).map_err(named)?;
    Ok(BootDir { path, _held: Some(dir) })
}

/// Opens the directory `name` in `parent`, which must belong to this user alone and be no link.
fn open_own(parent: &Path, name: &str) -> io::Result<OwnedFd> {
    let parent = open_dir(parent)?;
    let open = || {
        openat(&parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    let dir = match open() {
        Err(Errno::NOENT) => {
            match mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            open()?
        }
        opened => opened?,
    };
    let stat = fstat(&dir)?;
    if stat.st_uid != geteuid().as_raw() {
        return Err(refused(&format!("it belongs to user {}", stat.st_uid)));
    }
    match stat.st_mode & 0o7777 {
        0o700 => Ok(dir),
        mode => Err(refused(&format!("it has mode {mode:04o}, not 0700"))),
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn is_memory(dir: impl AsFd) -> io::Result<bool> {
    Ok(u64::try_from(fstatfs(dir)?.f_type) == Ok(TMPFS_MAGIC))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// The name of a state directory's place. It depends on the parent directory, so it stays the same if the state
/// directory itself is replaced.
fn place(state_dir: &Path) -> io::Result<String> {
    let real = match state_dir.canonicalize() {
        // The directory was deleted while this process runs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (state_dir.parent(), state_dir.file_name()) else { return Err(error) };
            parent.canonicalize()?.join(name)
        }
        real => real?,
    };
    let parent = std::fs::metadata(real.parent().unwrap_or(&real))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&parent.dev().to_le_bytes()).update(&parent.ino().to_le_bytes()).update(real.as_os_str().as_bytes());
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Makes the directory at `path` in `base`, and removes old ones if there are too many.
fn make_place(base: &Path, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut others: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(base)?
        .filter_map(|entry| entry.and_then(|entry| Ok((entry.metadata()?.modified()?, entry.path()))).ok())
        .collect();
    others.sort();
    let surplus = (others.len() + 1).saturating_sub(PLACES_MAX);
    for (_, other) in others.drain(..surplus) {
        match std::fs::remove_dir_all(other) {
            // Another process removed an old one as well.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    super::make_dir(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory in memory, as /dev/shm is one.
    fn memory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn it_is_this_users_alone_and_stays_when_the_state_directory_does_not() {
        let (memory, disk) = (memory(), tempfile::tempdir().unwrap());
        let (state, other) = (disk.path().join("state"), disk.path().join("other"));
        fs::create_dir(&state).unwrap();
        let at = |state: &Path| below(memory.path(), "runner-boot", state).unwrap();
        let place = |state: &Path| fs::canonicalize(at(state).path()).unwrap();
        fs::write(at(&state).path().join("file"), "noted").unwrap();
        assert_eq!((mode(&memory.path().join("runner-boot")), mode(at(&state).path())), (0o700, 0o700));
        assert_ne!(place(&state), place(&other), "each has its own");
        // The place is the same through another path, and after the directory was deleted or replaced.
        symlink(&state, disk.path().join("link")).unwrap();
        assert_eq!(place(&disk.path().join("link")), place(&state));
        let before = place(&state);
        fs::remove_dir(&state).unwrap();
        assert_eq!(place(&state), before);
        fs::create_dir(&state).unwrap();
        assert_eq!(fs::read(at(&state).path().join("file")).unwrap(), b"noted");
        // A different parent directory means another machine, or another disk.
        fs::rename(disk.path(), disk.path().with_extension("was")).unwrap();
        fs::create_dir_all(&state).unwrap();
        assert_ne!(place(&state), before);
        fs::remove_dir_all(disk.path().with_extension("was")).unwrap();
    }

    #[test]
    fn what_others_may_have_made_or_is_on_a_disk_is_refused() {
        let (memory, disk) = (memory(), tempfile::tempdir().unwrap());
        let refused = |parent: &Path| below(parent, "runner-boot", disk.path()).unwrap_err().to_string();
        let dir = memory.path().join("runner-boot");
        for open in [0o755, 0o1777, 0o770] {
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(open)).unwrap();
            assert!(refused(memory.path()).contains(&format!("mode {open:04o}")));
            fs::remove_dir(&dir).unwrap();
        }
        let elsewhere = memory.path().join("elsewhere");
        super::super::make_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &dir).unwrap();
        assert!(refused(memory.path()).contains("runner-boot"), "a link leads to another's");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::remove_file(&dir).unwrap();
        fs::write(&dir, "").unwrap();
        refused(memory.path());
        // /proc is no tmpfs, and neither is this one if the tests run on a disk.
        if !is_memory(open_dir(disk.path()).unwrap()).unwrap() {
            assert!(refused(disk.path()).contains("no tmpfs"));
        }
        refused(&memory.path().join("none"));
    }

    #[test]
    fn there_are_so_many_and_the_oldest_go() {
        let (memory, disk) = (memory(), tempfile::tempdir().unwrap());
        let base = memory.path().join("runner-boot");
        super::super::make_dir(&base).unwrap();
        for n in 0..PLACES_MAX {
            fs::create_dir(base.join(format!("{n:04}"))).unwrap();
        }
        let old = fs::File::open(base.join("0007")).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let made = below(memory.path(), "runner-boot", &disk.path().join("state")).unwrap();
        assert!(made.path().is_dir());
        assert_eq!(fs::read_dir(&base).unwrap().count(), PLACES_MAX);
        assert!(!base.join("0007").exists());
    }
}
