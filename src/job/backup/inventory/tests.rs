//! Over a store in memory that loses objects: lost content is stored again by the next run that compares, or is
//! reported.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::ids::{ChunkId, NodeId};
use crate::job::backup::outcome::CommittedBackup;
use crate::job::backup::request::BackupOptions;
use crate::job::local_state::LocalState;
use crate::job::local_state::saved_state::{IndexComparison, SavedState};
use crate::job::node::context::NodeContext;
use crate::job::report::LossReport;
use crate::job::report::verified::VerifyReport;
use crate::job::repository::loss_notes;
use crate::job::testing::{JobFixture, noise};
use crate::job::verify::verify;
use crate::repo::reader::stream_tables;
use crate::store::counting::CountingStore;

const MIB: usize = 1 << 20;

/// A fixture with a snapshot of some files, of which `big` has packs of its own.
async fn rig() -> JobFixture {
    let rig = JobFixture::new().await;
    rig.write("big", noise(1, 3 * MIB));
    rig.write("small", "small");
    rig.write("sub/other", noise(2, MIB / 2));
    rig.backup().await;
    rig
}

/// The first chunk of a file in the newest snapshot.
async fn chunk_of(rig: &JobFixture, name: &str) -> ChunkId {
    let archive = rig.archive().await;
    let root = archive.snapshots().last().unwrap().root;
    let reader = archive.reader().await.unwrap();
    reader.entry(root, &rig.path(name)).await.unwrap().unwrap().kind.chunks()[0]
}

/// The key of the pack that holds a chunk.
async fn pack_of(rig: &JobFixture, chunk: &ChunkId) -> String {
    let reader = rig.archive().await.reader().await.unwrap();
    object_keys::pack(&rig.role.name, reader.index().find(chunk).unwrap().0.pack)
}

/// The key of the pack that holds a file.
async fn pack_with(rig: &JobFixture, name: &str) -> String {
    pack_of(rig, &chunk_of(rig, name).await).await
}

async fn check(rig: &JobFixture) -> VerifyReport {
    let role = &rig.role;
    verify(rig.store.clone(), &role.name, &role.key, 100, &|_| None, &Arc::default(), &rig.env).await.unwrap()
}

/// Every snapshot is complete, content included.
async fn assert_whole(rig: &JobFixture) {
    let report = check(rig).await;
    assert_eq!(report.damage_count, 0, "{:?}", report.damages);
    assert!(report.losses.is_empty());
}

fn local(rig: &JobFixture) -> LocalState {
    LocalState::open(&rig.env, &rig.state_dir(), rig.repository.keys.repo()).unwrap()
}

/// Dates the last comparison back by a day.
fn next_day(rig: &JobFixture) {
    let (local, mut memory) = (local(rig), local(rig).load(rig.node));
    let compared = memory.compared.unwrap();
    memory.compared = Some(IndexComparison { at: compared.at - jiff::SignedDuration::from_hours(24), ..compared });
    local.save(&memory).unwrap();
}

/// Notes the losses as verify does.
async fn tell(rig: &JobFixture, local: Option<&LocalState>) {
    let losses = check(rig).await.losses;
    assert!(!losses.is_empty());
    loss_notes::note_losses(&rig.repository, local, &rig.env, "north", &losses).await;
}

fn other_node(rig: &JobFixture) -> NodeContext {
    let mut node_context = NodeContext { state_dir: rig.dir.path().join("other"), ..rig.node_context() };
    node_context.node.id = NodeId([2; 16]);
    node_context
}

