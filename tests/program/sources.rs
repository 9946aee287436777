//! What is in a snapshot and what is left out of it, and what is said about files that could not be read as they were.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::site::{Site, below, files, number, role};
use crate::support::cli::{Node, Run};
use crate::support::compare::assert_same;

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
        site.config(&format!("one_file_system = {stay}\n{exclude}"));
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
fn as_nobody(site: &Site, node: &Node, args: &[&str]) -> Run {
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
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
    }
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
    if rustix::process::geteuid().is_root() {
        // Its own, but for the source: what it may not read there is root's.
        for name in ["store", "state-east", "out"] {
            fs::create_dir(site.path(name)).unwrap();
            chown(site.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let config = fs::read_to_string(site.path("runner.toml")).unwrap();
        fs::write(site.path("runner.toml"), config.replace("/key\"", "/store.key/key\"")).unwrap();
        fs::create_dir(site.path("store.key")).unwrap();
        chown(site.path("store.key"), Some(NOBODY), Some(NOBODY)).unwrap();
    }
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
