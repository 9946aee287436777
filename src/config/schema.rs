//! The form of the config: unknown keys, values of the wrong form, and values that are out of the bounds of their key's
//! row in [`super::keys`].
//!
//! Pure.

use super::error::ConfigProblem;
use super::key::{ConfigKey, ConfigTable, KeySupport, ValueForm};
use super::keys::{FALLBACK_AFTER, PROBE_KINDS, PROBE_OPTIONS};
use super::toml_document::{TomlEntry, TomlNode, TomlTable, TomlValue, dotted};
use super::value;

/// The variables that runs set for their commands: see [`crate::config`]'s example and docs/ELECTION.md.
const TOLD: [&str; 6] =
    ["RUNNER_NODE", "RUNNER_ROLE", "RUNNER_TERM", "RUNNER_SLOT", "RUNNER_OUTCOME", "RUNNER_DEADLINE"];

/// The headers that each request of a channel sets.
const OWN_HEADERS: [&str; 8] = [
    "Host",
    "User-Agent",
    "Accept",
    "Connection",
    "Content-Type",
    "Content-Length",
    "Transfer-Encoding",
    "Runner-Signature",
];

/// The deepest nesting of `all`, `any` and `not`: deeper nesting is a mistake, and the recursion needs a bound.
const PROBE_DEPTH_MAX: usize = 16;

const PROBE_EXAMPLE: &str = r#"write one like { vip = "10.0.0.50" } or { command = ["/bin/am-i-up"] }"#;

/// Every key of the schema, with dots, `*` for a chosen name: the example file must show them all.
#[cfg(test)]
pub(super) fn all_keys() -> Vec<String> {
    fn walk(path: &str, table: ConfigTable, out: &mut Vec<String>) {
        for key in table.keys() {
            let name = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match key.form {
                ValueForm::Table(inner) | ValueForm::ListedTables(inner) => walk(&name, inner, out),
                ValueForm::NamedTables(inner) => walk(&format!("{name}.*"), inner, out),
                _ => {}
            }
            out.push(name);
        }
    }
    let mut out = Vec::new();
    walk("", ConfigTable::Root, &mut out);
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
    findings.table(document, "", ConfigTable::Root);
    findings
}

impl SchemaFindings {
    fn problem(&mut self, problem: ConfigProblem) {
        self.problems.push(problem);
    }

    fn table(&mut self, table: &TomlTable, path: &str, of: ConfigTable) {
        let keys = of.keys();
        for entry in &table.entries {
            let name = dotted(path, &entry.key);
            let Some(key) = keys.iter().find(|k| k.name == entry.key) else {
                self.unknown(entry, &name, &keys);
                continue;
            };
            // The form comes first: a typo inside a key that has no effect yet is reported, too.
            self.form(&entry.node, &name, key.form);
            self.bounds(entry, &name, key, of);
            if let KeySupport::NoEffect(why) = key.support {
                self.warnings.push(ConfigProblem::new(&entry.place, name, format!("no effect: {why}")));
            }
        }
    }

