//! The proof passes what keeps its promise and names what does not, in planted stores and in real servers.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use runner::env::Env;
use runner::store::dir::DirStore;
use runner::store::memory::MemoryStore;
use runner::store::proof::{ProofFailure, WriteCondition, check, check_replace, prove, prove_replace};
use runner::store::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
    StoreErrorKind,
};

const PROBE: &str = "app/live/probe";

/// Proves, checks twice, and sees what is left.
async fn passes(store: &dyn Store) {
    let env = Env::host();
    for _ in 0..2 {
        prove(store, PROBE, &env).await.unwrap();
        let left = store.list("", None, 9).await.unwrap().objects;
        assert_eq!(left.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), [PROBE]);
        let before = store.get(PROBE, SizeLimit::INDEX).await.unwrap();
        check(store, PROBE, &env).await.unwrap();
        assert_eq!(store.get(PROBE, SizeLimit::INDEX).await.unwrap(), before);
    }
    store.delete(&[PROBE.to_owned()]).await.unwrap();
    check(store, PROBE, &env).await.unwrap();
    for _ in 0..2 {
        prove_replace(store, PROBE, &env).await.unwrap();
        let left = store.list("", None, 9).await.unwrap().objects;
        assert_eq!(left.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), [PROBE]);
        let before = store.get(PROBE, SizeLimit::INDEX).await.unwrap();
        check_replace(store, PROBE, &env).await.unwrap();
        assert_eq!(store.get(PROBE, SizeLimit::INDEX).await.unwrap(), before);
    }
    store.delete(&[PROBE.to_owned()]).await.unwrap();
    check_replace(store, PROBE, &env).await.unwrap();
    // What others put in its place is no reason to work no more.
    store.put(PROBE, Bytes::from(vec![0; (SizeLimit::LIVE.bytes() + 1) as usize])).await.unwrap();
    check_replace(store, PROBE, &env).await.unwrap();
}

#[tokio::test]
async fn memory_passes() {
    passes(&MemoryStore::new(&Env::host())).await;
}

#[tokio::test]
async fn a_directory_passes() {
    let root = tempfile::tempdir().unwrap();
    passes(&DirStore::open(root.path(), &Env::host()).unwrap()).await;
}

/// A memory store with one thing wrong.
#[derive(Debug)]
struct Planted {
    store: MemoryStore,
    bug: Bug,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// `If-None-Match` is not looked at.
    Ignores,
    /// It is looked at, and then time passes before the write.
    Races,
    /// It is looked at when the request begins; a slow body is written anyway.
    ChecksFirst,
    /// As before, and the slow one is told `Exists` although its bytes are there.
    LiesToTheSlow,
    /// Everybody is refused.
    RefusesAll,
    /// No answers.
    Silent,
    /// One answer in three is missing.
    Patchy,
    /// Deletes are forbidden, which is no fault at all.
    NoDeletes,
    /// Who replaces is told another version than who reads.
    TwoVersions,
    /// There is no such call.
    Unable,
}

