//! Lanes: for each peer one worker that carries envelopes from our outbox to its inbox, first in, first out.
//!
//! A peer that does not take them holds up its own lane and nothing else. A batch that was broken off is sent again as a
//! whole, by this worker or by that of another edge; the receiver knows by the place in the lane what it has delivered,
//! and drops what is out of place.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use antar_broker::{
    Append, AppendError, ENTRY_BODY_BYTES_MAX, Entry, EntryId, Filter, KvError, Lease, LeaseError, Queue,
    ReadError, ReadFrom, ReadLimit, RequestError, Timestamp,
};
use antar_proto::envelope::{Content, Envelope, LanePlace, bundle};
use antar_proto::reply::{State, StatusEvent};
use antar_proto::{MessageId, RealmId, UserName};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::SPANS;
use crate::card::{Refused, ask};
use crate::clock::{backoff, now_rfc3339};
use crate::edges::Waiting;
use crate::hex::hex;
use crate::hop::log_hop;
use crate::key::PublicKey;
use crate::peer::Peer;
use crate::places::Places;
use crate::rate::Pace;
use crate::recall::Place;
use crate::restored::place_of;
use crate::shared::Shared;
use crate::turn::{LEASE, Turn, hold};

/// Most envelopes, and bytes of them, that are on their way to one peer at once. A batch takes four round trips to the
/// broker, whatever its size.
const BATCH: ReadLimit = ReadLimit { entries_max: 2_048, bytes_max: 4 * 1024 * 1024 };
/// How long one acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest and longest pause between tries.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(4);
/// How often a peer is asked whether it takes envelopes, while there are some.
const CARD_INTERVAL: Duration = Duration::from_secs(1);
/// How often a lane that waits looks whether another edge carries what waits in it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between looks at a peer that is paused. It also tells when it goes on.
const PAUSED_DELAY: Duration = Duration::from_secs(2);

/// What a lane tells `connectedrealm`. Shared by the worker and by whoever asks.
#[derive(Debug, Default)]
pub(crate) struct LaneStatus {
    waiting: Mutex<Option<Waiting>>,
    /// Ends a pause between tries.
    pub(crate) nudge: tokio::sync::Notify,
}

impl LaneStatus {
    /// Why this edge's worker waits; `None` if it does not, or if another edge works the lane.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        self.waiting.lock().expect("no holder of this lock panics").clone()
    }

    /// Notes why the last try failed, if it did; whether that is news.
    fn set(&self, error: Option<(&'static str, String)>) -> bool {
        let mut waiting = self.waiting.lock().expect("no holder of this lock panics");
        if waiting.as_ref().map(|waiting| &waiting.error) == error.as_ref().map(|(_, error)| error) {
            return false;
        }
        let since = waiting.take().map_or_else(now_rfc3339, |waiting| waiting.since);
        *waiting = error.map(|(reason, error)| Waiting { since, reason: reason.into(), error });
        true
    }
}

/// The reason of a lane whose peer knows another key of this realm, for programs.
pub(crate) const NOT_TRUSTED: &str = "not-trusted";

/// Why a lane waits that has carried as much as it may in a minute.
const LIMITED: &str =
    "it may carry no more in this minute (limits.peer_messages_per_minute, limits.peer_bytes_per_minute)";

/// Why a batch did not reach the peer.
#[derive(Debug, thiserror::Error)]
enum LaneError {
    #[error("the realm is paused")]
    PeerPaused,
    #[error("{0}; `antar realm trust` says which is right")]
    KeyChanged(String),
    #[error("the realm knows another key of ours than {0}: its operators have to trust it")]
    NotTrusted(PublicKey),
    #[error("the realm cannot see our name card")]
    NoCard,
    #[error("the realm has not seen our key yet, and gives no name card")]
    NotTold,
    #[error("{0}")]
    Publish(AppendError),
    #[error("no acknowledgement from the peer in time")]
    Timeout,
    #[error("our own log does not answer: {0}")]
    Own(String),
}

/// The reason of a lane whose own broker does not answer, for programs.
const BROKER: &str = "broker";

impl LaneError {
    /// For programs; `proto-docs/metrics.md` lists them.
    fn code(&self) -> &'static str {
        match self {
            Self::PeerPaused => "peer-paused",
            Self::KeyChanged(_) => "key-changed",
            Self::NotTrusted(_) => NOT_TRUSTED,
            Self::NoCard => "no-card",
            Self::NotTold => "no-answer",
            Self::Publish(_) => "not-stored",
            Self::Timeout => "timeout",
            Self::Own(_) => BROKER,
        }
    }
}

