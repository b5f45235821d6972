//! Work queues: a position and a lease in a key of a bucket, changed by compare-and-set only.
//!
//! Why not a durable consumer of JetStream, which would look like the obvious choice. Order needs `max_ack_pending` 1, and
//! then each entry costs a round trip: at 100 ms, ten a second. A pinned consumer pins a client, but an acknowledgement of a client
//! that lost its pin still counts; after kill -9 of the server it hands out what was acknowledged; `double_ack` says
//! yes after its consumer was deleted. A key that is changed by its revision has none of these: a lease covers a whole
//! batch, whoever lost it can settle nothing, and the position is as durable as the log.
//!
//! Nobody compares clocks of two machines: a lease has ended when somebody has seen its key unchanged for as long as the
//! lease lasts, by their own clock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::NatsBroker;
use super::tail::Follower;
use crate::{
    Bucket, Expect, Filter, KvChange, KvError, Lease, LeaseError, Queue, QueueName, QueueState, ReadError,
    ReadFrom, ReadLimit, Revision, Seq, Subject,
};

/// The bucket of all queues.
const BUCKET: &str = "antar_queues";
/// Pause before the bucket is followed again after a failure.
const REOPEN_DELAY: Duration = Duration::from_millis(250);
/// How many different counts of tries are kept for the entries at the front.
const TRIES_MAX: usize = 8;

pub(super) fn bucket() -> Bucket {
    Bucket::new(BUCKET).expect("it is a plain name")
}

/// A queue, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    subject: String,
    /// Everything up to here was dealt with.
    acked: u64,
    /// How long the lease lasts from the moment at which this was written; none if nobody works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    /// How long nothing is handed out from that moment.
    #[serde(default)]
    pause_ms: u64,
    /// How often entries were handed out: up to a sequence, from the one before.
    #[serde(default)]
    tries: Vec<(u64, u32)>,
}

impl Record {
    /// Takes note that entries up to `last` are handed out; how often the first of them was before.
    fn hand_out(&mut self, first: u64, last: u64) -> u32 {
        let before = self.tries.iter().find(|(upto, _)| *upto >= first).map_or(0, |(_, count)| *count);
        let (mut counted, mut reached) = (Vec::new(), self.acked);
        for (upto, count) in std::mem::take(&mut self.tries) {
            if upto <= last {
                counted.push((upto, count + 1));
            } else {
                if reached < last {
                    counted.push((last, count + 1));
                }
                counted.push((upto, count));
            }
            reached = upto;
        }
        if reached < last {
            counted.push((last, 1));
        }
        counted.truncate(TRIES_MAX);
        self.tries = counted;
        before
    }

    fn settle(&mut self, upto: u64) {
        self.acked = self.acked.max(upto);
        let acked = self.acked;
        self.tries.retain(|(upto, _)| *upto > acked);
        (self.lease_ms, self.pause_ms) = (None, 0);
    }
}

/// A record as it was last seen.
#[derive(Clone)]
struct View {
    record: Record,
    revision: Revision,
    since: Instant,
}

impl View {
    /// Until when nothing is handed out, if that lies ahead.
    fn busy_until(&self) -> Option<Instant> {
        let wait = self.record.lease_ms.unwrap_or(0).max(self.record.pause_ms);
        let until = self.since + Duration::from_millis(wait);
        (until > Instant::now()).then_some(until)
    }
}

/// What this process knows of all queues.
#[derive(Default)]
pub(super) struct Queues {
    views: Mutex<HashMap<String, View>>,
    changed: watch::Sender<u64>,
    followed: OnceCell<()>,
    /// The leases that this process has, by token.
    held: Mutex<HashMap<u64, Held>>,
}

impl Queues {
    fn view(&self, name: &QueueName) -> Option<View> {
        self.views().get(name.as_str()).cloned()
    }

    fn views(&self) -> MutexGuard<'_, HashMap<String, View>> {
        self.views.lock().expect("no holder of this lock panics")
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Held>> {
        self.held.lock().expect("no holder of this lock panics")
    }

