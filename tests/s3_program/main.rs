//! The built program over real S3 requests, with the server's troubles: the core story, what goes over the wire, a store that
//! vanishes midway, and a commit whose answer is lost.
#![cfg(feature = "s3")]

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod foreign;
mod large;
#[path = "../support/s3_foreign.rs"]
mod s3_foreign;
#[path = "../support/s3_server.rs"]
mod s3_server;
#[path = "../support/site.rs"]
mod site;

use std::time::Duration;

use s3_server::{BUCKET, S3Server, ServerFault, environment};
use site::{Site, files, number, words};
use support::compare::assert_same;
use support::tree;

/// The most requests of a run that finds nothing to do: what the head, the proof, the role, a note on losses and the record take.
const UNCHANGED_REQUESTS: usize = 9;

/// The most requests of a look at a role by a node that knows the journal's head: the repository, its key, the head, and what is after it.
const LOOK_REQUESTS: usize = 4;

/// A site on a bucket of that server, whose role moves by a probe.
fn site(server: &S3Server) -> Site {
    let objects = server.root.join(BUCKET).join("prod");
    let site = Site::on_s3(&format!("s3://{BUCKET}/prod"), &server.endpoint, objects, environment(), "");
    site.config(&site.probed(""));
    site.move_to("east");
    site
}

/// Requests that upload packs.
fn pack_puts(server: &S3Server) -> usize {
    let requests = server.requests();
    requests.iter().filter(|r| ["PUT", "POST"].contains(&&*r.method) && r.path.contains("/packs/")).count()
}

#[test]
fn a_role_is_backed_up_moves_and_comes_back() {
    let server = S3Server::start();
    let site = site(&server);
    tree::make_rich_tree(&site.src(), 21);
    site.init();
    let first = site.backup("east");
    assert_eq!(first["outcome"], "committed");
    assert!(pack_puts(&server) > 2, "{first}");

    // What changed within the clock's tick before it was seen is looked at once more.
    site.backup("east");
    server.forget_requests();
    let quiet = site.backup("east");
    assert_eq!((&quiet["outcome"], number(&quiet["bytes"]["new"])), (&"unchanged".into(), 0), "{quiet}");
    let requests = server.requests();
    assert_eq!(pack_puts(&server), 0);
    assert!(requests.len() <= UNCHANGED_REQUESTS, "{} requests: {requests:#?}", requests.len());
    let written: Vec<&str> =
        requests.iter().filter(|r| r.method != "GET" && r.method != "HEAD").map(|r| &*r.path).collect();
    assert!(
        written.iter().all(|path| path.contains("/journal/") || path.ends_with("/live/probe")),
        "a record is written, and the store's promise is tried: {written:?}"
    );

    server.forget_requests();
    site.node("east").run(["snapshots", "app"]).expect(0);
    let requests = server.requests();
    assert!(requests.len() <= LOOK_REQUESTS, "{} requests: {requests:#?}", requests.len());
    server.forget_requests();
    site.node("east").run(["whoami", "app"]).expect(0);
    // And the names of the nodes, of which there is no other, and those of the records, of which none is lost.
    let requests = server.requests();
    assert!(requests.len() <= LOOK_REQUESTS + 2, "{} requests: {requests:#?}", requests.len());

    site.move_to("west");
    server.forget_requests();
    let moved = site.backup("west");
    assert_eq!((&moved["outcome"], &moved["term"]), (&"unchanged".into(), &2.into()), "{moved}");
    assert_eq!((pack_puts(&server), number(&moved["bytes"]["new"])), (0, 0), "no pack for data that is there: {moved}");
    assert!(site.roots().windows(2).all(|w| w[0] == w[1]), "one manifest: {:?}", site.roots());

    site.write("sizes/added", "after the move");
    server.forget_requests();
    let changed = site.backup("west");
    assert_eq!(files(&changed)[0], 1, "{changed}");
    assert!((1..=2).contains(&pack_puts(&server)), "the file and the manifest: {changed}");
    assert_same(&site.src(), &site.restore(&site.node("west"), "latest", "out"));
    site.node("west").run(["verify", "app", "--read-data"]).expect(0);

    // A host that has nothing but the bucket and the key.
    let rescue = site.node("rescue").without_config();
    let (key, target) = (site.path("key").display().to_string(), site.path("rescued").display().to_string());
    let store = format!("s3://{BUCKET}/prod");
    let direct = ["--store", &store, "--endpoint", &server.endpoint, "--key-file", &key];
    rescue.run(["restore", "app", "--target", &target].into_iter().chain(direct)).expect(0);
    assert_same(&site.src(), &site::below(&site.path("rescued"), &site.src()));
}

