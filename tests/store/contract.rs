//! What every store promises, whatever it is made of.

use bytes::Bytes;
use futures_util::future::join_all;
use runner::env::Env;
use runner::store::dir::DirStore;
use runner::store::memory::MemoryStore;
use runner::store::{
    DELETE_BATCH_MAX, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreErrorKind, list_all,
};

/// The suite. `store` is empty when it begins.
pub(crate) async fn contract(store: &dyn Store) {
    objects_come_back_whole(store).await;
    a_conditional_put_never_replaces(store).await;
    ranges_end_with_the_object(store).await;
    what_is_too_large_is_not_read(store).await;
    listings_are_in_byte_order(store).await;
    deletes_ignore_what_is_missing(store).await;
    what_is_no_key_is_refused(store).await;
    of_racing_puts_one_wins(store).await;
    appenders_share_a_sequence_without_gaps(store).await;
    a_slow_writer_loses_to_a_finished_one(store).await;
    a_replace_needs_the_content_it_expects(store).await;
    a_replace_makes_nothing(store).await;
    of_racing_replaces_one_wins(store).await;
    counters_lose_no_increment(store).await;
    let offset = store.clock_offset().expect("known after an answer");
    assert!(offset.abs().as_secs() < 60, "same host, same clock, yet {offset}");
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn keys(page: &runner::store::ListPage) -> Vec<&str> {
    page.objects.iter().map(|o| o.key.as_str()).collect()
}

async fn clear(store: &dyn Store) {
    let keys: Vec<String> = list_all(store, "").await.unwrap().into_iter().map(|o| o.key).collect();
    for batch in keys.chunks(DELETE_BATCH_MAX) {
        store.delete(batch).await.unwrap();
    }
    assert!(store.list("", None, 1).await.unwrap().objects.is_empty());
}

async fn objects_come_back_whole(store: &dyn Store) {
    let big = Bytes::from((0..1_000_003_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    for body in [bytes(""), bytes("x"), big] {
        store.put("app/live/beat", body.clone()).await.unwrap();
        assert_eq!(store.get("app/live/beat", SizeLimit::INDEX).await.unwrap(), body);
    }
    for missing in ["app/live/none", "none", "app/live", "app/live/beat/below"] {
        let e = store.get(missing, SizeLimit::INDEX).await.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::NotFound, "{missing}: {e}");
        let e = store.get_range(missing, 0..5).await.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::NotFound, "{missing}: {e}");
    }
    clear(store).await;
}

async fn a_conditional_put_never_replaces(store: &dyn Store) {
    assert_eq!(store.put_if_absent("a/1", bytes("first")).await.unwrap(), PutOutcome::Created);
    for other in ["first", "second", ""] {
        assert_eq!(store.put_if_absent("a/1", bytes(other)).await.unwrap(), PutOutcome::Exists);
    }
    assert_eq!(store.get("a/1", SizeLimit::INDEX).await.unwrap(), bytes("first"));
    store.delete(&["a/1".to_owned()]).await.unwrap();
    assert_eq!(store.put_if_absent("a/1", bytes("third")).await.unwrap(), PutOutcome::Created);
    assert_eq!(store.get("a/1", SizeLimit::INDEX).await.unwrap(), bytes("third"));
    clear(store).await;
}

async fn ranges_end_with_the_object(store: &dyn Store) {
    store.put("r", bytes("0123456789")).await.unwrap();
    for (range, expected) in [
        (0..10, "0123456789"),
        (3..5, "34"),
        (0..1, "0"),
        (8..20, "89"),
        (9..u64::MAX, "9"),
        (10..11, ""),
        (50..60, ""),
    ] {
        assert_eq!(store.get_range("r", range.clone()).await.unwrap(), bytes(expected), "{range:?}");
    }
    store.put("empty", bytes("")).await.unwrap();
    assert_eq!(store.get_range("empty", 0..1).await.unwrap(), bytes(""));
    clear(store).await;
}

async fn what_is_too_large_is_not_read(store: &dyn Store) {
    let limit = SizeLimit::new("a thing", 10);
    store.put("large/fits", bytes("0123456789")).await.unwrap();
    assert_eq!(store.get("large/fits", limit).await.unwrap(), bytes("0123456789"));
    assert_eq!(store.get_versioned("large/fits", limit).await.unwrap().0, bytes("0123456789"));
    store.put("large/not", bytes("0123456789x")).await.unwrap();
    for error in [
        store.get("large/not", limit).await.unwrap_err(),
        store.get_versioned("large/not", limit).await.map(drop).unwrap_err(),
    ] {
        assert_eq!((error.kind, error.key.as_deref()), (StoreErrorKind::TooLarge, Some("large/not")), "{error}");
        assert!(error.is_not_an_object() && error.detail.contains("at most 10 bytes"), "{error}");
    }
    if let Some(version) = store.get_versioned("large/not", limit).await.unwrap_err().version {
        let replaced = store.replace("large/not", bytes("again"), &version).await.unwrap();
        assert!(matches!(replaced, ReplaceOutcome::Replaced(_)), "{replaced:?}");
        let again = store.replace("large/not", bytes("not this one"), &version).await.unwrap();
        assert_eq!(again, ReplaceOutcome::Changed);
        store.put("large/not", bytes("0123456789x")).await.unwrap();
    }
    assert_eq!(store.get_range("large/not", 0..3).await.unwrap(), bytes("012"), "a part of it is no more than that");
    clear(store).await;
}

async fn listings_are_in_byte_order(store: &dyn Store) {
    // `-` and `.` sort before `/`, digits and letters after it.
    let sorted = ["a-b", "a.b/x", "a/c", "a/d/e", "a/d0", "a0", "ab/1", "b"];
    for key in ["b", "a/d0", "a-b", "ab/1", "a0", "a/d/e", "a.b/x", "a/c"] {
        store.put(key, bytes(key)).await.unwrap();
    }
    let page = store.list("", None, 1000).await.unwrap();
    assert_eq!((keys(&page), page.truncated), (sorted.to_vec(), false));
    assert!(page.objects.iter().all(|o| o.size == o.key.len() as u64));
    let now = Env::host().clock.now();
    assert!(page.objects.iter().all(|o| o.modified.duration_since(now).abs().as_secs() < 60));

    let page = store.list("a/", None, 1000).await.unwrap();
    assert_eq!(keys(&page), ["a/c", "a/d/e", "a/d0"]);
    assert_eq!(keys(&store.list("a/d", None, 1000).await.unwrap()), ["a/d/e", "a/d0"]);
    assert_eq!(keys(&store.list("a/d/e", None, 1000).await.unwrap()), ["a/d/e"]);
    assert_eq!(keys(&store.list("a/d/e/", None, 1000).await.unwrap()), [""; 0]);
    assert_eq!(keys(&store.list("c", None, 1000).await.unwrap()), [""; 0]);

    for limit in 1..=sorted.len() + 1 {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = store.list("", seen.last().map(String::as_str), limit).await.unwrap();
            assert!(page.objects.len() <= limit);
            seen.extend(page.objects.into_iter().map(|o| o.key));
            assert_eq!(page.truncated, seen.len() < sorted.len(), "after {seen:?}, by {limit}");
            if !page.truncated {
                break;
            }
        }
        assert_eq!(seen, sorted);
    }
    assert_eq!(keys(&store.list("a", Some("a/d"), 1000).await.unwrap()), ["a/d/e", "a/d0", "a0", "ab/1"]);
    assert_eq!(keys(&store.list("a/", Some("z"), 1000).await.unwrap()), [""; 0]);
    assert_eq!(keys(&store.list("a/", Some("A"), 1).await.unwrap()), ["a/c"]);
    assert_eq!(list_all(store, "").await.unwrap().len(), sorted.len());
    clear(store).await;
}

