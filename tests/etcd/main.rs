//! Leases and journals' heads in a real etcd: one holder at a time whatever dies, hangs, comes late or gets lost; and the program over it.
#![cfg(feature = "etcd")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/etcd.rs"]
mod etcd;
mod journal;
mod program;
#[cfg(feature = "s3")]
mod rclone;
#[cfg(feature = "s3")]
#[path = "../support/s3_foreign.rs"]
mod s3_foreign;
#[path = "../support/site.rs"]
mod site;
mod traps;

use std::time::Duration;

use etcd::EtcdCluster;
use etcd_client::{Client, ConnectOptions};
use runner::clock_reading::ClockReading;
use runner::config::EtcdSettings;
use runner::env::Env;
use runner::ids::{InstanceId, NodeId, RepoId};
use runner::role::candidacy::LeaseGrant;
use runner::role::lease::etcd::{EtcdLease, EtcdSession, ProcessRegistration};
use runner::role::lease::{LeaseReply, LeaseService as _};

/// The shortest lease.
const TTL: Duration = Duration::from_secs(2);

const APP: RepoId = RepoId([7; 16]);
const DB: RepoId = RepoId([8; 16]);

fn settings(endpoints: Vec<String>, lease_ttl: Duration) -> EtcdSettings {
    EtcdSettings {
        endpoints,
        ca_file: None,
        cert_file: None,
        key_file: None,
        user: None,
        password_file: None,
        prefix: "/runner".into(),
        lease_ttl,
    }
}

fn peer(n: u8) -> ProcessRegistration {
    ProcessRegistration {
        v: 1,
        node: NodeId([n; 16]),
        instance: InstanceId([n; 8]),
        name: format!("node{n}"),
        hostname: format!("host{n}"),
        version: "1".into(),
        config_hash: "x".into(),
    }
}

/// The session of process `n`.
fn session(etcd: &EtcdCluster, n: u8, ttl: Duration) -> EtcdSession {
    EtcdSession::of(settings(etcd.endpoints(), ttl), Env::host(), peer(n))
}

fn says(reply: &LeaseReply) -> String {
    match reply {
        LeaseReply::Held(_) => "held".to_owned(),
        LeaseReply::Taken { by: Some(by), alive: true } => format!("{} has it", by.label),
        LeaseReply::Taken { by, alive } => format!("{by:?} has it, alive: {alive}"),
        LeaseReply::Free => "free".to_owned(),
        LeaseReply::Unknown { why } => format!("unknown: {why}"),
    }
}

fn held(reply: &LeaseReply) -> LeaseGrant {
    let LeaseReply::Held(grant) = reply else { panic!("{}", says(reply)) };
    *grant
}

fn now() -> ClockReading {
    Env::host().clock.moment()
}

