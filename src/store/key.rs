//! Which keys are valid. The rules are the same for every backend, so that a repository can be copied from one to any
//! other.
//!
//! Pure.

use super::{DELETE_BATCH_MAX, StoreError, StoreErrorKind};

/// The longest key in bytes; S3 allows 1024, and the URL's prefix must fit before it.
pub const KEY_LEN_MAX: usize = 512;

/// The longest component of a key in bytes; file systems allow 255.
pub const COMPONENT_LEN_MAX: usize = 255;

/// The prefix of temporary files' names. No component of a key begins with it, so a listing can leave them out.
pub const TEMP_PREFIX: &str = ".tmp-";

/// The name of the lock file in each directory in which objects are replaced. No component of a key begins like it, and
/// no temporary file has this name: theirs continue with random hex digits.
pub const LOCK_NAME: &str = ".tmp-lock";

/// Whether `component` is valid between two slashes of a key.
pub fn is_valid_component(component: &str) -> bool {
    !component.is_empty()
        && component.len() <= COMPONENT_LEN_MAX
        && component != "."
        && component != ".."
        && !component.starts_with(TEMP_PREFIX)
        && component.bytes().all(is_valid_byte)
}

fn is_valid_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._-".contains(&b)
}

/// Whether `key` is valid: 1 to [`KEY_LEN_MAX`] bytes of `a-z A-Z 0-9 . _ - /`, no component empty, `.`, `..`, longer
/// than [`COMPONENT_LEN_MAX`] or beginning with [`TEMP_PREFIX`].
pub fn is_valid(key: &str) -> bool {
    key.len() <= KEY_LEN_MAX && key.split('/').all(is_valid_component)
}

/// Fails if `key` is not valid.
///
/// # Errors
/// [`StoreErrorKind::Invalid`].
pub fn check(store: &str, key: &str) -> Result<(), StoreError> {
    if is_valid(key) {
        return Ok(());
    }
    Err(StoreError::new(StoreErrorKind::Invalid, store, Some(key), "this is not a valid object key"))
}

/// Fails if no valid key can begin with `prefix`. Its last component may be a part of one, or empty.
///
/// # Errors
/// [`StoreErrorKind::Invalid`].
pub fn check_prefix(store: &str, prefix: &str) -> Result<(), StoreError> {
    let (folder, part) = prefix.rsplit_once('/').map_or((None, prefix), |(folder, part)| (Some(folder), part));
    if folder.is_none_or(is_valid) && prefix.len() <= KEY_LEN_MAX && part.bytes().all(is_valid_byte) {
        return Ok(());
    }
    Err(StoreError::new(StoreErrorKind::Invalid, store, Some(prefix), "no object key begins like this"))
}

/// Fails if a batch of deletes is too long or contains an invalid key.
///
/// # Errors
/// [`StoreErrorKind::Invalid`].
pub fn check_batch(store: &str, keys: &[String]) -> Result<(), StoreError> {
    if keys.len() > DELETE_BATCH_MAX {
        let detail = format!("{} keys to delete at once, the most is {DELETE_BATCH_MAX}", keys.len());
        return Err(StoreError::new(StoreErrorKind::Invalid, store, None, detail));
    }
    keys.iter().try_for_each(|key| check(store, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_the_root_nor_look_like_temporary_files() {
        let long = "x".repeat(256);
        let deep = "ab/".repeat(171);
        for good in ["a", "app/journal/000000000001", "a/.b/c..d/-", "A_9/.tmp"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a b", "a\\b", "ä", "a/.tmp-1", "a\0", &long,
            &deep,
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(!is_valid_component(LOCK_NAME));
    }

    #[test]
    fn prefixes_may_end_within_a_component() {
        for good in ["", "a", "a/", "app/jour", "a/.", "a/.tmp-"] {
            assert!(check_prefix("s", good).is_ok(), "{good}");
        }
        for bad in ["/", "../", "a//", "a/../b", " "] {
            assert!(check_prefix("s", bad).is_err(), "{bad}");
        }
    }
}
