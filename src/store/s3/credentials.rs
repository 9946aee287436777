//! Finds S3 credentials: those that the config names, else the sources that AWS tools search, in their order.
//!
//! The invariant that lives here: an error names each source that was searched and what was found there, in one line
//! without secrets. A source with unusable credentials ends the search: the next source would give credentials of
//! another user.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

use super::error::{LAYERS, NoCredentialsFound, error_chain};
use crate::config::StoreSettings;
use crate::{env, file};

/// How long the search may take: less than the five seconds after which the SDK gives up without saying where the time
/// went.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(4500);

/// The most characters of a source's message that are reported.
const WORDS_MAX: usize = 160;

/// The most that is read of a credentials file.
const FILE_MAX: u64 = 1 << 20;

/// The SDK's prefix of messages about a file that it cannot use.
const UNBUILT: &str = "ProfileFile provider could not be built: ";

/// The profile that is used when none is named.
const PROFILE_DEFAULT: &str = "default";

/// The sources, in the order in which they are searched.
#[derive(Debug)]
pub(super) struct CredentialChain {
    places: Vec<CredentialSource>,
    /// Credentials were found before, so this node has a machine role: a failure now is a failure of its service.
    were_found: AtomicBool,
}

#[derive(Debug)]
struct CredentialSource {
    name: String,
    provider: Box<dyn ProvideCredentials>,
}

impl CredentialSource {
    fn new(name: impl Into<String>, provider: impl ProvideCredentials + 'static) -> Self {
        Self { name: name.into(), provider: Box::new(provider) }
    }
}

impl CredentialChain {
    /// The sources for `settings`.
    pub(super) fn of(settings: &StoreSettings, config: &ProviderConfig) -> Self {
        let profile = settings.profile.as_deref();
        let places = match (&settings.credentials_file, profile) {
            // Named in the config, so no other source is used.
            (Some(path), _) => {
                let name = format!("profile {} of credentials_file {}", profile_name(profile), path.display());
                let profile = profile.map(str::to_owned);
                vec![CredentialSource::new(
                    name,
                    CredentialsFile { path: path.clone(), profile, config: config.clone() },
                )]
            }
            (None, Some(profile)) => {
                vec![CredentialSource::new(profile_description(Some(profile)), of_profile(profile, config))]
            }
            (None, None) => Self::aws_default_sources(config),
        };
        Self { places, were_found: AtomicBool::new(false) }
    }

    /// The default sources of AWS tools.
    fn aws_default_sources(config: &ProviderConfig) -> Vec<CredentialSource> {
        let profile = ProfileFileCredentialsProvider::builder().configure(config).build();
        let token = WebIdentityTokenCredentialsProvider::builder().configure(config).build();
        let container = EcsCredentialsProvider::builder().configure(config).build();
        let instance = ImdsCredentialsProvider::builder().configure(config).build();
        vec![
            CredentialSource::new(
                "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                EnvironmentVariableCredentialsProvider::new(),
            ),
            CredentialSource::new(profile_description(None), profile),
            CredentialSource::new("web identity", token),
            CredentialSource::new("the container's role", container),
            CredentialSource::new("the instance's metadata service", instance),
        ]
    }

    async fn search(&self) -> provider::Result {
        let mut looked = Vec::new();
        let until = tokio::time::Instant::now() + SEARCH_TIMEOUT;
        let last = self.places.len().saturating_sub(1);
        for (number, place) in self.places.iter().enumerate() {
            let answer = tokio::time::timeout_at(until, place.provider.provide_credentials()).await;
            let error = match answer {
                Ok(Ok(found)) => {
                    self.were_found.store(true, Ordering::Relaxed);
                    return Ok(found);
                }
                Ok(Err(error)) => error,
                Err(_) => CredentialsError::provider_timed_out(SEARCH_TIMEOUT),
            };
            looked.push((place.name.clone(), provider_message(&error)));
            let never_found = number == last && last > 0 && !self.were_found.load(Ordering::Relaxed);
            match error {
                CredentialsError::CredentialsNotLoaded(_) => {}
                CredentialsError::InvalidConfiguration(_) => {
                    return Err(CredentialsError::invalid_configuration(NoCredentialsFound(looked)));
                }
                // Outside of a cloud another service, or none, answers at that address.
                _ if never_found => {}
                _ => return Err(CredentialsError::provider_error(NoCredentialsFound(looked))),
            }
        }
        Err(CredentialsError::not_loaded(NoCredentialsFound(looked)))
    }
}

impl ProvideCredentials for CredentialChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.search())
    }
}

/// A file in the format of AWS's own credentials file, read anew each time.
#[derive(Debug)]
struct CredentialsFile {
    path: PathBuf,
    profile: Option<String>,
    config: ProviderConfig,
}

impl CredentialsFile {
    async fn load(&self) -> provider::Result {
        let unusable = |why: String| CredentialsError::invalid_configuration(why);
        let bytes = file::read(&self.path, FILE_MAX).map_err(|e| unusable(format!("cannot be read ({e})")))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable("is not UTF-8".to_owned()))?;
        let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Credentials, text).build();
        let profile = self.profile.as_deref().unwrap_or(PROFILE_DEFAULT);
        let provider = ProfileFileCredentialsProvider::builder().configure(&self.config).profile_files(files);
        provider.profile_name(profile).build().provide_credentials().await
    }
}

impl ProvideCredentials for CredentialsFile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

fn of_profile(name: &str, config: &ProviderConfig) -> ProfileFileCredentialsProvider {
    ProfileFileCredentialsProvider::builder().profile_name(name).configure(config).build()
}