/// Works one lane until the realm stops.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, status: Arc<LaneStatus>) {
    let name = shared.places.lane_queue(&peer.realm);
    let turn = Turn::new(shared.clone(), name.clone());
    let pace = Pace::new(shared.config.rates.lane);
    let mut lane = Lane {
        shared,
        peer,
        status,
        turn,
        sent: None,
        attempt: 0,
        card_at: None,
        asking: None,
        failures: 0,
        pace,
    };
    loop {
        let outbox = lane.shared.places.outbox(&lane.peer.realm);
        match lane.shared.broker.queue(&name, &outbox, LEASE).await {
            Ok(queue) => lane.work(queue).await,
            Err(error) => lane.tell(Some((BROKER, error.to_string()))),
        }
        tokio::time::sleep(RETRY_DELAY_MIN).await;
    }
}

struct Lane {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    status: Arc<LaneStatus>,
    turn: Turn,
    /// The place of the last envelope that the peer has stored, while it is this worker that sends.
    sent: Option<Place>,
    /// See [`LanePlace::attempt`]: the time at which this series of tries began.
    attempt: u64,
    /// When the peer's card was asked for last, if it did not say no.
    card_at: Option<Instant>,
    asking: Option<JoinHandle<Result<(), LaneError>>>,
    failures: u32,
    pace: Pace,
}

impl Lane {
    /// The last envelope that was sent before this lease, by whoever: an entry that is no envelope was passed over.
    async fn sent_before(&self, lease: &Lease) -> Result<Place, ReadError> {
        let outbox = Filter::from(&self.shared.places.outbox(&self.peer.realm));
        let before = ReadFrom::Before(lease.entries[0].seq);
        let page = self.shared.broker.read(&outbox, before, ReadLimit::entries(16)).await?;
        let sent = page.entries.iter().find(|entry| Envelope::from_bytes(&entry.body).is_ok());
        Ok(sent.map_or(Place { epoch: self.peer.epoch, seq: lease.after.0 }, |entry| self.place(entry)))
    }

    fn place(&self, entry: &Entry) -> Place {
        place_of(&entry.headers, self.peer.epoch, entry.seq)
    }

