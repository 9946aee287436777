//! A lease service as etcd is one, seen through a client that is as careful as ours.
//!
//! The invariants that live here: the server counts a lease's time from when a request arrives, the client from when it was sent, so
//! that the client's is over first; and what was given up is deleted by the number under which it was granted, so that a
//! delete that comes late never hits a later grant. What the server does wrong stands apart, and is off.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::network::{Network, NoAnswer, RequestKind};
use crate::tasks::SimProcess;
use crate::world::WorldHandle;
use runner::env::Clock as _;
use runner::ids::RoleName;
use runner::job::node::leases::LeaseLender;
use runner::role::candidacy::LeaseGrant;
use runner::role::lease::{LeaseHolder, LeaseReply, LeaseService};

/// So many hints in a thousand never come.
const HINT_LOST: usize = 200;

/// What a role's lease is to the server.
#[derive(Debug, Clone)]
struct SimLeaseGrant {
    holder: LeaseHolder,
    /// The number of the key, and of whoever knows of it.
    created: u64,
    revision: u64,
    ttl: Duration,
    /// World time.
    until: Duration,
    /// How long after that it is noticed.
    slack: Duration,
}

#[derive(Debug, Default)]
struct LeaseServerState {
    held: BTreeMap<RoleName, SimLeaseGrant>,
    revision: u64,
    /// Nothing is granted before.
    starts: Duration,
    late_max: Duration,
    early: Duration,
    watchers: Vec<(RoleName, usize, Weak<Notify>)>,
}

/// Told of every grant to somebody new, when it is made.
struct GrantWatcher(Box<dyn Fn(&LeaseHolder) + Send + Sync>);

impl Debug for GrantWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

/// The server.
#[derive(Debug)]
pub struct LeaseServer {
    watcher: OnceLock<GrantWatcher>,
    net: Arc<Network>,
    state: Mutex<LeaseServerState>,
}

/// What it says.
enum SimLeaseReply {
    Held { revision: u64 },
    Taken { by: LeaseHolder },
    Starting,
}

impl LeaseServer {
    /// One that has granted nothing.
    pub fn new(world: &WorldHandle) -> Arc<Self> {
        Arc::new(Self { watcher: OnceLock::new(), net: Network::new(world), state: Mutex::default() })
    }

    /// Who is told when somebody new gets a lease.
    pub fn on_grant(&self, told: impl Fn(&LeaseHolder) + Send + Sync + 'static) {
        self.watcher.set(GrantWatcher(Box::new(told))).expect("there is one watcher");
    }

    /// The way to it. Silenced, it is one that has lost its quorum.
    pub fn net(&self) -> &Arc<Network> {
        &self.net
    }

    /// The leases of one process.
    pub fn lender(self: &Arc<Self>, process: SimProcess, me: LeaseHolder, ttl: Duration) -> Arc<dyn LeaseLender> {
        Arc::new(SimLeaseClient { server: Arc::clone(self), process, me, ttl })
    }

    /// To whom it has granted a role's lease, as it sees it now.
    pub fn holder(&self, role: &RoleName) -> Option<LeaseHolder> {
        self.state().held.get(role).map(|held| held.holder.clone())
    }

    /// It has a new leader: all times start again, so that a takeover comes late, never early.
    pub fn change_leader(&self) {
        let now = self.now();
        for held in self.state().held.values_mut() {
            held.until = held.until.max(now + held.ttl);
        }
    }

    /// It lost its memory, and was so long in coming back that whatever it had granted has run out.
    pub fn forget(&self) {
        let now = self.now();
        {
            let mut state = self.state();
            let last = state.held.values().map(|held| held.until).max().unwrap_or(now);
            state.starts = state.starts.max(last);
        }
        self.lose();
    }

    /// It lost its memory and is back: a broken promise.
    pub fn forget_at_once(&self) {
        self.lose();
    }

    /// It notices up to so much late that a lease is over.
    pub fn expire_late(&self, max: Duration) {
        self.state().late_max = max;
    }

    /// It takes a lease to be over so much too early: a broken promise.
    pub fn expire_early(&self, by: Duration) {
        self.state().early = by;
    }

    fn lose(&self) {
        let roles: Vec<RoleName> = std::mem::take(&mut self.state().held).into_keys().collect();
        for role in &roles {
            self.hint(role);
        }
    }

    /// A request of `me`, who knows of the grant with this number, arrives.
    fn grant(self: &Arc<Self>, role: &RoleName, me: &LeaseHolder, ttl: Duration, known: Option<u64>) -> SimLeaseReply {
        let now = self.now();
        let late_max = self.state().late_max;
        let slack = self.net.world().draw(|rng| rng.time(Duration::ZERO, late_max));
        let mut guard = self.state();
        let state = &mut *guard;
        if now < state.starts {
            return SimLeaseReply::Starting;
        }
        let until = (now + ttl).saturating_sub(state.early);
        if let Some(held) = state.held.get_mut(role) {
            if held.holder.instance != me.instance {
                return SimLeaseReply::Taken { by: held.holder.clone() };
            }
            (held.ttl, held.until) = (ttl, held.until.max(until));
            if known == Some(held.revision) {
                return SimLeaseReply::Held { revision: held.revision };
            }
            // Who does not know of the grant may have given it up: that must not hit this one.
            state.revision += 1;
            held.revision = state.revision;
            return SimLeaseReply::Held { revision: held.revision };
        }
        state.revision += 1;
        let revision = state.revision;
        state
            .held
            .insert(role.clone(), SimLeaseGrant { holder: me.clone(), created: revision, revision, ttl, until, slack });
        drop(guard);
        if let Some(watcher) = self.watcher.get() {
            watcher.0(me);
        }
        self.watch(role.clone(), revision, until + slack);
        SimLeaseReply::Held { revision }
    }

