//! Settings back to TOML: what `config show` prints, and the canonical form that the hash is over.
//!
//! The output parses to the same settings. It contains no secrets, only the paths of their files, and only the server
//! of a URL that contains a secret. (The hash covers whole URLs: two nodes whose alerts go to different people are not
//! configured alike.)
//!
//! Pure.

use std::fmt::Write;

use super::field::{SecretDisplay, quote};
use super::key::KeyRow;
use super::keys::{CHANNEL, DUMP, ETCD, NOTIFY, ROLE, ROOT, STORE, UNLOCKING};
use super::notify_settings::NotifySettings;
use super::settings::{RoleSettings, Settings};
use super::toml_document::dotted;

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

/// Writes lines of `key = value` below a header.
struct TomlWriter {
    text: String,
    secrets: SecretDisplay,
}

impl TomlWriter {
    fn header(&mut self, name: &str) {
        let _ = writeln!(self.text, "\n[{name}]");
    }

    /// The header of one table of a list.
    fn listed_header(&mut self, name: &str) {
        let _ = writeln!(self.text, "\n[[{name}]]");
    }

    fn rows<'a, S: 'static>(&mut self, rows: impl IntoIterator<Item = &'a KeyRow<S>>, settings: &S) {
        for row in rows {
            if let Some(value) = row.print(settings, self.secrets) {
                let _ = writeln!(self.text, "{} = {value}", row.key.name);
            }
        }
    }
}

fn render(settings: &Settings, secrets: SecretDisplay) -> String {
    let mut out = TomlWriter { text: String::new(), secrets };
    out.rows(ROOT, settings);
    out.header("store");
    out.rows(STORE, &settings.store);
    if let Some(etcd) = &settings.etcd {
        out.header("etcd");
        out.rows(ETCD, etcd);
    }
    if settings.notify != NotifySettings::default() {
        out.header("notify");
        out.rows(NOTIFY, &settings.notify);
        for channel in &settings.notify.channels {
            out.listed_header("notify.channel");
            out.rows(CHANNEL, channel);
        }
    }
    for role in settings.roles.values() {
        self::role(&mut out, role, settings);
    }
    out.text
}

fn role(out: &mut TomlWriter, role: &RoleSettings, settings: &Settings) {
    let header = dotted("role", role.name.as_str());
    out.header(&header);
    let has_own_key = role.key != settings.store.key;
    out.rows(ROLE.iter().filter(|row| has_own_key || !UNLOCKING.contains(&row.key.name)), role);
    for (name, dump) in &role.dumps {
        out.header(&format!("{header}.dumps.{}", quote(name)));
        out.rows(DUMP, dump);
    }
}
