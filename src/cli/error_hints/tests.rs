//! Tests of the exit codes and hints.

use jiff::Timestamp;

use super::*;
use crate::cli::command_error::CommandError;
use crate::daemon::{DaemonError, SocketError};
use crate::ids::{Digest, InstanceId, KeyGeneration, NodeId, Seq, Term};
use crate::job::browse::error::BrowseError;
use crate::job::error::{BackupError, GuardError};
use crate::job::exec::ExecError;
use crate::job::keys::KeysError;
use crate::job::prune::error::PruneError;
use crate::job::repair::error::RepairError;
use crate::job::repository::init::error::InitError;
use crate::job::repository::open::{OpenError, SecretFileError};
use crate::job::restore::error::RestoreError;
use crate::job::verify::error::VerifyError;
use crate::journal::body::{TakeoverReason, WriterNode};
use crate::journal::error::{AppendError, HeadConflict, JournalError, RecordReplacement};
use crate::journal::repair::SalvageError;
use crate::journal::state::RoleHolder;
use crate::repo::format::FormatError;
use crate::repo::keyslot::SlotSecretError;
use crate::repo::reader::RepositoryReadError;
use crate::role::identity::IdentityError;
use crate::store::{StoreError, StoreErrorKind};

fn exit_and_hint(error: &dyn CommandPolicy) -> (ExitKind, Option<String>) {
    let policy = error.policy();
    (policy.exit, policy.hint)
}

fn denied() -> StoreError {
    StoreError {
        kind: StoreErrorKind::Denied,
        store: "s3://backups/prod".to_owned(),
        key: None,
        detail: String::new(),
        version: None,
    }
}

#[test]
fn a_fence_is_a_fence_through_every_wrapping() {
    let holder = RoleHolder {
        term: Term(8),
        takeover: Digest([8; 32]),
        seq: Seq(9),
        node: WriterNode { id: NodeId([2; 16]), name: "app02".to_owned() },
        instance: InstanceId([2; 8]),
        why: TakeoverReason::Moved,
        time: Timestamp::UNIX_EPOCH,
        command: None,
        store_time: None,
        handed_over: None,
    };
    let fenced = AppendError::Fenced(Box::new(holder));
    assert_eq!(exit_and_hint(&GuardError::Backup(fenced.into())).0, ExitKind::Fenced);
    let unknown = || AppendError::Unknown { seq: Seq(7), why: "timeout".to_owned() };
    assert_eq!(exit_and_hint(&unknown()).0, ExitKind::Unknown);
    assert_eq!(
        exit_and_hint(&GuardError::Backup(unknown().into())).0,
        ExitKind::Unknown,
        "transparent errors hide what they wrap"
    );
    assert_eq!(exit_and_hint(&GuardError::Backup(AppendError::Expired.into())).0, ExitKind::Unknown);
    assert_eq!(exit_and_hint(&GuardError::Backup(BackupError::Interrupted)).0, ExitKind::Interrupted);
    assert_eq!(exit_and_hint(&GuardError::Backup(BackupError::Pruned)).0, ExitKind::Failed);
}

#[test]
fn advice_is_about_what_was_seen() {
    let secret = |is_passphrase, kind: io::ErrorKind| {
        let error = SecretFileError::Io(kind.into());
        exit_and_hint(&OpenError::Secret { path: "/k".into(), is_passphrase, error }).1.unwrap()
    };
    assert!(secret(false, io::ErrorKind::NotFound).contains("'runner init' made it"));
    assert!(secret(true, io::ErrorKind::NotFound).contains("'runner init' makes none"), "init makes none");
    assert!(secret(false, io::ErrorKind::PermissionDenied).contains("sudo runner"));
    assert!(secret(false, io::ErrorKind::FileTooLarge).contains("another file"));
    let empty = OpenError::Secret { path: "/k".into(), is_passphrase: true, error: SlotSecretError::Empty.into() };
    assert!(exit_and_hint(&empty).1.unwrap().contains("'runner init' makes none"));

    let of = |kind, store: &str| exit_and_hint(&StoreError { kind, store: store.to_owned(), ..denied() }).1.unwrap();
    let directory = of(StoreErrorKind::Denied, "file:///mnt/store");
    assert!(directory.contains("sudo runner") && !directory.contains("credentials"), "{directory}");
    assert!(of(StoreErrorKind::Denied, "s3://b at http://h").contains("credentials"));
    assert!(!of(StoreErrorKind::NoSuchStore, "s3://b at http://h").contains("disk"));
    assert!(of(StoreErrorKind::NoSuchStore, "file:///mnt/store").contains("disk"));

    let target = |kind: io::ErrorKind| {
        let error = crate::tree::write::TargetError { path: "/t".into(), source: kind.into() };
        exit_and_hint(&RestoreError::Target(error)).1.unwrap()
    };
    assert!(target(io::ErrorKind::PermissionDenied).contains("sudo runner"));
    assert!(target(io::ErrorKind::NotADirectory).contains("there is a file in its place"));
    assert!(exit_and_hint(&IdentityError::NoPlace).1.unwrap().contains("--state-dir"));
}