fn profile_name(profile: Option<&str>) -> String {
    format!("{:?}", profile.unwrap_or(PROFILE_DEFAULT))
}

/// Describes a profile of AWS's own files, and which files these are for this process.
fn profile_description(profile: Option<&str>) -> String {
    let variable = |name| env::variable(name).filter(|value| !value.is_empty());
    let given = variable("AWS_PROFILE").map(|name| name.to_string_lossy().into_owned());
    let home = variable("HOME").map(PathBuf::from);
    let file = |name, usual: &str| match (variable(name), &home) {
        (Some(path), _) => Some(PathBuf::from(path).display().to_string()),
        (None, Some(home)) => Some(home.join(usual).display().to_string()),
        (None, None) => None,
    };
    let files = [file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), file("AWS_CONFIG_FILE", ".aws/config")];
    let files: Vec<String> = files.into_iter().flatten().collect();
    let files = if files.is_empty() { "~/.aws (HOME is not set)".to_owned() } else { files.join(" and ") };
    format!("profile {} of {files}", profile_name(profile.or(given.as_deref())))
}

/// A source's message, without the SDK's wrapping.
fn provider_message(error: &CredentialsError) -> String {
    if matches!(error, CredentialsError::ProviderTimedOut(_)) {
        return "no answer in time".to_owned();
    }
    let mut words: Vec<String> =
        error_chain(error).skip(1).map(ToString::to_string).filter(|words| !LAYERS.contains(&words.as_str())).collect();
    words.dedup();
    if words.is_empty() {
        return "none there".to_owned();
    }
    let words = words.join(": ").replace(UNBUILT, "");
    match words.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;
    use crate::config::{KeySource, StoreUrl};

    /// Gives these answers in turn.
    #[derive(Debug)]
    struct Answers(parking_lot::Mutex<Vec<provider::Result>>);

    impl ProvideCredentials for Answers {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(self.0.lock().remove(0))
        }
    }

    fn places(answers: Vec<Vec<provider::Result>>) -> CredentialChain {
        let name =
            |(n, answers)| CredentialSource::new(format!("place {n}"), Answers(parking_lot::Mutex::new(answers)));
        let places = answers.into_iter().enumerate().map(name).collect();
        CredentialChain { places, were_found: AtomicBool::new(false) }
    }

    fn key() -> Credentials {
        Credentials::new("a", "b", None, None, "test")
    }

    fn told(result: provider::Result) -> String {
        let error = result.unwrap_err();
        format!("{error:?}").split('(').next().unwrap_or_default().to_owned()
            + ": "
            + &error_chain(&error).nth(1).map(ToString::to_string).unwrap_or_default()
    }

    #[tokio::test]
    async fn an_error_names_every_place_and_what_was_there() {
        let none = || Err(CredentialsError::not_loaded_no_source());
        let refused = || Err(CredentialsError::provider_error("403"));
        let all = places(vec![vec![none()], vec![Err(CredentialsError::not_loaded("not set"))], vec![refused()]]);
        assert_eq!(
            told(all.search().await),
            "CredentialsNotLoaded: looked at place 0: none there; place 1: not set; place 2: 403"
        );
    }

    #[tokio::test]
    async fn a_place_with_something_unusable_ends_the_search() {
        let broken = || Err(CredentialsError::invalid_configuration("half a key"));
        let all = places(vec![vec![broken()], vec![Ok(key())]]);
        assert_eq!(told(all.search().await), "InvalidConfiguration: looked at place 0: half a key");
        let silent = places(vec![vec![Err(CredentialsError::provider_error("no answer"))], vec![Ok(key())]]);
        assert_eq!(told(silent.search().await), "ProviderError: looked at place 0: no answer");
    }

    #[tokio::test]
    async fn a_metadata_service_that_gave_some_and_now_fails_is_out_of_order() {
        let none = || Err(CredentialsError::not_loaded_no_source());
        let all = places(vec![vec![none(), none()], vec![Ok(key()), Err(CredentialsError::provider_error("500"))]]);
        assert!(all.search().await.is_ok());
        assert_eq!(told(all.search().await), "ProviderError: looked at place 0: none there; place 1: 500");
    }

    #[tokio::test]
    async fn a_file_of_the_config_is_read_anew_each_time_and_nothing_else_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s3-credentials");
        let url = StoreUrl::S3 { bucket: "b".to_owned(), prefix: String::new() };
        let settings = StoreSettings {
            credentials_file: Some(path.clone()),
            profile: Some("backup".to_owned()),
            ..StoreSettings::new(url, KeySource::None)
        };
        let client = aws_smithy_http_client::Builder::new().build_http();
        let all = CredentialChain::of(&settings, &ProviderConfig::without_region().with_http_client(client));
        let missing = told(all.search().await);
        let place = format!("looked at profile \"backup\" of credentials_file {}", path.display());
        assert!(missing.starts_with(&format!("InvalidConfiguration: {place}: cannot be read (")), "{missing}");
        for (text, said) in [
            ("[default]\naws_access_key_id = x\n", "profile `backup` was not defined"),
            ("[backup]\naws_access_key_id = x\n", "missing aws_secret_access_key"),
            ("AWS_ACCESS_KEY_ID=x\n", "could not parse"),
        ] {
            std::fs::write(&path, text).unwrap();
            let told = told(all.search().await);
            assert!(told.contains(&place) && told.contains(said), "{told}");
        }
        for id in ["first", "second"] {
            std::fs::write(&path, format!("[backup]\naws_access_key_id = {id}\naws_secret_access_key = s\n")).unwrap();
            assert_eq!(all.search().await.unwrap().access_key_id(), id);
        }
    }
}
