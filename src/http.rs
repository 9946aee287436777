//! One HTTP request, for probes and alerts.
//!
//! One connection, one request. No redirect is followed, because its answer would come from another server. No proxy of
//! the environment is used, because probes and alerts are about this node.

mod connect;
pub(crate) mod error_chain;
mod trust;
mod write_first;

use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::{Either, select};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

pub use self::error_chain::chain;
use self::write_first::WriteFirst;
use crate::config::HttpUrl;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The URL.
    pub url: &'a HttpUrl,
    /// The body to post, and its content type; `None`: a GET.
    pub body: Option<(&'a str, &'static str)>,
    /// Additional headers, by name.
    pub headers: &'a [(String, String)],
    /// PEM file with the roots to trust instead of the system's.
    pub ca_file: Option<&'a Path>,
}

/// Sends the request, and calls `judge` on the answer while the connection is open. The caller sets the timeout.
///
/// # Errors
/// Why there was no answer, or the error of `judge`.
pub async fn ask<T, F>(question: Question<'_>, judge: impl FnOnce(Response<Incoming>) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let url = question.url;
    // The TLS config is built first, so that an error in it is reported whether the server runs or not.
    let tls = if url.secure { Some(trust::client_config(question.ca_file).await?) } else { None };
    let stream = connect::connect(&url.host, url.port).await.map_err(|e| chain(&e))?;
    let Some(tls) = tls else { return exchange(question, stream, judge).await };
    let name = ServerName::try_from(url.host.clone()).map_err(|e| chain(&e))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|e| format!("TLS: {}", chain(&e)))?;
    exchange(question, stream, judge).await
}

/// Sends one request over the connection and judges its answer.
async fn exchange<T, F>(
    question: Question<'_>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    judge: impl FnOnce(Response<Incoming>) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let url = question.url;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(WriteFirst::new(stream))).await.map_err(|e| chain(&e))?;
    let request = Request::builder()
        .method(if question.body.is_some() { Method::POST } else { Method::GET })
        .uri(&url.target)
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("runner/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close");
    let request = question.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let (request, body) = match question.body {
        Some((body, kind)) => (request.header(CONTENT_TYPE, kind), body.to_owned()),
        // An empty body: a String needs no other crate.
        None => (request, String::new()),
    };
    let request = request.body(body).map_err(|e| chain(&e))?;
    let answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|e| chain(&e))?;
        judge(response).await
    });
    match select(answer, pin!(connection)).await {
        Either::Left((said, _)) => said,
        // The server has closed the connection. An answer it sent before is still on its way to the other half; if that
        // is incomplete, the other half reports why.
        Either::Right((_, answer)) => answer.await,
    }
}

/// Reads the begin of a body: at most `max` bytes, because an endless one must not fill the memory.
///
/// # Errors
/// The body broke off before that.
pub async fn body_begin(mut body: Incoming, max: usize) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    while read.len() < max {
        let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else { break };
        // A frame without data is a trailer.
        if let Some(data) = frame.map_err(|e| chain(&e))?.data_ref() {
            read.extend_from_slice(&data[..data.len().min(max - read.len())]);
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that sends its response before it reads anything, and then waits until the client has closed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_response_that_comes_before_the_request_counts() {
        const REQUESTS: usize = 50;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for _ in 0..REQUESTS {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsoon").await.unwrap();
                // That the client closes with a reset is no failure of this server.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let url = format!("http://127.0.0.1:{port}/").parse::<HttpUrl>().unwrap();
        for _ in 0..REQUESTS {
            let question = Question { url: &url, body: None, headers: &[], ca_file: None };
            let status = ask(question, |response| async move { Ok(response.status()) }).await;
            assert_eq!(status.as_ref().map(StatusCode::as_u16), Ok(200), "{status:?}");
        }
        server.await.unwrap();
    }
}
