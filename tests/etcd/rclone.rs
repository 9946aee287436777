//! The program over `rclone serve s3`, which ignores conditional writes: its journal's head is in etcd, and a restore needs the bucket
//! alone.

use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runner::env::Env;

use crate::etcd::EtcdCluster;
use crate::s3_foreign::ForeignS3Server;
use crate::site::{Site, role, wait_for, words};
use crate::support::compare::assert_same;
use crate::support::invariants::check_journal;
use crate::support::tree;

const KEYS: [&str; 2] = ["runnertestkey", "runnertestsecret"];

struct Stage {
    site: Site,
    etcd: EtcdCluster,
    _rclone: ForeignS3Server,
}

impl Stage {
    /// A role with these lines, whose repository is not made yet.
    fn new(lines: &str) -> Self {
        let (rclone, etcd) = (ForeignS3Server::rclone("backups", KEYS[0], KEYS[1]), EtcdCluster::single());
        let env = vec![
            ("AWS_ACCESS_KEY_ID", KEYS[0].to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEYS[1].to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ];
        // Rclone writes its files seconds after it has answered: what is in the bucket is asked over the wire.
        let site = Site::on_s3("s3://backups/prod", &rclone.endpoint, "/nonexistent".into(), env, "");
        let stage = Self { site, etcd, _rclone: rclone };
        stage.config(lines, "");
        stage
    }

    /// Writes the config, with these lines in the role and in the store.
    fn config(&self, role: &str, store: &str) {
        self.site.config(role);
        let path = self.site.path("runner.toml");
        let config = std::fs::read_to_string(&path).unwrap().replace("lease = \"none\"\n", "");
        let config = config.replace("[store]\n", &format!("[store]\n{store}"));
        let etcd = format!("[etcd]\nendpoints = {:?}\nlease_ttl = \"3s\"\n", self.etcd.endpoints());
        std::fs::write(path, format!("{config}\n{etcd}")).unwrap();
    }

    fn init(&self) {
        let made = self.site.node("east").run(["init", "--json"]).expect(0).json();
        assert_eq!(made["roles"][0]["journal"], "etcd", "{made}");
    }

    fn start(&self, node: &str, args: &[&str]) -> Child {
        let mut command = self.site.node(node).command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// It is killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_bucket_that_ignores_conditions_is_written_by_one_and_read_without_etcd() {
    let mut stage = Stage::new("every = \"36500d\"\njitter = \"0s\"");
    tree::make_many_files(&stage.site.src(), 60, 5);
    stage.init();
    let again = stage.site.node("west").run(["init", "--json"]).expect(0).json();
    assert_eq!((&again["roles"][0]["created"], &again["roles"][0]["journal"]), (&false.into(), &"etcd".into()));

    let children = ["east", "west"].map(|node| stage.start(node, &["backup", "app", "--scheduled", "--json"]));
    let outcomes = children.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["roles"][0]["outcome"].clone()
    });
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "committed").count(), 1, "{outcomes:?}");

    stage.site.write("more", "of it");
    stage.site.node("west").run(["takeover", "app"]).expect(0);
    assert_eq!(stage.site.backup("west")["outcome"], "committed");
    let whoami = role(&stage.site.node("west").run(["whoami", "app", "--json"]).expect(0));
    assert_eq!((&whoami["store"]["journal"], &whoami["state"]), (&"etcd".into(), &"active".into()), "{whoami}");

    stage.etcd.kill(0);
    let looker = stage.site.node("looker");
    assert_eq!(stage.site.listed().len(), 2);
    assert_same(&stage.site.src(), &stage.site.restore(&looker, "latest", "out"));
    let listed = looker.run(["ls", "app", "latest"]).expect(0).stdout;
    assert!(!listed.is_empty());
    looker.run(["verify", "app", "--read-data"]).expect(0);
    let kept = check_journal(&looker, "app");
    assert_eq!((kept.slots.len(), kept.takeovers.last().map(String::as_str)), (1, Some("west")));
    let clock = Env::host().clock;
    let asked = clock.boottime();
    looker.run(["whoami", "app"]).expect(0);
    assert!(clock.boottime().saturating_sub(asked) < Duration::from_secs(3), "whoami does not hang");
    let refused = stage.site.node("west").run(["backup", "app"]).expect(4);
    assert!(words(&refused).contains("etcd"), "{}", refused.stderr);
    assert_eq!(stage.site.listed().len(), 2);
}

