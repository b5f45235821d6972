//! Reading a stream: by direct reads in batches, forward and backward.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::api::{API_TIMEOUT, Api, ApiError, BATCH_MAX, Get, Got};
use super::bundle::{self, first_after, message_of};
use super::message::{Stored, parse_time};
use super::streams::{Stream, Streams};
use crate::{Entry, Filter, Page, ReadError, ReadFrom, ReadLimit, Seq, Subject, Timestamp};

/// Most bytes of one answer.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many times more messages are read backward when those before held too few entries.
const BACKWARD_FACTOR: u64 = 16;
/// Bytes that headers and names may add to a body, for guessing how much to ask for.
const HEAD_BYTES: usize = 512;
/// Pause before a server that is behind is asked again.
const BEHIND_DELAY: Duration = Duration::from_millis(5);
/// A backward read that finds its part of the stream takes no more than this over what is wanted.
const SPARE_FACTOR: u64 = 4;
const SPARE: u64 = 64;

/// Reads streams. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) api: Api,
    pub(super) streams: Streams,
}

impl Reader {
    /// See [`crate::Broker::read`].
    pub(super) async fn read(
        &self,
        filter: &Filter,
        from: ReadFrom,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        let stream = self.streams.of(filter).await?;
        let filter = filter.as_str();
        match from {
            ReadFrom::After(seq) => {
                let range = Range { after: seq, before: None };
                self.forward(&stream, filter, Start::Seq(first_after(seq)), range, limit).await
            }
            ReadFrom::Since(time) => {
                let range = Range { after: Seq::ZERO, before: None };
                self.forward(&stream, filter, Start::Time(time), range, limit).await
            }
            ReadFrom::Before(seq) => self.backward(&stream, filter, seq, message_of(seq) + 1, limit).await,
            ReadFrom::End => {
                let end = self.streams.last(&stream.name).await? + 1;
                self.backward(&stream, filter, Seq(u64::MAX), end, limit).await
            }
        }
    }

    /// Entries that match, from a message on, within `range` and up to `limit`.
    async fn forward(
        &self,
        stream: &Stream,
        filter: &str,
        start: Start,
        range: Range,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        let (mut page, mut bytes) = (Page::default(), 0);
        let (mut start, mut entries) = (start, VecDeque::new());
        let deadline = Instant::now() + API_TIMEOUT;
        loop {
            let wanted = (limit.entries_max - page.entries.len() + 1).min(BATCH_MAX);
            let room = limit.bytes_max.saturating_sub(bytes).saturating_add((wanted + 1) * HEAD_BYTES);
            let got = self.batch(stream, filter, &start, wanted, room.min(BATCH_BYTES_MAX)).await?;
            let (found, pending) = (got.messages.len(), got.pending);
            for message in got.messages {
                start = Start::Seq(message.seq + 1);
                message.entries(&mut entries);
                for entry in entries.drain(..).filter(|entry| entry.seq > range.after) {
                    if range.before.is_some_and(|before| entry.seq >= before) {
                        return Ok(page);
                    }
                    bytes += entry.body.len();
                    let is_full = page.entries.len() == limit.entries_max || bytes > limit.bytes_max;
                    if is_full && !page.entries.is_empty() {
                        page.more = true;
                        return Ok(page);
                    }
                    page.entries.push(entry);
                }
            }
            if pending > 0 && found > 0 {
                continue;
            }
            // A server that is behind does not know yet what the leader has acknowledged.
            if !stream.is_replicated || !self.leader_has_more(stream, filter, &start).await? {
                return Ok(page);
            }
            if Instant::now() > deadline {
                return Err(ReadError::Unavailable("the replica that is read is behind".into()));
            }
            sleep(BEHIND_DELAY).await;
        }
    }

    async fn batch(
        &self,
        stream: &Stream,
        filter: &str,
        start: &Start,
        batch: usize,
        bytes: usize,
    ) -> Result<Got, ReadError> {
        let (seq, start_time) = match start {
            Start::Seq(seq) => (Some((*seq).max(1)), None),
            Start::Time(time) => (None, Some(rfc3339(*time))),
        };
        let get = Get {
            seq,
            start_time,
            next_by_subj: Some(filter),
            batch: Some(batch),
            max_bytes: Some(bytes),
            ..Get::default()
        };
        self.api.get(&stream.name, &get).await
    }

    /// Whether the stream's leader has a message that matches from here on.
    async fn leader_has_more(&self, stream: &Stream, filter: &str, start: &Start) -> Result<bool, ReadError> {
        let get = match start {
            Start::Seq(seq) => Get { seq: Some((*seq).max(1)), next_by_subj: Some(filter), ..Get::default() },
            // Asked only when nothing was found: what the last one is tells.
            Start::Time(time) => {
                let Some((_, last)) = self.leader_get(stream, &Get::last(filter)).await? else {
                    return Ok(false);
                };
                return Ok(last >= *time);
            }
        };
        Ok(self.leader_get(stream, &get).await?.is_some())
    }

