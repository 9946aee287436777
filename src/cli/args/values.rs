//! Values that are more than text.

use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::config::value;
use crate::job::restore::options::OverwritePolicy;
use crate::repo::entry::TreePath;

/// A path inside a snapshot: absolute as on the node that made it. Any bytes; slashes at the end or doubled do not matter.
pub(super) fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| path_of(&text.into_vec()))
}

/// An argument that is no path inside a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTreePath(&'static str);

/// The path that these bytes write.
pub(super) fn path_of(bytes: &[u8]) -> Result<TreePath, InvalidTreePath> {
    if bytes.first() != Some(&b'/') {
        return Err(InvalidTreePath("expected an absolute path, as it was on the node: /srv/app/..."));
    }
    let names: Vec<&[u8]> = bytes.split(|&b| b == b'/').filter(|name| !name.is_empty()).collect();
    TreePath::new(names.join(&b'/')).ok_or(InvalidTreePath("expected a path without '.' and '..'"))
}

/// `2h`, `30m`, `1d12h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text).map_err(|error| format!("{}: {}", error.what, error.hint))
}

/// A node's name.
pub(super) fn node_name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("a node has a name: leave --node (or RUNNER_NODE) out, and it is the hostname");
    }
    Ok(text.to_owned())
}

/// The longest pause with an end. A pause that is to last longer is given none.
const PAUSE_MAX: Duration = Duration::from_hours(366 * 24);

/// How long a pause lasts.
pub(super) fn pause_duration(text: &str) -> Result<Duration, String> {
    let refuse = |what: &str| {
        Err(format!("{what}: say how long, up to 366d, like 2h or 30d; without --for it lasts until 'runner resume'"))
    };
    match duration(text)? {
        Duration::ZERO => refuse("it would end at once"),
        lasts if lasts > PAUSE_MAX => refuse("a pause lasts for a year at most"),
        lasts => Ok(lasts),
    }
}

/// What to do with files that are already in a restore's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OverwriteArg {
    /// Compare the content of every file.
    #[default]
    Always,
    /// Leave every existing file alone.
    Never,
}

impl From<OverwriteArg> for OverwritePolicy {
    fn from(when: OverwriteArg) -> Self {
        match when {
            OverwriteArg::Always => Self::Always,
            OverwriteArg::Never => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_with_an_end_lasts_for_a_year_at_most() {
        assert_eq!(pause_duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(pause_duration("366d"), Ok(PAUSE_MAX));
        for (text, says) in [
            ("367d", "a year at most"),
            ("36500d", "a year at most"),
            ("9999999d", "a year at most"),
            ("0s", "at once"),
        ] {
            let said = pause_duration(text).unwrap_err();
            assert!(said.contains(says) && said.contains("up to 366d"), "{text}: {said}");
        }
        assert!(pause_duration("2").is_err() && pause_duration("99999999999999999999d").is_err());
    }
}
