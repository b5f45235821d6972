//! `POST /hook/SECRET`: a message in the name of a bot, from a program that speaks HTTP and not our protocol.
//!
//! Owns: what a request may look like, and the status of each answer. Must not know: what a secret is good for, or where it
//! is kept. Nothing here logs a path, for the secret stands in it.

use antar_proto::reply::{Failure, Sent as SentReply, Stored};
use antar_proto::{ErrorCode, MessageId};
use antar_realm::{Hooked, Send, SendError, SendId, Sent, TooMuch};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;

use super::{Served, answer};

/// Longest key of a request that can be repeated, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// Longest text, in bytes: what fits into a line of the protocol as well.
const TEXT_BYTES_MAX: usize = 60 * 1024;

#[derive(Deserialize)]
struct Body {
    text: String,
}

fn bad(status: StatusCode, detail: &str) -> Response {
    answer(status, &Failure::new(None, ErrorCode::BadRequest).detail(detail))
}

pub(super) async fn hook(
    State(served): State<Served>,
    Path(secret): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // What is no secret and what is none any more are answered alike.
    let Some(hooked) = served.edge.realm.hook(&secret) else {
        return answer(StatusCode::NOT_FOUND, &Failure::new(None, ErrorCode::NotAuthorized));
    };
    let text = match text(&headers, &body) {
        Ok(text) => text,
        Err((status, why)) => return bad(status, why),
    };
    let key = match headers.get("idempotency-key").map(HeaderValue::to_str) {
        None => None,
        Some(Ok(key)) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Some(key),
        Some(_) => return bad(StatusCode::BAD_REQUEST, "Idempotency-Key has 1 to 255 printable characters"),
    };
    say(&served, &hooked, &text, key).await
}

/// The text of a request, as one line.
fn text(headers: &HeaderMap, body: &[u8]) -> Result<String, (StatusCode, &'static str)> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("text/plain");
    let text = match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => {
            let body: Body = serde_json::from_slice(body)
                .map_err(|_| (StatusCode::BAD_REQUEST, "the body is no JSON object with a \"text\""))?;
            body.text
        }
        // What `curl -d` says, whatever it sends.
        "text/plain" | "application/x-www-form-urlencoded" => String::from_utf8(body.to_vec())
            .map_err(|_| (StatusCode::BAD_REQUEST, "the body is not UTF-8"))?,
        _ => {
            let why = "the body is application/json, {\"text\": \"…\"}, or text/plain";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
    };
    // A message is one line: what clients are sent by others has no line ends either.
    let lines: Vec<&str> =
        text.split(['\r', '\n', '\0']).map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.join(" ") {
        text if text.is_empty() => Err((StatusCode::BAD_REQUEST, "the text is empty")),
        text if text.len() > TEXT_BYTES_MAX => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the text has more than 60 KiB"))
        }
        text => Ok(text),
    }
}

/// Sends the message, and waits until it is stored.
async fn say(served: &Served, hooked: &Hooked, text: &str, key: Option<&str>) -> Response {
    let (edge, bot) = (&served.edge, &hooked.bot);
    if let Err(TooMuch { wait, .. }) = edge.realm.take_share(bot, None, text.len()) {
        let seconds = wait.as_secs() + 1;
        let failure = Failure::new(None, ErrorCode::RateLimited).retry_after_s(seconds);
        let mut response = answer(StatusCode::TOO_MANY_REQUESTS, &failure);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return response;
    }
    let send_id = key.map_or_else(
        || SendId::Assigned(MessageId::assigned()),
        |key| SendId::Chosen(hooked.message_id(key)),
    );
    let id = send_id.message();
    let sending = async { edge.realm.send(bot, Send::One(&hooked.to), text, send_id).await?.await };
    // Cancel-safe: what was queued is stored whether or not somebody waits for it.
    let sent = tokio::time::timeout(edge.config.ack_time, sending).await;
    let sent =
        sent.unwrap_or_else(|_| Err(SendError::Unknown("the broker did not acknowledge in time".into())));
    outcome(id, sent)
}

fn outcome(id: MessageId, sent: Result<Sent, SendError>) -> Response {
    let failure = |code| Failure::new(None, code);
    match sent {
        Ok(Sent { unknown, full, duplicate, .. }) => {
            answer(StatusCode::OK, &SentReply::new(None, id, "Message Sent", &unknown, &full, duplicate))
        }
        Err(SendError::NoSuchUser(unknown)) => {
            answer(StatusCode::UNPROCESSABLE_ENTITY, &failure(ErrorCode::NoSuchUser).unknown(&unknown))
        }
        Err(SendError::NoSuchRealm) => {
            answer(StatusCode::UNPROCESSABLE_ENTITY, &failure(ErrorCode::NoSuchRealm))
        }
        Err(SendError::NoSuchGroup) => {
            answer(StatusCode::UNPROCESSABLE_ENTITY, &failure(ErrorCode::NoSuchGroup))
        }
        Err(SendError::NotAMember) => {
            answer(StatusCode::UNPROCESSABLE_ENTITY, &failure(ErrorCode::NotAMember))
        }
        Err(SendError::RealmBlocked) => {
            answer(StatusCode::UNPROCESSABLE_ENTITY, &failure(ErrorCode::RealmBlocked))
        }
        Err(SendError::MailboxFull) => {
            answer(StatusCode::UNPROCESSABLE_ENTITY, &failure(ErrorCode::MailboxFull))
        }
        Err(SendError::IdReused | SendError::IdAssigned) => {
            let failure = failure(ErrorCode::BadRequest);
            answer(StatusCode::CONFLICT, &failure.detail("this Idempotency-Key stands for another text"))
        }
        Err(SendError::NotStored(error)) => {
            tracing::warn!(error, "a message of a hook was not stored");
            let failure = failure(ErrorCode::Unavailable).stored(Stored::NO, Some(id));
            answer(StatusCode::SERVICE_UNAVAILABLE, &failure)
        }
        Err(SendError::Unknown(error)) => {
            tracing::warn!(error, "nobody can tell whether a message of a hook was stored");
            let failure = failure(ErrorCode::Unavailable).stored(Stored::UNKNOWN, Some(id));
            answer(StatusCode::SERVICE_UNAVAILABLE, &failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Option<&'static str>, body: &str) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        text(&headers, body.as_bytes()).map_err(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_text_is_one_line_whatever_it_came_as() {
        assert_eq!(read(None, " satu\r\n\r\n  dua\n").as_deref(), Ok("satu dua"));
        assert_eq!(
            read(Some("application/json; charset=utf-8"), r#"{"text":"a\nb","x":1}"#).as_deref(),
            Ok("a b")
        );
        for (kind, body, status) in [
            (None, "\r\n", 400),
            (Some("application/json"), "{}", 400),
            (Some("application/json"), "satu", 400),
            (Some("image/png"), "x", 415),
        ] {
            assert_eq!(read(kind, body), Err(status), "{kind:?} {body}");
        }
        assert_eq!(read(None, &"x".repeat(TEXT_BYTES_MAX + 1)), Err(413));
    }
}
