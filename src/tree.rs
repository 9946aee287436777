//! The file tree: scan, compare, read, write back.

pub mod write;
