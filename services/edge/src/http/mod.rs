//! What an edge answers over HTTP: the page, health, metrics, hooks of bots, files, and WebSocket.
//!
//! Owns: the routes, in one place, and what bounds a client. The listener is on loopback unless it is told otherwise.

mod files;
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
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::listener::Edge;

/// Largest body of a request: of a hook a message, of all else none is needed. Files are taken part by part.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a path that is not there is answered.
const NOT_FOUND: &str =
    "not found; there is the page at /, /healthz, /readyz, /metrics, /hook/SECRET, /files and /ws
";

/// What the answers need.
#[derive(Clone)]
struct Served {
    edge: Arc<Edge>,
    /// Cancelled as soon as the edge is to end: from then on it is not ready.
    ending: CancellationToken,
    metrics: Arc<metrics::Metrics>,
    /// Places for files on their way, in either direction.
    transfers: Arc<files::Transfers>,
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("a reply has nothing in it that can fail");
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
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
    let transfers = Arc::default();
    let routes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/hook/{secret}", post(hook::hook))
        .route("/files", post(files::upload))
        .route("/files/{id}", get(files::download))
        .route("/ws", get(ws::upgrade))
        .merge(page::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, NOT_FOUND) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Served { edge, ending, metrics, transfers });
    let served = axum::serve(listener, routes.into_make_service_with_connect_info::<listener::Peer>())
        .with_graceful_shutdown(async move { stop.cancelled().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "HTTP is no longer served");
    }
}
