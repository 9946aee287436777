//! The ways, each with real processes.

use std::fs;
use std::time::Duration;

use runner::env::Env;
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::NodeClock;
use crate::etcd::EtcdCluster;
use crate::looks::{Way, is_documented};
use crate::s3_server::{BUCKET, S3Server, environment};
use crate::site::{Site, wait_for, words};
use crate::support::cli::TestNode;

/// A slot each second that must have begun a second later: what is not run is missed at once.
const EVERY_SECOND: &str = "every = \"1s\"\njitter = \"0s\"\nmissed_after = \"1s\"\n";

/// The same for whoever has time.
const LATER: Duration = Duration::from_millis(3500);

const PROBES_NO: Way = Way {
    what: "the probes say no on every node",
    says: "the probes say no here, and no node is seen to be active",
    risk: "missed",
    check: 2,
    audit: 7,
    alert: "missed",
};

const PROBES_UNKNOWN: Way = Way {
    what: "the probes cannot tell on any node",
    says: "the probes cannot tell whether this node is to be active: command",
    risk: "missed",
    check: 2,
    audit: 7,
    alert: "missed",
};

const RUN_FAILS: Way = Way {
    what: "every run fails (a dump of `/bin/false`)",
    says: "last run on east failed",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const NEVER_RUN: Way = Way {
    what: "no daemon and no timer runs",
    says: "check that its daemon or timer runs",
    risk: "missed",
    check: 2,
    audit: 7,
    alert: "missed",
};

const STORE_READ_ONLY: Way = Way {
    what: "the store is read-only",
    says: "Read-only file system",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const STORE_FULL: Way = Way {
    what: "the store is full",
    says: "No space left on device",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const STATE_FULL: Way = Way {
    what: "the disk under the state directory is full",
    says: "the state directory cannot be written",
    risk: "state",
    check: 2,
    audit: 7,
    alert: "failed",
};

const STATE_READ_ONLY: Way = Way { what: "the state directory is read-only", ..STATE_FULL };

const STORE_GONE: Way = Way {
    what: "the store is gone (a directory that is not mounted)",
    says: "last run on east failed",
    risk: "store",
    check: 2,
    audit: 4,
    alert: "failed",
};

const SOURCE_GONE: Way =
    Way { what: "a source is gone", says: "away: No such file", risk: "failed", check: 2, audit: 7, alert: "failed" };

const SOURCE_UNMOUNTED: Way = Way {
    what: "a source is empty where there were files (not mounted)",
    says: "last run on east failed",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const SOURCE_EMPTY: Way = Way {
    what: "the source was never anything but empty",
    says: "there is nothing to store",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const SOURCE_LINK: Way = Way {
    what: "the source is a symbolic link to the data",
    says: "symbolic link",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const ONE_SOURCE_EMPTY: Way = Way {
    what: "one of two sources was never anything but empty",
    says: "/other is backed up: no file was there",
    risk: "empty",
    check: 1,
    audit: 7,
    alert: "incomplete",
};

const ONE_SOURCE_EXCLUDED: Way = Way { what: "`exclude` takes all of one of two sources", ..ONE_SOURCE_EMPTY };

const DUMP_EMPTY: Way = Way {
    what: "a dump prints nothing",
    says: "dump \"app.sql\"",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const PAUSED: Way = Way {
    what: "paused for more than a day, without an end",
    says: "paused for more than a day, without an end",
    risk: "paused",
    check: 2,
    audit: 7,
    alert: "paused_too_long",
};

const DAEMON_HANGS: Way = Way {
    what: "the daemon of the active node hangs",
    says: "the daemon of this node does not answer",
    risk: "daemon",
    check: 2,
    audit: 7,
    alert: "missed",
};

const CLOCK_WRONG: Way = Way {
    what: "the active node's clock is wrong by two hours",
    says: "this node's clock is wrong, so it runs no slots",
    risk: "clock",
    check: 2,
    audit: 7,
    alert: "clock_off",
};

const ETCD_GONE: Way = Way {
    what: "etcd is gone, where the lease is there",
    says: "the holder of the lease cannot be read",
    risk: "lease",
    check: 2,
    audit: 7,
    alert: "missed",
};

const LEASE_REFUSED: Way = Way {
    what: "the store is read-only, and the lease is in it",
    says: "the lease in the store cannot be asked for",
    risk: "lease",
    check: 2,
    audit: 7,
    alert: "missed",
};

const COMMAND_HANGS: Way = Way {
    what: "a command of `exec --scheduled` neither ends nor prints, and keeps the lease",
    says: "the journal has no end of it",
    risk: "missed",
    check: 2,
    audit: 7,
    alert: "missed",
};

const COMMAND_FAILS: Way = Way {
    what: "a command of `exec --scheduled` fails",
    says: "by node east ended with exit code 3",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const COMMAND_TIMED_OUT: Way = Way {
    what: "a command of `exec --scheduled --timeout` takes too long",
    says: "by node east took longer than its --timeout, and was ended by signal 15",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const COMMAND_KILLED: Way = Way {
    what: "a command of `exec --scheduled` is ended by a signal",
    says: "by node east was ended by signal 9",
    risk: "failed",
    check: 2,
    audit: 7,
    alert: "failed",
};

const CLOCK_AHEAD: Way = Way {
    what: "the last run was made by a clock that was four minutes ahead, and none since",
    says: "check that its daemon or timer runs",
    risk: "missed",
    check: 2,
    audit: 7,
    alert: "missed",
};

const RUN_GOES_ON: Way = Way {
    what: "a backup goes on after the next slot has come",
    says: "east began a backup",
    risk: "missed",
    check: 2,
    audit: 7,
    alert: "missed",
};

const SCHEDULE_GONE: Way = Way {
    what: "the schedule was taken out of the config",
    says: "the config has no schedule for this role, and had one",
    risk: "schedule",
    check: 1,
    audit: 7,
    alert: "anomaly",
};

const ALL: [&Way; 28] = [
    &PROBES_NO,
    &PROBES_UNKNOWN,
    &NEVER_RUN,
    &CLOCK_AHEAD,
    &RUN_GOES_ON,
    &SCHEDULE_GONE,
    &RUN_FAILS,
    &STORE_READ_ONLY,
    &STORE_FULL,
    &STATE_FULL,
    &STATE_READ_ONLY,
    &LEASE_REFUSED,
    &COMMAND_HANGS,
    &COMMAND_FAILS,
    &COMMAND_TIMED_OUT,
    &COMMAND_KILLED,
    &STORE_GONE,
    &SOURCE_GONE,
    &SOURCE_UNMOUNTED,
    &SOURCE_EMPTY,
    &SOURCE_LINK,
    &ONE_SOURCE_EMPTY,
    &ONE_SOURCE_EXCLUDED,
    &DUMP_EMPTY,
    &PAUSED,
    &DAEMON_HANGS,
    &CLOCK_WRONG,
    &ETCD_GONE,
];

#[test]
fn the_table_in_the_docs_is_this_one() {
    is_documented(&ALL);
}

/// A pair with a slot each second, of which east is the active one, and that tells.
fn pair(lines: &str) -> Site {
    let site = Site::pair("");
    site.config(&format!("{}{}", site.probed(&format!("{EVERY_SECOND}{lines}")), site.telling()));
    site.write("file", "content");
    site.init();
    site.move_to("east");
    site
}

/// A run for a slot, as a timer starts it, and how it ended.
fn run_slot(node: &TestNode) -> i32 {
    node.run(["backup", "--scheduled"]).code.unwrap()
}

/// A node whose clock is three minutes on: still right, and as long after what it saw before as a standby waits for a sign of life.
fn later(site: &Site, name: &str) -> TestNode {
    let clock = NodeClock::new(site.dir(), &format!("later-{name}"));
    clock.set(180);
    clock.on(site.node(name))
}

/// Starts the program in a mount namespace of its own, after this script; `$S` is the store's directory, `$T` the node's state.
fn behind_mount(site: &Site, node: TestNode, script: &str) -> TestNode {
    let (store, state) = (site.path("store"), node.state_dir.clone());
    let script = format!("S={}; T={}; {script}; exec \"$@\"", store.display(), state.display());
    let command = ["unshare", "-rm", "--propagation", "private", "sh", "-ec", &script, "sh"];
    node.started_by(command.map(str::to_owned).to_vec())
}

#[test]
fn probes_that_say_no_everywhere_are_seen_everywhere() {
    let site = pair("");
    site.move_to("none");
    std::thread::sleep(LATER);
    for name in ["east", "west"] {
        assert_eq!(run_slot(&site.node(name)), 0, "each for itself stands by in good order");
        assert_eq!(run_slot(&later(&site, name)), 0);
        PROBES_NO.is_seen(&site.node(name));
    }
    PROBES_NO.is_told(&site);
    let role = crate::site::role(&site.node("west").run(["whoami", "--json"]).expect(0));
    assert_eq!((&role["warnings"][0]["cause"], &role["last_run"]), (&"not_eligible".into(), &serde_json::Value::Null));
}

#[test]
fn probes_that_cannot_tell_anywhere_are_seen_everywhere_with_what_they_lack() {
    let site = pair("");
    fs::remove_file(site.path("active")).unwrap();
    std::thread::sleep(LATER);
    for name in ["east", "west"] {
        assert_eq!(run_slot(&site.node(name)), 4, "unknown is not yes");
        assert_eq!(run_slot(&later(&site, name)), 4);
        PROBES_UNKNOWN.is_seen(&site.node(name));
    }
    PROBES_UNKNOWN.is_told(&site);
    let role = crate::site::role(&site.node("west").run(["whoami", "--json"]).expect(0));
    assert_eq!(role["warnings"][0]["cause"], "probes_unknown");
}

#[test]
fn a_timer_that_does_not_run_is_seen_on_every_node() {
    let site = pair("");
    assert_eq!(run_slot(&site.node("east")), 0);
    std::thread::sleep(LATER);
    NEVER_RUN.is_seen(&site.node("east"));
    Way { says: "the probes say no here", ..NEVER_RUN }.is_seen(&site.node("west"));
    assert_eq!((run_slot(&site.node("west")), run_slot(&later(&site, "west"))), (0, 0));
    NEVER_RUN.is_told(&site);
}

#[test]
fn a_run_by_a_clock_that_is_a_little_ahead_hides_no_slot_and_stops_none() {
    let site = pair("");
    assert_eq!(run_slot(&site.node("east")), 0);
    let clock = NodeClock::new(site.dir(), "ahead");
    clock.set(240);
    assert_eq!(run_slot(&clock.on(site.node("east"))), 0);
    std::thread::sleep(LATER);
    CLOCK_AHEAD.is_seen(&site.node("east"));
    Way { says: "the probes say no here", ..CLOCK_AHEAD }.is_seen(&site.node("west"));
    assert_eq!((run_slot(&site.node("west")), run_slot(&later(&site, "west"))), (0, 0));
    CLOCK_AHEAD.is_told(&site);
    // What is due is run all the same, although a later slot is committed.
    let before = site.snapshots().len();
    for n in 1..=2 {
        let run = site.node("east").run(["backup", "--scheduled"]).expect(0);
        assert_eq!(site.snapshots().len(), before + n, "{}", words(&run));
        std::thread::sleep(Duration::from_millis(1100));
    }
    let check = site.node("east").run(["whoami", "--check"]);
    assert!(!check.stdout.contains("missed") || check.stdout.contains("the slot"), "{}", check.stdout);
}

/// Whether anything that is looked at on this node calls a slot missed.
fn misses(node: &TestNode) -> Option<String> {
    let looks = [&["whoami"][..], &["status"], &["whoami", "--check"], &["audit"]];
    let says = looks.map(|look| node.run(look.iter().copied())).map(|run| run.stdout);
    let misses = |text: &String| {
        let text = text.replace(", 0 missed", "");
        text.contains("missed") || text.contains("MISSED") || text.contains("no run in time")
    };
    says.into_iter().find(misses)
}

#[test]
fn a_run_that_goes_on_is_not_missed_before_the_next_slot() {
    let slow = |every: &str, seconds: u32| {
        format!(
            "every = \"{every}\"\njitter = \"0s\"\nmissed_after = \"1s\"\n[role.app.dumps]\n\
             \"app.sql\" = {{ command = [\"sh\", \"-c\", \"sleep {seconds}; echo data\"] }}\n"
        )
    };
    for daemon in [true, false] {
        let site = pair("");
        assert_eq!(run_slot(&site.node("east")), 0);
        site.config(&format!("{}{}", site.probed(&slow("20s", 9)), site.telling()));
        let now = || Env::host().clock.now().as_second();
        let left = || 20 - now().rem_euclid(20);
        let mut runs = if daemon {
            site.node("east").start(["daemon"])
        } else {
            std::thread::sleep(Duration::from_secs(left() as u64));
            site.node("east").start(["backup", "--scheduled"])
        };
        if daemon {
            std::thread::sleep(Duration::from_secs(left() as u64));
        }
        std::thread::sleep(LATER);
        let began = now() / 20;
        for name in ["east", "west"] {
            let misses = misses(&site.node(name));
            assert_eq!(now() / 20, began, "this host is too slow for this test");
            assert_eq!(misses, None, "seen from {name}, by a daemon: {daemon}");
        }
        kill_process(Pid::from_child(&runs), Signal::KILL).unwrap();
        runs.wait().unwrap();
    }
    let site = pair("");
    assert_eq!(run_slot(&site.node("east")), 0);
    site.config(&format!("{}{}", site.probed(&slow("1s", 60)), site.telling()));
    // The next slot.
    std::thread::sleep(Duration::from_millis(1100));
    let mut hangs = site.node("east").start(["backup", "--scheduled"]);
    wait_for(|| site.path("store/app/live/beat").exists());
    std::thread::sleep(LATER);
    for name in ["east", "west"] {
        RUN_GOES_ON.is_seen(&site.node(name));
    }
    assert_eq!((run_slot(&site.node("west")), run_slot(&later(&site, "west"))), (0, 0), "it stands by");
    RUN_GOES_ON.is_told(&site);
    kill_process(Pid::from_child(&hangs), Signal::KILL).unwrap();
    hangs.wait().unwrap();
}

#[test]
fn a_role_that_has_lost_its_schedule_is_seen() {
    let site = pair("");
    assert_eq!(run_slot(&site.node("east")), 0);
    site.config(&format!("{}{}", site.probed(""), site.telling()));
    for name in ["east", "west"] {
        SCHEDULE_GONE.is_seen(&site.node(name));
    }
    site.node("east").run(["backup", "app"]).expect(0);
    SCHEDULE_GONE.is_told(&site);
    SCHEDULE_GONE.is_seen(&site.node("east"));
    // A role that never had one is another matter.
    let by_hand = Site::pair("");
    by_hand.config(&by_hand.probed(""));
    by_hand.write("file", "content");
    by_hand.init();
    by_hand.move_to("east");
    by_hand.node("east").run(["backup", "app"]).expect(0);
    for name in ["east", "west"] {
        by_hand.node(name).run(["whoami", "--check"]).expect(0);
        by_hand.node(name).run(["audit"]).expect(0);
    }
}

#[test]
fn a_run_that_fails_is_seen_on_every_node_with_its_error() {
    let site = pair("[role.app.dumps]\n\"app.sql\" = { command = [\"/bin/false\"] }\n");
    for _ in 0..2 {
        assert_eq!(run_slot(&site.node("east")), 1);
    }
    std::thread::sleep(LATER);
    for name in ["east", "west"] {
        let node = site.node(name);
        RUN_FAILS.is_seen(&node);
        Way { says: "app.sql", ..RUN_FAILS }.is_seen(&node);
        let run = crate::site::role(&node.run(["whoami", "--json"]).expect(0))["last_run"].clone();
        assert_eq!((&run["node"], &run["outcome"]), (&"east".into(), &"failed".into()), "{run}");
        assert!(run["error"].as_str().unwrap().contains("app.sql"), "{run}");
    }
    RUN_FAILS.is_told(&site);
    let told = fs::read_dir(site.path("store/app/live/nodes")).unwrap().next().unwrap().unwrap().path();
    assert!(!fs::read_to_string(told).unwrap().contains("app.sql"), "the store is not told in clear what runs here");
    // The next commit ends it, on both.
    site.config(&format!("{}{}", site.probed(EVERY_SECOND), site.telling()));
    assert_eq!(run_slot(&site.node("east")), 0);
    for name in ["east", "west"] {
        let role = crate::site::role(&site.node(name).run(["whoami", "--json"]).expect(0));
        assert!(role["warnings"].as_array().unwrap().iter().all(|w| w["kind"] != "run_failed"), "{role}");
        assert_eq!(role["last_run"]["outcome"], "committed", "{role}");
    }
}

#[test]
fn a_store_that_takes_nothing_is_seen() {
    let full = "mount -t tmpfs -o size=16m tmpfs /mnt; cp -a \"$S/.\" /mnt; mount --move /mnt \"$S\"; \
                cat /dev/zero > \"$S/filler\" 2>&- || :";
    for (way, script) in
        [(&STORE_READ_ONLY, "mount --bind \"$S\" \"$S\"; mount -o remount,bind,ro \"$S\""), (&STORE_FULL, full)]
    {
        let site = pair("");
        assert_eq!(run_slot(&site.node("east")), 0);
        site.write("more", vec![7; 100_000]);
        std::thread::sleep(LATER);
        assert_eq!(run_slot(&behind_mount(&site, site.node("east"), script)), 1, "{}", way.what);
        way.is_seen(&site.node("east"));
        way.is_told(&site);
        Way { says: "the probes say no here", risk: "missed", ..*way }.is_seen(&site.node("west"));
    }
}

#[test]
fn a_state_directory_that_takes_nothing_is_seen_also_by_the_peer() {
    let full = "mount -t tmpfs -o size=16m tmpfs /mnt; cp -a \"$T/.\" /mnt; mount --move /mnt \"$T\"; \
                cat /dev/zero > \"$T/filler\" 2>&- || :";
    for (way, script) in
        [(&STATE_FULL, full), (&STATE_READ_ONLY, "mount --bind \"$T\" \"$T\"; mount -o remount,bind,ro \"$T\"")]
    {
        let site = pair("");
        assert_eq!(run_slot(&site.node("east")), 0);
        std::thread::sleep(LATER);
        let east = || behind_mount(&site, site.node("east"), script);
        assert_eq!(run_slot(&east()), 1, "{}", way.what);
        way.is_seen(&east());
        way.is_told(&site);
        // Nothing is written down on east: what west knows was told to it.
        Way { says: "last run on east failed", risk: "failed", ..*way }.is_seen(&site.node("west"));
    }
}

#[test]
fn a_run_that_fails_is_a_finding_also_where_no_slot_was_missed() {
    let site = pair("[role.app.dumps]\n\"app.sql\" = { command = [\"/bin/false\"] }\n");
    let config = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), config.replace(EVERY_SECOND, "")).unwrap();
    site.node("east").run(["audit"]).expect(0);
    site.node("east").run(["backup", "app"]).expect(1);
    for name in ["east", "west"] {
        site.node(name).run(["whoami", "--check"]).expect(2);
        let audit = site.node(name).run(["audit"]).expect(7).stdout;
        assert!(audit.contains("FAILED") && audit.contains("last run on east failed"), "{audit}");
    }
}

#[test]
fn a_store_that_takes_no_lease_is_seen() {
    let read_only = "mount --bind \"$S\" \"$S\"; mount -o remount,bind,ro \"$S\"";
    let site = Site::leased("");
    site.config(&format!("{EVERY_SECOND}takeover_delay = \"0s\"\n{}", site.telling()));
    site.write("file", "content");
    site.init();
    assert_eq!(run_slot(&site.node("east")), 0);
    std::thread::sleep(LATER);
    let cause = Way { says: "Read-only file system", ..LEASE_REFUSED };
    assert_eq!(run_slot(&behind_mount(&site, site.node("east"), read_only)), 4);
    for way in [&LEASE_REFUSED, &cause] {
        way.is_seen(&site.node("east"));
    }
    assert_eq!(run_slot(&behind_mount(&site, later(&site, "east"), read_only)), 4);
    LEASE_REFUSED.is_told(&site);
    // The next commit ends it, and a daemon that has the same trouble says the same.
    assert_eq!(run_slot(&site.node("east")), 0);
    let says = |text: &str| site.node("east").run(["status"]).expect(0).stdout.contains(text);
    assert!(!says("Read-only"));
    let mut daemon = behind_mount(&site, site.node("east"), read_only).start(["daemon"]);
    wait_for(|| says("Read-only"));
    cause.is_seen(&site.node("east"));
    kill_process(Pid::from_child(&daemon), Signal::KILL).unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_command_that_neither_ends_nor_prints_is_seen_from_both_nodes() {
    let site = Site::leased("");
    site.config(&format!("{EVERY_SECOND}bucket_lease_ttl = \"4s\"\ntakeover_delay = \"0s\"\n{}", site.telling()));
    site.write("file", "content");
    site.init();
    assert_eq!(run_slot(&site.node("east")), 0);
    // The next slot.
    std::thread::sleep(Duration::from_millis(1100));
    let mut hangs = site.node("east").start(["exec", "--scheduled", "app", "--", "sleep", "1000"]);
    wait_for(|| site.records().last().unwrap()["kind"] == "begin");
    std::thread::sleep(LATER);
    for name in ["east", "west"] {
        COMMAND_HANGS.is_seen(&site.node(name));
        let role = crate::site::role(&site.node(name).run(["whoami", "--json"]).expect(0));
        let warning = &role["warnings"][0];
        assert_eq!((&warning["cause"], &warning["running"]["node"]), (&"running".into(), &"east".into()), "{warning}");
    }
    assert_eq!((run_slot(&site.node("west")), run_slot(&later(&site, "west"))), (0, 0), "it stands by");
    COMMAND_HANGS.is_told(&site);
    // Its end is not the cause of anything any more.
    kill_process(Pid::from_child(&hangs), Signal::TERM).unwrap();
    assert_eq!(hangs.wait().unwrap().code(), Some(143));
    let check = site.node("west").run(["whoami", "--check"]).expect(2).stdout;
    assert!(!check.contains(COMMAND_HANGS.says), "{check}");
    site.node("west").run(["exec", "--scheduled", "app", "--", "true"]).expect(0);
    assert!(!site.node("west").run(["whoami"]).expect(0).stdout.contains("CRITICAL"));
}

#[test]
fn a_command_that_fails_is_seen_at_once_from_both_nodes() {
    for (way, args) in [
        (&COMMAND_FAILS, &["--", "sh", "-c", "exit 3"][..]),
        (&COMMAND_TIMED_OUT, &["--timeout", "200ms", "--", "sleep", "1000"]),
        (&COMMAND_KILLED, &["--", "sh", "-c", "kill -9 $$"]),
    ] {
        let site = Site::pair("");
        // No slot passes meanwhile.
        let lines = "every = \"876000h\"\njitter = \"0s\"\n";
        site.config(&format!("{}{}", site.probed(lines), site.telling()));
        site.write("file", "content");
        site.init();
        site.move_to("east");
        let exec = |args: &[&str]| {
            let all = ["exec", "--scheduled", "app"].iter().chain(args).copied();
            site.node("east").run(all).code
        };
        // Where the role is the command's alone.
        site.node("east").run(["exec", "app", "--", "false"]).expect(1);
        site.node("east").run(["audit"]).expect(0);
        assert_ne!(exec(args), Some(0), "{}", way.what);
        for name in ["east", "west"] {
            let node = site.node(name);
            way.is_seen(&node);
            let role = crate::site::role(&node.run(["whoami", "--json"]).expect(0));
            assert_eq!((&role["last_run"]["node"], &role["last_run"]["step"]), (&"east".into(), &"command".into()));
            assert_eq!(role["warnings"][0]["kind"], "command_failed", "{role}");
        }
        way.is_told(&site);
        assert_eq!(exec(&["--", "true"]), Some(0));
        for name in ["east", "west"] {
            site.node(name).run(["whoami", "--check"]).expect(0);
            site.node(name).run(["audit"]).expect(0);
        }
        let last = site.told().pop().unwrap();
        assert_eq!((&last["event"], &last["phase"]), (&"failed".into(), &"over".into()), "{last}");
    }
}

#[test]
fn a_store_that_is_gone_is_seen() {
    let site = pair("");
    assert_eq!(run_slot(&site.node("east")), 0);
    fs::rename(site.path("store"), site.path("away")).unwrap();
    std::thread::sleep(LATER);
    assert_eq!(run_slot(&site.node("east")), 1);
    STORE_GONE.is_seen(&site.node("east"));
    STORE_GONE.is_told(&site);
    Way { says: "the store cannot be read", check: 1, ..STORE_GONE }.is_seen(&site.node("west"));
}

#[test]
fn a_source_that_is_gone_or_not_mounted_is_seen() {
    let source = |site: &Site, way: &Way| {
        std::thread::sleep(LATER);
        assert_eq!(run_slot(&site.node("east")), 1);
        for name in ["east", "west"] {
            way.is_seen(&site.node(name));
        }
        way.is_told(site);
    };
    let site = pair("");
    assert_eq!(run_slot(&site.node("east")), 0);
    fs::rename(site.src(), site.path("away")).unwrap();
    source(&site, &Way { says: "src", ..SOURCE_GONE });
    fs::create_dir(site.src()).unwrap();
    source(&site, &SOURCE_UNMOUNTED);
}

#[test]
fn a_first_backup_that_would_hold_nothing_is_seen() {
    let dump = "[role.app.dumps]\n\"app.sql\" = { command = [\"true\"] }\n";
    for (way, lines) in [(&SOURCE_EMPTY, ""), (&SOURCE_LINK, ""), (&DUMP_EMPTY, dump)] {
        let site = pair(lines);
        if way.what != DUMP_EMPTY.what {
            fs::remove_file(site.src().join("file")).unwrap();
        }
        if way.what == SOURCE_LINK.what {
            fs::rename(site.src(), site.path("data")).unwrap();
            fs::write(site.path("data/file"), "content").unwrap();
            std::os::unix::fs::symlink(site.path("data"), site.src()).unwrap();
        }
        std::thread::sleep(LATER);
        assert_eq!(run_slot(&site.node("east")), 1, "{}", way.what);
        for name in ["east", "west"] {
            way.is_seen(&site.node(name));
        }
        way.is_told(&site);
    }
}

#[test]
fn a_source_that_never_held_a_file_is_seen_beside_one_that_does_until_it_does() {
    let no_slot = "every = \"876000h\"\njitter = \"0s\"\n";
    for (way, exclude) in [(&ONE_SOURCE_EMPTY, ""), (&ONE_SOURCE_EXCLUDED, "exclude = [\"/**/other/**\"]\n")] {
        let site = Site::pair("");
        let config = |exclude: &str| {
            site.config(&format!("{}{}", site.probed(&format!("{no_slot}{exclude}")), site.telling()));
            let path = site.path("runner.toml");
            let text = fs::read_to_string(&path).unwrap();
            let sources = format!("sources = [{:?}, {:?}]", site.src(), site.path("other"));
            let line = text.lines().find(|line| line.starts_with("sources")).unwrap();
            fs::write(&path, text.replace(line, &sources)).unwrap();
        };
        config(exclude);
        fs::create_dir(site.path("other")).unwrap();
        if !exclude.is_empty() {
            fs::write(site.path("other/file"), "content").unwrap();
        }
        site.write("file", "content");
        site.init();
        site.move_to("east");
        assert_eq!(run_slot(&site.node("east")), 0, "{}", way.what);
        for name in ["east", "west"] {
            let node = site.node(name);
            way.is_seen(&node);
            let listed = node.run(["snapshots", "app"]).expect(0).stdout;
            assert!(listed.contains("EMPTY"), "{listed}");
            let role = crate::site::role(&node.run(["whoami", "--json"]).expect(0));
            assert_eq!(role["warnings"][0]["kind"], "empty_source", "{role}");
            assert_eq!(role["last_backup"]["empty_sources"], 1, "{role}");
        }
        way.is_told(&site);
        let told = site.told().pop().unwrap();
        assert_eq!(told["cause"], "empty_source", "{told}");
        assert!(told["detail"].as_str().unwrap().ends_with("/other"), "{told}");
        let records = fs::read(site.path("store/app/journal").read_dir().unwrap().last().unwrap().unwrap().path());
        assert!(!String::from_utf8_lossy(&records.unwrap()).contains("other"), "no path stands in the journal");
        // Runs without a change leave it as it is, and a snapshot with content ends it.
        site.node("east").run(["backup", "app"]).expect(0);
        way.is_seen(&site.node("west"));
        config("");
        fs::write(site.path("other/file"), "content").unwrap();
        site.node("east").run(["backup", "app"]).expect(0);
        for name in ["east", "west"] {
            site.node(name).run(["whoami", "--check"]).expect(0);
            site.node(name).run(["audit"]).expect(0);
        }
        let last = site.told().pop().unwrap();
        assert_eq!((&last["event"], &last["phase"]), (&"incomplete".into(), &"over".into()), "{last}");
        // One that had content and has none is refused, and where that was allowed once it is told again.
        fs::remove_file(site.path("other/file")).unwrap();
        site.node("east").run(["backup", "app"]).expect(1);
        site.node("west").run(["whoami", "--check"]).expect(2);
        config("allow_empty = true\n");
        site.node("east").run(["backup", "app"]).expect(0);
        site.node("east").run(["whoami", "--check"]).expect(0);
        config("");
        way.is_seen(&site.node("west"));
    }
}

#[test]
fn two_leases_of_one_role_are_critical_on_both_nodes() {
    let site = Site::leased("takeover_delay = \"0s\"\n");
    site.write("file", "content");
    site.init();
    let config = site.path("runner.toml");
    let bucket = fs::read_to_string(&config).unwrap();
    site.backup("east");
    let none = bucket.replace("[role.app]\n", "[role.app]\nlease = \"none\"\nnodes = [\"east\", \"west\"]\n");
    fs::write(&config, none).unwrap();
    site.backup("west");
    for (name, text) in [("west", None), ("east", Some(bucket))] {
        if let Some(text) = text {
            fs::write(&config, text).unwrap();
        }
        let check = site.node(name).run(["whoami", "--check"]).expect(2).stdout;
        assert!(check.contains("they do not exclude each other"), "{check}");
    }
}

#[test]
fn a_pause_that_was_forgotten_is_seen_and_one_with_an_end_is_a_warning() {
    let site = pair("");
    assert_eq!(run_slot(&site.node("east")), 0);
    let clock = NodeClock::new(site.dir(), "long-ago");
    clock.set(-25 * 3600);
    let west = clock.with_files(site.node("west"));
    west.run(["pause", "app", "--why", "disk swap"]).expect(0);
    std::thread::sleep(LATER);
    assert_eq!((run_slot(&site.node("east")), run_slot(&later(&site, "east"))), (0, 0));
    for name in ["east", "west"] {
        PAUSED.is_seen(&site.node(name));
    }
    PAUSED.is_told(&site);
    // One pause follows the other: no slot comes between them.
    site.node("east").run(["pause", "app", "--for", "2h"]).expect(0);
    let check = site.node("east").run(["whoami", "--check"]).expect(1).stdout;
    assert!(check.contains("paused until"), "{check}");
    // That the pause itself was dated by a clock that was behind is all that is left to tell.
    let audit = site.node("east").run(["audit", "--json"]).expect(7).json();
    let kinds: Vec<&str> =
        audit["roles"][0]["findings"].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["backdated"], "{audit}");
}

#[test]
fn a_daemon_that_hangs_is_seen() {
    let site = pair("");
    let mut daemon = site.node("east").start(["daemon"]);
    wait_for(|| !site.snapshots().is_empty());
    kill_process(Pid::from_child(&daemon), Signal::STOP).unwrap();
    std::thread::sleep(LATER);
    DAEMON_HANGS.is_seen(&site.node("east"));
    Way { says: "the probes say no here", risk: "missed", ..DAEMON_HANGS }.is_seen(&site.node("west"));
    assert_eq!((run_slot(&site.node("west")), run_slot(&later(&site, "west"))), (0, 0));
    DAEMON_HANGS.is_told(&site);
    kill_process(Pid::from_child(&daemon), Signal::KILL).unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_clock_that_is_wrong_is_seen() {
    let server = S3Server::start();
    let (url, objects) = (format!("s3://{BUCKET}/prod"), server.root.join(BUCKET).join("prod"));
    let site = Site::on_s3(&url, &server.endpoint, objects, environment(), "");
    site.config(&format!("{}{}", site.probed(EVERY_SECOND), site.telling()));
    site.write("file", "content");
    site.init();
    site.move_to("east");
    assert_eq!(run_slot(&site.node("east")), 0);
    std::thread::sleep(LATER);
    let clock = NodeClock::new(site.dir(), "wrong");
    clock.set(7200);
    let east = clock.on(site.node("east"));
    assert_eq!(run_slot(&east), 4);
    CLOCK_WRONG.is_seen(&east);
    CLOCK_WRONG.is_told(&site);
    Way { says: "ahead of the store's", ..CLOCK_WRONG }.is_seen(&east);
    Way { says: "the probes say no here", risk: "missed", ..CLOCK_WRONG }.is_seen(&site.node("west"));
}

#[test]
fn who_records_with_a_clock_that_is_ahead_is_warned_and_dated_by_the_stores() {
    let site = Site::leased("");
    site.config(&format!("every = \"1h\"\n{}", site.telling()));
    site.write("file", "content");
    site.init();
    site.node("east").run(["backup", "app"]).expect(0);
    let clock = NodeClock::new(site.dir(), "ahead");
    clock.set(5 * 3600);
    let west = clock.on(site.node("west"));
    let said = west.run(["takeover", "app", "--json"]).expect(0);
    let warning = &said.json()["warnings"][0];
    assert_eq!((&warning["kind"], warning["hint"].is_string()), (&"clock_off".into(), true), "{warning}");
    assert!(words(&said).contains("5h ahead of the store's") && words(&said).contains("hint:"), "{}", words(&said));
    let run = west.run(["backup", "app", "--json"]).expect(0).json();
    assert_eq!(run["roles"][0]["warnings"][0]["kind"], "clock_off", "{run}");
    west.run(["exec", "app", "--", "true"]).expect(0);
    west.run(["pause", "app", "--for", "2h"]).expect(4);
    let run = site.node("east").run(["backup", "app", "--json"]).expect(0).json();
    assert_eq!(run["roles"][0]["warnings"], serde_json::json!([]), "{run}");
    assert_eq!(run["roles"][0]["outcome"], "standby", "the role is west's, which has run since it was given it: {run}");
    let audit = site.node("east").run(["audit", "--json"]).json();
    let kinds: Vec<_> = audit["roles"][0]["findings"].as_array().unwrap().iter().map(|f| f["kind"].clone()).collect();
    assert!(!kinds.contains(&"future".into()), "{audit}");
    site.node("east").run(["whoami", "--check"]).expect(0);
}

#[test]
fn an_etcd_that_is_gone_is_seen() {
    let mut etcd = EtcdCluster::single();
    let lines = format!(
        "{EVERY_SECOND}takeover_delay = \"0s\"\n[etcd]\nendpoints = {:?}\nlease_ttl = \"3s\"\n",
        etcd.endpoints()
    );
    let site = Site::leased("");
    site.config(&format!("{lines}{}", site.telling()));
    site.write("file", "content");
    site.init();
    assert_eq!(run_slot(&site.node("east")), 0);
    etcd.kill(0);
    std::thread::sleep(LATER);
    for name in ["east", "west"] {
        assert_eq!((run_slot(&site.node(name)), run_slot(&later(&site, name))), (4, 4));
        ETCD_GONE.is_seen(&site.node(name));
    }
    ETCD_GONE.is_told(&site);
}
