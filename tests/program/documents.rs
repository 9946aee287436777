//! `--json`: one document on standard output, with the fields that the contract names, also when something fails.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::site::{Site, role};

/// Fails unless `value` is an object with exactly these fields.
#[track_caller]
fn assert_fields(value: &Value, fields: &[&str]) {
    let found: BTreeSet<&str> =
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect();
    assert_eq!(found, fields.iter().copied().collect(), "{value}");
}

/// Fails unless `value` has at least these fields.
#[track_caller]
fn assert_has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "no {field} in {value}");
    }
}

const ROLE: [&str; 10] =
    ["role", "outcome", "snapshot", "term", "slot", "takeover", "files", "bytes", "requests", "duration_seconds"];

#[test]
fn backup_says_what_the_contract_names_whatever_the_outcome() {
    let site = Site::pair("");
    site.write("a", "one");
    site.init();
    let mut outcomes = Vec::new();
    for (active, code) in [("east", 0), ("east", 0), ("west", 0)] {
        site.move_to(active);
        outcomes.push(role(&site.node("east").run(["backup", "app", "--json"]).expect(code)));
    }
    std::fs::remove_file(site.path("active")).unwrap();
    outcomes.push(role(&site.node("east").run(["backup", "app", "--json"]).expect(4)));
    site.move_to("east");
    std::fs::remove_dir_all(site.src()).unwrap();
    outcomes.push(role(&site.node("east").run(["backup", "app", "--json"]).expect(1)));

    let said: Vec<&str> = outcomes.iter().map(|o| o["outcome"].as_str().unwrap()).collect();
    assert_eq!(said, ["committed", "unchanged", "standby", "unknown", "failed"]);
    for outcome in &outcomes {
        assert_has(outcome, &ROLE);
        assert_fields(&outcome["files"], &["new", "changed", "unchanged", "removed", "unreadable", "kept"]);
        assert_fields(&outcome["bytes"], &["source", "read", "new", "uploaded"]);
    }
    let committed = &outcomes[0];
    assert_eq!(
        (&committed["role"], &committed["term"], &committed["takeover"]),
        (&"app".into(), &1.into(), &true.into())
    );
    assert_eq!(committed["snapshot"].as_str().unwrap().len(), 64);
    assert!(committed["requests"].as_u64().unwrap() > 5 && committed["duration_seconds"].is_f64(), "{committed}");
}

#[test]
fn snapshots_restore_verify_and_whoami_say_what_the_contract_names() {
    let site = Site::pair("every = \"36500d\"");
    site.write("a", "one");
    site.init();
    site.move_to("east");
    site.node("east").run(["backup", "app", "--scheduled", "--json"]).expect(0);
    let east = site.node("east");
    let listed = east.run(["snapshots", "app", "--json"]).expect(0).json();
    let fields =
        ["id", "role", "term", "node", "time", "slot", "files", "bytes", "incomplete", "unreadable", "empty_sources"];
    assert_fields(&listed["snapshots"][0], &fields);
    assert_eq!(listed["snapshots"][0]["slot"], "1970-01-01T00:00:00Z");

    let target = site.path("out").display().to_string();
    let restored = east.run(["restore", "app", "--target", &target, "--json"]).expect(0).json();
    assert_eq!(restored["snapshot"]["id"], listed["snapshots"][0]["id"]);
    assert_has(&restored, &["target", "dry_run", "entries", "bytes", "problems", "duration_seconds"]);
    assert_has(&east.run(["verify", "app", "--json"]).expect(0).json(), &["role", "damages"]);

    let whoami = east.run(["whoami", "--json"]).expect(0).json();
    assert_fields(&whoami["node"], &["id", "hostname", "instance", "version", "config_hash"]);
    let fields = [
        "role",
        "state",
        "reason",
        "evidence",
        "term",
        "last_backup",
        "next_slot",
        "slots",
        "store",
        "etcd",
        "warnings",
    ];
    assert_has(&whoami["roles"][0], &fields);
    assert_fields(&whoami["roles"][0]["term"], &["mine", "current", "holder"]);
    assert_eq!(whoami["roles"][0]["state"], "active");
    assert_eq!(east.run(["status", "--json"]).expect(0).json()["roles"][0]["term"], whoami["roles"][0]["term"]);
    assert_eq!(site.node("west").run(["whoami", "--json"]).expect(0).json()["roles"][0]["state"], "standby");
    // It works when the store does not.
    std::fs::rename(site.path("store"), site.path("unmounted")).unwrap();
    let whoami = east.run(["whoami", "--json"]).expect(0).json();
    assert_eq!(
        (&whoami["roles"][0]["state"], &whoami["roles"][0]["store"]["status"]),
        (&"unknown".into(), &"failed".into())
    );
    assert_eq!(whoami["roles"][0]["reason"], "journal_unread");
    assert!(east.run(["whoami", "--check"]).expect(3).stdout.contains("app unknown"));
    east.run(["is-active", "app"]).expect(0);
    assert_eq!(site.node("west").run(["whoami", "--json"]).expect(0).json()["roles"][0]["state"], "standby");
}

#[test]
fn an_error_is_a_document_too() {
    let site = Site::new("");
    for (args, exit) in [(&["snapshots", "app", "--json"][..], 1), (&["snapshots", "other", "--json"], 2)] {
        let run = site.node("east").run(args).expect(exit);
        let document = run.json();
        assert_eq!(document["error"]["exit"], exit, "{document}");
        assert!(!document["error"]["message"].as_str().unwrap().is_empty());
        assert!(!run.stderr.is_empty(), "and people are told as well");
    }
}
