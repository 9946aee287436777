//! Each unreadable input is reported, and never counts as healthy.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;

use super::*;
use crate::ids::RoleName;
use crate::job::health::{Severity, severity};
use crate::job::local_state::LocalState;
use crate::job::repository::init::error::InitError;

use crate::job::repository::init::refuse_gone;
use crate::job::testing::JobFixture;
use crate::job::whoami::tests::{LONG, ask, identify, settings};
use crate::repo::object_keys;
use crate::store::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
    StoreErrorKind,
};

/// The inputs of the fixture's role that cannot be read, and the worst severity of these warnings.
async fn unread(rig: &JobFixture, store: Arc<dyn Store>) -> (Vec<UnreadableInput>, Option<Severity>) {
    let (_, role) = ask(rig, Ok(store), LONG).await;
    let found = role.warnings.iter().filter(|found| matches!(found, RoleWarning::Unread { .. }));
    let parts = found.clone().filter_map(|found| match found {
        RoleWarning::Unread { what, .. } => Some(*what),
        _ => None,
    });
    (parts.collect(), found.map(severity).max())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_does_not_list_is_told_as_unknown() {
    let mut rig = JobFixture::new().await;
    rig.write("a", "1");
    identify(&mut rig);
    rig.backup().await;
    assert_eq!(unread(&rig, rig.store.clone()).await, (vec![], None));
    let refusing = |prefix: &str, from, hangs| {
        let (prefix, listed) = (prefix.to_owned(), AtomicUsize::new(0));
        Arc::new(Refusing { inner: rig.store.clone(), prefix, from, hangs, listed })
    };
    let role: &RoleName = &rig.role.name;
    let (live, journal) = (object_keys::live_prefix(role), object_keys::journal_prefix(role));
    let seen = unread(&rig, refusing(&live, 0, false)).await;
    assert_eq!(seen, (vec![UnreadableInput::Peers], Some(Severity::Warning)));
    assert_eq!(unread(&rig, refusing(&live, 0, true)).await, (vec![UnreadableInput::Peers], Some(Severity::Note)));
    let (_, seen) = ask(&rig, Ok(refusing(&live, 0, false)), LONG).await;
    assert!(!seen.warnings.contains(&RoleWarning::OnlyNode), "whether there is another one is not known");
    // The last listing of the journal looks for lost records.
    let whole = refusing(&journal, usize::MAX, false);
    assert_eq!(unread(&rig, whole.clone()).await, (vec![], None));
    let last = whole.listed.load(Ordering::Relaxed) - 1;
    let seen = unread(&rig, refusing(&journal, last, false)).await;
    assert_eq!(seen, (vec![UnreadableInput::Records], Some(Severity::Warning)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_node_remembers_and_cannot_be_read_is_told_as_unknown() {
    let mut rig = JobFixture::new().await;
    rig.write("a", "1");
    identify(&mut rig);
    rig.backup().await;
    let (repo, dir) = (rig.repository.keys.repo(), rig.state_dir());
    let place = RepositoryLocation::new(&settings(&rig).store, &rig.role.name);
    place.remember(&rig.env, &dir, &rig.repository).unwrap();
    let known = std::fs::read_dir(dir.join("stores")).unwrap().next().unwrap().unwrap().path();
    let index_cache = LocalState::peek(&rig.env, &dir, repo).tree_cache().parent().unwrap().to_owned();
    std::fs::create_dir_all(dir.join("failures")).unwrap();
    let files = [
        (UnreadableInput::Memory, index_cache.join("memory.json")),
        (UnreadableInput::Losses, index_cache.join("loss.json")),
        (UnreadableInput::LastRun, dir.join("failures").join(format!("{}.json", rig.role.name))),
        (UnreadableInput::Repository, known),
    ];
    for (what, path) in &files {
        let before = std::fs::read(path).ok();
        std::fs::write(path, b"{").unwrap();
        let seen = unread(&rig, rig.store.clone()).await;
        assert_eq!(seen, (vec![*what], Some(Severity::Warning)), "{}", path.display());
        if *what == UnreadableInput::Repository {
            let refused = refuse_gone(None, &place, Some(&dir), &rig.env).await;
            assert!(matches!(refused, Err(InitError::Unread { .. })), "{refused:?}");
        }
        match before {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        assert_eq!(unread(&rig, rig.store.clone()).await, (vec![], None));
    }
    let refused = io::Error::from(io::ErrorKind::PermissionDenied);
    assert_eq!(severity(&unread_file(UnreadableInput::Memory, &refused)), Severity::Note, "it is another user's");
}

/// A store that fails to list keys with this prefix.
#[derive(Debug)]
struct Refusing {
    inner: Arc<dyn Store>,
    prefix: String,
    /// Number of listings that succeed before the first failure.
    from: usize,
    hangs: bool,
    listed: AtomicUsize,
}

#[async_trait]
impl Store for Refusing {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent_paused(key, body, hold).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        self.inner.replace(key, body, expected).await
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.inner.get_versioned(key, limit).await
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.inner.get(key, limit).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        if prefix != self.prefix || self.listed.fetch_add(1, Ordering::Relaxed) < self.from {
            return self.inner.list(prefix, after, limit).await;
        }
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(StoreError::new(StoreErrorKind::Unreachable, &self.describe(), Some(prefix), "no listing"))
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.inner.delete(keys).await
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        self.inner.clock_offset()
    }
}
