//! The streams of a realm as one sequence of entries.
//!
//! A stored range is read in pages, one ahead of what is handed out, and merged by time; entries of one moment come in the
//! order of their sequences, or where each stream has its own, in the order of the streams first. So the same range always gives the same entries in the same order.
//! What comes live afterwards is handed out as it comes.

use std::collections::VecDeque;
use std::sync::Arc;

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, SharedBroker, Timestamp};
use antar_proto::RealmId;
use antar_realm::traffic::{Kind, Spot, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::range::{Bound, Part, Range, RangeError, Sequences};

/// One page of one filter. There are seven filters, and three pages of each at a time: in use, waiting, being read.
const PAGE: ReadLimit = ReadLimit { entries_max: 4_096, bytes_max: 2 * 1024 * 1024 };
/// Live batches that wait to be handed out.
const LIVE_BATCHES_MAX: usize = 16;

/// What is read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Of which realm.
    pub realm: RealmId,
    /// Which kinds; each once, in the order of [`Kind`].
    pub kinds: Vec<Kind>,
    /// From here on; from the beginning.
    pub from: Option<Bound>,
    /// Up to here; up to what is there when the reading begins.
    pub to: Option<Bound>,
    /// How the broker counts.
    pub sequences: Sequences,
}

/// See the module.
pub struct Merged {
    broker: SharedBroker,
    cursors: Vec<Cursor>,
    live: Option<mpsc::Receiver<Result<Vec<Arc<Entry>>, ReadError>>>,
    ready: VecDeque<Arc<Entry>>,
    tasks: JoinSet<()>,
}

/// What entries are put in order by.
type Key = (Timestamp, Option<Stream>, Seq);

/// The entries of one filter.
struct Cursor {
    /// Its place among streams with sequences of their own.
    stream: Option<Stream>,
    filter: Filter,
    /// The last entry there was when the reading began: what is live comes behind it.
    end: Seq,
    ahead: VecDeque<Arc<Entry>>,
    /// `None` when all was read.
    pages: Option<mpsc::Receiver<Result<Vec<Arc<Entry>>, ReadError>>>,
}

impl Merged {
    /// Begins to read.
    pub async fn open(broker: &SharedBroker, reading: &Reading) -> Result<Self, RangeError> {
        let Reading { realm, kinds, from, to, sequences } = reading;
        let range = Range { broker, realm, kinds, sequences: *sequences };
        let mut merged = Self {
            broker: broker.clone(),
            cursors: Vec::new(),
            live: None,
            ready: VecDeque::new(),
            tasks: JoinSet::new(),
        };
        let mut parts: Vec<(Stream, Part)> = Vec::new();
        for kind in kinds {
            let stream = kind.stream();
            let part = match parts.iter().find(|(other, _)| *other == stream) {
                Some((_, part)) => *part,
                None => {
                    let part = range.part(stream, *from, *to).await?;
                    parts.push((stream, part));
                    part
                }
            };
            for filter in kind.filters(realm) {
                let newest = broker.read(&filter, ReadFrom::End, ReadLimit::entries(1)).await?;
                let end = newest.entries.first().map_or(Seq::ZERO, |entry| entry.seq);
                let part = Part { seq_max: part.seq_max.min(end), ..part };
                let pages = (end > Seq::ZERO).then(|| merged.read_ahead(filter.clone(), part));
                let stream = (*sequences == Sequences::PerStream).then_some(stream);
                merged.cursors.push(Cursor { stream, filter, end, ahead: VecDeque::new(), pages });
            }
        }
        Ok(merged)
    }

    /// Reads one filter's part in pages, one ahead.
    fn read_ahead(
        &mut self,
        filter: Filter,
        part: Part,
    ) -> mpsc::Receiver<Result<Vec<Arc<Entry>>, ReadError>> {
        let (sender, pages) = mpsc::channel(1);
        let broker = self.broker.clone();
        self.tasks.spawn(async move {
            let Part { mut from, seq_max, time_max } = part;
            loop {
                let page = match broker.read(&filter, from, PAGE).await {
                    Ok(page) => page,
                    Err(error) => return drop(sender.send(Err(error)).await),
                };
                let Some(last) = page.entries.last().map(|entry| entry.seq) else { return };
                let mut entries = page.entries;
                let is_within = |entry: &Arc<Entry>| entry.seq <= seq_max && entry.time <= time_max;
                let within = entries.iter().position(|entry| !is_within(entry)).unwrap_or(entries.len());
                let ends = within < entries.len() || !page.more || last >= seq_max;
                entries.truncate(within);
                if (!entries.is_empty() && sender.send(Ok(entries)).await.is_err()) || ends {
                    return;
                }
                from = ReadFrom::After(last);
            }
        });
        pages
    }

    /// The next entry, without those that only mark who works; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Arc<Entry>>, ReadError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            let entry = match &mut self.live {
                None => self.next_stored().await?,
                Some(live) => match live.recv().await {
                    Some(batch) => {
                        self.ready.extend(batch?.into_iter().filter(is_shown));
                        continue;
                    }
                    None => None,
                },
            };
            match entry {
                Some(entry) if !is_shown(&entry) => {}
                entry => return Ok(entry),
            }
        }
    }

    /// Whether the next entry is here already: if not, whoever writes entries out should not keep them back.
    pub fn is_ready(&self) -> bool {
        let has_next = |cursor: &Cursor| cursor.pages.is_none() || !cursor.ahead.is_empty();
        !self.ready.is_empty() || (self.live.is_none() && self.cursors.iter().all(has_next))
    }

    async fn next_stored(&mut self) -> Result<Option<Arc<Entry>>, ReadError> {
        let mut first: Option<(Key, usize)> = None;
        for (at, cursor) in self.cursors.iter_mut().enumerate() {
            while cursor.ahead.is_empty()
                && let Some(pages) = &mut cursor.pages
            {
                match pages.recv().await {
                    Some(page) => cursor.ahead.extend(page?),
                    None => cursor.pages = None,
                }
            }
            let Some(entry) = cursor.ahead.front() else { continue };
            let key = (entry.time, cursor.stream, entry.seq);
            if first.is_none_or(|(least, _)| key < least) {
                first = Some((key, at));
            }
        }
        Ok(first.and_then(|(_, at)| self.cursors[at].ahead.pop_front()))
    }

    /// Goes on with what is stored from now on: what came since the reading began first. To be called at the end.
    pub async fn follow(&mut self) -> Result<(), ReadError> {
        let (sender, live) = mpsc::channel(LIVE_BATCHES_MAX);
        for cursor in &self.cursors {
            let mut tail = self.broker.tail(&cursor.filter, cursor.end).await?;
            let sender = sender.clone();
            self.tasks.spawn(async move {
                loop {
                    let batch = tail.next_batch(PAGE).await;
                    let failed = batch.is_err();
                    if sender.send(batch).await.is_err() || failed {
                        return;
                    }
                }
            });
        }
        self.live = Some(live);
        Ok(())
    }
}

fn is_shown(entry: &Arc<Entry>) -> bool {
    Spot::of(&entry.subject).is_some()
}
