//! Two daemons, an unprivileged user who writes into the source, and a writer of the bucket who has no key, both at random: nothing
//! hangs, no memory is taken by what they declare, nothing outside is touched, no node is called a clone, and when they stop, an
//! operator's `repair` and the next slots make the role whole again. No byte that a restore writes is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use runner::store::key::LOCK_NAME;
use rustix::process::geteuid;
use serde_json::{Value, json};

use crate::rig::{AT_ONCE, TTL, TestDaemon, boottime, memory, now, since};
use crate::site::{Site, below, words};
use crate::support::cli::ProgramRun;
use crate::support::tree::TreeRng;

/// The most that one process of the program holds, in KiB.
const MEMORY_KIB_MAX: u64 = 400 << 10;

/// How often a command is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How long a run may make no progress.
const STALL: Duration = Duration::from_secs(20);

/// How long after the last harm and an operator's repair the next slot may take on a busy machine: a lease that others forged has to
/// run out.
const RECOVERY: Duration = Duration::from_secs(90);

/// A file of the host's that links lead to.
const HOST_NAME: &str = "/etc/hostname";

/// A user who is neither root nor the owner of anything.
const NOBODY: u32 = 65_534;

/// What the user of the source does, as a process of theirs.
struct User(Child);

impl User {
    fn start(site: &Site, outside: &Path, seed: u64) -> Self {
        assert!(
            geteuid().is_root(),
            "another user needs root: run these tests as root, as CI does (`sudo -E make test`)"
        );
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pair/hostile_user.c");
        let program = site.path("hostile-user");
        let made = Command::new("cc").arg("-O1").arg("-o").args([&program, &source]).status();
        assert!(made.expect("a C compiler is there, as for the build").success());
        // Others find the way to what is theirs.
        for dir in [site.dir(), &site.src()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let home = site.src().join("theirs");
        fs::create_dir(&home).unwrap();
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = Command::new(&program);
        command.arg(&home).arg(outside).arg(seed.to_string()).uid(NOBODY).gid(NOBODY).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        Self(child)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What lies below a directory, and all that the kernel says of it: to compare before and after.
fn account(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let told = format!(
                "{:o} {} {} {}.{} {:?}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                String::from_utf8_lossy(&content)
            );
            found.insert(path, told);
        }
    }
    found
}

/// How far the writer of the bucket goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Adds whatever it likes, and harms what is below `live/`.
    Added,
    /// Every object.
    Every,
}

/// The writer of the bucket: reads all, has no key.
struct Writer {
    store: PathBuf,
    dice: TreeRng,
    /// What was read before, to be played back.
    seen: Vec<(PathBuf, Vec<u8>)>,
    done: BTreeMap<&'static str, u64>,
}

impl Writer {
    fn new(store: PathBuf, seed: u64) -> Self {
        Self { store, dice: TreeRng::new(seed), seen: Vec::new(), done: BTreeMap::new() }
    }

