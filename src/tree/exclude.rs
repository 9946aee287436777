//! What the operator excludes from the backup: patterns in gitignore syntax.
//!
//! Sources are absolute, so a pattern with a leading `/` (or a `/` inside) starts at the file system's root; without
//! one it matches a name at any depth. The last pattern that matches decides, and `!` includes again. As in git,
//! nothing inside an excluded directory can be included again: the directory is not even opened.
//!
//! Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::Gitignore;

use crate::config::pattern;
use crate::repo::entry::TreePath;

/// Compiled patterns.
#[derive(Debug, Clone)]
pub struct ExcludePatterns(Gitignore);

/// A pattern that cannot match anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("exclude pattern {pattern:?}: {why}")]
pub struct BadPattern {
    /// The pattern as it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

impl ExcludePatterns {
    /// Compiles `patterns`.
    ///
    /// # Errors
    /// The first pattern that cannot match anything: it is no glob, empty, or a comment.
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> Result<Self, BadPattern> {
        let mut builder = pattern::builder();
        for written in patterns {
            let written = written.as_ref();
            pattern::add(&mut builder, written).map_err(|why| BadPattern { pattern: written.to_owned(), why })?;
        }
        let all = || patterns.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        builder.build().map(Self).map_err(|e| BadPattern { pattern: all(), why: e.to_string() })
    }

    /// An empty set of patterns, which excludes nothing.
    pub fn none() -> Self {
        Self(Gitignore::empty())
    }

    /// Whether `path` itself is excluded, and with it everything below. The parents are not tested: the walk does not
    /// descend into an excluded directory.
    pub fn excludes(&self, path: &TreePath, is_dir: bool) -> bool {
        // The path is relative to `/`, the root of the patterns; `matched_path_or_any_parents` would panic otherwise.
        !self.0.is_empty() && self.0.matched(Path::new(OsStr::from_bytes(path.as_bytes())), is_dir).is_ignore()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn excluded(patterns: &[&str], path: impl Into<Vec<u8>>, is_dir: bool) -> bool {
        ExcludePatterns::new(patterns).unwrap().excludes(&TreePath::new(path).unwrap(), is_dir)
    }

    #[test]
    fn a_name_matches_at_any_depth_and_a_slash_anchors_at_the_root() {
        assert!(excluded(&["*.tmp"], "srv/app/x.tmp", false));
        assert!(excluded(&["*.tmp"], "x.tmp", false));
        assert!(excluded(&["/srv/app/cache"], "srv/app/cache", true));
        assert!(!excluded(&["/app/cache"], "srv/app/cache", true));
        assert!(!excluded(&["app/cache"], "srv/app/cache", true));
        assert!(excluded(&["**/app/cache"], "srv/app/cache", true));
        assert!(excluded(&["/srv/app/cache/**"], "srv/app/cache/x", false));
        assert!(!excluded(&["/srv/app/cache/**"], "srv/app/cache", true));
        assert!(!excluded(&["/srv/*.tmp"], "srv/app/x.tmp", false), "* does not cross a slash");
    }

    #[test]
    fn a_trailing_slash_means_directories_only() {
        assert!(excluded(&["build/"], "srv/build", true));
        assert!(!excluded(&["build/"], "srv/build", false));
    }

    #[test]
    fn the_last_match_decides() {
        assert!(!excluded(&["*.log", "!keep.log"], "srv/keep.log", false));
        assert!(excluded(&["*.log", "!keep.log"], "srv/other.log", false));
        assert!(excluded(&["!keep.log", "*.log"], "srv/keep.log", false));
        assert!(excluded(&["\\#x", "\\!y"], "srv/!y", false) && excluded(&["\\#x"], "srv/#x", false));
    }

    #[test]
    fn names_are_bytes() {
        assert!(excluded(&["*.tmp"], *b"srv/\xff\xfe.tmp", false));
        assert!(excluded(&["/srv/**/x"], *b"srv/\xc3/x", false));
        assert!(excluded(&["?.tmp"], *b"srv/\xff.tmp", false));
        assert!(excluded(&["ä*"], "srv/ärger", false));
        assert!(!excluded(&["*.tmp"], *b"srv/x\xff", false));
    }

    #[test]
    fn bad_patterns_are_named() {
        for bad in ["a[b", "[z-a]", "{a", "", "  ", "!", "/", "!/", "# note"] {
            let error = ExcludePatterns::new(&["*.ok", bad]).expect_err(bad);
            assert_eq!(error.pattern, bad);
            assert!(!error.why.is_empty() && error.to_string().contains(&format!("{bad:?}")));
        }
    }

    proptest! {
        /// Neither building nor matching panics, on any text and any path.
        #[test]
        fn nothing_panics(patterns in prop::collection::vec("[!/*?\\[\\]{}a.\\\\ -]{0,8}", 0..4), path: Vec<u8>, dir: bool) {
            if let (Ok(exclude), Some(path)) = (ExcludePatterns::new(&patterns), TreePath::new(path)) {
                exclude.excludes(&path, dir);
            }
        }
    }
}
