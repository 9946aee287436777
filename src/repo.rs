//! The repository format: stored types and key names, chunks, frames, packs, index, manifest, keys.
//!
//! Everything here is deterministic given its input and its salts: the same tree gives the same manifest root on every
//! node. `docs/FORMAT.md` describes each byte; it changes in the same commit as these types.

pub(crate) mod codec;
pub mod crypto;
pub mod entry;
pub mod file_layout;
pub mod format;
pub(crate) mod header;
pub mod index;
pub mod keyring;
pub mod keyslot;
pub mod loss;
pub mod mac_line;
pub mod manifest;
pub mod object_keys;
pub mod pack;
pub(crate) mod read_error;
pub mod reader;
pub(crate) mod segment;

pub use codec::DecodeError;
