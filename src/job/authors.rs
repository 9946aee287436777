//! Which processes of this node append to a journal. Each notes itself and the number of its record before it appends, so that a
//! record with this node's ID that nobody here wrote is noticed (`role::twin`).
//!
//! A process that only looks notes nothing. What is noted about records that were judged is not needed any more, and only that is
//! forgotten. A file that was lost, damaged or replaced is no evidence of anything: its mark is not the one that was remembered.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::env::Env;
use crate::ids::{InstanceId, Seq};

/// From so many notes on those that are not needed any more are dropped.
const NOTES_MAX: usize = 256;

/// So many of the newest are kept in any case.
const NOTES_KEPT: usize = 64;

/// How often the lock is asked for that keeps a note from being lost while others are dropped, and the pause between. It is held for
/// a few system calls, so that a process that still has it then has been stopped, and is not waited for.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What the first line begins with; the file's mark follows.
const MARK: &str = "authors ";

/// The notes of one repository.
#[derive(Debug, Clone)]
pub struct AuthorNotes {
    dir: PathBuf,
    env: Env,
}

/// What is noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// The file's mark; `None`: the file is missing or damaged, and what is here may not be all.
    pub mark: Option<u64>,
    /// The processes, each with the number that it was about to append.
    pub notes: Vec<(InstanceId, Seq)>,
}

impl AuthorNotes {
    /// Those in this directory.
    pub fn new(dir: PathBuf, env: Env) -> Self {
        Self { dir, env }
    }

    fn file(&self) -> PathBuf {
        self.dir.join("authors")
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("authors.lock")
    }

