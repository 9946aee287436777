//! A stream whose first read waits for the first write.
//!
//! A server may send its response as soon as a client connects, before it has read a request (`nc`, a script under
//! `inetd`). hyper reads before it writes, and takes bytes that arrive before its request for an error of the server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The state of the stream's first write.
#[derive(Debug)]
enum FirstWrite {
    /// Nothing was written. The waker is that of the last read.
    Awaited(Option<Waker>),
    /// A write was accepted, failed, or will not come.
    Over,
}

/// Wraps a stream.
#[derive(Debug)]
pub(super) struct WriteFirst<S> {
    stream: S,
    first: FirstWrite,
}

impl<S> WriteFirst<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, first: FirstWrite::Awaited(None) }
    }

    /// Lets the reads through if `written` is not pending.
    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_ready()
            && let FirstWrite::Awaited(reader) = std::mem::replace(&mut self.first, FirstWrite::Over)
        {
            reader.into_iter().for_each(Waker::wake);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteFirst<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let FirstWrite::Awaited(reader) = &mut self.first {
            *reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteFirst<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.note(closed)
    }
}
