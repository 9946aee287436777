//! A daemon that a test can treat badly, and patience: what must come is waited for.
#![allow(unreachable_pub, dead_code, reason = "each test that includes this uses a part of it")]

use std::fmt::Display;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use runner::env::Env;
use rustix::process::{Pid, Signal, kill_process};

use crate::site::Site;
use crate::support::cli::TestNode;

/// The longest that something which must come is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

const POLL: Duration = Duration::from_millis(10);

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
pub fn wait_for<T>(what: impl Display, come: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, come)
}

/// Waits no longer than this.
#[track_caller]
pub fn wait_within<T>(limit: Duration, what: impl Display, mut come: impl FnMut() -> Option<T>) -> T {
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
pub fn assert_stays(time: Duration, what: impl Display, so: impl Fn() -> bool) {
    let start = boottime();
    while since(start) < time {
        assert!(so(), "not so any more after {:?}: {what}", since(start));
        thread::sleep(POLL);
    }
}

/// A running `runner daemon`. It is killed when dropped.
pub struct TestDaemon {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl TestDaemon {
    /// The daemon of this node.
    pub fn start(site: &Site, name: &str) -> Self {
        Self::of(site, &site.node(name), &[])
    }

    /// The same, and it stands in some way for the role when this returns.
    #[track_caller]
    pub fn settled(site: &Site, name: &str, status: &str) -> Self {
        let daemon = Self::start(site, name);
        daemon.waits_to_be(status);
        daemon
    }

    /// A daemon with these further arguments.
    pub fn of(site: &Site, node: &TestNode, args: &[&str]) -> Self {
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

    /// How it stands for `app` by its own last word: `active`, `standby`, `unknown`, `CONFLICT` or `paused`.
    pub fn status(&self) -> Option<String> {
        const WORDS: [&str; 5] = ["active", "standby", "unknown", "CONFLICT", "paused"];
        let word = |line: &str| {
            let (_, text) = line.split_once(" app: ")?;
            let (word, rest) = text.split_at(text.find([' ', ',', ':']).unwrap_or(text.len()));
            // How a run ended is no stand.
            (WORDS.contains(&word) && !rest.starts_with(" —")).then(|| word.to_owned())
        };
        self.log().lines().rev().find_map(word)
    }

    #[track_caller]
    pub fn waits_to_be(&self, status: &str) {
        self.stands_within(PATIENCE, status);
    }

    #[track_caller]
    pub fn stands_within(&self, limit: Duration, status: &str) {
        let start = boottime();
        while self.status().as_deref() != Some(status) {
            assert!(since(start) < limit, "{} is not {status} within {limit:?}:\n{}", self.name, self.log());
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

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} ({})\n{}", self.name, self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
