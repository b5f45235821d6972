//! Looks for one message in one realm's log. Reads from about the time that its id tells, never more than so much, and of each
//! entry first what is cheap: the id that it was appended under.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use antar_broker::{
    Bucket, Entry, Filter, KvError, QueueName, ReadError, ReadFrom, ReadLimit, Seq, SharedBroker, Subject,
    Timestamp,
};
use antar_proto::envelope::{Envelope, unbundle};
use antar_proto::{MessageId, RealmId, UserName};
use memchr::memmem::Finder;
use serde::de::DeserializeOwned;

use crate::copy::kept_in;
use crate::letter::Letter;
use crate::mailbox::{CLOCK_SKEW_US, time_of};
use crate::places::{Places, box_of};

/// How much is read at a time.
const PAGE: ReadLimit = ReadLimit { entries_max: 5_000, bytes_max: 8 * 1024 * 1024 };
/// Most entries that one look at the log goes through: some tenths of a second.
const NEAR_ENTRIES_MAX: usize = 100_000;
const FAR_ENTRIES_MAX: usize = 2_000_000;
/// An id is made before its message is stored, by a clock that differs little from the broker's, usually.
const NEAR_BEFORE_US: u64 = 100_000;
const NEAR_AFTER_US: u64 = 5 * 1_000_000;
/// What belongs together is stored within this, usually.
const BESIDE_US: u64 = 1_000_000;
/// More that waits before a message is not counted.
const AHEAD_MAX: usize = 100_000;
/// So many entries without the message behind one with it: then all that were stored together were seen.
const TOGETHER: usize = 2_000;

/// One realm's log, and the message that is looked for.
pub(super) struct Look {
    pub(super) broker: SharedBroker,
    pub(super) places: Places,
    pub(super) id: MessageId,
    /// What the ids of its entries begin with.
    prefix: String,
    /// The id as it stands in envelopes.
    text: Finder<'static>,
    made: Timestamp,
    /// When the first entry of it that was found here was stored; `u64::MAX` before there is any.
    anchor: AtomicU64,
}

/// A part of the log.
#[derive(Clone, Copy)]
struct Part {
    since: Timestamp,
    until: Option<Timestamp>,
    entries_max: usize,
    /// It ends so many entries behind the last that was found.
    together: Option<usize>,
}

impl Part {
    fn since(since: Timestamp) -> Self {
        Self { since, until: None, entries_max: NEAR_ENTRIES_MAX, together: None }
    }
}

impl Look {
    pub(super) fn new(broker: SharedBroker, realm: RealmId, id: MessageId) -> Self {
        let prefix = format!("{}/", id.0.simple());
        let text = Finder::new(id.to_string().as_bytes()).into_owned();
        let made = time_of(id).unwrap_or(Timestamp(0));
        let anchor = AtomicU64::new(u64::MAX);
        Self { broker, places: Places::new(realm), id, prefix, text, made, anchor }
    }

    pub(super) fn realm(&self) -> &RealmId {
        self.places.realm()
    }

    /// Whether an entry was appended for the message.
    fn is_appended(&self, entry: &Entry) -> bool {
        entry.id.as_str().starts_with(&self.prefix)
    }

    /// Whether it is spoken of in an entry.
    pub(super) fn is_in(&self, body: &[u8]) -> bool {
        self.text.find(body).is_some()
    }

    /// Whether an entry is the message, under whatever id: who lacked it when others had it has it under another one.
    fn is_it(&self, entry: &Entry) -> bool {
        self.is_appended(entry) || (self.is_in(&entry.body) && self.envelope_in(&entry.body).is_some())
    }

    /// The envelope of the message in a body.
    pub(super) fn envelope_in(&self, body: &[u8]) -> Option<Envelope> {
        let all = unbundle(body).ok()?.filter(|line| self.is_in(line));
        all.filter_map(|line| Envelope::from_bytes(line).ok()).find(|envelope| envelope.id == self.id)
    }

    /// Before this nothing of it was stored, unless clocks are wrong by more than they may.
    fn far(&self) -> Timestamp {
        Timestamp(self.made.0.saturating_sub(CLOCK_SKEW_US))
    }

    /// From about here on it is spoken of in this log, as far as is known by now.
    fn near(&self) -> Option<Timestamp> {
        let anchor = self.anchor.load(Ordering::Relaxed);
        (anchor != u64::MAX).then(|| Timestamp(anchor.saturating_sub(BESIDE_US)))
    }

    /// Takes note of when something of it was stored.
    fn note(&self, found: &[Arc<Entry>]) {
        let first = found.iter().map(|entry| entry.time.0).min().unwrap_or(u64::MAX);
        self.anchor.fetch_min(first, Ordering::Relaxed);
    }

    /// What stands in mailboxes, outboxes, inboxes and dead letters about when the message was made.
    pub(super) async fn first(&self, far: bool) -> Result<Vec<Arc<Entry>>, ReadError> {
        let (before, after, max) = match far {
            false => (NEAR_BEFORE_US, NEAR_AFTER_US, NEAR_ENTRIES_MAX),
            true => (CLOCK_SKEW_US, CLOCK_SKEW_US, FAR_ENTRIES_MAX),
        };
        let since = Timestamp(self.made.0.saturating_sub(before));
        let part = Part {
            since,
            until: Some(Timestamp(self.made.0.saturating_add(after))),
            entries_max: max,
            together: Some(TOGETHER),
        };
        let is_appended = |entry: &Entry| self.is_appended(entry);
        let mut found = self.scan(self.places.mail_of_all(), part, &is_appended).await?;
        let is_in = |entry: &Entry| self.is_in(&entry.body);
        if found.is_empty() {
            for filter in self.places.between_realms().into_iter().chain([self.places.groups()]) {
                found.extend(self.scan(filter, part, &is_in).await?);
            }
        }
        self.note(&found);
        Ok(found)
    }

