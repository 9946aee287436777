//! Opening damaged repositories over a store in memory; tests/loss/ covers every object and every kind of damage.

use super::*;
use crate::config::{KeySource, StoreSettings, StoreUrl};
use crate::env::RandomSource;
use crate::env::testing::SteppingClock;
use crate::ids::Seq;
use crate::job::keys::rotate::{KeyRotator, RotateRequest, rotate};
use crate::job::node::progress::JobProgress;
use crate::job::operate::OperatorContext;
use crate::job::report::repaired::SnapshotLoss;
use crate::job::report::verified::DamageKind;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::job::repository::read_only::JournalEndLookup;
use crate::job::testing::{JobFixture, noise};
use crate::job::verify::verify;
use crate::journal::append::UnfencedAction;
use crate::repo::crypto::Cipher;
use crate::repo::format::RepositoryFormat;
use crate::store::memory::MemoryStore;
use crate::store::memory_tracking::MemoryTrackingStore;

struct Scene {
    rig: JobFixture,
    place: RepositoryLocation,
    journal_access: JournalAccess,
}

impl Scene {
    /// A repository with one snapshot, on a node that remembers it.
    async fn new() -> Self {
        let rig = JobFixture::new().await;
        rig.write("a", "content");
        rig.backup().await;
        let place =
            RepositoryLocation::new(&StoreSettings::new(StoreUrl::Dir("/b".into()), KeySource::None), &rig.role.name);
        place.remember(&rig.env, &rig.state_dir(), &rig.repository).unwrap();
        Self { rig, place, journal_access: JournalAccess::default() }
    }

    fn by<'a>(&'a self, state_dir: Option<&'a std::path::Path>) -> RepairRequest<'a> {
        let rig = &self.rig;
        let (role, key, env) = (&rig.role.name, &rig.role.key, &rig.env);
        let step =
            RecoveryInputs { role, key, place: &self.place, state_dir, journal_access: &self.journal_access, env };
        let node = WriterNode { id: rig.node, name: "east".to_owned() };
        let (instance, role) = (InstanceId([7; 8]), &rig.role);
        RepairRequest {
            inputs: step,
            node,
            instance,
            role,
            assessment: None,
            force: false,
            key_slot: false,
            read_data: false,
        }
    }

