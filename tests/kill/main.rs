//! A run that is killed at any moment (SIGKILL: no handler, no farewell) leaves nothing to repair: every earlier snapshot
//! still restores, the next run goes through, and what the broken run had uploaded is not uploaded again.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use runner::env::Env;
use site::{Site, number, role};
use support::tree::TreeRng;

/// Kills of the first run of a new repository, each in a repository of its own.
const FIRST_RUNS: usize = 10;
/// Kills of runs over a history that change little, and much.
const LATER_RUNS: [usize; 2] = [25, 15];

/// Large files, of this size.
const LARGE: (usize, usize) = (12, 3 << 20);
/// Small files, of at most this size.
const SMALL: (usize, usize) = (2000, 20_000);

/// Limits of the upload, so that between the first pack of a run and its last there is time to be killed in, however fast the
/// disk is: for first runs, and for those over a history.
const LIMITS: [&str; 2] = ["48MiB", "16MiB"];

/// What the manifest, the frames' heads and the trailers of a run may add to the content.
const OVERHEAD: u64 = 2 << 20;

/// The source as it should be: each file with the BLAKE3 of its content. Everything is noise, so that what is stored is as long
/// as what was read.
struct Content {
    dice: TreeRng,
    files: BTreeMap<PathBuf, blake3::Hash>,
}

impl Content {
    fn new(site: &Site, seed: u64) -> Self {
        let mut content = Self { dice: TreeRng::new(seed), files: BTreeMap::new() };
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

    /// Changes some large files and a tenth of the small ones, adds one and removes one; how many bytes are new.
    fn change(&mut self, site: &Site, round: usize) -> u64 {
        let mut new = 0;
        for which in 0..if is_big(round) { 8 } else { 1 } {
            new += self.write(site, &format!("large/{}", (round + which) % LARGE.0), LARGE.1);
        }
        for number in (round % 10..SMALL.0).step_by(10) {
            new += self.small(site, number);
        }
        new += self.write(site, &format!("added/{round}"), 10_000);
        let before = PathBuf::from(format!("added/{}", round.wrapping_sub(3)));
        if self.files.remove(&before).is_some() {
            fs::remove_file(site.src().join(before)).unwrap();
        }
        new
    }
}

/// Every third round changes more than a pack holds, so that packs are on their way long before the end.
fn is_big(round: usize) -> bool {
    round.is_multiple_of(3)
}

/// A site whose uploads are limited.
fn limited(limit: &str) -> Site {
    let site = Site::new("");
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    let text = text.replace("[store]", &format!("[store]\nlimit_upload = {limit:?}"));
    fs::write(site.path("runner.toml"), text).unwrap();
    site
}

/// The bytes of all packs in the store.
fn pack_bytes(site: &Site) -> u64 {
    site.packs().iter().map(|p| fs::metadata(site.path("store").join(p)).unwrap().len()).sum()
}

/// The moments to kill at, spread evenly over the length of a run, and random within each part. How long a run takes is found
/// out on the way: the machine is not always equally busy.
struct Moments {
    dice: TreeRng,
    of: usize,
    killed: usize,
    survived: usize,
    whole: Duration,
}

impl Moments {
    /// `of` moments in runs that took `whole`.
    fn new(seed: u64, of: usize, whole: Duration) -> Self {
        Self { dice: TreeRng::new(seed), of, killed: 0, survived: 0, whole }
    }

