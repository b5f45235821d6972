//! Lanes: for each peer one worker that carries envelopes from our outbox to its inbox, first in, first out.
//!
//! A peer that does not take them holds up its own lane and nothing else. A batch that was broken off is sent again as a
//! whole; the receiver knows by the place in the lane what it has delivered, and drops what is out of place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use antar_broker::{
    Append, AppendError, Entry, EntryId, Filter, Lease, Queue, ReadError, ReadFrom, ReadLimit, RequestError,
    Seq, Timestamp,
};
use antar_proto::envelope::{Content, Envelope, LanePlace};
use antar_proto::reply::{State, StatusEvent};
use antar_proto::{MessageId, RealmId, UserName};
use sha2::{Digest, Sha256};

use crate::clock::{backoff, now_rfc3339};
use crate::hex::hex;
use crate::peer::{CardRequest, Peer, ask};
use crate::places::Places;
use crate::shared::Shared;

/// Most envelopes, and bytes of them, that are on their way to one peer at once.
const BATCH: ReadLimit = ReadLimit { entries_max: 256, bytes_max: 1024 * 1024 };
/// How long a batch may take before another worker may take it over.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long one acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest and longest pause between tries; the lease must outlive it.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(4);
/// How often a peer is asked whether it takes envelopes, while there are some.
const CARD_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between looks at a peer that is paused. It also tells when it goes on.
const PAUSED_DELAY: Duration = Duration::from_secs(2);

/// What a lane tells `connectedrealm`. Shared by the worker and by whoever asks.
#[derive(Debug, Default)]
pub(crate) struct LaneStatus {
    last_error: Mutex<Option<String>>,
    /// Ends a pause between tries.
    pub(crate) nudge: tokio::sync::Notify,
}

impl LaneStatus {
    /// Why the last try failed; `None` if it did not.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().expect("no holder of this lock panics").clone()
    }

    fn set(&self, error: Option<String>) {
        *self.last_error.lock().expect("no holder of this lock panics") = error;
    }
}

/// Why a batch did not reach the peer.
#[derive(Debug, thiserror::Error)]
enum LaneError {
    #[error("the realm is paused")]
    PeerPaused,
    #[error("{0}")]
    Publish(AppendError),
    #[error("no acknowledgement from the peer in time")]
    Timeout,
    #[error("our own log does not answer: {0}")]
    Own(String),
}

/// Works one lane until the realm stops.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, status: Arc<LaneStatus>) {
    let mut lane = Lane { shared, peer, status, sent: Seq::ZERO, attempt: 0, card_at: None, failures: 0 };
    loop {
        match lane.open().await {
            Ok(queue) => lane.work(queue).await,
            Err(error) => lane.status.set(Some(error.to_string())),
        }
        tokio::time::sleep(RETRY_DELAY_MIN).await;
    }
}

struct Lane {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    status: Arc<LaneStatus>,
    /// The last envelope that the peer has stored.
    sent: Seq,
    /// See [`LanePlace::attempt`]: the time at which this series of tries began.
    attempt: u64,
    card_at: Option<Instant>,
    failures: u32,
}

impl Lane {
    async fn open(&mut self) -> Result<Arc<dyn Queue>, ReadError> {
        let places = &self.shared.places;
        let name = places.lane_queue(&self.peer.realm);
        let queue = self.shared.broker.queue(&name, &places.outbox(&self.peer.realm), LEASE).await?;
        self.attempt = Timestamp::now().0;
        let acked = self.shared.broker.queue_state(&name).await?.map_or(Seq::ZERO, |state| state.acked);
        self.sent = self.last_sent(acked).await?;
        Ok(queue)
    }

    /// The last envelope that was sent, when everything up to `acked` was dealt with: an entry that is no envelope was
    /// passed over.
    async fn last_sent(&self, acked: Seq) -> Result<Seq, ReadError> {
        let outbox = Filter::from(&self.shared.places.outbox(&self.peer.realm));
        let before = ReadFrom::Before(Seq(acked.0.saturating_add(1)));
        let page = self.shared.broker.read(&outbox, before, ReadLimit::entries(16)).await?;
        let sent = page.entries.iter().find(|entry| Envelope::from_bytes(&entry.body).is_ok());
        Ok(sent.map_or(acked, |entry| entry.seq))
    }

    /// Carries batches until the queue fails.
    async fn work(&mut self, queue: Arc<dyn Queue>) {
        loop {
            self.shared.wait_unpaused().await;
            let lease = match queue.next(BATCH).await {
                Ok(lease) => lease,
                Err(error) => return self.status.set(Some(error.to_string())),
            };
            if self.shared.is_paused() {
                let _ = queue.nak(&lease, Duration::ZERO).await;
                continue;
            }
            let outcome = self.carry(&lease).await;
            let settled = match outcome {
                Ok(upto) => {
                    self.failures = 0;
                    self.status.set(None);
                    let settled = queue.ack(&lease, upto).await;
                    self.shared.keep_room(&self.shared.places.outbox(&self.peer.realm)).await;
                    settled
                }
                Err(error) => {
                    self.attempt = Timestamp::now().0;
                    self.pause_after(&error, &lease).await;
                    queue.nak(&lease, Duration::ZERO).await
                }
            };
            if let Err(error) = settled {
                tracing::warn!(realm = %self.shared.places.realm(), peer = %self.peer.realm, %error, "a lane lost its lease");
                return;
            }
        }
    }

