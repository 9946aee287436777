//! The table of keys as a JSON Schema (draft 2020-12), for editors. It accepts each file that the program accepts; what
//! depends on several keys, it does not see.
//!
//! Pure.

use serde_json::{Map, Value, json};

use super::key::{ConfigKey, ConfigTable, TextForm, ValueForm};
use super::keys::{FALLBACK_AFTER, PROBE_KINDS, PROBE_OPTIONS};
use super::value::{DURATION_PATTERN, HEADER_PATTERN, SIZE_PATTERN, STATUSES, VARIABLE_PATTERN};

/// The schema of one file of the config. Nothing is required: a file in `conf.d` may have a part of a table.
pub fn json_schema() -> Value {
    let mut schema = table(ConfigTable::Root);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("The config of runner");
    schema["$defs"] = json!({ "probe": probe(false), "fallback": probe(true) });
    schema
}

fn table(of: ConfigTable) -> Value {
    closed(of.keys().into_iter().map(|key| described(key, of.default(key.name).as_deref())), &[])
}

/// An object that has these keys and no others.
fn closed(properties: impl IntoIterator<Item = (String, Value)>, required: &[&str]) -> Value {
    let properties: Map<String, Value> = properties.into_iter().collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// The schema of a key's value, with its documentation, its default and an example.
fn described(key: &ConfigKey, default: Option<&str>) -> (String, Value) {
    let mut value = form(key.form);
    value["description"] = json!(key.documentation(default));
    if let Some(default) = default.and_then(toml_value) {
        value["default"] = default;
    }
    if !matches!(key.form, ValueForm::Table(_) | ValueForm::NamedTables(_) | ValueForm::ListedTables(_))
        && let Some(example) = toml_value(key.example.text())
    {
        value["examples"] = json!([example]);
    }
    (key.name.to_owned(), value)
}

/// A value in TOML as JSON.
fn toml_value(text: &str) -> Option<Value> {
    let mut document: toml::Table = format!("value = {text}").parse().ok()?;
    serde_json::to_value(document.remove("value")?).ok()
}

fn form(form: ValueForm) -> Value {
    match form {
        ValueForm::Text(form) => text(form),
        ValueForm::Flag => json!({ "type": "boolean" }),
        ValueForm::Duration(_) => json!({ "type": "string", "pattern": DURATION_PATTERN }),
        ValueForm::Size => json!({ "type": ["string", "integer"], "pattern": SIZE_PATTERN, "minimum": 1 }),
        ValueForm::Word(words) => json!({ "enum": words() }),
        ValueForm::Words(words) => json!({ "type": "array", "items": { "enum": words() }, "minItems": 1 }),
        ValueForm::Texts(form) => json!({ "type": "array", "items": text(form) }),
        ValueForm::Command => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        ValueForm::Table(of) => table(of),
        ValueForm::NamedTables(of) => json!({ "type": "object", "additionalProperties": table(of) }),
        ValueForm::ListedTables(of) => json!({ "type": "array", "items": table(of) }),
        ValueForm::Headers => json!({
            "type": "object",
            "propertyNames": { "pattern": HEADER_PATTERN },
            "additionalProperties": { "type": "string" },
        }),
        ValueForm::Variables => json!({
            "type": "object",
            "propertyNames": { "pattern": VARIABLE_PATTERN },
            "additionalProperties": { "type": "string" },
        }),
        ValueForm::VariableNames => {
            json!({ "type": "array", "items": { "type": "string", "pattern": VARIABLE_PATTERN } })
        }
        ValueForm::Count(to) => json!({ "type": "integer", "minimum": 0, "maximum": to }),
        ValueForm::Statuses => {
            let status = json!({ "type": "integer", "minimum": STATUSES.start(), "maximum": STATUSES.end() });
            json!({ "anyOf": [status, { "type": "array", "items": status, "minItems": 1 }] })
        }
        ValueForm::Probe => json!({ "$ref": "#/$defs/probe" }),
        ValueForm::Fallback => json!({ "$ref": "#/$defs/fallback" }),
        ValueForm::Probes => json!({ "type": "array", "items": { "$ref": "#/$defs/probe" }, "minItems": 1 }),
    }
}

fn text(form: TextForm) -> Value {
    let pattern = match form {
        TextForm::Plain => return json!({ "type": "string" }),
        TextForm::Path => "^/",
        TextForm::SecretPath => "^(/|credential:[^/]+$)",
        TextForm::StoreUrl => "^(s3://[^/]|file:///|/)",
        TextForm::HttpUrl => "^https?://",
        TextForm::Cron => r"^\s*\S+(\s+\S+){4}\s*$",
    };
    json!({ "type": "string", "pattern": pattern })
}

/// A probe: one of the kinds, each with its options.
fn probe(is_fallback: bool) -> Value {
    let kinds = PROBE_KINDS.iter().map(|kind| {
        let options = PROBE_OPTIONS.iter().filter(|(_, owners)| owners.contains(&kind.name)).map(|(option, _)| option);
        let after = is_fallback.then_some(&FALLBACK_AFTER);
        let keys = [kind].into_iter().chain(options).chain(after);
        let mut object = closed(keys.map(|key| described(key, None)), &[kind.name]);
        object["description"] = json!(kind.doc);
        object
    });
    json!({ "oneOf": kinds.collect::<Vec<Value>>() })
}
