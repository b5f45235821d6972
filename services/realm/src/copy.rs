//! A watched copy of a bucket: reads cost no round trip, writes are seen by the writer when they return.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use antar_broker::{Bucket, Expect, KvChange, KvEntry, KvError, ReadError, Revision, SharedBroker};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a writer waits at the most until its own write has come back to the copy.
const CATCH_UP: Duration = Duration::from_secs(5);
/// After so long without the change that is waited for, the broker is asked whether it is still to come.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Pause before a watch that broke is opened again.
const REOPEN_DELAY: Duration = Duration::from_millis(500);

/// A bucket of `T`, as JSON, and its copy in memory. Cheap to clone.
pub(crate) struct KvCopy<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    broker: SharedBroker,
    bucket: Bucket,
    map: RwLock<HashMap<String, Held<T>>>,
    /// Grows with everything applied; writers wait for it.
    applied: watch::Sender<u64>,
}

struct Held<T> {
    value: Arc<T>,
    revision: Revision,
}

/// Everything that is in a bucket now, in no order.
pub(crate) async fn kept_in(broker: &SharedBroker, bucket: &Bucket) -> Result<Vec<KvEntry>, KvError> {
    let mut watch = broker.kv_watch(bucket).await?;
    let mut kept: HashMap<String, KvEntry> = HashMap::new();
    loop {
        match watch.next().await? {
            KvChange::Put(entry) => drop(kept.insert(entry.key.clone(), entry)),
            KvChange::Delete { key } => drop(kept.remove(&key)),
            KvChange::Current => return Ok(kept.into_values().collect()),
        }
    }
}

/// Whether there is nothing in a bucket.
pub(crate) async fn holds_nothing(broker: &SharedBroker, bucket: &Bucket) -> Result<bool, KvError> {
    let mut watch = broker.kv_watch(bucket).await?;
    loop {
        match watch.next().await? {
            KvChange::Put(_) => return Ok(false),
            KvChange::Delete { .. } => {}
            KvChange::Current => return Ok(true),
        }
    }
}

/// Everything that is in a bucket, which need not be there: then there is nothing.
pub(crate) async fn kept_if_there(broker: &SharedBroker, bucket: &Bucket) -> Result<Vec<KvEntry>, ReadError> {
    let missing = broker.missing(&[], std::slice::from_ref(bucket)).await;
    let missing = missing.map_err(|error| ReadError::Unavailable(error.to_string()))?;
    // The broker may name what it needs itself, too.
    if missing.iter().any(|name| name.ends_with(bucket.as_str())) {
        return Ok(Vec::new());
    }
    kept_in(broker, bucket).await.map_err(unavailable)
}

