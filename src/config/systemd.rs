//! What a config needs from the systemd units. Their sandbox makes everything read-only except their own state, so a
//! store in a directory has to be allowed. Pure.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::store_url::StoreUrl;

/// The units that work with the store.
pub const UNITS: [&str; 2] = ["runner.service", "runner-backup@.service"];

/// The name of the drop-in file that [`drop_in`] renders, in the unit's `.d` directory.
pub const DROP_IN: &str = "50-runner-config.conf";

/// The values of the command line that the units need, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitEnvironment {
    /// The config file, if it is not the default one.
    pub config: Option<PathBuf>,
    /// The state directory, if it is not the default one.
    pub state_dir: Option<PathBuf>,
}

/// Directories of these settings to which a run writes, besides its state.
pub fn writable_paths(settings: &Settings) -> Vec<&Path> {
    match &settings.store.url {
        StoreUrl::Dir(path) => vec![path],
        StoreUrl::S3 { .. } => Vec::new(),
    }
}

/// The text of the drop-in, the same for each of [`UNITS`].
pub fn drop_in(settings: &Settings, environment: &UnitEnvironment) -> String {
    let mut out = "# Made by 'runner config show --systemd' from the config: make it again when [store] url changes.\n"
        .to_owned();
    let state = environment.state_dir.as_deref();
    let paths: Vec<&Path> = writable_paths(settings).into_iter().chain(state).collect();
    if paths.is_empty() && environment.config.is_none() {
        out += "# A store in S3 needs nothing: the units may use the network, and write to their own state.\n";
        return out;
    }
    out += "[Service]\n";
    for path in paths {
        // With `-`, a missing directory, such as one that is not mounted, does not keep the service from starting.
        let _ = writeln!(out, "ReadWritePaths={}", quoted(&format!("-{}", path.display())));
    }
    let variables = [("RUNNER_CONFIG", &environment.config), ("RUNNER_STATE_DIR", &environment.state_dir)];
    for (name, value) in variables {
        if let Some(value) = value {
            let _ = writeln!(out, "Environment={}", quoted(&format!("{name}={}", value.display())));
        }
    }
    out
}

/// A word of a unit file: quoted, without specifiers.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// The directories of `paths` to which a unit may not write. `texts`: the unit file, then its drop-ins in order.
pub fn unwritable_paths<'a>(texts: &[String], paths: &[&'a Path]) -> Vec<&'a Path> {
    let mut strict = false;
    let mut open: Vec<String> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key.trim() {
            "ProtectSystem" => strict = value.trim() == "strict",
            "ReadWritePaths" if value.trim().is_empty() => open.clear(),
            "ReadWritePaths" => open.extend(words(value)),
            _ => {}
        }
    }
    let is_open = |path: &&Path| open.iter().any(|open| path.starts_with(open.trim_start_matches(['-', '+'])));
    paths.iter().copied().filter(|path| strict && !is_open(path)).collect()
}

/// The words of a setting's value.
fn words(value: &str) -> Vec<String> {
    let (mut found, mut word, mut quote, mut chars) = (Vec::new(), String::new(), None, value.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            '%' if chars.peek() == Some(&'%') => word.extend(chars.next()),
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            ' ' | '\t' if quote.is_none() => found.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    found.push(word);
    found.retain(|word| !word.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigEnvironment;

    fn settings(url: &str) -> Settings {
        let text =
            format!("[store]\nurl = {url:?}\nkey_file = \"/k\"\n[role.app]\nsources = [\"/srv\"]\nlease = \"none\"\n");
        Settings::parse(&[("/etc/runner/runner.toml".into(), text)], &ConfigEnvironment::default()).unwrap()
    }

    #[test]
    fn a_directory_is_opened_and_a_bucket_needs_nothing() {
        let none = UnitEnvironment::default();
        insta::assert_snapshot!(drop_in(&settings("file:///mnt/backup/runner"), &none), @r#"
        # Made by 'runner config show --systemd' from the config: make it again when [store] url changes.
        [Service]
        ReadWritePaths="-/mnt/backup/runner"
        "#);
        let bucket = drop_in(&settings("s3://backups/p"), &none);
        assert!(bucket.lines().all(|line| line.starts_with('#')), "{bucket}");
        let other = UnitEnvironment { config: Some("/srv/r.toml".into()), state_dir: Some("/srv/state".into()) };
        insta::assert_snapshot!(drop_in(&settings("s3://backups/p"), &other), @r#"
        # Made by 'runner config show --systemd' from the config: make it again when [store] url changes.
        [Service]
        ReadWritePaths="-/srv/state"
        Environment="RUNNER_CONFIG=/srv/r.toml"
        Environment="RUNNER_STATE_DIR=/srv/state"
        "#);
    }

    #[test]
    fn what_the_drop_in_opens_is_open() {
        let unit = "[Service]\nProtectSystem=strict\n".to_owned();
        for path in ["/mnt/backup/runner", "/mnt/my backup", "/mnt/100%/\"x\"/a\\b"] {
            let settings = settings(path);
            let paths = writable_paths(&settings);
            assert_eq!(paths, [Path::new(path)]);
            assert_eq!(unwritable_paths(std::slice::from_ref(&unit), &paths), paths, "{path}");
            let opened = [unit.clone(), drop_in(&settings, &UnitEnvironment::default())];
            assert_eq!(unwritable_paths(&opened, &paths), [] as [&Path; 0], "{path}");
        }
    }

    #[test]
    fn what_an_administrator_wrote_counts() {
        let paths = [Path::new("/mnt/backup/runner")];
        let is_closed = |lines: &str| {
            !unwritable_paths(&["ProtectSystem=strict\n".to_owned(), lines.to_owned()], &paths).is_empty()
        };
        assert!(is_closed("") && is_closed("#ReadWritePaths=/mnt\n") && is_closed("ReadWritePaths=/mnt/back\n"));
        assert!(is_closed("ReadWritePaths=/mnt\nReadWritePaths=\n"));
        assert!(!is_closed("ReadWritePaths=/var /mnt\n") && !is_closed("ProtectSystem=full\n"));
    }
}