    fn unknown(&mut self, entry: &TomlEntry, name: &str, keys: &[&'static ConfigKey]) {
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

    /// Refuses a value that has the right form and is out of its key's bounds.
    fn bounds(&mut self, entry: &TomlEntry, name: &str, key: &ConfigKey, table: ConfigTable) {
        let at = |what: String| ConfigProblem::new(&entry.place, name, what);
        let default = || table.default(key.name).unwrap_or_default().replace('"', "");
        match (key.form, &entry.node.value) {
            (ValueForm::Duration(bounds), TomlValue::Text(text)) => {
                let Ok(duration) = value::duration(text) else { return };
                if let Some((from, to)) = bounds.range()
                    && !duration.is_zero()
                    && !(bounds.from..=bounds.to).contains(&duration)
                {
                    let hint = format!("{} is the default{}", default(), bounds.reason);
                    self.problem(at(format!("is not between {from} and {to}")).hint(hint));
                } else if bounds.whole_seconds && duration.subsec_nanos() != 0 {
                    let hint = format!("write it like {}", key.example.text());
                    self.problem(at("is not a whole number of seconds".to_owned()).hint(hint));
                }
            }
            (ValueForm::Count(to), TomlValue::Whole(text)) if text.parse::<u32>().is_ok_and(|count| count > to) => {
                self.problem(at(format!("is not between 0 and {to}")).hint(format!("{} is the default", default())));
            }
            _ => {}
        }
    }

    fn form(&mut self, node: &TomlNode, name: &str, form: ValueForm) {
        match (form, &node.value) {
            (ValueForm::Duration(bounds), TomlValue::Text(text)) => match value::duration(text) {
                Ok(d) if d.is_zero() && bounds.is_positive() => self.problem(
                    ConfigProblem::new(&node.place, name, "must be longer than nothing")
                        .hint("write it like \"30s\" or \"5m\""),
                ),
                Ok(_) => {}
                Err(e) => self.problem(ConfigProblem::new(&node.place, name, e.what).hint(e.hint)),
            },
            (ValueForm::Duration(_), TomlValue::Whole(n)) => self.problem(
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
            (ValueForm::Word(words), TomlValue::Text(text)) => self.word(node, text, name, &words()),
            (ValueForm::Text(_), TomlValue::Text(_)) | (ValueForm::Flag, TomlValue::Flag(_)) => {}
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
            (ValueForm::Texts(_), TomlValue::List(list)) => self.texts(list, name),
            (ValueForm::Words(words), TomlValue::List(list)) => {
                self.texts(list, name);
                for node in list {
                    if let TomlValue::Text(text) = &node.value {
                        self.word(node, text, name, &words());
                    }
                }
                if list.is_empty() {
                    self.problem(ConfigProblem::new(&node.place, name, "is empty").hint("for all, remove the key"));
                }
            }
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
                    self.named_text(entry, name, |text| text.contains('\0').then_some("a variable cannot contain NUL"));
                }
            }
            (ValueForm::Headers, TomlValue::Table(table)) => {
                for entry in &table.entries {
                    let name = dotted(name, &entry.key);
                    self.header_name(&entry.key, &ConfigProblem::new(&entry.place, name.clone(), ""));
                    let is_odd = |text: &str| !text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
                    self.named_text(entry, name, |text| {
                        is_odd(text).then_some("a header has visible ASCII characters and blanks only")
                    });
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
            (ValueForm::Table(of), TomlValue::Table(table)) => self.table(table, name, of),
            (ValueForm::NamedTables(of), TomlValue::Table(table)) => {
                for entry in &table.entries {
                    let name = dotted(name, &entry.key);
                    self.form(&entry.node, &name, ValueForm::Table(of));
                }
            }
            (ValueForm::ListedTables(of), TomlValue::List(list)) => {
                for node in list {
                    self.form(node, name, ValueForm::Table(of));
                }
            }
            (ValueForm::Count(_), TomlValue::Whole(n)) if n.parse::<u32>().is_ok() => {}
            (ValueForm::Count(_), TomlValue::Whole(_)) => {
                let (expected, example) = form.expected();
                self.problem(ConfigProblem::new(&node.place, name, format!("expected {expected}")).hint(example));
            }
            (ValueForm::Probe, TomlValue::Table(table)) => self.probe(node, table, name, false, 0),
            (ValueForm::Fallback, TomlValue::Table(table)) => self.probe(node, table, name, true, 0),
            (ValueForm::Probes, _) => self.probes(node, name, 0),
            (form, _) => self.unexpected(node, name, form),
        }
    }

    fn unexpected(&mut self, node: &TomlNode, name: &str, form: ValueForm) {
        let (expected, example) = form.expected();
        let what = format!("expected {expected}, found {}", node.value.kind());
        self.problem(ConfigProblem::new(&node.place, name, what).hint(example));
    }

    fn word(&mut self, node: &TomlNode, text: &str, name: &str, words: &[&'static str]) {
        if words.contains(&text) {
            return;
        }
        let problem = ConfigProblem::new(&node.place, name, format!("{text:?} is not known here"));
        self.problem(match value::nearest(text, words.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean {near:?}?")),
            None => problem.hint(format!("write {}", either(words))),
        });
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

    /// Refuses the value of a variable or a header that is no text, or for which `odd` has an objection.
    fn named_text(&mut self, entry: &TomlEntry, name: String, odd: impl FnOnce(&str) -> Option<&'static str>) {
        let problem = |what: String| ConfigProblem::new(&entry.place, name, what);
        match &entry.node.value {
            TomlValue::Text(text) => {
                if let Some(objection) = odd(text) {
                    self.problem(problem(objection.to_owned()).hint("remove it"));
                }
            }
            other => self
                .problem(problem(format!("expected a text, found {}", other.kind())).hint("put it in quotes: \"…\"")),
        }
    }

    /// Refuses names that are no header's, and headers that each request has already.
    fn header_name(&mut self, header: &str, at: &ConfigProblem) {
        let is_name = !header.is_empty() && header.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let (what, hint) = if !is_name {
            (format!("{header:?} is not the name of a header"), "write it like \"X-Environment\"")
        } else if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(header)) {
            (format!("{header} is what each request sets itself"), "remove it")
        } else {
            return;
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
        let kinds: Vec<&TomlEntry> = table.entries.iter().filter(|e| probe_kind(&e.key).is_some()).collect();
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
            if let Some((option, owners)) = PROBE_OPTIONS.iter().find(|(option, _)| option.name == entry.key) {
                self.form(&entry.node, &name, option.form);
                if !kinds.is_empty() && !owners.contains(&kind) {
                    self.problem(
                        ConfigProblem::new(&entry.place, name, "out of place")
                            .hint(format!("it goes with {}, inside the same braces", alternatives(owners))),
                    );
                }
                continue;
            }
            if after && entry.key == FALLBACK_AFTER.name {
                self.form(&entry.node, &name, FALLBACK_AFTER.form);
                continue;
            }
            match (probe_kind(&entry.key).map(|kind| kind.form), &entry.node.value) {
                (Some(ValueForm::Probe), TomlValue::Table(inner)) => {
                    self.probe(&entry.node, inner, &name, false, depth + 1);
                }
                (Some(ValueForm::Probes), _) => self.probes(&entry.node, &name, depth),
                (Some(form), _) => self.form(&entry.node, &name, form),
                (None, _) => {
                    strangers = true;
                    let options = PROBE_OPTIONS.iter().filter(|(_, owners)| owners.contains(&kind));
                    let names = || PROBE_KINDS.iter().map(|kind| kind.name);
                    let known = names().chain(options.map(|(option, _)| option.name));
                    let problem = ConfigProblem::new(&entry.place, name, "unknown key");
                    self.problem(match value::nearest(&entry.key, known) {
                        Some(near) => problem.hint(format!("did you mean {near:?}?")),
                        None => problem.hint(format!("known here: {}", names().collect::<Vec<_>>().join(", "))),
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
            return self.unexpected(node, name, ValueForm::Probes);
        };
        if list.is_empty() {
            self.problem(ConfigProblem::new(&node.place, name, "no probe in it").hint(PROBE_EXAMPLE));
        }
        for inner in list {
            match &inner.value {
                TomlValue::Table(table) => self.probe(inner, table, name, false, depth + 1),
                _ => self.form(inner, name, ValueForm::Probe),
            }
        }
    }
}

/// The row of a kind of probes.
fn probe_kind(name: &str) -> Option<&'static ConfigKey> {
    PROBE_KINDS.iter().find(|kind| kind.name == name)
}

impl ValueForm {
    /// The expected form, and an example of it.
    fn expected(self) -> (&'static str, &'static str) {
        match self {
            ValueForm::Text(_) | ValueForm::Word(_) => ("a text", r#"put it in quotes: "…""#),
            ValueForm::Flag => ("true or false", "write true or false, without quotes"),
            ValueForm::Duration(_) => ("a duration", r#"write it like "30s", "5m" or "1h30m""#),
            ValueForm::Size => ("a size", r#"write it like "20MiB""#),
            ValueForm::Texts(_) | ValueForm::Words(_) => ("a list of texts", r#"write it like ["one", "two"]"#),
            ValueForm::Headers => ("headers", r#"write it like { X-Environment = "production" }"#),
            ValueForm::Variables => ("variables", r#"write it like { PGHOST = "/run/postgresql" }"#),
            ValueForm::VariableNames => ("a list of names", r#"write it like ["AWS_PROFILE"]"#),
            ValueForm::Command => ("program and arguments", r#"write it like ["/usr/local/bin/tell", "--now"]"#),
            ValueForm::Table(_) => {
                ("a table", "write its keys below a line with its name in brackets, or as { key = value }")
            }
            ValueForm::NamedTables(_) => ("tables by name", "write one like [role.app]"),
            ValueForm::ListedTables(_) => {
                ("tables in a list", "write the name of each in two pairs of brackets: [[…]]")
            }
            ValueForm::Count(_) => ("how many to keep", "write a number, 0 or more"),
            ValueForm::Statuses => ("a status, or several", "write status = 200, or a list like [200, 429]"),
            ValueForm::Probe | ValueForm::Fallback => ("a probe", PROBE_EXAMPLE),
            ValueForm::Probes => ("a list of probes", "write [ { vip = \"…\" }, { command = […] } ]"),
        }
    }
}

/// The table that has this key, as its header is written.
fn home_of(name: &str) -> Option<&'static str> {
    let has = |table: ConfigTable| table.keys().iter().any(|key| key.name == name);
    let mut homes = ConfigTable::HEADERS.into_iter().filter(|(_, table)| has(*table)).map(|(home, _)| home);
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
