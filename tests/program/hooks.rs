//! Hooks: in their order, with their environment, bounded, and `after` whatever happens.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use runner::env::Env;

use crate::site::{Site, role, wait_for, words};

/// Lines of a role whose hooks write down what they are and what they know.
fn hooks(site: &Site) -> String {
    let log = site.path("log");
    let hook = |name: &str| {
        let script = format!(
            "echo {name} $RUNNER_ROLE $RUNNER_TERM $RUNNER_NODE ${{RUNNER_SLOT:-none}} $RUNNER_OUTCOME >> {}",
            log.display()
        );
        format!("{name} = [\"sh\", \"-c\", \"{script}\"]\n")
    };
    ["before", "after", "on_takeover", "on_lost"].map(hook).concat()
}

/// What they wrote, and no more of it.
fn log(site: &Site) -> Vec<String> {
    let text = fs::read_to_string(site.path("log")).unwrap_or_default();
    let _ = fs::remove_file(site.path("log"));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn they_run_in_their_order_and_know_what_it_is_about() {
    let site = Site::new("");
    let probed = site.probed(&hooks(&site));
    site.config(&format!("every = \"1h\"\n{probed}"));
    site.write("file", "content");
    site.init();
    site.move_to("east");
    site.backup("east");
    assert_eq!(
        log(&site),
        ["on_takeover app 1 east none", "before app 1 east none", "after app 1 east none committed"]
    );
    site.backup("east");
    assert_eq!(log(&site), ["before app 1 east none", "after app 1 east none unchanged"], "it has the role already");
    let run = role(&site.node("east").run(["backup", "app", "--scheduled", "--json"]).expect(0));
    let slot = run["slot"].as_str().unwrap();
    assert_eq!(log(&site), [format!("before app 1 east {slot}"), format!("after app 1 east {slot} unchanged")]);

    site.move_to("west");
    site.backup("west");
    assert_eq!(log(&site)[0], "on_takeover app 2 west none");
    for lost in [vec!["on_lost app 1 east none".to_owned()], Vec::new()] {
        assert_eq!(role(&site.node("east").run(["backup", "app", "--json"]).expect(0))["outcome"], "standby");
        assert_eq!(log(&site), lost, "once");
    }
}

#[test]
fn a_before_that_fails_fails_the_run_and_after_is_run_all_the_same() {
    let site = Site::new("");
    let fail = |hook: &str| {
        hooks(&site).replace(
            &format!("sh\", \"-c\", \"echo {hook}"),
            &format!(
                "sh\", \"-c\", \"echo out of order; test -e {} || exit 3; echo {hook}",
                site.path("fine").display()
            ),
        )
    };
    site.config(&fail("before"));
    site.write("file", "content");
    site.init();
    let said = site.refused("east", 1);
    assert!(said.contains("hook before: exit code 3"), "{said}");
    assert_eq!(log(&site), ["on_takeover app 1 east none", "after app 1 east none failed"]);
    let run = site.node("east").run(["-v", "backup", "app"]).expect(1);
    assert!(words(&run).contains("role app, before: out of order"), "its output is in the log: {}", run.stderr);
    log(&site);
    fs::write(site.path("fine"), "").unwrap();
    assert_eq!(site.backup("east")["outcome"], "committed");
    assert_eq!(log(&site), ["before app 1 east none", "after app 1 east none committed"]);

    // What after says changes nothing, and is loud.
    fs::remove_file(site.path("fine")).unwrap();
    site.config(&fail("after"));
    let run = site.node("east").run(["backup", "app"]).expect(0);
    assert!(words(&run).contains("hook after: exit code 3"), "{}", run.stderr);
    assert_eq!(log(&site), ["before app 1 east none"]);

    // A run that fails later.
    site.config(&format!("{}[role.app.dumps]\n\"a\" = {{ command = [\"false\"] }}", hooks(&site)));
    site.refused("east", 1);
    assert_eq!(log(&site), ["before app 1 east none", "after app 1 east none failed"]);
}

#[test]
fn what_a_crash_left_open_is_closed_at_the_next_start_also_of_a_standby() {
    let site = Site::new("");
    let begun = site.path("begun");
    let slow = |site: &Site| {
        let dump = format!("touch {}; sleep 30", begun.display());
        let lines = site.probed(&hooks(site));
        site.config(&format!("{lines}[role.app.dumps]\n\"a\" = {{ command = [\"sh\", \"-c\", \"{dump}\"] }}"));
    };
    slow(&site);
    site.write("file", "content");
    site.init();
    site.move_to("east");
    for standby in [false, true] {
        slow(&site);
        site.move_to("east");
        let _ = fs::remove_file(&begun);
        let mut run = site.node("east").start(["backup", "app"]);
        wait_for(|| begun.exists());
        // Another run that starts now leaves alone what is open.
        site.node("east").run(["backup", "app"]).expect(1);
        let so_far = log(&site);
        assert!(so_far.last().unwrap().starts_with("before app 1 east"), "{so_far:?}");
        run.kill().unwrap();
        run.wait().unwrap();
        let lines = site.probed(&hooks(&site));
        site.config(&lines);
        if standby {
            site.move_to("west");
            site.node("east").run(["backup", "app"]).expect(0);
            let expected = ["after app 1 east none unknown", "on_lost app 1 east none"];
            assert_eq!(log(&site), expected);
        } else {
            site.backup("east");
            let expected =
                ["after app 1 east none unknown", "before app 1 east none", "after app 1 east none committed"];
            assert_eq!(log(&site), expected);
        }
    }
}

#[test]
fn one_that_hangs_is_killed_with_its_children() {
    let site = Site::new("");
    let survived = site.path("survived");
    let hang = format!("trap '' TERM; (sleep 4; touch {}) & wait", survived.display());
    let lines = hooks(&site).replacen("echo before", &format!("{hang}; echo before"), 1);
    site.config(&format!("hook_timeout = \"1s\"\nbucket_lease_ttl = \"2s\"\n{lines}"));
    site.write("file", "content");
    site.init();
    let started = Env::host().clock.boottime();
    let said = site.refused("east", 1);
    assert!(said.contains("hook before: killed after 1s"), "{said}");
    let elapsed = Env::host().clock.boottime().saturating_sub(started);
    assert!(elapsed < Duration::from_secs(30));
    assert_eq!(log(&site), ["on_takeover app 1 east none", "after app 1 east none failed"]);
    std::thread::sleep(Duration::from_secs(4));
    assert!(!survived.exists(), "its children are killed with it");
}

#[test]
fn a_daemon_says_when_it_has_the_role_and_when_it_gives_it_up() {
    let site = Site::leased("bucket_lease_ttl = \"2s\"\ntakeover_delay = \"0s\"\nevery = \"1s\"\n");
    let lines = "bucket_lease_ttl = \"2s\"\ntakeover_delay = \"0s\"\nevery = \"1s\"\n";
    site.config(&format!("{lines}{}", hooks(&site)));
    site.write("file", "content");
    site.init();
    let seen = |what: &str| fs::read_to_string(site.path("log")).unwrap_or_default().contains(what);
    let mut run = site.node("east").start(["daemon"]);
    wait_for(|| seen("after app 1 east"));
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert!(run.wait().unwrap().success());
    let said = log(&site);
    assert_eq!(said[0], "on_takeover app 1 east none");
    assert_eq!(said.last().unwrap(), "on_lost app 1 east none");
    assert_eq!(said.iter().filter(|line| line.starts_with("on_")).count(), 2, "{said:?}");
    let records: Vec<Value> = site.records();
    assert!(records.len() > 1, "{records:?}");
}

#[test]
fn between_two_daemons_each_hears_of_its_part() {
    let site = Site::new("");
    let lines = format!("every = \"1s\"\ntakeover_delay = \"0s\"\n{}", site.probed(&hooks(&site)));
    site.config(&lines);
    site.write("file", "content");
    site.init();
    site.move_to("east");
    let seen = |what: &str| fs::read_to_string(site.path("log")).unwrap_or_default().contains(what);
    let mut east = site.node("east").start(["daemon"]);
    wait_for(|| seen("after app 1 east"));
    let mut west = site.node("west").start(["daemon"]);
    site.move_to("west");
    wait_for(|| seen("after app 2 west") && seen("on_lost"));
    for run in [&mut east, &mut west] {
        kill_process(Pid::from_child(run), Signal::TERM).unwrap();
        assert!(run.wait().unwrap().success());
    }
    let told: Vec<String> = log(&site).into_iter().filter(|line| line.starts_with("on_")).collect();
    let of = |node: &str| told.iter().filter(|line| line.contains(node)).map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("east"), ["on_takeover app 1 east none", "on_lost app 1 east none"]);
    assert_eq!(of("west"), ["on_takeover app 2 west none", "on_lost app 2 west none"]);
}
