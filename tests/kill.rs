//! A run that is killed at any moment (SIGKILL: no handler, no farewell) leaves nothing to repair: every earlier snapshot
//! still restores, the next run goes through, and what the broken run had uploaded is not uploaded again.

mod support;

#[path = "program/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use runner::env::Env;
use site::{Site, number, role};
use support::tree::Dice;

/// Kills of the first run of a new repository, each in a repository of its own.
const FIRST_RUNS: usize = 10;
/// Kills of runs over a history.
const LATER_RUNS: usize = 40;

/// Large files, of this size.
const LARGE: (usize, usize) = (12, 3 << 20);
/// Small files, of at most this size.
const SMALL: (usize, usize) = (3000, 14_000);

/// What the manifest, the frames' heads and the trailers of a run may add to the content.
const OVERHEAD: u64 = 2 << 20;

/// The source as it should be: each file with the BLAKE3 of its content. Everything is noise, so that what is stored is as long
/// as what was read.
struct Content {
    dice: Dice,
    files: BTreeMap<PathBuf, blake3::Hash>,
}

impl Content {
    fn new(site: &Site, seed: u64) -> Self {
        let mut content = Self { dice: Dice::new(seed), files: BTreeMap::new() };
        for number in 0..LARGE.0 {
            content.write(site, &format!("large/{number}"), LARGE.1);
        }
        for number in 0..SMALL.0 {
            content.small(site, number);
        }
        content
    }

    fn small(&mut self, site: &Site, number: usize) -> u64 {
        let len = self.dice.below(SMALL.1 as u64) as usize;
        self.write(site, &format!("d{:02}/{number}", number / 100), len)
    }

    fn write(&mut self, site: &Site, name: &str, len: usize) -> u64 {
        let bytes = self.dice.noise(len);
        site.write(name, &bytes);
        self.files.insert(name.into(), blake3::hash(&bytes));
        len as u64
    }

    /// Changes two large files and a tenth of the small ones, adds some and removes some; how many bytes are new.
    fn change(&mut self, site: &Site, round: usize) -> u64 {
        let mut new = 0;
        for which in [2 * round % LARGE.0, (2 * round + 1) % LARGE.0] {
            new += self.write(site, &format!("large/{which}"), LARGE.1);
        }
        for number in (round % 10..SMALL.0).step_by(10) {
            new += self.small(site, number);
        }
        new += self.write(site, &format!("added/{round}"), 10_000);
        if let Some(before) = round.checked_sub(3) {
            let name = format!("added/{before}");
            fs::remove_file(site.src().join(&name)).unwrap();
            self.files.remove(&PathBuf::from(name));
        }
        new
    }
}

/// The bytes of all packs in the store.
fn pack_bytes(site: &Site) -> u64 {
    site.packs().iter().map(|p| fs::metadata(site.path("store").join(p)).unwrap().len()).sum()
}

/// Starts a backup and kills it after `moment`. False: it was over before.
fn kill_at(site: &Site, moment: Duration) -> bool {
    let mut child = site.node("east").start(["backup", "app"]);
    std::thread::sleep(moment);
    // Harmless if it is over: nobody has waited for it, so nobody else has its number.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    if status.signal().is_none() {
        assert_eq!(status.code(), Some(0), "a run that came to its end did what it should");
    }
    status.signal() == Some(9)
}

/// How long a run takes here and now.
fn timed(run: impl FnOnce()) -> Duration {
    let clock = Env::host().clock;
    let started = clock.boottime();
    run();
    clock.boottime() - started
}

/// A moment of a run that takes `whole`, spread evenly over its length: the `nth` of `of` parts, and random within.
fn moment(dice: &mut Dice, whole: Duration, nth: usize, of: usize) -> Duration {
    let part = whole / of as u32;
    part * nth as u32 + part * (dice.below(1000) as u32) / 1000
}

/// What a completed run after `left` bytes of packs were left by a killed one must have done, where `new` bytes were new.
fn assert_resumed(report: &serde_json::Value, left: u64, new: u64, what: &str) {
    let uploaded = number(&report["bytes"]["new"]);
    assert!(
        uploaded + left <= new + OVERHEAD,
        "{what}: {new} bytes were new, the killed run left {left}, and {uploaded} were uploaded again: {report}"
    );
    // Without encryption's and framing's few bytes, nothing may be missing either.
    assert!(uploaded + left >= new, "{what}: {uploaded} + {left} bytes cannot hold {new}: {report}");
}

#[test]
fn a_first_run_killed_at_any_moment_is_finished_by_the_next() {
    let site = Site::new("");
    let content = Content::new(&site, 1);
    let new = content.files.keys().map(|f| fs::metadata(site.src().join(f)).unwrap().len()).sum();
    site.init();
    let whole = timed(|| drop(site.backup("east")));
    let (mut dice, mut killed, mut left_some, mut rounds) = (Dice::new(71), 0, 0, 0);
    while killed < FIRST_RUNS {
        rounds += 1;
        assert!(rounds <= 3 * FIRST_RUNS, "of {rounds} runs only {killed} could be killed");
        for name in ["store", "state-east", "out"] {
            let _ = fs::remove_dir_all(site.path(name));
        }
        site.init();
        if !kill_at(&site, moment(&mut dice, whole, killed, FIRST_RUNS)) {
            continue;
        }
        killed += 1;
        let (left, committed) = (pack_bytes(&site), site.snapshots().len());
        left_some += usize::from(left > 0 && committed == 0);
        let report = site.backup("east");
        assert_resumed(&report, left, new, &format!("first run, kill {killed}"));
        assert!(pack_bytes(&site) <= new + OVERHEAD, "every byte is stored once");
        assert_restores(&site, "latest", &content.files);
        verify(&site, &["--read-data"]);
    }
    assert!(left_some >= 2, "kills that leave packs behind are the point; only {left_some} did");
}

