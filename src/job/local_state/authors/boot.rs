//! A second copy of the notes, in memory that lasts for one boot of the machine
//! ([`NodeFiles::boot_dir`](crate::env::NodeFiles::boot_dir)).
//!
//! A state directory that is set back loses the notes in it, and a process of this machine then looks like a process of
//! a copy. These notes are not set back with it. They are complete since they got their mark: any loss of a note gives
//! them a new mark, or none.

use std::io;
use std::path::Path;

use crate::env::{BootDir, Env};
use crate::ids::{InstanceId, RepoId, Seq};
use crate::job::local_state::authors::{AuthorNote, AuthorNotes, RecordedAuthors};

/// Maximum number of processes. Above it the oldest are dropped.
const PROCESSES_MAX: usize = 1024;

/// Number of newest processes that are kept then.
const PROCESSES_KEPT: usize = 512;

/// The notes of one repository in one state directory.
#[derive(Debug)]
pub struct BootAuthorNotes {
    notes: AuthorNotes,
    /// Keeps the directory in place while the notes are in use.
    _dir: BootDir,
}

impl BootAuthorNotes {
    /// The notes of this boot.
    ///
    /// # Errors
    /// The host has no such memory, or its boot ID is unknown.
    pub fn open(env: &Env, state_dir: &Path, repo: RepoId) -> io::Result<Self> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the boot ID of this machine is unknown");
        let boot = env.clock.boot_id().ok_or_else(unknown)?;
        let dir = env.files.boot_dir(state_dir)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&boot).update(&repo.0);
        let place = dir.path().join(&hasher.finalize().to_hex()[..32]);
        env.files.make_dir(&place)?;
        Ok(Self { notes: AuthorNotes::new(place, env.clone()), _dir: dir })
    }

    /// The noted processes.
    pub fn read(&self) -> RecordedAuthors {
        self.notes.read()
    }

    /// Notes this process unless it is noted already, and returns the mark of the notes.
    ///
    /// # Errors
    /// The notes cannot be written. They are removed then, so that they do not count as complete.
    pub async fn note(&self, instance: InstanceId) -> io::Result<u64> {
        let noted = match self.notes.hold().await {
            Ok(Some(held)) => {
                let noted = self.add(instance);
                drop(held);
                noted
            }
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        };
        if noted.is_err()
            && let Err(error) = self.notes.env.files.remove(&self.notes.file())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!("the notes of this boot's writers: {error}");
        }
        noted
    }

    /// The caller holds the lock.
    fn add(&self, instance: InstanceId) -> io::Result<u64> {
        let RecordedAuthors { mark, mut notes } = self.notes.read();
        let is_noted = notes.iter().any(|note| note.instance == instance);
        let note = AuthorNote { instance, seq: Seq(0), boot: None };
        match mark {
            Some(mark) if is_noted => Ok(mark),
            Some(mark) if notes.len() < PROCESSES_MAX => {
                self.notes.env.files.append(&self.notes.file(), note.line().as_bytes())?;
                Ok(mark)
            }
            _ => {
                notes.retain(|other| other.instance != instance);
                notes.push(note);
                let surplus = if notes.len() > PROCESSES_MAX { notes.len() - PROCESSES_KEPT } else { 0 };
                let mark = self.notes.random_mark();
                self.notes.write(mark, &notes[surplus..])?;
                Ok(mark)
            }
        }
    }

    /// The mark of the notes; if they have none they get one now. `announce` first writes the new mark into the state
    /// directory, so that a process that is noted there later, but not here, is detected.
    ///
    /// # Errors
    /// The notes cannot be written, or another process is writing its note.
    pub fn mark(&self, announce: impl FnOnce(u64) -> io::Result<()>) -> io::Result<u64> {
        if let Some(mark) = self.notes.read().mark {
            return Ok(mark);
        }
        let _held = self.notes.env.files.lock(&self.notes.lock())?.ok_or(io::ErrorKind::WouldBlock)?;
        let RecordedAuthors { mark, notes } = self.notes.read();
        if let Some(mark) = mark {
            return Ok(mark);
        }
        let mark = self.notes.random_mark();
        announce(mark)?;
        self.notes.write(mark, &notes)?;
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::job::local_state::LocalState;
    use crate::job::local_state::authors::boot_evidence::{BootEvidence, note_author};

    fn process(n: u64) -> InstanceId {
        InstanceId(n.to_le_bytes())
    }

    struct Place {
        dir: tempfile::TempDir,
        local: LocalState,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let local = LocalState::open(&Env::host(), &dir.path().join("state"), RepoId([1; 16])).unwrap();
            local.authors().renew().unwrap();
            Self { dir, local }
        }

        fn notes(&self) -> BootAuthorNotes {
            self.local.boot_notes().unwrap()
        }

        async fn note(&self, n: u64) -> u64 {
            note_author(&self.local, process(n), Seq(n)).await.unwrap();
            self.notes().read().mark.unwrap()
        }

        fn ask(&self) -> (usize, Option<u64>) {
            let evidence = BootEvidence::collect(&self.local, process(0));
            (evidence.own.len(), evidence.mark.ok())
        }

        /// Copies a directory as a backup or clone of the state directory's disk would.
        fn copy(&self, from: &str, to: &str) {
            let (from, to) = (self.dir.path().join(from), self.dir.path().join(to));
            let _ = std::fs::remove_dir_all(&to);
            assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
        }
    }

    #[tokio::test]
    async fn what_is_noted_stays_when_the_state_directory_is_set_back_or_deleted() {
        let place = Place::new();
        let mark = place.note(1).await;
        assert_eq!(place.note(1).await, mark);
        place.copy("state", "kept");
        for n in 2..5 {
            assert_eq!(place.note(n).await, mark);
            place.copy("kept", "state");
            assert_eq!(place.ask(), (n as usize, Some(mark)), "each once");
        }
        std::fs::remove_dir_all(place.dir.path().join("state")).unwrap();
        assert_eq!(place.note(5).await, mark);
        // A copy at another place has none of the notes.
        place.copy("kept", "copy");
        let copy = LocalState::peek(&Env::host(), &place.dir.path().join("copy"), RepoId([1; 16]));
        let theirs = BootEvidence::collect(&copy, process(9));
        assert_eq!(theirs.own, []);
        assert_ne!(theirs.mark, Ok(mark));
        // Neither has another repository.
        let other = LocalState::open(&Env::host(), &place.dir.path().join("state"), RepoId([2; 16])).unwrap();
        assert_eq!(BootEvidence::collect(&other, process(9)).own, []);
    }

    #[tokio::test]
    async fn what_was_lost_is_seen_by_another_mark() {
        let place = Place::new();
        let mark = place.note(1).await;
        let file = place.notes().notes.file();
        std::fs::remove_file(place.notes().notes.file()).unwrap();
        let (own, renewed) = place.ask();
        assert_eq!(own, 0);
        assert!(renewed.is_some_and(|renewed| renewed != mark), "{}", file.display());
        // Damaged: the remaining notes count, and are incomplete.
        place.note(2).await;
        std::fs::write(place.notes().notes.file(), format!("{} 0\n", process(3))).unwrap();
        let (own, again) = place.ask();
        assert_eq!(own, 1);
        assert_ne!(again, renewed);
    }

    #[tokio::test]
    async fn they_are_dropped_and_get_another_mark_when_they_are_many() {
        let place = Place::new();
        let mut mark = place.note(0).await;
        let mut renewed = Vec::new();
        for n in 1..=PROCESSES_MAX as u64 {
            let now = place.notes().note(process(n)).await.unwrap();
            if now != mark {
                renewed.push(n);
                mark = now;
            }
        }
        let left: Vec<InstanceId> = place.notes().read().instances().collect();
        assert_eq!((renewed, left.len()), (vec![PROCESSES_MAX as u64], PROCESSES_KEPT));
        assert_eq!(left.last(), Some(&process(PROCESSES_MAX as u64)));
    }

    #[tokio::test]
    async fn a_process_that_cannot_be_noted_makes_them_incomplete() {
        let place = Place::new();
        let mark = place.note(1).await;
        // A process that appends and is not noted in memory: another user's, or one in a sandbox.
        place.local.authors().note(AuthorNote { instance: process(2), seq: Seq(2), boot: None }).await.unwrap();
        let why = BootEvidence::collect(&place.local, process(0)).mark.unwrap_err();
        assert!(why.contains("of another user"), "{why}");
        // A note that fails removes the file.
        let place = Place::new();
        assert_ne!(place.note(1).await, mark);
        let notes = place.notes();
        let held = Env::host().files.lock(&notes.notes.lock()).unwrap().unwrap();
        assert_eq!(notes.note(process(2)).await.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(notes.read(), RecordedAuthors::default());
        note_author(&place.local, process(3), Seq(3)).await.unwrap();
        assert_eq!(place.ask().1, None, "a process is noting itself");
        drop(held);
        let last = place.local.authors().read().notes.last().copied();
        assert_eq!(last, Some(AuthorNote { instance: process(3), seq: Seq(3), boot: None }));
        // A process that only reads begins the notes again, and says so in the state directory.
        let (_, renewed) = place.ask();
        let last = place.local.authors().read().notes.last().copied();
        assert_eq!(last, Some(AuthorNote { instance: process(0), seq: Seq(0), boot: renewed }));
        place.local.authors().note(AuthorNote { instance: process(4), seq: Seq(4), boot: None }).await.unwrap();
        assert_eq!(place.ask().1, None, "a process that was noted since and is missing is seen");
    }
}
