//! Two or three processes and a bucket.

use parking_lot::Mutex;

use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::watched_version::TTL_MAX;
use super::*;
use crate::env::Clock;
use crate::ids::{InstanceId, NodeId};
use crate::store::counting::{CountingStore, StoreCounters};
use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};
use crate::store::memory::MemoryStore;

const TTL: Duration = Duration::from_mins(1);

/// A clock that tests move by hand.
#[derive(Debug, Default)]
struct Hand(Mutex<Duration>);

impl Hand {
    fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.boottime()
    }

    fn boottime(&self) -> Duration {
        *self.0.lock()
    }
}

/// Two nodes whose clocks are unrelated.
struct Pair {
    store: MemoryStore,
    clocks: [Arc<Hand>; 2],
    leases: [BucketLease; 2],
}

fn lease(store: &MemoryStore, n: u8, clock: &Arc<Hand>) -> BucketLease {
    let me = LeaseHolder { node: NodeId([n; 16]), label: format!("node{n}"), instance: InstanceId([n; 8]) };
    let env = Env { clock: clock.clone(), ..Env::host() };
    BucketLease::new(Arc::new(store.clone()), ("app".parse().unwrap(), "app/live/lease".to_owned()), env, me, TTL, None)
}

fn pair() -> Pair {
    let store = MemoryStore::new(&Env::host());
    let clocks = [Arc::new(Hand::default()), Arc::new(Hand(Mutex::new(Duration::from_secs(987_654))))];
    let leases = [lease(&store, 1, &clocks[0]), lease(&store, 2, &clocks[1])];
    Pair { store, clocks, leases }
}

fn says(reply: &LeaseReply) -> String {
    match reply {
        LeaseReply::Held(_) => "held".to_owned(),
        LeaseReply::Taken { by, alive } => {
            let by = by.as_ref().map_or("an unknown node", |by| by.label.as_str());
            format!("{by}{}", if *alive { ", alive" } else { "" })
        }
        LeaseReply::Free => "free".to_owned(),
        LeaseReply::Unknown { why } => format!("unknown: {why}"),
    }
}

#[tokio::test]
async fn one_holds_it_and_release_lets_the_other_in_at_once() {
    let Pair { leases: [mut one, mut two], clocks, .. } = pair();
    assert_eq!(says(&two.inspect().await), "free");
    let LeaseReply::Held(grant) = one.acquire_or_renew().await else { panic!("it was free") };
    assert_eq!((grant.asked.boot, grant.ttl), (Duration::ZERO, TTL));
    assert_eq!(says(&two.acquire_or_renew().await), "node1");
    clocks[0].advance(TTL / 3);
    let LeaseReply::Held(grant) = one.acquire_or_renew().await else { panic!("it is its own") };
    assert_eq!(grant.asked.boot, TTL / 3, "dated anew");
    assert_eq!(says(&two.acquire_or_renew().await), "node1, alive");
    one.release().await;
    assert_eq!(says(&two.inspect().await), "free");
    assert_eq!(says(&two.acquire_or_renew().await), "held");
    assert_eq!(says(&one.acquire_or_renew().await), "node2");
    one.release().await;
    assert_eq!(says(&one.inspect().await), "node2", "what one does not hold one cannot release");
}

#[tokio::test]
async fn a_dead_holder_is_waited_out_by_the_waiters_own_clock() {
    let Pair { leases: [mut one, mut two], clocks, .. } = pair();
    one.acquire_or_renew().await;
    assert_eq!(says(&two.acquire_or_renew().await), "node1");
    clocks[0].advance(TTL * 100);
    assert_eq!(says(&two.acquire_or_renew().await), "node1", "the holder's clock says nothing");
    clocks[1].advance(Duration::from_millis(59_999));
    assert_eq!(says(&two.acquire_or_renew().await), "node1");
    one.acquire_or_renew().await;
    clocks[1].advance(Duration::from_millis(59_999));
    assert_eq!(says(&two.acquire_or_renew().await), "node1, alive", "a change begins the wait anew");
    clocks[1].advance(TTL);
    assert_eq!(says(&two.acquire_or_renew().await), "held");
    assert_eq!(says(&one.acquire_or_renew().await), "node2", "a paused holder finds it gone");
}

#[tokio::test]
async fn a_new_process_of_the_same_node_waits_like_any_other() {
    let Pair { leases: [mut one, _], clocks, store } = pair();
    one.acquire_or_renew().await;
    let mut restarted = lease(&store, 1, &clocks[0]);
    restarted.requester.me.instance = InstanceId([9; 8]);
    assert_eq!(says(&restarted.acquire_or_renew().await), "node1", "the node's ID may be a clone's");
}

