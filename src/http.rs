//! One HTTP request: what probes ask and what alerts are posted with.
//!
//! One connection, one request: no redirect is followed, because where it leads is somebody else's answer, and no proxy of
//! the environment is used, because what is asked and told is about this node.

mod connect;
mod trust;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::config::HttpUrl;

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
    let tls = if url.secure { Some(trust::client_config(question.ca_file).await?) } else { None };
    let stream = connect::connect(&url.host, url.port).await.map_err(|e| chain(&e))?;
    let Some(tls) = tls else { return exchange(question, stream, judge).await };
    let name = ServerName::try_from(url.host.clone()).map_err(|e| chain(&e))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|e| format!("TLS: {}", chain(&e)))?;
    exchange(question, stream, judge).await
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
