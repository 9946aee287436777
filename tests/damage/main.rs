//! Damage to what is stored, exhaustively over a small repository: `verify` names it or it is harmless, and nothing that is
//! read is ever wrong.
//!
//! The repository is made by the real jobs: two nodes, two terms, three snapshots of a tree with a hard link, a symbolic link
//! and a sparse file; for some of it also a prune, whose condemned objects are still there. Then every byte of every object is
//! flipped, every object is cut at every length, and objects are removed, emptied and exchanged.

mod matrix;
mod report;
mod restored;
mod rig;

use bytes::Bytes;
use rig::{Read, Rig};
use runner::job::report::verified::VerifyReport;
pub(crate) use runner::job::verify::error::VerifyError;
use runner::repo::object_keys;

/// Objects up to this size have every bit flipped, larger ones one bit of each byte.
const ALL_BITS_MAX: usize = 320;

/// Whether the damage was told: by a report that names this object, or by an error that ends it.
fn told(result: &Result<VerifyReport, VerifyError>, key: &str) -> bool {
    match result {
        // Where all of a kind is gone, the damage is their folder's.
        Ok(report) => {
            report.damages.iter().any(|d| d.object == key || d.object.ends_with('/') && key.starts_with(&d.object))
        }
        Err(_) => true,
    }
}

/// What must hold with `key` changed; `what` is for the message.
async fn judge(rig: &Rig, key: &str, what: &str) {
    let result = rig.verify(100).await;
    let read = rig.read().await;
    for (number, content) in read.iter().enumerate() {
        if let Read::Content(content) = content {
            assert_eq!(content, &rig.content[number], "{key} {what}: snapshot {number} reads wrong");
        }
    }
    let harmless = read.len() == rig.content.len() && read.iter().all(|r| matches!(r, Read::Content(_)));
    if !told(&result, key) {
        assert!(harmless, "{key} {what}: not named, and not all can be read");
        let report = result.expect("an error is told");
        let is_nobodys = key.contains("/live/") || rig.is_condemned(key);
        assert!(is_nobodys, "{key} {what}: not named ({:?})", report.damages);
    }
}

/// Changes the objects whose keys are `wanted` in every way; returns in how many.
async fn flip_and_cut(rig: &Rig, wanted: impl Fn(&str) -> bool) -> usize {
    let mut changes = 0;
    for (key, object) in rig.memory.objects().into_iter().filter(|(key, _)| wanted(key)) {
        for at in 0..object.len() {
            let bits = if object.len() <= ALL_BITS_MAX { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in bits {
                let mut flipped = object.to_vec();
                flipped[at] ^= 1 << bit;
                rig.memory.tamper(&key, Some(Bytes::from(flipped)));
                judge(rig, &key, &format!("with bit {bit} of byte {at} flipped")).await;
                changes += 1;
            }
            rig.memory.tamper(&key, Some(object.slice(..at)));
            judge(rig, &key, &format!("cut to {at} bytes")).await;
            changes += 1;
        }
        rig.memory.tamper(&key, Some(object));
    }
    let report = rig.verify(100).await.unwrap();
    assert!(report.damages.is_empty(), "everything was put back: {:?}", report.damages);
    changes
}

#[tokio::test]
async fn every_flip_and_every_cut_is_named_or_harmless_encrypted() {
    let changes = flip_and_cut(&Rig::new(true).await, |_| true).await;
    assert!(changes > 10_000, "{changes} changes are too few to be all");
}

#[tokio::test]
async fn every_flip_and_every_cut_is_named_or_harmless_in_the_clear() {
    let changes = flip_and_cut(&Rig::new(false).await, |_| true).await;
    assert!(changes > 10_000, "{changes} changes are too few to be all");
}

/// Of what a prune wrote: its record and the one after it, and the index that stands for those before.
#[tokio::test]
async fn every_flip_and_every_cut_of_what_a_prune_wrote_is_named() {
    let rig = Box::pin(Rig::pruned(true)).await;
    let (role, prune) = (&rig.role.name, rig.view.state.condemned[0].seq);
    let index = object_keys::index(role, rig.view.state.indexes[0]);
    let written = [object_keys::record(role, prune), object_keys::record(role, prune.next()), index];
    let changes = flip_and_cut(&rig, |key| written.iter().any(|name| name == key)).await;
    assert!(changes > 3000, "{changes} changes are too few to be all");
}