    async fn pause_after(&mut self, error: &LaneError, lease: &Lease) {
        let delay = match error {
            LaneError::PeerPaused => PAUSED_DELAY,
            _ => backoff(self.failures, RETRY_DELAY_MIN, RETRY_DELAY_MAX),
        };
        if self.failures == 0 {
            tracing::warn!(realm = %self.shared.places.realm(), peer = %self.peer.realm, %error, seq = lease.entries[0].seq.0, "a lane waits");
        }
        self.failures = self.failures.saturating_add(1);
        self.status.set(Some(error.to_string()));
        let _ = tokio::time::timeout(delay, self.status.nudge.notified()).await;
    }

    /// Publishes a batch and waits for all acknowledgements; the sequence of the last envelope.
    async fn carry(&mut self, lease: &Lease) -> Result<Seq, LaneError> {
        self.check_card().await?;
        let inbox = Places::inbox_of(&self.peer.realm);
        let mut waiting = Vec::with_capacity(lease.entries.len());
        let mut stored = StoredNews::default();
        let mut prev = self.sent;
        for entry in &lease.entries {
            if let Some(bytes) = self.address(entry, prev, &mut stored) {
                // The hash makes it one with these bytes; the time before it keeps the index of ids small.
                let id = format!("{:016x}/{}", entry.time.0, hex(&Sha256::digest(&bytes)));
                let id = EntryId::new(id).expect("hexadecimal digits are printable");
                let pending = self.shared.broker.append(Append::new(inbox.clone(), id, bytes)).await;
                waiting.push(pending.map_err(LaneError::Publish)?);
                prev = entry.seq;
            }
        }
        let last = lease.entries[lease.entries.len() - 1].seq;
        for pending in waiting {
            let ack = tokio::time::timeout(ACK_TIMEOUT, pending).await.map_err(|_| LaneError::Timeout)?;
            ack.map_err(LaneError::Publish)?;
        }
        stored.tell(&self.shared, &self.peer.realm, lease).await?;
        self.sent = prev;
        Ok(last)
    }

    /// The envelope of an outbox entry with its place in the lane; `None` for one that is none (and never was sent).
    fn address(&self, entry: &Entry, prev: Seq, stored: &mut StoredNews) -> Option<Vec<u8>> {
        let mut envelope = match Envelope::from_bytes(&entry.body) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::error!(peer = %self.peer.realm, seq = entry.seq.0, %error, "an outbox entry is not readable, it is left out");
                return None;
            }
        };
        let (epoch, attempt) = (self.peer.epoch, self.attempt);
        envelope.lane = Some(LanePlace { epoch, seq: entry.seq.0, prev: prev.0, attempt });
        if let Content::Message { from, .. } = &envelope.content {
            stored.ids.entry(from.user.clone()).or_default().push(envelope.id);
        }
        Some(envelope.to_bytes())
    }

    /// Asks the peer now and then whether it takes envelopes. One that does not answer is not asked for leave: its
    /// stream may well be there.
    async fn check_card(&mut self) -> Result<(), LaneError> {
        if self.card_at.is_some_and(|at| at.elapsed() < CARD_INTERVAL) {
            return Ok(());
        }
        let answer = ask(&self.shared.broker, &self.peer.realm, &CardRequest::Card).await;
        match answer {
            Ok(card) if card.paused => Err(LaneError::PeerPaused),
            Ok(_) | Err(RequestError::NoResponder | RequestError::Timeout | RequestError::Unavailable(_)) => {
                self.card_at = Some(Instant::now());
                Ok(())
            }
        }
    }
}

/// Who has to be told that which messages are in the peer's log.
#[derive(Default)]
struct StoredNews {
    ids: HashMap<UserName, Vec<MessageId>>,
}

impl StoredNews {
    async fn tell(self, shared: &Arc<Shared>, peer: &RealmId, lease: &Lease) -> Result<(), LaneError> {
        let ts = now_rfc3339();
        let (first, last) = (lease.entries[0].seq, lease.entries[lease.entries.len() - 1].seq);
        let mut waiting = Vec::with_capacity(self.ids.len());
        for (sender, ids) in self.ids {
            let event = StatusEvent {
                realm: peer.clone(),
                state: State::Stored,
                users: Vec::new(),
                ids,
                reason: None,
                ts: ts.clone(),
            };
            let key = format!("stored/{peer}/{first}-{last}/{sender}");
            waiting.push(
                shared
                    .append_status(&sender, &event, &key)
                    .await
                    .map_err(|e| LaneError::Own(e.to_string()))?,
            );
        }
        for pending in waiting {
            shared.finish_news(pending).await.map_err(|error| LaneError::Own(error.to_string()))?;
        }
        Ok(())
    }
}
