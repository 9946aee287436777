//! What the config reads from the environment of its process.

use std::path::PathBuf;

use crate::env;

/// The environment variables that the config reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigEnvironment {
    /// `$RUNNER_CONFIG`.
    pub runner_config: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts a service's credentials.
    pub credentials_directory: Option<PathBuf>,
}

impl ConfigEnvironment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let path = |name| env::variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self { runner_config: path("RUNNER_CONFIG"), credentials_directory: path("CREDENTIALS_DIRECTORY") }
    }
}