async fn deletes_ignore_what_is_missing(store: &dyn Store) {
    for key in ["d/1", "d/2", "d/3"] {
        store.put(key, bytes("x")).await.unwrap();
    }
    store.delete(&[]).await.unwrap();
    store.delete(&["d/1", "d/none", "nowhere/at/all", "d/3"].map(str::to_owned)).await.unwrap();
    assert_eq!(keys(&store.list("", None, 10).await.unwrap()), ["d/2"]);
    let many = vec!["d/1".to_owned(); DELETE_BATCH_MAX + 1];
    assert_eq!(store.delete(&many).await.unwrap_err().kind, StoreErrorKind::Invalid);
    clear(store).await;
}

async fn what_is_no_key_is_refused(store: &dyn Store) {
    store.put("v", bytes("x")).await.unwrap();
    let (_, version) = store.get_versioned("v", SizeLimit::INDEX).await.unwrap();
    clear(store).await;
    for bad in ["", "/", "/a", "a/", "a//b", "../a", "a/../b", ".", "a b", "a/.tmp-0"] {
        let refused = |e: Option<runner::store::StoreError>| {
            assert_eq!(e.map(|e| e.kind), Some(StoreErrorKind::Invalid), "{bad:?}");
        };
        refused(store.put(bad, bytes("x")).await.err());
        refused(store.put_if_absent(bad, bytes("x")).await.err());
        refused(store.replace(bad, bytes("x"), &version).await.err());
        refused(store.get(bad, SizeLimit::INDEX).await.err());
        refused(store.get_versioned(bad, SizeLimit::INDEX).await.err());
        refused(store.get_range(bad, 0..1).await.err());
        refused(store.delete(&[bad.to_owned()]).await.err());
    }
    assert_eq!(store.list("../", None, 1).await.unwrap_err().kind, StoreErrorKind::Invalid);
    assert!(store.list("", None, 1).await.unwrap().objects.is_empty());
}

