//! The work queue: a durable position, and who has the entries after it at the moment.
//!
//! The position is in the file; leases are in memory only, because a process that ends has given them up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::hub::Following;
use super::index::StreamAt;
use super::op::Op;
use super::pack::{self, SubjectId};
use super::read::{Question, from_sql, to_sql};
use super::shared::Shared;
use crate::{
    Entry, Filter, Lease, LeaseError, Queue, QueueName, QueueState, ReadError, ReadFrom, ReadLimit, Seq,
    Subject,
};

/// One queue, shared by all in the process who work on it.
pub(super) struct Core {
    pub(super) name: QueueName,
    filter: Filter,
    stream: StreamAt,
    state: Mutex<State>,
    /// Something ended: a lease, or the broker. Only the worker whose turn it is waits for it.
    ended: Notify,
    /// New entries. Likewise.
    following: Following,
    /// Workers wait here in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    acked: u64,
    lease: Option<Active>,
    not_before: Option<Instant>,
    /// How often each entry after `acked` was handed out. No longer than the longest lease.
    tries: BTreeMap<u64, u32>,
    tokens: u64,
}

#[derive(Debug)]
struct Active {
    token: u64,
    last: u64,
    until: Instant,
    /// It is being acknowledged: it cannot end before the writer has answered.
    settling: Option<oneshot::Sender<Result<(), LeaseError>>>,
}

/// What keeps a worker from the next entries.
enum Obstacle {
    None { acked: u64 },
    Until(Instant),
    Settling,
}

