//! Dead letters: envelopes that cannot be delivered, and why. They are kept on `realm.<id>.dead`.

use antar_broker::Entry;
use antar_proto::envelope::{EnvelopeError, LanePlace};
use antar_proto::{Address, MessageId, RealmId};
use serde::{Deserialize, Serialize};

use crate::clock::now_rfc3339;

/// How much of an envelope's bytes its dead letter keeps. Escaped as JSON it still fits into one entry.
const LETTER_BODY_BYTES_MAX: usize = 100 * 1024;

/// Why an envelope is not delivered but put aside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Dead {
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    #[error("it is for realm {}", .0.as_ref().map_or("(none)", RealmId::as_str))]
    WrongRealm(Option<RealmId>),
    #[error("realm {0} is not known here")]
    UnknownOrigin(RealmId),
    #[error("it says to be from {from} but came from {origin}")]
    ForeignSender { from: Address, origin: RealmId },
    #[error("a realm may not send this kind of envelope")]
    Kind,
    #[error("it names too many receivers")]
    TooManyReceivers,
    #[error("it has no place in a lane")]
    NoLane,
    #[error("a gap: it follows {prev} in the lane, the last one here is {last}")]
    Gap { prev: u64, last: u64 },
    #[error("its id was used before with another content")]
    IdReused,
    #[error("the log does not take it: {0}")]
    Refused(String),
}

/// An entry's record in `realm.<id>.dead`.
#[derive(Debug, Serialize)]
struct DeadLetter<'a> {
    reason: String,
    code: &'static str,
    inbox_seq: u64,
    time: String,
    /// The bytes as text; what is not UTF-8 is replaced, what is beyond the limit left out.
    body: std::borrow::Cow<'a, str>,
}

impl Dead {
    /// For programs, and for the receipt that goes back.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Envelope(EnvelopeError::Version(_)) => "unknown-version",
            Self::Envelope(EnvelopeError::Malformed(_)) => "malformed",
            Self::WrongRealm(_) => "wrong-realm",
            Self::UnknownOrigin(_) => "unknown-origin",
            Self::ForeignSender { .. } => "foreign-sender",
            Self::Kind => "wrong-kind",
            Self::TooManyReceivers => "too-many-receivers",
            Self::NoLane => "no-lane",
            Self::Gap { .. } => "lane-gap",
            Self::IdReused => "id-reused",
            Self::Refused(_) => "refused",
        }
    }

    /// What is kept of the envelope.
    pub(crate) fn letter(&self, entry: &Entry) -> Vec<u8> {
        let kept = &entry.body[..entry.body.len().min(LETTER_BODY_BYTES_MAX)];
        let letter = DeadLetter {
            reason: self.to_string(),
            code: self.code(),
            inbox_seq: entry.seq.0,
            time: now_rfc3339(),
            body: String::from_utf8_lossy(kept),
        };
        serde_json::to_vec(&letter).expect("a dead letter has nothing in it that can fail")
    }
}

/// What bytes claim of themselves, whatever version of an envelope they are.
#[derive(Debug, Deserialize)]
pub(crate) struct Claim {
    pub(crate) id: MessageId,
    pub(crate) origin: RealmId,
    #[serde(default)]
    pub(crate) dest: Option<RealmId>,
    #[serde(default)]
    pub(crate) lane: Option<LanePlace>,
    #[serde(default)]
    pub(crate) from: Option<Address>,
}

impl Claim {
    /// `None` for bytes that do not even say where they come from.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}
