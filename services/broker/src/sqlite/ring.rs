//! The newest rows of the log, in memory, so that fresh entries are read without SQL.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::options::Limits;
use super::pack::SubjectId;
use crate::{Entry, EntryId, Headers, Seq, Subject, Timestamp};

/// What a row takes beside its body: the entry, its id, its places in the lists.
const ROW_OVERHEAD_BYTES: usize = 256;

/// One row of the log: an append, with all its subjects.
#[derive(Debug, Clone)]
pub(super) enum Row {
    One { subject: SubjectId, entry: Arc<Entry> },
    Many(Arc<Many>),
}

/// A row with several subjects: `subjects[i]` has the sequence `base + i`.
#[derive(Debug)]
pub(super) struct Many {
    pub(super) base: u64,
    pub(super) time: Timestamp,
    pub(super) id: EntryId,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) subjects: Box<[SubjectId]>,
}

impl Row {
    /// The sequence on its first subject.
    pub(super) fn base(&self) -> u64 {
        match self {
            Self::One { entry, .. } => entry.seq.0,
            Self::Many(many) => many.base,
        }
    }

    /// The sequence on its last subject.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::One { entry, .. } => entry.seq.0,
            Self::Many(many) => many.base + many.subjects.len() as u64 - 1,
        }
    }

    pub(super) fn time(&self) -> Timestamp {
        match self {
            Self::One { entry, .. } => entry.time,
            Self::Many(many) => many.time,
        }
    }

    pub(super) fn subjects(&self) -> &[SubjectId] {
        match self {
            Self::One { subject, .. } => std::slice::from_ref(subject),
            Self::Many(many) => &many.subjects,
        }
    }

    /// Its subjects with their sequences.
    pub(super) fn places(&self) -> impl DoubleEndedIterator<Item = (SubjectId, u64)> + '_ {
        let base = self.base();
        self.subjects().iter().enumerate().map(move |(at, subject)| (*subject, base + at as u64))
    }

    /// The entry on one of its subjects, called `name`. All of them share one body.
    pub(super) fn entry(&self, name: &Subject, seq: u64) -> Arc<Entry> {
        match self {
            Self::One { entry, .. } => entry.clone(),
            Self::Many(many) => Arc::new(Entry {
                subject: name.clone(),
                seq: Seq(seq),
                time: many.time,
                id: many.id.clone(),
                headers: many.headers.clone(),
                body: many.body.clone(),
            }),
        }
    }

    pub(super) fn body_bytes(&self) -> usize {
        match self {
            Self::One { entry, .. } => entry.body.len(),
            Self::Many(many) => many.body.len(),
        }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.body_bytes() + ROW_OVERHEAD_BYTES + 16 * self.subjects().len()
    }
}

/// Rows in the order of their sequences.
#[derive(Debug, Default)]
pub(super) struct Ring {
    rows: VecDeque<Row>,
    bytes: usize,
}

impl Ring {
    pub(super) fn push(&mut self, row: Row) {
        self.bytes += row.bytes();
        self.rows.push_back(row);
    }

    /// The oldest row, if the ring is above its bounds.
    pub(super) fn surplus(&self, limits: &Limits) -> Option<&Row> {
        (self.rows.len() > limits.ring_rows_max || self.bytes > limits.ring_bytes_max)
            .then(|| self.rows.front())
            .flatten()
    }

    pub(super) fn pop(&mut self) -> Option<Row> {
        let row = self.rows.pop_front()?;
        self.bytes -= row.bytes();
        Some(row)
    }

    /// The row that has the sequence `seq`.
    pub(super) fn get(&self, seq: u64) -> Option<&Row> {
        let after = self.rows.partition_point(|row| row.base() <= seq);
        self.rows.get(after.checked_sub(1)?).filter(|row| row.end() >= seq)
    }

    /// Rows that have a sequence above `seq`, oldest first.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = &Row> {
        let start = self.rows.partition_point(|row| row.end() <= seq);
        self.rows.range(start..)
    }

    /// Rows that have a sequence below `seq`, newest first.
    pub(super) fn before(&self, seq: u64) -> impl Iterator<Item = &Row> {
        let end = self.rows.partition_point(|row| row.base() < seq);
        self.rows.range(..end).rev()
    }

    /// The first row stored at `time` or later, if the one before it is here too.
    pub(super) fn since(&self, time: Timestamp) -> Option<&Row> {
        let at = self.rows.partition_point(|row| row.time() < time);
        if at == 0 { None } else { self.rows.get(at) }
    }
}
