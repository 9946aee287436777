//! Compare-and-set on a file: whoever replaces an object holds a lock while looking at it and renaming over it.
//!
//! The lock is a `flock(2)` on one file in each directory where objects are replaced. It is a lock between processes, and
//! between hosts where the file system passes it on (NFS, CIFS, CephFS, GFS2; not NFS mounted with `nolock` or
//! `local_lock=flock`, which no one can tell from in here). The kernel gives it back when its holder dies, so it never
//! goes stale, and the file stays: who deletes it while the lock is held lets two in at once. Between locking and unlocking
//! there is one read and one rename, since nobody else gets on while a holder is frozen there.
//!
//! What else writes such a key takes part as far as it must:
//! - `put_if_absent` needs no lock: it fails while the object exists, and the object exists from the look to the rename.
//! - `put` and `delete` take the lock where its file is there, so that no `replace` overwrites what it has not seen or brings
//!   back what was deleted. Where it is not there nothing has been replaced yet, and the price of looking is one failed
//!   `open`. That leaves one gap: the very first `replace` in a directory may cross with a `put` or `delete` that looked
//!   just before. Keys that are replaced should be created by `put_if_absent` and not be deleted while in use.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustix::io::Errno;

use super::open_dir::FileAt;
use super::{DirStoreInner, PutAttemptError, errno, is_refusal};
use crate::store::{ObjectVersion, ReplaceOutcome, SizeLimit, StoreError, StoreErrorKind, key};

/// How often a busy lock is asked for, [`LOCK_POLL`] apart: two seconds and a bit, which is far longer than a rename takes, and
/// short beside the TTL of any lease.
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
        // Before anything is written: most who come too late came long too late.
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
                // A network file system may have lost the answer only; asked again, it does not find the temporary file.
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

    /// The version of what is there now.
    pub(super) fn version(&self, key: &str) -> Result<Option<ObjectVersion>, StoreError> {
        match self.read(key, SizeLimit::REPLACED) {
            Ok(body) => Ok(Some(ObjectVersion::of_content(&body))),
            Err(e) if e.is_not_found() => Ok(None),
            // Nobody who replaces put it there.
            Err(e) if e.is_not_an_object() => Ok(Some(ObjectVersion::matching_nothing())),
            Err(e) => Err(e),
        }
    }

    /// `outcome` once it would survive a power cut. Also for `Changed`: the caller will act on what is there, and whoever wrote
    /// it may not have got to this.
    fn durable(&self, at: &FileAt, outcome: ReplaceOutcome) -> ReplaceOutcome {
        match self.disk.sync_dir(at.dir()) {
            Ok(()) => outcome,
            Err(e) => ReplaceOutcome::Unknown { why: format!("fsync of the directory: {e}") },
        }
    }

    /// The lock of the directory that `at` is in, if objects are replaced there.
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

    /// About the lock's file, not about the object beside it.
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

/// Why [`DirStoreInner::rename_if`] did neither.
enum RenameFailure {
    /// It certainly changed nothing.
    Refused(StoreError),
    /// It may have renamed, or nobody could look.
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
