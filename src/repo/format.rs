//! The `format` object, which describes the repository. Written once, at `init`; its presence makes the repository
//! complete.
//!
//! Like a journal record it is one line of JSON and a second line with its MAC, readable without the key.
//!
//! Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, KeyGeneration, RepoId, RoleName};
use crate::repo::crypto::{Cipher, DerivedKeys};
use crate::repo::keyring::{Keyring, RepositoryKey};
use crate::repo::mac_line::{self, MacLineError};

/// The format version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// The content of `format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryFormat {
    /// Format version of all objects below this prefix.
    pub v: u32,
    /// The role that the repository belongs to.
    pub role: RoleName,
    /// The repository's ID.
    pub repo: RepoId,
    /// When the repository was made.
    pub created: Timestamp,
    /// How objects are sealed.
    pub cipher: Cipher,
    /// Where the journal is stored.
    pub journal: JournalLocation,
    /// The parameters by which files are cut into chunks.
    pub chunker: ChunkerParams,
    /// The repository key in hex; only with the cipher `none`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clear_key: Option<String>,
}

/// Where the journal of a repository is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalLocation {
    /// In the store.
    Bucket,
    /// In etcd, and mirrored into the store.
    Etcd {
        /// The cluster at `init`; after a move the journal names the current one.
        cluster: ClusterId,
    },
}

/// FastCDC parameters, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkerParams {
    /// The smallest chunk; no cut comes earlier.
    pub min: u32,
    /// The expected average. A file smaller than this is one chunk, unless it is sparse.
    pub average: u32,
    /// The largest chunk; a cut comes here at the latest.
    pub max: u32,
    /// Chunking starts anew at multiples of this, so that a large file can be read by several threads.
    pub segment: u64,
}

impl Default for ChunkerParams {
    fn default() -> Self {
        Self { min: 256 << 10, average: 1 << 20, max: 4 << 20, segment: 32 << 20 }
    }
}

impl ChunkerParams {
    /// Whether the chunker supports these parameters; a `format` with others is refused.
    pub fn is_valid(&self) -> bool {
        // FastCDC's own limits; it processes two bytes at a time, so sizes are even.
        (4096..=1 << 20).contains(&self.min)
            && self.min < self.average
            && self.average <= 1 << 22
            && self.average < self.max
            && self.max <= 1 << 24
            && [self.min, self.average, self.max].iter().all(|n| n.is_multiple_of(2))
            && self.segment >= u64::from(self.max)
    }
}

/// Why a `format` object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The object does not parse.
    #[error("`format` is damaged ({0})")]
    Damaged(String),
    /// The version is newer than this program.
    #[error(
        "the repository has format version {0}; this program reads version {VERSION}. hint: update runner on this node"
    )]
    Newer(u32),
    /// The repository belongs to another role.
    #[error("the repository at this place belongs to role {found}, not {wanted}")]
    OtherRole {
        /// The role in `format`.
        found: RoleName,
        /// The role that was asked for.
        wanted: RoleName,
    },
    /// The MAC does not match.
    #[error("`format` was changed, or the key belongs to another repository")]
    Forged,
}

impl RepositoryFormat {
    /// Parses the object without checking its MAC, because the keys for that are found with its content.
    pub fn parse(bytes: &[u8], wanted: &RoleName) -> Result<Self, FormatError> {
        let damaged = |e: String| FormatError::Damaged(e);
        let (first, ..) = mac_line::split(bytes).map_err(|e| damaged(e.to_string()))?;
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let Version { v } = serde_json::from_slice(first).map_err(|e| damaged(e.to_string()))?;
        if v > VERSION {
            return Err(FormatError::Newer(v));
        }
        let format: RepositoryFormat = serde_json::from_slice(first).map_err(|e| damaged(e.to_string()))?;
        if format.role != *wanted {
            return Err(FormatError::OtherRole { found: format.role, wanted: wanted.clone() });
        }
        if !format.chunker.is_valid() || (format.cipher == Cipher::None) != format.clear_key.is_some() {
            return Err(damaged("impossible parameters".to_owned()));
        }
        Ok(format)
    }

    /// Checks the MAC of the object from which this was parsed.
    pub fn verify(bytes: &[u8], keys: &DerivedKeys) -> Result<(), FormatError> {
        mac_line::open_by(bytes, keys, KeyGeneration::FIRST).map(|_| ()).map_err(|e| match e {
            MacLineError::Forged | MacLineError::Generation(_) => FormatError::Forged,
            MacLineError::Shape => FormatError::Damaged(e.to_string()),
        })
    }

    /// Derives the keys of this repository from these repository keys.
    pub fn derive_keys(&self, keys: impl Into<Keyring>) -> DerivedKeys {
        DerivedKeys::new(self.cipher, self.repo, self.role.clone(), keys)
    }