    fn one_of<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.dice.below(of.len() as u64) as usize])
    }

    fn objects(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.store.join(part)];
        while let Some(next) = dirs.pop() {
            for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                    _ => found.push(entry.path()),
                }
            }
        }
        found.sort();
        found
    }

    /// One object gets other content, as a PUT of the writer's does.
    fn put(&self, at: &Path, content: &[u8]) {
        let Some(dir) = at.parent() else { return };
        let _ = fs::create_dir_all(dir);
        let temporary = dir.join(format!(".tmp-{:x}", self.seen.len()));
        if fs::write(&temporary, content).is_ok() && fs::rename(&temporary, at).is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }

    fn act(&mut self, reach: Reach) {
        if self.dice.below(3) == 0 {
            self.add();
            return;
        }
        let parts: &[&str] = match reach {
            Reach::Added => &["app/live"],
            Reach::Every => &["app/live", "app/packs", "app/index", "app/journal", "app/keys", "app"],
        };
        let part = *self.one_of(parts).expect("there are some");
        let of = self.objects(part);
        let Some(at) = self.one_of(&of).cloned() else { return };
        let content = content_of(&at);
        let what = match self.dice.below(8) {
            0 => {
                let _ = fs::remove_file(&at);
                "deleted"
            }
            1 => {
                self.put(&at, &content[..content.len() / 2]);
                "cut"
            }
            2 => {
                let other = self.one_of(&of).cloned().expect("there is one");
                self.put(&at, &content_of(&other));
                "swapped"
            }
            3 => {
                let seen = self.seen.clone();
                if let Some((path, content)) = self.one_of(&seen) {
                    self.put(path, content);
                }
                "played back"
            }
            4 => {
                let mut flipped = content;
                if !flipped.is_empty() {
                    let bit = self.dice.below(flipped.len() as u64 * 8) as usize;
                    flipped[bit / 8] ^= 1 << (bit % 8);
                }
                self.put(&at, &flipped);
                "flipped"
            }
            5 => {
                let _ = fs::remove_file(&at);
                if let Ok(file) = fs::File::create(&at) {
                    let _ = file.set_len(5 << 30);
                }
                "huge"
            }
            6 => {
                let _ = fs::remove_file(&at);
                let _ = Command::new("mkfifo").arg(&at).status();
                "a FIFO"
            }
            _ => {
                if self.seen.len() < 200 && content.len() < 1 << 20 {
                    self.seen.push((at, content));
                }
                "remembered"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// Something that was not there.
    fn add(&mut self) {
        let hex = |dice: &mut TreeRng, len: usize| -> String {
            (0..len).map(|_| char::from_digit(dice.below(16) as u32, 16).unwrap()).collect()
        };
        let app = self.store.join("app");
        let id = hex(&mut self.dice, 32);
        let (what, path, content) = match self.dice.below(8) {
            0 => {
                let text = json!({"v": 1, "node": id, "name": "\u{1b}[2Jwest", "time": "2099-01-01T00:00:00Z", "instance": "0".repeat(16)});
                (
                    "a node",
                    app.join("live/nodes").join(&id),
                    format!("{text}\n{}\n", hex(&mut self.dice, 64)).into_bytes(),
                )
            }
            1 => {
                // The nodes that there are, as others would have them.
                let nodes = self.objects("app/live/nodes");
                let path = self.one_of(&nodes).cloned().unwrap_or_else(|| app.join("live/nodes/x"));
                ("a node's words", path, format!("{{\"v\":1,\"node\":{id:?}}}\n").into_bytes())
            }
            2 => {
                let text = json!({"v": 1, "node": id, "name": "thief", "instance": hex(&mut self.dice, 16), "ttl_ms": 3000, "count": self.dice.below(1 << 40), "released": false});
                ("a lease", app.join("live/lease"), text.to_string().into_bytes())
            }
            3 => {
                let text = json!({"kdf": "argon2id", "memory_kib": 1 << 20, "passes": 64, "salt": hex(&mut self.dice, 32), "sealed": hex(&mut self.dice, 96)});
                ("a key slot", app.join("keys").join(hex(&mut self.dice, 16)), text.to_string().into_bytes())
            }
            4 => ("an index", app.join("index").join(&id), self.dice.noise(3000)),
            5 => ("a pack", app.join("packs").join(&id[..2]).join(hex(&mut self.dice, 64)), self.dice.noise(9000)),
            6 => ("a loss", app.join("live/loss"), b"{\"loss\":1,\"met\":{\"missing\":[]}}\n".to_vec()),
            _ => ("rubbish", app.join(format!("live/.tmp-{id}")), self.dice.noise(100)),
        };
        if self.dice.below(16) == 0 {
            let _ = symlink(HOST_NAME, path.with_extension("link"));
        }
        self.put(&path, &content);
        *self.done.entry(what).or_default() += 1;
    }

    /// What no object of a store is: an operator who clears up sees it in a listing. Not in the place of a lock: the program makes
    /// room for its own.
    fn specials(&self) -> Vec<PathBuf> {
        let is_special = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_fifo() || meta.file_type().is_symlink())
        };
        let is_lock = |path: &PathBuf| path.file_name().is_some_and(|name| name == LOCK_NAME);
        self.objects("app").into_iter().filter(|path| is_special(path) && !is_lock(path)).collect()
    }
}

/// What is in an object that is one; of what was made huge, nothing.
fn content_of(path: &Path) -> Vec<u8> {
    let is_object = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() < 1 << 26);
    if is_object { fs::read(path).unwrap_or_default() } else { Vec::new() }
}

