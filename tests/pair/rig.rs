//! What the stories share: a daemon that a test can treat badly, work that lasts as long as the test wants, and time.
#![allow(unreachable_pub, reason = "a module of one test crate")]

use std::fmt::Display;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use runner::env::Env;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::etcd::Etcd;
use crate::site::Site;
use crate::support::cli::Node;

/// The lease of all stories, in etcd and in the bucket: as short as one may be that stays alive on a busy machine.
pub const TTL: Duration = Duration::from_secs(3);

/// The longest that something which must come is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

const POLL: Duration = Duration::from_millis(10);

/// A slot that began a while ago and lasts for years: due as soon as a daemon is there, and once.
pub const ONE_SLOT: &str = "every = \"36500d\"\njitter = \"0s\"\n";

/// Both nodes are at once as good.
pub const AT_ONCE: &str = "takeover_delay = \"0s\"\n";

pub fn now() -> Timestamp {
    Env::host().clock.now()
}

/// On the clock that nobody sets.
pub fn boottime() -> Duration {
    Env::host().clock.boottime()
}

/// How long it is since then.
pub fn since(start: Duration) -> Duration {
    boottime().saturating_sub(start)
}

/// Waits for what must come, and tells how long it took.
#[track_caller]
pub fn wait<T>(what: impl Display, come: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, come)
}

