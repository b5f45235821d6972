//! HTTP over TLS: a listener whose connections have done their handshake.
//!
//! Owns: handshakes of HTTP, side by side. Must not know: what is asked. Plain HTTP is taken from this machine only, where
//! health is asked and where proxies stand that do TLS themselves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::EdgeConfig;
use crate::guests::Guests;
use crate::tls::{Certificates, begins_with_tls};

/// HTTP/1.1 is what is spoken.
const ALPN_HTTP: &[u8] = b"http/1.1";
/// What plain HTTP from elsewhere is answered.
const TLS_ONLY: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 28\r\n\
                        Connection: close\r\n\r\nthis port takes HTTPS only\r\n";

/// A connection that HTTP is spoken on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

type Ready = Option<(Box<dyn Stream>, SocketAddr)>;

/// Accepts connections and does their handshakes. Each counts as one that has not logged in while it lasts.
pub(crate) struct WebListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshake_time: Duration,
    connections_max: usize,
    guests: Arc<Guests>,
    handshakes: JoinSet<Ready>,
}

impl WebListener {
    pub(crate) fn new(
        listener: TcpListener,
        certificates: &Certificates,
        config: &EdgeConfig,
        guests: Arc<Guests>,
    ) -> Self {
        Self {
            listener,
            acceptor: certificates.acceptor(&[ALPN_HTTP]),
            handshake_time: config.handshake_time(),
            connections_max: config.connections_max,
            guests,
            handshakes: JoinSet::new(),
        }
    }

    fn begin(&mut self, stream: TcpStream, address: SocketAddr) {
        if self.guests.count() >= self.connections_max {
            tracing::warn!(%address, "too many connections, this one is closed");
            return;
        }
        let (place, acceptor, time) =
            (self.guests.enter(address.ip()), self.acceptor.clone(), self.handshake_time);
        self.handshakes.spawn(async move {
            match place.in_time(time, handshake(&acceptor, stream, address)).await {
                Some(Ok(stream)) => Some((stream, address)),
                Some(Err(error)) => {
                    tracing::debug!(%address, %error, "a handshake failed");
                    None
                }
                None => None,
            }
        });
    }
}

impl Listener for WebListener {
    type Io = Box<dyn Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Both are cancel-safe: what was accepted is spawned before the next await, what is done is returned.
            tokio::select! {
                (stream, address) = Listener::accept(&mut self.listener) => self.begin(stream, address),
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(ready)) = done {
                        return ready;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    mut stream: TcpStream,
    address: SocketAddr,
) -> io::Result<Box<dyn Stream>> {
    stream.set_nodelay(true)?;
    if begins_with_tls(&stream).await? {
        return Ok(Box::new(acceptor.accept(stream).await?));
    }
    if address.ip().is_loopback() || stream.local_addr()?.ip() == address.ip() {
        return Ok(Box::new(stream));
    }
    stream.write_all(TLS_ONLY.as_bytes()).await?;
    Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP from another machine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_http_is_taken_from_this_machine_only() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("tls.pem"), dir.path().join("tls.key"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let acceptor = Certificates::read(&certificate, &key).unwrap().acceptor(&[ALPN_HTTP]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (from, is_taken) in [("127.0.0.1:9", true), ("[::1]:9", true), ("192.0.2.1:9", false)] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let taken = handshake(&acceptor, stream, from.parse().unwrap()).await;
            assert_eq!(taken.is_ok(), is_taken, "{from}");
            if !is_taken {
                let mut told = [0; 12];
                tokio::io::AsyncReadExt::read_exact(&mut client, &mut told).await.unwrap();
                assert_eq!(&told, b"HTTP/1.1 400");
            }
        }
    }

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let (head, body) = TLS_ONLY.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
