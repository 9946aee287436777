//! A pack's header, footer and plain trailer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::ids::{PackId, RepoId};
use runner::repo::crypto::{Cipher, DerivedKeys};
use runner::repo::keyring::RepositoryKey;
use runner::repo::pack::{decode_trailer, open_header, trailer_len};

fuzz_target!(|data: &[u8]| {
    let role = "app".parse().expect("a role's name");
    let keys = DerivedKeys::new(Cipher::None, RepoId([7; 16]), role, RepositoryKey::new([9; 32]));
    let _ = open_header(&keys, data);
    let _ = trailer_len(data);
    if let Ok(table) = decode_trailer(PackId([5; 16]), [6; 32], data) {
        assert_eq!(table.offsets().count(), table.frames.len());
        // One table, one encoding.
        assert_eq!(
            table.object_len() - table.frames.iter().map(|f| u64::from(f.stored_len)).sum::<u64>(),
            data.len() as u64 + 40 + 16 + 8
        );
    }
});
