//! The installed systemd units, as far as they concern the config.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::args::{GlobalArgs, STATE_DIR};
use crate::cli::command_error::{CommandError, UsageError};
use crate::config::files::DEFAULT as CONFIG_FILE;
use crate::config::systemd::{self, DROP_IN, UNITS, UnitEnvironment};
use crate::config::{ConfigLocation, ConfigProblem, Settings};
use crate::file;

/// Where systemd finds units and drop-ins; the first directory with a unit decides.
const PLACES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The largest unit file that is read, in bytes.
const UNIT_MAX: u64 = 1 << 20;

/// The options of this command line that the units need.
pub(super) fn environment(globals: &GlobalArgs) -> Result<UnitEnvironment, CommandError> {
    let other = |given: &Option<PathBuf>, usual: &str| {
        given.as_ref().filter(|path| *path != Path::new(usual)).map(std::path::absolute).transpose()
    };
    Ok(UnitEnvironment {
        config: other(&globals.config, CONFIG_FILE)?,
        state_dir: other(&globals.state_dir, STATE_DIR)?,
    })
}

/// Writes the drop-in for each unit below `dir`, and returns the paths of the files.
pub(super) fn write(dir: &Path, text: &str) -> Result<Vec<PathBuf>, CommandError> {
    if !dir.is_dir() {
        return Err(missing_parent(&dir.join(DROP_IN)));
    }
    let write = |unit: &&str| {
        let dir = dir.join(format!("{unit}.d"));
        let file = dir.join(DROP_IN);
        let made = match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        let written = made.and_then(|()| {
            let mut options = fs::OpenOptions::new();
            let mut opened = options.write(true).create(true).truncate(true).mode(0o644).open(&file)?;
            io::Write::write_all(&mut opened, text.as_bytes())
        });
        written.map(|()| file.clone()).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())).into())
    };
    UNITS.iter().map(write).collect()
}

/// Warns about the installed units that may not write to a store in a directory. Units that are not installed are
/// ignored.
pub(super) fn unwritable_stores(settings: &Settings, root: &Path) -> Vec<ConfigProblem> {
    let paths = systemd::writable_paths(settings);
    let closed = UNITS.iter().filter_map(|unit| {
        let texts = unit_texts(unit, root)?;
        let path = *systemd::unwritable_paths(&texts, &paths).first()?;
        Some((unit, path))
    });
    closed
        .map(|(unit, path)| {
            let what = format!("{unit} may not write to {}: its sandbox makes that read-only", path.display());
            ConfigProblem::new(
                &ConfigLocation::file(settings.files.first().cloned().unwrap_or_default()),
                "store.url",
                what,
            )
            .hint("`runner config show --systemd=/etc/systemd/system` writes the drop-ins that open it;")
            .hint("then `systemctl daemon-reload`, and restart what runs")
        })
        .collect()
}

/// A unit's file, if it can be read; only those are checked.
fn text(path: &Path) -> Option<String> {
    String::from_utf8(file::read(path, UNIT_MAX).ok()?).ok()
}

/// The unit's file and its drop-ins, in the order of their names.
fn unit_texts(unit: &str, root: &Path) -> Option<Vec<String>> {
    let places = PLACES.map(|place| root.join(place));
    let main = places.iter().find_map(|place| text(&place.join(unit)))?;
    let listed = places.iter().filter_map(|place| fs::read_dir(place.join(format!("{unit}.d"))).ok());
    let mut files: Vec<PathBuf> = listed.flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Some(std::iter::once(main).chain(files.iter().filter_map(|file| text(file))).collect())
}

/// The error for a missing parent directory. It is not created: the path may be mistyped, or a disk not mounted.
pub(crate) fn missing_parent(file: &Path) -> CommandError {
    let dir = file::parent(file);
    UsageError {
        message: format!("{} cannot be made: there is no directory {}", file.display(), dir.display()),
        hint: format!("make it first: mkdir -p {}", dir.display()),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigEnvironment;

    #[test]
    fn the_units_that_are_installed_are_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let text =
            "[store]\nurl = \"/mnt/backup\"\nkey_file = \"/k\"\n[role.app]\nsources = [\"/srv\"]\nlease = \"none\"\n";
        let settings = Settings::parse(&[("r.toml".into(), text.to_owned())], &ConfigEnvironment::default()).unwrap();
        let told =
            || unwritable_stores(&settings, root.path()).iter().map(|problem| problem.what.clone()).collect::<Vec<_>>();
        assert!(told().is_empty(), "nothing is installed");
        let system = root.path().join("usr/local/lib/systemd/system");
        fs::create_dir_all(&system).unwrap();
        for unit in UNITS {
            let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit);
            fs::copy(shipped, system.join(unit)).unwrap();
        }
        let said = told();
        assert_eq!(said.len(), UNITS.len(), "{said:?}");
        assert!(said[0].starts_with("runner.service may not write to /mnt/backup: "), "{said:?}");
        assert!(write(&root.path().join("etc/systemd/system"), "").is_err(), "it is not made");
        fs::create_dir_all(root.path().join("etc/systemd/system")).unwrap();
        let written =
            write(&root.path().join("etc/systemd/system"), &systemd::drop_in(&settings, &UnitEnvironment::default()));
        assert_eq!(written.unwrap().len(), UNITS.len());
        assert_eq!(told(), [] as [&str; 0]);
    }
}
