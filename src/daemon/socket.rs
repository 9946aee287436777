//! The daemon's socket: other processes of this node have it back up, or work under its lease.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::callers::{Command, Ended, Wanted};
use super::message::{Answer, Ask, LINE_MAX, Question, VERSION};
use crate::file::{self, Lock};
use crate::ids::RoleName;
use crate::job::cancel::Cancel;
use crate::job::guard::Request;
use crate::job::progress::Progress;

/// How often a run's progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The pause after a connection that could not be accepted: the process may be out of files.
const PAUSE: Duration = Duration::from_secs(1);

const SOCKET: &str = "daemon.sock";
const LOCK: &str = "daemon.lock";

/// Where the socket is in a runtime directory.
pub fn path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET)
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon has it.
    #[error("another daemon runs on this node{}", pid.as_ref().map(|p| format!(" (process {p})")).unwrap_or_default())]
    Busy {
        /// Which.
        pid: Option<String>,
    },
    /// The file system.
    #[error("the daemon's socket {}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The roles' tasks, by name.
pub(super) type Directory = Arc<Mutex<BTreeMap<RoleName, mpsc::Sender<Command>>>>;

/// The listening socket, and the lock that says whose it is.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    _lock: Lock,
}

impl Socket {
    /// Opens it in `dir`, which is made if it is missing. What a daemon that was killed left there is replaced.
    pub(super) fn open(dir: &Path) -> Result<Self, SocketError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| SocketError::Io { path, error }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
        let lock_file = dir.join(LOCK);
        let lock = Lock::try_take(&lock_file).map_err(at(&lock_file))?;
        let Some(lock) = lock else { return Err(SocketError::Busy { pid: file::signature(&lock_file) }) };
        lock.sign();
        let path = path(dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(at(&path))?;
        // Whoever may connect may have everything backed up: only the daemon's own user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at(&path))?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// Answers whoever calls, until it is dropped.
    pub(super) async fn serve(&self, directory: Directory) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(converse(stream, Arc::clone(&directory)));
                }
                Err(error) => {
                    tracing::warn!("the daemon's socket: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One line, without its end; `None`: the other side has hung up, or says too much.
pub(super) async fn line(reader: &mut BufReader<OwnedReadHalf>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = reader.take(LINE_MAX as u64).read_until(b'\n', &mut line).await.ok()?;
    (read > 0 && line.pop() == Some(b'\n')).then_some(line)
}

/// Says one line.
pub(super) async fn say(writer: &mut OwnedWriteHalf, what: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

async fn converse(stream: UnixStream, directory: Directory) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let Some(line) = line(&mut reader).await else { return };
    let question = match serde_json::from_slice::<Question>(&line) {
        Ok(question) if question.v == VERSION => question,
        _ => {
            let why = "the daemon is of another version".to_owned();
            let _ = say(&mut writer, &Answer::Refused { why }).await;
            return;
        }
    };
    let (Ask::Backup { role, .. } | Ask::Lease { role }) = &question.ask;
    let post = directory.lock().unwrap_or_else(PoisonError::into_inner).get(role).cloned();
    let Some(post) = post else {
        let why = format!("the daemon has no role {role}");
        let _ = say(&mut writer, &Answer::Refused { why }).await;
        return;
    };
    // Whoever has hung up hears nothing.
    let _ = match question.ask {
        Ask::Backup { request, .. } => backup(&mut reader, &mut writer, &post, request).await,
        Ask::Lease { .. } => lease(&mut reader, &mut writer, &post).await,
    };
}

async fn backup(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    post: &mpsc::Sender<Command>,
    request: Request,
) -> io::Result<()> {
    let (reply, mut replied) = oneshot::channel();
    let (cancel, progress) = (Cancel::new(), Arc::new(Progress::default()));
    let wanted = Wanted { request, cancel: cancel.clone(), progress: Arc::clone(&progress), reply };
    if post.send(Command::BackUp(wanted)).await.is_err() {
        return say(writer, &Answer::Refused { why: "the role was just given up".to_owned() }).await;
    }
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            ended = &mut replied => {
                return match ended {
                    Ok(Ended { report, exit }) => say(writer, &Answer::Report { report: Box::new(report), exit }).await,
                    Err(_) => say(writer, &Answer::Refused { why: "the role was just given up".to_owned() }).await,
                };
            }
            _ = tick.tick() => say(writer, &Answer::Progress(progress.counts())).await.inspect_err(|_| cancel.cancel())?,
            _ = line(reader) => {
                cancel.cancel();
                return Ok(());
            }
        }
    }
}

async fn lease(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    post: &mpsc::Sender<Command>,
) -> io::Result<()> {
    let (tell, mut told) = mpsc::channel(1);
    let gone = || io::Error::other("the role was given up");
    post.send(Command::Enter { tell }).await.map_err(|_| gone())?;
    let result = async {
        loop {
            let (reply, replied) = oneshot::channel();
            post.send(Command::Lease { reply }).await.map_err(|_| gone())?;
            say(writer, &replied.await.map_err(|_| gone())?).await?;
            loop {
                tokio::select! {
                    asked = line(reader) => match asked {
                        Some(_) => break,
                        None => return Ok(()),
                    },
                    Some(()) = told.recv() => say(writer, &Answer::Changed).await?,
                }
            }
        }
    };
    let result: io::Result<()> = result.await;
    drop(told);
    // A post that is gone has no guests to count.
    let _ = post.send(Command::Left).await;
    result
}
