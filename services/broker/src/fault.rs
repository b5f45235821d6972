//! A broker that fails when it is told to, for tests of those who use one. Behind feature `testing`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    Append, AppendError, Appended, Broker, Bucket, EntryId, Expect, Filter, Flaw, KvEntry, KvError, KvWatch,
    OpenError, Page, PendingAppend, Queue, QueueName, QueueState, ReadError, ReadFrom, ReadLimit,
    RequestError, Requests, Revision, Seq, SharedBroker, StreamSpec, Subject, Tail, Usage,
};

/// Switches of a [`Faulty`] broker. All are off at first; each may be turned at any time, from any task.
#[derive(Debug)]
pub struct Faults {
    lose_acks: AtomicU64,
    lose: AtomicU64,
    duplicate: AtomicBool,
    refuse: AtomicBool,
    forget_ids: AtomicBool,
    /// Appends that are still let through before everything stalls.
    stall_after: AtomicU64,
    stalled: watch::Sender<bool>,
    held: AtomicU64,
    changed: watch::Sender<()>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            lose_acks: AtomicU64::new(0),
            lose: AtomicU64::new(0),
            duplicate: AtomicBool::new(false),
            refuse: AtomicBool::new(false),
            forget_ids: AtomicBool::new(false),
            stall_after: AtomicU64::new(u64::MAX),
            stalled: watch::Sender::new(false),
            held: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        }
    }
}

impl Faults {
    /// The next `count` appends are stored, and answered [`AppendError::Unknown`].
    pub fn lose_acks(&self, count: u64) {
        self.lose_acks.store(count, Ordering::SeqCst);
    }

    /// The next `count` appends are not stored, and answered [`AppendError::Unknown`].
    pub fn lose(&self, count: u64) {
        self.lose.store(count, Ordering::SeqCst);
    }

    /// While on, every append is sent twice, one right after the other; the first one's answer is given.
    pub fn duplicate(&self, on: bool) {
        self.duplicate.store(on, Ordering::SeqCst);
    }

    /// While on, every operation is refused without effect: as not stored, or as unavailable. A lease cannot be
    /// settled then, and a tail that is waiting goes on waiting.
    pub fn refuse(&self, on: bool) {
        self.refuse.store(on, Ordering::SeqCst);
    }

    /// While on, every operation that begins is held before it has any effect, until this is off again.
    pub fn stall(&self, on: bool) {
        self.stalled.send_replace(on);
    }

    /// Stalls by itself once `count` more appends were stored: their acknowledgements do not come before the stall is
    /// over. So a process looks that was stopped in the middle of its work.
    pub fn stall_after(&self, count: u64) {
        self.stall_after.store(count, Ordering::SeqCst);
    }

    /// While on, no append is recognised as a repetition: so a broker behaves after an outage that was longer than
    /// [`crate::IDEMPOTENCE_WINDOW`].
    pub fn forget_ids(&self, on: bool) {
        self.forget_ids.store(on, Ordering::SeqCst);
    }

    /// Waits until at least `count` operations are held by [`Faults::stall`].
    pub async fn held(&self, count: u64) {
        let mut changed = self.changed.subscribe();
        while self.held.load(Ordering::SeqCst) < count {
            // The sender is ours: it cannot be gone.
            let _ = changed.changed().await;
        }
    }

    /// Holds the caller while stalled. `Err` is the reason to refuse.
    async fn pass(&self) -> Result<(), String> {
        if *self.stalled.borrow() {
            let _held = Held::new(self);
            let mut stalled = self.stalled.subscribe();
            let _ = stalled.wait_for(|stalled| !stalled).await;
        }
        if self.refuse.load(Ordering::SeqCst) { Err("refused by a test".into()) } else { Ok(()) }
    }

    /// Whether the broker stalls after this append.
    fn stalls_now(&self) -> bool {
        let next = |left: u64| (left != u64::MAX).then(|| if left <= 1 { u64::MAX } else { left - 1 });
        self.stall_after.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) == Ok(1)
    }

    /// Whether it is the turn of one of those that are counted.
    fn takes_one(count: &AtomicU64) -> bool {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

/// Counts a held operation until it goes on or is dropped.
struct Held<'a>(&'a Faults);

impl<'a> Held<'a> {
    fn new(faults: &'a Faults) -> Self {
        faults.held.fetch_add(1, Ordering::SeqCst);
        faults.changed.send_replace(());
        Self(faults)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.send_replace(());
    }
}

/// See [`Broker::append_run`].
async fn one_by_one(broker: &Faulty, run: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
    let (mut answers, mut failed): (Vec<_>, Option<AppendError>) = (Vec::with_capacity(run.len()), None);
    for append in run {
        let answer = match &failed {
            Some(error) => Err(error.clone().of_what_follows()),
            None => match broker.append(append).await {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            },
        };
        failed = failed.or_else(|| answer.as_ref().err().filter(|error| error.ends_a_run()).cloned());
        answers.push(answer);
    }
    answers
}

/// Wraps a broker. With all switches off it is that broker.
pub struct Faulty {
    inner: SharedBroker,
    faults: Arc<Faults>,
}

impl Faulty {
    /// Wraps `inner`; returns the switches beside.
    pub fn wrap(inner: SharedBroker) -> (SharedBroker, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        (Arc::new(Self { inner, faults: faults.clone() }), faults)
    }
}

#[async_trait]
impl Broker for Faulty {
    async fn open_stream(&self, spec: &StreamSpec) -> Result<(), OpenError> {
        self.faults.pass().await.map_err(OpenError::Unreachable)?;
        self.inner.open_stream(spec).await
    }

