//! Delivery: one worker on our inbox that puts other realms' envelopes into mailboxes and sends receipts.
//!
//! Every step is idempotent, so a worker that dies in the middle of a batch costs nothing: the batch comes again, what
//! was appended is recognised by its id, and what was delivered is recognised by its place in the peer's lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{
    Append, AppendError, Appended, Entry, EntryId, Expect, KvError, Lease, PendingAppend, Queue, ReadError,
    ReadFrom, ReadLimit, Seq, Subject,
};
use antar_proto::command::RECEIVERS_MAX;
use antar_proto::envelope::{Content, Envelope, LanePlace, Outcome};
use antar_proto::reply::{State, StatusEvent};
use antar_proto::{Address, ErrorCode, MessageId, RealmId, UserName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::{backoff, now_rfc3339};
use crate::copy::KvCopy;
use crate::dead::{Claim, Dead};
use crate::mail::envelope;
use crate::shared::Shared;

/// Most envelopes, and bytes of them, that are worked on at once.
const BATCH: ReadLimit = ReadLimit { entries_max: 256, bytes_max: 1024 * 1024 };
/// How long a batch may take before another worker may take it over.
const LEASE: Duration = Duration::from_secs(10);
/// Shortest and longest pause after a failure.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// Most users, and outcomes, that one receipt names: with 200 bytes for each it stays below 0.5 MiB.
const RECEIPT_USERS_MAX: usize = 2_048;

/// How far a peer's lane was delivered, as it is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LanePosition {
    epoch: u64,
    seq: u64,
}

