//! Values that are more than text.

use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::config::value;
use crate::job::restore;
use crate::repo::entry::TreePath;

/// A path inside a snapshot: absolute as on the node that made it. Any bytes; slashes at the end or doubled do not matter.
pub(super) fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| path_of(&text.into_vec()))
}

/// The path that these bytes write.
pub(super) fn path_of(bytes: &[u8]) -> Result<TreePath, &'static str> {
    if bytes.first() != Some(&b'/') {
        return Err("expected an absolute path, as it was on the node: /srv/app/...");
    }
    let names: Vec<&[u8]> = bytes.split(|&b| b == b'/').filter(|name| !name.is_empty()).collect();
    TreePath::new(names.join(&b'/')).ok_or("expected a path without '.' and '..'")
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

/// What to do with files that are already in a restore's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Overwrite {
    /// Compare the content of every file.
    #[default]
    Always,
    /// Leave every existing file alone.
    Never,
}

impl From<Overwrite> for restore::Overwrite {
    fn from(when: Overwrite) -> Self {
        match when {
            Overwrite::Always => Self::Always,
            Overwrite::Never => Self::Never,
        }
    }
}
