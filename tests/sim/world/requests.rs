//! Requests outlive their senders, and every fault leaves behind what it should.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::Mutex;

use crate::network::NetworkFaults;
use crate::registers::RegisterServer;
use crate::sim_store::{EffectObserver, SimBucket, SimStore, StoredEffect};
use crate::world::World;
use runner::journal::register::{CasOutcome, RegisterService as _};
use runner::store::{PutOutcome, ReplaceOutcome, SizeLimit, Store, StoreErrorKind};

const BODY: Bytes = Bytes::from_static(b"body");
const MINUTE: Duration = Duration::from_mins(1);
/// Every request.
const ALL: u32 = 1000;

#[derive(Debug, Default)]
struct EffectLog(Mutex<Vec<(usize, StoredEffect)>>);

impl EffectObserver for EffectLog {
    fn changed(&self, host: usize, what: &StoredEffect) {
        self.0.lock().push((host, what.clone()));
    }
}

impl EffectLog {
    /// `1 key: before > after`.
    fn lines(&self) -> Vec<String> {
        let text = |body: &Option<Bytes>| String::from_utf8(body.clone().unwrap_or_default().to_vec()).unwrap();
        let changes = self.0.lock();
        changes.iter().map(|(host, c)| format!("{host} {}: {} > {}", c.key, text(&c.before), text(&c.after))).collect()
    }
}

struct RequestFixture {
    world: World,
    bucket: Arc<SimBucket>,
    log: Arc<EffectLog>,
    host: usize,
}

impl RequestFixture {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let (bucket, log, host) = (SimBucket::new(&world, true), Arc::new(EffectLog::default()), world.host());
        bucket.observe(log.clone());
        Self { world, bucket, log, host }
    }

    fn wire(&self) -> Arc<SimStore> {
        self.bucket.wire(self.world.process(self.host))
    }

    fn faults(&self, faults: NetworkFaults) {
        self.bucket.net().set(faults);
    }

    /// What a call comes to, within two minutes.
    fn call<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        call: impl FnOnce(Arc<SimStore>) -> F,
    ) -> T {
        self.world.finish(self.host, MINUTE * 2, call(self.wire())).expect("every call ends")
    }

    fn put_if_absent(&self, key: &'static str) -> PutOutcome {
        self.call(|wire| async move { wire.put_if_absent(key, BODY).await }).unwrap()
    }
}

#[test]
fn without_faults_it_is_a_store() {
    let stage = RequestFixture::new(1);
    assert_eq!(stage.wire().clock_offset(), None, "nobody has answered");
    assert_eq!(stage.put_if_absent("a"), PutOutcome::Created);
    assert_eq!(stage.put_if_absent("a"), PutOutcome::Exists);
    let replaced = stage.call(|wire| async move {
        let (_, version) = wire.get_versioned("a", SizeLimit::INDEX).await.unwrap();
        wire.replace("a", Bytes::from("new"), &version).await.unwrap()
    });
    assert!(matches!(replaced, ReplaceOutcome::Replaced(_)));
    stage.call(|wire| async move {
        wire.put("b", BODY).await.unwrap();
        assert_eq!(wire.get_range("a", 1..9).await.unwrap(), "ew");
        wire.delete(&["a".to_owned(), "none".to_owned()]).await.unwrap();
        assert!(wire.get("a", SizeLimit::INDEX).await.unwrap_err().is_not_found());
        assert_eq!(wire.list("", None, 9).await.unwrap().objects.len(), 1);
    });
    assert_eq!(stage.log.lines(), ["1 a:  > body", "1 a: body > new", "1 b:  > body", "1 a: new > "]);
}

#[test]
fn a_put_lands_although_its_sender_is_dead() {
    let stage = RequestFixture::new(2);
    stage.faults(NetworkFaults { late: ALL, ..NetworkFaults::NONE });
    let wire = stage.wire();
    let told = stage.world.start(stage.host, async move { wire.put_if_absent("late", BODY).await });
    stage.world.run_until(Duration::from_millis(1));
    stage.world.kill(stage.host);
    assert!(stage.log.lines().is_empty());
    stage.world.run_until(MINUTE * 2);
    assert_eq!(stage.log.lines(), ["1 late:  > body"]);
    let (life, at) = stage.log.0.lock().first().map(|(_, change)| (change.life, change.at)).unwrap();
    assert!(life < stage.world.life(stage.host) && at > Duration::from_secs(3));
    assert!(!told.is_there());
    // What is dead sends nothing.
    let dead = stage.bucket.wire(crate::tasks::SimProcess { life, ..stage.world.process(stage.host) });
    let never = stage.world.finish(stage.host, MINUTE, async move { dead.put("never", BODY).await.is_ok() });
    assert_eq!((never, stage.log.lines().len()), (None, 1));
}

#[test]
fn a_stopped_sender_hears_of_it_when_it_goes_on() {
    let stage = RequestFixture::new(3);
    let wire = stage.wire();
    let told = stage.world.start(stage.host, async move { wire.put_if_absent("a", BODY).await });
    stage.world.run_until(Duration::ZERO);
    stage.world.stop(stage.host);
    stage.world.run_until(MINUTE);
    assert!(stage.log.lines().len() == 1 && !told.is_there());
    stage.world.go_on(stage.host);
    stage.world.run_until(MINUTE);
    assert_eq!(told.take().unwrap().unwrap(), PutOutcome::Created);
}