#[tokio::test]
async fn no_content_ever_comes_twice() {
    let Pair { leases: [mut one, mut two], store, .. } = pair();
    let mut seen = Vec::new();
    for _ in 0..3 {
        for lease in [&mut one, &mut two] {
            assert_eq!(says(&lease.acquire_or_renew().await), "held");
            seen.push(store.objects()["app/live/lease"].clone());
            lease.release().await;
            seen.push(store.objects()["app/live/lease"].clone());
        }
    }
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len());
}

/// Writes of the lease without an answer: no other process's record is seen, so no other process is named as the
/// holder.
#[tokio::test]
async fn a_put_without_an_answer_is_unknown_and_no_other_holder() {
    for fault in [InjectedFault::LostRequest, InjectedFault::Refused] {
        for is_first in [true, false] {
            let Pair { leases: [mut one, mut two], store, clocks } = pair();
            if !is_first {
                assert_eq!(says(&two.acquire_or_renew().await), "held");
                two.release().await;
            }
            // Each request is a read, and then the write.
            let plan = FaultPlan::exactly([(1, fault), (4, fault)]);
            one.store = Arc::new(FaultyStore::new(Arc::new(store.clone()), plan));
            for _ in 0..2 {
                assert!(says(&one.acquire_or_renew().await).starts_with("unknown: "), "{fault:?}, first: {is_first}");
            }
            assert_eq!(says(&one.acquire_or_renew().await), "held");
            clocks[0].advance(TTL / 3);
            // The same holds for a renewal.
            one.store = Arc::new(FaultyStore::new(Arc::new(store.clone()), FaultPlan::exactly([(0, fault)])));
            assert!(says(&one.acquire_or_renew().await).starts_with("unknown: "), "{fault:?}, first: {is_first}");
            assert_eq!(says(&one.acquire_or_renew().await), "held");
            assert_eq!(says(&two.acquire_or_renew().await), "node1", "whose paper is seen is named");
        }
    }
}

#[tokio::test]
async fn a_put_that_worked_without_an_answer_holds() {
    let Pair { leases: [mut one, _], store, .. } = pair();
    one.store = Arc::new(FaultyStore::new(Arc::new(store), FaultPlan::exactly([(1, InjectedFault::LostAnswer)])));
    assert_eq!(says(&one.acquire_or_renew().await), "held");
}

/// More bytes than a lease object may have.
static TOO_LARGE: [u8; (64 << 10) + 1] = [b' '; (64 << 10) + 1];

#[tokio::test]
async fn a_damaged_lease_object_is_taken_over_after_the_ttl() {
    for damage in [&b"{"[..], b"{\"v\":2}", b"", &TOO_LARGE] {
        let Pair { leases: [mut one, mut two], clocks, store } = pair();
        one.acquire_or_renew().await;
        store.tamper("app/live/lease", Some(Bytes::copy_from_slice(damage)));
        assert_eq!(says(&two.acquire_or_renew().await), "an unknown node");
        clocks[1].advance(TTL);
        assert_eq!(says(&two.acquire_or_renew().await), "held");
    }
    let Pair { leases: [mut one, mut two], store, .. } = pair();
    one.acquire_or_renew().await;
    store.tamper("app/live/lease", None);
    assert_eq!(says(&two.acquire_or_renew().await), "held", "a lease without an object has no holder");
    assert_eq!(says(&one.acquire_or_renew().await), "node2");
}

/// A long-running process with its own clock, and what it requests from the store.
struct Host {
    store: Arc<dyn Store>,
    counters: Arc<StoreCounters>,
    clock: Arc<Hand>,
    processes: ProcessObjects,
    n: u8,
}

impl Host {
    fn new(store: &MemoryStore, n: u8) -> Self {
        let (store, counters) = CountingStore::new(Arc::new(store.clone()));
        let clock = Arc::new(Hand(Mutex::new(Duration::from_secs(u64::from(n) * 1000))));
        Self { store: Arc::new(store), counters, clock, processes: ProcessObjects::default(), n }
    }

    fn lease(&self, role: &str) -> BucketLease {
        let n = self.n;
        let me = LeaseHolder { node: NodeId([n; 16]), label: format!("node{n}"), instance: InstanceId([n; 8]) };
        let env = Env { clock: self.clock.clone(), ..Env::host() };
        let object = (role.parse().unwrap(), format!("{role}/live/lease"));
        BucketLease::new(Arc::clone(&self.store), object, env, me, TTL, Some(&self.processes))
    }

