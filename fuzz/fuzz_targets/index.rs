//! The plain content of an index object, and what is built from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::ids::KeyGeneration;
use runner::repo::index::{ChunkIndex, decode_tables};

fuzz_target!(|data: &[u8]| {
    let Ok(tables) = decode_tables(data, KeyGeneration::FIRST) else { return };
    let mut index = ChunkIndex::default();
    for table in &tables {
        index.add(table);
        let _ = table.object_len();
    }
    index.sort();
    for chunk in tables.iter().flat_map(|t| &t.frames).flat_map(|f| &f.chunks) {
        let (place, pack) = index.find(&chunk.id).expect("it was added");
        let frame = pack.frames[place.frame as usize];
        assert!(place.offset.checked_add(place.len).is_some_and(|end| end <= frame.raw_len));
    }
});
