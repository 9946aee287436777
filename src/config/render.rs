//! Settings back to TOML: what `config show` prints, and the canonical form that the hash is over.
//!
//! The output parses to the same settings. It contains no secrets, only the paths of their files, and only the server
//! of a URL that contains a secret. (The hash covers whole URLs: two nodes whose alerts go to different people are not
//! configured alike.)

use std::fmt::Write;
use std::path::Path;

use super::settings::{
    EnvironmentSettings, EtcdSettings, FallbackSettings, JournalPlacement, KeySource, LeaseKind,
    LeaseUnreachablePolicy, NotifySettings, Probe, RetentionPolicy, RoleSettings, Schedule, Settings, StoreSettings,
    TakeoverTrust,
};
use super::toml_document::dotted;
use super::url::HttpUrl;
use super::value::{format_duration, format_size};

impl Settings {
    /// The effective settings as TOML, with all defaults. They parse to the same settings, except for URLs that contain
    /// a secret: of these only the server is shown.
    pub fn render(&self) -> String {
        render(self, SecretDisplay::Hidden)
    }

    pub(super) fn hashed(mut self) -> Self {
        let text = render(&self, SecretDisplay::Shown);
        self.hash = hex::encode(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
        self
    }
}

/// A text as a TOML string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

fn list<T>(items: &[T], one: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Writes lines of `key = value` below a header.
struct TomlWriter(String);

impl TomlWriter {
    fn header(&mut self, name: &str) {
        let _ = writeln!(self.0, "\n[{name}]");
    }

    fn set(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(key, &quote(value));
        }
    }

    fn key(&mut self, key: &KeySource) {
        match key {
            KeySource::KeyFile(path) => self.set("key_file", &quote_path(path)),
            KeySource::PassphraseFile(path) => self.set("passphrase_file", &quote_path(path)),
            KeySource::None => self.set("encryption", "\"none\""),
        }
    }

    /// The value of a variable may be a password.
    fn environment(&mut self, environment: &EnvironmentSettings, secrets: SecretDisplay) {
        if !environment.set.is_empty() {
            let shown = |value: &String| if secrets == SecretDisplay::Shown { quote(value) } else { quote("…") };
            let variables = environment.set.iter().map(|(name, value)| format!("{name} = {}", shown(value)));
            self.set("environment", &format!("{{ {} }}", variables.collect::<Vec<_>>().join(", ")));
        }
        if !environment.pass.is_empty() {
            self.set("pass_environment", &list(&environment.pass, |name| quote(name)));
        }
    }
}

/// Whether secrets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecretDisplay {
    Hidden,
    Shown,
}

fn render(settings: &Settings, secrets: SecretDisplay) -> String {
    let mut out = TomlWriter(String::new());
    out.set("timezone", &quote(settings.timezone.iana_name().unwrap_or("UTC")));
    store(&mut out, &settings.store);
    if let Some(etcd) = &settings.etcd {
        self::etcd(&mut out, etcd);
    }
    if settings.notify != NotifySettings::default() {
        notify(&mut out, &settings.notify, secrets);
    }
    for role in settings.roles.values() {
        self::role(&mut out, role, &settings.store, secrets);
    }
    out.0
}

fn store(out: &mut TomlWriter, store: &StoreSettings) {
    out.header("store");
    out.set("url", &quote(&store.url.to_string()));
    out.text("endpoint", store.endpoint.as_deref());
    out.text("region", store.region.as_deref());
    out.text("profile", store.profile.as_deref());
    out.text("credentials_file", store.credentials_file.as_deref().map(Path::to_string_lossy).as_deref());
    if let Some(path_style) = store.path_style {
        out.set("path_style", &path_style.to_string());
    }
    out.text("storage_class", store.storage_class.as_deref());
    out.text("sse", store.sse.as_deref());
    out.text("sse_kms_key_id", store.sse_kms_key_id.as_deref());
    out.text("ca_file", store.ca_file.as_deref().map(Path::to_string_lossy).as_deref());
    out.key(&store.key);
    let journal = match store.journal {
        JournalPlacement::Auto => "auto",
        JournalPlacement::Bucket => "bucket",
        JournalPlacement::Etcd => "etcd",
    };
    out.text("journal", Some(journal));
    out.text("limit_upload", store.limit_upload.map(format_size).as_deref());
}

