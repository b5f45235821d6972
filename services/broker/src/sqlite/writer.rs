//! The one thread that writes. It takes whatever has queued up, makes it one transaction, and answers when that is on
//! the disk: so all who wait share one fsync.

use std::fs::File;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::flush::Round;
use super::index::{Compared, Index};
use super::insert::Inserts;
use super::keeper;
use super::op::{Failure, Op, no_stream};
use super::options::Options;
use super::pack::SubjectId;
use super::queue;
use super::schema::{self, Fault, fault};
use super::shared::Shared;
use super::state::{Batch, NO_SUBJECT, State, Sub};
use super::trim;
use crate::{Append, AppendError, OpenError, ReadError, StreamSpec};

/// Operations in one transaction.
const BATCH_OPS_MAX: usize = 1024;
/// Transactions between two looks at the length of the write-ahead log, and bytes of bodies likewise.
const WAL_LOOK_BATCHES: usize = 64;
const WAL_LOOK_BYTES: usize = 1024 * 1024;
/// Pages of the write-ahead log, not yet copied, from which on the keeper copies them. Of 4 KiB: 32 MiB.
const WAL_PAGES_MAX: i64 = 8 * 1024;
/// Length of the write-ahead log at which the writer stops to copy it, whatever it costs: 256 MiB.
const WAL_PAGES_HARD_MAX: i64 = 64 * 1024;

/// See the module.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) ops: mpsc::Receiver<Op>,
    pub(super) options: Options,
    pub(super) conn: Connection,
    pub(super) state: State,
    /// Held for as long as anything may be written.
    pub(super) lock: File,
    pub(super) round: Option<Round>,
    /// The last batch, for its memory.
    pub(super) spare: Batch,
    /// The subjects of the batch's appends.
    pub(super) ids: Vec<SubjectId>,
    pub(super) batches_since_look: usize,
    pub(super) bytes_since_look: usize,
}

/// What becomes of the writer after an operation.
enum Next {
    Go,
    Stop,
}

