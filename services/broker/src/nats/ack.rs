//! What JetStream answers to a message that was published.

use serde::Deserialize;

use super::bundle;
use super::publish::{Answer, Publish};
use crate::{AppendError, Appended};

/// Error codes of JetStream: the last sequence is not the one expected, the store does not take it, too large.
const WRONG_LAST: u64 = 10071;
const STORE_FAILED: u64 = 10077;
const TOO_LARGE: u64 = 10054;
/// In a cluster: the same id, or something with the same expectation, is being stored at this moment.
const BUSY: [u64; 2] = [10158, 10164];

/// What JetStream answers to a message.
#[derive(Deserialize)]
struct Ack<'a> {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(borrow)]
    error: Option<AckFailure<'a>>,
}

#[derive(Deserialize)]
struct AckFailure<'a> {
    #[serde(default)]
    err_code: u64,
    #[serde(borrow, default)]
    description: std::borrow::Cow<'a, str>,
}

/// What became of a message; `None` if it is to be published again.
pub(super) fn answer(message: &async_nats::Message, sent: &Publish) -> Option<Answer> {
    if message.status.is_some_and(|status| status == async_nats::StatusCode::NO_RESPONDERS) {
        if sent.may_wait {
            return None;
        }
        let nobody = format!("no stream takes {}", sent.subject);
        return Some(Err(match sent.is_kept {
            true => AppendError::NotStored(nobody),
            false => AppendError::Refused(nobody),
        }));
    }
    let ack: Ack<'_> = match serde_json::from_slice(&message.payload) {
        Ok(ack) => ack,
        Err(error) => {
            let why = format!("NATS acknowledged in words that make no sense: {error}");
            return Some(Err(AppendError::Unknown(why)));
        }
    };
    let Some(failure) = ack.error else {
        return Some(Ok(Appended {
            seq: bundle::seq(ack.seq, 0, 1),
            duplicate: ack.duplicate,
            full: Vec::new(),
        }));
    };
    let why = failure.description;
    Some(Err(match (failure.err_code, &sent.place) {
        (code, _) if BUSY.contains(&code) => return None,
        (WRONG_LAST, _) => AppendError::Conflict,
        (STORE_FAILED, Some(place)) if why.contains("per subject") => AppendError::Full(place.clone()),
        (TOO_LARGE, _) => AppendError::Refused(why.into_owned()),
        (code, _) => AppendError::NotStored(format!("{why} (NATS, {code})")),
    }))
}
