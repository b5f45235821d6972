//! Live tails: a position in the log and a place among the followers.

use std::sync::Arc;

use async_trait::async_trait;

use super::hub::Following;
use super::index::StreamAt;
use super::read::Question;
use super::shared::Shared;
use crate::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, TailSource};

/// One tail. While idle it is this and its signal, nothing else.
pub(super) struct SqliteTail {
    shared: Arc<Shared>,
    following: Following,
    filter: Filter,
    stream: StreamAt,
    /// Everything up to here was handed out or does not match.
    at: u64,
}

impl SqliteTail {
    pub(super) fn new(shared: Arc<Shared>, filter: &Filter, stream: StreamAt, after: Seq) -> Self {
        let following = shared.hub.follow(filter);
        Self { shared, following, filter: filter.clone(), stream, at: after.0 }
    }
}

#[async_trait]
impl TailSource for SqliteTail {
    /// Cancel-safe: the position moves only when the entries are returned, without an await in between.
    async fn next_batch(&mut self, limit: ReadLimit) -> Result<Vec<Arc<Entry>>, ReadError> {
        loop {
            self.following.signal.clear();
            let from = ReadFrom::After(Seq(self.at));
            let question = Question::new(&self.filter, self.stream, from, limit);
            let look = self.shared.look(question).await?;
            self.at = self.at.max(look.examined);
            if !look.page.entries.is_empty() {
                return Ok(look.page.entries);
            }
            if !look.interrupted {
                self.following.signal.raised().await;
            }
        }
    }
}
