//! Room in mailboxes and lanes: what is nearly full loses what was read or carried, so that only unread mail can fill
//! a mailbox, and only an outage a lane.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use antar_broker::{Filter, QueueName, ReadError, ReadFrom, ReadLimit, Seq, Subject};
use antar_proto::names::BOX_LOCAL;
use antar_proto::{RealmId, UserName};

use crate::places::{BOX_SENT, BOX_STATUS, LANE_ENTRIES_MAX, box_of, group_named};
use crate::shared::Shared;

/// One append in so many has its boxes looked at; in a realm with small boxes, one in a two-hundredth of a box. A prime,
/// so that senders who take turns are all met. With the tenth of a box that is kept free, it is looked at some twenty
/// times before it is full.
const LOOK_EVERY_MAX: u64 = 509;
const LOOKS_PER_BOX: u64 = 200;
/// How many are looked at at the same time.
pub(crate) const LOOKS_MAX: usize = 8;
/// A box is nearly full when less than this part of it is free.
const FREE_PART: u64 = 10;
/// How many of the oldest go at once from a box where nothing is ever unread.
const OLDEST_TRIES: usize = 64;
const OLDEST: ReadLimit = ReadLimit { entries_max: 10_000, bytes_max: 64 * 1024 * 1024 };

impl Shared {
    /// Looks now and then whether boxes that are appended to are nearly full. Costs nothing but a count otherwise.
    pub(crate) fn watch_room(self: &Arc<Self>, subjects: &[Subject]) {
        let look_every = (self.config.mailbox_entries_max / LOOKS_PER_BOX).clamp(1, LOOK_EVERY_MAX);
        if !self.appends.fetch_add(1, Ordering::Relaxed).is_multiple_of(look_every) {
            return;
        }
        // Whoever finds others looking is met another time.
        let Ok(permit) = self.looks.clone().try_acquire_owned() else { return };
        let (shared, subjects) = (self.clone(), subjects.to_vec());
        self.tasks.spawn(async move {
            let _permit = permit;
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
            ["group", group] => group_named(group).map_or(Seq::ZERO, |group| self.read_by_all(&group)),
            ["outbox", peer] => match peer.parse::<RealmId>() {
                Ok(peer) => self.acked(&self.places.lane_queue(&peer)).await,
                Err(_) => Seq::ZERO,
            },
            ["inbox"] => self.acked(&self.places.source(None).queue).await,
            ["inbox", peer] => match peer.parse::<RealmId>() {
                Ok(peer) => self.acked(&self.places.source(Some(&peer)).queue).await,
                Err(_) => Seq::ZERO,
            },
            _ => return self.drop_oldest(subject).await,
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

    /// Removes a subject's oldest part. A broker may keep several entries together, and removes them together: then the part
    /// has to be larger than that.
    async fn drop_oldest(&self, subject: &Subject) -> bool {
        let part = usize::try_from(self.config.mailbox_entries_max / FREE_PART).unwrap_or(usize::MAX).max(1);
        let mut from = Seq::ZERO;
        for _ in 0..OLDEST_TRIES {
            let limit = ReadLimit { entries_max: OLDEST.entries_max.min(part), ..OLDEST };
            let page = self.broker.read(&Filter::from(subject), ReadFrom::After(from), limit).await;
            let Some(upto) = page.ok().and_then(|page| page.entries.last().map(|entry| entry.seq)) else {
                return false;
            };
            match self.broker.trim(subject, upto).await {
                Ok(0) => from = upto,
                removed => return removed.is_ok(),
            }
        }
        false
    }
}
