//! The `http` probe against real servers on this machine: what they answer, how they fail to, and whom TLS trusts.

#[path = "../support/s3_foreign.rs"]
mod s3_foreign;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Waking, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use runner::config::Probe;
use runner::env::Env;
use runner::role::probe::ProbeAnswer::{self, No, Unknown, Yes};
use runner::role::probe::{CommandVariables, HostProbeRunner, assess};

/// Longer than any answer takes, even on a busy machine.
const LONG: Duration = Duration::from_mins(1);

/// For what never answers.
const SHORT: Duration = Duration::from_millis(300);

/// A chunk of a body without an end.
const CHUNK: usize = 8 * 1024;

/// Every request that came in, as `GET /path host agent`.
type Seen = Arc<Mutex<Vec<String>>>;

/// A body of chunks, each made when the one before is taken.
struct Chunks {
    next: Box<dyn FnMut() -> Option<Bytes> + Send>,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Waking<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready((self.next)().map(|data| Ok(Frame::data(data))))
    }
}

fn chunks(list: &[&str]) -> Chunks {
    let mut list: std::collections::VecDeque<Bytes> = list.iter().map(|c| Bytes::from((*c).to_owned())).collect();
    Chunks { next: Box::new(move || list.pop_front()) }
}

fn answer(request: &Request<Incoming>, seen: &Seen, endless: &Arc<AtomicUsize>) -> Response<Chunks> {
    let header = |name: &str| request.headers().get(name).map_or("-", |v| v.to_str().unwrap()).to_owned();
    let line = format!("{} {} {} {}", request.method(), request.uri(), header("host"), header("user-agent"));
    seen.lock().push(line);
    let response = Response::builder();
    let response = match request.uri().path() {
        "/primary" => response.status(200).body(chunks(&["{\"state\": \"running\", \"role\": \"pri", "mary\"}\n"])),
        "/gateway" => response.status(502).body(chunks(&["Bad Gateway"])),
        "/standby" => response.status(503).body(chunks(&["{\"role\": \"replica\"}"])),
        "/moved" => response.status(302).header("location", "/primary").body(chunks(&[])),
        "/empty" => response.status(204).body(chunks(&[])),
        "/endless" => {
            let sent = endless.clone();
            let next = move || {
                sent.fetch_add(CHUNK, Ordering::SeqCst);
                Some(Bytes::from_static(&[b'x'; CHUNK]))
            };
            response.status(200).body(Chunks { next: Box::new(next) })
        }
        _ => response.status(404).body(chunks(&["nothing here"])),
    };
    response.unwrap()
}

/// A server that counts and remembers.
struct Server {
    port: u16,
    seen: Seen,
    /// How many bytes of the body without an end were asked for.
    endless: Arc<AtomicUsize>,
}

impl Server {
    async fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { port: listener.local_addr().unwrap().port(), seen: Arc::default(), endless: Arc::default() };
        let (seen, endless) = (server.seen.clone(), server.endless.clone());
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, endless, acceptor) = (seen.clone(), endless.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, seen, endless).await,
                        // A client that does not trust it hangs up.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, seen, endless).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Seen, endless: Arc<AtomicUsize>) {
    let service = service_fn(|request| {
        let response = answer(&request, &seen, &endless);
        async move { Ok::<_, Infallible>(response) }
    });
    // A client that has seen enough hangs up.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A server that does this with each connection, for what no proper one does.
async fn raw<F>(act: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(act(stream));
        }
    });
    url
}

/// Reads the request, writes this, and closes the connection.
async fn says(mut stream: TcpStream, text: &'static str) -> io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads the request, writes this, and nothing more ever.
async fn begins(mut stream: TcpStream, text: &'static str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(drop)
}

#[derive(Default, Clone)]
struct Wanted<'a> {
    status: &'a [u16],
    body: Option<&'a str>,
    ca_file: Option<PathBuf>,
}

async fn ask_within(url: &str, wanted: Wanted<'_>, timeout: Duration) -> (ProbeAnswer, String) {
    let probe = Probe::Http {
        url: url.parse().unwrap(),
        status: wanted.status.to_vec(),
        body: wanted.body.map(str::to_owned),
        timeout,
        ca_file: wanted.ca_file,
    };
    let context = CommandVariables::new("east", "app".parse().unwrap());
    let assessment = assess(&probe, None, &context, &HostProbeRunner, &Env::host()).await;
    let [evidence] = &assessment.results[..] else { panic!("{assessment:?}") };
    assert_eq!(evidence.answer, assessment.answer);
    assert_eq!(evidence.subject.to_string(), format!("http {url}"));
    (evidence.answer, evidence.detail.to_string())
}

