//! Room in mailboxes and lanes: what is nearly full loses what was read or carried, so that only unread mail can fill
//! a mailbox, and only an outage a lane.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use antar_broker::{Filter, QueueName, ReadError, ReadFrom, ReadLimit, Seq, Subject};
use antar_proto::names::BOX_LOCAL;
use antar_proto::{RealmId, UserName};

use crate::places::{BOX_SENT, BOX_STATUS, LANE_ENTRIES_MAX, box_of};
use crate::shared::Shared;

/// One append in so many has its boxes looked at; in a realm with small boxes, one in a two-hundredth of a box. A prime,
/// so that senders who take turns are all met. With the tenth of a box that is kept free, it is looked at some twenty
/// times before it is full.
const LOOK_EVERY_MAX: u64 = 509;
const LOOKS_PER_BOX: u64 = 200;
/// A box is nearly full when less than this part of it is free.
const FREE_PART: u64 = 10;
/// How many of the oldest go at once from a box where nothing is ever unread.
const OLDEST: ReadLimit = ReadLimit { entries_max: 10_000, bytes_max: 64 * 1024 * 1024 };

impl Shared {
    /// Looks now and then whether boxes that are appended to are nearly full. Costs nothing but a count otherwise.
    pub(crate) fn watch_room(self: &Arc<Self>, subjects: &[Subject]) {
        let look_every = (self.config.mailbox_entries_max / LOOKS_PER_BOX).clamp(1, LOOK_EVERY_MAX);
        if !self.appends.fetch_add(1, Ordering::Relaxed).is_multiple_of(look_every) {
            return;
        }
        let (shared, subjects) = (self.clone(), subjects.to_vec());
        self.tasks.spawn(async move {
            for subject in &subjects {
                shared.keep_room(subject).await;
            }
        });
    }

    /// Makes room on a subject if it is nearly full.
    pub(crate) async fn keep_room(&self, subject: &Subject) {
        let max = if box_of(subject).is_empty() { LANE_ENTRIES_MAX } else { self.config.mailbox_entries_max };
        if self.broker.count(subject).await.is_ok_and(|count| count >= max - max / FREE_PART) {
            self.make_room(subject).await;
        }
    }

    /// Removes what is of no more use: of a box what was read, of a lane or the inbox what was carried, of everything
    /// else the oldest. Whether there was any.
    pub(crate) async fn make_room(&self, subject: &Subject) -> bool {
        let tokens: Vec<&str> = subject.tokens().collect();
        let upto = match tokens[2..] {
            ["mail", user, mailbox] if mailbox != BOX_SENT && mailbox != BOX_STATUS => {
                user.parse::<UserName>().map_or(Seq::ZERO, |user| self.cursors.get(&user, mailbox))
            }
            ["outbox", peer] => match peer.parse::<RealmId>() {
                Ok(peer) => self.acked(&self.places.lane_queue(&peer)).await,
                Err(_) => Seq::ZERO,
            },
            ["inbox"] => self.acked(&self.places.source(None).queue).await,
            ["inbox", peer] => match peer.parse::<RealmId>() {
                Ok(peer) => self.acked(&self.places.source(Some(&peer)).queue).await,
                Err(_) => Seq::ZERO,
            },
            _ => {
                let upto = self.oldest(subject).await;
                return upto > Seq::ZERO
                    && self.broker.trim(subject, upto).await.is_ok_and(|removed| removed > 0);
            }
        };
        upto > Seq::ZERO && self.trim(subject, upto).await.is_ok_and(|removed| removed > 0)
    }

    /// Removes entries up to a sequence. Of what has to do with other realms the newest up to there stays: a lane sees by
    /// the last envelope that it carried where it goes on, and delivery by what it put into a box last.
    pub(crate) async fn trim(&self, subject: &Subject, upto: Seq) -> Result<u64, ReadError> {
        let tokens: Vec<&str> = subject.tokens().collect();
        if !matches!(tokens[2..], ["outbox", _] | ["mail", _, _])
            || [BOX_LOCAL, BOX_SENT].contains(&box_of(subject))
        {
            return self.broker.trim(subject, upto).await;
        }
        let filter = Filter::from(subject);
        let from = ReadFrom::Before(Seq(upto.0.saturating_add(1)));
        let page = self.broker.read(&filter, from, ReadLimit::entries(1)).await?;
        match page.entries.first().map(|newest| Seq(newest.seq.0 - 1)) {
            Some(upto) if upto > Seq::ZERO => self.broker.trim(subject, upto).await,
            _ => Ok(0),
        }
    }

    /// Up to where a queue's entries were dealt with; nothing, if the broker does not say.
    pub(crate) async fn acked(&self, queue: &QueueName) -> Seq {
        self.broker.queue_state(queue).await.ok().flatten().map_or(Seq::ZERO, |state| state.acked)
    }

    /// Up to where a subject's oldest part goes.
    async fn oldest(&self, subject: &Subject) -> Seq {
        let part = usize::try_from(self.config.mailbox_entries_max / FREE_PART).unwrap_or(usize::MAX);
        let limit = ReadLimit { entries_max: OLDEST.entries_max.min(part.max(1)), ..OLDEST };
        let page = self.broker.read(&Filter::from(subject), ReadFrom::After(Seq::ZERO), limit).await;
        page.ok().and_then(|page| page.entries.last().map(|entry| entry.seq)).unwrap_or_default()
    }
}