fn etcd(out: &mut TomlWriter, etcd: &EtcdSettings) {
    out.header("etcd");
    out.set("endpoints", &list(&etcd.endpoints, |e| quote(e)));
    out.text("ca_file", etcd.ca_file.as_deref().map(Path::to_string_lossy).as_deref());
    out.text("cert_file", etcd.cert_file.as_deref().map(Path::to_string_lossy).as_deref());
    out.text("key_file", etcd.key_file.as_deref().map(Path::to_string_lossy).as_deref());
    out.text("user", etcd.user.as_deref());
    out.text("password_file", etcd.password_file.as_deref().map(Path::to_string_lossy).as_deref());
    out.text("prefix", Some(&etcd.prefix));
    out.text("lease_ttl", Some(&format_duration(etcd.lease_ttl)));
}

fn notify(out: &mut TomlWriter, notify: &NotifySettings, secrets: SecretDisplay) {
    let url = |url: &HttpUrl| match secrets {
        SecretDisplay::Shown => url.to_string(),
        SecretDisplay::Hidden if url.target == "/" => url.to_string(),
        // No URL contains `…`, so what is shown is not taken for the whole URL.
        SecretDisplay::Hidden => HttpUrl { target: "/…".to_owned(), ..url.clone() }.to_string(),
    };
    out.header("notify");
    if let Some(command) = &notify.command {
        out.set("command", &list(command, |p| quote(p)));
    }
    out.environment(&notify.environment, secrets);
    out.text("webhook", notify.webhook.as_ref().map(url).as_deref());
    out.text("healthchecks", notify.healthchecks.as_ref().map(url).as_deref());
    out.text("timeout", Some(&format_duration(notify.timeout)));
}

fn role(out: &mut TomlWriter, role: &RoleSettings, store: &StoreSettings, secrets: SecretDisplay) {
    let header = dotted("role", role.name.as_str());
    out.header(&header);
    if role.key != store.key {
        out.key(&role.key);
    }
    if let Some(nodes) = &role.nodes {
        out.set("nodes", &list(nodes, |n| quote(n)));
    }
    if let Some(eligible) = &role.eligible {
        out.set("eligible", &probe(eligible));
    }
    if let Some(FallbackSettings { probe: of, after }) = &role.fallback {
        let of = probe(of);
        let open = of.strip_suffix(" }").expect("a probe is written in braces");
        out.set("fallback", &format!("{open}, after = \"{}\" }}", format_duration(*after)));
    }
    let lease = match role.lease {
        LeaseKind::Etcd => "etcd",
        LeaseKind::Bucket => "bucket",
        LeaseKind::None => "none",
    };
    out.text("lease", Some(lease));
    out.set("sources", &list(&role.sources, |p| quote_path(p)));
    out.set("exclude", &list(&role.exclude, |p| quote(p)));
    out.set("one_file_system", &role.one_file_system.to_string());
    out.set("exclude_caches", &role.exclude_caches.to_string());
    out.text("exclude_larger_than", role.exclude_larger_than.map(format_size).as_deref());
    match &role.schedule {
        Some(Schedule::Cron(line)) => out.text("schedule", Some(line)),
        Some(Schedule::Every(every)) => out.text("every", Some(&format_duration(*every))),
        None => {}
    }
    out.text("jitter", Some(&format_duration(role.jitter)));
    out.text("missed_after", Some(&format_duration(role.missed_after)));
    out.text("stall_timeout", Some(&format_duration(role.stall_timeout)));
    out.text("bucket_lease_ttl", Some(&format_duration(role.bucket_lease_ttl)));
    out.text("takeover_delay", Some(&format_duration(role.takeover_delay)));
    out.text("takeover_after", Some(&format_duration(role.takeover_after)));
    let unreachable = match role.on_lease_unreachable {
        LeaseUnreachablePolicy::Stop => "stop",
        LeaseUnreachablePolicy::HolderContinues => "holder_continues",
    };
    out.text("on_lease_unreachable", Some(unreachable));
    let trust = match role.takeover_trust {
        TakeoverTrust::Rehash => "rehash",
        TakeoverTrust::Mtime => "mtime",
    };
    out.text("takeover_trust", Some(trust));
    out.set("allow_empty", &role.allow_empty.to_string());
    if let Some(keep) = &role.keep {
        out.set("keep", &self::keep(keep));
    }
    out.set("max_unused", &role.max_unused.to_string());
    out.set("prune_grace", &quote(&format_duration(role.prune_grace)));
    let hooks = &role.hooks;
    for (key, hook) in [
        ("before", &hooks.before),
        ("after", &hooks.after),
        ("on_takeover", &hooks.on_takeover),
        ("on_lost", &hooks.on_lost),
    ] {
        if let Some(command) = hook {
            out.set(key, &list(command, |p| quote(p)));
        }
    }
    if !hooks.is_empty() {
        out.text("hook_timeout", Some(&format_duration(hooks.timeout)));
    }
    out.environment(&role.environment, secrets);
    for (name, dump) in &role.dumps {
        out.header(&format!("{header}.dumps.{}", quote(name)));
        out.set("command", &list(&dump.command, |p| quote(p)));
        out.text("user", dump.user.as_deref());
        out.environment(&dump.environment, secrets);
        out.text("timeout", Some(&format_duration(dump.timeout)));
    }
}

