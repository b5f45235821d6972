//! What a connection's bytes go through: a socket, TLS over one, or WebSocket, with the same questions asked of each.
//!
//! Owns: reading and writing without waiting. Must not know: lines, or how a certificate is found.
//!
//! TLS is driven by hand and not through `AsyncRead`: a connection reads into a buffer that all of its thread share, when
//! there is something, and holds none while it waits. What it takes from the socket at a time is bounded, so that a peer
//! that sends records without content gets no more turns than any other.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::websocket::WebSocket;

/// Most bytes that are encrypted and not yet taken by the socket: one record.
const CHUNK_BYTES: usize = 16 * 1024;

/// The way of a connection's bytes.
pub(crate) enum Transport {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<Tls>),
    /// In messages of a WebSocket, which come out of it as lines.
    WebSocket(Box<WebSocket>),
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl Transport {
    /// Ready when a read may find something.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(tls) if tls.waiting_bytes > 0 => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.socket.poll_read_ready(cx),
            Self::WebSocket(socket) => socket.poll_read_ready(cx),
        }
    }

    /// Ready when a write may get something done.
    pub(crate) fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_write_ready(cx),
            Self::Tls(tls) => tls.socket.poll_write_ready(cx),
            Self::WebSocket(socket) => socket.poll_write_ready(cx),
        }
    }

    /// Waits until a write may get something done.
    pub(crate) async fn writable(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    /// Reads what there is; 0 at the end, `WouldBlock` if there is nothing.
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_read(buffer),
            Self::Tls(tls) => tls.try_read(buffer),
            Self::WebSocket(socket) => socket.try_read(buffer),
        }
    }

    /// Writes what the socket takes of `bytes`. What is not counted has to be in front at the next call: some of it may
    /// be encrypted already.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
            Self::WebSocket(socket) => socket.try_write(bytes),
        }
    }

    /// Whether something has begun that is no line yet, and has to end in the time of one.
    pub(crate) fn is_partial(&self) -> bool {
        matches!(self, Self::WebSocket(socket) if socket.is_partial())
    }

    /// When [`Self::check_alive`] has something to do. A socket notices by itself that the other side is gone.
    pub(crate) fn alive_deadline(&self) -> Option<Instant> {
        match self {
            Self::WebSocket(socket) => Some(socket.alive_deadline()),
            Self::Plain(_) | Self::Tls(_) => None,
        }
    }

    /// An error if the other side has not been heard of for too long.
    pub(crate) fn check_alive(&mut self, now: Instant) -> io::Result<()> {
        match self {
            Self::WebSocket(socket) => socket.check_alive(now),
            Self::Plain(_) | Self::Tls(_) => Ok(()),
        }
    }
}

/// TLS whose handshake is done.
pub(crate) struct Tls {
    socket: TcpStream,
    session: ServerConnection,
    /// Decrypted and not yet read.
    waiting_bytes: usize,
    /// Of what is to be written: encrypted, and not yet taken by the socket.
    encrypted_bytes: usize,
}

impl Tls {
    /// Takes over from whoever did the handshake; more than that may have been read.
    pub(crate) fn new(socket: TcpStream, session: ServerConnection) -> io::Result<Self> {
        let mut tls = Self { socket, session, waiting_bytes: 0, encrypted_bytes: 0 };
        tls.decrypt()?;
        Ok(tls)
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.waiting_bytes == 0 {
            match self.session.read_tls(&mut Socket(&self.socket)) {
                // A peer that ends without saying so in TLS has ended all the same: half a line is never executed, so
                // whoever cuts the connection cannot change what is.
                Ok(0) => return Ok(0),
                Ok(_) => self.decrypt()?,
                Err(error) => return Err(error),
            }
        }
        let read = match self.session.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        };
        if let Ok(count) = read {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(count);
        }
        read
    }

    /// Looks at what the socket gave.
    fn decrypt(&mut self) -> io::Result<()> {
        let state = self.session.process_new_packets();
        // Tickets, answers to new keys, or what was wrong. If the socket does not take it now, the next write sends it.
        let _ = self.send_encrypted();
        let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.waiting_bytes = state.plaintext_bytes_to_read();
        Ok(())
    }

    fn send_encrypted(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut Socket(&self.socket))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_encrypted()?;
        if self.encrypted_bytes == 0 {
            let chunk = &bytes[..bytes.len().min(CHUNK_BYTES)];
            self.encrypted_bytes = self.session.writer().write(chunk)?;
            self.send_encrypted()?;
        }
        Ok(std::mem::take(&mut self.encrypted_bytes))
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.session.send_close_notify();
        // It need not arrive: the end of the socket follows.
        let _ = self.send_encrypted();
    }
}

/// A socket that is asked without waiting.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
