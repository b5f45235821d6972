//! Name cards: what a realm says of itself on `realm.<id>.info`, how it is asked for, and how it answers.
//!
//! Owns: the card, its requests, and that nothing which an asking realm says of itself is believed: its own card tells.

use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Request, RequestError, Service, SharedBroker, Timestamp, clock_offset_us};
use antar_proto::{RealmId, UserName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::{now_rfc3339, timestamp};
use crate::file::Asked;
use crate::key::PublicKey;
use crate::peer::AddRealmError;
use crate::places::Places;
use crate::shared::Shared;

/// How long `addrealm` waits for a name card (`protocol.md`).
const CARD_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a card that is asked for while another realm waits for our answer.
const CARD_WITHIN: Duration = Duration::from_millis(1_500);
/// Most requests that wait for the card of whoever has made them. Further ones go without an answer.
pub(crate) const MEETINGS_MAX: usize = 64;
/// Longest name of another realm that is kept, in characters.
const NAME_CHARS_MAX: usize = 128;

/// What a realm says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NameCard {
    pub(crate) realm: RealmId,
    pub(crate) name: String,
    pub(crate) version: String,
    /// The key that it signs its envelopes with.
    #[serde(default)]
    pub(crate) key: Option<PublicKey>,
    /// It takes no envelopes at the moment; lanes to it wait.
    #[serde(default)]
    pub(crate) paused: bool,
    /// What time it is there (RFC 3339, UTC), so that whoever asks can compare clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) now: Option<String>,
    /// Why it would put envelopes of the asking realm aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refused>,
}

impl NameCard {
    /// How far the clock there is ahead of ours, in seconds and as far as is certain, if the card was asked for and came at
    /// these times.
    pub(crate) fn ahead_s(&self, asked: Timestamp, came: Timestamp) -> Option<f64> {
        let there = timestamp(self.now.as_deref()?)?;
        Some(clock_offset_us(asked, there, came) as f64 / 1e6)
    }
}

/// Why a realm takes nothing from the one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refused {
    /// Its operators have blocked it.
    RealmBlocked,
    /// It knows another key of it.
    KeyChanged,
    /// It could not ask for its card.
    NoCard,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum CardRequest {
    /// The card; and whether envelopes of the asking realm are taken, if it says which that is.
    Card {
        /// The asking realm.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<RealmId>,
        /// The key that it signs with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<PublicKey>,
    },
    /// The card; and the asking realm has added this one, so let it send.
    Hello {
        /// The asking realm.
        from: RealmId,
        /// The key that it signs with.
        #[serde(default)]
        key: Option<PublicKey>,
    },
    /// The asking realm takes envelopes again.
    Resumed {
        /// The asking realm.
        from: RealmId,
    },
    /// Bytes of a file, and not the card.
    FileBytes(Asked),
}

/// Asks a realm for its card.
pub(crate) async fn ask(
    broker: &SharedBroker,
    realm: &RealmId,
    request: &CardRequest,
) -> Result<NameCard, RequestError> {
    ask_within(broker, realm, request, CARD_TIMEOUT).await
}

async fn ask_within(
    broker: &SharedBroker,
    realm: &RealmId,
    request: &CardRequest,
    timeout: Duration,
) -> Result<NameCard, RequestError> {
    let body = serde_json::to_vec(request).map_err(|error| RequestError::Unavailable(error.to_string()))?;
    let reply = broker.request(&Places::info_of(realm), Bytes::from(body), timeout).await?;
    let mut card: NameCard =
        serde_json::from_slice(&reply).map_err(|error| RequestError::Unavailable(error.to_string()))?;
    card.name = card.name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    if card.realm == *realm { Ok(card) } else { Err(RequestError::NoResponder) }
}

/// As what realms are found by whoever looks for services.
pub(crate) fn service(shared: &Shared) -> Service {
    Service {
        name: "antar".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: format!("realm {}", shared.places.realm()),
    }
}

impl Shared {
    pub(crate) fn card(&self) -> NameCard {
        NameCard {
            realm: self.places.realm().clone(),
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            key: Some(self.key.public().clone()),
            paused: self.is_paused(),
            now: Some(now_rfc3339()),
            refused: None,
        }
    }

    /// Asks for a card as a realm that wants to know whether its envelopes are taken.
    pub(crate) fn who_asks(&self) -> CardRequest {
        CardRequest::Card { from: Some(self.places.realm().clone()), key: Some(self.key.public().clone()) }
    }

