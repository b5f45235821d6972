//! Following a stream live: a subscription to what JetStream announces after storing it, and reads where something is
//! missing.
//!
//! Each announcement tells the sequence before it on its subject. If that is not the one seen before, or the connection was
//! mended in between, what lies between is read from the stream. So nothing is missed, whatever was dropped on the way.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::{Got, Troubles};
use super::bundle::first_after;
use super::message::Stored;
use super::read::Reader;
use super::streams::Stream;
use crate::{Entry, ReadError, ReadLimit, Seq, TailSource};

/// How much one read of what is missing takes at once.
const CATCH_UP_MESSAGES: usize = 500;
const CATCH_UP_BYTES: usize = 1024 * 1024;
/// So many messages on, it is taken for certain that nothing was missed before: a loss is told within moments.
const CERTAIN_AFTER: usize = 4096;
/// In a cluster a subscription takes a moment until every server knows of it: so long after, it is looked once more.
const VERIFY_DELAY: Duration = Duration::from_secs(1);

/// Follows the messages of one stream that match a filter, as they are stored.
pub(super) struct Follower {
    reader: Reader,
    stream: Arc<Stream>,
    filter: String,
    live: Option<async_nats::Subscriber>,
    troubles: watch::Receiver<Troubles>,
    seen: Troubles,
    closed: CancellationToken,
    /// Everything up to here that matches was given out.
    covered: u64,
    /// The last one given out of each subject, where it is beyond `covered`.
    last: HashMap<String, u64>,
    /// The highest given out, and where that stood when the present [`CERTAIN_AFTER`] messages began.
    position: u64,
    period: (u64, usize),
    /// Something may be missing: read before listening on.
    is_behind: bool,
    verify_at: Option<Instant>,
    /// A read on its way. Kept here, so that whoever waits only now and then makes progress all the same.
    reading: Option<Reading>,
    /// Found by reading, to be given out.
    found: VecDeque<Stored>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Got, ReadError>> + Send>>;

impl Follower {
    /// From the first message that may hold something behind `after`.
    pub(super) fn new(
        reader: Reader,
        stream: Arc<Stream>,
        filter: String,
        after: Seq,
        closed: CancellationToken,
    ) -> Self {
        let after = first_after(after).saturating_sub(1);
        let troubles = reader.api.troubles();
        let seen = *troubles.borrow();
        Self {
            reader,
            stream,
            filter,
            live: None,
            troubles,
            seen,
            closed,
            covered: after,
            last: HashMap::new(),
            position: after,
            period: (after, 0),
            is_behind: true,
            verify_at: None,
            reading: None,
            found: VecDeque::new(),
        }
    }

    /// Whether everything that was there when it began was given out.
    pub(super) fn is_current(&self) -> bool {
        !self.is_behind && self.found.is_empty()
    }

    /// The next message, if it need not be waited for.
    pub(super) fn ready(&mut self) -> Option<Stored> {
        if let Some(message) = self.found.pop_front() {
            return Some(message);
        }
        if self.is_behind || self.troubles.has_changed().unwrap_or(false) {
            return None;
        }
        let live = self.live.as_mut()?;
        // Polled once, without a waker: there is something or there is not.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match live.poll_next_unpin(&mut context) {
            std::task::Poll::Ready(Some(message)) => self.take(message),
            _ => None,
        }
    }

