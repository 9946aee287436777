//! The head of a journal in a real etcd: what a register promises, writers that race, and answers that get lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runner::config::{EtcdSettings, KeySource};
use runner::env::Env;
use runner::ids::{ClusterId, InstanceId, NodeId, RoleName, Seq};
use runner::job::repository::init::init;
use runner::job::repository::journal_access::JournalAccess;
use runner::job::repository::open::Repository;
use runner::journal::append::UnfencedAction;
use runner::journal::body::WriterNode;
use runner::journal::error::AppendError;
use runner::journal::reader::Journal;
use runner::journal::record::{self, Record};
use runner::journal::register::etcd::EtcdRegisters;
use runner::journal::register::memory::MemoryRegisters;
use runner::journal::register::{CasOutcome, Register, RegisterError, RegisterService, head_name};
use runner::journal::view::JournalView;
use runner::store::Store;
use runner::store::ignores_conditions::IgnoresConditions;
use runner::store::memory::MemoryStore;

use crate::etcd::{EtcdCluster, ProxyMode, TcpProxy};
use crate::{raw, settings};

/// Long enough that a member which answers nothing is given up within seconds.
const PATIENT: Duration = Duration::from_secs(12);

fn registers(settings: &EtcdSettings) -> Arc<dyn RegisterService> {
    Arc::new(EtcdRegisters::open(settings.clone()))
}

async fn value(register: &Arc<dyn Register>) -> Option<Bytes> {
    register.read().await.unwrap().value
}

/// The suite that every kind of register passes. `connect` gives a process its way to the registers, which are empty at
/// the beginning.
async fn contract(connect: &dyn Fn() -> Arc<dyn RegisterService>) {
    a_swap_needs_the_value_it_expects(connect().as_ref()).await;
    counters_lose_no_increment(connect().as_ref()).await;
    of_racing_writers_each_gets_numbers_of_its_own(connect).await;
}

async fn a_swap_needs_the_value_it_expects(registers: &dyn RegisterService) {
    let (one, same, other) = (registers.register("a/head"), registers.register("a/head"), registers.register("b/head"));
    let (a, b, empty) = (Bytes::from_static(b"a"), Bytes::from_static(b"b\0\xff\n"), Bytes::new());
    assert_eq!(value(&one).await, None);
    assert_eq!(one.compare_and_swap(Some(&a), b.clone()).await, Ok(CasOutcome::Mismatch(None)), "nothing is no value");
    assert_eq!(
        one.compare_and_swap(Some(&empty), b.clone()).await,
        Ok(CasOutcome::Mismatch(None)),
        "not even the empty one"
    );
    assert_eq!(one.compare_and_swap(None, empty.clone()).await, Ok(CasOutcome::Swapped));
    assert_eq!(value(&same).await, Some(empty.clone()), "an empty value is one");
    assert_eq!(same.compare_and_swap(None, a.clone()).await, Ok(CasOutcome::Mismatch(Some(empty.clone()))));
    assert_eq!(same.compare_and_swap(Some(&empty), a.clone()).await, Ok(CasOutcome::Swapped));
    assert_eq!(one.compare_and_swap(Some(&b), a.clone()).await, Ok(CasOutcome::Mismatch(Some(a.clone()))));
    assert_eq!(one.compare_and_swap(Some(&a), b.clone()).await, Ok(CasOutcome::Swapped));
    assert_eq!(
        one.compare_and_swap(Some(&a), b.clone()).await,
        Ok(CasOutcome::Mismatch(Some(b.clone()))),
        "sent again it does nothing"
    );
    assert_eq!((value(&one).await, value(&other).await), (Some(b), None));
    assert_eq!(one.read().await.unwrap().cluster, other.read().await.unwrap().cluster);
}

