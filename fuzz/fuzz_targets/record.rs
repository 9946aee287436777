//! A journal record, and the fold that takes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::journal::record::{Record, digest};
use runner::journal::state::View;

fuzz_target!(|data: &[u8]| {
    let Ok(record) = Record::decode(data, None) else { return };
    let mut view = View::empty(record.role.clone(), record.repo);
    let _ = view.apply(&record, digest(data));
    if let Some(mut view) = View::before_checkpoint(&record) {
        let _ = view.apply(&record, digest(data));
        let _ = view.apply(&record, digest(data));
    }
});
