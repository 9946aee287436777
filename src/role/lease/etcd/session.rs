//! One lease in etcd for a whole process: it says that the process lives, and the key of every role is attached to it.
//!
//! The invariants that live here: a keep-alive is dated from its send; one that was answered with a TTL of 0, or not at
//! all, vouches for nothing; a request of an earlier claim that arrives late finds the registration's revision changed
//! and does nothing; and a delete is remembered from before it is sent until it is answered, whichever of a role's
//! lease objects sent it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, Error, GetOptions, KeyValue, LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions,
    Txn, TxnOp, TxnOpResponse,
};
use tokio::sync::{Mutex, MutexGuard};

use super::lease_key::{FORMAT, LeaseKeyState, LeaseKeyValue};
use super::registration::ProcessRegistration;
use crate::clock_reading::ClockReading;
use crate::config::EtcdSettings;
use crate::env::Env;
use crate::etcd::{EtcdError, EtcdPool, NOT_FOUND};
use crate::ids::RepoId;
use crate::role::candidacy::LeaseGrant;
use crate::role::identity::NodeIdentity;

/// A keep-alive that is younger than this part of the lease serves every role that asks.
const SHARED_PART: u32 = 6;

/// The most registrations that are read: no etcd prefix is shared by more processes.
const PEERS_MAX: i64 = 10_000;

/// Etcd's message for a lease whose number is taken.
const LEASE_EXISTS: &str = "lease already exists";

/// How long the end of a session may take: if it fails the lease expires by itself, only later.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// This process's session with etcd. Copies are the same session. Nothing is sent before the first role asks.
#[derive(Debug, Clone)]
pub struct EtcdSession(Arc<EtcdSessionInner>);

#[derive(Debug)]
struct EtcdSessionInner {
    pool: Arc<EtcdPool>,
    env: Env,
    me: ProcessRegistration,
    state: Mutex<EtcdSessionState>,
    /// The keys whose delete has had no answer, by the revision that created them. They outlive the lease: a restored
    /// etcd may bring such a key back. A key of another revision says that the old one is gone.
    given_up: parking_lot::Mutex<BTreeMap<String, i64>>,
}

#[derive(Debug, Default)]
struct EtcdSessionState {
    life: Option<SessionLease>,
    closed: bool,
    /// The last attempt that failed, and when: a role that waited for it meanwhile need not wait as long again.
    failed: Option<(Duration, EtcdError)>,
}

/// A lease that etcd granted.
struct SessionLease {
    lease: i64,
    /// The revision of this process's registration. A claim names it; a change of it makes all claims fail that are
    /// still on their way.
    registration_rev: i64,
    beat: KeepAliveAnswer,
    stream: Option<KeepAliveStream>,
}

impl std::fmt::Debug for SessionLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life")
            .field("lease", &self.lease)
            .field("badge", &self.registration_rev)
            .field("beat", &self.beat)
            .finish()
    }
}

/// The newest answer that vouches for the lease.
#[derive(Debug, Clone, Copy)]
struct KeepAliveAnswer {
    grant: LeaseGrant,
    /// The raft term of the member that answered.
    term: u64,
}

/// A stream for keep-alives, used for as long as its member answers.
struct KeepAliveStream {
    index: usize,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// The proof that vouches for a role's key.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionProof {
    pub(super) lease: i64,
    pub(super) registration_rev: i64,
    pub(super) grant: LeaseGrant,
    pub(super) term: u64,
}

/// The outcome of a claim.
#[derive(Debug)]
pub(super) enum ClaimOutcome {
    /// The key is this process's.
    Done { created: i64, term: u64 },
    /// The key was there already, or the registration's revision had changed.
    Not { found: Option<LeaseKeyState>, registration_rev: i64, term: u64 },
    /// The lease has ended.
    LeaseGone,
}

/// The state of an etcd as far as it can be read without claiming anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMemberStatus {
    /// The endpoint that answered.
    pub endpoint: String,
    /// The member ID of that endpoint.
    pub member: u64,
    /// The leader's member ID; 0 for none.
    pub leader: u64,
    /// The raft term.
    pub raft_term: u64,
    /// The server's version.
    pub version: String,
}

