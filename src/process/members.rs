//! The processes of a command: those of its process group, and with a cgroup also those that left the group.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::cgroup::Cgroup;

/// All processes of a command that is not reaped yet: until then its number certainly belongs to it.
#[derive(Debug)]
pub struct ProcessTree {
    group: Pid,
    cgroup: Option<Cgroup>,
}

impl ProcessTree {
    /// The processes of a command just started as the first of its process group, which is moved into `cgroup`.
    pub(super) fn of(id: u32, cgroup: Option<Cgroup>) -> Option<Self> {
        let group = Pid::from_raw(i32::try_from(id).ok().filter(|id| *id > 0)?);
        let cgroup = cgroup.filter(|cgroup| cgroup.add(group));
        if let Some(cgroup) = &cgroup {
            // Its future children are in the cgroup as well; those it started before are searched for.
            let mut found = vec![group];
            while let Some(parent) = found.pop() {
                found.extend(
                    children(parent)
                        .into_iter()
                        .filter(|child| !cgroup.members().contains(child) && cgroup.add(*child)),
                );
            }
        }
        Some(Self { group, cgroup })
    }

    /// The process group, whose number is that of its first process.
    pub fn group(&self) -> Pid {
        self.group
    }

    /// Sends a signal to all processes.
    pub fn send(&self, signal: Signal) {
        // An error means that all of them have ended.
        let _ = killpg(self.group, signal);
        let strays = self.cgroup.iter().flat_map(Cgroup::members);
        for stray in strays.filter(|id| group_of(*id).is_some_and(|group| group != self.group)) {
            let _ = kill(stray, signal);
        }
    }

    /// Sends `SIGKILL` to all processes, including those started meanwhile.
    pub fn kill(&self) {
        let _ = killpg(self.group, Signal::SIGKILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Whether the command itself has ended. It is not reaped.
    pub fn first_has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.group), flags), Ok(WaitStatus::StillAlive))
    }

    /// Whether any of the processes is alive.
    pub fn is_alive(&self) -> bool {
        if !self.first_has_ended() {
            return true;
        }
        if self.cgroup.as_ref().is_some_and(Cgroup::is_populated) {
            return true;
        }
        stats().any(|stat| ProcessStat::read(&stat).is_some_and(|p| p.group == self.group.as_raw() && p.lives))
    }
}

/// The kernel's ticks per second, as reported to programs on every architecture.
const TICKS_PER_SECOND: u32 = 100;

/// A process group that uses less than this fraction of a processor counts as waiting: a polling loop uses some
/// hundredths.
const WORK_PART: u32 = 20;

/// Whether this processor time, in ticks, within this time is work and not mere polling.
pub fn is_cpu_work(ticks: u64, within: Duration) -> bool {
    let burnt = Duration::from_secs(ticks) / TICKS_PER_SECOND;
    ticks > 0 && burnt >= within / WORK_PART
}

/// The processor time that a process group has used so far, in kernel ticks, including its ended children. 0 if
/// unknown.
pub fn cpu_ticks(group: Pid) -> u64 {
    let all = stats().filter_map(|stat| ProcessStat::read(&stat));
    all.filter(|process| process.group == group.as_raw()).fold(0, |sum, process| sum.wrapping_add(process.ticks))
}

/// The children of a process; empty if the kernel keeps no such list.
fn children(of: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|id| id.parse().ok()).map(Pid::from_raw).collect()
}

fn group_of(id: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(Pid::from_raw(ProcessStat::read(&stat)?.group))
}

/// The text of proc_pid_stat(5) for every process; empty if unavailable.
fn stats() -> impl Iterator<Item = String> {
    let list = fs::read_dir("/proc").into_iter().flatten().flatten();
    list.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
}

/// The relevant fields of one process.
#[derive(Debug, PartialEq, Eq)]
struct ProcessStat {
    group: i32,
    lives: bool,
    ticks: u64,
}

impl ProcessStat {
    /// The command's name may contain anything, blanks and brackets included.
    fn read(stat: &str) -> Option<Self> {
        // After the name: state, parent, group, and with number 14 of the line the four times.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let times = fields.get(11..15)?.iter().map(|time| time.parse::<u64>().ok());
        Some(Self {
            group: fields.get(2)?.parse().ok()?,
            // Zombies wait for their parent, and do nothing more.
            lives: !matches!(*fields.first()?, "Z" | "X" | "x"),
            ticks: times.into_iter().try_fold(0, |sum, time| Some(sum + time?))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_group_state_and_times() {
        let line = "7 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 5 6 7 8 20 0 1 0 100 1 2";
        assert_eq!(ProcessStat::read(line), Some(ProcessStat { group: 42, lives: true, ticks: 26 }));
        assert!(!ProcessStat::read(&line.replace(" S ", " Z ")).unwrap().lives);
        assert_eq!(ProcessStat::read("7 (a) S 1 42"), None);
    }

    #[test]
    fn who_only_looks_whether_there_is_work_does_none() {
        let work = [0, 1, 24, 25, 500].map(|ticks| is_cpu_work(ticks, Duration::from_secs(5)));
        assert_eq!(work, [false, false, false, true, true]);
        assert!(!is_cpu_work(0, Duration::ZERO) && is_cpu_work(1, Duration::from_millis(50)));
    }
}
