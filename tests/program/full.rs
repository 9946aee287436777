//! The disk of the store is full, read-only, or fails: it is told as that, and a prune frees space where there is none.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::site::Site;
use crate::support::tree;

/// What one command of a story came to.
struct Said {
    code: i32,
    text: String,
}

/// A story on a small disk of its own, which is there in a mount namespace and goes with it. Steps are `NAME COMMAND…`: `runner` is the
/// program on node east, anything else the shell's.
fn on_small_disk(site: &Site, size: &str, steps: &[(&str, &str)]) -> Vec<Said> {
    let (dir, config) = (site.dir().display(), site.path("runner.toml"));
    let state = site.path("state");
    let mut script = format!("set -u; mount -t tmpfs -o size={size} none {dir}/store\n");
    writeln!(
        script,
        "runner() {{ {program} --config {config} --node east --state-dir {state} \"$@\"; }}",
        program = env!("CARGO_BIN_EXE_runner"),
        config = config.display(),
        state = state.display(),
    )
    .unwrap();
    for (n, (_, step)) in steps.iter().enumerate() {
        writeln!(script, "( {step} ) >{dir}/said-{n} 2>&1; echo $? >{dir}/code-{n}").unwrap();
    }
    let output = Command::new("unshare").args(["-rm", "sh", "-c", &script]).env("NO_COLOR", "1").output().unwrap();
    assert!(output.status.success(), "a mount namespace with a tmpfs is needed: {output:?}");
    let said = |n: usize| Said {
        code: fs::read_to_string(site.path(&format!("code-{n}"))).unwrap().trim().parse().unwrap(),
        text: fs::read_to_string(site.path(&format!("said-{n}")))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
    };
    let all: Vec<Said> = (0..steps.len()).map(said).collect();
    for (said, (name, _)) in all.iter().zip(steps) {
        assert!(said.code == 0 || !name.is_empty(), "set-up: {}", said.text);
    }
    all
}

fn site(lines: &str) -> Site {
    let site = Site::new(lines);
    fs::create_dir_all(site.path("store")).unwrap();
    // What a prune frees is more than the next backup needs.
    for (n, mib) in [(0, 3), (1, 3), (2, 1)] {
        fs::write(site.path(&format!("noise-{n}")), tree::TreeRng::new(n).noise(mib << 20)).unwrap();
    }
    site
}

#[test]
fn a_full_store_is_told_as_that_and_a_prune_frees_it() {
    let site = site("keep = { last = 1 }\nprune_grace = \"0s\"\n");
    let dir = site.dir().display();
    let copy = |n: usize| format!("cp {dir}/noise-{n} {dir}/src/f");
    let steps = [
        ("", copy(0)),
        ("", "runner init && runner backup app".to_owned()),
        ("", copy(1)),
        ("", "runner backup app".to_owned()),
        ("", format!("head -c 1G /dev/zero >{dir}/store/filler; test $(df --output=avail {dir}/store | tail -1) = 0")),
        ("", copy(2)),
        ("backup", "runner backup app".to_owned()),
        ("prune", "runner prune app".to_owned()),
        ("next", "runner backup app".to_owned()),
        ("verify", "runner verify app --read-data".to_owned()),
        ("reserve", format!("stat -c %s {dir}/store/app/live/reserve")),
    ];
    let steps: Vec<(&str, &str)> = steps.iter().map(|(name, step)| (*name, step.as_str())).collect();
    let said = on_small_disk(&site, "24m", &steps);
    let [.., backup, prune, next, verify, reserve] = &said[..] else { unreachable!() };
    assert_eq!(backup.code, 1, "{}", backup.text);
    assert!(backup.text.contains("no space left in the store"), "{}", backup.text);
    assert!(backup.text.contains("runner prune app"), "{}", backup.text);
    for false_alarm in ["no longer refuses", "no more backups", "lease = "] {
        assert!(!backup.text.contains(false_alarm), "{}", backup.text);
    }
    for done in [prune, next, verify] {
        assert_eq!(done.code, 0, "{}", done.text);
    }
    assert_eq!(reserve.text, (4 << 20).to_string(), "it is there again for the next time");
}

#[test]
fn a_full_store_is_no_reason_to_do_without_a_lease() {
    let site = site("lease = \"bucket\"\n");
    let config = fs::read_to_string(site.path("runner.toml")).unwrap().replace("lease = \"none\"\n", "");
    fs::write(site.path("runner.toml"), config).unwrap();
    let dir = site.dir().display();
    let steps = [
        ("", format!("cp {dir}/noise-0 {dir}/src/f; runner init && runner backup app")),
        ("", format!("head -c 1G /dev/zero >{dir}/store/filler; true")),
        ("full", format!("cp {dir}/noise-1 {dir}/src/f; runner backup app")),
        ("read-only", format!("mount -o remount,ro {dir}/store && runner backup app")),
        ("reading", "runner snapshots app".to_owned()),
    ];
    let steps: Vec<(&str, &str)> = steps.iter().map(|(name, step)| (*name, step.as_str())).collect();
    let said = on_small_disk(&site, "16m", &steps);
    let [.., full, read_only, reading] = &said[..] else { unreachable!() };
    // Who has the lease cannot be told where it cannot be written.
    assert!(full.code == 4 && full.text.contains("no space left in the store"), "{}", full.text);
    assert!(read_only.code == 4 && read_only.text.contains("the store is read-only"), "{}", read_only.text);
    for run in [full, read_only] {
        for false_alarm in ["no longer refuses", "no more backups", "lease = ", "another node"] {
            assert!(!run.text.contains(false_alarm), "{}", run.text);
        }
    }
    assert_eq!(reading.code, 0, "{}", reading.text);
}

#[test]
fn a_store_without_inodes_is_told_as_that() {
    let site = site("");
    let dir = site.dir().display();
    let fill = format!("i=0; while touch {dir}/store/filler-$i; do i=$((i+1)); done");
    let steps = [
        ("", format!("cp {dir}/noise-0 {dir}/src/f; runner init && runner backup app")),
        ("", format!("({fill}) 2>{dir}/filled; test $(df --output=avail {dir}/store | tail -1) -gt 0")),
        ("backup", format!("cp {dir}/noise-1 {dir}/src/f; runner backup app")),
        ("reading", "runner verify app".to_owned()),
        ("", format!("rm {dir}/store/filler-*")),
        ("next", "runner backup app".to_owned()),
    ];
    let steps: Vec<(&str, &str)> = steps.iter().map(|(name, step)| (*name, step.as_str())).collect();
    let said = on_small_disk(&site, "24m,nr_inodes=200", &steps);
    let [.., backup, reading, _, next] = &said[..] else { unreachable!() };
    assert_eq!(backup.code, 1, "{}", backup.text);
    for words in ["no space left in the store", "no inodes left", "df -i"] {
        assert!(backup.text.contains(words), "{words}: {}", backup.text);
    }
    assert!(reading.code == 0 && next.code == 0, "{} {}", reading.text, next.text);
}
