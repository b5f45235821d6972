//! The key-value store: its writes inside the writer's transaction, its reads, its watchers.
//!
//! Revisions are one count for the whole file; the last one is kept in `meta`, so that none is given twice.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};

use super::op::KvWrite;
use super::read::{from_sql, to_sql};
use super::shared::Shared;
use super::state::{Batch, State};
use crate::{Bucket, Expect, KvChange, KvEntry, KvError, KvSource, Revision, Timestamp};

/// Changes that a watcher may be behind. One that falls further behind is ended, and opens a new watch.
const BEHIND_MAX: usize = 4096;
/// Expired keys removed in one transaction.
const EXPIRED_MAX: usize = 512;

/// A committed change.
#[derive(Debug, Clone)]
pub(super) struct KvEvent {
    bucket: Bucket,
    revision: u64,
    change: KvChange,
}

impl State {
    /// Makes one write part of the transaction. The inner error leaves the transaction as it is.
    pub(super) fn kv_write(
        &mut self,
        conn: &Connection,
        batch: &mut Batch,
        write: KvWrite,
    ) -> rusqlite::Result<Result<Revision, KvError>> {
        let KvWrite { bucket, key, value, expect } = write;
        let now = Timestamp::now().0;
        let there: Option<i64> = conn
            .prepare_cached(
                "SELECT revision FROM kv WHERE bucket = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?3)",
            )?
            .query_row((bucket.as_str(), &key, to_sql(now)), |row| row.get(0))
            .optional()?;
        let met = match expect {
            Expect::Any => true,
            Expect::Absent => there.is_none(),
            Expect::Revision(revision) => there.map(from_sql) == Some(revision.0),
        };
        if !met {
            return Ok(Err(KvError::Conflict));
        }
        if value.is_none() && there.is_none() {
            return Ok(Ok(Revision(self.kv_revision)));
        }
        self.kv_revision += 1;
        let revision = self.kv_revision;
        let change = match value {
            Some((value, ttl)) => {
                let expires =
                    ttl.map(|ttl| now.saturating_add(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX)));
                conn.prepare_cached(
                    "INSERT OR REPLACE INTO kv(bucket, key, revision, expires, value) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((bucket.as_str(), &key, to_sql(revision), expires.map(to_sql), &value[..]))?;
                batch.expires = batch.expires.into_iter().chain(expires).min();
                KvChange::Put(KvEntry { key, value, revision: Revision(revision) })
            }
            None => {
                conn.prepare_cached("DELETE FROM kv WHERE bucket = ?1 AND key = ?2")?
                    .execute((bucket.as_str(), &key))?;
                KvChange::Delete { key }
            }
        };
        batch.kv.push(KvEvent { bucket, revision, change });
        Ok(Ok(Revision(revision)))
    }

    /// Removes keys whose time has come, and finds out when the next one's comes.
    pub(super) fn kv_expire(&mut self, conn: &Connection, batch: &mut Batch) -> rusqlite::Result<()> {
        let now = to_sql(Timestamp::now().0);
        let mut due = conn.prepare_cached(
            "SELECT bucket, key FROM kv WHERE expires IS NOT NULL AND expires <= ?1 LIMIT ?2",
        )?;
        let due: Vec<(String, String)> = due
            .query_map((now, EXPIRED_MAX as i64), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (bucket, key) in due {
            conn.prepare_cached("DELETE FROM kv WHERE bucket = ?1 AND key = ?2")?.execute((&bucket, &key))?;
            self.kv_revision += 1;
            if let Some(bucket) = Bucket::new(&bucket) {
                batch.kv.push(KvEvent {
                    bucket,
                    revision: self.kv_revision,
                    change: KvChange::Delete { key },
                });
            }
        }
        batch.expires = next_expiry(conn)?.into_iter().chain(batch.expires).min();
        Ok(())
    }

    /// Writes the last revision down. To be called once, after the transaction's last write.
    pub(super) fn kv_finish(&self, conn: &Connection, batch: &Batch) -> rusqlite::Result<()> {
        if !batch.kv.is_empty() {
            conn.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'kv_revision'")?
                .execute([to_sql(self.kv_revision)])?;
        }
        Ok(())
    }
}

/// When the next key expires.
pub(super) fn next_expiry(conn: &Connection) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT min(expires) FROM kv WHERE expires IS NOT NULL";
    let next: Option<i64> = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(next.map(from_sql))
}

pub(super) async fn get(
    shared: &Arc<Shared>,
    bucket: &Bucket,
    key: &str,
) -> Result<Option<KvEntry>, KvError> {
    crate::kv::check(key, &[])?;
    let (bucket, key) = (bucket.clone(), key.to_owned());
    shared.pool.run(move |conn| find(conn, &bucket, &key)).await.map_err(KvError::Unavailable)
}

/// One key, as it is now.
pub(super) fn find(conn: &Connection, bucket: &Bucket, key: &str) -> rusqlite::Result<Option<KvEntry>> {
    let sql = "SELECT value, revision FROM kv
               WHERE bucket = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?3)";
    let found: Option<(Vec<u8>, i64)> = conn
        .prepare_cached(sql)?
        .query_row((bucket.as_str(), key, to_sql(Timestamp::now().0)), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.map(|(value, revision)| KvEntry {
        key: key.to_owned(),
        value: value.into(),
        revision: Revision(from_sql(revision)),
    }))
}

