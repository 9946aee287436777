//! The repository: what is stored and how. Stored types and key names, chunks, frames, packs, index, manifest, keys.
//!
//! Everything here is deterministic given its input and its salts: the same tree gives the same manifest root on every
//! node. `docs/FORMAT.md` describes each byte; it changes in the same commit as these types.

pub mod entry;
