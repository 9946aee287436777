//! Typed reading of a table that the schema has checked. A value of the wrong form reads as absent. The schema has
//! already reported it; a second message that it is missing would mislead. [`ConfigSection::has`] tells the difference.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigLocation, ConfigProblem};
use super::toml_document::{TomlEntry, TomlNode, TomlTable, TomlValue, dotted};
use super::value::{self, ValueError};

/// A value with its dotted key and its location.
#[derive(Debug, Clone)]
pub(super) struct LocatedValue<T> {
    pub(super) value: T,
    pub(super) key: String,
    pub(super) place: ConfigLocation,
}

impl<T> LocatedValue<T> {
    pub(super) fn problem(&self, what: impl Into<String>) -> ConfigProblem {
        ConfigProblem::new(&self.place, self.key.clone(), what)
    }
}

/// A table with its dotted name.
#[derive(Debug, Clone)]
pub(super) struct ConfigSection<'a> {
    table: &'a TomlTable,
    pub(super) name: String,
    pub(super) place: ConfigLocation,
}

impl<'a> ConfigSection<'a> {
    pub(super) fn new(table: &'a TomlTable, name: impl Into<String>, place: &ConfigLocation) -> Self {
        Self { table, name: name.into(), place: place.clone() }
    }

    /// All keys of the table, with valid values or not.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.table.entries.iter().map(|entry| entry.key.as_str())
    }

    /// Whether the table has the key, with a valid value or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    pub(super) fn problem(&self, what: impl Into<String>) -> ConfigProblem {
        ConfigProblem::new(&self.place, self.name.clone(), what)
    }

    fn read<T>(&self, key: &str, read: impl FnOnce(&'a TomlValue) -> Option<T>) -> Option<LocatedValue<T>> {
        let entry = self.table.get(key)?;
        let value = read(&entry.node.value)?;
        Some(LocatedValue { value, key: dotted(&self.name, key), place: entry.place.clone() })
    }

    /// Where the key is, whatever its value.
    pub(super) fn place_of(&self, key: &str) -> Option<LocatedValue<()>> {
        self.read(key, |_| Some(()))
    }

    pub(super) fn text(&self, key: &str) -> Option<LocatedValue<&'a str>> {
        self.read(key, |v| if let TomlValue::Text(text) = v { Some(text.as_str()) } else { None })
    }

    pub(super) fn owned(&self, key: &str) -> Option<String> {
        self.text(key).map(|at| at.value.to_owned())
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.read(key, |v| if let TomlValue::Flag(flag) = v { Some(*flag) } else { None }).map(|at| at.value)
    }

    pub(super) fn duration(&self, key: &str) -> Option<LocatedValue<Duration>> {
        self.read(key, |v| if let TomlValue::Text(text) = v { value::duration(text).ok() } else { None })
    }

    pub(super) fn count(&self, key: &str) -> Option<u32> {
        self.read(key, |v| if let TomlValue::Whole(text) = v { text.parse().ok() } else { None }).map(|at| at.value)
    }

    pub(super) fn size(&self, key: &str) -> Option<u64> {
        self.read(key, |v| {
            if let TomlValue::Text(text) | TomlValue::Whole(text) = v { value::size(text).ok() } else { None }
        })
        .map(|at| at.value)
    }

    /// The texts of a list, each with its own line. Items that are not texts are left out: the schema has refused them,
    /// and the others are worth checking.
    pub(super) fn texts(&self, key: &str) -> Option<LocatedValue<Vec<LocatedValue<&'a str>>>> {
        let list = self.read(key, |v| if let TomlValue::List(list) = v { Some(list) } else { None })?;
        let text = |node: &'a TomlNode| match &node.value {
            TomlValue::Text(text) => {
                Some(LocatedValue { value: text.as_str(), key: list.key.clone(), place: node.place.clone() })
            }
            _ => None,
        };
        let value = list.value.iter().filter_map(text).collect();
        Some(LocatedValue { value, key: list.key, place: list.place })
    }

    pub(super) fn strings(&self, key: &str) -> Option<Vec<String>> {
        self.texts(key).map(|list| list.value.iter().map(|at| at.value.to_owned()).collect())
    }

    /// The texts of a table, by their keys.
    pub(super) fn variables(&self, key: &str) -> Option<BTreeMap<String, String>> {
        let variables = |table: &'a TomlTable| {
            let text =
                |node: &TomlNode| if let TomlValue::Text(text) = &node.value { Some(text.clone()) } else { None };
            table.entries.iter().filter_map(|entry| Some((entry.key.clone(), text(&entry.node)?))).collect()
        };
        self.read(key, |v| if let TomlValue::Table(table) = v { Some(variables(table)) } else { None })
            .map(|at| at.value)
    }

    /// HTTP statuses, one or a list of them, sorted.
    pub(super) fn statuses(&self, key: &str) -> Option<Vec<u16>> {
        let number = |v: &TomlValue| if let TomlValue::Whole(n) = v { value::status(n) } else { None };
        let at = self.read(key, |v| match v {
            TomlValue::List(list) => {
                Some(list.iter().filter_map(|node| number(&node.value)).collect::<BTreeSet<u16>>())
            }
            one => number(one).map(|n| BTreeSet::from([n])),
        })?;
        Some(at.value.into_iter().collect())
    }

    pub(super) fn section(&self, key: &str) -> Option<ConfigSection<'a>> {
        let at = self.read(key, |v| if let TomlValue::Table(table) = v { Some(table) } else { None })?;
        Some(ConfigSection { table: at.value, name: at.key, place: at.place })
    }

    /// The tables of a list, each with its own line. Other items are left out, see [`ConfigSection::texts`].
    pub(super) fn list_of_sections(&self, key: &str) -> Option<Vec<ConfigSection<'a>>> {
        let list = self.read(key, |v| if let TomlValue::List(list) = v { Some(list) } else { None })?;
        let section = |node: &'a TomlNode| match &node.value {
            TomlValue::Table(table) => Some(ConfigSection { table, name: list.key.clone(), place: node.place.clone() }),
            _ => None,
        };
        Some(list.value.iter().filter_map(section).collect())
    }

    /// The tables below this one, by name, with the location of the name.
    pub(super) fn sections(&self) -> Vec<(&'a str, ConfigSection<'a>)> {
        let one = |e: &'a TomlEntry| match &e.node.value {
            TomlValue::Table(table) => {
                let name = dotted(&self.name, &e.key);
                Some((e.key.as_str(), ConfigSection { table, name, place: e.place.clone() }))
            }
            _ => None,
        };
        self.table.entries.iter().filter_map(one).collect()
    }

    /// An absolute path; an invalid one becomes a problem.
    pub(super) fn path(&self, key: &str, problems: &mut Vec<ConfigProblem>) -> Option<PathBuf> {
        let at = self.text(key)?;
        accept(&at, value::absolute(at.value), problems)
    }
}

/// The value, or `None` after its error was added to the problems.
pub(super) fn accept<T, U>(
    at: &LocatedValue<U>,
    result: Result<T, ValueError>,
    problems: &mut Vec<ConfigProblem>,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            problems.push(at.problem(e.what).hint(e.hint));
            None
        }
    }
}
