//! The connection to etcd: one client for each endpoint, tried in turn, each for a limited time. Leases and journals
//! share it.
//!
//! The invariant that lives here: no call hangs. A stopped member keeps its connections open and answers nothing, so a
//! client that balances over its connections would wait for it. Here the next member is tried, and tried first from
//! then on. So a request may reach etcd twice, and late: a caller that writes must guard the write with a comparison to
//! what it has read.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::client_renewal::{ClientRenewal, RenewalAction};
use crate::config::EtcdSettings;
use crate::{file, outage, text};

/// The longest wait for one member.
const TRY_MAX: Duration = Duration::from_secs(5);

/// The interval of keep-alive pings on an idle connection. Etcd refuses more than one in five seconds.
const PING: Duration = Duration::from_secs(10);

/// Why a request to etcd failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EtcdError {
    /// No member answered.
    #[error("etcd: {}", tried.join("; "))]
    Unreachable {
        /// Each endpoint with its error.
        tried: Vec<String>,
    },
    /// Etcd refused the request.
    #[error("etcd at {endpoint}: {message}")]
    Refused {
        /// The endpoint that answered.
        endpoint: String,
        /// The gRPC status code.
        code: i32,
        /// Etcd's message.
        message: String,
    },
    /// A file that the config names cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error.
        why: String,
    },
    /// The lease of this process expired.
    #[error("etcd: the lease of this process ended")]
    LeaseGone,
    /// The session was closed.
    #[error("etcd: the session is closed")]
    Closed,
    /// Etcd's data changes too fast to be read consistently.
    #[error("etcd: {0}")]
    Unsettled(&'static str),
}

impl EtcdError {
    /// Whether etcd refused the token or the password, independent of the request. A new login, with the credentials on
    /// disk, may succeed.
    fn is_of_login(&self) -> bool {
        matches!(self, Self::Refused { code, message, .. } if is_login_refused(*code, message))
    }
}

/// The gRPC code for an invalid argument. Etcd also uses it for a wrong password, and for a token from before its users
/// changed.
const INVALID_ARGUMENT: i32 = 3;

/// The gRPC code for a token that etcd does not know.
const UNAUTHENTICATED: i32 = 16;

/// Whether etcd refused the login, and not the user's permission for this request.
fn is_login_refused(code: i32, message: &str) -> bool {
    match code {
        UNAUTHENTICATED => true,
        // The last one: authentication was enabled after the client connected.
        INVALID_ARGUMENT => ["revision of auth store is old", "authentication failed", "user name is empty"]
            .iter()
            .any(|words| message.contains(words)),
        _ => false,
    }
}

/// The gRPC code for a missing object; etcd uses it for leases.
pub(crate) const NOT_FOUND: i32 = 5;

/// An answer, and the number of requests that may have been sent for it.
#[derive(Debug)]
pub(crate) struct EtcdAnswer<T> {
    pub(crate) value: T,
    /// The number of members to which the request was sent. With more than one, an earlier one may still take effect.
    pub(crate) tries: usize,
}

/// The members of an etcd cluster.
#[derive(Debug)]
pub struct EtcdPool {
    settings: EtcdSettings,
    members: Mutex<Vec<EtcdEndpoint>>,
    /// The index of the member that answered last.
    preferred: AtomicUsize,
    /// The error of the last member that did not answer, if no member has answered since.
    last_failure: Mutex<Option<String>>,
    started: Instant,
}

/// The state of one endpoint.
#[derive(Default)]
struct EtcdEndpoint {
    /// A connected client, with the certificates and the token of its login.
    client: Option<Client>,
    renewal: ClientRenewal,
    /// The login error of a client that was built from the files on disk.
    refused: Option<EtcdError>,
}

impl std::fmt::Debug for EtcdEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("renewal", &self.renewal).finish_non_exhaustive()
    }
}

