//! Notes of which processes of this node append to a journal. Each process notes itself and the number of its record
//! before it appends. So a record with this node's ID that no process of this node wrote is noticed
//! (`role::clone_detection`).
//!
//! A process that only reads notes nothing. Notes about records that have been judged are no longer needed, and only
//! these are dropped. A file that was lost, damaged or replaced is no evidence: its mark differs from the remembered
//! one.
//!
//! A state directory may be set back. Therefore each process also notes itself in memory that lasts for this boot
//! (`boot`), and its note here names the mark of those notes.

pub(crate) mod boot;
pub(crate) mod boot_evidence;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::env::{Env, LockGuard};
use crate::ids::{InstanceId, Seq};

/// Above this number of notes, those that are no longer needed are dropped.
const NOTES_MAX: usize = 256;

/// Number of newest notes that are always kept.
const NOTES_KEPT: usize = 64;

/// Number of attempts to get the lock, and the pause between them. The lock keeps a note from being lost while others
/// are dropped. It is held for a few system calls, so a process that still has it after all attempts has been stopped,
/// and is not waited for.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Prefix of the first line; the file's mark follows.
const MARK: &str = "authors ";

/// Prefix of the third word of a note; the mark of the notes in memory follows.
const BOOT_MARK: &str = "boot:";

/// The notes of one repository.
#[derive(Debug, Clone)]
pub struct AuthorNotes {
    dir: PathBuf,
    env: Env,
}

/// Contents of the notes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedAuthors {
    /// The file's mark; `None`: the file is missing or damaged, and `notes` may be incomplete.
    pub mark: Option<u64>,
    /// One note for each append that was announced, oldest first.
    pub notes: Vec<AuthorNote>,
}

/// The note of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorNote {
    /// The process that noted itself.
    pub instance: InstanceId,
    /// The number of the record that it was about to append; 0: it only read, or this is a note in memory.
    pub seq: Seq,
    /// The mark of the notes in memory that also name this process; `None`: none do.
    pub boot: Option<u64>,
}

impl AuthorNote {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (instance, seq) = (words.next()?.parse().ok()?, Seq(words.next()?.parse().ok()?));
        // A truncated line joined with the next one must not parse: with this word it has too many words, without it
        // too few.
        let boot = match words.next() {
            Some(word) => Some(word.strip_prefix(BOOT_MARK)?.parse().ok()?),
            None => None,
        };
        words.next().is_none().then_some(Self { instance, seq, boot })
    }

    fn line(&self) -> String {
        let Self { instance, seq, boot } = self;
        boot.map_or_else(|| format!("{instance} {seq}\n"), |mark| format!("{instance} {seq} {BOOT_MARK}{mark}\n"))
    }
}

impl RecordedAuthors {
    /// The noted processes.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> {
        self.notes.iter().map(|note| note.instance)
    }

    /// Whether each process that was noted here since the notes in memory got `mark` is noted there as well. A process
    /// of another user, or one that may not write there, is not.
    pub fn all_noted_under(&self, mark: u64) -> bool {
        let mut since = self.notes.iter().skip_while(|note| note.boot != Some(mark));
        since.all(|note| note.boot == Some(mark))
    }
}

impl AuthorNotes {
    /// The notes in the directory `dir`.
    pub fn new(dir: PathBuf, env: Env) -> Self {
        Self { dir, env }
    }

    fn file(&self) -> PathBuf {
        self.dir.join("authors")
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("authors.lock")
    }

