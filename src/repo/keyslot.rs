//! Key slots: the repository key, wrapped under a passphrase or a key file, one object each under `keys/`.
//!
//! The secret of one slot is enough to open the repository; adding or removing a slot touches no data. The key file is
//! the same on every node and for every role; each repository has its own key. After a rotation a slot gives all
//! generations up to the one it was made for.

use std::ops::RangeInclusive;

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::env::Env;
use crate::ids::{KeyGeneration, KeyId, RepoId};
use crate::repo::crypto::aead;
use crate::repo::keyring::{Keyring, RepositoryKey};

/// The layout version of a slot that gives only the first generation, and of one that gives later ones.
const VERSION_FIRST: u32 = 1;
const VERSION: u32 = 2;

const CONTEXT_WRAP: &str = "runner 2026-11-21 v1 key slot";

/// The accepted range of a slot's Argon2 parameters. A user with write access to the store can write a slot, and
/// opening a repository tries it: it must neither exhaust the machine nor make guesses cheap. This program writes 64
/// MiB, three passes, four lanes.
const ARGON2_MEMORY_KIB: RangeInclusive<u32> = 19 << 10..=256 << 10;
const ARGON2_PASSES: RangeInclusive<u32> = 1..=16;
const ARGON2_LANES: RangeInclusive<u32> = 1..=16;

/// The accepted range of memory times passes of one slot, in KiB.
const ARGON2_WORK_KIB: RangeInclusive<u64> = 32 << 10..=1 << 20;

/// A secret that opens a slot.
#[derive(Clone)]
pub enum SlotSecret {
    /// The random bytes of a key file.
    KeyFile(Zeroizing<[u8; 32]>),
    /// A passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The repository key itself, from `key export`; it needs no slot.
    Exported(RepoId, Keyring),
}

impl std::fmt::Debug for SlotSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SlotSecret::KeyFile(_) => "KeyFile(…)",
            SlotSecret::Passphrase(_) => "Passphrase(…)",
            SlotSecret::Exported(..) => "Exported(…)",
        })
    }
}

/// The prefix of a key file's text; 64 hex characters follow.
const KEY_FILE_TAG: &str = "runner-key-1:";

/// The prefix of an exported repository key's text; the repository's ID, a colon and 64 hex characters follow.
const EXPORT_TAG: &str = "runner-repository-key-1:";

/// The prefix of an exported key with later generations; the ID and all keys follow, each after a colon, the first
/// generation first.
const EXPORT_ALL_TAG: &str = "runner-repository-key-2:";

/// The error for a text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotSecretError {
    /// The text has neither form.
    #[error("it holds no runner key: expected one line that starts with `{KEY_FILE_TAG}` or `{EXPORT_TAG}`")]
    NoKey,
    /// The form is right, but the rest is truncated or mistyped.
    #[error("the key in it is incomplete or mistyped: expected 64 hex characters after the last colon")]
    Mistyped,
    /// The passphrase is empty or only blanks, which protects nothing.
    #[error("the passphrase in it is empty")]
    Empty,
}

impl SlotSecret {
    /// A new random key for a key file.
    pub fn generate(env: &Env) -> Self {
        SlotSecret::KeyFile(Zeroizing::new(env.random_bytes()))
    }

