//! Small files that several processes of a node share: locks that the kernel releases when their process ends, and
//! content that is replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

pub mod access;
pub mod boot;

/// Length of the probe file: one block, which a full disk does not have.
const PROBE_LEN: usize = 4096;

/// The most that is read of a lock's file: a little more than the longest process ID.
const SIGNATURE_MAX: u64 = 64;

/// A lock that is held until it is dropped, at the latest until this process dies.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Takes the lock at `path` without waiting; `None` if another process, or another part of this one, holds it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether the lock at `path` is held. Two concurrent calls do not see each other; [`FileLock::try_take`] may fail
    /// because of one, for a moment.
    ///
    /// # Errors
    /// The file cannot be opened; it is not made.
    pub fn is_taken(path: &Path) -> io::Result<bool> {
        let file = open_regular(path, OpenOptions::new().read(true))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits for the lock at `path`, which is never held for long.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn take(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Ok(Self(file))
    }

    /// Writes this process's ID into the file, for messages of a process that finds it locked. Nothing relies on it.
    pub fn write_pid(&self) {
        let _ = self.0.set_len(0).and_then(|()| (&self.0).write_all(std::process::id().to_string().as_bytes()));
    }
}

/// The ID that the last [`FileLock::write_pid`] left in the lock at `path`.
pub fn lock_owner_pid(path: &Path) -> Option<String> {
    String::from_utf8(read_own(path, SIGNATURE_MAX).ok()?).ok().filter(|pid| !pid.is_empty())
}

/// Opens a lock's file for writing; a link in its place is not followed.
fn open(path: &Path) -> io::Result<File> {
    open_regular_with(
        OFlags::NOFOLLOW,
        path,
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600),
    )
}

/// Opens a file of this program's own. If something else than a file is in its place, the open does not block.
fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_regular_with(OFlags::empty(), path, options)
}

fn open_regular_with(more: OFlags, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | more;
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file. hint: remove it");
    let file = match options.custom_flags(flags.bits() as i32).open(path) {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::LOOP)) => {
            return Err(none());
        }
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(none()) }
}

/// Opens a file that this program wrote for reading; it must be a regular file.
///
/// # Errors
/// The file cannot be opened.
pub fn open_own(path: &Path) -> io::Result<File> {
    open_regular(path, OpenOptions::new().read(true))
}

/// Like [`read`], for a file that this program wrote; it must be a regular file.
///
/// # Errors
/// As for [`read`].
pub fn read_own(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    bounded(open_own(path)?, max)
}

/// Reads the whole file at `path`, if it has at most `max` bytes. Never holds more than that, whatever size the file
/// reports.
///
/// # Errors
/// The file cannot be read, or is larger.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    bounded(File::open(path)?, max)
}

fn bounded(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let why = format!("it is larger than {max} bytes, so it is not the expected file");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Rewrites the file at `path`. For files that no process reads at the same time.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    open_regular(path, OpenOptions::new().write(true).create(true).truncate(true))?.write_all(bytes)
}

/// The directory of `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates the file at `path`, readable by its owner only. A process that is killed leaves the whole file, or none. If
/// the file system has no unnamed files, or one cannot be named later, a partial file may be left.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = parent(path);
    if !create_whole(parent, path, bytes)? {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    File::open(parent)?.sync_all()
}

