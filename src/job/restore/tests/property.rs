//! Any snapshot over any tree: with `delete` the result equals the snapshot.

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::job::report::restored::RestoreBytes;

#[derive(Debug, Clone)]
enum Node {
    Dir(u16),
    File(u64, usize),
    Symlink,
    Fifo,
    /// A further name of the regular file before it, or a file if there is none.
    Again,
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        3 => prop_oneof![Just(0o755), Just(0o700), Just(0o2770)].prop_map(Node::Dir),
        4 => (0..4_u64, prop_oneof![Just(0_usize), Just(5), Just(60_000)]).prop_map(|(s, n)| Node::File(s, n)),
        1 => Just(Node::Symlink),
        1 => Just(Node::Fifo),
        2 => Just(Node::Again),
    ]
}

/// Trees over few names, so that two trees often collide.
fn tree() -> impl Strategy<Value = BTreeMap<Vec<&'static str>, Node>> {
    let names = prop::collection::vec(prop::sample::select(vec!["a", "a-", "b", "\u{e9}"]), 1..4);
    btree_map(names, node(), 0..14)
}

/// Without `links` every file is separate: a restore does not notice that two names are one file when size and time are
/// right.
fn snapshot(tree: &BTreeMap<Vec<&'static str>, Node>, links: bool) -> Arc<Fake> {
    let mut sorted: Vec<_> = tree.iter().map(|(names, node)| (path(names.join("/")), node.clone())).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut snapshot = Snapshot::new().dir("");
    let mut dirs = vec![path("")];
    let mut file: Option<TreePath> = None;
    for (at, node) in sorted {
        if !dirs.contains(&at.parent().unwrap()) {
            continue;
        }
        let bytes = at.as_bytes();
        snapshot = match node {
            Node::Dir(mode) => {
                dirs.push(at.clone());
                snapshot.dir(bytes).with(|e| e.owner.mode = mode)
            }
            Node::Symlink => snapshot.entry(bytes, EntryKind::Symlink { target: b"b".to_vec() }),
            Node::Fifo => snapshot.entry(bytes, EntryKind::Fifo),
            Node::Again if links && file.is_some() => {
                snapshot.entry(bytes, EntryKind::Hardlink { target: file.clone().unwrap() })
            }
            Node::Again => snapshot.file(bytes, b"on its own"),
            // The time contains the seed: equal size and time imply equal content.
            Node::File(seed, len) => {
                file = Some(at.clone());
                snapshot.file(bytes, &noise(seed, len)).with(|e| e.mtime = UnixNanos(MTIME.0 + i128::from(seed)))
            }
        };
    }
    snapshot.build()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_result_is_the_snapshot(before in tree(), after in tree()) {
        let (before, after) = (snapshot(&before, false), snapshot(&after, true));
        let tmp = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let options = RestoreOptions { delete: true, ..into(tmp.path()) };
            let report = run(&before, options.clone()).await;
            assert!(report.is_success(), "{:?}", problems(&report));
            assert_restored(&before, tmp.path());
            let dry = run(&after, RestoreOptions { dry_run: true, ..options.clone() }).await;
            assert_restored(&before, tmp.path());
            let report = run(&after, options.clone()).await;
            assert!(report.is_success(), "{:?}", problems(&report));
            assert_restored(&after, tmp.path());
            assert_eq!((dry.counts.deleted, dry.bytes), (report.counts.deleted, report.bytes));
            let again = run(&after, options).await;
            let done = (again.counts.restored, again.counts.touched, again.counts.deleted);
            assert_eq!((done, again.bytes), ((0, 0, 0), RestoreBytes::default()));
        });
    }
}
