//! The daemon's socket: other processes of this node have the daemon back up, work under its lease, and ask it for the
//! node's ID.
//!
//! The socket's file may be deleted, together with the state directory that it is in. So the daemon checks the file,
//! and until it is created again it answers under a second address that is no file. Any process on the host may take
//! that address, so both sides check the peer's user.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clients::{RoleCommand, RunRequest};
use super::protocol::{DaemonRequest, DaemonRequestKind, DaemonResponse, LINE_MAX, VERSION};
use crate::file::{self, FileLock, access};
use crate::ids::{NodeId, RoleName};
use crate::job::backup::request::BackupRequest;
use crate::job::node::progress::JobProgress;
use crate::job::whoami::daemon_answer::DaemonRoleStatus;

/// Interval at which the progress of a run is sent.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The pause after a failed accept: the process may be out of file descriptors.
const PAUSE: Duration = Duration::from_secs(1);

const SOCKET: &str = "daemon.sock";
const LOCK: &str = "daemon.lock";

/// Path of the socket in a runtime directory.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET)
}

/// The second address of the daemon with this runtime directory, in the abstract namespace. It depends on the user and
/// on the root directory: a container that shares the host's network has a daemon of its own.
fn second_socket_path(runtime_dir: &Path) -> io::Result<PathBuf> {
    let root = fs::metadata("/")?;
    let dir = std::path::absolute(runtime_dir)?;
    let mut hasher = blake3::Hasher::new_derive_key("runner 2026 daemon address");
    hasher.update(&rustix::process::geteuid().as_raw().to_le_bytes());
    hasher.update(&root.dev().to_le_bytes()).update(&root.ino().to_le_bytes());
    hasher.update(dir.as_os_str().as_bytes());
    Ok(PathBuf::from(format!("\0runner/{}", hex::encode(&hasher.finalize().as_bytes()[..16]))))
}

