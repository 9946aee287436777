//! This node's identity: a random ID in the state directory, with a fingerprint of the machine. A copy of the disk on
//! another machine finds a foreign fingerprint and becomes a node of its own, so that a standby that was cloned from
//! its primary is not taken for the primary. The hostname is only a label.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::env::{self, Env};
use crate::file::access::{self, FileExposure};
use crate::file::{self, FileLock};
use crate::ids::{InstanceId, NodeId};

/// Name of the identity's file in the state directory.
const FILE: &str = "node.json";

/// Name of the lock that is held while the file is written: of many processes that start for the first time, one makes
/// the identity.
const LOCK: &str = "node.lock";

/// This node's identity, as this process uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node's ID.
    pub id: NodeId,
    /// The node's label: `--node NAME`, else the hostname.
    pub label: String,
    /// The host's name.
    pub hostname: String,
    /// The ID of this process.
    pub instance: InstanceId,
    /// Whether the identity is new, and why.
    pub origin: IdentityOrigin,
}

/// Where an identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityOrigin {
    /// The identity was there.
    Kept,
    /// There was no identity: this is the first start.
    First,
    /// The identity was made on another machine: this machine was cloned, or the state directory was copied.
    OtherMachine {
        /// The ID in that identity, which stays with the other machine.
        was: NodeId,
    },
    /// The identity cannot be read.
    Damaged,
}

/// Hashes that tell machines apart; `None` for what cannot be read (only root can read the product's UUID).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineFingerprint {
    /// Hash of `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// Hash of the DMI product UUID.
    pub product_uuid: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredIdentity {
    id: NodeId,
    machine: MachineFingerprint,
}

/// What was found in the state directory.
#[derive(Debug)]
enum FoundIdentity {
    Nothing,
    Damaged,
    Identity(StoredIdentity),
}

/// What to do about what was found. Pure.
#[derive(Debug, PartialEq, Eq)]
enum IdentityDecision {
    Keep(NodeId),
    /// The identity is ours; it is written again, because more is known about the machine now.
    Complete(StoredIdentity),
    Make(IdentityOrigin),
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No state directory was given, and none can be derived.
    #[error("this node has no state directory: $HOME is not set")]
    NoPlace,
    /// The state directory cannot be made.
    #[error("the state directory {} cannot be made ({source})", path.display())]
    Directory {
        /// The state directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Other users of this host may change the state directory.
    #[error(
        "the state directory {} is not used, since other users of this host can change it: {exposure}. hint: remove \
         the permission: {}",
        path.display(),
        exposure.remedy()
    )]
    Exposed {
        /// The state directory.
        path: PathBuf,
        /// The path that other users may change, and how.
        exposure: FileExposure,
    },
    /// The identity's file cannot be read or written.
    #[error("this node's identity {} cannot be read or written ({source})", path.display())]
    File {
        /// The identity's file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file holds another node's identity than this process works with.
    #[error(
        "this process is node {was}, and its identity {} is node {is} now: the state directory was replaced, or \
         `runner init --new-identity` was run. hint: restart it to continue as node {is}, or put the former \
         directory back first to continue as node {was}",
        path.display()
    )]
    Replaced {
        /// The identity's file.
        path: PathBuf,
        /// The node that this process works as.
        was: NodeId,
        /// The node that the file names.
        is: NodeId,
    },
    /// The file was deleted and cannot be written again.
    #[error(
        "this node's identity {} was deleted while node {id} works with it, and cannot be written again ({source}); without it \
         every other process here would be another node",
        path.display()
    )]
    Lost {
        /// The identity's file.
        path: PathBuf,
        /// The node that this process works as.
        id: NodeId,
        /// The system's error.
        source: io::Error,
    },
}

/// What a running process finds when it checks its node's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityCheck {
    /// The identity is unchanged.
    There,
    /// The identity was gone or damaged, and was written again.
    Restored,
}

/// Where a node keeps its state: `explicit`, else `/var/lib/runner` as root, else `$XDG_STATE_HOME/runner`, else
/// `~/.local/state/runner`. Pure.
///
/// # Errors
/// There is no home directory either.
pub fn state_dir(
    explicit: Option<&Path>,
    root: bool,
    xdg_state_home: Option<&Path>,
    home: Option<&Path>,
) -> Result<PathBuf, IdentityError> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    if root {
        return Ok("/var/lib/runner".into());
    }
    // The XDG specification: a relative path is to be ignored.
    if let Some(xdg) = xdg_state_home.filter(|xdg| xdg.is_absolute()) {
        return Ok(xdg.join("runner"));
    }
    let home = home.filter(|home| home.is_absolute()).ok_or(IdentityError::NoPlace)?;
    Ok(home.join(".local/state/runner"))
}

