//! `audit` and `status`: what the journal tells of past slots, and how every role stands.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::site::{Site, number, role};

fn kinds(audited: &Value, list: &str) -> Vec<String> {
    audited[list].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_missed_slot_is_a_finding() {
    let site = Site::new("every = \"3s\"\nmissed_after = \"3s\"\njitter = \"0s\"");
    site.write("file", "content");
    site.init();
    let scheduled = || role(&site.node("east").run(["backup", "app", "--scheduled", "--json"]).expect(0));
    let first = scheduled();
    // Three slots begin and end meanwhile, at least one of them unseen whatever the machine does.
    sleep(Duration::from_secs(9));
    let runs = [first, scheduled(), scheduled()];
    let committed = runs.iter().filter(|run| run["snapshot"].is_string()).count() as u64;
    assert!(committed >= 2, "{runs:?}");

    let run = site.node("east").run(["audit", "app", "--json"]).expect(7);
    let audited = role(&run);
    assert!(kinds(&audited, "findings").contains(&"missed".to_owned()), "{audited}");
    let slots = &audited["slots"];
    assert_eq!(number(&slots["committed"]), committed, "{audited}");
    let parts = ["committed", "missed", "paused", "open"].map(|name| number(&slots[name]));
    assert_eq!((number(&slots["expected"]), parts[1] > 0), (parts.iter().sum(), true), "{audited}");
    assert_eq!((&audited["nodes"][0]["node"], &audited["error"]), (&"east".into(), &Value::Null));

    let text = site.node("west").run(["audit"]).expect(7).stdout;
    assert!(text.contains("MISSED") && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // What came before the time in question is left alone: then nothing has been missed for a second.
    let just = role(&site.node("east").run(["audit", "app", "--since", "0s", "--json"]).expect(0));
    assert_eq!(kinds(&just, "findings"), [""; 0], "{just}");
}

#[test]
fn the_same_changes_run_after_run_are_a_finding_and_damage_is() {
    let site = Site::new("");
    site.init();
    // Set back each time: a tree that was there before is reported as changed again and again.
    let write = |content| {
        site.write("file", content);
        let file = fs::File::options().write(true).open(site.src().join("file")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_hours(1)).unwrap();
    };
    for content in ["a", "b", "a"] {
        write(content);
        site.backup("east");
    }
    let clean = role(&site.node("east").run(["audit", "app", "--json"]).expect(0));
    assert_eq!((&clean["slots"], number(&clean["records"])), (&Value::Null, 4), "{clean}");
    write("b");
    site.backup("east");
    let audited = role(&site.node("east").run(["audit", "app", "--json"]).expect(7));
    assert_eq!(kinds(&audited, "findings"), ["same_changes"], "{audited}");
    assert_eq!(number(&audited["findings"][0]["runs"]), 3);

    let second = site.objects().into_iter().filter(|name| name.contains("/journal/")).nth(1).unwrap();
    fs::remove_file(site.path("store").join(&second)).unwrap();
    let audited = role(&site.node("east").run(["audit", "app", "--json"]).expect(7));
    assert_eq!((&audited["findings"][0]["kind"], &audited["findings"][0]["record"]), (&"hole".into(), &second.into()));
}

#[test]
fn guarded_commands_are_attempts() {
    let site = Site::new("every = \"36500d\"\njitter = \"0s\"");
    site.init();
    let exec = ["exec", "--scheduled", "app", "--", "sh", "-c", "exit $(test -e ok; echo $?)"];
    let exec = |code| {
        site.node("east").command(exec).current_dir(site.dir()).status().map(|s| assert_eq!(s.code(), Some(code)))
    };
    exec(1).unwrap();
    exec(1).unwrap();
    let since = ["audit", "app", "--since", "60y", "--json"];
    let audited = role(&site.node("east").run(since).expect(7));
    assert_eq!(kinds(&audited, "findings"), ["failed"], "{audited}");
    assert_eq!(number(&audited["slots"]["open"]), 1, "somebody began it, and it has time for years: {audited}");
    site.write("../ok", "");
    exec(0).unwrap();
    let audited = role(&site.node("east").run(since).expect(0));
    assert_eq!(number(&audited["slots"]["committed"]), 1, "{audited}");
    assert_eq!(kinds(&audited, "findings"), [""; 0], "what had started before the repository was made is not late");
    assert_eq!((number(&audited["nodes"][0]["attempts"]), number(&audited["nodes"][0]["commits"])), (3, 1));
}

#[test]
fn what_cannot_be_told_is_neither_clean_nor_a_finding() {
    let site = Site::new("every = \"36500d\"");
    site.write("file", "content");
    fs::create_dir(site.path("store")).unwrap();
    let audited = role(&site.node("east").run(["audit", "--json"]).expect(4));
    assert!(audited["error"].as_str().unwrap().contains("no repository"), "{audited}");
    site.init();
    site.backup("east");
    fs::rename(site.path("store"), site.path("elsewhere")).unwrap();
    let run = site.node("east").run(["audit"]).expect(4);
    assert!(run.stdout.starts_with("app: CANNOT TELL: "), "{}", run.stdout);
    site.node("east").run(["audit", "other"]).expect(2);
}

#[test]
fn status_has_a_line_for_every_role() {
    let site = Site::new("every = \"1d\"");
    let config = fs::read_to_string(site.path("runner.toml")).unwrap();
    let other = format!("[role.other]\nsources = [{:?}]\nnodes = [\"west\"]\n", site.src());
    fs::write(site.path("runner.toml"), format!("{config}{other}")).unwrap();
    site.write("file", "content");
    site.init();
    site.node("east").run(["backup", "app", "--scheduled"]).expect(0);
    let text = site.node("east").run(["status"]).expect(0).stdout;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ROLE", "HERE", "HOLDER", "TERM", "LAST", "SLOTS", "NEXT", "RISKS"]);
    assert_eq!(lines[1][..4], ["app", "active", "east", "1"], "{text}");
    assert!(lines[1].contains(&"1/1") && lines[1].last() == Some(&"-"), "{text}");
    assert_eq!(lines[2], ["other", "standby", "-", "-", "-", "-", "-", "no", "snapshot"], "{text}");
    let document = site.node("east").run(["status", "--json"]).expect(0).json();
    assert_eq!(
        (&document["roles"][0]["slots"]["committed"], &document["roles"][1]["slots"]),
        (&1.into(), &Value::Null)
    );
    // It answers without the store, too.
    fs::rename(site.path("store"), site.path("elsewhere")).unwrap();
    let text = site.node("east").run(["status"]).expect(0).stdout;
    let app: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(app[..2], ["app", "UNKNOWN"], "{text}");
    assert_eq!(app.last(), Some(&"store"), "{text}");
}
