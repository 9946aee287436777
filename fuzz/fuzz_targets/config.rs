//! A config: errors or settings, and settings read back as they are written.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use runner::config::{ConfigEnvironment, Settings};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parse = |text: &str| {
        Settings::parse(&[(PathBuf::from("/etc/runner.toml"), text.to_owned())], &ConfigEnvironment::default())
    };
    match parse(text) {
        Ok(settings) => {
            let rendered = settings.render();
            let again = parse(&rendered).unwrap_or_else(|error| panic!("{error}\n{rendered}"));
            assert_eq!(again.render(), rendered);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