async fn ask(url: &str, wanted: Wanted<'_>) -> (ProbeAnswer, String) {
    ask_within(url, wanted, LONG).await
}

fn said(answer: ProbeAnswer, detail: &str) -> (ProbeAnswer, String) {
    (answer, detail.to_owned())
}

#[tokio::test]
async fn an_answer_is_yes_or_no_by_its_status() {
    let server = Server::start(None).await;
    let any = Wanted::default();
    assert_eq!(ask(&server.url("/primary?lag=1MB"), any.clone()).await, said(Yes, "answered 200"));
    assert_eq!(ask(&server.url("/empty"), any.clone()).await, said(Yes, "answered 204"));
    assert_eq!(ask(&server.url("/standby"), any.clone()).await, said(No, "answered 503, not 2xx"));
    assert_eq!(ask(&server.url("/none"), any.clone()).await, said(No, "answered 404, not 2xx"));
    assert_eq!(ask(&server.url("/gateway"), any).await, said(Unknown, "answered 502, not 2xx"));
    let some = Wanted { status: &[200, 503], ..Wanted::default() };
    assert_eq!(ask(&server.url("/standby"), some.clone()).await, said(Yes, "answered 503"));
    assert_eq!(ask(&server.url("/empty"), some).await, said(No, "answered 204, not 200 or 503"));
    let first = server.seen.lock()[0].clone();
    let expected = format!("GET /primary?lag=1MB 127.0.0.1:{} runner/{}", server.port, env!("CARGO_PKG_VERSION"));
    assert_eq!(first, expected);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let server = Server::start(None).await;
    let moved = ask(&server.url("/moved"), Wanted::default()).await;
    assert_eq!(moved, said(No, "answered 302, not 2xx; redirects are not followed"));
    assert_eq!(server.seen.lock().len(), 1, "one request, and none to where it points");
    let wanted = Wanted { status: &[302], ..Wanted::default() };
    assert_eq!(ask(&server.url("/moved"), wanted).await, said(Yes, "answered 302"));
}

#[tokio::test]
async fn the_body_must_have_the_text_also_across_its_pieces() {
    let server = Server::start(None).await;
    let wanted = |body| Wanted { body: Some(body), ..Wanted::default() };
    let primary = server.url("/primary");
    assert_eq!(ask(&primary, wanted("\"role\": \"primary\"")).await, said(Yes, "answered 200 with the expected text"));
    let other = "answered 200, but without \"replica\": {\"state\": \"running\", \"role\": \"primary\"}";
    assert_eq!(ask(&primary, wanted("replica")).await, said(No, other));
    // Not a pattern.
    assert_eq!(ask(&primary, wanted("pri.*ry")).await.0, No);
    assert_eq!(ask(&server.url("/empty"), wanted("x")).await, said(No, "answered 204, but without \"x\""));
    // The status decides first.
    assert_eq!(ask(&server.url("/standby"), wanted("replica")).await, said(No, "answered 503, not 2xx"));
}

#[tokio::test]
async fn a_body_without_an_end_is_read_no_further_than_needed() {
    let server = Server::start(None).await;
    let wanted = |body| Wanted { body: Some(body), ..Wanted::default() };
    let (answer, detail) = ask(&server.url("/endless"), wanted("y")).await;
    assert_eq!(answer, No);
    assert!(detail.starts_with("answered 200, but without \"y\": xxx") && detail.len() < 300, "{detail}");
    // What is on its way in buffers of the kernel and of both sides is more than what was read, but has an end.
    let sent = server.endless.load(Ordering::SeqCst);
    assert!((64 * 1024..64 * 1024 * 1024).contains(&sent), "{sent}");
    assert_eq!(ask(&server.url("/endless"), wanted("xxxxxxxxx")).await.0, Yes);
    // Without a text to find, none of it is waited for.
    assert_eq!(ask(&server.url("/endless"), Wanted::default()).await, said(Yes, "answered 200"));
}

