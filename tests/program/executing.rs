//! `exec`: a command runs only where its node is active, gets what it needs to know, and does not outlive its leave.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::site::{Site, wait_for, words};

const LEASED: &str = "bucket_lease_ttl = \"4s\"\ntakeover_delay = \"0s\"\n";

fn leased(lines: &str) -> Site {
    let site = Site::leased(&format!("{LEASED}{lines}"));
    site.write("file", "content");
    site.init();
    site
}

#[test]
fn output_exit_code_and_environment_are_the_commands() {
    let site = leased("");
    let run = site
        .node("east")
        .run(["exec", "app", "--", "sh", "-c", "echo $RUNNER_ROLE $RUNNER_TERM $RUNNER_NODE"])
        .expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("app 1 east\n", ""));
    site.node("east").run(["exec", "app", "--", "sh", "-c", "test -n \"$RUNNER_DEADLINE\" && exit 42"]).expect(42);
    site.node("east").run(["exec", "app", "--", "sh", "-c", "kill -KILL $$"]).expect(137);
    let run = site.node("east").run(["exec", "app", "--", "/no/such/program"]).expect(1);
    assert!(words(&run).contains("/no/such/program"), "{}", run.stderr);
    assert_eq!(site.records().len(), 1, "one takeover: successive runs of a node inherit it");
}

#[test]
fn the_command_keeps_what_its_caller_gave_it_but_the_stores_credentials() {
    let site = leased("environment = { GIVEN = \"by the config\" }\npass_environment = [\"AWS_SESSION_TOKEN\"]\n");
    let mut exec = site.node("east").command(["exec", "app", "--", "sh", "-c", "env; pwd"]);
    exec.env("MINE", "1")
        .env("AWS_SECRET_ACCESS_KEY", "TOPSECRET")
        .env("AWS_SESSION_TOKEN", "named")
        .current_dir(site.dir());
    let said = String::from_utf8(exec.output().unwrap().stdout).unwrap();
    for line in ["MINE=1", "AWS_SESSION_TOKEN=named", "GIVEN=by the config", site.dir().to_str().unwrap()] {
        assert!(said.lines().any(|said| said == line), "{line} is missing: {said}");
    }
    assert!(!said.contains("TOPSECRET"), "{said}");
}

#[test]
fn the_grace_is_that_of_all_that_the_command_started() {
    // Without a lease, which would leave less time than the job needs.
    let site = Site::new("");
    site.write("file", "content");
    site.init();
    let (begun, done) = (site.path("begun"), site.path("done"));
    // The shell that was typed dies of the signal at once; its job needs a moment to put things back.
    let job = site.path("job");
    let script = format!(
        "trap 'sleep 0.3; touch {}; exit 0' TERM\ntouch {}\nwhile :; do sleep 0.05; done\n",
        done.display(),
        begun.display()
    );
    fs::write(&job, script).unwrap();
    let mut run =
        site.node("east").start(["exec", "app", "--", "sh", "-c", &format!("sh {}; echo never", job.display())]);
    wait_for(|| begun.exists());
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(143), "its first process died of it");
    assert!(done.exists(), "and the rest had its time");
}

#[test]
fn where_the_node_is_not_active_it_does_not_run() {
    let site = Site::pair("");
    site.write("file", "content");
    site.init();
    site.move_to("east");
    let touch = ["exec", "app", "--", "touch", site.path("ran").to_str().unwrap()].map(str::to_owned);
    let run = site.node("west").run(touch.iter().map(String::as_str)).expect(3);
    assert!(words(&run).contains("not run: not active here"), "{}", run.stderr);
    let mut cron = touch.to_vec();
    cron.splice(1..1, ["--skip-exit".to_owned(), "0".to_owned()]);
    site.node("west").run(cron.iter().map(String::as_str)).expect(0);
    fs::remove_file(site.path("active")).unwrap();
    site.node("west").run(touch.iter().map(String::as_str)).expect(4);
    assert!(!site.path("ran").exists());
    site.move_to("west");
    site.node("west").run(touch.iter().map(String::as_str)).expect(0);
    assert!(site.path("ran").exists());
}

