//! One HTTP request: what probes ask and what alerts are posted with.
//!
//! One connection, one request: no redirect is followed, because where it leads is somebody else's answer, and no proxy of
//! the environment is used, because what is asked and told is about this node.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::HttpUrl;

/// How much of a file with certificates is read: more than any bundle of them, less than what somebody may name by mistake.
const CA_FILE_MAX: u64 = 4 * 1024 * 1024;

/// What is sent, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where.
    pub url: &'a HttpUrl,
    /// What is posted, and its type; `None`: a GET.
    pub body: Option<(&'a str, &'static str)>,
    /// PEM file with the roots to trust instead of the system's.
    pub ca_file: Option<&'a Path>,
}

/// Sends it, and has `judge` read the answer while the connection is there. Whoever asks bounds it with a timeout.
///
/// # Errors
/// Why there was no answer, or what `judge` says.
pub async fn ask<T, F>(question: Question<'_>, judge: impl FnOnce(Response<Incoming>) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let url = question.url;
    // First, so that a mistake in it is seen whether the server runs or not.
    let tls = if url.secure { Some(trust(question.ca_file).await?) } else { None };
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|e| chain(&e))?;
    let Some(tls) = tls else { return exchange(question, stream, judge).await };
    let name = ServerName::try_from(url.host.clone()).map_err(|e| chain(&e))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|e| format!("TLS: {}", chain(&e)))?;
    exchange(question, stream, judge).await
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
async fn exchange<T, F>(
    question: Question<'_>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    judge: impl FnOnce(Response<Incoming>) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let url = question.url;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| chain(&e))?;
    let request = Request::builder()
        .method(if question.body.is_some() { Method::POST } else { Method::GET })
        .uri(&url.target)
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("runner/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close");
    let (request, body) = match question.body {
        Some((body, kind)) => (request.header(CONTENT_TYPE, kind), body.to_owned()),
        // A body of nothing: this type needs no other crate.
        None => (request, String::new()),
    };
    let request = request.body(body).map_err(|e| chain(&e))?;
    let answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|e| chain(&e))?;
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
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
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