fn keep(of: &RetentionPolicy) -> String {
    let RetentionPolicy { last, hourly, daily, weekly, monthly, yearly, within } = of;
    let counts = [
        ("last", last),
        ("hourly", hourly),
        ("daily", daily),
        ("weekly", weekly),
        ("monthly", monthly),
        ("yearly", yearly),
    ];
    let counts = counts.into_iter().filter(|(_, count)| **count > 0).map(|(key, count)| format!("{key} = {count}"));
    let within = within.map(|within| format!("within = \"{}\"", format_duration(within)));
    format!("{{ {} }}", counts.chain(within).collect::<Vec<_>>().join(", "))
}

fn probe(of: &Probe) -> String {
    match of {
        Probe::Vip { address, interface: None } => format!("{{ vip = \"{address}\" }}"),
        Probe::Vip { address, interface: Some(interface) } => {
            format!("{{ vip = \"{address}\", interface = {} }}", quote(interface))
        }
        Probe::Command { command, timeout } => {
            format!("{{ command = {}, timeout = \"{}\" }}", list(command, |p| quote(p)), format_duration(*timeout))
        }
        Probe::Http { url, status, body, timeout, ca_file } => {
            let mut out = format!("{{ http = {}", quote(&url.to_string()));
            if !status.is_empty() {
                let _ = write!(out, ", status = {}", list(status, u16::to_string));
            }
            if let Some(body) = body {
                let _ = write!(out, ", body = {}", quote(body));
            }
            if let Some(ca_file) = ca_file {
                let _ = write!(out, ", ca_file = {}", quote_path(ca_file));
            }
            format!("{out}, timeout = \"{}\" }}", format_duration(*timeout))
        }
        Probe::Mounted { path } => format!("{{ mounted = {} }}", quote_path(path)),
        Probe::Unit { unit, timeout } => {
            format!("{{ unit = {}, timeout = \"{}\" }}", quote(unit), format_duration(*timeout))
        }
        Probe::All(probes) => format!("{{ all = {} }}", list(probes, probe)),
        Probe::Any(probes) => format!("{{ any = {} }}", list(probes, probe)),
        Probe::Not(inner) => format!("{{ not = {} }}", probe(inner)),
    }
}
