//! Deletes objects whose grace period is over, and records the deletion in the journal.
//!
//! The permit is needed only for the record, not for safety: a condemned object stays condemned, so a deletion may
//! happen late, twice, or from a node that was fenced meanwhile.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::ids::Seq;
use crate::job::admission::session::RoleSession;
use crate::job::error::BackupError;
use crate::job::prune::error::PruneError;
use crate::job::report::pruned::SweepCounts;
use crate::journal::body::{RecordBody, SweepBody};
use crate::repo::object_keys;
use crate::store::DELETE_BATCH_MAX;

/// Deletes the objects that were condemned at least `grace` before `now`.
pub(super) async fn sweep(
    session: &mut RoleSession<'_>,
    now: Timestamp,
    grace: Duration,
) -> Result<SweepCounts, PruneError> {
    let (mut due, mut waiting) = (Vec::new(), Vec::new());
    let repairs = session.repairs().await?;
    for condemned in session.state().condemned.clone() {
        // The prune record of a void number is restated by the repair that voided it.
        let said = repairs.voided_by(condemned.seq).unwrap_or(condemned.seq);
        let over = is_due(condemned.time, now, grace) && is_record_settled(session, said, now, grace).await?;
        if over { &mut due } else { &mut waiting }.push(condemned);
    }
    let mut swept = SweepCounts { packs: 0, indexes: 0, waiting: waiting.iter().map(|c| c.packs.len() as u64).sum() };
    if due.is_empty() {
        return Ok(swept);
    }
    let role = session.repository().role();
    for condemned in &due {
        // Index objects first: a reader with an old index then finds a pack missing, and no index names a deleted pack.
        let indexes = condemned.indexes.iter().map(|id| object_keys::index(role, *id));
        let keys: Vec<String> = indexes.chain(condemned.packs.iter().map(|id| object_keys::pack(role, *id))).collect();
        for batch in keys.chunks(DELETE_BATCH_MAX) {
            if session.node_context().cancel.is_cancelled() {
                return Err(BackupError::Interrupted.into());
            }
            session.repository().store.delete(batch).await?;
        }
        swept.packs += condemned.packs.len() as u64;
        swept.indexes += condemned.indexes.len() as u64;
    }
    let prunes: Vec<Seq> = due.iter().map(|condemned| condemned.seq).collect();
    session.append(RecordBody::Swept(SweepBody { prunes }), None).await?;
    Ok(swept)
}

/// Whether the prune record has been in the store for the grace period. A reader that read the journal before it
/// appeared still works by the record before it. With the head in etcd the record may appear in the store long after it
/// was appended.
async fn is_record_settled(
    session: &RoleSession<'_>,
    seq: Seq,
    now: Timestamp,
    grace: Duration,
) -> Result<bool, PruneError> {
    if grace.is_zero() {
        return Ok(true);
    }
    let (role, store) = (session.repository().role(), &session.repository().store);
    let (key, before) =
        (object_keys::record(role, seq), seq.0.checked_sub(1).map(|seq| object_keys::record(role, Seq(seq))));
    let page = store.list(&object_keys::journal_prefix(role), before.as_deref(), 1).await?;
    // If the listing is stale, the next prune sees the record.
    let listed = page.objects.first().filter(|object| object.key == key);
    Ok(listed.is_some_and(|object| is_due(object.modified, now, grace)))
}

/// Whether the grace period since `time` is over. A clock that was set back prolongs the wait. A grace of zero compares
/// no times, because the store's time is in whole seconds.
fn is_due(time: Timestamp, now: Timestamp, grace: Duration) -> bool {
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    #[cfg(feature = "planted")]
    if crate::planted::is(crate::planted::PlantedBug::NoGrace) {
        return true;
    }
    grace.is_zero() || now.duration_since(time) >= grace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_over_when_all_of_it_has_passed() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let grace = Duration::from_mins(1);
        for (now, due) in [(1_000, false), (1_059, false), (1_060, true), (9_000, true), (900, false)] {
            assert_eq!(is_due(at(1_000), at(now), grace), due, "{now}");
            assert!(is_due(at(1_000), at(now), Duration::ZERO), "no grace compares no clocks");
        }
        assert!(!is_due(at(0), at(1_000_000), Duration::MAX));
    }
}
