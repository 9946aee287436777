//! Over stores in memory: each record of a journal lost in turn.

mod rotated;

use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::env::Env;
use crate::ids::{IndexId, InstanceId, NodeId};
use crate::journal::body::WriterNode;
use crate::journal::view::tests::snapshot;
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;
use crate::repo::index::encode_index;
use crate::role::candidacy::{LeaseGrant, testing};
use crate::store::Store as _;
use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};
use crate::store::memory::MemoryStore;

fn journal(store: &MemoryStore, node: u8) -> Journal {
    let named = WriterNode { id: NodeId([node; 16]), name: format!("n{node}") };
    Journal::new(Arc::new(store.clone()), keys(Cipher::None), Env::host(), named, InstanceId([node; 8]))
}

pub(in crate::journal) fn elected() -> Candidacy {
    let grant = LeaseGrant { asked: Env::host().clock.moment(), ttl: std::time::Duration::from_hours(1) };
    testing::candidacy(keys(Cipher::None).role(), grant)
}

pub(in crate::journal) fn key(seq: u64) -> String {
    format!("app/journal/{seq:016}")
}

pub(in crate::journal) fn at(n: u8) -> Timestamp {
    Timestamp::from_second(i64::from(n) * 3600).unwrap()
}

/// A journal of a takeover and so many snapshots with slots, and every view that it had.
async fn filled(store: &MemoryStore, snapshots: u8) -> Vec<JournalView> {
    let journal = journal(store, 1);
    let empty = journal.read(None).await.unwrap();
    let (permit, mut view) = journal.take_over(&empty, &elected(), TakeoverReason::First).await.unwrap();
    let mut views = vec![empty, view.clone()];
    for n in 1..=snapshots {
        view = journal.append(&permit, &view, snapshot(n), Some(at(n))).await.unwrap();
        views.push(view.clone());
    }
    views
}

/// Repairs it as node 2, which remembers `known`.
async fn repair(store: &MemoryStore, known: Option<&JournalView>) -> (SalvagedJournal, JournalView) {
    let journal = journal(store, 2);
    let salvaged = Box::pin(journal.salvage(known)).await.unwrap();
    let state = salvaged.view.state.clone();
    assert!(Box::pin(journal.fill_void_numbers(&salvaged)).await.unwrap());
    let (_, view) = Box::pin(journal.repair(&salvaged, state, &elected(), false)).await.unwrap();
    (salvaged, view)
}

fn roots(view: &JournalView) -> Vec<u8> {
    view.state.snapshots.iter().map(|snapshot| snapshot.root.0[0]).collect()
}

#[tokio::test]
async fn each_record_is_lost_in_turn_and_everybody_reads_on_beyond_it() {
    for snapshots in [4, 9, 20] {
        let whole = MemoryStore::new(&Env::host());
        let views = filled(&whole, snapshots).await;
        let before = views.last().unwrap();
        let last = u64::from(snapshots) + 1;
        for lost in 1..=last {
            let another = whole.objects()[&key(if lost == 3 { 2 } else { 3 })].clone();
            for with in [None, Some(Bytes::from_static(b"{}\n")), Some(another)] {
                let store = MemoryStore::new(&Env::host());
                for (key, object) in whole.objects() {
                    store.tamper(&key, Some(object));
                }
                if lost == last && with.is_none() {
                    // No node misses it that does not remember it.
                    continue;
                }
                store.tamper(&key(lost), with);
                let (salvaged, after) = repair(&store, None).await;
                assert_eq!(salvaged.lost_records.iter().map(|lost| lost.seq.0).collect::<Vec<_>>(), [lost]);
                // A checkpoint after it has what it said.
                let checkpoint = (lost + 1..=last).any(|seq| seq % 8 == 0);
                assert_eq!(salvaged.is_partial, !checkpoint, "{lost} of {last}");
                let all: Vec<u8> = (1..=snapshots).filter(|n| checkpoint || u64::from(*n) + 1 != lost).collect();
                assert_eq!(roots(&after), all, "{lost} of {last}");
                if lost > 1 && lost < last {
                    let slot = at(lost as u8 - 1);
                    assert!(after.state.slots().any(|at| at == slot), "a later record says that it was committed");
                }
                // A host that knows nothing, and one that knows all.
                assert_eq!(journal(&store, 3).read(None).await.unwrap().state, after.state);
                let known = journal(&store, 1).read(Some(before)).await.unwrap();
                assert_eq!((known.head, known.state), (after.head.clone(), after.state.clone()));
                // And once more finds nothing.
                let again = journal(&store, 4).salvage(None).await.unwrap();
                assert!(again.is_sound() && !again.is_partial && again.named_before == 1, "{again:?}");
                assert_eq!(again.view.state, after.state);
                // It goes on.
                let (permit, view) =
                    journal(&store, 1).take_over(&after, &elected(), TakeoverReason::Moved).await.unwrap();
                let view = journal(&store, 1).append(&permit, &view, snapshot(99), None).await.unwrap();
                assert_eq!(journal(&store, 3).read(None).await.unwrap().state, view.state);
            }
        }
    }
}

