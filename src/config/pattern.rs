//! Patterns in gitignore syntax: which ones are valid, for the config's check and for the run alike. Pure.

use ignore::gitignore::GitignoreBuilder;

/// A builder for patterns that start at the root, with none yet.
pub fn builder() -> GitignoreBuilder {
    let mut builder = GitignoreBuilder::new("/");
    // git reads `a[b` as a class that never ends and matches nothing; its author meant something else.
    builder.allow_unclosed_class(false);
    builder
}

/// Adds a pattern.
///
/// # Errors
/// The pattern cannot match anything: it is no glob, empty, or a comment. The text says why.
pub fn add(builder: &mut GitignoreBuilder, pattern: &str) -> Result<(), String> {
    // A gitignore file may contain these; in a list of patterns they are mistakes that would exclude nothing.
    if pattern.starts_with('#') {
        return Err("it is a comment; write \\# for a name that starts with #".to_owned());
    }
    if pattern.trim().trim_start_matches('!').trim_matches('/').is_empty() {
        return Err("it names nothing".to_owned());
    }
    builder.add_line(None, pattern).map(drop).map_err(|error| match error {
        ignore::Error::Glob { err, .. } => err,
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_nothing_is_no_pattern() {
        for (pattern, why) in [
            ("a[b", "unclosed character class"),
            ("{x", "unclosed alternate group"),
            ("x\\", "dangling"),
            ("[z-a]", "invalid range"),
            ("#x", "it is a comment"),
            ("", "it names nothing"),
            ("!/", "it names nothing"),
        ] {
            let error = add(&mut builder(), pattern).unwrap_err();
            assert!(error.contains(why), "{pattern}: {error}");
        }
        for pattern in ["*.tmp", "/srv/app/cache/**", "!keep", "\\#x", "a[bc]"] {
            assert_eq!(add(&mut builder(), pattern), Ok(()), "{pattern}");
        }
    }
}
