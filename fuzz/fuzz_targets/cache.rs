//! The plain content of a block of the tree cache.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::job::backup::tree_cache::decode_block;

fuzz_target!(|data: &[u8]| {
    let _ = decode_block(data);
});
