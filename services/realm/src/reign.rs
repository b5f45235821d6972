//! The reign of a delivery worker: from its fence in the log to its first failure. What it knows by heart is right only
//! because nobody else can append meanwhile.
//!
//! A fence is an entry on a subject of its own in the stream. Every append demands that it be the last one there. Whoever
//! takes the work over appends the next one: from then on the worker before can append nothing, however late it notices.
//! (Comparing and setting each mailbox would do the same, for a round trip each; a fence costs none.)
//!
//! Each worker has one fence, and one in either stream for each realm from which it delivers. The worker of `inbox` and
//! that of `inbox.<peer>` may both get envelopes of the same realm: then they take that realm from each other, and
//! nothing else. Each of them looks again at what the other did; see [`waits_elsewhere`] for who goes first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use antar_broker::{
    Append, AppendError, Entry, EntryId, Expect, ExpectLast, Filter, KvEntry, KvError, ReadError, ReadFrom,
    ReadLimit, Revision, Seq, Subject,
};
use antar_proto::RealmId;
use antar_proto::envelope::Envelope;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::dead::Claim;
use crate::delivery::DeliveryError;
use crate::places::{LANES, Source};
use crate::recall::{Place, Recalled};
use crate::recent::{Print, Recent, Seen};
use crate::shared::Shared;

/// How many envelopes of another inbox are looked at to find the first one of a realm.
const OTHERS: ReadLimit = ReadLimit { entries_max: 2_048, bytes_max: 4 * 1024 * 1024 };

/// A worker's right to append, and what it knows.
pub(crate) struct Reign {
    /// The worker's own, in the stream of outboxes and dead letters.
    pub(crate) fence: ExpectLast,
    lanes: HashMap<RealmId, Lane>,
}

/// How far a peer's lane was delivered, as it is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) place: Place,
    /// [`Peer::trusted_at`](crate::peer::Peer::trusted_at) at that time.
    #[serde(default)]
    pub(crate) trusted_at: u64,
}

/// A peer's lane.
pub(crate) struct Lane {
    pub(crate) kept: Kept,
    revision: Option<Revision>,
    /// What the worker before did beyond that.
    pub(crate) recalled: Recalled,
    recent: Mutex<Recent>,
    /// Its fences, in the stream of mailboxes and in that of outboxes.
    mail: ExpectLast,
    log: ExpectLast,
}

/// An envelope that was proven is looked at only after [`Reign::meet`].
const MET: &str = "a realm is met before anything is delivered from it";

impl Reign {
    /// Fences off whoever worked there before.
    pub(crate) async fn begin(shared: &Shared, source: &Source) -> Result<Self, DeliveryError> {
        let fence = fence(shared, source.fence.clone()).await?;
        Ok(Self { fence, lanes: HashMap::new() })
    }

    /// Whether nobody else has begun to work there.
    pub(crate) async fn stands(&self, shared: &Shared) -> Result<bool, ReadError> {
        Ok(shared.broker.last(&self.fence.subject).await? == self.fence.seq)
    }

    /// What appends to mailboxes demand that come from this realm.
    pub(crate) fn mail(&self, origin: &RealmId) -> &ExpectLast {
        &self.lanes.get(origin).expect(MET).mail
    }

    /// And those to its outbox.
    pub(crate) fn log(&self, origin: &RealmId) -> &ExpectLast {
        &self.lanes.get(origin).expect(MET).log
    }

    /// By what a message is recognised; `None` for what is no message.
    pub(crate) fn print(&self, envelope: &Envelope) -> Option<Print> {
        self.recent(&envelope.origin).print(envelope)
    }

    /// What is known of a message of this realm, which is known from then on.
    pub(crate) fn see(&self, origin: &RealmId, print: Print) -> Seen {
        self.recent(origin).see(print)
    }

