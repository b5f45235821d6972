//! Receipts, both ways: what delivery tells other realms of their messages, and what they tell us of ours.

use antar_broker::{Append, EntryId, Headers, Seq, Subject};
use antar_proto::envelope::{Content, Outcome};
use antar_proto::reply::{State, StatusEvent};
use antar_proto::{ErrorCode, MessageId, RealmId, UserName};
use bytes::Bytes;

use crate::arrival::Arrival;
use crate::clock::now_rfc3339;
use crate::delivery::{Batch, Delivery, DeliveryError, Mail};
use crate::mail::envelope;
use crate::recall::{Place, headers, receipt_headers};
use crate::reign::Reign;
use crate::shared::Shared;

/// Most users, and outcomes, that one receipt names: with 200 bytes for each it stays below 0.5 MiB.
const RECEIPT_USERS_MAX: usize = 2_048;

/// What became of another realm's envelope, to be told there.
pub(crate) struct Told {
    /// The envelope's place in its lane, if it has one.
    pub(crate) place: Option<Place>,
    /// And in our inbox.
    pub(crate) inbox: Seq,
    pub(crate) outcome: Outcome,
}

/// One receipt to be.
struct Part {
    first: Option<Place>,
    last: Option<Place>,
    inbox: Seq,
    results: Vec<Outcome>,
}

impl Delivery {
    /// One receipt for each origin of the batch, or several if it says much.
    pub(crate) async fn send_receipts(&self, reign: &Reign, batch: &mut Batch) -> Result<(), DeliveryError> {
        for (origin, mut told) in std::mem::take(&mut batch.told) {
            if let Some(lane) = reign.lane(&origin) {
                told.retain(|told| told.place.is_none_or(|place| !lane.recalled.is_told(place)));
            }
            told.sort_by_key(|told| (told.place, told.inbox));
            for Part { first, last, inbox, results } in parts(told) {
                let (key, headers) = match (first, last) {
                    (Some(first), Some(last)) => (
                        format!("receipt/{origin}/{}/{}-{}", first.epoch, first.seq, last.seq),
                        receipt_headers(&origin, first, last),
                    ),
                    _ => (format!("receipt/{origin}/inbox-{inbox}"), Headers::new()),
                };
                let id = EntryId::new(key).expect("numbers and a realm id are printable and short");
                let receipt = self.shared.receipt(&origin, results);
                let mut append = Append::new(self.shared.places.outbox(&origin), id, receipt);
                append.headers = headers;
                append.expect_last = Some(reign.log(&origin).clone());
                batch.plain.push(self.shared.broker.append(append).await?);
            }
        }
        Ok(())
    }

    /// What another realm says became of a message of ours: news for its sender, and a notice if it has failed.
    pub(crate) fn receipt(
        &self,
        reign: &Reign,
        arrival: &Arrival<'_>,
        receipt: MessageId,
        number: usize,
        outcome: Outcome,
        batch: &mut Batch,
    ) {
        for News { subject, key, body } in self.shared.news_of(&arrival.origin, receipt, number, outcome) {
            self.news(reign, arrival, number, subject, key, body, batch);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one append")]
    fn news(
        &self,
        reign: &Reign,
        arrival: &Arrival<'_>,
        number: usize,
        subject: Subject,
        key: String,
        body: Bytes,
        batch: &mut Batch,
    ) {
        let Arrival { origin, place, line } = arrival;
        if reign.lane(origin).is_some_and(|lane| lane.recalled.has(&subject, *place, Some(number))) {
            return;
        }
        let id = EntryId::new(key).expect("a UUID and a realm id are printable and short");
        let mut append = Append::new(subject, id, body);
        append.headers = headers(origin, *place, Some(number), line.inbox_seq());
        append.expect_last = Some(reign.mail(origin).clone());
        append.is_fresh = true;
        batch.mail.entry(origin.clone()).or_default().push((append, Mail::News));
    }
}

/// What stands in one of a sender's boxes about a message of its own.
pub(crate) struct News {
    pub(crate) subject: Subject,
    /// Makes the append idempotent.
    pub(crate) key: String,
    pub(crate) body: Bytes,
}

impl Shared {
    /// What an outcome, number `number` of a receipt of `origin`, tells the message's sender; nothing, if there is no such
    /// user.
    pub(crate) fn news_of(
        &self,
        origin: &RealmId,
        receipt: MessageId,
        number: usize,
        outcome: Outcome,
    ) -> Vec<News> {
        if self.accounts.get(&outcome.sender).is_none() {
            return Vec::new();
        }
        let key = format!("{}/{origin}/{number}", receipt.0.simple());
        let Outcome { id, sender, mut users, state, reason, group } = outcome;
        let event = StatusEvent {
            realm: origin.clone(),
            state,
            users: users.clone(),
            ids: vec![id],
            reason: reason.clone(),
            ts: now_rfc3339(),
        };
        let body = serde_json::to_vec(&event).expect("a status event has nothing in it that can fail");
        let subject = self.places.mail_status(&sender);
        let mut news = vec![News { subject, key: key.clone(), body: body.into() }];
        if state == State::Failed && group {
            // The name stands for a user of each realm; who got a copy here is not missing.
            users.retain(|user| self.accounts.get(user).is_none());
        }
        if state == State::Failed && !(group && users.is_empty()) {
            let body = self.notice(origin, &sender, id, &users, reason.as_deref());
            let subject = self.places.mail_realm(&sender, origin);
            news.push(News { subject, key: format!("{key}/notice"), body });
        }
        news
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
        envelope(MessageId::fresh(), origin, self.places.realm(), content).to_bytes().into()
    }
}

/// What a sender is told of a message that was refused as a whole.
pub(crate) fn refused(id: MessageId, sender: UserName, code: &str, group: bool) -> Outcome {
    Outcome { id, sender, users: Vec::new(), state: State::Failed, reason: Some(code.into()), group }
}

impl Batch {
    pub(crate) fn tell(&mut self, origin: &RealmId, place: Option<Place>, inbox: Seq, outcome: Outcome) {
        let told = Told { place, inbox, outcome };
        match self.told.get_mut(origin) {
            Some(all) => all.push(told),
            None => drop(self.told.insert(origin.clone(), vec![told])),
        }
    }
}

/// Cuts what is to be told into receipts of a size that fits into an entry. What is told of one envelope stays together,
/// and a receipt is about one epoch.
fn parts(told: Vec<Told>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut users = 0;
    for same in told.chunk_by(|a, b| (a.place, a.inbox) == (b.place, b.inbox)) {
        let (place, inbox) = (same[0].place, same[0].inbox);
        // One that names nobody takes place too.
        let more: usize = same.iter().map(|told| told.outcome.users.len() + 1).sum();
        let results = same.iter().map(|told| told.outcome.clone());
        let epoch = |place: Option<Place>| place.map(|place| place.epoch);
        match parts.last_mut() {
            Some(part)
                if place.is_some()
                    && epoch(part.last) == epoch(place)
                    && users + more <= RECEIPT_USERS_MAX =>
            {
                part.results.extend(results);
                part.last = place;
                users += more;
            }
            _ => {
                users = more;
                parts.push(Part { first: place, last: place, inbox, results: results.collect() });
            }
        }
    }
    parts
}
