//! Bad input gets a clear error, the right exit code, and nothing is lost or made in passing.

use std::fs;
use std::path::Path;

use runner::config::KeySource;
use runner::env::Env;
use runner::job::repository::open::Repository;
use runner::store::dir::DirStore;

use crate::site::{Site, files, number, role, words};
use crate::support::compare::assert_same;

/// A site with two files, backed up once.
fn backed_up() -> Site {
    let site = Site::new("");
    site.write("a", "one");
    site.write("sub/b", "two");
    site.init();
    site.backup("east");
    site
}

/// It ends with what to do.
fn has_advice(said: &str) -> bool {
    said.rsplit_once("hint: ").is_some_and(|(_, advice)| advice.len() > 20)
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let site = backed_up();
    let objects = site.objects();
    site.config("exlude = [\"*.tmp\"]");
    let said = site.refused("east", 2);
    assert!(said.contains("exlude") && said.contains("did you mean") && said.contains("exclude"), "{said}");
    assert!(said.contains("runner.toml:8"), "file and line are named: {said}");
    let run = site.node("east").run(["backup", "app", "--json"]).expect(2);
    assert_eq!(run.json()["error"]["exit"], 2);
    assert_eq!(site.objects(), objects);
}

#[test]
fn a_missing_source_fails_and_the_backups_stay_as_they_are() {
    let site = backed_up();
    fs::rename(site.src(), site.path("gone")).unwrap();
    for node in ["east", "west"] {
        let said = site.refused(node, 1);
        assert!(said.contains(site.src().to_str().unwrap()), "{said}");
    }
    fs::rename(site.path("gone"), site.src()).unwrap();
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

#[test]
fn one_missing_source_of_several_fails_the_whole_run() {
    let site = Site::new("");
    site.write("a", "one");
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    let src = site.src();
    let several = format!("{src:?}, {:?}", site.path("not-there"));
    fs::write(site.path("runner.toml"), text.replace(&format!("{src:?}"), &several)).unwrap();
    site.init();
    let said = site.refused("east", 1);
    assert!(said.contains("not-there"), "{said}");
}

#[test]
fn an_empty_source_where_there_were_files_is_an_unmounted_volume_unless_allowed() {
    let site = backed_up();
    fs::rename(site.src(), site.path("full")).unwrap();
    fs::create_dir(site.src()).unwrap();
    for node in ["east", "west"] {
        let said = site.refused(node, 1);
        assert!(said.contains(site.src().to_str().unwrap()) && said.contains("empty"), "{said}");
        assert!(has_advice(&said) && said.contains("allow_empty"), "{said}");
    }
    let out = site.restore(&site.node("east"), "latest", "out");
    assert_eq!(fs::read(out.join("sub/b")).unwrap(), b"two");

    site.config("allow_empty = true");
    let run = site.backup("east");
    assert_eq!((&run["outcome"], files(&run)[3]), (&"committed".into(), 3), "{run}");
    // Empty as it was before: there is nothing to store all the same.
    site.config("");
    assert!(site.refused("east", 1).contains("nothing to store"));
}

#[test]
fn a_first_backup_that_would_hold_nothing_is_refused_unless_allowed() {
    let site = Site::new("");
    site.init();
    let source = site.src().display().to_string();
    let refused = |lines: &str| {
        site.config(lines);
        let said = site.refused("east", 1);
        assert!(has_advice(&said) && said.contains("allow_empty") && said.contains("nothing to store"), "{said}");
        assert!(said.contains(&source), "{said}");
    };
    refused("");
    // Directories hold nothing either, nor does what is excluded.
    fs::create_dir_all(site.src().join("mnt/data")).unwrap();
    refused("");
    site.write("mnt/data/file", "content");
    refused("exclude = [\"**\"]");
    site.config("allow_empty = true\nexclude = [\"**\"]");
    let run = site.backup("east");
    assert_eq!((&run["outcome"], &run["warnings"][0]["kind"]), (&"committed".into(), &"empty_source".into()), "{run}");
    site.config("");
    assert_eq!(site.backup("east")["outcome"], "committed");
    // The volume goes, and the directories that volumes are mounted at stay.
    fs::remove_file(site.src().join("mnt/data/file")).unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("allow_empty") && said.contains("holds no file, and held 1"), "{said}");
}