impl EtcdSession {
    /// A session for `node`; `config_hash` is reported to its peers.
    pub fn new(settings: EtcdSettings, env: Env, node: &NodeIdentity, config_hash: &str) -> Self {
        let me = ProcessRegistration {
            v: FORMAT,
            node: node.id,
            instance: node.instance,
            name: node.label.clone(),
            hostname: node.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_hash: config_hash.to_owned(),
        };
        Self::of(settings, env, me)
    }

    /// A session for the process that `me` describes.
    pub fn of(settings: EtcdSettings, env: Env, me: ProcessRegistration) -> Self {
        let pool = Arc::new(EtcdPool::new(settings));
        Self(Arc::new(EtcdSessionInner {
            pool,
            env,
            me,
            state: Mutex::default(),
            given_up: parking_lot::Mutex::default(),
        }))
    }

    /// This process, as its peers see it.
    pub fn me(&self) -> &ProcessRegistration {
        &self.0.me
    }

    /// How long the lease lasts.
    pub fn ttl(&self) -> Duration {
        self.0.pool.settings().lease_ttl
    }

    /// The connections to etcd, for other requests of this process.
    pub fn pool(&self) -> &Arc<EtcdPool> {
        &self.0.pool
    }

    /// The key of a role. It names the repository, so that two deployments that share an etcd do not shut each other
    /// out.
    pub(super) fn key(&self, repository: RepoId) -> String {
        format!("{}/{repository}/holder", self.0.pool.settings().prefix)
    }

    pub(super) fn lease_key_value(&self) -> LeaseKeyValue {
        let me = &self.0.me;
        LeaseKeyValue {
            v: FORMAT,
            node: me.node,
            name: me.name.clone(),
            instance: me.instance,
            version: me.version.clone(),
            config_hash: me.config_hash.clone(),
        }
    }

    fn nodes_prefix(&self) -> String {
        format!("{}/nodes/", self.0.pool.settings().prefix)
    }

    fn registration(&self) -> String {
        format!("{}{}/{}", self.nodes_prefix(), self.0.me.node, self.0.me.instance)
    }

    /// The proof that this process lives now, by a keep-alive that is young and at least of raft term `term`. A new
    /// lease is granted if there is none, or none any more.
    pub(super) async fn prove_session(&self, term: u64) -> Result<SessionProof, EtcdError> {
        let began = self.0.env.clock.boottime();
        let mut state = self.0.state.lock().await;
        if state.closed {
            return Err(EtcdError::Closed);
        }
        if let Some((at, error)) = &state.failed
            && *at > began
        {
            return Err(error.clone());
        }
        let outcome = self.try_prove_session(&mut state, term).await;
        state.failed = match &outcome {
            Ok(_) => None,
            Err(error) => Some((self.0.env.clock.boottime(), error.clone())),
        };
        outcome
    }

