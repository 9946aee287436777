//! A server that alerts are sent to: one request, and what its answer means.

use std::path::PathBuf;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::secret;
use crate::alert::delivery::{DeliveryError, DeliveryReceipt};
use crate::config::HttpUrl;
use crate::http::{self, Question};
use crate::text;

/// How much of an answer is read.
const ANSWER_MAX: usize = 4096;

/// How much of the first line of an answer is shown, in characters.
const LINE_MAX: usize = 100;

/// How long the body of an answer is waited for that is an error by its status.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest pause that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// Where the URL is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EndpointUrl {
    Inline(HttpUrl),
    /// In a file; `{role}` may be in it if `has_role`.
    File {
        path: PathBuf,
        has_role: bool,
    },
}

/// A server, and what is needed to be believed by it and to believe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpEndpoint {
    pub(super) url: EndpointUrl,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
}

/// A request to an endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointRequest<'a> {
    /// The body and its content type; `None`: a GET.
    pub(super) body: Option<(&'a str, &'static str)>,
    pub(super) headers: Vec<(String, String)>,
}

/// Which answers with a status of success count.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerRule {
    /// Whether an answer with this status and body counts; `None`: every one does, and the body is not read.
    pub(super) is_accepted: Option<fn(u16, &[u8]) -> bool>,
    /// The answer that counts, in words.
    pub(super) expected: &'static str,
}

impl AnswerRule {
    /// Every status of success.
    pub(super) const ANY_SUCCESS: Self = Self { is_accepted: None, expected: "" };
}

/// An answer.
struct EndpointAnswer {
    status: StatusCode,
    location: Option<String>,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl HttpEndpoint {
    /// An endpoint with a URL of the config.
    pub(super) fn inline(url: HttpUrl) -> Self {
        Self { url: EndpointUrl::Inline(url), token_file: None, ca_file: None }
    }

    /// Sends one request and judges the answer. `place` makes the URL of the request from that of the endpoint.
    pub(super) async fn send(
        &self,
        request: EndpointRequest<'_>,
        rule: AnswerRule,
        timeout: Duration,
        place: impl FnOnce(HttpUrl) -> HttpUrl,
    ) -> Result<DeliveryReceipt, DeliveryError> {
        let url = place(match &self.url {
            EndpointUrl::Inline(url) => url.clone(),
            EndpointUrl::File { path, has_role } => secret::url(path, *has_role).await?,
        });
        // The URL may be a secret, so errors name only the server.
        let server = url.authority();
        let mut headers = request.headers;
        if let Some(path) = &self.token_file {
            headers.push(("Authorization".to_owned(), format!("Bearer {}", *secret::token(path).await?)));
        }
        let question = Question { url: &url, body: request.body, headers: &headers, ca_file: self.ca_file.as_deref() };
        let asked = http::ask(question, |response| read_answer(response, rule.is_accepted.is_some()));
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(answer)) => answer.judge(server, rule),
            Ok(Err(why)) => Err(DeliveryError::Unreachable { server, reason: text::of_tls(&why).into_owned() }),
            Err(_) => Err(DeliveryError::TimedOut { server, timeout }),
        }
    }
}

/// Reads what the judgement needs of an answer.
async fn read_answer(response: Response<Incoming>, is_body_needed: bool) -> Result<EndpointAnswer, String> {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let location = header(LOCATION).map(str::to_owned);
    let retry_after = header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    let body = if !status.is_success() {
        // The status is enough; the body only explains it.
        let body = http::body_begin(response.into_body(), ANSWER_MAX);
        match tokio::time::timeout(ERROR_BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    } else if is_body_needed {
        http::body_begin(response.into_body(), ANSWER_MAX).await?
    } else {
        Vec::new()
    };
    Ok(EndpointAnswer { status, location, retry_after, body })
}

impl EndpointAnswer {
    fn judge(self, server: String, rule: AnswerRule) -> Result<DeliveryReceipt, DeliveryError> {
        let Self { status, location, retry_after, body } = self;
        if status.is_redirection() {
            let target = location.and_then(|location| location.parse::<HttpUrl>().ok()).map(|url| url.authority());
            return Err(DeliveryError::Redirected { server, status, target });
        }
        let line = first_line(&body);
        if !status.is_success() {
            let retry_after = retry_after.map(|pause| pause.min(RETRY_AFTER_MAX));
            return Err(DeliveryError::Refused { server, status, line, retry_after });
        }
        if rule.is_accepted.is_some_and(|is_accepted| !is_accepted(status.as_u16(), &body)) {
            let line = if line.is_empty() { "the answer is empty".to_owned() } else { line };
            return Err(DeliveryError::Unexpected { server, status, expected: rule.expected, line });
        }
        Ok(DeliveryReceipt { status: Some(status.as_u16()) })
    }
}

/// The first line of an answer that is not empty, bounded and made safe to show.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let cut: String = line.chars().take(LINE_MAX).collect();
    let cut = if cut.len() < line.len() { format!("{cut}…") } else { cut };
    text::line(&cut).into_owned()
}
