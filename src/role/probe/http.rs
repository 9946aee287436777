//! A server's answer as evidence. An answer is a yes or a no, whatever it says. Without an answer from the server
//! itself (refused, too slow, TLS that cannot be trusted, an answer that breaks off, a gateway's own status) the probe
//! is unknown.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use hyper::Response;
use hyper::body::{Body, Incoming};

use super::command::first_line;
use super::{ProbeAnswer, ProbeDetail};
use crate::config::HttpUrl;
use crate::http::{self, chain};

/// How much of a body is read to find a text in it. Pages that say which node is active are short, and an endless page
/// must not fill the memory.
const BODY_MAX: usize = 64 * 1024;

/// Statuses of a gateway whose server did not answer, and of one that requires a sign-in first: the server itself has
/// said nothing. A 503 is not among them: servers answer it themselves when they are not the primary.
const GATEWAYS: [u16; 4] = [407, 502, 504, 511];

/// What to request, and which answer is a yes.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpProbe<'a> {
    pub(super) url: &'a HttpUrl,
    /// The statuses that are a yes. Empty: every 2xx.
    pub(super) status: &'a [u16],
    pub(super) body: Option<&'a str>,
    pub(super) ca_file: Option<&'a Path>,
}

/// Sends the request and judges the answer.
pub(super) async fn ask(question: HttpProbe<'_>, timeout: Duration) -> (ProbeAnswer, ProbeDetail) {
    let asked = http::Question { url: question.url, body: None, headers: &[], ca_file: question.ca_file };
    let talk = http::ask(asked, |response| judge(question, response));
    match tokio::time::timeout(timeout, talk).await {
        Ok(Ok(said)) => said,
        Ok(Err(why)) => (ProbeAnswer::Unknown, ProbeDetail::NoAnswer(why)),
        Err(_) => (ProbeAnswer::Unknown, ProbeDetail::TimedOut { after: timeout, line: None }),
    }
}

async fn judge(question: HttpProbe<'_>, response: Response<Incoming>) -> Result<(ProbeAnswer, ProbeDetail), String> {
    let status = response.status().as_u16();
    let matches = match question.status {
        [] => (200..300).contains(&status),
        wanted => wanted.contains(&status),
    };
    if !matches {
        let redirect = response.status().is_redirection();
        let answer = if GATEWAYS.contains(&status) { ProbeAnswer::Unknown } else { ProbeAnswer::No };
        return Ok((
            answer,
            ProbeDetail::OtherStatus { status, wanted: wanted_status_text(question.status), redirect },
        ));
    }
    let Some(text) = question.body else {
        return Ok((ProbeAnswer::Yes, ProbeDetail::Answered { status, body: false }));
    };
    let mut body = response.into_body();
    let mut read = Vec::new();
    while read.len() < BODY_MAX {
        let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else { break };
        let frame = frame.map_err(|e| chain(&e))?;
        // A frame without data is a trailer.
        let Some(data) = frame.data_ref() else { continue };
        // The text may have begun in the previous frame.
        let from = (read.len() + 1).saturating_sub(text.len());
        read.extend_from_slice(&data[..data.len().min(BODY_MAX - read.len())]);
        if contains(&read[from..], text.as_bytes()) {
            return Ok((ProbeAnswer::Yes, ProbeDetail::Answered { status, body: true }));
        }
    }
    Ok((ProbeAnswer::No, ProbeDetail::OtherBody { status, wanted: text.to_owned(), line: first_line(&read) }))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

/// `2xx`, `200 or 429`.
fn wanted_status_text(status: &[u16]) -> String {
    if status.is_empty() {
        return "2xx".to_owned();
    }
    status.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}
