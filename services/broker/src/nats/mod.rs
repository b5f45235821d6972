//! The log on NATS JetStream: many processes, many machines, and the server's own clustering.
//!
//! * `open` — connecting, and what a server has to be.
//! * `publish`, `ack` — appends: in order, acknowledged, published again after a lost connection; on a connection of its own.
//! * `bundle` — several entries in one message; `run` — many appends in an order that holds.
//! * `api`, `read` — questions to the server; reading entries forward and backward.
//! * `streams`, `differences` — the streams and buckets: made, compared, found by subject.
//! * `examine`, `permissions` — what is wrong with the servers, the account, the user and the streams.
//! * `tail` — following what is stored, live and without a gap.
//! * `kv`, `queue`, `rpc` — buckets, work queues on them, requests and services.
//!
//! Architecture invariant: a publish is not an acknowledgement; nothing is told to be stored before the stream's leader
//! said so. Every wait has a timeout of our own, for the library's do not hold while it is not connected.

mod ack;
mod api;
mod bundle;
mod differences;
mod examine;
mod kv;
mod message;
mod open;
mod options;
mod permissions;
mod publish;
mod queue;
mod read;
mod rpc;
mod run;
mod streams;
mod tail;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::message::headers_of;
use self::open::patiently;
pub(crate) use self::options::{is_nats, servers};
use self::publish::{Publish, Publisher};
use self::read::Reader;
use self::streams::{Stream, bucket_stream};
use crate::{
    Append, AppendError, Appended, Broker, Bucket, Expect, Filter, Flaw, KvEntry, KvError, KvWatch,
    OpenError, Page, PendingAppend, Queue, QueueName, QueueState, ReadError, ReadFrom, ReadLimit,
    RequestError, Requests, Revision, Seq, Service, StreamSpec, Subject, Tail, Usage,
};

/// How far back a repetition of an append with an expectation is looked for.
const REPETITION_ENTRIES_MAX: usize = 1_000;
/// How long an append waits for its turn; it was not sent then.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long closing waits for tasks.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Held by whoever has something on its way that expects something.
type Turn = tokio::sync::OwnedMutexGuard<()>;

/// A broker on NATS. See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NatsBroker {
    options: options::Options,
    publisher: Publisher,
    reader: Reader,
    queues: Arc<queue::Queues>,
    bundler: bundle::Bundler,
    turns: Arc<Mutex<HashMap<Subject, Arc<tokio::sync::Mutex<()>>>>>,
    is_shut: Arc<AtomicBool>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

/// A broker whose tasks end with it. See [`NatsBroker`].
pub(crate) struct OwnedNatsBroker(NatsBroker);

impl Drop for OwnedNatsBroker {
    fn drop(&mut self) {
        self.0.closed.cancel();
    }
}

