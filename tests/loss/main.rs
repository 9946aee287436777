//! A repository of three snapshots, each single object of it harmed in every way in turn, by what the built program does: no byte is
//! wrong, nothing hangs or takes memory by what somebody else declares, and after `repair` and the next backup the newest snapshot is
//! whole, the older ones as far as their content exists, and what is missing is named. The outcomes are the table in docs/REPAIR.md.

#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use parking_lot::Mutex;
use serde_json::Value;
use support::cli::{ProgramRun, TestNode, write_config};

/// The most that one run of the program holds, in KiB.
const MEMORY_KIB_MAX: u64 = 200 << 10;

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// A run that is looked at more often, for a minute at least, hangs: most take a twentieth of a second.
const LOOKS_MAX: usize = 20_000;

/// The size of an object that nobody can hold; the file has no blocks.
const HUGE: u64 = 5 << 30;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    Deleted,
    Cut,
    Swapped,
    Older,
    Foreign,
    Huge,
    Fifo,
    Link,
}

const HARMS: [(Harm, &str); 8] = [
    (Harm::Deleted, "deleted"),
    (Harm::Cut, "cut"),
    (Harm::Swapped, "another of its kind"),
    (Harm::Older, "an older one"),
    (Harm::Foreign, "another role's"),
    (Harm::Huge, "5 GiB of zeros"),
    (Harm::Fifo, "a FIFO"),
    (Harm::Link, "a link"),
];

type Files = BTreeMap<String, Vec<u8>>;

/// A repository, as it was before any harm.
struct Base {
    dir: tempfile::TempDir,
    /// What each snapshot has, by its ID, oldest first.
    snapshots: Vec<(String, Files)>,
    /// Every object of the role, by its key.
    objects: Vec<String>,
    /// The same after the first backup.
    earlier: BTreeMap<String, Vec<u8>>,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    repair: i32,
    newest: &'static str,
    older: &'static str,
}

fn kind(key: &str) -> &str {
    key.split('/').nth(1).expect("every object is below its role")
}

/// Runs it to its end, or kills it.
fn run(node: &TestNode, args: &[&str]) -> ProgramRun {
    let mut command = node.command(args);
    let (out, err) = (node.state_dir.with_extension("out"), node.state_dir.with_extension("err"));
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap()).stdin(Stdio::null());
    let mut child = command.spawn().expect("the built program starts");
    let (mut looks, status) = (0, format!("/proc/{}/status", child.id()));
    let code = loop {
        looks += 1;
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.code();
        }
        let held = fs::read_to_string(&status).unwrap_or_default();
        let held = held.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        let (slow, large) = (looks > LOOKS_MAX, held.is_some_and(|held: u64| held > MEMORY_KIB_MAX));
        if slow || large {
            let _ = child.kill();
            let _ = child.wait();
            let why = if slow { "hangs" } else { "takes more memory than it may" };
            panic!("runner {args:?} {why}: {}", fs::read_to_string(&err).unwrap());
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

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn files_below(dir: &Path, root: &Path, found: &mut Files) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, root, found);
        } else {
            found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
}

fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    if dir.is_dir() {
        files_below(dir, dir, &mut found);
    }
    found
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Base {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (app, db) = (at("app"), at("db"));
        fs::create_dir_all(app.join("d")).unwrap();
        fs::create_dir(&db).unwrap();
        let role = |name: &str, source: &Path| {
            format!("[role.{name}]\nsources = [\"{}\"]\nlease = \"none\"\n", source.display())
        };
        write_config(dir.path(), &(role("app", &app) + &role("db", &db)));
        fs::write(db.join("other"), noise(9, 5000)).unwrap();
        fs::write(app.join("first"), noise(1, 30_000)).unwrap();
        fs::write(app.join("d/words"), "the same words, ".repeat(900)).unwrap();
        let mut base = Self { dir, snapshots: Vec::new(), objects: Vec::new(), earlier: BTreeMap::new() };
        let node = base.node();
        run(&node, &["init"]).expect(0);
        run(&node, &["backup", "db"]).expect(0);
        let changes: [(&str, Vec<u8>); 3] =
            [("second", noise(2, 20_000)), ("d/words", noise(3, 9000)), ("first", noise(4, 31_000))];
        for (number, (name, content)) in changes.into_iter().enumerate() {
            if number > 0 {
                fs::write(app.join(name), content).unwrap();
            }
            let done = run(&node, &["backup", "app", "--json"]).expect(0).json();
            let id = done["roles"][0]["snapshot"].as_str().unwrap().to_owned();
            base.snapshots.push((id, files(&app)));
            if number == 0 {
                base.earlier = files(&base.at("store"));
            }
        }
        run(&node, &["key", "export", "app", "--output", base.at("exported").to_str().unwrap()]).expect(0);
        base.objects = files(&base.at("store")).into_keys().filter(|key| key.starts_with("app/")).collect();
        for name in ["store", "state-n"] {
            copy(&base.at(name), &base.at(&format!("{name}.whole")));
        }
        base
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn node(&self) -> TestNode {
        TestNode::new(self.dir.path(), "n")
    }

    /// The whole repository again; with what the node remembers, or without.
    fn begin(&self, remembers: bool) {
        for name in ["store", "state-n", "out"] {
            let _ = fs::remove_dir_all(self.at(name));
        }
        copy(&self.at("store.whole"), &self.at("store"));
        if remembers {
            copy(&self.at("state-n.whole"), &self.at("state-n"));
        }
    }

    /// Harms an object; false: there is nothing to do it with.
    fn harm(&self, key: &str, harm: Harm) -> bool {
        let path = self.at("store").join(key);
        let content = fs::read(&path).unwrap();
        let of_kind = |other: &&String| kind(other) == kind(key) && *other != key;
        let with = match harm {
            Harm::Deleted | Harm::Huge | Harm::Fifo | Harm::Link => None,
            Harm::Cut => Some(content[..content.len() / 2].to_vec()),
            Harm::Swapped => {
                self.objects.iter().find(of_kind).map(|other| fs::read(self.at("store").join(other)).unwrap())
            }
            Harm::Older => match self.earlier.get(key) {
                Some(earlier) if *earlier != content => Some(earlier.clone()),
                // What is written once has no older content; a record has one before it.
                _ => self
                    .objects
                    .iter()
                    .rfind(|other| of_kind(other) && kind(key) == "journal" && other.as_str() < key)
                    .map(|before| fs::read(self.at("store").join(before)).unwrap()),
            },
            Harm::Foreign => {
                let others = files(&self.at("store"));
                others
                    .into_iter()
                    .find(|(other, _)| other.starts_with("db/") && kind(other) == kind(key))
                    .map(|(_, o)| o)
            }
        };
        let needs = matches!(harm, Harm::Cut | Harm::Swapped | Harm::Older | Harm::Foreign);
        if needs && with.is_none() || with.as_ref() == Some(&content) {
            return false;
        }
        fs::remove_file(&path).unwrap();
        match harm {
            Harm::Deleted => {}
            Harm::Huge => fs::File::create(&path).unwrap().set_len(HUGE).unwrap(),
            Harm::Fifo => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
            Harm::Link => {
                fs::write(self.at("outside"), &content).unwrap();
                symlink(self.at("outside"), &path).unwrap();
            }
            Harm::Cut | Harm::Swapped | Harm::Older | Harm::Foreign => fs::write(&path, with.unwrap()).unwrap(),
        }
        true
    }

    /// What a restore wrote of a snapshot is right, and what it did not write is named. Says whether all of it is there.
    fn judge(&self, id: &str, wanted: &Files, salvage: bool, what: &str) -> bool {
        let _ = fs::remove_dir_all(self.at("out"));
        let target = self.at("out");
        let mut args = vec!["restore", "app", "--json", "--snapshot", id, "--target", target.to_str().unwrap()];
        args.extend(salvage.then_some("--salvage"));
        let done = run(&self.node(), &args);
        let written = files(&target.join(self.at("app").strip_prefix("/").unwrap()));
        for (name, content) in &written {
            assert_eq!(wanted.get(name), Some(content), "{what}: {name} of {id} is wrong");
        }
        let missing: Vec<&String> = wanted.keys().filter(|name| !written.contains_key(*name)).collect();
        assert_eq!(
            done.code == Some(0),
            missing.is_empty(),
            "{what}: {missing:?} of {id}: {} {}",
            done.stdout,
            done.stderr
        );
        if salvage && !missing.is_empty() && done.code == Some(6) {
            let problems = done.json()["problems"].as_array().unwrap().clone();
            let is_listing = |problem: &Value| problem["detail"].as_str().unwrap().contains("from here on");
            for name in &missing {
                let path = self.at("app").join(name);
                let named = problems.iter().any(|p| is_listing(p) || p["path"] == path.to_str().unwrap());
                assert!(named, "{what}: {name} is not named: {problems:?}");
            }
        }
        missing.is_empty()
    }

    fn case(&self, key: &str, harm: Harm, remembers: bool) -> Option<Outcome> {
        let what = format!("{key}, {harm:?}, {}", if remembers { "remembered" } else { "unknown" });
        self.begin(remembers);
        if !self.harm(key, harm) {
            return None;
        }
        Some(self.go_on(key, remembers, &what))
    }

    /// From the harm to the next backup.
    fn go_on(&self, key: &str, remembers: bool, what: &str) -> Outcome {
        let node = self.node();
        let (latest, whole) = self.snapshots.last().unwrap();
        let listed = |node: &TestNode| {
            let list = run(node, &["snapshots", "app", "--json"]);
            list.code.filter(|code| *code == 0).map(|_| {
                let list = list.json();
                let ids = list["snapshots"].as_array().unwrap().iter();
                ids.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<String>>()
            })
        };
        // Before anything is mended: nothing wrong is written.
        self.judge(latest, whole, true, what);
        let dry = run(&node, &["repair", "app", "--dry-run", "--json"]);
        let mut repair = vec!["repair", "app", "--json"];
        repair.extend((kind(key) == "keys").then_some("--key-slot"));
        let mut done = run(&node, &repair);
        if kind(key) == "keys" && !remembers && done.code == Some(1) {
            // The way that is left: the key that was exported, which lets the other in again.
            let url = format!("file://{}", self.at("store").display());
            let (exported, own) = (self.at("exported"), self.at("key"));
            let direct = ["--store", &url, "--key-file", exported.to_str().unwrap()];
            run(&node, &[&["key", "add", "app", "--new-key-file", own.to_str().unwrap()], &direct[..]].concat())
                .expect(0);
            done = run(&node, &repair);
        }
        let code = done.code.unwrap_or(-1);
        assert!(matches!(code, 0 | 7), "{what}: repair exits {code}: {}{}", done.stdout, done.stderr);
        assert!(matches!(dry.code, Some(0 | 1 | 7)), "{what}: {}{}", dry.stdout, dry.stderr);
        let report = done.json();
        let unknown =
            report["findings"].as_array().unwrap().iter().any(|f| f["kind"] == "record" && f["known"] == false);
        run(&node, &["backup", "app"]).expect(0);
        let is_whole = self.judge("latest", whole, false, what);
        assert!(is_whole, "{what}: the newest snapshot is not whole after the next backup: {report}");
        let is_newest_record =
            self.objects.iter().rfind(|key| kind(key) == "journal").is_some_and(|newest| newest == key);
        let there = listed(&node).unwrap_or_else(|| panic!("{what}: the journal cannot be read"));
        let mut older = "whole";
        for (id, wanted) in &self.snapshots {
            if !there.contains(id) && is_newest_record && !remembers && !unknown {
                // Nobody who has not seen it can miss it.
                older = "the newest is gone, unnoticed";
            } else if !there.contains(id) {
                assert!(unknown, "{what}: snapshot {id} is gone and not named: {report}");
                older = "one is gone, named";
            } else if !self.judge(id, wanted, true, what) {
                older = "losses named";
            }
        }
        // Once more finds nothing to mend.
        let again = run(&node, &["repair", "app", "--json"]);
        assert_eq!(again.json()["findings"], Value::Array(Vec::new()), "{what}: {}", again.stdout);
        Outcome { repair: code, newest: "whole", older }
    }
}