/// The most memory that a process has held, in KiB.
fn peak(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// A tree that nobody harms, and a file in it that has a number. It is replaced as a whole: a run may read it at any moment.
fn stable(site: &Site, number: u64) {
    let new = site.path("number.new");
    fs::write(&new, format!("the number is {number}\n")).unwrap();
    fs::create_dir_all(site.src().join("stable")).unwrap();
    fs::rename(new, site.src().join("stable/number")).unwrap();
}

/// One command of an operator's, which takes no longer than a run may go on without progress, and no more memory than a daemon.
fn promptly(site: &Site, node: &str, args: &[&str]) -> ProgramRun {
    let (start, out, err) = (boottime(), site.path("operator.out"), site.path("operator.err"));
    let mut command = site.node(node).command(args);
    command.stdin(Stdio::null()).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let code = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.code();
        }
        let (took, held) = (since(start), peak(child.id()));
        if took > STALL || held > MEMORY_KIB_MAX {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{args:?} took {took:?} and {held} KiB: {}", fs::read_to_string(&err).unwrap());
        }
        thread::sleep(LOOK);
    };
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    ProgramRun {
        code,
        stdout: read(&out),
        stderr: read(&err),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    }
}

/// An operator mends what was harmed.
fn mend(site: &Site) -> ProgramRun {
    promptly(site, "west", &["repair", "app", "--key-slot", "--force", "--json"])
}

fn committed(site: &Site) -> Option<Vec<Value>> {
    let run = promptly(site, "looker", &["snapshots", "app", "--json"]);
    (run.code == Some(0)).then(|| run.json()["snapshots"].as_array().unwrap().clone())
}

/// What a restore of a snapshot wrote below `stable` is right, and what it did not write is named. Says whether all of it is there.
fn judge(site: &Site, id: &str, wanted: &BTreeMap<String, Vec<u8>>, numbers: u64, into: &str) -> bool {
    let target = site.path(into);
    let to = target.to_str().unwrap();
    let run = promptly(site, "looker", &["restore", "app", "--salvage", "--json", "--snapshot", id, "--target", to]);
    assert!(matches!(run.code, Some(0 | 6)), "{id}: {:?} {} {}", run.code, run.stdout, run.stderr);
    let written = below(&target, &site.src()).join("stable");
    let mut missing = BTreeSet::new();
    for (name, content) in wanted {
        match fs::read(written.join(name)) {
            Ok(found) => assert_eq!(&found, content, "{id}: {name}"),
            Err(_) => drop(missing.insert(name.as_str())),
        }
    }
    match fs::read_to_string(written.join("number")) {
        Ok(found) => {
            let is_one = (0..=numbers).any(|n| found == format!("the number is {n}\n"));
            assert!(is_one, "{id}: {found:?} was never there");
        }
        Err(_) => drop(missing.insert("number")),
    }
    assert!(run.code == Some(6) || missing.is_empty(), "{id}: exit 0 without {missing:?}");
    if run.code == Some(6) {
        let document = run.json();
        let problems = document["problems"].as_array().unwrap();
        for name in &missing {
            let path = site.src().join("stable").join(name);
            let tells = |problem: &Value| {
                problem["path"] == path.to_str().unwrap()
                    || problem["detail"].as_str().unwrap().contains("from here on")
            };
            assert!(problems.iter().any(tells), "{id}: {name} is not named: {problems:?}");
        }
    }
    fs::remove_dir_all(&target).unwrap();
    missing.is_empty()
}