    fn leases<const N: usize>(&self, roles: [&str; N]) -> [BucketLease; N] {
        roles.map(|role| self.lease(role))
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Number of writes and reads so far.
    fn counts(&self) -> (u64, u64) {
        let counts = self.counters.snapshot();
        (counts.put + counts.put_if_absent + counts.replace, counts.get)
    }
}

const ROLES: [&str; 3] = ["app", "db", "web"];

async fn all_say(leases: &mut [BucketLease], expected: &str) {
    for lease in leases {
        assert_eq!(says(&lease.acquire_or_renew().await), expected, "{}", lease.role);
    }
}

/// The process objects in the store.
fn process_records(store: &MemoryStore) -> Vec<serde_json::Value> {
    let all = store.objects();
    let all = all.iter().filter(|(key, _)| key.contains("/live/processes/"));
    all.map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
}

fn two_hosts() -> (MemoryStore, Host, Host) {
    let store = MemoryStore::new(&Env::host());
    let (one, two) = (Host::new(&store, 1), Host::new(&store, 2));
    (store, one, two)
}

#[tokio::test]
async fn one_object_is_renewed_and_watched_for_all_roles() {
    let (store, one, two) = two_hosts();
    let (mut here, mut there) = (one.leases(ROLES), two.leases(ROLES));
    all_say(&mut here, "held").await;
    all_say(&mut there, "node1").await;
    let (writes, reads) = (one.counts(), two.counts());
    for _ in 0..10 {
        one.advance(TTL / 3);
        two.advance(TTL / 3);
        all_say(&mut here, "held").await;
        all_say(&mut there, "node1, alive").await;
    }
    assert_eq!(one.counts(), (writes.0 + 10, writes.1), "a write for each renewal");
    assert_eq!(two.counts(), (reads.0, reads.1 + 10), "a read for each interval");
    assert_eq!(process_records(&store)[0]["roles"], serde_json::json!(ROLES));
}

#[tokio::test]
async fn a_role_moves_while_the_others_stay() {
    let (store, one, two) = two_hosts();
    let (mut here, mut there) = (one.leases(ROLES), two.leases(ROLES));
    all_say(&mut here, "held").await;
    all_say(&mut there, "node1").await;
    for lease in &mut there {
        assert_eq!(says(&lease.inspect().await), "node1");
    }
    here[1].release().await;
    let hints = there[1].change_hints().unwrap();
    two.advance(keeper_pause());
    // The first role that reads the process object wakes the role that is concerned.
    assert_eq!(says(&there[0].acquire_or_renew().await), "node1, alive");
    hints.notified().await;
    assert_eq!(says(&there[1].inspect().await), "free");
    assert_eq!(says(&there[1].acquire_or_renew().await), "held");
    assert_eq!(says(&there[2].acquire_or_renew().await), "node1, alive");
    one.advance(TTL / 3);
    assert_eq!(says(&here[0].acquire_or_renew().await), "held");
    assert_eq!(says(&here[1].acquire_or_renew().await), "node2");
    let listed: Vec<_> = process_records(&store).iter().map(|process_record| process_record["roles"].clone()).collect();
    assert_eq!(listed, [serde_json::json!(["app", "web"]), serde_json::json!(["db"])]);
}

fn keeper_pause() -> Duration {
    crate::role::lease::keep_alive::retry_pause(TTL)
}

#[tokio::test]
async fn with_its_last_role_a_process_ends_its_object() {
    let (store, one, two) = two_hosts();
    let mut here = one.leases(ROLES);
    all_say(&mut here, "held").await;
    for lease in &mut here {
        lease.release().await;
    }
    assert_eq!(process_records(&store), Vec::<serde_json::Value>::new());
    all_say(&mut two.leases(ROLES), "held").await;
    all_say(&mut here, "node2").await;
    assert_eq!(process_records(&store).len(), 1, "who is refused lists nothing");
}

#[tokio::test]
async fn a_dead_process_is_waited_out_once_for_all_its_roles() {
    let (store, one, two) = two_hosts();
    let (mut here, mut there) = (one.leases(ROLES), two.leases(ROLES));
    all_say(&mut here, "held").await;
    all_say(&mut there, "node1").await;
    one.advance(TTL * 100);
    all_say(&mut there, "node1").await;
    // The wait begins when the version is first seen, and a change begins it anew.
    two.advance(TTL.saturating_sub(Duration::from_millis(1)));
    all_say(&mut here, "held").await;
    all_say(&mut there, "node1, alive").await;
    two.advance(TTL.saturating_sub(Duration::from_millis(1)));
    all_say(&mut there, "node1, alive").await;
    // By then the object has not been read for a while, as in a real process.
    two.advance(keeper_pause());
    all_say(&mut there, "held").await;
    one.advance(TTL / 3);
    all_say(&mut here, "node2").await;
    let ended: Vec<_> = process_records(&store).iter().map(|process_record| process_record["ended"] == true).collect();
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 1);
}

