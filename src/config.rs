//! Configuration: raw TOML in, checked settings out. Settings are always valid; no other module checks them again.
//!
//! The same file is used on every node. Nothing is guessed from the host: no time zone, no hostname, no environment
//! except the store's credentials and the directory of a service's systemd credentials.
//!
//! The steps: text → `toml_document` (a tree with locations) → `schema` (unknown keys, forms and bounds of values, keys
//! that have no effect yet) → `check` (whether the values make sense together) → [`Settings`]. All problems are
//! collected on the way; only at the end parsing fails. `keys` has one row for every key: from it come the check of form
//! and bounds, the reader, `config show`, the reference `config/runner.toml`, and the JSON Schema.

mod check;
mod checker;
mod environment;
mod environment_settings;
mod error;
mod field;
pub(crate) mod files;
mod json_schema;
mod key;
mod keys;
mod notify_settings;
pub mod pattern;
mod render;
mod schema;
mod section;
mod settings;
mod starter;
mod store_url;
pub mod systemd;
#[cfg(test)]
mod tests;
mod toml_document;
mod url;
pub mod value;

pub use environment::ConfigEnvironment;
pub use environment_settings::EnvironmentSettings;
pub use error::{ConfigError, ConfigLocation, ConfigProblem};
pub use json_schema::json_schema;
pub use notify_settings::{ALERT_EVENTS, NotifyChannelKind, NotifyChannelSettings, NotifySettings};
pub use settings::{
    DEFAULT_ROLE, DumpSettings, EtcdSettings, FallbackSettings, HookCommands, JournalPlacement, KeySource, LeaseKind,
    LeaseUnreachablePolicy, Probe, RetentionPolicy, RoleSettings, Schedule, Settings, StoreSettings, TakeoverTrust,
};
pub use starter::starter;
pub use store_url::StoreUrl;
pub use url::HttpUrl;