#[test]
fn a_first_backup_of_names_alone_is_refused_and_one_of_links_alone_is_told() {
    let site = Site::new("");
    site.init();
    site.write("data/.keep", "");
    rustix::fs::mknodat(rustix::fs::CWD, site.src().join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let said = site.refused("east", 1);
    assert!(has_advice(&said) && said.contains("2 empty files, pipes or devices"), "{said}");
    // What has no size and content all the same is content.
    let config = fs::read_to_string(site.path("runner.toml")).unwrap();
    let of_proc = config.replace(site.src().to_str().unwrap(), "/proc/sys/kernel/random/boot_id");
    fs::write(site.path("runner.toml"), of_proc).unwrap();
    assert_eq!(site.backup("east")["warnings"], serde_json::json!([]));

    let site = Site::new("");
    site.init();
    site.write("data/.keep", "");
    std::os::unix::fs::symlink(site.path("elsewhere"), site.src().join("link")).unwrap();
    let run = site.backup("east");
    assert_eq!((&run["outcome"], &run["warnings"][0]["kind"]), (&"committed".into(), &"no_content".into()), "{run}");
    let check = site.node("west").run(["whoami", "--check"]).expect(1).stdout;
    assert!(check.contains("the newest snapshot has no content"), "{check}");
    site.config("allow_empty = true");
    let check = site.node("east").run(["whoami", "--check"]);
    assert!(!check.stdout.contains("has no content"), "{}", check.stdout);
    site.config("");
    site.write("data/file", "content");
    assert_eq!(site.backup("east")["warnings"], serde_json::json!([]));
    site.node("west").run(["whoami", "--check"]).expect(0);
}

#[test]
fn a_source_that_is_a_link_is_refused_with_what_it_leads_to() {
    let site = Site::new("");
    site.write("file", "content");
    site.init();
    fs::rename(site.src(), site.path("data")).unwrap();
    std::os::unix::fs::symlink(site.path("data"), site.src()).unwrap();
    let data = site.path("data").display().to_string();
    let said = site.refused("east", 1);
    assert!(said.contains("symbolic link") && said.contains(&data) && has_advice(&said), "{said}");
    let checked = site.node("east").run(["config", "check"]).expect(0).stdout;
    assert!(checked.contains("WARNING") && checked.contains(&data), "{checked}");
    let document = site.node("east").run(["config", "check", "--json"]).expect(0).json();
    assert!(document["warnings"][0].as_str().unwrap().contains(&data), "{document}");

    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), text.replace(&site.src().display().to_string(), &data)).unwrap();
    assert!(!site.node("east").run(["config", "check"]).expect(0).stdout.contains("symbolic link"));
    assert_eq!(site.backup("east")["files"]["new"], 2, "its target is the data");
}

