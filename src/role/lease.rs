//! Leases: one process has the exclusive right to a role, for as long as a service and this node's own clock vouch for
//! it.
//!
//! A lease is never trusted alone: the journal fences a process that was wrong about its lease. The lease keeps such a
//! process from starting at all, and ends commands outside the repository in time.

pub mod bucket;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod keep_alive;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::candidacy::LeaseGrant;
use crate::ids::{InstanceId, NodeId};

/// A process that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// The process's node.
    pub node: NodeId,
    /// That node's label.
    pub label: String,
    /// The process's ID.
    pub instance: InstanceId,
}

/// The answer to a request for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseReply {
    /// This process holds it.
    Held(LeaseGrant),
    /// Another process holds it.
    Taken {
        /// The holder; `None` if its record cannot be read.
        by: Option<LeaseHolder>,
        /// Whether the holder has been seen renewing the lease. If not, it may be dead, and the lease about to expire.
        alive: bool,
    },
    /// The lease is free. Only [`LeaseService::inspect`] says this.
    Free,
    /// The lease's state cannot be told.
    Unknown {
        /// What came instead of an answer.
        why: String,
    },
}

/// The lease of one role, as seen by one process.
#[async_trait]
pub trait LeaseService: Debug + Send {
    /// Requests the lease, or renews it.
    async fn acquire_or_renew(&mut self) -> LeaseReply;

    /// Reads which process holds the lease, and changes nothing.
    async fn inspect(&mut self) -> LeaseReply;

    /// Gives the lease up, if this process holds it, so that another process may have it at once. The work that it
    /// guarded has ended.
    async fn release(&mut self);

    /// How the last attempt failed, if the lease service repeats attempts by itself and none has been answered since.
    fn last_failure(&self) -> Option<String> {
        None
    }

    /// Whether the last request was refused by the lease service, as opposed to not answered.
    fn is_refused(&self) -> bool {
        false
    }

    /// Is notified when the lease may have changed, so that a process that waits for it, or has it, asks at once. It is
    /// only a hint: it may be missing, late or wrong. `None` if the service has no such hints.
    fn change_hints(&mut self) -> Option<Arc<Notify>> {
        None
    }
}