#[test]
fn a_store_that_vanishes_midway_fails_the_run_and_nothing_else() {
    let server = S3Server::start();
    let site = site(&server);
    site.write("a", "one");
    site.init();
    site.backup("east");
    std::fs::copy(site.src().join("a"), site.path("a-then")).unwrap();
    for number in 0..4 {
        site.write(&format!("large-{number}"), tree::TreeRng::new(number).noise(12 << 20));
    }
    site.write("a", "two");

    // The first packs arrive, then nothing does any more.
    server.forget_requests();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (said, before) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while pack_puts(&server) < 2 && !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
            }
            for method in ["PUT", "GET", "HEAD", "POST", "DELETE"] {
                server.trouble(method, "", ServerFault::Status(503), usize::MAX);
            }
        });
        let before = site.snapshots().len();
        let run = site.node("east").run(["backup", "app"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (words(&run.expect(1)), before)
    });
    assert!(said.contains("503") || said.contains("s3://"), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert_eq!(site.snapshots().len(), before);

    server.calm();
    let target = site.path("out");
    site.node("west").run(["restore", "app", "--target", target.to_str().unwrap()]).expect(0);
    let out = site::below(&target, &site.src());
    assert_eq!(std::fs::read(out.join("a")).unwrap(), b"one");

    let (left, new) = (site.packs().len(), 48 << 20);
    assert!(left > 2, "the broken run had uploaded something");
    let next = site.backup("east");
    assert_eq!(next["outcome"], "committed");
    assert!(number(&next["bytes"]["new"]) < new, "what the broken run had uploaded is used: {next}");
    assert_same(&site.src(), &site.restore(&site.node("west"), "latest", "again"));
}