#[tokio::test]
async fn no_answer_is_unknown() {
    let text = Wanted { body: Some("primary"), ..Wanted::default() };
    // A port that is taken, so that nobody else gets it, and on which nobody listens.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (answer, detail) = ask(&format!("http://{}/", taken.local_addr().unwrap()), text.clone()).await;
    assert_eq!(answer, Unknown);
    assert!(detail.starts_with("no answer: ") && detail.contains("refused"), "{detail}");

    for nothing_of_use in [
        "",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-len",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nrole: pri",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nrole\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nprimary\r\n",
    ] {
        let url = raw(move |stream| says(stream, nothing_of_use)).await;
        let (answer, detail) = ask(&url, text.clone()).await;
        assert_eq!(answer, Unknown, "{nothing_of_use:?}: {detail}");
        assert!(detail.starts_with("no answer: ") && detail.len() > 15, "{nothing_of_use:?}: {detail}");
    }
    // The text was there before the answer broke off.
    let url = raw(|stream| says(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nrole: primary")).await;
    assert_eq!(ask(&url, text.clone()).await.0, Yes);
    // An old server ends the body with the connection.
    let url = raw(|stream| says(stream, "HTTP/1.0 200 OK\r\n\r\nrole: replica")).await;
    assert_eq!(ask(&url, text).await, said(No, "answered 200, but without \"primary\": role: replica"));
}

#[tokio::test]
async fn a_server_that_hangs_is_unknown_when_the_time_is_up() {
    let text = Wanted { body: Some("primary"), ..Wanted::default() };
    for begun in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nrole: pri"] {
        let url = raw(move |stream| begins(stream, begun)).await;
        let hung = ask_within(&url, text.clone(), SHORT).await;
        assert_eq!(hung, said(Unknown, "no answer within 300ms"), "{begun:?}");
    }
    // Nobody even accepts, and with TLS nobody shakes hands.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/", listener.local_addr().unwrap());
        assert_eq!(ask_within(&url, Wanted::default(), SHORT).await, said(Unknown, "no answer within 300ms"));
    }
}

/// A root of trust and a certificate of it for `localhost`.
fn certificates(dir: &Path) {
    let made = Command::new(s3_foreign::test_tool("venv/bin/python"))
        .args([s3_foreign::support_file("make_certificates.py"), dir.display().to_string()])
        .status();
    assert!(made.unwrap().success());
}

fn tls(dir: &Path) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(dir.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

#[tokio::test]
async fn tls_trusts_only_the_ca_file() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(dir.path());
    certificates(other.path());
    let server = Server::start(Some(tls(dir.path()))).await;
    let url = format!("https://localhost:{}/primary", server.port);
    let with = |ca_file: PathBuf| Wanted { ca_file: Some(ca_file), body: Some("primary"), ..Wanted::default() };
    let trusted = ask(&url, with(dir.path().join("ca.pem"))).await;
    assert_eq!(trusted, said(Yes, "answered 200 with the expected text"));
    let seen = server.seen.lock().clone();
    assert_eq!(seen, [format!("GET /primary localhost:{} runner/{}", server.port, env!("CARGO_PKG_VERSION"))]);

    // The system does not know that root, another root did not sign, and the certificate is for another name.
    let address = format!("https://127.0.0.1:{}/primary", server.port);
    for (url, wanted) in [
        (&url, Wanted::default()),
        (&url, with(other.path().join("ca.pem"))),
        (&address, with(dir.path().join("ca.pem"))),
    ] {
        let (answer, detail) = ask(url, wanted).await;
        assert_eq!(answer, Unknown, "{detail}");
        assert!(detail.starts_with("no answer: TLS: ") && detail.contains("certificate"), "{detail}");
    }
    std::fs::write(dir.path().join("bad.pem"), "hello").unwrap();
    for (file, why) in [("bad.pem", "no certificate"), ("none.pem", "No such file"), ("server.key", "no certificate")] {
        let (answer, detail) = ask(&url, with(dir.path().join(file))).await;
        assert_eq!(answer, Unknown, "{detail}");
        assert!(detail.contains(file) && detail.contains(why), "{detail}");
    }
    assert_eq!(server.seen.lock().len(), 1, "nobody was asked over a connection that is not trusted");

    // TLS spoken to who does not speak it, and the other way round.
    let plain = Server::start(None).await;
    let (answer, detail) =
        ask(&format!("https://localhost:{}/primary", plain.port), with(dir.path().join("ca.pem"))).await;
    assert_eq!(answer, Unknown, "{detail}");
    let (answer, detail) = ask(&format!("http://localhost:{}/primary", server.port), Wanted::default()).await;
    assert_eq!(answer, Unknown, "{detail}");
    assert_eq!(plain.seen.lock().len(), 0);
}

/// In a process of its own, because its environment must name a proxy.
#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    const CHILD: &str = "RUNNER_TEST_PROXY_CHILD";
    if let Ok(url) = std::env::var(CHILD) {
        assert_eq!(ask(&url, Wanted::default()).await, said(Yes, "answered 200"));
        return;
    }
    let (server, proxy) = (Server::start(None).await, Server::start(None).await);
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "proxies_of_the_environment_are_not_used"]).env(CHILD, server.url("/primary"));
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, proxy.url(""));
    }
    child.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = child.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((server.seen.lock().len(), proxy.seen.lock().len()), (1, 0));
}