#[tokio::test]
async fn who_was_away_since_before_a_lost_record_cannot_take_its_number() {
    let store = MemoryStore::new(&Env::host());
    let views = filled(&store, 4).await;
    store.tamper(&key(4), None);
    repair(&store, None).await;
    let away = journal(&store, 1);
    let stale = away.take_over(&views[3], &elected(), TakeoverReason::Restart).await;
    assert!(matches!(stale, Err(AppendError::Fenced(_) | AppendError::Moved(_))), "{stale:?}");
    let here = journal(&store, 2);
    assert_eq!(here.read_object(Seq(4)).await.unwrap(), Some(here.void_placeholder(Seq(4))));
}

#[tokio::test]
async fn what_a_node_remembers_brings_back_what_a_lost_record_said() {
    let whole = MemoryStore::new(&Env::host());
    let views = filled(&whole, 4).await;
    for lost in 1..=5u64 {
        for seen in lost..=5 {
            let store = MemoryStore::new(&Env::host());
            for (key, object) in whole.objects() {
                store.tamper(&key, Some(object));
            }
            store.tamper(&key(lost), Some(Bytes::from_static(b"x")));
            let (salvaged, after) = repair(&store, Some(&views[seen as usize])).await;
            assert!(!salvaged.is_partial, "{lost}, seen to {seen}");
            assert_eq!(roots(&after), [1, 2, 3, 4], "{lost}, seen to {seen}");
            let mut indexes = after.state.indexes.clone();
            indexes.sort();
            assert_eq!(indexes, views[5].state.indexes);
            assert_eq!(journal(&store, 3).read(None).await.unwrap().state, after.state);
        }
    }
}

#[tokio::test]
async fn newest_records_that_are_lost_come_back_from_who_saw_them_and_their_numbers_are_used_again() {
    for lost in 1..=5u64 {
        let store = MemoryStore::new(&Env::host());
        let views = filled(&store, 4).await;
        let (newest, before) = (&views[5], &views[(5 - lost) as usize]);
        for seq in 5 - lost + 1..=5 {
            store.tamper(&key(seq), None);
        }
        let reader = journal(&store, 1);
        assert!(reader.read(Some(newest)).await.unwrap_err().is_rolled_back());
        let salvaged = reader.salvage(Some(newest)).await.unwrap();
        assert_eq!(salvaged.lost_tail.map(|end| (end.from.0, end.to.0)), Some((5 - lost + 1, 5)));
        let (_, after) = repair(&store, Some(newest)).await;
        assert_eq!(after.head.as_ref().unwrap().seq.0, 5 - lost + 1);
        assert_eq!(roots(&after), [1, 2, 3, 4]);
        assert_eq!(after.term().0, 2);
        // For nodes that remember each part of it, and for one that remembers nothing.
        for known in views[1..].iter().map(Some).chain([None]) {
            let read = reader.read(known).await.unwrap();
            assert_eq!(read.state, after.state);
            assert!(reader.salvage(known).await.unwrap().is_sound());
        }
        assert_eq!(before.head.is_some(), lost < 5);
    }
}

#[tokio::test]
async fn a_store_that_is_set_back_to_a_repair_is_not_forgiven() {
    let store = MemoryStore::new(&Env::host());
    let views = filled(&store, 4).await;
    store.tamper(&key(5), None);
    let (_, repaired) = repair(&store, Some(&views[5])).await;
    let set_back = store.objects();
    let here = journal(&store, 2);
    let (permit, view) = here.take_over(&repaired, &elected(), TakeoverReason::Moved).await.unwrap();
    let newer = here.append(&permit, &view, snapshot(9), None).await.unwrap();
    for (key, _) in store.objects() {
        store.tamper(&key, set_back.get(&key).cloned());
    }
    assert!(here.read(Some(&newer)).await.unwrap_err().is_rolled_back());
    assert!(here.read(Some(&view)).await.unwrap_err().is_rolled_back(), "a number that the repair calls lost");
    assert_eq!(here.read(Some(&views[5])).await.unwrap().state, repaired.state);
}

