//! House rules as tests: which room may use which, what a decision may name, what stands at the top level, and how long
//! a file may grow. The rules are tables; a change of the house changes a table here, in the open.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod circles;
mod unknown;

/// Which rooms a room may name. `main → cli → daemon → alert → job → role, journal, repo, tree → store`, and nothing
/// points back.
///
/// Beyond those arrows: `ids`, `clock_reading` and `env` are leaves for every room, and `planted` is one that only the
/// simulator's builds have; `process`, `http` and `etcd` are what several rooms start commands and ask servers with; the
/// types of `config` are settings that the rooms below receive. `tree` scans into `repo::entry` and writes back from it.
/// A permit is made of a `role::candidacy`; a view keeps what `role::clone_detection` judges and shows `role::slot_commits`;
/// dates are read by `role::clock_tolerance`; a record is MACed, framed and named as the repository's other objects are.
/// A name with `::` allows that module and nothing else of its room.
const ARROWS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("clock_reading", &[]),
    ("clock_doubt", &["ids", "text"]),
    ("text", &[]),
    ("env", &["clock_doubt", "clock_reading", "file"]),
    ("file", &[]),
    ("planted", &[]),
    ("process", &["env", "config", "text"]),
    ("outage", &[]),
    ("client_renewal", &[]),
    ("config", &["file", "ids", "env", "text"]),
    ("http", &["config"]),
    ("etcd", &["config", "file", "outage", "text", "client_renewal"]),
    ("store", &["ids", "text", "clock_reading", "env", "file", "config", "outage", "planted", "client_renewal"]),
    ("repo", &["ids", "text", "clock_reading", "env", "config", "store"]),
    (
        "role",
        &[
            "ids",
            "text",
            "clock_reading",
            "env",
            "file",
            "outage",
            "process",
            "config",
            "store",
            "http",
            "etcd",
            "planted",
        ],
    ),
    (
        "journal",
        &[
            "clock_doubt",
            "ids",
            "clock_reading",
            "env",
            "config",
            "store",
            "etcd",
            "planted",
            "role::slot_commits",
            "role::candidacy",
            "role::clock_tolerance",
            "role::clone_detection",
            "repo::crypto",
            // What proves that there were records, where none is left.
            "repo::index",
            "repo::mac_line",
            "repo::object_keys",
        ],
    ),
    // Its adapter lists buckets; what judges a listing is pure.
    ("foreign", &["ids", "text", "env", "config", "store"]),
    ("tree", &["ids", "clock_reading", "env", "config", "store", "repo::entry"]),
    (
        "job",
        &[
            "clock_doubt",
            "ids",
            "text",
            "clock_reading",
            "env",
            "file",
            "outage",
            "process",
            "config",
            "store",
            "repo",
            "role",
            "journal",
            "tree",
            "planted",
        ],
    ),
    (
        "alert",
        &[
            "ids",
            "text",
            "clock_reading",
            "env",
            "file",
            "outage",
            "process",
            "config",
            "http",
            "repo",
            "role",
            "journal",
            "job",
        ],
    ),
    (
        "daemon",
        &[
            "ids",
            "text",
            "clock_reading",
            "env",
            "file",
            "outage",
            "planted",
            "config",
            "store",
            "repo",
            "role",
            "journal",
            "tree",
            "job",
            "alert",
        ],
    ),
    (
        "cli",
        &[
            "clock_doubt",
            "ids",
            "text",
            "clock_reading",
            "env",
            "file",
            "outage",
            "config",
            "store",
            "repo",
            "role",
            "journal",
            "tree",
            "job",
            "alert",
            "daemon",
            "foreign",
        ],
    ),
    ("main", &["cli", "daemon", "process::harden"]),
];

/// Files whose decisions the promises rest on. Each file whose header says `Pure.` is checked like these: it is a function
/// of what it is given: no clock, no network, no files, no randomness, nothing asynchronous, and no adapter that has
/// these.
const ALWAYS_PURE: &[&str] = &[
    "alert/conditions.rs",
    "alert/ledger.rs",
    "job/audit/ledger.rs",
    "job/health.rs",
    "job/keys/rotate/plan.rs",
    "job/prune/plan.rs",
    "job/prune/retention.rs",
    "journal/body.rs",
    "journal/record.rs",
    "journal/state.rs",
    "journal/view.rs",
    "role/clone_detection.rs",
    "role/controller.rs",
    "role/election.rs",
    "role/slot.rs",
];

