//! The lease in the bucket: one small object that its holder rewrites by compare-and-set.
//!
//! The invariants that live here: no clock of another host is ever compared with ours, so that a foreign lease is over only
//! when its object has not changed for its whole length *while this process watched*; and release counts on instead of
//! resetting, so that no content comes twice and an old version is never taken for the present one.
//!
//! The protocol is that of client-go's leader election (`resourceVersion` there, the ETag here), without its timestamps.
//! What to do is decided by `step`, a pure function; [`BucketLease`] does it.

mod paper;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::paper::{Asker, Found, Paper, Step, Watched, parse, step, watch};
use super::{LeaseHolder, LeaseService, Reply};
use crate::env::Env;
use crate::role::permit::Grant;
use crate::store::{PutOutcome, ReplaceOutcome, SizeLimit, Store, StoreError, Version};

/// One role's lease object.
#[derive(Debug)]
pub struct BucketLease {
    store: Arc<dyn Store>,
    key: String,
    env: Env,
    asker: Asker,
    watched: Option<Watched<Version>>,
    /// What this process wrote last, and the version it has.
    held: Option<(Paper, Version)>,
}

impl BucketLease {
    /// The lease object `key`, asked for by `me`, for `ttl` at a time.
    pub fn new(store: Arc<dyn Store>, key: String, env: Env, me: LeaseHolder, ttl: Duration) -> Self {
        Self { store, key, env, asker: Asker { me, ttl }, watched: None, held: None }
    }

    async fn find(&mut self) -> Result<(Option<Found<Version>>, Duration), StoreError> {
        let asked = self.env.clock.boottime();
        let found = match self.store.get_versioned(&self.key, SizeLimit::LIVE).await {
            Ok((bytes, version)) => Some(Found { version, paper: parse(&bytes) }),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        };
        self.watched = watch(self.watched.take(), found.as_ref(), self.env.clock.boottime());
        Ok((found, asked))
    }

    /// Writes `paper` over `expected`, or anew. `None`: the object is another one than expected.
    async fn write(&mut self, expected: Option<Version>, paper: Paper) -> Result<Option<Reply>, StoreError> {
        let grant = Grant { asked: self.env.clock.moment(), ttl: paper.ttl() };
        let body = Bytes::from(serde_json::to_vec(&paper).expect("plain data becomes JSON"));
        let (version, doubt) = match &expected {
            None => match self.store.put_if_absent(&self.key, body.clone()).await? {
                // The version has to be looked up; and whoever does not know looks, too.
                PutOutcome::Created => (None, None),
                PutOutcome::Unknown { why } => (None, Some(why)),
                PutOutcome::Exists => return Ok(None),
            },
            Some(expected) => match self.store.replace(&self.key, body.clone(), expected).await? {
                ReplaceOutcome::Replaced(version) => (Some(version), None),
                ReplaceOutcome::Changed => return Ok(None),
                ReplaceOutcome::Unknown { why } => (None, Some(why)),
            },
        };
        let version = match version {
            Some(version) => version,
            None => match self.store.get_versioned(&self.key, SizeLimit::LIVE).await {
                Ok((there, version)) if there == body => version,
                // It was not answered, and has done nothing yet.
                Ok((_, version)) if Some(&version) == expected.as_ref() => {
                    return Ok(Some(Reply::Unknown { why: doubt.unwrap_or_else(|| CHANGES.to_owned()) }));
                }
                Ok(_) => return Ok(None),
                Err(e) if e.is_not_found() => {
                    let why = doubt.unwrap_or_else(|| "the lease object is gone".to_owned());
                    return Ok(Some(Reply::Unknown { why }));
                }
                Err(e) => return Err(e),
            },
        };
        self.held = Some((paper, version));
        Ok(Some(Reply::Held(grant)))
    }

    async fn try_ask(&mut self) -> Result<Reply, StoreError> {
        if let Some((paper, version)) = self.held.take()
            && let Some(reply) = self.write(Some(version), paper.renewed()).await?
        {
            return Ok(reply);
        }
        let (found, asked) = self.find().await?;
        let written = match step(&self.asker, found.as_ref(), self.watched.as_ref(), asked) {
            Step::Create(paper) => self.write(None, paper).await?,
            Step::Replace(version, paper) => self.write(Some(version), paper).await?,
            Step::Leave { by, alive } => return Ok(Reply::Taken { by, alive }),
        };
        if let Some(reply) = written {
            return Ok(reply);
        }
        // Another process wrote at the same time, or an earlier request of this one arrived late: what is there tells. Only another
        // process's paper is a reason to say that another process has the lease.
        let (found, asked) = self.find().await?;
        Ok(match step(&self.asker, found.as_ref(), self.watched.as_ref(), asked) {
            Step::Leave { by, alive } => Reply::Taken { by, alive },
            Step::Create(_) | Step::Replace(..) => Reply::Unknown { why: CHANGES.to_owned() },
        })
    }

