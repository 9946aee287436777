//! The keys of one repository and their uses: naming chunks, sealing objects, authenticating lines of JSON.
//!
//! Nothing is sealed twice under one key and nonce: each object has its own key, derived from the repository key and a
//! random 32-byte salt, and its parts are numbered. If a cloned machine repeats a salt all the same, AES-256-GCM-SIV
//! (RFC 8452) reveals only whether the plaintexts were equal.
//!
//! Pure.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::ids::{ChunkId, KeyGeneration, RepoId, RoleName};
use crate::repo::keyring::{Keyring, RepositoryKey};

/// The salt of one sealed object, in bytes.
pub const SALT_LEN: usize = 32;

/// Length of the tag that sealing adds to each part, in bytes.
pub const TAG_LEN: usize = 16;

/// How objects are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cipher {
    /// AES-256-GCM-SIV (RFC 8452).
    #[serde(rename = "aes-256-gcm-siv")]
    Aes256GcmSiv,
    /// Not encrypted. The tag is a keyed BLAKE3, and the key is stored in `format`, so it detects damage but no
    /// tampering.
    #[serde(rename = "none")]
    None,
}

impl Cipher {
    /// The code in binary headers.
    pub(crate) fn code(self) -> u8 {
        match self {
            Cipher::None => 0,
            Cipher::Aes256GcmSiv => 1,
        }
    }
}

/// The kind of a sealed part; a part of one kind cannot be opened as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedPart {
    /// Frame number n of a pack.
    Frame(u32),
    /// The trailer of a pack.
    Trailer,
    /// An index object.
    Index,
    /// A message from one node to the others, in an object whose other content is not encrypted.
    Notice,
}

impl SealedPart {
    fn code_and_number(self) -> (u8, u32) {
        match self {
            SealedPart::Frame(n) => (1, n),
            SealedPart::Trailer => (2, u32::MAX),
            SealedPart::Index => (3, 0),
            SealedPart::Notice => (4, 0),
        }
    }
}

/// The error for a sealed part that does not open: damaged, truncated, moved, or of another repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not open: it is damaged, or belongs elsewhere")]
pub struct UnsealError;

/// The salt of one sealed object, from its header. Together with the object's ID it determines the object's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt {
    /// The generation of the repository key that the object is sealed under.
    pub generation: KeyGeneration,
    /// Random bytes, different for each object.
    pub bytes: [u8; SALT_LEN],
}

impl From<[u8; SALT_LEN]> for Salt {
    /// A salt for the first generation, the key made at `init`.
    fn from(bytes: [u8; SALT_LEN]) -> Self {
        Self { generation: KeyGeneration::FIRST, bytes }
    }
}

/// An opened repository's keys, bound to its ID and role.
#[derive(Clone)]
pub struct DerivedKeys {
    cipher: Cipher,
    repo: RepoId,
    role: RoleName,
    keyring: Keyring,
    /// The generation under which new objects are sealed.
    generation: KeyGeneration,
    chunk: Zeroizing<[u8; 32]>,
    /// The MAC keys, one for each generation.
    macs: Vec<Zeroizing<[u8; 32]>>,
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} {})", self.role, self.repo)
    }
}

// Contexts for BLAKE3 derive_key. Part of the format: they must never change.
const CONTEXT_CHUNK: &str = "runner 2026-11-21 v1 chunk id";
const CONTEXT_MAC: &str = "runner 2026-11-21 v1 journal mac";
const CONTEXT_OBJECT: &str = "runner 2026-11-21 v1 object key";

/// The name of content under one generation of the repository key.
fn keyed_digest(key: &RepositoryKey, content: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&blake3::derive_key(CONTEXT_CHUNK, &key.0[..]), content).as_bytes())
}

