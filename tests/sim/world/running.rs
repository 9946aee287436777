//! The world itself: one seed, one order; and what a host suffers is what its program sees.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future;
use jiff::SignedDuration;
use parking_lot::Mutex;

use crate::hosts::ThawedClock;
use crate::world::World;
use runner::env::Env;

const SECOND: Duration = Duration::from_secs(1);

/// Wakes itself, once a poll.
async fn yield_now() {
    let mut was_polled = false;
    future::poll_fn(|cx| {
        if std::mem::replace(&mut was_polled, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Counts the seconds of this host's clock.
fn ticks(world: &World, host: usize) -> Arc<AtomicU64> {
    let (env, count) = (world.env(host), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&count);
    world.start(host, async move {
        loop {
            env.runtime.sleep(SECOND).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    count
}

fn count(ticks: &AtomicU64) -> u64 {
    ticks.load(Ordering::Relaxed)
}

/// Three hosts whose tasks sleep, yield and spawn by chance: everything that they do, in order.
fn random_trace(seed: u64) -> (u64, u64, Vec<String>) {
    let world = World::new(seed);
    let said = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..3 {
        let host = world.host();
        for task in 0..5 {
            let (env, said, mut rng) = (world.env(host), Arc::clone(&said), world.rng());
            world.start(host, async move {
                for round in 0..20 {
                    if rng.chance(500) {
                        yield_now().await;
                    } else {
                        env.runtime.sleep(Duration::from_millis(rng.between(0, 3))).await;
                    }
                    let mut random = [0; 4];
                    env.random.fill(&mut random);
                    let line = format!("{host} {task} {round} {random:?} {}", env.clock.now());
                    let said = Arc::clone(&said);
                    env.runtime.spawn(Box::pin(async move { said.lock().push(line) }));
                }
            });
        }
    }
    world.run_until(SECOND);
    let said = said.lock().clone();
    assert_eq!(said.len(), 300);
    (world.steps(), world.trace(), said)
}

#[test]
fn one_seed_gives_one_story() {
    assert_eq!(random_trace(7), random_trace(7));
    let order = |seed| random_trace(seed).2.iter().map(|line| line[..3].to_owned()).collect::<Vec<_>>();
    assert_ne!(order(7), order(8), "another seed, another order");
}

#[test]
fn a_stopped_host_finds_everything_due_when_it_goes_on() {
    let world = World::new(1);
    let (host, other) = (world.host(), world.host());
    let (here, there) = (ticks(&world, host), ticks(&world, other));
    world.run_until(SECOND * 3);
    let boot = world.env(host).clock.boottime();
    world.stop(host);
    world.run_until(SECOND * 10);
    assert_eq!((count(&here), count(&there)), (3, 10));
    assert_eq!(world.env(host).clock.boottime(), boot + SECOND * 7, "its clocks went on");
    world.go_on(host);
    world.run_until(SECOND * 10);
    assert_eq!(count(&here), 4, "the sleep that it was in is over");
    world.run_until(SECOND * 12);
    assert_eq!(count(&here), 6);
}

#[test]
fn a_frozen_host_goes_on_where_it_stood() {
    for thaw in [ThawedClock::Behind, ThawedClock::SetRight] {
        let world = World::new(2);
        let host = world.host();
        let (ticks, env) = (ticks(&world, host), world.env(host));
        world.run_until(SECOND * 5 / 2);
        let then = env.clock.moment();
        world.freeze(host);
        world.run_until(SECOND * 60);
        assert_eq!((count(&ticks), env.clock.moment()), (2, then));
        world.thaw(host, thaw);
        world.run_until(SECOND * 61);
        assert_eq!(count(&ticks), 3);
        let behind = world.wall().duration_since(env.clock.now());
        let expected =
            if thaw == ThawedClock::Behind { SignedDuration::from_millis(57_500) } else { SignedDuration::ZERO };
        assert_eq!((env.clock.boottime(), behind), (then.boot + SECOND, expected));
    }
}

#[test]
fn sleep_is_in_the_hosts_own_time() {
    let world = World::new(3);
    let host = world.host();
    let (env, woken) = (world.env(host), Arc::new(Mutex::new(None)));
    let (slept, told) = (env.clone(), Arc::clone(&woken));
    let outside = (*world).clone();
    world.start(host, async move {
        slept.runtime.sleep(SECOND * 100).await;
        *told.lock() = Some(outside.now());
    });
    let start = env.clock.boottime();
    // 10 s right, 20 s at half the speed, an hour's step of the wall clock, then at twice the speed: 100 = 10 + 10 + 80.
    world.run_until(SECOND * 10);
    world.drift(host, -500_000);
    world.run_until(SECOND * 30);
    assert_eq!(env.clock.boottime(), start + SECOND * 20);
    world.step_wall(host, SignedDuration::from_hours(1));
    world.drift(host, 1_000_000);
    world.run_until(SECOND * 200);
    assert_eq!(*woken.lock(), Some(SECOND * 70));
    // An odd speed rounds, and never wakes early.
    world.drift(host, 137);
    let due = env.clock.boottime() + SECOND;
    let sleeper = env.clone();
    let shown = world.finish(host, SECOND * 2, async move {
        sleeper.runtime.sleep(SECOND).await;
        sleeper.clock.boottime()
    });
    assert!((due..due + Duration::from_nanos(2)).contains(&shown.unwrap()));
}

/// What a destructor of a process may do: call back into everything.
struct ReentrantDrop(Env);

impl Drop for ReentrantDrop {
    fn drop(&mut self) {
        let Self(env) = self;
        drop(env.runtime.spawn(Box::pin(async { panic!("a dead process goes on") })));
        assert!(env.files.replace(Path::new("after"), b"").is_err());
    }
}

#[test]
fn a_killed_process_does_nothing_more_and_the_next_one_finds_its_disk() {
    let world = World::new(4);
    let host = world.host();
    let (env, path) = (world.env(host), Path::new("state/lock"));
    env.files.make_dir(Path::new("state")).unwrap();
    let first = env.clone();
    world.start(host, async move {
        let _lock = first.files.lock(path).unwrap().expect("it is free");
        let _talkative = ReentrantDrop(first.clone());
        first.files.replace(Path::new("state/file"), b"kept").unwrap();
        first.runtime.sleep(SECOND * 2).await;
        first.files.replace(Path::new("state/file"), b"never").unwrap();
    });
    world.run_until(SECOND);
    let held = env.files.lock(path).unwrap();
    assert!(held.is_none());
    world.kill(host);
    assert!(env.files.lock(path).is_err(), "the dead lock nothing");
    let next = world.env(host);
    let lock = next.files.lock(path).unwrap();
    assert!(lock.is_some(), "the kernel has let it go");
    world.run_until(SECOND * 5);
    assert_eq!(next.files.read(Path::new("state/file")).unwrap(), b"kept");
    assert_eq!(next.files.list(Path::new("state")).unwrap(), ["file", "lock"]);
    let numbers = |env: &Env| {
        let mut bytes = [0; 16];
        env.random.fill(&mut bytes);
        bytes
    };
    assert_ne!(numbers(&env), numbers(&next));
    world.disk(host).fill_up(true);
    let full = next.files.append(Path::new("state/file"), b"!").unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_process_may_kill_its_own_host() {
    let world = World::new(5);
    let host = world.host();
    let (env, outside) = (world.env(host), (*world).clone());
    let path = Path::new("lock");
    let kept = Arc::new(Mutex::new(None));
    let next = Arc::clone(&kept);
    let outcome = world.start(host, async move {
        let _talkative = ReentrantDrop(env.clone());
        let _lock = env.files.lock(path).unwrap().expect("it is free");
        outside.kill(host);
        *next.lock() = outside.env(host).files.lock(path).unwrap();
        env.runtime.sleep(Duration::ZERO).await;
        yield_now().await;
    });
    world.run_until(SECOND);
    assert!(!outcome.is_there());
    assert!(kept.lock().is_some(), "the kernel lets go at once");
    assert!(world.env(host).files.lock(path).unwrap().is_none(), "and what is left of the dead one takes nothing away");
}

#[test]
fn a_reboot_is_seen() {
    let world = World::new(6);
    let host = world.host();
    world.run_until(SECOND);
    let before = (world.env(host).clock.boot_id(), world.env(host).clock.now());
    assert!(world.env(host).clock.boottime() > Duration::from_mins(1));
    world.freeze(host);
    world.reboot(host);
    let env = world.env(host);
    assert!(env.clock.boottime() < Duration::from_mins(1));
    assert_ne!(env.clock.boot_id(), before.0);
    assert_eq!(env.clock.now(), before.1);
    assert_eq!(world.finish(host, SECOND * 2, async move { env.runtime.sleep(SECOND).await }), Some(()));
}

#[test]
fn an_aborted_task_ends_and_a_forgotten_handle_ends_nothing() {
    let world = World::new(7);
    let host = world.host();
    let (env, left) = (world.env(host), Arc::new(AtomicU64::new(0)));
    let add = |after: u32| {
        let (env, left) = (env.clone(), Arc::clone(&left));
        let task = async move {
            env.runtime.sleep(SECOND * after).await;
            left.fetch_add(1, Ordering::Relaxed);
        };
        Box::pin(task)
    };
    drop(env.runtime.spawn(add(1)));
    let handle = env.runtime.spawn(add(2));
    world.run_until(SECOND * 3 / 2);
    handle.abort();
    world.run_until(SECOND * 3);
    assert_eq!(left.load(Ordering::Relaxed), 1);
    handle.abort();
}

#[test]
fn a_world_ends_with_everything_in_it() {
    let world = World::new(10);
    let (host, mark) = (world.host(), Arc::new(()));
    for delay in [SECOND, Duration::from_hours(1)] {
        let (env, mark) = (world.env(host), Arc::clone(&mark));
        world.start(host, async move {
            env.runtime.sleep(delay).await;
            drop(mark);
        });
    }
    let event = Arc::clone(&mark);
    world.at(Duration::from_hours(2), move |world| drop((event, world.now())));
    world.run_until(SECOND);
    assert_eq!(Arc::strong_count(&mark), 3);
    drop(world);
    assert_eq!(Arc::strong_count(&mark), 1);
}

#[test]
#[should_panic(expected = "time stands still")]
fn a_loop_that_waits_for_nothing_is_found() {
    let world = World::new(8);
    let host = world.host();
    world.start(host, async {
        loop {
            yield_now().await;
        }
    });
    world.run_until(SECOND);
}

/// Not an assertion: how fast is a matter of the machine. `--nocapture` shows it.
#[test]
fn how_fast_it_is() {
    const POLLS: u64 = 200_000;
    let rates = [false, true].map(|sleeps| {
        let world = World::new(9);
        for _ in 0..4 {
            let host = world.host();
            for _ in 0..5 {
                let env = world.env(host);
                world.start(host, async move {
                    for _ in 0..POLLS / 20 {
                        if sleeps { env.runtime.sleep(Duration::from_millis(1)).await } else { yield_now().await }
                    }
                });
            }
        }
        #[allow(clippy::disallowed_methods, reason = "this is about the real one")]
        let started = std::time::Instant::now();
        world.run_until(Duration::from_hours(1));
        assert!(world.steps() >= POLLS);
        world.steps() as f64 / started.elapsed().as_secs_f64() / 1e6
    });
    println!("million polls a second: {:.2} of tasks that yield, {:.2} of tasks that sleep", rates[0], rates[1]);
}