/// Why a batch has to be tried again.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("{0}")]
    Kv(#[from] KvError),
    #[error("{0}")]
    Read(#[from] ReadError),
}

/// Works on the inbox until the realm stops.
pub(crate) async fn run(shared: Arc<Shared>, positions: KvCopy<LanePosition>) {
    let mut worker = Delivery { shared, positions, failures: 0 };
    loop {
        let name = worker.shared.places.delivery_queue();
        match worker.shared.broker.queue(&name, &worker.shared.places.inbox(), LEASE).await {
            Ok(queue) => worker.work(queue).await,
            Err(error) => {
                tracing::warn!(realm = %worker.shared.places.realm(), %error, "delivery waits for the broker")
            }
        }
        tokio::time::sleep(RETRY_DELAY_MIN).await;
    }
}

struct Delivery {
    shared: Arc<Shared>,
    positions: KvCopy<LanePosition>,
    failures: u32,
}

/// What a batch has led to so far.
#[derive(Default)]
struct Batch {
    positions: HashMap<RealmId, LanePosition>,
    receipts: HashMap<RealmId, Vec<Outcome>>,
    waiting: Vec<Waiting>,
    plain: Vec<PendingAppend>,
}

/// A message that is on its way into mailboxes.
struct Waiting {
    pending: PendingAppend,
    subjects: Vec<Subject>,
    id: EntryId,
    entry: Arc<Entry>,
    origin: RealmId,
    outcome: Outcome,
}

impl Delivery {
    /// Works on batches until the queue fails.
    async fn work(&mut self, queue: Arc<dyn Queue>) {
        loop {
            self.shared.wait_unpaused().await;
            let lease = match queue.next(BATCH).await {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::warn!(realm = %self.shared.places.realm(), %error, "delivery cannot read the inbox");
                    return;
                }
            };
            if self.shared.is_paused() {
                let _ = queue.nak(&lease, Duration::ZERO).await;
                continue;
            }
            let settled = match self.deliver(&lease).await {
                Ok(()) => {
                    self.failures = 0;
                    let settled = queue.ack(&lease, lease.entries[lease.entries.len() - 1].seq).await;
                    self.shared.keep_room(&self.shared.places.inbox()).await;
                    settled
                }
                Err(error) => {
                    let delay = backoff(self.failures, RETRY_DELAY_MIN, RETRY_DELAY_MAX);
                    self.failures = self.failures.saturating_add(1);
                    tracing::warn!(realm = %self.shared.places.realm(), seq = lease.entries[0].seq.0, %error, "delivery is tried again");
                    queue.nak(&lease, delay).await
                }
            };
            if let Err(error) = settled {
                tracing::warn!(realm = %self.shared.places.realm(), %error, "delivery lost its lease");
                return;
            }
        }
    }

    async fn deliver(&mut self, lease: &Lease) -> Result<(), DeliveryError> {
        let mut batch = Batch::default();
        for entry in &lease.entries {
            if let Err(dead) = self.one(entry, &mut batch).await? {
                self.bury(entry, &dead, &mut batch).await?;
            }
        }
        self.finish_messages(&mut batch).await?;
        self.send_receipts(lease, &mut batch).await?;
        for pending in batch.plain {
            self.shared.finish_news(pending).await?;
        }
        for (origin, position) in batch.positions {
            self.positions.put(origin.as_str(), &position, Expect::Any, None).await?;
        }
        Ok(())
    }

    /// Starts the delivery of one envelope.
    async fn one(&self, entry: &Arc<Entry>, batch: &mut Batch) -> Result<Result<(), Dead>, DeliveryError> {
        let envelope = match self.admit(entry, batch) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ok(Ok(())),
            Err(dead) => return Ok(Err(dead)),
        };
        match envelope.content {
            Content::Message { from, .. } if from.realm != envelope.origin => {
                return Ok(Err(Dead::ForeignSender { from, origin: envelope.origin }));
            }
            Content::Message { to, .. } if to.len() > RECEIVERS_MAX => {
                return Ok(Err(Dead::TooManyReceivers));
            }
            Content::Message { from, to, group, .. } => {
                return self.message(entry, envelope.origin, envelope.id, from, to, group, batch).await;
            }
            Content::Receipt { results } => {
                for (at, outcome) in results.into_iter().enumerate() {
                    self.receipt(&envelope.origin, envelope.id, at, outcome, batch).await?;
                }
            }
            Content::Notice { .. } => return Ok(Err(Dead::Kind)),
        }
        Ok(Ok(()))
    }

    /// Checks where an envelope comes from and whether it is next in its lane; `None` for one delivered before. One
    /// that is next takes its place even if it is then put aside: those after it are not to blame.
    fn admit(&self, entry: &Entry, batch: &mut Batch) -> Result<Option<Envelope>, Dead> {
        let parsed = Envelope::from_bytes(&entry.body);
        let Some(claim) = Claim::of(&entry.body) else {
            return parsed.map(Some).map_err(Dead::from);
        };
        if claim.dest.as_ref() != Some(self.shared.places.realm()) {
            return Err(Dead::WrongRealm(claim.dest));
        }
        if !self.shared.peers.is_known(&claim.origin) {
            return Err(Dead::UnknownOrigin(claim.origin));
        }
        let Some(LanePlace { epoch, seq, prev, .. }) = claim.lane else {
            return Err(parsed.err().map_or(Dead::NoLane, Dead::from));
        };
        let kept =
            || self.positions.get(claim.origin.as_str()).map_or_else(LanePosition::default, |kept| *kept);
        let last = batch.positions.get(&claim.origin).copied().unwrap_or_else(kept);
        if (epoch, seq) <= (last.epoch, last.seq) {
            return Ok(None);
        }
        if epoch == last.epoch && prev != last.seq {
            return Err(Dead::Gap { prev, last: last.seq });
        }
        batch.positions.insert(claim.origin, LanePosition { epoch, seq });
        Ok(Some(parsed?))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one envelope, taken apart once")]
    async fn message(
        &self,
        entry: &Arc<Entry>,
        origin: RealmId,
        id: MessageId,
        from: Address,
        to: Vec<UserName>,
        group: bool,
        batch: &mut Batch,
    ) -> Result<Result<(), Dead>, DeliveryError> {
        let mut to = to;
        to.sort();
        to.dedup();
        let (users, nobody): (Vec<_>, Vec<_>) =
            to.into_iter().partition(|user| self.shared.accounts.get(user).is_some());
        let outcome = |users, state, reason: Option<ErrorCode>| Outcome {
            id,
            sender: from.user.clone(),
            users,
            state,
            reason: reason.map(|code| code.as_str().into()),
            group,
        };
        let receipts = batch.receipts.entry(origin.clone()).or_default();
        if !nobody.is_empty() {
            receipts.push(outcome(nobody, State::Failed, Some(ErrorCode::NoSuchUser)));
        }
        if users.is_empty() {
            return Ok(Ok(()));
        }
        let subjects: Vec<Subject> =
            users.iter().map(|user| self.shared.places.mail_realm(user, &origin)).collect();
        self.shared.watch_room(&subjects);
        let entry_id = EntryId::new(format!("{}/{from}", id.0.simple()))
            .expect("a UUID and an address are printable and short");
        let append = Append {
            subjects: subjects.clone(),
            id: entry_id.clone(),
            headers: Vec::new(),
            body: entry.body.clone(),
            expect_last: None,
            copies: 0,
        };
        let pending = match self.shared.broker.append(append).await {
            Ok(pending) => pending,
            Err(AppendError::Refused(why)) => return Ok(Err(Dead::Refused(why))),
            Err(error) => return Err(error.into()),
        };
        let outcome = outcome(users, State::Delivered, None);
        batch.waiting.push(Waiting {
            pending,
            subjects,
            id: entry_id,
            entry: entry.clone(),
            origin,
            outcome,
        });
        Ok(Ok(()))
    }

    /// Waits for the mailboxes and notes the receipts.
    async fn finish_messages(&self, batch: &mut Batch) -> Result<(), DeliveryError> {
        for mut waiting in std::mem::take(&mut batch.waiting) {
            let mut appended = match waiting.pending.await {
                Ok(appended) => appended,
                Err(AppendError::Full(_)) => {
                    let full = waiting.subjects.clone();
                    Appended { seq: Seq::ZERO, duplicate: false, full }
                }
                Err(AppendError::Refused(why)) => {
                    self.bury(&waiting.entry, &Dead::Refused(why), batch).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if appended.duplicate {
                // The first time told who got nothing; it is found out again.
                for subject in &waiting.subjects {
                    let kept = self.shared.entry_of(subject, appended.seq, &waiting.id).await?;
                    if kept.is_none() && self.shared.has_older(subject, appended.seq).await? {
                        appended.full.push(subject.clone());
                    }
                }
            }
            let is_full = |user: &UserName| {
                appended.full.contains(&self.shared.places.mail_realm(user, &waiting.origin))
            };
            let full: Vec<UserName> = waiting.outcome.users.extract_if(.., |user| is_full(user)).collect();
            if appended.duplicate && !self.is_same(&waiting.subjects[0], appended.seq, &waiting.entry).await {
                self.bury(&waiting.entry, &Dead::IdReused, batch).await?;
                continue;
            }
            let receipts = batch.receipts.entry(waiting.origin).or_default();
            if !full.is_empty() {
                let reason = Some(ErrorCode::MailboxFull.as_str().into());
                receipts.push(Outcome {
                    users: full,
                    state: State::Failed,
                    reason,
                    ..waiting.outcome.clone()
                });
            }
            if !waiting.outcome.users.is_empty() {
                receipts.push(waiting.outcome);
            }
        }
        Ok(())
    }

    /// Whether the entry that a duplicate was taken for came from the same envelope. One that was trimmed counts as
    /// the same: it was read.
    async fn is_same(&self, subject: &Subject, seq: Seq, entry: &Entry) -> bool {
        let page = self
            .shared
            .broker
            .read(&subject.into(), ReadFrom::After(Seq(seq.0 - 1)), ReadLimit::entries(1))
            .await;
        let Some(kept) =
            page.ok().and_then(|page| page.entries.into_iter().next()).filter(|kept| kept.seq == seq)
        else {
            return true;
        };
        let content = |body: &[u8]| Envelope::from_bytes(body).map(|envelope| envelope.content);
        content(&kept.body) == content(&entry.body)
    }

    /// One receipt envelope for each origin of the batch, or several if it says much.
    async fn send_receipts(&self, lease: &Lease, batch: &mut Batch) -> Result<(), DeliveryError> {
        let (first, last) = (lease.entries[0].seq, lease.entries[lease.entries.len() - 1].seq);
        for (origin, results) in std::mem::take(&mut batch.receipts) {
            for (at, results) in parts(results).into_iter().enumerate() {
                let key = format!("receipt/{origin}/{first}-{last}/{at}");
                batch.plain.push(self.shared.append_receipt(&origin, results, &key).await?);
            }
        }
        Ok(())
    }

    /// What another realm says became of a message of ours.
    async fn receipt(
        &self,
        origin: &RealmId,
        receipt: MessageId,
        at: usize,
        outcome: Outcome,
        batch: &mut Batch,
    ) -> Result<(), DeliveryError> {
        if self.shared.accounts.get(&outcome.sender).is_none() {
            return Ok(());
        }
        let key = format!("{}/{origin}/{at}", receipt.0.simple());
        let Outcome { id, sender, mut users, state, reason, group } = outcome;
        let event = StatusEvent {
            realm: origin.clone(),
            state,
            users: users.clone(),
            ids: vec![id],
            reason: reason.clone(),
            ts: now_rfc3339(),
        };
        batch.plain.push(self.shared.append_status(&sender, &event, &key).await?);
        if state == State::Failed && group {
            // The name stands for a user of each realm; who got a copy here is not missing.
            users.retain(|user| self.shared.accounts.get(user).is_none());
        }
        if state == State::Failed && !(group && users.is_empty()) {
            let notice = self.notice(origin, &sender, id, &users, reason.as_deref());
            let subject = self.shared.places.mail_realm(&sender, origin);
            let id =
                EntryId::new(format!("{key}/notice")).expect("a UUID and a realm id are printable and short");
            batch.plain.push(self.shared.broker.append(Append::new(subject, id, notice)).await?);
        }
        Ok(())
    }

    fn notice(
        &self,
        origin: &RealmId,
        to: &UserName,
        about: MessageId,
        users: &[UserName],
        reason: Option<&str>,
    ) -> Bytes {
        let why = reason.unwrap_or("unknown");
        let why = ErrorCode::from_wire(why)
            .map_or_else(|| format!("Pesan Tidak Terkirim ({why})"), |code| code.message().into());
        let names: Vec<&str> = users.iter().map(UserName::as_str).collect();
        let text = if names.is_empty() { why } else { format!("{why}: {}", names.join(", ")) };
        let content = Content::Notice { to: to.clone(), about, text };
        envelope(MessageId::fresh(), origin, self.shared.places.realm(), content).to_bytes().into()
    }

    /// Puts an envelope aside that cannot be delivered, and answers its realm if that can be told.
    async fn bury(&self, entry: &Entry, dead: &Dead, batch: &mut Batch) -> Result<(), DeliveryError> {
        tracing::error!(realm = %self.shared.places.realm(), seq = entry.seq.0, reason = ?dead.to_string(), "an envelope is put aside");
        let id = EntryId::new(format!("dead/{}", entry.seq)).expect("a number is printable");
        let append = Append::new(self.shared.places.dead(), id, dead.letter(entry));
        batch.plain.push(self.shared.broker.append(append).await?);
        if matches!(dead, Dead::Gap { .. }) {
            // It may be what is left of a batch that its lane sends again as a whole.
            return Ok(());
        }
        let Some(Claim { origin, id, from: Some(from), .. }) = Claim::of(&entry.body) else { return Ok(()) };
        if self.shared.peers.is_known(&origin) && from.realm == origin {
            let reason = Some(dead.code().into());
            let outcome = Outcome {
                id,
                sender: from.user,
                users: Vec::new(),
                state: State::Failed,
                reason,
                group: false,
            };
            batch.receipts.entry(origin).or_default().push(outcome);
        }
        Ok(())
    }
}

/// Cuts the outcomes of a batch into receipts of a size that fits into an entry.
fn parts(results: Vec<Outcome>) -> Vec<Vec<Outcome>> {
    let mut parts: Vec<Vec<Outcome>> = Vec::new();
    let mut users = RECEIPT_USERS_MAX;
    for outcome in results {
        // One that names nobody takes place too.
        users += outcome.users.len() + 1;
        match parts.last_mut() {
            Some(part) if users <= RECEIPT_USERS_MAX => part.push(outcome),
            _ => {
                users = outcome.users.len() + 1;
                parts.push(vec![outcome]);
            }
        }
    }
    parts
}
