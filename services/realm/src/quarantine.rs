//! Realms that nobody here has added: with `federation.quarantine`, what their users write is held until an operator has looked.
//!
//! What is held is a dead letter with a code of its own, so that it is listed, delivered after all and given up as others are
//! (`letters`, `redrive`); its sender is told nothing meanwhile. Of each realm so many envelopes are held at the most, and
//! what comes after them is refused. Owns: who is in quarantine, and that bound. Must not know how a letter is kept.

use std::collections::HashMap;
use std::sync::Mutex;

use antar_broker::{Filter, ReadError, ReadFrom, ReadLimit};
use antar_proto::RealmId;

use crate::admin::AdminReply;
use crate::dead::Dead;
use crate::event::RealmEvent;
use crate::letter::Letter;
use crate::letters::operator;
use crate::peer::Peer;
use crate::shared::Shared;

/// Most envelopes of one realm that are held, those counted that were given up and are still kept.
pub(crate) const HELD_MAX: usize = 1_000;
/// How dead letters are read to count them, and how many bytes of them at the most.
const COUNT_PAGE: ReadLimit = ReadLimit { entries_max: 500, bytes_max: 4 * 1024 * 1024 };
const COUNT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many envelopes of each realm are held, as far as this edge has counted.
#[derive(Default)]
pub(crate) struct Held(Mutex<HashMap<RealmId, usize>>);

impl Held {
    fn get(&self, realm: &RealmId) -> Option<usize> {
        self.0.lock().expect("no holder of this lock panics").get(realm).copied()
    }

    fn set(&self, realm: &RealmId, count: usize) {
        self.0.lock().expect("no holder of this lock panics").insert(realm.clone(), count);
    }

    /// Another edge may have held some since.
    pub(crate) fn forget(&self) {
        self.0.lock().expect("no holder of this lock panics").clear();
    }
}

impl Shared {
    /// Whether what a peer's users write is held.
    pub(crate) fn is_quarantined(&self, peer: &Peer) -> bool {
        self.config.quarantine && !peer.added
    }

    /// Whether one more envelope of a realm may be held; if so, it counts.
    pub(crate) async fn hold(&self, realm: &RealmId) -> Result<bool, ReadError> {
        let held = match self.held.get(realm) {
            Some(held) => held,
            None => self.count_held(realm).await?,
        };
        self.held.set(realm, held.saturating_add(1).min(HELD_MAX));
        Ok(held < HELD_MAX)
    }

    async fn count_held(&self, realm: &RealmId) -> Result<usize, ReadError> {
        let (filter, mut from) = (Filter::from(&self.places.dead()), ReadFrom::End);
        let (mut count, mut bytes) = (0, 0);
        loop {
            let page = self.broker.read(&filter, from, COUNT_PAGE).await?;
            for letter in page.entries.iter().filter_map(Letter::of) {
                let is_held = letter.code == Dead::QUARANTINED
                    && letter.origin.as_ref().is_some_and(|(origin, _)| origin == realm);
                count += if is_held { letter.envelopes().len() } else { 0 };
            }
            bytes += page.entries.iter().map(|entry| entry.body.len()).sum::<usize>();
            match page.entries.last() {
                Some(last) if page.more && count < HELD_MAX && bytes < COUNT_BYTES_MAX => {
                    from = ReadFrom::Before(last.seq);
                }
                _ => return Ok(count),
            }
        }
    }

    /// Lets a realm out of quarantine, as if a user had added it. To repeat it changes nothing.
    pub(crate) async fn admit_realm(&self, realm: &RealmId, by: &str) -> Result<(), AdminReply> {
        let by = operator(by)?;
        let change = |kept: Option<&Peer>| {
            let peer = kept.cloned().ok_or_else(|| crate::operate::unknown_realm(realm))?;
            Ok::<_, AdminReply>(Peer { added: true, ..peer })
        };
        self.peers.change(realm, change).await?;
        tracing::info!(realm = %self.places.realm(), peer = %realm, by, "an operator let a realm out of quarantine");
        self.record(RealmEvent::RealmAdmitted { realm: realm.clone(), by: by.to_owned() }).await;
        Ok(())
    }
}
