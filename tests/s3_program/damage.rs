//! A bucket whose objects are harmed in turn, by somebody with its credentials and without the key: what a repair, the next backup, a
//! prune and a rotation make of it. A directory is harmed in more ways by `tests/loss/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use runner::store::{SizeLimit, Store, list_all};
use serde_json::Value;

use crate::s3_server::{S3Server, ServerFault};
use crate::site::{Site, below};
use crate::support::compare::assert_same;
use crate::support::tree::TreeRng;

/// How long a request is kept back in which a repair is killed.
const HELD: Duration = Duration::from_mins(1);

/// The most requests with which a repair of this bucket writes something.
const WRITES_MAX: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Deleted,
    Cut,
    Swapped,
}

/// A role on a bucket, and the bucket as it was before any harm.
struct Scene {
    server: S3Server,
    site: Site,
    runtime: tokio::runtime::Runtime,
    whole: BTreeMap<String, Bytes>,
}

fn kind(key: &str) -> &str {
    key.split('/').nth(1).expect("every object is below its role")
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

impl Scene {
    fn new() -> Self {
        let server = S3Server::start();
        let site = crate::site(&server);
        site.config(&site.probed("keep = { last = 2 }\nprune_grace = \"0s\"\nmax_unused = 0\n"));
        site.move_to("east");
        site.init();
        for (number, name) in (1..).zip(["first", "second", "third"]) {
            site.write(name, TreeRng::new(number).noise(20_000));
            site.write("words", format!("the words of {name}"));
            site.backup("east");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut scene = Self { server, site, runtime, whole: BTreeMap::new() };
        scene.whole = scene.objects();
        copy(&scene.site.path("state-east"), &scene.site.path("whole"));
        scene
    }

    fn bucket<T>(&self, work: impl AsyncFnOnce(&dyn Store) -> T) -> T {
        self.runtime.block_on(async {
            let store = self.server.store("prod").await;
            work(&store).await
        })
    }

    fn objects(&self) -> BTreeMap<String, Bytes> {
        self.bucket(async |store| {
            let mut found = BTreeMap::new();
            for object in list_all(store, "app/").await.unwrap() {
                let content = store.get(&object.key, SizeLimit::INDEX).await.unwrap();
                found.insert(object.key, content);
            }
            found
        })
    }

    /// The bucket again as it was, and what the node remembers, or nothing of that.
    fn begin(&self, remembers: bool) {
        let there = self.objects();
        let added: Vec<String> = there.keys().filter(|key| !self.whole.contains_key(*key)).cloned().collect();
        self.bucket(async |store| {
            store.delete(&added).await.unwrap();
            for (key, content) in self.whole.iter().filter(|(key, content)| there.get(*key) != Some(*content)) {
                store.put(key, content.clone()).await.unwrap();
            }
        });
        let state = self.site.path("state-east");
        let _ = fs::remove_dir_all(&state);
        if remembers {
            copy(&self.site.path("whole"), &state);
        }
    }

    /// False: there is nothing to do it with.
    fn harm(&self, key: &str, harm: Harm) -> bool {
        let content = &self.whole[key];
        let with = match harm {
            Harm::Deleted => None,
            Harm::Cut => Some(content.slice(..content.len() / 2)),
            Harm::Swapped => {
                let other = self.whole.iter().find(|(other, _)| kind(other) == kind(key) && *other != key);
                let Some((_, other)) = other else { return false };
                Some(other.clone())
            }
        };
        self.bucket(async |store| match with {
            None => store.delete(&[key.to_owned()]).await.unwrap(),
            Some(with) => store.put(key, with).await.unwrap(),
        });
        true
    }

    /// The nth of a kind; from the end if it is negative.
    fn key(&self, of: &str, nth: isize) -> String {
        let keys: Vec<&String> = self.whole.keys().filter(|key| kind(key) == of).collect();
        let nth = if nth < 0 { keys.len().checked_add_signed(nth).unwrap() } else { nth as usize };
        keys[nth].clone()
    }

    /// From the harm to the next backup, after which nothing is left to repair and the newest snapshot is whole.
    /// `options`: further options of each `repair`.
    fn go_on(&self, what: &str, options: &[&str]) {
        let (site, node) = (&self.site, self.site.node("east"));
        // Before anything is mended no wrong byte is written.
        let target = site.path("salvaged");
        let _ = fs::remove_dir_all(&target);
        let _ = node.run(["restore", "app", "--salvage", "--target", target.to_str().unwrap()]);
        let salvaged = below(&target, &site.src());
        for entry in fs::read_dir(&salvaged).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            let found = fs::read(salvaged.join(&name)).unwrap();
            let is_older = name == "words" && found.starts_with(b"the words of ");
            assert!(
                is_older || found == fs::read(site.src().join(&name)).unwrap(),
                "{what}: {} is wrong",
                name.display()
            );
        }
        let repair = ["repair", "app", "--key-slot", "--json"];
        let repaired = node.run(repair.iter().chain(options));
        assert!(matches!(repaired.code, Some(0 | 7)), "{what}: {}{}", repaired.stdout, repaired.stderr);
        site.backup("east");
        self.is_mended(what, options);
    }

    fn is_mended(&self, what: &str, options: &[&str]) {
        let (site, node) = (&self.site, self.site.node("east"));
        let _ = fs::remove_dir_all(site.path("out"));
        eprintln!("restoring after: {what}");
        assert_same(&site.src(), &site.restore(&node, "latest", "out"));
        let repair = ["repair", "app", "--dry-run", "--json"];
        let again = node.run(repair.iter().chain(options)).json();
        assert_eq!(again["findings"], Value::Array(Vec::new()), "{what}: {again}");
        node.run(["journal", "show", "app"]).expect(0);
    }
}

#[test]
fn each_kind_of_object_of_a_bucket_is_harmed_and_the_newest_snapshot_comes_back() {
    let scene = Scene::new();
    let keys = [("format", 0), ("keys", 0), ("journal", 1), ("journal", -1), ("index", 0), ("packs", 0)];
    for (of, nth) in keys {
        let key = scene.key(of, nth);
        for harm in [Harm::Deleted, Harm::Cut, Harm::Swapped] {
            for remembers in [true, false] {
                // Who knows nothing is another matter where the way goes on; without its slot nobody else gets in.
                let is_other = harm == Harm::Deleted && matches!(of, "journal" | "index");
                if !remembers && !is_other {
                    continue;
                }
                scene.begin(remembers);
                if scene.harm(&key, harm) {
                    // Packs of one size are told apart only by their content.
                    let options: &[&str] = if of == "packs" && harm == Harm::Swapped { &["--read-data"] } else { &[] };
                    scene.go_on(&format!("{key}, {harm:?}, {remembers}"), options);
                }
            }
        }
    }
}

/// A repair that is killed in each of its writes is done again, whether or not the write came about.
#[test]
fn a_repair_that_is_killed_is_done_again() {
    let scene = Scene::new();
    let harmed = [scene.key("journal", 1), scene.key("index", 0), scene.key("packs", 0)];
    for write in 0.. {
        assert!(write < WRITES_MAX, "a repair comes to its end");
        scene.begin(false);
        for key in &harmed {
            scene.harm(key, Harm::Deleted);
        }
        scene.server.forget_requests();
        scene.server.trouble("PUT", "", ServerFault::Delay(Duration::ZERO), write);
        scene.server.trouble("PUT", "", ServerFault::Delay(HELD), 1);
        let mut command = scene.site.node("east").command(["repair", "app"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break Some(ended);
            }
            if scene.server.count("PUT", "") > write {
                break None;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let _ = child.kill();
        let _ = child.wait();
        scene.server.calm();
        scene.go_on(&format!("killed in write {write}"), &[]);
        if let Some(ended) = ended {
            assert!(matches!(ended.code(), Some(0 | 7)) && write > 1, "{write}: {ended}");
            break;
        }
    }
}

#[test]
fn a_prune_goes_on_after_a_repair_and_after_a_rotation() {
    let scene = Scene::new();
    let (site, node) = (&scene.site, scene.site.node("east"));
    scene.harm(&scene.key("journal", 1), Harm::Deleted);
    scene.harm(&scene.key("index", 0), Harm::Deleted);
    scene.go_on("before a prune", &[]);
    site.write("words", "after the repair");
    site.backup("east");
    node.run(["prune", "app"]).expect(0);
    node.run(["prune", "app"]).expect(0);
    node.run(["verify", "app", "--read-data"]).expect(0);
    scene.is_mended("after a prune", &[]);

    let new = site.path("new-key").display().to_string();
    node.run(["key", "rotate", "app", "--new-key-file", &new]).expect(0);
    fs::rename(&new, site.path("key")).unwrap();
    site.write("words", "after the rotation");
    site.backup("east");
    node.run(["prune", "app"]).expect(0);
    node.run(["prune", "app"]).expect(0);
    node.run(["verify", "app", "--read-data"]).expect(0);
    scene.is_mended("after a rotation", &[]);

    // What the old key wrote is in the place of a record that is void since, and of one that is not.
    let old = scene.whole[&scene.key("journal", 0)].clone();
    let record = scene.objects().into_keys().rfind(|key| kind(key) == "journal").unwrap();
    scene.bucket(async |store| store.put(&record, old).await.unwrap());
    assert_eq!(node.run(["verify", "app"]).code, Some(7));
    let repaired = node.run(["repair", "app"]);
    assert!(matches!(repaired.code, Some(0 | 7)), "{}{}", repaired.stdout, repaired.stderr);
    site.backup("east");
    node.run(["prune", "app"]).expect(0);
    scene.is_mended("after a repair of what was rotated", &[]);
}
