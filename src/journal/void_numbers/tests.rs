//! A void number in the middle of a journal in a directory, with every kind of object in its place.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::env::Env;
use crate::ids::{InstanceId, Mac, NodeId, Term};
use crate::journal::body::{TakeoverBody, TakeoverReason, WriterNode};
use crate::journal::reader::Journal;
use crate::journal::repair::tests::{at, elected};
use crate::journal::repair_history::RepairEntry;
use crate::journal::rotation::RotateBody;
use crate::journal::view::tests::snapshot;
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::{keys, rotated};
use crate::store::dir::DirStore;
use crate::store::memory::MemoryStore;

/// How many snapshots there are before the repair; the number that it calls void.
const SNAPSHOTS: u8 = 5;
const VOID: u64 = 3;

fn journal_in(store: Arc<dyn Store>, node: u8) -> Journal {
    let named = WriterNode { id: NodeId([node; 16]), name: format!("n{node}") };
    Journal::new(store, keys(Cipher::None), Env::host(), named, InstanceId([node; 8]))
}

struct Dir {
    root: tempfile::TempDir,
    /// What the number held.
    lost: Vec<u8>,
    /// Before the lost record, and with it.
    views: Vec<JournalView>,
    after: JournalView,
}

impl Dir {
    fn journal(&self, node: u8) -> Journal {
        journal_in(Arc::new(DirStore::open(self.root.path(), &Env::host()).unwrap()), node)
    }

    fn path(&self, seq: u64) -> PathBuf {
        self.root.path().join(format!("app/journal/{seq:016}"))
    }

    /// A journal of which the repair of a lost record is the last but `more` records.
    async fn new(void: u64, more: u8) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(DirStore::open(root.path(), &Env::host()).unwrap());
        let here = journal_in(Arc::clone(&store), 1);
        let empty = here.read(None).await.unwrap();
        let (permit, mut view) = here.take_over(&empty, &elected(), TakeoverReason::First).await.unwrap();
        let mut views = vec![empty, view.clone()];
        for n in 1..=SNAPSHOTS {
            view = here.append(&permit, &view, snapshot(n), Some(at(n))).await.unwrap();
            views.push(view.clone());
        }
        let path = root.path().join(format!("app/journal/{void:016}"));
        let lost = std::fs::read(&path).unwrap();
        std::fs::write(&path, "{}").unwrap();
        let other = journal_in(store, 2);
        let salvaged = other.salvage(None).await.unwrap();
        let state = salvaged.view.state.clone();
        assert!(other.fill_void_numbers(&salvaged).await.unwrap());
        let (permit, mut view) = other.repair(&salvaged, state, &elected(), false).await.unwrap();
        for n in 0..more {
            view = other.append(&permit, &view, snapshot(50 + n), Some(at(50 + n))).await.unwrap();
        }
        Self { root, lost, views, after: view }
    }
}

/// Whatever may stand there.
fn stand(dir: &Dir, seq: u64, kind: &str) {
    let path = dir.path(seq);
    std::fs::remove_file(&path).unwrap();
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    match kind {
        "nothing" => {}
        "garbage" => write(&path, b"\x1b[2J"),
        "what came back" => write(&path, &dir.lost),
        "another of its time" => {
            let mut record = Record::decode(&dir.lost, Some(&keys(Cipher::None))).unwrap();
            record.instance = InstanceId([9; 8]);
            write(&path, &record.encode(&keys(Cipher::None)));
        }
        "one with a state of its own" => {
            let mut record = Record::decode(&dir.lost, Some(&keys(Cipher::None))).unwrap();
            record.state = Some(dir.views[1].state.clone());
            record.term = Term(99);
            write(&path, &record.encode(&keys(Cipher::None)));
        }
        "another number's" => write(&path, &std::fs::read(dir.path(1)).unwrap()),
        "a generation that is not" => {
            let (line, rest) = dir.lost.split_at(dir.lost.len() - 3);
            assert_eq!(rest, b"\"}\n");
            write(&path, &[line, b"\",\"generation\":7}\n"].concat());
        }
        "huge" => std::fs::File::create(&path).unwrap().set_len(5 << 30).unwrap(),
        "a FIFO" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "a link" => symlink("/etc/hostname", &path).unwrap(),
        "a directory" => std::fs::create_dir(&path).unwrap(),
        other => panic!("{other}"),
    }
}

const KINDS: [&str; 11] = [
    "nothing",
    "garbage",
    "what came back",
    "another of its time",
    "one with a state of its own",
    "another number's",
    "a generation that is not",
    "huge",
    "a FIFO",
    "a link",
    "a directory",
];

#[tokio::test]
async fn a_void_number_says_nothing_whatever_stands_there() {
    // In the middle; the last before the repair; the one that always has a state.
    for (void, more) in [(VOID, 0), (VOID, 1), (u64::from(SNAPSHOTS) + 1, 0), (u64::from(SNAPSHOTS) + 1, 3)] {
        for kind in KINDS {
            let dir = Box::pin(Dir::new(void, more)).await;
            stand(&dir, void, kind);
            let what = format!("{kind} at {void}, {more} after the repair");
            let reader = dir.journal(3);
            // Nodes that remember nothing, the beginning, the record, and everything.
            let seen = [None, Some(&dir.views[1]), Some(&dir.views[void as usize]), Some(&dir.after)];
            for known in seen {
                let read = reader.read(known).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!((&read.state, &read.head), (&dir.after.state, &dir.after.head), "{what}");
                let read = reader.read_listed(known).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(read.state, dir.after.state, "{what}");
                let salvaged = reader.salvage(known).await.unwrap();
                assert!(
                    salvaged.is_sound() && salvaged.remembered_snapshots.is_empty() && !salvaged.is_partial,
                    "{what}: {salvaged:?}"
                );
                assert_eq!((salvaged.named_before, &salvaged.view.state), (1, &dir.after.state), "{what}");
            }
            assert_eq!(reader.missing_records(&dir.after).await.unwrap(), [], "{what}");
            let repair = Seq(u64::from(SNAPSHOTS) + 2);
            assert_eq!(reader.repairs(&dir.after).await.unwrap().voided_by(Seq(void)), Some(repair), "{what}");
        }
    }
}

