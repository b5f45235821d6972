//! What the writer is asked to do, and how each asker is told when it was not done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::queue::Core;
use crate::{
    Append, AppendError, Appended, Bucket, Expect, Filter, KvError, OpenError, QueueName, ReadError,
    Revision, Seq, StreamSpec, Subject,
};

/// Where an answer goes. Somebody who no longer waits for it is no error.
pub(super) type Done<T> = oneshot::Sender<T>;

/// One operation.
pub(super) enum Op {
    Append {
        append: Append,
        done: Done<Result<Appended, AppendError>>,
        room: Option<OwnedSemaphorePermit>,
    },
    /// Appends of one transaction.
    Run {
        appends: Vec<Append>,
        /// One for each.
        done: Vec<Done<Result<Appended, AppendError>>>,
        room: Option<OwnedSemaphorePermit>,
    },
    Trim {
        subject: Subject,
        upto: Seq,
        removed: u64,
        done: Done<Result<u64, ReadError>>,
    },
    Stream {
        spec: StreamSpec,
        done: Done<Result<(), OpenError>>,
    },
    Kv {
        write: KvWrite,
        done: Done<Result<Revision, KvError>>,
    },
    Queue {
        name: QueueName,
        subject: Subject,
        done: Done<Result<Seq, ReadError>>,
    },
    Settle {
        core: Arc<Core>,
        token: u64,
        upto: Seq,
    },
    /// Remove keys whose time has come.
    Expire,
    /// Remove trimmed rows whose ids may be forgotten.
    Purge,
    /// Look whether there is something to do beside operations.
    Nudge,
    /// Write everything down and stop.
    Close,
}

/// One write of the key-value store.
#[derive(Debug)]
pub(super) struct KvWrite {
    pub(super) bucket: Bucket,
    pub(super) key: String,
    /// `None` removes the key.
    pub(super) value: Option<(Bytes, Option<Duration>)>,
    pub(super) expect: Expect,
}

/// Why a transaction failed, and what that means for those who wait for it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// It may be stored all the same.
    pub(super) unknown: bool,
}

impl Failure {
    pub(super) fn closed() -> Self {
        Self { reason: "the broker was closed".into(), unknown: false }
    }

    pub(super) fn append_error(&self) -> AppendError {
        let reason = self.reason.clone();
        if self.unknown { AppendError::Unknown(reason) } else { AppendError::NotStored(reason) }
    }
}

impl Op {
    /// Whether it needs what was queued before it to be committed and visible: it begins a transaction of its own.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(self, Self::Trim { .. } | Self::Stream { .. } | Self::Queue { .. } | Self::Close)
    }

    /// What it appends.
    pub(super) fn appends(&self) -> &[Append] {
        match self {
            Self::Append { append, .. } => std::slice::from_ref(append),
            Self::Run { appends, .. } => appends,
            _ => &[],
        }
    }

    /// Tells the asker of a key-value write that its transaction failed.
    pub(super) fn fail_kv(done: Done<Result<Revision, KvError>>, error: &rusqlite::Error) {
        let _ = done.send(Err(KvError::Unavailable(error.to_string())));
    }

    /// Tells the asker that it was not done.
    pub(super) fn fail(self, failure: &Failure) {
        let reason = failure.reason.clone();
        match self {
            Self::Append { done, .. } => drop(done.send(Err(failure.append_error()))),
            Self::Run { done, .. } => {
                done.into_iter().for_each(|done| drop(done.send(Err(failure.append_error()))));
            }
            Self::Trim { done, .. } => drop(done.send(Err(ReadError::Unavailable(reason)))),
            Self::Stream { done, .. } => drop(done.send(Err(OpenError::Unreachable(reason)))),
            Self::Kv { done, .. } => drop(done.send(Err(KvError::Unavailable(reason)))),
            Self::Queue { done, .. } => drop(done.send(Err(ReadError::Unavailable(reason)))),
            Self::Settle { core, token, .. } => core.settled(token, Err(reason)),
            Self::Expire | Self::Purge | Self::Nudge | Self::Close => {}
        }
    }
}

/// A filter for messages about one subject.
pub(super) fn no_stream(subject: &Subject) -> ReadError {
    ReadError::NoStream(Filter::from(subject))
}
