//! A rotation of the repository key, and a holder of the old one that writes to the store.

use super::*;
use crate::ids::{KeyGeneration, KeyId, Mac, Term};
use crate::journal::body::RecordBody;
use crate::journal::rotation::RotateBody;
use crate::repo::crypto::DerivedKeys;
use crate::repo::crypto::tests::rotated;

/// The key before, the key before as the rotation has it, and the key after.
fn three() -> (DerivedKeys, DerivedKeys, DerivedKeys) {
    let old = keys(Cipher::Aes256GcmSiv);
    let (between, new) = rotated(&old);
    (old, between, new)
}

fn by(store: &MemoryStore, keys: &DerivedKeys, node: u8) -> Journal {
    let named = WriterNode { id: NodeId([node; 16]), name: format!("n{node}") };
    Journal::new(Arc::new(store.clone()), keys.clone(), Env::host(), named, InstanceId([node; 8]))
}

/// How a journal of so many snapshots before and after a rotation was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    Now,
    /// Without a state in the rotation's record and the one after it, and without the copy.
    Before,
}

/// The views, by number.
async fn written(store: &MemoryStore, before: u8, after: u8, version: Version) -> Vec<JournalView> {
    let (old, between, new) = three();
    let journal = by(store, &old, 1);
    let empty = journal.read(None).await.unwrap();
    let (permit, mut view) = journal.take_over(&empty, &elected(), TakeoverReason::First).await.unwrap();
    let mut views = vec![empty, view.clone()];
    for n in 1..=before {
        view = journal.append(&permit, &view, snapshot(n), Some(at(n))).await.unwrap();
        views.push(view.clone());
    }
    let body = RotateBody { generation: KeyGeneration(1), slots: vec![KeyId([3; 8])], proof: Mac([0; 32]) };
    let rotating = by(store, &between, 1);
    let mut after_it = rotating.append(&permit, &view, RecordBody::Rotate(body), None).await.unwrap();
    let seq = after_it.head.as_ref().unwrap().seq;
    if version == Version::Now {
        rotating.save_rotation_copy(seq).await.unwrap();
    } else {
        let (mut record, _) = by(store, &new, 1).read_record(seq).await.unwrap().unwrap();
        record.state = None;
        record.add_rotation_proof(&between);
        let object = record.encode(&between);
        store.tamper(&key(seq.0), Some(object.clone().into()));
        after_it = view.clone();
        after_it.apply(&record, record::digest(&object)).unwrap();
    }
    view = after_it;
    views.push(view.clone());
    let journal = by(store, &new, 1);
    for n in 1..=after {
        let next = journal.append(&permit, &view, snapshot(100 + n), Some(at(100 + n))).await.unwrap();
        let (mut record, _) = journal.read_record(next.head.as_ref().unwrap().seq).await.unwrap().unwrap();
        if version == Version::Before && record.seq.0 % 8 != 0 {
            record.state = None;
        }
        let object = record.encode(&new);
        store.tamper(&key(record.seq.0), Some(object.clone().into()));
        view.apply(&record, record::digest(&object)).unwrap();
        views.push(view.clone());
    }
    views
}

fn copied(whole: &MemoryStore) -> MemoryStore {
    let store = MemoryStore::new(&Env::host());
    for (key, object) in whole.objects() {
        store.tamper(&key, Some(object));
    }
    store
}

/// Writes other records from number `from` to `to`, all in a chain, as a holder of the old key does.
async fn forge(store: &MemoryStore, from: u64, to: u64) {
    let (old, ..) = three();
    let journal = by(store, &old, 1);
    let mut view = journal.read_until(Seq(from - 1)).await.unwrap();
    for seq in from..=to {
        let body = if view.state.holder.is_none() {
            RecordBody::Takeover(TakeoverBody::new(TakeoverReason::First))
        } else {
            snapshot(200 + seq as u8)
        };
        let term = Term(view.term().0 + u64::from(view.state.holder.is_none()));
        let takeover = view.state.holder.as_ref().map(|holder| holder.takeover);
        let record = Record {
            role: view.role.clone(),
            repo: view.repo,
            seq: Seq(seq),
            term,
            takeover,
            node: WriterNode { id: NodeId([9; 16]), name: "thief".to_owned() },
            instance: InstanceId([9; 8]),
            time: Timestamp::UNIX_EPOCH,
            store_time: None,
            slot: None,
            last_slot: view.state.last_slot,
            schedule: None,
            prev: view.head.as_ref().map(|head| head.digest),
            body,
            state: seq.is_multiple_of(8).then(|| view.state.clone()),
            generation: KeyGeneration::FIRST,
        };
        let object = record.encode(&old);
        view.apply(&record, record::digest(&object)).unwrap();
        store.tamper(&key(seq), Some(object.into()));
    }
}

