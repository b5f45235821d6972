//! The log in one SQLite file: one process, nothing to install, everything durable.
//!
//! * `writer` — one thread, one transaction for all that has queued up; `state`, `insert`, `flush`, `trim`, `kv` are its work.
//! * `index`, `ring` — what is known in memory: subjects, their newest sequences, the newest rows.
//! * `read`, `pool` — reading, from memory or on threads with connections of their own.
//! * `run` — appends that go together; `hub`, `tail`, `queue` — who waits for new entries.
//! * `examine` — what is wrong with the file.
//! * `outside` — reading the file from another process, while this one serves it or nobody does.
//! * `usage` — how much the file takes.
//! * `rpc`, `control` — requests inside the process, and from other processes through a socket beside the file.
//!
//! Architecture invariant: nothing is published, answered or woken before its transaction is committed. Only the
//! writer changes the index, and only after a commit.

mod control;
mod examine;
mod flush;
mod hub;
mod index;
mod insert;
mod keeper;
mod kv;
mod load;
mod op;
mod options;
mod outside;
mod pack;
mod pool;
mod queue;
mod read;
mod ring;
mod rpc;
mod run;
mod schema;
mod shared;
mod state;
mod tail;
mod trim;
mod usage;
mod writer;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use control::{ControlError, control_request};
pub use options::{Options, Synchronous};
pub(crate) use outside::OutsideReader;

use self::op::{KvWrite, Op};
use self::read::Question;
use self::shared::{OPS_MAX, Shared};
use crate::{
    Append, AppendError, Appended, Broker, Bucket, Expect, Filter, Flaw, KvEntry, KvError, KvWatch,
    OpenError, Page, PendingAppend, Queue, QueueName, QueueState, ReadError, ReadFrom, ReadLimit,
    RequestError, Requests, Revision, Seq, StreamSpec, Subject, Tail, Usage,
};

/// A broker in one file. See the module.
///
/// Dropping it without [`Broker::close`] loses nothing that was acknowledged; what was queued is not done.
pub struct SqliteBroker {
    options: Options,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    control: Mutex<Option<control::Server>>,
}

impl SqliteBroker {
    /// Opens the file, and makes it and its directory if they are missing.
    ///
    /// Needs a Tokio runtime. Errors: [`OpenError::Unreachable`] (in use by another process, or not accessible),
    /// [`OpenError::Damaged`], [`OpenError::Newer`], [`OpenError::Invalid`] (a database of another program). The file
    /// is unchanged after each.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(options)).await;
        let (broker, path) = opened.map_err(|error| OpenError::Unreachable(error.to_string()))??;
        let server = control::Server::start(&path, broker.shared.switchboard.clone());
        *broker.control.lock().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(broker)
    }

    fn open_blocking(options: Options) -> Result<(Self, std::path::PathBuf), OpenError> {
        let lock = schema::lock(&options.path)?;
        let conn = {
            let _nobody_reads = schema::STILL.write().unwrap_or_else(PoisonError::into_inner);
            schema::open_writer(&options)?
        };
        let explain = |error: rusqlite::Error| schema::explain(&options.path, &error);
        let (index, state) = load::load(&conn, options.limits).map_err(explain)?;
        let next_expiry = kv::next_expiry(&conn).map_err(explain)?;
        let (pool, mut threads) = pool::Pool::start(&options)?;
        let keeper = Arc::new(keeper::Keeper::default());
        next_expiry.into_iter().for_each(|at| keeper.expire_at(at));
        let (ops, queue) = mpsc::channel(OPS_MAX);
        threads.push(keeper.start(&options, ops.clone())?);
        let shared = Arc::new(Shared::new(ops, index, pool, keeper));
        let kept = options.clone();
        let path = options.path.clone();
        let writer = writer::Writer {
            shared: shared.clone(),
            ops: queue,
            options,
            conn,
            state,
            lock,
            round: None,
            spare: state::Batch::default(),
            ids: Vec::new(),
            batches_since_look: 0,
            bytes_since_look: 0,
        };
        let spawned = std::thread::Builder::new().name("broker-write".into()).spawn(move || writer.run());
        threads.push(
            spawned.map_err(|error| OpenError::Unreachable(format!("no thread for writing: {error}")))?,
        );
        Ok((Self { options: kept, shared, threads: Mutex::new(threads), control: Mutex::default() }, path))
    }
}

impl Drop for SqliteBroker {
    fn drop(&mut self) {
        self.shared.abandon();
        self.shared.keeper.stop();
    }
}

#[async_trait]
impl Broker for SqliteBroker {
    async fn open_stream(&self, spec: &StreamSpec) -> Result<(), OpenError> {
        let spec = spec.clone();
        self.shared.ask(|done| Op::Stream { spec, done }).await.map_err(OpenError::Unreachable)?
    }

    async fn open_bucket(&self, _bucket: &Bucket) -> Result<(), OpenError> {
        // All of them are rows of one table.
        Ok(())
    }

    async fn missing(&self, streams: &[StreamSpec], _buckets: &[Bucket]) -> Result<Vec<String>, OpenError> {
        let index = self.shared.index();
        let is_there = |name: &str| index.streams.iter().any(|stream| stream.name == name);
        Ok(streams.iter().map(|spec| spec.name.clone()).filter(|name| !is_there(name)).collect())
    }

