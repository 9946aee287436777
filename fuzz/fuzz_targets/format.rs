//! The `format` object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::repo::format::Format;

fuzz_target!(|data: &[u8]| {
    let role = "app".parse().expect("a role's name");
    if let Ok(format) = Format::parse(data, &role) {
        let _ = format.clear_master().map(|master| Format::verify(data, &format.keys(master)));
    }
});
