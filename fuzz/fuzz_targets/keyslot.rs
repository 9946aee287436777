//! A key slot. Not through Argon2: its cost is the point of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::ids::RepoId;
use runner::repo::keyslot::{KeySlot, SlotSecret};

fuzz_target!(|data: &[u8]| {
    let text = format!("runner-key-1:{}", "07".repeat(32));
    let secret = SlotSecret::parse_key_file(&text).expect("a key");
    if let Ok(slot) = KeySlot::decode(data) {
        let _ = slot.unwrap(&secret, RepoId([7; 16]));
        assert_eq!(KeySlot::decode(&slot.encode()), Ok(slot));
    }
});
