//! The lease service keeps its promise under every fault but the two that break it, and those are found.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::leases::LeaseServer;
use crate::network::NetworkFaults;
use crate::world::World;
use runner::env::AsyncRuntime as _;
use runner::ids::{InstanceId, NodeId, RoleName};
use runner::role::lease::{LeaseHolder, LeaseReply};

const TTL: Duration = Duration::from_secs(12);
const SECOND: Duration = Duration::from_secs(1);

fn role() -> RoleName {
    "app".parse().unwrap()
}

fn me(world: &World, host: usize) -> LeaseHolder {
    let (node, instance) = (NodeId([host as u8; 16]), InstanceId((world.life(host) << 8 | host as u64).to_be_bytes()));
    LeaseHolder { node, label: format!("node{host}"), instance }
}

/// What somebody was told: who, when, and until when it holds the lease, counted from when it had asked, in world time.
type Held = (InstanceId, Duration, Duration);

/// Who it is knows that its grants are over.
fn end(held: &Mutex<Vec<Held>>, who: InstanceId, now: Duration) {
    held.lock().iter_mut().filter(|held| held.0 == who).for_each(|held| held.2 = held.2.min(now));
}

/// Asks all the time, keeps the lease for a while, gives it up.
fn request_lease_forever(world: &World, server: &Arc<LeaseServer>, host: usize, held: &Arc<Mutex<Vec<Held>>>) {
    let me = me(world, host);
    let lender = server.lender(world.process(host), me.clone(), TTL);
    let (process, held, mut rng) = (world.process(host), Arc::clone(held), world.rng());
    world.start(host, async move {
        let (role, world) = (role(), process.world.clone());
        let mut lease = lender.lease(&role);
        let hints = lease.change_hints().unwrap();
        loop {
            let asked = world.now();
            match lease.acquire_or_renew().await {
                LeaseReply::Held(_) => {
                    held.lock().push((me.instance, world.now(), asked + TTL));
                    process.sleep(TTL / 3).await;
                    if rng.chance(100) {
                        // What it guards ends before it is given up.
                        end(&held, me.instance, world.now());
                        lease.release().await;
                    }
                }
                LeaseReply::Taken { .. } if rng.chance(500) => hints.notified().await,
                _ => process.sleep(SECOND).await,
            }
        }
    });
}

/// Three nodes want one role for ten minutes, while everything happens to them and to the server. How often two held it at a time,
/// how often it changed hands, and
/// the trace of it all.
fn lease_contest(seed: u64, breaks: impl Fn(&LeaseServer)) -> (usize, usize, u64) {
    let world = World::new(seed);
    let (server, held) = (LeaseServer::new(&world), Arc::new(Mutex::new(Vec::new())));
    let mut rng = world.rng();
    server.net().set(NetworkFaults::drawn(&mut rng, 100));
    server.expire_late(SECOND * 3);
    let hosts = [world.host(), world.host(), world.host()];
    for host in hosts {
        request_lease_forever(&world, &server, host, &held);
    }
    for _ in 0..60 {
        world.run_until(world.now() + rng.time(SECOND, SECOND * 19));
        let host = *rng.pick(&hosts);
        match rng.below(8) {
            0 => world.stop(host),
            1 => hosts.iter().for_each(|host| world.go_on(*host)),
            2 => {
                world.kill(host);
                request_lease_forever(&world, &server, host, &held);
            }
            3 => server.change_leader(),
            4 => server.net().silence(rng.chance(300)),
            5 => server.net().cut(host, rng.chance(500)),
            6 if rng.chance(200) => server.forget(),
            _ => breaks(&server),
        }
    }
    let mut held = Arc::try_unwrap(held).map_or_else(|held| held.lock().clone(), Mutex::into_inner);
    held.sort_by_key(|held| held.1);
    let overlaps = |(n, a): (usize, &Held)| held[n + 1..].iter().filter(|b| b.0 != a.0 && b.1 < a.2).count();
    let doubled = held.iter().enumerate().map(overlaps).sum();
    (doubled, held.windows(2).filter(|two| two[0].0 != two[1].0).count(), world.trace())
}

#[test]
fn a_lease_that_is_held_is_not_granted_again() {
    let mut moved = 0;
    for seed in 0..200 {
        let (doubled, hands, _) = lease_contest(seed, |_| {});
        assert_eq!(doubled, 0, "seed {seed}");
        moved += hands;
    }
    assert!(moved > 1000, "{moved}");
}

#[test]
fn one_seed_gives_one_contest() {
    assert_eq!(lease_contest(7, |_| {}), lease_contest(7, |_| {}));
    assert_ne!(lease_contest(7, |_| {}).2, lease_contest(8, |_| {}).2);
}

#[test]
fn a_server_that_breaks_its_promise_is_seen() {
    let early = (0..50).map(|seed| lease_contest(seed, |server| server.expire_early(SECOND * 8)).0).sum::<usize>();
    let forgot = (0..50).map(|seed| lease_contest(seed, LeaseServer::forget_at_once).0).sum::<usize>();
    assert!(early > 0 && forgot > 0, "{early} {forgot}");
}

#[test]
fn a_process_is_known_again_and_its_successor_waits() {
    let world = World::new(1);
    let (server, host) = (LeaseServer::new(&world), world.host());
    let ask = || {
        let mut lease = server.lender(world.process(host), me(&world, host), TTL).lease(&role());
        world.finish(host, TTL, async move { lease.acquire_or_renew().await }).expect("it ends")
    };
    assert!(matches!(ask(), LeaseReply::Held(_)));
    assert!(matches!(ask(), LeaseReply::Held(_)), "another of its handles");
    let before = me(&world, host);
    world.kill(host);
    assert_eq!(ask(), LeaseReply::Taken { by: Some(before), alive: true });
    world.run_until(world.now() + TTL);
    assert!(matches!(ask(), LeaseReply::Held(_)));
}

#[test]
fn a_request_of_a_dead_process_may_be_granted_and_runs_out() {
    let world = World::new(2);
    let (server, host) = (LeaseServer::new(&world), world.host());
    server.net().set(NetworkFaults { late: 1000, ..NetworkFaults::NONE });
    let dead = me(&world, host);
    let mut lease = server.lender(world.process(host), dead.clone(), TTL).lease(&role());
    let told = world.start(host, async move { lease.acquire_or_renew().await });
    world.run_until(SECOND);
    world.kill(host);
    assert!(world.run_while(SECOND * 70, || server.holder(&role()).is_none()), "it arrives");
    assert_eq!(server.holder(&role()), Some(dead));
    let granted = world.now();
    assert!(world.run_while(TTL * 2, || server.holder(&role()).is_some()), "it runs out");
    assert_eq!(world.now(), granted + TTL);
    assert!(!told.is_there());
}

#[test]
fn a_release_that_comes_late_does_not_hit_the_next_grant() {
    let world = World::new(3);
    let (server, host) = (LeaseServer::new(&world), world.host());
    let mut lease = server.lender(world.process(host), me(&world, host), TTL * 20).lease(&role());
    let faulty = Arc::clone(server.net());
    let held = world.finish(host, TTL * 30, async move {
        assert!(matches!(lease.acquire_or_renew().await, LeaseReply::Held(_)));
        faulty.set(NetworkFaults { late: 1000, ..NetworkFaults::NONE });
        lease.release().await;
        faulty.set(NetworkFaults::NONE);
        lease.acquire_or_renew().await
    });
    assert!(matches!(held, Some(LeaseReply::Held(_))));
    world.run_until(world.now() + SECOND * 70);
    assert!(server.holder(&role()).is_some());
}