    /// Notes that a process is about to append a record. The process must not append without a note.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn note(&self, note: AuthorNote) -> io::Result<()> {
        let held = self.hold().await?;
        let noted = self.env.files.append(&self.file(), note.line().as_bytes());
        drop(held);
        noted
    }

    /// The same without waiting for the lock.
    ///
    /// # Errors
    /// The file cannot be written, or another process is writing its note.
    pub fn try_note(&self, note: AuthorNote) -> io::Result<()> {
        let _held = self.env.files.lock(&self.lock())?.ok_or(io::ErrorKind::WouldBlock)?;
        self.env.files.append(&self.file(), note.line().as_bytes())
    }

    /// The lock; `None`: a stopped process has it.
    async fn hold(&self) -> io::Result<Option<Box<dyn LockGuard>>> {
        let mut tries = LOCK_TRIES;
        loop {
            match self.env.files.lock(&self.lock()) {
                Ok(Some(held)) => return Ok(Some(held)),
                Ok(None) if tries == 0 => return Ok(None),
                Ok(None) => self.env.sleep(LOCK_PAUSE).await,
                // The state directory was deleted while this process runs.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {
                    self.env.files.make_dir(&self.dir)?;
                }
                Err(error) => return Err(error),
            }
            tries = tries.saturating_sub(1);
        }
    }

    /// The current notes. They include each process whose record is in the journal by now.
    pub fn read(&self) -> RecordedAuthors {
        let bytes = self.env.files.read(&self.file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let (mut mark, mut whole, mut notes) = (None, text.ends_with('\n'), Vec::new());
        for (n, line) in text.lines().enumerate() {
            if let (0, Some(text)) = (n, line.strip_prefix(MARK)) {
                mark = text.parse().ok();
                continue;
            }
            match AuthorNote::parse(line) {
                Some(note) => notes.push(note),
                None => whole = false,
            }
        }
        RecordedAuthors { mark: mark.filter(|_| whole), notes }
    }

    /// Rewrites the file with a new mark, from what is left of it.
    ///
    /// # Errors
    /// The file cannot be written, or another process is writing its note.
    pub fn renew(&self) -> io::Result<u64> {
        let _held = self.env.files.lock(&self.lock())?.ok_or(io::ErrorKind::WouldBlock)?;
        let mark = self.random_mark();
        self.write(mark, &self.read().notes)?;
        Ok(mark)
    }

    /// A new random mark.
    fn random_mark(&self) -> u64 {
        u64::from_le_bytes(self.env.random_bytes())
    }

    /// Drops the notes about records up to `judged` if there are too many notes. The caller holds the lock that keeps
    /// out other runs of this host.
    pub fn trim(&self, judged: Seq) {
        if self.read().notes.len() <= NOTES_MAX {
            return;
        }
        // A process that is writing its note at this moment goes first.
        let Ok(Some(_held)) = self.env.files.lock(&self.lock()) else { return };
        let RecordedAuthors { mark: Some(mark), mut notes } = self.read() else { return };
        let newest = notes.len().saturating_sub(NOTES_KEPT);
        let mut at = 0;
        notes.retain(|note| {
            at += 1;
            at > newest || note.seq > judged
        });
        if let Err(error) = self.write(mark, &notes) {
            tracing::debug!("{}: {error}", self.file().display());
        }
    }

    /// Planted bug: a read is noted like an append, and only the newest notes of either kind are kept, so that notes of
    /// reads push out notes of appends.
    #[cfg(feature = "planted")]
    pub async fn note_look(&self, instance: InstanceId) -> io::Result<()> {
        const LOOKS_KEPT: usize = 16;
        let RecordedAuthors { mark, mut notes } = self.read();
        if !notes.iter().any(|note| note.instance == instance) {
            let look = AuthorNote { instance, seq: Seq(0), boot: None };
            self.note(look).await?;
            notes.push(look);
        }
        let surplus = notes.len().saturating_sub(LOOKS_KEPT);
        self.write(mark.unwrap_or(1), &notes[surplus..])
    }

    fn write(&self, mark: u64, notes: &[AuthorNote]) -> io::Result<()> {
        let lines = notes.iter().map(AuthorNote::line);
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

    fn by(n: u64, seq: u64) -> AuthorNote {
        AuthorNote { instance: process(n), seq: Seq(seq), boot: None }
    }

    #[tokio::test]
    async fn only_what_was_judged_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        let mark = notes.renew().unwrap();
        for n in 1..=NOTES_MAX as u64 + 1 {
            notes.note(by(n, n)).await.unwrap();
        }
        notes.trim(Seq(0));
        assert_eq!(notes.read().notes.len(), NOTES_MAX + 1, "nothing of it was judged");
        notes.trim(Seq(100));
        let RecordedAuthors { mark: left, notes: kept } = notes.read();
        assert_eq!((left, kept.len(), kept[0]), (Some(mark), NOTES_MAX + 1 - 100, by(101, 101)));
        for n in 1..=100 {
            notes.note(by(n, n)).await.unwrap();
        }
        notes.trim(Seq(1000));
        assert_eq!(notes.read().notes.len(), NOTES_KEPT, "some stay in any case");
    }

    #[tokio::test]
    async fn a_file_that_was_lost_or_damaged_is_no_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        assert_eq!(notes.read(), RecordedAuthors::default());
        notes.note(by(1, 1)).await.unwrap();
        assert_eq!(notes.read().mark, None, "it was lost, and there is more");
        let mark = notes.renew().unwrap();
        let whole = notes.read();
        assert_eq!(whole, RecordedAuthors { mark: Some(mark), notes: vec![by(1, 1)] }, "what is left of it stays");
        notes.note(by(2, 2)).await.unwrap();
        assert_eq!(notes.read().notes.last(), Some(&by(2, 2)));
        // A crash or a full disk truncated a note.
        let file = dir.path().join("authors");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, &text[..text.len() - 1]).unwrap();
        assert_eq!(notes.read().mark, None);
        notes.note(by(3, 3)).await.unwrap();
        assert_eq!(notes.read().mark, None);
        let renewed = notes.renew().unwrap();
        assert_ne!(renewed, mark);
        assert_eq!(notes.read().mark, Some(renewed));
        // Wherever the note is cut, the halves of two notes do not parse as one.
        let whole = AuthorNote { boot: Some(12), ..by(4, 34) }.line();
        for cut in 1..whole.len() - 1 {
            for next in [by(5, 6), AuthorNote { boot: Some(7), ..by(5, 6) }] {
                let glued = format!("{}{}", &whole[..cut], next.line());
                assert_eq!(AuthorNote::parse(glued.trim_end()), None, "{glued}");
            }
        }
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
        assert_eq!(notes.read().notes.len(), NOTES_MAX + 1, "the process that notes itself comes first");
        drop(held);
        notes.trim(Seq(9));
        assert_eq!(notes.read().notes.len(), NOTES_KEPT);
        // A process that was stopped while it holds the lock does not keep others from writing.
        let _held = Env::host().files.lock(&notes.lock()).unwrap().unwrap();
        notes.note(by(7, 10)).await.unwrap();
        assert_eq!(notes.read().notes.last(), Some(&by(7, 10)));
    }

    #[tokio::test]
    async fn it_is_seen_whether_all_are_noted_in_memory_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        notes.renew().unwrap();
        let in_memory = async |n, boot| {
            notes.note(AuthorNote { boot, ..by(n, n) }).await.unwrap();
            [4, 5].map(|mark| notes.read().all_noted_under(mark))
        };
        assert_eq!(in_memory(1, None).await, [true, true], "it was before");
        assert_eq!(in_memory(2, Some(4)).await, [true, true]);
        assert_eq!(in_memory(3, Some(4)).await, [true, true]);
        assert_eq!(in_memory(4, Some(5)).await, [false, true], "another user's, or they were lost");
        assert_eq!(in_memory(5, None).await, [false, false], "it could not");
        assert_eq!(in_memory(6, Some(5)).await, [false, false]);
        assert!(notes.read().all_noted_under(6), "the next boot's");
        assert_eq!(notes.read().notes[1], AuthorNote { boot: Some(4), ..by(2, 2) });
        notes.try_note(by(7, 7)).unwrap();
        let _held = Env::host().files.lock(&notes.lock()).unwrap().unwrap();
        assert_eq!(notes.try_note(by(8, 8)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(notes.read().notes.last(), Some(&by(7, 7)));
    }

    #[tokio::test]
    async fn nothing_is_noted_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let notes = AuthorNotes::new(dir.path().join("file/below"), Env::host());
        notes.note(by(1, 1)).await.unwrap_err();
        notes.renew().unwrap_err();
        notes.trim(Seq(1));
        assert_eq!(notes.read(), RecordedAuthors::default());
        let notes = AuthorNotes::new(dir.path().join("deleted"), Env::host());
        notes.note(by(1, 1)).await.unwrap();
        assert_eq!(notes.read().notes, [by(1, 1)], "a directory that was deleted is made again");
    }
}
