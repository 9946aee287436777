//! Dumps: a command's output as a file of the snapshot. A command that fails must not leave half a dump that looks like a backup.

use std::fs;

use crate::site::{Site, files, number};
use crate::support::tree::TreeRng;

/// A role with one dump that runs a script of the site.
fn site(script: &str, more: &str) -> Site {
    let site = Site::new("");
    site.write("file", "content");
    say(&site, script);
    let lines = format!(
        "[role.app.dumps]\n\"app.sql\" = {{ command = [\"sh\", \"{}\"]{more} }}",
        site.path("dump.sh").display()
    );
    site.config(&lines);
    site.init();
    site
}

fn say(site: &Site, script: &str) {
    fs::write(site.path("dump.sh"), script).unwrap();
}

#[test]
fn a_dump_is_a_file_of_the_snapshot_and_an_unchanged_dump_is_no_change() {
    let site = site("", "");
    let data = TreeRng::new(3).prose(3 << 20);
    fs::write(site.path("data"), &data).unwrap();
    say(&site, &format!("cat {}; echo \"$RUNNER_NODE $RUNNER_ROLE $RUNNER_TERM\"", site.path("data").display()));
    let run = site.backup("east");
    assert_eq!(
        (&run["outcome"], number(&run["bytes"]["source"])),
        (&"committed".into(), data.len() as u64 + 11 + 7),
        "{run}"
    );
    site.restore(&site.node("east"), "latest", "out");
    let whole = [&data[..], b"east app 1\n"].concat();
    assert!(fs::read(site.path("out/app.sql")).unwrap() == whole);

    let packs = site.packs();
    let run = site.backup("east");
    assert_eq!((&run["outcome"], number(&run["bytes"]["new"])), (&"unchanged".into(), 0), "{run}");
    assert_eq!(site.packs(), packs);
    assert_eq!(site.roots()[0], site.roots()[1]);

    fs::write(site.path("data"), &data[..2 << 20]).unwrap();
    let run = site.backup("east");
    assert_eq!((&run["outcome"], files(&run)[1]), (&"committed".into(), 1), "{run}");
}

#[test]
fn a_dump_that_fails_commits_nothing_and_says_what_the_command_said() {
    for (script, word) in [
        ("echo half a dump; echo 'connection refused' >&2; exit 3", "connection refused"),
        ("echo half a dump; kill -9 $$", "signal 9"),
    ] {
        let site = site(script, "");
        let said = site.refused("east", 1);
        assert!(said.contains("app.sql") && said.contains(word), "{said}");
        say(&site, "echo whole");
        assert_eq!(site.backup("east")["outcome"], "committed");
        site.restore(&site.node("east"), "latest", "out");
        assert_eq!(fs::read(site.path("out/app.sql")).unwrap(), b"whole\n");
    }
}

#[test]
fn a_dump_that_takes_too_long_is_killed_with_its_children_and_commits_nothing() {
    let site = site("", ", timeout = \"1s\"");
    say(&site, &format!("echo begun; sh -c 'sleep 2; echo > {}; sleep 1000'", site.path("survived").display()));
    let said = site.refused("east", 1);
    assert!(said.contains("killed after 1s"), "{said}");
    std::thread::sleep(std::time::Duration::from_millis(2200));
    assert!(!site.path("survived").exists(), "the command's own children are killed with it");
}

#[test]
fn a_program_that_is_not_there_or_a_user_that_is_not_there_commits_nothing() {
    let site = Site::new("[role.app.dumps]\n\"a\" = { command = [\"/nonexistent/dump\"] }");
    site.init();
    let said = site.refused("east", 1);
    assert!(said.contains("/nonexistent/dump"), "{said}");
    site.config("[role.app.dumps]\n\"a\" = { command = [\"true\"], user = \"nobody-of-this-name\" }");
    let said = site.refused("east", 1);
    assert!(said.contains("nobody-of-this-name"), "{said}");
}

#[test]
fn a_dump_has_the_surroundings_of_its_user_and_nothing_of_the_callers() {
    let site = site("", ", user = \"nobody\", environment = { MINE = \"yes\" }, pass_environment = [\"PASSED\"]");
    say(&site, "env | sort; pwd; ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status");
    fs::set_permissions(site.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let lock = fs::File::create(site.path("lock")).unwrap();
    let mut command = site.node("east").command(["backup", "app"]);
    command.env("AWS_SECRET_ACCESS_KEY", "TOPSECRET").env("PASSED", "on").env("LC_TIME", "C").env("HOME", "/root");
    // Through a shell that leaves a descriptor open, as flock(1) does, and ignores a signal.
    let line = format!("exec 9<{}; trap '' HUP; exec \"$0\" \"$@\"", site.path("lock").display());
    let mut through = std::process::Command::new("sh");
    through.args(["-c", &line]).arg(command.get_program()).args(command.get_args()).current_dir(site.dir());
    through.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = through.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    drop(lock);
    site.restore(&site.node("east"), "latest", "out");
    let said = fs::read_to_string(site.path("out/app.sql")).unwrap();
    let has = |line: &str| said.lines().any(|said| said == line);
    for line in [
        "HOME=/nonexistent",
        "USER=nobody",
        "LOGNAME=nobody",
        "MINE=yes",
        "PASSED=on",
        "LC_TIME=C",
        "RUNNER_ROLE=app",
        "/",
        "4",
    ] {
        assert!(has(line), "{line} is missing: {said}");
    }
    assert!(!said.contains("TOPSECRET") && !said.contains("RUNNER_LOG"), "{said}");
    let ignored = said.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1, 0, "SIGHUP is at its default again: {said}");
}

#[test]
fn dumps_need_no_sources() {
    let site = Site::new("[role.app.dumps]\n\"a.txt\" = { command = [\"echo\", \"only this\"] }");
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("sources")).collect();
    fs::write(site.path("runner.toml"), without.join("\n")).unwrap();
    site.init();
    assert_eq!(site.backup("east")["outcome"], "committed");
    site.restore(&site.node("east"), "latest", "out");
    assert_eq!(fs::read(site.path("out/a.txt")).unwrap(), b"only this\n");
}

#[test]
fn a_dump_that_prints_nothing_commits_nothing_unless_the_role_may_be_empty() {
    let site = site("true", "");
    for _ in 0..2 {
        let said = site.refused("east", 1);
        assert!(said.contains("app.sql") && said.contains("printed nothing") && said.contains("allow_empty"), "{said}");
        // Also where there was something before.
        say(&site, "echo something");
        site.backup("east");
        say(&site, "true");
    }
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), text.replace("[role.app.dumps]", "allow_empty = true\n[role.app.dumps]"))
        .unwrap();
    assert_eq!(site.backup("east")["outcome"], "committed");
}
