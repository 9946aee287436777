//! Any tree after any other: the walk is merged with the newest snapshot, and with this node's cache of it or of an
//! older one. The counts are the real changes, and the manifest describes the tree, whichever node made it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::config::TakeoverTrust;
use crate::env::{Clock, HostClock};
use crate::ids::NodeId;
use crate::job::backup::outcome::CommittedBackup;
use crate::job::report::FileCounts;
use crate::job::testing::{JobFixture, noise};
use crate::repo::entry::TreePath;

/// A clock that is ahead by more than the granularity of file times: files written before the run count as settled.
#[derive(Debug)]
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        HostClock.now() + SignedDuration::from_secs(10)
    }

    fn boottime(&self) -> Duration {
        HostClock.boottime()
    }
}

/// The object at a path. A file's time determines its content, as if times were never set back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir {
        private: bool,
    },
    File {
        seed: u8,
        len: usize,
        private: bool,
    },
    Symlink(u8),
    /// A further hard link of this file, which comes before it.
    Link {
        target: TreePath,
        file: Box<Node>,
    },
}

type Tree = BTreeMap<TreePath, Node>;

/// Trees over few names, so that two trees have much in common.
fn tree() -> impl Strategy<Value = Tree> {
    let node = prop_oneof![
        3 => any::<bool>().prop_map(|private| Some(Node::Dir { private })),
        5 => (0..2u8, prop_oneof![Just(0), Just(9), Just(40_000)], prop::bool::weighted(0.2))
            .prop_map(|(seed, len, private)| Some(Node::File { seed, len, private })),
        1 => (0..2u8).prop_map(|n| Some(Node::Symlink(n))),
        2 => Just(None),
    ];
    let names = prop::collection::vec(prop::sample::select(vec!["a", "a-", "b", "c", "\u{e9}"]), 1..4);
    prop::collection::btree_map(names.prop_map(|names| TreePath::new(names.join("/")).unwrap()), node, 0..25).prop_map(
        |wanted| {
            let mut tree = Tree::new();
            let mut file = None;
            for (path, node) in wanted {
                let parent = path.parent().unwrap();
                if !parent.as_bytes().is_empty() && !matches!(tree.get(&parent), Some(Node::Dir { .. })) {
                    continue;
                }
                let node = match (node, &file) {
                    (Some(node), _) => node,
                    (None, Some((target, file))) => {
                        Node::Link { target: TreePath::clone(target), file: Box::new(Node::clone(file)) }
                    }
                    (None, None) => Node::Dir { private: false },
                };
                if matches!(node, Node::File { .. }) {
                    file = Some((path.clone(), node.clone()));
                }
                tree.insert(path, node);
            }
            tree
        },
    )
}