    /// Parses the text of a key file, or of an exported key.
    pub fn parse_key_file(text: &str) -> Result<Self, SlotSecretError> {
        let key = |text: &str| {
            let mut bytes = Zeroizing::new([0; 32]);
            hex::decode_to_slice(text, &mut bytes[..]).map_err(|_| SlotSecretError::Mistyped)?;
            Ok(bytes)
        };
        // Comment lines let people note what the file is for.
        let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(SlotSecretError::NoKey) };
        if let Some(rest) = line.strip_prefix(KEY_FILE_TAG) {
            return Ok(SlotSecret::KeyFile(key(rest)?));
        }
        let (is_all, rest) = match (line.strip_prefix(EXPORT_TAG), line.strip_prefix(EXPORT_ALL_TAG)) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(SlotSecretError::NoKey),
        };
        let (repo, rest) = rest.split_once(':').ok_or(SlotSecretError::NoKey)?;
        let repo = repo.parse().map_err(|_| SlotSecretError::Mistyped)?;
        let mut texts = rest.split(':');
        let first = RepositoryKey(key(texts.next().unwrap_or_default())?);
        let keyring = texts.try_fold(Keyring::from(first), |keyring, text| {
            keyring.with(RepositoryKey(key(text)?)).ok_or(SlotSecretError::Mistyped)
        })?;
        if is_all == keyring.generation().is_first() {
            return Err(SlotSecretError::Mistyped);
        }
        Ok(SlotSecret::Exported(repo, keyring))
    }

    /// Parses the bytes of a passphrase file; one line end at its end is not part of the passphrase.
    pub fn parse_passphrase(bytes: &[u8]) -> Result<Self, SlotSecretError> {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.trim_ascii().is_empty() {
            Err(SlotSecretError::Empty)
        } else {
            Ok(SlotSecret::Passphrase(Zeroizing::new(text.to_vec())))
        }
    }

    /// The line to store in a key file; `None` for a passphrase.
    pub fn to_key_file_text(&self) -> Option<Zeroizing<String>> {
        match self {
            SlotSecret::KeyFile(key) => Some(Zeroizing::new(format!("{KEY_FILE_TAG}{}\n", hex::encode(&key[..])))),
            SlotSecret::Exported(repo, keyring) => {
                let tag = if keyring.generation().is_first() { EXPORT_TAG } else { EXPORT_ALL_TAG };
                let mut text = Zeroizing::new(format!("{tag}{repo}"));
                keyring.iter().for_each(|key| text.extend([":", &Zeroizing::new(hex::encode(&key.0[..]))]));
                text.push('\n');
                Some(text)
            }
            SlotSecret::Passphrase(_) => None,
        }
    }
}

/// A slot as it is stored: JSON, one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySlot {
    v: u32,
    /// The kind of secret that opens the slot, and how the wrapping key is derived from it.
    pub kind: KeyWrapping,
    /// The newest generation of the repository key in the slot.
    #[serde(default, skip_serializing_if = "KeyGeneration::is_first")]
    pub generation: KeyGeneration,
    salt: String,
    wrapped: String,
}

/// The kinds of slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyWrapping {
    /// A key file.
    KeyFile,
    /// A passphrase, through Argon2id (RFC 9106) with these parameters.
    Passphrase {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

impl KeyWrapping {
    /// RFC 9106's second recommendation: 64 MiB, three passes, four lanes.
    pub const PASSPHRASE: KeyWrapping = KeyWrapping::Passphrase { memory_kib: 64 << 10, passes: 3, lanes: 4 };

    /// Whether these are the parameters that this program writes.
    pub fn is_default(&self) -> bool {
        matches!(self, KeyWrapping::KeyFile) || *self == Self::PASSPHRASE
    }

    /// The cost of trying the slot: memory times passes, in KiB. 0 for a key file.
    pub fn cost_kib(&self) -> u64 {
        match self {
            KeyWrapping::KeyFile => 0,
            KeyWrapping::Passphrase { memory_kib, passes, .. } => u64::from(*memory_kib) * u64::from(*passes),
        }
    }

    fn check(&self) -> Result<(), KeySlotError> {
        let KeyWrapping::Passphrase { memory_kib, passes, lanes } = *self else { return Ok(()) };
        let allowed = ARGON2_MEMORY_KIB.contains(&memory_kib)
            && ARGON2_PASSES.contains(&passes)
            && ARGON2_LANES.contains(&lanes)
            && ARGON2_WORK_KIB.contains(&self.cost_kib());
        if allowed { Ok(()) } else { Err(KeySlotError::Excessive { memory_kib, passes, lanes }) }
    }
}

/// Why a slot does not give the repository key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySlotError {
    /// The object does not parse.
    #[error("the key slot is damaged ({0})")]
    Damaged(String),
    /// The version is newer than this program.
    #[error("the key slot has version {0}; this program reads version {VERSION}. hint: update runner on this node")]
    Newer(u32),
    /// The Argon2 parameters are outside the range that any version of this program writes.
    #[error(
        "the key slot asks for {memory_kib} KiB of memory, {passes} passes and {lanes} lanes, which is beyond what is allowed"
    )]
    Excessive {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The secret is wrong, or the slot is damaged: the two cannot be told apart.
    #[error("this key or passphrase does not open it")]
    WrongSecret,
}

