//! A broker that writes through one handle and reads through another, which was opened for reading only.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use antar_broker::conformance::Harness;
use antar_broker::sqlite::{Options, SqliteBroker};
use antar_broker::{
    Append, AppendError, Appended, Broker, Bucket, Expect, Filter, Flaw, KvEntry, KvError, KvWatch,
    OpenError, Page, PendingAppend, Queue, QueueName, QueueState, ReadError, ReadFrom, ReadLimit,
    RequestError, Requests, Revision, Seq, Settings, SharedBroker, StreamSpec, Subject, Tail, Usage,
    open_for_reading,
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::nats::Nats;

/// The server that the cases running at the same time share. It ends with the last of these.
static SERVER: Mutex<Weak<Nats>> = Mutex::new(Weak::new());

fn server() -> Arc<Nats> {
    let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Nats::start());
        *shared = Arc::downgrade(&started);
        started
    })
}

/// Where a [`Split`] is, and what lives as long as it.
enum Place {
    Sqlite { dir: tempfile::TempDir, tight: bool },
    Nats(Arc<Nats>),
}

/// See the module.
pub(crate) struct Split {
    place: Place,
    halves: Arc<Halves>,
}

impl Split {
    /// On a file; `tight` holds next to nothing in memory.
    pub(crate) async fn on_sqlite(tight: bool) -> Self {
        let place = Place::Sqlite { dir: tempfile::tempdir().unwrap(), tight };
        let halves = Self::open(&place).await;
        Self { place, halves }
    }

    /// On a server.
    pub(crate) async fn on_nats() -> Self {
        let place = Place::Nats(tokio::task::spawn_blocking(server).await.unwrap());
        let halves = Self::open(&place).await;
        Self { place, halves }
    }

    async fn open(place: &Place) -> Arc<Halves> {
        let (settings, writer): (Settings, SharedBroker) = match place {
            Place::Sqlite { dir, tight } => {
                let file = dir.path().join("antar.db");
                let options = Options::new(&file);
                let options = if *tight { options.tight() } else { options };
                let writer = SqliteBroker::open(options).await.unwrap();
                (Settings::new(format!("sqlite:{}", file.display())), Arc::new(writer))
            }
            Place::Nats(server) => {
                let settings = Settings::new(server.url());
                let writer = antar_broker::open(&settings).await.unwrap();
                (settings, writer)
            }
        };
        let reader = open_for_reading(&settings).await.unwrap();
        let merges_changes = matches!(place, Place::Sqlite { .. });
        Arc::new(Halves { writer, reader, merges_changes })
    }
}

#[async_trait]
impl Harness for Split {
    fn broker(&self) -> SharedBroker {
        self.halves.clone()
    }

    async fn reopen(&mut self) -> Option<SharedBroker> {
        self.halves.close().await;
        self.halves = Self::open(&self.place).await;
        Some(self.broker())
    }
}

struct Halves {
    writer: SharedBroker,
    reader: SharedBroker,
    /// A watch of the reader shows the last of several changes only, so the writer's is used.
    merges_changes: bool,
}

#[async_trait]
impl Broker for Halves {
    async fn open_stream(&self, spec: &StreamSpec) -> Result<(), OpenError> {
        self.writer.open_stream(spec).await
    }

    async fn open_bucket(&self, bucket: &Bucket) -> Result<(), OpenError> {
        self.writer.open_bucket(bucket).await
    }

    async fn missing(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<String>, OpenError> {
        self.reader.missing(streams, buckets).await
    }

    async fn stream_names(&self) -> Result<Vec<String>, ReadError> {
        self.reader.stream_names().await
    }

    async fn examine(&self, streams: &[StreamSpec], buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError> {
        self.reader.examine(streams, buckets).await
    }

    async fn append(&self, append: Append) -> Result<PendingAppend, AppendError> {
        self.writer.append(append).await
    }

    async fn append_run(&self, run: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        self.writer.append_run(run).await
    }

    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError> {
        self.reader.read(filter, from, limit).await
    }

    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        self.reader.last(subject).await
    }

    async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        self.reader.count(subject).await
    }

    async fn trim(&self, subject: &Subject, upto: Seq) -> Result<u64, ReadError> {
        self.writer.trim(subject, upto).await
    }

    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError> {
        self.reader.tail(filter, after).await
    }

    async fn queue(
        &self,
        name: &QueueName,
        subject: &Subject,
        lease: Duration,
    ) -> Result<Arc<dyn Queue>, ReadError> {
        self.writer.queue(name, subject, lease).await
    }

    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        self.reader.queue_state(name).await
    }

    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        self.reader.kv_get(bucket, key).await
    }

    async fn kv_put(
        &self,
        bucket: &Bucket,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, KvError> {
        self.writer.kv_put(bucket, key, value, expect, ttl).await
    }

    async fn kv_delete(&self, bucket: &Bucket, key: &str, expect: Expect) -> Result<(), KvError> {
        self.writer.kv_delete(bucket, key, expect).await
    }

    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError> {
        if self.merges_changes {
            return self.writer.kv_watch(bucket).await;
        }
        // A reader does not make it.
        self.writer.open_bucket(bucket).await.unwrap();
        self.reader.kv_watch(bucket).await
    }

    async fn request(
        &self,
        subject: &Subject,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        self.writer.request(subject, body, timeout).await
    }

    async fn serve(&self, subject: &Subject) -> Result<Requests, RequestError> {
        self.writer.serve(subject).await
    }

    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError> {
        self.reader.usage(streams).await
    }

    async fn close(&self) {
        self.writer.close().await;
        self.reader.close().await;
    }
}