    /// The repository key, if it is stored in `format` itself.
    pub fn plaintext_key(&self) -> Option<RepositoryKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(self.clear_key.as_deref()?, &mut bytes).ok()?;
        Some(RepositoryKey::new(bytes))
    }

    /// Encodes the object. Its MAC is always by the first generation of the repository key, as `init` wrote it.
    pub fn encode(&self, keys: &DerivedKeys) -> Vec<u8> {
        let line = serde_json::to_vec(self).expect("plain data becomes JSON");
        mac_line::seal_by(&line, keys, KeyGeneration::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repo::crypto::tests::keys;

    fn format() -> RepositoryFormat {
        RepositoryFormat {
            v: VERSION,
            role: "app".parse().unwrap(),
            repo: RepoId([7; 16]),
            created: Timestamp::UNIX_EPOCH,
            cipher: Cipher::Aes256GcmSiv,
            journal: JournalLocation::Bucket,
            chunker: ChunkerParams::default(),
            clear_key: None,
        }
    }

    #[test]
    fn it_reads_back_and_every_change_is_seen() {
        let keys = keys(Cipher::Aes256GcmSiv);
        let role = "app".parse().unwrap();
        let object = format().encode(&keys);
        assert_eq!(RepositoryFormat::parse(&object, &role).unwrap(), format());
        RepositoryFormat::verify(&object, &keys).unwrap();
        for at in 0..object.len() {
            let mut flipped = object.clone();
            flipped[at] ^= 1;
            assert!(
                RepositoryFormat::parse(&flipped, &role).is_err() || RepositoryFormat::verify(&flipped, &keys).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn parameters_that_no_chunker_takes_are_refused() {
        let keys = keys(Cipher::Aes256GcmSiv);
        let parse = |chunker| {
            RepositoryFormat::parse(&RepositoryFormat { chunker, ..format() }.encode(&keys), &"app".parse().unwrap())
        };
        let good = ChunkerParams::default();
        assert!(parse(good).is_ok());
        for bad in [
            ChunkerParams { min: (256 << 10) + 1, ..good },
            ChunkerParams { min: 1 << 21, average: 1 << 22, max: 1 << 23, ..good },
            ChunkerParams { average: 1 << 23, max: 1 << 24, ..good },
            ChunkerParams { max: 1 << 25, ..good },
            ChunkerParams { segment: 1 << 20, ..good },
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_newer_version_and_another_role_are_told_apart_from_damage() {
        let keys = keys(Cipher::Aes256GcmSiv);
        let newer = RepositoryFormat { v: 2, ..format() }.encode(&keys);
        assert_eq!(RepositoryFormat::parse(&newer, &"app".parse().unwrap()), Err(FormatError::Newer(2)));
        let other = RepositoryFormat::parse(&format().encode(&keys), &"db".parse().unwrap());
        assert!(matches!(other, Err(FormatError::OtherRole { .. })));
    }

    fn chunkers() -> impl Strategy<Value = ChunkerParams> {
        let sizes = (2048..=1u32 << 19, 1..1u32 << 21, 1..1u32 << 23, any::<u32>());
        let params = sizes.prop_map(|(min, more, most, segment)| {
            let average = (min + more).min(1 << 21);
            let max = (average + most).min(1 << 23);
            ChunkerParams {
                min: 2 * min,
                average: 2 * average,
                max: 2 * max,
                segment: u64::from(2 * max) + u64::from(segment),
            }
        });
        params.prop_filter("what a chunker takes", ChunkerParams::is_valid)
    }

    proptest! {
        #[test]
        fn any_format_reads_back_and_every_change_and_cut_is_seen(
            role in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}".prop_filter("reserved", |name| name != "points"),
            repo: [u8; 16], second in 0..4_000_000_000i64, nano in 0..1_000_000_000i32, cluster: Option<[u8; 8]>, chunker in chunkers(),
            clear: Option<[u8; 32]>, at: prop::sample::Index, bit in 0..8u8,
        ) {
            let cipher = if clear.is_some() { Cipher::None } else { Cipher::Aes256GcmSiv };
            let role: RoleName = role.parse().unwrap();
            let format = RepositoryFormat {
                v: VERSION,
                role: role.clone(),
                repo: RepoId(repo),
                created: Timestamp::new(second, nano).unwrap(),
                cipher,
                journal: cluster.map_or(JournalLocation::Bucket, |id| JournalLocation::Etcd { cluster: ClusterId(id) }),
                chunker,
                clear_key: clear.map(hex::encode),
            };
            let keys = format.derive_keys(RepositoryKey::new(clear.unwrap_or([9; 32])));
            let object = format.encode(&keys);
            prop_assert_eq!(RepositoryFormat::verify(&object, &keys), Ok(()));
            let found = RepositoryFormat::parse(&object, &role);
            prop_assert_eq!(found.as_ref().unwrap().plaintext_key().map(|key| *key.0), clear);
            prop_assert_eq!(found, Ok(format));
            let at = at.index(object.len());
            let mut flipped = object.clone();
            flipped[at] ^= 1 << bit;
            for damaged in [&flipped[..], &object[..at], &[&object[..], b"\n"].concat()] {
                prop_assert!(RepositoryFormat::parse(damaged, &role).is_err() || RepositoryFormat::verify(damaged, &keys).is_err());
            }
        }
    }
}
