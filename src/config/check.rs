//! Turns a document that fits the schema into settings that make sense. Pure: files and environment are passed in.

mod etcd;
mod notify;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::checker::SettingsChecker;
use super::environment::ConfigEnvironment;
use super::environment_settings::EnvironmentSettings;
use super::error::{ConfigError, ConfigLocation, ConfigProblem};
use super::field::ReadField as _;
use super::key::{ValueForm, read_rows};
use super::keys::{DUMP, KEEP, ROLE, ROOT, STORE, UNLOCKING, unnamed_role, unnamed_store};
use super::section::{ConfigSection, LocatedValue, accept};
use super::settings::{
    DumpSettings, FallbackSettings, JournalPlacement, KeySource, LeaseKind, RetentionPolicy, RoleSettings, Schedule,
    Settings, StoreSettings,
};
use super::store_url::StoreUrl;
use super::toml_document::TomlTable;
use super::{pattern, schema, value};
use crate::ids::RoleName;

/// The keys of a store that mean nothing for a directory.
const S3_ONLY: [&str; 8] =
    ["endpoint", "region", "profile", "credentials_file", "storage_class", "sse", "sse_kms_key_id", "ca_file"];

impl Settings {
    /// The forms without a config: one role without schedule and probe. `sources` may be empty for commands that only
    /// read.
    ///
    /// # Errors
    /// A source is not absolute, or lies inside another one.
    pub fn for_flags(
        sources: &[PathBuf],
        store: StoreUrl,
        role: RoleName,
        key: KeySource,
    ) -> Result<Self, ConfigError> {
        for_flags(sources, store, role, key)
    }
}

/// Checks the merged document.
///
/// # Errors
/// All problems, in the order of files and lines.
pub(super) fn settings(
    document: &TomlTable,
    files: Vec<PathBuf>,
    host: &ConfigEnvironment,
) -> Result<Settings, ConfigError> {
    let found = schema::validate(document);
    let mut check = SettingsChecker { host, problems: found.problems, warnings: found.warnings };
    let whole = files.first().map_or_else(ConfigLocation::nowhere, ConfigLocation::file);
    let root = ConfigSection::new(document, "", &whole);

    // The timezone is read, and its problem found, whether there is a store or not.
    let mut settings = Settings::new(unnamed_store());
    read_rows(ROOT, &mut settings, &root, &mut check);
    let store = if let Some(section) = root.section("store") {
        check.store(&section, root.has("etcd"))
    } else {
        if !root.has("store") {
            check.problems.push(
                ConfigProblem::new(&whole, "store", "is missing: where shall the backups go?")
                    .hint("[store]")
                    .hint("url = \"s3://bucket/prefix\"  # or \"file:///var/backups/runner\"")
                    .hint("key_file = \"/etc/runner/repository.key\""),
            );
        }
        None
    };
    settings.journal_at = root
        .section("store")
        .and_then(|section| Some(section.text("journal")?.place))
        .unwrap_or_else(ConfigLocation::nowhere);
    settings.etcd = root.section("etcd").and_then(|section| check.etcd(&section));
    let has_etcd = root.has("etcd");
    let names = root.section("role").map(|section| section.sections()).unwrap_or_default();
    let roles: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    settings.notify = root.section("notify").map(|section| check.notify(&section, &roles)).unwrap_or_default();
    if names.is_empty() && !root.has("role") {
        check.problems.push(
            ConfigProblem::new(&whole, "role", "is missing: what shall be backed up?")
                .hint("[role.app]")
                .hint("sources = [\"/srv/app\"]"),
        );
    }
    for (name, section) in names {
        if let Some(role) = check.role(name, &section, store.as_ref(), has_etcd) {
            settings.roles.insert(role.name.clone(), role);
        }
    }

    let SettingsChecker { mut problems, warnings, .. } = check;
    match store {
        Some(store) if problems.is_empty() => Ok(Settings { files, store, warnings, ..settings }.hashed()),
        _ => {
            let order = |p: &ConfigProblem| {
                let file = p.place.file.as_deref();
                (files.iter().position(|f| Some(f) == file), p.place.line)
            };
            problems.sort_by_key(order);
            problems.dedup();
            Err(ConfigError { problems })
        }
    }
}

