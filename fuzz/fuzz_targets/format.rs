//! The `format` object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::repo::format::RepositoryFormat;

fuzz_target!(|data: &[u8]| {
    let role = "app".parse().expect("a role's name");
    if let Ok(format) = RepositoryFormat::parse(data, &role) {
        let _ = format.plaintext_key().map(|key| RepositoryFormat::verify(data, &format.derive_keys(key)));
    }
});
