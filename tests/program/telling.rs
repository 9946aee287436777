//! Who is told: a real command, a real server. Once for each thing, and once when it is over.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use runner::env::Env;

use crate::site::{Site, wait_for, words};
use crate::support::webhook_server::WebhookServer;

/// What was told, as `event phase`.
fn told(site: &Site) -> Vec<String> {
    site.told().iter().map(|d| format!("{} {}", d["event"], d["phase"]).replace('"', "")).collect()
}

/// Makes backups fail, or no longer.
fn broken(site: &Site, broken: bool) {
    let (from, to) = if broken { ("src", "away") } else { ("away", "src") };
    fs::rename(site.path(from), site.path(to)).unwrap();
}

#[test]
fn a_backup_that_fails_is_told_once_and_its_recovery_once() {
    let site = Site::new("");
    site.config(&site.telling());
    site.write("file", "content");
    site.init();
    site.backup("east");
    assert_eq!(told(&site), [""; 0], "nothing is wrong");
    broken(&site, true);
    for _ in 0..3 {
        site.refused("east", 1);
        assert_eq!(told(&site), ["failed begun"], "also by the next process");
    }
    let document = &site.told()[0];
    assert_eq!((&document["schema"], &document["role"], &document["node"]), (&1.into(), &"app".into(), &"east".into()));
    let text = document["text"].as_str().unwrap();
    assert!(text.starts_with("app: the backup on east failed: ") && text.contains("src"), "{text}");
    broken(&site, false);
    for _ in 0..2 {
        site.backup("east");
        assert_eq!(told(&site), ["failed begun", "failed over"]);
    }
    // What is not remembered is told once more.
    broken(&site, true);
    site.refused("east", 1);
    fs::remove_file(site.path("state-east").join("notices.json")).unwrap();
    site.refused("east", 1);
    assert_eq!(told(&site)[2..], ["failed begun", "failed begun"]);
}

#[test]
fn another_node_that_goes_on_ends_it() {
    let site = Site::new("");
    let lines = format!("{}{}", site.probed(""), site.telling());
    site.config(&lines);
    site.write("file", "content");
    site.init();
    site.move_to("east");
    broken(&site, true);
    site.refused("east", 1);
    broken(&site, false);
    site.move_to("west");
    site.backup("west");
    assert_eq!(told(&site), ["failed begun", "takeover begun"], "the other node knows nothing of the failure");
    site.move_to("east");
    site.backup("east");
    assert_eq!(told(&site)[2..], ["failed over", "takeover begun"]);
}

#[test]
fn missed_slots_are_reported_by_the_next_run() {
    let site = Site::new("");
    site.config(&format!("every = \"2s\"\nmissed_after = \"1s\"\n{}", site.telling()));
    site.write("file", "content");
    site.init();
    site.node("east").run(["backup", "--scheduled"]).expect(0);
    assert_eq!(told(&site), [""; 0]);
    std::thread::sleep(Duration::from_secs(7));
    site.node("east").run(["backup", "--scheduled"]).expect(0);
    assert_eq!(told(&site), ["missed begun", "missed over"]);
}

#[test]
fn a_webhook_gets_the_alert_when_it_answers_again_and_delays_no_run() {
    let server = WebhookServer::start(&[500]);
    let site = Site::new("");
    let webhook = |url: &str| format!("[notify]\nwebhook = \"{url}/hook/s3cret\"\ntimeout = \"1s\"\n");
    site.config(&webhook(&server.url));
    site.write("file", "content");
    site.init();
    broken(&site, true);
    let run = site.node("east").run(["backup", "app"]).expect(1);
    let heard = server.heard();
    assert_eq!(heard.len(), 2, "a 500 is not heard, and tried again: {heard:?}");
    assert_eq!(heard[0], heard[1], "the same document");
    assert_eq!(heard[0].0, "POST /hook/s3cret");
    let document: Value = serde_json::from_str(&heard[0].1).unwrap();
    assert_eq!((&document["event"], &document["phase"]), (&"failed".into(), &"begun".into()));
    assert!(words(&run).contains("500") && !run.stderr.contains("s3cret"), "{}", run.stderr);

    // Nobody is there: the run ends all the same, and what it had to tell is told by the next one.
    site.config(&webhook("http://127.0.0.1:1"));
    broken(&site, false);
    let started = Env::host().clock.boottime();
    site.backup("east");
    let elapsed = Env::host().clock.boottime().saturating_sub(started);
    assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");
    site.config(&webhook(&server.url));
    site.backup("east");
    let phases: Vec<Value> =
        server.heard()[2..].iter().map(|(_, d)| serde_json::from_str::<Value>(d).unwrap()["phase"].clone()).collect();
    assert_eq!(phases, ["over"]);
}

#[test]
fn every_runs_begin_and_end_is_pinged() {
    let server = WebhookServer::start(&[]);
    let site = Site::new("");
    let lines = site.probed(&format!("[notify]\nhealthchecks = \"{}/ping/{{role}}\"\n", server.url));
    site.config(&lines);
    site.write("file", "content");
    site.init();
    site.move_to("east");
    site.backup("east");
    broken(&site, true);
    site.refused("east", 1);
    site.node("west").run(["backup", "app"]).expect(0);
    let heard = server.heard();
    let requests: Vec<&str> = heard.iter().map(|(request, _)| request.as_str()).collect();
    let expected = ["GET /ping/app/start", "GET /ping/app", "GET /ping/app/start", "POST /ping/app/fail"];
    assert_eq!(requests, expected, "a standby pings nobody");
    assert!(heard[3].1.contains("src"), "{}", heard[3].1);
}

#[test]
fn a_daemon_tells_once_however_often_it_tries() {
    let site = Site::new("");
    let fine = site.path("fine");
    let tries = site.path("tries");
    let before = format!("echo >> {}; test -e {}", tries.display(), fine.display());
    let lines = format!("every = \"1s\"\nbefore = [\"sh\", \"-c\", \"{before}\"]\n{}", site.telling());
    site.config(&lines);
    site.write("file", "content");
    site.init();
    let mut run = site.node("east").start(["daemon"]);
    wait_for(|| fs::read(&tries).is_ok_and(|tries| tries.len() >= 3));
    // That its slots are missed meanwhile is another thing.
    let failed = |site: &Site| told(site).into_iter().filter(|told| told.starts_with("failed")).collect::<Vec<_>>();
    wait_for(|| !failed(&site).is_empty());
    assert_eq!(failed(&site), ["failed begun"]);
    fs::write(&fine, "").unwrap();
    wait_for(|| failed(&site).len() > 1);
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert!(run.wait().unwrap().success());
    assert_eq!(failed(&site)[..2], ["failed begun", "failed over"]);
}
