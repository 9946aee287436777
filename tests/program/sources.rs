//! What is in a snapshot and what is left out of it, and what is said about files that could not be read as they were.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::site::{Site, below, files, number, role};
use crate::support::cli::{ProgramRun, TestNode};
use crate::support::compare::assert_same;
use crate::support::webhook_server::WebhookServer;

/// A user who is neither root nor the owner of anything.
const NOBODY: u32 = 65_534;

/// What a snapshot has below a directory, by its restored files.
fn restored(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
            found.insert(entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn what_is_excluded_is_not_there_and_everything_else_is() {
    let site = Site::new(
        "exclude = [\"*.tmp\", \"/**/cache/\", \"!keep.tmp\"]\nexclude_caches = true\nexclude_larger_than = \"100KiB\"",
    );
    for name in ["a", "b.tmp", "keep.tmp", "sub/c.tmp", "sub/d", "sub/cache/x", "other/cache", "tagged/content"] {
        site.write(name, name);
    }
    site.write("tagged/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    site.write("untagged/CACHEDIR.TAG", "something else");
    site.write("untagged/content", "content");
    site.write("large", vec![7; (100 << 10) + 1]);
    site.write("not-large", vec![7; 100 << 10]);
    site.init();
    assert_eq!(site.backup("east")["outcome"], "committed");
    let wanted = [
        "a",
        "keep.tmp",
        "not-large",
        "other",
        "other/cache",
        "sub",
        "sub/d",
        "tagged",
        "tagged/CACHEDIR.TAG",
        "untagged",
        "untagged/CACHEDIR.TAG",
        "untagged/content",
    ];
    assert_eq!(restored(&site.restore(&site.node("east"), "latest", "out")), set(&wanted));

    // An excluded file that changes is no change.
    fs::write(site.src().join("b.tmp"), "changed").unwrap();
    fs::write(site.src().join("large"), vec![8; 200 << 10]).unwrap();
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

#[test]
fn a_source_stays_on_its_file_system_if_it_shall() {
    // /dev/shm is a file system of its own on every Linux that this runs on.
    let shm = Path::new("/dev/shm");
    assert_ne!(fs::metadata(shm).unwrap().dev(), fs::metadata("/dev").unwrap().dev(), "mount a tmpfs at /dev/shm");
    let there = tempfile::tempdir_in(shm).unwrap();
    fs::write(there.path().join("file"), "content").unwrap();
    let name = there.path().file_name().unwrap().to_str().unwrap();
    let site = Site::new("");
    site.init();
    let exclude = format!("exclude = [\"/dev/*\", \"!/dev/shm/\", \"/dev/shm/*\", \"!/dev/shm/{name}/\"]");
    for (stay, wanted) in [
        (true, vec!["shm".to_owned()]),
        (false, vec!["shm".to_owned(), format!("shm/{name}"), format!("shm/{name}/file")]),
    ] {
        // With this one excluded, only directories are left.
        site.config(&format!("one_file_system = {stay}\n{exclude}\nallow_empty = true"));
        let text = fs::read_to_string(site.path("runner.toml")).unwrap();
        let text = text.replace(site.src().to_str().unwrap(), "/dev");
        fs::write(site.path("runner.toml"), text).unwrap();
        let id = site.backup("east")["snapshot"].as_str().unwrap().to_owned();
        let target = site.path(&format!("out-{stay}"));
        site.node("east").run(["restore", "app", "--snapshot", &id, "--target", target.to_str().unwrap()]).expect(0);
        let found = restored(&target.join("dev"));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), wanted, "one_file_system = {stay}");
    }
}

#[test]
fn several_sources_stand_below_their_own_paths() {
    let site = Site::new("");
    site.write("one/a", "a");
    site.write("two/b", "b");
    site.write("three", "c");
    fs::hard_link(site.src().join("one/a"), site.src().join("two/also-a")).unwrap();
    site.write("elsewhere", "not this");
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    let src = site.src();
    let several = ["two", "one", "three"].map(|n| format!("{:?}", src.join(n))).join(", ");
    fs::write(site.path("runner.toml"), text.replace(&format!("{src:?}"), &several)).unwrap();
    site.init();
    site.backup("east");
    let out = site.restore(&site.node("east"), "latest", "out");
    assert_eq!(restored(&out), set(&["one", "one/a", "three", "two", "two/also-a", "two/b"]));
    for name in ["one", "two", "three"] {
        assert_same(&src.join(name), &out.join(name));
    }
    let ino = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(ino("one/a"), ino("two/also-a"), "one inode over two sources");
}

/// Makes the site another user's and runs the program as that user. Who is no root already is one.
fn as_nobody(site: &Site, node: &TestNode, args: &[&str]) -> ProgramRun {
    let mut command = node.command(args);
    if rustix::process::geteuid().is_root() {
        // Root reads everything, and the directory of the build may be root's alone.
        let program = site.path("runner");
        if !program.exists() {
            let built = env!("CARGO_BIN_EXE_runner");
            fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        }
        fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut lowered = std::process::Command::new(program);
        lowered.args(command.get_args()).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        lowered.env_remove("RUNNER_CONFIG");
        command = lowered;
    }
    let output = command.output().unwrap();
    ProgramRun {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
    }
}

/// Gives a user without privileges what a node needs, but not the source: what that user may not read there is root's.
fn lower(site: &Site) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for name in ["store", "state-east", "out"] {
        fs::create_dir(site.path(name)).unwrap();
        chown(site.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let config = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), config.replace("/key\"", "/store.key/key\"")).unwrap();
    fs::create_dir(site.path("store.key")).unwrap();
    chown(site.path("store.key"), Some(NOBODY), Some(NOBODY)).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_was_read_before_and_cannot_be_read_now_stays_and_is_marked_until_it_can() {
    let site = Site::new("keep = { last = 1 }");
    for name in ["readable", "secret", "closed/1", "closed/2", "closed/sub/3", "closed/4"] {
        site.write(name, name);
    }
    fs::hard_link(site.src().join("closed/1"), site.src().join("closed/also-1")).unwrap();
    lower(&site);
    let node = site.node("east");
    as_nobody(&site, &node, &["init"]).expect(0);
    as_nobody(&site, &node, &["backup", "app"]).expect(0);
    let clean = as_nobody(&site, &node, &["audit", "app"]).expect(0);
    assert!(!clean.stdout.contains("INCOMPLETE"), "{clean:?}");

    site.write("secret", "changed");
    site.write("readable", "changed");
    mode(&site.src().join("secret"), 0o0);
    mode(&site.src().join("closed"), 0o0);
    // Seven that are not known to be gone: one file, and six entries below a directory. The cache is used, and then lost.
    for cached in [true, false] {
        if !cached {
            for entry in fs::read_dir(site.path("state-east/repositories")).unwrap() {
                fs::remove_file(entry.unwrap().path().join("tree")).unwrap();
            }
        }
        let report = role(&as_nobody(&site, &node, &["backup", "app", "--json"]).expect(6));
        let [_, _, _, removed, unreadable] = files(&report);
        assert_eq!((removed, unreadable, number(&report["files"]["kept"])), (0, 7, 7), "{report}");
        assert_eq!(report["problems"].as_array().unwrap().len(), 2, "{report}");
    }
    let said = as_nobody(&site, &node, &["backup", "app"]).expect(6).stdout;
    assert!(said.contains("INCOMPLETE: 7 files could not be read and are in this snapshot as last read."), "{said}");

    let list = as_nobody(&site, &node, &["snapshots", "app", "--json"]).expect(0).json();
    let marks: Vec<(bool, u64)> = list["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["incomplete"].as_bool().unwrap(), number(&s["unreadable"])))
        .collect();
    assert_eq!(marks, [(false, 0), (true, 7), (true, 7), (true, 7)]);
    let text = as_nobody(&site, &node, &["snapshots", "app"]).expect(0).stdout;
    assert_eq!(text.lines().filter(|line| line.starts_with("INCOMPLETE ")).count(), 3, "{text}");
    let audit = as_nobody(&site, &node, &["audit", "app", "--json"]).expect(7).json();
    let finding = &audit["roles"][0]["findings"][0];
    assert_eq!((&finding["kind"], &finding["runs"]), (&"incomplete".into(), &3.into()), "{audit}");
    let check = as_nobody(&site, &node, &["whoami", "app", "--check"]).expect(1).stdout;
    assert!(check.contains("incomplete: 7 files could not be read"), "{check}");
    let status = as_nobody(&site, &node, &["status"]).expect(0).stdout;
    assert!(status.contains("incomplete"), "{status}");

    // Retention: the last whole one stays beside the newest.
    let pruned = as_nobody(&site, &node, &["prune", "app", "--dry-run", "--json"]).expect(0).json();
    let kept: Vec<bool> =
        pruned["snapshots"].as_array().unwrap().iter().map(|s| s["kept"].as_bool().unwrap()).collect();
    assert_eq!(kept, [true, false, false, true], "{pruned}");
    assert_eq!(pruned["snapshots"][0]["reasons"][0]["rule"], "complete", "{pruned}");

    let target = site.path("out");
    let run = as_nobody(&site, &node, &["restore", "app", "--target", target.to_str().unwrap()]).expect(0);
    assert!(run.stdout.contains("THE SNAPSHOT IS INCOMPLETE"), "{run:?}");
    let out = below(&target, &site.src());
    let content = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!((content("readable"), content("secret")), ("changed".to_owned(), "secret".to_owned()));
    for name in ["closed/1", "closed/2", "closed/sub/3", "closed/4"] {
        assert_eq!(content(name), name);
    }
    let ino = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(ino("closed/1"), ino("closed/also-1"));

    mode(&site.src().join("secret"), 0o644);
    mode(&site.src().join("closed"), 0o755);
    fs::remove_file(site.src().join("closed/4")).unwrap();
    let report = role(&as_nobody(&site, &node, &["backup", "app", "--json"]).expect(0));
    assert_eq!(files(&report)[3..], [1, 0], "what is gone is seen to be gone now: {report}");
    let audit = as_nobody(&site, &node, &["audit", "app", "--json"]).expect(0).json();
    assert_eq!(audit["roles"][0]["notes"][0]["kind"], "incomplete", "{audit}");
    as_nobody(&site, &node, &["whoami", "app", "--check"]).expect(0);
}

#[test]
fn an_incomplete_snapshot_is_told_and_no_success_is_pinged_for_it() {
    let webhook = WebhookServer::start(&[]);
    let site = Site::new("");
    site.config(&format!("{}healthchecks = \"{}/ping\"\n", site.telling(), webhook.url));
    site.write("file", "content");
    let secret = site.write("secret", "content");
    lower(&site);
    fs::write(site.path("told"), "").unwrap();
    if rustix::process::geteuid().is_root() {
        chown(site.path("told"), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let node = site.node("east");
    as_nobody(&site, &node, &["init"]).expect(0);
    mode(&secret, 0o0);
    for _ in 0..2 {
        as_nobody(&site, &node, &["backup", "app"]).expect(6);
    }
    mode(&secret, 0o644);
    as_nobody(&site, &node, &["backup", "app"]).expect(0);
    let told: Vec<String> = site.told().iter().map(|d| format!("{} {}", d["event"], d["phase"])).collect();
    assert_eq!(told, ["\"incomplete\" \"begun\"", "\"incomplete\" \"over\""]);
    let text = site.told()[0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("1 file could not be read") && text.contains(secret.to_str().unwrap()), "{text}");
    let heard = webhook.heard();
    let pings: Vec<&str> = heard.iter().map(|(line, _)| line.as_str()).collect();
    let [start, fail, success] = ["GET /ping/start", "POST /ping/fail", "GET /ping"];
    assert_eq!(pings, [start, fail, start, fail, start, success]);
    assert!(heard[1].1.contains("incomplete") && heard[1].1.contains(secret.to_str().unwrap()), "{heard:?}");
}

#[test]
fn one_source_of_several_without_a_file_is_named_beside_the_commit() {
    let site = Site::new("");
    site.write("full/a", "a");
    fs::create_dir(site.src().join("empty")).unwrap();
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    let src = site.src();
    let several = ["full", "empty"].map(|n| format!("{:?}", src.join(n))).join(", ");
    fs::write(site.path("runner.toml"), text.replace(&format!("{src:?}"), &several)).unwrap();
    site.init();
    let empty = src.join("empty").display().to_string();
    let said = site.node("east").run(["backup", "app"]).expect(0).stdout;
    assert!(said.contains("WARNING") && said.contains(&empty), "{said}");
    let run = site.backup("east");
    assert_eq!(run["warnings"][0]["kind"], "empty_source", "{run}");
    assert_eq!(run["warnings"][0]["path"], empty.as_str(), "{run}");
}

#[test]
fn unreadable_files_are_named_and_everything_else_is_committed() {
    let site = Site::new("");
    site.write("readable", "content");
    for name in ["secret", "closed/inside"] {
        site.write(name, "content");
    }
    for name in ["secret", "closed"] {
        fs::set_permissions(site.src().join(name), fs::Permissions::from_mode(0o0)).unwrap();
    }
    lower(&site);
    let node = site.node("east");
    as_nobody(&site, &node, &["init"]).expect(0);
    let run = as_nobody(&site, &node, &["backup", "app", "--json"]).expect(6);
    let report = role(&run);
    assert_eq!((&report["outcome"], files(&report)[4]), (&"committed".into(), 2), "{report}");
    let named: BTreeSet<&str> =
        report["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    let wanted = ["closed", "secret"].map(|n| site.src().join(n).display().to_string());
    assert_eq!(named, wanted.iter().map(String::as_str).collect());
    assert!(report["problems"].as_array().unwrap().iter().all(|p| p["kind"] == "unreadable"), "{report}");

    let text = as_nobody(&site, &node, &["backup", "app"]).expect(6);
    assert!(wanted.iter().all(|path| text.stdout.contains(path) || text.stderr.contains(path)), "{text:?}");
    let target = site.path("out");
    as_nobody(&site, &node, &["restore", "app", "--target", target.to_str().unwrap()]).expect(0);
    assert_eq!(fs::read(below(&target, &site.src()).join("readable")).unwrap(), b"content");

    // Readable again: the next run has them, and is not content with the names.
    for (name, mode) in [("secret", 0o644), ("closed", 0o755)] {
        fs::set_permissions(site.src().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let run = as_nobody(&site, &node, &["backup", "app", "--json"]).expect(0);
    assert_eq!(files(&role(&run))[4], 0);
    let records = site.snapshots();
    let counts: Vec<u64> = records.iter().map(|r| number(&r["body"]["changes"]["unreadable"])).collect();
    assert_eq!(counts, [2, 2, 0], "the journal says so too");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_reported_and_read_again_next_time() {
    let site = Site::new("");
    let moving = site.write("moving", vec![1; 16 << 20]);
    site.write("still", "content");
    site.init();
    let done = AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt as _;
            let file = fs::File::options().write(true).open(&moving).unwrap();
            let mut turn = 0_u64;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                file.write_all_at(&turn.to_le_bytes(), (turn * 4096) % (16 << 20)).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let run = site.node("east").run(["backup", "app", "--json"]);
        done.store(true, Ordering::Relaxed);
        run
    });
    let report = role(&run.expect(0));
    assert_eq!(report["outcome"], "committed");
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{report}");
    let path = moving.display().to_string();
    assert_eq!((&problems[0]["kind"], &problems[0]["path"]), (&"changed".into(), &path.into()), "{report}");
    assert!(number(&report["bytes"]["read"]) >= 32 << 20, "it was read more than once: {report}");

    let run = site.backup("east");
    assert_eq!((run["problem_count"].as_u64(), files(&run)[1]), (Some(0), 1), "{run}");
    assert_same(&site.src(), &site.restore(&site.node("east"), "latest", "out"));
}
