//! Listening: accepts connections until told to stop, then waits for those that are left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use antar_realm::Realm;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EdgeConfig;
use crate::connection::Connection;
use crate::counts::{Counts, Refused};
use crate::guests::Guests;
use crate::http;

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

/// Serves a realm on `listener` (and health on `health`) until `shutdown`; then stops accepting, lets connections
/// finish what is in flight, tells those that watch, and returns within the configured drain time.
pub async fn run(
    listener: TcpListener,
    health: Option<TcpListener>,
    realm: Realm,
    config: EdgeConfig,
    shutdown: CancellationToken,
) {
    let (tasks, guests) = (TaskTracker::new(), Guests::new(config.guests_per_address_max));
    let drain_time = config.drain_time;
    let edge = Arc::new(Edge { realm, config, counts: Counts::default() });
    // It answers until the connections have ended: whoever asks shall hear that the edge is not ready.
    let (http, stop_http) = (TaskTracker::new(), CancellationToken::new());
    if let Some(health) = health {
        http.spawn(http::run(health, edge.clone(), shutdown.clone(), stop_http.clone()));
    }
    http.close();
    // Cancel-safe: a connection that was accepted is spawned before the next await.
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept(&listener, &edge, &guests, &tasks) => {}
    }
    drop(listener);
    guests.shut_down();
    tasks.close();
    if tokio::time::timeout(drain_time, tasks.wait()).await.is_err() {
        tracing::warn!(realm = %edge.realm.id(), connections = guests.count(), "connections were cut: they did not finish in time");
    }
    stop_http.cancel();
    if tokio::time::timeout(HTTP_DRAIN_TIME, http.wait()).await.is_err() {
        tracing::debug!(realm = %edge.realm.id(), "requests over HTTP were cut");
    }
}

async fn accept(listener: &TcpListener, edge: &Arc<Edge>, guests: &Arc<Guests>, tasks: &TaskTracker) {
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
                tasks.spawn(Connection::new(edge.clone(), stream, address.ip(), place).run());
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

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
