//! Decides what happens to each pack. Pure.

use crate::ids::PackId;

/// A pack, and how much of it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackUsage {
    pub(super) pack: PackId,
    /// Size of the object in bytes.
    pub(super) stored: u64,
    /// Bytes of the object that the kept snapshots need.
    pub(super) needed: u64,
}

impl PackUsage {
    /// Bytes that no kept snapshot needs.
    pub(super) fn unused(&self) -> u64 {
        self.stored.saturating_sub(self.needed)
    }
}

/// What happens to a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackAction {
    /// The pack stays.
    Keep,
    /// Its needed content is written to a new pack, and the pack is removed.
    Repack,
    /// The pack is removed: no snapshot needs it.
    Drop,
}

/// Unneeded packs are dropped; of the others the most wasteful are repacked until at most `max_unused` percent of the
/// remaining bytes are unused. At most `packs_max` packs are removed at once.
pub(super) fn decide(packs: &[PackUsage], max_unused: u8, packs_max: usize) -> Vec<(PackId, PackAction)> {
    let mut fates: Vec<(PackId, PackAction)> = packs.iter().map(|pack| (pack.pack, PackAction::Keep)).collect();
    let mut left = packs_max;
    for (fate, _) in fates.iter_mut().zip(packs).filter(|(_, pack)| pack.needed == 0) {
        if left > 0 {
            fate.1 = PackAction::Drop;
            left -= 1;
        }
    }
    let mut wasteful: Vec<usize> =
        (0..packs.len()).filter(|n| packs[*n].needed > 0 && packs[*n].unused() > 0).collect();
    // Ordered by bytes to write for each byte freed.
    wasteful.sort_by_key(|n| (packs[*n].needed.saturating_mul(1000) / packs[*n].unused(), packs[*n].pack));
    let needed: u128 = packs.iter().map(|pack| u128::from(pack.needed)).sum();
    let mut unused: u128 = wasteful.iter().map(|n| u128::from(packs[*n].unused())).sum();
    for n in wasteful {
        // Unused share of all bytes that would be stored.
        if unused * 100 <= (needed + unused) * u128::from(max_unused) || left == 0 {
            break;
        }
        fates[n].1 = PackAction::Repack;
        unused -= u128::from(packs[n].unused());
        left -= 1;
    }
    fates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(packs: &[(u64, u64)], max_unused: u8, packs_max: usize) -> String {
        let packs: Vec<PackUsage> = packs
            .iter()
            .enumerate()
            .map(|(n, &(stored, needed))| PackUsage { pack: PackId([n as u8; 16]), stored, needed })
            .collect();
        let letter = |(_, fate)| match fate {
            PackAction::Keep => 'k',
            PackAction::Repack => 'r',
            PackAction::Drop => 'd',
        };
        decide(&packs, max_unused, packs_max).into_iter().map(letter).collect()
    }

    #[test]
    fn the_most_wasteful_go_first_until_the_rest_is_good_enough() {
        let packs = [(100, 100), (100, 0), (100, 50), (100, 95), (100, 10)];
        assert_eq!(fates(&packs, 100, 9), "kdkkk", "what nothing needs goes whatever the limit");
        assert_eq!(fates(&packs, 50, 9), "kdkkk", "145 of 400 are unused");
        assert_eq!(fates(&packs, 20, 9), "kdkkr", "55 of 310 are left");
        assert_eq!(fates(&packs, 5, 9), "kdrkr");
        assert_eq!(fates(&packs, 0, 9), "kdrrr");
        assert_eq!(fates(&packs, 0, 2), "kdkkr", "so many at once");
        assert_eq!(fates(&packs, 0, 0), "kkkkk");
        assert_eq!(fates(&[], 0, 9), "");
    }
}