/// Waits no longer than this.
#[track_caller]
pub fn within<T>(limit: Duration, what: impl Display, mut come: impl FnMut() -> Option<T>) -> T {
    let start = boottime();
    loop {
        if let Some(come) = come() {
            return come;
        }
        assert!(since(start) < limit, "not within {limit:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Something stays as it is for a while.
#[track_caller]
pub fn stays(time: Duration, what: impl Display, so: impl Fn() -> bool) {
    let start = boottime();
    while since(start) < time {
        assert!(so(), "not so any more after {:?}: {what}", since(start));
        thread::sleep(POLL);
    }
}

/// A running `runner daemon`. It is killed when dropped.
pub struct Daemon {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// The daemon of this node.
    pub fn start(site: &Site, name: &str) -> Self {
        Self::of(site, &site.node(name), &[])
    }

    /// The same, and it stands in some way for the role when this returns.
    #[track_caller]
    pub fn settled(site: &Site, name: &str, stand: &str) -> Self {
        let daemon = Self::start(site, name);
        daemon.waits_to_be(stand);
        daemon
    }

    /// A daemon with these further arguments.
    pub fn of(site: &Site, node: &Node, args: &[&str]) -> Self {
        let log = (0..1000).map(|n| site.path(&format!("{}-{n}.log", node.name))).find(|path| !path.exists()).unwrap();
        let mut command = node.command(["daemon"].iter().chain(args));
        let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { name: node.name.clone(), child, log }
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn said(&self, words: &str) -> bool {
        self.log().contains(words)
    }

    /// How it stands for `app` by its own last word: `active`, `standby`, `unknown`, `CONFLICT`, `paused`, `nobody` or `would`.
    pub fn stand(&self) -> Option<String> {
        const WORDS: [&str; 7] = ["active", "standby", "unknown", "CONFLICT", "paused", "nobody", "would"];
        let word = |line: &str| {
            let (_, text) = line.split_once(" app: ")?;
            let word = text.split([' ', ',', ':']).next()?;
            WORDS.contains(&word).then(|| word.to_owned())
        };
        self.log().lines().rev().find_map(word)
    }

    #[track_caller]
    pub fn waits_to_be(&self, stand: &str) {
        self.stands_within(PATIENCE, stand);
    }

    #[track_caller]
    pub fn stands_within(&self, limit: Duration, stand: &str) {
        let start = boottime();
        while self.stand().as_deref() != Some(stand) {
            assert!(since(start) < limit, "{} is not {stand} within {limit:?}:\n{}", self.name, self.log());
            thread::sleep(POLL);
        }
    }

    #[track_caller]
    pub fn waits_to_say(&self, words: &str) {
        let start = boottime();
        while !self.said(words) {
            assert!(since(start) < PATIENCE, "{} does not say {words:?}:\n{}", self.name, self.log());
            thread::sleep(POLL);
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let start = boottime();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(since(start) < PATIENCE, "{} does not end:\n{}", self.name, self.log());
            thread::sleep(POLL);
        }
    }

    /// SIGTERM, and a good end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ends();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// SIGKILL. Its dumps, which are left behind, see nothing of it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} ({})\n{}", self.name, self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A site whose role has its lease in the store.
pub fn bucket_site(lines: &str) -> Site {
    let site = Site::leased(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{lines}\n"));
    site.write("file", "content");
    site.init();
    site
}

/// The lines that put a role's lease into etcd.
pub fn etcd_lines(endpoints: &[String], lines: &str) -> String {
    format!("{AT_ONCE}{lines}\n[etcd]\nendpoints = {endpoints:?}\nlease_ttl = \"{}s\"\n", TTL.as_secs())
}

/// A site whose role has its lease in etcd.
pub fn etcd_site(etcd: &Etcd, lines: &str) -> Site {
    let site = Site::leased(&etcd_lines(&etcd.endpoints(), lines));
    site.write("file", "content");
    site.init();
    site
}

/// Lines of a dump that lasts as long as the file `hold` is there. Each time it begins, its process is written into `begun`. It is
/// deaf to SIGTERM, and ends when the site goes.
pub fn slow_dump(site: &Site) -> String {
    let script = format!(
        "trap : TERM; echo $$ >> {0}/begun; while test -e {0}/hold; do sleep 0.05; done; cat {0}/data",
        site.dir().display()
    );
    fs::write(site.path("data"), "what the dump says").unwrap();
    fs::write(site.path("hold"), "").unwrap();
    format!("[role.app.dumps]\n\"slow\" = {{ command = [\"sh\", \"-c\", {script:?}] }}\n")
}

/// The processes of the slow dumps so far.
pub fn begun(site: &Site) -> Vec<u32> {
    let text = fs::read_to_string(site.path("begun")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Lets the slow dumps end.
pub fn let_go(site: &Site) {
    fs::remove_file(site.path("hold")).unwrap();
}

/// Whether there is such a process.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that nobody has waited for yet has ended nevertheless.
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// The takeovers in the journal: whose, and when the record came to be seen.
pub fn takeovers(site: &Site) -> Vec<(String, Timestamp)> {
    let records = site.records().into_iter().filter(|record| record["kind"] == "takeover");
    records.map(|record| (label(&record), seen(site, &record))).collect()
}

pub fn label(record: &Value) -> String {
    record["node"]["name"].as_str().unwrap().to_owned()
}

/// When a record's file got its name: the link changes the file's ctime, and nothing does after that.
fn seen(site: &Site, record: &Value) -> Timestamp {
    let name = format!("store/app/journal/{:016}", record["seq"].as_u64().unwrap());
    let meta = fs::metadata(site.path(&name)).unwrap();
    Timestamp::new(meta.ctime(), meta.ctime_nsec() as i32).unwrap()
}

/// The first takeover by this node after an instant, when it comes.
#[track_caller]
pub fn taken_by(site: &Site, node: &str, after: Timestamp) -> Timestamp {
    wait(format!("{node} takes over"), || {
        takeovers(site).into_iter().find(|(by, at)| by == node && *at >= after).map(|(_, at)| at)
    })
}

/// From one instant to another, in seconds; negative if it is the other way round.
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// Everything that was ever committed is whole.
#[track_caller]
pub fn all_is_whole(site: &Site) {
    let looker = site.node("looker");
    looker.run(["verify", "app", "--read-data"]).expect(0);
    for (n, snapshot) in site.listed().iter().enumerate() {
        site.restore(&looker, snapshot["id"].as_str().unwrap(), &format!("restored-{n}"));
    }
}
