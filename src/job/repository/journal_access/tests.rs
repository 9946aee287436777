//! Journals whose head is in a register, over a store that ignores conditions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::config::RoleSettings;
use crate::env::testing::SteppingClock;
use crate::ids::{ClusterId, NodeId, Seq, Term};
use crate::job::operate::adopt::adopt;
use crate::job::operate::{OperatorContext, RoleChange};
use crate::job::repository::init::error::InitError;
use crate::job::repository::init::init;
use crate::job::testing::JobFixture;
use crate::journal::append::UnfencedAction;
use crate::journal::body::{BeginBody, PauseBody, RecordBody, TakeoverReason};
use crate::journal::error::{AppendError, HeadConflict};
use crate::journal::record::{self, Record};
use crate::journal::register::memory::MemoryRegisters;
use crate::journal::register::{CasOutcome, RegisterError, RegisterValue};
use crate::repo::object_keys;
use crate::role::election;
use crate::store::Store;
use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};
use crate::store::ignores_conditions::IgnoresConditions;
use crate::store::memory::MemoryStore;

const HOME: ClusterId = ClusterId([1; 8]);

/// A repository whose journal is in a register because its store ignores conditions.
struct Place {
    rig: JobFixture,
    registers: MemoryRegisters,
}

impl Place {
    async fn new() -> Self {
        let mut rig = JobFixture::new().await;
        let registers = MemoryRegisters::new(HOME);
        let env = rig.env.clone();
        rig.memory = MemoryStore::new(&env);
        rig.store = Arc::new(IgnoresConditions(Arc::new(rig.memory.clone())));
        let journal_access = JournalAccess::with(Arc::new(registers.clone()));
        let (repository, report) =
            init(rig.store.clone(), &rig.role.name, &rig.role.key, &journal_access, &env).await.unwrap();
        assert!(report.created && report.journal == JournalPlacement::Etcd && report.proof_rounds == 0, "{report:?}");
        assert_eq!(repository.format.journal, JournalLocation::Etcd { cluster: HOME });
        rig.repository = repository;
        Self { rig, registers }
    }

    fn journal_access(&self) -> JournalAccess {
        JournalAccess::with(Arc::new(self.registers.clone()))
    }

    /// The journal as node `n` writes it.
    fn journal(&self, n: u8) -> Journal {
        self.journal_over(n, &self.journal_access(), self.rig.store.clone(), &self.rig.env)
    }

    fn journal_over(&self, n: u8, journal_access: &JournalAccess, store: Arc<dyn Store>, env: &Env) -> Journal {
        let node = WriterNode { id: NodeId([n; 16]), name: format!("node{n}") };
        let repository = Repository { store, ..self.rig.repository.clone() };
        journal_access.journal(&repository, env, &node, InstanceId([n; 8])).unwrap()
    }

    fn operator(&self, n: u8) -> OperatorContext<'_> {
        OperatorContext { journal_access: self.journal_access(), ..self.rig.operator(n, &format!("node{n}")) }
    }

    fn head_name(&self) -> String {
        register::head_name(self.rig.repository.keys.repo())
    }

    async fn head(&self) -> Bytes {
        self.journal_access().register(&self.head_name()).unwrap().read().await.unwrap().value.unwrap()
    }

    /// The journal's objects in the store, by number.
    fn mirror(&self) -> BTreeMap<u64, Bytes> {
        let prefix = object_keys::journal_prefix(&self.rig.role.name);
        let objects = self.rig.memory.objects();
        objects.into_iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?.parse().unwrap(), v))).collect()
    }

    /// Checks the mirror as a reader sees it: every number once, each record continuing the one before, and the head at
    /// its end.
    async fn check(&self) -> usize {
        let mirror = self.mirror();
        assert_eq!(mirror.keys().copied().collect::<Vec<_>>(), (1..=mirror.len() as u64).collect::<Vec<_>>());
        let mut before = None;
        for object in mirror.values() {
            let record = Record::decode(object, Some(&self.rig.repository.keys)).unwrap();
            assert_eq!(record.prev, before);
            before = Some(record::digest(object));
        }
        assert_eq!(mirror.last_key_value().map(|(_, object)| object.clone()), Some(self.head().await));
        self.rig.archive().await.view.head.map_or(0, |head| head.seq.0 as usize)
    }
}