#[test]
fn without_a_slot_it_runs_on_the_node_that_had_the_role_last_alone() {
    let site = leased("");
    let run = |node: &str| site.node(node).run(["exec", "app", "--", "true"]);
    run("east").expect(0);
    site.node("west").run(["is-active", "app"]).expect(3);
    let refused = run("west").expect(3);
    assert!(words(&refused).contains("node east had the role last"), "{}", refused.stderr);
    assert_eq!(site.records().len(), 1, "the role did not move");
    site.node("west").run(["takeover", "app"]).expect(0);
    run("west").expect(0);
    run("east").expect(3);
}

#[test]
fn a_command_that_takes_longer_than_its_timeout_is_ended_commits_nothing_and_frees_the_lease() {
    let site = leased("every = \"36500d\"\n");
    let job = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let exec = ["exec", "--scheduled", "--timeout", "300ms", "app", "--", "sh", "-c"];
    let run = site.node("east").run(exec.into_iter().chain([job])).expect(124);
    assert!(words(&run).contains("it took longer than --timeout 300ms"), "{}", run.stderr);
    let end = site.records().last().unwrap().clone();
    assert_eq!((&end["kind"], &end["body"]["exit"], &end["body"]["stopped"]), (&"end".into(), &0.into(), &true.into()));
    // The slot is not committed, and the other node need not wait for the lease.
    site.node("west").run(exec.into_iter().chain(["exit 0"])).expect(0);
    let records = site.records();
    let kinds: Vec<&str> = records.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["takeover", "begin", "end", "takeover", "begin", "end"]);
}

#[test]
fn signals_go_to_the_command() {
    let site = leased("");
    let begun = site.path("begun");
    let script = format!("trap 'exit 7' TERM; touch {}; while :; do sleep 0.05; done", begun.display());
    let mut run = site.node("east").start(["exec", "app", "--", "sh", "-c", &script]);
    wait_for(|| begun.exists());
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(7));
    // The lease was given up: nobody has to wait.
    assert_eq!(site.backup("west")["outcome"], "committed");
}

#[test]
fn a_command_ends_when_the_lease_cannot_be_renewed() {
    let site = leased("");
    let begun = site.path("begun");
    let script = format!("echo $$ > {}; trap '' TERM; while :; do sleep 0.05; done", begun.display());
    let mut run = site.node("east").start(["exec", "app", "--", "sh", "-c", &script]);
    wait_for(|| begun.exists());
    // The store goes away under it.
    fs::rename(site.path("store"), site.path("elsewhere")).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(4), "whether somebody else is active cannot be told");
    let pid = fs::read_to_string(&begun).unwrap().trim().to_owned();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "it was made to end");
}

#[test]
fn a_scheduled_command_has_its_slot_once() {
    let site = leased("every = \"36500d\"\n");
    let log = site.path("log");
    let script = format!("echo $RUNNER_SLOT >> {0}; test $(wc -l < {0}) -gt 1", log.display());
    let exec =
        |node: &str| site.node(node).run(["exec", "--scheduled", "--skip-exit", "0", "app", "--", "sh", "-c", &script]);
    exec("east").expect(1);
    exec("west").expect(0);
    for node in ["east", "west", "north"] {
        exec(node).expect(0);
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "1970-01-01T00:00:00Z\n".repeat(2), "an attempt may be repeated");
    let kinds: Vec<String> = site
        .records()
        .iter()
        .map(|r| format!("{} {}", r["kind"].as_str().unwrap(), r["body"]["exit"]).replace(" null", ""))
        .collect();
    assert_eq!(kinds, ["takeover", "begin", "end 1", "takeover", "begin", "end 0"]);
}
