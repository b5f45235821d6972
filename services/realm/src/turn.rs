//! Whose turn it is at a queue that several edges of a realm could work on, and how its lease is held.
//!
//! The queue sees to it that only one works at a time. Here is what keeps it with one of them: taking turns would cost
//! each of them a look at what the other did. Who meets another's work stands by until that work stops.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antar_broker::{Lease, LeaseError, Queue, QueueName, Seq};

use crate::shared::Shared;

/// How long a batch may take before another worker may take it over, unless the lease is extended. Whoever dies with a
/// batch in its hands is replaced within this and [`STALLED_AFTER`], together less than 10 s.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
/// How often a lease is extended while its batch takes long.
const EXTEND_INTERVAL: Duration = Duration::from_millis(1_500);
/// How often who stands by looks whether somebody works.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Work that waits for so long while nothing is acknowledged has nobody who does it.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// A worker's turn at a queue.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    name: QueueName,
    /// Up to where this worker has acknowledged, as long as it may be that nobody else worked since.
    mine: Option<Seq>,
}

impl Turn {
    pub(crate) fn new(shared: Arc<Shared>, name: QueueName) -> Self {
        Self { shared, name, mine: None }
    }

    /// Whether nobody else has worked since this worker's last lease. (If it had none, it is its turn.)
    pub(crate) fn is_mine(&self, lease: &Lease) -> bool {
        self.mine.is_none_or(|mine| mine == lease.after)
    }

    /// Takes note of an acknowledgement.
    pub(crate) fn acked(&mut self, upto: Seq) {
        self.mine = Some(upto);
    }

    /// Forgets what was acknowledged: it is not known whether it was.
    pub(crate) fn lost(&mut self) {
        self.mine = None;
    }

    /// Waits until there is work that nobody does.
    pub(crate) async fn stand_by(&mut self) {
        self.mine = None;
        let (mut acked, mut since) = (None, Instant::now());
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            match self.shared.broker.queue_state(&self.name).await {
                Ok(Some(state)) if state.waiting > 0 && acked == Some(state.acked) => {
                    if since.elapsed() >= STALLED_AFTER && !self.shared.is_paused() {
                        return;
                    }
                }
                Ok(state) => (acked, since) = (state.map(|state| state.acked), Instant::now()),
                // Whether somebody works cannot be seen.
                Err(_) => (acked, since) = (None, Instant::now()),
            }
        }
    }
}

/// Does what is to be done with a lease, and extends the lease meanwhile; `None` if it was lost.
pub(crate) async fn hold<T>(queue: &dyn Queue, lease: &Lease, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        // Cancel-safe: the work goes on in the next turn, the other only waits.
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = tokio::time::sleep(EXTEND_INTERVAL) => {}
        }
        // The work goes on beside. An extension is never dropped half-way: nobody could tell what became of the lease.
        let mut done = None;
        let extended = {
            let mut extension = pin!(queue.extend(lease));
            loop {
                // Cancel-safe: both go on in the next turn.
                tokio::select! {
                    biased;
                    extended = &mut extension => break extended,
                    got = &mut work, if done.is_none() => done = Some(got),
                }
            }
        };
        match (extended, done) {
            (Err(LeaseError::Lost), _) => return None,
            (_, Some(done)) => return Some(done),
            // What is not extended ends by itself; until then the work may go on.
            (Ok(()) | Err(LeaseError::Unavailable(_)), None) => {}
        }
    }
}
