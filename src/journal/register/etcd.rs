//! Registers in etcd: one key each, `<prefix>/<name>`, without a lease.
//!
//! A transaction compares the whole value, not a revision: an etcd that was set back repeats revision numbers.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Compare, CompareOp, ResponseHeader, Txn, TxnOp, TxnOpResponse};

use super::{CasOutcome, Register, RegisterError, RegisterService, RegisterValue};
use crate::config::EtcdSettings;
use crate::etcd::{EtcdError, EtcdPool, RESOURCE_EXHAUSTED};
use crate::ids::ClusterId;

/// The registers below a prefix in etcd.
#[derive(Debug, Clone)]
pub struct EtcdRegisters(Arc<EtcdPool>);

impl EtcdRegisters {
    /// The registers in the etcd that `settings` name, over a connection of their own.
    pub fn open(settings: EtcdSettings) -> Self {
        Self(Arc::new(EtcdPool::new(settings)))
    }

    /// The registers in the etcd of this connection.
    pub fn new(pool: Arc<EtcdPool>) -> Self {
        Self(pool)
    }
}

impl RegisterService for EtcdRegisters {
    fn register(&self, name: &str) -> Arc<dyn Register> {
        let key = format!("{}/{name}", self.0.settings().prefix);
        Arc::new(EtcdRegister { pool: Arc::clone(&self.0), key })
    }
}

#[derive(Debug)]
struct EtcdRegister {
    pool: Arc<EtcdPool>,
    key: String,
}

#[async_trait]
impl Register for EtcdRegister {
    async fn read(&self) -> Result<RegisterValue, RegisterError> {
        let asked = self.pool.call(|mut client| {
            let key = self.key.as_str();
            async move { client.get(key, None).await }
        });
        let mut answer = asked.await?.value;
        let cluster = answer.header().map_or(0, ResponseHeader::cluster_id);
        let value = answer.take_kvs().pop().map(|kv| Bytes::from(kv.into_key_value().1));
        Ok(RegisterValue { value, cluster: ClusterId(cluster.to_be_bytes()) })
    }

    async fn compare_and_swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<CasOutcome, RegisterError> {
        // One member only: when the next one refuses, the first may still perform the change.
        let asked = self.pool.call_once(|mut client| {
            let key = self.key.as_str();
            let expected = match old {
                None => Compare::create_revision(key, CompareOp::Equal, 0),
                Some(old) => Compare::value(key, CompareOp::Equal, old.as_ref()),
            };
            let txn = Txn::new()
                .when([expected])
                .and_then([TxnOp::put(key, new.as_ref(), None)])
                .or_else([TxnOp::get(key, None)]);
            async move { client.txn(txn).await }
        });
        let answer = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Ok(CasOutcome::Unknown { why }),
            // Etcd also answers this to the change that used its space up, and keeps that change.
            Err(error @ EtcdError::Refused { code: RESOURCE_EXHAUSTED, .. }) => {
                return Ok(match self.read().await {
                    Ok(RegisterValue { value, .. }) if value.as_ref() == Some(&new) => CasOutcome::Swapped,
                    Ok(RegisterValue { value, .. }) if value.as_ref() == old => return Err(error.into()),
                    Ok(RegisterValue { value, .. }) => CasOutcome::Mismatch(value),
                    Err(_) => CasOutcome::Unknown { why: error.to_string() },
                });
            }
            Err(error) => return Err(error.into()),
        };
        if answer.succeeded() {
            return Ok(CasOutcome::Swapped);
        }
        let there = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(mut got) => got.take_kvs().pop(),
            _ => None,
        });
        Ok(CasOutcome::Mismatch(there.map(|kv| Bytes::from(kv.into_key_value().1))))
    }
}

impl From<EtcdError> for RegisterError {
    fn from(error: EtcdError) -> Self {
        match error {
            EtcdError::Refused { .. } | EtcdError::File { .. } => Self::Refused(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}
