//! `/healthz`: the process is there. `/readyz`: the broker answers too, and the edge is not about to end.

use axum::extract::State;
use axum::http::StatusCode;

use super::Served;

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    let refused = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
    if served.ending.is_cancelled() {
        return refused("the edge is shutting down\n".into());
    }
    match served.edge.realm.ready().await {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(why) => refused(format!("{why}\n")),
    }
}
