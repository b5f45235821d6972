//! Peers: the realms this one exchanges messages with, and their name cards.

use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Expect, KvError, RequestError, SharedBroker, Timestamp};
use antar_proto::{RealmId, UserName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::now_rfc3339;
use crate::copy::KvCopy;
use crate::places::Places;

/// How long `addrealm` waits for a name card (`protocol.md`).
pub(crate) const CARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest HOST that is kept, in bytes: that of a domain name.
const HOST_BYTES_MAX: usize = 253;
/// Most peers of a realm.
const PEERS_MAX: usize = 1_000;

/// One peer, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
}

/// What a realm says of itself on `realm.<id>.info`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NameCard {
    pub(crate) realm: RealmId,
    pub(crate) name: String,
    pub(crate) version: String,
    /// It takes no envelopes at the moment; lanes to it wait.
    #[serde(default)]
    pub(crate) paused: bool,
}

/// What is asked there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum CardRequest {
    /// Only the card.
    Card,
    /// The card; and the asking realm has added this one, so let it send.
    Hello {
        /// The asking realm.
        from: RealmId,
        /// Its name.
        name: String,
    },
    /// The asking realm takes envelopes again.
    Resumed {
        /// The asking realm.
        from: RealmId,
    },
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
    /// The host is none, or there are too many peers.
    #[error("{0}")]
    Refused(String),
    /// The broker does not answer.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
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

    /// Whether messages can be exchanged with it.
    pub(crate) fn is_known(&self, realm: &RealmId) -> bool {
        self.copy.get(realm.as_str()).is_some()
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.copy.all().into_iter().map(|(_, peer)| peer).collect();
        peers.sort_by(|a, b| a.realm.cmp(&b.realm));
        peers
    }

    /// Takes note of a peer that has added us.
    pub(crate) async fn learn(&self, realm: RealmId, name: String) -> Result<(), KvError> {
        if self.is_known(&realm) {
            return Ok(());
        }
        if self.copy.len() >= PEERS_MAX {
            return Err(KvError::Refused("this realm has too many peers".into()));
        }
        let peer = Peer {
            realm: realm.clone(),
            name,
            added: false,
            added_by: None,
            host: String::new(),
            port: 0,
            since: now_rfc3339(),
            epoch: Timestamp::now().0,
        };
        match self.copy.put(realm.as_str(), &peer, Expect::Absent, None).await {
            Ok(()) | Err(KvError::Conflict) => {}
            Err(error) => return Err(error),
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Adds a peer on behalf of a user, after its card came.
    pub(crate) async fn add(
        &self,
        card: NameCard,
        by: &UserName,
        host: &str,
        port: u16,
    ) -> Result<(), AddRealmError> {
        let kept = self.copy.get_with_revision(card.realm.as_str());
        if kept.as_ref().is_some_and(|(peer, _)| peer.added) {
            return Err(AddRealmError::Exists);
        }
        if self.copy.len() >= PEERS_MAX {
            return Err(AddRealmError::Refused("this realm has too many peers".into()));
        }
        let peer = Peer {
            name: card.name,
            added: true,
            added_by: Some(by.clone()),
            host: host.into(),
            port,
            since: kept.as_ref().map_or_else(now_rfc3339, |(peer, _)| peer.since.clone()),
            epoch: kept.as_ref().map_or_else(|| Timestamp::now().0, |(peer, _)| peer.epoch),
            realm: card.realm,
        };
        let expect = kept.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
        let put = self.copy.put(peer.realm.as_str(), &peer, expect, None).await;
        self.changed.notify_one();
        match put {
            Ok(()) => Ok(()),
            // Somebody else has added it, or it has just added us: the same request tells.
            Err(KvError::Conflict) => {
                Err(AddRealmError::Unavailable("the realm was changed by somebody else".into()))
            }
            Err(error) => Err(AddRealmError::Unavailable(error.to_string())),
        }
    }
}

/// Whether a host may be kept: printable and not longer than a domain name.
pub(crate) fn host_is_sane(host: &str) -> bool {
    host.len() <= HOST_BYTES_MAX && host.bytes().all(|b| b.is_ascii_graphic())
}

/// Asks a realm for its card.
pub(crate) async fn ask(
    broker: &SharedBroker,
    realm: &RealmId,
    request: &CardRequest,
) -> Result<NameCard, RequestError> {
    let body = serde_json::to_vec(request).map_err(|error| RequestError::Unavailable(error.to_string()))?;
    let reply = broker.request(&Places::info_of(realm), Bytes::from(body), CARD_TIMEOUT).await?;
    let card: NameCard =
        serde_json::from_slice(&reply).map_err(|error| RequestError::Unavailable(error.to_string()))?;
    if card.realm == *realm { Ok(card) } else { Err(RequestError::NoResponder) }
}
