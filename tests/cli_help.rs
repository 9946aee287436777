//! What the program says about itself: every help text is a snapshot, fits 80 columns and has an example.

use runner::cli::args;

/// Every command with its full name, the program itself first.
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(name: &str, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
        all.push((name.to_owned(), command.clone()));
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            walk(&format!("{name}-{}", sub.get_name()), sub, all);
        }
    }
    let mut root = args::shown_command().term_width(80);
    root.build();
    let mut all = Vec::new();
    walk("runner", &root, &mut all);
    all
}

#[test]
fn help_of_every_command() {
    let all = commands();
    for (name, command) in &all {
        // What --help prints: the root must not know its subcommands here, or they would be looked up again.
        let text = command.clone().try_get_matches_from([name.as_str(), "--help"]).unwrap_err().to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        insta::assert_snapshot!(name.clone(), text);
    }
    assert_eq!(all.len(), 40, "a command came or went: {:?}", all.iter().map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn every_command_has_an_example() {
    for (name, command) in commands() {
        if command.has_subcommands() {
            continue;
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let typed = name.replace("runner-is-active", "runner is-active").replacen('-', " ", 2);
        let typed = if name == "runner-is-active" { "runner is-active".to_owned() } else { typed };
        assert!(after.contains(&typed), "{name}: no `{typed}` in {after:?}");
    }
}

#[test]
fn examples_are_valid_commands() {
    for (name, command) in commands() {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in after.lines() {
            let line = line.trim_start_matches("Example:").trim();
            let Some(line) = line.split([';', '>', '&']).next().filter(|l| l.starts_with("runner ")) else { continue };
            let words = line.split_whitespace().map(|w| w.trim_matches('\''));
            assert!(
                args::parse(words).is_ok(),
                "{name}: {line}: {}",
                args::parse(line.split_whitespace()).unwrap_err()
            );
        }
    }
}