/// What a decision may not name: a path that starts with one of these. Addresses (`std::net::IpAddr`) are data.
const EFFECTS: &[&str] = &[
    "tokio",
    "async_trait",
    "futures_util",
    "crossbeam_channel",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::io",
    "std::os",
    "std::time::SystemTime",
    "std::time::Instant",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "getrandom",
    "nix",
    "rustix",
    "reqwest",
    "hyper",
    "aws_config",
    "aws_sdk_s3",
    "tracing",
    "crate::env",
    "crate::store",
    "crate::http",
    "crate::etcd",
    "crate::process",
];
const DATA_AMONG_EFFECTS: &[&str] =
    &["std::net::IpAddr", "std::net::Ipv4Addr", "std::net::Ipv6Addr", "std::os::unix::ffi"];

/// Files that run in the simulator. What the host gives they have from `env`, so that a seed moves it, and no chance but the seed's
/// chooses between what is ready.
const SIMULATED: &[&str] = &[
    "daemon/clients.rs",
    "daemon/role_task.rs",
    "daemon/role_actions.rs",
    "job/local_state/authors.rs",
    "daemon/oneshot.rs",
    "job/admission/author_check.rs",
    "job/admission/lease.rs",
    "job/admission/role_journal.rs",
    "job/backup/commit.rs",
    "job/backup/pack_writer.rs",
    "job/backup/run.rs",
    "job/local_state/authors/boot_evidence.rs",
    "job/local_state/process_memory.rs",
    "job/node/run_failure_file.rs",
    "store/contract.rs",
    "job/backup/inline_content.rs",
    "job/backup/inventory.rs",
    "job/backup/orphans.rs",
    "job/admission/session.rs",
    "job/backup/dedup_index.rs",
    "job/node/heartbeat.rs",
    "job/admission/guard.rs",
    "job/repository/known_repository.rs",
    "job/local_state/run_failure.rs",
    "job/local_state.rs",
    "job/repository/loss_notes.rs",
    "job/operate.rs",
    "job/node/watchdog.rs",
    "job/node/presence.rs",
    "job/prune.rs",
    "job/prune/repack.rs",
    "job/prune/usage.rs",
    "job/prune/sweep.rs",
    "journal/append.rs",
    "journal/current_view.rs",
    "journal/draft.rs",
    "journal/etcd_head.rs",
    "journal/reader.rs",
    "journal/repair.rs",
    "journal/void_numbers.rs",
    "repo/reader.rs",
    "role/lease/bucket.rs",
    "role/lease/bucket/peer_processes.rs",
    "role/lease/bucket/process_object.rs",
    "role/lease/keep_alive.rs",
    "store/memory.rs",
];

/// What they may not name outside their tests.
const OF_THE_HOST: &[&str] =
    &["tokio::fs", "tokio::spawn", "tokio::task", "tokio::time", "std::fs", "std::process", "std::thread"];

/// What has one place each, outside of tests: where names stand that end like this, and what is to be used elsewhere.
struct Place {
    /// By the last two names of a path, or by one that is a macro.
    names: &'static [&'static str],
    /// Files or rooms.
    only: &'static [&'static str],
    instead: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        names: &["Command::new", "process::Command", "Stdio::inherit", "Child::spawn"],
        only: &["process/"],
        instead: "process::Program, which gives what it starts clean surroundings",
    },
    Place {
        names: &["println!", "eprintln!", "print!", "eprint!", "io::stdout", "io::stderr", "io::Stdout", "io::Stderr"],
        only: &["cli/terminal.rs"],
        instead: "cli::terminal or cli::output, which escape what others wrote",
    },
    Place {
        names: &["comfy_table::Table", "unicode_width::UnicodeWidthStr", "UnicodeWidthStr::width"],
        only: &["cli/render/layout.rs"],
        instead: "cli::render::page, which breaks lines and tables",
    },
    Place {
        names: &["anstyle::Style", "anstyle::AnsiColor"],
        only: &["cli/colour.rs"],
        instead: "cli::paint, which gives verdicts their colours",
    },
    Place {
        names: &["anstream::AutoStream", "termios::isatty", "termios::tcgetwinsize"],
        only: &["cli/terminal.rs"],
        instead: "cli::terminal, which knows what shows a text",
    },
    Place { names: &["ProgressDrawTarget::stderr"], only: &["cli/progress.rs"], instead: "cli::terminal" },
    Place {
        names: &[
            "env::var",
            "env::var_os",
            "env::vars",
            "env::vars_os",
            "env::set_var",
            "env::remove_var",
            "EnvFilter::from_default_env",
            "EnvFilter::from_env",
            "EnvFilter::try_from_env",
        ],
        only: &["env.rs"],
        instead: "env::variable",
    },
    Place {
        names: &["unistd::fork", "unistd::execv", "unistd::execve", "unistd::execvp", "CommandExt::exec"],
        only: &[],
        instead: "process::Program",
    },
];