    fn recent(&self, origin: &RealmId) -> MutexGuard<'_, Recent> {
        self.lanes.get(origin).expect(MET).recent.lock().expect("no holder of this lock panics")
    }

    /// How far a lane was delivered; nothing if it was not met yet.
    pub(crate) fn lane(&self, origin: &RealmId) -> Option<&Lane> {
        self.lanes.get(origin)
    }

    /// Fences off whoever has delivered from this realm before, and reads how far. `entry` is the first envelope that is
    /// to be delivered now. It is `false`, and nobody is fenced off, if older ones wait on the other inbox.
    pub(crate) async fn meet(
        &mut self,
        shared: &Shared,
        origin: &RealmId,
        entry: &Entry,
        source: &Source,
    ) -> Result<bool, DeliveryError> {
        if self.lanes.contains_key(origin) {
            return Ok(true);
        }
        if entry.seq > waits_elsewhere(shared, origin, source).await? {
            return Ok(false);
        }
        let (mail, log) = tokio::try_join!(
            fence(shared, shared.places.mail_fence(origin)),
            fence(shared, shared.places.log_fence(origin))
        )?;
        let (kept, revision) = match kept_of(shared, origin).await? {
            Some(entry) => {
                let kept = serde_json::from_slice(&entry.value).map_err(|error| {
                    KvError::Unavailable(format!("the place in the lane of {origin}: {error}"))
                })?;
                (kept, Some(entry.revision))
            }
            None => (Kept::default(), None),
        };
        let (recalled, recent) =
            tokio::try_join!(shared.recall(origin, kept.place, entry.time), Recent::of(shared, origin))?;
        let recent = Mutex::new(recent);
        self.lanes.insert(origin.clone(), Lane { kept, revision, recalled, recent, mail, log });
        Ok(true)
    }

    /// Before which sequence a gap of this realm's is one; [`DeliveryError::Moved`] if the worker of its other inbox has
    /// delivered what this one does not know of.
    pub(crate) async fn settled(
        &self,
        shared: &Shared,
        origin: &RealmId,
        source: &Source,
    ) -> Result<Seq, DeliveryError> {
        let waits = waits_elsewhere(shared, origin, source).await?;
        // Last, so that whatever was acknowledged above is in it.
        let now = kept_of(shared, origin).await?.map(|entry| entry.revision);
        match self.lanes.get(origin) {
            Some(lane) if lane.revision == now => Ok(waits),
            _ => Err(DeliveryError::Moved),
        }
    }

    /// Keeps how far lanes were delivered. Whoever was replaced changes nothing.
    pub(crate) async fn keep(
        &mut self,
        shared: &Shared,
        kept: HashMap<RealmId, Kept>,
    ) -> Result<(), DeliveryError> {
        let bucket = shared.places.bucket(LANES);
        let writes = kept.into_iter().filter_map(|(origin, kept)| {
            let expect = self.lanes.get(&origin)?.revision.map_or(Expect::Absent, Expect::Revision);
            let bytes = serde_json::to_vec(&kept).expect("a place has nothing in it that can fail");
            let bucket = &bucket;
            Some(async move {
                let put = shared.broker.kv_put(bucket, origin.as_str(), Bytes::from(bytes), expect, None);
                put.await.map(|revision| (origin, kept, revision))
            })
        });
        for (origin, kept, revision) in futures_util::future::try_join_all(writes).await? {
            if let Some(lane) = self.lanes.get_mut(&origin) {
                (lane.kept, lane.revision) = (kept, Some(revision));
            }
        }
        Ok(())
    }
}

/// The first envelope of a realm that waits on the other of its two inboxes, or a sequence before that if many do. What is
/// missing in its lane before a later one may be there. So of two workers the one with the older envelope goes first, and
/// never do both wait.
async fn waits_elsewhere(shared: &Shared, origin: &RealmId, source: &Source) -> Result<Seq, ReadError> {
    let other = shared.places.source(source.peer.is_none().then_some(origin));
    let state = shared.broker.queue_state(&other.queue).await?;
    let acked = ReadFrom::After(state.map_or(Seq::ZERO, |state| state.acked));
    let page = shared.broker.read(&Filter::from(&other.inbox), acked, OTHERS).await?;
    // All envelopes of an entry are of one realm.
    let is_its = |body: &[u8]| Claim::of_first(body).is_some_and(|claim| claim.origin == *origin);
    let first = page.entries.iter().find(|entry| is_its(&entry.body));
    let first = first.or_else(|| page.entries.last().filter(|_| page.more));
    Ok(first.map_or(Seq(u64::MAX), |first| first.seq))
}

async fn kept_of(shared: &Shared, origin: &RealmId) -> Result<Option<KvEntry>, KvError> {
    shared.broker.kv_get(&shared.places.bucket(LANES), origin.as_str()).await
}

pub(crate) async fn fence(shared: &Shared, subject: Subject) -> Result<ExpectLast, DeliveryError> {
    let append = Append::new(subject.clone(), EntryId::unique(), Bytes::new());
    let appended = match shared.broker.append(append).await?.await {
        Err(AppendError::Full(_)) => {
            let last = shared.broker.last(&subject).await?;
            shared.broker.trim(&subject, last).await?;
            return Err(AppendError::NotStored("the subject of a fence was full".into()).into());
        }
        appended => appended?,
    };
    // Those before it are of no more use.
    let before = Seq(appended.seq.0.saturating_sub(1));
    if let Err(error) = shared.broker.trim(&subject, before).await {
        tracing::warn!(%subject, %error, "old fences were not removed this time");
    }
    Ok(ExpectLast { subject, seq: appended.seq })
}
