//! Two hosts on one switch, as network namespaces of this machine joined by veth, and a real keepalived on each that moves a
//! virtual IP by VRRP. Needs root, and fails with a clear message without.
//!
//! The switch is a third namespace with a bridge: with one cable between the hosts, the end of one would be the end of both.
#![allow(dead_code, unreachable_pub, reason = "every test crate uses its own part of it")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use crate::support::cli::TestNode;

/// The address that keepalived moves.
pub const VIP: &str = "192.0.2.50";

/// The interface of each host.
pub const LAN: &str = "lan";

/// How often something is looked at that surely comes, and how often at most.
const PAUSE: Duration = Duration::from_millis(50);
const LOOKS: u32 = 1200;

/// What every name of this rig begins with; a process ID follows.
const PREFIX: &str = "runner-test-";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanHost {
    East,
    West,
}

pub use LanHost::{East, West};

impl LanHost {
    pub const BOTH: [LanHost; 2] = [East, West];

    pub fn other(self) -> LanHost {
        if self == East { West } else { East }
    }

    pub fn name(self) -> &'static str {
        if self == East { "east" } else { "west" }
    }
}

/// The network. It goes away when dropped, with all that runs in it by its doing.
pub struct TestLan {
    dir: TempDir,
    /// What the names of its namespaces begin with.
    name: String,
    keepalived: [Option<Child>; 2],
}

impl TestLan {
    /// Two hosts with an address each, and nobody who moves a virtual one.
    pub fn new() -> Self {
        assert!(
            geteuid().is_root(),
            "network namespaces and keepalived need root: run these tests as root, as CI does (`sudo -E make test`)"
        );
        sweep();
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lan = Self { dir: TempDir::new().expect("a place for keepalived"), name, keepalived: [None, None] };
        let switch = lan.namespace("switch");
        run(&["netns", "add", &switch]);
        // Without snooping: nobody here asks for groups, and then all of them go everywhere.
        run(&["-n", &switch, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0"]);
        run(&["-n", &switch, "link", "set", "bridge", "up"]);
        for (n, side) in LanHost::BOTH.into_iter().enumerate() {
            run(&["netns", "add", &lan.namespace(side.name())]);
            let port = side.name();
            lan.ip(side, "link set lo up");
            let host = lan.namespace(side.name());
            run(&["-n", &host, "link", "add", LAN, "type", "veth", "peer", "name", port, "netns", &switch]);
            run(&["-n", &switch, "link", "set", port, "master", "bridge"]);
            lan.plug_cable(side);
            lan.ip(side, &format!("link set {LAN} up"));
            lan.ip(side, &format!("addr add 192.0.2.{}/24 dev {LAN}", n + 1));
        }
        lan
    }

    /// Two hosts with keepalived, and the virtual IP on the east one.
    pub fn with_vip() -> Self {
        let mut lan = Self::new();
        lan.start_keepalived(East);
        lan.wait_for_vip(East);
        // As a backup of a living master it stays quiet.
        lan.start_keepalived(West);
        lan
    }

    fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// What starts a command on a host: its network, and the files of this machine.
    pub fn inside(&self, side: LanHost) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(side.name())].map(str::to_owned).to_vec()
    }

    /// A node of the program as it runs on that host.
    pub fn on(&self, side: LanHost, node: TestNode) -> TestNode {
        node.started_by(self.inside(side))
    }

    /// `ip` with these arguments, on a host.
    #[track_caller]
    pub fn ip(&self, side: LanHost, arguments: &str) -> String {
        let namespace = self.namespace(side.name());
        let mut all = vec!["-n", &namespace];
        all.extend(arguments.split(' '));
        run(&all)
    }

    /// Writes a setting of the kernel below `/proc/sys/net`, on a host.
    pub fn sysctl(&self, side: LanHost, name: &str, value: u32) {
        let words = self.inside(side);
        let script = format!("echo {value} > /proc/sys/net/{name}");
        let status = Command::new(&words[0]).args(&words[1..]).args(["sh", "-c", &script]).status();
        assert!(status.expect("ip starts").success(), "{script}");
    }

    /// The host takes its interface down.
    pub fn link_down(&self, side: LanHost) {
        self.ip(side, &format!("link set {LAN} down"));
    }

    pub fn link_up(&self, side: LanHost) {
        self.ip(side, &format!("link set {LAN} up"));
    }

    /// The switch's end goes: the host's interface stays up, and has no carrier.
    pub fn pull_cable(&self, side: LanHost) {
        run(&["-n", &self.namespace("switch"), "link", "set", side.name(), "down"]);
    }

    pub fn plug_cable(&self, side: LanHost) {
        run(&["-n", &self.namespace("switch"), "link", "set", side.name(), "up"]);
    }

    /// Whether the virtual IP is on this host's interface, by the word of `ip`.
    pub fn has_vip(&self, side: LanHost) -> bool {
        self.ip(side, &format!("-br addr show dev {LAN}")).contains(&format!(" {VIP}/"))
    }