#[test]
fn runs_over_a_history_killed_at_any_moment_leave_every_snapshot_whole() {
    let site = Site::new("");
    let mut content = Content::new(&site, 5);
    site.init();
    site.backup("east");
    let mut history = vec![content.files.clone()];
    let mut whole = Duration::ZERO;
    // Two, because the first is the one that fills the caches.
    for round in 0..2 {
        content.change(&site, round);
        whole = timed(|| drop(site.backup("east")));
        history.push(content.files.clone());
    }
    let (mut dice, mut killed, mut left_some, mut round) = (Dice::new(72), 0, 0, 2);
    while killed < LATER_RUNS {
        assert!(round < 3 * LATER_RUNS, "of {round} runs only {killed} could be killed");
        let before = pack_bytes(&site);
        let new = content.change(&site, round);
        round += 1;
        if kill_at(&site, moment(&mut dice, whole, killed, LATER_RUNS)) {
            killed += 1;
        }
        let committed = site.snapshots().len() - history.len();
        assert!(committed <= 1);
        if committed == 1 {
            history.push(content.files.clone());
        }
        let left = pack_bytes(&site) - before;
        left_some += usize::from(left > 0 && committed == 0);

        // What was there is still there, and looking at it needs no repair.
        let which = dice.below(history.len() as u64) as usize;
        assert_file_restores(&site, history.len() - 1 - which, &history[which], &mut dice);

        let report = site.backup("east");
        assert_resumed(&report, left, new, &format!("round {round}"));
        assert!(pack_bytes(&site) - before <= new + OVERHEAD, "round {round}: every byte is stored once");
        history.push(content.files.clone());
        assert_eq!(site.listed().len(), history.len());
    }
    assert!(left_some >= LATER_RUNS / 10, "kills that leave packs behind are the point; only {left_some} did");

    for (back, files) in history.iter().rev().enumerate() {
        assert_restores(&site, &format!("latest~{back}"), files);
    }
    verify(&site, &["--read-data"]);
}

/// Restores over what the last call left, so that only what differs is fetched, and compares every file.
fn assert_restores(site: &Site, snapshot: &str, files: &BTreeMap<PathBuf, blake3::Hash>) {
    let target = site.path("out");
    let args = ["restore", "app", "--snapshot", snapshot, "--delete", "--target", target.to_str().unwrap(), "--json"];
    let report = site.node("looker").run(args).expect(0).json();
    let out = site::below(&target, &site.src());
    for (name, hash) in files {
        let found = fs::read(out.join(name)).unwrap_or_else(|e| panic!("{snapshot}: {}: {e}", name.display()));
        assert_eq!(blake3::hash(&found), *hash, "{snapshot}: {}", name.display());
    }
    let n = &report["entries"];
    let there: u64 = ["restored", "touched", "unchanged"].iter().map(|k| number(&n[k])).sum();
    assert_eq!(there, files.len() as u64, "{snapshot}: nothing more than that: {report}");
}

/// Restores one file of a snapshot.
fn assert_file_restores(site: &Site, back: usize, files: &BTreeMap<PathBuf, blake3::Hash>, dice: &mut Dice) {
    let (name, hash) = files.iter().nth(dice.below(files.len() as u64) as usize).unwrap();
    let target = site.path("one");
    let path = site.src().join(name);
    let snapshot = format!("latest~{back}");
    let args = ["restore", "app", "--snapshot", &snapshot, "--path", path.to_str().unwrap(), "--target"];
    site.node("looker").run(args.into_iter().chain([target.to_str().unwrap()])).expect(0);
    let found = fs::read(site::below(&target, &path)).unwrap();
    assert_eq!(blake3::hash(&found), *hash, "{snapshot}: {}", name.display());
    fs::remove_dir_all(target).unwrap();
}

fn verify(site: &Site, more: &[&str]) {
    site.node("looker").run(["verify", "app"].iter().chain(more)).expect(0);
}

#[test]
fn of_a_killed_run_the_program_itself_says_nothing_has_to_be_repaired() {
    let site = Site::new("[role.app.dumps]\n\"slow\" = { command = [\"sleep\", \"20\"] }");
    site.write("file", "content");
    site.init();
    // Killed inside a dump: after its takeover, before its snapshot.
    let mut command = site.node("east").command(["backup", "app"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..500 {
        if !site.records().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.records().len(), 1, "the takeover");
    site.config("");
    let next = role(&site.node("east").run(["backup", "app", "--json"]).expect(0));
    assert_eq!((&next["takeover"], &next["term"]), (&false.into(), &1.into()), "its own takeover is inherited: {next}");
    verify(&site, &[]);
}
