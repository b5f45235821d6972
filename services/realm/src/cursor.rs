//! Cursors: how far each user has read each box. A cursor only ever grows, so whoever knows a higher one is right.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use antar_broker::{Expect, KvError, Seq};
use antar_proto::{MessageId, RealmId, UserName};
use tokio::sync::Notify;

use crate::copy::KvCopy;

/// How long a cursor that moved because of `watch` may stay in memory only. A crash in between shows those messages
/// once more; it loses none.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// Most readings of other realms' messages that wait to be told to their senders; beyond it they are not told.
const READS_WAITING_MAX: usize = 50_000;

/// Somebody has read somebody's message from another realm.
#[derive(Debug, Clone)]
pub(crate) struct RemoteRead {
    pub(crate) origin: RealmId,
    pub(crate) sender: UserName,
    pub(crate) reader: UserName,
    pub(crate) id: MessageId,
}

/// How far a reply has shown a box; to be given back once it was written.
#[derive(Debug, Clone)]
pub struct ReadMark {
    pub(crate) user: UserName,
    pub(crate) mailbox: String,
    pub(crate) upto: Seq,
    pub(crate) remote: Vec<RemoteRead>,
}

impl ReadMark {
    /// Of its cursor.
    pub(crate) fn key(&self) -> String {
        key(&self.user, &self.mailbox)
    }
}

/// The cursors of a realm. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cursors {
    copy: KvCopy<u64>,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// Ahead of the copy.
    ahead: HashMap<String, u64>,
    reads: Vec<RemoteRead>,
}

fn key(user: &UserName, mailbox: &str) -> String {
    format!("{user}.{mailbox}")
}

impl Cursors {
    pub(crate) fn new(copy: KvCopy<u64>) -> Self {
        Self { copy, inner: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("no holder of this lock panics")
    }

    /// The last entry of the box that was read.
    pub(crate) fn get(&self, user: &UserName, mailbox: &str) -> Seq {
        self.get_key(&key(user, mailbox))
    }

    /// Where the cursor of this key stands.
    pub(crate) fn get_key(&self, key: &str) -> Seq {
        let kept = self.copy.get(key).map_or(0, |seq| *seq);
        let ahead = self.state().ahead.get(key).copied().unwrap_or(0);
        Seq(kept.max(ahead))
    }

    /// Whether there is a cursor of this key, as far as this edge knows.
    pub(crate) fn is_kept(&self, key: &str) -> bool {
        self.copy.get(key).is_some()
    }

    /// Waits until [`Self::get_key`] knows what any edge has made durable of a cursor.
    pub(crate) async fn catch_up_key(&self, key: &str) -> Result<(), KvError> {
        self.copy.catch_up(key).await
    }

    /// Moves a cursor that is no user's, and makes that durable.
    pub(crate) async fn raise(&self, key: &str, upto: Seq) -> Result<(), KvError> {
        self.put(key, upto.0).await
    }

    /// Waits until [`Self::get`] knows what any edge has made durable of a cursor.
    pub(crate) async fn catch_up(&self, user: &UserName, mailbox: &str) -> Result<(), KvError> {
        self.catch_up_key(&key(user, mailbox)).await
    }

    /// Moves a cursor at once for this process; durable after the next [`Self::flush`].
    pub(crate) fn advance(&self, mark: ReadMark) {
        let key = mark.key();
        let mut state = self.state();
        let ahead = state.ahead.entry(key).or_default();
        *ahead = mark.upto.0.max(*ahead);
        let room = READS_WAITING_MAX.saturating_sub(state.reads.len());
        state.reads.extend(mark.remote.into_iter().take(room));
        drop(state);
        self.inner.moved.notify_one();
    }

    /// Waits until a cursor has moved since the last flush.
    pub(crate) async fn moved(&self) {
        self.inner.moved.notified().await;
    }

    /// The cursors that moved and are not durable yet.
    pub(crate) fn unsaved(&self) -> Vec<String> {
        self.state().ahead.keys().cloned().collect()
    }

    /// Makes one cursor durable.
    pub(crate) async fn save(&self, key: &str) -> Result<(), KvError> {
        let Some(seq) = self.state().ahead.get(key).copied() else { return Ok(()) };
        self.put(key, seq).await?;
        let mut state = self.state();
        if state.ahead.get(key) == Some(&seq) {
            state.ahead.remove(key);
        }
        Ok(())
    }

    /// Removes the cursors of a user whose mailbox is gone.
    pub(crate) async fn forget(&self, user: &UserName) -> Result<(), KvError> {
        let whose = format!("{user}.");
        self.state().ahead.retain(|key, _| !key.starts_with(&whose));
        for (key, _) in self.copy.all() {
            if key.starts_with(&whose) {
                self.copy.delete(&key).await?;
            }
        }
        Ok(())
    }

    /// What was read of other realms' messages since the last time.
    pub(crate) fn take_reads(&self) -> Vec<RemoteRead> {
        std::mem::take(&mut self.state().reads)
    }

    /// Raises a kept cursor; a higher one of another edge stays.
    async fn put(&self, key: &str, seq: u64) -> Result<(), KvError> {
        const TRIES: usize = 5;
        for _ in 0..TRIES {
            let expect = match self.copy.get_with_revision(key) {
                Some((kept, _)) if *kept >= seq => return Ok(()),
                Some((_, revision)) => Expect::Revision(revision),
                None => Expect::Absent,
            };
            match self.copy.put(key, &seq, expect, None).await {
                Err(KvError::Conflict) => self.copy.catch_up(key).await?,
                other => return other,
            }
        }
        Err(KvError::Conflict)
    }
}
