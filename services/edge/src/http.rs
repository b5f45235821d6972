//! Health over HTTP: `/healthz` (the process) and `/readyz` (the broker answers too).

use antar_realm::Realm;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::Listener;
use tokio_util::sync::CancellationToken;

/// Answers until `shutdown`.
pub(crate) async fn run<L>(listener: L, realm: Realm, shutdown: CancellationToken)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(realm);
    let served =
        axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.cancelled().await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "health is no longer served");
    }
}

async fn ready(State(realm): State<Realm>) -> (StatusCode, &'static str) {
    match realm.is_ready().await {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the broker does not answer\n"),
    }
}