async fn counters_lose_no_increment(registers: &dyn RegisterService) {
    const WORKERS: u64 = 6;
    const EACH: u64 = 25;
    let counter = registers.register("counter");
    counter.compare_and_swap(None, Bytes::from_static(b"0")).await.unwrap();
    let workers = (0..WORKERS).map(|_| {
        let counter = Arc::clone(&counter);
        tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let now = counter.read().await.unwrap().value.unwrap();
                let next = std::str::from_utf8(&now).unwrap().parse::<u64>().unwrap() + 1;
                let swapped = counter.compare_and_swap(Some(&now), Bytes::from(next.to_string())).await.unwrap();
                done += u64::from(swapped == CasOutcome::Swapped);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert_eq!(value(&counter).await, Some(Bytes::from((WORKERS * EACH).to_string())));
}

/// Each writer of a journal has a way of its own to the register.
async fn of_racing_writers_each_gets_numbers_of_its_own(connect: &dyn Fn() -> Arc<dyn RegisterService>) {
    const WRITERS: u8 = 8;
    const EACH: usize = 40;
    let place = Place::new(connect()).await;
    let writers = (0..WRITERS).map(|n| {
        let journal = place.journal(n, connect());
        tokio::spawn(async move { append(&journal, EACH).await })
    });
    let mut all = BTreeSet::new();
    for writer in writers.collect::<Vec<_>>() {
        for seq in writer.await.unwrap() {
            assert!(all.insert(seq), "{seq} was given twice");
        }
    }
    assert_eq!(all.len(), usize::from(WRITERS) * EACH);
    assert_eq!(place.records().await, all.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_in_memory() {
    let registers = MemoryRegisters::new(ClusterId([1; 8]));
    contract(&|| Arc::new(registers.clone())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_in_etcd() {
    let etcd = EtcdCluster::cluster();
    let settings = settings(etcd.endpoints(), PATIENT);
    contract(&|| registers(&settings)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_tells_a_refusal_from_silence() {
    let mut etcd = EtcdCluster::single();
    let register = registers(&settings(etcd.endpoints(), PATIENT)).register("a/head");
    let large = Bytes::from(vec![b'x'; 2 << 20]);
    let refused = register.compare_and_swap(None, large).await.unwrap_err();
    assert!(matches!(&refused, RegisterError::Refused(why) if why.contains("large")), "{refused:?}");
    assert_eq!(register.read().await.unwrap().value, None);
    etcd.kill(0);
    assert!(matches!(register.read().await, Err(RegisterError::Unreachable(_))));
    assert!(matches!(register.compare_and_swap(None, Bytes::new()).await, Ok(CasOutcome::Unknown { .. })));
}

/// A repository in a memory that ignores conditions.
struct Place {
    env: Env,
    memory: MemoryStore,
    registers: Arc<dyn RegisterService>,
    repository: Repository,
}

impl Place {
    async fn new(registers: Arc<dyn RegisterService>) -> Self {
        let (env, role) = (Env::host(), "app".parse::<RoleName>().unwrap());
        let memory = MemoryStore::new(&env);
        let store: Arc<dyn Store> = Arc::new(IgnoresConditions(Arc::new(memory.clone())));
        let journal_access = JournalAccess::with(Arc::clone(&registers));
        let (repository, _) = init(store, &role, &KeySource::None, &journal_access, &env).await.unwrap();
        Self { env, memory, registers, repository }
    }

    /// The journal as node `n` writes it, by its way to the registers.
    fn journal(&self, n: u8, registers: Arc<dyn RegisterService>) -> Journal {
        let node = WriterNode { id: NodeId([n; 16]), name: format!("node{n}") };
        JournalAccess::with(registers).journal(&self.repository, &self.env, &node, InstanceId([n; 8])).unwrap()
    }

    /// The records in the store, each checked to continue the one before; the last is what the register has.
    async fn records(&self) -> usize {
        let (mut before, mut count) = (None, 0);
        let mut last = Bytes::new();
        for (key, object) in self.memory.objects().into_iter().filter(|(key, _)| key.contains("/journal/")) {
            count += 1;
            assert!(key.ends_with(&format!("{count:016}")), "{key} is number {count}");
            let record = Record::decode(&object, Some(&self.repository.keys)).unwrap();
            assert_eq!(record.prev, before);
            before = Some(record::digest(&object));
            last = object;
        }
        let register = self.registers.register(&head_name(self.repository.format.repo));
        assert_eq!(value(&register).await, Some(last));
        count
    }
}

/// Appends `count` records, whatever others do.
async fn append(journal: &Journal, count: usize) -> BTreeSet<Seq> {
    let (mut view, mut seqs) = (journal.read(None).await.unwrap(), BTreeSet::new());
    while seqs.len() < count {
        view = match journal.append_unfenced(&view, UnfencedAction::Resume).await {
            Ok(view) => {
                assert!(seqs.insert(view.head.as_ref().unwrap().seq));
                view
            }
            Err(AppendError::Moved(now)) => *now,
            Err(error) => panic!("{error}"),
        };
    }
    seqs
}

/// A journal with one record, whose way to etcd can be cut; past it there is another.
struct Wired {
    wire: TcpProxy,
    /// The way past it alone.
    whole: EtcdSettings,
    place: Place,
    journal: Journal,
    view: JournalView,
}

impl Wired {
    async fn to(etcd: &EtcdCluster) -> Self {
        let wire = TcpProxy::to(etcd.port(0));
        let whole = settings(etcd.endpoints(), PATIENT);
        let place = Place::new(registers(&whole)).await;
        let wired = settings(vec![wire.endpoint(), etcd.endpoints().remove(0)], PATIENT);
        let journal = place.journal(1, registers(&wired));
        append(&journal, 1).await;
        let view = journal.read(None).await.unwrap();
        Self { wire, whole, place, journal, view }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_answer_is_lost_is_found() {
    let etcd = EtcdCluster::single();
    let Wired { wire, place, journal, view, .. } = Wired::to(&etcd).await;
    let swaps = etcd.received("Txn");
    wire.set(ProxyMode::LoseAnswers);
    let after = journal.append_unfenced(&view, UnfencedAction::Resume).await.unwrap();
    assert_eq!(after.head.unwrap().seq, Seq(2));
    assert_eq!(etcd.received("Txn") - swaps, 2, "the first one worked; the second one found what it did");
    assert_eq!(place.records().await, 2, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_late_does_nothing() {
    let etcd = EtcdCluster::single();
    let Wired { wire, whole, place, journal, view } = Wired::to(&etcd).await;
    wire.set(ProxyMode::Hold);
    let (after, pieces) = tokio::join!(journal.append_unfenced(&view, UnfencedAction::Resume), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        wire.held()
    });
    assert!(after.is_ok() && pieces > 0, "the other endpoint did it: {after:?}");
    append(&place.journal(2, registers(&whole)), 2).await;
    let swaps = etcd.received("Txn");
    wire.deliver(pieces);
    for _ in 0..100 {
        if etcd.received("Txn") > swaps {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(etcd.received("Txn") - swaps, 1, "it has arrived");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(place.records().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_keeps_is_the_newest_record() {
    let etcd = EtcdCluster::single();
    let registers = registers(&settings(etcd.endpoints(), PATIENT));
    let place = Place::new(Arc::clone(&registers)).await;
    append(&place.journal(1, registers), 3).await;
    let mut raw = raw(&etcd).await;
    let key = format!("/runner/{}/head", place.repository.format.repo);
    let kv = raw.get(key, None).await.unwrap().take_kvs().remove(0);
    assert_eq!((kv.lease(), kv.version()), (0, 4), "no lease, and one write a record");
    assert_eq!(Some(kv.value()), place.memory.objects().get("app/journal/0000000000000003").map(Bytes::as_ref));
}
