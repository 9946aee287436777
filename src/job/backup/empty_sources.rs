//! The empty sources and dumps of a snapshot. Its record names them by keyed marks, because everyone who can read the
//! store may be able to read records, and records contain no paths. Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::config::RoleSettings;
use crate::ids::SourceMark;
use crate::job::report::snapshot::EmptySources;
use crate::repo::crypto::DerivedKeys;
use crate::repo::entry::TreePath;
use crate::tree::roots::tree_path;

/// Limit of marks in one record. More are not more alarming, and the journal's state repeats them for each snapshot.
pub(crate) const MARKED_MAX: usize = 64;

/// The context before the path in the hash of a mark.
const CONTEXT: &[u8] = b"empty source\0";

/// The marks of these sources for a record.
pub(crate) fn source_marks(empty: &[TreePath], keys: &DerivedKeys) -> Vec<SourceMark> {
    empty.iter().take(MARKED_MAX).filter_map(|path| mark(path, keys).last()).collect()
}

/// The empty sources of a snapshot whose record has these marks; `None`: there are none, or the role may be empty. A
/// mark that matches no source of this config counts too, until the next snapshot.
pub(crate) fn empty_sources(
    marks: Option<&[SourceMark]>,
    role: &RoleSettings,
    keys: &DerivedKeys,
) -> Option<EmptySources> {
    let marks = marks.filter(|marks| !marks.is_empty() && !role.allow_empty)?;
    let dumps = role.dumps.keys().map(Path::new);
    let dumps = dumps.filter_map(|name| TreePath::new(name.as_os_str().as_bytes()));
    let paths = role.sources.iter().filter_map(|source| tree_path(source)).chain(dumps);
    let mut named: Vec<TreePath> = paths.filter(|path| mark(path, keys).any(|mark| marks.contains(&mark))).collect();
    named.sort();
    named.dedup();
    let unnamed = marks.len().saturating_sub(named.len()) as u64;
    Some(EmptySources { named, unnamed })
}

/// The marks of a path under each generation of the key; new records use the last one.
fn mark(path: &TreePath, keys: &DerivedKeys) -> impl Iterator<Item = SourceMark> {
    let content = [CONTEXT, path.as_bytes()].concat();
    keys.sealed_digests(&content)
        .filter_map(|digest| SourceMark::from_slice(digest.0.first_chunk::<8>()?))
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySource;
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::{keys, rotated};

    fn role(sources: &[&str]) -> RoleSettings {
        RoleSettings::new("app".parse().unwrap(), KeySource::None, sources.iter().map(Into::into).collect())
    }

    fn paths(names: &[&str]) -> Vec<TreePath> {
        names.iter().map(|name| TreePath::new(*name).unwrap()).collect()
    }

    #[test]
    fn an_empty_source_is_named_only_with_key_and_config() {
        let keys = keys(Cipher::Aes256GcmSiv);
        let marked = source_marks(&paths(&["srv/b"]), &keys);
        let told = |marks: &[SourceMark], role: &RoleSettings| empty_sources(Some(marks), role, &keys);
        let named = |names: &[&str], unnamed| Some(EmptySources { named: paths(names), unnamed });
        let pair = role(&["/srv/a", "/srv/b/"]);
        assert_eq!(told(&marked, &pair), named(&["srv/b"], 0));
        assert_eq!(told(&[], &pair), None, "none was empty");
        assert_eq!(empty_sources(None, &pair, &keys), None, "an older version did not record it");
        assert_eq!(told(&marked, &role(&["/srv/a"])), named(&[], 1), "of another config");
        assert_eq!(told(&marked, &RoleSettings { allow_empty: true, ..pair.clone() }), None);
        let dump = role(&["/srv/a"]);
        assert_eq!(told(&source_marks(&paths(&["app.sql"]), &keys), &dump), named(&[], 1));
        let (_, after) = rotated(&keys);
        let seen = empty_sources(Some(&marked), &pair, &after);
        assert_eq!(seen, named(&["srv/b"], 0), "made under an older generation of the key");
        let again = source_marks(&paths(&["srv/b"]), &after);
        assert_ne!(again, marked);
        assert_eq!(empty_sources(Some(&again), &pair, &after), named(&["srv/b"], 0));
        assert_eq!(told(&again, &pair), named(&[], 1), "the old key does not open it");
        let many: Vec<TreePath> = (0..100).map(|n| TreePath::new(format!("srv/{n}")).unwrap()).collect();
        assert_eq!(source_marks(&many, &keys).len(), MARKED_MAX);
    }
}
