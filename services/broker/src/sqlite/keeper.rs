//! The thread that keeps time and the size of the write-ahead log: it asks the writer to expire keys when they are
//! due, and copies the log into the database beside the writer's work.
//!
//! A checkpoint here never stops the writer. But under steady writing it never catches up, and the log would grow: so
//! the writer itself copies the little that was added meanwhile, and the log can start over.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::op::Op;
use super::options::Options;
use super::schema;
use crate::{OpenError, Timestamp};

/// How often trimmed rows are looked for whose ids may be forgotten.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// When the writer's queue was full, the next attempt to ask it.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Wishes {
    /// When the next key expires: microseconds since 1970.
    expire_at: Option<u64>,
    checkpoint: bool,
    /// A checkpoint is done; the writer shall add its remainder.
    remainder: bool,
    stop: bool,
}

/// What the thread is to do. See the module.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    wishes: Mutex<Wishes>,
    changed: Condvar,
}

impl Keeper {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.wishes());
        self.changed.notify_one();
    }

    /// A key expires then.
    pub(super) fn expire_at(&self, at: u64) {
        let mut wishes = self.wishes();
        if wishes.expire_at.is_none_or(|before| at < before) {
            wishes.expire_at = Some(at);
            self.changed.notify_one();
        }
    }

    /// The write-ahead log has become long.
    pub(super) fn checkpoint(&self) {
        self.wish(|wishes| wishes.checkpoint = true);
    }

    /// Whether the writer shall add the remainder of a checkpoint; asked once.
    pub(super) fn take_remainder(&self) -> bool {
        std::mem::take(&mut self.wishes().remainder)
    }

    pub(super) fn stop(&self) {
        self.wish(|wishes| wishes.stop = true);
    }

    pub(super) fn start(
        self: &Arc<Self>,
        options: &Options,
        ops: mpsc::Sender<Op>,
    ) -> Result<JoinHandle<()>, OpenError> {
        let conn = schema::reopen(options).map_err(|error| schema::explain(&options.path, &error))?;
        let keeper = self.clone();
        std::thread::Builder::new()
            .name("broker-keep".into())
            .spawn(move || keeper.run(&conn, &ops))
            .map_err(|error| OpenError::Unreachable(format!("no thread for checkpoints: {error}")))
    }

    fn run(&self, conn: &Connection, ops: &mpsc::Sender<Op>) {
        let mut purge_at = Instant::now() + PURGE_EVERY;
        let mut wishes = self.wishes();
        while !wishes.stop {
            if std::mem::take(&mut wishes.checkpoint) {
                drop(wishes);
                if let Err(error) = passive(conn) {
                    tracing::warn!(%error, "a checkpoint failed; the next one does its work");
                }
                self.wishes().remainder = true;
                let _ = ops.try_send(Op::Nudge);
                wishes = self.wishes();
                continue;
            }
            let now = Timestamp::now().0;
            let mut wait = purge_at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                purge_at = Instant::now() + PURGE_EVERY;
                let _ = ops.try_send(Op::Purge);
                continue;
            }
            if let Some(at) = wishes.expire_at {
                let due_in = Duration::from_micros(at.saturating_sub(now));
                if due_in.is_zero() {
                    match ops.try_send(Op::Expire) {
                        // The writer says when the next one is due.
                        Ok(()) => wishes.expire_at = None,
                        Err(_) => wait = wait.min(AGAIN_AFTER),
                    }
                } else {
                    wait = wait.min(due_in);
                }
            }
            wishes = self.changed.wait_timeout(wishes, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Copies what it can without stopping anybody. Returns the log's length and how much of it is copied, in pages.
pub(super) fn passive(conn: &Connection) -> rusqlite::Result<(i64, i64)> {
    pragma(conn, "PRAGMA wal_checkpoint(PASSIVE)")
}

/// Tells the same without copying.
pub(super) fn wal_pages(conn: &Connection) -> rusqlite::Result<(i64, i64)> {
    pragma(conn, "PRAGMA wal_checkpoint(NOOP)")
}

/// Waits for readers and another checkpoint, copies all, and lets the log start over.
pub(super) fn restart(conn: &Connection) -> rusqlite::Result<(i64, i64)> {
    pragma(conn, "PRAGMA wal_checkpoint(RESTART)")
}

fn pragma(conn: &Connection, sql: &str) -> rusqlite::Result<(i64, i64)> {
    conn.prepare_cached(sql)?.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}