/// Where this process would keep its state. Creates nothing.
///
/// # Errors
/// No state directory was given, and none can be derived.
pub fn find_state_dir(explicit: Option<&Path>) -> Result<PathBuf, IdentityError> {
    let env = |name| env::variable(name).map(PathBuf::from);
    let root = nix::unistd::geteuid().is_root();
    state_dir(explicit, root, env("XDG_STATE_HOME").as_deref(), env("HOME").as_deref())
}

/// The state directory of this process, made (0700) if it is missing.
///
/// # Errors
/// No state directory was given and none can be derived, or the directory cannot be made.
pub fn open_state_dir(explicit: Option<&Path>) -> Result<PathBuf, IdentityError> {
    let path = find_state_dir(explicit)?;
    match DirBuilder::new().recursive(true).mode(0o700).create(&path) {
        Ok(()) => match access::refusal(&path) {
            Some(exposure) => Err(IdentityError::Exposed { path, exposure }),
            None => Ok(path),
        },
        Err(source) => Err(IdentityError::Directory { path, source }),
    }
}

impl NodeIdentity {
    /// Reads this node's identity from its state directory; makes one at the first start. `name` is `--node NAME`.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(state_dir: &Path, name: Option<&str>, env: &Env) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        let (id, origin) = load_or_create_identity(state_dir, &MachineFingerprint::here(), env)
            .map_err(|source| IdentityError::File { path, source })?;
        Ok(Self::named(id, origin, name, env))
    }

    /// The node that the daemon on this host reports, whatever the state directory holds. Creates nothing.
    pub fn from_daemon(id: NodeId, name: Option<&str>, env: &Env) -> Self {
        Self::named(id, IdentityOrigin::Kept, name, env)
    }

    fn named(id: NodeId, origin: IdentityOrigin, name: Option<&str>, env: &Env) -> Self {
        let hostname = hostname();
        // A host without a name still has an ID.
        let fallback = if hostname.is_empty() { id.to_string() } else { hostname.clone() };
        let label = name.map_or(fallback, str::to_owned);
        Self { id, label, hostname, instance: InstanceId(env.random_bytes()), origin }
    }
}

/// Ensures that the state directory still holds the identity of the running process that works as `id`. If the file is
/// gone, the next process would make another identity, and the two would take roles from each other.
///
/// # Errors
/// The file names another node ([`IdentityError::Replaced`]), cannot be read, or is gone and cannot be written again
/// ([`IdentityError::Lost`]).
pub fn ensure_identity(state_dir: &Path, id: NodeId) -> Result<IdentityCheck, IdentityError> {
    let path = state_dir.join(FILE);
    let look = || match read(&path) {
        Ok(FoundIdentity::Identity(stored)) if stored.id == id => Ok(Some(IdentityCheck::There)),
        Ok(FoundIdentity::Identity(stored)) => {
            Err(IdentityError::Replaced { path: path.clone(), was: id, is: stored.id })
        }
        Ok(FoundIdentity::Nothing | FoundIdentity::Damaged) => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.clone(), source }),
    };
    if let Some(kept) = look()? {
        return Ok(kept);
    }
    let lost = |source| IdentityError::Lost { path: path.clone(), id, source };
    file::make_dir(state_dir).map_err(lost)?;
    let lock = FileLock::try_take(&state_dir.join(LOCK)).map_err(lost)?;
    // If another process is making an identity at this moment, the check is repeated the next time.
    let _lock = lock.ok_or_else(|| lost(io::ErrorKind::WouldBlock.into()))?;
    if let Some(kept) = look()? {
        return Ok(kept);
    }
    write(&path, &StoredIdentity { id, machine: MachineFingerprint::here() }).map_err(lost)?;
    Ok(IdentityCheck::Restored)
}

