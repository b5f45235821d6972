//! Entries on their way to another realm: which of them go there, what marks them, and which are there already.
//!
//! Only what stands in mailboxes goes: messages and notices. What happened between realms, and what became of it, belongs to
//! the realm that it came from.

use std::collections::HashSet;

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, SharedBroker};
use antar_proto::RealmId;
use antar_realm::admin::{REPLAY_BYTES_MAX, REPLAY_ENTRIES_MAX, ReplayedEntry};
use antar_realm::traffic::{Kind, REPLAYED_HEADER, Spot};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::facts::{Facts, What};

/// What the ids of copies begin with.
const ID_PREFIX: &str = "replay";
/// What an entry takes in a request beside its body, at most.
const ENTRY_OVERHEAD_BYTES: usize = 512;
/// How many entries are looked at together for copies that are there.
const PAGE: ReadLimit = ReadLimit { entries_max: 4_096, bytes_max: 2 * 1024 * 1024 };

/// Tells one entry of a realm's log from every other, also of an earlier log of a realm of the same name.
fn fingerprint(entry: &Entry) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in [entry.subject.as_str(), &entry.seq.to_string(), &entry.time.0.to_string(), entry.id.as_str()]
    {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    first
}

/// Copies of one realm's entries that another has: eight bytes for each.
#[derive(Debug, Default)]
pub struct Known(HashSet<[u8; 8]>);

impl Known {
    /// Looks through the mailboxes of `into`.
    pub async fn find(broker: &SharedBroker, from: &RealmId, into: &RealmId) -> Result<Self, ReadError> {
        let mut known = Self::default();
        let mark = format!("{from}/");
        for filter in Kind::Mail.filters(into) {
            known.find_in(broker, &filter, &mark).await?;
        }
        Ok(known)
    }

    async fn find_in(&mut self, broker: &SharedBroker, filter: &Filter, mark: &str) -> Result<(), ReadError> {
        let mut after = Seq::ZERO;
        loop {
            let page = broker.read(filter, ReadFrom::After(after), PAGE).await?;
            for entry in &page.entries {
                let is_copy =
                    |(name, value): &(String, String)| name == REPLAYED_HEADER && value.starts_with(mark);
                if !entry.headers.iter().any(is_copy) {
                    continue;
                }
                let sum = entry.id.as_str().rsplit('/').next().unwrap_or_default();
                if let Ok(sum) = HEXLOWER.decode(sum.as_bytes())
                    && let Ok(sum) = sum.try_into()
                {
                    self.0.insert(sum);
                }
            }
            match page.entries.last() {
                Some(last) if page.more => after = last.seq,
                _ => return Ok(()),
            }
        }
    }
}

/// What became of an entry that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is part of the batch.
    Taken,
    /// It does not go to other realms.
    NotMail,
    /// It is there already.
    Known,
    /// It came from there.
    FromThere,
}

/// Collects entries into requests of bounded size.
#[derive(Debug)]
pub struct Batcher {
    into: RealmId,
    from: RealmId,
    known: Known,
    batch: Vec<ReplayedEntry>,
    bytes: usize,
}

impl Batcher {
    /// For copies from one realm into another.
    pub fn new(from: RealmId, into: RealmId, known: Known) -> Self {
        Self { into, from, known, batch: Vec::new(), bytes: 0 }
    }

    /// Adds an entry if it goes there.
    pub fn offer(&mut self, entry: &Entry) -> Offered {
        let Some(spot) = Spot::of(&entry.subject) else { return Offered::NotMail };
        let (Kind::Mail, Some(user), Some(mailbox)) = (spot.kind, spot.user, spot.beside) else {
            return Offered::NotMail;
        };
        let facts = Facts::of(entry, &spot);
        if !matches!(facts.what, What::Message | What::Notice) {
            return Offered::NotMail;
        }
        let came_from = facts.replayed.and_then(|mark| mark.split('/').next());
        if came_from == Some(self.into.as_str()) {
            return Offered::FromThere;
        }
        let sum = fingerprint(entry);
        if !self.known.0.insert(sum) {
            return Offered::Known;
        }
        let Ok(envelope) = serde_json::from_slice(&entry.body) else { return Offered::NotMail };
        self.bytes += entry.body.len() + ENTRY_OVERHEAD_BYTES;
        self.batch.push(ReplayedEntry {
            seq: entry.seq.0,
            id: format!("{ID_PREFIX}/{}/{}/{}", self.from, entry.seq, HEXLOWER.encode(&sum)),
            user: user.to_owned(),
            mailbox: mailbox.to_owned(),
            envelope,
        });
        Offered::Taken
    }

    /// Whether the batch has to go before another entry with so large a body is offered.
    pub fn is_full(&self, body_bytes: usize) -> bool {
        let bytes = self.bytes + body_bytes + ENTRY_OVERHEAD_BYTES;
        !self.batch.is_empty() && (self.batch.len() >= REPLAY_ENTRIES_MAX || bytes > REPLAY_BYTES_MAX)
    }

    /// The batch; empty afterwards.
    pub fn take(&mut self) -> Vec<ReplayedEntry> {
        self.bytes = 0;
        std::mem::take(&mut self.batch)
    }
}
