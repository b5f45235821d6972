//! The key-value store: a bucket is a stream with one message for each key, in the form of NATS's own buckets, so that
//! its tools show them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_trait::async_trait;
use bytes::Bytes;

use super::NatsBroker;
use super::bundle::message_of;
use super::message::{KV_OPERATION, MARKER, MSG_ID, Stored, TTL, expect};
use super::publish::{Publish, answer_of};
use super::streams::{Stream, bucket_prefix};
use super::tail::Follower;
use crate::kv::check;
use crate::{
    AppendError, Bucket, EntryId, Expect, KvChange, KvEntry, KvError, KvSource, OpenError, ReadError,
    Revision, Seq,
};

/// A delete that meets other writers is tried so often.
const TRIES: usize = 5;

impl From<ReadError> for KvError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

fn unavailable(error: &OpenError) -> KvError {
    KvError::Unavailable(error.to_string())
}

/// What a message of a bucket says of its key; `None` for a deletion.
fn value(prefix: &str, message: Stored) -> Option<KvEntry> {
    let is_deletion = message.header(KV_OPERATION).is_some() || message.header(MARKER).is_some();
    let key = message.subject.strip_prefix(prefix)?.to_owned();
    (!is_deletion).then(|| KvEntry { key, value: message.body, revision: Revision(message.seq) })
}

impl NatsBroker {
    async fn bucket(&self, bucket: &Bucket) -> Result<Arc<Stream>, KvError> {
        let found = self.reader.streams.bucket(bucket).await.map_err(|error| unavailable(&error))?;
        found.ok_or_else(|| KvError::Unavailable(format!("bucket {} is not there", bucket.as_str())))
    }

    pub(super) async fn get_key(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        check(key, &[])?;
        let stream = self.reader.streams.bucket(bucket).await.map_err(|error| unavailable(&error))?;
        // A bucket that is not there, and is not made by one who only reads, holds nothing.
        let Some(stream) = stream else { return Ok(None) };
        let prefix = bucket_prefix(bucket);
        let last = self.reader.last_message(&stream, &format!("{prefix}{key}")).await?;
        Ok(last.and_then(|message| value(&prefix, message)))
    }

    /// Writes a value, or with `None` a deletion.
    pub(super) async fn write_key(
        &self,
        bucket: &Bucket,
        key: &str,
        value: Option<(Bytes, Option<Duration>)>,
        wanted: Expect,
    ) -> Result<Revision, KvError> {
        check(key, value.as_ref().map_or(&[], |(value, _)| value))?;
        let stream = self.bucket(bucket).await?;
        let subject = format!("{}{key}", bucket_prefix(bucket));
        let mut expected = match wanted {
            Expect::Any => None,
            Expect::Absent => Some(0),
            Expect::Revision(Revision(revision)) => Some(revision),
        };
        for _ in 0..TRIES {
            let answer = self.write_once(&subject, value.clone(), expected).await?;
            match answer {
                Err(AppendError::Conflict) if wanted == Expect::Absent => {
                    // Of a key that is gone a mark may be left: then that is what has to be the last.
                    let last = self.reader.last_message(&stream, &subject).await?;
                    let prefix = bucket_prefix(bucket);
                    let seq = last.as_ref().map_or(0, |message| message.seq);
                    if last.and_then(|message| self::value(&prefix, message)).is_some() {
                        return Err(KvError::Conflict);
                    }
                    expected = Some(seq);
                }
                Ok(appended) => return Ok(Revision(message_of(appended.seq))),
                Err(AppendError::Conflict) => return Err(KvError::Conflict),
                Err(AppendError::Refused(why)) => return Err(KvError::Refused(why)),
                Err(error) => return Err(KvError::Unavailable(error.to_string())),
            }
        }
        Err(KvError::Conflict)
    }

    async fn write_once(
        &self,
        subject: &str,
        value: Option<(Bytes, Option<Duration>)>,
        expected: Option<u64>,
    ) -> Result<super::publish::Answer, KvError> {
        let mut headers = HeaderMap::new();
        // So that a write that is published again after a lost connection counts once.
        headers.insert(HeaderName::from_static(MSG_ID), HeaderValue::from(EntryId::unique().as_str()));
        if let Some(seq) = expected {
            expect(&mut headers, seq);
        }
        let body = match value {
            None => {
                headers.insert(HeaderName::from_static(KV_OPERATION), "DEL");
                Bytes::new()
            }
            Some((value, ttl)) => {
                if let Some(ttl) = ttl {
                    // The server counts whole seconds; a key may live longer, not shorter.
                    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
                    headers.insert(HeaderName::from_static(TTL), format!("{}s", seconds.max(1)));
                }
                value
            }
        };
        let publish = Publish {
            subject: subject.to_owned().into(),
            headers,
            body,
            place: None,
            is_kept: true,
            may_wait: true,
            following: None,
        };
        match self.publisher.publish(publish).await {
            Ok(answer) => Ok(answer_of(answer).await),
            Err(error) => Err(KvError::Unavailable(error.to_string())),
        }
    }

    pub(super) async fn watch_bucket(&self, bucket: &Bucket) -> Result<NatsWatch, KvError> {
        let stream = self.bucket(bucket).await?;
        let prefix = bucket_prefix(bucket);
        let follower =
            Follower::new(self.reader.clone(), stream, format!("{prefix}>"), Seq::ZERO, self.closed.clone());
        Ok(NatsWatch { follower, prefix, is_current: false })
    }
}

/// Follows a bucket.
pub(super) struct NatsWatch {
    follower: Follower,
    prefix: String,
    is_current: bool,
}

#[async_trait]
impl KvSource for NatsWatch {
    async fn next(&mut self) -> Result<KvChange, KvError> {
        loop {
            if let Some(message) = self.follower.ready() {
                let key = message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned();
                return Ok(match value(&self.prefix, message) {
                    Some(entry) => KvChange::Put(entry),
                    None => KvChange::Delete { key },
                });
            }
            if !self.is_current && self.follower.is_current() {
                self.is_current = true;
                return Ok(KvChange::Current);
            }
            self.follower.wait().await?;
        }
    }
}
