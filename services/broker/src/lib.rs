//! The seam between Antar and whatever keeps its log.
//!
//! Owns: the [`Broker`] trait, the types that cross it, and its implementations ([`sqlite`]).
//! Must not know: users, mailboxes, commands, envelopes. A subject is a name and a body is bytes.
//!
//! Everything that Antar promises rests on the contracts written at the methods of [`Broker`]. The suite in
//! `conformance` (feature `testing`) runs them against any implementation.

mod entry;
mod kv;
mod queue;
mod rpc;
mod subject;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod fault;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use entry::{
    Append, AppendError, Appended, ENTRY_BODY_BYTES_MAX, ENTRY_ID_BYTES_MAX, Entry, EntryId, Headers,
    IDEMPOTENCE_WINDOW, OpenError, Page, PendingAppend, ReadError, ReadFrom, ReadLimit, SUBJECTS_MAX, Seq,
    StreamSpec, Tail, TailSource, Timestamp,
};
pub use kv::{Bucket, Expect, KvChange, KvEntry, KvError, KvSource, KvWatch, Revision};
pub use queue::{Lease, LeaseError, Queue, QueueName, QueueState};
pub use rpc::{Replier, Request, RequestError, Requests};
pub use subject::{BadSubject, Filter, Subject};

/// Opens the broker that `url` names: `sqlite:PATH`, with `?synchronous=normal` for a test that must lose entries.
///
/// Errors: see [`OpenError`]; an unknown scheme or setting is [`OpenError::Invalid`]. Nothing was changed then.
pub async fn open(url: &str) -> Result<SharedBroker, OpenError> {
    let options = sqlite::Options::parse(url)?;
    Ok(Arc::new(sqlite::SqliteBroker::open(options).await?))
}

/// A broker, shared by everything in the process that uses it.
pub type SharedBroker = Arc<dyn Broker>;

/// A durable log with subjects, a work queue on it, a key-value store beside it and requests through it.
///
/// Every method may be called from many tasks at once. No method blocks the thread. Every method that waits has a
/// bound on its waiting: what does not come in time is an error that says so.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Makes the stream if it is not there; compares it with `spec` if it is.
    ///
    /// A stream keeps the entries of the subjects that one of its filters matches. Of an existing stream a higher limit
    /// is taken over, which breaks nobody's promise; any other difference is refused with [`OpenError::Differs`].
    async fn open_stream(&self, spec: &StreamSpec) -> Result<(), OpenError>;

    /// Queues one append and returns as soon as its place in the order is certain; the returned future yields the
    /// acknowledgement. Two appends that were queued one after the other are stored in that order.
    ///
    /// * The acknowledgement comes only after the entry is durable.
    /// * **Idempotent by id.** The second append of an id to a stream, within [`IDEMPOTENCE_WINDOW`] at least, stores
    ///   nothing and is answered `duplicate: true` with the first one's sequence.
    /// * With several subjects the same body becomes one entry on each, in the order given. On an error some of them
    ///   may have been stored; appending again with the same id and the same subjects completes the rest.
    /// * `expect_last` (with one subject only) makes it a compare-and-set: if the subject's last sequence is another,
    ///   nothing is stored and the error is [`AppendError::Conflict`]. [`Seq::ZERO`] stands for "no entry yet".
    /// * A subject that has reached its stream's `entries_per_subject_max` gets nothing: [`AppendError::Full`]. Of an
    ///   append with several subjects the others get theirs, and [`Appended::full`] lists those that did not;
    ///   see [`Append::copies`] for those that depend on others.
    ///
    /// Errors before the returned future exists mean that nothing was stored. When too much is queued already this
    /// waits for room (bounded), which is how back-pressure reaches the callers.
    async fn append(&self, append: Append) -> Result<PendingAppend, AppendError>;

    /// Reads entries whose subject matches `filter`, in the order of their sequences.
    ///
    /// All subjects of a filter must belong to one stream. Forward from a sequence or a time, or backward
    /// ([`ReadFrom::Before`], newest first). Stops at whichever part of `limit` comes first, but returns at least one
    /// entry if there is one; `Page::more` tells whether something is left. Sees every append acknowledged before the
    /// call. An entry with several subjects is returned once for each that matches.
    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError>;

    /// Sequence of the last entry on `subject`, [`Seq::ZERO`] if there is none. Sees every acknowledged append.
    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError>;

    /// How many entries there are on `subject`. Sees every acknowledged append.
    async fn count(&self, subject: &Subject) -> Result<u64, ReadError>;

    /// Removes the entries of `subject` with a sequence of at most `upto`; returns how many there were.
    async fn trim(&self, subject: &Subject, upto: Seq) -> Result<u64, ReadError>;

    /// Follows `filter` from the first entry after `after`: first what is stored, then what comes, each entry once,
    /// in order, without a gap, and only after it is durable. A reader that falls behind does not hold up writers and
    /// loses nothing: its tail goes back to reading the log.
    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError>;

    /// Opens the durable work queue `name` over the entries of `subject`, making it at its first use, from the
    /// beginning of the log. See [`Queue`] for its contract.
    async fn queue(
        &self,
        name: &QueueName,
        subject: &Subject,
        lease: Duration,
    ) -> Result<Arc<dyn Queue>, ReadError>;

    /// Where the queue `name` stands, without taking part in it; `None` if it was never made.
    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError>;

    /// Reads one key. Sees every put acknowledged before the call by this process.
    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError>;

    /// Writes one key, durable when it returns. With [`Expect::Absent`] or [`Expect::Revision`] it is a
    /// compare-and-set that fails with [`KvError::Conflict`]. With `ttl` the key goes away by itself after that time;
    /// its watchers see a deletion.
    async fn kv_put(
        &self,
        bucket: &Bucket,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, KvError>;

    /// Removes one key; no error if it is not there (with [`Expect::Any`]).
    async fn kv_delete(&self, bucket: &Bucket, key: &str, expect: Expect) -> Result<(), KvError>;

    /// All live keys of the bucket first, then [`KvChange::Current`] once, then every change as it happens, in order.
    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError>;

    /// Sends `body` to whoever serves `subject` and waits for the answer.
    async fn request(&self, subject: &Subject, body: Bytes, timeout: Duration)
    -> Result<Bytes, RequestError>;

    /// Serves requests on `subject` until the returned value is dropped. Several servers of one subject share the
    /// requests between them.
    async fn serve(&self, subject: &Subject) -> Result<Requests, RequestError>;

    /// Finishes what is queued, then stops. Later calls fail with the operation's `Closed` or `NotStored` error.
    async fn close(&self);
}
