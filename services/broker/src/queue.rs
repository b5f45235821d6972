//! The durable work queue over one subject of the log. Owns its contract.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Entry, ReadError, ReadLimit, Seq};

/// Name of a queue: `[A-Za-z0-9_-]{1,80}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueName(Box<str>);

impl QueueName {
    /// Takes a name; `None` if it is not one.
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=80).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        good.then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A queue: the entries of one subject, each worked on until it is acknowledged, in order, by one worker at a time.
///
/// * First in, first out: nothing after the entries of a lease is handed out before the lease has ended.
/// * A lease that is neither settled nor extended within its time ends by itself; its entries are handed out again.
/// * What was acknowledged is not handed out again, except after a crash: work must be idempotent.
/// * There is no limit of deliveries. The position is durable.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Waits for work and for nobody else to hold it, then leases the next entries, within `limit` (at least one).
    ///
    /// Cancel-safe: dropping the future leaves nothing leased for longer than the queue's lease time.
    async fn next(&self, limit: ReadLimit) -> Result<Lease, ReadError>;

    /// Acknowledges the lease's entries up to and including `upto`; those after it are handed out again at once.
    /// Durable when it returns.
    async fn ack(&self, lease: &Lease, upto: Seq) -> Result<(), LeaseError>;

    /// Gives the lease back: the same entries come again after `delay`, and nothing before them.
    async fn nak(&self, lease: &Lease, delay: Duration) -> Result<(), LeaseError>;

    /// Starts the lease's time anew.
    async fn extend(&self, lease: &Lease) -> Result<(), LeaseError>;
}

/// Entries that this worker alone works on, until the lease ends.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Tells this lease from every other of its queue.
    pub token: u64,
    /// How often the first of these entries was handed out before, since the process started.
    pub tries: u32,
    /// Everything up to here was acknowledged when it began: by this worker's last lease, or somebody else has worked.
    pub after: Seq,
    /// The entries, in order; never empty.
    pub entries: Vec<Arc<Entry>>,
}

/// Why a lease could not be settled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It ended before; somebody else may be at work. Stop working on its entries.
    #[error("the lease has ended")]
    Lost,
    /// The broker does not answer. The entries may be handed out again.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
}

/// Where a queue stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// Everything up to here was acknowledged.
    pub acked: Seq,
    /// Entries after that.
    pub waiting: u64,
    /// When the first of them was stored.
    pub oldest: Option<crate::Timestamp>,
}
