//! The ways in, over a store in memory; tests/loss.rs has every object and every harm.

use super::*;
use crate::config::{KeySource, StoreSettings, StoreUrl};
use crate::job::known::Place;
use crate::job::seat::Seats;
use crate::job::testing::Rig;
use crate::repo::crypto::Cipher;
use crate::repo::format::Format;

struct Scene {
    rig: Rig,
    place: Place,
    seats: Seats,
}

impl Scene {
    /// A repository with one snapshot, on a node that remembers it.
    async fn new() -> Self {
        let rig = Rig::new().await;
        rig.write("a", "content");
        rig.backup().await;
        let place = Place::new(&StoreSettings::new(StoreUrl::Dir("/b".into()), KeySource::None), &rig.role.name);
        place.remember(&rig.env, &rig.state_dir(), &rig.repository).unwrap();
        Self { rig, place, seats: Seats::default() }
    }

    fn by<'a>(&'a self, state_dir: Option<&'a std::path::Path>) -> Repairer<'a> {
        let rig = &self.rig;
        let (role, key, env) = (&rig.role.name, &rig.role.key, &rig.env);
        let step = Doorstep { role, key, place: &self.place, state_dir, seats: &self.seats, env };
        let node = NodeRef { id: rig.node, name: "east".to_owned() };
        let (instance, role) = (InstanceId([7; 8]), &rig.role);
        Repairer { step, node, instance, role, assessment: None, force: false, key_slot: false, read_data: false }
    }

    fn key(&self) -> String {
        names::format(&self.rig.role.name)
    }

    async fn repair(&self, remembers: bool) -> Result<RepairReport, RepairError> {
        let state_dir = self.rig.state_dir();
        repair(self.rig.store.clone(), &self.by(remembers.then_some(state_dir.as_path()))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_comes_back_as_it_was_or_from_the_key_and_is_never_weaker() {
    let scene = Scene::new().await;
    let (memory, key) = (&scene.rig.memory, scene.key());
    let whole = memory.objects()[&key].clone();
    let planted = {
        let format =
            Format { cipher: Cipher::None, clear_key: Some("00".repeat(32)), ..scene.rig.repository.format.clone() };
        let keys = format.keys(format.clear_master().unwrap());
        Bytes::from(format.encode(&keys))
    };
    for harmed in [None, Some(Bytes::new()), Some(whole.slice(..whole.len() - 5)), Some(planted.clone())] {
        for remembers in [true, false] {
            memory.tamper(&key, harmed.clone());
            let before = memory.objects();
            let state_dir = scene.rig.state_dir();
            let by = scene.by(remembers.then_some(state_dir.as_path()));
            let seen = survey(scene.rig.store.clone(), &by).await.unwrap();
            assert_eq!(memory.objects(), before, "a dry run changes nothing");
            let source = if remembers { FormatSource::Memory } else { FormatSource::Journal };
            assert!(
                matches!(seen.findings[..], [Finding::Format { source: found, .. }] if found == source),
                "{seen:?}"
            );
            scene.repair(remembers).await.unwrap();
            let there = memory.objects()[&key].clone();
            assert_eq!(there == whole, remembers, "the very same object");
            let format = Format::parse(&there, &scene.rig.role.name).unwrap();
            assert_eq!((format.cipher, format.repo), (Cipher::Aes256GcmSiv, scene.rig.repository.format.repo));
            Format::verify(&there, &scene.rig.repository.keys).unwrap();
        }
    }
    // What a node was made to remember is not believed either.
    let local = Local::peek(&scene.rig.env, &scene.rig.state_dir(), scene.rig.repository.format.repo);
    local.remember_way(&planted, None).unwrap();
    memory.tamper(&key, None);
    scene.repair(true).await.unwrap();
    assert_eq!(Format::parse(&memory.objects()[&key], &scene.rig.role.name).unwrap().cipher, Cipher::Aes256GcmSiv);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_no_format_is_made_up() {
    let mut scene = Scene::new().await;
    scene.rig.role.key = KeySource::None;
    let key = scene.key();
    scene.rig.memory.tamper(&key, None);
    for remembers in [true, false] {
        assert!(matches!(scene.repair(remembers).await, Err(RepairError::Open(OpenError::NoRepository { .. }))));
    }
    assert!(!scene.rig.memory.objects().contains_key(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_slot_is_written_again_only_if_that_is_asked_for() {
    let scene = Scene::new().await;
    let slot = names::key(&scene.rig.role.name, scene.rig.repository.slot.unwrap());
    let whole = scene.rig.memory.objects()[&slot].clone();
    scene.rig.memory.tamper(&slot, None);
    assert!(matches!(scene.repair(false).await, Err(RepairError::Open(OpenError::NoKeySlots { .. }))));
    let report = scene.repair(true).await.unwrap();
    assert!(matches!(report.findings[..], [Finding::KeySlot { put_back: false, .. }]), "{report:?}");
    assert!(report.keys.is_empty() && !scene.rig.memory.objects().contains_key(&slot));
    let state_dir = scene.rig.state_dir();
    let by = Repairer { key_slot: true, ..scene.by(Some(&state_dir)) };
    let report = repair(scene.rig.store.clone(), &by).await.unwrap();
    assert_eq!((report.keys.len(), scene.rig.memory.objects().get(&slot)), (1, Some(&whole)));
    assert_eq!(report.record, None, "the journal has nothing to do with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_meanwhile_is_looked_at_and_stays() {
    let scene = Scene::new().await;
    let (memory, state_dir) = (&scene.rig.memory, scene.rig.state_dir());
    scene.rig.write("b", "more");
    scene.rig.backup().await;
    let lost = memory.objects().into_keys().filter(|key| key.contains("/journal/")).nth(1).unwrap();
    memory.tamper(&lost, None);
    let by = scene.by(Some(&state_dir));
    let plan = Box::pin(Plan::make(scene.rig.store.clone(), &by)).await.unwrap();
    assert!(plan.needs_record());
    scene.rig.write("c", "what comes after");
    let committed = scene.rig.backup().await;
    let mut written = Written::default();
    assert!(plan.apply(&by, false, &mut written).await.unwrap().is_none(), "it moved on");
    let objects = memory.objects().len();
    let Some(plan) = Box::pin(plan.grown()).await.unwrap() else { panic!("what was committed is no other loss") };
    let report = plan.apply(&by, false, &mut written).await.unwrap().expect("nothing came between");
    assert_eq!(memory.objects().len(), objects + 1, "nothing is written twice");
    assert_eq!(report.snapshots.len(), 3);
    let archive = scene.rig.archive().await;
    assert!(archive.view.state.snapshots.iter().any(|snapshot| snapshot.id == committed.snapshot.id));
    let again = survey(scene.rig.store.clone(), &by).await.unwrap();
    assert!(again.findings.is_empty(), "{again:?}");
    let lost = |report: &RepairReport| report.snapshots.iter().map(|loss| loss.lost_count).collect::<Vec<_>>();
    assert_eq!(lost(&again), lost(&report));
}
