//! Compare-and-set on a file: a `replace` holds a lock while it reads the object and renames over it.
//!
//! The lock is a `flock(2)` on one file in each directory where objects are replaced. It is a lock between processes,
//! and between hosts if the file system supports it (NFS, CIFS, CephFS, GFS2; not NFS mounted with `nolock` or
//! `local_lock=flock`, which this program cannot detect). The kernel releases it when its holder dies, so it never goes
//! stale. The file must stay: deleting it while the lock is held would let two processes hold the lock at once. Between
//! locking and unlocking there is one read and one rename, because all other writers wait while the holder is frozen
//! there.
//!
//! Other writers of such a key take part as far as necessary:
//! - `put_if_absent` needs no lock: it fails while the object exists, and the object exists from the read to the
//!   rename.
//! - `put` and `delete` take the lock if its file exists, so that no `replace` overwrites content it has not read or
//!   brings back a deleted object. If the file does not exist nothing has been replaced yet, and the check costs one
//!   failed `open`. That leaves one gap: the very first `replace` in a directory may cross with a `put` or `delete`
//!   that checked just before. Keys that are replaced should be created by `put_if_absent` and not be deleted while in
//!   use.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustix::io::Errno;

use super::open_dir::FileAt;
use super::{DirStoreInner, PutAttemptError, errno, is_refusal};
use crate::store::{ObjectVersion, ReplaceOutcome, SizeLimit, StoreError, StoreErrorKind, key};

/// How many times a busy lock is tried, [`LOCK_POLL`] apart: a little over two seconds, far longer than a rename takes,
/// and short compared with the TTL of any lease.
const LOCK_ATTEMPTS: usize = 400;

/// The pause between two attempts.
const LOCK_POLL: Duration = Duration::from_millis(5);

impl DirStoreInner {
    pub(super) fn replace(
        &self,
        key: &str,
        body: &[u8],
        expected: &ObjectVersion,
    ) -> Result<ReplaceOutcome, StoreError> {
        // Checked before anything is written, because most outdated callers are outdated already now.
        match self.version(key)? {
            Some(there) if there == *expected => {}
            Some(_) => return Ok(self.durable(&self.make_parent_dirs(key)?, ReplaceOutcome::Changed)),
            None => return Ok(ReplaceOutcome::Changed),
        }
        let (at, temp) = self.with_attempts(key, || {
            let at = self.make_parent_dirs(key).map_err(PutAttemptError::Final)?;
            self.write_temp(key, &at, body, None).map(|temp| (at, temp))
        })?;
        let outcome = self.rename_if(key, &at, &temp, expected);
        let outcome = match outcome {
            Ok(true) => ReplaceOutcome::Replaced(ObjectVersion::of_content(body)),
            Ok(false) => {
                self.discard(&temp);
                ReplaceOutcome::Changed
            }
            Err(RenameFailure::Unknown(why)) => {
                self.discard(&temp);
                return Ok(ReplaceOutcome::Unknown { why });
            }
            Err(RenameFailure::Refused(e)) => {
                self.discard(&temp);
                return Err(e);
            }
        };
        Ok(self.durable(&at, outcome))
    }

    /// The step that must be atomic; `false` if the object is not `expected`.
    fn rename_if(
        &self,
        key: &str,
        at: &FileAt,
        temp: &FileAt,
        expected: &ObjectVersion,
    ) -> Result<bool, RenameFailure> {
        let lock = match self.lock(at, true) {
            Ok(lock) => lock,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(RenameFailure::Unknown(lock_busy_message(at))),
            Err(e) if cannot_lock(&e) => {
                let detail = format!("this file system has no locks: it can hold no lease ({e})");
                let refused = StoreError::new(StoreErrorKind::Unsupported, &self.name, Some(key), detail);
                return Err(RenameFailure::Refused(refused));
            }
            Err(e) => return Err(RenameFailure::Refused(self.lock_error(at, &e))),
        };
        let is_expected = self.version(key).map_err(RenameFailure::Refused)?.as_ref() == Some(expected);
        if is_expected {
            self.disk.rename(temp, at).map_err(|e| {
                // On a network file system perhaps only the answer was lost: the client repeats the rename and does not
                // find the temporary file.
                if is_refusal(&e) && e.kind() != ErrorKind::NotFound {
                    RenameFailure::Refused(self.error(key, &e))
                } else {
                    RenameFailure::Unknown(e.to_string())
                }
            })?;
        }
        drop(lock);
        Ok(is_expected)
    }

    /// The version of the existing object.
    pub(super) fn version(&self, key: &str) -> Result<Option<ObjectVersion>, StoreError> {
        match self.read(key, SizeLimit::REPLACED) {
            Ok(body) => Ok(Some(ObjectVersion::of_content(&body))),
            Err(e) if e.is_not_found() => Ok(None),
            // No `replace` has put it there.
            Err(e) if e.is_not_an_object() => Ok(Some(ObjectVersion::matching_nothing())),
            Err(e) => Err(e),
        }
    }

    /// Returns `outcome` after the directory is synced. Also for `Changed`: the caller will act on the existing object,
    /// and its writer may not have synced it yet.
    fn durable(&self, at: &FileAt, outcome: ReplaceOutcome) -> ReplaceOutcome {
        match self.disk.sync_dir(at.dir()) {
            Ok(()) => outcome,
            Err(e) => ReplaceOutcome::Unknown { why: format!("fsync of the directory: {e}") },
        }
    }

    /// Takes the lock of `at`'s directory, if objects are replaced there.
    pub(super) fn lock_if_replaced(&self, key: &str, at: &FileAt) -> Result<Option<File>, StoreError> {
        match self.lock(at, false) {
            Ok(lock) => Ok(Some(lock)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) || cannot_lock(&e) => Ok(None),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                Err(StoreError::new(StoreErrorKind::Unreachable, &self.name, Some(key), lock_busy_message(at)))
            }
            Err(e) => Err(self.lock_error(at, &e)),
        }
    }

    /// An error about the lock file, not about the object beside it.
    fn lock_error(&self, at: &FileAt, e: &io::Error) -> StoreError {
        let path = lock_file_of(at).path().display().to_string();
        if e.kind() == ErrorKind::IsADirectory {
            return self.is_directory_error(&path);
        }
        self.error(&path, e)
    }

    /// `WouldBlock` if the lock stays busy.
    fn lock(&self, at: &FileAt, make: bool) -> io::Result<File> {
        let lock = lock_file_of(at);
        let mut left = LOCK_ATTEMPTS;
        loop {
            left -= 1;
            match self.disk.lock(&lock, make) {
                Err(e) if left > 0 && e.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOCK_POLL),
                result => return result,
            }
        }
    }
}

/// Why [`DirStoreInner::rename_if`] has no result.
enum RenameFailure {
    /// Certainly nothing was changed.
    Refused(StoreError),
    /// The rename may have happened, or the object could not be read.
    Unknown(String),
}

fn lock_file_of(at: &FileAt) -> FileAt {
    at.beside(key::LOCK_NAME)
}

fn lock_busy_message(at: &FileAt) -> String {
    format!("another process holds the lock {}", lock_file_of(at).path().display())
}

fn cannot_lock(e: &io::Error) -> bool {
    matches!(errno(e), Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL))
        || e.kind() == ErrorKind::Unsupported
}
