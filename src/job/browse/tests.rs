//! Read-only commands on snapshots that the backup job made.

mod property;

use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::sync::atomic::Ordering;

use super::*;
use crate::ids::ChunkId;
use crate::job::browse::error::{BrowseError, PathHint};
use crate::job::repository::read_only::{JournalEntry, ReadOnlyRepository};
use crate::job::testing::{JobFixture, noise};
use crate::journal::state::Snapshot;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::reader::{RepositoryReadError, RepositoryReader};

/// Number of manifest chunks that were read since the last call.
fn reads(reader: &RepositoryReader) -> u64 {
    reader.chunks_read.swap(0, Ordering::Relaxed)
}

async fn listed(
    rig: &JobFixture,
    reader: &RepositoryReader,
    root: ChunkId,
    path: &TreePath,
    recursive: bool,
) -> Vec<String> {
    let mut paths = Vec::new();
    let mut each = |entry: &ManifestEntry| {
        paths.push(rig.below(&entry.path));
        Ok(())
    };
    ls(reader, root, path, recursive, &mut each).await.unwrap();
    paths
}

async fn found(
    rig: &JobFixture,
    reader: &RepositoryReader,
    snapshots: &[Snapshot],
    pattern: &str,
) -> Vec<(usize, String)> {
    let mut hits = Vec::new();
    let mut each = |hit: &crate::job::report::browse::FindMatch| {
        let number = snapshots.iter().position(|s| s.id == hit.snapshot).unwrap();
        hits.push((number, rig.below(&hit.entry.path)));
        Ok(())
    };
    find(reader, snapshots, pattern, &mut each).await.unwrap();
    hits
}

async fn differences(
    rig: &JobFixture,
    reader: &RepositoryReader,
    between: [ChunkId; 2],
    path: &TreePath,
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut each = |line: &crate::job::report::browse::DiffLine| {
        let sizes = format!("{} {}", line.size_before, line.size_after);
        lines.push(format!("{:?} {} {sizes}", line.change, rig.below(&line.path)));
        Ok(())
    };
    diff(reader, between, path, &mut each).await.unwrap();
    lines
}

async fn content(reader: &RepositoryReader, root: ChunkId, path: &TreePath) -> Result<Vec<u8>, BrowseError> {
    let mut out = Vec::new();
    cat(reader, root, path, &mut out).await.map(|()| out)
}

