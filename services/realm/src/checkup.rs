//! What can be seen of a realm from outside of what serves it, by whoever checks an installation.
//!
//! Owns: which facts there are, and where they stand. Must not know: which of them are good or bad. Reads only, and needs no
//! running realm; what a peer says of itself is understood here, and asked for elsewhere.

use std::collections::{BTreeMap, HashSet};

use antar_broker::{
    Filter, KvEntry, KvError, ReadError, ReadFrom, ReadLimit, SharedBroker, Subject, Timestamp,
};
use antar_proto::RealmId;
use antar_proto::envelope::{Envelope, unbundle};
use bytes::Bytes;

use crate::admin::LetterState;
use crate::card::{CardRequest, NameCard};
use crate::clock::timestamp;
use crate::copy::{kept_if_there, values};
use crate::edges::Waiting;
use crate::key_file;
use crate::lane::NOT_TRUSTED;
use crate::letter::Letter;
use crate::letters::Mark;
use crate::peer::Peer;
use crate::places::{DEAD, Places};
use crate::shared::{PAUSED, Setting};
use crate::snapshot::PEERS;

/// Most dead letters that are looked at, the newest first.
const LETTERS_MAX: usize = 1_000;
/// Most inbox entries of a peer by which its clock is told.
const ENTRIES_MAX: usize = 16;

/// What a realm has written down of a peer.
#[derive(Debug, Clone)]
pub struct PeerFacts {
    /// The peer.
    pub realm: RealmId,
    /// The key of it that is believed.
    pub key: Option<String>,
    /// Another key, which its name card had.
    pub offered: Option<String>,
    /// Nothing is exchanged with it.
    pub blocked: bool,
}

/// A peer's name card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The version of the edge that has answered.
    pub version: String,
    /// The key that it signs with.
    pub key: Option<String>,
    /// It takes no envelopes at the moment.
    pub paused: bool,
    /// What time it was there.
    pub now: Option<Timestamp>,
}

/// Dead letters that nothing was done about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenLetters {
    /// How many, of each reason.
    pub by_code: BTreeMap<String, usize>,
    /// There are older ones that were not looked at.
    pub more: bool,
}

/// The public key that the realm's settings have; `None` if it has none yet.
pub async fn public_key(broker: &SharedBroker, realm: &RealmId) -> Result<Option<String>, KvError> {
    key_file::public_key_of(broker, &Places::new(realm.clone())).await
}

/// Whether traffic with other realms is stopped.
pub async fn is_paused(broker: &SharedBroker, realm: &RealmId) -> Result<bool, KvError> {
    let bucket = Places::new(realm.clone()).bucket("settings");
    let kept = broker.kv_get(&bucket, PAUSED).await?;
    let setting = kept.and_then(|entry| serde_json::from_slice::<Setting>(&entry.value).ok());
    Ok(matches!(setting, Some(Setting::Flag(true))))
}

/// The realm's peers, in the order of their ids.
pub async fn peers(broker: &SharedBroker, realm: &RealmId) -> Result<Vec<PeerFacts>, ReadError> {
    let mut peers: Vec<Peer> = values(broker, &Places::new(realm.clone()).bucket(PEERS)).await?;
    peers.sort_by(|one, other| one.realm.cmp(&other.realm));
    let facts = |peer: Peer| PeerFacts {
        key: peer.key.map(|key| key.to_string()),
        offered: peer.offered.map(|key| key.to_string()),
        blocked: peer.blocked,
        realm: peer.realm,
    };
    Ok(peers.into_iter().map(facts).collect())
}

