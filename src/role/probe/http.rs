//! What a server answers as evidence. An answer is a yes or a no, whatever it says; where none came (refused, too slow,
//! TLS that cannot be trusted, an answer that breaks off) it cannot be told.
//!
//! One connection, one request: no redirect is followed, because where it leads is somebody else's answer, and no proxy of
//! the environment is used, because the question is about this node.

use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::command::first_line;
use super::{Answer, Detail};
use crate::config::HttpUrl;

/// How much of a body is read to find a text in. Pages that say who is active are short, and one without an end must not
/// fill the memory.
const BODY_MAX: usize = 64 * 1024;

/// How much of a file with certificates is read: more than any bundle of them, less than what somebody may name by mistake.
const CA_FILE_MAX: u64 = 4 * 1024 * 1024;

/// What is asked, and which answer is a yes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) url: &'a HttpUrl,
    /// Empty: every 2xx.
    pub(super) status: &'a [u16],
    pub(super) body: Option<&'a str>,
    pub(super) ca_file: Option<&'a Path>,
}

/// Asks the server.
pub(super) async fn ask(question: Question<'_>, timeout: Duration) -> (Answer, Detail) {
    match tokio::time::timeout(timeout, talk(question)).await {
        Ok(Ok(said)) => said,
        Ok(Err(why)) => (Answer::Unknown, Detail::NoAnswer(why)),
        Err(_) => (Answer::Unknown, Detail::TimedOut { after: timeout, line: None }),
    }
}

/// The whole conversation.
///
/// # Errors
/// Why there was no answer.
async fn talk(question: Question<'_>) -> Result<(Answer, Detail), String> {
    let url = question.url;
    // First, so that a mistake in it is seen whether the server runs or not.
    let tls = if url.secure { Some(trust(question.ca_file).await?) } else { None };
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|e| chain(&e))?;
    let Some(tls) = tls else { return exchange(question, stream).await };
    let name = ServerName::try_from(url.host.clone()).map_err(|e| chain(&e))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|e| format!("TLS: {}", chain(&e)))?;
    exchange(question, stream).await
}

/// The roots of trust: those in the file and no others, else the system's.
async fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let bad = |why: String| format!("ca_file {}: {why}", path.display());
        let file = tokio::fs::File::open(path).await.map_err(|e| bad(e.to_string()))?;
        let mut pem = Vec::new();
        file.take(CA_FILE_MAX).read_to_end(&mut pem).await.map_err(|e| bad(e.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| bad(format!("not PEM: {e}")))?;
            roots.add(certificate).map_err(|e| bad(format!("not a certificate: {e}")))?;
        }
        if roots.is_empty() {
            return Err(bad("there is no certificate in it".to_owned()));
        }
    } else {
        // Files of the system, read each time: they are exchanged while a long-running node goes on.
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await.map_err(|e| chain(&e))?;
        // Of hundreds a few may be odd; without any of them nothing is trusted, and that says enough.
        roots.add_parsable_certificates(found.certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|e| chain(&e))?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// One request over the connection, and what its answer means.
async fn exchange(
    question: Question<'_>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(Answer, Detail), String> {
    let url = question.url;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| chain(&e))?;
    let request = Request::get(&url.target)
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("runner/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        // A body of nothing: this type needs no other crate.
        .body(String::new())
        .map_err(|e| chain(&e))?;
    let answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|e| chain(&e))?;
        judge(question, response).await
    });
    match select(answer, pin!(connection)).await {
        Either::Left((said, _)) => said,
        // The server has closed the connection. What it had said by then is still on its way to the other half, and if it
        // is not enough, that half knows why.
        Either::Right((_, answer)) => answer.await,
    }
}

async fn judge(question: Question<'_>, response: Response<Incoming>) -> Result<(Answer, Detail), String> {
    let status = response.status().as_u16();
    let matches = match question.status {
        [] => (200..300).contains(&status),
        wanted => wanted.contains(&status),
    };
    if !matches {
        let redirect = response.status().is_redirection();
        return Ok((Answer::No, Detail::OtherStatus { status, wanted: wanted(question.status), redirect }));
    }
    let Some(text) = question.body else { return Ok((Answer::Yes, Detail::Answered { status, body: false })) };
    let mut body = response.into_body();
    let mut read = Vec::new();
    while read.len() < BODY_MAX {
        let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else { break };
        let frame = frame.map_err(|e| chain(&e))?;
        // What is no data is a trailer.
        let Some(data) = frame.data_ref() else { continue };
        // The text may have begun in what came before.
        let from = (read.len() + 1).saturating_sub(text.len());
        read.extend_from_slice(&data[..data.len().min(BODY_MAX - read.len())]);
        if contains(&read[from..], text.as_bytes()) {
            return Ok((Answer::Yes, Detail::Answered { status, body: true }));
        }
    }
    Ok((Answer::No, Detail::OtherBody { status, wanted: text.to_owned(), line: first_line(&read) }))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

/// `2xx`, `200 or 429`.
fn wanted(status: &[u16]) -> String {
    if status.is_empty() {
        return "2xx".to_owned();
    }
    status.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

/// An error with what is behind it, each word once: the outer one often says only that something went wrong.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
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