impl EtcdPool {
    /// The endpoints in `settings`. Each is connected at its first use.
    pub fn new(settings: EtcdSettings) -> Self {
        let members = Mutex::new(settings.endpoints.iter().map(|_| EtcdEndpoint::default()).collect());
        Self {
            settings,
            members,
            preferred: AtomicUsize::new(0),
            last_failure: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Makes all later requests use clients built from the password and certificates that are on disk then.
    pub fn request_new_clients(&self) {
        for member in self.members().iter_mut() {
            member.renewal.request_rebuild();
            (member.client, member.refused) = (None, None);
        }
    }

    pub(crate) fn settings(&self) -> &EtcdSettings {
        &self.settings
    }

    /// How long to wait for one member: a third of the lease, half of that if there is another member to try; at most 5
    /// s.
    pub(crate) fn patience(&self) -> Duration {
        let part = if self.settings.endpoints.len() > 1 { 6 } else { 3 };
        (self.settings.lease_ttl / part).min(TRY_MAX)
    }

    /// The failure of the last request, if none has been answered since. A caller that hits its deadline reports it as
    /// the cause.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.last_failure.lock().clone()
    }

    /// Records whether a member answered.
    fn note_answer<T>(&self, index: usize, answer: Result<T, String>) -> Result<T, String> {
        let answer = answer.map_err(|why| format!("{}: {why}", self.settings.endpoints[index]));
        *self.last_failure.lock() = answer.as_ref().err().cloned();
        answer
    }

    /// The endpoint that is tried first.
    pub(crate) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Sends the request to members in turn until one answers, to each at most once.
    pub(crate) async fn call<T, F>(&self, op: impl Fn(Client) -> F) -> Result<EtcdAnswer<T>, EtcdError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let (count, first) = (self.settings.endpoints.len(), self.preferred());
        let mut tried = Vec::new();
        for n in 0..count {
            let index = (first + n) % count;
            let answer = self.call_on(index, &op).await?;
            match self.note_answer(index, answer) {
                Ok(value) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(EtcdAnswer { value, tries: n + 1 });
                }
                Err(why) => tried.push(why),
            }
        }
        // The next request begins with another member.
        self.preferred.store((first + 1) % count, Ordering::Relaxed);
        Err(EtcdError::Unreachable { tried })
    }

    /// Sends the request to one member, once. If it does not answer, another one is tried first from then on.
    ///
    /// # Errors
    /// The outer error is an answer. The inner one means no answer: the request may still take effect.
    pub(crate) async fn call_once<T, F>(&self, op: impl Fn(Client) -> F) -> Result<Result<T, String>, EtcdError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let index = self.preferred();
        let answer = self.call_on(index, &op).await?;
        let answer = self.note_answer(index, answer);
        if answer.is_err() {
            self.preferred.store((index + 1) % self.settings.endpoints.len(), Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Sends the request to one member, and once more through a rebuilt client if it refuses the token or the password.
    /// The outer error is an answer, the inner one means no answer.
    pub(crate) async fn call_on<T, F>(
        &self,
        index: usize,
        op: impl Fn(Client) -> F,
    ) -> Result<Result<T, String>, EtcdError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let used = {
            let members = self.members();
            let EtcdEndpoint { renewal, refused, .. } = &members[index];
            let used = renewal.generation();
            // Logins are expensive for etcd: hashing the password takes longer than most requests.
            if let Some(refused) = refused
                && renewal.note_refusal(used, self.now()) == RenewalAction::GiveUp
            {
                return Err(refused.clone());
            }
            used
        };
        let refused = match self.ask(index, &op).await {
            Err(error) if error.is_of_login() => error,
            asked => return asked,
        };
        // Etcd checks the login before anything else, so a request that was refused this way had no effect.
        let decided = self.members()[index].renewal.note_refusal(used, self.now());
        match decided {
            RenewalAction::GiveUp => return Err(refused),
            RenewalAction::UseNewer => {}
            RenewalAction::Build => {
                tracing::debug!("{refused}; logging in anew with what is on disk");
                let mut members = self.members();
                members[index].client = None;
                members[index].renewal.note_built(self.now());
            }
        }
        let asked = self.ask(index, &op).await;
        let mut members = self.members();
        let EtcdEndpoint { client, renewal, refused } = &mut members[index];
        match &asked {
            Err(error) if error.is_of_login() => *refused = client.is_none().then(|| error.clone()),
            Ok(Ok(_)) | Err(EtcdError::Refused { .. }) => {
                *refused = None;
                renewal.note_accepted();
            }
            Ok(Err(_)) | Err(_) => {}
        }
        drop(members);
        asked
    }

    /// Sends the request to one member, once.
    async fn ask<T, F>(&self, index: usize, op: &impl Fn(Client) -> F) -> Result<Result<T, String>, EtcdError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let endpoint = &self.settings.endpoints[index];
        let asked = tokio::time::timeout(self.patience(), async {
            let client = match self.client(index).await? {
                Ok(client) => client,
                Err(error) => return Ok(Err(error)),
            };
            Ok(op(client).await)
        });
        let Ok(answer) = asked.await else {
            self.drop_client(index);
            return Ok(Err(outage::no_answer_text(self.patience(), None)));
        };
        let answer = answer?;
        match answer {
            Ok(value) => Ok(Ok(value)),
            Err(Error::GRpcStatus(status)) if is_answer(status.code().into(), status.message()) => {
                Err(EtcdError::Refused {
                    endpoint: endpoint.clone(),
                    code: status.code().into(),
                    message: text::line(status.message()).into_owned(),
                })
            }
            Err(error) => {
                self.drop_client(index);
                Ok(Err(error_text(&error)))
            }
        }
    }

    /// The client of an endpoint, connected if necessary. The outer error means that a file cannot be read.
    pub(crate) async fn client(&self, index: usize) -> Result<Result<Client, Error>, EtcdError> {
        if let Some(client) = &self.members()[index].client {
            return Ok(Ok(client.clone()));
        }
        let options = self.options().await?;
        match Client::connect([&self.settings.endpoints[index]], Some(options)).await {
            Ok(client) => {
                self.members()[index].client = Some(client.clone());
                Ok(Ok(client))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Drops a client that did not answer: the next one connects anew, with the certificates and passwords on disk
    /// then.
    pub(crate) fn drop_client(&self, index: usize) {
        self.members()[index].client = None;
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn members(&self) -> MutexGuard<'_, Vec<EtcdEndpoint>> {
        self.members.lock()
    }

    async fn options(&self) -> Result<ConnectOptions, EtcdError> {
        let settings = &self.settings;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.patience())
            .with_keep_alive(PING, TRY_MAX)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if settings.endpoints.iter().any(|url| url.starts_with("https:")) {
            let mut tls = TlsOptions::new();
            tls = match &settings.ca_file {
                Some(path) => tls.ca_certificate(Certificate::from_pem(read(path).await?)),
                None => tls.with_native_roots(),
            };
            if let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) {
                tls = tls.identity(Identity::from_pem(read(cert).await?, read(key).await?));
            }
            options = options.with_tls(tls);
        }
        if let (Some(user), Some(path)) = (&settings.user, &settings.password_file) {
            let bytes = read(path).await?;
            let text =
                std::str::from_utf8(&bytes).map_err(|e| EtcdError::File { path: path.clone(), why: e.to_string() })?;
            options = options.with_user(user, text.strip_suffix('\n').unwrap_or(text));
        }
        Ok(options)
    }
}