    fn note(&self, name: &str, record: Record, revision: Revision) {
        let view = View { record, revision, since: Instant::now() };
        let mut views = self.views();
        if views.get(name).is_none_or(|known| known.revision < revision) {
            views.insert(name.to_owned(), view);
            drop(views);
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

/// Follows the bucket of queues for as long as the broker is open.
async fn follow(broker: NatsBroker) {
    while !broker.closed.is_cancelled() {
        if let Ok(mut watch) = broker.watch_bucket(&bucket()).await {
            use crate::KvSource as _;
            while let Ok(change) = watch.next().await {
                let KvChange::Put(entry) = change else { continue };
                match serde_json::from_slice(&entry.value) {
                    Ok(record) => broker.queues.note(&entry.key, record, entry.revision),
                    Err(error) => {
                        tracing::error!(queue = entry.key, %error, "a queue's record is not readable")
                    }
                }
            }
        }
        // Cancel-safe: both only wait.
        tokio::select! {
            () = sleep(REOPEN_DELAY) => {}
            () = broker.closed.cancelled() => {}
        }
    }
}

fn lease_error(error: &KvError) -> LeaseError {
    match error {
        KvError::Conflict => LeaseError::Lost,
        error => LeaseError::Unavailable(error.to_string()),
    }
}

fn read_error(error: KvError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

/// A queue of this process.
pub(super) struct NatsQueue {
    broker: NatsBroker,
    name: QueueName,
    subject: Subject,
    lease: Duration,
}

/// A lease that was given out.
#[derive(Clone)]
struct Held {
    name: QueueName,
    record: Record,
    revision: Revision,
    last: u64,
    ends: Instant,
}

impl NatsBroker {
    pub(super) async fn open_queue(
        &self,
        name: &QueueName,
        subject: &Subject,
        lease: Duration,
    ) -> Result<NatsQueue, ReadError> {
        self.reader.streams.of(&Filter::from(subject)).await?;
        let record = Record {
            subject: subject.as_str().to_owned(),
            acked: 0,
            lease_ms: None,
            pause_ms: 0,
            tries: Vec::new(),
        };
        if self.record(name).await?.is_none() {
            let bytes = encode(&record);
            match self.write_key(&bucket(), name.as_str(), Some((bytes, None)), Expect::Absent).await {
                Ok(_) | Err(KvError::Conflict) => {}
                Err(error) => return Err(read_error(error)),
            }
        }
        let follow = || async {
            self.tasks.spawn(follow(self.clone()));
        };
        self.queues.followed.get_or_init(follow).await;
        let (name, subject) = (name.clone(), subject.clone());
        Ok(NatsQueue { broker: self.clone(), name, subject, lease })
    }

    /// Writes a record over the one that a lease has.
    async fn rewrite(&self, held: &Held, record: Record) -> Result<Revision, LeaseError> {
        let (bucket, expect) = (bucket(), Expect::Revision(held.revision));
        let bytes = encode(&record);
        let written = self.write_key(&bucket, held.name.as_str(), Some((bytes, None)), expect).await;
        let revision = written.map_err(|error| lease_error(&error))?;
        self.queues.note(held.name.as_str(), record, revision);
        Ok(revision)
    }

    /// Gives back all leases of this process, so that others need not wait for their end.
    pub(super) async fn release_queues(&self) {
        let held = std::mem::take(&mut *self.queues.held());
        for held in held.into_values().filter(|held| held.ends > Instant::now()) {
            let mut record = held.record.clone();
            record.lease_ms = None;
            if let Err(error) = self.rewrite(&held, record).await {
                tracing::debug!(queue = held.name.as_str(), %error, "a lease was not given back");
            }
        }
    }

    async fn record(&self, name: &QueueName) -> Result<Option<(Record, Revision)>, ReadError> {
        let Some(entry) = self.get_key(&bucket(), name.as_str()).await.map_err(read_error)? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&entry.value).map_err(|error| {
            ReadError::Unavailable(format!("the record of queue {}: {error}", name.as_str()))
        })?;
        Ok(Some((record, entry.revision)))
    }

    pub(super) async fn state_of_queue(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        let Some((record, _)) = self.record(name).await? else { return Ok(None) };
        let subject = Subject::new(&record.subject).map_err(|error| {
            ReadError::Unavailable(format!("the record of queue {}: {error}", name.as_str()))
        })?;
        let (waiting, oldest) = self.reader.waiting(&subject, Seq(record.acked)).await?;
        Ok(Some(QueueState { acked: Seq(record.acked), waiting, oldest }))
    }
}

fn encode(record: &Record) -> bytes::Bytes {
    serde_json::to_vec(record).expect("a record has nothing in it that can fail").into()
}

impl NatsQueue {
    /// Waits until what is known of the queue changes, or until `until`.
    async fn changed(
        &self,
        changed: &mut watch::Receiver<u64>,
        until: Option<Instant>,
    ) -> Result<(), ReadError> {
        let until = until.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        // Cancel-safe: each only waits.
        tokio::select! {
            _ = changed.changed() => Ok(()),
            () = sleep_until(until) => Ok(()),
            () = self.broker.closed.cancelled() => Err(ReadError::Closed),
        }
    }

    /// Waits for an entry behind `acked`, or until what is known of the queue changes.
    async fn filled(&self, acked: u64, changed: &mut watch::Receiver<u64>) -> Result<(), ReadError> {
        let stream = self.broker.reader.streams.of(&Filter::from(&self.subject)).await?;
        let subject = self.subject.as_str().to_owned();
        let mut follower = Follower::new(
            self.broker.reader.clone(),
            stream,
            subject,
            Seq(acked),
            self.broker.closed.clone(),
        );
        while follower.ready().is_none() {
            // Cancel-safe: both only wait.
            tokio::select! {
                waited = follower.wait() => waited?,
                changed = self.changed(changed, None) => return changed,
            }
        }
        Ok(())
    }

    /// Takes the lease with this token, if it is still held.
    fn take(&self, lease: &Lease) -> Result<Held, LeaseError> {
        let held = self.broker.queues.held().remove(&lease.token);
        held.filter(|held| held.ends > Instant::now()).ok_or(LeaseError::Lost)
    }
}

#[async_trait]
impl Queue for NatsQueue {
    async fn next(&self, limit: ReadLimit) -> Result<Lease, ReadError> {
        let queues = self.broker.queues.clone();
        let mut changed = queues.changed.subscribe();
        loop {
            if self.broker.is_closed() {
                return Err(ReadError::Closed);
            }
            changed.mark_unchanged();
            let Some(view) = queues.view(&self.name) else {
                self.changed(&mut changed, None).await?;
                continue;
            };
            if let Some(until) = view.busy_until() {
                self.changed(&mut changed, Some(until)).await?;
                continue;
            }
            let after = ReadFrom::After(Seq(view.record.acked));
            let page = self.broker.reader.read(&Filter::from(&self.subject), after, limit).await?;
            let (Some(first), Some(last)) = (page.entries.first(), page.entries.last()) else {
                self.filled(view.record.acked, &mut changed).await?;
                continue;
            };
            let mut record = view.record;
            let acked = Seq(record.acked);
            let last = last.seq.0;
            let tries = record.hand_out(first.seq.0, last);
            record.lease_ms = Some(u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX / 2));
            record.pause_ms = 0;
            let ends = Instant::now() + self.lease;
            let expect = Expect::Revision(view.revision);
            let bytes = encode(&record);
            match self.broker.write_key(&bucket(), self.name.as_str(), Some((bytes, None)), expect).await {
                Ok(revision) => {
                    queues.note(self.name.as_str(), record.clone(), revision);
                    let token = revision.0;
                    let held = Held { name: self.name.clone(), record, revision, last, ends };
                    let mut all = queues.held();
                    all.retain(|_, held| held.ends > Instant::now());
                    all.insert(token, held);
                    return Ok(Lease { token, tries, after: acked, entries: page.entries });
                }
                // Somebody else was faster: what they wrote comes.
                Err(KvError::Conflict) => self.behind(&view.revision, &mut changed).await?,
                Err(error) => return Err(read_error(error)),
            }
        }
    }

    async fn ack(&self, lease: &Lease, upto: Seq) -> Result<(), LeaseError> {
        let held = self.take(lease)?;
        let mut record = held.record.clone();
        record.settle(upto.0.min(held.last));
        self.broker.rewrite(&held, record).await.map(drop)
    }

    async fn nak(&self, lease: &Lease, delay: Duration) -> Result<(), LeaseError> {
        let held = self.take(lease)?;
        let mut record = held.record.clone();
        record.lease_ms = None;
        record.pause_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX / 2);
        self.broker.rewrite(&held, record).await.map(drop)
    }

    async fn extend(&self, lease: &Lease) -> Result<(), LeaseError> {
        let held = self.take(lease)?;
        let ends = Instant::now() + self.lease;
        let revision = self.broker.rewrite(&held, held.record.clone()).await?;
        self.broker.queues.held().insert(lease.token, Held { revision, ends, ..held });
        Ok(())
    }
}

impl NatsQueue {
    /// Waits until the view is newer than `revision`; after a while looks at the key itself.
    async fn behind(&self, revision: &Revision, changed: &mut watch::Receiver<u64>) -> Result<(), ReadError> {
        const PATIENCE: Duration = Duration::from_millis(500);
        let is_newer = |view: Option<View>| view.is_some_and(|view| view.revision > *revision);
        let until = Instant::now() + PATIENCE;
        while !is_newer(self.broker.queues.view(&self.name)) {
            if Instant::now() >= until {
                if let Some((record, revision)) = self.broker.record(&self.name).await? {
                    self.broker.queues.note(self.name.as_str(), record, revision);
                }
                return Ok(());
            }
            self.changed(changed, Some(until)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_for_each_entry() {
        let mut record =
            Record { subject: "a.b".into(), acked: 0, lease_ms: None, pause_ms: 0, tries: Vec::new() };
        assert_eq!(record.hand_out(1, 4), 0);
        assert_eq!(record.hand_out(1, 4), 1);
        assert_eq!(record.hand_out(1, 2), 2);
        assert_eq!(record.tries, [(2, 3), (4, 2)]);
        record.settle(2);
        assert_eq!(record.hand_out(3, 9), 2);
        assert_eq!(record.tries, [(4, 3), (9, 1)]);
        record.settle(9);
        assert_eq!(record.hand_out(10, 10), 0);
    }
}
