//! Runs that hang: the standby gets the role, other roles go on, and what is told to end ends.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

use crate::rig::{
    AT_ONCE, ONE_SLOT, TTL, TestDaemon, alive, begun, boottime, bucket_site, label, let_go, since, wait_for,
};
use crate::site::{Site, words};

/// How long a run may make no progress.
const STALL: Duration = Duration::from_secs(3);

/// What is told to end has done so by then, on a busy machine: ten seconds until it is left behind, and some for its lease.
const END: Duration = Duration::from_secs(35);

/// A file system whose server never answers, as one on a network may be. It answers that it is gone when dropped.
struct DeadServer {
    device: Option<File>,
    at: PathBuf,
}

impl DeadServer {
    /// Mounted on `at`.
    fn on(at: &Path) -> Self {
        assert!(geteuid().is_root(), "a mount needs root: run these tests as root, as CI does (`sudo -E make test`)");
        fs::create_dir_all(at).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        // For mount(8), which hands it to the kernel.
        fcntl_setfd(&device, FdFlags::empty()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let mount = Command::new("mount").args(["-i", "-t", "fuse", "-o", &options, "dead"]).arg(at).output().unwrap();
        assert!(mount.status.success(), "{}", String::from_utf8_lossy(&mount.stderr));
        fcntl_setfd(&device, FdFlags::CLOEXEC).unwrap();
        Self { device: Some(device), at: at.to_owned() }
    }

    /// Whoever waits for it hears that it is gone.
    fn go(&mut self) {
        self.device = None;
    }
}

impl Drop for DeadServer {
    fn drop(&mut self) {
        self.go();
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// The nodes that committed a snapshot.
fn committers(site: &Site) -> Vec<String> {
    site.snapshots().iter().map(label).collect()
}

fn stall() -> String {
    format!("stall_timeout = \"{STALL:?}\"\n")
}

#[test]
fn a_dump_that_hangs_on_one_node_is_made_by_the_other() {
    let site = bucket_site("");
    let script = "test \"$RUNNER_NODE\" = west || exec sleep 600; echo done";
    let dump = format!("[role.app.dumps]\n\"d\" = {{ command = [\"sh\", \"-c\", {script:?}] }}\n");
    site.config(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{ONE_SLOT}{}{dump}{}", stall(), site.telling()));
    let mut east = TestDaemon::settled(&site, "east", "active");
    let _west = TestDaemon::settled(&site, "west", "standby");
    wait_for("west commits the slot", || (committers(&site) == ["west"]).then_some(()));
    assert!(east.said("made no progress for 3s: last seen waiting for the dump \"d\""), "{}", east.log());
    east.waits_to_be("standby");
    let failed: Vec<Value> = site.told().into_iter().filter(|event| event["event"] == "failed").collect();
    assert_eq!((&failed[0]["node"], &failed[0]["cause"]), (&"east".into(), &"stalled".into()), "{failed:?}");
    assert_eq!(failed[0]["phase"], "begun");
    east.stop();
}

#[test]
fn a_dump_that_only_burns_time_or_prints_slowly_is_left_alone() {
    let site = bucket_site("");
    let seconds = STALL.as_secs() * 2;
    let works = format!("end=$(( $(date +%s) + {seconds} )); while test $(date +%s) -lt $end; do :; done; echo done");
    let prints = format!("for n in $(seq {}); do echo $n; sleep 0.5; done", seconds * 2);
    site.config(&format!(
        "{}[role.app.dumps]\n\"a\" = {{ command = [\"sh\", \"-c\", {works:?}] }}\n\"b\" = {{ command = [\"sh\", \"-c\", {prints:?}] }}\n",
        stall()
    ));
    site.backup("east");
}

#[test]
fn a_run_from_cron_ends_and_gives_its_lease_up() {
    let site = bucket_site("");
    let hangs = format!("echo $$ >> {0}/begun; test -e {0}/hold && exec sleep 600; echo done", site.dir().display());
    fs::write(site.path("hold"), "").unwrap();
    let dump = format!("[role.app.dumps]\n\"slow\" = {{ command = [\"sh\", \"-c\", {hangs:?}] }}\n");
    site.config(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{}{dump}", stall()));
    let said = site.refused("east", 1);
    assert!(said.contains("made no progress for 3s: last seen waiting for the dump \"slow\""), "{said}");
    assert!(said.contains("hint:"), "{said}");
    let dumps = begun(&site);
    wait_for("its dump is gone", || (!alive(dumps[0])).then_some(()));
    let_go(&site);
    let start = boottime();
    site.backup("west");
    assert!(since(start) < TTL * 10, "nobody had the lease any more");
}

#[test]
fn a_source_on_a_dead_server_is_left_behind_and_the_node_waits_until_it_is_back() {
    let site = bucket_site("");
    let source = site.path("dead");
    fs::create_dir(&source).unwrap();
    let lines = format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{ONE_SLOT}{}", stall());
    site.config(&lines);
    let config = site.path("runner.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace(
            &format!("sources = [\"{}\"]", site.src().display()),
            &format!("sources = [\"{}\"]", source.display()),
        ),
    )
    .unwrap();
    let mut server = DeadServer::on(&source);

    // By hand.
    let run = site.node("west").run(["backup", "app"]).expect(1);
    assert!(words(&run).contains("made no progress for 3s: last seen walking"), "{}", run.stderr);

    // A daemon goes on, and ends when it is told to.
    let mut east = TestDaemon::start(&site, "east");
    east.waits_to_say("part of it cannot be ended");
    assert!(east.log().contains("made no progress for 3s: last seen walking"), "{}", east.log());
    let start = boottime();
    east.stop();
    assert!(since(start) < END, "{:?}", since(start));
    assert_eq!(site.snapshots().len(), 0);

    // In the middle of a run.
    for args in [&["daemon"][..], &["backup", "app"]] {
        let mut command = site.node("north").command(args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let lock = site.path("state-north");
        wait_for("it is at work", || lock.exists().then_some(()));
        thread::sleep(Duration::from_secs(1));
        let start = boottime();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        wait_for(format!("{args:?} ends"), || child.try_wait().unwrap());
        assert!(since(start) < END, "{args:?}: {:?}", since(start));
    }
    server.go();
}
