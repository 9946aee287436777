//! From the command line to checked settings: from a config file, or from `--store` and the options that go with it.

use std::path::PathBuf;

use super::args::GlobalArgs;
use super::args::direct::DirectStoreArgs;
use crate::cli::command_error::{CommandError, UsageError};
use crate::config::value::nearest;
use crate::config::{ConfigEnvironment, ConfigError, KeySource, RoleSettings, Settings, StoreUrl};
use crate::ids::RoleName;

/// The settings of a config file.
pub fn from_file(globals: &GlobalArgs) -> Result<Settings, ConfigError> {
    let settings = Settings::load(globals.config.as_deref(), &ConfigEnvironment::of_process())?;
    let files: Vec<String> = settings.files.iter().map(|file| file.display().to_string()).collect();
    let (files, hash, roles) = (files.join(", "), &settings.hash, settings.roles.len());
    tracing::debug!(files, hash, roles, store = %settings.store.url, "the config is read");
    Ok(settings)
}

/// The settings for a command on one role: without a config file if `--store` is given.
pub fn for_role(globals: &GlobalArgs, direct: &DirectStoreArgs, role: &RoleName) -> Result<Settings, CommandError> {
    match &direct.store {
        Some(url) => from_flags(direct, url, role, &[], &[]),
        None => Ok(from_file(globals)?),
    }
}

/// The settings of the forms without a config file.
pub fn from_flags(
    direct: &DirectStoreArgs,
    url: &str,
    role: &RoleName,
    sources: &[PathBuf],
    exclude: &[String],
) -> Result<Settings, CommandError> {
    let key = match (&direct.key.key_file, &direct.key.passphrase_file) {
        (Some(file), _) => KeySource::KeyFile(file.clone()),
        (None, Some(file)) => KeySource::PassphraseFile(file.clone()),
        // The argument parser refuses a command line without a key, unless it says so explicitly.
        (None, None) => KeySource::None,
    };
    let sources = sources.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
    let mut settings = Settings::for_flags(&sources, store_url(url)?, role.clone(), key)?;
    settings.store.endpoint.clone_from(&direct.endpoint);
    settings.store.region.clone_from(&direct.region);
    settings.store.profile.clone_from(&direct.profile);
    if let Some(role) = settings.roles.get_mut(role) {
        role.exclude = exclude.to_vec();
    }
    Ok(settings)
}

/// The URL of a store as an argument.
pub fn store_url(text: &str) -> Result<StoreUrl, UsageError> {
    text.parse().map_err(|e: crate::config::value::ValueError| UsageError {
        message: format!("--store: {}", e.what),
        hint: e.hint,
    })
}

/// The settings of one role.
pub fn role<'a>(settings: &'a Settings, name: &RoleName) -> Result<&'a RoleSettings, UsageError> {
    settings.roles.get(name).ok_or_else(|| {
        let known: Vec<&str> = settings.roles.keys().map(RoleName::as_str).collect();
        let todo = match nearest(name.as_str(), known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the config has these roles: {}.", known.join(", ")),
        };
        UsageError { message: format!("the config has no role {name}"), hint: todo }
    })
}

/// A source that is a symbolic link on this node; no run backs it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymlinkedSource {
    /// The role with that source.
    pub role: RoleName,
    /// The source.
    pub source: PathBuf,
    /// The target of the link, as written.
    pub target: PathBuf,
}

/// The sources that are symbolic links here. A missing source is not one: a standby may well have no volume.
pub fn symlinked_sources(settings: &Settings) -> Vec<SymlinkedSource> {
    let of = |role: &RoleSettings| {
        let name = role.name.clone();
        let link = move |source: &PathBuf| {
            let target = std::fs::read_link(source).ok()?;
            Some(SymlinkedSource { role: name.clone(), source: source.clone(), target })
        };
        role.sources.iter().filter_map(link).collect::<Vec<_>>()
    };
    settings.roles.values().flat_map(of).collect()
}

/// The settings of these roles, or of all roles.
pub fn roles<'a>(settings: &'a Settings, names: &[RoleName]) -> Result<Vec<&'a RoleSettings>, UsageError> {
    if names.is_empty() {
        return Ok(settings.roles.values().collect());
    }
    names.iter().map(|name| role(settings, name)).collect()
}