#[test]
fn each_fault_leaves_what_it_should() {
    let none = NetworkFaults::NONE;
    for (faults, why, is_done) in [
        (NetworkFaults { lost_request: ALL, ..none }, "no answer", false),
        (NetworkFaults { lost_answer: ALL, ..none }, "no answer", true),
        (NetworkFaults { late: ALL, ..none }, "no answer", true),
        (NetworkFaults { refused: ALL, ..none }, "status 503", false),
        (NetworkFaults { conflict: ALL, ..none }, "status 409", false),
    ] {
        let stage = RequestFixture::new(4);
        stage.faults(faults);
        assert_eq!(stage.put_if_absent("a"), PutOutcome::Unknown { why: why.to_owned() });
        stage.world.run_until(MINUTE * 2);
        assert_eq!(stage.log.lines().len(), usize::from(is_done), "{faults:?}");
        if faults.conflict > 0 {
            continue;
        }
        let put = stage.call(|wire| async move { wire.put("b", BODY).await });
        assert_eq!(put.unwrap_err().kind, StoreErrorKind::Unreachable);
        let got = stage.call(|wire| async move { wire.get("b", SizeLimit::INDEX).await });
        assert_eq!(got.unwrap_err().kind, StoreErrorKind::Unreachable);
    }
    let stage = RequestFixture::new(4);
    stage.bucket.net().cut(stage.host, true);
    assert_eq!(stage.put_if_absent("a"), PutOutcome::Unknown { why: "no answer".to_owned() });
    stage.bucket.net().cut(stage.host, false);
    stage.faults(NetworkFaults { twice: ALL, ..none });
    stage.call(|wire| async move { wire.put("b", BODY).await }).unwrap();
    assert_eq!(stage.put_if_absent("c"), PutOutcome::Created);
    stage.world.run_until(MINUTE * 2);
    assert_eq!(stage.log.lines().iter().filter(|line| line.contains('b') && line.starts_with("1 b")).count(), 2);
    assert_eq!(stage.log.lines().iter().filter(|line| line.starts_with("1 c")).count(), 1);
}

#[test]
fn a_cut_loses_the_answers_too() {
    let stage = RequestFixture::new(5);
    let wire = stage.wire();
    let told = stage.world.start(stage.host, async move { wire.put_if_absent("a", BODY).await });
    stage.world.run_while(MINUTE, || stage.log.lines().is_empty());
    stage.bucket.net().cut(stage.host, true);
    stage.world.run_until(MINUTE);
    assert!(matches!(told.take(), Some(Ok(PutOutcome::Unknown { .. }))));
}

#[test]
fn a_stale_listing_lacks_what_is_new_and_nothing_else() {
    let stage = RequestFixture::new(6);
    let list = |limit| {
        let page = stage.call(move |wire| async move { wire.list("", None, limit).await }).unwrap();
        page.objects.into_iter().map(|object| object.key).collect::<Vec<_>>()
    };
    stage.call(|wire| async move { wire.put("b", BODY).await }).unwrap();
    stage.world.run_until(MINUTE);
    stage.call(|wire| async move {
        wire.put("a", BODY).await.unwrap();
        wire.put("b", BODY).await.unwrap();
    });
    stage.faults(NetworkFaults { stale_listing: ALL, ..NetworkFaults::NONE });
    assert_eq!(list(1), ["b"]);
    stage.world.run_until(MINUTE * 2);
    assert_eq!(list(9), ["a", "b"]);
}

#[test]
fn requests_overtake_each_other() {
    let overtaken = (0..20).any(|seed| {
        let stage = RequestFixture::new(seed);
        for key in ["a", "b"] {
            let wire = stage.wire();
            stage.world.start(stage.host, async move { wire.put(key, BODY).await });
        }
        stage.world.run_until(MINUTE);
        stage.log.lines() == ["1 b:  > body", "1 a:  > body"]
    });
    assert!(overtaken);
}

#[test]
fn the_stores_clock_is_seen_in_whole_seconds() {
    let stage = RequestFixture::new(7);
    stage.world.step_wall(stage.host, SignedDuration::from_secs(-600));
    let wire = stage.wire();
    let asking = Arc::clone(&wire);
    let put = stage.world.finish(stage.host, MINUTE, async move { asking.put("a", BODY).await });
    assert!(put.unwrap().is_ok());
    let ahead = wire.clock_offset().unwrap().as_secs();
    assert!((599..=601).contains(&ahead), "{ahead}");
}

#[test]
fn a_swap_without_answer_may_have_happened() {
    let world = World::new(8);
    let (server, log, host) = (RegisterServer::new(&world), Arc::new(EffectLog::default()), world.host());
    server.observe(log.clone());
    let register = server.wire(world.process(host)).register("head");
    let swap = |old: Option<&'static str>, new: &'static str| {
        let register = Arc::clone(&register);
        let swap = async move { register.compare_and_swap(old.map(Bytes::from).as_ref(), Bytes::from(new)).await };
        world.finish(host, MINUTE, swap).expect("it ends").unwrap()
    };
    assert_eq!(swap(None, "one"), CasOutcome::Swapped);
    assert_eq!(swap(None, "two"), CasOutcome::Mismatch(Some(Bytes::from("one"))));
    server.net().set(NetworkFaults { lost_answer: ALL, ..NetworkFaults::NONE });
    assert!(matches!(swap(Some("one"), "two"), CasOutcome::Unknown { .. }));
    server.net().set(NetworkFaults { late: ALL, ..NetworkFaults::NONE });
    assert!(matches!(swap(Some("two"), "three"), CasOutcome::Unknown { .. }));
    world.run_until(MINUTE * 5);
    assert_eq!(log.lines(), ["1 head:  > one", "1 head: one > two", "1 head: two > three"]);
}
