//! Registers in memory, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{CasOutcome, Register, RegisterError, RegisterService, RegisterValue};
use crate::ids::ClusterId;

/// Registers in memory. Clones share the same registers.
#[derive(Debug, Clone)]
pub struct MemoryRegisters {
    cluster: ClusterId,
    values: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemoryRegisters {
    /// No registers yet, in a cluster of this name.
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster, values: Arc::default() }
    }

    /// Replaces a value, or removes it (`None`), without a compare.
    pub fn tamper(&self, name: &str, value: Option<Bytes>) {
        let mut values = self.values.lock();
        match value {
            Some(value) => values.insert(name.to_owned(), value),
            None => values.remove(name),
        };
    }
}

impl RegisterService for MemoryRegisters {
    fn register(&self, name: &str) -> Arc<dyn Register> {
        Arc::new(MemoryRegister { registers: self.clone(), name: name.to_owned() })
    }
}

/// One register.
#[derive(Debug)]
struct MemoryRegister {
    registers: MemoryRegisters,
    name: String,
}

#[async_trait]
impl Register for MemoryRegister {
    async fn read(&self) -> Result<RegisterValue, RegisterError> {
        let values = self.registers.values.lock();
        Ok(RegisterValue { value: values.get(&self.name).cloned(), cluster: self.registers.cluster })
    }

    async fn compare_and_swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<CasOutcome, RegisterError> {
        let mut values = self.registers.values.lock();
        let there = values.get(&self.name);
        if there != old {
            return Ok(CasOutcome::Mismatch(there.cloned()));
        }
        values.insert(self.name.clone(), new);
        Ok(CasOutcome::Swapped)
    }
}
