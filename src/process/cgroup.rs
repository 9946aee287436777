//! A cgroup for each command, if this process may create one: a process that leaves the process group stays in the
//! cgroup, and ends with it.
//!
//! Creation is allowed below a cgroup that systemd has delegated (`Delegate=yes`), and on a host without systemd where
//! the directory is writable. Elsewhere there is only the process group, and a process that leaves it outlives the
//! command.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The prefix of our cgroups' names.
const PREFIX: &str = "runner-";

/// How many rounds of single kills are made if the kernel cannot kill a cgroup at once: each round may find processes
/// started meanwhile.
const ROUNDS_MAX: usize = 100;

/// The attributes with which systemd marks a delegated cgroup.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// A cgroup directory below this process's own; removed on drop, if no process is left in it.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates a new one; `None` if that is not possible here.
    pub(super) fn create() -> Option<Self> {
        static OWN: OnceLock<Option<PathBuf>> = OnceLock::new();
        static MADE: AtomicU64 = AtomicU64::new(0);
        let own = OWN.get_or_init(|| {
            let own = delegated();
            if own.is_none() {
                tracing::info!(
                    "no cgroup is delegated to this process: a process that leaves a command's process group is not \
                     ended with it"
                );
            }
            own
        });
        let own = own.as_ref()?;
        // Removes old cgroups whose remaining processes have ended by now.
        for old in fs::read_dir(own).into_iter().flatten().flatten() {
            let number = std::process::id();
            if old.file_name().to_string_lossy().starts_with(&format!("{PREFIX}{number}-")) && !populated(&old.path()) {
                let _ = fs::remove_dir(old.path());
            }
        }
        let name = format!("{PREFIX}{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let made = own.join(name);
        fs::create_dir(&made).ok()?;
        Some(Self(made))
    }

    /// Moves a process here, together with its future children; `false` if it cannot be moved, or is gone.
    pub(super) fn add(&self, id: Pid) -> bool {
        fs::write(self.0.join("cgroup.procs"), id.to_string()).is_ok()
    }

    /// The processes that are in the cgroup at this moment.
    pub(super) fn members(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect()
    }

    /// Whether any process in the cgroup is alive.
    pub(super) fn is_populated(&self) -> bool {
        populated(&self.0)
    }

    /// Kills all processes in the cgroup.
    pub(super) fn kill(&self) {
        if fs::write(self.0.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Before Linux 5.14.
        for _ in 0..ROUNDS_MAX {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            for id in members {
                let _ = kill(id, Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A remaining process keeps the directory; it is removed when the next cgroup is created, or with the unit's.
        let _ = fs::remove_dir(&self.0);
    }
}

fn populated(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// This process's own cgroup, if it may create others below it.
fn delegated() -> Option<PathBuf> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let own = place(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
    let marked = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(&own, name, &mut value).is_ok_and(|len| &value[..len] == b"1")
    };
    // Where systemd manages the tree, cgroups that it has not delegated must not be touched.
    (DELEGATED.iter().any(|name| marked(name)) || !is_managed()).then_some(own)
}

fn is_managed() -> bool {
    !matches!(fs::symlink_metadata("/run/systemd/system"), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// The path of the cgroup of `/proc/self/cgroup`, according to the mounts in `/proc/self/mountinfo`; `None` if cgroups
/// v2 does not exist, or is not visible from here.
fn place(cgroup: &str, mounts: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        // ID, parent, device, the mounted part of the file system, mount point.
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(at).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_among_the_mounts() {
        let mounts = "24 1 0:22 / / rw - ext4 /dev/vda rw\n\
                      30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let own = "9:cpu:/x\n0::/system.slice/runner.service\n";
        assert_eq!(place(own, mounts), Some("/sys/fs/cgroup/system.slice/runner.service".into()));
        let part = "30 24 0:26 /system.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(place(own, part), Some("/sys/fs/cgroup/runner.service".into()));
        assert_eq!(place("0::/user.slice\n", part), None, "out of sight");
        assert_eq!(place("9:cpu:/x\n", mounts), None, "only the first version");
        assert_eq!(place(own, "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}
