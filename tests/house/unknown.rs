//! An error is not an answer: what could not be read from a store, a lease or a file is unknown, and never nothing. Where it may count as
//! nothing, the table says why.

use std::collections::BTreeSet;

use super::{sources, without_tests};

/// What makes nothing of an error.
const MAKES_NOTHING: &[&str] = &[".ok()", ".unwrap_or_default()", ".unwrap_or("];

/// What comes from a store, a lease, a file or another process: an answer that was awaited, or a small file that was read.
const ASKS: &[&str] = &[".await", "files.read(", "env.read_json("];

/// The file, a part of the line, and why nothing is right there.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "cli/commands/whoami.rs",
        "daemon_node_id(context, IDENTITY_GLANCE)",
        "who does not hear it from the daemon reads the identity itself",
    ),
    ("daemon/client.rs", "unwrap_or(Err(ClientError::Silent", "it stays an error"),
    ("daemon/socket.rs", "read_until", "the caller hung up"),
    ("daemon/socket.rs", "RoleCommand::Status", "the role's task has ended"),
    ("daemon/socket.rs", "replied.await", "the role's task has ended"),
    ("daemon/socket.rs", "timeout(PAUSE, asked)", "a role that does not answer is left out, and counts as not told"),
    ("env.rs", "self.result.await", "the task has ended"),
    ("env.rs", "told.await", "the task has ended"),
    ("job/local_state/authors.rs", "self.file()", "without a mark nothing is judged by the notes"),
    ("job/repository/read_only.rs", "self.journal.read(Some(&self.view))", "all that was met stays met"),
    ("job/repository/known_repository.rs", "schedules_file", "a cache: slots are owed from the last commit then"),
    ("job/local_state.rs", "slot_file()", "a hint: every slot is tried"),
    ("job/local_state.rs", "files.read(&path)", "it is written again"),
    ("job/local_state.rs", "FORMAT_FILE", "a further copy; without it repair says that there is none"),
    ("job/local_state.rs", "SLOT_OBJECT_FILE", "a further copy; without it repair says that there is none"),
    ("job/local_state.rs", "files.read(lock)", "a number for people"),
    ("job/restore/repository.rs", "read(Some(&known.view))", "what is missing then fails by its own name"),
    ("job/restore/repository.rs", "SourceIndex::load", "what is missing then fails by its own name"),
    ("job/whoami.rs", "timeout(patience + patience / 10, asked)", "it becomes the answer unknown"),
    ("repo/reader.rs", "files.read(&path)", "a cache: the store is asked"),
    ("role/lease/keep_alive.rs", "wait_for(Option::is_some)", "the keeper has ended"),
    ("store/s3/client.rs", "chain.region()", "servers without regions take any"),
];

#[test]
fn an_error_is_not_taken_for_nothing() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for (file, text) in sources() {
        for (number, line) in made_nothing(without_tests(&file, &text)) {
            match ALLOWED.iter().position(|(name, part, _)| *name == file && line.contains(part)) {
                Some(at) => drop(used.insert(at)),
                None => wrong.push(format!("src/{file}:{number}: tell that it is unknown: {}", line.trim())),
            }
        }
    }
    let unused = (0..ALLOWED.len()).filter(|at| !used.contains(at));
    wrong.extend(unused.map(|at| format!("listed, and not there any more: {:?}", ALLOWED[at])));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines in which an answer is asked for and its error becomes nothing.
fn made_nothing(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let is_one = |line: &str| {
        ASKS.iter().filter_map(|asks| line.split_once(asks)).any(|(_, rest)| {
            let at = MAKES_NOTHING.iter().filter_map(|nothing| rest.find(nothing)).min();
            at.is_some_and(|at| !rest[..at].contains('?'))
        })
    };
    lines.filter(move |(_, line)| is_one(line)).map(|(number, line)| (number + 1, line))
}

#[test]
fn the_rule_sees_what_it_forbids() {
    let found = |line| made_nothing(line).count();
    assert_eq!(found("let gaps = archive.journal.gaps(&archive.view).await.unwrap_or_default();"), 1);
    assert_eq!(found("let bytes = self.env.files.read(&path).ok()?;"), 1);
    assert_eq!(found("tokio::time::timeout(left, asked).await.ok().and_then(Result::ok)"), 1);
    assert_eq!(found("let text = text.parse().ok();"), 0);
    assert_eq!(found("let bytes = self.env.files.read(&path)?;"), 0);
    assert_eq!(found("let memory = self.env.read_json(&path)?.unwrap_or_default();"), 0);
}
