//! Envelopes that cannot be delivered, and why. They are put aside on `realm.<id>.dead`; `letter` has the format.

use antar_broker::{Append, EntryId};
use antar_proto::envelope::{Content, Envelope, EnvelopeError, LanePlace, unbundle};
use antar_proto::{Address, MessageId, RealmId};
use serde::Deserialize;

use crate::arrival::Line;
use crate::delivery::{Batch, Delivery, DeliveryError};
use crate::letter::Buried;
use crate::recall::Place;
use crate::receipt::refused;
use crate::reign::Reign;

/// Why an envelope is not delivered but put aside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Dead {
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    #[error("it is for realm {}", .0.as_ref().map_or("(none)", RealmId::as_str))]
    WrongRealm(Option<RealmId>),
    #[error("realm {0} is not known here")]
    UnknownOrigin(RealmId),
    #[error("it says to come from {claimed} but was published by {from}")]
    WrongOrigin { claimed: RealmId, from: String },
    #[error("it is not signed")]
    Unsigned,
    #[error("its signature is not one of {0} over these bytes")]
    BadSignature(RealmId),
    #[error("it is signed by another key than the one that is known of {0}")]
    UnknownKey(RealmId),
    #[error("it is signed by the new key of {0}, which nobody here has trusted yet")]
    KeyChanged(RealmId),
    #[error("realm {0} is blocked here")]
    Blocked(RealmId),
    #[error("realm {0} was added by nobody here: it is held")]
    Quarantined(RealmId),
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
    #[error("{0}")]
    File(String),
    #[error("the log does not take it: {0}")]
    Refused(String),
}

impl Dead {
    /// The code of what is held.
    pub(crate) const QUARANTINED: &str = "quarantined";

    /// For programs, and for the receipt that goes back.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Envelope(EnvelopeError::Version(_)) => "unknown-version",
            Self::Envelope(EnvelopeError::Malformed(_)) => "malformed",
            Self::WrongRealm(_) => "wrong-realm",
            Self::UnknownOrigin(_) => "unknown-origin",
            Self::WrongOrigin { .. } => "wrong-origin",
            Self::Unsigned => "unsigned",
            Self::BadSignature(_) => "bad-signature",
            Self::UnknownKey(_) => "unknown-key",
            Self::KeyChanged(_) => "key-changed",
            Self::Blocked(_) => "realm-blocked",
            Self::Quarantined(_) => Self::QUARANTINED,
            Self::ForeignSender { .. } => "foreign-sender",
            Self::Kind => "wrong-kind",
            Self::TooManyReceivers => "too-many-receivers",
            Self::NoLane => "no-lane",
            Self::Gap { .. } => "lane-gap",
            Self::IdReused => "id-reused",
            Self::File(_) => "bad-file",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether its realm is told. Never unless it is proven that the envelope comes from there: everybody else could
    /// have that realm tell its users what is not so. What was signed for another realm may well have arrived there.
    /// What follows a gap may be left of a batch that its lane sends again as a whole. What is held may be delivered yet.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::UnknownOrigin(_)
            | Self::WrongOrigin { .. }
            | Self::Unsigned
            | Self::BadSignature(_)
            | Self::UnknownKey(_)
            | Self::KeyChanged(_)
            | Self::WrongRealm(_)
            | Self::Quarantined(_)
            | Self::Gap { .. } => false,
            Self::Envelope(_)
            | Self::Blocked(_)
            | Self::ForeignSender { .. }
            | Self::Kind
            | Self::TooManyReceivers
            | Self::NoLane
            | Self::IdReused
            | Self::File(_)
            | Self::Refused(_) => true,
        }
    }

    /// Whether it was found before a signature proved anything. (An envelope that cannot be read is in between: nothing
    /// is known of one that does not even say where it comes from.)
    pub(crate) fn is_unproven(&self) -> bool {
        matches!(
            self,
            Self::UnknownOrigin(_)
                | Self::WrongOrigin { .. }
                | Self::Unsigned
                | Self::BadSignature(_)
                | Self::UnknownKey(_)
                | Self::KeyChanged(_)
        )
    }
}

/// What bytes claim of themselves, whatever version of an envelope they are.
#[derive(Debug, Clone, Deserialize)]
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

    /// That of the first envelope in the body of an entry.
    pub(crate) fn of_first(body: &[u8]) -> Option<Self> {
        Self::of(unbundle(body).ok()?.next()?)
    }
}

impl From<&Envelope> for Claim {
    fn from(envelope: &Envelope) -> Self {
        let from = match &envelope.content {
            Content::Message { from, .. }
            | Content::GroupMessage { from, .. }
            | Content::GroupPost { from, .. }
            | Content::GroupRequest { from, .. } => Some(from.clone()),
            Content::Notice { .. } | Content::Receipt { .. } | Content::GroupState { .. } => None,
        };
        let (id, lane) = (envelope.id, envelope.lane);
        Self { id, origin: envelope.origin.clone(), dest: Some(envelope.dest.clone()), lane, from }
    }
}

impl Delivery {
    /// Notes an envelope that cannot be delivered, to be put aside, and the answer to its realm if that can be told.
    pub(crate) fn bury(&self, line: &Line, dead: &Dead, place: Option<Place>, batch: &mut Batch) {
        let (inbox, seq) = (&self.source.inbox, line.inbox_seq().0);
        match dead {
            Dead::Quarantined(origin) => tracing::info!(%inbox, seq, %origin, "an envelope is held"),
            dead => {
                tracing::error!(%inbox, seq, reason = ?dead.to_string(), "an envelope is put aside");
            }
        }
        self.shared.counts.buried(dead.code());
        batch.bury(Buried::new(line, dead));
        if !dead.is_answered() {
            return;
        }
        let Some(Claim { origin, id, lane, from: Some(from), .. }) = Claim::of(&line.body) else { return };
        if self.shared.peers.is_known(&origin) && from.realm == origin {
            let outcome = refused(id, from.user, dead.code(), false);
            // One that did not take the place that it claims is told of by itself.
            let claimed = lane.map(|lane| Place { epoch: lane.epoch, seq: lane.seq });
            let place = place.filter(|place| claimed == Some(*place));
            batch.tell(&origin, place, line.inbox_seq(), outcome);
        }
    }

    /// Queues the letters of a batch, for whoever waits for the rest of it.
    pub(crate) async fn send_letters(&self, reign: &Reign, batch: &mut Batch) -> Result<(), DeliveryError> {
        for buried in std::mem::take(&mut batch.dead) {
            let (headers, body) = buried.letter();
            let id = EntryId::new(buried.key()).expect("numbers and a code are printable and short");
            let mut append = Append { headers, ..Append::new(self.shared.places.dead(), id, body) };
            append.expect_last = Some(reign.fence.clone());
            batch.plain.push(self.shared.broker.append(append).await?);
        }
        Ok(())
    }
}

impl Batch {
    fn bury(&mut self, buried: Buried) {
        // What is buried of one entry comes together.
        let same = self.dead.iter_mut().rev().take_while(|other| other.entry.seq == buried.entry.seq);
        if !same.into_iter().any(|other| other.join(&buried)) {
            self.dead.push(buried);
        }
    }
}