    async fn try_prove_session(
        &self,
        state: &mut MutexGuard<'_, EtcdSessionState>,
        term: u64,
    ) -> Result<SessionProof, EtcdError> {
        if let Some(life) = &mut state.life {
            let now = self.0.env.clock.boottime();
            let age = now.saturating_sub(life.beat.grant.asked.boot);
            if age >= self.ttl() / SHARED_PART || life.beat.term < term {
                match self.keep_alive(life).await {
                    Ok(beat) => life.beat = beat,
                    Err(EtcdError::LeaseGone) => {
                        tracing::warn!("etcd ended the lease of this process; it asks for another");
                        state.life = None;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let life = match state.life.take() {
            Some(life) => life,
            None => self.grant_lease().await?,
        };
        let vouched = SessionProof {
            lease: life.lease,
            registration_rev: life.registration_rev,
            grant: life.beat.grant,
            term: life.beat.term,
        };
        state.life = Some(life);
        Ok(vouched)
    }

    /// Grants a lease, and registers this process on it.
    async fn grant_lease(&self) -> Result<SessionLease, EtcdError> {
        let (env, pool) = (&self.0.env, &self.0.pool);
        // The lease is numbered here, so that a request that reaches etcd twice grants one lease. Etcd takes positive
        // numbers.
        let lease = (i64::from_le_bytes(env.random_bytes()) & i64::MAX).max(1);
        let seconds = self.ttl().as_secs() as i64;
        let asked = env.clock.moment();
        let granted = pool
            .call(|mut client| async move {
                let answer = client.lease_grant(seconds, Some(LeaseGrantOptions::new().with_id(lease))).await?;
                Ok((answer.ttl(), answer.header().map_or(0, etcd_client::ResponseHeader::raft_term)))
            })
            .await;
        let (ttl, term) = match granted {
            Ok(answer) => answer.value,
            // An earlier attempt of the same call succeeded: no other process draws this random number.
            Err(EtcdError::Refused { message, .. }) if message.contains(LEASE_EXISTS) => (seconds, 0),
            Err(error) => return Err(error),
        };
        let registration_rev = self.register(lease).await?;
        let grant = LeaseGrant { asked, ttl: Duration::from_secs(ttl.max(0) as u64) };
        tracing::debug!(lease = format!("{lease:x}"), ttl, "etcd granted a lease");
        Ok(SessionLease { lease, registration_rev, beat: KeepAliveAnswer { grant, term }, stream: None })
    }

    /// Writes this process's registration; returns its revision.
    async fn register(&self, lease: i64) -> Result<i64, EtcdError> {
        let key = self.registration();
        let value = serde_json::to_vec(&self.0.me).expect("plain data becomes JSON");
        let put = self
            .0
            .pool
            .call(|mut client| {
                let (key, value) = (key.clone(), value.clone());
                async move {
                    let answer = client.put(key, value, Some(PutOptions::new().with_lease(lease))).await?;
                    Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
                }
            })
            .await;
        match put {
            Ok(answer) if answer.tries == 1 => Ok(answer.value),
            // An earlier attempt may arrive after this one. The registration is read; if it changes again, claims fail
            // and read again.
            Ok(_) => Ok(self.get(&key).await?.0.map_or(0, |kv| kv.mod_revision())),
            Err(EtcdError::Refused { code: NOT_FOUND, .. }) => Err(EtcdError::LeaseGone),
            Err(error) => Err(error),
        }
    }

    /// Sends one keep-alive: through the present stream, else through a new one of the next member that answers.
    async fn keep_alive(&self, life: &mut SessionLease) -> Result<KeepAliveAnswer, EtcdError> {
        let pool = &self.0.pool;
        if let Some(mut stream) = life.stream.take() {
            match tokio::time::timeout(pool.patience(), self.send_keep_alive(&mut stream)).await {
                Ok(Ok(beat)) => {
                    life.stream = Some(stream);
                    return beat.ok_or(EtcdError::LeaseGone);
                }
                // The other members are asked; the lease may well be alive.
                Ok(Err(error)) => tracing::debug!("etcd's keep-alive stream: {error}"),
                Err(_) => tracing::debug!("etcd's keep-alive stream: no answer"),
            }
            pool.drop_client(stream.index);
        }
        let lease = life.lease;
        let count = pool.settings().endpoints.len();
        let (first, mut tried) = (pool.preferred(), Vec::new());
        for n in 0..count {
            let index = (first + n) % count;
            let open = move |mut client: etcd_client::Client| async move {
                match client.lease_keep_alive(lease).await {
                    Ok((keeper, answers)) => {
                        let mut stream = KeepAliveStream { index, keeper, answers };
                        // Opening the stream sends a keep-alive whose answer is not shown; the second one is dated and
                        // read.
                        let beat = self.send_keep_alive(&mut stream).await?;
                        Ok(beat.map(|beat| (stream, beat)))
                    }
                    // The client's error for a TTL of 0.
                    Err(Error::LeaseKeepAliveError(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            };
            match pool.call_on(index, open).await {
                Ok(Ok(Some((stream, beat)))) => {
                    life.stream = Some(stream);
                    return Ok(beat);
                }
                Ok(Ok(None)) | Err(EtcdError::Refused { code: NOT_FOUND, .. }) => return Err(EtcdError::LeaseGone),
                Ok(Err(why)) => tried.push(format!("{}: {why}", pool.settings().endpoints[index])),
                Err(error) => return Err(error),
            }
        }
        Err(EtcdError::Unreachable { tried })
    }

    /// Sends one keep-alive; `None` if the lease is gone.
    async fn send_keep_alive(&self, stream: &mut KeepAliveStream) -> Result<Option<KeepAliveAnswer>, Error> {
        let asked: ClockReading = self.0.env.clock.moment();
        stream.keeper.keep_alive().await?;
        let Some(answer) = stream.answers.message().await? else {
            return Err(Error::LeaseKeepAliveError("the stream ended".to_owned()));
        };
        let term = answer.header().map_or(0, etcd_client::ResponseHeader::raft_term);
        let ttl = Duration::from_secs(answer.ttl().max(0) as u64);
        Ok((!ttl.is_zero()).then_some(KeepAliveAnswer { grant: LeaseGrant { asked, ttl }, term }))
    }

    /// Forgets a lease that etcd reports as gone, unless another one has taken its place.
    pub(super) async fn forget_lease(&self, lease: i64) {
        let mut state = self.0.state.lock().await;
        if state.life.as_ref().is_some_and(|life| life.lease == lease) {
            state.life = None;
        }
    }

    /// Registers anew if the registration's revision is still `seen`, so that claims that name it fail.
    pub(super) async fn register_again(&self, seen: i64) -> Result<(), EtcdError> {
        let mut state = self.0.state.lock().await;
        let Some(life) = state.life.as_mut().filter(|life| life.registration_rev == seen) else { return Ok(()) };
        match self.register(life.lease).await {
            Ok(registration_rev) => life.registration_rev = registration_rev,
            Err(EtcdError::LeaseGone) => state.life = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A linearizable read of one key, and the raft term of the member that answered.
    pub(super) async fn get(&self, key: &str) -> Result<(Option<KeyValue>, u64), EtcdError> {
        let answer = self
            .0
            .pool
            .call(|mut client| async move {
                let mut answer = client.get(key, None).await?;
                let term = answer.header().map_or(0, etcd_client::ResponseHeader::raft_term);
                Ok((answer.take_kvs().pop(), term))
            })
            .await?;
        Ok(answer.value)
    }

    /// Creates the role's key if there is none, on the lease and under the registration that `vouched` names. The
    /// number of attempts tells whether another one may be on its way.
    pub(super) async fn claim(&self, key: &str, vouched: SessionProof) -> Result<(ClaimOutcome, usize), EtcdError> {
        let registration_rev = self.registration();
        let value = serde_json::to_vec(&self.lease_key_value()).expect("plain data becomes JSON");
        let answer = self
            .0
            .pool
            .call(|mut client| {
                let txn = Txn::new()
                    .when([
                        Compare::create_revision(key, CompareOp::Equal, 0),
                        Compare::mod_revision(registration_rev.as_str(), CompareOp::Equal, vouched.registration_rev),
                    ])
                    .and_then([TxnOp::put(key, value.clone(), Some(PutOptions::new().with_lease(vouched.lease)))])
                    .or_else([TxnOp::get(key, None), TxnOp::get(registration_rev.as_str(), None)]);
                async move { client.txn(txn).await }
            })
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(EtcdError::Refused { code: NOT_FOUND, .. }) => return Ok((ClaimOutcome::LeaseGone, 1)),
            Err(error) => return Err(error),
        };
        let term = answer.value.header().map_or(0, etcd_client::ResponseHeader::raft_term);
        let revision = answer.value.header().map_or(0, etcd_client::ResponseHeader::revision);
        if answer.value.succeeded() {
            // There was no key: the one that was given up is gone.
            self.lock_given_up().remove(key);
            return Ok((ClaimOutcome::Done { created: revision, term }, answer.tries));
        }
        let mut read = answer.value.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(mut got) => got.take_kvs().pop(),
            _ => None,
        });
        let found = read.next().flatten().map(|kv| lease_key_state(&kv));
        let registration_rev = read.next().flatten().map_or(0, |kv| kv.mod_revision());
        Ok((ClaimOutcome::Not { found, registration_rev, term }, answer.tries))
    }

    /// Moves this process's own key from another lease to the one that `vouched` names.
    pub(super) async fn adopt(
        &self,
        key: &str,
        created: i64,
        from: i64,
        vouched: SessionProof,
    ) -> Result<(), EtcdError> {
        let registration_rev = self.registration();
        let value = serde_json::to_vec(&self.lease_key_value()).expect("plain data becomes JSON");
        self.0
            .pool
            .call(|mut client| {
                let txn = Txn::new()
                    .when([
                        Compare::create_revision(key, CompareOp::Equal, created),
                        Compare::lease(key, CompareOp::Equal, from),
                        Compare::mod_revision(registration_rev.as_str(), CompareOp::Equal, vouched.registration_rev),
                    ])
                    .and_then([TxnOp::put(key, value.clone(), Some(PutOptions::new().with_lease(vouched.lease)))]);
                async move { client.txn(txn).await.map(drop) }
            })
            .await
            .map(drop)
    }

    /// The revision that created the key of this name whose delete has had no answer.
    pub(super) fn given_up(&self, key: &str) -> Option<i64> {
        self.lock_given_up().get(key).copied()
    }

    fn lock_given_up(&self) -> parking_lot::MutexGuard<'_, BTreeMap<String, i64>> {
        self.0.given_up.lock()
    }

    /// Deletes exactly the key that revision `created` created: a later key of the same name stays. Each member is
    /// asked at most once; an answer says that the key is gone, whatever else is on its way. Without an answer the key
    /// may go at any later time, and the next request for it deletes it again.
    pub(super) async fn delete(&self, key: &str, created: i64) -> Result<(), EtcdError> {
        self.lock_given_up().insert(key.to_owned(), created);
        self.0
            .pool
            .call(|mut client| {
                let txn = Txn::new()
                    .when([Compare::create_revision(key, CompareOp::Equal, created)])
                    .and_then([TxnOp::delete(key, None)]);
                async move { client.txn(txn).await.map(drop) }
            })
            .await?;
        self.lock_given_up().remove(key);
        Ok(())
    }

    /// All living processes that share this prefix, this one included once one of its roles has asked for its lease.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn peers(&self) -> Result<Vec<ProcessRegistration>, EtcdError> {
        let prefix = self.nodes_prefix();
        let answer = self
            .0
            .pool
            .call(|mut client| {
                let prefix = prefix.clone();
                let options = GetOptions::new().with_prefix().with_limit(PEERS_MAX);
                async move { Ok(client.get(prefix, Some(options)).await?.take_kvs()) }
            })
            .await?;
        let parse = |kv: &KeyValue| {
            serde_json::from_slice::<ProcessRegistration>(kv.value()).ok().filter(|peer| peer.v == FORMAT)
        };
        Ok(answer.value.iter().filter_map(parse).collect())
    }

    /// The state of etcd itself.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn status(&self) -> Result<EtcdMemberStatus, EtcdError> {
        let answer = self.0.pool.call(|mut client| async move { client.status().await }).await?;
        let status = answer.value;
        Ok(EtcdMemberStatus {
            endpoint: self.0.pool.settings().endpoints[self.0.pool.preferred()].clone(),
            member: status.header().map_or(0, etcd_client::ResponseHeader::member_id),
            leader: status.leader(),
            raft_term: status.raft_term(),
            version: status.version().to_owned(),
        })
    }

    /// Ends the session: the lease is revoked, and every key that is attached to it goes. All work that it guarded has
    /// ended.
    pub async fn close(&self) {
        let life = {
            let mut state = self.0.state.lock().await;
            state.closed = true;
            state.life.take()
        };
        let Some(life) = life else { return };
        let lease = life.lease;
        let revoked = self.0.pool.call(|mut client| async move { client.lease_revoke(lease).await.map(drop) });
        match tokio::time::timeout(CLOSE_PATIENCE, revoked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("etcd's lease was not revoked, and expires: {error}"),
            Err(_) => tracing::debug!("etcd's lease was not revoked, and expires: no answer"),
        }
    }
}

pub(super) fn lease_key_state(kv: &KeyValue) -> LeaseKeyState {
    LeaseKeyState { claim: LeaseKeyValue::parse(kv.value()), lease: kv.lease(), created: kv.create_revision() }
}
