//! `init` and the `key` commands. Pure.

use std::path::Path;

use jiff::tz::TimeZone;

use super::layout::PageLayout;
use crate::cli::units::{counted, time};
use crate::config::{JournalPlacement, KeySource};
use crate::ids::KeyId;
use crate::job::report::ADVICE;
use crate::job::report::setup::{InitReport, InitRoleReport, KeyChange, KeyReport, KeyRotation, KeySlotKind};

/// One line per role, then what a person must do with each key, once.
pub fn init(report: &InitReport, page: PageLayout) -> String {
    let mut out = match &report.new_identity {
        Some(id) => page.wrap("", 2, &format!("this node is a new one now: {id}")),
        None => String::new(),
    };
    out += &report.roles.iter().map(|one| role(one, page)).collect::<String>();
    if report.roles.iter().any(|role| role.created && !role.shared) {
        out += "\n";
        out += &page.wrap("", 0, ONE_DIRECTORY);
    }
    let mut seen: Vec<&KeySource> = Vec::new();
    for role in &report.roles {
        if !seen.contains(&&role.key) {
            seen.push(&role.key);
            let made = report.roles.iter().any(|r| r.key == role.key && r.key_file_created);
            out += "\n";
            let created = report.roles.iter().any(|r| r.key == role.key && r.created);
            out += &page.wrap("", 0, &key_copy_advice(&role.key, made, created));
        }
    }
    out
}

/// The warning about a store in a directory: two nodes with a directory each would both be active, and neither would
/// ever see the other.
const ONE_DIRECTORY: &str = "The store is a directory: every node of a role must reach this same directory, by NFS \
                             for example. Nodes with separate directories write separate histories, and each node \
                             counts itself as active.";

fn role(role: &InitRoleReport, page: PageLayout) -> String {
    if !role.created {
        return page.wrap(
            &format!("{}: ", role.role),
            2,
            &format!("the repository is there already, in {}", role.store),
        );
    }
    let proof = match (role.journal, role.proof_rounds) {
        (JournalPlacement::Etcd, _) => "journal in etcd".to_owned(),
        (_, rounds) => format!("journal in the store, which passed {rounds} rounds of racing writers"),
    };
    page.wrap(&format!("{}: ", role.role), 2, &format!("repository created in {}; {proof}", role.store))
}

fn key_copy_advice(key: &KeySource, made: bool, created: bool) -> String {
    match key {
        KeySource::KeyFile(file) => {
            let made = match (made, created) {
                (true, _) => "A new key was made. ",
                (false, true) => {
                    "The key existed before. If another node made backups of this role with it, they are in another \
                     store: check [store] url and what is mounted there. "
                }
                (false, false) => "",
            };
            format!(
                "{made}Copy {} to the same place on every other node and to a safe place. Without it the backups are \
                 lost.",
                file.display()
            )
        }
        KeySource::PassphraseFile(file) => format!(
            "Every other node needs the same passphrase in {}. Keep it in a safe place, too. Without it the backups \
             are lost.",
            file.display()
        ),
        KeySource::None => {
            "NOT ENCRYPTED (encryption = \"none\"): anyone who can read the store can read the backups.".to_owned()
        }
    }
}

/// What happened to the key slots, and which there are.
pub fn keys(report: &KeyReport, page: PageLayout) -> String {
    let role = &report.role;
    let mut out = match &report.change {
        KeyChange::None => page.wrap("", 2, &format!("{role}: {}", counted(report.slots.len() as u64, "key", "keys"))),
        KeyChange::Exported(file) => exported(role.as_str(), file, page),
        KeyChange::Added(id) => page.wrap("", 2, &format!("{role}: key {id} added")),
        KeyChange::Removed(id) => page.wrap(
            &format!("{role}: "),
            2,
            &format!(
                "key {id} removed. It opens nothing from now on. A person who had it before may have kept the \
                 repository key, which stays the same. {ADVICE}to protect new backups from that person, run: runner \
                 key rotate {role}"
            ),
        ),
        KeyChange::Rotated(rotation) => rotated(role.as_str(), rotation, page),
    };
    for slot in &report.slots {
        let kind = match slot.kind {
            KeySlotKind::KeyFile => "key file",
            KeySlotKind::Passphrase => "passphrase",
            KeySlotKind::Unreadable => "cannot be read",
        };
        let mut words = vec![time(slot.written, &TimeZone::UTC)];
        words.extend(
            (!report.generation.is_first() || !slot.generation.is_first())
                .then(|| format!("generation {}", slot.generation)),
        );
        // A key that does not open the slot cannot tell.
        words.extend(
            (slot.generation > report.generation).then(|| "(its own claim; this key cannot check it)".to_owned()),
        );
        words.extend(slot.opened.then(|| " opened the repository for this command".to_owned()));
        words.extend(slot.problem.as_ref().map(|problem| format!(" {problem}")));
        out += &page.wrap(&format!("  {}  {kind:<14}  ", slot.id), 20, &words.join(" "));
    }
    if report.passed_over > 0 {
        let many = format!(
            "{} more were not read: no repository needs so many. {ADVICE}find out who writes to the store.",
            report.passed_over
        );
        out += &page.wrap("  ", 2, &many);
    }
    out
}

