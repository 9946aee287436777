//! A server that is told things over HTTP and remembers them: real requests over a real socket, answered as the test says.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// One request, as `METHOD /path`, and its body.
pub type ReceivedRequest = (String, String);

/// One request with all that it has.
#[derive(Debug, Clone)]
pub struct FullRequest {
    /// `METHOD /path`.
    pub line: String,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// Whether the answer was one of those that are given when no other one is left.
    pub is_answered_well: bool,
}

/// How one request is answered.
#[derive(Debug, Clone)]
pub struct ServerAnswer {
    status: u16,
    headers: String,
    body: String,
    delay: Duration,
}

impl ServerAnswer {
    /// An answer with this status and body.
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, headers: String::new(), body: body.to_owned(), delay: Duration::ZERO }
    }

    /// The same with one more header.
    pub fn header(self, name: &str, value: &str) -> Self {
        Self { headers: format!("{}{name}: {value}\r\n", self.headers), ..self }
    }

    /// The same after this time.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// The state that the server's threads share.
#[derive(Debug)]
struct ServerState {
    received: Vec<FullRequest>,
    first: VecDeque<ServerAnswer>,
    /// As long as it is there, it is given before the usual answer.
    instead: Option<ServerAnswer>,
    usual: ServerAnswer,
}

/// Listens until the test's process ends.
#[derive(Debug)]
pub struct WebhookServer {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    state: Arc<Mutex<ServerState>>,
}

impl WebhookServer {
    /// Answers with these statuses, one after the other, then 200.
    pub fn start(answers: &[u16]) -> Self {
        let server = Self::answering(ServerAnswer::new(200, ""));
        server.state.lock().first = answers.iter().map(|status| ServerAnswer::new(*status, "")).collect();
        server
    }

    /// Gives this answer.
    pub fn answering(usual: ServerAnswer) -> Self {
        Self::listen("127.0.0.1:0", usual, None)
    }

    /// Gives this answer at an address that was free.
    pub fn at(address: &str, usual: ServerAnswer) -> Self {
        Self::listen(address, usual, None)
    }

    /// Gives this answer over TLS, with this certificate and key as PEM.
    pub fn over_tls(usual: ServerAnswer, certificate: &str, key: &str) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().expect("a certificate");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"))
            .expect("they belong together");
        Self::listen("127.0.0.1:0", usual, Some(Arc::new(config)))
    }

    fn listen(address: &str, usual: ServerAnswer, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().expect("it has an address"));
        let state = ServerState { received: Vec::new(), first: VecDeque::new(), instead: None, usual };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                // A slow answer delays no other one.
                std::thread::spawn(move || match tls {
                    None => serve(stream, &state),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(tls).map_err(io::Error::other)?;
                        serve(rustls::StreamOwned::<_, TcpStream>::new(session, stream), &state)
                    }
                });
            }
        });
        Self { url, state }
    }

    /// Gives this answer from now on; `None`: the usual one.
    pub fn answer_instead(&self, answer: Option<ServerAnswer>) {
        self.state.lock().instead = answer;
    }

    /// What was heard so far.
    pub fn heard(&self) -> Vec<ReceivedRequest> {
        self.requests().into_iter().map(|request| (request.line, request.body)).collect()
    }

    /// What was heard so far, with headers.
    pub fn requests(&self) -> Vec<FullRequest> {
        self.state.lock().received.clone()
    }

    /// What was heard and given the usual answer.
    pub fn accepted(&self) -> Vec<FullRequest> {
        self.requests().into_iter().filter(|request| request.is_answered_well).collect()
    }
}

fn serve(stream: impl Read + Write, state: &Mutex<ServerState>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let answer = {
        let mut state = state.lock();
        let special = state.first.pop_front().or_else(|| state.instead.clone());
        let is_answered_well = special.is_none();
        state.received.push(FullRequest { line, headers, body, is_answered_well });
        special.unwrap_or_else(|| state.usual.clone())
    };
    std::thread::sleep(answer.delay);
    let ServerAnswer { status, headers, body, .. } = answer;
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status} so\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let stream = reader.get_mut();
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}