#[test]
fn a_store_that_is_gone_gets_no_second_repository_unless_one_is_asked_for() {
    let site = backed_up();
    site.backup("west");
    let away = || fs::rename(site.path("store"), site.path("away")).unwrap();
    let back = || {
        fs::remove_dir_all(site.path("store")).unwrap();
        fs::rename(site.path("away"), site.path("store")).unwrap();
    };
    away();
    // The disk is not mounted: first without its mount point, and then with it.
    for there in [false, true] {
        if there {
            fs::create_dir(site.path("store")).unwrap();
        }
        for node in ["east", "west"] {
            let said = words(&site.node(node).run(["init"]).expect(1));
            assert!(said.contains("mount it") && said.contains("--new") && has_advice(&said), "{said}");
            assert_eq!(site.path("store").exists(), there, "nothing is made");
        }
    }
    assert_eq!(fs::read_dir(site.path("store")).unwrap().count(), 0, "nothing is written");
    let said = words(&site.node("east").run(["backup", "app"]).expect(1));
    assert!(said.contains("this node knows") && has_advice(&said), "{said}");
    let said = words(&site.node("east").run(["snapshots", "app"]).expect(1));
    assert!(said.contains("this node knows"), "{said}");
    let run = site.node("east").run(["whoami", "app", "--check"]).expect(2).stdout;
    assert!(run.contains("check whether the store is mounted"), "{run}");
    let whoami = site.node("east").run(["whoami", "app", "--json"]).expect(0).json();
    assert_eq!(whoami["roles"][0]["store"]["status"], "gone", "{whoami}");
    assert_eq!(whoami["roles"][0]["state"], "unknown", "{whoami}");

    // Without a config the store would be initialised by the backup itself.
    let (store, key) = (format!("file://{}", site.path("store").display()), site.path("key"));
    let (src, key) = (site.src(), key.to_str().unwrap().to_owned());
    let direct = ["backup", "--source", src.to_str().unwrap(), "--store", &store, "--key-file", &key, "--role", "app"];
    let said = words(&site.node("east").run(direct).expect(1));
    assert!(said.contains("mount it"), "{said}");

    back();
    site.init();
    assert_eq!(site.backup("east")["outcome"], "unchanged", "it is back");
    away();
    fs::create_dir(site.path("store")).unwrap();
    site.node("east").run(["init", "--new"]).expect(0);
    assert_eq!(site.backup("east")["outcome"], "committed");
    site.init();
    // Another node that has never seen this store knows nothing of it.
    site.node("north").run(["init"]).expect(0);
}

#[test]
fn a_wrong_key_or_passphrase_and_a_missing_key_file_open_nothing_and_make_nothing() {
    let site = backed_up();
    let objects = site.objects();
    let key = fs::read(site.path("key")).unwrap();
    // A key that is well-formed, and another repository's.
    let other = Site::new("");
    other.init();
    fs::copy(other.path("key"), site.path("key")).unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("does not open") && said.contains(site.path("key").to_str().unwrap()), "{said}");
    let run = site.node("east").run(["restore", "app", "--target", site.path("out").to_str().unwrap()]).expect(1);
    assert!(words(&run).contains("does not open"), "{}", run.stderr);

    fs::write(site.path("key"), b"rubbish").unwrap();
    site.refused("east", 1);
    fs::remove_file(site.path("key")).unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains(site.path("key").to_str().unwrap()), "{said}");
    assert!(!site.path("key").exists(), "only the making of a repository makes a key");
    site.node("east").run(["init"]).expect(1);
    assert!(!site.path("key").exists(), "nor does a second init");

    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("passphrase"), "wrong\n").unwrap();
    let with_passphrase = text.replace("key_file", "passphrase_file").replace("/key\"", "/passphrase\"");
    fs::write(site.path("runner.toml"), with_passphrase).unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("does not open"), "{said}");
    fs::write(
        site.path("runner.toml"),
        text.replace("key_file", "#").replace("[store]", "[store]\nencryption = \"none\""),
    )
    .unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("is encrypted"), "{said}");

    fs::write(site.path("runner.toml"), text).unwrap();
    fs::write(site.path("key"), key).unwrap();
    assert_eq!(site.objects(), objects, "nothing of all that wrote to the store");
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

#[test]
fn a_passphrase_opens_what_it_closed() {
    let site = Site::new("");
    site.write("a", "one");
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), text.replace("key_file", "passphrase_file").replace("/key\"", "/passphrase\""))
        .unwrap();
    fs::write(site.path("passphrase"), "correct horse battery staple\n").unwrap();
    site.init();
    site.backup("east");
    fs::write(site.path("passphrase"), "correct horse battery stable\n").unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("does not open"), "{said}");
    // Without the newline it is the same passphrase.
    fs::write(site.path("passphrase"), "correct horse battery staple").unwrap();
    assert_same(&site.src(), &site.restore(&site.node("west"), "latest", "out"));
}