impl Core {
    pub(super) fn new(
        shared: &Shared,
        name: QueueName,
        subject: &Subject,
        stream: StreamAt,
        acked: Seq,
    ) -> Self {
        let filter = Filter::from(subject);
        let following = shared.hub.follow(&filter);
        let state =
            State { acked: acked.0, lease: None, not_before: None, tries: BTreeMap::new(), tokens: 0 };
        Self {
            name,
            filter,
            stream,
            state: Mutex::new(state),
            ended: Notify::new(),
            following,
            turn: tokio::sync::Mutex::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that a waiting worker should look at.
    pub(super) fn changed(&self) {
        self.ended.notify_one();
    }

    /// The writer's answer to an acknowledgement: everything up to there is done, durably, or the reason why not.
    pub(super) fn settled(&self, token: u64, result: Result<Seq, String>) {
        let mut state = self.state();
        let Some(active) = state.lease.as_mut().filter(|active| active.token == token) else { return };
        let answer = active.settling.take();
        let result = match result {
            Ok(upto) => {
                state.acked = state.acked.max(upto.0);
                let acked = state.acked;
                state.tries.retain(|seq, _| *seq > acked);
                state.lease = None;
                Ok(())
            }
            Err(reason) => Err(LeaseError::Unavailable(reason)),
        };
        drop(state);
        if let Some(answer) = answer {
            let _ = answer.send(result);
        }
        self.changed();
    }

    fn obstacle(&self) -> Obstacle {
        let mut state = self.state();
        let now = Instant::now();
        if let Some(active) = &state.lease {
            if active.settling.is_some() {
                return Obstacle::Settling;
            }
            if active.until > now {
                return Obstacle::Until(active.until);
            }
            state.lease = None;
        }
        match state.not_before {
            Some(until) if until > now => Obstacle::Until(until),
            _ => Obstacle::None { acked: state.acked },
        }
    }

    fn grant(&self, entries: Vec<Arc<Entry>>, lease: Duration) -> Lease {
        let mut state = self.state();
        state.tokens += 1;
        state.not_before = None;
        let (token, first, last) = (state.tokens, entries[0].seq.0, entries[entries.len() - 1].seq.0);
        state.lease = Some(Active { token, last, until: Instant::now() + lease, settling: None });
        let tries = state.tries.get(&first).copied().unwrap_or(0);
        for entry in &entries {
            *state.tries.entry(entry.seq.0).or_default() += 1;
        }
        Lease { token, tries, after: Seq(state.acked), entries }
    }
}

impl State {
    /// The lease, if it is the one that is held and not yet over.
    fn held(&mut self, lease: &Lease) -> Result<&mut Active, LeaseError> {
        let now = Instant::now();
        self.lease
            .as_mut()
            .filter(|active| active.token == lease.token && active.settling.is_none() && active.until > now)
            .ok_or(LeaseError::Lost)
    }
}

/// One worker's way to a queue.
pub(super) struct SqliteQueue {
    pub(super) shared: Arc<Shared>,
    pub(super) core: Arc<Core>,
    pub(super) lease: Duration,
}

#[async_trait]
impl Queue for SqliteQueue {
    /// Cancel-safe: a lease is made only when it is returned, without an await in between.
    async fn next(&self, limit: ReadLimit) -> Result<Lease, ReadError> {
        let core = &self.core;
        let _turn = core.turn.lock().await;
        loop {
            if self.shared.is_closed() {
                return Err(ReadError::Closed);
            }
            core.following.signal.clear();
            let acked = match core.obstacle() {
                Obstacle::None { acked } => acked,
                Obstacle::Settling => {
                    core.ended.notified().await;
                    continue;
                }
                Obstacle::Until(until) => {
                    // Both may be dropped at any time: the loop looks anew.
                    tokio::select! {
                        () = core.ended.notified() => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                    continue;
                }
            };
            let from = ReadFrom::After(Seq(acked));
            let question = Question::new(&core.filter, core.stream, from, limit);
            let look = self.shared.look_through(question).await?;
            if !look.page.entries.is_empty() {
                return Ok(core.grant(look.page.entries, self.lease));
            }
            // Likewise.
            tokio::select! {
                () = core.ended.notified() => {}
                () = core.following.signal.raised() => {}
            }
        }
    }

    async fn ack(&self, lease: &Lease, upto: Seq) -> Result<(), LeaseError> {
        let room = self.shared.reserve().await.map_err(|error| LeaseError::Unavailable(error.to_string()))?;
        let (done, answer) = oneshot::channel();
        {
            // From here to the writer without an await, so that nobody can leave the lease half settled.
            let mut state = self.core.state();
            let active = state.held(lease)?;
            active.settling = Some(done);
            let upto = Seq(upto.0.min(active.last));
            room.send(Op::Settle { core: self.core.clone(), token: lease.token, upto });
        }
        answer.await.unwrap_or_else(|_| Err(LeaseError::Unavailable("the broker went away".into())))
    }

    async fn nak(&self, lease: &Lease, delay: Duration) -> Result<(), LeaseError> {
        {
            let mut state = self.core.state();
            state.held(lease)?;
            state.lease = None;
            state.not_before = Some(Instant::now() + delay);
        }
        self.core.changed();
        Ok(())
    }

    async fn extend(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.core.state().held(lease)?.until = Instant::now() + self.lease;
        Ok(())
    }
}

/// Finds the position of a queue, or begins one. Part of the writer's transaction.
pub(super) fn open(
    conn: &Connection,
    name: &QueueName,
    subject: &Subject,
) -> rusqlite::Result<Result<Seq, ReadError>> {
    if let Some((over, acked)) = stored(conn, name)? {
        if over != subject.as_str() {
            let reason = format!("queue {} is over {over}, not over {subject}", name.as_str());
            return Ok(Err(ReadError::Unavailable(reason)));
        }
        return Ok(Ok(acked));
    }
    conn.prepare_cached("INSERT INTO queue(name, subject, acked) VALUES (?1, ?2, 0)")?
        .execute((name.as_str(), subject.as_str()))?;
    Ok(Ok(Seq::ZERO))
}

/// Moves the position. Part of the writer's transaction.
pub(super) fn settle(conn: &Connection, name: &QueueName, upto: Seq) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE queue SET acked = max(acked, ?2) WHERE name = ?1")?
        .execute((name.as_str(), to_sql(upto.0)))
        .map(drop)
}

/// Over which subject a queue is, and where it stands.
pub(super) fn stored(conn: &Connection, name: &QueueName) -> rusqlite::Result<Option<(String, Seq)>> {
    conn.prepare_cached("SELECT subject, acked FROM queue WHERE name = ?1")?
        .query_row([name.as_str()], |row| Ok((row.get(0)?, Seq(from_sql(row.get(1)?)))))
        .optional()
}

/// Where a queue stands.
pub(super) async fn state(shared: &Arc<Shared>, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
    let (shared_then, name) = (shared.clone(), name.clone());
    let counted = shared.pool.run(move |conn| {
        let Some((subject, acked)) = stored(conn, &name)? else { return Ok(None) };
        let waiting = count_after(conn, &shared_then, &subject, acked.0)?;
        Ok(Some((subject, acked, waiting)))
    });
    let Some((subject, acked, waiting)) = counted.await.map_err(ReadError::Unavailable)? else {
        return Ok(None);
    };
    let filter = Filter::new(&subject).map_err(|error| ReadError::Unavailable(error.to_string()))?;
    let stream = shared.stream_of(&filter)?;
    let from = ReadFrom::After(acked);
    let look = shared.look_through(Question::new(&filter, stream, from, ReadLimit::entries(1))).await?;
    Ok(Some(QueueState { acked, waiting, oldest: look.page.entries.first().map(|entry| entry.time) }))
}

/// How many entries of `subject` there are after `seq`.
fn count_after(conn: &Connection, shared: &Shared, subject: &str, seq: u64) -> rusqlite::Result<u64> {
    let (id, ever, gone, recent_after) = {
        let index = shared.index();
        let Some(id) = index.id(subject) else { return Ok(0) };
        let Some(sub) = index.get(id) else { return Ok(0) };
        if seq >= sub.last {
            return Ok(0);
        }
        if seq <= sub.trimmed {
            return Ok(sub.count());
        }
        if seq >= sub.flushed || seq.saturating_add(1) >= index.mem_from {
            return Ok(sub.recent_after(seq).count() as u64);
        }
        (id, sub.ever, sub.gone, sub.recent_after(seq).count() as u64)
    };
    Ok(match upto_in_runs(conn, id, seq)? {
        None => recent_after,
        Some(upto_seq) => ever - upto_seq.max(gone),
    })
}

/// How many entries a subject ever had up to `seq`, which table `run` tells if it has any behind that.
pub(super) fn upto_in_runs(conn: &Connection, id: SubjectId, seq: u64) -> rusqlite::Result<Option<u64>> {
    // `cum` counts all up to the end of the run in which `seq` lies or before which it lies.
    let sql = "SELECT first, seqs, cum FROM run WHERE subject = ?1 AND last > ?2 ORDER BY last LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((id, to_sql(seq)))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut run = Vec::new();
    pack::unpack_run(from_sql(row.get(0)?), row.get_ref(1)?.as_blob_or_null()?.unwrap_or_default(), &mut run);
    Ok(Some(from_sql(row.get(2)?) - run.iter().filter(|at| **at > seq).count() as u64))
}
