//! Limits the length of HTTP answers. The SDK reads whole documents (listings, refusals, credentials) into memory
//! before it parses them; only an object's content is streamed, and limited by the reader.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The longest document accepted. A full page of a listing has 1000 keys with some 500 bytes of markup each, and keys
/// of up to 1024 bytes.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

/// The error for a document longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer is longer than {DOCUMENT_BYTES_MAX} bytes")]
pub(super) struct ResponseTooLong;

/// An HTTP client that limits the length of documents.
#[derive(Debug)]
pub(super) struct BoundedHttpClient<T>(T);

impl BoundedHttpClient<SharedHttpClient> {
    pub(super) fn over(client: impl HttpClient + 'static) -> SharedHttpClient {
        SharedHttpClient::new(Self(SharedHttpClient::new(client)))
    }
}

impl HttpClient for BoundedHttpClient<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(BoundedHttpClient(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for BoundedHttpClient<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_download = is_download(&request);
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            if is_download && answer.status().is_success() {
                return Ok(answer);
            }
            Ok(answer.map(|body| SdkBody::from_body_1_x(BoundedBody { body, left: DOCUMENT_BYTES_MAX })))
        })
    }
}

/// Whether the request downloads an object's content. The SDK names the operation in each request.
fn is_download(request: &HttpRequest) -> bool {
    let query = request.uri().split_once('?').map_or("", |(_, query)| query);
    request.method() == "GET" && query.split('&').any(|part| part == "x-id=GetObject")
}

/// Whether an error was caused by [`ResponseTooLong`].
pub(super) fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    crate::store::s3::error::error_chain(error).any(<dyn Error>::is::<ResponseTooLong>)
}

struct BoundedBody {
    body: SdkBody,
    left: u64,
}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(ResponseTooLong.into()))),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}
