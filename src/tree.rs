//! The file tree: scan, compare, read, write back.
//!
//! Reading goes through [`roots::SourceRoots`]: every path is resolved below a descriptor of its source and without
//! following a symbolic link, so that a process that can write the tree cannot lead a backup out of it.

pub mod compare;
pub mod exclude;
pub mod flags;
pub mod owner_names;
pub mod problem;
pub mod read;
pub mod roots;
pub mod scan;
pub mod stat;
pub mod temporary;
#[cfg(test)]
pub(crate) mod testing;
pub mod write;
