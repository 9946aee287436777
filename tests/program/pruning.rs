//! Old snapshots are forgotten by the config's rules, on the node that is active, and everything that stays comes back whole.

use serde_json::Value;

use crate::site::{Site, words};
use crate::support::compare::assert_same;
use crate::support::tree;

/// The document of a prune.
fn prune(site: &Site, node: &str, arguments: &[&str]) -> Value {
    let all = ["prune", "app", "--json"].iter().chain(arguments).copied();
    site.node(node).run(all.collect::<Vec<_>>()).expect(0).json()
}

/// The snapshots that anybody sees.
fn listed(site: &Site) -> Vec<Value> {
    let list = site.node("north").run(["snapshots", "app", "--json"]).expect(0).json();
    list["snapshots"].as_array().unwrap().clone()
}

fn kept(pruned: &Value) -> Vec<bool> {
    pruned["snapshots"].as_array().unwrap().iter().map(|s| s["kept"].as_bool().unwrap()).collect()
}

#[test]
fn what_is_old_goes_and_the_rest_comes_back() {
    let site = Site::pair("keep = { last = 2 }\nprune_grace = \"0s\"\nmax_unused = 0\n");
    tree::make_many_files(&site.src(), 200, 5);
    site.init();
    site.move_to("east");
    for n in 0..4 {
        site.write(&format!("only-{n}"), tree::TreeRng::new(n).noise(300_000));
        site.backup("east");
        std::fs::remove_file(site.src().join(format!("only-{n}"))).unwrap();
    }
    let before = (site.objects(), listed(&site));
    let would = prune(&site, "west", &["--dry-run"]);
    assert_eq!(kept(&would), [false, false, true, true], "any node may look: {would}");
    assert_eq!((site.objects(), listed(&site)), before);
    let shown = site.node("west").run(["prune", "app", "--dry-run"]).expect(0).stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 100) && shown.contains("forget"), "{shown}");

    let standby = prune(&site, "west", &[]);
    assert_eq!(standby["outcome"], "standby", "{standby}");
    let leased = Site::leased("keep = { last = 1 }\ntakeover_delay = \"0s\"\n");
    leased.init();
    leased.write("file", "content");
    leased.backup("east");
    let other = prune(&leased, "west", &[]);
    assert!(other["reason"].as_str().unwrap().contains("east had the role last"), "{other}");
    assert_eq!(leased.records().len(), 2, "it is no reason to take the role");
    let done = prune(&site, "east", &[]);
    assert_eq!(kept(&done), [false, false, true, true]);
    assert!(done["packs"]["deleted"].as_u64().unwrap() > 0 && done["packs"]["waiting"] == 0, "{done}");
    assert!(site.packs().len() < before.0.iter().filter(|name| name.contains("/packs/")).count() + 1);
    assert_eq!(listed(&site)[..], before.1[2..]);
    for node in ["east", "north"] {
        site.node(node).run(["verify", "app", "--read-data"]).expect(0);
    }
    site.node("east").run(["audit", "app"]).expect(0);
    // The role moves, and goes on from what is left.
    site.move_to("west");
    assert!(site.backup("west")["bytes"]["new"].as_u64().unwrap() < 50_000, "a directory changed, and no content");
    assert_same(&site.src(), &site.restore(&site.node("west"), "latest", "out"));
    assert_eq!(prune(&site, "west", &[])["snapshots"].as_array().unwrap().len(), 3);
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
}

#[test]
fn a_role_that_keeps_everything_says_what_to_write() {
    let site = Site::new("");
    site.init();
    let run = site.node("east").run(["prune", "app"]).expect(2);
    assert!(words(&run).contains("keep = {"), "{}", run.stderr);
    assert!(site.records().iter().all(|record| record["kind"] != "prune"));
}