#[test]
fn an_etcd_that_lost_everything_is_adopted() {
    let mut stage = Stage::new("");
    stage.site.write("file", "content");
    stage.init();
    stage.site.backup("east");
    stage.etcd.restart_empty();
    for node in ["east", "west"] {
        let refused = words(&stage.site.node(node).run(["backup", "app"]).expect(1));
        assert!(refused.contains("etcd has no head of this journal"), "{refused}");
        assert!(refused.contains("'runner journal adopt app'"), "{refused}");
    }
    stage.site.node("west").run(["pause", "app"]).expect(1);
    let whoami = role(&stage.site.node("west").run(["whoami", "app", "--json"]).expect(0));
    let lost = serde_json::json!([{ "kind": "journal_head", "lost": true, "detail": "etcd has no head of this journal",
            "severity": "critical" }]);
    let warnings = whoami["warnings"].as_array().unwrap();
    let heads: Vec<_> = warnings.iter().filter(|warning| warning["kind"] == "journal_head").cloned().collect();
    assert_eq!(serde_json::json!(heads), lost, "{whoami}");
    let failed = warnings.iter().find(|warning| warning["kind"] == "run_failed").expect("the run above is remembered");
    assert_eq!(failed["detail"], "nothing is written to this journal: etcd has no head of this journal", "{whoami}");
    stage.site.node("west").run(["whoami", "app", "--check"]).expect(2);
    assert_eq!(stage.site.listed().len(), 1, "nothing is lost, and nothing was written");

    let adopted = stage.site.node("east").run(["journal", "adopt", "app", "--json"]).expect(0).json();
    assert_eq!((&adopted["change"], &adopted["term"]), (&"adopted".into(), &2.into()), "{adopted}");
    let again = stage.site.node("west").run(["journal", "adopt", "app"]).expect(0);
    assert!(again.stdout.contains("nothing to adopt"), "{}", again.stdout);
    stage.site.write("file", "other content");
    assert_eq!(stage.site.backup("west")["outcome"], "committed");
    assert_eq!(stage.site.backup("east")["outcome"], "unchanged");
    let kept = check_journal(&stage.site.node("looker"), "app");
    assert_eq!(kept.takeovers, ["east", "east", "west", "east"]);
    stage.site.node("looker").run(["verify", "app", "--read-data"]).expect(0);
}