fn campaign(time: Duration, seed: u64) {
    println!("seed {seed}");
    let site = Site::leased("");
    site.config(&format!(
        "bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}every = \"2s\"\njitter = \"0s\"\nstall_timeout = \"{STALL:?}\"\n"
    ));
    let outside = site.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "nobody reads this").unwrap();
    fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(outside.join("shared"), "all read this").unwrap();
    let before = (account(&outside), fs::read(HOST_NAME).unwrap());
    let mut dice = TreeRng::new(seed);
    let mut wanted = BTreeMap::new();
    for n in 0..20 {
        let content = dice.noise(20_000);
        site.write(&format!("stable/{n}"), &content);
        wanted.insert(n.to_string(), content);
    }
    stable(&site, 0);
    site.init();
    site.backup("east");
    let mut daemons = [TestDaemon::start(&site, "east"), TestDaemon::start(&site, "west")];
    let user = User::start(&site, &outside, seed);
    let mut writer = Writer::new(site.path("store"), seed + 1);
    let (start, mut number, mut most) = (boottime(), 0, 0);
    let mut told = committed(&site).map_or(0, |list| list.len());
    let (mut gained, mut was) = ([0; 2], Reach::Added);
    while since(start) < time {
        let reach = if since(start) < time / 2 { Reach::Added } else { Reach::Every };
        if reach != was {
            was = reach;
            // So far nobody harmed what is committed.
            for snapshot in committed(&site).expect("the journal can be read") {
                let id = snapshot["id"].as_str().unwrap();
                assert!(judge(&site, id, &wanted, number, "restored"), "{id} is whole");
            }
        }
        number += 1;
        stable(&site, number);
        writer.act(reach);
        thread::sleep(Duration::from_millis(dice.below(if reach == Reach::Added { 4000 } else { 1500 })));
        if reach == Reach::Every && dice.below(8) == 0 {
            for path in writer.specials() {
                let _ = fs::remove_file(path);
            }
            let run = mend(&site);
            let why = if matches!(run.code, Some(0 | 7)) { String::new() } else { words(&run) };
            println!("{:4} s: repair exits {:?} {why}", since(start).as_secs(), run.code);
        }
        most = daemons.iter().map(|daemon| peak(daemon.id())).fold(most, u64::max);
        if let Some(list) = committed(&site) {
            gained[usize::from(reach == Reach::Every)] += list.len().saturating_sub(told);
            told = list.len();
        }
        if reach == Reach::Added {
            for daemon in &daemons {
                assert!(!daemon.said("CONFLICT"), "{}", daemon.log());
            }
        }
    }
    drop(user);
    for path in writer.specials() {
        fs::remove_file(path).unwrap();
    }
    println!("{gained:?} snapshots were committed in each half; {:?}; at most {most} KiB", writer.done);
    // Each damage to the lease may cost its length, and so does a lease that others made up; the rest of the time is the daemons'.
    assert!(gained[0] as u64 >= time.as_secs() / 2 / 30, "what is added stops nothing for long");

    // They have stopped. An operator mends, and the daemons go on without anybody.
    let stopped = boottime();
    let mended = loop {
        let run = mend(&site);
        if matches!(run.code, Some(0 | 7)) {
            break run;
        }
        assert!(since(stopped) < RECOVERY, "{}", words(&run));
        thread::sleep(Duration::from_secs(1));
    };
    println!("repair exits {:?} after {:?}", mended.code, since(stopped));
    let repaired: Timestamp = now();
    let newest = loop {
        let list = committed(&site).unwrap_or_default();
        let fresh = |snapshot: &&Value| snapshot["time"].as_str().unwrap().parse::<Timestamp>().unwrap() > repaired;
        if let Some(snapshot) = list.iter().find(fresh) {
            break snapshot["id"].as_str().unwrap().to_owned();
        }
        assert!(since(stopped) < RECOVERY * 2, "no slot is committed");
        thread::sleep(Duration::from_millis(500));
    };
    println!("the first snapshot after it came {:?} after the end", since(stopped));
    for daemon in &mut daemons {
        most = most.max(peak(daemon.id()));
        daemon.stop();
        assert!(!daemon.said("made no progress"), "{}", daemon.log());
    }
    assert!(most < MEMORY_KIB_MAX, "{most} KiB");
    assert_eq!((account(&outside), fs::read(HOST_NAME).unwrap()), before, "nothing outside is touched");
    let records = site.node("looker").run(["journal", "show", "app", "--last", "1000000", "--json"]).expect(0).json();
    let records = records["records"].as_array().unwrap();
    assert!(records.iter().all(|record| record["kind"] != "clone"), "no node is a clone");
    let list = committed(&site).unwrap();
    assert!(list.iter().any(|snapshot| snapshot["id"] == newest.as_str()));
    let mut whole = 0;
    for (n, snapshot) in list.iter().enumerate() {
        whole += usize::from(judge(&site, snapshot["id"].as_str().unwrap(), &wanted, number, &format!("restored-{n}")));
    }
    println!("of {} snapshots {whole} are whole; of the others what is missing is named", list.len());
    assert!(judge(&site, &newest, &wanted, number, "newest"), "the newest is whole");
}

#[test]
fn two_who_mean_harm_stop_nothing_for_long() {
    campaign(Duration::from_secs(20), 1);
}

#[test]
#[ignore = "minutes: make check-hostile"]
fn campaign_of_harm() {
    campaign(Duration::from_mins(10), std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap()));
}
