//! What may befall a cluster.

use std::time::Duration;

use runner::role::probe::ProbeAnswer;

use crate::hosts::ThawedClock;
use crate::network::NetworkFaults;
use crate::node::OperatorAction;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScenarioAction {
    /// The role belongs to this host alone.
    Move(usize),
    /// What this host's probes see.
    SetProbe(usize, ProbeAnswer),
    Kill {
        host: usize,
        wipe: bool,
        reboot: bool,
    },
    Start(usize),
    Stop(usize),
    Resume(usize),
    Freeze(usize),
    Thaw(usize, ThawedClock),
    StepClock(usize, i64),
    DriftClock(usize, i32),
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
    DeleteBootDir(usize),
    MemoryFull(usize, bool),
    /// The state directory is deleted, whatever runs.
    DeleteStateDir(usize),
    /// It is backed up.
    BackUpStateDir(usize),
    /// It is what it was in one of its newest backups, whatever runs.
    RestoreStateDir(usize),
    /// Reading the files does not end, or it does again.
    Hang(usize, bool),
    /// A timer looks so many times between two records.
    RunTimer(usize, u32),
    Operate(usize, OperatorAction),
    Prune(usize),
    Write,
    Clone {
        of: usize,
    },
    /// Everything is off for so long.
    Outage(Duration),
}
