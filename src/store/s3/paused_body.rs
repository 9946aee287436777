//! A request body that is sent in two halves with a pause between, for the proof.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::store::PutPause;

/// `body`, paused after its first half.
pub(super) fn paused_body(body: Bytes, hold: PutPause) -> ByteStream {
    let len = body.len() as u64;
    ByteStream::from_body_1_x(PausedBody { rest: body, len, state: PauseState::First(hold) })
}

struct PausedBody {
    rest: Bytes,
    len: u64,
    state: PauseState,
}

enum PauseState {
    /// Nothing was sent yet.
    First(PutPause),
    /// The first half was handed to the client, which does not mean that it has been sent.
    Half(PutPause),
    /// Paused, waiting for the release.
    Held(oneshot::Receiver<()>),
    /// Everything was handed over.
    Done,
}

impl Body for PausedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            match mem::replace(&mut self.state, PauseState::Done) {
                PauseState::First(hold) => {
                    self.state = PauseState::Half(hold);
                    let half = self.rest.len() / 2;
                    if half > 0 {
                        return Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(half)))));
                    }
                }
                // The client asks for more: it has taken headers and first half, and sends them while it waits.
                PauseState::Half(hold) => self.state = PauseState::Held(hold.begin()),
                PauseState::Held(mut release) => {
                    if Pin::new(&mut release).poll(cx).is_pending() {
                        self.state = PauseState::Held(release);
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.rest)))));
                }
                PauseState::Done => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, PauseState::Done)
    }

    fn size_hint(&self) -> SizeHint {
        // The full length, because it becomes the content length.
        SizeHint::with_exact(self.len)
    }
}