    /// Sequence and time of a message, as the leader has it.
    async fn leader_get(
        &self,
        stream: &Stream,
        get: &Get<'_>,
    ) -> Result<Option<(u64, Timestamp)>, ReadError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            seq: u64,
            time: String,
        }
        match self.api.ask::<Answer>(&format!("STREAM.MSG.GET.{}", stream.name), get).await {
            Ok(Answer { message: Message { seq, time } }) => {
                Ok(Some((seq, parse_time(&time).unwrap_or_default())))
            }
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    /// Messages that match from `seq` on, read behind the subscriptions that were made before. That nothing is pending
    /// is true of the leader, too.
    pub(super) async fn behind_live(
        &self,
        stream: &Stream,
        filter: &str,
        seq: u64,
        limit: (usize, usize),
    ) -> Result<Got, ReadError> {
        let deadline = Instant::now() + API_TIMEOUT;
        loop {
            let mut got = self.batch_behind_live(stream, filter, seq, limit).await?;
            if got.pending > 0 || !stream.is_replicated {
                return Ok(got);
            }
            let next = got.messages.last().map_or(seq, |last| last.seq + 1);
            if !self.leader_has_more(stream, filter, &Start::Seq(next)).await? {
                return Ok(got);
            }
            if !got.messages.is_empty() {
                got.pending = 1;
                return Ok(got);
            }
            if Instant::now() > deadline {
                return Err(ReadError::Unavailable("the replica that is read is behind".into()));
            }
            sleep(BEHIND_DELAY).await;
        }
    }

    async fn batch_behind_live(
        &self,
        stream: &Stream,
        filter: &str,
        seq: u64,
        (batch, bytes): (usize, usize),
    ) -> Result<Got, ReadError> {
        let get = Get {
            seq: Some(seq),
            next_by_subj: Some(filter),
            batch: Some(batch),
            max_bytes: Some(bytes),
            ..Get::default()
        };
        self.api.get_behind_live(&stream.name, &get).await
    }

    /// How many messages match from `seq` on.
    async fn count_from(&self, stream: &Stream, filter: &str, seq: u64) -> Result<u64, ReadError> {
        let get = Get { seq: Some(seq), next_by_subj: Some(filter), batch: Some(1), ..Get::default() };
        let got = self.api.get(&stream.name, &get).await?;
        Ok(if got.messages.is_empty() { 0 } else { got.pending + 1 })
    }

    /// The newest entries before `before` that match, all in messages below `end`, newest first. The server reads forward only, so the place where as
    /// many begin as are wanted is found by counting.
    async fn backward(
        &self,
        stream: &Stream,
        filter: &str,
        before: Seq,
        end: u64,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        // One more tells whether there are more; of the last message nothing may lie before `before`.
        let most = limit.entries_max as u64 + 2;
        let behind = self.count_from(stream, filter, end).await?;
        // A message may hold many entries, so few are tried first.
        let mut wanted = most.min(8.max(most / BACKWARD_FACTOR));
        loop {
            let (page, begin) = self.last_of(stream, filter, (before, end), behind, wanted, limit).await?;
            if page.more || begin <= 1 || wanted >= most {
                return Ok(page);
            }
            wanted = most.min(wanted * BACKWARD_FACTOR);
        }
    }

    /// The newest entries of the last `wanted` messages below `end`, and the sequence from which it has looked.
    async fn last_of(
        &self,
        stream: &Stream,
        filter: &str,
        (before, end): (Seq, u64),
        behind: u64,
        wanted: u64,
        limit: ReadLimit,
    ) -> Result<(Page, u64), ReadError> {
        let (mut begin, mut too_late) = (end, end);
        let mut width = wanted.saturating_mul(2);
        let mut count = 0;
        while count < wanted && begin > 1 {
            too_late = begin;
            begin = end.saturating_sub(width).max(1);
            width = width.saturating_mul(16);
            count = self.count_from(stream, filter, begin).await?.saturating_sub(behind);
        }
        while count > wanted.saturating_mul(SPARE_FACTOR) + SPARE && too_late - begin > 1 {
            let middle = begin + (too_late - begin) / 2;
            let fewer = self.count_from(stream, filter, middle).await?.saturating_sub(behind);
            if fewer < wanted {
                too_late = middle;
            } else {
                (begin, count) = (middle, fewer);
            }
        }
        let mut newest = Newest::new(limit);
        let (mut from, mut after) = (begin, Seq::ZERO);
        // In steps, so that entries that are passed over do not add up in memory.
        let step = ReadLimit { entries_max: BATCH_MAX, bytes_max: 2 * BATCH_BYTES_MAX };
        loop {
            let range = Range { after, before: Some(before) };
            let page = self.forward(stream, filter, Start::Seq(from), range, step).await?;
            let last = page.entries.last().map(|entry| entry.seq);
            page.entries.into_iter().for_each(|entry| newest.push(entry));
            match last {
                Some(last) if page.more => (from, after) = (first_after(last), last),
                _ => break,
            }
        }
        Ok((newest.page(), begin))
    }

    /// See [`crate::Broker::last`].
    pub(super) async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        let stream = self.streams.of(&Filter::from(subject)).await?;
        let last = self.last_message(&stream, subject.as_str()).await?;
        Ok(last.map_or(Seq::ZERO, |message| bundle::seq(message.seq, 0, 1)))
    }

    /// The last message of a subject: with several replicas the leader's.
    pub(super) async fn last_message(
        &self,
        stream: &Stream,
        subject: &str,
    ) -> Result<Option<Stored>, ReadError> {
        let get = Get::last(subject);
        if !stream.is_replicated {
            return Ok(self.api.get(&stream.name, &get).await?.messages.pop());
        }
        let Some((seq, _)) = self.leader_get(stream, &get).await? else { return Ok(None) };
        let deadline = Instant::now() + API_TIMEOUT;
        loop {
            let got = self.api.get(&stream.name, &get).await?.messages.pop();
            if got.as_ref().is_some_and(|message| message.seq >= seq) {
                return Ok(got);
            }
            if Instant::now() > deadline {
                return Err(ReadError::Unavailable("the replica that is read is behind".into()));
            }
            sleep(BEHIND_DELAY).await;
            if self.leader_get(stream, &get).await?.is_none() {
                return Ok(None);
            }
        }
    }

    /// See [`crate::Broker::count`].
    pub(super) async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        let stream = self.streams.of(&Filter::from(subject)).await?;
        self.count_from(&stream, subject.as_str(), 1).await
    }

    /// How many entries of a subject there are behind `after`, and when the first of them was stored.
    pub(super) async fn waiting(
        &self,
        subject: &Subject,
        after: Seq,
    ) -> Result<(u64, Option<Timestamp>), ReadError> {
        let stream = self.streams.of(&Filter::from(subject)).await?;
        let got = self
            .batch(&stream, subject.as_str(), &Start::Seq(first_after(after)), 1, BATCH_BYTES_MAX)
            .await?;
        let oldest = got.messages.first().map(|message| message.time);
        Ok((if oldest.is_some() { got.pending + 1 } else { 0 }, oldest))
    }

    /// See [`crate::Broker::trim`].
    pub(super) async fn trim(&self, subject: &Subject, upto: Seq) -> Result<u64, ReadError> {
        #[derive(Deserialize)]
        struct Purged {
            #[serde(default)]
            purged: u64,
        }
        let stream = self.streams.of(&Filter::from(subject)).await?;
        let question = serde_json::json!({ "filter": subject.as_str(), "seq": first_after(upto) });
        let answer = self.api.ask::<Purged>(&format!("STREAM.PURGE.{}", stream.name), &question).await;
        answer.map(|answer| answer.purged).map_err(|error| ReadError::Unavailable(error.to_string()))
    }
}

impl<'a> Get<'a> {
    fn last(subject: &'a str) -> Self {
        Self { last_by_subj: Some(subject), ..Self::default() }
    }
}

/// Which entries a forward read gives: those behind one and before another.
#[derive(Clone, Copy)]
struct Range {
    after: Seq,
    before: Option<Seq>,
}

/// Where a forward read begins.
enum Start {
    Seq(u64),
    Time(Timestamp),
}

/// A time as the API takes it.
fn rfc3339(time: Timestamp) -> String {
    let micros = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The newest entries of those that come by, as many as the limit lets.
struct Newest {
    limit: ReadLimit,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    left_out: bool,
}

impl Newest {
    fn new(limit: ReadLimit) -> Self {
        Self { limit, entries: VecDeque::new(), bytes: 0, left_out: false }
    }

    fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.body.len();
        self.entries.push_back(entry);
        while self.entries.len() > 1
            && (self.entries.len() > self.limit.entries_max || self.bytes > self.limit.bytes_max)
        {
            let oldest = self.entries.pop_front().expect("there are two at least");
            self.bytes -= oldest.body.len();
            self.left_out = true;
        }
    }

    fn page(self) -> Page {
        Page { more: self.left_out, entries: self.entries.into_iter().rev().collect() }
    }
}