    /// Entries in a part of a filter, in their order; none if the realm has no such log.
    async fn scan(
        &self,
        filter: Filter,
        part: Part,
        is_it: &(dyn Fn(&Entry) -> bool + Sync),
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        let Part { since, until, entries_max, together } = part;
        let (mut found, mut from) = (Vec::new(), ReadFrom::Since(since));
        let (mut looked_at, mut behind) = (0, 0);
        loop {
            let page = match self.broker.read(&filter, from, PAGE).await {
                Err(ReadError::NoStream(_)) => return Ok(found),
                page => page?,
            };
            for entry in &page.entries {
                if until.is_some_and(|until| entry.time > until) {
                    return Ok(found);
                }
                if is_it(entry) {
                    found.push(entry.clone());
                    if together == Some(0) {
                        return Ok(found);
                    }
                    behind = 0;
                } else if !found.is_empty() {
                    behind += 1;
                    if together.is_some_and(|together| behind > together) {
                        return Ok(found);
                    }
                }
            }
            looked_at += page.entries.len();
            match page.entries.last() {
                Some(last) if page.more && looked_at < entries_max => from = ReadFrom::After(last.seq),
                _ => return Ok(found),
            }
            tokio::task::yield_now().await;
        }
    }

    /// All entries of a subject that `is_it` picks.
    pub(super) async fn all(
        &self,
        subject: &Subject,
        is_it: impl Fn(&Entry) -> bool + Sync,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        let since = self.near().unwrap_or_else(|| self.far());
        self.scan(subject.into(), Part::since(since), &is_it).await
    }

    /// The first of them.
    pub(super) async fn one(
        &self,
        subject: &Subject,
        is_it: impl Fn(&Entry) -> bool + Sync,
    ) -> Result<Option<Arc<Entry>>, ReadError> {
        for since in self.near().into_iter().chain([self.far()]) {
            let part = Part { together: Some(0), ..Part::since(since) };
            let found = self.scan(subject.into(), part, &is_it).await?;
            if !found.is_empty() {
                self.note(&found);
                return Ok(found.into_iter().next());
            }
        }
        Ok(None)
    }

    /// The message in one box of a user.
    pub(super) async fn in_box(
        &self,
        user: &UserName,
        mailbox: &str,
        found: &[Arc<Entry>],
    ) -> Result<Option<Arc<Entry>>, ReadError> {
        let subject = self.places.mail_box(user, mailbox);
        if let Some(entry) = found.iter().find(|entry| entry.subject == subject) {
            return Ok(Some(entry.clone()));
        }
        self.one(&subject, |entry| self.is_it(entry)).await
    }

    /// The dead letters that it is in.
    pub(super) async fn letters(&self) -> Result<Vec<Letter>, ReadError> {
        let entries = self.all(&self.places.dead(), |entry| self.is_in(&entry.body)).await?;
        let is_meant = |letter: &Letter| letter.envelopes().iter().any(|(_, body)| self.is_in(body));
        Ok(entries.iter().filter_map(Letter::of).filter(is_meant).collect())
    }

    /// How far a box was read.
    pub(super) async fn cursor(&self, user: &UserName, mailbox: &str) -> Result<Seq, ReadError> {
        let kept: Option<u64> = self.value("cursors", &format!("{user}.{mailbox}")).await?;
        Ok(Seq(kept.unwrap_or_default()))
    }

    /// A value in a bucket; `None` if there is none that can be read.
    pub(super) async fn value<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<T>, ReadError> {
        let kept = self.broker.kv_get(&self.places.bucket(bucket), key).await;
        match kept {
            Ok(kept) => Ok(kept.and_then(|kept| serde_json::from_slice(&kept.value).ok())),
            Err(KvError::Unavailable(why)) => Err(ReadError::Unavailable(why)),
            Err(_) => Ok(None),
        }
    }

    /// How many entries of a subject wait in a queue before this one, itself left out; `None` if it was dealt with.
    pub(super) async fn ahead(
        &self,
        queue: &QueueName,
        subject: &Subject,
        seq: Seq,
    ) -> Result<Option<String>, ReadError> {
        let state = self.broker.queue_state(queue).await?;
        let acked = state.map_or(Seq::ZERO, |state| state.acked);
        if acked >= seq {
            return Ok(None);
        }
        let (mut ahead, mut from) = (0, ReadFrom::After(acked));
        loop {
            let page = self.broker.read(&Filter::from(subject), from, PAGE).await?;
            ahead += page.entries.iter().filter(|entry| entry.seq < seq).count();
            match page.entries.last() {
                Some(last) if page.more && last.seq < seq && ahead < AHEAD_MAX => {
                    from = ReadFrom::After(last.seq);
                }
                _ if ahead < AHEAD_MAX => return Ok(Some(ahead.to_string())),
                _ => return Ok(Some(format!("{AHEAD_MAX} or more"))),
            }
        }
    }

    /// All values of a small bucket; none if it is not there.
    pub(super) async fn values<T: DeserializeOwned>(&self, bucket: &str) -> Vec<T> {
        let bucket: Bucket = self.places.bucket(bucket);
        let kept = kept_in(&self.broker, &bucket).await.unwrap_or_default();
        kept.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
    }
}

/// The name of the box that an entry of a mailbox stands in, and whose it is.
pub(super) fn whose(entry: &Entry) -> Option<(UserName, &str)> {
    Some((entry.subject.tokens().nth(3)?.parse().ok()?, box_of(&entry.subject)))
}
