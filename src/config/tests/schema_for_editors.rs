//! The JSON Schema accepts what the program accepts, and marks the mistakes that an editor can see.

use regex::Regex;
use serde_json::{Value, json};

use super::reference::{EXAMPLE, uncommented};
use super::{SMALLEST, parse, role};
use crate::config::json_schema;
use crate::config::value;

/// What a document violates of a schema, with the keywords that this schema uses.
fn violations(schema: &Value, value: &Value, path: &str, whole: &Value) -> Vec<String> {
    if schema == false {
        return vec![format!("{path}: not allowed")];
    }
    let mut found = Vec::new();
    let unmet = |is_met: bool, keyword: &str| (!is_met).then(|| format!("{path}: {keyword}"));
    let object = schema.as_object().expect("a schema is an object");
    for (keyword, of) in object {
        match keyword.as_str() {
            "type" => {
                let kind = match value {
                    Value::String(_) => "string",
                    Value::Bool(_) => "boolean",
                    Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                    _ => "",
                };
                found.extend(unmet(
                    of == kind || of.as_array().is_some_and(|kinds| kinds.contains(&json!(kind))),
                    "type",
                ));
            }
            "enum" => found.extend(unmet(of.as_array().unwrap().contains(value), "enum")),
            "pattern" => {
                let pattern = Regex::new(of.as_str().unwrap()).unwrap();
                found.extend(unmet(value.as_str().is_none_or(|text| pattern.is_match(text)), "pattern"));
            }
            "minimum" => {
                found.extend(unmet(value.as_i64().is_none_or(|number| number >= of.as_i64().unwrap()), "minimum"));
            }
            "maximum" => {
                found.extend(unmet(value.as_i64().is_none_or(|number| number <= of.as_i64().unwrap()), "maximum"));
            }
            "minItems" => found.extend(unmet(value.as_array().is_none_or(|list| !list.is_empty()), "minItems")),
            "required" => {
                let is_there = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                found.extend(unmet(of.as_array().unwrap().iter().all(is_there), "required"));
            }
            "oneOf" | "anyOf" => {
                let fits = of.as_array().unwrap().iter().filter(|of| violations(of, value, path, whole).is_empty());
                let fits = fits.count();
                found.extend(unmet(if keyword == "oneOf" { fits == 1 } else { fits > 0 }, keyword));
            }
            "$ref" => {
                let of = whole.pointer(of.as_str().unwrap().trim_start_matches('#')).expect("it is defined");
                found.extend(violations(of, value, path, whole));
            }
            // These are looked at below, or say nothing of the value.
            "properties"
            | "additionalProperties"
            | "propertyNames"
            | "items"
            | "description"
            | "default"
            | "examples"
            | "title"
            | "$schema"
            | "$defs" => {}
            other => panic!("{path}: the keyword {other} is not checked here"),
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        if let Some(names) = object.get("propertyNames") {
            found.extend(violations(names, &json!(key), &path, whole));
        }
        match (object.get("properties").and_then(|keys| keys.get(key)), object.get("additionalProperties")) {
            (Some(of), _) | (None, Some(of)) => found.extend(violations(of, inner, &path, whole)),
            (None, None) => {}
        }
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(object.get("items").into_iter().flat_map(|of| violations(of, item, path, whole)));
    }
    found
}

/// What a config in TOML violates.
fn marked(text: &str) -> Vec<String> {
    let document: toml::Table = text.parse().unwrap_or_else(|e| panic!("{e}: {text}"));
    let schema = json_schema();
    violations(&schema, &serde_json::to_value(document).unwrap(), "", &schema)
}

#[test]
fn the_schema_accepts_the_reference_with_and_without_its_commented_lines() {
    assert_eq!(marked(EXAMPLE), [""; 0]);
    assert_eq!(marked(&uncommented(EXAMPLE)), [""; 0]);
    assert_eq!(marked(&parse(EXAMPLE).unwrap().render()), [""; 0]);
    assert_eq!(marked(SMALLEST), [""; 0]);
}

#[test]
fn the_schema_marks_what_the_program_refuses() {
    for (lines, where_) in [
        ("shedule = \"0 1 * * *\"", ".role.app.shedule: not allowed"),
        ("allow_empty = \"yes\"", ".role.app.allow_empty: type"),
        ("jitter = 5", ".role.app.jitter: type"),
        ("jitter = \"5\"", ".role.app.jitter: pattern"),
        ("exclude_larger_than = \"20 apples\"", ".role.app.exclude_larger_than: pattern"),
        ("exclude_larger_than = 0", ".role.app.exclude_larger_than: minimum"),
        ("takeover_trust = \"mtimes\"", ".role.app.takeover_trust: enum"),
        ("max_unused = 101", ".role.app.max_unused: maximum"),
        ("keep = { dayly = 3 }", ".role.app.keep.dayly: not allowed"),
        ("before = []", ".role.app.before: minItems"),
        ("environment = { \"A B\" = \"x\" }", ".role.app.environment.A B: pattern"),
        ("schedule = \"0 1 * *\"", ".role.app.schedule: pattern"),
        ("eligible = { vip = \"10.0.0.1\", command = [\"x\"] }", ".role.app.eligible: oneOf"),
        ("eligible = { vip = \"10.0.0.1\", after = \"5m\" }", ".role.app.eligible: oneOf"),
        ("eligible = { http = \"http://h/\", status = 99 }", ".role.app.eligible: oneOf"),
        ("eligible = { all = [{ vop = \"x\" }] }", ".role.app.eligible: oneOf"),
        ("exclude = [\"ok\", 3]", ".role.app.exclude: type"),
        ("dumps.x = { comand = [\"a\"] }", ".role.app.dumps.x.comand: not allowed"),
    ] {
        assert_eq!(marked(&role(lines)), [where_], "{lines}");
        assert!(parse(&role(lines)).is_err(), "{lines}");
    }
}

#[test]
fn the_patterns_accept_what_the_parsers_accept() {
    let pattern = |text: &str| Regex::new(text).unwrap();
    let durations = pattern(value::DURATION_PATTERN);
    for text in ["30s", "5m", "1h30m", "2d", "1 h 30 min", " 1day", "2days 3hours", "1.5h", "10us", "10µs", "1 0s"] {
        assert!(value::duration(text).is_ok(), "{text}");
        assert!(durations.is_match(text), "{text}");
    }
    let sizes = pattern(value::SIZE_PATTERN);
    for text in ["20MiB", "20 mb", "7", "1.5 KiB", "3b", "2gib", " 10TB "] {
        assert!(value::size(text).is_ok(), "{text}");
        assert!(sizes.is_match(text), "{text}");
    }
    for text in ["30", "soon", "-5m", ""] {
        assert!(!durations.is_match(text), "{text}");
    }
    for text in ["MiB", "20 apples", "-1", ""] {
        assert!(!sizes.is_match(text), "{text}");
    }
}