#[test]
fn a_store_gives_the_same_advice_wherever_it_fails() {
    let advice = exit_and_hint(&denied()).1;
    assert!(advice.is_some());
    assert_eq!(exit_and_hint(&JournalError::Store(denied())).1, advice);
    assert_eq!(exit_and_hint(&AppendError::Store { seq: Seq(7), error: denied() }).1, advice);
    assert_eq!(exit_and_hint(&OpenError::Store(denied())).1, advice);
    assert_eq!(exit_and_hint(&InitError::Open(OpenError::Store(denied()))).1, advice);
    assert_eq!(exit_and_hint(&GuardError::Backup(RepositoryReadError::Store(denied()).into())).1, advice);
}

/// The wrapping errors of each verb; none of them has a policy of its own for these.
#[test]
fn the_innermost_error_that_is_known_decides() {
    let policy = denied().policy();
    let append = || AppendError::from(JournalError::Store(denied()));
    let guard = || GuardError::Backup(append().into());
    assert_eq!(ExecError::Guard(guard()).policy(), policy);
    assert_eq!(PruneError::Guard(guard()).policy(), policy);
    assert_eq!(PruneError::Session(append().into()).policy(), policy);
    assert_eq!(PruneError::Guard(GuardError::Open(denied().into())).policy(), policy);
    assert_eq!(BrowseError::Repo(denied().into()).policy(), policy);
    assert_eq!(KeysError::Operate(Box::new(append().into())).policy(), policy);
    assert_eq!(KeysError::Put(InitError::Open(denied().into())).policy(), policy);
    assert_eq!(RepairError::Packs(RepositoryReadError::Store(denied()).into()).policy(), policy);
    assert_eq!(RepairError::Mend(SalvageError::Rotated(denied().into())).policy(), policy);
    assert_eq!(VerifyError::Rotated(denied().into()).policy(), policy);
    let busy = || SocketError::Busy { pid: None };
    assert_eq!(DaemonError::Socket(busy()).policy(), busy().policy());
    assert_eq!(CommandError::from(guard()).policy(), policy);
}

#[test]
fn a_request_that_failed_is_no_broken_promise() {
    use crate::store::proof::{ProofFailure, WriteCondition};
    for kind in [StoreErrorKind::NoSpace, StoreErrorKind::ReadOnly, StoreErrorKind::DiskFault, StoreErrorKind::Denied] {
        let error = || StoreError { kind, ..denied() };
        let advice = exit_and_hint(&error()).1;
        assert_eq!(exit_and_hint(&GuardError::Backup(ProofFailure::Store(error()).into())).1, advice, "{kind:?}");
        let lease = GuardError::of_lease_proof(&"app".parse().unwrap(), ProofFailure::Store(error()));
        assert_eq!(exit_and_hint(&lease).1, advice, "{kind:?}");
    }
    let role = "app".parse().unwrap();
    let silent = || ProofFailure::CannotTell { why: "timeout".to_owned() };
    assert!(exit_and_hint(&GuardError::Backup(silent().into())).1.unwrap().contains("try again"));
    assert_eq!(exit_and_hint(&GuardError::of_lease_proof(&role, silent())).0, ExitKind::Unknown);
    let broken = ProofFailure::Overwritten { condition: WriteCondition::Absent, key: "k".to_owned() };
    assert!(exit_and_hint(&GuardError::Backup(broken.into())).1.unwrap().contains("no more backups"));
}

/// No hint begins with a step that an attacker needs.
#[test]
fn no_advice_completes_an_attack() {
    let role = || "app".parse().unwrap();
    let store = || "file:///mnt/store".to_owned();
    let seq = Seq(7);
    let errors: Vec<Box<dyn CommandPolicy>> = vec![
        Box::new(OpenError::NoRepository { role: role(), store: store() }),
        Box::new(OpenError::NotEncrypted { role: role() }),
        Box::new(OpenError::NoKeySlots { role: role(), store: store() }),
        Box::new(OpenError::Format { role: role(), error: FormatError::Forged }),
        Box::new(OpenError::Format { role: role(), error: FormatError::Damaged("x".to_owned()) }),
        Box::new(OpenError::Format {
            role: role(),
            error: FormatError::OtherRole { found: "web".parse().unwrap(), wanted: role() },
        }),
        Box::new(InitError::NotEmpty { store: store(), key: "app/journal/1".to_owned() }),
        Box::new(JournalError::RolledBack { seq, seen: Digest([1; 32]), instead: RecordReplacement::Nothing }),
        Box::new(JournalError::OlderThanKey { now: KeyGeneration(0), given: KeyGeneration(1) }),
        Box::new(JournalError::Hole(seq)),
        Box::new(JournalError::HeadConflict(HeadConflict::Other(seq))),
        Box::new(StoreError { kind: StoreErrorKind::NoSuchStore, ..denied() }),
    ];
    for error in errors {
        let advice = exit_and_hint(error.as_ref()).1.unwrap();
        assert!(advice.contains("keep ") || advice.contains("Keep "), "{error}: {advice}");
        assert!(advice.contains("find out"), "{error}: {advice}");
        for harmful in ["encryption = \"none\"", "--no-encryption", "lease = \"none\"", "empty ", "delete"] {
            assert!(!advice.contains(harmful), "{error}: {advice}");
        }
    }
}

#[test]
fn usage_says_itself_what_to_do() {
    let usage = UsageError { message: "x".to_owned(), hint: "y".to_owned() };
    assert_eq!(exit_and_hint(&usage), (ExitKind::Usage, Some("y".to_owned())));
    assert_eq!(exit_and_hint(&Interrupted), (ExitKind::Interrupted, None));
    assert_eq!(exit_and_hint(&io::Error::other("disk on fire")), (ExitKind::Failed, None));
}