/// Appends `count` records.
async fn append(journal: &Journal, count: usize) {
    let mut view = journal.read(None).await.unwrap();
    for _ in 0..count {
        view = journal.append_unfenced(&view, UnfencedAction::Resume).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_commits_and_is_read_without_the_register() {
    let place = Place::new().await;
    place.rig.write("file", "content");
    let mut node_context = place.rig.node_context();
    node_context.leases = node_context.leases.with_journal_access(place.journal_access());
    let first = place.rig.backup_by(&node_context).await;
    place.registers.tamper(&place.head_name(), None);
    let archive = place.rig.archive().await;
    assert_eq!(archive.snapshots().iter().map(|s| s.id).collect::<Vec<_>>(), [first.snapshot.id]);
    assert_eq!(archive.view.state.cluster, None, "it is where `format` says");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_ends_with_the_next_takeover() {
    let place = Place::new().await;
    let (east, west) = (place.journal(1), place.journal(2));
    let candidacy = election::operator_candidacy(&place.rig.role);
    let empty = east.read(None).await.unwrap();
    let (permit, view) = east.take_over(&empty, &candidacy, TakeoverReason::First).await.unwrap();
    let now = west.read(None).await.unwrap();
    west.take_over(&now, &candidacy, TakeoverReason::Moved).await.unwrap();
    let late = east.append(&permit, &view, RecordBody::Begin(BeginBody {}), None).await;
    let Err(AppendError::Fenced(by)) = late else { panic!("{late:?}") };
    assert_eq!((by.node.name.as_str(), by.term), ("node2", Term(2)));
    assert_eq!(place.check().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_store_has_the_record_is_made_good_by_the_next_writer() {
    let place = Place::new().await;
    append(&place.journal(1), 1).await;
    // The writer reads the head and its number, checks the store, and then its put never ends.
    let store = FaultyStore::new(
        place.rig.store.clone(),
        FaultPlan::exactly([(4, InjectedFault::Delay(Duration::from_hours(1)))]),
    );
    let journal = place.journal_over(1, &place.journal_access(), Arc::new(store), &place.rig.env);
    let view = journal.read_until(Seq(1)).await.unwrap();
    let dying = tokio::spawn(async move { journal.append_unfenced(&view, UnfencedAction::Resume).await });
    while Record::decode(&place.head().await, None).unwrap().seq == Seq(1) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled(), "it was still at it");
    assert_eq!(place.mirror().len(), 1);
    assert_eq!(place.rig.archive().await.view.head.unwrap().seq, Seq(1), "who looks sees what is in the store");
    let west = place.journal(2);
    assert_eq!(west.read(None).await.unwrap().head.unwrap().seq, Seq(2));
    assert_eq!(place.mirror().len(), 2, "the appender has put it there");
    append(&west, 1).await;
    assert_eq!(place.check().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_after_the_swap_leaves_it_unknown() {
    let place = Place::new().await;
    append(&place.journal(1), 1).await;
    // After the head and its number were read no request gets through.
    let store = FaultyStore::new(
        place.rig.store.clone(),
        FaultPlan::exactly((3..99).map(|call| (call, InjectedFault::LostRequest))),
    );
    let env = &place.rig.env;
    let clock = SteppingClock::new(Arc::clone(&env.clock), Duration::from_secs(61));
    let env = Env { clock: Arc::new(clock), ..env.clone() };
    let journal = place.journal_over(1, &place.journal_access(), Arc::new(store), &env);
    let view = journal.read_until(Seq(1)).await.unwrap();
    let appended = journal.append_unfenced(&view, UnfencedAction::Resume).await;
    assert!(matches!(appended, Err(AppendError::Unknown { seq: Seq(2), .. })), "{appended:?}");
    append(&place.journal(2), 1).await;
    assert_eq!(place.check().await, 3, "it was in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_seen_in_the_store_is_put_again_until_that_is_answered() {
    let place = Place::new().await;
    append(&place.journal(1), 1).await;
    let view = place.journal(1).read(None).await.unwrap();
    // The head, its number, the check of the store, the put; then the seen record may not be durable: two checks and a
    // put.
    let store =
        Arc::new(FaultyStore::new(place.rig.store.clone(), FaultPlan::exactly([(3, InjectedFault::LostAnswer)])));
    let journal = place.journal_over(1, &place.journal_access(), store.clone(), &place.rig.env);
    journal.append_unfenced(&view, UnfencedAction::Resume).await.unwrap();
    assert_eq!((store.calls(), place.check().await), (8, 2));
}

/// A register whose answers get lost: alternately after the effect, and before it.
#[derive(Debug)]
struct Deaf {
    inner: Arc<dyn Register>,
    /// Results of the next swaps: true, the swap happens; in both cases the answer is lost.
    silences: Mutex<Vec<bool>>,
}

#[async_trait]
impl Register for Deaf {
    async fn read(&self) -> Result<RegisterValue, RegisterError> {
        self.inner.read().await
    }

    async fn compare_and_swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<CasOutcome, RegisterError> {
        let silence = self.silences.lock().pop();
        match silence {
            None => self.inner.compare_and_swap(old, new).await,
            Some(happens) => {
                if happens {
                    self.inner.compare_and_swap(old, new).await?;
                }
                Ok(CasOutcome::Unknown { why: "silence".to_owned() })
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_without_answer_is_found_or_done_again() {
    let place = Place::new().await;
    for silences in [vec![true], vec![false], vec![false, true], vec![true, false]] {
        let before = place.mirror().len();
        let inner = place.journal_access().register(&place.head_name()).unwrap();
        let register = Arc::new(Deaf { inner, silences: Mutex::new(silences.clone()) });
        let (store, keys) = (place.rig.store.clone(), place.rig.repository.keys.clone());
        let node = WriterNode { id: NodeId([1; 16]), name: "node1".to_owned() };
        let journal = Journal::new(store, keys, place.rig.env.clone(), node, InstanceId([1; 8]));
        append(&journal.with_etcd_head(EtcdHead { register, cluster: HOME }), 1).await;
        assert_eq!(place.mirror().len(), before + 1, "{silences:?}: once");
    }
    assert_eq!(place.check().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_without_answer_is_found_after_others_went_on() {
    /// Lets another writer append in between.
    #[derive(Debug)]
    struct Overtaken {
        inner: Arc<dyn Register>,
        other: Journal,
        first: Mutex<bool>,
        happens: bool,
    }
    #[async_trait]
    impl Register for Overtaken {
        async fn read(&self) -> Result<RegisterValue, RegisterError> {
            self.inner.read().await
        }
        async fn compare_and_swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<CasOutcome, RegisterError> {
            if !std::mem::take(&mut *self.first.lock()) {
                return self.inner.compare_and_swap(old, new).await;
            }
            if self.happens {
                self.inner.compare_and_swap(old, new).await?;
            }
            append(&self.other, 2).await;
            Ok(CasOutcome::Unknown { why: "silence".to_owned() })
        }
    }
    for happens in [true, false] {
        let place = Place::new().await;
        let inner = place.journal_access().register(&place.head_name()).unwrap();
        let register = Overtaken { inner, other: place.journal(2), first: Mutex::new(true), happens };
        let (store, keys) = (place.rig.store.clone(), place.rig.repository.keys.clone());
        let node = WriterNode { id: NodeId([1; 16]), name: "node1".to_owned() };
        let journal = Journal::new(store, keys, place.rig.env.clone(), node, InstanceId([1; 8]));
        let journal = journal.with_etcd_head(EtcdHead { register: Arc::new(register), cluster: HOME });
        let view = journal.read(None).await.unwrap();
        match journal.append_unfenced(&view, UnfencedAction::Resume).await {
            Ok(view) => assert!(happens && view.head.unwrap().seq == Seq(1)),
            Err(AppendError::Moved(now)) => assert!(!happens && now.head.unwrap().seq == Seq(2)),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(place.check().await, 2 + usize::from(happens));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_too_large_is_left_out() {
    let place = Place::new().await;
    let journal = place.journal(1);
    // A pause is part of the state, as snapshots are.
    let pause = |bytes| UnfencedAction::Pause(PauseBody { until: None, why: Some("x".repeat(bytes)) });
    append(&journal, 62).await;
    let view = journal.read(None).await.unwrap();
    let refused = journal.append_unfenced(&view, pause(1 << 20)).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { seq: Seq(63), .. })), "{refused:?}");
    let view = journal.append_unfenced(&view, pause(700 << 10)).await.unwrap();
    let view = journal.append_unfenced(&view, pause(1)).await.unwrap();
    let at = |seq: u64| Record::decode(&place.mirror()[&seq], None).unwrap();
    assert!(at(64).state.is_none() && place.mirror()[&64].len() < 2000, "twice 700 KiB is too much");
    journal.append_unfenced(&view, pause(1)).await.unwrap();
    assert_eq!(place.check().await, 65, "it is read from an earlier one on");
}

/// The head conflict that a writer gets.
async fn conflict(place: &Place) -> HeadConflict {
    match place.journal(3).read(None).await {
        Err(JournalError::HeadConflict(conflict)) => conflict,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_head_stops_writers_until_it_is_adopted() {
    let place = Place::new().await;
    let name = place.head_name();
    append(&place.journal(1), 2).await;
    let (old, view) = (place.head().await, place.journal(1).read(None).await.unwrap());
    append(&place.journal(1), 1).await;
    let acted = adopt(&place.operator(1), &place.rig.repository).await.unwrap();
    assert_eq!(acted.change, RoleChange::HeadSound);
    assert_eq!(place.check().await, 3, "nothing was written");

    // Lost; set back; of another repository.
    for (value, expected) in [
        (None, HeadConflict::NoHead),
        (Some(old), HeadConflict::Behind { head: Seq(2), store: Seq(4) }),
        (Some(Bytes::new()), HeadConflict::Behind { head: Seq(0), store: Seq(5) }),
    ] {
        place.registers.tamper(&name, value);
        assert_eq!(conflict(&place).await, expected);
        let before = place.mirror();
        let late = place.journal(1).append_unfenced(&view, UnfencedAction::Resume).await;
        assert!(matches!(late, Err(AppendError::Journal(JournalError::HeadConflict(_)))), "{late:?}");
        assert_eq!(place.mirror(), before, "nothing is written");
        let acted = adopt(&place.operator(2), &place.rig.repository).await.unwrap();
        let seq = Seq(before.len() as u64 + 1);
        assert_eq!(acted.change, RoleChange::Adopted { was: expected, seq, term: Term(seq.0 - 3) });
        assert_eq!(place.check().await as u64, seq.0);
    }
    append(&place.journal(1), 1).await;
    let head = place.check().await as u64;
    // Two operators at once: one of them adopts.
    place.registers.tamper(&name, None);
    let (one, two) = (place.operator(1), place.operator(2));
    let (one, two) = tokio::join!(adopt(&one, &place.rig.repository), adopt(&two, &place.rig.repository));
    let adopted =
        [one.unwrap(), two.unwrap()].iter().filter(|a| matches!(a.change, RoleChange::Adopted { .. })).count();
    assert_eq!((adopted, place.check().await as u64), (1, head + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_refused_until_it_is_adopted() {
    let mut place = Place::new().await;
    append(&place.journal(1), 2).await;
    let old = place.registers.clone();
    place.registers = MemoryRegisters::new(ClusterId([2; 8]));
    let expected = HeadConflict::Cluster { own: HOME, found: ClusterId([2; 8]) };
    assert_eq!(conflict(&place).await, expected);
    let acted = adopt(&place.operator(1), &place.rig.repository).await.unwrap();
    assert_eq!(acted.change, RoleChange::Adopted { was: expected, seq: Seq(3), term: Term(1) });
    append(&place.journal(2), 1).await;
    assert_eq!(place.check().await, 4);
    // A process that still asks the old cluster gets a conflict.
    place.registers = old;
    assert_eq!(conflict(&place).await, HeadConflict::Cluster { own: ClusterId([2; 8]), found: HOME });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_records_is_not_adopted() {
    let place = Place::new().await;
    append(&place.journal(1), 3).await;
    for seq in [2, 3] {
        place.rig.memory.tamper(&object_keys::record(&place.rig.role.name, Seq(seq)), None);
    }
    let error = adopt(&place.operator(1), &place.rig.repository).await.unwrap_err();
    assert!(matches!(error, AppendError::Journal(JournalError::Hole(Seq(2)))), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_inits_at_once_one_makes_the_repository() {
    for round in 0..8 {
        let env = Env::host();
        let memory = MemoryStore::new(&env);
        let (dir, registers) = (tempfile::tempdir().unwrap(), MemoryRegisters::new(HOME));
        let key = crate::config::KeySource::KeyFile(dir.path().join("key"));
        crate::job::repository::init::write_key_file(
            &dir.path().join("key"),
            &crate::repo::keyslot::SlotSecret::generate(&env),
        )
        .unwrap();
        let role = RoleSettings::new("app".parse().unwrap(), key, Vec::new());
        let nodes = (0..4).map(|node| {
            // Every other request is delayed, because the nodes would not meet otherwise.
            let delays = FaultPlan::random(round * 4 + node, 500, &[InjectedFault::Delay(Duration::from_millis(3))]);
            let store = Arc::new(IgnoresConditions(Arc::new(FaultyStore::new(Arc::new(memory.clone()), delays))));
            let (role, journal_access) = (role.clone(), JournalAccess::with(Arc::new(registers.clone())));
            tokio::spawn(
                async move { init(store, &role.name, &role.key, &journal_access, &Env::host()).await.unwrap() },
            )
        });
        let all = futures_util::future::try_join_all(nodes.collect::<Vec<_>>()).await.unwrap();
        let repos: BTreeSet<_> = all.iter().map(|(repository, _)| repository.format.repo).collect();
        assert_eq!(repos.len(), 1, "round {round}");
        assert_eq!(all.iter().filter(|(_, report)| report.created).count(), 1, "round {round}");
        let journal_access = JournalAccess::with(Arc::new(registers.clone()));
        let head = journal_access.register(&register::head_name(all[0].0.format.repo)).unwrap().read().await.unwrap();
        assert_eq!(head.value, Some(Bytes::new()), "a journal without records");
        assert_eq!(
            journal_access.creation_register(&role.name).unwrap().read().await.unwrap().value,
            Some(Bytes::new())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_journal_lives_is_settled_once() {
    let place = Place::new().await;
    let journal = |journal_access: &JournalAccess| {
        let node = WriterNode { id: NodeId([1; 16]), name: "node1".to_owned() };
        journal_access.journal(&place.rig.repository, &place.rig.env, &node, InstanceId([1; 8])).map(drop)
    };
    for said in [JournalPlacement::Auto, JournalPlacement::Etcd] {
        journal(&place.journal_access().with_placement(said)).unwrap();
    }
    let refused = journal(&place.journal_access().with_placement(JournalPlacement::Bucket)).unwrap_err();
    assert!(matches!(refused, JournalError::EtcdHead(EtcdHeadError::Disagrees { .. })), "{refused}");
    let alone = journal(&JournalAccess::default()).unwrap_err();
    assert!(matches!(alone, JournalError::EtcdHead(EtcdHeadError::NoEtcd { .. })), "{alone}");

    // A store that keeps conditions holds the journal itself, unless the config says otherwise.
    let again = |journal_access: JournalAccess, memory: MemoryStore| {
        let (role, env) = (place.rig.role.clone(), place.rig.env.clone());
        async move { init(Arc::new(memory), &role.name, &role.key, &journal_access, &env).await }
    };
    let sound = MemoryStore::new(&place.rig.env);
    let (repository, _) = again(place.journal_access(), sound.clone()).await.unwrap();
    assert_eq!(repository.format.journal, JournalLocation::Bucket);
    let refused = again(place.journal_access().with_placement(JournalPlacement::Etcd), sound).await.unwrap_err();
    assert!(matches!(refused, InitError::EtcdHead(EtcdHeadError::Disagrees { .. })), "{refused}");
    let told = again(place.journal_access().with_placement(JournalPlacement::Etcd), MemoryStore::new(&place.rig.env))
        .await
        .unwrap();
    assert_eq!(told.1.journal, JournalPlacement::Etcd);
}
