//! What a person looks at, and what a row of the table expects of it.
#![allow(unreachable_pub, reason = "a module of one test crate")]

use std::fs;
use std::path::Path;

use crate::site::{Site, words};
use crate::support::cli::TestNode;

/// A way in which nothing is backed up, and what is to be seen of it.
pub struct Way {
    /// What is wrong, as the table says it.
    pub what: &'static str,
    /// A part of the sentence that `whoami`, `status` and `--check` say.
    pub says: &'static str,
    /// The column RISKS of `status` has this word.
    pub risk: &'static str,
    /// The exit code of `whoami --check`.
    pub check: i32,
    /// The exit code of `audit`.
    pub audit: i32,
    /// The alert.
    pub alert: &'static str,
}

impl Way {
    /// Its row.
    fn row(&self) -> String {
        let Self { what, says, risk, check, audit, alert } = self;
        let health = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::try_from(*check).unwrap()];
        let audit = match audit {
            7 => "7, findings",
            4 => "4, cannot tell",
            other => panic!("{other} is green"),
        };
        format!("| {what} | “{says}” | `{risk}` | {check}, {health} | {audit} | `{alert}` |")
    }

    /// Looks from `node`.
    #[track_caller]
    pub fn is_seen(&self, node: &TestNode) {
        let Self { what, says, risk, .. } = self;
        let from = format!("{what}, seen from {}", node.name);
        let whoami = node.run(["whoami"]).expect(0);
        let text = folded(&whoami.stdout);
        assert!(text.contains(says), "{from}: whoami does not say {says:?}:\n{}", whoami.stdout);
        assert!(["WARNING", "CRITICAL", "UNKNOWN"].iter().any(|word| text.contains(word)), "{from}: {}", whoami.stdout);
        let status = node.run(["status"]).expect(0).stdout;
        assert!(folded(&status).contains(says), "{from}: status does not say {says:?}:\n{status}");
        let row = status.lines().find(|line| line.starts_with("app")).unwrap();
        assert!(row.contains(risk), "{from}: status shows no risk {risk:?}:\n{status}");
        let check = node.run(["whoami", "--check"]).expect(self.check);
        assert!(folded(&check.stdout).contains(says), "{from}: --check does not say {says:?}:\n{}", check.stdout);
        let first = check.stdout.lines().next().unwrap();
        assert!(first.chars().count() <= 120 && !first.starts_with("RUNNER OK"), "{from}: {first}");
        let audit = node.run(["audit"]);
        assert_eq!(audit.code, Some(self.audit), "{from}: audit\n{}{}", audit.stdout, words(&audit));
    }

    /// What was told of it, by any node.
    #[track_caller]
    pub fn is_told(&self, site: &Site) {
        let told = site.told();
        assert!(told.iter().any(|told| told["event"] == self.alert), "{}: told is only {told:?}", self.what);
    }
}

/// Text without its line breaks, which are anywhere.
fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The table of these rows stands in the docs, and no other.
pub fn is_documented(ways: &[&Way]) {
    let mut table = String::from(
        "| what is wrong | `whoami` and `status` say | RISKS | `--check` | `audit` | alert |\n|---|---|---|---|---|---|\n",
    );
    for way in ways {
        table += &way.row();
        table.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/HEALTH.md");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(&table), "docs/HEALTH.md has not this table:\n\n{table}");
}