    async fn try_look(&mut self) -> Result<Option<Found<Version>>, StoreError> {
        Ok(self.find().await?.0)
    }
}

/// Said of an ask that nobody is seen to have won.
const CHANGES: &str = "the lease object changed while it was asked for";

#[async_trait]
impl LeaseService for BucketLease {
    async fn ask(&mut self) -> Reply {
        self.try_ask().await.unwrap_or_else(|e| Reply::Unknown { why: e.to_string() })
    }

    async fn look(&mut self) -> Reply {
        match self.try_look().await {
            Err(e) => Reply::Unknown { why: e.to_string() },
            Ok(None) => Reply::Free,
            Ok(Some(Found { paper: Some(paper), .. })) if paper.released => Reply::Free,
            Ok(Some(Found { paper, .. })) => Reply::Taken {
                by: paper.as_ref().map(Paper::holder),
                alive: self.watched.as_ref().is_some_and(|watched| watched.renewed),
            },
        }
    }

    async fn release(&mut self) {
        let held = match self.held.take() {
            // The last ask was cut short; it may have succeeded.
            None => match self.find().await {
                Ok((Some(Found { version, paper: Some(paper) }), _)) => Some((paper, version)),
                _ => None,
            },
            held => held,
        };
        let held = held.filter(|(paper, _)| paper.instance == self.asker.me.instance && !paper.released);
        let Some((paper, version)) = held else { return };
        let body = Bytes::from(serde_json::to_vec(&paper.given_up()).expect("plain data becomes JSON"));
        // It runs out by itself, only later.
        match self.store.replace(&self.key, body, &version).await {
            Ok(ReplaceOutcome::Replaced(version)) => {
                tracing::debug!(key = self.key, ?version, "the lease is given up");
            }
            outcome => tracing::debug!(key = self.key, ?outcome, "the lease was not given up; it runs out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;

    use super::*;
    use crate::env::Clock;
    use crate::ids::{InstanceId, NodeId};
    use crate::store::memory::MemoryStore;

    const TTL: Duration = Duration::from_mins(1);

    /// A clock that is moved by hand.
    #[derive(Debug, Default)]
    struct Hand(Mutex<Duration>);

    impl Hand {
        fn advance(&self, by: Duration) {
            *self.0.lock().unwrap() += by;
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH + self.boottime()
        }

        fn boottime(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    /// Two nodes whose clocks have nothing to do with each other.
    struct Pair {
        store: MemoryStore,
        clocks: [Arc<Hand>; 2],
        leases: [BucketLease; 2],
    }

    fn lease(store: &MemoryStore, n: u8, clock: &Arc<Hand>) -> BucketLease {
        let me = LeaseHolder { node: NodeId([n; 16]), label: format!("node{n}"), instance: InstanceId([n; 8]) };
        let env = Env { clock: clock.clone(), ..Env::host() };
        BucketLease::new(Arc::new(store.clone()), "app/live/lease".to_owned(), env, me, TTL)
    }

    fn pair() -> Pair {
        let store = MemoryStore::new(&Env::host());
        let clocks = [Arc::new(Hand::default()), Arc::new(Hand(Mutex::new(Duration::from_secs(987_654))))];
        let leases = [lease(&store, 1, &clocks[0]), lease(&store, 2, &clocks[1])];
        Pair { store, clocks, leases }
    }

    fn says(reply: &Reply) -> String {
        match reply {
            Reply::Held(_) => "held".to_owned(),
            Reply::Taken { by, alive } => {
                let by = by.as_ref().map_or("somebody", |by| by.label.as_str());
                format!("{by}{}", if *alive { ", alive" } else { "" })
            }
            Reply::Free => "free".to_owned(),
            Reply::Unknown { why } => format!("unknown: {why}"),
        }
    }

    #[tokio::test]
    async fn one_holds_it_and_release_lets_the_other_in_at_once() {
        let Pair { leases: [mut one, mut two], clocks, .. } = pair();
        assert_eq!(says(&two.look().await), "free");
        let Reply::Held(grant) = one.ask().await else { panic!("it was free") };
        assert_eq!((grant.asked.boot, grant.ttl), (Duration::ZERO, TTL));
        assert_eq!(says(&two.ask().await), "node1");
        clocks[0].advance(TTL / 3);
        let Reply::Held(grant) = one.ask().await else { panic!("it is its own") };
        assert_eq!(grant.asked.boot, TTL / 3, "dated anew");
        assert_eq!(says(&two.ask().await), "node1, alive");
        one.release().await;
        assert_eq!(says(&two.look().await), "free");
        assert_eq!(says(&two.ask().await), "held");
        assert_eq!(says(&one.ask().await), "node2");
        one.release().await;
        assert_eq!(says(&one.look().await), "node2", "what one does not hold one cannot release");
    }

    #[tokio::test]
    async fn a_dead_holder_is_waited_out_by_the_waiters_own_clock() {
        let Pair { leases: [mut one, mut two], clocks, .. } = pair();
        one.ask().await;
        assert_eq!(says(&two.ask().await), "node1");
        clocks[0].advance(TTL * 100);
        assert_eq!(says(&two.ask().await), "node1", "the holder's clock says nothing");
        clocks[1].advance(Duration::from_millis(59_999));
        assert_eq!(says(&two.ask().await), "node1");
        one.ask().await;
        clocks[1].advance(Duration::from_millis(59_999));
        assert_eq!(says(&two.ask().await), "node1, alive", "a change begins the wait anew");
        clocks[1].advance(TTL);
        assert_eq!(says(&two.ask().await), "held");
        assert_eq!(says(&one.ask().await), "node2", "a paused holder finds it gone");
    }

    #[tokio::test]
    async fn a_new_process_of_the_same_node_waits_like_any_other() {
        let Pair { leases: [mut one, _], clocks, store } = pair();
        one.ask().await;
        let mut restarted = lease(&store, 1, &clocks[0]);
        restarted.asker.me.instance = InstanceId([9; 8]);
        assert_eq!(says(&restarted.ask().await), "node1", "the node's ID may be a clone's");
    }

    #[tokio::test]
    async fn no_content_ever_comes_twice() {
        let Pair { leases: [mut one, mut two], store, .. } = pair();
        let mut seen = Vec::new();
        for _ in 0..3 {
            for lease in [&mut one, &mut two] {
                assert_eq!(says(&lease.ask().await), "held");
                seen.push(store.objects()["app/live/lease"].clone());
                lease.release().await;
                seen.push(store.objects()["app/live/lease"].clone());
            }
        }
        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
    }

    /// Puts of the lease without an answer: nobody else's paper is seen, so nobody else is said to have it.
    #[tokio::test]
    async fn a_put_without_an_answer_is_unknown_and_no_other_holder() {
        use crate::store::faulty::{Fault, Faulty, Plan};
        for fault in [Fault::LostRequest, Fault::Refused] {
            for is_first in [true, false] {
                let Pair { leases: [mut one, mut two], store, clocks } = pair();
                if !is_first {
                    assert_eq!(says(&two.ask().await), "held");
                    two.release().await;
                }
                // A look, and then the write.
                let plan = Plan::exactly([(1, fault), (4, fault)]);
                one.store = Arc::new(Faulty::new(Arc::new(store.clone()), plan));
                for _ in 0..2 {
                    assert!(says(&one.ask().await).starts_with("unknown: "), "{fault:?}, first: {is_first}");
                }
                assert_eq!(says(&one.ask().await), "held");
                clocks[0].advance(TTL / 3);
                // So with a renewal.
                one.store = Arc::new(Faulty::new(Arc::new(store.clone()), Plan::exactly([(0, fault)])));
                assert!(says(&one.ask().await).starts_with("unknown: "), "{fault:?}, first: {is_first}");
                assert_eq!(says(&one.ask().await), "held");
                assert_eq!(says(&two.ask().await), "node1", "whose paper is seen is named");
            }
        }
    }

    #[tokio::test]
    async fn a_put_that_worked_without_an_answer_holds() {
        use crate::store::faulty::{Fault, Faulty, Plan};
        let Pair { leases: [mut one, _], store, .. } = pair();
        one.store = Arc::new(Faulty::new(Arc::new(store), Plan::exactly([(1, Fault::LostAnswer)])));
        assert_eq!(says(&one.ask().await), "held");
    }

    #[tokio::test]
    async fn damage_locks_nobody_out_for_ever() {
        for damage in [&b"{"[..], b"{\"v\":2}", b""] {
            let Pair { leases: [mut one, mut two], clocks, store } = pair();
            one.ask().await;
            store.tamper("app/live/lease", Some(Bytes::copy_from_slice(damage)));
            assert_eq!(says(&two.ask().await), "somebody");
            clocks[1].advance(TTL);
            assert_eq!(says(&two.ask().await), "held");
        }
        let Pair { leases: [mut one, mut two], store, .. } = pair();
        one.ask().await;
        store.tamper("app/live/lease", None);
        assert_eq!(says(&two.ask().await), "held", "nobody has what is not there");
        assert_eq!(says(&one.ask().await), "node2");
    }
}