    async fn open_bucket(&self, bucket: &Bucket) -> Result<(), OpenError> {
        self.faults.pass().await.map_err(OpenError::Unreachable)?;
        self.inner.open_bucket(bucket).await
    }

    async fn missing(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<String>, OpenError> {
        self.faults.pass().await.map_err(OpenError::Unreachable)?;
        self.inner.missing(streams, buckets).await
    }

    async fn stream_names(&self) -> Result<Vec<String>, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.stream_names().await
    }

    async fn examine(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.examine(streams, buckets).await
    }

    async fn append(&self, mut append: Append) -> Result<PendingAppend, AppendError> {
        self.faults.pass().await.map_err(AppendError::NotStored)?;
        if Faults::takes_one(&self.faults.lose) {
            let lost = AppendError::Unknown("the append was lost by a test".into());
            return Ok(PendingAppend::from_future(async { Err(lost) }));
        }
        if self.faults.forget_ids.load(Ordering::SeqCst) {
            append.id = EntryId::unique();
        }
        let again = self.faults.duplicate.load(Ordering::SeqCst).then(|| append.clone());
        let pending = self.inner.append(append).await?;
        if let Some(again) = again {
            // Its answer is nobody's business: what matters is that it changes nothing.
            drop(self.inner.append(again).await);
        }
        if self.faults.stalls_now() {
            self.faults.stall(true);
            let faults = self.faults.clone();
            return Ok(PendingAppend::from_future(async move {
                let answer = pending.await;
                faults.pass().await.map_err(AppendError::Unknown)?;
                answer
            }));
        }
        if Faults::takes_one(&self.faults.lose_acks) {
            return Ok(PendingAppend::from_future(async {
                pending.await?;
                Err(AppendError::Unknown("the acknowledgement was lost by a test".into()))
            }));
        }
        Ok(pending)
    }

    /// One after the other, so that each can fail or stall; but acknowledgements that are lost are lost of what is stored.
    async fn append_run(&self, mut run: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        let lost = || AppendError::Unknown("the acknowledgement was lost by a test".into());
        if self.faults.lose_acks.load(Ordering::SeqCst) == 0 {
            return one_by_one(self, run).await;
        }
        if self.faults.forget_ids.load(Ordering::SeqCst) {
            run.iter_mut().for_each(|append| append.id = EntryId::unique());
        }
        let answers = self.inner.append_run(run).await;
        let told = |answer: Result<Appended, AppendError>| match answer {
            Ok(_) if Faults::takes_one(&self.faults.lose_acks) => Err(lost()),
            answer => answer,
        };
        answers.into_iter().map(told).collect()
    }

    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.read(filter, from, limit).await
    }

    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.last(subject).await
    }

    async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.count(subject).await
    }

    async fn trim(&self, subject: &Subject, upto: Seq) -> Result<u64, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.trim(subject, upto).await
    }

    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.tail(filter, after).await
    }

    async fn queue(
        &self,
        name: &QueueName,
        subject: &Subject,
        lease: Duration,
    ) -> Result<Arc<dyn Queue>, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        let inner = self.inner.queue(name, subject, lease).await?;
        Ok(Arc::new(FaultyQueue { inner, faults: self.faults.clone() }))
    }

    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.queue_state(name).await
    }

    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        self.faults.pass().await.map_err(KvError::Unavailable)?;
        self.inner.kv_get(bucket, key).await
    }

    async fn kv_put(
        &self,
        bucket: &Bucket,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, KvError> {
        self.faults.pass().await.map_err(KvError::Unavailable)?;
        self.inner.kv_put(bucket, key, value, expect, ttl).await
    }

    async fn kv_delete(&self, bucket: &Bucket, key: &str, expect: Expect) -> Result<(), KvError> {
        self.faults.pass().await.map_err(KvError::Unavailable)?;
        self.inner.kv_delete(bucket, key, expect).await
    }

    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError> {
        self.faults.pass().await.map_err(KvError::Unavailable)?;
        self.inner.kv_watch(bucket).await
    }

    async fn request(
        &self,
        subject: &Subject,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        self.faults.pass().await.map_err(RequestError::Unavailable)?;
        self.inner.request(subject, body, timeout).await
    }

    async fn serve(&self, subject: &Subject) -> Result<Requests, RequestError> {
        self.faults.pass().await.map_err(RequestError::Unavailable)?;
        self.inner.serve(subject).await
    }

    async fn serve_as(&self, service: &crate::Service, subject: &Subject) -> Result<Requests, RequestError> {
        self.faults.pass().await.map_err(RequestError::Unavailable)?;
        self.inner.serve_as(service, subject).await
    }

    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.usage(streams).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct FaultyQueue {
    inner: Arc<dyn Queue>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Queue for FaultyQueue {
    async fn next(&self, limit: ReadLimit) -> Result<crate::Lease, ReadError> {
        self.faults.pass().await.map_err(ReadError::Unavailable)?;
        self.inner.next(limit).await
    }

    async fn ack(&self, lease: &crate::Lease, upto: Seq) -> Result<(), crate::LeaseError> {
        self.faults.pass().await.map_err(crate::LeaseError::Unavailable)?;
        self.inner.ack(lease, upto).await
    }

    async fn nak(&self, lease: &crate::Lease, delay: Duration) -> Result<(), crate::LeaseError> {
        self.faults.pass().await.map_err(crate::LeaseError::Unavailable)?;
        self.inner.nak(lease, delay).await
    }

    async fn extend(&self, lease: &crate::Lease) -> Result<(), crate::LeaseError> {
        self.faults.pass().await.map_err(crate::LeaseError::Unavailable)?;
        self.inner.extend(lease).await
    }
}
