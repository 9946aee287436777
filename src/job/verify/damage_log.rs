//! Collects the damages, one for each object, and the content that is lost with them. Pure.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::ids::{ChunkId, Digest, PackId};
use crate::job::report::PROBLEMS_MAX;
use crate::job::report::verified::{AFFECTED_MAX, AffectedFile, DamageKind, DamagedObject};
use crate::repo::entry::TreePath;
use crate::repo::index::ChunkIndex;
use crate::repo::loss::PackLosses;

/// The most lines about one object; further ones are only counted.
const SAID_MAX: usize = 5;

/// The number of a damage: damaged objects in the order in which they were found.
pub(super) type DamageNumber = usize;

/// All damages found so far. Names [`PROBLEMS_MAX`] objects and counts the others.
#[derive(Debug, Default)]
pub(crate) struct DamageLog {
    named: Vec<(DamagedObject, DamageMessages)>,
    by_key: HashMap<String, DamageNumber>,
    packs: HashMap<PackId, PackLoss>,
    /// Chunks of sound frames that do not match their ID.
    chunks: HashMap<ChunkId, DamageNumber>,
    /// Damages that may be the reason why no index lists some chunks.
    index_losses: Vec<DamageNumber>,
    /// Lost packs that are reported to the next backup.
    pub(super) losses: PackLosses,
}

#[derive(Debug, Default)]
struct DamageMessages {
    lines: Vec<String>,
    more: usize,
}

/// The lost part of a pack.
#[derive(Debug)]
struct PackLoss {
    number: DamageNumber,
    whole: bool,
    frames: BTreeSet<u32>,
}

impl DamageLog {
    /// Records damage of an object.
    pub(super) fn damage(&mut self, kind: DamageKind, key: String, what: &str) -> DamageNumber {
        let next = self.by_key.len();
        let number = *self.by_key.entry(key).or_insert_with_key(|key| {
            if next < PROBLEMS_MAX {
                let damage = DamagedObject {
                    kind,
                    object: key.clone(),
                    what: String::new(),
                    affected: Vec::new(),
                    affected_count: 0,
                };
                self.named.push((damage, DamageMessages::default()));
            }
            next
        });
        if let Some((_, said)) = self.named.get_mut(number)
            && !said.lines.iter().any(|line| line == what)
        {
            if said.lines.len() < SAID_MAX {
                said.lines.push(what.to_owned());
            } else {
                said.more += 1;
            }
        }
        number
    }

    /// Records that the whole pack is unreadable.
    pub(super) fn lose_pack(&mut self, pack: PackId, number: DamageNumber) {
        self.pack_loss(pack, number).whole = true;
    }

    /// Records that this frame is unreadable.
    pub(super) fn lose_frame(&mut self, pack: PackId, frame: u32, number: DamageNumber) {
        self.pack_loss(pack, number).frames.insert(frame);
    }

    fn pack_loss(&mut self, pack: PackId, number: DamageNumber) -> &mut PackLoss {
        self.packs.entry(pack).or_insert(PackLoss { number, whole: false, frames: BTreeSet::new() })
    }

    /// Records that this chunk is readable and wrong.
    pub(super) fn lose_chunk(&mut self, chunk: ChunkId, number: DamageNumber) {
        self.chunks.entry(chunk).or_insert(number);
    }

    /// Records that this damage may be the reason why no index lists some chunks.
    pub(super) fn lose_index(&mut self, number: DamageNumber) {
        self.index_losses.push(number);
    }

    /// Whether all index objects, and all records that may name some, are undamaged.
    pub(super) fn index_is_whole(&self) -> bool {
        self.index_losses.is_empty()
    }

    /// The damages that make this chunk unreadable; empty: it is readable as far as is known.
    pub(super) fn causes(&self, index: &ChunkIndex, chunk: &ChunkId) -> Vec<DamageNumber> {
        let Some((place, _)) = index.find(chunk) else { return self.index_losses.clone() };
        let frame = self
            .packs
            .get(&place.pack)
            .filter(|lost| lost.whole || lost.frames.contains(&place.frame))
            .map(|l| l.number);
        frame.or_else(|| self.chunks.get(chunk).copied()).into_iter().collect()
    }

    /// Adds `count` affected entries of a snapshot to a damage, the first of them at `path`.
    pub(super) fn add_affected(&mut self, number: DamageNumber, snapshot: Digest, path: &TreePath, count: u64) {
        let Some((damage, _)) = self.named.get_mut(number) else { return };
        damage.affected_count += count;
        if damage.affected.len() < AFFECTED_MAX {
            damage.affected.push(AffectedFile { snapshot, path: path.clone() });
        }
    }

    /// Whether any content is lost.
    pub(super) fn lost_any(&self) -> bool {
        !self.packs.is_empty() || !self.chunks.is_empty() || !self.index_losses.is_empty()
    }

    /// Whether nothing is damaged.
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The damages for the report, and their total number.
    pub(crate) fn into_damages(self) -> (Vec<DamagedObject>, u64) {
        let count = self.by_key.len() as u64;
        let finish = |(mut damage, said): (DamagedObject, DamageMessages)| {
            damage.what = said.lines.join("; ");
            if said.more > 0 {
                let _ = write!(damage.what, "; and {} more", said.more);
            }
            damage
        };
        (self.named.into_iter().map(finish).collect(), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_is_one_damage_and_what_is_said_of_it_is_bounded() {
        let mut found = DamageLog::default();
        for frame in 0..20 {
            let number = found.damage(DamageKind::Pack, "app/packs/x".to_owned(), &format!("frame {frame} is bad"));
            assert_eq!(number, 0);
        }
        let number = found.damage(DamageKind::Pack, "app/packs/y".to_owned(), "is missing");
        found.damage(DamageKind::Pack, "app/packs/y".to_owned(), "is missing");
        for n in 0..300u32 {
            let path = TreePath::new(format!("f{n}")).unwrap();
            found.add_affected(number, Digest([1; 32]), &path, 1);
        }
        let (damages, count) = found.into_damages();
        assert_eq!(count, 2);
        assert!(damages[0].what.ends_with("frame 4 is bad; and 15 more"), "{}", damages[0].what);
        assert_eq!((damages[1].what.as_str(), damages[1].affected_count), ("is missing", 300));
        assert_eq!(damages[1].affected.len(), AFFECTED_MAX);
    }

    #[test]
    fn more_objects_than_are_named_are_counted() {
        let mut found = DamageLog::default();
        for n in 0..PROBLEMS_MAX + 7 {
            let number = found.damage(DamageKind::Pack, format!("p{n}"), "is missing");
            found.add_affected(number, Digest([1; 32]), &TreePath::default(), 1);
        }
        let (damages, count) = found.into_damages();
        assert_eq!((damages.len(), count), (PROBLEMS_MAX, PROBLEMS_MAX as u64 + 7));
    }
}
