//! The repository key in its generations: `init` makes the first one, each `key rotate` a further one.
//!
//! A keyring has all generations up to its newest one. Its holder cannot open objects of a newer generation.
//!
//! Pure.

use std::fmt;

use zeroize::Zeroizing;

use crate::ids::KeyGeneration;

/// The most generations that a repository can have.
pub const GENERATIONS_MAX: usize = 64;

/// The secret from which all other keys of a repository are derived: 32 random bytes.
#[derive(Clone)]
pub struct RepositoryKey(pub(crate) Zeroizing<[u8; 32]>);

impl RepositoryKey {
    /// Length of the key in bytes.
    pub const LEN: usize = 32;

    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RepositoryKey(…)")
    }
}

/// The generations of a repository's key from the first one up to some generation; never empty.
#[derive(Clone)]
pub struct Keyring(Vec<RepositoryKey>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

impl From<RepositoryKey> for Keyring {
    fn from(key: RepositoryKey) -> Self {
        Self(vec![key])
    }
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        let equal = |(a, b): (&RepositoryKey, &RepositoryKey)| {
            aws_lc_rs::constant_time::verify_slices_are_equal(&a.0[..], &b.0[..]).is_ok()
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(equal)
    }
}

impl Keyring {
    /// Parses the concatenated bytes of the keys. `None` if that is no whole number of keys, no key, or too many.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (keys, rest) = bytes.as_chunks::<{ RepositoryKey::LEN }>();
        let sound = rest.is_empty() && (1..=GENERATIONS_MAX).contains(&keys.len());
        sound.then(|| Self(keys.iter().map(|key| RepositoryKey::new(*key)).collect()))
    }

    /// The concatenated bytes of the keys.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.0.len() * RepositoryKey::LEN));
        self.0.iter().for_each(|key| bytes.extend_from_slice(&key.0[..]));
        bytes
    }

    /// This keyring with one more key. `None` if there are too many.
    pub fn with(&self, key: RepositoryKey) -> Option<Self> {
        (self.0.len() < GENERATIONS_MAX).then(|| Self(self.0.iter().cloned().chain([key]).collect()))
    }

    /// The newest generation in the keyring.
    pub fn generation(&self) -> KeyGeneration {
        KeyGeneration((self.0.len() - 1) as u16)
    }

    /// The key that was made at `init`.
    pub fn first(&self) -> &RepositoryKey {
        &self.0[0]
    }

    /// The key of this generation, if the keyring has it.
    pub fn get(&self, generation: KeyGeneration) -> Option<&RepositoryKey> {
        self.0.get(usize::from(generation.0))
    }

    /// All keys, the first generation first.
    pub fn iter(&self) -> impl Iterator<Item = &RepositoryKey> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_has_a_bound() {
        let mut keyring = Keyring::from(RepositoryKey::new([0; 32]));
        for n in 1..GENERATIONS_MAX {
            keyring = keyring.with(RepositoryKey::new([n as u8; 32])).unwrap();
            assert_eq!(keyring.generation(), KeyGeneration(n as u16));
        }
        assert_eq!(Keyring::parse(&keyring.to_bytes()), Some(keyring.clone()));
        assert_eq!(*keyring.get(KeyGeneration(7)).unwrap().0, [7; 32]);
        assert!(keyring.get(KeyGeneration(64)).is_none());
        assert!(keyring.with(RepositoryKey::new([1; 32])).is_none());
        for len in [0, 31, 33, 32 * (GENERATIONS_MAX + 1)] {
            assert!(Keyring::parse(&vec![0; len]).is_none(), "{len}");
        }
        assert_ne!(keyring, Keyring::from(RepositoryKey::new([0; 32])));
    }
}
