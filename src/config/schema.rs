//! The schema of the config: every key, the form of its value, and whether this version supports it.
//!
//! A planned key that this version does not support is listed here too, so that it is refused or reported, and never
//! ignored silently. When a later version supports it, its [`KeySupport`] becomes [`KeySupport::Supported`] and `check`
//! reads it.

use super::error::ConfigProblem;
use super::toml_document::{TomlEntry, TomlNode, TomlTable, TomlValue, dotted};
use super::value;

/// A key of a table.
pub(super) struct KeySchema {
    pub(super) name: &'static str,
    form: ValueForm,
    support: KeySupport,
}

/// The form of a value.
#[derive(Clone, Copy)]
enum ValueForm {
    Text,
    Flag,
    Duration,
    /// A duration that must not be zero.
    NonZeroDuration,
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    Texts,
    /// Program and arguments.
    Command,
    /// A table with these keys.
    Table(&'static [KeySchema]),
    /// A table of tables with these keys, under names that the config chooses.
    NamedTables(&'static [KeySchema]),
    /// Values by the names of environment variables.
    Variables,
    /// Names of environment variables.
    VariableNames,
    /// A number of things.
    Count,
    /// The status of an HTTP answer, or a list of them.
    Statuses,
    /// A probe; `true` if it may have the key `after`.
    Probe(bool),
}

/// How this version supports a key.
#[derive(Clone, Copy)]
enum KeySupport {
    /// The key has its effect.
    Supported,
    /// The key has no effect yet, which is reported. This is only for convenience keys: what is backed up, and by which
    /// node, does not depend on them.
    NoEffect(&'static str),
}

use KeySupport::{NoEffect, Supported};

const fn key(name: &'static str, form: ValueForm, support: KeySupport) -> KeySchema {
    KeySchema { name, form, support }
}

/// The variables that runs set for their commands: see [`crate::config`]'s example and docs/ELECTION.md.
const TOLD: [&str; 6] =
    ["RUNNER_NODE", "RUNNER_ROLE", "RUNNER_TERM", "RUNNER_SLOT", "RUNNER_OUTCOME", "RUNNER_DEADLINE"];

/// The deepest nesting of `all`, `any` and `not`: deeper nesting is a mistake, and the recursion needs a bound.
const PROBE_DEPTH_MAX: usize = 16;

/// The keys at the top of the file.
pub(super) static ROOT: &[KeySchema] = &[
    key("timezone", ValueForm::Text, Supported),
    key("store", ValueForm::Table(STORE), Supported),
    key("etcd", ValueForm::Table(ETCD), Supported),
    key("role", ValueForm::NamedTables(ROLE), Supported),
    key("notify", ValueForm::Table(NOTIFY), Supported),
    key("listen", ValueForm::Table(LISTEN), NoEffect("nothing listens yet")),
];

static STORE: &[KeySchema] = &[
    key("url", ValueForm::Text, Supported),
    key("endpoint", ValueForm::Text, Supported),
    key("region", ValueForm::Text, Supported),
    key("profile", ValueForm::Text, Supported),
    key("credentials_file", ValueForm::Text, Supported),
    key("path_style", ValueForm::Flag, Supported),
    key("storage_class", ValueForm::Text, Supported),
    key("sse", ValueForm::Word(&["AES256", "aws:kms"]), Supported),
    key("sse_kms_key_id", ValueForm::Text, Supported),
    key("ca_file", ValueForm::Text, Supported),
    key("key_file", ValueForm::Text, Supported),
    key("passphrase_file", ValueForm::Text, Supported),
    key("encryption", ValueForm::Word(&["none"]), Supported),
    key("journal", ValueForm::Word(&["auto", "bucket", "etcd"]), Supported),
    key("limit_upload", ValueForm::Size, Supported),
];

static ETCD: &[KeySchema] = &[
    key("endpoints", ValueForm::Texts, Supported),
    key("ca_file", ValueForm::Text, Supported),
    key("cert_file", ValueForm::Text, Supported),
    key("key_file", ValueForm::Text, Supported),
    key("user", ValueForm::Text, Supported),
    key("password_file", ValueForm::Text, Supported),
    key("prefix", ValueForm::Text, Supported),
    key("lease_ttl", ValueForm::NonZeroDuration, Supported),
];

static ROLE: &[KeySchema] = &[
    key("nodes", ValueForm::Texts, Supported),
    key("eligible", ValueForm::Probe(false), Supported),
    key("fallback", ValueForm::Probe(true), Supported),
    key("lease", ValueForm::Word(&["etcd", "bucket", "none"]), Supported),
    key("bucket_lease_ttl", ValueForm::NonZeroDuration, Supported),
    key("key_file", ValueForm::Text, Supported),
    key("passphrase_file", ValueForm::Text, Supported),
    key("encryption", ValueForm::Word(&["none"]), Supported),
    key("sources", ValueForm::Texts, Supported),
    key("exclude", ValueForm::Texts, Supported),
    key("one_file_system", ValueForm::Flag, Supported),
    key("exclude_caches", ValueForm::Flag, Supported),
    key("exclude_larger_than", ValueForm::Size, Supported),
    key("schedule", ValueForm::Text, Supported),
    key("every", ValueForm::NonZeroDuration, Supported),
    key("jitter", ValueForm::Duration, Supported),
    key("missed_after", ValueForm::NonZeroDuration, Supported),
    key("stall_timeout", ValueForm::NonZeroDuration, Supported),
    key("takeover_delay", ValueForm::Duration, Supported),
    key("takeover_after", ValueForm::NonZeroDuration, Supported),
    key("takeover_trust", ValueForm::Word(&["rehash", "mtime"]), Supported),
    key("on_lease_unreachable", ValueForm::Word(&["stop", "holder_continues"]), Supported),
    key("allow_empty", ValueForm::Flag, Supported),
    key("keep", ValueForm::Table(KEEP), Supported),
    key("max_unused", ValueForm::Count, Supported),
    key("prune_grace", ValueForm::Duration, Supported),
    key("before", ValueForm::Command, Supported),
    key("after", ValueForm::Command, Supported),
    key("on_takeover", ValueForm::Command, Supported),
    key("on_lost", ValueForm::Command, Supported),
    key("hook_timeout", ValueForm::NonZeroDuration, Supported),
    key("environment", ValueForm::Variables, Supported),
    key("pass_environment", ValueForm::VariableNames, Supported),
    key("dumps", ValueForm::NamedTables(DUMP), Supported),
];

static KEEP: &[KeySchema] = &[
    key("last", ValueForm::Count, Supported),
    key("hourly", ValueForm::Count, Supported),
    key("daily", ValueForm::Count, Supported),
    key("weekly", ValueForm::Count, Supported),
    key("monthly", ValueForm::Count, Supported),
    key("yearly", ValueForm::Count, Supported),
    key("within", ValueForm::NonZeroDuration, Supported),
];

static DUMP: &[KeySchema] = &[
    key("command", ValueForm::Command, Supported),
    key("user", ValueForm::Text, Supported),
    key("environment", ValueForm::Variables, Supported),
    key("pass_environment", ValueForm::VariableNames, Supported),
    key("timeout", ValueForm::NonZeroDuration, Supported),
];

static NOTIFY: &[KeySchema] = &[
    key("command", ValueForm::Command, Supported),
    key("environment", ValueForm::Variables, Supported),
    key("pass_environment", ValueForm::VariableNames, Supported),
    key("webhook", ValueForm::Text, Supported),
    key("healthchecks", ValueForm::Text, Supported),
    key("timeout", ValueForm::NonZeroDuration, Supported),
];

static LISTEN: &[KeySchema] = &[key("address", ValueForm::Text, Supported)];

/// The kinds of probes. Each probe's table has exactly one of these keys.
pub(super) static PROBE_KINDS: &[&str] = &["vip", "http", "command", "mounted", "unit", "all", "any", "not"];

/// The options of probes: key, form, and the kinds that have it.
static PROBE_OPTIONS: &[(&str, ValueForm, &[&str])] = &[
    ("interface", ValueForm::Text, &["vip"]),
    ("status", ValueForm::Statuses, &["http"]),
    ("body", ValueForm::Text, &["http"]),
    ("ca_file", ValueForm::Text, &["http"]),
    ("timeout", ValueForm::NonZeroDuration, &["command", "http", "unit"]),
];

const PROBE_EXAMPLE: &str = r#"write one like { vip = "10.0.0.50" } or { command = ["/bin/am-i-up"] }"#;

/// Every key of the schema, with dots, `*` for a chosen name: the example file must show them all.
#[cfg(test)]
pub(super) fn all_keys() -> Vec<String> {
    fn walk(path: &str, keys: &'static [KeySchema], out: &mut Vec<String>) {
        for key in keys {
            let name = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match key.form {
                ValueForm::Table(inner) => walk(&name, inner, out),
                ValueForm::NamedTables(inner) => walk(&format!("{name}.*"), inner, out),
                _ => {}
            }
            out.push(name);
        }
    }
    let mut out = Vec::new();
    walk("", ROOT, &mut out);
    out
}

/// Whether the table with this name may be spread over several files.
pub(super) fn open_table(path: &[&str]) -> bool {
    matches!(path, ["store" | "etcd" | "role" | "notify" | "listen"] | ["role", _] | ["role", _, "dumps"])
}

/// The findings of the schema's check.
#[derive(Default)]
pub(super) struct SchemaFindings {
    /// Problems, which make the config invalid.
    pub(super) problems: Vec<ConfigProblem>,
    /// Warnings about keys that have no effect.
    pub(super) warnings: Vec<ConfigProblem>,
}

/// Checks the whole document against the schema.
pub(super) fn validate(document: &TomlTable) -> SchemaFindings {
    let mut findings = SchemaFindings::default();
    findings.table(document, "", ROOT);
    findings
}

impl SchemaFindings {
    fn problem(&mut self, problem: ConfigProblem) {
        self.problems.push(problem);
    }

    fn table(&mut self, table: &TomlTable, path: &str, keys: &'static [KeySchema]) {
        for entry in &table.entries {
            let name = dotted(path, &entry.key);
            let Some(key) = keys.iter().find(|k| k.name == entry.key) else {
                self.unknown(entry, &name, keys);
                continue;
            };
            // The form comes first: a typo inside a key that has no effect yet is reported, too.
            self.form(&entry.node, &name, key.form);
            if let NoEffect(why) = key.support {
                self.warnings.push(ConfigProblem::new(&entry.place, name, format!("no effect: {why}")));
            }
        }
    }

    fn unknown(&mut self, entry: &TomlEntry, name: &str, keys: &'static [KeySchema]) {
        let problem = ConfigProblem::new(&entry.place, name, "unknown key");
        let elsewhere = || home_of(&entry.key).map(|home| format!("{:?} belongs into [{home}]", entry.key));
        let near =
            value::nearest(&entry.key, keys.iter().map(|k| k.name)).map(|near| format!("did you mean {near:?}?"));
        let list = || format!("known here: {}", keys.iter().map(|k| k.name).collect::<Vec<_>>().join(", "));
        // The exact name in another table is a better hint than a similar name here.
        let hint = elsewhere().or(near);
        self.problem(match hint {
            Some(hint) => problem.hint(hint),
            None => problem.hint(list()),
        });
    }

    fn form(&mut self, node: &TomlNode, name: &str, form: ValueForm) {
        match (form, &node.value) {
            (ValueForm::Duration | ValueForm::NonZeroDuration, TomlValue::Text(text)) => match value::duration(text) {
                Ok(d) if d.is_zero() && matches!(form, ValueForm::NonZeroDuration) => self.problem(
                    ConfigProblem::new(&node.place, name, "must be longer than nothing")
                        .hint("write it like \"30s\" or \"5m\""),
                ),
                Ok(_) => {}
                Err(e) => self.problem(ConfigProblem::new(&node.place, name, e.what).hint(e.hint)),
            },
            (ValueForm::Duration | ValueForm::NonZeroDuration, TomlValue::Whole(n)) => self.problem(
                ConfigProblem::new(&node.place, name, format!("{n} has no unit"))
                    .hint("write it like \"30s\", \"5m\" or \"1h30m\""),
            ),
            (ValueForm::Size, TomlValue::Text(text) | TomlValue::Whole(text)) => match value::size(text) {
                Ok(0) => self.problem(
                    ConfigProblem::new(&node.place, name, "must be more than nothing")
                        .hint("for no limit, remove the key"),
                ),
                Ok(_) => {}
                Err(e) => self.problem(ConfigProblem::new(&node.place, name, e.what).hint(e.hint)),
            },
            (ValueForm::Word(words), TomlValue::Text(text)) if !words.contains(&text.as_str()) => {
                let problem = ConfigProblem::new(&node.place, name, format!("{text:?} is not known here"));
                self.problem(match value::nearest(text, words.iter().copied()) {
                    Some(near) => problem.hint(format!("did you mean {near:?}?")),
                    None => problem.hint(format!("write {}", either(words))),
                });
            }
            (ValueForm::Text | ValueForm::Word(_), TomlValue::Text(_)) | (ValueForm::Flag, TomlValue::Flag(_)) => {}
            (ValueForm::Statuses, TomlValue::Whole(_)) => self.status(node, name),
            (ValueForm::Statuses, TomlValue::List(list)) => {
                if list.is_empty() {
                    self.problem(
                        ConfigProblem::new(&node.place, name, "names no status").hint("for any 2xx, remove it"),
                    );
                }
                for node in list {
                    self.status(node, name);
                }
            }
            (ValueForm::Texts, TomlValue::List(list)) => self.texts(list, name),
            (ValueForm::Command, TomlValue::List(list)) => {
                self.texts(list, name);
                if list.is_empty() || matches!(&list[0].value, TomlValue::Text(program) if program.is_empty()) {
                    self.problem(
                        ConfigProblem::new(&node.place, name, "names no program")
                            .hint(r#"write it like ["pg_dump", "app"]"#),
                    );
                }
                if let Some(TomlValue::Text(program)) = list.first().map(|node| &node.value)
                    && program.contains('/')
                    && !program.starts_with('/')
                {
                    let what = format!("{program:?} depends on where it is started, and commands are started in /");
                    self.problem(
                        ConfigProblem::new(&node.place, name, what)
                            .hint("write it from the root, or its name alone for PATH"),
                    );
                }
            }
            (ValueForm::Variables, TomlValue::Table(table)) => {
                for entry in &table.entries {
                    let name = dotted(name, &entry.key);
                    self.variable_name(&entry.key, &ConfigProblem::new(&entry.place, name.clone(), ""));
                    match &entry.node.value {
                        TomlValue::Text(text) if !text.contains('\0') => {}
                        TomlValue::Text(_) => self.problem(
                            ConfigProblem::new(&entry.place, name, "a variable cannot contain NUL").hint("remove it"),
                        ),
                        other => self.problem(
                            ConfigProblem::new(&entry.place, name, format!("expected a text, found {}", other.kind()))
                                .hint("put it in quotes: \"…\""),
                        ),
                    }
                }
            }
            (ValueForm::VariableNames, TomlValue::List(list)) => {
                self.texts(list, name);
                for node in list {
                    if let TomlValue::Text(text) = &node.value {
                        self.variable_name(text, &ConfigProblem::new(&node.place, name, ""));
                    }
                }
            }
            (ValueForm::Table(keys), TomlValue::Table(table)) => self.table(table, name, keys),
            (ValueForm::NamedTables(keys), TomlValue::Table(table)) => {
                for entry in &table.entries {
                    let name = dotted(name, &entry.key);
                    self.form(&entry.node, &name, ValueForm::Table(keys));
                }
            }
            (ValueForm::Count, TomlValue::Whole(n)) if n.parse::<u32>().is_ok() => {}
            (ValueForm::Count, TomlValue::Whole(_)) => {
                let (expected, example) = form.expected();
                self.problem(ConfigProblem::new(&node.place, name, format!("expected {expected}")).hint(example));
            }
            (ValueForm::Probe(after), TomlValue::Table(table)) => self.probe(node, table, name, after, 0),
            (form, value) => {
                let (expected, example) = form.expected();
                self.problem(
                    ConfigProblem::new(&node.place, name, format!("expected {expected}, found {}", value.kind()))
                        .hint(example),
                );
            }
        }
    }

    /// Refuses names that a shell cannot use, and those that runs set for their commands themselves.
    fn variable_name(&mut self, variable: &str, at: &ConfigProblem) {
        let sound = !variable.is_empty()
            && !variable.starts_with(|c: char| c.is_ascii_digit())
            && variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let (what, hint) = match variable {
            _ if !sound => (format!("{variable:?} is not the name of a variable"), "write it like \"PGHOST\""),
            told if TOLD.contains(&told) => (format!("{told} is what each run sets itself"), "remove it"),
            _ => return,
        };
        self.problem(ConfigProblem { what, ..at.clone() }.hint(hint));
    }

    fn status(&mut self, node: &TomlNode, name: &str) {
        let (_, example) = ValueForm::Statuses.expected();
        let what = match &node.value {
            TomlValue::Whole(n) if value::status(n).is_some() => return,
            TomlValue::Whole(n) => format!("{n} is not the status of an answer"),
            other => format!("expected a status, found {}", other.kind()),
        };
        self.problem(ConfigProblem::new(&node.place, name, what).hint(example));
    }

    fn texts(&mut self, list: &[TomlNode], name: &str) {
        for (i, node) in list.iter().enumerate() {
            if !matches!(node.value, TomlValue::Text(_)) {
                let what = format!("entry {} is {}, expected a text", i + 1, node.value.kind());
                self.problem(ConfigProblem::new(&node.place, name, what).hint("put it in quotes"));
            }
        }
    }

    /// A probe's table has one key that names its kind, and the options of that kind.
    fn probe(&mut self, node: &TomlNode, table: &TomlTable, path: &str, after: bool, depth: usize) {
        if depth > PROBE_DEPTH_MAX {
            let what = format!("nested more than {PROBE_DEPTH_MAX} deep");
            return self.problem(ConfigProblem::new(&node.place, path, what).hint("simplify it"));
        }
        let kinds: Vec<&TomlEntry> = table.entries.iter().filter(|e| PROBE_KINDS.contains(&e.key.as_str())).collect();
        let kind = kinds.first().map_or("", |e| e.key.as_str());
        if kinds.len() > 1 {
            let names: Vec<_> = kinds.iter().map(|e| e.key.as_str()).collect();
            self.problem(
                ConfigProblem::new(&node.place, path, format!("{} in one probe", names.join(" and ")))
                    .hint("write { all = [ {…}, {…} ] } for both, { any = [ {…}, {…} ] } for one"),
            );
        }
        let mut strangers = false;
        for entry in &table.entries {
            let name = dotted(path, &entry.key);
            if let Some((_, form, owners)) = PROBE_OPTIONS.iter().find(|(option, ..)| *option == entry.key) {
                self.form(&entry.node, &name, *form);
                if !kinds.is_empty() && !owners.contains(&kind) {
                    self.problem(
                        ConfigProblem::new(&entry.place, name, "out of place")
                            .hint(format!("it goes with {}, inside the same braces", alternatives(owners))),
                    );
                }
                continue;
            }
            match entry.key.as_str() {
                "vip" | "http" | "mounted" | "unit" => self.form(&entry.node, &name, ValueForm::Text),
                "command" => self.form(&entry.node, &name, ValueForm::Command),
                "after" if after => self.form(&entry.node, &name, ValueForm::NonZeroDuration),
                "not" => match &entry.node.value {
                    TomlValue::Table(inner) => self.probe(&entry.node, inner, &name, false, depth + 1),
                    _ => self.form(&entry.node, &name, ValueForm::Probe(false)),
                },
                "all" | "any" => self.probes(&entry.node, &name, depth),
                _ => {
                    strangers = true;
                    let options = PROBE_OPTIONS.iter().filter(|(.., owners)| owners.contains(&kind));
                    let known = PROBE_KINDS.iter().copied().chain(options.map(|(option, ..)| *option));
                    let problem = ConfigProblem::new(&entry.place, name, "unknown key");
                    self.problem(match value::nearest(&entry.key, known) {
                        Some(near) => problem.hint(format!("did you mean {near:?}?")),
                        None => problem.hint(format!("known here: {}", PROBE_KINDS.join(", "))),
                    });
                }
            }
        }
        if kinds.is_empty() && !strangers {
            self.problem(ConfigProblem::new(&node.place, path, "no probe in it").hint(PROBE_EXAMPLE));
        }
    }

    fn probes(&mut self, node: &TomlNode, name: &str, depth: usize) {
        let TomlValue::List(list) = &node.value else {
            let what = format!("expected a list of probes, found {}", node.value.kind());
            return self.problem(
                ConfigProblem::new(&node.place, name, what).hint("write [ { vip = \"…\" }, { command = […] } ]"),
            );
        };
        if list.is_empty() {
            self.problem(ConfigProblem::new(&node.place, name, "no probe in it").hint(PROBE_EXAMPLE));
        }
        for inner in list {
            match &inner.value {
                TomlValue::Table(table) => self.probe(inner, table, name, false, depth + 1),
                _ => self.form(inner, name, ValueForm::Probe(false)),
            }
        }
    }
}

impl ValueForm {
    /// The expected form, and an example of it.
    fn expected(self) -> (&'static str, &'static str) {
        match self {
            ValueForm::Text | ValueForm::Word(_) => ("a text", r#"put it in quotes: "…""#),
            ValueForm::Flag => ("true or false", "write true or false, without quotes"),
            ValueForm::Duration | ValueForm::NonZeroDuration => {
                ("a duration", r#"write it like "30s", "5m" or "1h30m""#)
            }
            ValueForm::Size => ("a size", r#"write it like "20MiB""#),
            ValueForm::Texts => ("a list of texts", r#"write it like ["one", "two"]"#),
            ValueForm::Variables => ("variables", r#"write it like { PGHOST = "/run/postgresql" }"#),
            ValueForm::VariableNames => ("a list of names", r#"write it like ["AWS_PROFILE"]"#),
            ValueForm::Command => ("program and arguments", r#"write it like ["/usr/local/bin/tell", "--now"]"#),
            ValueForm::Table(_) => {
                ("a table", "write its keys below a line with its name in brackets, or as { key = value }")
            }
            ValueForm::NamedTables(_) => ("tables by name", "write one like [role.app]"),
            ValueForm::Count => ("how many to keep", "write a number, 0 or more"),
            ValueForm::Statuses => ("a status, or several", "write status = 200, or a list like [200, 429]"),
            ValueForm::Probe(_) => ("a probe", PROBE_EXAMPLE),
        }
    }
}

/// The table that has this key, as its header is written.
fn home_of(name: &str) -> Option<&'static str> {
    let tables: [(&str, &[KeySchema]); 7] = [
        ("store", STORE),
        ("role.NAME", ROLE),
        ("role.NAME.keep", KEEP),
        ("etcd", ETCD),
        ("notify", NOTIFY),
        ("listen", LISTEN),
        ("", ROOT),
    ];
    let mut homes = tables.iter().filter(|(_, keys)| keys.iter().any(|k| k.name == name)).map(|(home, _)| *home);
    match (homes.next(), homes.next()) {
        // If several tables have the key, no hint is better than a wrong one.
        (Some(home), None) if !home.is_empty() => Some(home),
        _ => None,
    }
}

/// `a, b or c`.
fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// `"a", "b" or "c"`.
fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("{one:?}, or remove the key"),
        [rest @ .., last] => {
            format!("{} or {last:?}", rest.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "))
        }
    }
}
