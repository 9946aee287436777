//! The lease of a role, and what the leases of one process share.

#[cfg(feature = "etcd")]
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "etcd")]
use crate::config::EtcdSettings;
use crate::config::Settings;
use crate::env::Env;
use crate::ids::{InstanceId, NodeId, RepoId, RoleName};
use crate::job::report::whoami::EtcdHealth;
#[cfg(feature = "etcd")]
use crate::job::report::whoami::PeerInfo;
use crate::job::repository::journal_access::JournalAccess;
#[cfg(feature = "etcd")]
use crate::journal::register::RegisterService;
#[cfg(feature = "etcd")]
use crate::journal::register::etcd::EtcdRegisters;
#[cfg(feature = "etcd")]
use crate::role::identity::IdentityOrigin;
use crate::role::identity::NodeIdentity;
use crate::role::lease::bucket::ProcessObjects;
#[cfg(feature = "etcd")]
use crate::role::lease::etcd::{EtcdLease, EtcdSession, ProcessRegistration};
use crate::role::lease::{LeaseHolder, LeaseReply, LeaseService};

/// Another process of this node that holds its roles' leases permanently, and lets this process work under them.
pub trait LeaseLender: Debug + Send + Sync {
    /// The lease of `role`, as the lender holds it.
    fn lease(&self, role: &RoleName) -> Box<dyn LeaseService>;
}

/// What the leases of this process share: one session with etcd, if it is configured, and in a bucket the process
/// object. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct LeaseSessions {
    pub(crate) lender: Option<Arc<dyn LeaseLender>>,
    processes: ProcessObjects,
    journal_access: JournalAccess,
    #[cfg(feature = "etcd")]
    etcd: Option<EtcdSession>,
}

impl LeaseSessions {
    /// The lease sessions that `settings` name. A connection is made only when a role asks for its lease.
    #[cfg(feature = "etcd")]
    pub fn new(settings: &Settings, env: &Env, node: &NodeIdentity) -> Self {
        let open = |etcd: &EtcdSettings| EtcdSession::new(etcd.clone(), env.clone(), node, &settings.hash);
        Self::of(settings, settings.etcd.as_ref().map(open))
    }

    #[cfg(feature = "etcd")]
    fn of(settings: &Settings, etcd: Option<EtcdSession>) -> Self {
        let registers =
            |etcd: &EtcdSession| -> Arc<dyn RegisterService> { Arc::new(EtcdRegisters::new(etcd.pool().clone())) };
        let journal_access = JournalAccess::new(settings, etcd.as_ref().map(registers));
        Self { journal_access, etcd, ..Self::default() }
    }

    /// Without sessions: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    pub fn new(settings: &Settings, _: &Env, _: &NodeIdentity) -> Self {
        Self { journal_access: JournalAccess::new(settings, None), ..Self::default() }
    }

    /// Replaces the access to journals.
    pub fn with_journal_access(self, journal_access: JournalAccess) -> Self {
        Self { journal_access, ..self }
    }

    /// Makes the next request read passwords and certificates again.
    pub fn renew(&self) {
        #[cfg(feature = "etcd")]
        if let Some(etcd) = &self.etcd {
            etcd.pool().request_new_clients();
        }
    }

    /// Access to the journals of the roles.
    pub fn journal_access(&self) -> &JournalAccess {
        &self.journal_access
    }

    /// The process objects by which this process holds roles in a bucket.
    pub fn processes(&self) -> &ProcessObjects {
        &self.processes
    }

    /// Takes every lease from `lender`.
    pub fn with_lender(mut self, lender: Arc<dyn LeaseLender>) -> Self {
        self.lender = Some(lender);
        self
    }

    /// Whether the leases belong to another process, which holds the roles.
    pub fn are_borrowed(&self) -> bool {
        self.lender.is_some()
    }

    /// The session with etcd, if it is configured.
    #[cfg(feature = "etcd")]
    pub fn etcd(&self) -> Option<&EtcdSession> {
        self.etcd.as_ref()
    }

    /// The lease in etcd of the role with this repository; `None`: etcd is not configured.
    #[cfg(feature = "etcd")]
    pub(crate) fn etcd_lease(&self, repository: RepoId) -> Option<Box<dyn LeaseService>> {
        Some(Box::new(EtcdLease::new(self.etcd.clone()?, repository)))
    }

    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_self, reason = "with etcd there is something in it")]
    pub(crate) fn etcd_lease(&self, _: RepoId) -> Option<Box<dyn LeaseService>> {
        None
    }

    /// Sessions for a command that only reads. It waits at most a third of `patience` for one etcd member, or two
    /// thirds for the only one.
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

    /// Without sessions: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    pub fn read_only(settings: &Settings, _: &Env, _: Duration) -> Self {
        Self { journal_access: JournalAccess::new(settings, None), ..Self::default() }
    }

    /// The holder of the lease in etcd of the role with this repository; `None`: etcd is not configured.
    pub async fn read_etcd_lease(&self, repository: RepoId) -> Option<LeaseReply> {
        match self.etcd_lease(repository) {
            Some(mut lease) => Some(lease.inspect().await),
            None => None,
        }
    }

    /// Health of etcd itself; `None`: etcd is not configured.
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

    /// Always `None`: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_async, clippy::unused_self, reason = "with etcd there is something in it")]
    pub async fn etcd_status(&self) -> Option<EtcdHealth> {
        None
    }

    /// Error of the last request to etcd, if none has been answered since.
    #[cfg(feature = "etcd")]
    pub fn etcd_last_error(&self) -> Option<String> {
        self.etcd.as_ref()?.pool().trouble()
    }

    /// Always `None`: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_self, reason = "with etcd there is something in it")]
    pub fn etcd_last_error(&self) -> Option<String> {
        None
    }

    /// Ends the sessions, after the work under their leases has ended.
    #[cfg(feature = "etcd")]
    pub async fn close(&self) {
        if let Some(etcd) = &self.etcd {
            etcd.close().await;
        }
    }

    /// Does nothing: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    #[allow(clippy::unused_async, clippy::unused_self, reason = "with etcd there is something in it")]
    pub async fn close(&self) {}
}

/// One entry for each node: a daemon and the commands beside it have the same config.
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

/// A random holder for commands that only read.
pub fn anonymous_holder(env: &Env) -> LeaseHolder {
    let (node, instance) = (NodeId(env.random_bytes()), InstanceId(env.random_bytes()));
    LeaseHolder { node, label: String::new(), instance }
}
