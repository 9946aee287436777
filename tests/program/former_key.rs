//! A holder of the repository key of before a rotation, who writes to the bucket: what the program believes, as it is run.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::site::{Site, number, words};
use crate::support::cli::{ProgramRun, TestNode};
use crate::support::compare::assert_same;
use runner::ids::Seq;
use runner::journal::body::RecordBody;
use runner::journal::record::Record;
use runner::repo::crypto::{Cipher, DerivedKeys};
use runner::repo::keyslot::SlotSecret;

/// A site with two snapshots, a rotation and a third snapshot, on a node that remembers it all, and the old repository key.
fn site() -> (Site, DerivedKeys) {
    let site = Site::pair("");
    site.write("f", "one");
    site.init();
    site.move_to("east");
    site.backup("east");
    site.write("f", "two");
    site.backup("east");
    let (exported, new) = (site.path("exported"), site.path("new"));
    site.node("east").run(["key", "export", "app", "--output", exported.to_str().unwrap()]).expect(0);
    site.node("east").run(["key", "rotate", "app", "--new-key-file", new.to_str().unwrap()]).expect(0);
    fs::copy(&new, site.path("key")).unwrap();
    site.write("f", "three");
    site.backup("east");
    let Ok(SlotSecret::Exported(repo, keyring)) = SlotSecret::parse_key_file(&fs::read_to_string(&exported).unwrap())
    else {
        panic!("an exported key")
    };
    let keys = DerivedKeys::new(Cipher::Aes256GcmSiv, repo, "app".parse().unwrap(), keyring);
    (site, keys)
}

fn record(site: &Site, seq: u64) -> PathBuf {
    site.path("store").join(format!("app/journal/{seq:016}"))
}

/// The number of the rotation's record.
fn rotation(site: &Site) -> u64 {
    number(&site.records().iter().find(|record| record["kind"] == "rotate").unwrap()["seq"])
}

/// Puts another record into the place of the newest snapshot of before the rotation, and one after it that follows it. Its ID.
fn forge(site: &Site, keys: &DerivedKeys) -> String {
    let rotation = rotation(site);
    let mut before: Option<Vec<u8>> = None;
    let mut id = String::new();
    for seq in 1..rotation {
        let object = fs::read(record(site, seq)).unwrap();
        let mut found = Record::decode(&object, Some(keys)).unwrap();
        assert_eq!(found.seq, Seq(seq));
        if let Some(before) = &before {
            found.prev = Some(runner::journal::record::digest(before));
            found.state = None;
        } else if !matches!(found.body, RecordBody::Snapshot(_)) || seq + 3 < rotation {
            continue;
        }
        if let RecordBody::Snapshot(body) = &mut found.body {
            body.bytes += 7;
        }
        let forged = found.encode(keys);
        if matches!(found.body, RecordBody::Snapshot(_)) {
            id = runner::journal::record::digest(&forged).to_string();
        }
        fs::write(record(site, seq), &forged).unwrap();
        before = Some(forged);
    }
    assert!(!id.is_empty());
    id
}

fn fresh(site: &Site, command: &[&str]) -> ProgramRun {
    let (store, key) = (format!("file://{}", site.path("store").display()), site.path("key"));
    let all = command.iter().copied().chain(["--store", &store, "--key-file", key.to_str().unwrap()]);
    TestNode::new(&site.path("bare"), "bare").run(all.collect::<Vec<_>>())
}

