//! The entries of a stream, in their order, whatever filters it has. Owns the merging; a read is of one filter.

use std::collections::VecDeque;
use std::sync::Arc;

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, SharedBroker, StreamSpec};

/// How much of one filter is in memory at once.
const PAGE: ReadLimit = ReadLimit { entries_max: 2_000, bytes_max: 4 * 1024 * 1024 };

/// The entries of one filter.
struct Part {
    filter: Filter,
    after: Seq,
    page: VecDeque<Arc<Entry>>,
    more: bool,
}

/// Reads a stream up to a sequence.
pub(super) struct Source<'a> {
    broker: &'a SharedBroker,
    parts: Vec<Part>,
    upto: Seq,
}

impl<'a> Source<'a> {
    pub(super) fn new(broker: &'a SharedBroker, stream: &StreamSpec, upto: Seq) -> Self {
        let part = |filter: &Filter| Part {
            filter: filter.clone(),
            after: Seq::ZERO,
            page: VecDeque::new(),
            more: true,
        };
        Self { broker, parts: stream.filters.iter().map(part).collect(), upto }
    }

    /// The next entry.
    pub(super) async fn next(&mut self) -> Result<Option<Arc<Entry>>, ReadError> {
        for part in &mut self.parts {
            if part.page.is_empty() && part.more {
                let page = self.broker.read(&part.filter, ReadFrom::After(part.after), PAGE).await?;
                part.more = page.more;
                part.page = page.entries.into();
                part.after = part.page.back().map_or(part.after, |last| last.seq);
            }
        }
        let first = self.parts.iter_mut().filter(|part| !part.page.is_empty());
        let first = first.min_by_key(|part| part.page.front().map(|entry| entry.seq));
        let next = first.and_then(|part| part.page.pop_front());
        Ok(next.filter(|entry| entry.seq <= self.upto))
    }
}

/// The last sequence of a stream.
pub(super) async fn last(broker: &SharedBroker, stream: &StreamSpec) -> Result<Seq, ReadError> {
    let mut last = Seq::ZERO;
    for filter in &stream.filters {
        let page = broker.read(filter, ReadFrom::End, ReadLimit::entries(1)).await?;
        last = last.max(page.entries.first().map_or(Seq::ZERO, |entry| entry.seq));
    }
    Ok(last)
}
