//! TOML text as a tree in which every key and value has its file and line, and the merge of several files.
//!
//! This is not serde's derive, which stops at the first problem: a person with five typos wants to see all five.
//!
//! Pure.

use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigLocation, ConfigProblem};

/// A value and its location.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TomlNode {
    pub(super) place: ConfigLocation,
    pub(super) value: TomlValue,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TomlValue {
    Text(String),
    /// A number as written. The code that needs a number parses it, so that it reports the range error.
    Whole(String),
    Flag(bool),
    /// Floats and dates: no key takes one.
    Other(&'static str),
    List(Vec<TomlNode>),
    Table(TomlTable),
}

impl TomlValue {
    /// The kind of the value, for "expected …, found …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            TomlValue::Text(_) => "a text",
            TomlValue::Whole(_) => "a number",
            TomlValue::Flag(_) => "true or false",
            TomlValue::Other(kind) => kind,
            TomlValue::List(_) => "a list",
            TomlValue::Table(_) => "a table",
        }
    }
}

/// Key and value pairs in the order of their keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TomlTable {
    pub(super) entries: Vec<TomlEntry>,
}

/// A pair; `place` is the location of the key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TomlEntry {
    pub(super) key: String,
    pub(super) place: ConfigLocation,
    pub(super) node: TomlNode,
}

impl TomlTable {
    pub(super) fn get(&self, key: &str) -> Option<&TomlEntry> {
        self.entries.iter().find(|e| e.key == key)
    }
}

/// The dotted name of `key` below `parent`, quoted if TOML requires it.
pub(super) fn dotted(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

/// Parses the text of one file.
///
/// # Errors
/// All syntax errors of the file.
pub(super) fn parse(file: &Arc<PathBuf>, text: &str) -> Result<TomlTable, Vec<ConfigProblem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let reader = TomlReader { file, ends: text.match_indices('\n').map(|(at, _)| at).collect() };
    if errors.is_empty() {
        return Ok(reader.table(table.get_ref()));
    }
    let problem = |error: &toml::de::Error| {
        let place = error.span().map_or_else(|| ConfigLocation::file(file.as_path()), |span| reader.place(span.start));
        let problem = ConfigProblem::new(&place, "", error.message());
        let line = place.line.and_then(|line| text.lines().nth(line - 1)).map(str::trim).unwrap_or_default();
        if line.is_empty() { problem } else { problem.hint(format!("in: {}", shorten(line))) }
    };
    Err(errors.iter().map(problem).collect())
}

/// A line of the file, short enough to be shown in an error.
fn shorten(line: &str) -> String {
    const MAX: usize = 70;
    if line.chars().count() <= MAX { line.to_owned() } else { line.chars().take(MAX - 1).chain(['…']).collect() }
}

struct TomlReader<'a> {
    file: &'a Arc<PathBuf>,
    /// The offsets at which the lines end.
    ends: Vec<usize>,
}

impl TomlReader<'_> {
    fn place(&self, offset: usize) -> ConfigLocation {
        let line = 1 + self.ends.partition_point(|end| *end < offset);
        ConfigLocation { file: Some(Arc::clone(self.file)), line: Some(line) }
    }

    fn table(&self, table: &DeTable<'_>) -> TomlTable {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &Spanned<toml::de::DeString<'_>> = key;
            TomlEntry { key: key.get_ref().to_string(), place: self.place(key.span().start), node: self.node(value) }
        };
        TomlTable { entries: table.iter().map(entry).collect() }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> TomlNode {
        let place = self.place(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(text) => TomlValue::Text(text.to_string()),
            DeValue::Integer(number) => TomlValue::Whole(
                i128::from_str_radix(number.as_str(), number.radix())
                    .map_or_else(|_| number.as_str().to_owned(), |n| n.to_string()),
            ),
            DeValue::Boolean(flag) => TomlValue::Flag(*flag),
            DeValue::Float(_) => TomlValue::Other("a fraction"),
            DeValue::Datetime(_) => TomlValue::Other("a date"),
            DeValue::Array(list) => TomlValue::List(list.iter().map(|v| self.node(v)).collect()),
            DeValue::Table(table) => TomlValue::Table(self.table(table)),
        };
        TomlNode { place, value }
    }
}

/// Merges `from` into `into`. Tables for which `open` returns true (by the names that lead to them) are joined. Any
/// other key in both is a problem that names both locations: if the last one won, a person would not notice which one
/// that is.
pub(super) fn merge(
    into: &mut TomlTable,
    from: TomlTable,
    path: &[&str],
    open: &dyn Fn(&[&str]) -> bool,
    problems: &mut Vec<ConfigProblem>,
) {
    for entry in from.entries {
        let Some(there) = into.entries.iter_mut().find(|e| e.key == entry.key) else {
            into.entries.push(entry);
            continue;
        };
        let path: Vec<&str> = path.iter().copied().chain([entry.key.as_str()]).collect();
        match (&mut there.node.value, entry.node.value) {
            (TomlValue::Table(old), TomlValue::Table(new)) if open(&path) => merge(old, new, &path, open, problems),
            _ => {
                let name = path.iter().fold(String::new(), |name, key| dotted(&name, key));
                problems.push(
                    ConfigProblem::new(&entry.place, name, "defined twice")
                        .hint(format!("it is also in {}", there.place))
                        .hint("keep one of them"),
                );
            }
        }
    }
}
