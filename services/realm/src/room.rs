//! Room in mailboxes: a box that is nearly full loses what was read, so that only unread mail can fill it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use antar_broker::{Filter, ReadFrom, ReadLimit, Seq, Subject};
use antar_proto::UserName;

use crate::places::{BOX_SENT, BOX_STATUS, box_of};
use crate::realm::Shared;

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
            for subject in subjects.iter().filter(|subject| !box_of(subject).is_empty()) {
                shared.keep_room(subject).await;
            }
        });
    }

    /// Makes room in a box if it is nearly full.
    pub(crate) async fn keep_room(&self, subject: &Subject) {
        let nearly_full = self.config.mailbox_entries_max - self.config.mailbox_entries_max / FREE_PART;
        if self.broker.count(subject).await.is_ok_and(|count| count >= nearly_full) {
            self.make_room(subject).await;
        }
    }

    /// Removes from a box what was read, and from one of sent messages or of news the oldest; whether there was any.
    pub(crate) async fn make_room(&self, subject: &Subject) -> bool {
        let Some(user) = subject.tokens().nth(3).and_then(|user| user.parse::<UserName>().ok()) else {
            return false;
        };
        let upto = match box_of(subject) {
            BOX_SENT | BOX_STATUS => {
                let page =
                    self.broker.read(&Filter::from(subject), ReadFrom::After(Seq::ZERO), self.oldest()).await;
                page.ok().and_then(|page| page.entries.last().map(|entry| entry.seq)).unwrap_or_default()
            }
            mailbox => self.cursors.get(&user, mailbox),
        };
        upto > Seq::ZERO && self.broker.trim(subject, upto).await.is_ok_and(|removed| removed > 0)
    }

    fn oldest(&self) -> ReadLimit {
        let part = usize::try_from(self.config.mailbox_entries_max / FREE_PART).unwrap_or(usize::MAX);
        ReadLimit { entries_max: OLDEST.entries_max.min(part.max(1)), ..OLDEST }
    }
}