    fn delete(&self, role: &RoleName, revision: u64) {
        let is_it = |held: &SimLeaseGrant| held.revision == revision;
        let was_it = {
            let mut state = self.state();
            state.held.get(role).is_some_and(is_it) && state.held.remove(role).is_some()
        };
        if was_it {
            self.hint(role);
        }
    }

    /// Ends what was created under this number when its time is over, however often that is moved on.
    fn watch(self: &Arc<Self>, role: RoleName, created: u64, until: Duration) {
        let server = Arc::downgrade(self);
        self.net.world().at(until, move |world| {
            let Some(server) = server.upgrade() else { return };
            let ends = {
                let mut state = server.state();
                let Some(held) = state.held.get(&role).filter(|held| held.created == created) else { return };
                let ends = held.until + held.slack;
                if ends <= world.now() {
                    state.held.remove(&role);
                }
                ends
            };
            if ends <= world.now() {
                server.hint(&role);
            } else {
                server.watch(role, created, ends);
            }
        });
    }

    /// Tells those who wait that a role's lease may be free, or does not.
    fn hint(&self, role: &RoleName) {
        let world = self.net.world();
        self.state().watchers.retain(|(_, _, notify)| notify.strong_count() > 0);
        let waiting: Vec<_> = self.state().watchers.iter().filter(|(of, _, _)| of == role).cloned().collect();
        for (_, host, notify) in waiting {
            let comes = self.net.reaches(host) && world.draw(|rng| rng.below(1000) >= HINT_LOST);
            let delay = self.net.delay();
            if comes {
                world.at(world.now() + delay, move |_| {
                    if let Some(notify) = notify.upgrade() {
                        notify.notify_one();
                    }
                });
            }
        }
    }

    fn now(&self) -> Duration {
        self.net.world().now()
    }

    fn state(&self) -> MutexGuard<'_, LeaseServerState> {
        self.state.lock()
    }
}

#[derive(Debug, Clone)]
struct SimLeaseClient {
    server: Arc<LeaseServer>,
    process: SimProcess,
    me: LeaseHolder,
    ttl: Duration,
}

impl LeaseLender for SimLeaseClient {
    fn lease(&self, role: &RoleName) -> Box<dyn LeaseService> {
        Box::new(SimLease { client: self.clone(), role: role.clone(), known: None, in_doubt: false, hints: None })
    }
}

/// One role's lease, as one process sees it.
#[derive(Debug)]
struct SimLease {
    client: SimLeaseClient,
    role: RoleName,
    /// The number of our grant.
    known: Option<u64>,
    /// Some request has had no answer: there may be a grant that we do not know.
    in_doubt: bool,
    hints: Option<Arc<Notify>>,
}

impl SimLease {
    /// Nobody waits for an answer for longer: two more tries fit into the lease.
    async fn carry<T: Send + 'static>(
        &self,
        kind: RequestKind,
        effect: impl FnMut() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let SimLeaseClient { server, process, ttl, .. } = &self.client;
        server.net.carry(process, kind, Some(*ttl / 3), effect).await
    }

    async fn held(&self) -> Result<Option<SimLeaseGrant>, NoAnswer> {
        let (server, role) = (Arc::clone(&self.client.server), self.role.clone());
        self.carry(RequestKind::Read, move || server.state().held.get(&role).cloned()).await
    }
}

#[async_trait]
impl LeaseService for SimLease {
    async fn acquire_or_renew(&mut self) -> LeaseReply {
        let SimLeaseClient { server, process, me, ttl } = self.client.clone();
        let grant = LeaseGrant { asked: process.moment(), ttl };
        let (role, known) = (self.role.clone(), self.known);
        let in_doubt = std::mem::replace(&mut self.in_doubt, true);
        match self.carry(RequestKind::Once, move || server.grant(&role, &me, ttl, known)).await {
            Ok(SimLeaseReply::Held { revision }) => {
                (self.known, self.in_doubt) = (Some(revision), in_doubt);
                LeaseReply::Held(grant)
            }
            Ok(SimLeaseReply::Taken { by }) => {
                (self.known, self.in_doubt) = (None, in_doubt);
                LeaseReply::Taken { by: Some(by), alive: true }
            }
            Ok(SimLeaseReply::Starting) => LeaseReply::Unknown { why: "it has lost its memory and starts".to_owned() },
            Err(NoAnswer(why)) => LeaseReply::Unknown { why: why.to_owned() },
        }
    }

    async fn inspect(&mut self) -> LeaseReply {
        match self.held().await {
            Ok(Some(held)) => LeaseReply::Taken { by: Some(held.holder), alive: true },
            Ok(None) => LeaseReply::Free,
            Err(NoAnswer(why)) => LeaseReply::Unknown { why: why.to_owned() },
        }
    }

    async fn release(&mut self) {
        let mut revision = self.known.take();
        if std::mem::take(&mut self.in_doubt) {
            let me = self.client.me.instance;
            let held = self.held().await.ok().flatten();
            revision = held.filter(|held| held.holder.instance == me).map(|held| held.revision).or(revision);
        }
        if let Some(revision) = revision {
            let (server, role) = (Arc::clone(&self.client.server), self.role.clone());
            // If it does not arrive, the lease runs out.
            let _ = self.carry(RequestKind::Write, move || server.delete(&role, revision)).await;
        }
    }

    fn change_hints(&mut self) -> Option<Arc<Notify>> {
        let SimLeaseClient { server, process, .. } = &self.client;
        let hints = self.hints.get_or_insert_with(|| {
            let notify = Arc::new(Notify::new());
            server.state().watchers.push((self.role.clone(), process.host, Arc::downgrade(&notify)));
            notify
        });
        Some(Arc::clone(hints))
    }
}
