//! The registers of a world's etcd, and each process's wire to them.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use runner::ids::ClusterId;
use runner::journal::register::memory::MemoryRegisters;
use runner::journal::register::{CasOutcome, Register, RegisterError, RegisterService, RegisterValue};

use crate::network::{Network, NoAnswer, RequestKind};
use crate::sim_store::{EffectObserver, EffectPlace, StoredEffect};
use crate::tasks::SimProcess;
use crate::world::WorldHandle;

/// The cluster that has them.
pub const CLUSTER: ClusterId = ClusterId(*b"simulate");

/// The registers.
#[derive(Debug)]
pub struct RegisterServer {
    registers: MemoryRegisters,
    net: Arc<Network>,
    observer: OnceLock<Arc<dyn EffectObserver>>,
}

impl RegisterServer {
    /// None yet.
    pub fn new(world: &WorldHandle) -> Arc<Self> {
        let registers = MemoryRegisters::new(CLUSTER);
        Arc::new(Self { registers, net: Network::new(world), observer: OnceLock::new() })
    }

    /// Who sees every swap.
    pub fn observe(&self, observer: Arc<dyn EffectObserver>) {
        self.observer.set(observer).expect("there is one observer");
    }

    /// What they hold, without any wire.
    pub fn registers(&self) -> &MemoryRegisters {
        &self.registers
    }

    /// The way to them.
    pub fn net(&self) -> &Arc<Network> {
        &self.net
    }

    /// The wire of a process.
    pub fn wire(self: &Arc<Self>, process: SimProcess) -> Arc<SimRegisters> {
        Arc::new(SimRegisters { process, server: Arc::clone(self) })
    }
}

/// A process's way to the registers.
#[derive(Debug, Clone)]
pub struct SimRegisters {
    process: SimProcess,
    server: Arc<RegisterServer>,
}

impl RegisterService for SimRegisters {
    fn register(&self, name: &str) -> Arc<dyn Register> {
        let register = self.server.registers.register(name);
        Arc::new(SimRegister { wire: self.clone(), name: name.to_owned(), register })
    }
}

#[derive(Debug)]
struct SimRegister {
    wire: SimRegisters,
    name: String,
    register: Arc<dyn Register>,
}

#[async_trait]
impl Register for SimRegister {
    async fn read(&self) -> Result<RegisterValue, RegisterError> {
        let register = Arc::clone(&self.register);
        let effect = move || at_once(register.read());
        let SimRegisters { process, server } = &self.wire;
        let unreachable = |NoAnswer(why)| RegisterError::Unreachable(why.to_owned());
        server.net.carry(process, RequestKind::Read, None, effect).await.map_err(unreachable)?
    }

    async fn compare_and_swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<CasOutcome, RegisterError> {
        let SimRegisters { process, server } = &self.wire;
        let (register, name, old) = (Arc::clone(&self.register), self.name.clone(), old.cloned());
        let (at, by) = (Arc::clone(server), process.clone());
        let effect = move || {
            let swapped = at_once(register.compare_and_swap(old.as_ref(), new.clone()));
            if let (Ok(CasOutcome::Swapped), Some(observer)) = (&swapped, at.observer.get()) {
                let (place, key) = (EffectPlace::Register, name.clone());
                let (before, after) = (old.clone(), Some(new.clone()));
                observer
                    .changed(by.host, &StoredEffect { at: by.world.now(), life: by.life, place, key, before, after });
            }
            swapped
        };
        match server.net.carry(process, RequestKind::Once, None, effect).await {
            Ok(swapped) => swapped,
            Err(NoAnswer(why)) => Ok(CasOutcome::Unknown { why: why.to_owned() }),
        }
    }
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("what is in memory does not wait")
}
