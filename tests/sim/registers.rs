//! The registers of a world's etcd, and each process's wire to them.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use runner::ids::ClusterId;
use runner::journal::register::memory::MemoryRegisters;
use runner::journal::register::{Reading, Register, RegisterError, Registers, Swapped};

use crate::net::{Kind, Net, Silence};
use crate::tasks::Process;
use crate::wire::{Change, Observer, Place};
use crate::world::WorldRef;

/// The cluster that has them.
pub const CLUSTER: ClusterId = ClusterId(*b"simulate");

/// The registers.
#[derive(Debug)]
pub struct RegisterServer {
    registers: MemoryRegisters,
    net: Arc<Net>,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl RegisterServer {
    /// None yet.
    pub fn new(world: &WorldRef) -> Arc<Self> {
        let registers = MemoryRegisters::new(CLUSTER);
        Arc::new(Self { registers, net: Net::new(world), observer: OnceLock::new() })
    }

    /// Who sees every swap.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.observer.set(observer).expect("there is one observer");
    }

    /// What they hold, without any wire.
    pub fn registers(&self) -> &MemoryRegisters {
        &self.registers
    }

    /// The way to them.
    pub fn net(&self) -> &Arc<Net> {
        &self.net
    }

    /// The wire of a process.
    pub fn wire(self: &Arc<Self>, process: Process) -> Arc<RegisterWire> {
        Arc::new(RegisterWire { process, server: Arc::clone(self) })
    }
}

/// A process's way to the registers.
#[derive(Debug, Clone)]
pub struct RegisterWire {
    process: Process,
    server: Arc<RegisterServer>,
}

impl Registers for RegisterWire {
    fn register(&self, name: &str) -> Arc<dyn Register> {
        let register = self.server.registers.register(name);
        Arc::new(OneRegister { wire: self.clone(), name: name.to_owned(), register })
    }
}

#[derive(Debug)]
struct OneRegister {
    wire: RegisterWire,
    name: String,
    register: Arc<dyn Register>,
}

#[async_trait]
impl Register for OneRegister {
    async fn read(&self) -> Result<Reading, RegisterError> {
        let register = Arc::clone(&self.register);
        let effect = move || at_once(register.read());
        let RegisterWire { process, server } = &self.wire;
        let unreachable = |Silence(why)| RegisterError::Unreachable(why.to_owned());
        server.net.carry(process, Kind::Read, None, effect).await.map_err(unreachable)?
    }

    async fn swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<Swapped, RegisterError> {
        let RegisterWire { process, server } = &self.wire;
        let (register, name, old) = (Arc::clone(&self.register), self.name.clone(), old.cloned());
        let (at, by) = (Arc::clone(server), process.clone());
        let effect = move || {
            let swapped = at_once(register.swap(old.as_ref(), new.clone()));
            if let (Ok(Swapped::Yes), Some(observer)) = (&swapped, at.observer.get()) {
                let (place, key) = (Place::Register, name.clone());
                let (before, after) = (old.clone(), Some(new.clone()));
                observer.changed(by.host, &Change { at: by.world.now(), life: by.life, place, key, before, after });
            }
            swapped
        };
        match server.net.carry(process, Kind::Once, None, effect).await {
            Ok(swapped) => swapped,
            Err(Silence(why)) => Ok(Swapped::Unknown { why: why.to_owned() }),
        }
    }
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("what is in memory does not wait")
}