/// Calls that read until the other side is done. A file is read by `file::read`, an object by a `get` with its limit.
const READS_ALL: &[&str] = &["fs::read(", "fs::read_to_string(", "read_to_end(", "read_to_string("];

/// Where they stand, and why that has an end.
const READS_ALL_ALLOWED: &[(&str, &str)] = &[
    ("daemon/concurrency.rs", "/proc and /sys"),
    ("file.rs", "cut off by `take`: the one place"),
    ("http/trust.rs", "cut off by `take`"),
    ("process/cgroup.rs", "/proc and the control groups"),
    ("process/harden.rs", "/proc"),
    ("process/members.rs", "/proc"),
    ("role/identity.rs", "/etc/machine-id and /sys"),
    ("role/probe/mounted.rs", "/proc"),
    ("role/probe/vip.rs", "/proc"),
    ("store/dir.rs", "cut off by `take` at the object's limit"),
];

/// Calls that take memory by a number.
const TAKES_MEMORY: &[&str] = &["with_capacity(", "vec![0; "];

/// Where they stand in the rooms that are given what others wrote, and what the number is bounded by.
const TAKES_MEMORY_ALLOWED: &[(&str, &str)] = &[
    ("job/repository/open.rs", "key slots, of which there are at most `SLOTS_MAX`"),
    ("repo/crypto.rs", "a constant"),
    ("repo/entry.rs", "what is there"),
    ("repo/index.rs", "`Reader::count`: no more than the bytes that are left can hold"),
    ("repo/keyring.rs", "`GENERATIONS_MAX`"),
    ("repo/manifest.rs", "`Reader::count`"),
    ("repo/pack.rs", "`Reader::count`, and `FRAME_BYTES_MAX`"),
    ("repo/reader.rs", "what was asked for"),
    ("repo/segment.rs", "`Reader::count`, and the entries of a segment"),
    ("store/dir.rs", "the object's limit, or the range's"),
    ("store/proof.rs", "a constant"),
    ("store/s3.rs", "`BODY_RESERVE_MAX`"),
];

/// Rooms and files that are given what others wrote.
const OF_OTHERS: &[&str] =
    &["repo/", "store/", "store.rs", "journal/", "daemon/", "http.rs", "http/", "etcd.rs", "job/repository/open.rs"];

/// What a directory store may not name: it reaches what is below its root by `store/dir/open_dir.rs` alone, which follows no link.
const BY_PATH: &[&str] =
    &["std::fs::metadata", "std::fs::read_dir", "std::fs::OpenOptions", "std::fs::File::open", "File::open(", "CWD"];

/// Everything that may stand at the top.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benches",
    "build.rs",
    "clippy.toml",
    "config",
    "deny.toml",
    "docs",
    "fuzz",
    "proptest-regressions",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "scripts",
    "src",
    "systemd",
    "tests",
];

/// The most lines of a file in `src`: beyond it there are two nouns in it.
const LINES_MAX: usize = 800;

/// What unfinished work is marked with, and calls left over from looking at it. In pieces, so that this file has none.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
];

/// Rooms that work on trees which others may change at any time. What was looked at under a name is then something else under it:
/// everything goes through descriptors, is looked at again when it is open, and never waits for what others control.
const TREES_OF_OTHERS: &[&str] = &["tree", "job/backup", "job/restore"];

/// Calls that take a name where a descriptor would do, by their last two parts.
const BY_NAME: &[(&str, &str)] = &[
    ("File", "open"),
    ("File", "create"),
    ("File", "options"),
    ("OpenOptions", "new"),
    ("fs", "open"),
    ("fs", "stat"),
    ("fs", "lstat"),
    ("fs", "chmod"),
    ("fs", "chown"),
    ("fs", "getxattr"),
    ("fs", "listxattr"),
    ("fs", "lsetxattr"),
    ("fs", "removexattr"),
    ("fs", "rename"),
    ("fs", "setxattr"),
    ("fs", "unlink"),
    ("fs", "create_dir_all"),
];