/// Creates an unnamed file, and names it when it is complete. `false` if that is not possible here.
fn create_whole(parent: &Path, path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = match openat(CWD, parent, flags, Mode::RUSR | Mode::WUSR) {
        Ok(unnamed) => File::from(unnamed),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    file.write_all(bytes)?;
    file.sync_all()?;
    // The file is named directly if the kernel allows it, else by its path in /proc. If neither works the error is
    // `NotFound`.
    let named = linkat(&file, "", CWD, path, AtFlags::EMPTY_PATH).or_else(|error| match error {
        Errno::NOENT | Errno::PERM | Errno::INVAL => {
            linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, path, AtFlags::SYMLINK_FOLLOW)
        }
        error => Err(error),
    });
    match named {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the content of the file at `path`: after a crash it is the old content or the new one. Only one process may
/// do so at a time.
///
/// # Errors
/// The file cannot be written; the old content is still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = open_regular(&temporary, OpenOptions::new().write(true).create(true).truncate(true).mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Tests whether a file can be written in the directory `dir`: a small file is created, renamed and removed. A missing
/// directory, or another user's in which this process may not write, is no error, because it says nothing about the
/// user who will.
///
/// # Errors
/// The file cannot be written.
pub fn probe_writable(dir: &Path) -> io::Result<()> {
    let Ok(meta) = fs::metadata(dir) else { return Ok(()) };
    let name = |end: &str| dir.join(format!("probe-{}.{end}", std::process::id()));
    let (made, moved) = (name("new"), name("done"));
    let tried = fs::write(&made, [0; PROBE_LEN]).and_then(|()| fs::rename(&made, &moved));
    let _ = fs::remove_file(&made);
    let _ = fs::remove_file(&moved);
    match tried {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && meta.uid() != geteuid().as_raw() => Ok(()),
        tried => tried,
    }
}

/// Appends to the file at `path` with one write: concurrent appends of several processes do not interleave. The bytes
/// are durable when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open_regular(path, OpenOptions::new().create(true).append(true).mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_data()
}

/// Makes the directory `dir` for this user alone, with its parents.
///
/// # Errors
/// The directory cannot be made.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_in_the_place_of_a_file_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = |name: &str| {
            let path = dir.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            path
        };
        let said = |error: io::Error| assert!(error.to_string().contains("remove it"), "{error}");
        said(FileLock::try_take(&fifo("lock")).unwrap_err());
        assert_eq!(lock_owner_pid(&dir.path().join("lock")), None);
        said(append(&fifo("book"), b"x").unwrap_err());
        said(read_own(&dir.path().join("book"), 9).unwrap_err());
        fifo("state.new");
        said(replace(&dir.path().join("state.json"), b"x").unwrap_err());
        let theirs = dir.path().join("theirs");
        fs::write(&theirs, "precious").unwrap();
        std::os::unix::fs::symlink(&theirs, dir.path().join("linked")).unwrap();
        said(FileLock::try_take(&dir.path().join("linked")).unwrap_err());
        assert_eq!(fs::read(&theirs).unwrap(), b"precious");
    }

    #[test]
    fn a_lock_is_had_once_and_says_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::try_take(&path).unwrap().unwrap();
        assert_eq!(lock_owner_pid(&path), None);
        lock.write_pid();
        assert!(FileLock::try_take(&path).unwrap().is_none() && FileLock::is_taken(&path).unwrap());
        assert_eq!(lock_owner_pid(&path), Some(std::process::id().to_string()));
        drop(lock);
        // A query does not take the lock.
        let asks = File::open(&path).unwrap();
        asks.try_lock_shared().unwrap();
        assert!(!FileLock::is_taken(&path).unwrap());
        drop(asks);
        FileLock::take(&path).unwrap();
        assert!(FileLock::try_take(&dir.path().join("none/lock")).is_err());
    }

    #[test]
    fn a_directory_is_tried_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        probe_writable(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        probe_writable(&dir.path().join("none")).unwrap();
        // No file can be created below something that is no directory.
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(probe_writable(&file).is_err());
    }

    #[test]
    fn no_more_is_read_than_there_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // An endless file that reports size 0.
        assert_eq!(read(Path::new("/dev/zero"), 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    /// The variable that names the directory when the test runs again, without /proc.
    const STAGE: &str = "RUNNER_TEST_WITHOUT_PROC";

    #[test]
    fn a_file_is_made_whole_or_in_place_also_where_there_is_no_proc() {
        let name = "file::tests::a_file_is_made_whole_or_in_place_also_where_there_is_no_proc";
        let make = |dir: &Path| {
            create(&dir.join("key"), b"secret").unwrap();
            assert_eq!(fs::read(dir.join("key")).unwrap(), b"secret");
            assert_eq!(fs::metadata(dir.join("key")).unwrap().mode() & 0o777, 0o600);
            let again = create(&dir.join("key"), b"other").unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(dir.join("key")).unwrap(), b"secret");
            assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
        };
        if let Some(stage) = std::env::var_os(STAGE) {
            assert!(!Path::new("/proc/self").exists());
            return make(Path::new(&stage));
        }
        make(tempfile::tempdir().unwrap().path());
        // Once as root of the machine, which may name an unnamed file, and once as root of a user namespace only.
        let plain = geteuid().is_root().then_some(&["--mount"][..]);
        for more in plain.into_iter().chain([&["--mount", "--map-root-user"][..]]) {
            let dir = tempfile::tempdir().unwrap();
            let this = std::env::current_exe().unwrap();
            let mut command = std::process::Command::new("unshare");
            command.args(more).args([
                "--propagation",
                "private",
                "sh",
                "-ec",
                "mount -t tmpfs none /proc; exec \"$@\"",
                "sh",
            ]);
            command.arg(this).args([name, "--exact", "--nocapture"]).env(STAGE, dir.path());
            let output = command.output().unwrap();
            let text =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && text.contains("1 passed"), "{more:?}: {text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.json");
        replace(&path, b"old").unwrap();
        fs::create_dir(dir.path().join("memory.new")).unwrap();
        assert!(replace(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::remove_dir(dir.path().join("memory.new")).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