/// Asserts that nothing stays lost.
#[track_caller]
fn healed(committed: &CommittedBackup, bytes: usize) {
    let loss = committed.loss.as_ref().expect("it was found");
    assert_eq!((loss.packs, loss.missing_files, loss.missing.len()), (1, Some(0), 0), "{loss:?}");
    assert!(loss.healed_bytes >= bytes as u64, "{loss:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pack_is_restored_whichever_reader_finds_the_loss() {
    for way in ["the same node, the next day", "rehash", "another node", "a note", "this node's note", "a broken run"] {
        let rig = rig().await;
        let (node_context, mut ask) = (rig.node_context(), BackupOptions::default());
        rig.memory.tamper(&pack_with(&rig, "big").await, None);
        let committed = match way {
            "another node" => rig.backup_by(&other_node(&rig)).await,
            "rehash" => {
                ask.rehash = true;
                rig.backup_as(&node_context, &ask).await
            }
            way => {
                match way {
                    "a note" => tell(&rig, None).await,
                    "this node's note" => {
                        tell(&rig, Some(&local(&rig))).await;
                        rig.memory.tamper("app/live/loss", None);
                    }
                    "a broken run" => {
                        let memory = local(&rig).load(rig.node);
                        local(&rig).save(&SavedState { clean: None, ..memory }).unwrap();
                    }
                    _ => next_day(&rig),
                }
                rig.backup().await
            }
        };
        healed(&committed, 3 * MIB);
        assert_eq!(committed.files.changed, 0, "{way}: no file has changed");
        assert_whole(&rig).await;
        let noted_losses = loss_notes::read_notes(rig.store.as_ref(), &rig.repository.keys, Some(&local(&rig))).await;
        assert_eq!(noted_losses.newest(), None, "{way}: what was noted is done");
        assert_eq!(rig.backup().await.loss, None, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_touched_file_is_no_reason_to_look_and_finds_nothing_lost_twice() {
    let rig = rig().await;
    rig.memory.tamper(&pack_with(&rig, "big").await, None);
    rig.write("more", "more");
    assert_eq!(rig.backup().await.loss, None, "it was looked at today");
    next_day(&rig);
    rig.write("more", "and more");
    healed(&rig.backup().await, 3 * MIB);
    let snapshots = rig.archive().await.snapshots().len();
    assert_eq!(snapshots, 3);
    next_day(&rig);
    assert_eq!(rig.backup().await.loss, None, "the lost pack is in the index still, and nothing is lost with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_manifest_comes_back_as_it_was() {
    for elsewhere in [false, true] {
        let rig = rig().await;
        let root = rig.archive().await.snapshots()[0].root;
        rig.memory.tamper(&pack_of(&rig, &root).await, None);
        next_day(&rig);
        let committed = if elsewhere { rig.backup_by(&other_node(&rig)).await } else { rig.backup().await };
        healed(&committed, 1);
        assert_eq!(committed.snapshot.root, root);
        assert_whole(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_or_damaged_comes_back_as_well() {
    // Removes the last byte of the trailer, or all but the header; changes a byte of a frame, or of the trailer.
    type Change = fn(&[u8]) -> Vec<u8>;
    let flip = |at: usize| {
        move |whole: &[u8]| {
            let mut bytes = whole.to_vec();
            let at = if at == 0 { bytes.len() - 60 } else { at };
            bytes[at] ^= 1;
            bytes
        }
    };
    type Harm = Box<dyn Fn(&[u8]) -> Vec<u8>>;
    let ways: [(&str, Harm); 5] = [
        ("cut by a byte", Box::new((|whole| whole[..whole.len() - 1].to_vec()) as Change)),
        ("cut to its head", Box::new((|whole| whole[..50].to_vec()) as Change)),
        ("longer", Box::new((|whole| [whole, b"!"].concat()) as Change)),
        ("a frame", Box::new(flip(5000))),
        ("the trailer", Box::new(flip(0))),
    ];
    for (what, change) in ways {
        let rig = rig().await;
        let key = pack_with(&rig, "big").await;
        let whole = rig.memory.objects()[&key].clone();
        rig.memory.tamper(&key, Some(Bytes::from(change(&whole))));
        tell(&rig, None).await;
        let committed = rig.backup().await;
        healed(&committed, 3 * MIB);
        let report = check(&rig).await;
        assert_eq!(report.damage_count, 0, "{what}: {:?}", report.damages);
        assert_eq!(rig.backup().await.loss, None, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_source_is_named_and_nothing_counts_on_it() {
    for damaged in [false, true] {
        let rig = rig().await;
        let (chunk, key) = (chunk_of(&rig, "big").await, pack_with(&rig, "big").await);
        let reader = rig.archive().await.reader().await.unwrap();
        let (place, pack) = reader.index().find(&chunk).unwrap();
        let inside = pack.frames[place.frame as usize].offset as usize + 100;
        let content = std::fs::read(rig.src().join("big")).unwrap();
        std::fs::remove_file(rig.src().join("big")).unwrap();
        let change = |whole: &Bytes| {
            let mut bytes = whole.to_vec();
            bytes[inside] ^= 1;
            Bytes::from(bytes)
        };
        let left = damaged.then(|| change(&rig.memory.objects()[&key]));
        rig.memory.tamper(&key, left);
        tell(&rig, None).await;
        let loss = rig.backup().await.loss.unwrap();
        assert_eq!((loss.packs, loss.missing_files), (1, Some(1)), "{loss:?}");
        assert_eq!(loss.missing.iter().map(|file| rig.below(&file.path)).collect::<Vec<_>>(), ["/big"]);
        let known = LossReport { packs: 1, missing_files: Some(1), ..LossReport::default() };
        assert_eq!(rig.backup().await.loss, Some(known), "it is told until it is not so any more");
        // The content comes again on the same day: the index has it, but the store does not.
        rig.write("big", &content);
        let committed = rig.backup().await;
        assert!(committed.bytes.new >= 3 * MIB as u64, "{committed:?}");
        assert_eq!(chunk_of(&rig, "big").await, chunk);
        assert_whole(&rig).await;
        next_day(&rig);
        assert_eq!(rig.backup().await.loss, None);
        let noted_losses = loss_notes::read_notes(rig.store.as_ref(), &rig.repository.keys, Some(&local(&rig))).await;
        assert_eq!(noted_losses, loss_notes::read_notes(rig.store.as_ref(), &rig.repository.keys, None).await);
        assert_eq!(noted_losses.newest(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_unchanged_runs_costs_one_listing_of_each_kind() {
    let mut rig = rig().await;
    let (counting, counters) = CountingStore::new(rig.store.clone());
    rig.repository.store = Arc::new(counting);
    let mut listings = Vec::new();
    for day in 0..2 {
        if day > 0 {
            next_day(&rig);
        }
        for _ in 0..3 {
            let before = counters.snapshot();
            rig.backup().await;
            let after = counters.snapshot();
            listings.push((after.list - before.list, after.get + after.get_range - before.get - before.get_range));
        }
    }
    let lists: Vec<u64> = listings.iter().map(|(list, _)| *list).collect();
    let usual = lists[0];
    // One listing of the packs, and one of the index objects.
    assert_eq!(lists, [usual, usual, usual, usual + 2, usual, usual]);
    // The index object is fetched once, and cached. Some runs also write a presence object.
    let most = listings[0].1 + 1;
    assert!(listings.iter().all(|(_, gets)| *gets <= most), "{listings:?}");
}

/// Compares the packs of the newest index with this listing.
async fn compare_with(rig: &JobFixture, listed: &HashMap<PackId, u64>) -> (ChunkIndex, LostContent) {
    let (store, keys) = (rig.store.as_ref(), &rig.repository.keys);
    let view = rig.archive().await.view;
    let tables = stream_tables(store, keys, &view.state.indexes, None);
    compare(store, keys, tables, listed, &PackLosses::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_lacks_what_is_there_loses_nothing() {
    let rig = rig().await;
    let all = list_packs(rig.store.as_ref(), &rig.repository.keys).await.unwrap();
    let (whole, lost) = compare_with(&rig, &all).await;
    assert_eq!(lost, LostContent::default());
    let wrong: HashMap<PackId, u64> = all.iter().map(|(id, size)| (*id, size + 1)).collect();
    for listed in [HashMap::new(), wrong] {
        let (index, lost) = compare_with(&rig, &listed).await;
        assert_eq!((index.len(), lost), (whole.len(), LostContent::default()), "each of them was asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_moves_nothing_out_of_what_is_lost_and_drops_it_when_it_is_replaced() {
    use crate::config::{RetentionPolicy, RoleSettings};
    use crate::job::admission::role_journal::RoleJournal;
    use crate::job::prune::prune_admitted;
    let mut rig = rig().await;
    rig.write("gone", noise(9, 2 * MIB));
    rig.backup().await;
    std::fs::remove_file(rig.src().join("gone")).unwrap();
    rig.backup().await;
    rig.role = RoleSettings {
        keep: Some(RetentionPolicy { last: 1, ..RetentionPolicy::default() }),
        max_unused: 0,
        prune_grace: std::time::Duration::ZERO,
        ..rig.role
    };
    let prune = async || {
        let node_context = rig.node_context();
        let opening = RoleJournal::open(&node_context, &rig.repository).await.unwrap();
        let zone = jiff::tz::TimeZone::UTC;
        prune_admitted(&node_context, &rig.role, &zone, opening, &rig.candidacy(), std::future::pending())
            .await
            .unwrap()
    };
    let key = pack_with(&rig, "big").await;
    let whole = rig.memory.objects()[&key].clone();
    rig.memory.tamper(&key, Some(whole.slice(..whole.len() / 2)));
    let report = prune().await;
    assert_eq!((report.packs_lost, report.packs_repacked), (1, 0), "{report:?}");
    assert!(rig.memory.objects().contains_key(&key), "what is left of it stays");
    healed(&rig.backup().await, MIB);
    let report = prune().await;
    assert_eq!(report.packs_lost, 0, "{report:?}");
    assert!(!rig.memory.objects().contains_key(&key), "nothing needs it any more");
    assert_whole(&rig).await;
}
