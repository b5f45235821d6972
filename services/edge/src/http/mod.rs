//! What an edge answers over HTTP: the page, health, metrics, hooks of bots, and WebSocket.
//!
//! Owns: the routes, in one place, and what bounds a client. The listener is on loopback unless it is told otherwise.

mod health;
mod hook;
mod listener;
mod metrics;
mod page;
mod ws;

pub(crate) use listener::Bounded;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use crate::listener::Edge;

/// Largest body of a request: of a hook a message, of all else none is needed.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a path that is not there is answered.
const NOT_FOUND: &str = "not found; there is the page at /, /healthz, /readyz, /metrics, /hook/SECRET and /ws\n";

/// What the answers need.
#[derive(Clone)]
struct Served {
    edge: Arc<Edge>,
    /// Cancelled as soon as the edge is to end: from then on it is not ready.
    ending: CancellationToken,
    metrics: Arc<metrics::Metrics>,
}

/// Answers until `stop`. From `ending` on the edge is not ready.
pub(crate) async fn run<L>(
    listener: Bounded<L>,
    edge: Arc<Edge>,
    ending: CancellationToken,
    stop: CancellationToken,
) where
    L: axum::serve::Listener<Addr = SocketAddr>,
{
    let metrics = Arc::new(metrics::Metrics::new(&edge));
    let routes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/hook/{secret}", post(hook::hook))
        .route("/ws", get(ws::upgrade))
        .merge(page::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, NOT_FOUND) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Served { edge, ending, metrics });
    let served = axum::serve(listener, routes.into_make_service_with_connect_info::<listener::Peer>())
        .with_graceful_shutdown(async move { stop.cancelled().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "HTTP is no longer served");
    }
}
