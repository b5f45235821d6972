//! The seam between Antar and whatever keeps its log.
//!
//! Owns: the [`Broker`] trait, the types that cross it, and its implementations ([`sqlite`], `nats`).
//! Must not know: users, mailboxes, commands, envelopes. A subject is a name and a body is bytes.
//!
//! Everything that Antar promises rests on the contracts written at the methods of [`Broker`]. The suite in
//! `conformance` (feature `testing`) runs them against any implementation.

mod entry;
mod examine;
mod kv;
mod queue;
mod reading;
mod rpc;
mod subject;
mod usage;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod fault;
mod nats;
pub mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use entry::{
    Append, AppendError, Appended, ENTRY_BODY_BYTES_MAX, ENTRY_ID_BYTES_MAX, Entry, EntryId, ExpectLast,
    Headers, IDEMPOTENCE_WINDOW, OpenError, Page, PendingAppend, ReadError, ReadFrom, ReadLimit,
    SUBJECTS_MAX, Seq, StreamSpec, Tail, TailSource, Timestamp,
};
pub use examine::{Flaw, FlawKind, Severity, clock_offset_us, clock_severity, clock_words, flaws};
pub use kv::{Bucket, Expect, KvChange, KvEntry, KvError, KvSource, KvWatch, Revision};
pub use queue::{Lease, LeaseError, Queue, QueueName, QueueState};
pub use rpc::{Replier, Request, RequestError, Requests, Service};
pub use subject::{BadSubject, Filter, Subject};
pub use usage::{StreamUsage, Usage};

/// Which broker, and how to reach it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `sqlite:PATH`, with `?synchronous=normal` for a test that must lose entries; or `nats://HOST:PORT` (or `tls://`), with
    /// `USER:PASSWORD@` or a token before the host, and more such servers of the same cluster behind commas.
    pub url: String,
    /// NATS only: a file with credentials (`.creds`), or with the seed of an nkey.
    pub credentials: Option<PathBuf>,
    /// NATS only: how many servers keep each stream that is made (1 to 5).
    pub replicas: usize,
    /// NATS only: certificates (PEM) of the authority that signed those of the servers, if not one that the system knows.
    /// With it, as with `tls://` in `url`, nothing is said without TLS.
    pub authority: Option<PathBuf>,
    /// NATS only: a certificate and its key (PEM) that prove to the server who this is.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// The broker that `url` names, with one replica and without a file of credentials.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), credentials: None, replicas: 1, authority: None, certificate: None }
    }
}

/// Whether `url` names a broker that [`open`] knows.
pub fn check_url(url: &str) -> Result<(), OpenError> {
    if nats::is_nats(url) {
        return nats::servers(url).map(drop);
    }
    sqlite::Options::parse(url).map(drop)
}

/// Opens a broker.
///
/// Errors: see [`OpenError`]; an unknown scheme or setting is [`OpenError::Invalid`]. Nothing was changed then.
pub async fn open(settings: &Settings) -> Result<SharedBroker, OpenError> {
    if nats::is_nats(&settings.url) {
        return Ok(Arc::new(nats::OwnedNatsBroker::open(settings).await?));
    }
    let options = sqlite::Options::parse(&settings.url)?;
    Ok(Arc::new(sqlite::SqliteBroker::open(options).await?))
}

/// Opens a broker for reading only, from outside of what serves realms: nothing is made, changed or held up by it.
///
/// A file is read while another process serves it and while none does; what is there is seen within some 20 ms by tails
/// and watches, and at once by reads. A watch shows the last of several changes that come at the same time. Whatever would
/// change something, requests included, is refused with the error of its own that says so.
///
/// Errors: see [`OpenError`]; a file that is not there is [`OpenError::Unreachable`].
pub async fn open_for_reading(settings: &Settings) -> Result<SharedBroker, OpenError> {
    if nats::is_nats(&settings.url) {
        let broker = nats::OwnedNatsBroker::open_for_reading(settings).await?;
        return Ok(Arc::new(reading::ReadOnly(broker)));
    }
    let options = sqlite::Options::parse(&settings.url)?;
    Ok(Arc::new(reading::ReadOnly(sqlite::OutsideReader::open(options).await?)))
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

    /// Makes the bucket if it is not there; compares its settings with those that it must have if it is.
    async fn open_bucket(&self, bucket: &Bucket) -> Result<(), OpenError>;

    /// The names of those that are not there. Whoever has used them before must not make them anew: empty, they would
    /// hide a loss.
    async fn missing(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<String>, OpenError>;

    /// The names of all streams that are there, in their alphabetical order. Others than Antar's may be among them.
    async fn stream_names(&self) -> Result<Vec<String>, ReadError>;

    /// Queues one append and returns as soon as its place in the order is certain; the returned future yields the
    /// acknowledgement. Two appends that were queued one after the other are stored in that order.
    ///
    /// * The acknowledgement comes only after the entry is durable.
    /// * **Idempotent by id.** The second append of an id to a stream, within [`IDEMPOTENCE_WINDOW`] at least, stores
    ///   nothing and is answered `duplicate: true` with the first one's sequence.
    /// * With several subjects the same body becomes one entry on each, in the order given. On an error some of them
    ///   may have been stored; appending again with the same id and the same subjects completes the rest.
    /// * `expect_last` makes it a compare-and-set, or fences it: if the last sequence of the subject named there is
    ///   another, nothing is stored and the error is [`AppendError::Conflict`]. With several subjects it names none of them.
    /// * A subject that has reached its stream's `entries_per_subject_max` gets nothing: [`AppendError::Full`]. Of an
    ///   append with several subjects the others get theirs, and [`Appended::full`] lists those that did not;
    ///   see [`Append::copies`] for those that depend on others.
    ///
    /// Errors before the returned future exists mean that nothing was stored. When too much is queued already this
    /// waits for room (bounded), which is how back-pressure reaches the callers.
    async fn append(&self, append: Append) -> Result<PendingAppend, AppendError>;

    /// Appends one after the other, in order even where something fails: if one is not stored on a subject, none that
    /// comes after it in the run is stored there (one that is refused by itself, or finds its subject full, holds up nobody).
    /// All of them are [fresh](Append::is_fresh) and expect the same, of one stream. The answers stand in the order of the run.
    async fn append_run(&self, run: Vec<Append>) -> Vec<Result<Appended, AppendError>>;

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

    /// Removes the entries of `subject` with a sequence of at most `upto`; returns how many there were. Copies
    /// ([`Append::copies`]) may stay, if others that were stored together with them do, and are counted together.
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

    /// As [`Self::serve`], and lets those who look for services find it. Where nobody can look, it is the same.
    async fn serve_as(&self, _service: &Service, subject: &Subject) -> Result<Requests, RequestError> {
        self.serve(subject).await
    }

    /// Looks for what is wrong with the broker and with these streams and buckets, as whoever relies on them would make them.
    /// Stores nothing, changes nothing and holds nobody up. What was just made has no flaw but what lies in how the broker
    /// itself was set up.
    ///
    /// Errors: what cannot be looked at because the broker does not answer.
    async fn examine(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError>;

    /// How much these streams hold, those of them that are there, and the broker as a whole.
    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError>;

    /// Finishes what is queued, then stops. Later calls fail with the operation's `Closed` or `NotStored` error.
    async fn close(&self);
}