    /// Makes progress: afterwards [`Self::ready`] may have something. Cancel-safe: nothing is taken before it is kept.
    pub(super) async fn wait(&mut self) -> Result<(), ReadError> {
        if self.closed.is_cancelled() {
            return Err(ReadError::Closed);
        }
        if !self.found.is_empty() {
            return Ok(());
        }
        if self.live.is_none() {
            self.subscribe().await?;
        }
        self.look_for_troubles();
        if self.is_behind {
            return self.catch_up().await;
        }
        let verify_at = self.verify_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        let live = self.live.as_mut().expect("it was subscribed above");
        // Cancel-safe: each only waits, and a message that was taken is kept before anything else is awaited.
        let message = tokio::select! {
            message = live.next() => message,
            _ = self.troubles.changed() => {
                self.troubles.mark_changed();
                return Ok(());
            }
            () = sleep_until(verify_at) => {
                self.verify_at = None;
                self.is_behind = true;
                return Ok(());
            }
            () = self.closed.cancelled() => return Err(ReadError::Closed),
        };
        match message {
            Some(message) => {
                if let Some(message) = self.take(message) {
                    self.found.push_front(message);
                }
                Ok(())
            }
            None => {
                self.live = None;
                self.is_behind = true;
                Err(ReadError::Unavailable("the subscription has ended".into()))
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), ReadError> {
        let unavailable = |error: String| ReadError::Unavailable(error);
        let subject = self.stream.live(&self.filter);
        let subject = subject.ok_or_else(|| unavailable("its stream announces nothing".into()))?;
        let client = self.reader.api.live();
        let subscribed = tokio::time::timeout(super::api::API_TIMEOUT, client.subscribe(subject)).await;
        let live = subscribed.map_err(|_| unavailable("there is no connection to NATS".into()))?;
        self.live = Some(live.map_err(|error| unavailable(error.to_string()))?);
        self.is_behind = true;
        self.verify_at = self.stream.is_replicated.then(|| Instant::now() + VERIFY_DELAY);
        Ok(())
    }

    fn look_for_troubles(&mut self) {
        if !self.troubles.has_changed().unwrap_or(false) {
            return;
        }
        let now = *self.troubles.borrow_and_update();
        if now.dropped == self.seen.dropped {
            // Nothing came for a while, but of what came before nothing was lost.
            self.certain_upto(self.position);
        }
        self.seen = now;
        // What is being read was asked for before.
        self.reading = None;
        self.is_behind = true;
        self.verify_at = self.stream.is_replicated.then(|| Instant::now() + VERIFY_DELAY);
    }

    async fn catch_up(&mut self) -> Result<(), ReadError> {
        let got = self.reading.get_or_insert_with(|| {
            let (reader, stream) = (self.reader.clone(), self.stream.clone());
            let (filter, from) = (self.filter.clone(), self.covered + 1);
            let limit = (CATCH_UP_MESSAGES, CATCH_UP_BYTES);
            Box::pin(async move { reader.behind_live(&stream, &filter, from, limit).await })
        });
        let got = got.await;
        self.reading = None;
        let got = got?;
        let last = got.messages.last().map(|message| message.seq);
        let given = &self.last;
        let is_new = |message: &Stored| given.get(&message.subject).is_none_or(|last| message.seq > *last);
        self.found.extend(got.messages.into_iter().filter(is_new));
        if let Some(last) = last {
            self.certain_upto(last);
        }
        self.is_behind = got.pending > 0 && last.is_some();
        Ok(())
    }

    /// Takes an announcement; `None` if it is an old one, or if something is missing before it.
    fn take(&mut self, message: async_nats::Message) -> Option<Stored> {
        let message = Stored::of(message)?;
        let seen = self.last.get(&message.subject).copied().unwrap_or(0).max(self.covered);
        if message.seq <= seen {
            return None;
        }
        if message.last.is_some_and(|last| last > seen) {
            tracing::debug!(
                subject = message.subject,
                seq = message.seq,
                "a live message was missed, reading it"
            );
            self.is_behind = true;
            return None;
        }
        self.position = self.position.max(message.seq);
        self.last.insert(message.subject.clone(), message.seq);
        self.period.1 += 1;
        if self.period.1 >= CERTAIN_AFTER {
            let before = self.period.0;
            self.period = (self.position, 0);
            self.certain_upto(before);
        }
        Some(message)
    }

    fn certain_upto(&mut self, seq: u64) {
        self.covered = self.covered.max(seq);
        self.position = self.position.max(seq);
        let covered = self.covered;
        self.last.retain(|_, last| *last > covered);
    }
}

/// A tail for readers of the log.
pub(super) struct NatsTail {
    follower: Follower,
    after: Seq,
    /// Not given out yet.
    entries: VecDeque<Arc<Entry>>,
}

impl NatsTail {
    pub(super) fn new(follower: Follower, after: Seq) -> Self {
        Self { follower, after, entries: VecDeque::new() }
    }

    /// The next entry, if it need not be waited for.
    fn ready(&mut self) -> Option<Arc<Entry>> {
        loop {
            match self.entries.pop_front() {
                Some(entry) if entry.seq > self.after => return Some(entry),
                Some(_) => {}
                None => self.follower.ready()?.entries(&mut self.entries),
            }
        }
    }
}

#[async_trait]
impl TailSource for NatsTail {
    async fn next_batch(&mut self, limit: ReadLimit) -> Result<Vec<Arc<Entry>>, ReadError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            // Nothing is awaited while the batch holds something: a cancelled wait loses nothing.
            while let Some(entry) = self.ready() {
                bytes += entry.body.len();
                if !batch.is_empty() && bytes > limit.bytes_max {
                    self.entries.push_front(entry);
                    return Ok(batch);
                }
                batch.push(entry);
                if batch.len() >= limit.entries_max {
                    return Ok(batch);
                }
            }
            if !batch.is_empty() {
                return Ok(batch);
            }
            self.follower.wait().await?;
        }
    }
}