#[test]
fn a_writer_that_was_stopped_while_the_role_moved_is_fenced() {
    // Without a lease: the journal alone is asked.
    let stage = Stage::new("");
    let hook = format!(
        "before = [\"sh\", \"-c\", \"[ $RUNNER_NODE = west ] || {{ touch {0}/begun; until [ -e {0}/go ]; do sleep 0.1; done; }}\"]\n\
         lease = \"none\"",
        stage.site.dir().display()
    );
    stage.config("", "");
    let path = stage.site.path("runner.toml");
    let config = std::fs::read_to_string(&path).unwrap().replace("[role.app]\n", &format!("[role.app]\n{hook}\n"));
    std::fs::write(path, config).unwrap();
    stage.site.write("file", "content");
    stage.init();
    let east = stage.start("east", &["backup", "app"]);
    wait_for(|| stage.site.path("begun").exists());
    let pid = Pid::from_raw(east.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    stage.site.node("west").run(["takeover", "app"]).expect(0);
    assert_eq!(stage.site.backup("west")["outcome"], "committed");
    std::fs::write(stage.site.path("go"), "").unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    let output = east.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    let kept = check_journal(&stage.site.node("looker"), "app");
    assert_eq!(kept.takeovers, ["east", "west", "west"], "by an operator, and by the run after it");
    assert_eq!(stage.site.listed().len(), 1);
}

#[test]
fn daemons_keep_their_slots_and_a_lost_head_stops_them_only_until_it_is_adopted() {
    let mut stage = Stage::new("every = \"2s\"\njitter = \"0s\"\ntakeover_delay = \"0s\"");
    stage.site.write("file", "content");
    stage.init();
    let mut daemons = ["east", "west"].map(|node| Daemon(stage.site.node(node).start(["daemon"])));
    wait_for(|| stage.site.listed().len() >= 2);
    stage.etcd.restart_empty();
    std::thread::sleep(Duration::from_secs(2));
    let before = stage.site.listed().len();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(stage.site.listed().len(), before, "slots have passed, and nobody could commit");
    stage.site.node("north").run(["journal", "adopt", "app"]).expect(0);
    wait_for(|| stage.site.listed().len() >= before + 2);
    for daemon in &mut daemons {
        kill(Pid::from_raw(daemon.0.id() as i32), Signal::SIGTERM).unwrap();
        assert!(daemon.0.wait().unwrap().success());
    }
    let kept = check_journal(&stage.site.node("looker"), "app");
    assert!(kept.takeovers.contains(&"north".to_owned()) && kept.slots.len() >= before + 2, "{kept:?}");
}

#[test]
fn processes_that_race_over_the_bucket_leave_one_journal() {
    const NODES: [&str; 4] = ["a", "b", "c", "d"];
    const EACH: usize = 5;
    let stage = Stage::new("");
    stage.init();
    std::thread::scope(|scope| {
        for node in NODES {
            let site = &stage.site;
            scope.spawn(move || {
                for _ in 0..EACH {
                    site.node(node).run(["pause", "app"]).expect(0);
                }
            });
        }
    });
    assert_eq!(check_journal(&stage.site.node("looker"), "app").records, NODES.len() * EACH);
    stage.site.node("looker").run(["verify", "app"]).expect(0);
}

#[test]
fn inits_at_once_make_one_repository() {
    let stage = Stage::new("");
    std::fs::write(stage.site.path("key"), format!("runner-key-1:{}\n", "5a".repeat(32))).unwrap();
    let children = ["east", "west", "north"].map(|node| stage.start(node, &["init", "--json"]));
    let made = children.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        document["roles"][0]["repository"].clone()
    });
    assert!(made.iter().all(|repository| *repository == made[0]), "{made:?}");
    stage.site.write("file", "content");
    assert_eq!(stage.site.backup("south")["outcome"], "committed");
}

#[test]
fn what_does_not_go_together_is_refused_in_words() {
    let stage = Stage::new("");
    stage.site.write("file", "content");
    stage.init();
    stage.config("", "journal = \"bucket\"\n");
    for verb in [&["backup", "app"][..], &["init"], &["pause", "app"], &["journal", "adopt", "app"]] {
        let refused = words(&stage.site.node("east").run(verb).expect(2));
        assert!(refused.contains("runner.toml:2: store.journal: is \"bucket\""), "{verb:?}: {refused}");
        assert!(refused.contains("write journal = \"auto\""), "{verb:?}: {refused}");
    }
    stage.config("lease = \"bucket\"", "");
    for verb in [&["backup", "app"][..], &["init"]] {
        let refused = words(&stage.site.node("east").run(verb).expect(2));
        assert!(
            refused.contains("role app has its journal in etcd, so its lease cannot be in the bucket"),
            "{refused}"
        );
    }
    stage.config("lease = \"bucket\"", "journal = \"etcd\"\n");
    let refused = words(&stage.site.node("east").run(["config", "check"]).expect(2));
    assert!(refused.contains("role.app.lease: \"bucket\" does not go with store.journal = \"etcd\""), "{refused}");
    // Without [etcd] it can be read, and not written.
    let path = stage.site.path("runner.toml");
    stage.config("lease = \"none\"", "");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.split("[etcd]").next().unwrap()).unwrap();
    let refused = words(&stage.site.node("east").run(["backup", "app"]).expect(2));
    assert!(refused.contains("the journal of role app is in etcd, and no etcd is configured"), "{refused}");
    assert_eq!(stage.site.listed().len(), 0);
}