/// Where that is right, and why.
const BY_NAME_ALLOWED: &[(&str, &str, &str)] = &[
    ("job/backup/tree_cache.rs", "OpenOptions::new", "a file of this node's state directory"),
    ("job/backup/tree_cache.rs", "std::fs::remove_file", "a file of this node's state directory"),
    ("job/backup/tree_cache.rs", "std::fs::rename", "a file of this node's state directory"),
    ("tree/read/xattrs.rs", "rustix::fs::getxattr", "a descriptor's name in /proc"),
    ("tree/read/xattrs.rs", "rustix::fs::listxattr", "a descriptor's name in /proc"),
    ("tree/roots.rs", "rustix::fs::CWD", "only for / itself"),
    ("tree/roots.rs", "CWD", "only for / itself"),
    ("tree/write.rs", "rustix::fs::chmod", "a descriptor's name in /proc"),
    ("tree/write.rs", "rustix::fs::open", "the target is the operator's word"),
    ("tree/write.rs", "std::fs::create_dir_all", "the target is the operator's word"),
    ("tree/write/meta.rs", "rustix::fs::CWD", "a descriptor's name in /proc"),
    ("tree/write/meta.rs", "rustix::fs::chmod", "a descriptor's name in /proc"),
    ("tree/write/meta.rs", "rustix::fs::getxattr", "a descriptor's name in /proc"),
    ("tree/write/meta.rs", "rustix::fs::listxattr", "a descriptor's name in /proc"),
    ("tree/write/meta.rs", "rustix::fs::removexattr", "a descriptor's name in /proc"),
    ("tree/write/meta.rs", "rustix::fs::setxattr", "a descriptor's name in /proc"),
];

/// Absolute paths of whoever wrote it; the place of this very checkout is looked for as well.
const HIDDEN: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/.")];