#[test]
fn a_store_that_is_not_there_at_all_is_said_and_nothing_is_lost() {
    let server = S3Server::start();
    let site = site(&server);
    site.write("a", "one");
    let run = site.node("east").run(["backup", "app"]).expect(1);
    assert!(words(&run).contains("no repository"), "{run:?}");
    site.init();
    site.backup("east");
    let text = std::fs::read_to_string(site.path("runner.toml")).unwrap();
    std::fs::write(site.path("runner.toml"), text.replace(&format!("s3://{BUCKET}/"), "s3://no-such-bucket/")).unwrap();
    let run = site.node("east").run(["backup", "app"]).expect(1);
    assert!(words(&run).contains("no-such-bucket") && words(&run).contains("hint: "), "{run:?}");
    std::fs::write(site.path("runner.toml"), text).unwrap();

    let wrong = site.node("east").with_env("AWS_SECRET_ACCESS_KEY", "wrong");
    let run = wrong.run(["backup", "app"]).expect(1);
    assert!(words(&run).contains("credentials"), "{run:?}");
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

/// As systemd starts a service: without HOME and without what a shell exports.
#[test]
fn credentials_come_from_the_file_that_the_config_names_and_their_lack_is_told_by_place() {
    let server = S3Server::start();
    let objects = server.root.join(BUCKET).join("prod");
    let alone = vec![("AWS_EC2_METADATA_DISABLED", "true".to_owned()), ("HOME", String::new())];
    let site = Site::on_s3(&format!("s3://{BUCKET}/prod"), &server.endpoint, objects, alone, "");
    site.write("a", "one");
    let run = site.node("east").run(["init"]).expect(1);
    let said = words(&run);
    for place in [
        "no credentials",
        "AWS_ACCESS_KEY_ID",
        "profile \"default\"",
        "HOME is not set",
        "web identity",
        "container",
        "metadata",
        "hint: ",
        "credentials_file",
        "/etc/runner/environment",
    ] {
        assert!(said.contains(place), "{place}: {said}");
    }
    let dumps = ["SdkBody", "ProviderError", "WARN", "{ "].into_iter().filter(|dump| said.contains(dump));
    assert_eq!(dumps.count(), 0, "{said}");
    assert!(server.requests().is_empty(), "nothing is asked without credentials");

    let file = site.path("s3-credentials");
    let named = format!("[store]\ncredentials_file = \"{}\"\nprofile = \"backup\"\n", file.display());
    let text = std::fs::read_to_string(site.path("runner.toml")).unwrap();
    std::fs::write(site.path("runner.toml"), text.replace("[store]\n", &named)).unwrap();
    let said = words(&site.node("east").run(["init"]).expect(1));
    assert!(said.contains(&format!("credentials_file {}: cannot be read", file.display())), "{said}");
    let variables = environment();
    let value = |name| &variables.iter().find(|(variable, _)| *variable == name).unwrap().1;
    let (id, secret) = (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"));
    std::fs::write(&file, format!("[backup]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    site.init();
    assert_eq!(site.backup("east")["outcome"], "committed");
}

#[test]
fn a_commit_whose_answer_is_lost_is_committed_once() {
    for trouble in [
        ServerFault::HangupAfter,
        ServerFault::StatusAfter(500),
        ServerFault::StatusAfter(409),
        ServerFault::StatusAfter(412),
        // Somebody in between says something else.
        ServerFault::PageAfter(403),
        ServerFault::PageAfter(404),
        ServerFault::PageAfter(200),
    ] {
        let server = S3Server::start();
        let site = site(&server);
        site.write("a", "one");
        site.init();
        // First the takeover's answer is lost, then a snapshot's.
        server.trouble("PUT", "/journal/", trouble, 1);
        let run = site.backup("east");
        assert_eq!(run["outcome"], "committed", "{trouble:?}: {run}");
        server.trouble("PUT", "/journal/", trouble, 1);
        assert_eq!(site.backup("east")["outcome"], "unchanged", "{trouble:?}");
        let kinds: Vec<String> = site.records().iter().map(|r| r["kind"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, ["takeover", "snapshot", "snapshot"], "{trouble:?}");
        assert_eq!(site.listed().len(), 2, "{trouble:?}");
    }
}

#[test]
fn a_commit_that_never_arrived_is_sent_again() {
    for trouble in [
        ServerFault::Hangup,
        ServerFault::Status(500),
        ServerFault::Status(409),
        ServerFault::Page(200),
        ServerFault::Page(403),
        ServerFault::Bare(404),
    ] {
        let server = S3Server::start();
        let site = site(&server);
        site.write("a", "one");
        site.init();
        server.trouble("PUT", "/journal/", trouble, 1);
        assert_eq!(site.backup("east")["outcome"], "committed", "{trouble:?}");
        server.trouble("PUT", "/journal/", trouble, 1);
        assert_eq!(site.backup("east")["outcome"], "unchanged", "{trouble:?}");
        assert_eq!((site.records().len(), site.snapshots().len()), (3, 2), "{trouble:?}");
    }
}

/// There is one node in all the world: that its lease is not answered is no other node's doing.
#[test]
fn a_lease_without_an_answer_is_unknown_and_not_another_nodes() {
    for trouble in [ServerFault::Status(503), ServerFault::Hangup, ServerFault::Page(403)] {
        let server = S3Server::start();
        let site = site(&server);
        site.write("a", "one");
        let leased = std::fs::read_to_string(site.path("runner.toml")).unwrap();
        let leased =
            leased.replace("lease = \"none\"\n", "lease = \"bucket\"\nbucket_lease_ttl = \"5s\"\nevery = \"1s\"\n");
        std::fs::write(site.path("runner.toml"), leased).unwrap();
        site.init();
        site.backup("east");
        server.trouble("PUT", "/live/lease", trouble, 1);
        site.backup("east");
        server.trouble("PUT", "/live/lease", trouble, usize::MAX);
        std::thread::sleep(Duration::from_secs(1));
        for arguments in [&["backup", "app"][..], &["backup", "app", "--scheduled"]] {
            let run = site.node("east").run(arguments).expect(4);
            assert!(!words(&run).contains("another"), "{trouble:?}: {}", words(&run));
        }
    }
}

#[test]
fn passing_troubles_are_not_noticed() {
    let server = S3Server::start();
    let site = site(&server);
    tree::make_many_files(&site.src(), 200, 3);
    site.write("large", tree::TreeRng::new(4).noise(10 << 20));
    site.init();
    server.trouble("PUT", "/packs/", ServerFault::Status(503), 1);
    server.trouble("PUT", "/packs/", ServerFault::HangupAfter, 1);
    server.trouble("PUT", "/index/", ServerFault::Status(500), 1);
    assert_eq!(site.backup("east")["outcome"], "committed");
    server.trouble("GET", "/packs/", ServerFault::HalfBody, 2);
    server.trouble("GET", "/packs/", ServerFault::Status(503), 1);
    assert_same(&site.src(), &site.restore(&site.node("west"), "latest", "out"));
}

#[test]
fn a_bucket_that_ignores_conditions_gets_no_journal() {
    let server = S3Server::start_bare();
    let site = site(&server);
    let run = site.node("east").run(["init"]).expect(1);
    assert!(words(&run).contains("cannot hold a journal"), "{run:?}");
    assert!(!site.path("key").exists() && site.records().is_empty());
    assert!(site.objects().iter().all(|o| o.contains("/live/")), "{:?}", site.objects());
}

#[test]
fn a_bucket_that_keeps_versions_is_said_and_one_that_locks_them_takes_no_lease() {
    let server = S3Server::start();
    let site = site(&server);
    site.config(&site.probed("keep = { last = 1 }\nmax_unused = 0\nprune_grace = \"0s\"\n"));
    let config = std::fs::read_to_string(site.path("runner.toml")).unwrap();
    std::fs::write(site.path("runner.toml"), config.replace("lease = \"none\"\n", "lease = \"bucket\"\n")).unwrap();
    server.bucket_says("versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>");
    let lock = |rule: &str| {
        format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>"
        )
    };
    let retention = "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule>";
    server.bucket_says("object-lock", &lock(retention));
    let run = site.node("east").run(["init"]).expect(2);
    assert!(run.stderr.contains("30 days") && run.stderr.contains("lease = \"etcd\""), "{run:?}");

    server.bucket_says("object-lock", &lock(""));
    let run = site.node("east").run(["init"]).expect(0);
    assert!(run.stderr.contains("129,600 versions a month"), "{run:?}");
    assert!(run.stderr.contains("\"Filter\":{\"Prefix\":\"prod/\"}"), "{run:?}");
    let run = site.node("east").run(["verify", "app"]).expect(0);
    assert!(run.stderr.contains("the bucket keeps versions"), "{run:?}");
    for n in 0..2 {
        site.write("file", tree::TreeRng::new(n).noise(300_000));
        site.backup("east");
    }
    let run = site.node("east").run(["prune", "app"]).expect(0);
    assert!(run.stdout.split_whitespace().collect::<Vec<_>>().join(" ").contains("only marks them"), "{run:?}");

    // Rights that are missing are said; a server that does not know the question is not accused of anything.
    server.trouble("GET", "?versioning", ServerFault::Status(403), 1);
    let run = site.node("east").run(["verify", "app"]).expect(0);
    assert!(run.stderr.contains("cannot be told") && run.stderr.contains("s3:GetBucketVersioning"), "{run:?}");
    let plain = S3Server::start();
    let site = self::site(&plain);
    let run = site.node("east").run(["init"]).expect(0);
    assert!(!run.stderr.contains("version"), "{run:?}");
}

#[test]
fn credentials_that_may_not_delete_forget_and_free_nothing() {
    let server = S3Server::start();
    let site = site(&server);
    site.config(&site.probed("keep = { last = 1 }\nmax_unused = 0\nprune_grace = \"0s\"\n"));
    site.init();
    for n in 0..3 {
        site.write("file", tree::TreeRng::new(n).noise(300_000));
        site.backup("east");
    }
    let packs = site.packs();
    server.trouble("POST", "delete", ServerFault::Status(403), 99);
    let run = site.node("east").run(["prune", "app"]).expect(1);
    assert!(words(&run).contains("may not delete") && words(&run).contains("hint: "), "{}", run.stderr);
    assert!(packs.is_subset(&site.packs()), "nothing is gone");
    assert_eq!(site.backup("east")["outcome"], "unchanged", "backups go on");
    server.calm();
    site.node("east").run(["prune", "app"]).expect(0);
    assert!(packs.difference(&site.packs()).count() >= 2, "somebody who may frees what was condemned");
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
}

#[test]
fn a_rotation_leaves_what_was_before_and_shuts_the_old_key_out_of_what_comes_after() {
    let server = S3Server::start();
    let site = site(&server);
    site.write("kept", tree::TreeRng::new(3).noise(2_000_000));
    site.init();
    site.backup("east");
    let (new, old) = (site.path("new"), site.path("old"));
    std::fs::copy(site.path("key"), &old).unwrap();
    let rotated = site.node("east").run(["key", "rotate", "app", "--new-key-file", new.to_str().unwrap()]);
    rotated.expect(0);
    assert!(site.objects().iter().all(|key| !key.contains("/rotate/")), "nothing is left staged");
    assert!(site.refused("east", 1).contains("does not open the repository"));
    std::fs::copy(&new, site.path("key")).unwrap();
    site.move_to("west");
    site.write("added", tree::TreeRng::new(4).noise(100_000));
    let moved = site.backup("west");
    assert!(number(&moved["bytes"]["new"]) < 200_000, "what is stored is not stored again: {moved}");
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
    std::fs::copy(&old, site.path("key")).unwrap();
    assert!(words(&site.node("north").run(["snapshots", "app"]).expect(1)).contains("does not open"));
}