impl NatsBroker {
    fn is_closed(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    fn check_open(&self) -> Result<(), ReadError> {
        if self.is_closed() { Err(ReadError::Closed) } else { Ok(()) }
    }

    /// Checks that streams keep all subjects, and that a fence is of the same one.
    async fn check_streams(&self, append: &Append) -> Result<Arc<Stream>, AppendError> {
        let refused = |error: ReadError| match error {
            ReadError::NoStream(_) => AppendError::Refused(error.to_string()),
            other => AppendError::NotStored(other.to_string()),
        };
        let mut first = None;
        for subject in &append.subjects {
            let stream = self.reader.streams.of(&Filter::from(subject)).await.map_err(refused)?;
            first.get_or_insert(stream);
        }
        let first = first.expect("an append has a subject");
        if let Some(fence) = append.fence() {
            let stream = self.reader.streams.of(&Filter::from(fence)).await.map_err(refused)?;
            if stream.name != first.name {
                let why = "what is expected is about a subject of another stream";
                return Err(AppendError::Refused(why.into()));
            }
        }
        Ok(first)
    }

    /// Makes sure that a stream's leader takes what is published to it, without storing anything.
    async fn probe(&self, filter: &Filter) -> Result<(), OpenError> {
        let tokens =
            filter.as_str().split('.').map(|token| if token == "*" || token == ">" { "-" } else { token });
        let subject = tokens.collect::<Vec<_>>().join(".");
        let message = Publish {
            subject: subject.into(),
            headers: message::probe_headers(),
            body: Bytes::new(),
            place: None,
            is_kept: true,
            may_wait: true,
            following: None,
        };
        let answer = self
            .publisher
            .publish(message)
            .await
            .map_err(|error| OpenError::Unreachable(error.to_string()))?;
        match publish::answer_of(answer).await {
            Err(AppendError::NotStored(_)) => Ok(()),
            Ok(_) => Err(OpenError::Unreachable("the server stored what it must not".into())),
            Err(error) => Err(OpenError::Unreachable(format!(
                "nothing can be published to {filter}, may this user? {error}"
            ))),
        }
    }

    /// Waits until nothing else is on its way that expects something of `subject`. A replicated stream refuses the
    /// second such message while the first is being agreed on.
    async fn turn(&self, subject: &Subject) -> Result<Turn, AppendError> {
        let turn = {
            let mut turns = self.turns.lock().expect("no holder of this lock panics");
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(subject.clone()).or_default().clone()
        };
        let waited = tokio::time::timeout(TURN_TIMEOUT, turn.lock_owned()).await;
        waited.map_err(|_| {
            AppendError::NotStored("too much that expects the same is on its way to NATS".into())
        })
    }

    /// Publishes the copies of an append one after the other, and lets the next have its turn behind them.
    fn append_in_turn(&self, turn: Turn, append: Append) -> PendingAppend {
        let (done, answer) = tokio::sync::oneshot::channel();
        let broker = self.clone();
        self.tasks.spawn(async move {
            let mut answers = Vec::with_capacity(append.subjects.len());
            for at in 0..append.subjects.len() {
                let answer = match broker.publish(&append, at, None).await {
                    Ok(answer) => publish::answer_of(answer).await,
                    Err(error) => Err(error),
                };
                answers.push(publish::answered(answer));
            }
            let _ = done.send(broker.finish(append, answers).await);
            drop(turn);
        });
        PendingAppend::from_oneshot(answer)
    }

    /// Queues the copy for one subject, and what is to follow it.
    async fn publish(
        &self,
        append: &Append,
        at: usize,
        following: Option<Box<bundle::Following>>,
    ) -> Result<publish::Receiver, AppendError> {
        let subject = &append.subjects[at];
        // A copy that may be taken back has a message of its own.
        let is_copy = at >= append.subjects.len() - append.copies.min(append.subjects.len() - 1);
        let goes_together =
            append.is_fresh && !is_copy && append.headers.is_empty() && append.expect_last.is_none();
        if goes_together && self.reader.streams.known(subject.as_str()).is_some() {
            return self.bundler.publish_fresh(subject, bundle::Part::of(append), at, following).await;
        }
        let message = Publish { following, ..self.message(append, at, subject)? };
        self.bundler.publish(subject, message).await
    }

    fn message(&self, append: &Append, at: usize, subject: &Subject) -> Result<Publish, AppendError> {
        let headers = headers_of(&append.id, at, &append.headers, append.expect_last.as_ref(), subject)?;
        Ok(Publish {
            subject: subject.as_str().to_owned().into(),
            headers,
            body: append.body.clone(),
            place: Some(subject.clone()),
            is_kept: self.reader.streams.known(subject.as_str()).is_some(),
            may_wait: false,
            following: None,
        })
    }

    /// Waits for the acknowledgements of an append with several subjects and makes one answer of them.
    async fn finish(self, append: Append, waiting: Vec<publish::Receiver>) -> publish::Answer {
        let originals = append.subjects.len() - append.copies.min(append.subjects.len() - 1);
        let mut appended: Option<Appended> = None;
        let (mut full, mut stored, mut failed) = (Vec::new(), Vec::new(), None);
        for (at, answer) in waiting.into_iter().enumerate() {
            match publish::answer_of(answer).await {
                Ok(one) if at < originals => {
                    let first = appended.get_or_insert(one.clone());
                    first.duplicate |= one.duplicate;
                }
                Ok(one) => stored.push((at, one)),
                Err(AppendError::Full(subject)) => full.push(subject),
                // Nobody can tell of the whole what nobody can tell of a part.
                Err(error @ AppendError::Unknown(_)) => failed = Some(error),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        match (failed, appended) {
            (None, Some(mut appended)) => {
                if !appended.duplicate {
                    appended.full = full;
                }
                Ok(appended)
            }
            (None, None) => {
                for (at, copy) in stored.into_iter().filter(|(_, copy)| !copy.duplicate) {
                    self.take_back(&append.subjects[at], copy.seq).await;
                }
                Err(AppendError::Full(append.subjects[0].clone()))
            }
            // Some of them are there: the same append again completes it.
            (Some(error), Some(_)) => Err(AppendError::Unknown(error.to_string())),
            (Some(AppendError::Conflict), None) => self.conflict(&append).await,
            (Some(error), None) => Err(error),
        }
    }

    /// An append whose expectation is not met may be a repetition: the server compares before it looks at the id.
    async fn conflict(&self, append: &Append) -> publish::Answer {
        let filter = Filter::from(&append.subjects[0]);
        let limit = ReadLimit::entries(REPETITION_ENTRIES_MAX);
        let page = self.reader.read(&filter, ReadFrom::End, limit).await;
        let page = page.map_err(|error| AppendError::Unknown(error.to_string()))?;
        match page.entries.iter().find(|entry| entry.id == append.id) {
            Some(entry) => Ok(Appended { seq: entry.seq, duplicate: true, full: Vec::new() }),
            None => Err(AppendError::Conflict),
        }
    }

    /// Removes a copy of something that nobody got.
    async fn take_back(&self, subject: &Subject, seq: Seq) {
        let removed = async {
            let stream = self.reader.streams.of(&Filter::from(subject)).await?;
            let subject = format!("STREAM.MSG.DELETE.{}", stream.name);
            let question = serde_json::json!({ "seq": bundle::message_of(seq), "no_erase": true });
            let asked = self.reader.api.ask::<serde_json::Value>(&subject, &question);
            asked.await.map_err(|error| ReadError::Unavailable(error.to_string()))
        };
        if let Err(error) = removed.await {
            tracing::warn!(%subject, %seq, %error, "a copy of a message that nobody got stays");
        }
    }
}

#[async_trait]
impl Broker for OwnedNatsBroker {
    async fn open_stream(&self, spec: &StreamSpec) -> Result<(), OpenError> {
        patiently(|| async {
            self.0.reader.streams.open(spec).await?;
            match spec.filters.first() {
                Some(filter) => self.0.probe(filter).await,
                None => Ok(()),
            }
        })
        .await
    }

    async fn open_bucket(&self, bucket: &Bucket) -> Result<(), OpenError> {
        patiently(|| async {
            self.0.reader.streams.open_bucket(&queue::bucket()).await?;
            self.0.reader.streams.open_bucket(bucket).await
        })
        .await
    }

    async fn missing(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<String>, OpenError> {
        let names = streams.iter().map(|spec| spec.name.clone());
        let buckets = buckets.iter().chain([&queue::bucket()]).map(bucket_stream).collect::<Vec<_>>();
        self.0.reader.streams.missing(names.chain(buckets).collect()).await
    }

    async fn stream_names(&self) -> Result<Vec<String>, ReadError> {
        self.0.check_open()?;
        self.0.reader.streams.names().await.map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    async fn examine(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError> {
        self.0.check_open()?;
        self.0.look_for_flaws(streams, buckets).await
    }

    async fn append(&self, append: Append) -> Result<PendingAppend, AppendError> {
        append.check()?;
        let broker = &self.0;
        if broker.is_closed() {
            return Err(AppendError::NotStored("the broker was closed".into()));
        }
        if append.subjects.len() == 1 && append.expect_last.is_none() {
            return Ok(PendingAppend::from_oneshot(broker.publish(&append, 0, None).await?));
        }
        if let [_, copy] = &append.subjects[..]
            && append.copies == 1
            && append.expect_last.is_none()
            && self.0.reader.streams.known(copy.as_str()).is_some()
        {
            let (bundler, subject) = (broker.bundler.clone(), copy.clone());
            let following = bundle::Following { bundler, subject, copy: bundle::Part::of(&append) };
            let answer = broker.publish(&append, 0, Some(Box::new(following))).await?;
            return Ok(PendingAppend::from_oneshot(answer));
        }
        let stream = broker.check_streams(&append).await?;
        if let Some(expected) = append.expect_last.as_ref().filter(|_| stream.is_replicated) {
            let turn = broker.turn(&expected.subject).await?;
            return Ok(broker.append_in_turn(turn, append));
        }
        let mut waiting = Vec::with_capacity(append.subjects.len());
        for at in 0..append.subjects.len() {
            match broker.publish(&append, at, None).await {
                Ok(answer) => waiting.push(answer),
                Err(error) if waiting.is_empty() => return Err(error),
                // Part of it is on its way: what becomes of the whole is told behind that.
                Err(error) => {
                    waiting.push(publish::answered(Err(error)));
                    break;
                }
            }
        }
        Ok(PendingAppend::from_future(broker.clone().finish(append, waiting)))
    }

    async fn append_run(&self, run: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        if self.0.is_closed() {
            let closed = || Err(AppendError::NotStored("the broker was closed".into()));
            return run.iter().map(|_| closed()).collect();
        }
        self.0.store_run(&run).await
    }

    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError> {
        self.0.check_open()?;
        self.0.reader.read(filter, from, limit).await
    }

    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        self.0.check_open()?;
        self.0.reader.last(subject).await
    }

    async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        self.0.check_open()?;
        self.0.reader.count(subject).await
    }

    async fn trim(&self, subject: &Subject, upto: Seq) -> Result<u64, ReadError> {
        self.0.check_open()?;
        self.0.reader.trim(subject, upto).await
    }

    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError> {
        self.0.check_open()?;
        let stream = self.0.reader.streams.of(filter).await?;
        let (reader, closed) = (self.0.reader.clone(), self.0.closed.clone());
        let follower = tail::Follower::new(reader, stream, filter.as_str().to_owned(), after, closed);
        Ok(Tail::new(tail::NatsTail::new(follower, after)))
    }

    async fn queue(
        &self,
        name: &QueueName,
        subject: &Subject,
        lease: Duration,
    ) -> Result<Arc<dyn Queue>, ReadError> {
        self.0.check_open()?;
        Ok(Arc::new(self.0.open_queue(name, subject, lease).await?))
    }

    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        self.0.check_open()?;
        self.0.state_of_queue(name).await
    }

    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        self.0.check_open().map_err(KvError::from)?;
        self.0.get_key(bucket, key).await
    }

    async fn kv_put(
        &self,
        bucket: &Bucket,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, KvError> {
        self.0.check_open().map_err(KvError::from)?;
        self.0.write_key(bucket, key, Some((value, ttl)), expect).await
    }

    async fn kv_delete(&self, bucket: &Bucket, key: &str, expect: Expect) -> Result<(), KvError> {
        self.0.check_open().map_err(KvError::from)?;
        self.0.write_key(bucket, key, None, expect).await.map(drop)
    }

    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError> {
        self.0.check_open().map_err(KvError::from)?;
        Ok(KvWatch::new(self.0.watch_bucket(bucket).await?))
    }

    async fn request(
        &self,
        subject: &Subject,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        if self.0.is_closed() {
            return Err(RequestError::Unavailable("the broker was closed".into()));
        }
        let answer = self.0.reader.api.request(subject.as_str().to_owned(), body, timeout).await?;
        Ok(answer.payload)
    }

    async fn serve(&self, subject: &Subject) -> Result<Requests, RequestError> {
        self.0.serve_subject(subject).await
    }

    async fn serve_as(&self, service: &Service, subject: &Subject) -> Result<Requests, RequestError> {
        self.0.serve_service(service, subject).await
    }

    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError> {
        self.0.check_open()?;
        let usage = self.0.reader.streams.usage(streams).await;
        let usage = usage.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        Ok(Usage { events: self.0.options.events.all(), ..usage })
    }

    async fn close(&self) {
        if self.0.is_shut.swap(true, Ordering::AcqRel) {
            return;
        }
        self.0.release_queues().await;
        self.0.publisher.close().await;
        self.0.closed.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.0.tasks.len(), "some tasks of the broker did not end in time");
        }
    }
}
