//! Peers: the realms this one exchanges messages with, and which key of theirs is believed.

use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::{RealmId, UserName};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::card::NameCard;
use crate::clock::now_rfc3339;
use crate::copy::KvCopy;
use crate::key::PublicKey;

/// Longest HOST that is kept, in bytes: that of a domain name.
const HOST_BYTES_MAX: usize = 253;
/// Most peers of a realm.
const PEERS_MAX: usize = 1_000;
/// How often a change is tried that somebody else's came before, and the pause in which the copy learns of that.
const CHANGE_TRIES: u32 = 50;
const CHANGE_PAUSE: Duration = Duration::from_millis(20);

/// One peer, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) realm: RealmId,
    /// Its name, from its card.
    pub(crate) name: String,
    /// A user or operator here has added it; else it has added us.
    pub(crate) added: bool,
    #[serde(default)]
    pub(crate) added_by: Option<UserName>,
    #[serde(default)]
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) port: u16,
    /// RFC 3339, UTC.
    pub(crate) since: String,
    /// Of our lane to it: grows when its outbox is made anew.
    pub(crate) epoch: u64,
    /// The key that proves its envelopes: that of the first card of it that was seen, until an operator says otherwise.
    #[serde(default)]
    pub(crate) key: Option<PublicKey>,
    /// Another key that its card has now. Nothing signed by it is taken, and nothing is sent to whoever has it.
    #[serde(default)]
    pub(crate) offered: Option<PublicKey>,
    /// An operator wants no messages from it and to it.
    #[serde(default)]
    pub(crate) blocked: bool,
    /// When an operator last chose its key, in microseconds since 1970. What came before under that key was put aside, so
    /// the first envelope after it may follow any other.
    #[serde(default)]
    pub(crate) trusted_at: u64,
    /// What came in up to here came before that. (Of a realm that was restored: `trusted_at` is the time of that, for what
    /// has come since the backup is not there, and what was restored is.)
    #[serde(default)]
    pub(crate) trusted_after: u64,
    /// The key of ours that it has agreed to.
    #[serde(default)]
    pub(crate) told: Option<PublicKey>,
}

/// Why a realm was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddRealmError {
    /// Nobody answers for it, or it is this realm itself.
    #[error("nobody answers for this realm")]
    NoSuchRealm,
    /// It was added before.
    #[error("the realm was added before")]
    Exists,
    /// Operators here, or there, have blocked the other realm.
    #[error("{0}")]
    Blocked(String),
    /// It has another key than the one that is known; or we have, for it.
    #[error("{0}")]
    KeyChanged(String),
    /// The host is none, or there are too many peers.
    #[error("{0}")]
    Refused(String),
    /// The broker does not answer.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
}

impl From<KvError> for AddRealmError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Refused(why) => Self::Refused(why),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl Peer {
    fn new(card: &NameCard) -> Self {
        Self {
            realm: card.realm.clone(),
            name: card.name.clone(),
            added: false,
            added_by: None,
            host: String::new(),
            port: 0,
            since: now_rfc3339(),
            epoch: Timestamp::now().0,
            key: card.key.clone(),
            offered: None,
            blocked: false,
            trusted_at: 0,
            trusted_after: 0,
            told: None,
        }
    }

    /// Takes over what a card says of the key: the first one is pinned, another one only noted.
    fn see(&mut self, card: &NameCard) {
        let Some(key) = &card.key else { return };
        match &self.key {
            None => self.key = Some(key.clone()),
            Some(pinned) if pinned == key => self.offered = None,
            Some(pinned) => {
                if self.offered.as_ref() != Some(key) {
                    tracing::error!(peer = %self.realm, was = %pinned, now = %key, "a realm has changed its key; nothing is exchanged with it until `antar realm trust`");
                }
                self.offered = Some(key.clone());
            }
        }
    }

    /// What people are told about a changed key.
    pub(crate) fn key_change(&self) -> Option<String> {
        let (was, now) = (self.key.as_ref()?, self.offered.as_ref()?);
        Some(format!("its key has changed: was {was}, now {now}"))
    }
}