fn rotated(role: &str, rotation: &KeyRotation, page: PageLayout) -> String {
    let generation = rotation.generation;
    let list = |ids: &[KeyId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut sentences = vec![if rotation.dry_run && rotation.finished {
        format!("the rotation to generation {generation} of the repository key was interrupted, and would be finished.")
    } else if rotation.dry_run {
        format!("generation {generation} of the repository key would be made. Nothing was changed.")
    } else if rotation.finished {
        format!("the rotation to generation {generation} of the repository key was interrupted, and is finished now.")
    } else {
        format!(
            "the repository key is rotated: what is written from now on is of generation {generation}, and does not \
             open with the old key. The old key still opens what was written before."
        )
    }];
    let removed = if rotation.dry_run { "would be removed" } else { "removed" };
    sentences.extend((!rotation.removed.is_empty()).then(|| format!("Keys {removed}: {}.", list(&rotation.removed))));
    sentences.extend((!rotation.left.is_empty()).then(|| {
        format!("The store does not allow deleting {}: they still open what was written before.", list(&rotation.left))
    }));
    sentences.extend(rotation.created_file.as_ref().map(|file| {
        format!(
            "A new key was made in {}. Copy it to every node, to where the config says, and keep a copy in a safe place: without it what is \
             written from now on is lost.",
            file.display()
        )
    }));
    page.wrap(&format!("{role}: "), 2, &sentences.join(" "))
}

fn exported(role: &str, file: &Path, page: PageLayout) -> String {
    page.wrap(
        &format!("{role}: "),
        2,
        &format!("key written to {}. This file opens the backups: keep it safe.", file.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::ids::{KeyGeneration, RepoId};
    use crate::job::report::setup::KeySlotInfo;

    fn created(name: &str, key: KeySource, key_file_created: bool) -> InitRoleReport {
        InitRoleReport {
            role: name.parse().unwrap(),
            store: "s3://backups/prod".to_owned(),
            repository: RepoId([0x5a; 16]),
            created: true,
            journal: JournalPlacement::Bucket,
            proof_rounds: 20,
            key,
            key_file_created,
            shared: true,
        }
    }

    #[test]
    fn init_says_once_which_key_to_copy() {
        let file = KeySource::KeyFile("/etc/runner/repository.key".into());
        let report = InitReport {
            new_identity: None,
            roles: vec![
                created("app", file.clone(), true),
                created("orders-db", file, false),
                InitRoleReport {
                    created: false,
                    ..created("mail", KeySource::PassphraseFile("/etc/runner/phrase".into()), false)
                },
                created("public", KeySource::None, false),
            ],
        };
        samples::assert_fits(|view| init(&report, view.page));
        insta::assert_snapshot!(init(&report, PageLayout::FILE));
    }

    #[test]
    fn a_directory_is_to_be_the_same_one_for_every_node() {
        let role = |created| InitRoleReport {
            created,
            shared: false,
            store: "file:///var/backups/runner".to_owned(),
            ..self::created("app", KeySource::KeyFile("/etc/runner/repository.key".into()), false)
        };
        let said = |created| init(&InitReport { new_identity: None, roles: vec![role(created)] }, PageLayout::FILE);
        insta::assert_snapshot!(said(true));
        assert!(!said(false).contains("NFS"), "it was said when it was made");
    }

    fn slot(id: u8, kind: KeySlotKind, problem: Option<&str>) -> KeySlotInfo {
        let (id, written, problem) = (KeyId([id; 8]), samples::at("2026-11-21T10:00:00Z"), problem.map(str::to_owned));
        KeySlotInfo { id, generation: KeyGeneration(0), kind, written, opened: false, problem }
    }

    #[test]
    fn keys_are_listed_after_every_change() {
        let slots = vec![
            slot(0x3f, KeySlotKind::KeyFile, None),
            KeySlotInfo { opened: true, ..slot(0x40, KeySlotKind::Passphrase, None) },
            slot(0x42, KeySlotKind::Unreadable, Some("the key slot is damaged (its content does not match its name)")),
        ];
        let report = |change| KeyReport {
            role: samples::app(),
            change,
            generation: KeyGeneration(0),
            slots: slots.clone(),
            passed_over: 3,
        };
        let texts = [
            KeyChange::None,
            KeyChange::Exported("/root/app.key".into()),
            KeyChange::Added(KeyId([0x40; 8])),
            KeyChange::Removed(KeyId([0x41; 8])),
            KeyChange::Rotated(KeyRotation {
                written: vec![KeyId([0x43; 8])],
                removed: vec![KeyId([0x3f; 8])],
                left: vec![KeyId([0x40; 8])],
                created_file: Some("/etc/runner/new.key".into()),
                ..KeyRotation::of(KeyGeneration(1))
            }),
            KeyChange::Rotated(KeyRotation { dry_run: true, ..KeyRotation::of(KeyGeneration(1)) }),
            KeyChange::Rotated(KeyRotation { finished: true, ..KeyRotation::of(KeyGeneration(1)) }),
        ]
        .map(|change| keys(&report(change), PageLayout::FILE));
        insta::assert_snapshot!(texts.join("\n"));
    }
}