#[async_trait]
impl Store for Planted {
    fn describe(&self) -> String {
        self.store.describe()
    }
    fn capabilities(&self) -> StoreCapabilities {
        let able = self.bug != Bug::Unable;
        StoreCapabilities { put_if_absent: able, replace: able, has_finite_space: false }
    }
    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.store.put(key, body).await
    }
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        match self.bug {
            Bug::Ignores => self.put(key, body).await.map(|()| PutOutcome::Created),
            Bug::Races if self.store.get(key, SizeLimit::LIVE).await.is_err() => {
                tokio::task::yield_now().await;
                self.put(key, body).await.map(|()| PutOutcome::Created)
            }
            Bug::RefusesAll => Ok(PutOutcome::Exists),
            Bug::Silent => Ok(PutOutcome::Unknown { why: "silence".to_owned() }),
            Bug::Patchy if body[0].is_multiple_of(3) => {
                self.store.put_if_absent(key, body).await?;
                Ok(PutOutcome::Unknown { why: "silence".to_owned() })
            }
            _ => self.store.put_if_absent(key, body).await,
        }
    }
    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        if !matches!(self.bug, Bug::ChecksFirst | Bug::LiesToTheSlow) {
            let _ = hold.begin().await;
            return self.put_if_absent(key, body).await;
        }
        let free = self.store.get(key, SizeLimit::LIVE).await.is_err();
        let _ = hold.begin().await;
        if !free {
            return Ok(PutOutcome::Exists);
        }
        self.put(key, body).await?;
        Ok(if self.bug == Bug::LiesToTheSlow { PutOutcome::Exists } else { PutOutcome::Created })
    }
    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        match self.bug {
            Bug::Ignores => {
                self.put(key, body).await?;
                self.get_versioned(key, SizeLimit::LIVE).await.map(|(_, version)| ReplaceOutcome::Replaced(version))
            }
            Bug::Races if self.get_versioned(key, SizeLimit::LIVE).await?.1 == *expected => {
                tokio::task::yield_now().await;
                self.put(key, body).await?;
                self.get_versioned(key, SizeLimit::LIVE).await.map(|(_, version)| ReplaceOutcome::Replaced(version))
            }
            Bug::LiesToTheSlow => {
                let outcome = self.store.replace(key, body.clone(), expected).await?;
                if outcome == ReplaceOutcome::Changed {
                    self.put(key, body).await?;
                }
                Ok(outcome)
            }
            Bug::RefusesAll => Ok(ReplaceOutcome::Changed),
            Bug::Silent => Ok(ReplaceOutcome::Unknown { why: "silence".to_owned() }),
            Bug::Patchy if body[0].is_multiple_of(3) => {
                self.store.replace(key, body, expected).await?;
                Ok(ReplaceOutcome::Unknown { why: "silence".to_owned() })
            }
            Bug::TwoVersions => match self.store.replace(key, body, expected).await? {
                ReplaceOutcome::Replaced(_) => Ok(ReplaceOutcome::Replaced(expected.clone())),
                other => Ok(other),
            },
            _ => self.store.replace(key, body, expected).await,
        }
    }
    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.store.get(key, limit).await
    }
    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.store.get_versioned(key, limit).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_range(key, range).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.store.list(prefix, after, limit).await
    }
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        if self.bug == Bug::NoDeletes {
            return Err(StoreError::new(StoreErrorKind::Denied, "planted", None, ""));
        }
        self.store.delete(keys).await
    }
    fn clock_offset(&self) -> Option<SignedDuration> {
        None
    }
}

async fn verdict(bug: Bug) -> Result<(), ProofFailure> {
    let env = Env::host();
    prove(&Planted { store: MemoryStore::new(&env), bug }, PROBE, &env).await
}

#[tokio::test]
async fn planted_faults_are_each_found() {
    assert!(matches!(verdict(Bug::Ignores).await, Err(ProofFailure::SeveralWinners { winners: 8, .. })));
    assert!(matches!(verdict(Bug::Races).await, Err(ProofFailure::SeveralWinners { .. })));
    assert!(matches!(verdict(Bug::ChecksFirst).await, Err(ProofFailure::SeveralWinners { winners: 2, .. })));
    assert!(matches!(verdict(Bug::LiesToTheSlow).await, Err(ProofFailure::Overwritten { .. })));
    assert!(matches!(verdict(Bug::RefusesAll).await, Err(ProofFailure::NoWinner { .. })));
    assert!(matches!(verdict(Bug::Silent).await, Err(ProofFailure::CannotTell { .. })));
    verdict(Bug::NoDeletes).await.unwrap();
}

async fn replace_verdict(bug: Bug) -> Result<(), ProofFailure> {
    let env = Env::host();
    prove_replace(&Planted { store: MemoryStore::new(&env), bug }, PROBE, &env).await
}

#[tokio::test]
async fn planted_faults_of_replace_are_each_found() {
    const UNCHANGED: WriteCondition = WriteCondition::Unchanged;
    let several = replace_verdict(Bug::Ignores).await;
    assert!(matches!(several, Err(ProofFailure::SeveralWinners { condition: UNCHANGED, winners: 8, .. })));
    assert!(matches!(replace_verdict(Bug::Races).await, Err(ProofFailure::SeveralWinners { .. })));
    assert!(matches!(replace_verdict(Bug::LiesToTheSlow).await, Err(ProofFailure::Overwritten { .. })));
    let no_winner = replace_verdict(Bug::RefusesAll).await.unwrap_err();
    assert!(matches!(no_winner, ProofFailure::NoWinner { condition: UNCHANGED, .. }));
    assert!(
        no_winner.to_string().contains("to replace") && no_winner.to_string().contains("it had not changed"),
        "{no_winner}"
    );
    assert!(matches!(replace_verdict(Bug::TwoVersions).await, Err(ProofFailure::NoWinner { .. })));
    assert!(matches!(replace_verdict(Bug::Silent).await, Err(ProofFailure::CannotTell { .. })));
    replace_verdict(Bug::NoDeletes).await.unwrap();
    for failed in [replace_verdict(Bug::Unable).await, verdict(Bug::Unable).await] {
        assert!(matches!(failed, Err(ProofFailure::Store(e)) if e.kind == StoreErrorKind::Unsupported));
    }
}