/// This node's identity for a command that only reads: the ID, if there is an identity of this machine that can be
/// read, and the label. Creates nothing. `name` is `--node NAME`.
pub fn peek_identity(state_dir: Option<&Path>, name: Option<&str>) -> (Option<NodeId>, String) {
    let found = state_dir.and_then(|dir| read(&dir.join(FILE)).ok()).unwrap_or(FoundIdentity::Nothing);
    let id = match decide(found, &MachineFingerprint::here()) {
        IdentityDecision::Keep(id) => Some(id),
        IdentityDecision::Complete(stored) => Some(stored.id),
        IdentityDecision::Make(_) => None,
    };
    let label = name.map_or_else(hostname, str::to_owned);
    let label = id.filter(|_| label.is_empty()).map_or(label, |id| id.to_string());
    (id, label)
}

/// When this node's identity was made, by this host's clock, if the state directory tells.
pub fn identity_created_at(state_dir: &Path) -> Option<Timestamp> {
    let made = std::fs::metadata(state_dir.join(FILE)).ok()?.modified().ok()?;
    Timestamp::try_from(made).ok()
}

/// Why the identity cannot be read, for a command that only reads; `None` if it can be read, or there is none.
pub fn identity_read_error(state_dir: &Path) -> Option<io::Error> {
    read(&state_dir.join(FILE)).err()
}

fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned())
}

fn load_or_create_identity(
    state_dir: &Path,
    machine: &MachineFingerprint,
    env: &Env,
) -> io::Result<(NodeId, IdentityOrigin)> {
    let path = state_dir.join(FILE);
    if let IdentityDecision::Keep(id) = decide(read(&path)?, machine) {
        return Ok((id, IdentityOrigin::Kept));
    }
    // The file is to be written: take the lock, and read once more under it.
    let _lock = FileLock::take(&state_dir.join(LOCK))?;
    match decide(read(&path)?, machine) {
        IdentityDecision::Keep(id) => Ok((id, IdentityOrigin::Kept)),
        IdentityDecision::Complete(stored) => {
            write(&path, &stored)?;
            Ok((stored.id, IdentityOrigin::Kept))
        }
        IdentityDecision::Make(origin) => {
            let stored = StoredIdentity { id: NodeId(env.random_bytes()), machine: machine.clone() };
            write(&path, &stored)?;
            Ok((stored.id, origin))
        }
    }
}

/// The largest identity file that is read, in bytes.
const STORED_MAX: u64 = 64 << 10;

fn read(path: &Path) -> io::Result<FoundIdentity> {
    match file::read_own(path, STORED_MAX) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_or(FoundIdentity::Damaged, FoundIdentity::Identity)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(FoundIdentity::Nothing),
        Err(e) if e.kind() == io::ErrorKind::FileTooLarge => Ok(FoundIdentity::Damaged),
        Err(e) => Err(e),
    }
}

fn decide(found: FoundIdentity, here: &MachineFingerprint) -> IdentityDecision {
    let stored = match found {
        FoundIdentity::Nothing => return IdentityDecision::Make(IdentityOrigin::First),
        FoundIdentity::Damaged => return IdentityDecision::Make(IdentityOrigin::Damaged),
        FoundIdentity::Identity(stored) => stored,
    };
    // A value that one side does not know speaks neither for nor against: without root the product's UUID cannot be
    // read.
    let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
    let was = &stored.machine;
    if differ(&was.machine_id, &here.machine_id) || differ(&was.product_uuid, &here.product_uuid) {
        return IdentityDecision::Make(IdentityOrigin::OtherMachine { was: stored.id });
    }
    let known = MachineFingerprint {
        machine_id: was.machine_id.clone().or_else(|| here.machine_id.clone()),
        product_uuid: was.product_uuid.clone().or_else(|| here.product_uuid.clone()),
    };
    if known == *was {
        IdentityDecision::Keep(stored.id)
    } else {
        IdentityDecision::Complete(StoredIdentity { id: stored.id, machine: known })
    }
}

/// Gives this node a new ID. The old ID stays with the other machine that uses it.
///
/// # Errors
/// The state directory cannot be written.
pub fn renew_identity(state_dir: &Path, env: &Env) -> Result<NodeId, IdentityError> {
    let id = NodeId(env.random_bytes());
    let stored = StoredIdentity { id, machine: MachineFingerprint::here() };
    let path = state_dir.join(FILE);
    let written = FileLock::take(&state_dir.join(LOCK)).and_then(|_lock| write(&path, &stored));
    written.map_err(|source| IdentityError::File { path, source })?;
    Ok(id)
}

