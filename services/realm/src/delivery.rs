//! Delivery: a worker on each of our inboxes that puts other realms' envelopes into mailboxes and sends receipts.
//!
//! The broker may tell who has published: then a peer's envelopes come in on `inbox.<peer>`, and a worker of its own
//! delivers them, so that a flood from one peer holds up no other. All else comes in on `inbox`.
//!
//! A worker that dies in the middle of a batch costs nothing. The batch comes again, here or at another edge of the realm,
//! and what was done of it is found in the log ([`crate::recall`]). A worker that was replaced and does not know it can
//! append nothing ([`crate::reign`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{
    Append, AppendError, Entry, EntryId, KvError, Lease, LeaseError, PendingAppend, Queue, ReadError,
    ReadLimit, Seq, Subject,
};
use antar_proto::command::RECEIVERS_MAX;
use antar_proto::envelope::{Content, Outcome};
use antar_proto::file::FileInfo;
use antar_proto::reply::State;
use antar_proto::{Address, ErrorCode, GroupAddress, MessageId, RealmId, UserName};
use tracing::Instrument as _;

use crate::SPANS;
use crate::arrival::{Arrival, Line};
use crate::clock::backoff;
use crate::dead::Dead;
use crate::delivered::Delivered;
use crate::file::Brought;
use crate::group::{Arriving, IncomingOfGroup};
use crate::hop::log_hop;
use crate::letter::Buried;
use crate::places::Source;
use crate::recall::headers;
use crate::receipt::{Told, refused};
use crate::recent::{Print, Seen};
use crate::reign::{Kept, Reign};
use crate::shared::Shared;
use crate::turn::{LEASE, Turn, hold};

/// Most envelopes, and bytes of them, that are worked on at once. A batch takes five round trips to the broker, whatever
/// its size: with 100 ms each, so many are 4,000 envelopes a second.
const BATCH: ReadLimit = ReadLimit { entries_max: 2_048, bytes_max: 4 * 1024 * 1024 };
/// Shortest and longest pause after a failure.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// Most names of one batch, of realms and users that nobody here has heard of, that are looked up in the broker: they
/// may have been made a moment ago. It bounds what a realm can cost that names nobody.
pub(crate) const LOOKUPS_MAX: usize = 64;

/// Why a batch has to be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("another worker has taken over")]
    Replaced,
    #[error("the worker of another inbox delivers from the same realm")]
    Moved,
    #[error("{0}")]
    Append(AppendError),
    #[error("{0}")]
    Kv(KvError),
    #[error("{0}")]
    Read(#[from] ReadError),
}

impl From<AppendError> for DeliveryError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict => Self::Replaced,
            other => Self::Append(other),
        }
    }
}

impl From<KvError> for DeliveryError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Conflict => Self::Replaced,
            other => Self::Kv(other),
        }
    }
}

/// Works on what comes in there until the realm stops.
pub(crate) async fn run(shared: Arc<Shared>, source: Source) {
    let turn = Turn::new(shared.clone(), source.queue.clone());
    let mut worker = Delivery { shared, source, turn, reign: None, failures: 0 };
    loop {
        let Source { queue, inbox, .. } = &worker.source;
        match worker.shared.broker.queue(queue, inbox, LEASE).await {
            Ok(queue) => worker.work(queue).await,
            Err(error) => {
                tracing::warn!(inbox = %worker.source.inbox, %error, "delivery waits for the broker")
            }
        }
        tokio::time::sleep(RETRY_DELAY_MIN).await;
    }
}

pub(crate) struct Delivery {
    pub(crate) shared: Arc<Shared>,
    pub(crate) source: Source,
    turn: Turn,
    /// None before the first batch, and after each failure: then nobody can tell what was done.
    reign: Option<Reign>,
    failures: u32,
}

