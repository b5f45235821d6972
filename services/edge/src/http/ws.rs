//! `/ws`: from a request over HTTP to a connection like any other.
//!
//! Owns: the handshake of WebSocket (RFC 6455, 4.2), and from which pages it is taken. Must not know: frames.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use data_encoding::BASE64;
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};

use super::Served;
use super::listener::Peer;
use crate::connection::Connection;
use crate::counts::Refused;
use crate::listener::Edge;
use crate::transport::Transport;
use crate::websocket::WebSocket;

/// What the key is hashed with (RFC 6455, 1.3).
const ACCEPT_SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The version that there is.
const VERSION: &str = "13";

pub(super) async fn upgrade(
    State(served): State<Served>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
) -> Response {
    let Served { edge, .. } = served;
    let accept = match accept(request.headers(), &edge.config.origins) {
        Ok(accept) => accept,
        Err(refused) => return *refused,
    };
    if edge.guests.count() >= edge.config.connections_max {
        edge.counts.refused(Refused::Full);
        return (StatusCode::SERVICE_UNAVAILABLE, "too many connections\n").into_response();
    }
    edge.counts.connections.inc();
    let place = edge.guests.enter(peer.address.ip());
    let upgraded = hyper::upgrade::on(&mut request);
    let tasks = edge.tasks.clone();
    tasks.spawn(serve(edge, upgraded, peer, place));
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, &accept)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn serve(
    edge: Arc<Edge>,
    upgraded: hyper::upgrade::OnUpgrade,
    peer: Peer,
    place: crate::guests::Place,
) {
    let Some(Ok(upgraded)) = place.in_time(edge.config.handshake_time(), upgraded).await else { return };
    // From here on the limits of connections hold, and no longer those of requests.
    peer.seat.leave();
    let socket = WebSocket::new(Box::new(TokioIo::new(upgraded)), edge.config.line_bytes_max);
    let transport = Transport::WebSocket(Box::new(socket));
    Box::pin(Connection::new(edge, transport, peer.address.ip(), place).run()).await;
}

/// The answer to the client's key; or why this is no WebSocket for us.
fn accept(headers: &HeaderMap, origins: &[String]) -> Result<String, Box<Response>> {
    let has = |name: HeaderName, word: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") || !has(SEC_WEBSOCKET_VERSION, VERSION) {
        let headers = [(UPGRADE, "websocket"), (SEC_WEBSOCKET_VERSION, VERSION)];
        return Err(Box::new(
            (StatusCode::UPGRADE_REQUIRED, headers, "this is for WebSocket\n").into_response(),
        ));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes());
    let Some(key) = key.filter(|key| BASE64.decode(key).is_ok_and(|key| key.len() == 16)) else {
        return Err(Box::new((StatusCode::BAD_REQUEST, "a key of 16 bytes is missing\n").into_response()));
    };
    if !is_origin_good(headers, origins) {
        return Err(Box::new((StatusCode::FORBIDDEN, "this page is from elsewhere\n").into_response()));
    }
    Ok(BASE64.encode(&Sha1::new().chain_update(key).chain_update(ACCEPT_SALT).finalize()))
}

/// Whether a page that may do so asks: one that comes from here, or from one of `origins`. What is no browser says nothing, and has
/// nothing that a page could abuse.
fn is_origin_good(headers: &HeaderMap, origins: &[String]) -> bool {
    let mut all = headers.get_all(ORIGIN).iter();
    let (origin, host) = match (all.next(), all.next()) {
        (None, _) => return true,
        (Some(origin), None) => (origin.to_str(), headers.get(HOST).and_then(|host| host.to_str().ok())),
        (Some(_), Some(_)) => return false,
    };
    let Ok(origin) = origin else { return false };
    if origins.iter().any(|known| known.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let place = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    place.is_some_and(|place| host.is_some_and(|host| host.eq_ignore_ascii_case(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let all = [
            (CONNECTION, "keep-alive, Upgrade"),
            (UPGRADE, "websocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (HOST, "chat.example:8001"),
        ];
        for (name, value) in all.into_iter().chain(origin.map(|origin| (ORIGIN, origin))) {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_key_is_answered_as_the_standard_says() {
        let answer = accept(&headers(None), &[]).unwrap();
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        for (origin, is_good) in [
            ("http://chat.example:8001", true),
            ("https://CHAT.example:8001", true),
            ("http://other.example", false),
            ("http://chat.example", false),
            ("http://chat.example:8001.evil.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(accept(&headers(Some(origin)), &[]).is_ok(), is_good, "{origin}");
        }
        let others = ["https://chat.example".to_owned()];
        for (origin, is_good) in [
            ("https://chat.example", true),
            ("https://Chat.Example", true),
            ("http://chat.example:8001", true),
            ("http://chat.example", false),
            ("https://chat.example.evil.example", false),
        ] {
            assert_eq!(accept(&headers(Some(origin)), &others).is_ok(), is_good, "{origin}");
        }
    }
}
