//! The plain header of packs and index objects.
//!
//! Version 1 stands for the first generation of the repository key; version 2 names a later one. A program that does
//! not know generations therefore refuses the object as newer instead of failing to open it.
//!
//! Pure.

use crate::ids::KeyGeneration;
use crate::repo::crypto::{Cipher, DerivedKeys, SALT_LEN, Salt};

/// Length of the header in bytes.
pub(crate) const LEN: usize = 8 + SALT_LEN;

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The object is shorter than a header.
    Short,
    /// The magic bytes are of another kind of object.
    Magic,
    /// The version or the cipher is not supported.
    Version,
    /// The generation of the repository key is not known.
    Generation,
}

/// Appends the header.
pub(crate) fn put(out: &mut Vec<u8>, magic: [u8; 4], cipher: Cipher, salt: Salt) {
    out.extend_from_slice(&magic);
    out.extend_from_slice(&[version(salt.generation), cipher.code()]);
    out.extend_from_slice(&salt.generation.0.to_le_bytes());
    out.extend_from_slice(&salt.bytes);
}

/// The salt from the header, and the bytes after it.
pub(crate) fn take<'a>(object: &'a [u8], magic: [u8; 4], keys: &DerivedKeys) -> Result<(Salt, &'a [u8]), HeaderError> {
    let (header, rest) = object.split_at_checked(LEN).ok_or(HeaderError::Short)?;
    let (head, bytes) = header.split_at(8);
    if head[..4] != magic {
        return Err(HeaderError::Magic);
    }
    let generation = KeyGeneration(u16::from_le_bytes([head[6], head[7]]));
    if head[4..6] != [version(generation), keys.cipher().code()] {
        return Err(HeaderError::Version);
    }
    if keys.keyring().get(generation).is_none() {
        return Err(HeaderError::Generation);
    }
    Ok((Salt { generation, bytes: bytes.try_into().expect("the header was split at its length") }, rest))
}

fn version(generation: KeyGeneration) -> u8 {
    if generation.is_first() { 1 } else { 2 }
}