/// Asks until it is held; no ask may take longer than a lease, and other answers than `expected` are none.
async fn until_held(lease: &mut EtcdLease, ttl: Duration, expected: &str) -> LeaseGrant {
    for _ in 0..400 {
        let reply = tokio::time::timeout(ttl, lease.acquire_or_renew()).await.expect("an ask never hangs");
        if let LeaseReply::Held(grant) = reply {
            return grant;
        }
        assert!(says(&reply).starts_with(expected), "{}", says(&reply));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never held");
}

/// A client that does by hand what nobody should.
async fn raw(etcd: &EtcdCluster) -> Client {
    Client::connect(etcd.endpoints(), None).await.unwrap()
}

async fn keys(raw: &mut Client, prefix: &str) -> Vec<String> {
    let options = etcd_client::GetOptions::new().with_prefix();
    let answer = raw.get(prefix, Some(options)).await.unwrap();
    answer.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holds_it_and_giving_up_lets_the_other_in_at_once() {
    let etcd = EtcdCluster::single();
    let (one, two) = (session(&etcd, 1, TTL * 5), session(&etcd, 2, TTL * 5));
    let (mut east, mut west) = (EtcdLease::new(one.clone(), APP), EtcdLease::new(two.clone(), APP));
    assert_eq!(says(&west.inspect().await), "free");
    let before = now();
    let grant = held(&east.acquire_or_renew().await);
    assert!(grant.asked.boot >= before.boot && grant.ttl == TTL * 5, "{grant:?}");
    assert_eq!(says(&west.acquire_or_renew().await), "node1 has it");
    assert_eq!(says(&west.inspect().await), "node1 has it");
    assert_eq!(says(&EtcdLease::new(two.clone(), DB).acquire_or_renew().await), "held", "roles do not mind each other");

    let hints = west.change_hints().expect("etcd has a watch");
    hints.notified().await; // The watch is there.
    east.release().await;
    hints.notified().await;
    assert_eq!(says(&west.acquire_or_renew().await), "held");
    assert_eq!(says(&east.acquire_or_renew().await), "node2 has it");
    east.release().await;
    assert_eq!(says(&west.acquire_or_renew().await), "held", "who does not hold it gives nothing up");

    // The end of a process is the end of all that it holds.
    two.close().await;
    assert_eq!(says(&west.acquire_or_renew().await), "unknown: etcd: the session is closed");
    assert_eq!(says(&east.acquire_or_renew().await), "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_holder_is_followed_and_never_early() {
    let etcd = EtcdCluster::single();
    let (mut east, mut west) =
        (EtcdLease::new(session(&etcd, 1, TTL), APP), EtcdLease::new(session(&etcd, 2, TTL), APP));
    let grant = held(&east.acquire_or_renew().await);
    assert_eq!(says(&west.acquire_or_renew().await), "node1 has it");
    let hints = west.change_hints().expect("etcd has a watch");
    hints.notified().await;
    // It stops renewing. Nobody asks meanwhile: the watch tells.
    hints.notified().await;
    until_held(&mut west, TTL, "node1").await;
    assert!(now().boot >= grant.work_until(), "the old holder's work ended before");
    // The first one comes back with what it had: neither its old key nor its old lease is there.
    let reply = east.acquire_or_renew().await;
    assert_eq!(says(&reply), "node2 has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_roles_share_one_lease() {
    let etcd = EtcdCluster::single();
    let session = session(&etcd, 1, Duration::from_secs(30));
    let mut roles: Vec<EtcdLease> = (0..100).map(|n| EtcdLease::new(session.clone(), RepoId([n; 16]))).collect();
    let methods = ["LeaseGrant", "LeaseKeepAlive", "Put", "Txn", "Range"];
    let counts = || methods.map(|method| etcd.received(method));
    let ask_all = async |roles: &mut Vec<EtcdLease>| {
        let replies = futures_util::future::join_all(roles.iter_mut().map(EtcdLease::acquire_or_renew)).await;
        assert!(replies.iter().all(|reply| matches!(reply, LeaseReply::Held(_))), "{}", says(&replies[0]));
    };
    let before = counts();
    ask_all(&mut roles).await;
    let began = counts();
    ask_all(&mut roles).await;
    let renewed = counts();
    let diff = |a: [u64; 5], b: [u64; 5]| -> Vec<u64> { a.iter().zip(b).map(|(a, b)| b - a).collect() };
    println!("{methods:?}: acquiring {:?}, one renewal of all {:?}", diff(before, began), diff(began, renewed));
    println!("per second, renewed every 10 s: {}", diff(began, renewed).iter().sum::<u64>() as f64 / 10.0);
    assert_eq!(diff(before, began)[..4], [1, 0, 1, 100], "one lease, one registration, one claim each");
    let renewal = diff(began, renewed);
    assert!(renewal[1] <= 2 && renewal[3] == 0 && renewal[4] == 100, "{renewal:?}: reads, and at most a keep-alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn living_processes_are_listed() {
    let etcd = EtcdCluster::single();
    let open = |peer: ProcessRegistration| EtcdSession::of(settings(etcd.endpoints(), TTL * 5), Env::host(), peer);
    let one = open(peer(1));
    let other = open(peer(2));
    assert_eq!(one.peers().await.unwrap(), [], "nobody asked for anything");
    for (n, session) in [&one, &other].into_iter().enumerate() {
        held(&EtcdLease::new(session.clone(), RepoId([n as u8; 16])).acquire_or_renew().await);
    }
    let peers = one.peers().await.unwrap();
    assert_eq!(peers.len(), 2);
    assert!([&one, &other].iter().all(|session| peers.contains(session.me())), "{peers:?}");
    other.close().await;
    assert_eq!(one.peers().await.unwrap(), [one.me().clone()]);
    let status = one.status().await.unwrap();
    assert!(status.member == status.leader && status.raft_term > 0, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_client_certificate() {
    let etcd = EtcdCluster::with_tls();
    let tls = etcd.tls();
    let with = |ca: bool, cert: bool| {
        let settings = EtcdSettings {
            ca_file: ca.then(|| tls.ca.clone()),
            cert_file: cert.then(|| tls.client_cert.clone()),
            key_file: cert.then(|| tls.client_key.clone()),
            ..settings(etcd.endpoints(), TTL * 5)
        };
        EtcdLease::new(EtcdSession::of(settings, Env::host(), peer(1)), APP)
    };
    assert_eq!(says(&with(true, true).acquire_or_renew().await), "held");
    let stranger = says(&with(true, false).acquire_or_renew().await);
    assert!(stranger.starts_with("unknown: etcd: https://"), "{stranger}");
    let believer = says(&with(false, true).acquire_or_renew().await);
    assert!(believer.starts_with("unknown: etcd: https://") && believer.contains("ertificate"), "{believer}");
    let mut lost = settings(etcd.endpoints(), TTL * 5);
    lost.ca_file = Some("/nonexistent/ca.pem".into());
    let lost = says(&EtcdLease::new(EtcdSession::of(lost, Env::host(), peer(1)), APP).acquire_or_renew().await);
    assert!(lost.starts_with("unknown: cannot read /nonexistent/ca.pem: "), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_only_do_this() {
    let etcd = EtcdCluster::single();
    etcd::enable_auth(&mut raw(&etcd).await, "a secret").await;

    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    std::fs::write(&right, "a secret\n").unwrap();
    std::fs::write(&wrong, "a guess\n").unwrap();
    let with = |file: Option<&std::path::PathBuf>, prefix: &str| {
        let settings = EtcdSettings {
            user: file.map(|_| "runner".into()),
            password_file: file.cloned(),
            prefix: prefix.into(),
            ..settings(etcd.endpoints(), TTL * 5)
        };
        EtcdLease::new(EtcdSession::of(settings, Env::host(), peer(1)), APP)
    };
    let mut lease = with(Some(&right), "/runner");
    assert_eq!(says(&lease.acquire_or_renew().await), "held");
    assert_eq!(says(&lease.acquire_or_renew().await), "held");
    lease.release().await;
    assert_eq!(says(&lease.inspect().await), "free");
    for (lease, why) in [
        (with(Some(&wrong), "/runner"), "authentication failed"),
        (with(None, "/runner"), "user name is empty"),
        (with(Some(&right), "/other"), "permission denied"),
    ] {
        let mut lease = lease;
        let said = says(&lease.acquire_or_renew().await);
        assert!(said.starts_with("unknown: ") && said.contains(why), "{said}");
    }
    let options = ConnectOptions::new().with_user("root", "root");
    let mut root = Client::connect(etcd.endpoints(), Some(options)).await.unwrap();
    assert!(keys(&mut root, "/other").await.is_empty());
}

/// An etcd with the user `runner`, who may use the prefix, and its password in a file.
async fn with_password(etcd: &EtcdCluster, dir: &std::path::Path) -> (EtcdSettings, Client) {
    etcd::enable_auth(&mut raw(etcd).await, "first").await;
    let file = dir.join("password");
    std::fs::write(&file, "first\n").unwrap();
    let settings =
        EtcdSettings { user: Some("runner".into()), password_file: Some(file), ..settings(etcd.endpoints(), TTL * 5) };
    let options = ConnectOptions::new().with_user("root", "root");
    (settings, Client::connect(etcd.endpoints(), Some(options)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_changed_is_read_again_and_a_wrong_one_is_tried_rarely() {
    let (etcd, dir) = (EtcdCluster::single(), tempfile::tempdir().unwrap());
    let (settings, mut root) = with_password(&etcd, dir.path()).await;
    let file = settings.password_file.clone().unwrap();
    let session = EtcdSession::of(settings, Env::host(), peer(1));
    let mut lease = EtcdLease::new(session.clone(), APP);
    held(&lease.acquire_or_renew().await);

    // On disk first: the first answer after the change is right already.
    std::fs::write(&file, "second\n").unwrap();
    root.user_change_password("runner", "second").await.unwrap();
    assert_eq!(says(&lease.inspect().await), "node1 has it");

    // In etcd alone: the refusal stands, and etcd is not asked to hash a password with each question.
    root.user_change_password("runner", "third").await.unwrap();
    let before = etcd.received("Authenticate");
    for _ in 0..50 {
        let said = says(&lease.inspect().await);
        assert!(said.contains("authentication failed") || said.contains("invalid auth token"), "{said}");
    }
    let tried = etcd.received("Authenticate") - before;
    assert!((1..10).contains(&tried), "{tried}");

    // An operator who says so is not kept waiting.
    std::fs::write(&file, "third\n").unwrap();
    session.pool().request_new_clients();
    assert_eq!(says(&lease.inspect().await), "node1 has it");
    held(&lease.acquire_or_renew().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_etcd_has_forgotten_are_replaced() {
    let (mut etcd, dir) = (EtcdCluster::single(), tempfile::tempdir().unwrap());
    let (settings, _root) = with_password(&etcd, dir.path()).await;
    let mut lease = EtcdLease::new(EtcdSession::of(settings, Env::host(), peer(1)), APP);
    held(&lease.acquire_or_renew().await);
    // Its tokens are in memory only.
    etcd.kill(0);
    etcd.restart(0);
    until_held(&mut lease, TTL * 5, "unknown: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_etcd_delays_nothing() {
    let nowhere = || {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        format!("http://127.0.0.1:{port}")
    };
    let settings = settings(vec![nowhere(), nowhere()], TTL);
    let mut lease = EtcdLease::new(EtcdSession::of(settings.clone(), Env::host(), peer(1)), APP);
    let said = says(&tokio::time::timeout(TTL, lease.acquire_or_renew()).await.expect("an ask never hangs"));
    assert!(said.starts_with("unknown: ") && settings.endpoints.iter().all(|e| said.contains(e.as_str())), "{said}");
    lease.release().await;
    assert!(says(&lease.inspect().await).starts_with("unknown: "));
}
