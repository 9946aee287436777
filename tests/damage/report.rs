//! What a report says: the files that a damage costs, and nothing that is not so.

use std::sync::Arc;

use runner::ids::Seq;
use runner::job::node::progress::JobProgress;
use runner::job::report::verified::{DamageKind, DamagedObject, VerifyReport};
use runner::job::verify::verify;
use runner::repo::object_keys;
use runner::store::counting::CountingStore;

use super::rig::Rig;

/// Which files of which snapshots (0 is the oldest) a damage costs, below the source.
fn affected(rig: &Rig, damage: &DamagedObject) -> Vec<(usize, String)> {
    let source = rig.role.sources[0].to_str().unwrap();
    let number = |id| rig.view.state.snapshots.iter().position(|s| s.id == id).unwrap();
    let mut all: Vec<_> = damage
        .affected
        .iter()
        .map(|a| (number(a.snapshot), a.path.display().replacen(&format!("{source}/"), "", 1)))
        .collect();
    all.sort();
    all
}

fn only(report: VerifyReport) -> DamagedObject {
    assert_eq!((report.damages.len(), report.damage_count), (1, 1), "{:?}", report.damages);
    report.damages.into_iter().next().unwrap()
}

/// The pack that holds the content of the source's file `name` in the oldest snapshot.
async fn pack_of(rig: &Rig, name: &str) -> String {
    let content = &rig.content[0];
    let (entry, _) = content.iter().find(|(e, _)| e.path.name() == name.as_bytes()).unwrap();
    let repository = rig.open().await.unwrap();
    let indexes = &rig.view.state.indexes;
    let index = runner::repo::reader::load_index(&rig.memory, &repository.keys, indexes, None).await.unwrap();
    let (place, _) = index.find(&entry.kind.chunks()[0]).unwrap();
    object_keys::pack(&rig.role.name, place.pack)
}

#[tokio::test]
async fn a_lost_pack_costs_these_files_of_these_snapshots() {
    let rig = Rig::new(true).await;
    let key = pack_of(&rig, "a").await;
    rig.memory.tamper(&key, None);
    for percent in [0, 100] {
        let damage = only(rig.verify(percent).await.unwrap());
        assert_eq!(
            (damage.object.as_str(), damage.kind, damage.what.as_str()),
            (key.as_str(), DamageKind::Pack, "is missing")
        );
        let lost: Vec<(usize, &str)> = vec![
            (0, "a"),
            (0, "b"),
            (0, "link"),
            (0, "sparse"),
            (1, "a"),
            (1, "link"),
            (1, "sparse"),
            (2, "a"),
            (2, "link"),
            (2, "sparse"),
        ];
        let found = affected(&rig, &damage);
        assert_eq!(found.iter().map(|(n, name)| (*n, name.as_str())).collect::<Vec<_>>(), lost);
        assert_eq!(damage.affected_count, 10);
    }
}

#[tokio::test]
async fn a_flip_in_content_shows_only_when_it_is_read_and_a_lost_index_costs_what_it_lists() {
    let rig = Rig::new(true).await;
    let key = pack_of(&rig, "a").await;
    let pack = rig.memory.objects()[&key].clone();
    let mut flipped = pack.to_vec();
    flipped[60] ^= 1;
    rig.memory.tamper(&key, Some(flipped.into()));
    assert_eq!(rig.verify(0).await.unwrap().damage_count, 0);
    let damage = only(rig.verify(100).await.unwrap());
    assert!(damage.what.starts_with("frame 0 does not open"), "{}", damage.what);
    assert_eq!(damage.object, key);
    // Ten small files are there; how many of them share the first frame is for the workers, who take what comes.
    assert!((1..=10).contains(&damage.affected_count), "{}", damage.affected_count);
    rig.memory.tamper(&key, Some(pack));

    let key = object_keys::index(&rig.role.name, *rig.view.state.indexes.last().unwrap());
    rig.memory.tamper(&key, None);
    let damage = only(rig.verify(100).await.unwrap());
    // The manifest of the newest snapshot is listed there, so all of its entries are lost.
    assert_eq!((damage.object.as_str(), damage.kind), (key.as_str(), DamageKind::Index));
    assert_eq!(damage.affected_count, rig.view.state.snapshots[2].entries);
    assert!(damage.affected.iter().all(|a| a.snapshot == rig.view.state.snapshots[2].id));
}

#[tokio::test]
async fn a_lost_record_is_one_damage_and_the_rest_is_still_checked() {
    let mut rig = Rig::new(true).await;
    for _ in 0..62 {
        rig.back_up(2).await;
    }
    rig.reread().await;
    let snapshots = rig.view.state.snapshots.len() as u64;
    let records = rig.view.head.as_ref().unwrap().seq.0;
    assert!(records > 64, "there is a checkpoint");
    for seq in [1, 2, 4, 30, 63, 64, records] {
        let key = object_keys::record(&rig.role.name, Seq(seq));
        let record = rig.memory.objects()[&key].clone();
        let mut flipped = record.to_vec();
        flipped[100] ^= 1;
        rig.memory.tamper(&key, Some(flipped.into()));
        let report = rig.verify(0).await.unwrap();
        assert_eq!(report.checked.records, records);
        // What the lost record said is in the checkpoint.
        let unknown = u64::from(seq == 64 || seq == records);
        if seq < 64 {
            assert_eq!(report.checked.snapshots, snapshots, "record {seq}");
        } else {
            assert_eq!(report.checked.snapshots, snapshots - unknown, "record {seq}");
        }
        let damage = only(report);
        assert_eq!((damage.object.as_str(), damage.kind), (key.as_str(), DamageKind::Record));
        rig.memory.tamper(&key, Some(record));
    }
    assert_eq!(rig.verify(100).await.unwrap().damage_count, 0);
}

#[tokio::test]
async fn leftovers_are_counted_and_shared_manifests_are_read_once() {
    let rig = Rig::new(true).await;
    let count = async || {
        let (store, counters) = CountingStore::new(Arc::new(rig.memory.clone()));
        let (progress, nothing) = (JobProgress::default(), |_| None);
        let (role, env) = (&rig.role, &rig.env);
        let report = verify(Arc::new(store), &role.name, &role.key, 0, &nothing, &progress, env).await.unwrap();
        assert_eq!(report.damage_count, 0, "{:?}", report.damages);
        (report, counters.snapshot())
    };
    let (before, few) = count().await;
    for _ in 0..5 {
        rig.back_up(2).await;
    }
    let (after, more) = count().await;
    assert_eq!(after.checked.snapshots, before.checked.snapshots + 5);
    assert_eq!(more.get_range, few.get_range, "an unchanged snapshot costs nothing but its record");
    assert_eq!(more.get, few.get + 5);
    assert_eq!((before.checked.unreferenced, before.checked.packs), (0, after.checked.packs));

    let objects = rig.memory.objects();
    let (_, pack) = objects.iter().find(|(key, _)| key.contains("/packs/")).unwrap();
    rig.memory.tamper("app/packs/00/00000000000000000000000000000000", Some(pack.clone()));
    rig.memory.tamper("app/packs/stray", Some(pack.clone()));
    rig.memory.tamper("app/index/00000000000000000000000000000000", Some(pack.clone()));
    rig.memory.tamper("app/journal/notes", Some(pack.clone()));
    assert_eq!(count().await.0.checked.unreferenced, 4);
}
