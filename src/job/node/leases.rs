//! Which lease a role has, ready to be asked.

#[cfg(feature = "etcd")]
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "etcd")]
use crate::config::EtcdSettings;
use crate::config::{LeaseKind, RoleSettings, Settings};
use crate::env::Env;
use crate::ids::{InstanceId, NodeId, RepoId, RoleName};
use crate::job::admission::guard::GuardError;
use crate::job::node::context::NodeContext;
use crate::job::report::whoami::EtcdHealth;
#[cfg(feature = "etcd")]
use crate::job::report::whoami::PeerInfo;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::open::Repository;
#[cfg(feature = "etcd")]
use crate::journal::register::RegisterService;
#[cfg(feature = "etcd")]
use crate::journal::register::etcd::EtcdRegisters;
use crate::repo::format::JournalLocation;
use crate::repo::object_keys;
#[cfg(feature = "etcd")]
use crate::role::identity::IdentityOrigin;
use crate::role::identity::NodeIdentity;
use crate::role::lease::bucket::{BucketLease, ProcessObjects};
#[cfg(feature = "etcd")]
use crate::role::lease::etcd::{EtcdLease, EtcdSession, ProcessRegistration};
use crate::role::lease::{LeaseHolder, LeaseReply, LeaseService};
use crate::store::{ObjectLock, Store, Versioning, proof};

/// Tries whether the store can hold the lease of `role`, if that is where it belongs. Once, at `init`.
///
/// # Errors
/// It cannot.
pub async fn prove_lease_store(role: &RoleSettings, repository: &Repository, env: &Env) -> Result<(), GuardError> {
    if role.lease != LeaseKind::Bucket {
        return Ok(());
    }
    require_bucket_journal(repository)?;
    if let Versioning::Kept { lock: ObjectLock::ByDefault { time } } = repository.store.versioning().await {
        return Err(GuardError::LeaseLocked { role: role.name.clone(), time });
    }
    proof::prove_replace(repository.store.as_ref(), &object_keys::lease_probe(&role.name), env)
        .await
        .map_err(|failure| GuardError::of_lease_proof(&role.name, failure))
}

/// Another process of this node that holds its roles' leases all the time, and lets this one work under them.
pub trait LeaseLender: Debug + Send + Sync {
    /// The lease of a role.
    fn lease(&self, role: &RoleName) -> Box<dyn LeaseService>;
}

/// What this process's leases have in common: one session with etcd, where there is one, and in a bucket the process's object. Clones are
/// the same.
#[derive(Debug, Clone, Default)]
pub struct LeaseSessions {
    lender: Option<Arc<dyn LeaseLender>>,
    processes: ProcessObjects,
    journal_access: JournalAccess,
    #[cfg(feature = "etcd")]
    etcd: Option<EtcdSession>,
}

impl LeaseSessions {
    /// Those that `settings` name, for this process. Nothing is connected before a role asks.
    #[cfg(feature = "etcd")]
    pub fn new(settings: &Settings, env: &Env, node: &NodeIdentity) -> Self {
        let open = |etcd: &EtcdSettings| EtcdSession::new(etcd.clone(), env.clone(), node, &settings.hash);
        Self::of(settings, settings.etcd.as_ref().map(open))
    }

    #[cfg(feature = "etcd")]
    fn of(settings: &Settings, etcd: Option<EtcdSession>) -> Self {
        let registers =
            |etcd: &EtcdSession| -> Arc<dyn RegisterService> { Arc::new(EtcdRegisters::new(etcd.pool().clone())) };
        let seats = JournalAccess::new(settings, etcd.as_ref().map(registers));
        Self { journal_access: seats, etcd, ..Self::default() }
    }

