//! A connection to an edge: request lines out, replies and events in.
//!
//! Owns: the handle, its options and its timeouts. Must not know how replies are shown, or how to connect again.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use antar_proto::Tag;
use antar_proto::reply::Event;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connection::{EndCell, Outgoing, Waiter, read_frames, write_requests};
use crate::error::{Closed, ConnectError, RequestError};
use crate::reply::Reply;
use crate::tls::Tls;

/// Limits of a [`Client`]. The defaults suit people and scripts.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How long to wait for the connection: name resolution and all addresses included, and a handshake of TLS again.
    pub connect_timeout: Duration,
    /// How long to wait for a reply. Hashing a password and asking another realm for its name card take seconds.
    pub request_timeout: Duration,
    /// Requests that may wait for their replies; the next one waits for room. At least 1.
    pub in_flight_max: usize,
    /// Events that may wait to be taken from [`Events`]. At least 1. Beyond it nothing more is read from the
    /// connection, **replies included**: whoever watches must take events while waiting for replies, or drop [`Events`].
    pub events_max: usize,
    /// Talk over TLS, and believe these. `None` is plain text.
    pub tls: Option<Tls>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            in_flight_max: 128,
            events_max: 256,
            tls: None,
        }
    }
}

/// A handle of one connection; cheap to clone. The connection is closed when the last one is dropped.
///
/// Calls from several tasks are pipelined: each is written at once and gets the reply to its own request.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Outgoing>,
    end: EndCell,
    request_timeout: Duration,
    // Aborts both tasks when the last handle goes, and closes the socket with them.
    _tasks: Arc<JoinSet<()>>,
}

/// What the server pushes on a connection that watches, oldest first.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` when the connection has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

impl Client {
    /// Connects to an edge at `HOST:PORT`; over TLS if [`ClientOptions::tls`] says so.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use antar_client::{Client, ClientOptions};
    ///
    /// let (client, mut events) = Client::connect("127.0.0.1:4001", &ClientOptions::default()).await?;
    /// let token = client.auth("messi", "surabaya").await?;
    /// let sent = client.send(&token, "henderson", "halo bang hen").await?;
    /// println!("stored as {}", sent.message_id);
    ///
    /// client.watch(&token).await?;
    /// while let Some(event) = events.next().await {
    ///     println!("{event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(addr: &str, options: &ClientOptions) -> Result<(Self, Events), ConnectError> {
        let after = options.connect_timeout;
        let socket = match timeout(after, TcpStream::connect(addr)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(ConnectError::BadAddress { addr: addr.into() });
            }
            Ok(Err(source)) => return Err(ConnectError::Unreachable { addr: addr.into(), source }),
            Err(_) => return Err(ConnectError::Timeout { addr: addr.into(), after }),
        };
        // Requests are small and somebody waits for each. Failing to ask for it costs speed only.
        drop(socket.set_nodelay(true));
        let Some(tls) = &options.tls else { return Ok(Self::over(socket, options)) };
        match timeout(after, tls.handshake(addr, socket)).await {
            Ok(Ok(socket)) => Ok(Self::over(socket, options)),
            Ok(Err(source)) => Err(ConnectError::Tls { addr: addr.into(), source }),
            Err(_) => Err(ConnectError::Timeout { addr: addr.into(), after }),
        }
    }

    /// Talks over a connection that is there already: another transport, or a test's.
    pub fn over<S>(socket: S, options: &ClientOptions) -> (Self, Events)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reading, writing) = tokio::io::split(socket);
        let (requests, outgoing) = mpsc::channel(options.in_flight_max.max(1));
        let (waiting, waiters) = mpsc::channel(options.in_flight_max.max(1));
        let (pushing, pushed) = mpsc::channel(options.events_max.max(1));
        let end: EndCell = Arc::new(OnceLock::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(write_requests(writing, outgoing, waiting, end.clone()));
        tasks.spawn(read_frames(reading, waiters, pushing, end.clone()));
        let client =
            Self { requests, end, request_timeout: options.request_timeout, _tasks: Arc::new(tasks) };
        (client, Events(pushed))
    }

    /// Sends one request line, without its end, and waits for its reply, OK or ERROR.
    ///
    /// The line is sent as it is. It may begin with a tag (`@ID COMMAND …`); the reply must then have it. A send whose
    /// tag is a UUID of version 7 in 32 hexadecimal digits can be sent again after an error without being stored twice.
    /// After [`RequestError::Timeout`] the connection can still be used. Not cancel-safe: a dropped call may or may not
    /// have been sent; its reply is dropped.
    pub async fn request(&self, line: &str) -> Result<Reply, RequestError> {
        check(line)?;
        let tag = line.trim_start_matches(' ').strip_prefix('@').and_then(|rest| {
            let word = rest.split(' ').next().unwrap_or(rest);
            Tag::new(word).map(|tag| tag.as_str().to_owned())
        });
        let mut bytes = Vec::with_capacity(line.len() + 2);
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        let (reply, replied) = oneshot::channel();
        let outgoing = Outgoing { line: bytes, waiter: Waiter { tag, reply } };
        let answered = async {
            self.requests.send(outgoing).await.map_err(|_| self.why_closed())?;
            replied.await.map_err(|_| self.why_closed())
        };
        tokio::select! {
            // The reply first: one that is there counts, even when the time is up as well.
            biased;
            answer = answered => answer,
            () = sleep(self.request_timeout) => Err(RequestError::Timeout(self.request_timeout)),
        }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.end.get().is_some() || self.requests.is_closed()
    }

    /// Why the connection ended, if it has.
    pub fn closed(&self) -> Option<Closed> {
        self.end.get().copied()
    }

    fn why_closed(&self) -> RequestError {
        RequestError::Closed(self.closed().unwrap_or(Closed::Ended))
    }
}

/// A line must be exactly one request: an empty one gets no reply, and one with an LF inside would get two.
fn check(line: &str) -> Result<(), RequestError> {
    if line.bytes().all(|b| b == b' ') {
        return Err(RequestError::BadLine("an empty line is no request"));
    }
    if line.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(RequestError::BadLine("a request is one line: it cannot hold CR, LF or NUL"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