/// Dead letters that are neither redriven nor dropped.
pub async fn open_letters(broker: &SharedBroker, realm: &RealmId) -> Result<OpenLetters, ReadError> {
    let places = Places::new(realm.clone());
    let limit = ReadLimit { entries_max: LETTERS_MAX, bytes_max: 16 * 1024 * 1024 };
    let page = broker.read(&Filter::from(&places.dead()), ReadFrom::End, limit).await?;
    let mut open = OpenLetters { more: page.more, ..OpenLetters::default() };
    if page.entries.is_empty() {
        return Ok(open);
    }
    let settled = settled(broker, &places).await?;
    for letter in page.entries.iter().filter_map(Letter::of) {
        if !settled.contains(&letter.key()) {
            *open.by_code.entry(letter.code).or_default() += 1;
        }
    }
    Ok(open)
}

/// The keys of the dead letters that were redriven or dropped.
async fn settled(broker: &SharedBroker, places: &Places) -> Result<HashSet<String>, ReadError> {
    let is_settled = |entry: &KvEntry| {
        let mark: Option<Mark> = serde_json::from_slice(&entry.value).ok();
        mark.is_some_and(|mark| matches!(mark.state, LetterState::Redriven | LetterState::Dropped))
    };
    let marks = kept_if_there(broker, &places.bucket(DEAD)).await?;
    Ok(marks.into_iter().filter(is_settled).map(|entry| entry.key).collect())
}

/// Whether a lane waits because the peer knows another key of this realm.
pub fn is_key_refused(waiting: &Waiting) -> bool {
    waiting.reason == NOT_TRUSTED
}

/// Where a realm is asked for its name card.
pub fn card_subject(realm: &RealmId) -> Subject {
    Places::info_of(realm)
}

/// What is sent there by somebody who is no realm: nobody takes note of it.
pub fn card_request() -> Bytes {
    let request = CardRequest::Card { from: None, key: None };
    serde_json::to_vec(&request).expect("a request has nothing in it that can fail").into()
}

/// The answer, if it is the card of that realm.
pub fn card(realm: &RealmId, answer: &[u8]) -> Option<Card> {
    let card: NameCard = serde_json::from_slice(answer).ok()?;
    let now = card.now.as_deref().and_then(timestamp);
    let key = card.key.map(|key| key.to_string());
    (card.realm == *realm).then_some(Card { version: card.version, key, paused: card.paused, now })
}

/// By how many microseconds the newest envelopes of a peer say that they were sent after they were stored here; 0 if none
/// does. A peer's clock that is behind cannot be told from a lane that has waited.
pub async fn sent_after_stored_us(
    broker: &SharedBroker,
    realm: &RealmId,
    peer: &RealmId,
) -> Result<u64, ReadError> {
    let places = Places::new(realm.clone());
    let mut most = 0;
    for source in [places.source(None), places.source(Some(peer))] {
        let filter = Filter::from(&source.inbox);
        let page = broker.read(&filter, ReadFrom::End, ReadLimit::entries(ENTRIES_MAX)).await?;
        for entry in &page.entries {
            let Ok(lines) = unbundle(&entry.body) else { continue };
            let envelopes = lines.filter_map(|line| Envelope::from_bytes(line).ok());
            for envelope in envelopes.filter(|envelope| envelope.origin == *peer) {
                let sent = timestamp(&envelope.sent_at).unwrap_or_default();
                most = most.max(sent.0.saturating_sub(entry.time.0));
            }
        }
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_understood_with_its_time_and_without_and_only_that_of_the_realm_that_was_asked() {
        let (one, two): (RealmId, RealmId) = ("realm1".parse().unwrap(), "realm2".parse().unwrap());
        let old = br#"{"realm":"realm2","name":"x","version":"0.1.0","paused":true}"#;
        let understood = card(&two, old).unwrap();
        assert_eq!((understood.paused, understood.now, understood.key), (true, None, None));
        assert_eq!(card(&one, old), None);
        assert_eq!(card(&two, b"no card"), None);
        let new = br#"{"realm":"realm2","name":"x","version":"0.2.0","now":"1970-01-01T00:00:01.5Z"}"#;
        assert_eq!(card(&two, new).unwrap().now, Some(Timestamp(1_500_000)));
    }
}