/// How many bases are worked on at the same time.
const WORKERS: usize = 2;

/// One line a kind of object and what happened to it.
fn table(rows: &BTreeMap<(String, usize, bool), BTreeSet<Outcome>>) -> String {
    let mut text = "| object | harm | this node | repair | newest after the next backup | older ones |\n|---|---|---|---|---|---|\n".to_owned();
    let mut lines: BTreeMap<(String, String, String), Vec<&str>> = BTreeMap::new();
    for ((kind, harm, remembers), outcomes) in rows {
        let each = |of: &dyn Fn(&Outcome) -> String| {
            let all: BTreeSet<String> = outcomes.iter().map(of).collect();
            all.into_iter().collect::<Vec<_>>().join(" or ")
        };
        let columns = [each(&|o| o.repair.to_string()), each(&|o| o.newest.to_owned()), each(&|o| o.older.to_owned())];
        let node = if *remembers { "remembers" } else { "knows nothing" };
        let key = (format!("{kind}\0{node}"), columns.join(" | "), node.to_owned());
        lines.entry(key).or_default().push(HARMS[*harm].1);
    }
    for ((kind, columns, node), harms) in lines {
        let kind = kind.split('\0').next().unwrap();
        let _ = writeln!(text, "| `{kind}` | {} | {node} | {columns} |", harms.join(", "));
    }
    text
}