/// The most that is read of a file with certificates, a key or a password.
const CREDENTIAL_MAX: u64 = 4 << 20;

async fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, EtcdError> {
    let from = path.to_owned();
    let read = tokio::task::spawn_blocking(move || file::read(&from, CREDENTIAL_MAX)).await;
    match read.map_err(io::Error::other).flatten() {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(e) => Err(EtcdError::File { path: path.to_owned(), why: e.to_string() }),
    }
}

/// The gRPC code for used-up space, or a request that is too large.
pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;

/// Whether a status is etcd's own answer, the same from every member: an invalid argument, a missing object, a lack of
/// permission. Every other status may be one member's problem: gone, too slow, without a leader. Or it does not come
/// from etcd: the client makes statuses of a stream that was reset and of a proxy's plain HTTP answer, and in these
/// cases etcd may have executed the request.
fn is_answer(code: i32, message: &str) -> bool {
    const ALREADY_EXISTS: i32 = 6;
    const PERMISSION_DENIED: i32 = 7;
    const FAILED_PRECONDITION: i32 = 9;
    match code {
        INVALID_ARGUMENT | NOT_FOUND | ALREADY_EXISTS | PERMISSION_DENIED | FAILED_PRECONDITION | UNAUTHENTICATED => {
            message.starts_with(OWN_WORDS)
        }
        // The second kind comes from etcd's gRPC server, which has not looked at the request then.
        RESOURCE_EXHAUSTED => {
            message.starts_with(OWN_WORDS) || message.starts_with("grpc: received message larger than max")
        }
        _ => false,
    }
}

