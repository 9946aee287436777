//! `rotate`: from a record on, all records are written under a new generation of the repository key. Pure.
//!
//! The record is authenticated twice. Its MAC is of the generation before, so that a writer that does not know the new
//! one reads it and stops. Its proof is of the generation that it begins, so that a holder of the old key alone cannot
//! make one. Together with the chain of digests, the records after it authenticate everything before it as it was then.

use serde::{Deserialize, Serialize};

use crate::ids::{KeyGeneration, KeyId, Mac, Seq};
use crate::repo::crypto::DerivedKeys;

/// The body of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateBody {
    /// The generation that begins after this record.
    pub generation: KeyGeneration,
    /// The key slots that give it. They are staged before this record is written, and moved to their keys after it.
    pub slots: Vec<KeyId>,
    /// The MAC of that generation over this record's first line, with zeros in place of the proof.
    pub proof: Mac,
}

/// The newest rotation, as a state keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationState {
    /// The generation of the repository key under which all later records are written.
    pub generation: KeyGeneration,
    /// The number of its record. If that record is lost, the number before the first record that shows the rotation.
    pub seq: Seq,
}

/// The proof that a rotation's first line must have; `None`: these keys do not know the generation.
pub(super) fn prove(line: &[u8], body: &RotateBody, keys: &DerivedKeys) -> Option<Mac> {
    // Quotation marks are escaped within a JSON string, so no text contains this field. No record of this program
    // contains it twice.
    let (field, empty) = (field(&body.proof), field(&Mac([0; Mac::LEN])));
    let mut blank = line.to_vec();
    let mut places = line.windows(field.len()).enumerate().filter(|(_, part)| *part == field).map(|(at, _)| at);
    if let (Some(at), None) = (places.next(), places.next()) {
        blank[at..at + field.len()].copy_from_slice(&empty);
    }
    keys.line_mac_by(body.generation, &blank).map(Mac)
}

fn field(proof: &Mac) -> Vec<u8> {
    format!("\"proof\":\"{proof}\"").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::body::RecordBody;
    use crate::journal::record::{Record, RecordError, digest};
    use crate::journal::view::tests::{empty, next, snapshot, takeover};
    use crate::journal::view::{FoldError, JournalView};
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::{keys, rotated};

    struct Rotation {
        old: DerivedKeys,
        /// Knows the next generation, and writes under the old one.
        between: DerivedKeys,
        new: DerivedKeys,
        before: JournalView,
        record: Record,
        after: JournalView,
    }

    fn rotation() -> Rotation {
        let old = keys(Cipher::Aes256GcmSiv);
        let (between, new) = rotated(&old);
        let mut before = empty();
        for body in [takeover(), snapshot(1)] {
            let record = next(&before, 1, body);
            before.apply(&record, digest(&record.encode(&old))).unwrap();
        }
        let body = RotateBody { generation: KeyGeneration(1), slots: vec![KeyId([3; 8])], proof: Mac([0; 32]) };
        let mut record = next(&before, 1, RecordBody::Rotate(body));
        record.add_rotation_proof(&between);
        let mut after = before.clone();
        after.apply(&record, digest(&record.encode(&between))).unwrap();
        Rotation { old, between, new, before, record, after }
    }

    #[test]
    fn both_generations_vouch_for_the_record_that_parts_them() {
        let Rotation { old, between, new, record, after, .. } = rotation();
        let object = record.encode(&between);
        for keys in [&old, &between, &new] {
            assert_eq!(Record::decode(&object, Some(keys)), Ok(record.clone()));
        }
        assert_eq!(after.state.rotated, Some(RotationState { generation: KeyGeneration(1), seq: record.seq }));

        // A holder of the old key makes another one: a reader with the new key refuses it.
        let mut forged = Record { time: jiff::Timestamp::MAX, ..record.clone() };
        let object = forged.encode(&old);
        assert!(matches!(Record::decode(&object, Some(&new)), Err(RecordError::Damaged(_))));
        forged.add_rotation_proof(&old);
        assert!(matches!(Record::decode(&forged.encode(&old), Some(&new)), Err(RecordError::Damaged(_))));
        assert!(Record::decode(&object, Some(&old)).is_ok(), "a reader with the old key alone cannot tell");
    }

    #[test]
    fn nothing_of_an_older_generation_follows() {
        let Rotation { old, new, before, after, .. } = rotation();
        let record = next(&after, 2, takeover());
        assert_eq!(record.generation, KeyGeneration(1));
        let object = record.encode(&new);
        assert!(after.clone().apply(&record, digest(&object)).is_ok());
        assert_eq!(Record::decode(&object, Some(&old)), Err(RecordError::Rotated(KeyGeneration(1))));

        let stale = Record { generation: KeyGeneration(0), ..record.clone() };
        let wrong = |found, now| Err(FoldError::Generation { found: KeyGeneration(found), now: KeyGeneration(now) });
        assert_eq!(after.clone().apply(&stale, digest(&stale.encode(&old))), wrong(0, 1));
        let early = Record { generation: KeyGeneration(1), ..next(&before, 2, takeover()) };
        assert_eq!(before.clone().apply(&early, digest(&early.encode(&new))), wrong(1, 0));
        // A repair carries its own state, but never an older generation.
        use crate::journal::body::{TakeoverBody, TakeoverReason};
        let repair = Record {
            body: RecordBody::Takeover(TakeoverBody::new(TakeoverReason::Repair)),
            state: Some(before.state.clone()),
            term: crate::ids::Term(99),
            ..stale
        };
        assert_eq!(after.clone().apply(&repair, digest(&repair.encode(&old))), wrong(0, 1));
        let skipping = RotateBody { generation: KeyGeneration(3), slots: Vec::new(), proof: Mac([0; 32]) };
        let record = next(&after, 1, RecordBody::Rotate(skipping));
        assert_eq!(after.clone().apply(&record, digest(b"")), wrong(3, 1));
    }
}