    /// None: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    pub fn new(settings: &Settings, _: &Env, _: &NodeIdentity) -> Self {
        Self { journal_access: JournalAccess::new(settings, None), ..Self::default() }
    }

    /// With journals written there.
    pub fn with_journal_access(self, seats: JournalAccess) -> Self {
        Self { journal_access: seats, ..self }
    }

    /// What was read of passwords and certificates is read again before the next request.
    pub fn renew(&self) {
        #[cfg(feature = "etcd")]
        if let Some(etcd) = &self.etcd {
            etcd.pool().request_new_clients();
        }
    }

    /// Where journals are written.
    pub fn seats(&self) -> &JournalAccess {
        &self.journal_access
    }

    /// The objects by which this process holds roles in a bucket.
    pub fn processes(&self) -> &ProcessObjects {
        &self.processes
    }

    /// With every lease from there.
    pub fn with_lender(mut self, lender: Arc<dyn LeaseLender>) -> Self {
        self.lender = Some(lender);
        self
    }

    /// Whether they are another process's, which has the roles.
    pub fn are_borrowed(&self) -> bool {
        self.lender.is_some()
    }

    /// The session with etcd.
    #[cfg(feature = "etcd")]
    pub fn etcd(&self) -> Option<&EtcdSession> {
        self.etcd.as_ref()
    }

    /// The lease in etcd of the role with this repository; `None`: there is no etcd.
    #[cfg(feature = "etcd")]
    fn etcd_lease(&self, repository: RepoId) -> Option<Box<dyn LeaseService>> {
        Some(Box::new(EtcdLease::new(self.etcd.clone()?, repository)))
    }

    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_self, reason = "with etcd there is something in it")]
    fn etcd_lease(&self, _: RepoId) -> Option<Box<dyn LeaseService>> {
        None
    }

    /// For somebody who only looks, and waits for one member of an etcd no longer than a third of `patience`, or for the only
    /// one twice that.
    #[cfg(feature = "etcd")]
    pub fn read_only(settings: &Settings, env: &Env, patience: Duration) -> Self {
        let open = |etcd: &EtcdSettings| {
            let LeaseHolder { node, instance, .. } = anonymous_holder(env);
            let node = NodeIdentity {
                id: node,
                instance,
                label: String::new(),
                hostname: String::new(),
                origin: IdentityOrigin::First,
            };
            let etcd = EtcdSettings { lease_ttl: patience * 2, ..etcd.clone() };
            EtcdSession::new(etcd, env.clone(), &node, &settings.hash)
        };
        Self::of(settings, settings.etcd.as_ref().map(open))
    }

    /// Nothing to look at: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    pub fn read_only(settings: &Settings, _: &Env, _: Duration) -> Self {
        Self { journal_access: JournalAccess::new(settings, None), ..Self::default() }
    }

    /// Who holds the lease in etcd of the role with this repository; `None`: there is no etcd.
    pub async fn read_etcd_lease(&self, repository: RepoId) -> Option<LeaseReply> {
        match self.etcd_lease(repository) {
            Some(mut lease) => Some(lease.inspect().await),
            None => None,
        }
    }

    /// How etcd itself is; `None`: there is none.
    #[cfg(feature = "etcd")]
    pub async fn etcd_status(&self) -> Option<EtcdHealth> {
        let etcd = self.etcd.as_ref()?;
        let (status, peers) = tokio::join!(etcd.status(), etcd.peers());
        match status {
            Ok(status) => Some(EtcdHealth::Ok {
                unread: peers.as_ref().err().map(ToString::to_string),
                nodes: peer_infos(peers.unwrap_or_default()),
                endpoint: status.endpoint,
                member: status.member,
                leader: status.leader,
                raft_term: status.raft_term,
                version: status.version,
            }),
            Err(error) => Some(EtcdHealth::Failed(error.to_string())),
        }
    }

    /// There is none.
    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_async, clippy::unused_self, reason = "with etcd there is something in it")]
    pub async fn etcd_status(&self) -> Option<EtcdHealth> {
        None
    }

    /// How the last request to etcd failed, if none has been answered since.
    #[cfg(feature = "etcd")]
    pub fn etcd_last_error(&self) -> Option<String> {
        self.etcd.as_ref()?.pool().trouble()
    }

    /// There is none.
    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_self, reason = "with etcd there is something in it")]
    pub fn etcd_last_error(&self) -> Option<String> {
        None
    }

    /// Ends them, after the work that they guarded.
    #[cfg(feature = "etcd")]
    pub async fn close(&self) {
        if let Some(etcd) = &self.etcd {
            etcd.close().await;
        }
    }

    /// There are none.
    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_async, clippy::unused_self, reason = "with etcd there is something in it")]
    pub async fn close(&self) {}
}

/// One process of each node: a daemon and the commands beside it have the same config.
#[cfg(feature = "etcd")]
fn peer_infos(peers: Vec<ProcessRegistration>) -> Vec<PeerInfo> {
    let info = |peer: ProcessRegistration| {
        let ProcessRegistration { node, name, version, config_hash, .. } = peer;
        (node, PeerInfo { id: node, name, version, config_hash })
    };
    let mut nodes: Vec<PeerInfo> = peers.into_iter().map(info).collect::<BTreeMap<_, _>>().into_values().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

/// Who asks for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseDuration {
    /// A process that holds it for one run.
    Run,
    /// One that holds its roles as long as it goes on, and renews all of them at once where that can be.
    Daemon,
}

/// The lease of `role`, to be asked for by this process.
///
/// # Errors
/// The store fails the proof of compare-and-set; there is no etcd.
pub async fn role_lease(
    runner: &NodeContext,
    role: &RoleSettings,
    repository: &Repository,
    stay: LeaseDuration,
) -> Result<Box<dyn LeaseService>, GuardError> {
    if let Some(lender) = &runner.leases.lender {
        return Ok(lender.lease(&role.name));
    }
    if role.lease == LeaseKind::Etcd {
        let lease = runner.leases.etcd_lease(repository.keys.repo());
        return lease.ok_or_else(|| GuardError::NoEtcd { role: role.name.clone() });
    }
    require_bucket_journal(repository)?;
    let (store, probe) = (&repository.store, object_keys::lease_probe(&role.name));
    proof::check_replace(store.as_ref(), &probe, &runner.env)
        .await
        .map_err(|failure| GuardError::of_lease_proof(&role.name, failure))?;
    let me = LeaseHolder { node: runner.node.id, label: runner.node.name.clone(), instance: runner.instance };
    let processes = Some(runner.leases.processes()).filter(|_| stay == LeaseDuration::Daemon);
    Ok(Box::new(bucket_lease(store, role, &runner.env, me, processes)))
}

/// A lease in the store needs the very conditions for whose want the journal is in etcd.
fn require_bucket_journal(repository: &Repository) -> Result<(), GuardError> {
    match repository.format.journal {
        JournalLocation::Bucket => Ok(()),
        JournalLocation::Etcd { .. } => Err(GuardError::LeaseInBucket { role: repository.role().clone() }),
    }
}

/// The lease object in the role's bucket, for whoever renews it by itself, or by the object of its process.
pub fn bucket_lease(
    store: &Arc<dyn Store>,
    role: &RoleSettings,
    env: &Env,
    me: LeaseHolder,
    processes: Option<&ProcessObjects>,
) -> BucketLease {
    let object = (role.name.clone(), object_keys::lease(&role.name));
    BucketLease::new(store.clone(), object, env.clone(), me, role.bucket_lease_ttl, processes)
}

/// Somebody who only looks.
pub fn anonymous_holder(env: &Env) -> LeaseHolder {
    let (node, instance) = (NodeId(env.random_bytes()), InstanceId(env.random_bytes()));
    LeaseHolder { node, label: String::new(), instance }
}
