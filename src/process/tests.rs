//! Real commands: their environment, and how they end.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::*;
use crate::config::EnvironmentSettings;
use crate::process::group::POLL;

const LONG: Duration = Duration::from_mins(1);

fn sh(script: &str) -> CommandBuilder {
    let words = ["/bin/sh", "-c", script].map(str::to_owned);
    CommandBuilder::configured(&words, &EnvironmentSettings::default(), &[], None).unwrap()
}

/// The output of the script, run as this user.
fn said(script: &str, user: Option<&str>) -> String {
    let account = user.map(|user| UserAccount::named(user).unwrap().unwrap());
    let words = ["/bin/sh", "-c", script].map(str::to_owned);
    let program = CommandBuilder::configured(&words, &EnvironmentSettings::default(), &[], account).unwrap();
    let (child, _members) = program.piped(false).start_blocking().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn wait_for(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the process whose number is in this file has ended, or is a zombie that waits for its parent.
async fn is_gone(file: &Path) {
    let pid = fs::read_to_string(file).unwrap().trim().to_owned();
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

#[test]
fn it_stands_in_the_root_directory_and_its_files_are_its_own() {
    let zero = "0".repeat(16);
    assert_eq!(said("pwd; umask; grep SigBlk /proc/self/status", None), format!("/\n0077\nSigBlk:\t{zero}\n"));
}

#[test]
fn another_user_has_its_own_groups_and_surroundings_and_none_of_roots_rights() {
    assert!(
        rustix::process::geteuid().is_root(),
        "who may become another user is root: run these tests as root, as CI does"
    );
    let script = "id -u; id -G; echo $HOME $USER $LOGNAME; grep CapEff /proc/self/status";
    let account = UserAccount::named("nobody").unwrap().unwrap();
    let groups: Vec<String> = account.groups.iter().map(|group| group.as_raw().to_string()).collect();
    let home = account.home.display();
    let capabilities = "0".repeat(16);
    assert_eq!(
        said(script, Some("nobody")),
        format!("{}\n{}\n{home} nobody nobody\nCapEff:\t{capabilities}\n", account.uid, groups.join(" "))
    );
    // A user in several groups gets all of them.
    let several = fs::read_to_string("/etc/group").unwrap().lines().find_map(|line| {
        let user = line.rsplit(':').next()?.split(',').next().filter(|user| !user.is_empty())?;
        UserAccount::named(user).unwrap().filter(|account| account.groups.len() > 1 && !account.uid.is_root())
    });
    if let Some(account) = several {
        let mut shown: Vec<u32> =
            said("id -G", Some(&account.name)).split_whitespace().map(|group| group.parse().unwrap()).collect();
        let mut meant: Vec<u32> = account.groups.iter().map(|group| group.as_raw()).collect();
        shown.sort_unstable();
        meant.sort_unstable();
        assert_eq!(shown, meant, "{}", account.name);
    }
    assert_eq!(said("id -u; id -g", None), "0\n0\n", "this process is who it was");
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let words = ["/no/such/program".to_owned()];
    let error =
        CommandBuilder::configured(&words, &EnvironmentSettings::default(), &[], None).unwrap().start().unwrap_err();
    assert_eq!((error.kind(), error.to_string().starts_with("/no/such/program: ")), (io::ErrorKind::NotFound, true));
    assert!(CommandBuilder::configured(&[], &EnvironmentSettings::default(), &[], None).is_err());
}

#[tokio::test]
async fn the_grace_is_the_groups() {
    let dir = tempfile::tempdir().unwrap();
    let (ready, done) = (dir.path().join("ready"), dir.path().join("done"));
    // The shell ends at once; its background job takes longer.
    let job = format!(
        "trap 'sleep 0.3; touch {}; exit 0' TERM; touch {}; while :; do sleep 0.05; done",
        done.display(),
        ready.display()
    );
    let mut group = sh(&format!("sh -c \"{job}\"; echo never")).start().unwrap();
    wait_for(&ready).await;
    assert_eq!(group.terminate(LONG).await.unwrap(), ProcessExit::Signal(15));
    assert!(done.exists(), "it was waited for");
}

#[tokio::test]
async fn after_the_grace_nothing_of_the_group_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script =
        format!("(trap '' TERM; while :; do sleep 0.05; done) & echo $! > {}.new; mv {0}.new {0}; wait", pid.display());
    let mut group = sh(&script).start().unwrap();
    wait_for(&pid).await;
    group.terminate(POLL).await.unwrap();
    is_gone(&pid).await;
}

#[tokio::test]
async fn with_a_cgroup_what_left_the_group_ends_too() {
    let own = cgroup::Cgroup::create();
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("setsid sh -c 'echo $$ > {}.new; mv {0}.new {0}; exec sleep 1000' & wait", pid.display());
    let mut group = sh(&script).start().unwrap();
    wait_for(&pid).await;
    let stray: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    group.terminate(LONG).await.unwrap();
    if own.is_some() {
        is_gone(&pid).await;
    } else {
        // Without a cgroup the process survives, as documented; it is killed here.
        nix::sys::signal::kill(Pid::from_raw(stray), Signal::SIGKILL).unwrap();
    }
}

#[tokio::test]
async fn what_is_dropped_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}.new; mv {0}.new {0}; wait", pid.display());
    let group = sh(&script).start().unwrap();
    wait_for(&pid).await;
    drop(group);
    is_gone(&pid).await;
}

#[tokio::test]
async fn a_command_that_works_burns_time_and_one_that_sleeps_does_not() {
    let (busy, idle) = (sh("while :; do :; done").start().unwrap(), sh("exec sleep 600").start().unwrap());
    let burn = |group: &ProcessGroup| cpu_ticks(group.id().unwrap());
    let before = burn(&idle);
    while burn(&busy) < 5 {
        tokio::time::sleep(POLL).await;
    }
    assert!(burn(&idle) - before < 3, "what it takes to start");
}
