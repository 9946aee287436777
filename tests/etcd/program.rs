//! The program with its lease in etcd: two hosts with the same crontab.

use std::process::Stdio;

use serde_json::Value;

use crate::etcd::EtcdCluster;
use crate::site::{Site, role};
use crate::support::compare::assert_same;
use crate::support::tree;

/// A site whose role has its lease in etcd, by default: that is what `[etcd]` means.
fn site(etcd: &EtcdCluster, lines: &str) -> Site {
    let site = Site::new("");
    let config = std::fs::read_to_string(site.path("runner.toml")).unwrap().replace("lease = \"none\"\n", "");
    let etcd = format!("[etcd]\nendpoints = {:?}\nlease_ttl = \"3s\"\n", etcd.endpoints());
    std::fs::write(site.path("runner.toml"), format!("{config}{lines}\n{etcd}")).unwrap();
    site
}

#[test]
fn of_two_crons_one_commits_the_slot() {
    let etcd = EtcdCluster::single();
    let site = site(&etcd, "every = \"36500d\"\njitter = \"0s\"");
    tree::make_many_files(&site.src(), 300, 5);
    site.init();
    let nodes = ["east", "west", "north"].map(|name| {
        let mut command = site.node(name).command(["backup", "app", "--scheduled", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let outputs = nodes.map(|child| child.wait_with_output().unwrap());
    let outcomes: Vec<Value> = outputs
        .iter()
        .map(|output| {
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            let run: Value = serde_json::from_slice(&output.stdout).unwrap();
            run["roles"][0]["outcome"].clone()
        })
        .collect();
    let committed = outcomes.iter().filter(|outcome| *outcome == "committed").count();
    assert_eq!(committed, 1, "the others stood by, or came so late that they found it committed: {outcomes:?}");
    assert_eq!(site.snapshots().len(), 1);
    assert_same(&site.src(), &site.restore(&site.node("south"), "latest", "out"));
    // Long after the first one has given up its lease, the slot is still committed.
    let late = role(&site.node("west").run(["backup", "app", "--scheduled", "--json"]).expect(0));
    assert_eq!(late["outcome"], "skipped", "{late}");
}

#[test]
fn whoami_looks_at_etcd_and_changes_nothing() {
    let mut etcd = EtcdCluster::single();
    let site = site(&etcd, "");
    site.write("file", "content");
    site.init();
    let whoami = |node: &str| role(&site.node(node).run(["whoami", "app", "--json"]).expect(0));
    let before = whoami("east");
    assert_eq!((&before["state"], &before["reason"]), (&"standby".into(), &"lease_free".into()), "{before}");
    assert_eq!(site.backup("east")["outcome"], "committed");
    let after = whoami("east");
    assert_eq!((&after["state"], &after["reason"]), (&"active".into(), &"lease_free_mine".into()), "{after}");
    assert_eq!(whoami("west")["reason"], "lease_free");
    let state = &after["etcd"];
    assert_eq!((&state["status"], &state["endpoints"]), (&"ok".into(), &etcd.endpoints().into()), "{state}");
    assert!(state["leader"] == state["member"] && state["raft_term"].as_u64() > Some(0), "{state}");
    assert_eq!(etcd.received("LeaseKeepAlive"), 0, "looking keeps nothing alive");

    // While a command runs, its node holds the lease.
    let mut command = site.node("east").command(["exec", "app", "--", "sh", "-c", "echo; cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(whoami("east")["reason"], "lease_held");
    let west = whoami("west");
    assert_eq!(
        (&west["state"], &west["reason"], &west["etcd"]["holder"]),
        (&"standby".into(), &"lease_taken".into(), &"east".into()),
        "{west}"
    );
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(whoami("west")["reason"], "lease_free", "the end of the process is the end of its lease");

    etcd.kill(0);
    let gone = whoami("east");
    assert_eq!(
        (&gone["state"], &gone["reason"], &gone["etcd"]["status"]),
        (&"unknown".into(), &"lease_unread".into(), &"failed".into()),
        "{gone}"
    );
    assert_eq!(role(&site.node("east").run(["backup", "app", "--json"]).expect(4))["outcome"], "unknown");
}
