//! A command line that is refused: clap's text, and as the last line a hint, as with every error.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::error::ADVICE;
use super::exit::ExitKind;
use super::json;
use crate::cli::command_error::UsageError;

/// The last line of clap's texts. It does not say which command's help is meant.
const CLAPS_ADVICE: &str = "For more information, try '--help'.";

/// How clap suggests a similar word.
const CLAPS_TIP: &str = "  tip: ";

/// The command that these words name, with the names of its parents.
fn command_named_by<'a>(command: &'a Command, words: &[OsString]) -> (&'a Command, Vec<&'a str>) {
    let (mut command, mut path) = (command, vec!["runner"]);
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        if word == "--" {
            break;
        }
        if let Some(below) = command.find_subcommand(word) {
            command = below;
            path.push(below.get_name());
        }
    }
    (command, path)
}

/// The hint for an option whose value follows a blank, but which takes it only after `=`.
fn missing_equals_hint(command: &Command, error: &clap::Error, words: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidArg) else { return None };
    let at = words
        .iter()
        .position(|word| word.to_str() == Some(value))
        .filter(|_| error.kind() == ErrorKind::UnknownArgument)?;
    let option = words[at.checked_sub(1)?].to_str()?.strip_prefix("--")?;
    let takes_it = |arg: &clap::Arg| arg.get_long() == Some(option) && arg.is_require_equals_set();
    command
        .get_arguments()
        .any(takes_it)
        .then(|| format!("write the value of --{option} after '=': --{option}={value}"))
}

/// The hint.
fn usage_hint(command: &Command, error: &clap::Error, words: &[OsString]) -> String {
    let (command, path) = command_named_by(command, words);
    let help = format!("'{} --help' tells what it takes.", path.join(" "));
    missing_equals_hint(command, error, words).map_or_else(|| help.clone(), |more| format!("{more}. {help}"))
}

/// The text for standard error, and with `--json` the document for standard output.
pub fn refusal(command: &Command, error: &clap::Error, words: &[OsString]) -> (String, Option<String>) {
    let said = error.render().to_string();
    let advice = || usage_hint(command, error, words);
    let text = said.replacen(CLAPS_TIP, ADVICE, 1).replacen(CLAPS_ADVICE, &format!("{ADVICE}{}", advice()), 1);
    let wants_json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let document = wants_json.then(|| {
        let paragraph = said.split("\n\n").next().unwrap_or_default();
        let what = paragraph.strip_prefix("error: ").unwrap_or(paragraph).trim_end().to_owned();
        let error = UsageError { message: what, hint: advice() };
        json::error(&error, ExitKind::Usage, Some(&error.hint))
    });
    (text, document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn refused(line: &str) -> (String, Option<String>) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = args::parse(&words).map(|_| ()).unwrap_err();
        refusal(&args::shown_command(), &error, &words)
    }

    #[test]
    fn each_refusal_ends_with_the_help_that_is_meant() {
        for (line, help) in [
            ("runner staus", "'runner --help'"),
            ("runner backup --schedule", "'runner backup --help'"),
            ("runner snapshots", "'runner snapshots --help'"),
            ("runner --node x audit app --since yesterday", "'runner audit --help'"),
            ("runner key lst app", "'runner key --help'"),
            ("runner key add app --nope", "'runner key add --help'"),
            ("runner backup --config", "'runner backup --help'"),
            ("runner exec app status", "'runner exec --help'"),
            ("runner restore app --overwrite sometimes", "'runner restore --help'"),
            ("runner completions tcsh", "'runner completions --help'"),
            ("runner -v -q status", "'runner status --help'"),
        ] {
            let (text, document) = refused(line);
            let last = text.trim_end().lines().last().unwrap_or_default();
            assert!(last.starts_with("hint: ") && last.contains(help), "{line}: {text}");
            assert!(!text.contains("tip:") && !text.contains("For more information") && document.is_none(), "{text}");
        }
        assert!(refused("runner staus").0.contains("hint: some similar subcommands exist: "));
    }

    #[test]
    fn a_value_behind_a_blank_is_told_where_it_stands() {
        let text = refused("runner verify app --read-data 5").0;
        assert!(
            text.contains("hint: write the value of --read-data after '=': --read-data=5. 'runner verify"),
            "{text}"
        );
    }

    #[test]
    fn a_program_that_asks_for_json_gets_its_document() {
        let document = refused("runner --json staus").1.unwrap();
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["error"]["message"], "unrecognized subcommand 'staus'");
        assert_eq!(document["error"]["exit"], 2);
        assert_eq!(document["error"]["hint"], "'runner --help' tells what it takes.");
        assert!(refused("runner exec app ls -- x --json").1.is_none(), "it is the command's");
    }
}
