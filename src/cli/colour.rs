//! The one place for colours: verdicts and labels, on a terminal that shows them. Pure: the terminal module decides
//! whether it does.

use anstyle::{AnsiColor, Style};

const BAD: Style = AnsiColor::Red.on_default().bold();
const ODD: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const LABEL: Style = AnsiColor::Cyan.on_default().bold();

/// Verdicts, anywhere in a line: reports write nothing else in capitals.
const ANYWHERE: &[(&str, Style)] = &[
    ("BROKEN", BAD),
    ("CONFLICT", BAD),
    ("CRITICAL", BAD),
    ("DAMAGED", BAD),
    ("DUPLICATE", BAD),
    ("ERROR", BAD),
    ("FAILED", BAD),
    ("FINDING", BAD),
    ("FINDINGS", BAD),
    ("GONE", BAD),
    ("HOLE", BAD),
    ("MISSED", BAD),
    ("BACKDATED", ODD),
    ("FLAPPING", ODD),
    ("INCOMPLETE", ODD),
    ("PAUSED", ODD),
    ("UNKNOWN", ODD),
    ("WARN", ODD),
    ("WARNING", ODD),
];

/// Words that are verdicts only at the beginning of a line.
const FIRST: &[(&str, Style)] = &[
    ("error:", BAD),
    ("ALL", ODD),
    ("CANNOT", ODD),
    ("FUTURE", ODD),
    ("LATE", ODD),
    ("NOT", ODD),
    ("SAME", ODD),
    ("warning:", ODD),
    ("hint:", LABEL),
    ("Usage:", LABEL),
];

/// Words that are verdicts only after the name at the beginning of a line: `app: ACTIVE`.
const AFTER_NAME: &[(&str, Style)] = &[("ACTIVE", GOOD), ("CANNOT", ODD)];

/// `text`, which is safe to show, with its verdicts in colour.
pub(super) fn paint(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut words, mut after_name) = (0, false);
    for part in line.split_inclusive([' ', '\n']) {
        let word = part.trim_end_matches([' ', '\n']);
        let bare = word.trim_matches(['(', ')', ',', ';', '.', ':']);
        let style =
            |table: &[(&str, Style)], word| table.iter().find(|(name, _)| *name == word).map(|(_, style)| *style);
        let found = match words {
            0 => style(FIRST, word).or_else(|| style(FIRST, bare)),
            _ if after_name => style(AFTER_NAME, bare),
            _ => None,
        };
        match found.or_else(|| style(ANYWHERE, bare)) {
            Some(style) => out += &format!("{style}{word}{style:#}{}", &part[word.len()..]),
            None => out += part,
        }
        if !word.is_empty() {
            after_name = words == 0 && word.ends_with(':');
            words += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_and_labels_are_painted_and_nothing_else() {
        for (text, shown) in [
            ("error: no\nhint: do\n", "[error:] no\n[hint:] do\n"),
            ("app: FAILED — nothing committed: x", "app: [FAILED] — nothing committed: x"),
            ("app: ACTIVE\n  note    ACTIVE", "app: [ACTIVE]\n  note    ACTIVE"),
            ("  LATE       the slot\n  was LATE", "  [LATE]       the slot\n  was LATE"),
            ("app  CONFLICT  east  7", "app  [CONFLICT]  east  7"),
            ("app: 3 FINDINGS since (INCOMPLETE)", "app: 3 [FINDINGS] since [(INCOMPLETE)]"),
            ("lost: /srv/FAILED/x in WARNINGS", "lost: /srv/FAILED/x in WARNINGS"),
            ("a file named hint: x", "a file named hint: x"),
        ] {
            let mut painted = paint(text);
            for style in [BAD, ODD, GOOD, LABEL] {
                painted =
                    painted.replace(&style.render().to_string(), "[").replace(&style.render_reset().to_string(), "]");
            }
            assert_eq!(painted, shown);
        }
    }
}
