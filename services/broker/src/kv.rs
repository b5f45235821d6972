//! The key-value store beside the log. Owns its types.

use async_trait::async_trait;
use bytes::Bytes;

use crate::ENTRY_BODY_BYTES_MAX;

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 200;

/// Name of a bucket: `[A-Za-z0-9_-]{1,64}`, for instance `REALM_a_accounts`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket(std::sync::Arc<str>);

impl Bucket {
    /// Takes a name; `None` if it is not one.
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        good.then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Counts the writes of a bucket; every write of a key has a higher one than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// A key's value. Keys are `[A-Za-z0-9_=.-]{1,200}` without empty parts between dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Of the write that put it there.
    pub revision: Revision,
}

/// What must be true for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key is not there.
    Absent,
    /// The key's last write has this revision.
    Revision(Revision),
}

/// What a watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvChange {
    /// A key has this value now.
    Put(KvEntry),
    /// A key is gone: deleted or expired.
    Delete {
        /// The key.
        key: String,
    },
    /// All that was there when the watch began has been seen.
    Current,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The expectation was not met; nothing was written.
    #[error("the key was changed by somebody else")]
    Conflict,
    /// The key is not one, or the value is larger than an entry's body may be.
    #[error("refused: {0}")]
    Refused(String),
    /// The broker does not answer. A write may or may not have happened.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
}

/// Whether `key` is one, and `value` small enough.
pub(crate) fn check(key: &str, value: &[u8]) -> Result<(), KvError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'=' | b'.' | b'-');
    if key.len() > KEY_BYTES_MAX || !key.bytes().all(plain) || key.split('.').any(str::is_empty) {
        return Err(KvError::Refused(format!(
            "{:?} is no key",
            key.chars().take(KEY_BYTES_MAX).collect::<String>()
        )));
    }
    if value.len() > ENTRY_BODY_BYTES_MAX {
        return Err(KvError::Refused(format!(
            "a value of {} bytes is more than {ENTRY_BODY_BYTES_MAX}",
            value.len()
        )));
    }
    Ok(())
}

/// Changes of a bucket as they come. See [`crate::Broker::kv_watch`].
pub struct KvWatch(Box<dyn KvSource>);

/// What an implementation gives behind a [`KvWatch`].
#[async_trait]
pub trait KvSource: Send {
    /// See [`KvWatch::next`].
    async fn next(&mut self) -> Result<KvChange, KvError>;
}

impl KvWatch {
    /// Wraps an implementation's own.
    pub fn new(source: impl KvSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Waits for the next change. Cancel-safe. After an error the watch is over: open a new one.
    pub async fn next(&mut self) -> Result<KvChange, KvError> {
        self.0.next().await
    }
}