fn salvage(site: &Site, snapshot: &str, into: &str, more: &[&str]) -> ProgramRun {
    let target = site.path(into).display().to_string();
    let all = ["restore", "app", "--salvage", "--snapshot", snapshot, "--target", &target];
    fresh(site, &all.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

#[test]
fn what_a_former_key_holder_puts_before_a_rotation_is_never_the_latest() {
    // What goes: the newest records from the rotation on, or the rotation's record alone; with and without the copy of that.
    for (all, copy) in [(true, false), (true, true), (false, false)] {
        let (site, keys) = site();
        let genuine = site.listed();
        let forged = forge(&site, &keys);
        let (from, last) = (rotation(&site), site.records().len() as u64);
        for seq in from..=if all { last } else { from } {
            fs::remove_file(record(&site, seq)).unwrap();
        }
        if !copy {
            fs::remove_dir_all(site.path("store").join("app/rotated")).unwrap();
        }
        for command in [&["snapshots", "app", "--json"][..], &["ls", "app"], &["journal", "show", "app"]] {
            let said = fresh(&site, command);
            assert!(
                said.code == Some(1) && !said.stdout.contains(&forged[..12]),
                "{command:?}: {} {}",
                said.stdout,
                said.stderr
            );
            assert!(said.stderr.contains("hint:"), "{}", said.stderr);
        }
        let target = site.path("no").display().to_string();
        fresh(&site, &["restore", "app", "--target", &target]).expect(1);
        let latest = salvage(&site, "latest", "latest", &["--json"]);
        if copy || !all {
            let id = latest.expect(0).json()["snapshot"]["id"].as_str().unwrap().to_owned();
            assert!(genuine.iter().any(|snapshot| snapshot["id"] == *id), "{id}");
            let unknown = salvage(&site, &forged, "forged", &[]);
            assert!(unknown.code == Some(1) || unknown.code == Some(6), "{}", unknown.stdout);
        } else {
            let latest = latest.expect(1);
            assert!(words(&latest).contains("a former holder of the key"), "{}", latest.stderr);
            for prefix in [&forged[..12], &forged[..63]] {
                let start = salvage(&site, prefix, "start", &[]).expect(1);
                assert!(words(&start).contains("all its 64 characters"), "{}", start.stderr);
            }
            let named = salvage(&site, &forged, "forged", &[]).expect(6);
            assert!(named.stdout.contains("THE JOURNAL DOES NOT CONFIRM THIS SNAPSHOT"), "{}", named.stdout);
        }

        // Repaired by who knows nothing: what is left out is named, and the role goes on under the new key.
        let dry = site.node("north").run(["repair", "app", "--dry-run", "-q"]).expect(7);
        assert!(!dry.stdout.is_empty(), "what it is asked for is said");
        let dry = site.node("north").run(["repair", "app", "--dry-run", "--json"]).expect(7).json();
        let kinds: Vec<&Value> = dry["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]).collect();
        assert_eq!(kinds.contains(&&"unvouched".into()), all, "{dry}");
        assert_eq!(kinds.contains(&&"rotation".into()), all && !copy, "{dry}");
        let repaired = site.node("north").run(["repair", "app", "--force", "--json"]);
        assert_eq!(repaired.code, Some(if all && !copy { 7 } else { 0 }), "{} {}", repaired.stdout, repaired.stderr);
        assert!(repaired.json()["record"].is_object(), "{}", repaired.stdout);
        let listed = site.listed();
        assert!(listed.iter().all(|snapshot| genuine.iter().any(|g| g["id"] == snapshot["id"])), "{listed:?}");
        site.node("north").run(["repair", "app", "--dry-run"]).expect(0);
        if !all {
            site.backup("east");
            assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
        }
    }
}

/// The node that has seen it all brings it all back.
#[test]
fn a_node_that_remembers_brings_back_what_was_there() {
    let (site, keys) = site();
    let genuine = site.listed();
    forge(&site, &keys);
    for seq in rotation(&site)..=site.records().len() as u64 {
        fs::remove_file(record(&site, seq)).unwrap();
    }
    fs::remove_dir_all(site.path("store").join("app/rotated")).unwrap();
    site.refused("east", 1);
    site.node("east").run(["repair", "app"]).expect(0);
    assert_eq!(site.listed(), genuine);
    site.backup("east");
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
}

/// An object that nobody can open says of itself what it likes.
#[test]
fn the_claims_of_a_key_slot_that_no_key_opens_are_not_trusted() {
    let (site, _) = site();
    let planted = format!(
        "{{\"v\":2,\"kind\":\"key_file\",\"generation\":40,\"salt\":\"{}\",\"wrapped\":\"{}\"}}\n",
        "02".repeat(32),
        "03".repeat(32 * 41 + 16)
    );
    let id = &blake3::hash(planted.as_bytes()).to_hex()[..16];
    fs::write(site.path("store").join("app/keys").join(id), planted).unwrap();
    let listed = site.node("east").run(["key", "list", "app"]).expect(0);
    assert!(listed.stdout.contains("(its own claim"), "{}", listed.stdout);
    site.node("east").run(["repair", "app", "--dry-run"]).expect(0);
    fs::remove_file(record(&site, 3)).unwrap();
    site.node("north").run(["repair", "app", "--force"]).expect(0);
    let more = site.path("more").display().to_string();
    site.node("east").run(["key", "add", "app", "--new-key-file", &more]).expect(0);
    fs::copy(&more, site.path("key")).unwrap();
    site.backup("west");
}

/// Two operators at the same moment. The one that comes second is fenced, or comes when all is over and finds that its key opens nothing.
#[test]
fn of_two_rotations_that_race_the_second_ends_fenced() {
    let mut fenced = 0;
    for round in 0..12 {
        let site = Site::pair("");
        site.write("f", "one");
        site.init();
        site.move_to("east");
        site.backup("east");
        let runs = ["east", "west"].map(|node| {
            let new = site.path(&format!("new-{node}")).display().to_string();
            let mut command = site.node(node).command(["key", "rotate", "app", "--force", "--new-key-file", &new]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        let ends = runs.map(|run| run.wait_with_output().unwrap());
        let said = ends.each_ref().map(|end| String::from_utf8_lossy(&end.stderr).into_owned());
        assert!(ends.iter().any(|end| end.status.success()), "round {round}: {said:?}");
        for (end, said) in ends.iter().zip(&said) {
            match end.status.code() {
                Some(0) => {}
                Some(5) => fenced += 1,
                Some(1) => assert!(said.contains("does not open"), "round {round}: {said}"),
                code => panic!("round {round}: {code:?} {said}"),
            }
        }
        let opens = ["east", "west"].iter().filter(|node| {
            let new = site.path(&format!("new-{node}"));
            new.exists()
                && fs::copy(new, site.path("key")).is_ok()
                && site.node("north").run(["snapshots", "app"]).code == Some(0)
        });
        assert_eq!(opens.count(), 1, "round {round}: {said:?}");
    }
    assert!(fenced > 3, "{fenced}");
}

#[test]
fn an_old_key_is_told_where_the_new_one_begins() {
    let (site, _) = site();
    let begins = format!("from journal record {} on", rotation(&site) + 1);
    fs::copy(site.path("exported"), site.path("old")).unwrap();
    let (store, old) = (format!("file://{}", site.path("store").display()), site.path("old"));
    let target = site.path("t").display().to_string();
    for command in [
        &["verify", "app"][..],
        &["repair", "app", "--dry-run"],
        &["restore", "app", "--salvage", "--target", &target],
        &["snapshots", "app"],
    ] {
        let all = command.iter().copied().chain(["--store", &store, "--key-file", old.to_str().unwrap()]);
        let run = TestNode::new(&site.path("bare"), "bare").run(all.collect::<Vec<_>>());
        let said = words(&run);
        assert!(said.contains(&begins) && said.contains("hint: put the new key"), "{command:?}: {}", run.stderr);
    }
    // Where a FIFO stands in the place of a folder, nobody is sent to look for a region.
    let fifo = site.path("store").join("app/rotate");
    let _ = fs::remove_dir_all(&fifo);
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let new = site.path("newer").display().to_string();
    let refused = site.node("east").run(["key", "rotate", "app", "--new-key-file", &new]).expect(1);
    assert!(!refused.stderr.contains("region") && refused.stderr.contains("who put it there"), "{}", refused.stderr);
}
