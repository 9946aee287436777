//! The environment variables that the config adds to those of the programs it names. Pure.

use std::collections::BTreeMap;

/// The environment variables that started programs get, in addition to those that every program gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvironmentSettings {
    /// Variables with the given values.
    pub set: BTreeMap<String, String>,
    /// Variables that keep the value they have in this process, if they are set.
    pub pass: Vec<String>,
}
