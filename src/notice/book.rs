//! The ledger's file in the state directory. Several processes of a node may write it: each reads, changes and replaces it under a
//! lock that the kernel drops with the process. Where it cannot be kept, this process goes on with what it knows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use super::ledger::Ledger;

/// The ledger's file.
const FILE: &str = "notices.json";

/// Held while it is changed.
const LOCK: &str = "notices.lock";

/// The ledger, kept.
#[derive(Debug)]
pub(super) struct Book {
    dir: PathBuf,
    /// As this process last wrote it.
    last: Mutex<Ledger>,
}

impl Book {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.to_owned(), last: Mutex::default() }
    }

    /// Changes it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Held until the new one is written.
        let lock = self.lock();
        match lock.as_ref().map_err(ToString::to_string).and_then(|_| self.read().map_err(|e| e.to_string())) {
            Ok(Some(read)) => *last = read,
            Ok(None) => {}
            Err(error) => tracing::debug!("{}: {error}", self.dir.display()),
        }
        let before = last.clone();
        let result = change(&mut last);
        if *last != before
            && let Err(error) = self.write(&last)
        {
            tracing::warn!("what was told is not remembered: {}: {error}", self.dir.join(FILE).display());
        }
        result
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.dir.join(LOCK))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// `None`: there is none, or none that can be read. Then everything that lasts is told once more.
    fn read(&self) -> io::Result<Option<Ledger>> {
        match fs::read(self.dir.join(FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The old one stays whole if this is cut short.
    fn write(&self, ledger: &Ledger) -> io::Result<()> {
        let (path, temporary) = (self.dir.join(FILE), self.dir.join(FILE).with_extension("new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(ledger)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_a_node_keep_one_ledger_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Book::new(dir.path()), Book::new(dir.path()));
        let post = |book: &Book| book.change(|ledger| ledger.post("x", &["command"], jiff::Timestamp::MAX)[0].id);
        assert_eq!((post(&one), post(&two), post(&one)), (0, 1, 2));
        fs::write(dir.path().join(FILE), b"{").unwrap();
        assert_eq!(post(&Book::new(dir.path())), 0);
        let nowhere = Book::new(Path::new("/nonexistent/state"));
        assert_eq!((post(&nowhere), post(&nowhere)), (0, 1), "it goes on with what it knows");
    }
}
