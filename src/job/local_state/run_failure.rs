//! How a role's last run on this node failed: kept in the state directory until the next commit, shown in the role's
//! status, and published to the other nodes. A committed run needs no memory: the journal has it.
//!
//! The state directory may be what fails. Therefore a process also keeps what it could not write there, and a daemon
//! reports it in its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::ids::RoleName;
use crate::job::report::run_summary::{RunStep, RunSummary};
use crate::job::report::whoami::PeerPresence;
use crate::job::report::{ADVICE, RunOutcome};
use crate::repo::crypto::{DerivedKeys, SALT_LEN, SealedPart};
use crate::text;

/// Maximum length of a kept error, in characters: it is read in one line of monitoring, and put into one small object.
const ERROR_MAX: usize = 300;

/// Maximum size of a sealed failure that is opened: an object of another origin may be of any size.
const SEALED_MAX: usize = 16 << 10;

/// A run that ended without a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailure {
    /// How it ended.
    pub outcome: RunOutcome,
    /// The step that failed.
    #[serde(default)]
    pub step: RunStep,
    /// When it ended, by this node's clock.
    pub time: Timestamp,
    /// Slot of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Timestamp>,
    /// Text of the error.
    pub error: String,
    /// Number of consecutive failures.
    pub failures: u32,
    /// Sequence number of the newest commit known at that time; 0: there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
}

impl RunFailure {
    /// This failure, counted on top of the remembered ones.
    pub(crate) fn after(self, before: Option<&Self>) -> Self {
        let failures = before.map_or(1, |before| before.failures.saturating_add(1));
        Self { failures, error: bounded_error(&self.error), ..self }
    }

    /// Whether it is unknown which node has the role.
    pub(crate) fn is_doubt(&self) -> bool {
        (self.step, self.outcome) == (RunStep::Takeover, RunOutcome::Unknown)
    }

    /// The part that makes a failure news for the other nodes; repetitions are not.
    pub(crate) fn fingerprint(&self) -> (RunOutcome, RunStep, &str) {
        (self.outcome, self.step, &self.error)
    }

    /// The summary of this failure on the node with label `node`.
    pub(crate) fn into_report(self, node: String) -> RunSummary {
        let Self { outcome, step, time, slot, error, failures, after } = self;
        RunSummary { node, outcome, step, time, slot, error: bounded_error(&error), failures, after }
    }

    /// Sealed for an object that other users of the store can read: errors name files and commands, which the store
    /// must not learn.
    pub(crate) fn seal(&self, keys: &DerivedKeys, id: [u8; 16], env: &Env) -> String {
        let salt: [u8; SALT_LEN] = env.random_bytes();
        let mut bytes = salt.to_vec();
        bytes.extend(serde_json::to_vec(self).unwrap_or_default());
        keys.object_sealer(id, keys.salt(salt)).seal(SealedPart::Notice, &mut bytes, SALT_LEN);
        hex::encode(bytes)
    }

    /// Opens a sealed failure; `None`: a node of this role did not write it there.
    pub(crate) fn open(sealed: &str, keys: &DerivedKeys, id: [u8; 16]) -> Option<Self> {
        let bytes = hex::decode(Some(sealed).filter(|sealed| sealed.len() <= SEALED_MAX)?).ok()?;
        let (salt, sealed) = bytes.split_first_chunk::<SALT_LEN>()?;
        serde_json::from_slice(&keys.object_sealer(id, keys.salt(*salt)).open(SealedPart::Notice, sealed).ok()?).ok()
    }
}

/// An error's text in one line of bounded length, without control sequences, and without the advice: that is for the
/// person who started the run.
fn bounded_error(error: &str) -> String {
    let error = error.split(&format!(". {ADVICE}")).next().unwrap_or_default();
    let words = error.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = text::line(&words);
    let mut out: String = shown.chars().take(ERROR_MAX).collect();
    if shown.chars().nth(ERROR_MAX).is_some() {
        out.push('…');
    }
    out
}