impl SettingsChecker<'_> {
    fn store(&mut self, section: &ConfigSection<'_>, has_etcd: bool) -> Option<StoreSettings> {
        let url = if let Some(at) = section.text("url") {
            accept(&at, at.value.parse::<StoreUrl>(), &mut self.problems)
        } else {
            if !section.has("url") {
                self.problems.push(
                    section
                        .problem("has no url: where shall the backups go?")
                        .hint("write url = \"s3://bucket/prefix\" or url = \"file:///var/backups/runner\""),
                );
            }
            None
        };
        let mut store = unnamed_store();
        read_rows(STORE, &mut store, section, self);
        let is_directory = matches!(url, Some(StoreUrl::Dir(_)));
        for at in S3_ONLY.iter().filter(|_| is_directory).filter_map(|key| section.text(key)) {
            self.problems.push(at.problem("is for S3 only, and the store is a directory").hint("remove it"));
        }
        if let Some(at) = section.text("endpoint")
            && !(at.value.starts_with("https://") || at.value.starts_with("http://"))
        {
            self.problems.push(
                at.problem(format!("{:?} is not a URL", at.value)).hint(format!("write \"https://{}\"", at.value)),
            );
        }
        if let Some(at) = section.text("endpoint")
            && let Ok(url) = at.value.parse()
        {
            self.warn_of_plain(&at, &url, "reads names and sizes of objects, and may answer in the store's place");
        }
        if let Some(at) = section.text("sse_kms_key_id")
            && store.sse.as_deref() != Some("aws:kms")
            && !is_directory
        {
            self.problems.push(at.problem("goes with sse = \"aws:kms\"").hint("add that line, or remove this one"));
        }
        let lacks_etcd = store.journal == JournalPlacement::Etcd && !has_etcd;
        if let Some(at) = section.text("journal").filter(|_| lacks_etcd) {
            self.problems.push(etcd::missing(&at, "journal = \"auto\": most stores can hold it themselves"));
        }
        let key = self.key(section);
        if key.is_none() && !UNLOCKING.iter().any(|k| section.has(k)) {
            self.problems.push(section.problem("has no key, and backups are encrypted unless you refuse it").hint(
                "write key_file = \"/etc/runner/repository.key\" (`runner init` creates it), or passphrase_file = \
                         \"/etc/runner/passphrase\", or encryption = \"none\"",
            ));
        }
        Some(StoreSettings { url: url?, key: key?, ..store }).filter(|_| !lacks_etcd)
    }

    /// The key source that this table names; at most one is allowed.
    fn key(&mut self, section: &ConfigSection<'_>) -> Option<KeySource> {
        let there: Vec<LocatedValue<&str>> = UNLOCKING.iter().filter_map(|key| section.text(key)).collect();
        if let [first, second, ..] = there.as_slice() {
            let last = |at: &LocatedValue<&str>| at.key.rsplit('.').next().unwrap_or_default().to_owned();
            let what = format!("stands beside {}", last(first));
            self.problems.push(second.problem(what).hint("there is one way to unlock: keep one of the two"));
            return None;
        }
        let at = there.first()?;
        if at.key.ends_with("encryption") {
            return Some(KeySource::None);
        }
        let path = self.secret_path(at)?;
        Some(if at.key.ends_with("passphrase_file") {
            KeySource::PassphraseFile(path)
        } else {
            KeySource::KeyFile(path)
        })
    }

    fn role(
        &mut self,
        name: &str,
        section: &ConfigSection<'_>,
        store: Option<&StoreSettings>,
        has_etcd: bool,
    ) -> Option<RoleSettings> {
        let before = self.problems.len();
        let role_name = match name.parse::<RoleName>() {
            Ok(name) => Some(name),
            Err(e) => {
                self.problems.push(section.problem(e.to_string()).hint("rename the role, like [role.app]"));
                None
            }
        };
        let own_key = self.key(section);
        let key = if UNLOCKING.iter().any(|k| section.has(k)) { own_key } else { store.map(|s| s.key.clone()) };
        let eligible = section.section("eligible").map(|probe| self.probe(&probe));
        let fallback = section.section("fallback").map(|fallback| self.fallback(section, &fallback));
        let lease = self.lease(section, has_etcd);
        if store.is_some_and(|store| store.journal == JournalPlacement::Etcd) {
            self.beside_etcd(section);
        }
        let mut role = unnamed_role();
        read_rows(ROLE, &mut role, section, self);
        role.nodes = self.nodes(section);
        role.sources = self.sources(section);
        role.dumps = self.dumps(section, &role.environment);
        if role.sources.is_empty() && role.dumps.is_empty() && !section.has("sources") && !section.has("dumps") {
            self.problems.push(
                section.problem("has nothing to back up").hint("write sources = [\"/srv/app\"], or give it dumps"),
            );
        }
        self.exclude(section);
        role.schedule = self.schedule(section);
        if let (Some(jitter), Some(Schedule::Every(every))) = (section.duration("jitter"), &role.schedule)
            && jitter.value >= *every
        {
            self.problems
                .push(jitter.problem("is not shorter than every").hint("write less than the time between two slots"));
        }
        role.keep = section.section("keep").map(|keep| self.keep(&keep));
        if self.problems.len() > before {
            return None;
        }
        Some(RoleSettings {
            name: role_name?,
            key: key?,
            eligible: match eligible {
                Some(probe) => Some(probe?),
                None => None,
            },
            fallback: match fallback {
                Some(fallback) => Some(fallback?),
                None => None,
            },
            lease: lease?,
            ..role
        })
    }

    /// The retention policy. `keep` must keep something.
    fn keep(&mut self, section: &ConfigSection<'_>) -> RetentionPolicy {
        let mut keep = RetentionPolicy::default();
        read_rows(KEEP, &mut keep, section, self);
        // A key with an invalid value was meant to keep something, and so was a duration without a unit.
        let is_count = |key| KEEP.iter().any(|row| row.key.name == key && matches!(row.key.form, ValueForm::Count(_)));
        let sound = |key| is_count(key) && section.count(key).is_some();
        if keep == RetentionPolicy::default() && section.keys().all(sound) {
            self.problems.push(section.problem("keeps nothing").hint("write { daily = 14, weekly = 8 }, or remove it"));
        }
        keep
    }

    /// The fallback. It follows from slots that were not committed, so the role needs a schedule, and eligible nodes to
    /// fall back from.
    fn fallback(&mut self, role: &ConfigSection<'_>, section: &ConfigSection<'_>) -> Option<FallbackSettings> {
        let mut sound = true;
        for (given, what, hint) in [
            (
                role.has("eligible"),
                "stands in for eligible nodes, and the role has no eligible",
                "rename it to eligible",
            ),
            (
                role.has("schedule") || role.has("every"),
                "waits for slots that no node commits, and the role has none",
                "give the role a schedule, or remove fallback",
            ),
        ] {
            if !given {
                sound = false;
                self.problems.push(section.problem(what).hint(hint));
            }
        }
        let probe = self.probe(section)?;
        let after = section.duration("after").map_or(FallbackSettings::AFTER, |at| at.value);
        sound.then_some(FallbackSettings { probe, after })
    }

    /// The lease: as configured; else etcd if it is configured, else none beside a probe, else the bucket.
    fn lease(&mut self, section: &ConfigSection<'_>, has_etcd: bool) -> Option<LeaseKind> {
        let eligible = section.has("eligible");
        let (lease, at) = match section.text("lease") {
            // The schema has reported an invalid word.
            Some(at) => (LeaseKind::read(section, "lease", self)?, Some(at)),
            None if section.has("lease") => return None,
            None if has_etcd => (LeaseKind::Etcd, None),
            None if eligible => (LeaseKind::None, None),
            None => (LeaseKind::Bucket, None),
        };
        let (LeaseKind::Etcd, Some(at), false) = (lease, at, has_etcd) else { return Some(lease) };
        self.problems.push(etcd::missing(&at, "lease = \"bucket\": a pair needs nothing but its store"));
        None
    }

    fn nodes(&mut self, section: &ConfigSection<'_>) -> Option<Vec<String>> {
        let list = section.texts("nodes")?;
        let mut seen = BTreeSet::new();
        for at in &list.value {
            if at.value.is_empty() || at.value.chars().any(|c| c.is_whitespace() || c.is_control()) {
                self.problems.push(
                    at.problem(format!("{:?} is not the name of a node", at.value))
                        .hint("write its hostname, or its --node name"),
                );
            } else if !seen.insert(at.value) {
                self.problems.push(at.problem(format!("{:?} is there twice", at.value)).hint("keep one of them"));
            }
        }
        if list.value.is_empty() {
            self.problems
                .push(list.problem("is empty: no node could ever hold the role").hint("name them, or remove the key"));
        }
        Some(seen.into_iter().map(str::to_owned).collect())
    }

    fn sources(&mut self, section: &ConfigSection<'_>) -> Vec<PathBuf> {
        let Some(list) = section.texts("sources") else { return Vec::new() };
        if list.value.is_empty() && !section.has("dumps") {
            self.problems.push(list.problem("is empty").hint("write sources = [\"/srv/app\"], or give it dumps"));
        }
        let mut sources: Vec<PathBuf> = Vec::new();
        for at in list.value {
            let Some(path) = accept(&at, value::absolute(at.value), &mut self.problems) else { continue };
            match overlapping_source(&sources, &path) {
                None => sources.push(path),
                Some(problem) => {
                    self.problems.push(at.problem(problem).hint("keep the outer one; exclude what is too much"));
                }
            }
        }
        sources.sort();
        sources
    }

    fn exclude(&mut self, section: &ConfigSection<'_>) {
        for at in section.texts("exclude").map(|list| list.value).unwrap_or_default() {
            if let Err(why) = pattern::add(&mut pattern::builder(), at.value) {
                self.problems.push(
                    at.problem(format!("{:?} is not a pattern ({why})", at.value))
                        .hint("write it as in a .gitignore: \"*.tmp\", \"/srv/app/cache/**\""),
                );
            }
        }
    }

    fn schedule(&mut self, section: &ConfigSection<'_>) -> Option<Schedule> {
        let (cron, every) = (section.text("schedule"), section.duration("every"));
        if let (Some(_), Some(every)) = (&cron, &every) {
            self.problems.push(every.problem("stands beside schedule").hint("keep one of the two"));
        }
        if let Some(at) = cron {
            return accept(&at, value::cron(at.value), &mut self.problems)
                .map(|_| Schedule::Cron(at.value.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        let every = every?;
        Some(Schedule::Every(every.value))
    }

    fn dumps(&mut self, section: &ConfigSection<'_>, of_role: &EnvironmentSettings) -> BTreeMap<String, DumpSettings> {
        let mut dumps = BTreeMap::new();
        for (name, dump) in section.section("dumps").map(|s| s.sections()).unwrap_or_default() {
            // File systems limit a name to 255 bytes.
            if name.is_empty() || name.len() > 255 || name == "." || name == ".." || name.contains(['/', '\0']) {
                self.problems.push(
                    dump.problem(format!("{name:?} is not a file name")).hint("write a plain one, like \"app.sql\""),
                );
            }
            if !dump.has("command") {
                self.problems.push(
                    dump.problem("has no command")
                        .hint(r#"write command = ["pg_dump", "app"]: its output becomes the file"#),
                );
            }
            let Some(command) = dump.strings("command") else { continue };
            let mut settings = DumpSettings::new(command);
            read_rows(DUMP, &mut settings, &dump, self);
            settings.environment = merged_environment(of_role, settings.environment);
            dumps.insert(name.to_owned(), settings);
        }
        dumps
    }
}

/// The environment variables of a dump: the role's and its own, of which its own win.
fn merged_environment(role: &EnvironmentSettings, own: EnvironmentSettings) -> EnvironmentSettings {
    let set = role.set.iter().map(|(name, value)| (name.clone(), value.clone())).chain(own.set).collect();
    let mut pass = role.pass.clone();
    pass.extend(own.pass.into_iter().filter(|name| !role.pass.contains(name)));
    EnvironmentSettings { set, pass }
}

/// The problem, if `path` overlaps with one of `sources`: one inside the other would be read twice.
fn overlapping_source(sources: &[PathBuf], path: &Path) -> Option<String> {
    sources.iter().find_map(|other| {
        if other == path {
            Some(format!("{:?} is there twice", path.display().to_string()))
        } else if path.starts_with(other) {
            Some(format!("\"{}\" is inside \"{}\"", path.display(), other.display()))
        } else if other.starts_with(path) {
            Some(format!("\"{}\" is inside \"{}\"", other.display(), path.display()))
        } else {
            None
        }
    })
}

/// The settings of the forms without a config file.
///
/// # Errors
/// A source is not absolute, or lies inside another one.
fn for_flags(sources: &[PathBuf], url: StoreUrl, name: RoleName, key: KeySource) -> Result<Settings, ConfigError> {
    let mut problems = Vec::new();
    let mut checked: Vec<PathBuf> = Vec::new();
    for source in sources {
        let at = LocatedValue { value: source, key: "--source".to_owned(), place: ConfigLocation::nowhere() };
        // A path on the command line may hold any byte, so it is normalised here and not as text.
        if !source.is_absolute() || source.components().any(|c| c == std::path::Component::ParentDir) {
            problems.push(at.problem(format!("\"{}\" is not an absolute path without \"..\"", source.display())));
            continue;
        }
        let path: PathBuf = source.components().collect();
        match overlapping_source(&checked, &path) {
            None => checked.push(path),
            Some(problem) => problems.push(at.problem(problem).hint("keep the outer one")),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    checked.sort();
    let role = RoleSettings::new(name.clone(), key.clone(), checked);
    let store = StoreSettings::new(url, key);
    let settings = Settings { roles: BTreeMap::from([(name, role)]), ..Settings::new(store) };
    Ok(settings.hashed())
}
