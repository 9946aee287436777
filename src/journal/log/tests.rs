//! Over stores in memory.

use super::*;
use crate::ids::NodeId;
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;
use crate::store::memory::MemoryStore;

fn journal(store: Arc<dyn Store>, env: &Env) -> Journal {
    let node = NodeRef { id: NodeId([1; 16]), name: "east".to_owned() };
    Journal::new(store, keys(Cipher::None), env.clone(), node, InstanceId([1; 8]))
}

fn in_memory() -> (MemoryStore, Journal) {
    let env = Env::host();
    let store = MemoryStore::new(&env);
    (store.clone(), journal(Arc::new(store), &env))
}

/// A journal of so many records.
async fn filled(journal: &Journal, records: u32) -> View {
    let mut view = journal.read(None).await.unwrap();
    for _ in 0..records {
        view = journal.note(&view, Act::Pause(PauseBody { until: None, why: None })).await.unwrap();
    }
    view
}

#[tokio::test]
async fn what_an_older_version_read_past_is_read_again() {
    let (store, journal) = in_memory();
    let whole = filled(&journal, 2).await;
    // As a version saw it that knew no pauses, or kept something of its own.
    let mut past = whole.clone();
    past.state.paused = None;
    past.unknown_kinds.push("pause".to_owned());
    let mut newer = whole.clone();
    newer.state.unknown.insert("points".to_owned(), serde_json::json!([]));
    for remembered in [past, newer] {
        assert!(!remembered.understood());
        assert_eq!(journal.read(Some(&remembered)).await.unwrap(), whole);
        journal.note(&journal.read(Some(&remembered)).await.unwrap(), Act::Resume).await.unwrap();
        store.tamper("app/journal/0000000000000003", None);
        // It still shows whether the store is the one that it was read from.
        let last = store.objects()["app/journal/0000000000000002"].clone();
        store.tamper("app/journal/0000000000000002", None);
        let read = journal.read(Some(&remembered)).await;
        assert!(matches!(read, Err(JournalError::RolledBack { seq: Seq(2), .. })), "{read:?}");
        store.tamper("app/journal/0000000000000002", Some(last));
    }
}

#[tokio::test]
async fn what_is_no_record_makes_no_hole() {
    let (store, journal) = in_memory();
    let view = filled(&journal, 2).await;
    for stray in ["0000000000000002.bak", "00000000000000031", "notes.txt"] {
        store.tamper(&format!("app/journal/{stray}"), Some(Bytes::from_static(b"stray")));
    }
    assert_eq!(journal.read(None).await.unwrap(), view);
    let view = journal.note(&view, Act::Resume).await.unwrap();
    assert_eq!(view.head.as_ref().unwrap().seq, Seq(3));
    // So many of them that a record stands on the listing's next page.
    for stray in 0..LIST_PAGE_MAX {
        store.tamper(&format!("app/journal/0000000000000003.{stray}"), Some(Bytes::new()));
    }
    assert_eq!(journal.read(None).await.unwrap(), view);
    let record = store.objects()["app/journal/0000000000000003"].clone();
    store.tamper("app/journal/0000000000000005", Some(record));
    let read = journal.read(None).await;
    assert!(matches!(read, Err(JournalError::Hole(Seq(4)))), "{read:?}");
}