impl DerivedKeys {
    /// Derives all keys of one repository. New objects are sealed under the newest of them.
    pub fn new(cipher: Cipher, repo: RepoId, role: RoleName, keys: impl Into<Keyring>) -> Self {
        let keyring: Keyring = keys.into();
        let chunk = Zeroizing::new(blake3::derive_key(CONTEXT_CHUNK, &keyring.first().0[..]));
        let mac = |key: &RepositoryKey| Zeroizing::new(blake3::derive_key(CONTEXT_MAC, &key.0[..]));
        let macs = keyring.iter().map(mac).collect();
        Self { cipher, repo, role, generation: keyring.generation(), keyring, chunk, macs }
    }

    /// These keys and one more, under which nothing is sealed yet: for the record that introduces it. `None` if there
    /// are too many.
    pub(crate) fn with_staged_key(&self, key: RepositoryKey) -> Option<Self> {
        let keyring = self.keyring.with(key)?;
        Some(Self { generation: self.generation, ..Self::new(self.cipher, self.repo, self.role.clone(), keyring) })
    }

    /// The cipher of this repository.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The repository's ID.
    pub fn repo(&self) -> RepoId {
        self.repo
    }

    /// The role's name.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// The repository keys themselves, for `key add` and `key export`.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The generation under which new objects are sealed.
    pub fn generation(&self) -> KeyGeneration {
        self.generation
    }

    /// The salt of a new object.
    pub fn salt(&self, bytes: [u8; SALT_LEN]) -> Salt {
        Salt { generation: self.generation, bytes }
    }

    /// The name of this content: BLAKE3 keyed from the first repository key. The name reveals nothing without the key,
    /// and content that an older generation stored is not stored again.
    pub fn chunk_id(&self, content: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.chunk, content).as_bytes())
    }

    /// A digest keyed by the current generation: testing guesses of the content requires that generation's key.
    pub fn sealed_digest(&self, content: &[u8]) -> ChunkId {
        let key = self.keyring.get(self.generation).expect("what is written under is in the keyring");
        keyed_digest(key, content)
    }

    /// The digest under each generation, oldest first, to find a value that was written under an earlier one.
    pub fn sealed_digests(&self, content: &[u8]) -> impl Iterator<Item = ChunkId> {
        let written = usize::from(self.generation.0) + 1;
        self.keyring.iter().take(written).map(|key| keyed_digest(key, content))
    }

    /// The MAC over the first line of a journal record, or of another object that is not encrypted.
    pub fn line_mac(&self, line: &[u8]) -> [u8; 32] {
        self.line_mac_by(self.generation, line).expect("what is written under is in the keyring")
    }

    /// The MAC under this generation, if it is known.
    pub fn line_mac_by(&self, generation: KeyGeneration, line: &[u8]) -> Option<[u8; 32]> {
        let key = self.macs.get(usize::from(generation.0))?;
        Some(*blake3::keyed_hash(key, line).as_bytes())
    }

    /// The sealer for the object with this salt. If the salt's generation is not known, it opens nothing.
    pub fn object_sealer(&self, id: [u8; 16], salt: impl Into<Salt>) -> ObjectSealer {
        let salt = salt.into();
        let key = self.keyring.get(salt.generation).map(|key| {
            let mut material = Zeroizing::new([0; 64]);
            material[..32].copy_from_slice(&key.0[..]);
            material[32..].copy_from_slice(&salt.bytes);
            Zeroizing::new(blake3::derive_key(CONTEXT_OBJECT, &material[..]))
        });
        let mut context = Vec::with_capacity(64);
        context.extend_from_slice(b"runner");
        context.extend_from_slice(&[1, self.cipher.code()]);
        context.extend_from_slice(&self.repo.0);
        context.push(self.role.as_str().len() as u8);
        context.extend_from_slice(self.role.as_str().as_bytes());
        context.extend_from_slice(&id);
        let sealer = match (self.cipher, key) {
            (_, None) => SealMethod::Unknown,
            (Cipher::None, Some(key)) => SealMethod::Mac(key),
            (Cipher::Aes256GcmSiv, Some(key)) => SealMethod::Aead(Box::new(aead(&key))),
        };
        ObjectSealer { sealer, context }
    }
}