impl KeySlot {
    /// Wraps the repository key under `secret`. `None` for an exported key, which needs no slot.
    pub fn wrap(secret: &SlotSecret, keyring: &Keyring, repo: RepoId, env: &Env) -> Option<Self> {
        let kind = match secret {
            SlotSecret::KeyFile(_) => KeyWrapping::KeyFile,
            SlotSecret::Passphrase(_) => KeyWrapping::PASSPHRASE,
            SlotSecret::Exported(..) => return None,
        };
        let salt: [u8; 32] = env.random_bytes();
        let key = wrapping_key(&kind, secret, &salt).expect("the parameters are this program's own");
        let mut wrapped = keyring.to_bytes();
        let generation = keyring.generation();
        let (nonce, data) = associated(&kind, repo, generation);
        let tag = aead(&key)
            .seal_in_place_separate_tag(nonce, Aad::from(data), &mut wrapped)
            .expect("a key is far below the cipher's limit");
        let wrapped = format!("{}{}", hex::encode(&wrapped[..]), hex::encode(tag.as_ref()));
        Some(Self { v: version(generation), kind, generation, salt: hex::encode(salt), wrapped })
    }

    /// Unwraps the repository key, if this secret opens the slot.
    pub fn unwrap(&self, secret: &SlotSecret, repo: RepoId) -> Result<Keyring, KeySlotError> {
        let damaged = |what: &str| KeySlotError::Damaged(what.to_owned());
        let mut salt = [0; 32];
        hex::decode_to_slice(&self.salt, &mut salt).map_err(|_| damaged("its salt is no hex of 32 bytes"))?;
        let mut wrapped = hex::decode(&self.wrapped).map_err(|_| damaged("its content is no hex"))?;
        let Some(key) = wrapping_key(&self.kind, secret, &salt) else { return Err(KeySlotError::WrongSecret) };
        let (nonce, data) = associated(&self.kind, repo, self.generation);
        let plain = aead(&key).open_in_place(nonce, Aad::from(data), &mut wrapped);
        let plain = plain.map_err(|_| KeySlotError::WrongSecret)?;
        let keyring = Keyring::parse(plain).filter(|keyring| keyring.generation() == self.generation);
        plain.zeroize();
        keyring.ok_or_else(|| damaged("its key has another length"))
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("plain data becomes JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Parses the object with this name. A wrong name means damage, and is found without any secret, so that it is
    /// noticed before the holder of this slot's secret needs it.
    pub fn open(id: KeyId, bytes: &[u8]) -> Result<Self, KeySlotError> {
        if slot_id(bytes) != id {
            return Err(KeySlotError::Damaged("its content does not match its name".to_owned()));
        }
        Self::decode(bytes)
    }

    /// Parses the object.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeySlotError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let damaged = |e: serde_json::Error| KeySlotError::Damaged(e.to_string());
        let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
        if v > VERSION {
            return Err(KeySlotError::Newer(v));
        }
        let slot: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        if slot.v != version(slot.generation) {
            return Err(KeySlotError::Damaged("its version and its generation do not fit together".to_owned()));
        }
        slot.kind.check()?;
        Ok(slot)
    }

    /// The name of the slot: the first bytes of the unkeyed BLAKE3 of the object.
    pub fn id(&self) -> KeyId {
        slot_id(&self.encode())
    }
}

fn slot_id(object: &[u8]) -> KeyId {
    KeyId(blake3::hash(object).as_bytes()[..KeyId::LEN].try_into().expect("a hash is longer than a key's ID"))
}

/// `None` if the secret is of another kind than the slot, or the slot's parameters are not accepted.
fn wrapping_key(kind: &KeyWrapping, secret: &SlotSecret, salt: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let mut material = Zeroizing::new([0; 64]);
    material[32..].copy_from_slice(salt);
    match (kind, secret) {
        (KeyWrapping::KeyFile, SlotSecret::KeyFile(key)) => material[..32].copy_from_slice(&key[..]),
        (KeyWrapping::Passphrase { memory_kib, passes, lanes }, SlotSecret::Passphrase(text)) => {
            kind.check().ok()?;
            let params = argon2::Params::new(*memory_kib, *passes, *lanes, Some(32)).ok()?;
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                .hash_password_into(text, salt, &mut material[..32])
                .ok()?;
        }
        _ => return None,
    }
    Some(Zeroizing::new(blake3::derive_key(CONTEXT_WRAP, &material[..])))
}

/// The layout version of a slot that gives the keys up to this generation.
fn version(generation: KeyGeneration) -> u32 {
    if generation.is_first() { VERSION_FIRST } else { VERSION }
}

/// The nonce and the associated data. A wrapping key is used once, so the nonce is zero; kind, repository and
/// generation are authenticated.
fn associated(kind: &KeyWrapping, repo: RepoId, generation: KeyGeneration) -> (Nonce, Vec<u8>) {
    let mut data = format!("runner key slot {} ", version(generation)).into_bytes();
    data.extend_from_slice(&serde_json::to_vec(kind).expect("plain data becomes JSON"));
    data.extend_from_slice(&repo.0);
    if !generation.is_first() {
        data.extend_from_slice(&generation.0.to_le_bytes());
    }
    (Nonce::assume_unique_for_key([0; NONCE_LEN]), data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_opens_with_its_secret_and_no_other() {
        let env = Env::host();
        let (repo, master) = (RepoId([1; 16]), Keyring::from(RepositoryKey::new([2; 32])));
        let secrets = [
            SlotSecret::generate(&env),
            SlotSecret::generate(&env),
            SlotSecret::parse_passphrase(b"correct horse\n").unwrap(),
            SlotSecret::parse_passphrase(b"correct horse ").unwrap(),
        ];
        for (n, secret) in secrets.iter().enumerate() {
            let slot = KeySlot::wrap(secret, &master, repo, &env).unwrap();
            let slot = KeySlot::decode(&slot.encode()).unwrap();
            for (m, other) in secrets.iter().enumerate() {
                assert_eq!(slot.unwrap(other, repo).is_ok_and(|k| k == master), n == m, "{n} {m}");
            }
            assert!(slot.unwrap(secret, RepoId([3; 16])).is_err(), "of another repository");
        }
    }

    #[test]
    fn every_changed_byte_of_a_slot_is_seen() {
        let env = Env::host();
        let (repo, master) = (RepoId([1; 16]), Keyring::from(RepositoryKey::new([2; 32])));
        let secret = SlotSecret::generate(&env);
        let slot = KeySlot::wrap(&secret, &master, repo, &env).unwrap();
        let (id, object) = (slot.id(), slot.encode());
        assert_eq!(KeySlot::open(id, &object), Ok(slot));
        for at in 0..object.len() {
            for bit in [1, 0x20] {
                let mut flipped = object.clone();
                flipped[at] ^= bit;
                assert!(KeySlot::open(id, &flipped).is_err(), "byte {at}");
                assert!(KeySlot::open(id, &object[..at]).is_err(), "cut at {at}");
                // A hex digit in upper case, or other white space at the end, gives the same slot.
                let key = KeySlot::decode(&flipped).and_then(|slot| slot.unwrap(&secret, repo));
                assert!(key.is_err() || key.is_ok_and(|k| k == master), "byte {at}");
            }
        }
    }

    #[test]
    fn keys_survive_being_written_down() {
        let env = Env::host();
        let secret = SlotSecret::generate(&env);
        let text = secret.to_key_file_text().unwrap();
        assert_eq!(
            SlotSecret::parse_key_file(&format!("# for app\n{}", *text)).unwrap().to_key_file_text(),
            Some(text.clone())
        );
        let exported = SlotSecret::Exported(RepoId([1; 16]), Keyring::from(RepositoryKey::new([2; 32])));
        let text = exported.to_key_file_text().unwrap();
        assert_eq!(SlotSecret::parse_key_file(&text).unwrap().to_key_file_text(), Some(text.clone()));
        assert_eq!(SlotSecret::parse_key_file(&text[..text.len() - 3]).err(), Some(SlotSecretError::Mistyped));
        assert_eq!(SlotSecret::parse_key_file("hello").err(), Some(SlotSecretError::NoKey));
        for blank in [&b""[..], b"\n", b"\n\n", b"\r\n", b" \t\n \n"] {
            assert_eq!(SlotSecret::parse_passphrase(blank).err(), Some(SlotSecretError::Empty), "{blank:?}");
        }
        let passphrase = SlotSecret::parse_passphrase(b" two words \n").unwrap();
        assert!(matches!(&passphrase, SlotSecret::Passphrase(text) if text[..] == b" two words "[..]));
    }

    proptest! {
        #[test]
        fn any_key_comes_back_and_no_changed_slot_gives_another(
            key: [u8; 32], keys in prop::collection::vec(any::<[u8; 32]>(), 1..4), repo: [u8; 16], at: prop::sample::Index, bit in 0..8u8,
        ) {
            let (secret, repo) = (SlotSecret::KeyFile(Zeroizing::new(key)), RepoId(repo));
            let keyring = Keyring::parse(&keys.concat()).unwrap();
            let slot = KeySlot::wrap(&secret, &keyring, repo, &Env::host()).unwrap();
            let (id, object) = (slot.id(), slot.encode());
            prop_assert_eq!(&KeySlot::open(id, &object), &Ok(slot.clone()));
            prop_assert_eq!(&slot.unwrap(&secret, repo).unwrap(), &keyring);
            let at = at.index(object.len());
            let mut flipped = object.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(KeySlot::open(id, &flipped).is_err() && KeySlot::open(id, &object[..at]).is_err());
            // The same if the attacker also chooses the name.
            if let Ok(found) = KeySlot::decode(&flipped).and_then(|slot| slot.unwrap(&secret, repo)) {
                prop_assert_eq!(&found, &keyring);
            }
            let text = secret.to_key_file_text().unwrap();
            prop_assert_eq!(SlotSecret::parse_key_file(&text).unwrap().to_key_file_text().unwrap(), text);
            let text = SlotSecret::Exported(repo, keyring).to_key_file_text().unwrap();
            prop_assert_eq!(SlotSecret::parse_key_file(&text).unwrap().to_key_file_text().unwrap(), text);
        }
    }

    /// A slot states the cost of opening it, and a user with write access to the store can write a slot.
    #[test]
    fn what_a_slot_may_not_ask_for_is_not_tried() {
        let secret = SlotSecret::parse_passphrase(b"correct horse").unwrap();
        let own = (64 << 10, 3, 4);
        for (memory_kib, passes, lanes) in [
            (1 << 20, 64, 4),
            (1 << 20, 1, 1),
            (256 << 10, 16, 1),
            (64 << 10, 17, 4),
            (64 << 10, 3, 17),
            (u32::MAX, u32::MAX, u32::MAX),
            // Guesses would be too cheap.
            (8, 1, 1),
            (19 << 10, 1, 1),
            (64 << 10, 0, 4),
            (64 << 10, 3, 0),
            own,
        ] {
            let kind = KeyWrapping::Passphrase { memory_kib, passes, lanes };
            let slot = KeySlot {
                v: VERSION_FIRST,
                kind,
                generation: KeyGeneration::FIRST,
                salt: "02".repeat(32),
                wrapped: "00".repeat(48),
            };
            let decoded = KeySlot::decode(&slot.encode());
            if (memory_kib, passes, lanes) == own {
                assert_eq!(decoded, Ok(slot));
                continue;
            }
            assert_eq!(decoded, Err(KeySlotError::Excessive { memory_kib, passes, lanes }));
            assert!(wrapping_key(&slot.kind, &secret, &[2; 32]).is_none());
        }
    }
}