async fn of_racing_puts_one_wins(store: &dyn Store) {
    for round in 0..10 {
        let key = format!("race/{round}");
        let racers = (0..8).map(|i| store.put_if_absent(&key, Bytes::from(format!("racer {i} ").repeat(1000))));
        let outcomes: Vec<PutOutcome> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..8).filter(|i| outcomes[*i] == PutOutcome::Created).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        let expected = Bytes::from(format!("racer {} ", winners[0]).repeat(1000));
        assert_eq!(store.get(&key, SizeLimit::INDEX).await.unwrap(), expected);
    }
    clear(store).await;
}

/// Appending as the journal does it: everybody creates the number after the last they saw.
async fn appenders_share_a_sequence_without_gaps(store: &dyn Store) {
    const WORKERS: usize = 5;
    const EACH: usize = 10;
    join_all((0..WORKERS).map(|worker| async move {
        let mut number = 1;
        for _ in 0..EACH {
            while store.put_if_absent(&format!("seq/{number:04}"), Bytes::from(format!("{worker}"))).await.unwrap()
                != PutOutcome::Created
            {
                number += 1;
            }
        }
    }))
    .await;
    let page = store.list("seq/", None, 1000).await.unwrap();
    let expected: Vec<String> = (1..=WORKERS * EACH).map(|n| format!("seq/{n:04}")).collect();
    assert_eq!(keys(&page), expected);
    let mut by_worker = [0; WORKERS];
    for object in &page.objects {
        let worker: usize =
            std::str::from_utf8(&store.get(&object.key, SizeLimit::INDEX).await.unwrap()).unwrap().parse().unwrap();
        by_worker[worker] += 1;
    }
    assert_eq!(by_worker, [EACH; WORKERS], "each was told `Created` for exactly what holds its bytes");
    clear(store).await;
}

async fn a_slow_writer_loses_to_a_finished_one(store: &dyn Store) {
    let (hold, handle) = PutPause::new();
    let slow = store.put_if_absent_paused("held", Bytes::from("slow ".repeat(10_000)), hold);
    let fast = async {
        handle.started.await.expect("it begins");
        let outcome = store.put_if_absent("held", bytes("fast")).await;
        let _ = handle.release.send(());
        outcome
    };
    let (slow, fast) = tokio::join!(slow, fast);
    assert_eq!((slow.unwrap(), fast.unwrap()), (PutOutcome::Exists, PutOutcome::Created));
    assert_eq!(store.get("held", SizeLimit::INDEX).await.unwrap(), bytes("fast"));
    clear(store).await;
}

/// The version under which `outcome` wrote.
fn replaced(outcome: ReplaceOutcome) -> ObjectVersion {
    match outcome {
        ReplaceOutcome::Replaced(version) => version,
        other => panic!("{other:?}"),
    }
}

async fn a_replace_needs_the_content_it_expects(store: &dyn Store) {
    assert!(store.capabilities().replace);
    let key = "app/live/lease";
    assert_eq!(store.put_if_absent(key, bytes("first")).await.unwrap(), PutOutcome::Created);
    let (body, first) = store.get_versioned(key, SizeLimit::INDEX).await.unwrap();
    assert_eq!(body, bytes("first"));
    assert_eq!(store.get_versioned(key, SizeLimit::INDEX).await.unwrap().1, first, "reading changes nothing");

    let second = replaced(store.replace(key, bytes("second"), &first).await.unwrap());
    assert_ne!(second, first);
    assert_eq!(store.get_versioned(key, SizeLimit::INDEX).await.unwrap(), (bytes("second"), second.clone()));
    for late in ["third", "second", ""] {
        assert_eq!(store.replace(key, bytes(late), &first).await.unwrap(), ReplaceOutcome::Changed);
    }
    assert_eq!(store.get_versioned(key, SizeLimit::INDEX).await.unwrap(), (bytes("second"), second.clone()));

    // On from the version that one was told, without reading.
    let third = replaced(store.replace(key, bytes("third"), &second).await.unwrap());
    let empty = replaced(store.replace(key, bytes(""), &third).await.unwrap());
    assert_eq!(store.get_versioned(key, SizeLimit::INDEX).await.unwrap(), (bytes(""), empty.clone()));

    // What was put over it is a change like any other.
    store.put(key, bytes("put")).await.unwrap();
    assert_eq!(store.replace(key, bytes("late"), &empty).await.unwrap(), ReplaceOutcome::Changed);
    assert_eq!(store.get(key, SizeLimit::INDEX).await.unwrap(), bytes("put"));
    assert_eq!(keys(&store.list("", None, 10).await.unwrap()), [key], "nothing else is to be seen");
    clear(store).await;
}

