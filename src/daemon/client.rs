//! The client side of the socket: another process of this node that has the daemon back up, or works under its lease.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::protocol::{DaemonRequest, DaemonRequestKind, DaemonResponse, FailureExit, VERSION};
use super::socket::{self, read_line, write_line};
use crate::ids::{NodeId, RoleName};
use crate::job::backup::request::BackupRequest;
use crate::job::node::leases::LeaseLender;
use crate::job::node::progress::JobProgress;
use crate::job::report::RoleReport;
use crate::job::whoami::daemon_answer::DaemonRoleStatus;
use crate::role::lease::{LeaseReply, LeaseService};

/// How long the daemon's answer about a lease is waited for; it answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the daemon may be silent during a backup. It reports progress several times a second, so a daemon that is
/// silent for longer is stopped or hangs.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Why a request to an existing daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon refused.
    #[error("the daemon on this node refuses: {0}")]
    Refused(String),
    /// The daemon did not answer in time.
    #[error("the daemon on this node did not answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The daemon stopped answering during a run for this client. The run may go on, and may be committed.
    #[error("the daemon on this node has said nothing for {}: it is stopped, or hangs", humantime::format_duration(*.0))]
    Stuck(Duration),
    /// The daemon disconnected. Its run for this client may have been committed.
    #[error("the daemon on this node stopped before it reported how the run ended")]
    HungUp,
    /// This user may not open the socket's directory.
    #[error("the socket of this node's daemon is in {}, and this user may not go there (permission denied)", .0.display())]
    Denied(PathBuf),
    /// The socket failed.
    #[error("the daemon's socket: {0}")]
    Io(#[from] io::Error),
}

/// Client of the daemon on this node.
#[derive(Debug)]
pub struct DaemonClient {
    runtime_dir: PathBuf,
    silence_max: Duration,
}

impl DaemonClient {
    /// The daemon whose socket is in this runtime directory; `None`: there is none.
    ///
    /// # Errors
    /// There is a socket, and it cannot be connected to.
    pub async fn find(runtime_dir: &Path) -> Result<Option<Self>, ClientError> {
        let found = socket::connect(runtime_dir).await.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied(runtime_dir.to_owned()),
            _ => error.into(),
        })?;
        Ok(found.map(|_| Self::of(runtime_dir.to_owned())))
    }

    fn of(runtime_dir: PathBuf) -> Self {
        Self { runtime_dir, silence_max: SILENCE_MAX }
    }

    async fn ask(&self, ask: DaemonRequestKind) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
        let stream = socket::connect(&self.runtime_dir).await?.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (reader, mut writer) = stream.into_split();
        write_line(&mut writer, &DaemonRequest { v: VERSION, ask }).await?;
        Ok((BufReader::new(reader), writer))
    }

    /// Asks the daemon for this node's ID, for at most `patience`.
    ///
    /// # Errors
    /// The daemon does not answer in time, or refuses.
    pub async fn node(&self, patience: Duration) -> Result<NodeId, ClientError> {
        match self.query(DaemonRequestKind::Node, patience).await? {
            DaemonResponse::Node(id) => Ok(id),
            _ => Err(ClientError::HungUp),
        }
    }

    /// Asks the daemon for this node's status for each role, for at most `patience`.
    ///
    /// # Errors
    /// The daemon does not answer in time, or refuses.
    pub async fn role_statuses(&self, patience: Duration) -> Result<BTreeMap<RoleName, DaemonRoleStatus>, ClientError> {
        match self.query(DaemonRequestKind::RoleStatuses, patience).await? {
            DaemonResponse::RoleStatuses(statuses) => Ok(statuses),
            _ => Err(ClientError::HungUp),
        }
    }

    /// Asks the daemon for its one answer to a request, for at most `patience`.
    async fn query(&self, request: DaemonRequestKind, patience: Duration) -> Result<DaemonResponse, ClientError> {
        let asked = async {
            let (mut reader, _writer) = self.ask(request).await?;
            match answer(&mut reader).await.ok_or(ClientError::HungUp)? {
                DaemonResponse::Refused { why } => Err(ClientError::Refused(why)),
                answer => Ok(answer),
            }
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(Err(ClientError::Silent(patience)))
    }

    /// Has the daemon read a role's journal, to which this process has appended. Nothing rests on it, because the
    /// daemon polls as well.
    pub async fn notify_appended(&self, role: &RoleName) {
        if let Err(error) = self.ask(DaemonRequestKind::Look { role: role.clone() }).await {
            tracing::debug!("the daemon cannot be told of the new record: {error}");
        }
    }

    /// Has the daemon back up a role; `progress` follows the daemon's counters. Dropping the future ends the run. The
    /// exit is given if the report alone does not determine it.
    ///
    /// # Errors
    /// It is unknown how the run ended, or there was none. The wait ends when the daemon is silent for a minute.
    pub async fn back_up(
        &self,
        role: &RoleName,
        request: BackupRequest,
        progress: &JobProgress,
    ) -> Result<(RoleReport, Option<FailureExit>), ClientError> {
        let (mut reader, _writer) = self.ask(DaemonRequestKind::Backup { role: role.clone(), request }).await?;
        loop {
            let answered = tokio::time::timeout(self.silence_max, answer(&mut reader)).await;
            match answered.map_err(|_| ClientError::Stuck(self.silence_max))?.ok_or(ClientError::HungUp)? {
                DaemonResponse::Progress(counts) => progress.set(&counts),
                DaemonResponse::Report(reply) => return Ok(reply.into_parts()),
                DaemonResponse::Refused { why } => return Err(ClientError::Refused(why)),
                _ => return Err(ClientError::HungUp),
            }
        }
    }
}

