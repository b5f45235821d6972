//! A broker of which only the reading half is left. Owns what the other half answers then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::nats::OwnedNatsBroker;
use crate::{
    Append, AppendError, Appended, Broker, Bucket, Expect, Filter, Flaw, KvEntry, KvError, KvWatch,
    OpenError, Page, PendingAppend, Queue, QueueName, QueueState, ReadError, ReadFrom, ReadLimit,
    RequestError, Requests, Revision, Seq, StreamSpec, Subject, Tail, Usage,
};

/// What everything that would change something is answered.
const REFUSAL: &str = "the broker was opened for reading only";

/// The reading half of [`Broker`]; each method has the contract of the one with the same name there.
#[async_trait]
pub(crate) trait Reading: Send + Sync + 'static {
    async fn missing(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<String>, OpenError>;
    async fn stream_names(&self) -> Result<Vec<String>, ReadError>;
    async fn examine(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError>;
    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError>;
    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError>;
    async fn count(&self, subject: &Subject) -> Result<u64, ReadError>;
    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError>;
    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError>;
    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError>;
    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError>;
    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError>;
    async fn close(&self);
}

/// A broker that can only be read.
pub(crate) struct ReadOnly<R>(pub(crate) R);

#[async_trait]
impl<R: Reading> Broker for ReadOnly<R> {
    async fn open_stream(&self, _spec: &StreamSpec) -> Result<(), OpenError> {
        Err(OpenError::Invalid(REFUSAL.into()))
    }

    async fn open_bucket(&self, _bucket: &Bucket) -> Result<(), OpenError> {
        Err(OpenError::Invalid(REFUSAL.into()))
    }

    async fn missing(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<String>, OpenError> {
        self.0.missing(streams, buckets).await
    }

    async fn stream_names(&self) -> Result<Vec<String>, ReadError> {
        self.0.stream_names().await
    }

    async fn examine(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError> {
        self.0.examine(streams, buckets).await
    }

    async fn append(&self, _append: Append) -> Result<PendingAppend, AppendError> {
        Err(AppendError::Refused(REFUSAL.into()))
    }

    async fn append_run(&self, run: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        run.iter().map(|_| Err(AppendError::Refused(REFUSAL.into()))).collect()
    }

    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError> {
        self.0.read(filter, from, limit).await
    }

    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        self.0.last(subject).await
    }

    async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        self.0.count(subject).await
    }

    async fn trim(&self, _subject: &Subject, _upto: Seq) -> Result<u64, ReadError> {
        Err(ReadError::Unavailable(REFUSAL.into()))
    }

    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError> {
        self.0.tail(filter, after).await
    }

    async fn queue(
        &self,
        _name: &QueueName,
        _subject: &Subject,
        _lease: Duration,
    ) -> Result<Arc<dyn Queue>, ReadError> {
        Err(ReadError::Unavailable(REFUSAL.into()))
    }

    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        self.0.queue_state(name).await
    }

    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        self.0.kv_get(bucket, key).await
    }

    async fn kv_put(
        &self,
        _bucket: &Bucket,
        _key: &str,
        _value: Bytes,
        _expect: Expect,
        _ttl: Option<Duration>,
    ) -> Result<Revision, KvError> {
        Err(KvError::Refused(REFUSAL.into()))
    }

    async fn kv_delete(&self, _bucket: &Bucket, _key: &str, _expect: Expect) -> Result<(), KvError> {
        Err(KvError::Refused(REFUSAL.into()))
    }

    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError> {
        self.0.kv_watch(bucket).await
    }

    async fn request(
        &self,
        _subject: &Subject,
        _body: Bytes,
        _timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        Err(RequestError::Unavailable(REFUSAL.into()))
    }

    async fn serve(&self, _subject: &Subject) -> Result<Requests, RequestError> {
        Err(RequestError::Unavailable(REFUSAL.into()))
    }

    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError> {
        self.0.usage(streams).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// NATS, opened so that it makes nothing.
#[async_trait]
impl Reading for OwnedNatsBroker {
    async fn missing(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<String>, OpenError> {
        Broker::missing(self, streams, buckets).await
    }

    async fn stream_names(&self) -> Result<Vec<String>, ReadError> {
        Broker::stream_names(self).await
    }

    async fn examine(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError> {
        Broker::examine(self, streams, buckets).await
    }

    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError> {
        Broker::read(self, filter, from, limit).await
    }

    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        Broker::last(self, subject).await
    }

    async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        Broker::count(self, subject).await
    }

    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError> {
        Broker::tail(self, filter, after).await
    }

    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        Broker::queue_state(self, name).await
    }

    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        Broker::kv_get(self, bucket, key).await
    }

    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError> {
        Broker::kv_watch(self, bucket).await
    }

    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError> {
        Broker::usage(self, streams).await
    }

    async fn close(&self) {
        Broker::close(self).await;
    }
}
