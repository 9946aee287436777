//! `backup`: one session of one role, from the journal's head to the record that commits it.
//!
//! The order is fixed, and no step may be left out: read the head; take the role over (or continue under this node's
//! own takeover); find out what the store has; put packs, then index objects, then the record, by compare-and-swap on
//! the head. A failure before the record leaves garbage for a prune, never an incomplete snapshot.

pub(crate) mod commit;
pub(in crate::job) mod dedup_index;
mod dump;
pub(crate) mod empty_check;
pub(crate) mod empty_sources;
mod entry_decision;
mod entry_stream;
mod finish_stage;
pub mod hooks;
pub(crate) mod index_objects;
pub(crate) mod indexes;
pub(in crate::job) mod inline_content;
mod inventory;
pub(in crate::job) mod lost_content;
pub(crate) mod mounts;
pub(crate) mod orphans;
pub mod outcome;
pub(in crate::job) mod pack_writer;
mod packer;
pub(in crate::job) mod pipeline;
pub mod request;
pub mod run;
mod shared;
pub(in crate::job) mod tree;
pub mod tree_cache;
mod unreadable;
mod walk_stage;
mod worker;