/// The runs that ended without a commit, as one node knows them: its own, and those that `peers` published. What peers
/// published is opened with the repository's `keys`, which proves that it is theirs.
pub(crate) fn known_failures(
    own: Option<RunFailure>,
    label: &str,
    peers: &[PeerPresence],
    keys: Option<&DerivedKeys>,
) -> Vec<RunSummary> {
    let opened = |peer: &PeerPresence| RunFailure::open(peer.failure.as_deref()?, keys?, peer.node.id.0);
    let told = peers.iter().filter_map(|peer| Some(opened(peer)?.into_report(peer.node.name.clone())));
    own.map(|failure| failure.into_report(label.to_owned())).into_iter().chain(told).collect()
}

/// Changes to a process's failures that it could not write down, including that a failure is over. Clones share the
/// same state.
#[derive(Debug, Clone, Default)]
pub struct UnsavedFailures(Arc<Mutex<BTreeMap<RoleName, Option<RunFailure>>>>);

impl UnsavedFailures {
    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<RoleName, Option<RunFailure>>> {
        // Each change is one step, so a poisoned lock protects nothing half done.
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::node::run_failure_file::RunFailureFile;
    use crate::job::testing::failure;
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::keys;

    #[test]
    fn failures_are_counted_until_a_commit_and_a_damaged_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let kept = RunFailureFile::at(&Env::host(), dir.path(), &"app".parse().unwrap());
        assert_eq!(kept.load(), None);
        kept.clear();
        kept.add(failure("one"));
        kept.add(failure("two"));
        let read = kept.load().unwrap();
        assert_eq!((read.error.as_str(), read.failures), ("two", 2));
        kept.clear_takeover();
        assert!(kept.load().is_some(), "a run failed, and no takeover makes up for that");
        kept.clear();
        assert_eq!(kept.load(), None);
        kept.add(RunFailure { step: RunStep::Takeover, ..failure("no room") });
        kept.clear_takeover();
        assert_eq!(kept.load(), None);
        kept.add(failure("one"));
        std::fs::write(&kept.path, b"{").unwrap();
        assert_eq!(kept.load(), None);
    }

    #[test]
    fn a_failure_that_cannot_be_written_down_is_known_to_the_process_and_ends_there() {
        let dir = tempfile::tempdir().unwrap();
        let kept = RunFailureFile::at(&Env::host(), dir.path(), &"app".parse().unwrap());
        // A file is where the directory should be: nothing can be written, as on a full disk.
        std::fs::write(dir.path().join("failures"), b"").unwrap();
        kept.add(failure("one"));
        kept.clone().add(failure("two"));
        assert_eq!(kept.load().map(|failure| (failure.error, failure.failures)), Some(("two".to_owned(), 2)));
        kept.clear();
        assert_eq!(kept.load(), None);
        kept.add(failure("three"));
        std::fs::remove_file(dir.path().join("failures")).unwrap();
        kept.add(failure("four"));
        let read = RunFailureFile::at(&Env::host(), dir.path(), &"app".parse().unwrap()).load().unwrap();
        assert_eq!((read.error.as_str(), read.failures), ("four", 2), "another process reads it again");
        kept.clear();
        assert_eq!(kept.load(), None);
    }

    #[test]
    fn an_error_is_one_short_line_without_advice_and_without_control_characters() {
        let kept = failure("dump app.sql:\n exit\u{1b}[2J code 1. hint: run it by hand.").after(None);
        assert_eq!(kept.error, "dump app.sql: exit\\u{1b}[2J code 1");
        assert_eq!(failure(&"x".repeat(1000)).after(None).error.chars().count(), ERROR_MAX + 1);
    }

    #[test]
    fn what_the_store_is_given_tells_nothing_and_opens_for_the_same_node_alone() {
        let (env, keys) = (Env::host(), keys(Cipher::Aes256GcmSiv));
        let failure = failure("/srv/secret: permission denied").after(None);
        let sealed = failure.seal(&keys, [1; 16], &env);
        assert!(!String::from_utf8_lossy(&hex::decode(&sealed).unwrap()).contains("secret"));
        assert_eq!(RunFailure::open(&sealed, &keys, [1; 16]), Some(failure));
        assert_eq!(RunFailure::open(&sealed, &keys, [2; 16]), None);
        for damaged in ["", "00", "xyz", &"0".repeat(SEALED_MAX + 2)] {
            assert_eq!(RunFailure::open(damaged, &keys, [1; 16]), None);
        }
    }
}