#[test]
fn without_encryption_nothing_is_hidden_and_a_configured_key_refuses_it() {
    let site = Site::new("");
    site.write("a", "a very particular sentence");
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    let plain: Vec<&str> = text.lines().filter(|line| !line.starts_with("key_file")).collect();
    fs::write(site.path("runner.toml"), plain.join("\n").replace("[store]", "[store]\nencryption = \"none\"")).unwrap();
    site.init();
    site.backup("east");
    assert_same(&site.src(), &site.restore(&site.node("west"), "latest", "out"));
    fs::write(site.path("runner.toml"), &text).unwrap();
    fs::copy(key_of_another(), site.path("key")).unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("not encrypted"), "whoever can write to the store must not choose: {said}");
}

fn key_of_another() -> std::path::PathBuf {
    let other = Site::new("");
    other.init();
    let kept = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    fs::copy(other.path("key"), &kept).unwrap();
    kept
}

#[test]
fn a_newer_format_or_record_asks_for_an_update_and_is_not_written_to() {
    let site = backed_up();
    let format = site.path("store/app/format");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, text.replacen("\"v\":1", "\"v\":2", 1)).unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("version 2") && said.contains("pdate runner"), "{said}");
    fs::write(&format, text).unwrap();

    let head = site.records().len();
    let journal = site.path("store/app/journal");
    let mut names: Vec<_> = fs::read_dir(&journal).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let next = journal.join(format!("{:0width$}", head + 1, width = names[0].file_name().unwrap().len()));
    let text = fs::read_to_string(&names[head - 1]).unwrap();
    let newer = text.lines().next().unwrap().replacen("\"v\":1", "\"v\":2", 1);
    let newer = format!("{newer}\n{{\"mac\":\"{}\"}}\n", hex::encode(keys(&site).line_mac(newer.as_bytes())));
    fs::write(&next, newer).unwrap();
    for node in ["east", "west"] {
        let objects = site.objects();
        let run = site.node(node).run(["backup", "app"]).expect(1);
        assert!(words(&run).contains("version 2") && words(&run).contains("pdate runner"), "{}", run.stderr);
        assert_eq!(site.objects(), objects);
    }
    fs::remove_file(next).unwrap();
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

/// The repository's keys, as the program itself opens them.
fn keys(site: &Site) -> runner::repo::crypto::DerivedKeys {
    let store = std::sync::Arc::new(DirStore::open(&site.path("store"), &Env::host()).unwrap());
    let key = KeySource::KeyFile(site.path("key"));
    let opened = async { Repository::open(store, &"app".parse().unwrap(), &key).await.unwrap().keys };
    tokio::runtime::Runtime::new().unwrap().block_on(opened)
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let site = backed_up();
    let store = site.path("store");
    fs::rename(&store, site.path("unmounted")).unwrap();
    for args in [&["backup", "app"][..], &["snapshots", "app"], &["restore", "app", "--target", "/nonexistent"]] {
        let run = site.node("east").run(args).expect(1);
        assert!(words(&run).contains(store.to_str().unwrap()) && has_advice(&words(&run)), "{}", run.stderr);
        assert!(!store.exists());
    }
    // The mount point is there, the disk is not: an empty directory is no repository.
    fs::create_dir(&store).unwrap();
    let said = site.refused("east", 1);
    assert!(said.contains("no repository"), "{said}");
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0, "nothing was made in it");
    fs::remove_dir(&store).unwrap();
    fs::rename(site.path("unmounted"), &store).unwrap();
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

