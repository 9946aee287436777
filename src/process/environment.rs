//! The environment of a program that the config names: standard variables, those from the config, and nothing else.
//! This process's own environment contains the credentials of the store, and the shell or timer that started it must
//! not influence a run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::account::UserAccount;
use crate::config::EnvironmentSettings;

/// The search path if this process has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Passed on unchanged: language and time zone, and the paths of config and state for a hook that calls `runner`.
const PASSED: [&str; 5] = ["LANG", "LANGUAGE", "TZ", "RUNNER_CONFIG", "RUNNER_STATE_DIR"];

/// The prefix of the locale variables' names.
const LOCALE: &[u8] = b"LC_";

/// Secrets in this process's environment: the credentials of the store. `exec`, which otherwise passes on the whole
/// environment, leaves them out.
pub(super) const SECRETS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

/// Variables by their names.
pub(super) type Variables = BTreeMap<OsString, OsString>;

/// Builds the environment of a program that runs as `account`; `host` is this process's environment. Variables that the
/// config passes on override the defaults, those that it sets override both, and `told`, which a run passes to its
/// commands, overrides all.
pub(super) fn build_environment(
    host: &Variables,
    account: &UserAccount,
    given: &EnvironmentSettings,
    told: &[(&str, String)],
) -> Variables {
    let mut found = Variables::new();
    found.insert("PATH".into(), path(host.get(OsStr::new("PATH"))));
    for (name, value) in [
        ("HOME", account.home.as_os_str()),
        ("USER", OsStr::new(&account.name)),
        ("LOGNAME", OsStr::new(&account.name)),
        ("SHELL", account.shell.as_os_str()),
    ] {
        found.insert(name.into(), value.to_owned());
    }
    let passed = |name: &&OsString| {
        PASSED.iter().any(|passed| **name == *passed)
            || name.as_encoded_bytes().starts_with(LOCALE)
            || given.pass.iter().any(|passed| **name == **passed)
    };
    found.extend(host.keys().filter(passed).map(|name| (name.clone(), host[name].clone())));
    found.extend(given.set.iter().map(|(name, value)| (name.into(), value.into())));
    found.extend(told.iter().map(|(name, value)| (name.into(), value.into())));
    found
}

/// The absolute directories of a search path. An empty one would mean the current directory.
fn path(host: Option<&OsString>) -> OsString {
    let host = host.map(OsString::as_os_str).unwrap_or_default();
    let places = std::env::split_paths(host).filter(|place| Path::new(place).is_absolute());
    std::env::join_paths(places).ok().filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> UserAccount {
        UserAccount {
            home: "/var/lib/postgresql".into(),
            shell: "/bin/bash".into(),
            ..UserAccount::with_name_only("postgres")
        }
    }

    fn host(variables: &[(&str, &str)]) -> Variables {
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn text(variables: &Variables) -> String {
        let one = |(name, value): (&OsString, &OsString)| format!("{}={}", name.display(), value.display());
        variables.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn it_is_what_a_program_may_expect_and_no_more() {
        let host = host(&[
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("CREDENTIALS_DIRECTORY", "/run/credentials/runner.service"),
            ("HOME", "/root"),
            ("LC_TIME", "de_DE.UTF-8"),
            ("LANG", "C.UTF-8"),
            ("LD_PRELOAD", "/tmp/x.so"),
            ("LOGNAME", "root"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("PATH", "/usr/bin::.:/opt/bin"),
            ("RUNNER_CONFIG", "/srv/runner.toml"),
            ("RUNNER_LOG", "trace"),
            ("TZ", "UTC"),
        ]);
        insta::assert_snapshot!(text(&build_environment(&host, &account(), &EnvironmentSettings::default(), &[("RUNNER_ROLE", "app".into())])), @"
        HOME=/var/lib/postgresql
        LANG=C.UTF-8
        LC_TIME=de_DE.UTF-8
        LOGNAME=postgres
        PATH=/usr/bin:/opt/bin
        RUNNER_CONFIG=/srv/runner.toml
        RUNNER_ROLE=app
        SHELL=/bin/bash
        TZ=UTC
        USER=postgres
        ");
    }

    #[test]
    fn the_config_gives_more_and_a_run_tells_what_it_is_about() {
        let given = EnvironmentSettings {
            set: BTreeMap::from([("PGHOST".to_owned(), "/run/pg".to_owned()), ("HOME".to_owned(), "/srv".to_owned())]),
            pass: vec!["AWS_PROFILE".to_owned(), "PGHOST".to_owned(), "NOT_THERE".to_owned()],
        };
        let host = host(&[("AWS_PROFILE", "backup"), ("PGHOST", "elsewhere"), ("HOME", "/root")]);
        let found = build_environment(&host, &account(), &given, &[]);
        let of = |name: &str| found.get(OsStr::new(name)).map(|value| value.to_string_lossy().into_owned());
        assert_eq!(
            ["AWS_PROFILE", "PGHOST", "HOME", "NOT_THERE"].map(of),
            [Some("backup".to_owned()), Some("/run/pg".to_owned()), Some("/srv".to_owned()), None]
        );
    }

    #[test]
    fn a_path_is_never_empty_and_leads_nowhere_by_chance() {
        for (given, found) in [("/a:/b", "/a:/b"), ("", PATH), (".:x", PATH), (":/a:", "/a")] {
            assert_eq!(path(Some(&given.into())), *found, "{given:?}");
        }
        assert_eq!(path(None), *PATH);
    }
}
