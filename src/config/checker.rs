//! The findings of the check of a config, and the checks that several of its tables share. Pure.

use std::path::PathBuf;

use super::environment::ConfigEnvironment;
use super::error::ConfigProblem;
use super::section::{LocatedValue, accept};
use super::url::HttpUrl;
use super::value;

/// `key_file = "credential:NAME"`: systemd's credential of that name.
const CREDENTIAL: &str = "credential:";

/// The state of a check: what it may look at, and what it has found.
pub(super) struct SettingsChecker<'a> {
    pub(super) host: &'a ConfigEnvironment,
    pub(super) problems: Vec<ConfigProblem>,
    pub(super) warnings: Vec<ConfigProblem>,
}

impl SettingsChecker<'_> {
    /// Warns about a server that is reached over the network without TLS, and says what an attacker on the way could
    /// do.
    pub(super) fn warn_of_plain<T>(&mut self, at: &LocatedValue<T>, url: &HttpUrl, danger: &str) {
        if !url.secure && !url.is_loopback() {
            self.warnings.push(
                at.problem(format!("{} is asked without encryption: a host on the way {danger}", url.authority()))
                    .hint("write https://"),
            );
        }
    }

    pub(super) fn secret_path(&mut self, at: &LocatedValue<&str>) -> Option<PathBuf> {
        let Some(name) = at.value.strip_prefix(CREDENTIAL) else {
            return accept(at, value::absolute(at.value), &mut self.problems);
        };
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            self.problems.push(
                at.problem(format!("{name:?} is not the name of a credential"))
                    .hint("write it like \"credential:repository-key\""),
            );
            return None;
        }
        if let Some(directory) = &self.host.credentials_directory {
            return Some(directory.join(name));
        }
        self.problems.push(
            at.problem("there are no credentials here ($CREDENTIALS_DIRECTORY is not set)")
                .hint(format!("systemd gives them to a service with LoadCredential={name}:FILE;"))
                .hint("to run it by hand, set the variable or name the file itself"),
        );
        None
    }
}