#[test]
fn each_single_object_is_harmed_in_every_way() {
    let rows: Mutex<BTreeMap<(String, usize, bool), BTreeSet<Outcome>>> = Mutex::default();
    let failed: Mutex<Vec<String>> = Mutex::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (rows, failed) = (&rows, &failed);
                scope.spawn(move || {
                    let base = Base::new();
                    let mut cases = 0;
                    for key in base.objects.clone() {
                        for (number, (harm, _)) in HARMS.iter().enumerate() {
                            cases += 1;
                            for remembers in [true, false] {
                                // What others do not know differs where something is gone or exchanged.
                                let worth = remembers || matches!(harm, Harm::Deleted | Harm::Swapped);
                                if cases % WORKERS != worker || !worth {
                                    continue;
                                }
                                // One that fails keeps nobody from the others; each has said why by then.
                                let case = AssertUnwindSafe(|| base.case(&key, *harm, remembers));
                                let Ok(done) = catch_unwind(case) else {
                                    failed.lock().push(format!("{key} {harm:?} {remembers}"));
                                    continue;
                                };
                                if let Some(outcome) = done {
                                    let row = (kind(&key).to_owned(), number, remembers);
                                    rows.lock().entry(row).or_default().insert(outcome);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{failed:#?}");
    let table = table(&rows.into_inner());
    println!("{table}");
    // Older snapshots and the way there differ; whatever was harmed, its kind is told of.
    let page = include_str!("../../docs/REPAIR.md");
    for kind in ["format", "index", "journal", "keys", "live", "packs"] {
        let row = format!("| `{kind}` |");
        assert!(table.contains(&row) && page.contains(&row), "docs/REPAIR.md: {kind}\n{table}");
    }
}

#[test]
fn a_store_that_was_set_back_goes_on_from_what_a_node_remembers() {
    let base = Base::new();
    base.begin(true);
    for key in &base.objects {
        if !base.earlier.contains_key(key) {
            fs::remove_file(base.at("store").join(key)).unwrap();
        }
    }
    let outcome = base.go_on("app/journal/0", true, "all that is newer than the first backup is gone");
    assert_eq!((outcome.repair, outcome.older), (7, "losses named"), "{outcome:?}");
}

/// What a repair called void says nothing to any command, whatever is put there later.
#[test]
fn a_void_number_says_nothing_to_any_command() {
    let base = Base::new();
    base.begin(true);
    let records: Vec<&String> = base.objects.iter().filter(|key| kind(key) == "journal").collect();
    let (void, path) = (2, base.at("store").join(records[1]));
    let (lost, another) = (fs::read(&path).unwrap(), fs::read(base.at("store").join(records[0])).unwrap());
    fs::remove_file(&path).unwrap();
    let node = base.node();
    run(&node, &["repair", "app"]).expect(0);
    let stranger = TestNode::new(base.dir.path(), "m");
    let repair = Value::from(records.len() + 1);
    let kinds = ["nothing", "garbage", "record", "another", "huge", "fifo", "link", "directory"];
    for what in kinds {
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        } else {
            let _ = fs::remove_file(&path);
        }
        match what {
            "garbage" => fs::write(&path, "\u{1b}[2J").unwrap(),
            "record" => fs::write(&path, &lost).unwrap(),
            "another" => fs::write(&path, &another).unwrap(),
            "huge" => fs::File::create(&path).unwrap().set_len(HUGE).unwrap(),
            "fifo" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
            "link" => symlink("/etc/hostname", &path).unwrap(),
            "directory" => fs::create_dir(&path).unwrap(),
            _ => {}
        }
        for node in [&node, &stranger] {
            let shown = run(node, &["journal", "show", "app", "--json"]).expect(0).json();
            let listed = shown["void"].as_array().unwrap();
            assert_eq!((listed.len(), &listed[0]["seq"], &listed[0]["by"]), (1, &Value::from(void), &repair), "{what}");
            let found = match what {
                "nothing" | "directory" => "nothing",
                "record" | "another" => "record",
                _ => "unusable",
            };
            // A record with another number is none at this one.
            assert!(listed[0]["found"] == found, "{what}: {shown}");
            assert!(shown["records"].as_array().unwrap().iter().all(|record| record["seq"] != void), "{what}: {shown}");
            let table = run(node, &["journal", "show", "app"]).expect(0).stdout;
            assert!(table.contains("void, by the repair of record"), "{what}: {table}");
            run(node, &["verify", "app"]).expect(0);
            run(node, &["repair", "app", "--dry-run"]).expect(0);
            let audit = run(node, &["audit", "app", "--json"]);
            assert!(
                !audit.stdout.contains("\"damage\"") && !audit.stdout.contains("\"hole\""),
                "{what}: {}",
                audit.stdout
            );
            assert!(!run(node, &["whoami"]).stdout.contains("lost"), "{what}");
            let snapshots = run(node, &["snapshots", "app", "--json"]).expect(0).json();
            assert_eq!(snapshots["snapshots"].as_array().unwrap().len(), base.snapshots.len(), "{what}");
        }
        let (latest, whole) = base.snapshots.last().unwrap();
        assert!(base.judge(latest, whole, true, what) && base.judge(latest, whole, false, what), "{what}");
    }
    run(&node, &["backup", "app"]).expect(0);
}

/// Bits that changed in place leave every size as it was.
#[test]
fn a_repair_that_reads_content_finds_what_sizes_do_not_show() {
    let base = Base::new();
    base.begin(true);
    let node = base.node();
    let said = run(&node, &["repair", "app", "--dry-run"]).expect(0).stdout;
    assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains("(content not read;"), "{said}");
    let mut flipped = 0;
    for key in base.objects.iter().filter(|key| kind(key) == "packs") {
        let path = base.at("store").join(key);
        let content = fs::read(&path).unwrap();
        let mut other = content.clone();
        other[60] ^= 1;
        fs::write(&path, other).unwrap();
        // Lists of files are read in any case.
        match run(&node, &["repair", "app", "--dry-run"]).code {
            Some(0) => flipped += 1,
            _ => fs::write(&path, content).unwrap(),
        }
    }
    assert!(flipped > 0);
    let found = run(&node, &["repair", "app", "--dry-run", "--read-data", "--json"]).expect(7).json();
    assert!(found["content_read"] == true && found["lost_count"].as_u64().unwrap() > 0, "{found}");
    run(&node, &["repair", "app", "--read-data"]).expect(7);
    run(&node, &["backup", "app"]).expect(0);
    let (_, whole) = base.snapshots.last().unwrap();
    assert!(base.judge("latest", whole, false, "flipped"));
    // What was taken out of the index is not listed again by the next one, whether it reads or not.
    for args in [&["repair", "app", "--json"][..], &["repair", "app", "--dry-run", "--read-data", "--json"][..]] {
        let after = run(&node, args).expect(7).json();
        assert_eq!(after["findings"], Value::Array(Vec::new()), "{after}");
    }
}
