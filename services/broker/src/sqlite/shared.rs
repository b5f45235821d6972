//! What all parts of an open broker share: the way to the writer, the index, the readers, the followers.
//!
//! Order of locks: the index before the followers, a list of followers or watchers before one of them; otherwise none is
//! taken while another is held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::hub::Hub;
use super::index::{Index, StreamAt};
use super::keeper::Keeper;
use super::kv::KvHub;
use super::op::Op;
use super::pool::Pool;
use super::queue::Core;
use super::read::{self, Look, Question};
use super::rpc::Switchboard;
use crate::{Filter, QueueName, ReadError, ReadFrom, Seq};

/// Operations that wait for the writer.
pub(super) const OPS_MAX: usize = 4096;
/// How long an operation waits for room among [`OPS_MAX`].
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// Bodies up to this size count only as one of [`OPS_MAX`].
const SMALL_BODY_BYTES: usize = 8 * 1024;
/// Bytes of larger bodies that wait for the writer, in units of [`LARGE_UNIT_BYTES`].
const LARGE_UNITS_MAX: usize = 64 * 1024;
const LARGE_UNIT_BYTES: usize = 1024;

/// See the module.
pub(super) struct Shared {
    pub(super) ops: mpsc::Sender<Op>,
    pub(super) large: Arc<Semaphore>,
    index: RwLock<Index>,
    pub(super) hub: Arc<Hub>,
    pub(super) kv: KvHub,
    pub(super) pool: Pool,
    pub(super) switchboard: Arc<Switchboard>,
    pub(super) keeper: Arc<Keeper>,
    /// Kept while the broker is open, so that a lease outlives the worker that had it.
    queues: Mutex<HashMap<QueueName, Arc<Core>>>,
    closed: AtomicBool,
    abandoned: AtomicBool,
}

/// Why an operation did not get to the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    Closed,
    Busy,
}

impl std::fmt::Display for NotQueued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed => "the broker was closed",
            Self::Busy => "too much is queued already",
        })
    }
}

impl Shared {
    pub(super) fn new(ops: mpsc::Sender<Op>, index: Index, pool: Pool, keeper: Arc<Keeper>) -> Self {
        Self {
            ops,
            large: Arc::new(Semaphore::new(LARGE_UNITS_MAX)),
            index: RwLock::new(index),
            hub: Arc::default(),
            kv: KvHub::default(),
            pool,
            switchboard: Arc::default(),
            keeper,
            queues: Mutex::default(),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn queues(&self) -> MutexGuard<'_, HashMap<QueueName, Arc<Core>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether the broker was dropped without having been closed.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Ends the writer as soon as it looks up. What is queued is not done.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.shut();
        // A full queue does not matter: the writer then has something to look up from.
        let _ = self.ops.try_send(Op::Nudge);
    }

    /// Refuses what is new and wakes all who wait. Returns whether it was open.
    pub(super) fn shut(&self) -> bool {
        let was_open = !self.closed.swap(true, Ordering::SeqCst);
        self.hub.tell_all();
        self.kv.end_all();
        self.switchboard.close();
        self.queues().values().for_each(|core| core.changed());
        was_open
    }

    /// Waits for room for a large body.
    pub(super) async fn room(&self, body_bytes: usize) -> Result<Option<OwnedSemaphorePermit>, NotQueued> {
        if body_bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let units = u32::try_from(body_bytes / LARGE_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        match tokio::time::timeout(ROOM_TIMEOUT, self.large.clone().acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) => Err(NotQueued::Closed),
            Err(_) => Err(NotQueued::Busy),
        }
    }

    /// Queues an operation behind those that were queued before.
    pub(super) async fn queue(&self, op: Op) -> Result<(), NotQueued> {
        if self.is_closed() {
            return Err(NotQueued::Closed);
        }
        let op = match self.ops.try_send(op) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(NotQueued::Closed),
            Err(mpsc::error::TrySendError::Full(op)) => op,
        };
        match tokio::time::timeout(ROOM_TIMEOUT, self.ops.send(op)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(NotQueued::Closed),
            Err(_) => Err(NotQueued::Busy),
        }
    }

    /// Waits for room for one operation.
    pub(super) async fn reserve(&self) -> Result<mpsc::Permit<'_, Op>, NotQueued> {
        if self.is_closed() {
            return Err(NotQueued::Closed);
        }
        match tokio::time::timeout(ROOM_TIMEOUT, self.ops.reserve()).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(NotQueued::Closed),
            Err(_) => Err(NotQueued::Busy),
        }
    }

    /// Queues an operation and waits for its answer; `Err` is what to tell when there is none.
    pub(super) async fn ask<T>(&self, op: impl FnOnce(oneshot::Sender<T>) -> Op) -> Result<T, String> {
        let (done, answer) = oneshot::channel();
        self.queue(op(done)).await.map_err(|error| error.to_string())?;
        answer.await.map_err(|_| "the broker went away".to_owned())
    }

    /// The stream that `filter` lies in.
    pub(super) fn stream_of(&self, filter: &Filter) -> Result<StreamAt, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        self.index().stream_of_filter(filter).ok_or_else(|| ReadError::NoStream(filter.clone()))
    }

    /// Reads from memory or else from the file. Nothing found is no error.
    pub(super) async fn look(self: &Arc<Self>, question: Question) -> Result<Look, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        if let Some(look) = read::from_memory(&self.index(), &question) {
            return Ok(look);
        }
        let shared = self.clone();
        self.pool
            .run(move |conn| read::from_file(conn, &shared.index, &question))
            .await
            .map_err(|error| if self.is_closed() { ReadError::Closed } else { ReadError::Unavailable(error) })
    }

    /// Like [`Shared::look`], but goes on when a scan was interrupted, until the page is full.
    pub(super) async fn look_through(self: &Arc<Self>, mut question: Question) -> Result<Look, ReadError> {
        let mut entries = Vec::new();
        loop {
            let mut look = self.look(question.clone()).await?;
            if !look.interrupted && entries.is_empty() {
                return Ok(look);
            }
            question.taken_bytes += look.page.entries.iter().map(|entry| entry.body.len()).sum::<usize>();
            entries.append(&mut look.page.entries);
            if !look.interrupted {
                look.page.entries = entries;
                return Ok(look);
            }
            question.taken = entries.len();
            question.from = match question.from {
                ReadFrom::After(_) | ReadFrom::Since(_) => ReadFrom::After(Seq(look.examined)),
                ReadFrom::Before(_) | ReadFrom::End => ReadFrom::Before(Seq(look.examined)),
            };
        }
    }
}
