//! The whole schema: every key of the contract, the form of its value, and whether this version acts on it.
//!
//! A key that the contract has and this version has not is known here too, so that it is refused or said, never
//! ignored in silence. When a later version learns it, its [`Support`] becomes [`Support::Ready`] and `check` reads it.

use super::document::{Entry, Node, Table, Value, dotted};
use super::error::Problem;
use super::value;

/// One key of a table.
pub(super) struct Key {
    pub(super) name: &'static str,
    form: Form,
    support: Support,
}

/// What a value must look like.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Flag,
    Duration,
    /// A duration that must not be zero.
    Span,
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    Texts,
    /// Program and arguments.
    Command,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table of tables with these keys, by free names.
    Named(&'static [Key]),
    /// Texts by the names of variables.
    Variables,
    /// Names of variables.
    VariableNames,
    /// How many of something.
    Count,
    /// The status of an HTTP answer, or a list of them.
    Statuses,
    /// Evidence; `true` where `after` may stand beside it.
    Probe(bool),
}

/// What this version does with a key.
#[derive(Clone, Copy)]
enum Support {
    /// It acts on it.
    Ready,
    /// It says that the key has no effect yet: convenience only, what is backed up and by whom is the same without it.
    Inert(&'static str),
}

use Support::{Inert, Ready};

const fn key(name: &'static str, form: Form, support: Support) -> Key {
    Key { name, form, support }
}

/// What commands are told of their run: see [`crate::config`]'s example and docs/ELECTION.md.
const TOLD: [&str; 6] =
    ["RUNNER_NODE", "RUNNER_ROLE", "RUNNER_TERM", "RUNNER_SLOT", "RUNNER_OUTCOME", "RUNNER_DEADLINE"];

/// The deepest nesting of `all`, `any` and `not`: more is a mistake, and the recursion needs an end.
const PROBE_DEPTH_MAX: usize = 16;

/// The top of the file.
pub(super) static ROOT: &[Key] = &[
    key("timezone", Form::Text, Ready),
    key("store", Form::Table(STORE), Ready),
    key("etcd", Form::Table(ETCD), Ready),
    key("role", Form::Named(ROLE), Ready),
    key("notify", Form::Table(NOTIFY), Ready),
    key("listen", Form::Table(LISTEN), Inert("nothing listens yet")),
];

static STORE: &[Key] = &[
    key("url", Form::Text, Ready),
    key("endpoint", Form::Text, Ready),
    key("region", Form::Text, Ready),
    key("profile", Form::Text, Ready),
    key("credentials_file", Form::Text, Ready),
    key("path_style", Form::Flag, Ready),
    key("storage_class", Form::Text, Ready),
    key("sse", Form::Word(&["AES256", "aws:kms"]), Ready),
    key("sse_kms_key_id", Form::Text, Ready),
    key("ca_file", Form::Text, Ready),
    key("key_file", Form::Text, Ready),
    key("passphrase_file", Form::Text, Ready),
    key("encryption", Form::Word(&["none"]), Ready),
    key("journal", Form::Word(&["auto", "bucket", "etcd"]), Ready),
    key("limit_upload", Form::Size, Ready),
];

static ETCD: &[Key] = &[
    key("endpoints", Form::Texts, Ready),
    key("ca_file", Form::Text, Ready),
    key("cert_file", Form::Text, Ready),
    key("key_file", Form::Text, Ready),
    key("user", Form::Text, Ready),
    key("password_file", Form::Text, Ready),
    key("prefix", Form::Text, Ready),
    key("lease_ttl", Form::Span, Ready),
];

static ROLE: &[Key] = &[
    key("nodes", Form::Texts, Ready),
    key("eligible", Form::Probe(false), Ready),
    key("fallback", Form::Probe(true), Ready),
    key("lease", Form::Word(&["etcd", "bucket", "none"]), Ready),
    key("bucket_lease_ttl", Form::Span, Ready),
    key("key_file", Form::Text, Ready),
    key("passphrase_file", Form::Text, Ready),
    key("encryption", Form::Word(&["none"]), Ready),
    key("sources", Form::Texts, Ready),
    key("exclude", Form::Texts, Ready),
    key("one_file_system", Form::Flag, Ready),
    key("exclude_caches", Form::Flag, Ready),
    key("exclude_larger_than", Form::Size, Ready),
    key("schedule", Form::Text, Ready),
    key("every", Form::Span, Ready),
    key("jitter", Form::Duration, Ready),
    key("missed_after", Form::Span, Ready),
    key("stall_timeout", Form::Span, Ready),
    key("takeover_delay", Form::Duration, Ready),
    key("takeover_after", Form::Span, Ready),
    key("takeover_trust", Form::Word(&["rehash", "mtime"]), Ready),
    key("on_lease_unreachable", Form::Word(&["stop", "holder_continues"]), Ready),
    key("allow_empty", Form::Flag, Ready),
    key("keep", Form::Table(KEEP), Ready),
    key("max_unused", Form::Count, Ready),
    key("prune_grace", Form::Duration, Ready),
    key("before", Form::Command, Ready),
    key("after", Form::Command, Ready),
    key("on_takeover", Form::Command, Ready),
    key("on_lost", Form::Command, Ready),
    key("hook_timeout", Form::Span, Ready),
    key("environment", Form::Variables, Ready),
    key("pass_environment", Form::VariableNames, Ready),
    key("dumps", Form::Named(DUMP), Ready),
];

static KEEP: &[Key] = &[
    key("last", Form::Count, Ready),
    key("hourly", Form::Count, Ready),
    key("daily", Form::Count, Ready),
    key("weekly", Form::Count, Ready),
    key("monthly", Form::Count, Ready),
    key("yearly", Form::Count, Ready),
    key("within", Form::Span, Ready),
];

static DUMP: &[Key] = &[
    key("command", Form::Command, Ready),
    key("user", Form::Text, Ready),
    key("environment", Form::Variables, Ready),
    key("pass_environment", Form::VariableNames, Ready),
    key("timeout", Form::Span, Ready),
];

static NOTIFY: &[Key] = &[
    key("command", Form::Command, Ready),
    key("environment", Form::Variables, Ready),
    key("pass_environment", Form::VariableNames, Ready),
    key("webhook", Form::Text, Ready),
    key("healthchecks", Form::Text, Ready),
    key("timeout", Form::Span, Ready),
];

static LISTEN: &[Key] = &[key("address", Form::Text, Ready)];

/// What a probe's table says it is. Exactly one of these stands in each.
pub(super) static PROBE_KINDS: &[&str] = &["vip", "http", "command", "mounted", "unit", "all", "any", "not"];

/// What may stand beside a kind of probe: option, form, and the kinds that it goes with.
static PROBE_OPTIONS: &[(&str, Form, &[&str])] = &[
    ("interface", Form::Text, &["vip"]),
    ("status", Form::Statuses, &["http"]),
    ("body", Form::Text, &["http"]),
    ("ca_file", Form::Text, &["http"]),
    ("timeout", Form::Span, &["command", "http", "unit"]),
];

const PROBE_EXAMPLE: &str = r#"write one like { vip = "10.0.0.50" } or { command = ["/bin/am-i-up"] }"#;

/// Every key that may be written, with dots, `*` for a free name: what the example file must show.
#[cfg(test)]
pub(super) fn all_keys() -> Vec<String> {
    fn walk(path: &str, keys: &'static [Key], out: &mut Vec<String>) {
        for key in keys {
            let name = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match key.form {
                Form::Table(inner) => walk(&name, inner, out),
                Form::Named(inner) => walk(&format!("{name}.*"), inner, out),
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

/// What the schema found.
#[derive(Default)]
pub(super) struct Findings {
    /// These make the config invalid.
    pub(super) problems: Vec<Problem>,
    /// These only have no effect.
    pub(super) warnings: Vec<Problem>,
}

/// Holds the whole document against the schema.
pub(super) fn validate(document: &Table) -> Findings {
    let mut findings = Findings::default();
    findings.table(document, "", ROOT);
    findings
}

impl Findings {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn table(&mut self, table: &Table, path: &str, keys: &'static [Key]) {
        for entry in &table.entries {
            let name = dotted(path, &entry.key);
            let Some(key) = keys.iter().find(|k| k.name == entry.key) else {
                self.unknown(entry, &name, keys);
                continue;
            };
            // The form first: a typo inside a part that is not there yet is worth hearing of now.
            self.form(&entry.node, &name, key.form);
            if let Inert(why) = key.support {
                self.warnings.push(Problem::new(&entry.place, name, format!("no effect: {why}")));
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, name: &str, keys: &'static [Key]) {
        let problem = Problem::new(&entry.place, name, "unknown key");
        let elsewhere = || home_of(&entry.key).map(|home| format!("{:?} belongs into [{home}]", entry.key));
        let near =
            value::nearest(&entry.key, keys.iter().map(|k| k.name)).map(|near| format!("did you mean {near:?}?"));
        let list = || format!("known here: {}", keys.iter().map(|k| k.name).collect::<Vec<_>>().join(", "));
        // The exact name in another table says more than a similar one here.
        let hint = elsewhere().or(near);
        self.problem(match hint {
            Some(hint) => problem.hint(hint),
            None => problem.hint(list()),
        });
    }

    fn form(&mut self, node: &Node, name: &str, form: Form) {
        match (form, &node.value) {
            (Form::Duration | Form::Span, Value::Text(text)) => match value::duration(text) {
                Ok(d) if d.is_zero() && matches!(form, Form::Span) => self.problem(
                    Problem::new(&node.place, name, "must be longer than nothing")
                        .hint("write it like \"30s\" or \"5m\""),
                ),
                Ok(_) => {}
                Err(e) => self.problem(Problem::new(&node.place, name, e.what).hint(e.hint)),
            },
            (Form::Duration | Form::Span, Value::Whole(n)) => self.problem(
                Problem::new(&node.place, name, format!("{n} has no unit"))
                    .hint("write it like \"30s\", \"5m\" or \"1h30m\""),
            ),
            (Form::Size, Value::Text(text) | Value::Whole(text)) => match value::size(text) {
                Ok(0) => self.problem(
                    Problem::new(&node.place, name, "must be more than nothing").hint("for no limit, remove the key"),
                ),
                Ok(_) => {}
                Err(e) => self.problem(Problem::new(&node.place, name, e.what).hint(e.hint)),
            },
            (Form::Word(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
                let problem = Problem::new(&node.place, name, format!("{text:?} is not known here"));
                self.problem(match value::nearest(text, words.iter().copied()) {
                    Some(near) => problem.hint(format!("did you mean {near:?}?")),
                    None => problem.hint(format!("write {}", either(words))),
                });
            }
            (Form::Text | Form::Word(_), Value::Text(_)) | (Form::Flag, Value::Flag(_)) => {}
            (Form::Statuses, Value::Whole(_)) => self.status(node, name),
            (Form::Statuses, Value::List(list)) => {
                if list.is_empty() {
                    self.problem(Problem::new(&node.place, name, "names no status").hint("for any 2xx, remove it"));
                }
                for node in list {
                    self.status(node, name);
                }
            }
            (Form::Texts, Value::List(list)) => self.texts(list, name),
            (Form::Command, Value::List(list)) => {
                self.texts(list, name);
                if list.is_empty() || matches!(&list[0].value, Value::Text(program) if program.is_empty()) {
                    self.problem(
                        Problem::new(&node.place, name, "names no program").hint(r#"write it like ["pg_dump", "app"]"#),
                    );
                }
                if let Some(Value::Text(program)) = list.first().map(|node| &node.value)
                    && program.contains('/')
                    && !program.starts_with('/')
                {
                    let what = format!("{program:?} depends on where it is started, and commands are started in /");
                    self.problem(
                        Problem::new(&node.place, name, what)
                            .hint("write it from the root, or its name alone for PATH"),
                    );
                }
            }
            (Form::Variables, Value::Table(table)) => {
                for entry in &table.entries {
                    let name = dotted(name, &entry.key);
                    self.variable_name(&entry.key, &Problem::new(&entry.place, name.clone(), ""));
                    match &entry.node.value {
                        Value::Text(text) if !text.contains('\0') => {}
                        Value::Text(_) => self.problem(
                            Problem::new(&entry.place, name, "a variable cannot contain NUL").hint("remove it"),
                        ),
                        other => self.problem(
                            Problem::new(&entry.place, name, format!("expected a text, found {}", other.kind()))
                                .hint("put it in quotes: \"…\""),
                        ),
                    }
                }
            }
            (Form::VariableNames, Value::List(list)) => {
                self.texts(list, name);
                for node in list {
                    if let Value::Text(text) = &node.value {
                        self.variable_name(text, &Problem::new(&node.place, name, ""));
                    }
                }
            }
            (Form::Table(keys), Value::Table(table)) => self.table(table, name, keys),
            (Form::Named(keys), Value::Table(table)) => {
                for entry in &table.entries {
                    let name = dotted(name, &entry.key);
                    self.form(&entry.node, &name, Form::Table(keys));
                }
            }
            (Form::Count, Value::Whole(n)) if n.parse::<u32>().is_ok() => {}
            (Form::Count, Value::Whole(_)) => {
                let (expected, example) = form.expected();
                self.problem(Problem::new(&node.place, name, format!("expected {expected}")).hint(example));
            }
            (Form::Probe(after), Value::Table(table)) => self.probe(node, table, name, after, 0),
            (form, value) => {
                let (expected, example) = form.expected();
                self.problem(
                    Problem::new(&node.place, name, format!("expected {expected}, found {}", value.kind()))
                        .hint(example),
                );
            }
        }
    }

    /// What a shell can name, and not what runs tell their commands themselves.
    fn variable_name(&mut self, variable: &str, at: &Problem) {
        let sound = !variable.is_empty()
            && !variable.starts_with(|c: char| c.is_ascii_digit())
            && variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let (what, hint) = match variable {
            _ if !sound => (format!("{variable:?} is not the name of a variable"), "write it like \"PGHOST\""),
            told if TOLD.contains(&told) => (format!("{told} is what each run sets itself"), "remove it"),
            _ => return,
        };
        self.problem(Problem { what, ..at.clone() }.hint(hint));
    }

    fn status(&mut self, node: &Node, name: &str) {
        let (_, example) = Form::Statuses.expected();
        let what = match &node.value {
            Value::Whole(n) if value::status(n).is_some() => return,
            Value::Whole(n) => format!("{n} is not the status of an answer"),
            other => format!("expected a status, found {}", other.kind()),
        };
        self.problem(Problem::new(&node.place, name, what).hint(example));
    }

    fn texts(&mut self, list: &[Node], name: &str) {
        for (i, node) in list.iter().enumerate() {
            if !matches!(node.value, Value::Text(_)) {
                let what = format!("entry {} is {}, expected a text", i + 1, node.value.kind());
                self.problem(Problem::new(&node.place, name, what).hint("put it in quotes"));
            }
        }
    }

    /// A probe's table has one key that says what it is, and that kind's own options.
    fn probe(&mut self, node: &Node, table: &Table, path: &str, after: bool, depth: usize) {
        if depth > PROBE_DEPTH_MAX {
            let what = format!("nested more than {PROBE_DEPTH_MAX} deep");
            return self.problem(Problem::new(&node.place, path, what).hint("simplify it"));
        }
        let kinds: Vec<&Entry> = table.entries.iter().filter(|e| PROBE_KINDS.contains(&e.key.as_str())).collect();
        let kind = kinds.first().map_or("", |e| e.key.as_str());
        if kinds.len() > 1 {
            let names: Vec<_> = kinds.iter().map(|e| e.key.as_str()).collect();
            self.problem(
                Problem::new(&node.place, path, format!("{} in one probe", names.join(" and ")))
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
                        Problem::new(&entry.place, name, "out of place")
                            .hint(format!("it goes with {}, inside the same braces", alternatives(owners))),
                    );
                }
                continue;
            }
            match entry.key.as_str() {
                "vip" | "http" | "mounted" | "unit" => self.form(&entry.node, &name, Form::Text),
                "command" => self.form(&entry.node, &name, Form::Command),
                "after" if after => self.form(&entry.node, &name, Form::Span),
                "not" => match &entry.node.value {
                    Value::Table(inner) => self.probe(&entry.node, inner, &name, false, depth + 1),
                    _ => self.form(&entry.node, &name, Form::Probe(false)),
                },
                "all" | "any" => self.probes(&entry.node, &name, depth),
                _ => {
                    strangers = true;
                    let options = PROBE_OPTIONS.iter().filter(|(.., owners)| owners.contains(&kind));
                    let known = PROBE_KINDS.iter().copied().chain(options.map(|(option, ..)| *option));
                    let problem = Problem::new(&entry.place, name, "unknown key");
                    self.problem(match value::nearest(&entry.key, known) {
                        Some(near) => problem.hint(format!("did you mean {near:?}?")),
                        None => problem.hint(format!("known here: {}", PROBE_KINDS.join(", "))),
                    });
                }
            }
        }
        if kinds.is_empty() && !strangers {
            self.problem(Problem::new(&node.place, path, "no probe in it").hint(PROBE_EXAMPLE));
        }
    }

    fn probes(&mut self, node: &Node, name: &str, depth: usize) {
        let Value::List(list) = &node.value else {
            let what = format!("expected a list of probes, found {}", node.value.kind());
            return self
                .problem(Problem::new(&node.place, name, what).hint("write [ { vip = \"…\" }, { command = […] } ]"));
        };
        if list.is_empty() {
            self.problem(Problem::new(&node.place, name, "no probe in it").hint(PROBE_EXAMPLE));
        }
        for inner in list {
            match &inner.value {
                Value::Table(table) => self.probe(inner, table, name, false, depth + 1),
                _ => self.form(inner, name, Form::Probe(false)),
            }
        }
    }
}

impl Form {
    /// What is expected, and how it is written.
    fn expected(self) -> (&'static str, &'static str) {
        match self {
            Form::Text | Form::Word(_) => ("a text", r#"put it in quotes: "…""#),
            Form::Flag => ("true or false", "write true or false, without quotes"),
            Form::Duration | Form::Span => ("a duration", r#"write it like "30s", "5m" or "1h30m""#),
            Form::Size => ("a size", r#"write it like "20MiB""#),
            Form::Texts => ("a list of texts", r#"write it like ["one", "two"]"#),
            Form::Variables => ("variables", r#"write it like { PGHOST = "/run/postgresql" }"#),
            Form::VariableNames => ("a list of names", r#"write it like ["AWS_PROFILE"]"#),
            Form::Command => ("program and arguments", r#"write it like ["/usr/local/bin/tell", "--now"]"#),
            Form::Table(_) => {
                ("a table", "write its keys below a line with its name in brackets, or as { key = value }")
            }
            Form::Named(_) => ("tables by name", "write one like [role.app]"),
            Form::Count => ("how many to keep", "write a number, 0 or more"),
            Form::Statuses => ("a status, or several", "write status = 200, or a list like [200, 429]"),
            Form::Probe(_) => ("a probe", PROBE_EXAMPLE),
        }
    }
}

/// The table that has this key, as its header is written.
fn home_of(name: &str) -> Option<&'static str> {
    let tables: [(&str, &[Key]); 7] = [
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
        // Several homes: no advice is better than the wrong one.
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