/// The peers of a realm. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) copy: KvCopy<Peer>,
    /// Wakes whoever starts lanes.
    pub(crate) changed: Arc<Notify>,
}

impl Peers {
    pub(crate) fn new(copy: KvCopy<Peer>) -> Self {
        Self { copy, changed: Arc::default() }
    }

    /// Whether messages are exchanged with it, or were.
    pub(crate) fn is_known(&self, realm: &RealmId) -> bool {
        self.copy.get(realm.as_str()).is_some()
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.copy.all().into_iter().map(|(_, peer)| peer).collect();
        peers.sort_by(|a, b| a.realm.cmp(&b.realm));
        peers
    }

    /// Changes a peer, or makes it. `change` may be called several times, on what is there at that moment; nothing is
    /// written if it changes nothing.
    pub(crate) async fn change<E: From<KvError>>(
        &self,
        realm: &RealmId,
        change: impl Fn(Option<&Peer>) -> Result<Peer, E>,
    ) -> Result<Peer, E> {
        for _ in 0..CHANGE_TRIES {
            let kept = self.copy.get_with_revision(realm.as_str());
            let peer = change(kept.as_ref().map(|(peer, _)| &**peer))?;
            if kept.as_ref().is_some_and(|(kept, _)| **kept == peer) {
                return Ok(peer);
            }
            if kept.is_none() && self.copy.len() >= PEERS_MAX {
                return Err(KvError::Refused("this realm has too many peers".into()).into());
            }
            let expect = kept.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
            match self.copy.put(realm.as_str(), &peer, expect, None).await {
                Ok(()) => {
                    self.changed.notify_one();
                    return Ok(peer);
                }
                Err(KvError::Conflict) => tokio::time::sleep(CHANGE_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(KvError::Unavailable("the peer is changed by others all the time".into()).into())
    }

    /// Takes note of a card: of a peer that has added us, or of one that is known. Pins its key if none is.
    pub(crate) async fn note(&self, card: &NameCard) -> Result<Peer, KvError> {
        self.change(&card.realm, |kept| {
            let mut peer = kept.cloned().unwrap_or_else(|| Peer::new(card));
            peer.see(card);
            Ok(peer)
        })
        .await
    }

    /// Notes that a peer takes what is signed by our key `ours`.
    pub(crate) async fn tell(&self, realm: &RealmId, ours: &PublicKey) -> Result<(), KvError> {
        if self.copy.get(realm.as_str()).is_none_or(|peer| peer.told.as_ref() == Some(ours)) {
            return Ok(());
        }
        let told = self.change(realm, |kept| {
            let peer = kept.cloned().ok_or_else(|| KvError::Refused("the peer is gone".into()))?;
            Ok(Peer { told: Some(ours.clone()), ..peer })
        });
        told.await.map(drop)
    }

    /// Adds a peer on behalf of a user, after its card came, by which it takes what is signed by our key `ours`.
    pub(crate) async fn add(
        &self,
        card: &NameCard,
        ours: &PublicKey,
        by: &UserName,
        host: &str,
        port: u16,
    ) -> Result<(), AddRealmError> {
        let add = |kept: Option<&Peer>| {
            if kept.is_some_and(|peer| peer.added) {
                return Err(AddRealmError::Exists);
            }
            let mut peer = kept.cloned().unwrap_or_else(|| Peer::new(card));
            peer.see(card);
            if let Some(change) = peer.key_change() {
                return Err(AddRealmError::KeyChanged(change));
            }
            peer.name = card.name.clone();
            (peer.added, peer.added_by, peer.told) = (true, Some(by.clone()), Some(ours.clone()));
            (peer.host, peer.port) = (host.to_owned(), port);
            Ok(peer)
        };
        self.change(&card.realm, add).await.map(drop)
    }
}

/// Whether a host may be kept: printable and not longer than a domain name.
pub(crate) fn host_is_sane(host: &str) -> bool {
    host.len() <= HOST_BYTES_MAX && host.bytes().all(|b| b.is_ascii_graphic())
}
