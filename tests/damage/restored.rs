//! The same through a whole restore: what it writes is right, and it says so when something is not there.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::rig::{Content, Rig};
use runner::job::node::progress::JobProgress;
use runner::job::repository::read_only::ReadOnlyRepository;
use runner::job::restore::options::RestoreOptions;
use runner::job::restore::{RepositorySource, restore};
use runner::repo::entry::EntryKind;

/// Flips of one object, spread over it.
const FLIPS: usize = 8;

/// Restores a snapshot. True: it claims that everything is there. `None`: it did not begin.
async fn restored(rig: &Rig, number: usize, target: &Path) -> Option<bool> {
    let archive = ReadOnlyRepository::open(rig.open().await.ok()?, &rig.env, None).await.ok()?;
    let root = archive.snapshots().get(number)?.root;
    let source = RepositorySource::open(archive, root).await.ok()?;
    let roots = source.roots().await.ok()?;
    let entries = Box::new(source.entries(&[]));
    let options = RestoreOptions { target: target.to_owned(), roots, ..RestoreOptions::default() };
    let report = restore(Arc::new(source), entries, options, Arc::new(JobProgress::default()), &rig.env).await;
    Some(report.is_ok_and(|report| report.is_success()))
}

/// Compares a target with what should be in it; returns how many entries are there.
fn compare(target: &Path, content: &Content, what: &str) -> usize {
    let mut present = 0;
    for (entry, bytes) in content {
        let path = target.join(entry.path.display().trim_start_matches('/'));
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        present += 1;
        match &entry.kind {
            EntryKind::File { size, extents, .. } => {
                let mut expected = vec![0; usize::try_from(*size).unwrap()];
                match extents.as_deref() {
                    None => expected.copy_from_slice(bytes),
                    Some([one]) => expected[one.offset as usize..][..one.len as usize].copy_from_slice(bytes),
                    Some(_) => panic!("the sparse file has one extent"),
                }
                assert_eq!(std::fs::read(&path).unwrap(), expected, "{what}: {}", entry.path.display());
            }
            EntryKind::Symlink { target } => {
                let found = std::fs::read_link(&path).unwrap();
                assert_eq!(found.as_os_str().as_encoded_bytes(), target, "{what}: {}", entry.path.display());
            }
            EntryKind::Hardlink { .. } => assert!(meta.is_file(), "{what}: {}", entry.path.display()),
            _ => assert!(meta.is_dir(), "{what}: {}", entry.path.display()),
        }
    }
    present
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_from_what_is_damaged_writes_nothing_wrong() {
    let rig = Rig::new(true).await;
    let (mut whole, mut partial, mut refused) = (0, 0, 0);
    for (key, object) in rig.memory.objects() {
        for at in (0..object.len()).step_by(object.len().div_ceil(FLIPS)) {
            let mut flipped = object.to_vec();
            flipped[at] ^= 1 << (at % 8);
            rig.memory.tamper(&key, Some(Bytes::from(flipped)));
            for (number, content) in rig.content.iter().enumerate() {
                let what = format!("{key} with byte {at} flipped, snapshot {number}");
                let dir = tempfile::tempdir().unwrap();
                let target = dir.path().join("t");
                let claim = restored(&rig, number, &target).await;
                let present = compare(&target, content, &what);
                match claim {
                    Some(true) => {
                        assert_eq!(present, content.len(), "{what}: claims to be whole");
                        whole += 1;
                    }
                    Some(false) => partial += 1,
                    None => {
                        assert_eq!(present, 0, "{what}");
                        refused += 1;
                    }
                }
            }
        }
        rig.memory.tamper(&key, Some(object));
    }
    assert!(whole > 0 && partial > 0 && refused > 0, "{whole} whole, {partial} partial, {refused} refused");
}