impl Writer {
    /// Works until it is told to close, or the broker was dropped.
    pub(super) fn run(mut self) {
        let mut taken = Vec::with_capacity(BATCH_OPS_MAX);
        'open: while self.ops.blocking_recv_many(&mut taken, BATCH_OPS_MAX) > 0 {
            while !taken.is_empty() {
                if let Next::Stop = self.work(&mut taken) {
                    break 'open;
                }
                self.tend_wal();
            }
        }
        self.ops.close();
        for op in taken {
            op.fail(&Failure::closed());
        }
        while let Ok(op) = self.ops.try_recv() {
            op.fail(&Failure::closed());
        }
        self.shared.keeper.stop();
        // Everything that writes is gone when the lock is.
        drop(self.conn);
        drop(self.lock);
    }

    /// Does the operations up to the next one that stands alone, or that one.
    fn work(&mut self, taken: &mut Vec<Op>) -> Next {
        if self.shared.is_abandoned() {
            return Next::Stop;
        }
        let together = taken.iter().position(Op::stands_alone).unwrap_or(taken.len());
        if together > 0 {
            self.transaction(taken, together);
            return Next::Go;
        }
        match taken.remove(0) {
            Op::Close => {
                self.write_all_down();
                return Next::Stop;
            }
            Op::Trim { subject, upto, removed, done } => {
                let mut progress = None;
                let result = self.alone(|state, conn, index, batch| {
                    let id = index.id(subject.as_str());
                    progress = id.map(|id| state.trim(conn, index, batch, id, upto.0)).transpose()?;
                    Ok(())
                });
                let (more, now) = progress.map_or((false, 0), |progress| (progress.more, progress.removed));
                match result {
                    // The rest comes after what is queued now.
                    Ok(()) if more => taken.push(Op::Trim { subject, upto, removed: removed + now, done }),
                    Ok(()) => drop(done.send(Ok(removed + now))),
                    Err(failure) => drop(done.send(Err(ReadError::Unavailable(failure.reason)))),
                }
            }
            Op::Stream { spec, done } => {
                let _ = done.send(self.open_stream(spec));
            }
            Op::Queue { name, subject, done } => {
                let mut found = Err(no_stream(&subject));
                let result = self.alone(|_, conn, index, _| {
                    if index.stream_of(subject.as_str()).is_some() {
                        found = queue::open(conn, &name, &subject)?;
                    }
                    Ok(())
                });
                let answer = result.map_err(|failure| ReadError::Unavailable(failure.reason)).and(found);
                let _ = done.send(answer);
            }
            other => other.fail(&Failure::closed()),
        }
        Next::Go
    }

    /// One transaction of the first `together` operations.
    fn transaction(&mut self, taken: &mut Vec<Op>, together: usize) {
        let subs_before = self.state.subs.len();
        self.resolve(&taken[..together]);
        let mut batch = self.state.begin(std::mem::take(&mut self.spare), subs_before);
        let mut ops = taken.drain(..together);
        let applied = self.apply(&mut ops, &mut batch);
        // Each was told by itself.
        let _ = self.end(batch, applied, ops);
    }

    /// One transaction of something else.
    fn alone(
        &mut self,
        work: impl FnOnce(&mut State, &Connection, &Index, &mut Batch) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        let mut batch = self.state.begin(std::mem::take(&mut self.spare), self.state.subs.len());
        let applied = self
            .conn
            .execute_batch("BEGIN IMMEDIATE")
            .and_then(|()| work(&mut self.state, &self.conn, &self.shared.index(), &mut batch));
        self.end(batch, applied, std::iter::empty())
    }

    /// Finds the numbers of the subjects of all appends, one after the other.
    fn resolve(&mut self, ops: &[Op]) {
        let subjects = || {
            let appends = ops.iter().flat_map(Op::appends);
            appends.flat_map(|append| append.subjects.iter().chain(append.fence()))
        };
        let ids = &mut self.ids;
        ids.clear();
        {
            let index = self.shared.index();
            ids.extend(subjects().map(|subject| index.id(subject.as_str()).unwrap_or(NO_SUBJECT)));
        }
        if ids.contains(&NO_SUBJECT) {
            let mut index = self.shared.index_mut();
            for (subject, id) in subjects().zip(ids).filter(|(_, id)| **id == NO_SUBJECT) {
                // It may be there by now: an append before this one may have the same.
                *id = match (index.id(subject.as_str()), index.stream_of(subject.as_str())) {
                    (Some(id), _) => id,
                    (None, None) => NO_SUBJECT,
                    (None, Some(stream)) => {
                        let spec = &index.streams[usize::from(stream.0)];
                        let count_max = spec.entries_per_subject_max.unwrap_or(u64::MAX);
                        self.state.subs.push(Sub { last: 0, count: 0, count_max, stream, dirty: false });
                        index.intern(subject, stream)
                    }
                };
            }
        }
    }

    fn apply(&mut self, ops: &mut impl Iterator<Item = Op>, batch: &mut Batch) -> rusqlite::Result<()> {
        // Before the appends: a round takes subjects whose entries are all published.
        if self.round.is_none() {
            self.round = Round::begin(&mut self.state, &self.shared.index(), false);
        }
        let (conn, mut ids) = (&self.conn, &self.ids[..]);
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for (id, sub) in self.shared.index().subs.iter().enumerate().skip(batch.subs_before) {
            conn.prepare_cached("INSERT INTO subject(id, stream, name) VALUES (?1, ?2, ?3)")?.execute((
                id as i64,
                sub.stream.0,
                sub.name.as_str(),
            ))?;
        }
        let mut inserts = Inserts::new(conn)?;
        for op in ops {
            match op {
                Op::Append { append, done, room: _room } => {
                    let (mine, fence) = take_ids(&mut ids, &append);
                    batch.answers.push((done, Err(AppendError::NotStored(String::new()))));
                    self.state.append(&mut inserts, batch, append, mine, fence)?;
                }
                Op::Run { appends, done, room: _room } => {
                    for (append, done) in appends.into_iter().zip(done) {
                        let (mine, fence) = take_ids(&mut ids, &append);
                        batch.answers.push((done, Err(AppendError::NotStored(String::new()))));
                        self.state.append(&mut inserts, batch, append, mine, fence)?;
                    }
                }
                Op::Kv { write, done } => match self.state.kv_write(conn, batch, write) {
                    Ok(answer) => batch.finish.push(Box::new(move |ended| {
                        let unavailable =
                            |failure: &Failure| crate::KvError::Unavailable(failure.reason.clone());
                        let _ = done.send(ended.map_err(unavailable).and(answer));
                    })),
                    Err(error) => {
                        Op::fail_kv(done, &error);
                        return Err(error);
                    }
                },
                Op::Settle { core, token, upto } => {
                    let settled = queue::settle(conn, &core.name, upto);
                    batch.finish.push(Box::new(move |ended| {
                        core.settled(token, ended.map(|()| upto).map_err(|failure| failure.reason.clone()));
                    }));
                    settled?;
                }
                Op::Expire => self.state.kv_expire(conn, batch)?,
                Op::Purge => trim::purge(conn)?,
                other => other.fail(&Failure::closed()),
            }
        }
        inserts.write(&mut self.state, batch)?;
        self.state.kv_finish(conn, batch)?;
        if let Some(round) = &mut self.round {
            round.write(conn, &self.shared.index(), batch)?;
        }
        Ok(())
    }

    /// Commits or takes back, then answers all who wait for the transaction.
    fn end(
        &mut self,
        batch: Batch,
        applied: rusqlite::Result<()>,
        unreached: impl Iterator<Item = Op>,
    ) -> Result<(), Failure> {
        let failed = match applied {
            Ok(()) => match self.conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])) {
                Ok(_) => None,
                // What a failed fsync leaves on the disk is not known; a full disk takes no commit.
                Err(error) => Some((fault(&error) != Fault::Full, error)),
            },
            Err(error) => Some((false, error)),
        };
        match failed {
            None => {
                self.publish(batch);
                Ok(())
            }
            Some((unknown, error)) => {
                tracing::error!(%error, unknown, appends = batch.answers.len(), "a transaction failed");
                let failure = Failure { reason: error.to_string(), unknown };
                self.take_back(batch, &failure, fault(&error));
                for op in unreached {
                    op.fail(&failure);
                }
                Err(failure)
            }
        }
    }

    fn publish(&mut self, mut batch: Batch) {
        let bytes: usize = batch.rows.iter().map(super::ring::Row::bytes).sum();
        self.state.unflushed_places += batch.places;
        self.state.unflushed_bytes += bytes;
        self.bytes_since_look += bytes;
        self.batches_since_look += 1;
        let before = self.shared.index().published;
        {
            let mut index = self.shared.index_mut();
            index.publish(batch.rows.drain(..));
            for (subject, last) in batch.flushed.drain(..) {
                let sub = &mut index.subs[subject as usize];
                sub.flushed = sub.flushed.max(last);
            }
            if let Some(upto) = batch.indexed_upto {
                index.indexed_upto = upto;
            }
            batch.trims.drain(..).for_each(|trimmed| index.trim(trimmed));
            index.streams.append(&mut batch.streams);
            index.evict();
        }
        if self.round.as_ref().is_some_and(Round::is_over) {
            self.round = None;
        }
        for (done, answer) in batch.answers.drain(..) {
            let _ = done.send(answer);
        }
        for finish in batch.finish.drain(..) {
            finish(Ok(()));
        }
        if !self.shared.hub.is_empty() {
            let index = self.shared.index();
            let ids = index.ring.after(before).flat_map(super::ring::Row::subjects);
            self.shared.hub.told(ids.filter_map(|id| index.get(*id)).map(|sub| sub.name.as_str()));
        }
        if !batch.kv.is_empty() {
            self.shared.kv.publish(std::mem::take(&mut batch.kv));
        }
        if let Some(at) = batch.expires {
            self.shared.keeper.expire_at(at);
        }
        self.spare = batch;
    }

    fn take_back(&mut self, mut batch: Batch, failure: &Failure, fault: Fault) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be taken back");
        }
        if fault == Fault::Io
            && let Ok(conn) = schema::reopen(&self.options)
        {
            self.conn = conn;
        }
        let forget = self.state.undo(&mut batch);
        self.shared.index_mut().forget(forget);
        if let Some(round) = &mut self.round {
            round.undo(&batch);
        }
        for (done, _) in batch.answers {
            let _ = done.send(Err(failure.append_error()));
        }
        for finish in batch.finish {
            finish(Err(failure));
        }
    }

    fn open_stream(&mut self, spec: StreamSpec) -> Result<(), OpenError> {
        let entries_max = spec.entries_per_subject_max;
        let limit = entries_max.map(super::read::to_sql);
        let mut compared = Ok(Compared::Same);
        let result = self.alone(|_, conn, index, batch| {
            compared = index.compare(&spec);
            match compared {
                Ok(Compared::New) => {
                    let filters: Vec<&str> = spec.filters.iter().map(crate::Filter::as_str).collect();
                    conn.prepare_cached(
                        "INSERT INTO stream(id, name, filters, entries_per_subject_max) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute((index.streams.len() as i64, &spec.name, filters.join(" "), limit))?;
                    batch.streams.push(spec);
                }
                Ok(Compared::Raised(at)) => {
                    conn.prepare_cached("UPDATE stream SET entries_per_subject_max = ?2 WHERE id = ?1")?
                        .execute((at.0, limit))?;
                }
                _ => {}
            }
            Ok(())
        });
        result.map_err(|failure| OpenError::Unreachable(failure.reason))?;
        if let Ok(Compared::Raised(at)) = compared {
            self.shared.index_mut().streams[usize::from(at.0)].entries_per_subject_max = entries_max;
            for sub in self.state.subs.iter_mut().filter(|sub| sub.stream == at) {
                sub.count_max = entries_max.unwrap_or(u64::MAX);
            }
        }
        compared.map(drop)
    }

    /// Everything in its place, so that the next opening has nothing to do.
    fn write_all_down(&mut self) {
        loop {
            if self.round.is_none() {
                self.round = Round::begin(&mut self.state, &self.shared.index(), true);
            }
            let Some(mut round) = self.round.take() else { break };
            let result = self.alone(|_, conn, index, batch| {
                while !round.is_over() {
                    round.write(conn, index, batch)?;
                }
                Ok(())
            });
            if result.is_err() {
                // Nothing is lost: the next opening reads these entries once more.
                break;
            }
            self.round = Some(round).filter(|round| !round.is_over());
        }
        if let Err(error) = self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the last checkpoint failed; the next opening does its work");
        }
    }

    /// Keeps the write-ahead log short.
    fn tend_wal(&mut self) {
        if self.shared.keeper.take_remainder()
            && let Err(error) = keeper::passive(&self.conn)
        {
            tracing::warn!(%error, "the rest of a checkpoint failed; the next one does its work");
        }
        if self.batches_since_look < WAL_LOOK_BATCHES && self.bytes_since_look < WAL_LOOK_BYTES {
            return;
        }
        (self.batches_since_look, self.bytes_since_look) = (0, 0);
        let Ok((pages, copied)) = keeper::wal_pages(&self.conn) else { return };
        if pages > WAL_PAGES_HARD_MAX {
            tracing::warn!(pages, "the write-ahead log is very long: writing waits until it is copied");
            if let Err(error) = keeper::restart(&self.conn) {
                tracing::warn!(%error, "the write-ahead log could not be copied; it grows until it can");
            }
        } else if pages - copied > WAL_PAGES_MAX {
            self.shared.keeper.checkpoint();
        }
    }
}

/// Takes the numbers of an append's subjects, and of its fence, off the front.
fn take_ids<'a>(ids: &mut &'a [SubjectId], append: &Append) -> (&'a [SubjectId], &'a [SubjectId]) {
    let (mine, rest) = ids.split_at(append.subjects.len());
    let (fence, rest) = rest.split_at(usize::from(append.fence().is_some()));
    *ids = rest;
    (mine, fence)
}
