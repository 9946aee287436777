//! The file tree: scan, compare, read, write back.