#[derive(Debug, Default)]
struct Watcher(Mutex<WatcherState>);

#[derive(Debug, Default)]
struct WatcherState {
    /// Bounded by [`BEHIND_MAX`].
    changes: VecDeque<(u64, KvChange)>,
    ended: Option<&'static str>,
    waker: Option<Waker>,
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, WatcherState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, why: &'static str) {
        let waker = {
            let mut state = self.state();
            state.ended = Some(why);
            state.changes = VecDeque::new();
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// All watchers of one broker.
#[derive(Debug, Default)]
pub(super) struct KvHub(Mutex<HashMap<Bucket, Vec<Arc<Watcher>>>>);

impl KvHub {
    fn watchers(&self) -> MutexGuard<'_, HashMap<Bucket, Vec<Arc<Watcher>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands committed changes to those who watch.
    pub(super) fn publish(&self, events: Vec<KvEvent>) {
        let mut wakers = Vec::new();
        let watchers = self.watchers();
        for event in &events {
            for watcher in watchers.get(&event.bucket).map_or(&[][..], Vec::as_slice) {
                let mut state = watcher.state();
                if state.ended.is_some() {
                    continue;
                }
                if state.changes.len() == BEHIND_MAX {
                    state.ended = Some("the watch fell behind");
                    state.changes = VecDeque::new();
                } else {
                    state.changes.push_back((event.revision, event.change.clone()));
                }
                wakers.extend(state.waker.take());
            }
        }
        drop(watchers);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn end_all(&self) {
        let watchers: Vec<_> = self.watchers().values().flatten().cloned().collect();
        for watcher in watchers {
            watcher.end("the broker was closed");
        }
    }
}

/// One watch: what was there, then what changed since.
struct SqliteWatch {
    shared: Arc<Shared>,
    bucket: Bucket,
    watcher: Arc<Watcher>,
    snapshot: std::vec::IntoIter<KvEntry>,
    /// The snapshot has everything up to this revision.
    revision: u64,
    current: bool,
}

pub(super) async fn watch(shared: &Arc<Shared>, bucket: &Bucket) -> Result<impl KvSource + 'static, KvError> {
    // First among the watchers, then the snapshot: a change in between is in both, and its revision tells so.
    let watcher = Arc::new(Watcher::default());
    shared.kv.watchers().entry(bucket.clone()).or_default().push(watcher.clone());
    let mut watch = SqliteWatch {
        shared: shared.clone(),
        bucket: bucket.clone(),
        watcher,
        snapshot: Vec::new().into_iter(),
        revision: 0,
        current: false,
    };
    if shared.is_closed() {
        return Err(KvError::Unavailable("the broker was closed".into()));
    }
    let bucket = bucket.clone();
    let snapshot = shared
        .pool
        .run(move |conn| snapshot(&*conn.unchecked_transaction()?, &bucket))
        .await
        .map_err(KvError::Unavailable)?;
    (watch.snapshot, watch.revision) = (snapshot.0.into_iter(), snapshot.1);
    Ok(watch)
}

/// All live keys, and the revision up to which they are so. In a transaction, so that both are of one moment.
pub(super) fn snapshot(tx: &Connection, bucket: &Bucket) -> rusqlite::Result<(Vec<KvEntry>, u64)> {
    let revision = tx.query_row("SELECT value FROM meta WHERE key = 'kv_revision'", [], |row| row.get(0))?;
    let sql = "SELECT key, value, revision FROM kv
               WHERE bucket = ?1 AND (expires IS NULL OR expires > ?2) ORDER BY key";
    let mut statement = tx.prepare_cached(sql)?;
    let entries = statement.query_map((bucket.as_str(), to_sql(Timestamp::now().0)), |row| {
        let value: Vec<u8> = row.get(1)?;
        Ok(KvEntry { key: row.get(0)?, value: value.into(), revision: Revision(from_sql(row.get(2)?)) })
    })?;
    Ok((entries.collect::<Result<_, _>>()?, from_sql(revision)))
}

#[async_trait]
impl KvSource for SqliteWatch {
    async fn next(&mut self) -> Result<KvChange, KvError> {
        if let Some(entry) = self.snapshot.next() {
            return Ok(KvChange::Put(entry));
        }
        if !std::mem::replace(&mut self.current, true) {
            return Ok(KvChange::Current);
        }
        poll_fn(|cx| {
            let mut state = self.watcher.state();
            while let Some((revision, change)) = state.changes.pop_front() {
                if revision > self.revision {
                    return Poll::Ready(Ok(change));
                }
            }
            if let Some(why) = state.ended {
                return Poll::Ready(Err(KvError::Unavailable(why.into())));
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for SqliteWatch {
    fn drop(&mut self) {
        let mut watchers = self.shared.kv.watchers();
        if let Some(all) = watchers.get_mut(&self.bucket) {
            all.retain(|other| !Arc::ptr_eq(other, &self.watcher));
            if all.is_empty() {
                watchers.remove(&self.bucket);
            }
        }
    }
}
