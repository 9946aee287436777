//! Leases: exclusivity for as long as a service, and this node's own clock, vouch for it.
//!
//! A lease is never trusted alone: the journal fences whoever was wrong about it. What it buys is that the wrong ones do not
//! even start, and that commands outside the repository end in time.

pub mod bucket;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod keep_alive;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::permit::LeaseGrant;
use crate::ids::{InstanceId, NodeId};

/// A process that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// Its node.
    pub node: NodeId,
    /// That node's label.
    pub label: String,
    /// Which process.
    pub instance: InstanceId,
}

/// What asking for a lease came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseReply {
    /// This process holds it.
    Held(LeaseGrant),
    /// Another process holds it.
    Taken {
        /// Which; `None` where it left nothing readable.
        by: Option<LeaseHolder>,
        /// Whether it has been seen doing something about it. If not it may be dead, and the lease about to run out.
        alive: bool,
    },
    /// Nobody holds it. Only a look says this.
    Free,
    /// It cannot be told.
    Unknown {
        /// What came instead of an answer.
        why: String,
    },
}

/// One role's lease, as one process sees it.
#[async_trait]
pub trait LeaseService: Debug + Send {
    /// Asks for the lease, or for more of it.
    async fn acquire_or_renew(&mut self) -> LeaseReply;

    /// Looks who holds it, and changes nothing.
    async fn inspect(&mut self) -> LeaseReply;

    /// Gives it up, if this process holds it, so that another may have it at once. Work that it guarded has ended.
    async fn release(&mut self);

    /// How the last try to ask failed, where the lease repeats them by itself and none has had an answer since.
    fn last_failure(&self) -> Option<String> {
        None
    }

    /// Whether the last ask had no answer because what keeps the lease refused it, and not because it is away.
    fn is_refused(&self) -> bool {
        false
    }

    /// Is notified when something may have changed about the lease, so that who waits for it, or has it, asks at once. Only a
    /// hint: it may be missing, late or wrong. `None` where there is no such thing.
    fn change_hints(&mut self) -> Option<Arc<Notify>> {
        None
    }
}
