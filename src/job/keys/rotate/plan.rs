//! Decides what happens to each key slot in a rotation. Pure.
//!
//! The invariant: no secret loses access to future snapshots silently. A slot whose secret is not given cannot be
//! renewed, and is removed only by its ID.

use crate::ids::{KeyGeneration, KeyId};

/// The key that opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlotOpener {
    /// A key that the operator wants to keep.
    Kept,
    /// The key that opened the repository for this command.
    Given,
    /// None of the given keys.
    Unknown,
}

/// A slot before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySlotState {
    /// ID of the slot.
    pub id: KeyId,
    /// The newest generation in the slot; `None`: the slot is unreadable.
    pub generation: Option<KeyGeneration>,
    /// The key that opens it.
    pub opener: KeySlotOpener,
}

/// Why a rotation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotatePlanError {
    /// Slots that are neither kept, replaced nor removed by the request.
    #[error(
        "data that is written after the rotation would not open with {}: none of the given files opens {}",
        list(.0),
        if .0.len() == 1 { "it" } else { "them" }
    )]
    Unaccounted(Vec<KeyId>),
    /// A slot is to be removed, but a key that opens it is to be kept.
    #[error("key {0} is to be removed, and a file that is to be kept opens it")]
    Contradiction(KeyId),
    /// The slot to remove does not exist.
    #[error("the repository has no key {id}; it has {}", list(known))]
    NoSuchKey {
        /// The given ID.
        id: KeyId,
        /// The existing slots.
        known: Vec<KeyId>,
    },
}

/// The slots to remove after the new ones are in place: all of them, or the rotation is refused.
///
/// # Errors
/// A slot would be lost that the request does not name.
pub fn plan(
    slots: &[KeySlotState],
    now: KeyGeneration,
    drop: &[KeyId],
    has_new: bool,
) -> Result<Vec<KeyId>, RotatePlanError> {
    let known: Vec<KeyId> = slots.iter().map(|slot| slot.id).collect();
    if let Some(&id) = drop.iter().find(|id| !known.contains(id)) {
        return Err(RotatePlanError::NoSuchKey { id, known });
    }
    if let Some(slot) = slots.iter().find(|slot| slot.opener == KeySlotOpener::Kept && drop.contains(&slot.id)) {
        return Err(RotatePlanError::Contradiction(slot.id));
    }
    let accounted = |slot: &KeySlotState| {
        // A slot of an older generation does not open present data anyway.
        slot.generation.is_some_and(|generation| generation < now)
            || slot.opener == KeySlotOpener::Kept
            // The new key replaces the given one.
            || slot.opener == KeySlotOpener::Given && has_new
            || drop.contains(&slot.id)
    };
    let unaccounted: Vec<KeyId> = slots.iter().filter(|slot| !accounted(slot)).map(|slot| slot.id).collect();
    if unaccounted.is_empty() { Ok(known) } else { Err(RotatePlanError::Unaccounted(unaccounted)) }
}

fn list(ids: &[KeyId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: KeyGeneration = KeyGeneration(1);

    fn seen(id: u8, generation: u16, opener: KeySlotOpener) -> KeySlotState {
        KeySlotState { id: key(id), generation: Some(KeyGeneration(generation)), opener }
    }

    fn key(id: u8) -> KeyId {
        KeyId([id; 8])
    }

    #[test]
    fn every_slot_is_renewed_replaced_or_named() {
        use KeySlotOpener::{Given, Kept, Unknown};
        let slots = [seen(1, 1, Given), seen(2, 1, Kept), seen(3, 1, Unknown), seen(4, 0, Unknown)];
        let all = vec![key(1), key(2), key(3), key(4)];
        assert_eq!(plan(&slots, NOW, &[key(3)], true), Ok(all.clone()));
        assert_eq!(plan(&slots, NOW, &[key(1), key(3)], false), Ok(all.clone()));
        assert_eq!(plan(&slots, NOW, &[], true), Err(RotatePlanError::Unaccounted(vec![key(3)])));
        assert_eq!(plan(&slots, NOW, &[key(3)], false), Err(RotatePlanError::Unaccounted(vec![key(1)])));
        assert_eq!(plan(&slots, NOW, &[key(2), key(3)], true), Err(RotatePlanError::Contradiction(key(2))));
        assert_eq!(plan(&slots, NOW, &[key(9)], true), Err(RotatePlanError::NoSuchKey { id: key(9), known: all }));
        let damaged = KeySlotState { generation: None, ..seen(5, 0, Unknown) };
        assert_eq!(plan(&[damaged], NOW, &[], true), Err(RotatePlanError::Unaccounted(vec![key(5)])));
        assert_eq!(plan(&[damaged], NOW, &[key(5)], true), Ok(vec![key(5)]));
    }
}