/// A few entries of every kind, and a second source.
async fn small() -> (JobFixture, ReadOnlyRepository, RepositoryReader) {
    let mut rig = JobFixture::new().await;
    rig.write("a/one.sql", "1");
    rig.write("a/sub/two.sql", "22");
    rig.write("a-b", "sorts after a/");
    rig.write("z/#odd", "");
    std::fs::hard_link(rig.src().join("a/one.sql"), rig.src().join("hard")).unwrap();
    symlink("a/sub", rig.src().join("link")).unwrap();
    let other = rig.dir.path().join("srv.two");
    std::fs::create_dir_all(other.join("x")).unwrap();
    rig.role.sources.push(other);
    rig.backup().await;
    let archive = rig.archive().await;
    let reader = archive.reader().await.unwrap();
    (rig, archive, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn ls_lists_one_level_or_all() {
    let (rig, archive, reader) = Box::pin(small()).await;
    let root = archive.snapshots()[0].root;
    let list = async |name: &str, recursive| listed(&rig, &reader, root, &rig.path(name), recursive).await;
    assert_eq!(list("", false).await, ["/a", "/a-b", "/hard", "/link", "/z"]);
    assert_eq!(list("a", false).await, ["/a/one.sql", "/a/sub"]);
    assert_eq!(list("a", true).await, ["/a/one.sql", "/a/sub", "/a/sub/two.sql"]);
    assert_eq!(list("a-b", true).await, ["/a-b"], "a file lists itself");
    assert_eq!(list("link", false).await, ["/link"]);
    let two = rig.dir.path().join("srv.two").display().to_string();
    let sources = ["", two.as_str()];
    assert_eq!(listed(&rig, &reader, root, &TreePath::default(), false).await, sources);
    let above = rig.path("").parent().unwrap();
    assert_eq!(listed(&rig, &reader, root, &above, false).await, sources, "a directory above the sources");
    assert_eq!(listed(&rig, &reader, root, &TreePath::default(), true).await.len(), 12);
    assert_eq!(source_roots(&reader, root).await.unwrap().len(), 2);
    let path = |text: &str| TreePath::new(text).unwrap();
    let both = [path("srv/a"), path("srv/b")];
    assert_eq!(
        expand_to_roots(&[path("srv"), path("srv/a/x")], &both),
        [path("srv/a"), path("srv/b"), path("srv/a/x")]
    );
    assert_eq!(expand_to_roots(&[path("srv/a")], &both), [path("srv/a")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_there_has_a_hint() {
    let (rig, archive, reader) = Box::pin(small()).await;
    let root = archive.snapshots()[0].root;
    let hint = async |path: &TreePath| {
        let mut each = |_: &ManifestEntry| Ok(());
        match ls(&reader, root, path, false, &mut each).await {
            Err(BrowseError::NotFound { path: told, hint }) if told == *path => hint,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hint(&rig.path("a/sub/tow.sql")).await, Some(PathHint::Near(rig.path("a/sub/two.sql"))));
    assert_eq!(hint(&rig.path("a/sbu/two.sql")).await, Some(PathHint::Near(rig.path("a/sub"))));
    let link = PathHint::Link { at: rig.path("link"), target: b"a/sub".to_vec() };
    assert_eq!(hint(&rig.path("link/two.sql")).await, Some(link));
    assert_eq!(hint(&rig.path("nothing like it")).await, None);
    let above = rig.path("").parent().unwrap();
    assert_eq!(hint(&above.join(b"srv.tow").unwrap()).await, Some(PathHint::Near(above.join(b"srv.two").unwrap())));
}

#[tokio::test(flavor = "multi_thread")]
async fn cat_gives_the_whole_content() {
    let rig = JobFixture::new().await;
    let big = [noise(1, 7 << 20), vec![0; 9 << 20], noise(2, 100)].concat();
    rig.write("big", &big);
    rig.write("empty", "");
    rig.write("first", "linked");
    std::fs::hard_link(rig.src().join("first"), rig.src().join("second")).unwrap();
    symlink("first", rig.src().join("link")).unwrap();
    let sparse = std::fs::File::create(rig.src().join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(&noise(3, 2 << 20), 8 << 20).unwrap();
    let sparse = std::fs::read(rig.src().join("sparse")).unwrap();
    rig.backup().await;
    let archive = rig.archive().await;
    let (reader, root) = (archive.reader().await.unwrap(), archive.snapshots()[0].root);
    let get = async |name: &str| content(&reader, root, &rig.path(name)).await;
    assert!(get("big").await.unwrap() == big);
    assert!(get("sparse").await.unwrap() == sparse);
    assert_eq!(get("empty").await.unwrap(), b"");
    assert_eq!(get("second").await.unwrap(), b"linked");
    assert!(matches!(get("link").await, Err(BrowseError::NotAFile { kind: EntryKind::Symlink { .. }, .. })));
    assert!(matches!(get("").await, Err(BrowseError::NotAFile { kind: EntryKind::Dir, .. })));
    assert!(matches!(get("frist").await, Err(BrowseError::NotFound { hint: Some(PathHint::Near(_)), .. })));
    let mut full = Full(3);
    let error = cat(&reader, root, &rig.path("big"), &mut full).await.unwrap_err();
    assert!(matches!(error, BrowseError::Output(e) if e.kind() == io::ErrorKind::StorageFull));

    let entry = reader.entry(root, &rig.path("big")).await.unwrap().unwrap();
    let (place, pack) = reader.index().find(&entry.kind.chunks()[0]).unwrap();
    let key = crate::repo::object_keys::pack(&rig.role.name, place.pack);
    let mut flipped = rig.memory.objects()[&key].to_vec();
    flipped[pack.frames[place.frame as usize].offset as usize + 9] ^= 1;
    rig.memory.tamper(&key, Some(flipped.into()));
    assert!(matches!(get("big").await, Err(BrowseError::Repo(RepositoryReadError::Pack { .. }))));
}

/// A writer that fails after this number of writes.
struct Full(u32);

impl io::Write for Full {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn find_matches_names_and_paths() {
    let (rig, archive, reader) = Box::pin(small()).await;
    let snapshots = archive.snapshots();
    let hits = async |pattern: &str| {
        let hits = found(&rig, &reader, snapshots, pattern).await;
        hits.into_iter().map(|(_, path)| path).collect::<Vec<_>>()
    };
    assert_eq!(hits("*.sql").await, ["/a/one.sql", "/a/sub/two.sql"]);
    assert_eq!(hits("a").await, ["/a"], "what lies below is no hit");
    assert_eq!(hits("sub/").await, ["/a/sub"]);
    assert_eq!(hits("**/a/*.sql").await, ["/a/one.sql"]);
    assert_eq!(hits(&rig.path("a/**").display()).await, ["/a/one.sql", "/a/sub", "/a/sub/two.sql"]);
    assert_eq!(hits("#odd").await, ["/z/#odd"]);
    assert_eq!(hits("!odd").await, [""; 0]);
    let mut each = |_: &_| Ok(());
    for bad in ["", "a[b"] {
        let error = find(&reader, snapshots, bad, &mut each).await;
        assert!(matches!(error, Err(BrowseError::Pattern { .. })), "{bad:?}");
    }
}

/// Enough files for a manifest of three levels.
const FILES: usize = 6000;

async fn large() -> JobFixture {
    let rig = JobFixture::new().await;
    for n in 0..FILES {
        rig.write(&format!("{:03}/file-{n:05}", n / 50), format!("{n}"));
    }
    rig.backup().await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_manifest_is_entered_where_something_is_looked_for() {
    let rig = large().await;
    rig.write("077/file-03877", "changed");
    rig.write("077/new", "new");
    std::fs::remove_file(rig.src().join("100/file-05000")).unwrap();
    std::fs::set_permissions(rig.src().join("119/file-05999"), PermissionsExt::from_mode(0o600)).unwrap();
    rig.backup().await;
    // Nothing changes, so the manifest is the same.
    rig.backup().await;
    let archive = rig.archive().await;
    let snapshots = archive.snapshots();
    let between = |a: usize, b: usize| [snapshots[a].root, snapshots[b].root];
    assert_eq!(snapshots[1].root, snapshots[2].root);
    let reader = archive.reader().await.unwrap();
    let root = snapshots[1].root;

    let hits = found(&rig, &reader, &snapshots[..1], "file-03877").await;
    assert_eq!(hits, [(0, "/077/file-03877".to_owned())]);
    let all = reads(&reader);
    assert!(all > 100, "the whole manifest has {all} chunks");

    let few = async |work: &str, paths: usize, wanted: usize| {
        let read = reads(&reader);
        assert!(paths == wanted && read <= 12, "{work}: {paths} paths, {read} of {all} chunks read");
    };
    let names = listed(&rig, &reader, root, &rig.path("077"), false).await;
    few("ls of a directory", names.len(), 51).await;
    let names = listed(&rig, &reader, root, &rig.path("118/file-05900"), false).await;
    few("ls of a file", names.len(), 1).await;
    few("roots", source_roots(&reader, root).await.unwrap().len(), 1).await;
    content(&reader, root, &rig.path("077/file-03877")).await.unwrap();
    few("cat", 1, 1).await;

    let changes = [
        "Metadata /077 0 0",
        "Content /077/file-03877 4 7",
        "New /077/new 0 3",
        "Metadata /100 0 0",
        "Removed /100/file-05000 4 0",
        "Metadata /119/file-05999 4 4",
    ];
    let lines = differences(&rig, &reader, between(0, 1), &TreePath::default()).await;
    assert_eq!(lines, changes);
    let read = reads(&reader);
    assert!(read <= 40, "diff of nearly equal snapshots: {read} of {all} chunks read");
    let lines = differences(&rig, &reader, between(1, 0), &rig.path("100")).await;
    assert_eq!(lines, ["Metadata /100 0 0", "New /100/file-05000 0 4"]);
    let read = reads(&reader);
    assert!(read <= 30, "diff of a directory: {read} of {all} chunks read");
    assert!(differences(&rig, &reader, between(1, 2), &TreePath::default()).await.is_empty());
    assert_eq!(reads(&reader), 0, "equal roots are not read");

    // The second snapshot adds little to the first one, the third nothing.
    let hits = found(&rig, &reader, snapshots, "new").await;
    assert_eq!(hits, [(1, "/077/new".to_owned()), (2, "/077/new".to_owned())]);
    let read = reads(&reader);
    assert!(read <= all + 40, "find in all: {read} chunks read, one manifest has {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_of_trees_that_have_nothing_in_common() {
    let rig = JobFixture::new().await;
    rig.write("a/x", "1");
    rig.write("b", "file");
    rig.backup().await;
    std::fs::remove_dir_all(rig.src()).unwrap();
    rig.write("b/x", "directory");
    for n in 0..400 {
        rig.write(&format!("c/{n:03}"), "");
    }
    rig.backup().await;
    let archive = rig.archive().await;
    let roots = [archive.snapshots()[0].root, archive.snapshots()[1].root];
    let reader = archive.reader().await.unwrap();
    let lines = differences(&rig, &reader, roots, &TreePath::default()).await;
    let start = ["Metadata  0 0", "Removed /a 0 0", "Removed /a/x 1 0", "Content /b 4 0", "New /b/x 0 9", "New /c 0 0"];
    assert_eq!(lines[..6], start);
    assert_eq!((lines.len(), lines[405].as_str()), (406, "New /c/399 0 0"));
    assert_eq!(differences(&rig, &reader, roots, &rig.path("b")).await, start[3..5]);
    assert_eq!(differences(&rig, &reader, roots, &rig.path("a")).await, start[1..3]);
    let mut each = |_: &_| Ok(());
    let nowhere = diff(&reader, roots, &rig.path("d"), &mut each).await;
    assert!(matches!(nowhere, Err(BrowseError::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_read_as_far_as_it_goes() {
    let rig = JobFixture::new().await;
    for n in 0..3 {
        rig.write("a", format!("{n}"));
        rig.backup().await;
    }
    let whole = rig.archive().await;
    assert!(whole.damaged.is_none() && whole.rolled_back.is_none());
    let records = whole.records(2).await.unwrap();
    let seqs = records.iter().map(|entry| match entry {
        JournalEntry::Record(_, record) => record.seq.0,
        other => panic!("{other:?}"),
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [3, 4]);
    assert_eq!(whole.records(100).await.unwrap().len(), 4);

    let key = crate::repo::object_keys::record(&rig.role.name, crate::ids::Seq(4));
    let newest = rig.memory.objects()[&key].clone();
    rig.memory.tamper(&key, Some(newest.slice(..newest.len() / 2)));
    let cut = rig.archive().await;
    assert_eq!(cut.snapshots(), &whole.snapshots()[..2]);
    assert!(cut.damaged.unwrap().to_string().contains("journal record 4"));

    // This node's saved view contains the missing record.
    rig.memory.tamper(&key, None);
    let known = ReadOnlyRepository::open(rig.repository.clone(), &rig.env, Some(&rig.state_dir())).await.unwrap();
    assert!(known.rolled_back.is_some() && known.damaged.is_none());
    assert_eq!(known.snapshots().len(), 2);
    assert_eq!(rig.archive().await.snapshots().len(), 2);
}