#[tokio::test]
async fn a_process_whose_object_ended_loses_all_roles_and_regains_the_free_ones() {
    let (_, one, two) = two_hosts();
    let (mut here, mut there) = (one.leases(ROLES), two.leases(["app"]));
    all_say(&mut here, "held").await;
    all_say(&mut there, "node1").await;
    two.advance(TTL);
    all_say(&mut there, "held").await;
    // By its own clock no time has passed: only its object tells it.
    one.advance(TTL / 3);
    assert_eq!(says(&here[0].acquire_or_renew().await), "node2");
    let before = here[1].held.as_ref().unwrap().record.process.clone();
    all_say(&mut here[1..], "held").await;
    assert_ne!(here[1].held.as_ref().unwrap().record.process, before, "under another name");
}

#[tokio::test]
async fn a_renewal_without_an_answer_is_doubt_for_all_and_dated_from_its_sending() {
    for fault in [InjectedFault::LostRequest, InjectedFault::Refused] {
        let (store, mut one, _) = two_hosts();
        let faulty =
            Arc::new(FaultyStore::new(Arc::new(store.clone()), FaultPlan::exactly([(13, fault), (15, fault)])));
        one.store = faulty.clone();
        let mut here = one.leases(ROLES);
        all_say(&mut here, "held").await;
        // For each role a read, its place in the process object, and its own object; new objects are read once more.
        assert_eq!(faulty.calls(), 13);
        one.advance(TTL / 3);
        for lease in &mut here[..2] {
            assert!(says(&lease.acquire_or_renew().await).starts_with("unknown: "), "{fault:?}");
        }
        one.advance(Duration::from_secs(1));
        for lease in &mut here {
            let LeaseReply::Held(grant) = lease.acquire_or_renew().await else { panic!("it is answered") };
            assert_eq!(grant.asked.boot, one.clock.boottime());
        }
    }
    let (store, mut one, _) = two_hosts();
    one.store =
        Arc::new(FaultyStore::new(Arc::new(store.clone()), FaultPlan::exactly([(13, InjectedFault::LostAnswer)])));
    let mut here = one.leases(ROLES);
    all_say(&mut here, "held").await;
    one.advance(TTL / 3);
    all_say(&mut here, "held").await;
}

/// A write that was not answered may still arrive and remove the role from the list: a place there counts only when a
/// later write gave it.
#[tokio::test]
async fn a_role_that_was_given_up_without_an_answer_is_listed_anew() {
    let (store, mut one, _) = two_hosts();
    let faulty =
        Arc::new(FaultyStore::new(Arc::new(store.clone()), FaultPlan::exactly([(13, InjectedFault::LostRequest)])));
    one.store = faulty.clone();
    let mut here = one.leases(ROLES);
    all_say(&mut here, "held").await;
    let before = process_records(&store)[0]["count"].as_u64().unwrap();
    here[0].release().await;
    assert_eq!(process_records(&store)[0]["count"], before, "it did not arrive");
    all_say(&mut here[..1], "held").await;
    assert_eq!(process_records(&store)[0]["count"], before + 1);
}

#[tokio::test]
async fn what_was_cut_short_when_it_had_ended_its_object_begins_another() {
    let (store, mut one, two) = two_hosts();
    // When the role is given up for the first time, the delete never ends.
    let plan = FaultPlan::exactly([(6, InjectedFault::Delay(TTL_MAX))]);
    one.store = Arc::new(FaultyStore::new(Arc::new(store.clone()), plan));
    let mut here = one.lease("app");
    assert_eq!(says(&here.acquire_or_renew().await), "held");
    assert_eq!(here.release().now_or_never(), None);
    assert_eq!(process_records(&store)[0]["ended"], true);
    assert_eq!(says(&here.acquire_or_renew().await), "held");
    assert_eq!(process_records(&store).len(), 2);
    assert_eq!(says(&two.lease("app").acquire_or_renew().await), "node1");
}