#[test]
fn every_arrow_points_down() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(room) = room_of(&file) else { continue };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{file}: the room `{room}` is not in the table"));
            continue;
        };
        for (line, used) in rooms_used(&file, &text) {
            let own = used == room || used.starts_with(&format!("{room}::"));
            let granted = |a: &&str| used == *a || used.starts_with(&format!("{a}::"));
            if !own && !allowed.iter().any(granted) {
                wrong.push(format!("{file}:{line}: `{room}` may not use `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn decisions_name_nothing_that_acts() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (decision, text) in sources.iter().filter(|(_, text)| is_decision(text)) {
        wrong.extend(
            effects(text).into_iter().map(|(line, what)| format!("{decision}:{line}: a decision names {what}")),
        );
    }
    for decision in ALWAYS_PURE {
        if !sources.iter().any(|(file, text)| file == decision && is_decision(text)) {
            wrong.push(format!("{decision}: its header does not say that it is pure, or there is no such file"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_simulated_has_time_tasks_files_and_chance_from_the_simulator() {
    let sources = sources();
    let mut wrong = Vec::new();
    for simulated in SIMULATED {
        let Some((_, text)) = sources.iter().find(|(file, _)| file == simulated) else {
            wrong.push(format!("{simulated}: listed as simulated, but there is no such file"));
            continue;
        };
        let found = hosts_own(before_tests(text));
        wrong.extend(found.into_iter().map(|(line, what)| format!("{simulated}:{line}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_starts_programs_speaks_or_reads_the_environment_stands_in_one_place() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (line, name, place) in misplaced(&file, &text) {
            wrong.push(format!("src/{file}:{line}: {name} stands in {:?} alone: use {}", place.only, place.instead));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_promise_against_a_threat_names_a_test_that_is_there() {
    let text = fs::read_to_string(root().join("docs/THREATS.md")).expect("it is there");
    let failing = fs::read_to_string(root().join("tests/cases/known-failing.txt")).expect("it is there");
    let code: String = files()
        .iter()
        .filter(|file| {
            Path::new(file).extension().is_some_and(|extension| extension == "rs")
                && (file.starts_with("src/") || file.starts_with("tests/"))
        })
        .map(|file| fs::read_to_string(root().join(file)).expect("sources are UTF-8"))
        .collect();
    let is_there = |test: &str| {
        if test.contains('/') {
            root().join("tests/cases").join(test).is_file() && !failing.lines().any(|line| line.starts_with(test))
        } else {
            code.contains(&format!("fn {test}("))
        }
    };
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    let promises = rows.iter().filter(|row| !row.starts_with("| promised"));
    let mut wrong = Vec::new();
    for row in promises.clone() {
        let cell = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
        let tests: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        wrong.extend(tests.is_empty().then(|| format!("names no test: {row}")));
        wrong.extend(
            tests
                .iter()
                .filter(|test| !is_there(test))
                .map(|test| format!("there is no test {test} that holds: {row}")),
        );
    }
    assert!(promises.count() > 10 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn trees_of_others_are_touched_through_descriptors_alone() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (file, text) in sources() {
        let room =
            TREES_OF_OTHERS.iter().any(|room| file.strip_prefix(room).is_some_and(|f| f.starts_with(['/', '.'])));
        let test = file.ends_with("/tests.rs") || file.contains("/tests/") || file.ends_with("/testing.rs");
        if !room || test {
            continue;
        }
        let text = before_tests(&text);
        for (line, what) in by_name(text) {
            match BY_NAME_ALLOWED.iter().find(|(at, allowed, _)| *at == file && *allowed == what) {
                Some(allowed) => drop(used.insert(allowed)),
                None => wrong.push(format!("{file}:{line}: {what}")),
            }
        }
    }
    for (file, what, _) in BY_NAME_ALLOWED.iter().filter(|allowed| !used.contains(allowed)) {
        wrong.push(format!("{file}: {what} is allowed, and is not there"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_size_of_others_is_believed() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for (file, text) in sources() {
        let text = without_tests(&file, &text);
        let mut look = |calls: &[&str], allowed: &[(&'static str, &str)], why: &str| {
            for (line, call) in calls_in(text, calls) {
                match allowed.iter().find(|(name, _)| *name == file) {
                    Some((name, _)) => drop(used.insert((calls[0].to_owned(), *name))),
                    None => wrong.push(format!("{file}:{line}: {call}: {why}")),
                }
            }
        };
        look(READS_ALL, READS_ALL_ALLOWED, "reads whatever is there; use file::read, or a get with its limit");
        if OF_OTHERS.iter().any(|room| file.starts_with(room)) {
            look(TAKES_MEMORY, TAKES_MEMORY_ALLOWED, "by which number? If it is bounded, say in this file by what");
        }
        if file.starts_with("store/dir") && file != "store/dir/open_dir.rs" {
            look(BY_PATH, &[], "follows the links of whoever may write into the store; use dir/beneath.rs");
        }
    }
    let listed = |calls: &[&str], allowed: &[(&'static str, &str)]| {
        allowed.iter().map(|(name, _)| (calls[0].to_owned(), *name)).collect::<BTreeSet<_>>()
    };
    let listed = &listed(READS_ALL, READS_ALL_ALLOWED) | &listed(TAKES_MEMORY, TAKES_MEMORY_ALLOWED);
    wrong
        .extend(listed.difference(&used).map(|(call, name)| format!("{name}: listed for {call}, and does not use it")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A source up to its tests; nothing of a file of tests.
fn without_tests<'a>(file: &str, text: &'a str) -> &'a str {
    let is_test = file.ends_with("tests.rs") || file.contains("/tests/") || file.ends_with("testing.rs");
    if is_test { "" } else { before_tests(text) }
}

/// A source up to the tests at its end.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().expect("a first part")
}

/// The lines with one of these calls, comments left out.
fn calls_in<'a>(text: &str, calls: &[&'a str]) -> Vec<(usize, &'a str)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found = |(number, line): (usize, &str)| Some((number + 1, *calls.iter().find(|call| line.contains(**call))?));
    lines.filter_map(found).collect()
}

#[test]
fn the_top_level_is_what_it_should_be() {
    let found: BTreeSet<String> = files().iter().filter_map(|f| Some(f.split('/').next()?.to_owned())).collect();
    let strange: Vec<&String> = found.iter().filter(|name| !TOP.contains(&name.as_str())).collect();
    assert!(strange.is_empty(), "not allowed at the top level: {strange:?}");
    for needed in
        ["Cargo.toml", "src", "config", "systemd", "tests", "docs", "README.md", "CHANGELOG.md", ".ci", "Makefile"]
    {
        assert!(found.contains(needed), "missing at the top level: {needed}");
    }
}

#[test]
fn no_file_grows_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("src/{file}: {lines} lines, at most {LINES_MAX}"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn nothing_is_left_unfinished_and_nobodys_paths_are_told() {
    let mut wrong = Vec::new();
    let here = root().to_str().expect("the checkout's path is UTF-8");
    for file in files() {
        // What is no text has no words.
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in UNFINISHED.iter().chain(HIDDEN).chain([&here]).filter(|w| line.contains(**w)) {
                wrong.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rules_see_what_they_forbid() {
    // Arrows: grouped imports, calls by path, `super` out of the room, and not what stands in comments or texts.
    let used = |file: &str, text: &str| rooms_used(file, text).into_iter().map(|(_, u)| u).collect::<Vec<_>>();
    assert_eq!(
        used("store/s3.rs", "use crate::{ids::Term, job::{self, backup::Run}};"),
        ["ids::Term", "job", "job::backup::Run"]
    );
    assert_eq!(used("store.rs", "fn f() { crate::cli::main::<u8>(); }"), ["cli::main"]);
    assert_eq!(used("store/dir.rs", "use super::super::cli; use super::Store;"), ["cli"]);
    assert_eq!(used("store.rs", "use super::tree::Walk;"), ["tree::Walk"]);
    assert_eq!(used("main.rs", "use runner::job::backup;"), ["job::backup"]);
    assert_eq!(
        used(
            "store.rs",
            "// crate::cli\n/* crate::cli /* */ crate::job */ const A: &str = \"crate::cli \\\" crate::job\";"
        ),
        [""; 0]
    );
    assert_eq!(
        used("store.rs", "const A: &str = r#\"crate::\" cli\"#; const Q: char = '\"'; use crate::cli;"),
        ["cli"]
    );
    assert_eq!(used("store.rs", "struct A<'a>(&'a str); use crate::cli;"), ["cli"]);

    // Decisions.
    let named = |text: &str| effects(text).into_iter().map(|(line, what)| format!("{line} {what}")).collect::<Vec<_>>();
    assert_eq!(
        named("use std::{cmp::Ordering,\n fs, net::{IpAddr, TcpStream}};"),
        ["2 std::fs", "2 std::net::TcpStream"]
    );
    assert_eq!(named("fn f() {\n let x = std::time::Instant::now(); }"), ["2 std::time::Instant::now"]);
    assert_eq!(named("async fn f() { g().await }"), ["1 async", "1 await"]);
    assert_eq!(named("use std::time::Duration; use crate::ids::Term; fn tokio_free() {}"), [""; 0]);
    assert_eq!(named("mod tests { use crate::store::Store; }"), ["1 crate::store::Store"]);

    // Files of others.
    let named = |text: &str| by_name(text).into_iter().map(|(line, what)| format!("{line} {what}")).collect::<Vec<_>>();
    assert_eq!(
        named("use std::fs::{self, File};\nfn f() { fs::read(p); File::open(p); }"),
        ["2 File::open", "2 fs::read"]
    );
    assert_eq!(named("use rustix::fs::{openat, CWD};"), ["1 rustix::fs::CWD"]);
    assert_eq!(named("rustix::fs::chmod(p, m); rustix::fs::fchmod(f, m);"), ["1 rustix::fs::chmod"]);
    let blocking = "a read that may block or follow a link";
    assert_eq!(named("let f = OFlags::RDONLY | OFlags::CLOEXEC;"), [format!("1 {blocking}")]);
    assert_eq!(named("flags.difference(OFlags::NONBLOCK)"), [format!("1 {blocking}")]);
    assert_eq!(
        named("OFlags::RDONLY | OFlags::DIRECTORY; OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY)"),
        [""; 0]
    );

    // Reads and memory.
    assert_eq!(
        calls_in("// fs::read(x)\nlet a = std::fs::read(x);\nfile.read_to_end(&mut a)", READS_ALL),
        [(2, "fs::read("), (3, "read_to_end(")]
    );
    assert_eq!(without_tests("a/tests.rs", "x"), "");
    assert_eq!(
        without_tests("a.rs", "x\n#[cfg(test)]\nfn y() {}\n#[cfg(test)]\nmod tests {}"),
        "x\n#[cfg(test)]\nfn y() {}\n"
    );
    assert_eq!(without_tests("a.rs", "#[cfg(test)]\nmod tests;\nx"), "#[cfg(test)]\nmod tests;\nx");

    // What is simulated.
    let own = |text: &str| hosts_own(text).into_iter().map(|(line, what)| format!("{line} {what}")).collect::<Vec<_>>();
    assert_eq!(own("use tokio::sync::watch;\nfn f() { tokio::spawn(g()); }"), ["2 tokio::spawn"]);
    assert_eq!(own("tokio::select! {\n    biased;\n}"), [""; 0]);
    assert_eq!(own("x = tokio::select! {\n    a = b => {}\n}"), ["1 a select! that is not biased"]);

    // What has its place.
    let strays = |file: &str, text: &str| {
        misplaced(file, text).into_iter().map(|(line, name, _)| format!("{line} {name}")).collect::<Vec<_>>()
    };
    let text = "use std::process::{Command, Stdio};\nfn f() { Command::new(\"x\").stdout(Stdio::inherit()); }";
    assert_eq!(strays("job/backup/hooks.rs", text), ["1 process::Command", "2 Command::new", "2 Stdio::inherit"]);
    assert_eq!(strays("process/program.rs", text), [""; 0]);
    assert_eq!(strays("job/backup/hooks.rs", &format!("#[cfg(test)]\nmod tests {{\n{text}\n}}")), [""; 0]);
    assert_eq!(strays("job/restore/tests/limits.rs", text), [""; 0]);
    assert_eq!(strays("cli/run.rs", "out.print(x); io::stderr(); println!(\"\");"), ["1 io::stderr", "1 println!"]);
    assert_eq!(strays("cli/log.rs", "std::env::var_os(\"A\"); env!(\"B\"); env::variable(\"C\");"), ["1 env::var_os"]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project, relative to its root: what `.gitignore` names is not part of it.
fn files() -> Vec<String> {
    let walk =
        ignore::WalkBuilder::new(root()).hidden(false).require_git(false).parents(false).git_global(false).build();
    let mut found: Vec<String> = walk
        .map(|entry| entry.expect("the project can be read"))
        .filter(|entry| entry.file_type().is_some_and(|t| t.is_file()))
        .map(|entry| entry.path().strip_prefix(root()).expect("below the root").to_string_lossy().into_owned())
        .filter(|path| path != ".git" && !path.starts_with(".git/"))
        .collect();
    found.sort();
    assert!(found.len() > 20, "the walk sees the project");
    found
}

/// Every Rust file below `src`, by its path from there.
fn sources() -> Vec<(String, String)> {
    fn add(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                add(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut paths = Vec::new();
    add(&src, &mut paths);
    paths.sort();
    let name = |p: &PathBuf| p.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
    paths.iter().map(|p| (name(p), fs::read_to_string(p).expect("sources are UTF-8"))).collect()
}

/// `role/probe/vip.rs` → `role`; `None` for `lib.rs`, which only lists the rooms.
fn room_of(file: &str) -> Option<&str> {
    let room = file.split('/').next()?.trim_end_matches(".rs");
    (room != "lib").then_some(room)
}

/// What a file names of the crate's rooms, without `crate::`: by `crate::`, by the library's name, or by `super` that leads
/// out of its room.
fn rooms_used(file: &str, text: &str) -> Vec<(usize, String)> {
    // `role/probe/vip.rs` is the module role::probe::vip: three `super` lead to the crate.
    let depth = file.split('/').count();
    let mut used = Vec::new();
    for (line, path) in paths(text) {
        let supers = path.iter().take_while(|p| *p == "super").count();
        let rest = match path[0].as_str() {
            "crate" | "runner" if path.len() > 1 => &path[1..],
            // A nested `mod tests` has one level more; what it calls `super::x` is then only meant if `x` is a room.
            _ if supers >= depth && path.get(supers).is_some_and(|p| ARROWS.iter().any(|(room, _)| room == p)) => {
                &path[supers..]
            }
            _ => continue,
        };
        // `use crate::job::{self}` is `crate::job`.
        let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|p| *p != "self").collect();
        used.push((line, rest.join("::")));
    }
    used
}

/// Whether the header of the file says that it decides.
fn is_decision(text: &str) -> bool {
    let header = text.lines().map_while(|line| line.strip_prefix("//!"));
    header.flat_map(str::split_whitespace).any(|word| matches!(word, "Pure." | "Pure:" | "Pure;"))
}

/// What a decision may not name and does.
fn effects(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, path) in paths(text) {
        let full = path.join("::");
        let within = |list: &[&str]| list.iter().any(|e| full == *e || full.starts_with(&format!("{e}::")));
        let asynchronous = path.len() == 1 && (full == "async" || full == "await");
        if asynchronous || (path.len() > 1 && within(EFFECTS) && !within(DATA_AMONG_EFFECTS)) {
            found.push((line, full));
        }
    }
    found
}

/// What a simulated file may not name and does, and where chance would choose.
fn hosts_own(text: &str) -> Vec<(usize, String)> {
    let named = |full: &String| OF_THE_HOST.iter().any(|own| full == own || full.starts_with(&format!("{own}::")));
    let mut found: Vec<(usize, String)> =
        paths(text).into_iter().map(|(line, path)| (line, path.join("::"))).filter(|(_, full)| named(full)).collect();
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("select! {")) {
        let biased = lines.get(number + 1).is_some_and(|next| next.trim() == "biased;");
        let comment = line.trim_start().starts_with("//");
        if !biased && !comment {
            found.push((number + 1, "a select! that is not biased".to_owned()));
        }
    }
    found
}

/// What a file names outside of its tests that has its place elsewhere.
fn misplaced(file: &str, text: &str) -> Vec<(usize, String, &'static Place)> {
    let tests = file.ends_with("/tests.rs") || file.contains("/tests/") || file.ends_with("/testing.rs");
    if tests {
        return Vec::new();
    }
    let code = before_tests(text);
    let mut named: Vec<(usize, String)> =
        paths(code).into_iter().map(|(line, path)| (line, path[path.len().saturating_sub(2)..].join("::"))).collect();
    let tokens = tokens(code);
    let macros = tokens.windows(2).filter(|pair| is_name(&pair[0].1) && pair[1].1 == "!");
    named.extend(macros.map(|pair| (pair[0].0, format!("{}!", pair[0].1))));
    let mut found = Vec::new();
    for (line, name) in named {
        let places = PLACES.iter().filter(|place| place.names.contains(&name.as_str()));
        let strange = places.filter(|place| !place.only.iter().any(|only| file.starts_with(only)));
        found.extend(strange.map(|place| (line, name.clone(), place)));
    }
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    found
}

/// What a room that works on trees of others does by name, or without a bound: calls that take a path, and reads of what may have
/// become a pipe.
fn by_name(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (line, path) in paths(text) {
        let last = path.last().map_or("", String::as_str);
        let before = path.len().checked_sub(2).map_or("", |at| path[at].as_str());
        let call = BY_NAME.contains(&(before, last));
        let fs = before == "fs" && path[0] != "rustix" && last.starts_with(|c: char| c.is_lowercase());
        if call || (fs && last != "self") || last == "CWD" {
            found.push((line, path.join("::")));
        }
    }
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        let has = |what: &str| line.contains(&format!("OFlags::{what}"));
        let reads = has("RDONLY") && !has("DIRECTORY") && !(has("NONBLOCK") && has("NOCTTY"));
        if reads || line.contains("difference(OFlags::NONBLOCK)") {
            found.push((number + 1, "a read that may block or follow a link".to_owned()));
        }
    }
    found.sort();
    found
}

/// All paths of a source text, with their lines: `a::b::{c, d::e}` gives `a::b::c` and `a::b::d::e`, and a lone
/// identifier is a path of one.
fn paths(text: &str) -> Vec<(usize, Vec<String>)> {
    paths_of(&tokens(text))
}

fn paths_of(tokens: &[(usize, String)]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].1 == "::" || !is_name(&tokens[at].1) {
            at += 1;
        } else {
            at = path(tokens, at, &[], &mut found);
        }
    }
    found
}

/// Reads the path that starts at `at`, below `prefix`; returns where it ends.
fn path(tokens: &[(usize, String)], mut at: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut names = prefix.to_vec();
    let line = tokens[at].0;
    loop {
        names.push(tokens[at].1.clone());
        at += 1;
        if tokens.get(at).is_none_or(|t| t.1 != "::") {
            break;
        }
        match tokens.get(at + 1).map(|t| t.1.as_str()) {
            Some("{") => {
                at += 2;
                while at < tokens.len() && tokens[at].1 != "}" {
                    at = if is_name(&tokens[at].1) { path(tokens, at, &names, found) } else { at + 1 };
                }
                return at + 1;
            }
            Some(next) if is_name(next) => at += 1,
            _ => break,
        }
    }
    found.push((line, names));
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single characters, each with its line; comments, texts and character literals left out.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line) = (0, 1);
    let mut found: Vec<(usize, String)> = Vec::new();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        if starts(at, "//") {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if starts(at, "/*") {
            let mut open = 0;
            loop {
                if starts(at, "/*") {
                    (open, at) = (open + 1, at + 2);
                } else if starts(at, "*/") {
                    (open, at) = (open - 1, at + 2);
                } else {
                    at += 1;
                }
                if open == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if let Some(hashes) = raw_text(&chars, at) {
            let end = format!("\"{}", "#".repeat(hashes));
            at += chars[at..].iter().take_while(|c| **c != '"').count() + 1;
            while at < chars.len() && !starts(at, &end) {
                at += 1;
            }
            at += end.len();
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')) {
            // A character, not a lifetime.
            at += if chars[at + 1] == '\\' { 3 } else { 2 };
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if is_name(&c.to_string()) {
            at += chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
            found.push((line, chars[start..at].iter().collect()));
        } else if starts(at, "::") {
            at += 2;
            found.push((line, "::".to_owned()));
        } else {
            at += 1;
            if !c.is_whitespace() {
                found.push((line, c.to_string()));
            }
        }
        at = at.min(chars.len());
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// If a raw text (`r"…"`, `br#"…"#`) starts here: its number of hashes.
fn raw_text(chars: &[char], at: usize) -> Option<usize> {
    let before_is_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let r = at + usize::from(chars[at] == 'b' || chars[at] == 'c');
    if before_is_name || chars.get(r) != Some(&'r') {
        return None;
    }
    let hashes = chars[r + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(r + 1 + hashes) == Some(&'"')).then_some(hashes)
}
