//! Decides about one entry of the tree: keep the known entry, describe it, or read it. Pure.

use std::sync::Arc;

use crate::ids::ChunkId;
use crate::job::backup::tree_cache::CachedEntry;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::tree::compare::{is_unchanged_since_cached, matches_size_and_mtime};
use crate::tree::stat::{FileType, Stat};

/// How an entry is processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryDecision {
    /// It is unchanged since this node saw it.
    Keep(Arc<ManifestEntry>),
    /// It is a further hard link of this file.
    Link(TreePath),
    /// Its content is trusted to be unchanged; owner and attributes are read.
    Trust(EntryKind),
    /// It has no content; its metadata are read.
    Describe,
    /// Its content and metadata are read.
    Read,
}

/// What is known of an entry before it is opened.
pub(crate) struct KnownEntry<'a> {
    /// The entry in this node's cache.
    pub(crate) cached: Option<&'a CachedEntry>,
    /// The entry in the newest snapshot.
    pub(crate) base: Option<&'a ManifestEntry>,
    /// The earlier name of the same file in this walk.
    pub(crate) first_name: Option<&'a TreePath>,
    /// Size and modification time are trusted even if another node made the newest snapshot.
    pub(crate) trust_mtime: bool,
}

/// Decides about an entry. `stored` says whether the repository has a chunk: chunks of an older snapshot in the cache
/// may be deleted, and chunks of the newest one may be lost.
pub(crate) fn decide(stat: &Stat, known: &KnownEntry<'_>, stored: &dyn Fn(&ChunkId) -> bool) -> EntryDecision {
    let vouched = known
        .cached
        .filter(|c| c.local.is_some_and(|local| is_unchanged_since_cached(&c.entry, &local, stat)))
        .map(|c| &c.entry)
        .filter(|entry| entry.kind.chunks().iter().all(stored));
    if let Some(first) = known.first_name {
        return match vouched {
            Some(entry) if matches!(&entry.kind, EntryKind::Hardlink { target } if target == first) => {
                EntryDecision::Keep(Arc::clone(entry))
            }
            _ => EntryDecision::Link(first.clone()),
        };
    }
    // A cached hard link whose first name is gone becomes a first name, and the cache does not have its content.
    if let Some(entry) = vouched.filter(|entry| !matches!(entry.kind, EntryKind::Hardlink { .. })) {
        return EntryDecision::Keep(Arc::clone(entry));
    }
    if stat.kind != FileType::File {
        return EntryDecision::Describe;
    }
    match known.base {
        Some(base)
            if known.trust_mtime
                && matches!(base.kind, EntryKind::File { .. })
                && matches_size_and_mtime(base, stat)
                && base.kind.chunks().iter().all(stored) =>
        {
            EntryDecision::Trust(base.kind.clone())
        }
        _ => EntryDecision::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::entry::{OwnerAndMode, UnixNanos};
    use crate::tree::compare::CachedStat;

    /// A file with two names.
    fn stat() -> Stat {
        Stat { nlink: 2, ..crate::tree::testing::stat() }
    }

    fn path(p: &str) -> TreePath {
        TreePath::new(p).unwrap()
    }

    fn entry(kind: EntryKind) -> ManifestEntry {
        let owner = OwnerAndMode { mode: 0o644, uid: 1, gid: 2, ..OwnerAndMode::default() };
        ManifestEntry { path: path("b"), kind, owner, mtime: UnixNanos(50), xattrs: Vec::new() }
    }

    fn file() -> EntryKind {
        EntryKind::File { size: 3, extents: None, chunks: vec![ChunkId([1; 32])] }
    }

    fn link() -> EntryKind {
        EntryKind::Hardlink { target: path("a") }
    }

    fn cached(kind: EntryKind) -> CachedEntry {
        CachedEntry { entry: Arc::new(entry(kind)), local: Some(CachedStat { ino: 7, ctime: UnixNanos(60) }) }
    }

    const YES: fn(&ChunkId) -> bool = |_| true;

    #[test]
    fn what_the_cache_vouches_for_is_kept_only_while_its_chunks_are_stored() {
        let c = cached(file());
        let known = KnownEntry { cached: Some(&c), base: None, first_name: None, trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), EntryDecision::Keep(Arc::new(entry(file()))));
        assert_eq!(decide(&stat(), &known, &|_| false), EntryDecision::Read);
        assert_eq!(decide(&Stat { ctime: UnixNanos(61), ..stat() }, &known, &YES), EntryDecision::Read);
        let no_local = CachedEntry { local: None, ..c.clone() };
        let known = KnownEntry { cached: Some(&no_local), ..known };
        assert_eq!(decide(&stat(), &known, &YES), EntryDecision::Read);
    }

    #[test]
    fn another_nodes_word_counts_only_where_it_is_trusted() {
        let base = entry(file());
        let known = KnownEntry { cached: None, base: Some(&base), first_name: None, trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), EntryDecision::Read);
        let known = KnownEntry { trust_mtime: true, ..known };
        assert_eq!(decide(&stat(), &known, &YES), EntryDecision::Trust(file()));
        assert_eq!(decide(&Stat { mtime: UnixNanos(51), ..stat() }, &known, &YES), EntryDecision::Read);
        assert_eq!(decide(&stat(), &known, &|_| false), EntryDecision::Read, "its content is lost");
        let base = entry(link());
        let known = KnownEntry { base: Some(&base), ..known };
        assert_eq!(decide(&stat(), &known, &YES), EntryDecision::Read, "a link has no content to take over");
        assert_eq!(decide(&Stat { kind: FileType::Dir, ..stat() }, &known, &YES), EntryDecision::Describe);
    }

    #[test]
    fn of_several_names_the_first_has_the_content() {
        let (first, other) = (path("a"), path("a2"));
        let c = cached(link());
        let known = KnownEntry { cached: Some(&c), base: None, first_name: Some(&first), trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), EntryDecision::Keep(Arc::new(entry(link()))));
        let moved = KnownEntry { first_name: Some(&other), ..known };
        assert_eq!(decide(&stat(), &moved, &YES), EntryDecision::Link(other.clone()));
        let now_first = KnownEntry { cached: Some(&c), base: None, first_name: None, trust_mtime: false };
        assert_eq!(decide(&stat(), &now_first, &YES), EntryDecision::Read);
        let was_first = cached(file());
        let known = KnownEntry { cached: Some(&was_first), base: None, first_name: Some(&first), trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), EntryDecision::Link(first.clone()));
    }
}