/// Repairs it as node 2 with the new key.
async fn repaired(store: &MemoryStore, known: Option<&JournalView>) -> (SalvagedJournal, JournalView) {
    let journal = by(store, &three().2, 2);
    let salvaged = Box::pin(journal.salvage(known)).await.unwrap();
    let state = salvaged.view.state.clone();
    assert!(Box::pin(journal.fill_void_numbers(&salvaged)).await.unwrap());
    let (_, view) = Box::pin(journal.repair(&salvaged, state, &elected(), false)).await.unwrap();
    (salvaged, view)
}

const FORGED: std::ops::Range<u8> = 200..255;

#[tokio::test]
async fn nothing_that_a_former_key_holder_writes_is_part_of_what_is_left() {
    let (_, _, new) = three();
    let mut left_out = 0;
    for (version, before, after) in [(Version::Now, 3, 3), (Version::Now, 9, 2), (Version::Before, 3, 3)] {
        let whole = MemoryStore::new(&Env::host());
        let views = written(&whole, before, after, version).await;
        let last = views.len() as u64 - 1;
        let rotation = u64::from(before) + 2;
        for from in [1, 2, 3, rotation - 1] {
            // What is deleted: nothing, the rotation's record, the newest ones, and all from the rotation on.
            for gone in [0..0, rotation..rotation + 1, rotation..rotation + 2, last..last + 1, rotation..last + 1] {
                for copy in [true, false] {
                    for seen in [None, Some(2), Some(rotation as usize), Some(last as usize)] {
                        let what =
                            format!("{version:?} {before}, from {from}, without {gone:?}, copy {copy}, seen {seen:?}");
                        let store = copied(&whole);
                        forge(&store, from, rotation - 1).await;
                        gone.clone().for_each(|seq| store.tamper(&key(seq), None));
                        if !copy {
                            store.tamper(&format!("app/rotated/{rotation:016}"), None);
                        }
                        let known = seen.map(|n| views[n].clone());
                        let journal = by(&store, &new, 3);
                        let read = journal.read(known.as_ref()).await;
                        assert!(
                            read.map_or(true, |view| !roots(&view).iter().any(|root| FORGED.contains(root))),
                            "{what}"
                        );
                        let (salvaged, view) = repaired(&store, known.as_ref()).await;
                        assert!(!roots(&view).iter().any(|root| FORGED.contains(root)), "{what}: {salvaged:?}");
                        assert_eq!(view.generation(), KeyGeneration(1), "{what}");
                        // The rotation's record, the one after it, the copy and a node's memory each give all that was
                        // before the rotation.
                        let is_told = version == Version::Now
                            && (copy || !gone.contains(&rotation) || gone.end - gone.start == 1)
                            || seen.is_some_and(|n| n as u64 >= rotation);
                        if is_told {
                            assert!((1..=before).all(|n| roots(&view).contains(&n)), "{what}: {:?}", roots(&view));
                            assert_eq!(salvaged.unverified.map_or(0, |all| all.snapshots.len()), 0, "{what}");
                        } else if let Some(all) = &salvaged.unverified {
                            left_out += all.snapshots.len();
                        }
                        // A node that remembers nothing reads the same, and so does the next repair.
                        let fresh = by(&store, &new, 4).read(None).await;
                        assert_eq!(fresh.map(|fresh| fresh.state).map_err(|e| e.to_string()), Ok(view.state), "{what}");
                        let again = by(&store, &new, 4).salvage(None).await.unwrap();
                        assert!(again.is_sound() && again.unverified.is_none(), "{what}: {again:?}");
                    }
                }
            }
        }
    }
    assert!(left_out > 0);
}

