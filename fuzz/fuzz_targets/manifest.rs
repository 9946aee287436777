//! Chunks of a manifest, one after another, as a walk takes them. Two bytes of length stand before each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::ids::ChunkId;
use runner::repo::entry::TreePath;
use runner::repo::manifest::{ManifestWalk, decode};

fuzz_target!(|data: &[u8]| {
    let _ = decode(data);
    let mut walk = ManifestWalk::new(ChunkId([0; 32]));
    let (mut rest, mut last) = (data, None::<TreePath>);
    while let (Some(_), [low, high, more @ ..]) = (walk.wants(), rest) {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let (chunk, after) = more.split_at(len.min(more.len()));
        rest = after;
        let Ok(given) = walk.give(chunk) else { return };
        for entry in given.into_iter().flatten() {
            assert!(last.is_none_or(|last| last < entry.path), "entries out of order");
            last = Some(entry.path);
        }
    }
});