    fn key(&self) -> String {
        object_keys::format(&self.rig.role.name)
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
        let format = RepositoryFormat {
            cipher: Cipher::None,
            clear_key: Some("00".repeat(32)),
            ..scene.rig.repository.format.clone()
        };
        let keys = format.derive_keys(format.plaintext_key().unwrap());
        Bytes::from(format.encode(&keys))
    };
    for harmed in [None, Some(Bytes::new()), Some(whole.slice(..whole.len() - 5)), Some(planted.clone())] {
        for remembers in [true, false] {
            memory.tamper(&key, harmed.clone());
            let before = memory.objects();
            let state_dir = scene.rig.state_dir();
            let by = scene.by(remembers.then_some(state_dir.as_path()));
            let seen = dry_run(scene.rig.store.clone(), &by).await.unwrap();
            assert_eq!(memory.objects(), before, "a dry run changes nothing");
            let source = if remembers { FormatSource::Memory } else { FormatSource::Journal };
            assert!(
                matches!(seen.findings[..], [RepairFinding::Format { source: found, .. }] if found == source),
                "{seen:?}"
            );
            scene.repair(remembers).await.unwrap();
            let there = memory.objects()[&key].clone();
            assert_eq!(there == whole, remembers, "the very same object");
            let format = RepositoryFormat::parse(&there, &scene.rig.role.name).unwrap();
            assert_eq!((format.cipher, format.repo), (Cipher::Aes256GcmSiv, scene.rig.repository.format.repo));
            RepositoryFormat::verify(&there, &scene.rig.repository.keys).unwrap();
        }
    }
    // A forged copy in the node's state directory is not accepted either.
    let local = LocalState::peek(&scene.rig.env, &scene.rig.state_dir(), scene.rig.repository.format.repo);
    local.save_unlock_objects(&planted, None).unwrap();
    memory.tamper(&key, None);
    scene.repair(true).await.unwrap();
    assert_eq!(
        RepositoryFormat::parse(&memory.objects()[&key], &scene.rig.role.name).unwrap().cipher,
        Cipher::Aes256GcmSiv
    );
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
    let slot = object_keys::key(&scene.rig.role.name, scene.rig.repository.slot.unwrap());
    let whole = scene.rig.memory.objects()[&slot].clone();
    scene.rig.memory.tamper(&slot, None);
    assert!(matches!(scene.repair(false).await, Err(RepairError::Open(OpenError::NoKeySlots { .. }))));
    let report = scene.repair(true).await.unwrap();
    assert!(matches!(report.findings[..], [RepairFinding::KeySlot { put_back: false, .. }]), "{report:?}");
    assert!(report.keys.is_empty() && !scene.rig.memory.objects().contains_key(&slot));
    let state_dir = scene.rig.state_dir();
    let by = RepairRequest { key_slot: true, ..scene.by(Some(&state_dir)) };
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
    let plan = Box::pin(RepairPlan::make(scene.rig.store.clone(), &by)).await.unwrap();
    assert!(plan.needs_record());
    scene.rig.write("c", "what comes after");
    let committed = scene.rig.backup().await;
    let mut written = RepairProgress::default();
    assert!(plan.apply(&by, false, &mut written).await.unwrap().is_none(), "it moved on");
    let objects = memory.objects().len();
    let Some(plan) = Box::pin(plan.extend()).await.unwrap() else { panic!("what was committed is no other loss") };
    let report = plan.apply(&by, false, &mut written).await.unwrap().expect("nothing came between");
    assert_eq!(memory.objects().len(), objects + 1, "nothing is written twice");
    assert_eq!(report.snapshots.len(), 3);
    let archive = scene.rig.archive().await;
    assert!(archive.view.state.snapshots.iter().any(|snapshot| snapshot.id == committed.snapshot.id));
    let again = dry_run(scene.rig.store.clone(), &by).await.unwrap();
    assert!(again.findings.is_empty(), "{again:?}");
    let lost = |report: &RepairReport| report.snapshots.iter().map(|loss| loss.lost_count).collect::<Vec<_>>();
    assert_eq!(lost(&again), lost(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_grew_is_the_one_that_is_made_anew_also_over_damaged_packs() {
    let scene = Scene::new().await;
    let rig = &scene.rig;
    for n in 0..6 {
        rig.write(&format!("large-{n}"), noise(n, 1 << 20));
    }
    rig.backup().await;
    let packs = rig.memory.objects().into_iter().filter(|(key, _)| key.contains("/packs/"));
    let (pack, object) = packs.max_by_key(|(_, object)| object.len()).unwrap();
    // The end of the pack is gone: some of its frames are complete, and snapshots need the others as well.
    rig.memory.tamper(&pack, Some(object.slice(..object.len() / 2)));
    let by = scene.by(None);
    let plan = Box::pin(RepairPlan::make(rig.store.clone(), &by)).await.unwrap();
    assert!(!plan.index.moved.is_empty() && plan.report(&by).lost_files() > 0, "{:?}", plan.report(&by));
    // A snapshot that is committed meanwhile refers to the same pack.
    rig.write("small", "what comes after");
    rig.backup().await;
    let Some(grown) = Box::pin(plan.extend()).await.unwrap() else { panic!("what was committed is no other loss") };
    let anew = Box::pin(RepairPlan::make(rig.store.clone(), &by)).await.unwrap();
    let lost = |plan: &RepairPlan| {
        let report = plan.report(&by);
        let lost = |loss: &SnapshotLoss| (loss.info.id, loss.lost_count, format!("{:?}", loss.lost));
        (format!("{:?}", report.findings), report.snapshots.iter().map(lost).collect::<Vec<_>>())
    };
    assert_eq!((lost(&grown), lost(&grown).1.len()), (lost(&anew), 3));
    assert_eq!(grown.index.moved, anew.index.moved);
    let report = grown.apply(&by, false, &mut RepairProgress::default()).await.unwrap().expect("nothing came between");
    assert!(report.lost_files() > 0 && report.record.is_some());
    let again = dry_run(rig.store.clone(), &by).await.unwrap();
    assert!(again.findings.is_empty(), "{again:?}");
    assert_eq!(again.lost_files(), report.lost_files());
}

/// A random source that lets another node append a record when the repair asks for random bytes before its own append.
#[derive(Debug)]
struct Meddling(Arc<dyn RandomSource>, MemoryStore, (String, Bytes));

impl RandomSource for Meddling {
    fn fill(&self, buffer: &mut [u8]) {
        let (key, object) = self.2.clone();
        self.1.tamper(&key, Some(object));
        self.0.fill(buffer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_before_which_others_append_for_too_long_gives_up_and_has_changed_no_journal() {
    let scene = Scene::new().await;
    let (rig, by) = (&scene.rig, scene.by(None));
    let index = rig.memory.objects().into_keys().find(|key| key.contains("/index/")).unwrap();
    rig.memory.tamper(&index, None);
    let (journal, view) = (read_only_journal(&rig.repository, &rig.env), rig.archive().await.view);
    let view = journal.append_unfenced(&view, UnfencedAction::Resume).await.unwrap();
    let key = object_keys::record(&rig.role.name, view.head.as_ref().unwrap().seq);
    let object = rig.memory.objects()[&key].clone();
    rig.memory.tamper(&key, None);

    let (clock, random) = (rig.env.clock.clone(), rig.env.random.clone());
    let env = Env {
        clock: Arc::new(SteppingClock::new(clock, Duration::from_mins(10))),
        random: Arc::new(Meddling(random, rig.memory.clone(), (key, object))),
        ..rig.env.clone()
    };
    let hurried = RepairRequest { inputs: RecoveryInputs { env: &env, ..by.inputs }, ..by.clone() };
    let busy = repair(rig.store.clone(), &hurried).await;
    assert!(matches!(busy, Err(RepairError::Busy(PATIENCE))), "{busy:?}");
    assert_eq!(rig.archive().await.view.head, view.head, "nothing but what the other one appended");
    let repaired = scene.repair(false).await.unwrap();
    assert!(matches!(&repaired.findings[..], [RepairFinding::Index { copy: false, .. }, ..]), "{repaired:?}");
    assert!(dry_run(rig.store.clone(), &by).await.unwrap().findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_copy_of_a_rotation_is_named_and_written_again() {
    let mut scene = Scene::new().await;
    let new = {
        let rig = &scene.rig;
        let new = KeySource::KeyFile(rig.dir.path().join("new"));
        let node = WriterNode { id: rig.node, name: "east".to_owned() };
        let (instance, journal_access) = (InstanceId([7; 8]), JournalAccess::default());
        let operator = OperatorContext { node, instance, env: &rig.env, state_dir: None, journal_access };
        let by = KeyRotator { operator, role: &rig.role, assessment: None, force: true };
        let (given, ask_new) = (&rig.role.key, Some(new.clone()));
        let ask = RotateRequest { current: given, new: ask_new, keep: Vec::new(), drop: Vec::new(), dry_run: false };
        rotate(&rig.repository, &by, &ask).await.unwrap();
        new
    };
    scene.rig.role.key = new;
    let (rig, progress) = (&scene.rig, JobProgress::default());
    let verify = async || {
        let report = verify(rig.store.clone(), &rig.role.name, &rig.role.key, 0, &|_| None, &progress, &rig.env).await;
        report.unwrap().damages.into_iter().map(|damage| (damage.kind, damage.object)).collect::<Vec<_>>()
    };
    let (name, whole) = rig.memory.objects().into_iter().find(|(key, _)| key.contains("/rotated/")).unwrap();
    assert_eq!(verify().await, []);
    rig.memory.tamper(&name, Some(Bytes::from_static(b"{}")));
    assert_eq!(verify().await, [(DamageKind::RotationCopy, name.clone())]);
    let before = rig.memory.objects();
    let seen = dry_run(rig.store.clone(), &scene.by(None)).await.unwrap();
    assert!(matches!(&seen.findings[..], [RepairFinding::RotationCopy { object, .. }] if *object == name), "{seen:?}");
    assert_eq!(rig.memory.objects(), before, "a dry run changes nothing");
    let repaired = scene.repair(false).await.unwrap();
    assert_eq!((repaired.findings.len(), repaired.record), (1, None));
    assert_eq!(rig.memory.objects()[&name], whole);
    assert_eq!(verify().await, []);
}

/// An attacker with write access to the bucket chooses the size and number of the journal's objects.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_planted_in_a_journal_its_readers_hold_no_more_than_is_promised() {
    const HELD_MAX: usize = 128 << 20;
    let scene = Scene::new().await;
    let rig = &scene.rig;
    for _ in 0..4 {
        rig.backup().await;
    }
    let (held, count) = MemoryTrackingStore::new(rig.store.clone());
    let store: Arc<dyn Store> = Arc::new(held);
    let (genuine, progress) = (rig.memory.objects(), JobProgress::default());
    // Many objects that are read at once, and many of the maximum size. All share the same bytes, so the test holds
    // them once.
    for (size, end) in [(1 << 20, 300), (64 << 20, 12)] {
        let planted = Bytes::from(vec![b'{'; size]);
        let repository = Repository::open(store.clone(), &rig.role.name, &rig.role.key).await.unwrap();
        let archive =
            ReadOnlyRepository::read(repository.clone(), &rig.env, None, JournalEndLookup::Probe).await.unwrap();
        let mut far = archive.view.clone();
        far.head.as_mut().unwrap().seq = Seq(end);
        for seq in 3..=end {
            rig.memory.tamper(&object_keys::record(&rig.role.name, Seq(seq)), Some(planted.clone()));
        }
        let looked = |what: &str| {
            let max = count.take_max();
            assert!(max <= HELD_MAX, "{what} with objects of {size} bytes: {} MiB", max >> 20);
        };
        let state_dir = rig.state_dir();
        let _ = dry_run(store.clone(), &scene.by(None)).await;
        looked("repair");
        let _ = dry_run(store.clone(), &scene.by(Some(&state_dir))).await;
        looked("repair by a node that remembers");
        let verified = verify(store.clone(), &rig.role.name, &rig.role.key, 0, &|_| None, &progress, &rig.env).await;
        assert!(!verified.unwrap().damages.is_empty());
        looked("verify");
        let _ = ReadOnlyRepository::read(repository.clone(), &rig.env, None, JournalEndLookup::Probe).await;
        looked("snapshots");
        let shown = ReadOnlyRepository { view: far.clone(), ..archive };
        shown.records(end).await.unwrap();
        looked("journal show");
        shown.journal.with_all_dates(far).await.unwrap();
        looked("the dates");
        // The object that identifies the repository.
        rig.memory.tamper(&object_keys::format(&rig.role.name), None);
        let _ = dry_run(store.clone(), &scene.by(None)).await;
        looked("repair without a format");
        for key in rig.memory.objects().keys().chain(genuine.keys()) {
            rig.memory.tamper(key, genuine.get(key).cloned());
        }
    }
}
