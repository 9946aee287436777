//! One HTTP request: what probes ask and what alerts are posted with.
//!
//! One connection, one request. Redirects are not followed, because the answer would be another server's, and proxies of the
//! environment are not used, because the request is about this node.

mod trust;

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::config::HttpUrl;

/// What is sent, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// Where.
    pub url: &'a HttpUrl,
    /// What is posted, and its type; `None`: a GET.
    pub body: Option<(&'a str, &'static str)>,
    /// PEM file with the roots to trust instead of the system's.
    pub ca_file: Option<&'a Path>,
    /// Time limit of the whole: files with roots, name resolution, connection, and what is read of the answer.
    pub timeout: Duration,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// The time limit has passed.
    TimedOut,
    /// The request failed, for this reason. It does not contain the URL, which may be a secret.
    Failed(String),
}

/// Sends the request, and has `judge` read the answer within the time limit.
///
/// # Errors
/// Why there was no answer, or what `judge` says.
pub async fn ask<T, F>(request: HttpRequest<'_>, judge: impl FnOnce(Response<Incoming>) -> F) -> Result<T, HttpError>
where
    F: Future<Output = Result<T, String>>,
{
    let answer = pin!(send(request, judge));
    // The time limit is looked at first: the one of the connection may pass in the same millisecond, and says less.
    match select(pin!(tokio::time::sleep(request.timeout)), answer).await {
        Either::Left(_) => Err(HttpError::TimedOut),
        Either::Right((answer, _)) => answer.map_err(HttpError::Failed),
    }
}

async fn send<T, F>(request: HttpRequest<'_>, judge: impl FnOnce(Response<Incoming>) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let url = request.url;
    // First, so that a mistake in it is seen whether the server runs or not.
    let tls = if url.secure { Some(trust::client_config(request.ca_file).await?) } else { None };
    let stream = connect(url, request.timeout).await?;
    let Some(tls) = tls else { return exchange(request, stream, judge).await };
    let name = ServerName::try_from(url.host.clone()).map_err(|e| chain(&e))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|e| format!("TLS: {}", chain(&e)))?;
    exchange(request, stream, judge).await
}

/// Connects to whichever address of the host answers. The other family is tried soon beside one that swallows packets
/// (RFC 8305); among addresses of one family the time limit is divided.
async fn connect(url: &HttpUrl, timeout: Duration) -> Result<TcpStream, String> {
    let uri: Uri = url.to_string().parse().map_err(|_| "no address of a server".to_owned())?;
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(timeout));
    let connected = connector.call(uri).await.map_err(|error| {
        // The error around it says only that it is about TCP or about name resolution, which this one says, too.
        match error.source().and_then(|inner| inner.downcast_ref::<io::Error>()) {
            Some(io) if io.kind() == io::ErrorKind::TimedOut => "an address of the host does not answer".to_owned(),
            Some(io) => io.to_string(),
            None => chain(&error),
        }
    });
    Ok(connected?.into_inner())
}

/// One request over the connection, and what its answer means.
///
/// The request is on its way before anything is read. hyper's pooled client, and `reqwest` with it, reads first, and takes an answer that is
/// already there for a mistake: that of `nc`, or of a script below xinetd, which does not wait for the request.
async fn exchange<T, F>(
    request: HttpRequest<'_>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    judge: impl FnOnce(Response<Incoming>) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let url = request.url;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| chain(&e))?;
    let builder = Request::builder()
        .method(if request.body.is_some() { Method::POST } else { Method::GET })
        .uri(&url.target)
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("runner/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close");
    let (builder, body) = match request.body {
        Some((body, kind)) => (builder.header(CONTENT_TYPE, kind), body.to_owned()),
        // A body of nothing: this type needs no other crate.
        None => (builder, String::new()),
    };
    let sent = builder.body(body).map_err(|e| chain(&e))?;
    let answer = pin!(async {
        let response = sender.send_request(sent).await.map_err(|e| chain(&e))?;
        judge(response).await
    });
    match select(answer, pin!(connection)).await {
        Either::Left((said, _)) => said,
        // The server has closed the connection. What it had said by then is still on its way to the other half, and if it
        // is not enough, that half knows why.
        Either::Right((_, answer)) => answer.await,
    }
}

/// An error with what is behind it, each word once: the outer one often says only that something went wrong.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        inner = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(url: &str) -> HttpError {
        let request =
            HttpRequest { url: &url.parse().unwrap(), body: None, ca_file: None, timeout: Duration::from_secs(20) };
        ask(request, |_| async { Ok(()) }).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_failure_says_what_happened_and_not_the_url() {
        // The port is taken, and nothing listens on it.
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = failure(&format!("http://{}/secret", taken.local_addr().unwrap())).await;
        assert!(matches!(&refused, HttpError::Failed(why) if why.starts_with("Connection refused")), "{refused:?}");
        // A name that is too long to be asked for.
        let HttpError::Failed(unknown) = failure(&format!("http://{}.test/secret", "x".repeat(64))).await else {
            panic!()
        };
        assert!(unknown.starts_with("failed to lookup address information: "), "{unknown}");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let HttpError::Failed(cut) = failure(&format!("https://{address}/secret")).await else { panic!() };
        assert!(!cut.contains("secret") && cut.starts_with("TLS: "), "{cut}");
    }
}