/// A state remembers the newest repairs only.
#[tokio::test]
async fn what_the_first_of_many_repairs_named_stays_void() {
    let store = MemoryStore::new(&Env::host());
    let here = journal_in(Arc::new(store.clone()), 1);
    let empty = here.read(None).await.unwrap();
    let (mut permit, mut view) = here.take_over(&empty, &elected(), TakeoverReason::First).await.unwrap();
    let first = view.clone();
    for n in 0..40u8 {
        view = here.append(&permit, &view, snapshot(n), None).await.unwrap();
        let seq = view.head.as_ref().unwrap().seq;
        store.tamper(&object_keys::record(&view.role, seq), Some(Bytes::from_static(b"x")));
        let salvaged = here.salvage(None).await.unwrap();
        assert_eq!(salvaged.lost_records.iter().map(|lost| lost.seq).collect::<Vec<_>>(), [seq]);
        assert!(here.fill_void_numbers(&salvaged).await.unwrap());
        (permit, view) = here.repair(&salvaged, salvaged.view.state.clone(), &elected(), false).await.unwrap();
    }
    assert!(view.state.repaired.len() < 40 && !view.state.repaired.iter().any(|repair| repair.void == [Seq(2)]));
    for seq in (1..=40).map(|n| Seq(2 * n)) {
        store.tamper(&object_keys::record(&view.role, seq), None);
        assert_eq!(here.repairs(&view).await.unwrap().voided_by(seq), Some(seq.next()));
    }
    assert_eq!(here.missing_records(&view).await.unwrap(), []);
    let salvaged = here.salvage(None).await.unwrap();
    assert!(salvaged.is_sound() && salvaged.named_before == 40, "{salvaged:?}");
    for known in [None, Some(&first), Some(&view)] {
        assert_eq!(here.read(known).await.unwrap().state, view.state);
    }
}

#[test]
fn a_repair_is_gone_on_from_where_it_names_the_number_or_the_one_before() {
    let repair = |seq, void: &[u64]| RepairEntry {
        seq: Seq(seq),
        term: Term(seq),
        void: void.iter().copied().map(Seq).collect(),
        lost: None,
    };
    let mut repairs = RepairHistory::default();
    assert!(repairs.add_older(repair(20, &[5, 12])) && repairs.add_older(repair(9, &[8, 3])));
    assert!(!repairs.add_older(repair(9, &[1])), "it is there already");
    let beyond = |seq| repairs.resume_point(Seq(seq)).map(|seq| seq.0);
    assert_eq!((beyond(3), beyond(4), beyond(5), beyond(6)), (Some(9), Some(9), Some(20), Some(20)));
    assert_eq!((beyond(8), beyond(9)), (Some(9), Some(9)), "the repair itself does not follow what stands there now");
    assert_eq!((beyond(2), beyond(7), beyond(10), beyond(14), beyond(21)), (None, None, None, None, None));
}

/// A holder of a key that was rotated away can write a record of its time, at any number.
#[tokio::test]
async fn a_repair_of_an_older_generation_names_nothing() {
    let (old, store) = (keys(Cipher::Aes256GcmSiv), MemoryStore::new(&Env::host()));
    let (between, new) = rotated(&old);
    let named = WriterNode { id: NodeId([1; 16]), name: "n1".to_owned() };
    let as_of = |keys: &DerivedKeys| {
        Journal::new(Arc::new(store.clone()), keys.clone(), Env::host(), named.clone(), InstanceId([1; 8]))
    };
    let empty = as_of(&old).read(None).await.unwrap();
    let (permit, view) = as_of(&old).take_over(&empty, &elected(), TakeoverReason::First).await.unwrap();
    let body = RotateBody { generation: KeyGeneration(1), proof: Mac([0; 32]), slots: Vec::new() };
    let view = as_of(&between).append(&permit, &view, RecordBody::Rotate(body), None).await.unwrap();
    let view = as_of(&new).append(&permit, &view, snapshot(1), None).await.unwrap();
    let (_, view) = as_of(&new).take_over(&view, &elected(), TakeoverReason::Restart).await.unwrap();
    let forged = Record {
        body: RecordBody::Takeover(TakeoverBody { void: vec![Seq(3)], ..TakeoverBody::new(TakeoverReason::Repair) }),
        state: Some(view.state.clone()),
        seq: Seq(5),
        generation: KeyGeneration::FIRST,
        ..as_of(&new).read_record(Seq(4)).await.unwrap().unwrap().0
    };
    store.tamper(&object_keys::record(old.role(), Seq(5)), Some(forged.encode(&new).into()));
    let (repairs, _) = repairs_to(&store, &new, Seq::FIRST, Seq(5)).await.unwrap();
    assert!(!repairs.is_void(Seq(3)), "{repairs:?}");
}
