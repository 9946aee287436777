//! Deletes what was condemned long enough ago, and says in the journal that it is gone.
//!
//! It needs no permit to be safe, only to be recorded: what is condemned stays condemned, so that a deletion may come late, twice, or
//! from a node that was fenced meanwhile.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::PruneError;
use crate::ids::Seq;
use crate::job::backup::{BackupError, RoleSession};
use crate::job::report::pruned::SweepCounts;
use crate::journal::record::{RecordBody, SweepBody};
use crate::repo::object_keys;
use crate::store::DELETE_BATCH_MAX;

/// Deletes what was condemned before `now` by `grace`.
pub(super) async fn sweep(
    session: &mut RoleSession<'_>,
    now: Timestamp,
    grace: Duration,
) -> Result<SweepCounts, PruneError> {
    let (mut due, mut waiting) = (Vec::new(), Vec::new());
    let repairs = session.journal.repairs(&session.view).await?;
    for condemned in session.view.state.condemned.clone() {
        // Of a void number it is the repair that says so since.
        let said = repairs.voided_by(condemned.seq).unwrap_or(condemned.seq);
        let over = is_due(condemned.time, now, grace) && is_record_settled(session, said, now, grace).await?;
        if over { &mut due } else { &mut waiting }.push(condemned);
    }
    let mut swept = SweepCounts { packs: 0, indexes: 0, waiting: waiting.iter().map(|c| c.packs.len() as u64).sum() };
    if due.is_empty() {
        return Ok(swept);
    }
    let role = session.repository.role();
    for condemned in &due {
        // Index objects first: whoever still has one finds a pack missing, not the other way round.
        let indexes = condemned.indexes.iter().map(|id| object_keys::index(role, *id));
        let keys: Vec<String> = indexes.chain(condemned.packs.iter().map(|id| object_keys::pack(role, *id))).collect();
        for batch in keys.chunks(DELETE_BATCH_MAX) {
            if session.runner.cancel.is_cancelled() {
                return Err(BackupError::Interrupted.into());
            }
            session.repository.store.delete(batch).await?;
        }
        swept.packs += condemned.packs.len() as u64;
        swept.indexes += condemned.indexes.len() as u64;
    }
    let prunes: Vec<Seq> = due.iter().map(|condemned| condemned.seq).collect();
    session.append(RecordBody::Swept(SweepBody { prunes }), None).await?;
    Ok(swept)
}

/// Whether the record that condemned has been in the store for the grace: whoever read the journal there before goes by the one
/// before it. Where etcd decides it may come there long after it was written.
async fn is_record_settled(
    session: &RoleSession<'_>,
    seq: Seq,
    now: Timestamp,
    grace: Duration,
) -> Result<bool, PruneError> {
    if grace.is_zero() {
        return Ok(true);
    }
    let (role, store) = (session.repository.role(), &session.repository.store);
    let (key, before) =
        (object_keys::record(role, seq), seq.0.checked_sub(1).map(|seq| object_keys::record(role, Seq(seq))));
    let page = store.list(&object_keys::journal_prefix(role), before.as_deref(), 1).await?;
    // A listing may be stale: then the next prune sees it.
    let listed = page.objects.first().filter(|object| object.key == key);
    Ok(listed.is_some_and(|object| is_due(object.modified, now, grace)))
}

/// Whether the grace is over since `time`. A clock that was set back makes it wait; where no time is given, none is compared: a store
/// tells its own in whole seconds.
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