    #[track_caller]
    pub fn wait_for_vip(&self, side: LanHost) {
        self.wait(side, true);
    }

    #[track_caller]
    pub fn wait_for_no_vip(&self, side: LanHost) {
        self.wait(side, false);
    }

    #[track_caller]
    fn wait(&self, side: LanHost, wanted: bool) {
        for _ in 0..LOOKS {
            if self.has_vip(side) == wanted {
                return;
            }
            thread::sleep(PAUSE);
        }
        panic!("keepalived never {} {VIP} on {side:?}", if wanted { "put" } else { "left" });
    }

    /// Starts keepalived on a host. Whoever has the address keeps it (`nopreempt`); else the east one comes first.
    pub fn start_keepalived(&mut self, side: LanHost) {
        let config = self.file(side, "conf");
        let priority = if side == East { 150 } else { 100 };
        // Version 3 of VRRP allows parts of a second. High priority: a busy machine is no dead one.
        let text = format!(
            "global_defs {{\n vrrp_version 3\n script_user root\n vrrp_priority -20\n}}\n\
             vrrp_instance app {{\n state BACKUP\n nopreempt\n interface {LAN}\n virtual_router_id 50\n \
             priority {priority}\n advert_int 0.5\n virtual_ipaddress {{\n {VIP}/24\n }}\n}}\n"
        );
        fs::write(&config, text).expect("the test's directory can be written");
        let log = File::options().create(true).append(true).open(self.file(side, "log")).expect("a log");
        let words = self.inside(side);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["keepalived", "--dont-fork", "--log-console", "--vrrp"]);
        command.arg("--use-file").arg(&config);
        command.arg("--pid").arg(self.file(side, "pid")).arg("--vrrp_pid").arg(self.file(side, "vrrp-pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = command.spawn().expect("ip starts keepalived");
        self.keepalived[side as usize] = Some(child);
        self.processes(side);
    }

    /// SIGTERM: it tells the other side, and takes the address away.
    pub fn stop_keepalived(&mut self, side: LanHost) {
        self.signal(side, Signal::SIGTERM);
        self.reap(side);
    }

    /// SIGKILL to all of it: nobody takes the address away.
    pub fn kill_keepalived(&mut self, side: LanHost) {
        // Otherwise the second one takes the address away when it sees the first one die.
        self.signal(side, Signal::SIGSTOP);
        self.signal(side, Signal::SIGKILL);
        self.reap(side);
    }

    /// SIGSTOP to all of it: it says nothing any more, and the address stays where it is.
    pub fn freeze(&self, side: LanHost) {
        self.signal(side, Signal::SIGSTOP);
    }

    pub fn thaw(&self, side: LanHost) {
        self.signal(side, Signal::SIGCONT);
    }

    fn signal(&self, side: LanHost, signal: Signal) {
        for pid in self.processes(side) {
            // The first one's end may be the second one's.
            let _ = kill(pid, signal);
        }
    }

    /// The parent and the process that speaks VRRP, as far as they have begun.
    fn begun(&self, side: LanHost) -> Vec<Pid> {
        let pid = |name| fs::read_to_string(self.file(side, name)).ok()?.trim().parse().ok().map(Pid::from_raw);
        ["pid", "vrrp-pid"].into_iter().filter_map(pid).collect()
    }

    fn reap(&mut self, side: LanHost) {
        if let Some(mut child) = self.keepalived[side as usize].take() {
            child.wait().expect("it is ours");
        }
        for file in ["pid", "vrrp-pid"] {
            let _ = fs::remove_file(self.file(side, file));
        }
    }

    /// Both of them, once they are there.
    fn processes(&self, side: LanHost) -> Vec<Pid> {
        for _ in 0..LOOKS {
            let begun = self.begun(side);
            if begun.len() == 2 {
                return begun;
            }
            thread::sleep(PAUSE);
        }
        panic!("keepalived does not start (scripts/setup-tests installs it): {}", self.log(side));
    }

    fn log(&self, side: LanHost) -> String {
        fs::read_to_string(self.file(side, "log")).unwrap_or_default()
    }

    fn file(&self, side: LanHost, what: &str) -> PathBuf {
        self.dir.path().join(format!("{}.{what}", side.name()))
    }
}

impl Drop for TestLan {
    fn drop(&mut self) {
        for side in LanHost::BOTH {
            if thread::panicking() {
                eprintln!("--- keepalived on {side:?}\n{}", self.log(side));
            }
            if let Some(child) = &mut self.keepalived[side as usize] {
                let _ = child.kill();
                for pid in self.begun(side) {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                self.reap(side);
            }
        }
        for place in ["east", "west", "switch"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(place)]).stderr(Stdio::null()).status();
        }
    }
}

/// Deletes what test processes left that were killed.
fn sweep() {
    for line in run(&["netns", "list"]).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may do the same.
            let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}

#[track_caller]
fn run(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip starts (Debian's package is iproute2)");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
