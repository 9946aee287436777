//! `config/runner.toml` is made from the table of keys. After a change of the table, this writes it anew:
//! `UPDATE_REFERENCE=1 cargo nextest run --lib -E 'test(the_reference_is_what_the_table_says)'`.

use std::fmt::Write as _;

use super::parse;
use crate::config::key::{ConfigKey, ConfigTable, KeyExample, ValueForm};
use crate::config::keys::{FALLBACK_AFTER, PROBE_KINDS, PROBE_OPTIONS};
use crate::config::schema;
use crate::config::toml_document::dotted;

pub(super) const EXAMPLE: &str = include_str!("../../../config/runner.toml");

const WIDTH: usize = 120;

const HEAD: &str = "\
# runner: every key of the config, what it means, and its default. This file is made from the table in src/config/keys.rs.
#
# The file is the same on every node. It is read from --config FILE, else $RUNNER_CONFIG, else /etc/runner/runner.toml;
# then conf.d/*.toml beside it, in the order of their names. A key may stand in one file only. Unknown keys are refused.
# Durations have units: \"30s\", \"5m\", \"1h30m\", \"2d\". Sizes: \"20MiB\" (1024 based), \"20MB\" (1000 based), or plain bytes.
# `runner config check` reads the config without doing anything; `runner config show` prints what is in effect;
# `runner config schema` prints the JSON Schema for editors.
#
# Where no blank follows the #, the line is a setting: remove the # to use it. \"No effect in this version\" means that
# the key is accepted with a warning.
";

/// Appends a text as comment lines; the first one begins with `first`, the others are indented by as much.
fn comment(out: &mut String, first: &str, text: &str) {
    let mut line = format!("# {first}");
    let indent = first.chars().count();
    let mut is_fresh = true;
    for word in text.split_whitespace() {
        if !is_fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = format!("# {:indent$}", "");
            is_fresh = true;
        }
        line += if is_fresh { "" } else { " " };
        line += word;
        is_fresh = false;
    }
    let _ = writeln!(out, "{line}");
}

/// The probes, with their options.
fn probes(out: &mut String) {
    for kind in PROBE_KINDS {
        let _ = writeln!(out, "#   {{ {} = {} }}", kind.name, kind.example.text());
        comment(out, "      ", kind.doc);
        for (option, _) in PROBE_OPTIONS.iter().filter(|(_, owners)| owners.contains(&kind.name)) {
            comment(out, "      ", &format!("Option {} = {}: {}", option.name, option.example.text(), option.doc));
        }
    }
}

fn table(out: &mut String, path: &str, of: ConfigTable) {
    let is_table = |key: &&ConfigKey| {
        matches!(key.form, ValueForm::Table(_) | ValueForm::NamedTables(_) | ValueForm::ListedTables(_))
    };
    let (tables, values): (Vec<_>, Vec<_>) = of.keys().into_iter().partition(is_table);
    for (position, key) in values.into_iter().enumerate() {
        if position > 0 || path.is_empty() {
            out.push('\n');
        }
        comment(out, "", &key.documentation(of.default(key.name).as_deref()));
        match key.form {
            ValueForm::Probe => probes(out),
            ValueForm::Fallback => comment(
                out,
                "  ",
                &format!(
                    "Option {} = {}, beside a probe's: {}",
                    FALLBACK_AFTER.name,
                    FALLBACK_AFTER.example.text(),
                    FALLBACK_AFTER.doc
                ),
            ),
            _ => {}
        }
        let _ = writeln!(out, "{}{} = {}", mark(key), key.name, key.example.text());
    }
    for key in tables {
        out.push('\n');
        comment(out, "", &key.documentation(None));
        let name = dotted(path, key.name);
        let (name, header, inner) = match key.form {
            ValueForm::NamedTables(inner) => {
                let name = format!("{name}.{}", key.example.text());
                (name.clone(), format!("[{name}]"), inner)
            }
            ValueForm::Table(inner) => (name.clone(), format!("[{name}]"), inner),
            ValueForm::ListedTables(inner) => (name.clone(), format!("[[{name}]]"), inner),
            _ => unreachable!("the others are values"),
        };
        let _ = writeln!(out, "{}{header}", mark(key));
        table(out, &name, inner);
    }
}

/// What a line of the key begins with.
fn mark(key: &ConfigKey) -> &'static str {
    match key.example {
        KeyExample::Set(_) => "",
        KeyExample::Commented(_) => "#",
    }
}

#[test]
fn the_reference_is_what_the_table_says() {
    let mut made = HEAD.to_owned();
    table(&mut made, "", ConfigTable::Root);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/config/runner.toml"), &made).unwrap();
        return;
    }
    let differing = made.lines().zip(EXAMPLE.lines()).find(|(made, there)| made != there);
    assert!(made == EXAMPLE, "UPDATE_REFERENCE=1 writes it; the first difference: {differing:?}");
}

#[test]
fn every_key_has_a_documentation_in_whole_sentences() {
    let others = [ConfigTable::Dump, ConfigTable::NotifyChannel];
    for table in ConfigTable::HEADERS.map(|(_, table)| table).into_iter().chain(others) {
        for key in table.keys() {
            assert!(key.doc.ends_with('.') && !key.doc.contains('\n'), "{table:?}: {}: {}", key.name, key.doc);
        }
    }
}

#[test]
fn the_example_is_right_and_shows_every_key() {
    let settings = parse(EXAMPLE).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(settings.warnings, [], "what has no effect yet is commented out");

    let table =
        |line: &str| line.trim_start_matches('#').strip_prefix('[').map(|l| l.trim_matches(['[', ']']).to_owned());
    let mut shown = std::collections::BTreeSet::new();
    let mut path = String::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = table(line) {
            path = name.replace("role.app", "role.*").replace("\"app.sql\"", "*");
            shown.extend((1..=path.split('.').count()).map(|n| path.split('.').take(n).collect::<Vec<_>>().join(".")));
        } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ")
            && !key.contains(' ')
        {
            shown.insert(if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") });
        }
    }
    for key in schema::all_keys() {
        assert!(shown.contains(&key), "config/runner.toml does not show {key}");
    }
}

/// The text with the settings that are commented out.
pub(super) fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_examples_commented_lines_are_right_too() {
    for problem in parse(&uncommented(EXAMPLE)).unwrap_err().problems {
        let expected = ["not in this version yet", "stands beside", "is for channels of another kind"];
        let left_out = cfg!(not(all(feature = "s3", feature = "etcd"))) && problem.what.contains("was built without");
        assert!(left_out || expected.iter().any(|e| problem.what.contains(e)), "{problem}");
    }
}
