//! Listening: accepts connections until told to stop, then waits for those that are left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use antar_realm::Realm;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EdgeConfig;
use crate::connection::Connection;
use crate::counts::{Counts, Refused};
use crate::guests::{Guests, Place};
use crate::http;
use crate::tls::{self, Certificates};
use crate::web::WebListener;

/// Connections that may wait to be accepted. The default of 128 collapsed under 16 parallel connects (measured on
/// other servers, `performance.md`).
const BACKLOG: i32 = 4_096;
/// A peer that has gone without a word is noticed after 60 s + 6 × 10 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;
/// Shortest and longest pause after an accept that failed, for instance because all file descriptors are taken.
const ACCEPT_DELAY_MIN: Duration = Duration::from_millis(10);
const ACCEPT_DELAY_MAX: Duration = Duration::from_secs(1);

/// How long requests over HTTP may still take at the end.
const HTTP_DRAIN_TIME: Duration = Duration::from_millis(500);

/// What all connections of an edge share.
pub(crate) struct Edge {
    pub(crate) realm: Realm,
    pub(crate) config: EdgeConfig,
    pub(crate) counts: Counts,
    /// Its connections, whatever they came over.
    pub(crate) guests: Arc<Guests>,
    /// The tasks that serve them.
    pub(crate) tasks: TaskTracker,
}

/// Listens on an address; port 0 takes a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where an edge listens.
#[derive(Debug)]
pub struct Listeners {
    /// For commands, as plain text.
    pub command: TcpListener,
    /// For commands over TLS.
    pub tls: Option<TcpListener>,
    /// For HTTP; over TLS if there are certificates, and then as plain text only from this machine.
    pub http: Option<TcpListener>,
    /// What is shown to whoever speaks TLS.
    pub certificates: Option<Certificates>,
}

/// Serves a realm until `shutdown`; then stops accepting, lets connections finish what is in flight, tells those that
/// watch, and returns within the configured drain time.
pub async fn run(listeners: Listeners, realm: Realm, config: EdgeConfig, shutdown: CancellationToken) {
    let (tasks, guests) = (TaskTracker::new(), Guests::new(config.guests_per_address_max));
    let drain_time = config.drain_time;
    let (counts, served_by) = (Counts::default(), (guests.clone(), tasks.clone()));
    let edge = Arc::new(Edge { realm, config, counts, guests: served_by.0, tasks: served_by.1 });
    let Listeners { command, tls, http, certificates } = listeners;
    // It answers until the connections have ended: whoever asks shall hear that the edge is not ready.
    let (served, stop_http) = (TaskTracker::new(), CancellationToken::new());
    match (http, &certificates) {
        (Some(http), Some(certificates)) => {
            let web = WebListener::new(http, certificates, &edge.config, guests.clone());
            served.spawn(http::run(
                http::Bounded::new(web),
                edge.clone(),
                shutdown.clone(),
                stop_http.clone(),
            ));
        }
        (Some(http), None) => {
            served.spawn(http::run(
                http::Bounded::new(http),
                edge.clone(),
                shutdown.clone(),
                stop_http.clone(),
            ));
        }
        (None, _) => {}
    }
    served.close();
    let over_tls = async {
        match (&tls, &certificates) {
            (Some(tls), Some(certificates)) => {
                let acceptor = certificates.acceptor(&[tls::ALPN_COMMAND]);
                accept(tls, Some(&acceptor), &edge, &guests, &tasks).await;
            }
            _ => std::future::pending().await,
        }
    };
    // Cancel-safe: a connection that was accepted is spawned before the next await.
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept(&command, None, &edge, &guests, &tasks) => {}
        () = over_tls => {}
    }
    drop((command, tls));
    guests.shut_down();
    tasks.close();
    if tokio::time::timeout(drain_time, tasks.wait()).await.is_err() {
        tracing::warn!(realm = %edge.realm.id(), connections = guests.count(), "connections were cut: they did not finish in time");
    }
    stop_http.cancel();
    if tokio::time::timeout(HTTP_DRAIN_TIME, served.wait()).await.is_err() {
        tracing::debug!(realm = %edge.realm.id(), "requests over HTTP were cut");
    }
}

async fn accept(
    listener: &TcpListener,
    acceptor: Option<&TlsAcceptor>,
    edge: &Arc<Edge>,
    guests: &Arc<Guests>,
    tasks: &TaskTracker,
) {
    let mut delay = ACCEPT_DELAY_MIN;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                delay = ACCEPT_DELAY_MIN;
                if guests.count() >= edge.config.connections_max {
                    edge.counts.refused(Refused::Full);
                    tracing::warn!(%address, "too many connections, this one is closed");
                    continue;
                }
                if let Err(error) = prepare(&stream) {
                    tracing::debug!(%address, %error, "a connection went away at once");
                    continue;
                }
                edge.counts.connections.inc();
                let place = guests.enter(address.ip());
                match acceptor {
                    None => {
                        tasks.spawn(Connection::new(edge.clone(), stream.into(), address.ip(), place).run());
                    }
                    Some(acceptor) => {
                        tasks.spawn(serve_tls(edge.clone(), acceptor.clone(), stream, address, place));
                    }
                }
            }
            Err(error) => {
                if delay == ACCEPT_DELAY_MIN {
                    tracing::error!(%error, "cannot accept connections, trying again");
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(ACCEPT_DELAY_MAX);
            }
        }
    }
}

/// A connection over TLS, from its handshake on. The handshake keeps its place among those that have not logged in.
async fn serve_tls(
    edge: Arc<Edge>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
) {
    let time = edge.config.handshake_time();
    match place.in_time(time, tls::handshake(&acceptor, stream)).await {
        // Boxed: the handshake is the larger part, and gone by now.
        Some(Ok(stream)) => Box::pin(Connection::new(edge, stream, address.ip(), place).run()).await,
        Some(Err(error)) => tracing::debug!(%address, %error, "a handshake failed"),
        None => tracing::debug!(%address, "a handshake was broken off"),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