/// AES-256-GCM-SIV with this key.
pub(crate) fn aead(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has the cipher's length"))
}

enum SealMethod {
    Aead(Box<LessSafeKey>),
    Mac(Zeroizing<[u8; 32]>),
    /// The object's generation of the repository key is not known.
    Unknown,
}

/// Seals and opens the parts of one object.
pub struct ObjectSealer {
    sealer: SealMethod,
    /// The associated data without the part's own: format, cipher, repository, role, object.
    context: Vec<u8>,
}

impl fmt::Debug for ObjectSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectKey(…)")
    }
}

impl ObjectSealer {
    fn associated(&self, part: SealedPart) -> (Vec<u8>, Nonce) {
        let (code, number) = part.code_and_number();
        let mut data = self.context.clone();
        data.push(code);
        data.extend_from_slice(&number.to_le_bytes());
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = code;
        nonce[4..8].copy_from_slice(&number.to_le_bytes());
        (data, Nonce::assume_unique_for_key(nonce))
    }

    fn tag(key: &[u8; 32], associated: &[u8], data: &[u8]) -> [u8; TAG_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&(associated.len() as u64).to_le_bytes()).update(associated).update(data);
        hasher.finalize().as_bytes()[..TAG_LEN].try_into().expect("a hash is longer than a tag")
    }

    /// Seals `data[from..]` in place and appends the tag.
    pub fn seal(&self, part: SealedPart, data: &mut Vec<u8>, from: usize) {
        let (associated, nonce) = self.associated(part);
        let tag = match &self.sealer {
            SealMethod::Unknown => unreachable!("what is written is sealed under a generation that is known"),
            SealMethod::Mac(key) => Self::tag(key, &associated, &data[from..]),
            SealMethod::Aead(key) => key
                .seal_in_place_separate_tag(nonce, Aad::from(&associated), &mut data[from..])
                .expect("a part is far below the cipher's limit of 64 GiB")
                .as_ref()
                .try_into()
                .expect("the cipher's tag has 16 bytes"),
        };
        data.extend_from_slice(&tag);
    }

    /// Opens a sealed part.
    pub fn open(&self, part: SealedPart, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let (associated, nonce) = self.associated(part);
        let Some(len) = sealed.len().checked_sub(TAG_LEN) else { return Err(UnsealError) };
        match &self.sealer {
            SealMethod::Unknown => Err(UnsealError),
            SealMethod::Mac(key) => {
                let tag: [u8; TAG_LEN] = sealed[len..].try_into().expect("split at the tag's length");
                // No secret is compared here: the key is stored in the repository itself.
                if Self::tag(key, &associated, &sealed[..len]) != tag {
                    return Err(UnsealError);
                }
                Ok(sealed[..len].to_vec())
            }
            SealMethod::Aead(key) => {
                let mut data = sealed.to_vec();
                key.open_in_place(nonce, Aad::from(&associated), &mut data).map_err(|_| UnsealError)?;
                data.truncate(len);
                Ok(data)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keys for the tests of other modules.
    pub(crate) fn keys(cipher: Cipher) -> DerivedKeys {
        DerivedKeys::new(cipher, RepoId([7; 16]), "app".parse().unwrap(), RepositoryKey::new([9; 32]))
    }

    #[test]
    fn a_part_opens_only_as_what_it_was_sealed_as() {
        for cipher in [Cipher::Aes256GcmSiv, Cipher::None] {
            let keys = keys(cipher);
            let key = keys.object_sealer([1; 16], [2; 32]);
            let mut sealed = b"head content".to_vec();
            key.seal(SealedPart::Frame(3), &mut sealed, 5);
            assert_eq!(key.open(SealedPart::Frame(3), &sealed[5..]).unwrap(), b"content");
            let mut flipped = sealed.clone();
            flipped[6] ^= 1;
            assert!(key.open(SealedPart::Frame(3), &flipped[5..]).is_err());
            assert!(key.open(SealedPart::Frame(4), &sealed[5..]).is_err());
            assert!(key.open(SealedPart::Trailer, &sealed[5..]).is_err());
            assert!(key.open(SealedPart::Frame(3), &sealed[5..10]).is_err());
            assert!(
                keys.object_sealer([1; 16], [3; 32]).open(SealedPart::Frame(3), &sealed[5..]).is_err(),
                "another salt"
            );
            assert!(
                keys.object_sealer([3; 16], [2; 32]).open(SealedPart::Frame(3), &sealed[5..]).is_err(),
                "another object"
            );
            let other = DerivedKeys::new(cipher, RepoId([7; 16]), "db".parse().unwrap(), RepositoryKey::new([9; 32]));
            assert!(
                other.object_sealer([1; 16], [2; 32]).open(SealedPart::Frame(3), &sealed[5..]).is_err(),
                "another role"
            );
        }
    }

    /// The keys after a rotation: first those that know the next generation and still seal under the old one, then
    /// those that seal under the new one.
    pub(crate) fn rotated(old: &DerivedKeys) -> (DerivedKeys, DerivedKeys) {
        let between = old.with_staged_key(RepositoryKey::new([10; 32])).unwrap();
        let new = DerivedKeys::new(old.cipher(), old.repo(), old.role().clone(), between.keyring().clone());
        (between, new)
    }

    #[test]
    fn a_generation_of_the_key_is_needed_to_open_and_to_authenticate() {
        let old = keys(Cipher::Aes256GcmSiv);
        let (between, new) = rotated(&old);
        assert_eq!((between.generation(), new.generation()), (KeyGeneration(0), KeyGeneration(1)));
        let sealed = |keys: &DerivedKeys| {
            let (salt, mut data) = (keys.salt([2; 32]), b"content".to_vec());
            keys.object_sealer([1; 16], salt).seal(SealedPart::Index, &mut data, 0);
            (salt, data)
        };
        let opens = |keys: &DerivedKeys, (salt, data): &(Salt, Vec<u8>)| {
            keys.object_sealer([1; 16], *salt).open(SealedPart::Index, data).is_ok()
        };
        let (before, after) = (sealed(&old), sealed(&new));
        assert_eq!(sealed(&between), before, "nothing is written under it yet");
        assert!(opens(&old, &before) && opens(&new, &before) && opens(&new, &after) && opens(&between, &after));
        assert!(!opens(&old, &after), "the old key");
        let claimed = (Salt { generation: KeyGeneration(0), ..after.0 }, after.1.clone());
        assert!(!opens(&old, &claimed) && !opens(&new, &claimed), "a generation that is changed");

        assert_ne!(old.line_mac(b"line"), new.line_mac(b"line"));
        assert_eq!(old.line_mac_by(KeyGeneration(1), b"line"), None);
        assert_eq!(new.line_mac_by(KeyGeneration(0), b"line"), Some(old.line_mac(b"line")));
        assert_eq!(old.chunk_id(b"content"), new.chunk_id(b"content"), "what is stored is not stored again");
        assert_eq!(old.sealed_digest(b"content"), old.chunk_id(b"content"));
        assert_ne!(old.sealed_digest(b"content"), new.sealed_digest(b"content"));
    }

    /// The derivations are part of the format: these values must never change.
    #[test]
    fn derivations_are_pinned() {
        let keys = keys(Cipher::Aes256GcmSiv);
        let mut sealed = b"content".to_vec();
        keys.object_sealer([1; 16], [2; 32]).seal(SealedPart::Index, &mut sealed, 0);
        insta::assert_snapshot!(
            format!("{}\n{}\n{}", keys.chunk_id(b"content"), hex::encode(keys.line_mac(b"line")), hex::encode(sealed)),
            @r"
        4ff94d82b91612b1b3215bfc5e952f2c245f7b7347a6ea0b6011e88c2b1b2007
        042a0a6bdc7a2b1d61594ccd2033e49fc8e375b417d6d6d780975489e3578c0d
        854a2b2aacb6416c923af26c56f20a5d19a4d4a617a924
        ");
    }
}