    /// Notes that this process is about to append record `seq`. It must not append without.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn note(&self, instance: InstanceId, seq: Seq) -> io::Result<()> {
        let mut tries = LOCK_TRIES;
        let held = loop {
            match self.env.files.lock(&self.lock()) {
                Ok(Some(held)) => break Some(held),
                Ok(None) if tries == 0 => break None,
                Ok(None) => self.env.sleep(LOCK_PAUSE).await,
                // The state directory was deleted under this process.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {
                    self.env.files.make_dir(&self.dir)?;
                }
                Err(error) => return Err(error),
            }
            tries = tries.saturating_sub(1);
        };
        let noted = self.env.files.append(&self.file(), format!("{instance} {seq}\n").as_bytes());
        drop(held);
        noted
    }

    /// What is noted now. What was appended to the journal by now is among it.
    pub fn read(&self) -> Noted {
        let bytes = self.env.files.read(&self.file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let (mut mark, mut whole, mut notes) = (None, text.ends_with('\n'), Vec::new());
        for (n, line) in text.lines().enumerate() {
            if let (0, Some(text)) = (n, line.strip_prefix(MARK)) {
                mark = text.parse().ok();
                continue;
            }
            match line.split_once(' ').and_then(|(id, seq)| Some((id.parse().ok()?, Seq(seq.parse().ok()?)))) {
                Some(note) => notes.push(note),
                None => whole = false,
            }
        }
        Noted { mark: mark.filter(|_| whole), notes }
    }

    /// Makes the file anew, with a new mark, out of what is left of it.
    ///
    /// # Errors
    /// It cannot be written, or a process is noting itself.
    pub fn renew(&self) -> io::Result<u64> {
        let _held = self.env.files.lock(&self.lock())?.ok_or(io::ErrorKind::WouldBlock)?;
        let mark = u64::from_le_bytes(self.env.random_bytes());
        self.write(mark, &self.read().notes)?;
        Ok(mark)
    }

    /// Drops what is noted about records up to `judged`, if it has become much. With the lock of this host's other runs held.
    pub fn trim(&self, judged: Seq) {
        if self.read().notes.len() <= NOTES_MAX {
            return;
        }
        // Whoever notes itself at this moment goes first.
        let Ok(Some(_held)) = self.env.files.lock(&self.lock()) else { return };
        let Noted { mark: Some(mark), mut notes } = self.read() else { return };
        let newest = notes.len().saturating_sub(NOTES_KEPT);
        let mut at = 0;
        notes.retain(|(_, seq)| {
            at += 1;
            at > newest || *seq > judged
        });
        if let Err(error) = self.write(mark, &notes) {
            tracing::debug!("{}: {error}", self.file().display());
        }
    }

    /// The bug that takes a look for a record, and keeps the newest of either: what counts is pushed out by what does not.
    #[cfg(feature = "planted")]
    pub async fn note_look(&self, instance: InstanceId) -> io::Result<()> {
        const LOOKS_KEPT: usize = 16;
        let Noted { mark, mut notes } = self.read();
        if !notes.iter().any(|(noted, _)| *noted == instance) {
            self.note(instance, Seq(0)).await?;
            notes.push((instance, Seq(0)));
        }
        let surplus = notes.len().saturating_sub(LOOKS_KEPT);
        self.write(mark.unwrap_or(1), &notes[surplus..])
    }

    fn write(&self, mark: u64, notes: &[(InstanceId, Seq)]) -> io::Result<()> {
        let lines = notes.iter().map(|(instance, seq)| format!("{instance} {seq}\n"));
        let text: String = std::iter::once(format!("{MARK}{mark}\n")).chain(lines).collect();
        self.env.files.replace(&self.file(), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(dir: &tempfile::TempDir) -> AuthorNotes {
        AuthorNotes::new(dir.path().to_owned(), Env::host())
    }

    fn process(n: u64) -> InstanceId {
        InstanceId(n.to_le_bytes())
    }

    #[tokio::test]
    async fn only_what_was_judged_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        let mark = notes.renew().unwrap();
        for n in 1..=NOTES_MAX as u64 + 1 {
            notes.note(process(n), Seq(n)).await.unwrap();
        }
        notes.trim(Seq(0));
        assert_eq!(notes.read().notes.len(), NOTES_MAX + 1, "nothing of it was judged");
        notes.trim(Seq(100));
        let Noted { mark: left, notes: kept } = notes.read();
        assert_eq!((left, kept.len(), kept[0]), (Some(mark), NOTES_MAX + 1 - 100, (process(101), Seq(101))));
        for n in 1..=100 {
            notes.note(process(n), Seq(n)).await.unwrap();
        }
        notes.trim(Seq(1000));
        assert_eq!(notes.read().notes.len(), NOTES_KEPT, "some stay in any case");
    }

    #[tokio::test]
    async fn a_file_that_was_lost_or_damaged_is_no_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        assert_eq!(notes.read(), Noted::default());
        notes.note(process(1), Seq(1)).await.unwrap();
        assert_eq!(notes.read().mark, None, "it was lost, and there is more");
        let mark = notes.renew().unwrap();
        let whole = notes.read();
        assert_eq!(whole, Noted { mark: Some(mark), notes: vec![(process(1), Seq(1))] }, "what is left of it stays");
        notes.note(process(2), Seq(2)).await.unwrap();
        assert_eq!(notes.read().notes.last(), Some(&(process(2), Seq(2))));
        // A crash cut a note short, or a full disk did.
        let file = dir.path().join("authors");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, &text[..text.len() - 1]).unwrap();
        assert_eq!(notes.read().mark, None);
        notes.note(process(3), Seq(3)).await.unwrap();
        assert_eq!(notes.read().mark, None);
        let renewed = notes.renew().unwrap();
        assert_ne!(renewed, mark);
        assert_eq!(notes.read().mark, Some(renewed));
    }

    #[tokio::test]
    async fn a_note_that_is_made_while_others_are_dropped_stays() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        notes.renew().unwrap();
        let held = Env::host().files.lock(&notes.lock()).unwrap().unwrap();
        for n in 0..=NOTES_MAX as u64 {
            Env::host().files.append(&notes.file(), format!("{} 1\n", process(n)).as_bytes()).unwrap();
        }
        notes.trim(Seq(9));
        assert_eq!(notes.read().notes.len(), NOTES_MAX + 1, "whoever notes itself goes first");
        drop(held);
        notes.trim(Seq(9));
        assert_eq!(notes.read().notes.len(), NOTES_KEPT);
        // A process that was stopped while it had the lock keeps nobody from writing.
        let _held = Env::host().files.lock(&notes.lock()).unwrap().unwrap();
        notes.note(process(7), Seq(10)).await.unwrap();
        assert_eq!(notes.read().notes.last(), Some(&(process(7), Seq(10))));
    }

    #[tokio::test]
    async fn nothing_is_noted_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let notes = AuthorNotes::new(dir.path().join("file/below"), Env::host());
        notes.note(process(1), Seq(1)).await.unwrap_err();
        notes.renew().unwrap_err();
        notes.trim(Seq(1));
        assert_eq!(notes.read(), Noted::default());
        let notes = AuthorNotes::new(dir.path().join("deleted"), Env::host());
        notes.note(process(1), Seq(1)).await.unwrap();
        assert_eq!(notes.read().notes, [(process(1), Seq(1))], "a directory that was deleted is made again");
    }
}
