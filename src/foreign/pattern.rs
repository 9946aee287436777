//! Pure. `--pattern`: how the keys of backups are made, as the user says it.

/// A pattern of keys, such as `{host}/{date}.tar.gz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    text: String,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPatternError {
    /// A brace is not closed, or a name in braces is not known.
    #[error("{0}: not a placeholder; {{host}}, {{date}}, {{time}}, {{name}} and {{*}} are")]
    Placeholder(String),
}

impl KeyPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A placeholder is not known.
    pub fn parse(text: &str) -> Result<Self, KeyPatternError> {
        Ok(Self { text: text.to_owned() })
    }
}
