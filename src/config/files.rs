//! Which config files are read, and in which order.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::environment::ConfigEnvironment;
use super::error::{ConfigError, ConfigLocation, ConfigProblem};
use super::settings::Settings;
use super::toml_document::{self, TomlTable};
use super::{check, schema};
use crate::file::access;
use crate::text;

/// The default path of the config.
pub(crate) const DEFAULT: &str = "/etc/runner/runner.toml";

/// The largest config file, in bytes. A config of a thousand roles has some 500 KB; a larger file is the wrong one.
const FILE_MAX: u64 = 16 << 20;

impl Settings {
    /// Reads `flag` (`--config FILE`), else `$RUNNER_CONFIG`, else `/etc/runner/runner.toml`, and `conf.d/*.toml`
    /// beside it.
    ///
    /// # Errors
    /// All problems of the files, at once.
    pub fn load(flag: Option<&Path>, host: &ConfigEnvironment) -> Result<Self, ConfigError> {
        load(flag, host)
    }

    /// Settings from the texts of files, the main file first. Pure.
    ///
    /// ```
    /// use runner::config::{ConfigEnvironment, Settings};
    ///
    /// let text = r#"
    ///     [store]
    ///     url = "file:///srv/backups"
    ///     passphrase_file = "/etc/runner/passphrase"
    ///
    ///     [role.app]
    ///     sources = ["/srv/app"]
    ///     schedule = "30 2 * * *"
    /// "#;
    /// let parse = |text: &str| Settings::parse(&[("runner.toml".into(), text.into())], &ConfigEnvironment::default());
    /// let settings = parse(text)?;
    /// assert_eq!(settings.roles.len(), 1);
    /// // All problems are reported at once, each with its file and line.
    /// let errors = parse(&text.replace("sources", "source").replace("schedule", "shedule")).unwrap_err();
    /// assert!(errors.what().contains("source") && errors.what().contains("shedule"));
    /// # Ok::<(), runner::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// All problems of the texts, at once.
    pub fn parse(texts: &[(PathBuf, String)], host: &ConfigEnvironment) -> Result<Self, ConfigError> {
        parse(texts, host)
    }
}

fn load(flag: Option<&Path>, host: &ConfigEnvironment) -> Result<Settings, ConfigError> {
    let main = flag.or(host.runner_config.as_deref()).unwrap_or(Path::new(DEFAULT));
    let said_by = match (flag, &host.runner_config) {
        (Some(_), _) => "--config names it: is it mistyped?",
        (None, Some(_)) => "$RUNNER_CONFIG names it: is it mistyped?",
        (None, None) => "it is the default; --config FILE names another",
    };
    let mut texts = Vec::new();
    let mut problems = Vec::new();
    match read(main) {
        Ok(text) => texts.push((main.to_owned(), text)),
        Err(ConfigFileError { problem, is_missing: true }) => {
            let init = format!("'runner config init {}' writes one to start from", main.display());
            problems.push(problem.hint(said_by).hint(init));
        }
        Err(ConfigFileError { problem, .. }) => problems.push(problem),
    }
    for file in fragments(main, &mut problems) {
        match read(&file) {
            Ok(text) => texts.push((file, text)),
            Err(ConfigFileError { problem, .. }) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let mut settings = parse(&texts, host)?;
    settings.warnings.extend(exposed(&settings));
    Ok(settings)
}

fn parse(texts: &[(PathBuf, String)], host: &ConfigEnvironment) -> Result<Settings, ConfigError> {
    let mut document = TomlTable::default();
    let mut problems = Vec::new();
    for (file, text) in texts {
        match toml_document::parse(&Arc::new(file.clone()), text) {
            Ok(table) => toml_document::merge(&mut document, table, &[], &schema::open_table, &mut problems),
            Err(more) => problems.extend(more),
        }
    }
    // The meaning of a config that was read in part is not worth guessing.
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    check::settings(&document, texts.iter().map(|(file, _)| file.clone()).collect(), host)
}

/// `conf.d/*.toml` beside the main file, in the order of their names. Hidden files are editors' temporary ones.
fn fragments(main: &Path, problems: &mut Vec<ConfigProblem>) -> Vec<PathBuf> {
    let directory = main.parent().unwrap_or(Path::new("")).join("conf.d");
    let names = std::fs::read_dir(&directory)
        .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>());
    let mut names = match names {
        Ok(names) => names,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Vec::new(),
        Err(e) => {
            problems.push(unreadable(&directory, &e));
            return Vec::new();
        }
    };
    names.retain(|name| {
        Path::new(name).extension() == Some(OsStr::new("toml")) && !name.as_encoded_bytes().starts_with(b".")
    });
    names.sort();
    names.into_iter().map(|name| directory.join(name)).collect()
}

/// The files of this config that other users may read or change.
fn exposed(settings: &Settings) -> Vec<ConfigProblem> {
    let told = settings.exposures().into_iter();
    told.map(|exposure| {
        let problem = ConfigProblem::new(&ConfigLocation::file(exposure.path.clone()), "", exposure.what());
        problem.hint(exposure.remedy())
    })
    .collect()
}

/// Why a file is not used.
struct ConfigFileError {
    problem: ConfigProblem,
    is_missing: bool,
}

impl From<ConfigProblem> for ConfigFileError {
    fn from(problem: ConfigProblem) -> Self {
        Self { problem, is_missing: false }
    }
}

fn unreadable(file: &Path, error: &io::Error) -> ConfigProblem {
    let words = error.to_string();
    let problem = ConfigProblem::new(
        &ConfigLocation::file(file),
        "",
        format!("cannot be read ({})", text::without_os_error(&words)),
    );
    match error.kind() {
        ErrorKind::PermissionDenied => {
            problem.hint("run it as root (sudo runner …), or as a user of the group that may read it")
        }
        ErrorKind::IsADirectory => problem.hint("name the file in it"),
        _ => problem,
    }
}

fn read(file: &Path) -> Result<String, ConfigFileError> {
    let problem = |what: String| ConfigProblem::new(&ConfigLocation::file(file), "", what);
    // The commands that the file names run as this user.
    if let Some(exposure) = access::refusal(file) {
        let problem = ConfigProblem::new(&ConfigLocation::file(exposure.path.clone()), "", exposure.what());
        return Err(problem.hint(exposure.remedy()).into());
    }
    let bytes = crate::file::read(file, FILE_MAX).map_err(|e| match e.kind() {
        ErrorKind::FileTooLarge => problem(format!("is larger than {} MiB: not a config", FILE_MAX >> 20)).into(),
        kind => ConfigFileError { problem: unreadable(file, &e), is_missing: kind == ErrorKind::NotFound },
    })?;
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].split(|b| *b == b'\n').count();
        let mut problem = problem("is not UTF-8".to_owned()).hint("save it in that encoding");
        problem.place.line = Some(line);
        problem.into()
    })
}