#[test]
fn a_store_that_was_rolled_back_is_not_written_to() {
    let site = backed_up();
    site.write("c", "three");
    site.backup("east");
    let journal = site.path("store/app/journal");
    let last = fs::read_dir(&journal).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    let record = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    let run = site.node("east").run(["backup", "app"]).expect(1);
    assert!(words(&run).contains("rolled back"), "{}", run.stderr);
    assert!(!last.exists());
    fs::write(&last, record).unwrap();
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

/// What is left of it is shown to who names a snapshot of it, and nothing is shown as if it were all.
#[test]
fn a_store_that_was_rolled_back_is_read_by_name_alone() {
    let site = backed_up();
    site.write("c", "three");
    site.backup("east");
    let listed = site.node("east").run(["--json", "snapshots", "app"]).expect(0).json();
    assert!(listed["doubt"].is_null(), "{listed}");
    let id = listed["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let journal = site.path("store/app/journal");
    let last = fs::read_dir(&journal).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    fs::remove_file(&last).unwrap();

    let (out, file) = (site.path("out"), site.src().join("a"));
    let (out, file) = (out.to_str().unwrap(), file.to_str().unwrap());
    let east = || site.node("east");
    for command in [
        &["restore", "app", "--target", out][..],
        &["restore", "app", "--target", out, "--snapshot", "latest"],
        &["restore", "app", "--target", out, "--snapshot", "1s ago"],
        &["ls", "app"],
        &["cat", "app", file],
        &["find", "app", "a"],
        &["find", "app", "a", "--snapshot", "all"],
        &["diff", "app", "latest", "latest"],
        &["snapshots", "app"],
        &["journal", "show", "app"],
        &["prune", "app", "--dry-run"],
    ] {
        for quiet in [&[][..], &["-q"]] {
            let run = east().run([quiet, command].concat()).expect(1);
            let said = words(&run);
            assert!(said.contains("rolled back") && said.contains("keep the store as it is"), "{command:?}: {said}");
        }
    }
    assert!(!Path::new(out).exists());

    let listed = east().run(["-q", "--json", "snapshots", "app"]).expect(1).json();
    assert_eq!(listed["doubt"]["kind"], "rolled_back", "{listed}");
    assert_eq!(listed["snapshots"][0]["id"], id.as_str(), "what is left can be chosen from");
    let restored = east().run(["-q", "--json", "restore", "app", "--target", out, "--snapshot", &id]).expect(0).json();
    assert_eq!(restored["doubt"]["kind"], "rolled_back", "{restored}");
    let shown = east().run(["-q", "--json", "ls", "app", &id]).expect(0).json();
    assert_eq!(shown["doubt"]["kind"], "rolled_back", "{shown}");
}

/// A listing that shows nothing is not believed where there must be something.
#[test]
fn key_slots_that_are_gone_are_no_wrong_passphrase() {
    let site = backed_up();
    fs::rename(site.path("store/app/keys"), site.path("keys-then")).unwrap();
    let run = site.node("north").run(["snapshots", "app"]).expect(1);
    let said = words(&run);
    assert!(said.contains("none of its key slots") && said.contains("keep the store"), "{said}");
    fs::rename(site.path("keys-then"), site.path("store/app/keys")).unwrap();
    site.node("north").run(["snapshots", "app"]).expect(0);
}

/// A `format` that was removed: what is left of the repository is no place for a new one, and nobody is told to empty it.
#[test]
fn a_repository_without_its_format_is_not_made_anew() {
    let site = backed_up();
    fs::remove_file(site.path("store/app/format")).unwrap();
    let objects = site.objects();
    let said = words(&site.node("east").run(["init"]).expect(1));
    assert!(said.contains("keep what is left") && !said.contains("empty this"), "{said}");
    assert_eq!(site.objects(), objects);
}

#[test]
fn a_damaged_record_stops_writers_by_name() {
    let site = backed_up();
    let journal = site.path("store/app/journal");
    let last = fs::read_dir(&journal).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    let record = fs::read(&last).unwrap();
    let mut flipped = record.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 1;
    fs::write(&last, &flipped).unwrap();
    let objects = site.objects();
    let run = site.node("west").run(["backup", "app"]).expect(1);
    assert!(
        words(&run).contains(last.file_name().unwrap().to_str().unwrap().trim_start_matches('0')),
        "{}",
        run.stderr
    );
    assert_eq!(site.objects(), objects);
    fs::write(&last, record).unwrap();
    assert_eq!(site.backup("west")["outcome"], "unchanged");
}

#[test]
fn init_is_safe_to_repeat_and_refuses_a_foreign_directory() {
    let site = backed_up();
    let objects = site.objects();
    let run = site.node("west").run(["init", "--json"]).expect(0);
    assert_eq!(run.json()["roles"][0]["created"], false);
    assert_eq!(site.objects(), objects);

    let other = Site::new("");
    fs::create_dir_all(other.path("store/app")).unwrap();
    fs::write(other.path("store/app/holiday.jpg"), "not ours").unwrap();
    let run = other.node("east").run(["init"]).expect(1);
    assert!(words(&run).contains("app/holiday.jpg"), "{}", run.stderr);
    assert_eq!(other.objects().len(), 1);
    assert!(!other.path("key").exists());
}

#[test]
fn a_repository_that_lost_its_format_is_not_made_anew() {
    let site = backed_up();
    fs::remove_file(site.path("store/app/format")).unwrap();
    let objects = site.objects();
    site.refused("east", 1);
    site.node("east").run(["init"]).expect(1);
    assert_eq!(site.objects(), objects);
}

#[test]
fn without_any_config_a_directory_is_backed_up_and_comes_back() {
    let site = Site::new("");
    site.write("a", "one");
    site.write("b.tmp", "two");
    fs::remove_file(site.path("runner.toml")).unwrap();
    let node = site.node("east").without_config();
    let (src, key) = (site.src().display().to_string(), site.path("key").display().to_string());
    let store = format!("file://{}", site.path("store").display());
    let backup =
        ["backup", "--source", &src, "--store", &store, "--role", "app", "--key-file", &key, "--exclude", "*.tmp"];
    let run = node.run(backup).expect(0);
    assert!(run.stdout.contains("opy") && run.stdout.contains(&key), "what to copy is said: {}", run.stdout);
    assert_eq!(fs::metadata(&key).unwrap().permissions(), std::os::unix::fs::PermissionsExt::from_mode(0o100_600));
    let again = role(&node.run(backup.into_iter().chain(["--json"])).expect(0));
    assert_eq!((&again["outcome"], number(&again["bytes"]["new"])), (&"unchanged".into(), 0));

    // A host that has nothing but the store and the key.
    let rescue = site.node("rescue").without_config();
    let direct = ["--store", &store, "--key-file", &key];
    let run = rescue.run(["snapshots", "app", "--json"].into_iter().chain(direct)).expect(0);
    assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 2);
    let target = site.path("out").display().to_string();
    rescue.run(["restore", "app", "--target", &target].into_iter().chain(direct)).expect(0);
    let out = crate::site::below(&site.path("out"), &site.src());
    assert_eq!(fs::read(out.join("a")).unwrap(), b"one");
    assert!(!out.join("b.tmp").exists());
    assert!(!rescue.state_dir.exists(), "reading creates nothing");

    // The key file is what opens it, and what is missing is not made where something is read.
    fs::rename(&key, site.path("moved")).unwrap();
    let run = rescue.run(["restore", "app", "--target", &target].into_iter().chain(direct)).expect(1);
    assert!(words(&run).contains(&key), "{}", run.stderr);
    node.run(backup).expect(1);
    assert!(!site.path("key").exists());
}

#[test]
fn a_passphrase_that_comes_late_is_waited_for_and_one_that_does_not_come_is_no_silence_of_the_store() {
    let site = Site::new("");
    site.write("a", "one");
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), text.replace("key_file", "passphrase_file").replace("/key\"", "/passphrase\""))
        .unwrap();
    let phrase = site.path("passphrase");
    fs::write(&phrase, "correct horse battery staple\n").unwrap();
    site.init();
    fs::remove_file(&phrase).unwrap();
    nix::unistd::mkfifo(&phrase, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    // Nobody writes.
    let run = site.node("east").run(["whoami"]).expect(0);
    let said = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let silent = format!("{} could not be read within 10s; the store answers", phrase.display());
    assert!(said.contains(&silent) && !said.contains("no answer"), "{said}");
    // A password manager does, when its person has typed.
    let mut backup = site.node("east").start(["backup", "app"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(backup.try_wait().unwrap().is_none(), "it waits");
    fs::write(&phrase, "correct horse battery staple\n").unwrap();
    assert_eq!(backup.wait().unwrap().code(), Some(0));
}