/// Connects to the daemon with this runtime directory; `None`: there is none.
pub(super) async fn connect(runtime_dir: &Path) -> io::Result<Option<UnixStream>> {
    let is_nobody = |error: &io::Error| {
        // No process listens: a daemon that was killed leaves its socket.
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    };
    match UnixStream::connect(socket_path(runtime_dir)).await {
        Ok(stream) => return Ok(Some(stream)),
        Err(error) if is_nobody(&error) => {}
        Err(error) => return Err(error),
    }
    match UnixStream::connect(second_socket_path(runtime_dir)?).await {
        Ok(stream) => Ok(Some(stream).filter(is_trusted)),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the peer is this process's user, or root, who may do everything anyway.
fn is_trusted(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon has the lock.
    #[error("another daemon runs on this node{}", pid.as_ref().map(|p| format!(" (process {p})")).unwrap_or_default())]
    Busy {
        /// The process that has the lock.
        pid: Option<String>,
    },
    /// The file system failed.
    #[error("the daemon's socket {}: {error}", path.display())]
    Io {
        /// Path of the failed operation.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
}

/// The command queues of the roles' tasks, by name.
pub(super) type RoleDirectory = Arc<Mutex<BTreeMap<RoleName, mpsc::Sender<RoleCommand>>>>;

/// What connections need to be served.
#[derive(Debug, Clone)]
pub(super) struct SocketContext {
    /// ID of this node.
    pub(super) node: NodeId,
    /// The roles' tasks.
    pub(super) directory: RoleDirectory,
    /// Has the state directory checked at once.
    pub(super) look: mpsc::Sender<oneshot::Sender<()>>,
}

/// The listening socket, and the lock that protects it.
#[derive(Debug)]
pub(super) struct DaemonSocket {
    dir: PathBuf,
    /// Device and inode of the socket's file when it was created.
    file: (u64, u64),
    lock: FileLock,
    serving: JoinHandle<()>,
    /// Serves the second address. `None`: the address is taken, for example by another user's process.
    spare: Option<JoinHandle<()>>,
}

impl DaemonSocket {
    /// Opens the socket in `dir`, which is created if it is missing, and serves it until it is dropped. A socket that a
    /// killed daemon left is replaced.
    pub(super) async fn open(dir: &Path, socket_context: &SocketContext) -> Result<Self, SocketError> {
        let busy = || SocketError::Busy { pid: file::lock_owner_pid(&dir.join(LOCK)) };
        // The lock is no evidence if the directory was deleted while a daemon has it.
        let spare = match second_socket_path(dir).and_then(UnixListener::bind) {
            Ok(listener) => Some(tokio::spawn(serve(listener, socket_context.clone(), is_trusted))),
            Err(_) if matches!(connect(dir).await, Ok(Some(_))) => return Err(busy()),
            Err(error) => {
                tracing::debug!("the daemon cannot listen on its second address: {error}");
                None
            }
        };
        let (lock, listener, file) = bind(dir)?;
        let serving = tokio::spawn(serve(listener, socket_context.clone(), |_| true));
        Ok(Self { dir: dir.to_owned(), file, lock, serving, spare })
    }

    /// Creates the socket again if its file is gone. Returns whether it was.
    pub(super) fn ensure_bound(&mut self, socket_context: &SocketContext) -> Result<bool, SocketError> {
        let path = socket_path(&self.dir);
        match fs::metadata(&path) {
            Ok(meta) if (meta.dev(), meta.ino()) == self.file => return Ok(false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(SocketError::Io { path, error }),
            // A file that is there now belongs to another process, which must have had the lock for it.
            _ => {}
        }
        let (lock, listener, file) = bind(&self.dir)?;
        self.serving.abort();
        self.serving = tokio::spawn(serve(listener, socket_context.clone(), |_| true));
        (self.lock, self.file) = (lock, file);
        Ok(true)
    }
}

impl Drop for DaemonSocket {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(spare) = &self.spare {
            spare.abort();
        }
        let path = socket_path(&self.dir);
        if fs::metadata(&path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Takes the lock of a runtime directory, and listens there.
fn bind(dir: &Path) -> Result<(FileLock, UnixListener, (u64, u64)), SocketError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| SocketError::Io { path, error }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    // A user who may write there could put another socket in its place, and receive the requests of this node's
    // processes.
    if let Some(exposure) = access::refusal(dir) {
        return Err(at(dir)(io::Error::new(io::ErrorKind::PermissionDenied, exposure.to_string())));
    }
    let lock_file = dir.join(LOCK);
    let lock = FileLock::try_take(&lock_file).map_err(at(&lock_file))?;
    let Some(lock) = lock else { return Err(SocketError::Busy { pid: file::lock_owner_pid(&lock_file) }) };
    lock.write_pid();
    let path = socket_path(dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(at(&path))?;
    // A process that may connect can start backups: only the daemon's own user may.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at(&path))?;
    let meta = fs::metadata(&path).map_err(at(&path))?;
    Ok((lock, listener, (meta.dev(), meta.ino())))
}

/// Serves accepted connections for ever, if `is_let_in` allows them.
async fn serve(listener: UnixListener, socket_context: SocketContext, is_let_in: fn(&UnixStream) -> bool) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_let_in(&stream) => {
                tokio::spawn(handle_connection(stream, socket_context.clone()));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("the daemon's socket: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One line, without its end; `None`: the peer has disconnected, or the line is too long.
pub(super) async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = reader.take(LINE_MAX as u64).read_until(b'\n', &mut line).await.ok()?;
    (read > 0 && line.pop() == Some(b'\n')).then_some(line)
}

/// Writes one line.
pub(super) async fn write_line(writer: &mut OwnedWriteHalf, what: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

async fn handle_connection(stream: UnixStream, socket_context: SocketContext) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let Some(line) = read_line(&mut reader).await else { return };
    let question = match serde_json::from_slice::<DaemonRequest>(&line) {
        Ok(question) if question.v == VERSION => question,
        _ => {
            let why = "the daemon is of another version".to_owned();
            let _ = write_line(&mut writer, &DaemonResponse::Refused { why }).await;
            return;
        }
    };
    let role = match &question.ask {
        DaemonRequestKind::Backup { role, .. }
        | DaemonRequestKind::Lease { role }
        | DaemonRequestKind::Look { role } => role,
        DaemonRequestKind::Node => {
            // The client is about to read there what this daemon remembers, so the directory is checked first. The ID
            // is sent in any case.
            let (reply, looked) = oneshot::channel();
            if socket_context.look.send(reply).await.is_ok() {
                let _ = tokio::time::timeout(PAUSE, looked).await;
            }
            let _ = write_line(&mut writer, &DaemonResponse::Node(socket_context.node)).await;
            return;
        }
        DaemonRequestKind::RoleStatuses => {
            let _ = write_line(&mut writer, &DaemonResponse::RoleStatuses(role_statuses(&socket_context).await)).await;
            return;
        }
    };
    let commands = socket_context.directory.lock().get(role).cloned();
    let Some(commands) = commands else {
        let why = format!("the daemon has no role {role}");
        let _ = write_line(&mut writer, &DaemonResponse::Refused { why }).await;
        return;
    };
    // The client may have disconnected.
    let _ = match question.ask {
        DaemonRequestKind::Backup { request, .. } => serve_backup(&mut reader, &mut writer, &commands, request).await,
        DaemonRequestKind::Lease { .. } => serve_lease(&mut reader, &mut writer, &commands).await,
        DaemonRequestKind::Look { .. } => {
            let _ = commands.send(RoleCommand::ReadJournal).await;
            Ok(())
        }
        DaemonRequestKind::Node | DaemonRequestKind::RoleStatuses => Ok(()),
    };
}

/// This node's status for each role. A role whose task does not answer is left out.
async fn role_statuses(socket_context: &SocketContext) -> BTreeMap<RoleName, DaemonRoleStatus> {
    let roles = socket_context.directory.lock().clone();
    let asked = roles.into_iter().map(|(role, commands)| async move {
        let (reply, replied) = oneshot::channel();
        commands.send(RoleCommand::Status { reply }).await.ok()?;
        Some((role, replied.await.ok()?))
    });
    let asked = asked.map(|asked| async { tokio::time::timeout(PAUSE, asked).await.ok().flatten() });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn serve_backup(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    commands: &mpsc::Sender<RoleCommand>,
    request: BackupRequest,
) -> io::Result<()> {
    let (reply, mut replied) = oneshot::channel();
    let (cancel, progress) = (CancellationToken::new(), Arc::new(JobProgress::default()));
    let wanted = RunRequest { request, cancel: cancel.clone(), progress: Arc::clone(&progress), reply };
    if commands.send(RoleCommand::BackUp(wanted)).await.is_err() {
        return write_line(writer, &DaemonResponse::Refused { why: "the role was just released".to_owned() }).await;
    }
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            ended = &mut replied => {
                return match ended {
                    Ok(reply) => write_line(writer, &DaemonResponse::Report(reply)).await,
                    Err(_) => write_line(writer, &DaemonResponse::Refused { why: "the role was just released".to_owned() }).await,
                };
            }
            _ = tick.tick() => write_line(writer, &DaemonResponse::Progress(progress.counts())).await.inspect_err(|_| cancel.cancel())?,
            _ = read_line(reader) => {
                cancel.cancel();
                return Ok(());
            }
        }
    }
}

async fn serve_lease(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    commands: &mpsc::Sender<RoleCommand>,
) -> io::Result<()> {
    let (tell, mut told) = mpsc::channel(1);
    let gone = || io::Error::other("the role was released");
    commands.send(RoleCommand::BorrowLease { tell }).await.map_err(|_| gone())?;
    let result = async {
        loop {
            let (reply, replied) = oneshot::channel();
            commands.send(RoleCommand::Lease { reply }).await.map_err(|_| gone())?;
            write_line(writer, &replied.await.map_err(|_| gone())?).await?;
            loop {
                tokio::select! {
                    asked = read_line(reader) => match asked {
                        Some(_) => break,
                        None => return Ok(()),
                    },
                    Some(()) = told.recv() => write_line(writer, &DaemonResponse::Changed).await?,
                }
            }
        }
    };
    let result: io::Result<()> = result.await;
    drop(told);
    // A task that has ended has no borrowers to count.
    let _ = commands.send(RoleCommand::BorrowerLeft).await;
    result
}
