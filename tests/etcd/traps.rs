//! What etcd, and the way to it, are known to do to those who trust them too much.

use std::time::Duration;

use etcd_client::{Client, PutOptions};
use runner::env::Env;
use runner::role::lease::etcd::{EtcdLease, EtcdSession};
use runner::role::lease::{LeaseReply, LeaseService as _};

use crate::etcd::{EtcdCluster, ProxyMode, TcpProxy};
use crate::{APP, DB, TTL, held, keys, now, peer, raw, says, session, settings, until_held};

async fn leases(raw: &mut Client) -> Vec<i64> {
    raw.leases().await.unwrap().leases().iter().map(etcd_client::LeaseStatus::id).collect()
}

/// What the key of a role hangs on.
async fn lease_of(raw: &mut Client, key: &str) -> Option<i64> {
    raw.get(key, None).await.unwrap().kvs().first().map(etcd_client::KeyValue::lease)
}

fn app() -> String {
    format!("/runner/{APP}/holder")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_dies_between_grant_and_claim_is_no_lease() {
    let etcd = EtcdCluster::single();
    let mut raw = raw(&etcd).await;
    let ttl = Duration::from_mins(1);
    let one = session(&etcd, 1, ttl);
    let (mut app_1, mut db_1) = (EtcdLease::new(one.clone(), APP), EtcdLease::new(one, DB));
    held(&app_1.acquire_or_renew().await);
    let [lease] = leases(&mut raw).await[..] else { panic!("one process, one lease") };
    // It dies while the last keep-alive still counts for every role of the process.
    raw.lease_revoke(lease).await.unwrap();
    let mut app_2 = EtcdLease::new(session(&etcd, 2, ttl), APP);
    assert_eq!(says(&app_2.acquire_or_renew().await), "held");
    assert_eq!(says(&app_1.acquire_or_renew().await), "node2 has it", "its key went with its lease");
    assert_eq!(says(&db_1.acquire_or_renew().await), "held");
    let [one, two] = leases(&mut raw).await[..] else { panic!("each has a lease") };
    let hangs_on = lease_of(&mut raw, &format!("/runner/{DB}/holder")).await.unwrap();
    assert!([one, two].contains(&hangs_on) && hangs_on != lease, "the claim is on a living lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_of_a_dead_lease_is_no_grant() {
    let etcd = EtcdCluster::single();
    let mut raw = raw(&etcd).await;
    let mut lease = EtcdLease::new(session(&etcd, 1, TTL), APP);
    held(&lease.acquire_or_renew().await);
    let [first] = leases(&mut raw).await[..] else { panic!("one process, one lease") };
    tokio::time::sleep(TTL / 3).await;
    // The stream is open now.
    held(&lease.acquire_or_renew().await);
    raw.lease_revoke(first).await.unwrap();
    tokio::time::sleep(TTL / 3).await;
    // TTL 0 is the answer; another lease is asked for, and the role claimed on that.
    let before = now();
    let grant = held(&lease.acquire_or_renew().await);
    assert!(grant.asked.boot >= before.boot);
    let [second] = leases(&mut raw).await[..] else { panic!("one process, one lease") };
    assert_ne!(first, second);
    assert_eq!(lease_of(&mut raw, &app()).await, Some(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_twice_leaves_a_newer_holder_alone() {
    let etcd = EtcdCluster::single();
    let mut raw = raw(&etcd).await;
    let one = session(&etcd, 1, Duration::from_mins(1));
    let mut east = EtcdLease::new(one, APP);
    held(&east.acquire_or_renew().await);
    // It believes that it holds the key; the key of now is another's.
    raw.delete(app(), None).await.unwrap();
    let mut west = EtcdLease::new(session(&etcd, 2, Duration::from_mins(1)), APP);
    held(&west.acquire_or_renew().await);
    east.release().await;
    assert_eq!(says(&east.inspect().await), "node2 has it");
}

/// A session that has a lease, and whose way to etcd can be cut; past it there is another.
async fn over_a_wire(etcd: &EtcdCluster, ttl: Duration) -> (TcpProxy, EtcdSession) {
    let wire = TcpProxy::to(etcd.port(0));
    let endpoints = vec![wire.endpoint(), etcd.endpoints().remove(0)];
    let one = EtcdSession::of(settings(endpoints, ttl), Env::host(), peer(1));
    held(&EtcdLease::new(one.clone(), DB).acquire_or_renew().await);
    (wire, one)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_is_lost_is_found() {
    let etcd = EtcdCluster::single();
    let (wire, one) = over_a_wire(&etcd, Duration::from_secs(6)).await;
    let claims = etcd.received("Txn");
    wire.set(ProxyMode::LoseAnswers);
    let mut lease = EtcdLease::new(one, APP);
    held(&lease.acquire_or_renew().await);
    assert_eq!(etcd.received("Txn") - claims, 2, "the first one worked; the second one found what it did");
    lease.release().await;
    assert_eq!(says(&lease.inspect().await), "free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_comes_after_it_was_given_up_does_nothing() {
    let etcd = EtcdCluster::single();
    let (wire, one) = over_a_wire(&etcd, Duration::from_secs(12)).await;
    wire.set(ProxyMode::Hold);
    let mut lease = EtcdLease::new(one, APP);
    // What is held back before the client gives up is the claim, and no word of its being cancelled.
    let (reply, pieces) = tokio::join!(lease.acquire_or_renew(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        wire.held()
    });
    held(&reply);
    assert!(pieces > 0);
    lease.release().await;
    let mut raw = raw(&etcd).await;
    assert!(keys(&mut raw, &app()).await.is_empty());
    let claims = etcd.received("Txn");
    wire.deliver(pieces);
    one_more_arrived(&etcd, claims).await;
    assert!(
        keys(&mut raw, &app()).await.is_empty(),
        "a role that nobody holds would be nobody's until this process ends"
    );
    assert_eq!(says(&lease.acquire_or_renew().await), "held");
}

/// Waits until etcd has one transaction more than `before`, and whatever it did.
async fn one_more_arrived(etcd: &EtcdCluster, before: u64) {
    for _ in 0..100 {
        if etcd.received("Txn") > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(etcd.received("Txn") - before, 1, "it has arrived");
    // A read that begins after it is ordered after it.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// The revision that created the key of a role.
async fn created(raw: &mut Client) -> Option<i64> {
    raw.get(app(), None).await.unwrap().kvs().first().map(etcd_client::KeyValue::create_revision)
}

/// A process whose only way to etcd kept its delete back: what it holds of it in pieces, and the session.
async fn given_up_unheard(etcd: &EtcdCluster) -> (TcpProxy, usize, EtcdSession) {
    let wire = TcpProxy::to(etcd.port(0));
    let one = EtcdSession::of(settings(vec![wire.endpoint()], Duration::from_secs(12)), Env::host(), peer(1));
    let mut lease = EtcdLease::new(one.clone(), APP);
    held(&lease.acquire_or_renew().await);
    wire.set(ProxyMode::Hold);
    // As above: the delete, and no word of its being cancelled.
    let ((), pieces) = tokio::join!(lease.release(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        wire.held()
    });
    assert!(pieces > 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    wire.set(ProxyMode::Pass);
    (wire, pieces, one)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_comes_late_leaves_what_was_claimed_after_it() {
    let etcd = EtcdCluster::single();
    let mut raw = raw(&etcd).await;
    let (wire, pieces, one) = given_up_unheard(&etcd).await;
    let first = created(&mut raw).await.expect("the delete has not arrived");
    // The daemon asks again, with a lease of its own making.
    let mut again = EtcdLease::new(one, APP);
    held(&again.acquire_or_renew().await);
    let requests = etcd.received("Txn");
    wire.deliver(pieces);
    one_more_arrived(&etcd, requests).await;
    let second = created(&mut raw).await.expect("it is held");
    assert!(first < second, "{first} was given up, {second} is held");
    let mut west = EtcdLease::new(session(&etcd, 2, Duration::from_mins(1)), APP);
    assert_eq!(says(&west.acquire_or_renew().await), "node1 has it");
    again.release().await;
    assert_eq!(says(&west.acquire_or_renew().await), "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_given_up_is_not_hung_on_another_lease() {
    let etcd = EtcdCluster::single();
    let mut raw = raw(&etcd).await;
    let (wire, pieces, one) = given_up_unheard(&etcd).await;
    let first = created(&mut raw).await.expect("the delete has not arrived");
    // A restored etcd has brought it back, and the lease of now is another one.
    let value = raw.get(app(), None).await.unwrap().kvs()[0].value().to_vec();
    let [lease] = leases(&mut raw).await[..] else { panic!("one process, one lease") };
    let other = raw.lease_grant(600, None).await.unwrap().id();
    raw.put(app(), value, Some(PutOptions::new().with_lease(other))).await.unwrap();
    raw.lease_revoke(lease).await.unwrap();
    held(&EtcdLease::new(one, APP).acquire_or_renew().await);
    let requests = etcd.received("Txn");
    wire.deliver(pieces);
    one_more_arrived(&etcd, requests).await;
    assert!(created(&mut raw).await.is_some_and(|second| first < second), "it is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_dated_from_the_question() {
    let etcd = EtcdCluster::single();
    let ttl = Duration::from_secs(9);
    let mut lease = EtcdLease::new(session(&etcd, 1, ttl), APP);
    held(&lease.acquire_or_renew().await);
    tokio::time::sleep(ttl / 5).await;
    held(&lease.acquire_or_renew().await);
    tokio::time::sleep(ttl / 5).await;
    // The answer takes its time.
    etcd.stop(0);
    let (reply, woken) = tokio::join!(lease.acquire_or_renew(), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let woken = now();
        etcd.cont(0);
        woken
    });
    assert!(held(&reply).asked.boot < woken.boot);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_does_not_hang_us() {
    let etcd = EtcdCluster::cluster();
    let ttl = Duration::from_secs(6);
    let mut lease = EtcdLease::new(session(&etcd, 1, ttl), APP);
    held(&lease.acquire_or_renew().await);
    // The one that is asked first stands still; then the leader.
    etcd.stop(0);
    until_held(&mut lease, ttl, "unknown").await;
    etcd.cont(0);
    let leader = etcd.leader();
    etcd.stop(leader);
    tokio::time::sleep(ttl / 5).await;
    until_held(&mut lease, ttl, "unknown").await;
    // From then on another one is asked first: the next ask waits for nobody.
    let before = now().boot;
    let grant = held(&lease.acquire_or_renew().await);
    assert!(grant.asked.boot + ttl > before);
    etcd.cont(leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_lets_a_dead_holder_go_late_never_early() {
    let mut etcd = EtcdCluster::cluster();
    let ttl = Duration::from_secs(3);
    let mut east = EtcdLease::new(session(&etcd, 1, ttl), APP);
    let mut west = EtcdLease::new(session(&etcd, 2, ttl), APP);
    held(&east.acquire_or_renew().await);
    assert_eq!(says(&west.acquire_or_renew().await), "node1 has it");
    tokio::time::sleep(ttl / 3).await;
    let grant = held(&east.acquire_or_renew().await);
    drop(east);
    let leader = etcd.leader();
    etcd.kill(leader);
    until_held(&mut west, ttl, "").await;
    assert!(now().boot >= grant.asked.boot + ttl, "not even its margin was cut");
    etcd.restart(leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_forgot_everything_is_claimed_anew() {
    let mut etcd = EtcdCluster::single();
    let mut east = EtcdLease::new(session(&etcd, 1, TTL * 2), APP);
    let mut west = EtcdLease::new(session(&etcd, 2, TTL * 2), APP);
    let before = held(&east.acquire_or_renew().await);
    assert_eq!(says(&west.acquire_or_renew().await), "node1 has it");
    etcd.restart_empty();
    let after = until_held(&mut east, TTL * 2, "unknown").await;
    assert!(after.asked.boot > before.asked.boot);
    // Whoever comes second finds the key: there is one holder again.
    for _ in 0..10 {
        let reply = west.acquire_or_renew().await;
        if !matches!(reply, LeaseReply::Unknown { .. }) {
            assert_eq!(says(&reply), "node1 has it");
            return;
        }
    }
    panic!("west never reached the new etcd");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_ours_on_another_lease_is_hung_on_the_living_one() {
    let etcd = EtcdCluster::single();
    let mut raw = raw(&etcd).await;
    let one = session(&etcd, 1, Duration::from_mins(1));
    let mut lease = EtcdLease::new(one, APP);
    held(&lease.acquire_or_renew().await);
    let [living] = leases(&mut raw).await[..] else { panic!("one process, one lease") };
    // As after a restore of etcd: the value is ours, the lease is not the one we keep.
    let value = raw.get(app(), None).await.unwrap().kvs()[0].value().to_vec();
    let other = raw.lease_grant(600, None).await.unwrap().id();
    raw.put(app(), value, Some(PutOptions::new().with_lease(other))).await.unwrap();
    held(&lease.acquire_or_renew().await);
    assert_eq!(lease_of(&mut raw, &app()).await, Some(living));
    raw.lease_revoke(other).await.unwrap();
    assert_eq!(says(&lease.inspect().await), "node1 has it");

    // What nobody can read is somebody's.
    raw.put(app(), "etcdctl was here", None).await.unwrap();
    assert_eq!(says(&lease.acquire_or_renew().await), "None has it, alive: true");
}
