//! What can happen to an object, times what it can happen to.

use std::collections::BTreeMap;

use bytes::Bytes;
use runner::ids::Seq;
use runner::repo::object_keys;

use super::rig::{Read, Rig};
use super::told;

/// The kind of an object, by the folder it is in.
fn kind(key: &str) -> &str {
    key.split('/').nth(1).expect("every key is below its role")
}

/// Whatever was done: it is told, and what can still be read is right.
async fn judge(rig: &Rig, key: &str, what: &str) {
    let result = rig.verify_remembering(100, Some(rig.view.clone())).await;
    // What is condemned is no damage, and takes nothing with it.
    let condemned = rig.is_condemned(key);
    assert_eq!(told(&result, key), !condemned, "{key} {what}: {result:?}");
    for (number, read) in rig.read().await.iter().enumerate() {
        match read {
            Read::Content(content) => {
                assert_eq!(content, &rig.content[number], "{key} {what}: snapshot {number} reads wrong");
            }
            Read::Refused(why) => assert!(!condemned, "{key} {what}: snapshot {number}: {why}"),
        }
    }
}

async fn matrix(rig: &Rig) {
    let objects = rig.memory.objects();
    let stored: BTreeMap<&String, &Bytes> = objects.iter().filter(|(key, _)| kind(key) != "live").collect();
    let strangers = rig.other_role().await;
    for (key, object) in &stored {
        rig.memory.tamper(key, None);
        // Removing a key is an operator's act, and nobody else's key is missed.
        if kind(key) != "keys" || rig.open().await.is_err() {
            judge(rig, key, "missing").await;
        }
        rig.memory.tamper(key, Some(Bytes::new()));
        judge(rig, key, "empty").await;
        for (other, content) in stored.iter().filter(|(other, _)| other != &key) {
            rig.memory.tamper(key, Some((*content).clone()));
            judge(rig, key, &format!("replaced by {other}")).await;
        }
        for (other, content) in strangers.iter().filter(|(other, _)| kind(other) == kind(key)) {
            rig.memory.tamper(key, Some(content.clone()));
            judge(rig, key, &format!("replaced by {other} of another role")).await;
        }
        let doubled = [&object[..], &object[..]].concat();
        rig.memory.tamper(key, Some(Bytes::from(doubled)));
        judge(rig, key, "twice over").await;
        rig.memory.tamper(key, Some((*object).clone()));
    }
}

#[tokio::test]
async fn whatever_happens_to_an_object_is_named_encrypted() {
    matrix(&Rig::new(true).await).await;
}

#[tokio::test]
async fn whatever_happens_to_an_object_is_named_in_the_clear() {
    matrix(&Rig::new(false).await).await;
}

#[tokio::test]
async fn whatever_happens_to_an_object_after_a_prune_is_named_unless_it_is_condemned() {
    let rig = Box::pin(Rig::pruned(true)).await;
    let condemned = rig.memory.objects().keys().filter(|key| rig.is_condemned(key)).count();
    assert!(condemned >= 4, "{condemned} condemned objects are in the store");
    matrix(&rig).await;
}

/// Somebody who can write the bucket can put an old state back; only a node that saw the new one can tell.
#[tokio::test]
async fn an_old_state_that_was_put_back_is_named_by_who_saw_the_new_one() {
    let rig = Rig::new(true).await;
    let newest = rig.view.head.as_ref().unwrap().seq;
    let key = |seq| object_keys::record(&rig.role.name, seq);
    for seq in [newest, Seq(newest.0 - 1)] {
        rig.memory.tamper(&key(seq), None);
    }
    let forgetful = rig.verify(100).await.unwrap();
    assert!(forgetful.damages.is_empty(), "it is a sound repository: {:?}", forgetful.damages);
    assert!(forgetful.checked.unreferenced >= 2, "the packs of the lost snapshot");
    let result = rig.verify_remembering(0, Some(rig.view.clone())).await;
    assert!(told(&result, &key(newest)), "{result:?}");
}

/// Nobody looks at every number up to one that somebody made up.
#[tokio::test]
async fn a_number_far_beyond_the_end_is_named_and_not_walked_to() {
    let rig = Rig::new(true).await;
    for number in [5000_u64, 9_000_000_000_000_000] {
        let key = object_keys::record(&rig.role.name, Seq(number));
        rig.memory.tamper(&key, Some(Bytes::from_static(b"x")));
        for view in [None, Some(rig.view.clone())] {
            let result = rig.verify_remembering(0, view).await;
            assert!(told(&result, &key), "{result:?}");
            assert_eq!(result.unwrap().damage_count, 1, "the rest is sound");
        }
        rig.memory.tamper(&key, None);
    }
}
