//! The texts of key files, exported keys and passphrases.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::repo::keyslot::SlotSecret;

fuzz_target!(|data: &[u8]| {
    let _ = SlotSecret::parse_passphrase(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(secret) = SlotSecret::parse_key_file(text) {
        let written = secret.to_key_file_text().expect("it came from a text");
        let again = SlotSecret::parse_key_file(&written).expect("what is written can be read");
        assert_eq!(again.to_key_file_text(), Some(written));
    }
});
