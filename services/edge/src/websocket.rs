//! WebSocket (RFC 6455) as a connection's transport: a text message of the client is a line, a reply or an event is a
//! text message.
//!
//! Owns: when frames are read and written, ping and pong, the close code. Must not know: what stands in a line.
//!
//! By hand and not by a library, for the same reasons as TLS: what was decoded of a frame goes on at once, so that the
//! limits of a line (its length, its time, before and after a login) are those of a message, and a connection that is
//! idle holds no buffer. Compression is never agreed to, so nothing can be larger than what was sent.

mod frames;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use self::frames::{Close, Decoder, Encoder};
use crate::web::Stream;

/// Most bytes that are read, and that are encoded and not yet taken, at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// After so long without a word of the client it is asked for one, and after as long again it is taken for gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK_BYTES]);
}

/// A WebSocket whose handshake is done.
pub(crate) struct WebSocket {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    encoder: Encoder,
    /// Decoded and not yet read.
    lines: Vec<u8>,
    /// Encoded and not yet taken by the stream.
    frames: Vec<u8>,
    /// How much of what is to be written is in `frames`.
    encoded_bytes: usize,
    /// Whether what the stream took is known to be on its way.
    is_flushed: bool,
    /// What is answered to the last ping.
    pong: Option<Vec<u8>>,
    /// Set once nothing more is read.
    close: Option<Close>,
    heard: Instant,
    pinged: Option<Instant>,
}

impl WebSocket {
    /// Takes messages of up to `message_bytes_max`.
    pub(crate) fn new(stream: Box<dyn Stream>, message_bytes_max: usize) -> Self {
        Self {
            stream,
            decoder: Decoder::new(message_bytes_max),
            encoder: Encoder::default(),
            lines: Vec::new(),
            frames: Vec::new(),
            encoded_bytes: 0,
            is_flushed: true,
            pong: None,
            close: None,
            heard: Instant::now(),
            pinged: None,
        }
    }

    /// Ready when there is something to read, at the end, and when a frame has begun: it has to end in time.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Pings and pongs are sent on the way; a stream that fails is found by the read.
        let _ = self.poll_frames(cx);
        if !self.lines.is_empty() || self.close.is_some() {
            return Poll::Ready(Ok(()));
        }
        let was_partial = self.decoder.is_partial();
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            self.heard = Instant::now();
            self.pinged = None;
            let read = buffer.filled();
            let heard = match read.len() {
                0 => Err(Close::Gone),
                _ => self.decoder.decode(read, &mut self.lines),
            };
            match heard {
                Ok(None) => {}
                Ok(Some(ping)) => self.pong = Some(ping),
                Err(close) => self.close = Some(close),
            }
            let is_new = self.decoder.is_partial() && !was_partial;
            if !self.lines.is_empty() || self.close.is_some() || is_new {
                return Poll::Ready(Ok(()));
            }
            // Whoever sends nothing but pings gets no more turns than any other.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Takes out what was decoded; 0 at the end, `WouldBlock` if there is nothing.
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.lines.is_empty() {
            return if self.close.is_some() { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = self.lines.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.lines[..count]);
        if count == self.lines.len() {
            self.lines = Vec::new();
        } else {
            self.lines.drain(..count);
        }
        Ok(count)
    }

    /// Ready when all that was encoded is on its way.
    pub(crate) fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_frames(cx)
    }

    /// Writes what the stream takes of `bytes`, which hold whole replies. What is not counted has to be in front at the
    /// next call.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        if self.encoded_bytes == 0 {
            if self.poll_frames(&mut cx)?.is_pending() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.encoded_bytes = self.encoder.encode(bytes, CHUNK_BYTES, &mut self.frames);
        }
        match self.poll_frames(&mut cx)? {
            Poll::Ready(()) => Ok(std::mem::take(&mut self.encoded_bytes)),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends what is encoded, and between two messages a pong that is due.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.frames.is_empty() {
                self.is_flushed = false;
                match Pin::new(&mut self.stream).poll_write(cx, &self.frames) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) if count == self.frames.len() => self.frames = Vec::new(),
                    Poll::Ready(Ok(count)) => drop(self.frames.drain(..count)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.pong.take_if(|_| self.encoder.is_between()) {
                Some(ping) => frames::pong(&ping, &mut self.frames),
                None => break,
            }
        }
        if !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a frame or a message has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        self.decoder.is_partial()
    }

    /// When the client has to be asked for a word, or is taken for gone.
    pub(crate) fn alive_deadline(&self) -> Instant {
        self.pinged.unwrap_or(self.heard) + PING_INTERVAL
    }

    /// Asks for a word of a client that was silent for long; an error if it was asked before.
    pub(crate) fn check_alive(&mut self, now: Instant) -> io::Result<()> {
        if now < self.alive_deadline() {
            return Ok(());
        }
        if self.pinged.is_some() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.pinged = Some(now);
        if self.encoder.is_between() {
            frames::ping(&mut self.frames);
        }
        match self.poll_frames(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done,
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        if self.encoder.is_between() {
            self.pong = None;
            frames::close(self.close.unwrap_or(Close::GoingAway), &mut self.frames);
        }
        let mut cx = Context::from_waker(Waker::noop());
        // It need not arrive: the end of the stream follows.
        let _ = self.poll_frames(&mut cx);
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
    }
}