/// Writes the file. The lock is held.
fn write(path: &Path, stored: &StoredIdentity) -> io::Result<()> {
    let mut line = serde_json::to_vec(stored)?;
    line.push(b'\n');
    file::replace(path, &line)
}

impl MachineFingerprint {
    /// The fingerprint of this machine.
    pub fn here() -> Self {
        let first = |paths: &[&str]| paths.iter().find_map(|path| std::fs::read_to_string(path).ok());
        Self {
            machine_id: first(&["/etc/machine-id", "/var/lib/dbus/machine-id"]).and_then(|text| fingerprint(&text)),
            product_uuid: first(&["/sys/class/dmi/id/product_uuid"]).and_then(|text| fingerprint(&text)),
        }
    }
}

/// A hash of the ID, because a machine ID is confidential by its own specification. `None` for an ID that is not set.
fn fingerprint(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let set = !matches!(text.as_str(), "" | "uninitialized") && text.chars().any(|c| c != '0' && c != '-');
    set.then(|| hex::encode(&blake3::derive_key("runner 2026 machine fingerprint", text.as_bytes())[..16]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn machine(machine_id: &str, product_uuid: Option<&str>) -> MachineFingerprint {
        MachineFingerprint { machine_id: fingerprint(machine_id), product_uuid: product_uuid.and_then(fingerprint) }
    }

    const ID: NodeId = NodeId([7; 16]);

    fn stored(machine: MachineFingerprint) -> FoundIdentity {
        FoundIdentity::Identity(StoredIdentity { id: ID, machine })
    }

    #[test]
    fn another_machine_is_another_node() {
        let here = machine("aa", Some("bb"));
        assert_eq!(decide(FoundIdentity::Nothing, &here), IdentityDecision::Make(IdentityOrigin::First));
        assert_eq!(decide(FoundIdentity::Damaged, &here), IdentityDecision::Make(IdentityOrigin::Damaged));
        assert_eq!(decide(stored(here.clone()), &here), IdentityDecision::Keep(ID));
        let other = IdentityDecision::Make(IdentityOrigin::OtherMachine { was: ID });
        assert_eq!(decide(stored(machine("xx", Some("bb"))), &here), other, "cloned, and given a new machine-id");
        assert_eq!(decide(stored(machine("aa", Some("xx"))), &here), other, "cloned with its machine-id");
        assert_eq!(decide(stored(machine("xx", None)), &here), other);
    }

    #[test]
    fn what_cannot_be_read_does_not_make_a_new_node() {
        let (as_root, as_user) = (machine("aa", Some("bb")), machine("aa", None));
        assert_eq!(decide(stored(as_root.clone()), &as_user), IdentityDecision::Keep(ID));
        let completed = StoredIdentity { id: ID, machine: as_root.clone() };
        assert_eq!(decide(stored(as_user), &as_root), IdentityDecision::Complete(completed));
        assert_eq!(
            decide(stored(MachineFingerprint::default()), &MachineFingerprint::default()),
            IdentityDecision::Keep(ID)
        );
    }

    #[test]
    fn an_unset_id_is_no_fingerprint() {
        for unset in ["", "\n", "uninitialized\n", "00000000-0000-0000-0000-000000000000"] {
            assert_eq!(fingerprint(unset), None, "{unset:?}");
        }
        assert_eq!(fingerprint("ABC\n"), fingerprint("abc"));
        assert!(!fingerprint("3d1219c7c4c5404aaa1f6d2a48adfda4").unwrap().contains("3d1219"));
    }

    #[test]
    fn the_identity_stays_and_follows_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::host();
        let (id, origin) = load_or_create_identity(dir.path(), &machine("aa", None), &env).unwrap();
        assert_eq!(origin, IdentityOrigin::First);
        assert_eq!(
            load_or_create_identity(dir.path(), &machine("aa", Some("bb")), &env).unwrap(),
            (id, IdentityOrigin::Kept)
        );
        let (new, origin) = load_or_create_identity(dir.path(), &machine("aa", Some("cc")), &env).unwrap();
        assert_eq!(origin, IdentityOrigin::OtherMachine { was: id });
        assert_ne!(new, id);
        assert_eq!(
            load_or_create_identity(dir.path(), &machine("aa", Some("cc")), &env).unwrap(),
            (new, IdentityOrigin::Kept)
        );

        let file = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(load_or_create_identity(dir.path(), &machine("aa", None), &env).unwrap().1, IdentityOrigin::Damaged);
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
    }

    #[test]
    fn of_many_first_starts_one_makes_the_identity() {
        let dir = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(16);
        let found: Vec<(NodeId, IdentityOrigin)> = std::thread::scope(|scope| {
            let one = || {
                start.wait();
                load_or_create_identity(dir.path(), &machine("aa", None), &Env::host()).unwrap()
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.iter().all(|(id, _)| *id == found[0].0));
        assert_eq!(found.iter().filter(|(_, origin)| *origin == IdentityOrigin::First).count(), 1);
    }

    #[test]
    fn a_living_process_keeps_its_identity() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("state");
        std::fs::create_dir(&dir).unwrap();
        let node = NodeIdentity::open(&dir, None, &Env::host()).unwrap();
        assert_eq!(ensure_identity(&dir, node.id).unwrap(), IdentityCheck::There);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(ensure_identity(&dir, node.id).unwrap(), IdentityCheck::Restored);
        std::fs::write(dir.join(FILE), "").unwrap();
        assert_eq!(ensure_identity(&dir, node.id).unwrap(), IdentityCheck::Restored);
        assert_eq!(NodeIdentity::open(&dir, None, &Env::host()).unwrap().id, node.id);
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);

        let other = renew_identity(&dir, &Env::host()).unwrap();
        let replaced = ensure_identity(&dir, node.id).unwrap_err();
        assert!(matches!(replaced, IdentityError::Replaced { was, is, .. } if was == node.id && is == other));
        assert_eq!(peek_identity(Some(&dir), None).0, Some(other), "nothing is written over it");
        // The state directory cannot be written, or there is none.
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::write(&dir, "").unwrap();
        assert!(matches!(
            ensure_identity(&dir, node.id).unwrap_err(),
            IdentityError::File { .. } | IdentityError::Lost { .. }
        ));
        std::fs::remove_file(&dir).unwrap();
        std::fs::create_dir_all(dir.join(FILE)).unwrap();
        assert!(matches!(ensure_identity(&dir, node.id).unwrap_err(), IdentityError::File { .. }));
    }

    #[test]
    fn a_node_has_a_label_and_a_process() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::host();
        let east = NodeIdentity::open(dir.path(), Some("east"), &env).unwrap();
        let again = NodeIdentity::open(dir.path(), None, &env).unwrap();
        assert_eq!((east.label.as_str(), east.id), ("east", again.id));
        assert_eq!(again.label, again.hostname);
        assert_ne!(east.instance, again.instance);
        assert_eq!(peek_identity(Some(dir.path()), Some("east")), (Some(east.id), "east".to_owned()));
        let nowhere = dir.path().join("nowhere");
        assert_eq!(peek_identity(Some(&nowhere), None), (None, again.hostname));
        assert!(!nowhere.exists(), "reading creates nothing");
        let error = NodeIdentity::open(&dir.path().join("missing"), None, &env).unwrap_err().to_string();
        assert!(error.contains("missing/node.json"), "{error}");
    }

    #[test]
    fn the_state_directory_is_where_people_expect_it() {
        let dir = |explicit: Option<&str>, root, xdg: Option<&str>, home: Option<&str>| {
            let path = |text: Option<&str>| text.map(PathBuf::from);
            state_dir(path(explicit).as_deref(), root, path(xdg).as_deref(), path(home).as_deref())
                .map(|path| path.display().to_string())
        };
        assert_eq!(dir(Some("x"), true, None, None).unwrap(), "x");
        assert_eq!(dir(None, true, Some("/xdg"), Some("/root")).unwrap(), "/var/lib/runner");
        assert_eq!(dir(None, false, Some("/xdg"), Some("/home/a")).unwrap(), "/xdg/runner");
        assert_eq!(dir(None, false, Some("rel"), Some("/home/a")).unwrap(), "/home/a/.local/state/runner");
        assert!(matches!(dir(None, false, None, None), Err(IdentityError::NoPlace)));

        let base = tempfile::tempdir().unwrap();
        let made = open_state_dir(Some(&base.path().join("a/b"))).unwrap();
        assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(open_state_dir(Some(&made)).unwrap(), made);
        std::fs::write(base.path().join("file"), "").unwrap();
        assert!(open_state_dir(Some(&base.path().join("file"))).is_err());
    }
}