async fn answer(reader: &mut BufReader<OwnedReadHalf>) -> Option<DaemonResponse> {
    serde_json::from_slice(&read_line(reader).await?).ok()
}

#[async_trait]
impl LeaseLender for DaemonClient {
    fn lease(&self, role: &RoleName) -> Box<dyn LeaseService> {
        Box::new(BorrowedLease {
            runtime_dir: self.runtime_dir.clone(),
            role: role.clone(),
            call: None,
            changed: Arc::default(),
        })
    }
}

/// The daemon's lease, as another process of its node borrows it.
#[derive(Debug)]
struct BorrowedLease {
    runtime_dir: PathBuf,
    role: RoleName,
    call: Option<BorrowConnection>,
    changed: Arc<Notify>,
}

/// The connection of a borrower. As long as it is open, the daemon counts this process as working under its lease.
#[derive(Debug)]
struct BorrowConnection {
    writer: OwnedWriteHalf,
    answers: mpsc::Receiver<DaemonResponse>,
    task: JoinHandle<()>,
}

impl Drop for BorrowConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BorrowedLease {
    async fn call(&self) -> io::Result<BorrowConnection> {
        let client = DaemonClient::of(self.runtime_dir.clone());
        let (mut reader, writer) = client.ask(DaemonRequestKind::Lease { role: self.role.clone() }).await?;
        let (tell, answers) = mpsc::channel(1);
        let changed = Arc::clone(&self.changed);
        let task = tokio::spawn(async move {
            while let Some(answer) = answer(&mut reader).await {
                if matches!(answer, DaemonResponse::Changed) {
                    changed.notify_one();
                } else if tell.send(answer).await.is_err() {
                    break;
                }
            }
            changed.notify_one();
        });
        Ok(BorrowConnection { writer, answers, task })
    }

    async fn try_ask(&mut self) -> Result<LeaseReply, ClientError> {
        // The daemon sends the first answer without another request.
        let call = match self.call.take() {
            Some(mut call) => {
                write_line(&mut call.writer, &()).await?;
                call
            }
            None => self.call().await?,
        };
        let call = self.call.insert(call);
        let answered = tokio::time::timeout(PATIENCE, call.answers.recv()).await;
        match answered.ok().flatten().ok_or(ClientError::HungUp)? {
            DaemonResponse::Held(grant) => Ok(LeaseReply::Held(grant)),
            DaemonResponse::Taken(by) => Ok(LeaseReply::Taken { by, alive: true }),
            DaemonResponse::Unknown { why } => Ok(LeaseReply::Unknown { why }),
            DaemonResponse::Refused { why } => Err(ClientError::Refused(why)),
            DaemonResponse::Progress(_)
            | DaemonResponse::Report(_)
            | DaemonResponse::Node(_)
            | DaemonResponse::RoleStatuses(_)
            | DaemonResponse::Changed => Err(ClientError::HungUp),
        }
    }
}

#[async_trait]
impl LeaseService for BorrowedLease {
    async fn acquire_or_renew(&mut self) -> LeaseReply {
        self.try_ask().await.unwrap_or_else(|error| {
            self.call = None;
            LeaseReply::Unknown { why: error.to_string() }
        })
    }

    async fn inspect(&mut self) -> LeaseReply {
        self.acquire_or_renew().await
    }

    async fn release(&mut self) {
        self.call = None;
    }

    fn change_hints(&mut self) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.changed))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_daemon_that_falls_silent_during_a_run_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket::socket_path(dir.path())).unwrap();
        let daemon = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let progress = serde_json::to_string(&DaemonResponse::Progress(JobProgress::default().counts())).unwrap();
            stream.write_all(format!("{progress}\n").as_bytes()).await.unwrap();
            // A stopped daemon: the connection stays open without further answers.
            std::future::pending::<()>().await;
        });
        let client = DaemonClient { silence_max: Duration::from_millis(50), ..DaemonClient::of(dir.path().to_owned()) };
        let request = BackupRequest::default();
        let ended = client.back_up(&"app".parse().unwrap(), request, &JobProgress::default()).await;
        assert!(matches!(ended, Err(ClientError::Stuck(_))), "{ended:?}");
        daemon.abort();
    }
}
