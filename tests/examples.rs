//! What the documentation shows must be accepted by the program: every config in the README. (`config/runner.toml` is
//! tested by the config's own tests.)

use std::fs;
use std::path::{Path, PathBuf};

use runner::config::{ConfigEnvironment, Settings};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails unless the text is a valid config without warnings.
#[track_caller]
fn accept(text: &str) {
    let file = PathBuf::from("/etc/runner/runner.toml");
    let settings = Settings::parse(&[(file, text.to_owned())], &ConfigEnvironment::default())
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert!(settings.warnings.is_empty(), "{:?}\n{text}", settings.warnings);
}

#[test]
fn the_configs_in_the_readme_are_valid() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```toml" {
            blocks.push(lines.by_ref().take_while(|l| l.trim() != "```").collect::<Vec<_>>().join("\n"));
        }
    }
    assert_eq!(blocks.len(), 3, "the two quick starts, and etcd");
    for block in blocks {
        // A config of a store or of etcd alone is a part of one.
        let store = "[store]\nurl = \"file:///mnt/backup/runner\"\nkey_file = \"/etc/runner/repository.key\"\n";
        let role = "\n[role.app]\nsources = [\"/srv/app\"]\n";
        let lease = if block.contains("[etcd]") { "" } else { "lease = \"none\"\n" };
        let store = if block.contains("[store]") { "" } else { store };
        let role = if block.contains("[role.") { String::new() } else { format!("{role}{lease}") };
        accept(&format!("{store}{block}{role}"));
    }
}