    /// Starts a backup and kills it: at the next moment, or, `once` the store has more bytes of packs than that, as every third
    /// time, because on a busy machine few moments fall between the first pack and the record. False: it was over before.
    fn strike(&mut self, site: &Site, once: Option<u64>) -> bool {
        assert!(self.survived <= 3 * self.of, "{} runs were killed, {} were over too soon", self.killed, self.survived);
        // Parts in an order that jumps about: 7 has no divisor in common with the numbers that are used.
        let part = (self.killed * 7) % self.of;
        let share = (part as f64 + self.dice.below(1000) as f64 / 1000.0) / self.of as f64;
        let (clock, moment) = (Env::host().clock, self.whole.mul_f64(share));
        let once = once.filter(|_| self.killed.is_multiple_of(3));
        let started = clock.boottime();
        let mut child = site.node("east").start(["backup", "app"]);
        loop {
            let elapsed = clock.boottime().saturating_sub(started);
            if let Some(status) = child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0), "a run that comes to its end did what it should");
                (self.whole, self.survived) = (elapsed, self.survived + 1);
                return false;
            }
            if once.map_or(elapsed >= moment, |before| pack_bytes(site) > before) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        let killed = child.wait().unwrap().signal() == Some(9);
        self.killed += usize::from(killed);
        // Otherwise runs that have become longer would never be killed near their end.
        self.whole = self.whole.mul_f64(1.02);
        killed
    }
}

/// How long a run takes here and now.
fn timed(run: impl FnOnce()) -> Duration {
    let clock = Env::host().clock;
    let started = clock.boottime();
    run();
    clock.boottime().saturating_sub(started)
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
    let site = limited(LIMITS[0]);
    let content = Content::new(&site, 1);
    let new = content.files.keys().map(|f| fs::metadata(site.src().join(f)).unwrap().len()).sum();
    site.init();
    let mut moments = Moments::new(71, FIRST_RUNS, timed(|| drop(site.backup("east"))));
    let mut left_some = 0;
    while moments.killed < FIRST_RUNS {
        for name in ["store", "state-east", "out"] {
            let _ = fs::remove_dir_all(site.path(name));
        }
        site.init();
        if !moments.strike(&site, Some(0)) {
            continue;
        }
        let (left, committed) = (pack_bytes(&site), site.snapshots().len());
        left_some += usize::from(left > 0 && committed == 0);
        let report = site.backup("east");
        assert_resumed(&report, left, new, &format!("first run, kill {}", moments.killed));
        assert!(pack_bytes(&site) <= new + OVERHEAD, "every byte is stored once");
        verify(&site, &["--read-data"]);
        if moments.killed.is_multiple_of(3) {
            assert_restores(&site, "latest", &content.files);
        }
    }
    assert!(left_some >= 2, "kills that leave packs behind are the point; only {left_some} did");
}

#[test]
fn runs_over_a_history_killed_at_any_moment_leave_every_snapshot_whole() {
    let site = limited(LIMITS[1]);
    let mut content = Content::new(&site, 5);
    site.init();
    site.backup("east");
    let mut history = vec![content.files.clone()];
    // The first run over a history fills the caches; then one that changes much and one that changes little.
    let [_, _, small, big] = [1, 2, 4, 6].map(|round| {
        content.change(&site, round);
        let whole = timed(|| drop(site.backup("east")));
        history.push(content.files.clone());
        whole
    });
    let mut moments = [Moments::new(72, LATER_RUNS[0], small), Moments::new(73, LATER_RUNS[1], big)];
    let (mut dice, mut left_some) = (TreeRng::new(74), 0);
    for round in 7.. {
        let moments = match moments.each_ref().map(|m| m.killed < m.of) {
            [false, false] => break,
            [_, true] if is_big(round) => &mut moments[1],
            [true, _] if !is_big(round) => &mut moments[0],
            _ => continue,
        };
        let before = pack_bytes(&site);
        let new = content.change(&site, round);
        moments.strike(&site, is_big(round).then_some(before));
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
    assert!(left_some >= 3, "kills that leave packs behind are the point; only {left_some} did");

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
fn assert_file_restores(site: &Site, back: usize, files: &BTreeMap<PathBuf, blake3::Hash>, dice: &mut TreeRng) {
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
    let site = Site::new("");
    let begun = site.path("begun");
    let script = format!("echo > {}; sleep 20", begun.display());
    site.config(&format!("[role.app.dumps]\n\"slow\" = {{ command = [\"sh\", \"-c\", \"{script}\"] }}"));
    site.write("file", "content");
    site.init();
    // Killed inside a dump: after its takeover, before its snapshot.
    let mut child = site.node("east").start(["backup", "app"]);
    for _ in 0..1000 {
        if begun.exists() {
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