    /// Notes why the lane waits, or that it does not, and has the other edges learn of it.
    fn tell(&self, error: Option<(&'static str, String)>) {
        if self.status.set(error) {
            self.shared.activity.news.notify_one();
        }
    }

    /// Carries batches until the queue fails, or another worker is met.
    async fn work(&mut self, queue: Arc<dyn Queue>) {
        loop {
            self.shared.wait_unpaused().await;
            let lease = match self.next(&*queue).await {
                Ok(lease) => lease,
                Err(error) => return self.tell(Some((BROKER, error.to_string()))),
            };
            if self.shared.is_paused() {
                let _ = queue.nak(&lease, Duration::ZERO).await;
                continue;
            }
            if !self.turn.is_mine(&lease) {
                self.sent = None;
                self.tell(None);
                let _ = queue.nak(&lease, Duration::ZERO).await;
                tracing::info!(realm = %self.shared.places.realm(), peer = %self.peer.realm, "another edge works the lane, this one stands by");
                return self.turn.stand_by().await;
            }
            // The lease is held during the pause after a failure too: the same envelopes come next, whoever sends them.
            let settled = match hold(&*queue, &lease, self.carry_or_pause(&lease)).await {
                Some(true) => {
                    let upto = lease.entries[lease.entries.len() - 1].seq;
                    let outbox = self.shared.places.outbox(&self.peer.realm);
                    let (settled, ()) = tokio::join!(queue.ack(&lease, upto), self.shared.keep_room(&outbox));
                    self.turn.acked(upto);
                    settled
                }
                Some(false) => queue.nak(&lease, Duration::ZERO).await,
                None => Err(LeaseError::Lost),
            };
            if let Err(error) = settled {
                tracing::warn!(realm = %self.shared.places.realm(), peer = %self.peer.realm, %error, "a lane lost its lease");
                self.sent = None;
                self.turn.lost();
                return;
            }
        }
    }

    /// The next batch. Another edge may carry meanwhile what waited here: then this lane no longer waits.
    async fn next(&self, queue: &dyn Queue) -> Result<Lease, ReadError> {
        let name = self.shared.places.lane_queue(&self.peer.realm);
        let (mut next, mut acked) = (pin!(queue.next(self.pace.batch(BATCH))), None);
        while self.status.waiting().is_some() {
            // Cancel-safe: the batch is waited for on in the next turn.
            tokio::select! {
                biased;
                lease = &mut next => return lease,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            if let Ok(Some(state)) = self.shared.broker.queue_state(&name).await
                && (state.waiting == 0 || *acked.get_or_insert(state.acked) != state.acked)
            {
                self.tell(None);
            }
        }
        next.await
    }

    /// Carries a batch; after a failure pauses and is `false`.
    async fn carry_or_pause(&mut self, lease: &Lease) -> bool {
        let (realm, peer, envelopes) = (self.shared.places.realm(), &self.peer.realm, lease.entries.len());
        let span = tracing::info_span!(target: SPANS, "carry", %realm, %peer, envelopes);
        if self.failures == 0 {
            self.keep_pace(lease).await;
        }
        match self.carry(lease).instrument(span).await {
            Ok(()) => {
                self.failures = 0;
                self.tell(None);
                true
            }
            Err(error) => {
                self.sent = None;
                self.pause_after(&error, lease).await;
                false
            }
        }
    }

    /// Waits until the lane may carry so much. What failed has had its share.
    async fn keep_pace(&self, lease: &Lease) {
        let bytes = lease.entries.iter().map(|entry| entry.body.len()).sum();
        while let Err(wait) = self.pace.take(lease.entries.len(), bytes) {
            self.tell(Some(("rate-limited", LIMITED.into())));
            tokio::time::sleep(wait).await;
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
        self.shared.counts.failed(&self.peer.realm, error.code());
        self.tell(Some((error.code(), error.to_string())));
        let _ = tokio::time::timeout(delay, self.status.nudge.notified()).await;
    }

    /// Publishes a batch, waits for all acknowledgements, and tells the senders.
    async fn carry(&mut self, lease: &Lease) -> Result<(), LaneError> {
        self.check_card().await?;
        let mut prev = match self.sent.take() {
            Some(sent) => sent,
            None => {
                self.attempt = Timestamp::now().0;
                self.sent_before(lease).await.map_err(|error| LaneError::Own(error.to_string()))?
            }
        };
        let inbox = Places::inbox_of(&self.peer.realm);
        let mut waiting = Vec::with_capacity(lease.entries.len());
        let mut stored = StoredNews::default();
        let (mut times, mut envelopes) = (Vec::new(), Vec::new());
        for entry in &lease.entries {
            if let Some(bytes) = self.address(entry, prev, &mut stored) {
                envelopes.push(bytes);
                times.push(entry.time.0);
                prev = self.place(entry);
            }
        }
        // One signature and one message of the broker's for many envelopes: both cost more than all else.
        let (firsts, bodies): (Vec<usize>, Vec<Vec<u8>>) = bundle(&envelopes).into_iter().unzip();
        let times = firsts.into_iter().map(|first| times[first]);
        for ((bytes, headers), time) in self.shared.sign_all(bodies).await.into_iter().zip(times) {
            // The hash makes it one with these bytes, and nobody can guess it, whose signature is in it; the time before
            // it keeps the index of ids small.
            let hash = headers.iter().fold(Sha256::new(), |hash, (_, value)| hash.chain_update(value));
            let id = format!("{time:016x}/{}", hex(&hash.chain_update(&bytes).finalize()));
            let id = EntryId::new(id).expect("hexadecimal digits are printable");
            let append = Append { headers, ..Append::new(inbox.clone(), id, bytes) };
            waiting.push(self.shared.broker.append(append).await.map_err(LaneError::Publish)?);
        }
        for pending in waiting {
            let ack = tokio::time::timeout(ACK_TIMEOUT, pending).await.map_err(|_| LaneError::Timeout)?;
            ack.map_err(LaneError::Publish)?;
        }
        for entry in &lease.entries {
            log_hop(self.shared.places.realm(), "carried", entry.seq, &entry.body);
        }
        stored.tell(&self.shared, &self.peer.realm, lease).await?;
        self.shared.counts.carried(&self.peer.realm, lease.entries.len());
        self.sent = Some(prev);
        Ok(())
    }

    /// The envelope of an outbox entry with its place in the lane; `None` for one that is none (and never was sent).
    fn address(&self, entry: &Entry, prev: Place, stored: &mut StoredNews) -> Option<Vec<u8>> {
        let mut envelope = match Envelope::from_bytes(&entry.body) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::error!(peer = %self.peer.realm, seq = entry.seq.0, %error, "an outbox entry is not readable, it is left out");
                return None;
            }
        };
        let Place { epoch, seq } = self.place(entry);
        // The first one of an epoch follows nothing.
        let prev = if prev.epoch == epoch { prev.seq } else { 0 };
        envelope.lane = Some(LanePlace { epoch, seq, prev, attempt: self.attempt });
        let bytes = envelope.to_bytes();
        if bytes.len() > ENTRY_BODY_BYTES_MAX {
            tracing::error!(peer = %self.peer.realm, seq = entry.seq.0, "an outbox entry is too large to be carried, it is left out");
            return None;
        }
        if let Content::Message { from, .. } | Content::GroupPost { from, .. } = &envelope.content {
            stored.ids.entry(from.user.clone()).or_default().push(envelope.id);
        }
        Some(bytes)
    }

    /// Asks the peer now and then whether it takes envelopes, beside the work: what it says now holds for the next batch.
    /// At first, after it said no, and when it is known to have another key, its answer is waited for.
    async fn check_card(&mut self) -> Result<(), LaneError> {
        let (shared, realm) = (self.shared.clone(), self.peer.realm.clone());
        if shared.peers.copy.get(realm.as_str()).is_some_and(|peer| peer.key_change().is_some()) {
            (self.card_at, self.asking) = (None, None);
        }
        let asking = async move { ask_card(&shared, &realm).await };
        let answer = match self.asking.take() {
            Some(asked) if asked.is_finished() => asked.await.unwrap_or(Ok(())),
            Some(asked) => {
                self.asking = Some(asked);
                Ok(())
            }
            None if self.card_at.is_none() => asking.await,
            None => {
                if self.card_at.is_some_and(|at| at.elapsed() >= CARD_INTERVAL) {
                    self.card_at = Some(Instant::now());
                    self.asking = Some(self.shared.tasks.spawn(asking));
                }
                return Ok(());
            }
        };
        self.card_at = answer.is_ok().then(|| self.card_at.unwrap_or_else(Instant::now));
        answer
    }
}

/// Asks a peer whether it takes envelopes. One that does not answer is not asked for leave: its stream may well be there.
/// But it must have agreed to our key once, or it would put aside what comes.
async fn ask_card(shared: &Shared, realm: &RealmId) -> Result<(), LaneError> {
    let ours = shared.key.public();
    let own = |error: KvError| LaneError::Own(error.to_string());
    let asked = Timestamp::now();
    match ask(&shared.broker, realm, &shared.who_asks()).await {
        Ok(card) => {
            if let Some(ahead_s) = card.ahead_s(asked, Timestamp::now()) {
                shared.counts.clock(realm, ahead_s);
            }
            let peer = shared.peers.note(&card).await.map_err(own)?;
            if let Some(change) = peer.key_change() {
                return Err(LaneError::KeyChanged(change));
            }
            match card.refused {
                Some(Refused::KeyChanged) => return Err(LaneError::NotTrusted(ours.clone())),
                Some(Refused::NoCard) => return Err(LaneError::NoCard),
                // It says so with each envelope, and their senders are told.
                Some(Refused::RealmBlocked | Refused::Unknown) => {}
                None => shared.peers.tell(realm, ours).await.map_err(own)?,
            }
            if card.paused {
                return Err(LaneError::PeerPaused);
            }
        }
        Err(RequestError::NoResponder | RequestError::Timeout | RequestError::Unavailable(_)) => {
            let peer = shared.peers.copy.get(realm.as_str());
            let change = peer.as_ref().and_then(|peer| peer.key_change());
            if let Some(change) = change {
                return Err(LaneError::KeyChanged(change));
            }
            if peer.is_none_or(|peer| peer.told.as_ref() != Some(ours) && !peer.blocked) {
                return Err(LaneError::NotTold);
            }
        }
    }
    Ok(())
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
            shared.finish_news(pending.await).await.map_err(|error| LaneError::Own(error.to_string()))?;
        }
        Ok(())
    }
}