    async fn stream_names(&self) -> Result<Vec<String>, ReadError> {
        if self.shared.is_closed() {
            return Err(ReadError::Closed);
        }
        let mut names: Vec<String> =
            self.shared.index().streams.iter().map(|stream| stream.name.clone()).collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn examine(&self, streams: &[StreamSpec], _buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError> {
        if self.shared.is_closed() {
            return Err(ReadError::Closed);
        }
        let (options, streams) = (self.options.clone(), streams.to_vec());
        let looked = self.shared.pool.run(move |conn| {
            let mut found = examine::of_files(&options.path, options.synchronous);
            let tx = conn.unchecked_transaction()?;
            found.extend(examine::of_content(&tx, &options.path, &streams)?);
            Ok(found)
        });
        looked.await.map_err(ReadError::Unavailable)
    }

    async fn append(&self, append: Append) -> Result<PendingAppend, AppendError> {
        append.check()?;
        let not_stored = |error: shared::NotQueued| AppendError::NotStored(error.to_string());
        let room = self.shared.room(append.body.len()).await.map_err(not_stored)?;
        let (done, answer) = oneshot::channel();
        self.shared.queue(Op::Append { append, done, room }).await.map_err(not_stored)?;
        Ok(PendingAppend::from_oneshot(answer))
    }

    async fn append_run(&self, run: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        self.store_run(run).await
    }

    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError> {
        let stream = self.shared.stream_of(filter)?;
        let question = Question::new(filter, stream, from, limit);
        Ok(self.shared.look_through(question).await?.page)
    }

    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        if self.shared.is_closed() {
            return Err(ReadError::Closed);
        }
        let index = self.shared.index();
        match index.sub(subject.as_str()) {
            Some(sub) => Ok(sub.last_there()),
            None if index.stream_of(subject.as_str()).is_some() => Ok(Seq::ZERO),
            None => Err(op::no_stream(subject)),
        }
    }

    async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        if self.shared.is_closed() {
            return Err(ReadError::Closed);
        }
        let index = self.shared.index();
        match index.sub(subject.as_str()) {
            Some(sub) => Ok(sub.count()),
            None if index.stream_of(subject.as_str()).is_some() => Ok(0),
            None => Err(op::no_stream(subject)),
        }
    }

    async fn trim(&self, subject: &Subject, upto: Seq) -> Result<u64, ReadError> {
        self.shared.stream_of(&Filter::from(subject))?;
        let subject = subject.clone();
        let asked = self.shared.ask(|done| Op::Trim { subject, upto, removed: 0, done });
        asked.await.map_err(ReadError::Unavailable)?
    }

    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError> {
        let stream = self.shared.stream_of(filter)?;
        Ok(Tail::new(tail::SqliteTail::new(self.shared.clone(), filter, stream, after)))
    }

    async fn queue(
        &self,
        name: &QueueName,
        subject: &Subject,
        lease: Duration,
    ) -> Result<Arc<dyn Queue>, ReadError> {
        let shared = self.shared.clone();
        let stream = shared.stream_of(&Filter::from(subject))?;
        let (name, subject) = (name.clone(), subject.clone());
        let asked = shared.ask(|done| Op::Queue { name: name.clone(), subject: subject.clone(), done });
        let acked = asked.await.map_err(ReadError::Unavailable)??;
        let core = {
            let mut queues = shared.queues();
            let fresh = || Arc::new(queue::Core::new(&shared, name.clone(), &subject, stream, acked));
            queues.entry(name.clone()).or_insert_with(fresh).clone()
        };
        Ok(Arc::new(queue::SqliteQueue { shared, core, lease }))
    }

    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        if self.shared.is_closed() {
            return Err(ReadError::Closed);
        }
        queue::state(&self.shared, name).await
    }

    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        if self.shared.is_closed() {
            return Err(KvError::Unavailable("the broker was closed".into()));
        }
        kv::get(&self.shared, bucket, key).await
    }

    async fn kv_put(
        &self,
        bucket: &Bucket,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, KvError> {
        crate::kv::check(key, &value)?;
        let room =
            self.shared.room(value.len()).await.map_err(|error| KvError::Unavailable(error.to_string()))?;
        let write =
            KvWrite { bucket: bucket.clone(), key: key.to_owned(), value: Some((value, ttl)), expect };
        let written = self.shared.ask(|done| Op::Kv { write, done }).await;
        drop(room);
        written.map_err(KvError::Unavailable)?
    }

    async fn kv_delete(&self, bucket: &Bucket, key: &str, expect: Expect) -> Result<(), KvError> {
        crate::kv::check(key, &[])?;
        let write = KvWrite { bucket: bucket.clone(), key: key.to_owned(), value: None, expect };
        self.shared.ask(|done| Op::Kv { write, done }).await.map_err(KvError::Unavailable)?.map(drop)
    }

    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError> {
        Ok(KvWatch::new(kv::watch(&self.shared, bucket).await?))
    }

    async fn request(
        &self,
        subject: &Subject,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        self.shared.switchboard.request(subject, body, timeout).await
    }

    async fn serve(&self, subject: &Subject) -> Result<Requests, RequestError> {
        self.shared.switchboard.serve(subject)
    }

    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError> {
        if self.shared.is_closed() {
            return Err(ReadError::Closed);
        }
        let (shared, path, wanted) = (self.shared.clone(), self.options.path.clone(), streams.to_vec());
        let looked = tokio::task::spawn_blocking(move || {
            let Ok(streams) = shared.index().usage(&wanted, |_, sub| Ok::<_, Infallible>(sub.count()));
            usage::of_file(&path, streams)
        });
        looked.await.map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    async fn close(&self) {
        let server = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop().await;
        }
        // Behind all that is queued; what comes later is refused by then.
        self.shared.shut();
        let _ = self.shared.ops.send(Op::Close).await;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let join = move || {
            // The readers live as long as somebody may read: a tail may still be held. The writer and the keeper end.
            threads.into_iter().skip(pool::READERS).for_each(|thread| drop(thread.join()));
        };
        let _ = tokio::task::spawn_blocking(join).await;
    }
}
