//! Names that are removed or lead elsewhere after the walk saw them and before they are read.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::config::TakeoverTrust;
use crate::env::{Clock, HostClock};
use crate::ids::NodeId;
use crate::job::browse::{cat, ls};
use crate::job::node::progress::{JobPhase, JobProgress};
use crate::job::testing::{JobFixture, noise};
use crate::repo::entry::{EntryKind, ManifestEntry};

/// A clock that changes the tree at its first reading after the walk: the time is read before an entry is opened, and a
/// batch of entries goes to the workers when the walk has seen them all.
struct Meddling {
    progress: Arc<JobProgress>,
    done: AtomicBool,
    act: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Meddling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddling")
    }
}

impl Clock for Meddling {
    fn now(&self) -> Timestamp {
        if self.progress.phase() == JobPhase::Backup && !self.done.swap(true, Ordering::SeqCst) {
            (self.act)();
        }
        HostClock.now()
    }

    fn boottime(&self) -> Duration {
        HostClock.boottime()
    }
}

/// Backs up while `act` changes the source; returns the content of the snapshot and the problems.
async fn snapshot(rig: &JobFixture, act: impl Fn(&Path) + Send + Sync + 'static) -> Vec<String> {
    let (src, mut node_context) = (rig.src().to_owned(), rig.node_context());
    let meddling = Meddling {
        progress: node_context.progress.clone(),
        done: AtomicBool::new(false),
        act: Box::new(move || act(&src)),
    };
    node_context.env.clock = Arc::new(meddling);
    let committed = Box::pin(rig.backup_by(&node_context)).await;

    let archive = rig.archive().await;
    let reader = archive.reader().await.unwrap();
    let root = committed.snapshot.root;
    let mut entries = Vec::new();
    let mut each = |entry: &ManifestEntry| {
        entries.push(entry.clone());
        Ok(())
    };
    ls(&reader, root, &rig.path(""), true, &mut each).await.unwrap();
    let mut said = Vec::new();
    for ManifestEntry { path, kind, .. } in entries {
        let what = match &kind {
            EntryKind::File { size, .. } => {
                let mut content = Vec::new();
                cat(&reader, root, &path, &mut content).await.unwrap();
                assert_eq!(content.len() as u64, *size);
                content.truncate(3);
                format!("has {}", String::from_utf8_lossy(&content))
            }
            EntryKind::Hardlink { target } => format!("is {}", rig.below(target)),
            other => format!("{other:?}"),
        };
        said.push(format!("{} {what}", rig.below(&path)));
    }
    if committed.files.removed > 0 {
        said.push(format!("{} removed", committed.files.removed));
    }
    said.extend(committed.problems.iter().map(|p| format!("{} {:?}", rig.below(&p.path), p.kind)));
    said
}

/// `/a`, `/b` and `/c` are hard links of one file.
async fn three_names(content: &[u8]) -> JobFixture {
    let rig = JobFixture::new().await;
    rig.write("a", content);
    link_to_a(&rig);
    rig
}

fn link_to_a(rig: &JobFixture) {
    for name in ["b", "c"] {
        fs::hard_link(rig.src().join("a"), rig.src().join(name)).unwrap();
    }
}

fn remove(src: &Path, names: &[&str]) {
    for name in names {
        fs::remove_file(src.join(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_name_takes_the_content_of_a_first_name_that_vanishes() {
    let rig = three_names(b"one").await;
    let said = snapshot(&rig, |_| {}).await;
    assert_eq!(said, ["/a has one", "/b is /a", "/c is /a"]);
    // The file is changed, so that it is read again and compared.
    rig.write("a", "two");
    let said = snapshot(&rig, |src| remove(src, &["a"])).await;
    assert_eq!(said, ["/b has two", "/c is /b", "1 removed", "/a Vanished"]);

    let rig = three_names(b"one").await;
    let said = snapshot(&rig, |src| remove(src, &["a", "b"])).await;
    assert_eq!(said, ["/c has one", "/a Vanished", "/b Vanished"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_no_exception() {
    let mut content = noise(1, 3 << 20);
    content[..3].copy_from_slice(b"big");
    let said = snapshot(&three_names(&content).await, |src| remove(src, &["a"])).await;
    assert_eq!(said, ["/b has big", "/c is /b", "/a Vanished"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_replaces_a_first_name_is_not_given_to_the_others() {
    let rig = three_names(b"one").await;
    let said = snapshot(&rig, |src| {
        fs::write(src.join("new"), "new").unwrap();
        fs::rename(src.join("new"), src.join("a")).unwrap();
    })
    .await;
    assert_eq!(said, ["/a has new", "/b has one", "/c is /b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_has_names_too() {
    let mut rig = JobFixture::new().await;
    rig.role.allow_empty = true;
    nix::unistd::mkfifo(&rig.src().join("a"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    link_to_a(&rig);
    let said = snapshot(&rig, |src| remove(src, &["a"])).await;
    assert_eq!(said, ["/b Fifo", "/c is /b", "/a Vanished"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_name_that_is_trusted_may_vanish_as_well() {
    let mut rig = three_names(b"one").await;
    rig.backup().await;
    rig.node = NodeId([2; 16]);
    rig.role.takeover_trust = TakeoverTrust::Mtime;
    fs::remove_dir_all(rig.state_dir()).unwrap();
    let said = snapshot(&rig, |src| remove(src, &["a"])).await;
    assert_eq!(said, ["/b has one", "/c is /b", "1 removed", "/a Vanished"]);
}
