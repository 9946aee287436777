//! What may befall a cluster.

use std::time::Duration;

use runner::role::probe::ProbeAnswer;

use crate::hosts::ThawedClock;
use crate::net::NetworkFaults;
use crate::node::OperatorAction;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScenarioAction {
    /// The role belongs to this host alone.
    Move(usize),
    /// What this host's probes see.
    See(usize, ProbeAnswer),
    Kill {
        host: usize,
        wipe: bool,
        reboot: bool,
    },
    Start(usize),
    Stop(usize),
    GoOn(usize),
    Freeze(usize),
    Thaw(usize, ThawedClock),
    Step(usize, i64),
    Drift(usize, i32),
    Bucket(NetworkFaults),
    Leases(NetworkFaults),
    Registers(NetworkFaults),
    Cut(usize, bool),
    CutEtcd(usize, bool),
    SilenceBucket(bool),
    SilenceEtcd(bool),
    EtcdForgets,
    EtcdLeader,
    EtcdLate(Duration),
    DiskFull(usize, bool),
    /// What is in memory for the boot is deleted, whatever runs.
    ForgetMemory(usize),
    MemoryFull(usize, bool),
    /// The state directory is deleted, whatever runs.
    Forget(usize),
    /// It is backed up.
    Keep(usize),
    /// It is what it was in one of its newest backups, whatever runs.
    SetBack(usize),
    /// Reading the files does not end, or it does again.
    Hang(usize, bool),
    /// A timer looks so many times between two records.
    Look(usize, u32),
    Operate(usize, OperatorAction),
    Prune(usize),
    Write,
    Clone {
        of: usize,
    },
    /// Everything is off for so long.
    Outage(Duration),
}
