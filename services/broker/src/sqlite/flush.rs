//! Moves places from memory to table `run`, in bulk and in the order of subjects, a slice with each transaction.
//!
//! One append to 100 subjects is then one row, not 101, and a hundred appends to one subject are one row of its index.
//! A crash costs a scan of the entries after `indexed_upto` when the file is next opened. A round that was cut short
//! leaves some subjects ahead of `indexed_upto`: their last run tells how far.

use rusqlite::Connection;

use super::index::Index;
use super::pack::{self, SubjectId};
use super::read::to_sql;
use super::state::{Batch, State};

/// A round of flushing that is under way.
#[derive(Debug)]
pub(super) struct Round {
    /// Everything up to here will be in `run`.
    target: u64,
    /// Subjects still to be written, the lowest number last.
    todo: Vec<SubjectId>,
}

impl Round {
    /// Begins a round, if there is enough to do or `force` is set.
    pub(super) fn begin(state: &mut State, index: &Index, force: bool) -> Option<Self> {
        let limits = &index.limits;
        let due =
            state.unflushed_places >= limits.round_places || state.unflushed_bytes >= limits.round_bytes;
        if !(due || force) || state.dirty.is_empty() {
            return None;
        }
        let mut todo = std::mem::take(&mut state.dirty);
        for id in &todo {
            state.subs[*id as usize].dirty = false;
        }
        todo.sort_unstable_by(|a, b| b.cmp(a));
        (state.unflushed_places, state.unflushed_bytes) = (0, 0);
        Some(Self { target: index.published, todo })
    }

    /// Writes some of them as part of the transaction: two for each place that this adds and a few more, so that a round
    /// always ends.
    pub(super) fn write(
        &mut self,
        conn: &Connection,
        index: &Index,
        batch: &mut Batch,
    ) -> rusqlite::Result<()> {
        let subjects = index.limits.slice_subjects + 2 * batch.places;
        let mut insert = conn
            .prepare_cached("INSERT INTO run(subject, last, first, cum, seqs) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let mut seqs: Vec<u64> = Vec::new();
        for _ in 0..subjects {
            let Some(id) = self.todo.pop() else { break };
            let Some(sub) = index.get(id) else { continue };
            seqs.clear();
            seqs.extend(sub.recent_after(sub.flushed).take_while(|seq| *seq <= self.target));
            let Some(last) = seqs.last() else { continue };
            batch.flushed.push((id, *last));
            let later = sub.recent_after(*last).count() + seqs.len();
            let mut cum = sub.ever - later as u64;
            for run in seqs.chunks(index.limits.run_seqs_max) {
                cum += run.len() as u64;
                let (first, last) = (run[0], run[run.len() - 1]);
                let packed = (run.len() > 1).then(|| pack::pack_run(run));
                insert.execute((id, to_sql(last), to_sql(first), to_sql(cum), packed))?;
            }
        }
        if self.todo.is_empty() {
            conn.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'indexed_upto'")?
                .execute([to_sql(self.target)])?;
            batch.indexed_upto = Some(self.target);
        }
        Ok(())
    }

    /// Puts back what a failed transaction had written.
    pub(super) fn undo(&mut self, batch: &Batch) {
        self.todo.extend(batch.flushed.iter().rev().map(|(id, _)| *id));
    }

    /// Whether the transaction that has just been committed was its last.
    pub(super) fn is_over(&self) -> bool {
        self.todo.is_empty()
    }
}