#[tokio::test]
async fn what_lies_far_beyond_the_end_is_nothing_that_a_repair_names() {
    let store = MemoryStore::new(&Env::host());
    filled(&store, 4).await;
    store.tamper(&key(9_000_000_000), Some(Bytes::from_static(b"x")));
    let refused = journal(&store, 2).salvage(None).await;
    assert!(matches!(refused, Err(SalvageError::TooMany { last: Seq(9_000_000_000), .. })), "{refused:?}");
}

#[tokio::test]
async fn a_gap_is_seen_by_who_has_read_beyond_it_until_it_is_named() {
    let store = MemoryStore::new(&Env::host());
    let views = filled(&store, 4).await;
    let here = journal(&store, 1);
    assert_eq!(here.missing_records(&views[5]).await.unwrap(), []);
    store.tamper(&key(3), None);
    store.tamper("app/journal/notes", Some(Bytes::from_static(b"x")));
    assert_eq!(here.missing_records(&views[5]).await.unwrap(), [Seq(3)]);
    assert_eq!(here.read(Some(&views[5])).await.unwrap(), views[5], "it goes on");
    let (_, after) = repair(&store, None).await;
    assert_eq!(here.missing_records(&after).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_listing_lacks_is_no_gap_while_it_is_there() {
    let store = MemoryStore::new(&Env::host());
    let views = filled(&store, 40).await;
    // Each listing lacks some of the newest keys.
    let lagging = FaultyStore::new(Arc::new(store.clone()), FaultPlan::random(1, 1000, &[InjectedFault::StaleListing]));
    let node = WriterNode { id: NodeId([1; 16]), name: "n1".to_owned() };
    let here = Journal::new(Arc::new(lagging), keys(Cipher::None), Env::host(), node, InstanceId([1; 8]));
    let newest = views.last().unwrap();
    for _ in 0..20 {
        assert_eq!(here.missing_records(newest).await.unwrap(), []);
    }
    store.tamper(&key(3), None);
    assert_eq!(here.missing_records(newest).await.unwrap(), [Seq(3)]);
}

/// Loses record `lost` of six, and lets a writer that has seen them all continue after it was read.
async fn gone_on(lost: u64, remembers: bool) -> (MemoryStore, Journal, SalvageProgress, Permit, JournalView) {
    let store = MemoryStore::new(&Env::host());
    let writer = journal(&store, 1);
    let empty = writer.read(None).await.unwrap();
    let (permit, mut view) = writer.take_over(&empty, &elected(), TakeoverReason::First).await.unwrap();
    for n in 1..=5 {
        view = writer.append(&permit, &view, snapshot(n), Some(at(n))).await.unwrap();
    }
    store.tamper(&key(lost), None);
    let reader = journal(&store, 2);
    let mending = reader.start_salvage(remembers.then_some(&view)).await.unwrap();
    for n in 6..=8 {
        view = writer.append(&permit, &view, snapshot(n), Some(at(n))).await.unwrap();
    }
    (store, reader, mending, permit, view)
}

#[tokio::test]
async fn what_is_appended_meanwhile_is_all_that_is_read_again() {
    for lost in 1..=5 {
        for remembers in [false, true] {
            let (store, reader, mending, permit, view) = Box::pin(gone_on(lost, remembers)).await;
            let refused =
                reader.repair(&mending.salvaged, mending.salvaged.view.state.clone(), &elected(), false).await;
            assert!(matches!(refused, Err(AppendError::Moved(_))), "{lost} {remembers}: {refused:?}");
            // What was read before is not looked at.
            let whole = store.objects()[&key(6)].clone();
            store.tamper(&key(6), None);
            let on = reader.continue_salvage(&mending).await.unwrap();
            store.tamper(&key(6), Some(whole));
            let fresh = reader.salvage(remembers.then_some(&view)).await.unwrap();
            let Some(on) = on else {
                assert!(
                    !remembers && mending.salvaged.may_lack_indexes() != fresh.may_lack_indexes(),
                    "{lost} {remembers}"
                );
                continue;
            };
            assert_eq!(
                (&on.salvaged.view, &on.salvaged.lost_records),
                (&fresh.view, &fresh.lost_records),
                "{lost} {remembers}"
            );
            assert!(reader.continue_salvage(&on).await.unwrap().is_none(), "nothing is new");
            assert!(reader.fill_void_numbers(&on.salvaged).await.unwrap());
            let (_, after) =
                reader.repair(&on.salvaged, on.salvaged.view.state.clone(), &elected(), false).await.unwrap();
            assert_eq!(after.head.as_ref().unwrap().seq, Seq(10));
            let fenced = journal(&store, 1).append(&permit, &view, snapshot(9), Some(at(9))).await;
            assert!(matches!(fenced, Err(AppendError::Fenced(_))), "{fenced:?}");
        }
    }
}

#[tokio::test]
async fn what_is_to_be_repaired_is_told_anew_if_more_is_lost_or_another_repairs() {
    let (store, reader, mending, ..) = Box::pin(gone_on(3, true)).await;
    store.tamper(&key(8), Some(Bytes::from_static(b"no record")));
    assert!(reader.continue_salvage(&mending).await.unwrap().is_none());
    let (store, reader, mending, _, view) = Box::pin(gone_on(3, true)).await;
    repair(&store, Some(&view)).await;
    assert!(reader.continue_salvage(&mending).await.unwrap().is_none());
    // What was lost comes back: the number is not ours.
    let (store, reader, mending, ..) = Box::pin(gone_on(3, true)).await;
    store.tamper(&key(3), Some(Bytes::from_static(b"it came back")));
    assert!(!reader.fill_void_numbers(&mending.salvaged).await.unwrap());
}

/// Any writer to the store can put objects after the journal's end: the records before them are still read.
#[tokio::test]
async fn what_others_put_far_beyond_the_end_hides_nothing_from_a_reader() {
    let far = |store: &MemoryStore| store.tamper(&key(9_999_999_999_999_999), Some(Bytes::from("junk")));
    let many = |store: &MemoryStore| {
        (5..=VOID_MAX as u64 + 6).for_each(|seq| store.tamper(&key(seq), Some(Bytes::from("junk"))));
    };
    let ways: [&dyn Fn(&MemoryStore); 2] = [&far, &many];
    for put in ways {
        let store = MemoryStore::new(&Env::host());
        let views = filled(&store, 3).await;
        let last = views.last().unwrap();
        put(&store);
        let journal = journal(&store, 2);
        for known in [None, Some(last)] {
            assert!(matches!(journal.salvage(known).await, Err(SalvageError::TooMany { .. })));
            let left = Box::pin(journal.salvage_readable(known)).await.unwrap();
            assert_eq!((left.view.state, left.lost_records), (last.state.clone(), Vec::new()));
        }
        assert_eq!(journal.sound_end().await.unwrap(), Seq(4));
    }
}

/// Records come before everything else: where index objects are and no record is, all of them are lost.
#[tokio::test]
async fn a_journal_that_lost_every_record_is_not_an_empty_one() {
    let (store, keys) = (MemoryStore::new(&Env::host()), keys(Cipher::None));
    filled(&store, 2).await;
    let id = IndexId([5; 16]);
    let index = encode_index(&keys, id, [1; 32], &[]);
    store.put(&object_keys::index(keys.role(), id), index).await.unwrap();
    (1..=3).for_each(|seq| store.tamper(&key(seq), None));
    let reading = journal(&store, 2);
    for read in [reading.read(None).await, reading.read_listed(None).await] {
        assert!(matches!(read, Err(JournalError::Hole(Seq::FIRST))), "{read:?}");
    }
    let (salvaged, view) = repair(&store, None).await;
    assert_eq!(salvaged.lost_records.iter().map(|lost| lost.seq).collect::<Vec<_>>(), [Seq::FIRST]);
    assert_eq!(reading.read(None).await.unwrap(), view);
    // What others put there proves nothing.
    let store = MemoryStore::new(&Env::host());
    store.put(&object_keys::index(keys.role(), id), Bytes::from("RUNI")).await.unwrap();
    assert_eq!(journal(&store, 2).read(None).await.unwrap().head, None);
}
