//! The verbs in groups, as the program's own help lists them: by what a person is about to do.

use clap::Command;

use crate::cli::terminal;

/// Each verb stands in one of these.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Set up", &["config", "init", "key", "notify"]),
    ("Back up", &["backup", "daemon", "exec", "is-active", "prune"]),
    ("Show the state", &["whoami", "status", "audit", "verify"]),
    ("Look inside and restore", &["snapshots", "ls", "cat", "find", "diff", "restore"]),
    ("Operate and repair", &["takeover", "pause", "resume", "journal", "repair"]),
    ("Other", &["completions", "man", "help"]),
];

/// Where the texts about verbs begin.
const COLUMN: usize = 15;

/// `command` with a help that lists its verbs in groups. Completions and manual pages are made of the command without it.
pub(super) fn grouped(command: Command) -> Command {
    let columns = terminal::output_columns().map_or(HELP_WIDTH_MAX, |columns| columns.min(HELP_WIDTH_MAX));
    let list: String = GROUPS.iter().map(|(title, verbs)| group(&command, title, verbs, columns)).collect();
    let template = format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}{{all-args}}{{after-help}}");
    command.override_usage("runner [OPTIONS] <COMMAND>").mut_subcommands(|verb| verb.hide(true)).help_template(template)
}

fn group(command: &Command, title: &str, verbs: &[&str], columns: usize) -> String {
    let mut out = format!("{title}:\n");
    for verb in verbs {
        let about = command.find_subcommand(verb).and_then(Command::get_about).map(ToString::to_string);
        let about = about.unwrap_or_else(|| "Print this message, or the help of a command".to_owned());
        let mut line = format!("  {verb:<width$}", width = COLUMN - 2);
        for word in about.split(' ') {
            if line.len() > COLUMN && line.len() + 1 + word.len() > columns {
                out += line.trim_end();
                out.push('\n');
                line = " ".repeat(COLUMN);
            }
            if line.len() > COLUMN {
                line.push(' ');
            }
            line += word;
        }
        out += &line;
        out.push('\n');
    }
    out.push('\n');
    out
}

/// The widest a help text gets, in columns; a narrower terminal wraps earlier.
pub(crate) const HELP_WIDTH_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_to_the_width() {
        let command = super::super::command();
        for columns in [40, 60, 80] {
            for (title, verbs) in GROUPS {
                let list = group(&command, title, verbs, columns);
                assert!(list.lines().all(|line| line.len() <= columns), "{list}");
            }
        }
    }

    #[test]
    fn each_verb_stands_in_one_group() {
        let command = super::super::command();
        let mut all: Vec<&str> = command.get_subcommands().map(Command::get_name).chain(["help"]).collect();
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        all.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, all);
    }
}
