//! What to do about one entry of the tree: keep what is known, describe it, or read it. Pure.

use std::sync::Arc;

use crate::ids::ChunkId;
use crate::job::cache::Cached;
use crate::repo::entry::{Entry, Kind, TreePath};
use crate::tree::compare::{same_by_mtime, vouches};
use crate::tree::stat::{FileType, Stat};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing of it changed since this node saw it.
    Keep(Arc<Entry>),
    /// It is a further name of this file.
    Link(TreePath),
    /// Its content is believed to be this; owner, attributes and the like are read.
    Trust(Kind),
    /// It has no content; the rest is read.
    Describe,
    /// It is read.
    Read,
}

/// What is known of an entry before it is looked at closer.
pub(crate) struct Known<'a> {
    /// As this node saw it when it made the cache.
    pub(crate) cached: Option<&'a Cached>,
    /// As it stands in the newest snapshot.
    pub(crate) base: Option<&'a Entry>,
    /// The name under which the same file came before in this walk.
    pub(crate) first_name: Option<&'a TreePath>,
    /// Size and modification time are believed even when another node made the newest snapshot.
    pub(crate) trust_mtime: bool,
}

/// Decides. `stored` tells whether the repository has a chunk: what a cache remembers of an older snapshot may be gone, and what the
/// newest one refers to may be lost.
pub(crate) fn decide(stat: &Stat, known: &Known<'_>, stored: &dyn Fn(&ChunkId) -> bool) -> Decision {
    let vouched = known
        .cached
        .filter(|c| c.local.is_some_and(|local| vouches(&c.entry, &local, stat)))
        .map(|c| &c.entry)
        .filter(|entry| entry.kind.chunks().iter().all(stored));
    if let Some(first) = known.first_name {
        return match vouched {
            Some(entry) if matches!(&entry.kind, Kind::Hardlink { target } if target == first) => {
                Decision::Keep(Arc::clone(entry))
            }
            _ => Decision::Link(first.clone()),
        };
    }
    // A cached link whose first name is gone has the content now, and the cache does not know it.
    if let Some(entry) = vouched.filter(|entry| !matches!(entry.kind, Kind::Hardlink { .. })) {
        return Decision::Keep(Arc::clone(entry));
    }
    if stat.kind != FileType::File {
        return Decision::Describe;
    }
    match known.base {
        Some(base)
            if known.trust_mtime
                && matches!(base.kind, Kind::File { .. })
                && same_by_mtime(base, stat)
                && base.kind.chunks().iter().all(stored) =>
        {
            Decision::Trust(base.kind.clone())
        }
        _ => Decision::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::entry::{Nanos, Owner};
    use crate::tree::compare::Local;

    fn stat() -> Stat {
        Stat {
            kind: FileType::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            mtime: Nanos(50),
            ctime: Nanos(60),
            dev: 9,
            ino: 7,
            nlink: 2,
            rdev: (0, 0),
            blocks: 8,
            flags: crate::tree::flags::Flags::default(),
        }
    }

    fn path(p: &str) -> TreePath {
        TreePath::new(p).unwrap()
    }

    fn entry(kind: Kind) -> Entry {
        let owner = Owner { mode: 0o644, uid: 1, gid: 2, ..Owner::default() };
        Entry { path: path("b"), kind, owner, mtime: Nanos(50), xattrs: Vec::new() }
    }

    fn file() -> Kind {
        Kind::File { size: 3, extents: None, chunks: vec![ChunkId([1; 32])] }
    }

    fn link() -> Kind {
        Kind::Hardlink { target: path("a") }
    }

    fn cached(kind: Kind) -> Cached {
        Cached { entry: Arc::new(entry(kind)), local: Some(Local { ino: 7, ctime: Nanos(60) }) }
    }

    const YES: fn(&ChunkId) -> bool = |_| true;

    #[test]
    fn what_the_cache_vouches_for_is_kept_only_while_its_chunks_are_stored() {
        let c = cached(file());
        let known = Known { cached: Some(&c), base: None, first_name: None, trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), Decision::Keep(Arc::new(entry(file()))));
        assert_eq!(decide(&stat(), &known, &|_| false), Decision::Read);
        assert_eq!(decide(&Stat { ctime: Nanos(61), ..stat() }, &known, &YES), Decision::Read);
        let no_local = Cached { local: None, ..c.clone() };
        let known = Known { cached: Some(&no_local), ..known };
        assert_eq!(decide(&stat(), &known, &YES), Decision::Read);
    }

    #[test]
    fn another_nodes_word_counts_only_where_it_is_trusted() {
        let base = entry(file());
        let known = Known { cached: None, base: Some(&base), first_name: None, trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), Decision::Read);
        let known = Known { trust_mtime: true, ..known };
        assert_eq!(decide(&stat(), &known, &YES), Decision::Trust(file()));
        assert_eq!(decide(&Stat { mtime: Nanos(51), ..stat() }, &known, &YES), Decision::Read);
        assert_eq!(decide(&stat(), &known, &|_| false), Decision::Read, "its content is lost");
        let base = entry(link());
        let known = Known { base: Some(&base), ..known };
        assert_eq!(decide(&stat(), &known, &YES), Decision::Read, "a link has no content to take over");
        assert_eq!(decide(&Stat { kind: FileType::Dir, ..stat() }, &known, &YES), Decision::Describe);
    }

    #[test]
    fn of_several_names_the_first_has_the_content() {
        let (first, other) = (path("a"), path("a2"));
        let c = cached(link());
        let known = Known { cached: Some(&c), base: None, first_name: Some(&first), trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), Decision::Keep(Arc::new(entry(link()))));
        let moved = Known { first_name: Some(&other), ..known };
        assert_eq!(decide(&stat(), &moved, &YES), Decision::Link(other.clone()));
        let now_first = Known { cached: Some(&c), base: None, first_name: None, trust_mtime: false };
        assert_eq!(decide(&stat(), &now_first, &YES), Decision::Read);
        let was_first = cached(file());
        let known = Known { cached: Some(&was_first), base: None, first_name: Some(&first), trust_mtime: false };
        assert_eq!(decide(&stat(), &known, &YES), Decision::Link(first.clone()));
    }
}