/// The paths that share a file with another path.
fn linked(tree: &Tree) -> BTreeSet<&TreePath> {
    let of = |(path, node): (_, &'_ Node)| if let Node::Link { .. } = node { Some(path) } else { None };
    let targets =
        tree.values().filter_map(|node| if let Node::Link { target, .. } = node { Some(target) } else { None });
    tree.iter().filter_map(|(path, node)| of((path, node))).chain(targets).collect()
}

/// Turns the tree `before` into `after`, without touching common objects.
fn lay(src: &Path, before: &Tree, after: &Tree) {
    let at = |path: &TreePath| src.join(std::str::from_utf8(path.as_bytes()).unwrap());
    let is_dir = |node: Option<&Node>| matches!(node, Some(Node::Dir { .. }));
    // All names of a hard-linked file are created anew.
    let (old_links, new_links) = (linked(before), linked(after));
    let anew = |path: &TreePath| old_links.contains(path) || new_links.contains(path);
    let stays = |path: &TreePath| {
        let both_dirs = is_dir(before.get(path)) && is_dir(after.get(path));
        both_dirs || before.contains_key(path) && before.get(path) == after.get(path) && !anew(path)
    };
    for (path, node) in before.iter().rev().filter(|(path, _)| !stays(path)) {
        let remove = if is_dir(Some(node)) { fs::remove_dir } else { fs::remove_file };
        remove(at(path)).unwrap();
    }
    for (path, node) in after.iter().filter(|(path, _)| !stays(path)) {
        match node {
            Node::Dir { .. } => fs::create_dir(at(path)).unwrap(),
            Node::File { seed, len, .. } => fs::write(at(path), noise(u64::from(*seed), *len)).unwrap(),
            Node::Symlink(n) => symlink(n.to_string(), at(path)).unwrap(),
            Node::Link { target, .. } => fs::hard_link(at(target), at(path)).unwrap(),
        }
    }
    let root = Node::Dir { private: false };
    for (path, node) in after.iter().chain([(&TreePath::default(), &root)]) {
        let (seconds, mode) = match node {
            Node::Dir { private } => (1_700_000_000, if *private { 0o700 } else { 0o755 }),
            Node::File { seed, len, private } => {
                (1_600_000_000 + u64::from(*seed) + *len as u64, if *private { 0o600 } else { 0o644 })
            }
            Node::Symlink(_) | Node::Link { .. } => continue,
        };
        let meta = fs::symlink_metadata(at(path)).unwrap();
        if meta.mode() & 0o7777 != mode {
            fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        if meta.modified().unwrap() != time {
            File::open(at(path)).unwrap().set_times(fs::FileTimes::new().set_modified(time)).unwrap();
        }
    }
}

/// The expected counts. The source itself is an entry too.
fn expected(before: Option<&Tree>, after: &Tree) -> FileCounts {
    let none = Tree::new();
    let old = before.unwrap_or(&none);
    let unchanged = after.iter().filter(|(path, node)| old.get(*path) == Some(*node)).count() as u64;
    let both = after.keys().filter(|path| old.contains_key(*path)).count() as u64;
    FileCounts {
        new: after.len() as u64 - both + u64::from(before.is_none()),
        changed: both - unchanged,
        unchanged: unchanged + u64::from(before.is_some()),
        removed: old.len() as u64 - both,
        unreadable: 0,
        kept: 0,
    }
}

/// A run of one node, which has a cache of its own.
async fn back_up(rig: &mut JobFixture, node: u8) -> CommittedBackup {
    rig.node = NodeId([node; 16]);
    let mut node_context = rig.node_context();
    node_context.state_dir = rig.dir.path().join(format!("state-{node}"));
    rig.backup_by(&node_context).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5))]

    #[test]
    fn what_is_counted_is_what_changed_and_the_manifest_is_the_trees(trees in prop::collection::vec(tree(), 4), trusts: bool) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = JobFixture::new().await;
            rig.env.clock = std::sync::Arc::new(Ahead);
            rig.role.allow_empty = true;
            if trusts {
                rig.role.takeover_trust = TakeoverTrust::Mtime;
            }
            let mut before: Option<&Tree> = None;
            // The same node twice; another node; and the first, whose cache is older than the newest snapshot.
            for (tree, node) in trees.iter().zip([1, 1, 2, 1]) {
                lay(rig.src(), before.unwrap_or(&Tree::new()), tree);
                let made = back_up(&mut rig, node).await;
                assert_eq!(made.problems, []);
                assert_eq!(made.files, expected(before, tree), "by node {node}: {before:?} became {tree:?}");
                assert_eq!(made.snapshot.entries, tree.len() as u64 + 1);
                before = Some(tree);
            }
            // Without changes every node, with or without a cache, makes the same manifest and stores nothing.
            let root = rig.archive().await.snapshots().last().unwrap().root;
            for node in [1, 2, 3] {
                let again = back_up(&mut rig, node).await;
                assert_eq!(again.files, expected(before, before.unwrap()), "by node {node}");
                assert_eq!((again.snapshot.root, again.bytes.new), (root, 0));
            }
        });
    }
}
