//! The IDs by which everything else is keyed, as types, so that an ID of one kind cannot be used as another.
//!
//! Byte IDs are written as lower-case hex, in JSON and in key names alike.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The error for a text that is no valid ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {why}")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
    why: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes; the text form has twice as many characters.
            pub const LEN: usize = $len;

            /// The bytes as they are stored.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The ID made of exactly these bytes, if the length fits.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if !text.bytes().any(|b| b.is_ascii_uppercase()) => Ok(Self(bytes)),
                    _ => Err(ParseIdError {
                        kind: $kind,
                        text: text.to_owned(),
                        why: format!("expected {} lower-case hex characters", 2 * $len),
                    }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A generation of a repository's key: 0 is made at `init`, each further one by `key rotate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyGeneration(pub u16);

impl KeyGeneration {
    /// The generation that is made at `init`.
    pub const FIRST: Self = Self(0);

    /// The next generation.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether this is the generation that is made at `init`.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl fmt::Display for KeyGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

byte_id!(
    /// A chunk of content: BLAKE3 of its bytes, keyed from the repository key.
    ChunkId, 32, "chunk ID"
);
byte_id!(
    /// Unkeyed BLAKE3 of a whole journal object: what the next record names as its predecessor.
    Digest, 32, "digest"
);
byte_id!(
    /// A source or dump of a role, by the start of a keyed BLAKE3 of its path: only holders of the repository key can
    /// match it to the path.
    SourceMark, 8, "source mark"
);
byte_id!(
    /// A keyed BLAKE3.
    Mac, 32, "MAC"
);
byte_id!(
    /// A pack in the store: random, never reused.
    PackId, 16, "pack ID"
);
byte_id!(
    /// An index object in the store: random, never reused.
    IndexId, 16, "index ID"
);
byte_id!(
    /// A key slot in the store: the start of the BLAKE3 of its object.
    KeyId, 8, "key ID"
);
byte_id!(
    /// One repository, that is one role's store prefix: random, made at `init`.
    RepoId, 16, "repository ID"
);
byte_id!(
    /// A role's schedule: the start of the BLAKE3 of everything that determines its slots. Two schedules with the same
    /// ID have the same slots.
    ScheduleId, 8, "schedule ID"
);
byte_id!(
    /// One machine running `runner`: random, kept in the state directory.
    NodeId, 16, "node ID"
);
byte_id!(
    /// One process: random at its start, so that two processes of one cloned node can be told apart.
    InstanceId, 8, "instance ID"
);

byte_id!(
    /// An etcd cluster, by the ID in its answers. Clusters that were started alike have the same ID.
    ClusterId, 8, "cluster ID"
);

/// The fencing token: grows by one at each takeover of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a record in its journal; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The first record of every journal.
    pub const FIRST: Seq = Seq(1);

    /// The largest number that fits the digits of its object's name.
    pub const MAX: Seq = Seq(9_999_999_999_999_999);

    /// The number after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A responsibility that exactly one node has at a time: 1-64 of `a-z A-Z 0-9 . _ -`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RoleName(String);

impl RoleName {
    /// The longest name, in characters: it is part of every key, and file systems allow 255.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = |why: String| Err(ParseIdError { kind: "role name", text: text.to_owned(), why });
        // `points` is the store's own folder next to those of the roles.
        if text == "points" {
            return bad("the name is reserved".to_owned());
        }
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return bad(format!("expected 1 to {} characters", Self::MAX_LEN));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return bad("it must start with a letter or a digit".to_owned());
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
            return bad(format!("{c:?} is not one of a-z A-Z 0-9 . _ -"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for RoleName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_ids_round_trip_and_refuse_the_near_miss() {
        let id = PackId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("AB".repeat(16).parse::<PackId>().is_err(), "upper case would give one pack two names");
        assert!("ab".repeat(15).parse::<PackId>().is_err());
        assert_eq!(serde_json::from_str::<PackId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn role_names_cannot_leave_their_prefix() {
        for good in ["app", "orders-db", "A.b_c-9", "0"] {
            assert!(good.parse::<RoleName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-a", "points", "ä", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<RoleName>().is_err(), "{bad}");
        }
    }
}
