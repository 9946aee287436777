//! The problems of a config, each with all that is needed to fix it without the manual: file, line, key, what to write.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::text::ADVICE;

/// A location in the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigLocation {
    /// The file; `None` for what came from the command line.
    pub file: Option<Arc<PathBuf>>,
    /// The line, from 1; `None` for the whole file.
    pub line: Option<usize>,
}

impl ConfigLocation {
    /// A location outside of all files.
    pub fn nowhere() -> Self {
        Self { file: None, line: None }
    }

    /// The location of a whole file.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(Arc::new(file.into())), line: None }
    }
}

impl fmt::Display for ConfigLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}", file.display()),
            (Some(file), None) => write!(f, "{}", file.display()),
            (None, _) => f.write_str("command line"),
        }
    }
}

/// A problem of the config, or (as a warning) something that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The location of the problem.
    pub place: ConfigLocation,
    /// The dotted key, `role.app.schedule`; empty if no key is concerned.
    pub key: String,
    /// The problem, in one clause.
    pub what: String,
    /// Hints what to do, one line each.
    pub hints: Vec<String>,
}

impl ConfigProblem {
    /// A problem without hints yet.
    pub fn new(place: &ConfigLocation, key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.clone(), key: key.into(), what: what.into(), hints: Vec::new() }
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// The width that every terminal shows without wrapping.
const WIDTH: usize = 80;

const INDENT: &str = "    ";

/// Breaks a text at blanks: the first line begins with `first`, the others are indented by `indent` columns. A word
/// that is too long stays whole: it is a path or a piece of TOML to copy.
fn wrap(first: &str, indent: usize, text: &str) -> Vec<String> {
    let mut lines = vec![first.to_owned()];
    let mut is_fresh = true;
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always a line");
        if !is_fresh && last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{:indent$}{word}", ""));
        } else {
            last.extend((!is_fresh).then_some(' '));
            last.push_str(word);
        }
        is_fresh = false;
    }
    lines
}

impl ConfigProblem {
    /// The location, the key and the problem.
    fn head(&self) -> String {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        format!("{}: {key}", self.place)
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head();
        let one_line = head.chars().count() + self.what.chars().count() <= WIDTH;
        if one_line {
            write!(f, "{head}{}", self.what)?;
        } else {
            f.write_str(head.trim_end())?;
            for line in wrap(INDENT, INDENT.len(), &self.what) {
                write!(f, "\n{line}")?;
            }
        }
        let (first, further) = (format!("{INDENT}{ADVICE}"), format!("{INDENT}  "));
        for (i, hint) in self.hints.iter().enumerate() {
            for line in wrap(if i == 0 { &first } else { &further }, further.len(), hint) {
                write!(f, "\n{line}")?;
            }
        }
        Ok(())
    }
}

/// All problems of a config, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems; never empty.
    pub problems: Vec<ConfigProblem>,
}

impl ConfigError {
    /// An error with a single problem.
    pub fn one(problem: ConfigProblem) -> Self {
        Self { problems: vec![problem] }
    }

    /// The problems, one line each.
    pub fn what(&self) -> String {
        let lines: Vec<String> =
            self.problems.iter().map(|problem| format!("{}{}", problem.head(), problem.what)).collect();
        lines.join("\n")
    }

    /// The hints, one line each.
    pub fn hints(&self) -> Option<String> {
        let hints: Vec<&str> = self.problems.iter().flat_map(|problem| &problem.hints).map(String::as_str).collect();
        (!hints.is_empty()).then(|| hints.join("\n"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