    /// Answers one request. What needs another realm's card first is answered later, so that two realms that ask each
    /// other at once do not wait for each other.
    pub(crate) fn answer_card(self: &Arc<Self>, request: Request) {
        let (from, key, is_hello) = match serde_json::from_slice(&request.body) {
            Ok(CardRequest::Card { from: Some(from), key }) => (from, key, false),
            Ok(CardRequest::Card { from: None, .. }) => return self.reply(request, None),
            Ok(CardRequest::Hello { from, key }) => (from, key, true),
            Ok(CardRequest::Resumed { from }) => {
                if self.peers.is_known(&from) {
                    self.lane(&from).nudge.notify_one();
                    self.reply(request, None);
                }
                return;
            }
            Ok(CardRequest::FileBytes(asked)) => return self.answer_file(request, asked),
            Err(error) => {
                tracing::warn!(realm = %self.places.realm(), %error, "a request for the name card is not readable");
                return;
            }
        };
        let peer = self.peers.copy.get(from.as_str());
        let is_told = from == *self.places.realm()
            || peer.as_ref().map_or(!is_hello, |peer| peer.key.is_some() && peer.key == key);
        if is_told {
            let refused = peer.and_then(|peer| peer.blocked.then_some(Refused::RealmBlocked));
            return self.reply(request, refused);
        }
        let Ok(permit) = self.meetings.clone().try_acquire_owned() else {
            tracing::warn!(realm = %self.places.realm(), %from, "too many realms introduce themselves at once");
            return;
        };
        let shared = self.clone();
        self.tasks.spawn(async move {
            // Cancel-safe: a realm that gets no answer asks again.
            tokio::select! {
                () = shared.stop.cancelled() => {}
                refused = shared.meet(&from, key.as_ref()) => shared.reply(request, refused),
            }
            drop(permit);
        });
    }

    /// Adds another realm on behalf of a user: asks for its card, and has it take us as a peer.
    pub(crate) async fn introduce(
        &self,
        by: &UserName,
        realm: &RealmId,
        host: &str,
        port: u16,
    ) -> Result<(), AddRealmError> {
        if let Some(peer) = self.peers.copy.get(realm.as_str()) {
            if peer.blocked {
                return Err(AddRealmError::Blocked("operators here have blocked it".into()));
            }
            match (peer.key_change(), peer.added) {
                (Some(change), _) => return Err(AddRealmError::KeyChanged(change)),
                (None, true) => return Err(AddRealmError::Exists),
                (None, false) => {}
            }
        }
        let ours = self.key.public();
        let hello = CardRequest::Hello { from: self.places.realm().clone(), key: Some(ours.clone()) };
        let card = ask(&self.broker, realm, &hello).await.map_err(|error| match error {
            RequestError::NoResponder | RequestError::Timeout => AddRealmError::NoSuchRealm,
            RequestError::Unavailable(why) => AddRealmError::Unavailable(why),
        })?;
        match card.refused {
            Some(Refused::RealmBlocked) => {
                return Err(AddRealmError::Blocked("operators there have blocked this realm".into()));
            }
            Some(Refused::KeyChanged) => {
                let change = format!("it knows another key of this realm than {ours}");
                return Err(AddRealmError::KeyChanged(change));
            }
            Some(Refused::NoCard) => {
                return Err(AddRealmError::Refused("it cannot see the name card of this realm".into()));
            }
            Some(Refused::Unknown) | None => {}
        }
        if card.key.is_none() {
            return Err(AddRealmError::Refused("its name card has no key: it is of an older version".into()));
        }
        let seen = self.peers.note(&card).await?;
        if let Some(change) = seen.key_change() {
            return Err(AddRealmError::KeyChanged(change));
        }
        self.peers.add(&card, ours, by, host, port).await
    }

    fn reply(&self, request: Request, refused: Option<Refused>) {
        let card = NameCard { refused, ..self.card() };
        request.reply.send(serde_json::to_vec(&card).expect("a name card has nothing in it that can fail"));
    }

    /// Takes note of a realm that says to sign with `key`, by its own card. Why its envelopes would not be taken.
    async fn meet(&self, from: &RealmId, key: Option<&PublicKey>) -> Option<Refused> {
        let request = CardRequest::Card { from: None, key: None };
        let card = match ask_within(&self.broker, from, &request, CARD_WITHIN).await {
            Ok(card) => card,
            Err(error) => {
                tracing::warn!(realm = %self.places.realm(), %from, %error, "no name card of a realm that asks for ours");
                return Some(Refused::NoCard);
            }
        };
        match self.peers.note(&card).await {
            Ok(peer) if peer.blocked => Some(Refused::RealmBlocked),
            Ok(peer) if peer.key.as_ref() != key => Some(Refused::KeyChanged),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(realm = %self.places.realm(), %from, %error, "a peer could not be noted");
                Some(Refused::NoCard)
            }
        }
    }
}
