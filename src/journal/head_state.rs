//! How the head of a journal in a register agrees with the records in the store. Pure.
//!
//! The invariant that lives here: a record counts when it is in both. The newest may be in the register alone, because
//! an appender copies the one before to the store first. Anything else means that one of the two was lost or set back.
//! Then no node writes until an operator decides which of the two continues.

use crate::ids::{ClusterId, Seq};
use crate::journal::error::{HeadConflict, JournalError};
use crate::journal::record::{self, Record, RecordError};
use crate::journal::view::JournalView;
use crate::repo::crypto::DerivedKeys;

/// How the head and the store agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeadState {
    /// The store has the head, and no record after it.
    InSync,
    /// The head must be copied to the store: the view with it.
    HeadAhead(Box<JournalView>),
    /// The store has records after the head: the head was read earlier, or there is a conflict.
    HeadBehind(Seq),
    /// They contradict each other: nothing is written.
    Conflicted(HeadConflict),
}

/// Judges the `head` that cluster `found` gave, against the store, which was read afterwards. `home` is the cluster
/// that `format` names.
pub(super) fn judge_head(
    view: &JournalView,
    head: Option<&[u8]>,
    (found, home): (ClusterId, ClusterId),
    keys: &DerivedKeys,
) -> Result<HeadState, JournalError> {
    let head_state = compare_head(view, head, keys)?;
    // An adoption for another cluster names that cluster in the record that is the head there.
    let state = if let HeadState::HeadAhead(after) = &head_state { &after.state } else { &view.state };
    let own = state.cluster.unwrap_or(home);
    Ok(if own == found { head_state } else { HeadState::Conflicted(HeadConflict::Cluster { own, found }) })
}

fn compare_head(view: &JournalView, head: Option<&[u8]>, keys: &DerivedKeys) -> Result<HeadState, JournalError> {
    let last = view.head.as_ref().map_or(Seq(0), |head| head.seq);
    let Some(head) = head else { return Ok(HeadState::Conflicted(HeadConflict::NoHead)) };
    if head.is_empty() {
        return Ok(if view.head.is_none() { HeadState::InSync } else { HeadState::HeadBehind(Seq(0)) });
    }
    let record = match Record::decode(head, Some(keys)) {
        Ok(record) => record,
        Err(error @ (RecordError::Newer(_) | RecordError::Rotated(_))) => {
            return Err(JournalError::from_record_error(view.next_seq(), error, keys.generation()));
        }
        Err(error) => return Ok(HeadState::Conflicted(HeadConflict::Damaged(error))),
    };
    let digest = record::digest(head);
    if record.seq > view.next_seq() {
        return Err(JournalError::Hole(view.next_seq()));
    }
    if record.seq == view.next_seq() {
        let mut after = view.clone();
        return Ok(match after.apply(&record, digest) {
            Ok(()) => HeadState::HeadAhead(Box::new(after)),
            Err(_) => HeadState::Conflicted(HeadConflict::Other(record.seq)),
        });
    }
    if record.seq < last {
        return Ok(HeadState::HeadBehind(record.seq));
    }
    let same = view.head.as_ref().is_some_and(|head| head.digest == digest);
    Ok(if same { HeadState::InSync } else { HeadState::Conflicted(HeadConflict::Other(record.seq)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RepoId;
    use crate::journal::body::{RecordBody, TakeoverBody, TakeoverReason};
    use crate::journal::view::tests::{empty, next, takeover};
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::keys;

    const HOME: ClusterId = ClusterId([1; 8]);
    const NEW: ClusterId = ClusterId([2; 8]);

    /// A journal of so many records: the view after each, and each record's object.
    fn journal(records: u8) -> Vec<(JournalView, Vec<u8>)> {
        let (mut view, mut all) = (empty(), vec![(empty(), Vec::new())]);
        for n in 1..=records {
            let record = next(&view, n, takeover());
            let object = record.encode(&keys(Cipher::None));
            view.apply(&record, record::digest(&object)).unwrap();
            all.push((view.clone(), object));
        }
        all
    }

    fn head_state(view: &JournalView, head: Option<&[u8]>) -> HeadState {
        judge_head(view, head, (HOME, HOME), &keys(Cipher::None)).unwrap()
    }

    #[test]
    fn only_the_newest_record_may_be_missing_in_the_store() {
        let all = journal(3);
        for (n, (view, object)) in all.iter().enumerate() {
            assert_eq!(head_state(view, Some(object)), HeadState::InSync);
            assert_eq!(head_state(view, None), HeadState::Conflicted(HeadConflict::NoHead));
            if let Some((after, object)) = all.get(n + 1) {
                assert_eq!(head_state(view, Some(object)), HeadState::HeadAhead(Box::new(after.clone())));
                assert_eq!(head_state(after, Some(&all[n].1)), HeadState::HeadBehind(Seq(n as u64)));
            }
        }
        let gap = judge_head(&all[1].0, Some(&all[3].1), (HOME, HOME), &keys(Cipher::None));
        assert!(matches!(gap, Err(JournalError::Hole(Seq(2)))), "the store lost records, and no adoption is allowed");
    }

    #[test]
    fn a_head_that_is_another_record_is_a_conflict() {
        let all = journal(2);
        let other = next(&all[1].0, 9, takeover()).encode(&keys(Cipher::None));
        assert_eq!(head_state(&all[2].0, Some(&other)), HeadState::Conflicted(HeadConflict::Other(Seq(2))));
        // The head continues a record that the store does not have.
        let mut view = all[1].0.clone();
        let record = next(&view, 9, takeover());
        view.apply(&record, record::digest(&other)).unwrap();
        let other = next(&view, 9, takeover()).encode(&keys(Cipher::None));
        assert_eq!(head_state(&all[2].0, Some(&other)), HeadState::Conflicted(HeadConflict::Other(Seq(3))));
        let foreign = next(&JournalView { repo: RepoId([9; 16]), ..all[2].0.clone() }, 1, takeover());
        let foreign = foreign.encode(&keys(Cipher::None));
        assert_eq!(head_state(&all[2].0, Some(&foreign)), HeadState::Conflicted(HeadConflict::Other(Seq(3))));
        assert!(matches!(
            head_state(&all[2].0, Some(b"etcdctl was here")),
            HeadState::Conflicted(HeadConflict::Damaged(_))
        ));
    }

    #[test]
    fn another_cluster_counts_from_the_record_that_names_it() {
        let (view, object) = journal(2).pop().unwrap();
        let in_new =
            |view: &JournalView, head: &[u8]| judge_head(view, Some(head), (NEW, HOME), &keys(Cipher::None)).unwrap();
        let conflict = HeadState::Conflicted(HeadConflict::Cluster { own: HOME, found: NEW });
        assert_eq!(in_new(&view, &object), conflict);
        let adopt = TakeoverBody { cluster: Some(NEW), ..TakeoverBody::new(TakeoverReason::Adopt) };
        let record = next(&view, 1, RecordBody::Takeover(adopt));
        let object = record.encode(&keys(Cipher::None));
        let HeadState::HeadAhead(after) = in_new(&view, &object) else { panic!("it names the cluster") };
        assert_eq!(in_new(&after, &object), HeadState::InSync);
        assert_eq!(
            head_state(&after, Some(&object)),
            HeadState::Conflicted(HeadConflict::Cluster { own: NEW, found: HOME })
        );
        // The cluster stays the same after a takeover that names none.
        let later = next(&after, 2, takeover()).encode(&keys(Cipher::None));
        assert!(matches!(in_new(&after, &later), HeadState::HeadAhead(_)));
    }
}