/// All values of a small bucket, in no order; none if it is not there. One that cannot be read is left out.
pub(crate) async fn values<T: DeserializeOwned>(
    broker: &SharedBroker,
    bucket: &Bucket,
) -> Result<Vec<T>, ReadError> {
    let kept = kept_if_there(broker, bucket).await?;
    Ok(kept.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
}

/// A bucket that cannot be read is a log that cannot.
pub(crate) fn unavailable(error: KvError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

impl<T> Clone for KvCopy<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> KvCopy<T> {
    /// Reads the whole bucket, then follows it on a task of `tasks` until `stop`.
    pub(crate) async fn open(
        broker: SharedBroker,
        bucket: Bucket,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, KvError> {
        let inner =
            Arc::new(Inner { broker, bucket, map: RwLock::default(), applied: watch::Sender::new(0) });
        let mut watch = inner.broker.kv_watch(&inner.bucket).await?;
        loop {
            match watch.next().await? {
                KvChange::Current => break,
                change => inner.apply(change),
            }
        }
        let follower = inner.clone();
        tasks.spawn(async move {
            // Cancel-safe: what a cancelled `follow` did not apply is read again by nobody, the copy ends with it.
            tokio::select! {
                () = stop.cancelled() => {}
                () = follower.follow(watch) => {}
            }
        });
        Ok(Self { inner })
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<T>> {
        self.read().get(key).map(|held| held.value.clone())
    }

    /// The value of a key, with what a compare-and-set needs.
    pub(crate) fn get_with_revision(&self, key: &str) -> Option<(Arc<T>, Revision)> {
        self.read().get(key).map(|held| (held.value.clone(), held.revision))
    }

    /// The value of a key, as the broker has it if the copy has none: what was written elsewhere a moment ago may not have
    /// come yet. Costs nothing if the copy has it.
    pub(crate) async fn fresh(&self, key: &str) -> Result<Option<Arc<T>>, KvError> {
        match self.get(key) {
            Some(value) => Ok(Some(value)),
            None => self.catch_up(key).await.map(|()| self.get(key)),
        }
    }

    /// Waits until the copy has seen the write of a key that the broker has now.
    pub(crate) async fn catch_up(&self, key: &str) -> Result<(), KvError> {
        let until = tokio::time::Instant::now() + CATCH_UP;
        loop {
            // Before the look, so that no change after it is missed.
            let mut applied = self.inner.applied.subscribe();
            let now = self.inner.broker.kv_get(&self.inner.bucket, key).await?.map(|entry| entry.revision);
            let is_there = |_: &u64| match (now, self.read().get(key)) {
                (Some(now), Some(held)) => held.revision >= now,
                (None, None) => true,
                _ => false,
            };
            // It may go away again, so now and then the broker is asked anew.
            match tokio::time::timeout(LOOK_AGAIN, applied.wait_for(is_there)).await {
                Ok(_) => return Ok(()),
                Err(_) if tokio::time::Instant::now() < until => {}
                Err(_) => {
                    return Err(KvError::Unavailable("the copy of the bucket does not follow".into()));
                }
            }
        }
    }

    /// Tells of every change that was applied.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.applied.subscribe()
    }

    /// Grows with every change.
    pub(crate) fn version(&self) -> u64 {
        *self.inner.applied.borrow()
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.read().len()
    }

    /// Every key and value, in no order.
    pub(crate) fn all(&self) -> Vec<(String, Arc<T>)> {
        self.read().iter().map(|(key, held)| (key.clone(), held.value.clone())).collect()
    }

    /// The keys and values of which something is true, with their revisions, in no order.
    pub(crate) fn select(&self, wanted: impl Fn(&T) -> bool) -> Vec<(String, Arc<T>, Revision)> {
        let map = self.read();
        let wanted = map.iter().filter(|(_, held)| wanted(&held.value));
        wanted.map(|(key, held)| (key.clone(), held.value.clone(), held.revision)).collect()
    }

    /// Writes a key. When this returns the write is durable and [`Self::get`] shows it.
    pub(crate) async fn put(
        &self,
        key: &str,
        value: &T,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<(), KvError> {
        let bytes =
            Bytes::from(serde_json::to_vec(value).map_err(|error| KvError::Refused(error.to_string()))?);
        let revision = self.inner.broker.kv_put(&self.inner.bucket, key, bytes, expect, ttl).await?;
        self.wait_until(|map| map.get(key).is_some_and(|held| held.revision >= revision)).await
    }

    /// Removes a key. When this returns [`Self::get`] no longer shows it.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), KvError> {
        self.delete_if(key, Expect::Any).await
    }

    /// Likewise, if what is expected is true then.
    pub(crate) async fn delete_if(&self, key: &str, expect: Expect) -> Result<(), KvError> {
        self.inner.broker.kv_delete(&self.inner.bucket, key, expect).await?;
        self.wait_until(|map| !map.contains_key(key)).await
    }

    async fn wait_until(&self, seen: impl Fn(&HashMap<String, Held<T>>) -> bool) -> Result<(), KvError> {
        let mut applied = self.inner.applied.subscribe();
        let caught_up = applied.wait_for(|_| seen(&self.read()));
        match tokio::time::timeout(CATCH_UP, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(KvError::Unavailable("the copy of the bucket does not follow".into())),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Held<T>>> {
        self.inner.map.read().expect("no holder of this lock panics")
    }
}

impl<T: DeserializeOwned> Inner<T> {
    fn apply(&self, change: KvChange) {
        match change {
            KvChange::Put(entry) => match serde_json::from_slice(&entry.value) {
                Ok(value) => {
                    let held = Held { value: Arc::new(value), revision: entry.revision };
                    self.map.write().expect("no holder of this lock panics").insert(entry.key, held);
                }
                Err(error) => {
                    tracing::error!(bucket = self.bucket.as_str(), key = entry.key, %error, "a value is not readable, it is left out");
                }
            },
            KvChange::Delete { key } => {
                self.map.write().expect("no holder of this lock panics").remove(&key);
            }
            KvChange::Current => {}
        }
        self.applied.send_modify(|count| *count += 1);
    }

    /// Applies changes for ever; opens the watch again when it breaks.
    async fn follow(&self, mut watch: antar_broker::KvWatch) {
        loop {
            match watch.next().await {
                Ok(change) => self.apply(change),
                Err(error) => {
                    tracing::warn!(bucket = self.bucket.as_str(), %error, "a watch broke, opening it again");
                    watch = self.reopen().await;
                }
            }
        }
    }

    /// Opens the watch anew and replaces the copy by what it shows, so that a deletion in between is not missed.
    async fn reopen(&self) -> antar_broker::KvWatch {
        'again: loop {
            tokio::time::sleep(REOPEN_DELAY).await;
            let Ok(mut watch) = self.broker.kv_watch(&self.bucket).await else { continue };
            let mut keys = std::collections::HashSet::new();
            loop {
                match watch.next().await {
                    Ok(KvChange::Current) => break,
                    Ok(change) => {
                        if let KvChange::Put(entry) = &change {
                            keys.insert(entry.key.clone());
                        }
                        self.apply(change);
                    }
                    Err(_) => continue 'again,
                }
            }
            self.map.write().expect("no holder of this lock panics").retain(|key, _| keys.contains(key));
            self.applied.send_modify(|count| *count += 1);
            return watch;
        }
    }
}
