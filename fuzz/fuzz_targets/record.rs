//! Journal records, one after another, and the fold that takes them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::ids::RepoId;
use runner::journal::record::{Record, digest};
use runner::journal::view::JournalView;
use runner::repo::crypto::{Cipher, DerivedKeys};
use runner::repo::keyring::RepositoryKey;

fuzz_target!(|data: &[u8]| {
    let role = "app".parse().expect("a role's name");
    let keys = DerivedKeys::new(Cipher::None, RepoId([7; 16]), role, RepositoryKey::new([7; 32]));
    let mut view = None::<JournalView>;
    // A record is two lines.
    let ends = (0..data.len()).filter(|&at| data[at] == b'\n').skip(1).step_by(2);
    let mut start = 0;
    for end in ends {
        let object = &data[start..=end];
        start = end + 1;
        let Ok(mut record) = Record::decode(object, None) else { return };
        assert_eq!(Record::decode(&record.encode(&keys), Some(&keys)).as_ref(), Ok(&record));
        let view = view.get_or_insert_with(|| {
            JournalView::before_checkpoint(&record)
                .unwrap_or_else(|| JournalView::empty(record.role.clone(), record.repo))
        });
        // No mutation finds the digest of the record before, nor the takeover's.
        record.prev = view.head.as_ref().map(|head| head.digest);
        record.takeover = record.takeover.and(view.state.holder.as_ref().map(|holder| holder.takeover));
        let before = view.clone();
        match view.apply(&record, digest(object)) {
            Ok(()) => {
                assert_eq!(view.head.as_ref().map(|head| head.seq), Some(record.seq));
                assert!(view.term() >= before.term());
                let json = serde_json::to_vec(&view).expect("a view becomes JSON");
                assert_eq!(serde_json::from_slice::<JournalView>(&json).expect("and is read back"), *view);
            }
            Err(_) => assert_eq!(*view, before),
        }
    }
});
