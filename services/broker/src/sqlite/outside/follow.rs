//! Tails and watches from outside: they look again when a task has seen that the file changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::watch;

use super::session::Stamp;
use super::{Outside, Progress};
use crate::sqlite::{kv, load};
use crate::{
    Bucket, Entry, Filter, KvChange, KvError, KvSource, ReadError, ReadFrom, ReadLimit, Revision, Seq,
    TailSource,
};

/// How often the file is looked at: what was acknowledged is shown within 100 ms, and most of that is other people's.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// Of two changes within this time the second may leave no trace in the file's times: their clock ticks at 100 Hz at least.
const TICK_NANOS: i128 = 50_000_000;

/// What changes when something is stored or a key is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mark {
    last_seq: i64,
    kv_revision: u64,
    /// Why it could not be found out.
    failed: Option<Arc<str>>,
}

/// Starts the task that looks at the file, if it is not there. It ends when the reader is closed.
pub(super) fn watch_file(outside: &Arc<Outside>) {
    if outside.begins_to_watch() {
        tokio::spawn(watch_until_closed(outside.clone()));
    }
}

async fn watch_until_closed(outside: Arc<Outside>) {
    let mut seen: Option<Stamp> = None;
    loop {
        // Before the look: what comes behind it is seen the next time.
        let (now, stamp) = (nanos_now(), Stamp::of(&outside.path).ok());
        if stamp.is_none() || stamp != seen {
            let looked = outside.look(|_, conn| {
                let last_seq =
                    conn.query_row("SELECT coalesce(max(seq), 0) FROM entry", [], |row| row.get(0))?;
                Ok(Mark { last_seq, kv_revision: load::meta(conn, "kv_revision")?, failed: None })
            });
            let mark = looked.await.unwrap_or_else(|error| Mark {
                failed: Some(error.to_string().into()),
                ..outside.mark.borrow().clone()
            });
            seen = stamp.filter(|stamp| mark.failed.is_none() && now - stamp.written() > TICK_NANOS);
            outside.mark.send_if_modified(|known| {
                let is_new = *known != mark;
                *known = mark;
                is_new
            });
        }
        // Cancel-safe: both only wait.
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            () = outside.closed.cancelled() => return,
        }
    }
}

fn nanos_now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

impl Outside {
    /// Waits until the file changes after `seen` was last looked at.
    async fn changed(&self, seen: &mut watch::Receiver<Mark>) -> Result<(), ReadError> {
        if let Some(why) = &seen.borrow().failed {
            return Err(ReadError::Unavailable(why.as_ref().into()));
        }
        // Cancel-safe: both only wait.
        tokio::select! {
            _ = seen.changed() => Ok(()),
            () = self.closed.cancelled() => Err(ReadError::Closed),
        }
    }
}

/// A position in the log.
pub(super) struct OutsideTail {
    outside: Arc<Outside>,
    seen: watch::Receiver<Mark>,
    filter: Filter,
    /// Everything up to here was handed out or does not match.
    at: u64,
}

impl OutsideTail {
    pub(super) fn new(outside: Arc<Outside>, filter: Filter, after: Seq) -> Self {
        let seen = outside.mark.subscribe();
        Self { outside, seen, filter, at: after.0 }
    }
}

#[async_trait]
impl TailSource for OutsideTail {
    /// Cancel-safe: the position moves only when the entries are returned, without an await in between.
    async fn next_batch(&mut self, limit: ReadLimit) -> Result<Vec<Arc<Entry>>, ReadError> {
        loop {
            self.seen.mark_unchanged();
            let progress = Progress { from: ReadFrom::After(Seq(self.at)), limit, taken: 0, bytes: 0 };
            let look = self.outside.answer(&self.filter, progress).await?;
            self.at = self.at.max(look.examined);
            if !look.page.entries.is_empty() {
                return Ok(look.page.entries);
            }
            if !look.interrupted {
                self.outside.changed(&mut self.seen).await?;
            }
        }
    }
}

/// A bucket that is read anew when the file has changed, and compared.
pub(super) struct OutsideWatch {
    outside: Arc<Outside>,
    seen: watch::Receiver<Mark>,
    bucket: Bucket,
    /// Keys and their revisions, as they were handed out or wait in `changes`.
    known: BTreeMap<String, Revision>,
    /// No more than the bucket has keys.
    changes: VecDeque<KvChange>,
    revision: Option<u64>,
}

impl OutsideWatch {
    pub(super) fn new(outside: Arc<Outside>, bucket: Bucket) -> Self {
        let seen = outside.mark.subscribe();
        Self { outside, seen, bucket, known: BTreeMap::new(), changes: VecDeque::new(), revision: None }
    }

    /// Finds out what has changed. Cancel-safe: nothing is noted before all is.
    pub(super) async fn refresh(&mut self) -> Result<(), KvError> {
        self.seen.mark_unchanged();
        let (bucket, known) = (self.bucket.clone(), self.revision);
        let looked = self.outside.look(move |_, conn| {
            if known == Some(load::meta(conn, "kv_revision")?) {
                return Ok(None);
            }
            kv::snapshot(conn, &bucket).map(Some)
        });
        let looked = looked.await.map_err(|error| KvError::Unavailable(error.to_string()))?;
        let Some((mut entries, revision)) = looked else { return Ok(()) };
        let before = std::mem::take(&mut self.known);
        self.known = entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect();
        let gone = before.keys().filter(|key| !self.known.contains_key(*key));
        self.changes.extend(gone.map(|key| KvChange::Delete { key: key.clone() }));
        entries.sort_by_key(|entry| entry.revision);
        let is_new = |entry: &crate::KvEntry| before.get(&entry.key) != Some(&entry.revision);
        self.changes.extend(entries.into_iter().filter(is_new).map(KvChange::Put));
        if self.revision.replace(revision).is_none() {
            self.changes.push_back(KvChange::Current);
        }
        Ok(())
    }
}

#[async_trait]
impl KvSource for OutsideWatch {
    async fn next(&mut self) -> Result<KvChange, KvError> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Ok(change);
            }
            self.outside.changed(&mut self.seen).await?;
            self.refresh().await?;
        }
    }
}