#[tokio::test]
async fn who_asks_no_more_is_listed_no_more() {
    let (store, one, two) = two_hosts();
    let (mut here, mut there) = (one.leases(["app", "db"]), two.leases(["app"]));
    all_say(&mut here, "held").await;
    for _ in 0..4 {
        one.advance(TTL / 3);
        all_say(&mut here[1..], "held").await;
    }
    assert_eq!(process_records(&store)[0]["roles"], serde_json::json!(["db"]));
    all_say(&mut there, "held").await;
    assert_eq!(says(&here[0].acquire_or_renew().await), "node2");
}

#[tokio::test]
async fn a_run_and_a_daemon_exclude_each_other() {
    let (store, one, two) = two_hosts();
    let mut run = lease(&store, 3, &one.clock);
    let mut daemon = two.lease("app");
    assert_eq!(says(&run.acquire_or_renew().await), "held");
    assert_eq!(says(&daemon.acquire_or_renew().await), "node3");
    two.advance(TTL.saturating_sub(Duration::from_millis(1)));
    assert_eq!(says(&daemon.acquire_or_renew().await), "node3");
    two.advance(Duration::from_millis(1));
    assert_eq!(says(&daemon.acquire_or_renew().await), "held");
    assert_eq!(says(&run.acquire_or_renew().await), "node2");
    one.advance(TTL.saturating_sub(keeper_pause()));
    assert_eq!(says(&run.acquire_or_renew().await), "node2");
    one.advance(keeper_pause());
    assert_eq!(says(&run.acquire_or_renew().await), "held");
    two.advance(TTL / 3);
    assert_eq!(says(&daemon.acquire_or_renew().await), "node3, alive");
}

/// A process of a version without process objects may have taken the role after an hour, and a process that was stopped
/// for some time reads the role's object again.
#[tokio::test]
async fn the_roles_object_is_read_after_a_gap_and_rewritten_within_an_hour() {
    for gap in [true, false] {
        let (store, one, _) = two_hosts();
        let mut here = one.leases(["app", "db"]);
        all_say(&mut here, "held").await;
        let other = LeaseRequester { me: lease(&store, 3, &one.clock).requester.me, ttl: TTL }.lease_record(77, None);
        store.tamper("app/live/lease", Some(Bytes::from(serde_json::to_vec(&other).unwrap())));
        if gap {
            one.advance(TTL);
        } else {
            let before = one.counts().0;
            for _ in 0..53 * 3 - 1 {
                one.advance(TTL / 3);
                all_say(&mut here, "held").await;
            }
            assert_eq!(one.counts().0, before + 53 * 3 - 1, "the process object alone");
            one.advance(TTL / 3);
        }
        assert_eq!(says(&here[0].acquire_or_renew().await), "node3", "gap: {gap}");
        assert_eq!(says(&here[1].acquire_or_renew().await), "held", "gap: {gap}");
    }
}

#[tokio::test]
async fn roles_of_a_damaged_process_object_are_taken_over_after_the_ttl() {
    for damage in [Some(&b"{"[..]), Some(b"{\"v\":2}"), Some(&TOO_LARGE), None] {
        let (store, one, two) = two_hosts();
        let (mut here, mut there) = (one.leases(ROLES), two.leases(ROLES));
        all_say(&mut here, "held").await;
        all_say(&mut there, "node1").await;
        let key = here[0].held.as_ref().unwrap().record.process.as_ref().unwrap().to_string();
        store.tamper(&key, damage.map(Bytes::copy_from_slice));
        if damage.is_some() {
            two.advance(keeper_pause());
            all_say(&mut there, "node1").await;
        }
        two.advance(TTL);
        all_say(&mut there, "held").await;
        one.advance(TTL / 3);
        all_say(&mut here, "node2").await;
        // A process that comes back has an object that can be read.
        for lease in &mut there {
            lease.release().await;
        }
        one.advance(TTL);
        all_say(&mut here, "held").await;
    }
}

#[tokio::test]
async fn who_may_not_read_the_process_object_cannot_tell_and_is_told_what_it_needs() {
    let (store, one, mut two) = two_hosts();
    all_say(&mut one.leases(["app", "db"]), "held").await;
    // The role's own object can be read.
    let plan = FaultPlan::exactly([(1, InjectedFault::Denied), (2, InjectedFault::Denied)]);
    two.store = Arc::new(FaultyStore::new(Arc::new(store.clone()), plan));
    let mut db = two.lease("db");
    for looks in [false, true] {
        let said = says(&if looks { db.inspect().await } else { db.acquire_or_renew().await });
        assert!(said.starts_with("unknown: ") && said.contains("access denied"), "{said}");
        assert!(said.contains("read and write app/live/processes/"), "{said}");
    }
    assert_eq!(says(&db.acquire_or_renew().await), "node1");
}