/// What a batch has led to so far.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) kept: HashMap<RealmId, Kept>,
    pub(crate) told: HashMap<RealmId, Vec<Told>>,
    /// What goes into mailboxes, of each realm in its order; see [`antar_broker::Broker::append_run`].
    pub(crate) mail: HashMap<RealmId, Vec<(Append, Mail)>>,
    pub(crate) plain: Vec<PendingAppend>,
    pub(crate) dead: Vec<Buried>,
    /// What goes into the logs of groups, likewise.
    pub(crate) said: HashMap<RealmId, Vec<(Append, Arriving)>>,
    /// Groups of which everything is known that was changed before the batch.
    pub(crate) caught_up: HashSet<GroupAddress>,
    lookups: usize,
    /// See [`Reign::settled`].
    settled: HashMap<RealmId, Seq>,
}

/// A message, as its envelope has it.
struct Incoming {
    id: MessageId,
    print: Option<Print>,
    from: Address,
    to: Vec<UserName>,
    group: bool,
    file: Option<FileInfo>,
}

/// What an append to mailboxes is.
pub(crate) enum Mail {
    Message(Box<Delivered>),
    /// News or a notice, for a user of ours.
    News,
}

impl Delivery {
    /// Works on batches until the queue fails, or another worker is met.
    async fn work(&mut self, queue: Arc<dyn Queue>) {
        loop {
            self.shared.wait_unpaused().await;
            let lease = match queue.next(BATCH).await {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::warn!(inbox = %self.source.inbox, %error, "delivery cannot read");
                    return;
                }
            };
            if self.shared.is_paused() {
                let _ = queue.nak(&lease, Duration::ZERO).await;
                continue;
            }
            if !self.turn.is_mine(&lease) {
                return self.give_way(&*queue, &lease).await;
            }
            let (realm, entries) = (self.shared.places.realm(), lease.entries.len());
            let span =
                tracing::info_span!(target: SPANS, "deliver", %realm, inbox = %self.source.inbox, entries);
            let outcome = hold(&*queue, &lease, self.deliver(&lease).instrument(span)).await;
            let settled = match outcome {
                Some(Ok(upto)) => {
                    self.failures = 0;
                    let room = self.shared.keep_room(&self.source.inbox);
                    let (settled, ()) = tokio::join!(queue.ack(&lease, upto), room);
                    self.turn.acked(upto);
                    settled
                }
                Some(Err(DeliveryError::Replaced)) => return self.give_way(&*queue, &lease).await,
                Some(Err(error)) => {
                    self.reign = None;
                    let delay = backoff(self.failures, RETRY_DELAY_MIN, RETRY_DELAY_MAX);
                    self.failures = self.failures.saturating_add(1);
                    tracing::warn!(inbox = %self.source.inbox, seq = lease.entries[0].seq.0, %error, "delivery is tried again");
                    queue.nak(&lease, delay).await
                }
                None => Err(LeaseError::Lost),
            };
            if let Err(error) = settled {
                tracing::warn!(inbox = %self.source.inbox, %error, "delivery lost its lease");
                self.reign = None;
                self.turn.lost();
                return;
            }
        }
    }

    /// Leaves the work to the other worker until that one stops.
    async fn give_way(&mut self, queue: &dyn Queue, lease: &Lease) {
        self.reign = None;
        let _ = queue.nak(lease, Duration::ZERO).await;
        tracing::info!(inbox = %self.source.inbox, "another edge delivers, this one stands by");
        self.turn.stand_by().await;
    }

    /// Delivers a batch, or a part of it: up to where.
    async fn deliver(&mut self, lease: &Lease) -> Result<Seq, DeliveryError> {
        let mut reign = match self.reign.take() {
            Some(reign) => reign,
            None => {
                self.shared.held.forget();
                Reign::begin(&self.shared, &self.source).await?
            }
        };
        match self.deliver_in(&mut reign, lease).await {
            Ok(upto) => {
                self.reign = Some(reign);
                Ok(upto)
            }
            Err(DeliveryError::Replaced) if reign.stands(&self.shared).await? => Err(DeliveryError::Moved),
            Err(error) => Err(error),
        }
    }

    async fn deliver_in(&self, reign: &mut Reign, lease: &Lease) -> Result<Seq, DeliveryError> {
        let (mut batch, mut upto) = (Batch::default(), None);
        let proofs = self.shared.prove_all(&lease.entries).await;
        for (entry, proof) in lease.entries.iter().zip(proofs) {
            let proof = self.shared.prove_again(entry, proof, &mut batch.lookups).await?;
            let origin = proof.as_ref().ok().map(|claim| claim.origin.clone());
            if let Some(origin) = &origin
                && !reign.meet(&self.shared, origin, entry, &self.source).await?
            {
                break;
            }
            match proof {
                Ok(claim) if !self.lines(reign, entry, &claim.origin, &mut batch).await? => break,
                Ok(_) => {}
                Err(dead) => self.bury(&Line::whole(entry), &dead, None, &mut batch),
            }
            upto = Some(entry.seq);
        }
        // What is before the first one that has to wait need not: else two workers could wait for each other.
        let upto = upto.ok_or(DeliveryError::Moved)?;
        self.store_mail(&mut batch).await?;
        self.store_said(&mut batch).await?;
        self.send_receipts(reign, &mut batch).await?;
        self.send_letters(reign, &mut batch).await?;
        for pending in batch.plain {
            self.shared.finish_news(pending.await).await?;
        }
        reign.keep(&self.shared, batch.kept).await?;
        Ok(upto)
    }

    /// Whether everything of this origin that came in before this entry, on whichever inbox, is delivered.
    pub(crate) async fn is_settled(
        &self,
        reign: &Reign,
        origin: &RealmId,
        entry: &Entry,
        batch: &mut Batch,
    ) -> Result<bool, DeliveryError> {
        let settled = match batch.settled.get(origin) {
            Some(settled) => *settled,
            None => {
                let settled = reign.settled(&self.shared, origin, &self.source).await?;
                batch.settled.insert(origin.clone(), settled);
                settled
            }
        };
        Ok(entry.seq < settled)
    }

    /// Starts the delivery of one envelope.
    pub(crate) async fn one(
        &self,
        reign: &Reign,
        line: &Line,
        origin: &RealmId,
        batch: &mut Batch,
    ) -> Result<Result<(), Dead>, DeliveryError> {
        let (envelope, place) = match self.admit(reign, line, origin, batch) {
            Ok(Some(admitted)) => admitted,
            Ok(None) => return Ok(Ok(())),
            Err(dead) => return Ok(Err(dead)),
        };
        log_hop(self.shared.places.realm(), "received", line.inbox_seq(), &line.body);
        let print = reign.print(&envelope);
        let arrival = Arrival { origin: envelope.origin, place, line };
        match envelope.content {
            Content::Message { from, .. } if from.realm != arrival.origin => {
                return Ok(Err(Dead::ForeignSender { from, origin: arrival.origin }));
            }
            Content::Message { to, .. } if to.len() > RECEIVERS_MAX => {
                return Ok(Err(Dead::TooManyReceivers));
            }
            Content::Message { from, to, group, file, .. } => {
                let peer = self.shared.peers.copy.get(arrival.origin.as_str());
                if peer.is_some_and(|peer| self.shared.is_quarantined(&peer)) {
                    if self.shared.hold(&arrival.origin).await? {
                        return Ok(Err(Dead::Quarantined(arrival.origin)));
                    }
                    let outcome = refused(envelope.id, from.user, Dead::QUARANTINED, group);
                    batch.tell(&arrival.origin, Some(arrival.place), line.inbox_seq(), outcome);
                    return Ok(Ok(()));
                }
                let incoming = Incoming { id: envelope.id, print, from, to, group, file };
                return self.message(reign, arrival, incoming, batch).await;
            }
            Content::Receipt { results } => {
                for (number, outcome) in results.into_iter().enumerate() {
                    self.receipt(reign, &arrival, envelope.id, number, outcome, batch);
                }
            }
            Content::Notice { .. } => return Ok(Err(Dead::Kind)),
            content => {
                let incoming = IncomingOfGroup { id: envelope.id, print, content };
                return self.of_group(reign, arrival, incoming, batch).await;
            }
        }
        Ok(Ok(()))
    }

    async fn message(
        &self,
        reign: &Reign,
        arrival: Arrival<'_>,
        incoming: Incoming,
        batch: &mut Batch,
    ) -> Result<Result<(), Dead>, DeliveryError> {
        let Incoming { id, print, from, mut to, group, file } = incoming;
        let Arrival { origin, place, line } = arrival;
        let inbox = line.inbox_seq();
        to.sort();
        to.dedup();
        self.look_up(&to, batch).await?;
        let (users, nobody): (Vec<_>, Vec<_>) =
            to.into_iter().partition(|user| self.shared.takes_from(user, &from.user, from.realm.as_str()));
        let outcome = |users, state, reason: Option<ErrorCode>| Outcome {
            id,
            sender: from.user.clone(),
            users,
            state,
            reason: reason.map(|code| code.as_str().into()),
            group,
        };
        if !nobody.is_empty() {
            let outcome = outcome(nobody, State::Failed, Some(ErrorCode::NoSuchUser));
            batch.tell(&origin, Some(place), inbox, outcome);
        }
        if users.is_empty() {
            return Ok(Ok(()));
        }
        if let Some(file) = &file {
            let (from, body) = (&from.user, &line.body);
            let brought = Brought { origin: &origin, id, from, to: &users, file, body, inbox };
            let taken = self.shared.take_file(&brought).await?;
            return Ok(taken.map(|told| {
                if let Some((state, reason)) = told {
                    batch.tell(&origin, Some(place), inbox, outcome(users, state, reason));
                }
            }));
        }
        let all = users.len();
        let mut subjects: Vec<Subject> =
            users.iter().map(|user| self.shared.places.mail_realm(user, &origin)).collect();
        if let Some(lane) = reign.lane(&origin) {
            subjects.retain(|subject| !lane.recalled.has(subject, place, None));
        }
        let outcome = outcome(users, State::Delivered, None);
        if subjects.is_empty() {
            batch.tell(&origin, Some(place), inbox, outcome);
            return Ok(Ok(()));
        }
        // Of what was stored in part before, at this place, the rest is missing.
        if subjects.len() == all {
            match print.map(|print| reign.see(&origin, print)) {
                Some(Seen::Same) => {
                    batch.tell(&origin, Some(place), inbox, outcome);
                    return Ok(Ok(()));
                }
                Some(Seen::Other) => return Ok(Err(Dead::IdReused)),
                Some(Seen::New) | None => {}
            }
        }
        self.shared.watch_room(&subjects);
        let entry_id = match subjects.len() == all {
            true => EntryId::new(format!("{}/{from}", id.0.simple()))
                .expect("a UUID and an address are printable and short"),
            // Some have it, and the id stands for that. What the others lack is known from the log.
            false => EntryId::unique(),
        };
        let append = Append {
            subjects: subjects.clone(),
            id: entry_id.clone(),
            headers: headers(&origin, place, None, inbox),
            body: line.body.clone(),
            expect_last: Some(reign.mail(&origin).clone()),
            copies: 0,
            is_fresh: true,
        };
        let delivered = Delivered { subjects, id: entry_id, line: line.clone(), place, outcome };
        batch.mail.entry(origin).or_default().push((append, Mail::Message(Box::new(delivered))));
        Ok(Ok(()))
    }

    /// Looks for accounts that were made a moment ago, among names that nobody has.
    async fn look_up(&self, users: &[UserName], batch: &mut Batch) -> Result<(), KvError> {
        let accounts = &self.shared.accounts;
        let nobody = users.iter().filter(|user| accounts.get(user).is_none());
        let looked_up: Vec<_> = nobody.take(LOOKUPS_MAX.saturating_sub(batch.lookups)).collect();
        batch.lookups += looked_up.len();
        let looks = looked_up.into_iter().map(|user| accounts.copy.fresh(user.as_str()));
        futures_util::future::try_join_all(looks).await.map(drop)
    }

    /// Puts what there is into mailboxes, of each realm in its order, and notes the receipts.
    async fn store_mail(&self, batch: &mut Batch) -> Result<(), DeliveryError> {
        for (origin, mail) in std::mem::take(&mut batch.mail) {
            let (appends, mail): (Vec<Append>, Vec<Mail>) = mail.into_iter().unzip();
            let answers = self.shared.broker.append_run(appends).await;
            for (answer, mail) in answers.into_iter().zip(mail) {
                match mail {
                    Mail::News => self.shared.finish_news(answer).await?,
                    Mail::Message(delivered) => {
                        self.finish_message(&origin, answer, *delivered, batch).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