/// The prefix of every error of etcd's own.
const OWN_WORDS: &str = "etcdserver: ";

/// The error with its causes: gRPC itself says "transport error" for everything.
fn error_text(error: &Error) -> String {
    let mut words = match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    };
    let mut cause = match error {
        Error::GRpcStatus(status) => std::error::Error::source(status),
        Error::TransportError(error) => std::error::Error::source(error),
        _ => None,
    };
    while let Some(source) = cause {
        let more = source.to_string();
        if !words.contains(&more) && more != "transport error" {
            words = format!("{words}: {more}");
        }
        cause = source.source();
    }
    text::without_os_error(&text::line(&text::of_tls(&words))).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{is_answer, is_login_refused};

    #[test]
    fn who_asks_is_told_from_what_is_asked() {
        for (code, message, login) in [
            (16, "etcdserver: invalid auth token", true),
            (3, "etcdserver: revision of auth store is old", true),
            (3, "etcdserver: authentication failed, invalid user ID or password", true),
            (3, "etcdserver: user name is empty", true),
            (3, "etcdserver: key is not provided", false),
            (7, "etcdserver: permission denied", false),
            (9, "etcdserver: authentication is not enabled", false),
        ] {
            assert_eq!(is_login_refused(code, message), login, "{code} {message}");
        }
    }

    #[test]
    fn only_etcds_own_words_are_an_answer() {
        for (code, message, answer) in [
            (3, "etcdserver: key is not provided", true),
            (3, "etcdserver: revision of auth store is old", true),
            (5, "etcdserver: requested lease not found", true),
            (7, "etcdserver: permission denied", true),
            (8, "etcdserver: mvcc: database space exceeded", true),
            (8, "grpc: received message larger than max (2 vs. 1)", true),
            (9, "etcdserver: lease already exists", true),
            (16, "etcdserver: invalid auth token", true),
            // The client's statuses for a proxy's answer in plain HTTP, and for a stream that was reset.
            (7, "grpc-status header missing, mapped from HTTP status code 403", false),
            (16, "grpc-status header missing, mapped from HTTP status code 401", false),
            (7, "h2 protocol error: http2 error: stream error received: unsuitable security for stream", false),
            (8, "h2 protocol error: http2 error: stream error received: excessive load", false),
            (8, "too many connections", false),
            (3, "", false),
            // Etcd's own errors that do not say whether the request took effect.
            (14, "etcdserver: request timed out", false),
            (14, "etcdserver: no leader", false),
            (2, "etcdserver: stopped", false),
            (0, "", false),
            (11, "decoded message length too large", false),
            (99, "etcdserver: something new", false),
        ] {
            assert_eq!(is_answer(code, message), answer, "{code} {message}");
        }
    }
}
