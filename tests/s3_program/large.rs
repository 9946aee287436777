//! The core story on 100,000 real files, with figures. Not part of the test run: `make check-large`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::s3_server::{BUCKET, S3Server, environment};
use crate::site::{Site, files, number};
use crate::support::compare::compare_trees;

/// How many regular files there must be.
const FILES_MIN: usize = 100_000;

/// Of so many files one is changed.
const CHANGED_SHARE: usize = 100;

/// What an entry may take in the manifest, before compression. Changes all over a tree touch nearly every part of it.
const ENTRY_BYTES_MAX: u64 = 500;

#[test]
#[ignore = "takes minutes and gigabytes: make check-large"]
fn a_hundred_thousand_files_to_a_directory() {
    story(&Site::new(""), "directory");
}

#[test]
#[ignore = "takes minutes and gigabytes: make check-large"]
fn a_hundred_thousand_files_to_s3() {
    let server = S3Server::start();
    let objects = server.root.join(BUCKET).join("prod");
    let site = Site::on_s3(&format!("s3://{BUCKET}/prod"), &server.endpoint, objects, environment(), "");
    story(&site, "S3");
}

fn story(site: &Site, store: &str) {
    fill(site);
    let all = regular(&site.src());
    let bytes: u64 = all.iter().map(|(_, len)| len).sum();
    println!("{store}: {} files, {} MiB", all.len(), bytes >> 20);
    site.init();

    let first = site.backup("east");
    say(store, "first run", &first, site, 0);
    assert_eq!((&first["outcome"], number(&first["bytes"]["source"])), (&"committed".into(), bytes));

    let (packs, root) = (site.packs(), site.roots().pop());
    let unchanged = site.backup("east");
    say(store, "unchanged run", &unchanged, site, packs.len());
    assert_eq!((&unchanged["outcome"], number(&unchanged["bytes"]["new"])), (&"unchanged".into(), 0));
    assert_eq!((site.packs(), site.roots().pop()), (packs.clone(), root), "0 packs, the same manifest root");

    let (mut changed, mut changed_bytes) = (0, 0);
    for (path, len) in all.iter().step_by(CHANGED_SHARE) {
        // Symbolic links and read-only files are no matter: these are regular, and root or their owner changes them.
        let mut permissions = fs::metadata(path).unwrap().permissions();
        let before = permissions.clone();
        #[allow(clippy::permissions_set_readonly_false, reason = "it is set back below")]
        permissions.set_readonly(false);
        fs::set_permissions(path, permissions).unwrap();
        fs::File::options().append(true).open(path).unwrap().write_all(b"\nchanged\n").unwrap();
        fs::set_permissions(path, before).unwrap();
        changed += 1;
        changed_bytes += len + 9;
    }
    let run = site.backup("east");
    say(store, "run after changing 1 %", &run, site, packs.len());
    let [new, found, _, removed, unreadable] = files(&run);
    assert_eq!([new, found, removed, unreadable], [0, changed, 0, 0], "{run}");
    let manifest = all.len() as u64 * ENTRY_BYTES_MAX;
    assert!(number(&run["bytes"]["new"]) <= changed_bytes + manifest, "{changed_bytes} bytes changed: {run}");
    println!("{store}: {changed} files were changed, {} KiB with what is around the changes", changed_bytes >> 10);

    let out = site.restore(&site.node("west"), "latest", "out");
    let differences = compare_trees(&site.src(), &out);
    assert!(differences.is_empty(), "{} differences: {:?}", differences.len(), &differences[..1]);
    println!("{store}: the restored tree is the same: content, mode, owner, mtime, links, attributes, holes");
}

fn say(store: &str, what: &str, run: &Value, site: &Site, packs_before: usize) {
    let mib = |name: &str| number(&run["bytes"][name]) as f64 / f64::from(1 << 20);
    println!(
        "{store}: {what}: {:.1} s, read {:.1} MiB, new {:.1} MiB, sent {:.1} MiB in {} new packs, {} requests",
        run["duration_seconds"].as_f64().unwrap(),
        mib("read"),
        mib("new"),
        mib("uploaded"),
        site.packs().len() - packs_before,
        run["requests"],
    );
}

/// Copies real trees into the source until there are enough files.
fn fill(site: &Site) {
    let from = std::env::var("CHECK_LARGE_TREES").expect("directories to copy, with colons between them");
    let mut count = 0;
    for (number, tree) in from.split(':').map(Path::new).filter(|tree| tree.is_dir()).enumerate() {
        let to = site.src().join(number.to_string());
        let status = Command::new("cp").arg("-a").arg(tree).arg(&to).status().unwrap();
        assert!(status.success(), "{}", tree.display());
        count += regular(&to).len();
        if count >= FILES_MIN {
            return;
        }
    }
    panic!("{from} has only {count} files, and {FILES_MIN} are wanted; name more in CHECK_LARGE_TREES");
}

/// The regular files below `dir`, in order, with their sizes. Of several names of one file, one: they change together.
fn regular(dir: &Path) -> Vec<(PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut found, mut seen) = (Vec::new(), std::collections::HashSet::new());
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let (path, meta) = entry.and_then(|e| Ok((e.path(), e.metadata()?))).unwrap();
            if meta.is_dir() {
                dirs.push(path);
            } else if meta.is_file() && (meta.nlink() == 1 || seen.insert(meta.ino())) {
                found.push((path, meta.len()));
            }
        }
    }
    found.sort();
    found
}