#[tokio::test]
async fn a_few_missing_answers_do_not_condemn_a_store() {
    // By chance most rounds are conclusive; what must not happen is a wrong accusation.
    for _ in 0..5 {
        match verdict(Bug::Patchy).await {
            Ok(()) | Err(ProofFailure::CannotTell { .. }) => {}
            Err(wrong) => panic!("{wrong}"),
        }
        match replace_verdict(Bug::Patchy).await {
            Ok(()) | Err(ProofFailure::CannotTell { .. }) => {}
            Err(wrong) => panic!("{wrong}"),
        }
    }
}

#[tokio::test]
async fn the_check_finds_a_store_that_began_to_overwrite() {
    let env = Env::host();
    let store = MemoryStore::new(&env);
    prove(&store, PROBE, &env).await.unwrap();
    for (bug, found) in [(Bug::Ignores, "overwritten"), (Bug::Silent, "cannot be told")] {
        let planted = Planted { store: store.clone(), bug };
        let e = check(&planted, PROBE, &env).await.unwrap_err();
        assert!(e.to_string().contains(found), "{e}");
        let e = check_replace(&planted, PROBE, &env).await.unwrap_err();
        assert!(e.to_string().contains(found), "{e}");
    }
}

#[cfg(feature = "s3")]
mod servers {
    use super::*;
    use crate::s3_foreign::ForeignS3Server;
    use crate::s3_server::{self, S3Server};
    use runner::store::s3::{S3Options, S3Store};

    async fn store_on(server: &ForeignS3Server) -> S3Store {
        let settings = s3_server::settings(&server.endpoint, "");
        let options = S3Options { credentials: Some(s3_server::credentials()), ..S3Options::default() };
        S3Store::connect(&settings, s3_server::BUCKET, "", &Env::host(), options).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_careful_server_passes() {
        let server = S3Server::start();
        passes(&server.store("").await).await;
        server.forget_requests();
        check(&server.store("").await, PROBE, &Env::host()).await.unwrap();
        assert_eq!(server.requests().len(), 1, "each start asks once");
        server.forget_requests();
        check_replace(&server.store("").await, PROBE, &Env::host()).await.unwrap();
        assert_eq!((server.count("GET", ""), server.count("PUT", ""), server.requests().len()), (1, 1, 2));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn moto_passes() {
        let moto = ForeignS3Server::moto(s3_server::BUCKET);
        passes(&store_on(&moto).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bare_s3s_fs_fails() {
        let server = S3Server::start_bare();
        let e = prove(&server.store("").await, PROBE, &Env::host()).await.unwrap_err();
        assert!(matches!(e, ProofFailure::SeveralWinners { .. } | ProofFailure::Overwritten { .. }), "{e}");
        let e = prove_replace(&server.store("").await, PROBE, &Env::host()).await.unwrap_err();
        assert!(matches!(e, ProofFailure::SeveralWinners { .. } | ProofFailure::Overwritten { .. }), "{e}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rclone_fails() {
        let rclone = ForeignS3Server::rclone(s3_server::BUCKET, s3_server::ACCESS_KEY, s3_server::SECRET_KEY);
        let store = store_on(&rclone).await;
        // It is a working server: what fails below is the condition, not the talk.
        store.put("a", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(store.get("a", SizeLimit::INDEX).await.unwrap(), Bytes::from_static(b"x"));
        let e = prove(&store, PROBE, &Env::host()).await.unwrap_err();
        assert!(matches!(e, ProofFailure::SeveralWinners { .. } | ProofFailure::Overwritten { .. }), "{e}");
        let e = check(&store, PROBE, &Env::host()).await.unwrap_err();
        assert!(matches!(e, ProofFailure::Overwritten { .. }), "{e}");
        let e = prove_replace(&store, PROBE, &Env::host()).await.unwrap_err();
        assert!(matches!(e, ProofFailure::SeveralWinners { .. } | ProofFailure::Overwritten { .. }), "{e}");
        let e = check_replace(&store, PROBE, &Env::host()).await.unwrap_err();
        assert!(matches!(e, ProofFailure::Overwritten { .. }), "{e}");
    }
}