#[tokio::test]
async fn what_a_store_lost_of_a_rotation_comes_back_or_is_named() {
    for (version, copy) in [(Version::Now, true), (Version::Now, false), (Version::Before, false)] {
        let whole = MemoryStore::new(&Env::host());
        let views = written(&whole, 3, 3, version).await;
        let last = views.len() as u64 - 1;
        for gone in (1..=last).map(|seq| seq..seq + 1).chain((1..=last).map(|from| from..last + 1)) {
            let store = copied(&whole);
            gone.clone().for_each(|seq| store.tamper(&key(seq), None));
            if !copy {
                store.tamper("app/rotated/0000000000000005", None);
            }
            let journal = by(&store, &three().2, 3);
            let salvaged = journal.salvage(None).await.unwrap();
            let is_end = gone.end > last;
            assert_eq!(
                salvaged.unstarted_generation.is_some(),
                is_end && gone.start <= 5 && !copy,
                "{gone:?} {version:?}"
            );
            assert!(!salvaged.is_sound() || is_end && gone.start > 5, "{gone:?} {version:?}");
            if salvaged.is_sound() {
                continue;
            }
            let (salvaged, view) = repaired(&store, None).await;
            assert!(view.term() > views[last as usize].term() || gone.start == 1, "terms go on: {gone:?}");
            let kept: Vec<u8> = (1..=3).filter(|n| roots(&view).contains(n)).collect();
            let named: Vec<u8> =
                salvaged.unverified.iter().flat_map(|all| &all.snapshots).map(|snapshot| snapshot.root.0[0]).collect();
            match version {
                Version::Now if copy || gone.end - gone.start == 1 => {
                    assert_eq!((kept.as_slice(), named.as_slice()), (&[1, 2, 3][..], &[][..]), "{gone:?}");
                }
                _ => {
                    let there = |n: &u8| !gone.contains(&(u64::from(*n) + 1));
                    let all: Vec<u8> = kept.iter().chain(&named).copied().collect();
                    assert!(
                        (1..=3).filter(there).all(|n| all.contains(&n)),
                        "{gone:?} {version:?}: {kept:?} {named:?}"
                    );
                }
            }
            let fresh = by(&store, &three().2, 4).read(None).await.unwrap();
            assert_eq!(fresh.state, view.state, "{gone:?}");
        }
    }
}

/// A number that a record claims and no key at hand proves is no rotation.
#[tokio::test]
async fn a_generation_that_no_record_begins_is_damage() {
    let store = MemoryStore::new(&Env::host());
    let views = written(&store, 7, 4, Version::Now).await;
    let (old, _, new) = three();
    // The first record of the new key is named, whatever checkpoint a reader starts at.
    let read = by(&store, &old, 3).read(None).await;
    assert!(matches!(read, Err(JournalError::Rotated { seq: Seq(10), generation: KeyGeneration(1), .. })), "{read:?}");
    let planted =
        b"{}\n{\"mac\":\"".iter().copied().chain([b'0'; 64]).chain(*b"\",\"generation\":40}\n").collect::<Vec<_>>();
    store.tamper(&key(views.len() as u64), Some(planted.into()));
    for known in [None, views.last()] {
        let read = by(&store, &new, 3).read(known).await;
        assert!(matches!(read, Err(JournalError::Record { seq: Seq(14), .. })), "{read:?}");
    }
    let salvaged = by(&store, &old, 3).salvage(None).await;
    assert!(matches!(salvaged, Err(SalvageError::Rotated(JournalError::Rotated { seq: Seq(10), .. }))), "{salvaged:?}");
}

/// A writer to the bucket can be there before the copy, or replace it.
#[tokio::test]
async fn what_stands_in_the_place_of_a_rotations_copy_is_compared_with_the_record() {
    let store = MemoryStore::new(&Env::host());
    let views = written(&store, 3, 2, Version::Now).await;
    let (old, _, new) = three();
    let (journal, state) = (by(&store, &new, 1), &views.last().unwrap().state);
    let seq = state.rotated.unwrap().seq;
    let (copy, record) = (object_keys::rotation(new.role(), seq), store.objects()[&key(seq.0)].clone());
    assert_eq!(journal.wrong_copy(state).await.unwrap(), None);
    for planted in [Bytes::from_static(b"{}"), store.objects()[&key(seq.0 - 1)].clone()] {
        store.tamper(&copy, Some(planted.clone()));
        journal.save_rotation_copy(seq).await.unwrap();
        assert_eq!(store.objects()[&copy], planted, "nothing is overwritten but by a repair");
        let wrong = journal.wrong_copy(state).await.unwrap().unwrap();
        assert_eq!((&wrong.key, &wrong.object), (&copy, &record));
    }
    store.tamper(&copy, None);
    assert_eq!(journal.wrong_copy(state).await.unwrap(), None, "a version of before copies made none");
    // Where the record is lost nothing is compared with the one before it.
    store.tamper(&copy, Some(Bytes::from_static(b"{}")));
    store.tamper(&key(seq.0), store.objects().get(&key(seq.0 - 1)).cloned());
    assert_eq!(journal.wrong_copy(state).await.unwrap(), None);
    assert_eq!(by(&store, &old, 1).wrong_copy(&views[0].state).await.unwrap(), None, "there was no rotation");
}