async fn a_replace_makes_nothing(store: &dyn Store) {
    store.put_if_absent("a/b", bytes("x")).await.unwrap();
    let (_, version) = store.get_versioned("a/b", SizeLimit::INDEX).await.unwrap();
    replaced(store.replace("a/b", bytes("y"), &version).await.unwrap());
    let (_, version) = store.get_versioned("a/b", SizeLimit::INDEX).await.unwrap();
    store.delete(&["a/b".to_owned()]).await.unwrap();
    for missing in ["a/b", "a/c", "no/where"] {
        assert_eq!(store.replace(missing, bytes("z"), &version).await.unwrap(), ReplaceOutcome::Changed, "{missing}");
        let e = store.get_versioned(missing, SizeLimit::INDEX).await.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::NotFound, "{missing}: {e}");
    }
    assert_eq!(keys(&store.list("", None, 10).await.unwrap()), [""; 0]);
    // Made anew, it is like any other.
    assert_eq!(store.put_if_absent("a/b", bytes("new")).await.unwrap(), PutOutcome::Created);
    assert_eq!(store.replace("a/b", bytes("z"), &version).await.unwrap(), ReplaceOutcome::Changed);
    let (_, version) = store.get_versioned("a/b", SizeLimit::INDEX).await.unwrap();
    replaced(store.replace("a/b", bytes("newer"), &version).await.unwrap());
    assert_eq!(store.get("a/b", SizeLimit::INDEX).await.unwrap(), bytes("newer"));
    clear(store).await;
}

async fn of_racing_replaces_one_wins(store: &dyn Store) {
    store.put_if_absent("contested", bytes("start")).await.unwrap();
    let (_, mut version) = store.get_versioned("contested", SizeLimit::INDEX).await.unwrap();
    for round in 0..10 {
        let body = |i: usize| Bytes::from(format!("racer {i} of {round} ").repeat(1000));
        let racers = (0..8).map(|i| store.replace("contested", body(i), &version));
        let outcomes: Vec<ReplaceOutcome> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..8).filter(|i| outcomes[*i] != ReplaceOutcome::Changed).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        let won = replaced(outcomes[winners[0]].clone());
        assert_eq!(store.get_versioned("contested", SizeLimit::INDEX).await.unwrap(), (body(winners[0]), won.clone()));
        version = won;
    }
    clear(store).await;
}

/// A counter in an object, as a lease has it.
async fn counters_lose_no_increment(store: &dyn Store) {
    const WORKERS: usize = 5;
    const EACH: usize = 10;
    store.put_if_absent("counter", bytes("0")).await.unwrap();
    join_all((0..WORKERS).map(|_| async {
        let mut left = EACH;
        while left > 0 {
            let (body, version) = store.get_versioned("counter", SizeLimit::INDEX).await.unwrap();
            let count: usize = std::str::from_utf8(&body).unwrap().parse().unwrap();
            match store.replace("counter", Bytes::from(format!("{}", count + 1)), &version).await.unwrap() {
                ReplaceOutcome::Replaced(_) => left -= 1,
                ReplaceOutcome::Changed => {}
                ReplaceOutcome::Unknown { why } => panic!("{why}"),
            }
        }
    }))
    .await;
    assert_eq!(store.get("counter", SizeLimit::INDEX).await.unwrap(), bytes(&format!("{}", WORKERS * EACH)));
    clear(store).await;
}

#[tokio::test]
async fn memory() {
    contract(&MemoryStore::new(&Env::host())).await;
}

#[tokio::test]
async fn directory() {
    let root = tempfile::tempdir().unwrap();
    contract(&DirStore::open(root.path(), &Env::host()).unwrap()).await;
}
