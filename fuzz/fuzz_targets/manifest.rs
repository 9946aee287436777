//! A chunk of a manifest, which is written again if it is a segment; and chunks one after another, as a walk takes them, each with
//! two bytes of length before it.
#![no_main]

use std::collections::HashMap;
use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use runner::ids::ChunkId;
use runner::repo::entry::TreePath;
use runner::repo::manifest::{ManifestChunkSink, ManifestNode, ManifestWalk, ManifestWriter, decode};

#[derive(Default)]
struct Chunks(HashMap<ChunkId, Vec<u8>>);

impl ManifestChunkSink for Chunks {
    type Error = Infallible;
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, Infallible> {
        let id = ChunkId(*blake3::hash(&bytes).as_bytes());
        self.0.insert(id, bytes);
        Ok(id)
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(ManifestNode::Segment(entries)) = decode(data) {
        let mut writer = ManifestWriter::new(Chunks::default());
        for entry in &entries {
            let Ok(()) = writer.push(entry.clone());
        }
        let Ok((root, count, chunks)) = writer.finish();
        assert_eq!(count, entries.len() as u64);
        let (mut walk, mut again) = (ManifestWalk::new(root), Vec::new());
        while let Some(id) = walk.wanted_chunk() {
            again
                .extend(walk.provide_chunk(&chunks.0[&id]).expect("what is written can be read").into_iter().flatten());
        }
        assert_eq!(again, entries);
    }
    let mut walk = ManifestWalk::new(ChunkId([0; 32]));
    let (mut rest, mut last) = (data, None::<TreePath>);
    while let (Some(_), [low, high, more @ ..]) = (walk.wanted_chunk(), rest) {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let (chunk, after) = more.split_at(len.min(more.len()));
        rest = after;
        let Ok(given) = walk.provide_chunk(chunk) else { return };
        for entry in given.into_iter().flatten() {
            assert!(last.is_none_or(|last| last < entry.path), "entries out of order");
            last = Some(entry.path);
        }
    }
});
