//! The ledger's file in the state directory. Several processes of a node may write it: each reads, changes and replaces
//! it under a lock that the kernel releases with the process. If the file cannot be written, this process goes on with
//! its own copy.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::ledger::AlertLedger;
use crate::file::{self, FileLock};

/// The name of the ledger's file.
const FILE: &str = "notices.json";

/// The largest ledger file that is read, in bytes.
const BOOK_MAX: u64 = 16 << 20;

/// The name of the lock that is held while the ledger is changed.
const LOCK: &str = "notices.lock";

/// The ledger and its file.
#[derive(Debug)]
pub(super) struct AlertLedgerFile {
    dir: PathBuf,
    /// The ledger as this process knows it.
    last: Mutex<CachedLedger>,
}

#[derive(Debug, Default)]
struct CachedLedger {
    ledger: AlertLedger,
    /// The file's content when it could not be written. While the file still has it, this process's copy is newer.
    stale: Option<LedgerRead>,
}

/// The file's content; `None`: nothing that can be read.
#[derive(Debug, PartialEq)]
struct LedgerRead(Option<AlertLedger>);

impl AlertLedgerFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.to_owned(), last: Mutex::default() }
    }

    /// Changes the ledger and writes its file.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut AlertLedger) -> T) -> T {
        let mut last = self.last.lock();
        // Held until the new file is written.
        let _lock = FileLock::take(&self.dir.join(LOCK))
            .inspect_err(|error| tracing::debug!("{}: {error}", self.dir.display()));
        let read = self.read().inspect_err(|error| tracing::debug!("{}: {error}", self.dir.display())).ok().flatten();
        let read = LedgerRead(read);
        if last.stale.as_ref() != Some(&read) {
            last.stale = None;
            if let LedgerRead(Some(ledger)) = &read {
                last.ledger = ledger.clone();
            }
        }
        let before = last.ledger.clone();
        let result = change(&mut last.ledger);
        if last.ledger != before || last.stale.is_some() {
            let bytes = serde_json::to_vec(&last.ledger).map_err(io::Error::other);
            match bytes.and_then(|bytes| file::replace(&self.dir.join(FILE), &bytes)) {
                Ok(()) => last.stale = None,
                Err(error) => {
                    if last.stale.is_none() {
                        tracing::warn!(
                            "the list of sent alerts cannot be written: {}: {error}",
                            self.dir.join(FILE).display()
                        );
                    }
                    last.stale = Some(read);
                }
            }
        }
        result
    }

    /// Reads the file; `None` if there is none, or none that can be read. Then every event that lasts is reported once
    /// more.
    fn read(&self) -> io::Result<Option<AlertLedger>> {
        match file::read_own(&self.dir.join(FILE), BOOK_MAX) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Puts an alert into the ledger: its ID.
    fn enqueue(ledger_file: &AlertLedgerFile) -> u64 {
        ledger_file.update(|ledger| ledger.enqueue("x", &["command"], jiff::Timestamp::MAX)[0].id)
    }

    #[test]
    fn two_processes_of_a_node_keep_one_ledger_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (AlertLedgerFile::new(dir.path()), AlertLedgerFile::new(dir.path()));
        assert_eq!((enqueue(&one), enqueue(&two), enqueue(&one)), (0, 1, 2));
        fs::write(dir.path().join(FILE), b"{").unwrap();
        assert_eq!(enqueue(&AlertLedgerFile::new(dir.path())), 0);
        let nowhere = AlertLedgerFile::new(Path::new("/nonexistent/state"));
        assert_eq!((enqueue(&nowhere), enqueue(&nowhere)), (0, 1), "it goes on with what it knows");
    }

    #[test]
    fn what_could_not_be_written_is_known_to_the_process_until_the_file_says_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (AlertLedgerFile::new(dir.path()), AlertLedgerFile::new(dir.path()));
        assert_eq!(enqueue(&one), 0);
        // The file can be read but not written, as on a disk that is full.
        let temporary = dir.path().join(FILE).with_extension("new");
        fs::create_dir(&temporary).unwrap();
        assert_eq!((enqueue(&one), enqueue(&one)), (1, 2), "it does not begin anew from the file each time");
        fs::remove_dir(&temporary).unwrap();
        assert_eq!((enqueue(&one), enqueue(&two)), (3, 4), "it is written when it can be");
    }
}
