//! What the writer knows ahead of everybody else: the state after the operations of the open transaction, and how to
//! go back to the state before it.

use rusqlite::{CachedStatement, Connection, OptionalExtension};

use super::index::{StreamAt, Trimmed};
use super::kv::KvEvent;
use super::op::{Done, Failure};
use super::pack::{self, PackedId, PackedSubjects, SubjectId};
use super::read::{from_sql, to_sql};
use super::ring::{Many, Row};
use crate::{Append, AppendError, Appended, Entry, EntryId, Seq, StreamSpec, Subject, Timestamp};
use std::sync::Arc;

/// Stands for a subject that no stream keeps.
pub(super) const NO_SUBJECT: SubjectId = SubjectId::MAX;

pub(super) const INSERT_ENTRY: &str = "INSERT INTO entry(seq, time, stream, id, subjects, headers, body)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(stream, id) DO NOTHING";

/// One subject, uncommitted appends included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sub {
    pub(super) last: u64,
    pub(super) count: u64,
    pub(super) count_max: u64,
    pub(super) stream: StreamAt,
    /// It stands in [`State::dirty`].
    pub(super) dirty: bool,
}

impl Sub {
    fn last_there(&self) -> Seq {
        if self.count == 0 { Seq::ZERO } else { Seq(self.last) }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) subs: Vec<Sub>,
    pub(super) next_seq: u64,
    pub(super) last_time: Timestamp,
    pub(super) kv_revision: u64,
    /// Subjects with sequences that table `run` does not have.
    pub(super) dirty: Vec<SubjectId>,
    /// Places and bytes appended since the last round of flushing began.
    pub(super) unflushed_places: usize,
    pub(super) unflushed_bytes: usize,
    headers: Vec<u8>,
}

/// What an append is answered.
pub(super) type Answer = Result<Appended, AppendError>;

/// Runs when the transaction has ended, either way.
pub(super) type Finish = Box<dyn FnOnce(Result<(), &Failure>) + Send>;

/// What one transaction does beside its rows in the file: to be published after it, or undone.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) time: Timestamp,
    pub(super) rows: Vec<Row>,
    pub(super) trims: Vec<Trimmed>,
    pub(super) kv: Vec<KvEvent>,
    /// When the earliest key written here expires.
    pub(super) expires: Option<u64>,
    pub(super) streams: Vec<StreamSpec>,
    /// Subjects whose sequences were written to table `run`, with the last of each.
    pub(super) flushed: Vec<(SubjectId, u64)>,
    pub(super) indexed_upto: Option<u64>,
    pub(super) places: usize,
    pub(super) answers: Vec<(Done<Answer>, Answer)>,
    pub(super) finish: Vec<Finish>,
    undo: Vec<(SubjectId, Sub)>,
    /// Subjects from this number on are new in this transaction.
    pub(super) subs_before: usize,
    next_seq_before: u64,
    kv_revision_before: u64,
}

impl State {
    /// Begins a transaction. `spare` is one that has ended, for its memory.
    pub(super) fn begin(&mut self, mut spare: Batch, subs_before: usize) -> Batch {
        // Times grow with sequences, whatever the clock does: `ReadFrom::Since` searches by halving.
        self.last_time = self.last_time.max(Timestamp::now());
        spare.undo.clear();
        Batch {
            time: self.last_time,
            subs_before,
            next_seq_before: self.next_seq,
            kv_revision_before: self.kv_revision,
            expires: None,
            indexed_upto: None,
            places: 0,
            ..spare
        }
    }

    /// Changes what is known of a subject; undone with the transaction.
    pub(super) fn change(&mut self, batch: &mut Batch, id: SubjectId, change: impl FnOnce(&mut Sub)) {
        let sub = &mut self.subs[id as usize];
        batch.undo.push((id, *sub));
        change(sub);
    }

    /// Takes the transaction back. Returns from which number on subjects are to be forgotten.
    pub(super) fn undo(&mut self, batch: &mut Batch) -> usize {
        while let Some((subject, before)) = batch.undo.pop() {
            let dirty = self.subs[subject as usize].dirty;
            self.subs[subject as usize] = Sub { dirty, ..before };
        }
        self.subs.truncate(batch.subs_before);
        self.dirty.retain(|id| (*id as usize) < batch.subs_before);
        self.next_seq = batch.next_seq_before;
        self.kv_revision = batch.kv_revision_before;
        batch.subs_before
    }

    /// Makes one append part of the transaction. The outer error ends the transaction, the inner one only this append.
    pub(super) fn append(
        &mut self,
        conn: &Connection,
        insert: &mut CachedStatement<'_>,
        batch: &mut Batch,
        mut append: Append,
        ids: &[SubjectId],
    ) -> rusqlite::Result<Result<Appended, AppendError>> {
        if let Some(at) = ids.iter().position(|id| *id == NO_SUBJECT) {
            return Ok(Err(AppendError::Refused(format!("no stream keeps {}", append.subjects[at]))));
        }
        let full = self.full_places(ids);
        if let Some(error) = self.objection(&append, ids, &full) {
            // A repetition is answered with the first time's sequence, whatever has become of the subject since.
            let stream = self.subs[ids[0] as usize].stream;
            return Ok(match self.known(conn, stream, &append.id)? {
                Some(seq) => Ok(Appended { seq, duplicate: true, full: Vec::new() }),
                None => Err(error),
            });
        }
        if !full.is_empty() {
            return self.append_without(conn, insert, batch, append, ids, &full);
        }
        let stream = self.subs[ids[0] as usize].stream;
        if ids[1..].iter().all(|id| self.subs[*id as usize].stream == stream) {
            return self.insert(conn, insert, batch, append, ids).map(Ok);
        }
        // Ids are unique for each stream, so an append to several streams is a row in each.
        let mut first = None;
        let mut rest: Vec<(SubjectId, Subject)> =
            ids.iter().copied().zip(append.subjects.drain(..)).collect();
        while let Some((id, _)) = rest.first() {
            let stream = self.subs[*id as usize].stream;
            let (here, elsewhere): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|(id, _)| self.subs[*id as usize].stream == stream);
            rest = elsewhere;
            let (ids, subjects): (Vec<SubjectId>, Vec<Subject>) = here.into_iter().unzip();
            let appended = self.insert(conn, insert, batch, Append { subjects, ..append.clone() }, &ids)?;
            first.get_or_insert(appended);
        }
        Ok(Ok(first.expect("an append has a subject")))
    }

    /// Appends to those subjects that are not full; one is left at least.
    fn append_without(
        &mut self,
        conn: &Connection,
        insert: &mut CachedStatement<'_>,
        batch: &mut Batch,
        mut append: Append,
        ids: &[SubjectId],
        full: &[usize],
    ) -> rusqlite::Result<Result<Appended, AppendError>> {
        let subjects = std::mem::take(&mut append.subjects);
        let all = subjects.into_iter().zip(ids.iter().copied()).enumerate();
        let (left_out, kept): (Vec<_>, Vec<_>) = all.partition(|(at, _)| full.binary_search(at).is_ok());
        let ids: Vec<SubjectId> = kept.iter().map(|(_, (_, id))| *id).collect();
        append.copies = 0;
        append.subjects = kept.into_iter().map(|(_, (subject, _))| subject).collect();
        let answer = self.append(conn, insert, batch, append, &ids)?;
        Ok(answer.map(|appended| match appended.duplicate {
            true => appended,
            false => {
                Appended { full: left_out.into_iter().map(|(_, (subject, _))| subject).collect(), ..appended }
            }
        }))
    }

    /// Which of these subjects are full.
    fn full_places(&self, ids: &[SubjectId]) -> Vec<usize> {
        let is_full = |id: &SubjectId| self.subs[*id as usize].count >= self.subs[*id as usize].count_max;
        ids.iter().enumerate().filter(|(_, id)| is_full(id)).map(|(at, _)| at).collect()
    }

    fn objection(&self, append: &Append, ids: &[SubjectId], full: &[usize]) -> Option<AppendError> {
        let last = self.subs[ids[0] as usize].last_there();
        if append.expect_last.is_some_and(|expected| expected != last) {
            return Some(AppendError::Conflict { last });
        }
        // The originals stand before the copies, and so do the full ones among them.
        let originals = ids.len() - append.copies.min(ids.len() - 1);
        let full_originals = full.iter().filter(|at| **at < originals).count();
        (full_originals == originals).then(|| AppendError::Full(append.subjects[0].clone()))
    }

    /// The sequence under which the stream has this id.
    fn known(&self, conn: &Connection, stream: StreamAt, id: &EntryId) -> rusqlite::Result<Option<Seq>> {
        let mut statement = conn.prepare_cached("SELECT seq FROM entry WHERE stream = ?1 AND id = ?2")?;
        let found = statement.query_row((stream.0, PackedId::of(id)), |row| row.get(0)).optional()?;
        Ok(found.map(|seq| Seq(from_sql(seq))))
    }

    fn insert(
        &mut self,
        conn: &Connection,
        insert: &mut CachedStatement<'_>,
        batch: &mut Batch,
        append: Append,
        ids: &[SubjectId],
    ) -> rusqlite::Result<Appended> {
        let base = self.next_seq;
        let stream = self.subs[ids[0] as usize].stream;
        pack::pack_headers(&append.headers, &mut self.headers);
        let headers = (!self.headers.is_empty()).then_some(&self.headers[..]);
        let inserted = insert.execute((
            to_sql(base),
            to_sql(batch.time.0),
            stream.0,
            PackedId::of(&append.id),
            PackedSubjects::of(ids),
            headers,
            &append.body[..],
        ))?;
        if inserted == 0 {
            let seq = self.known(conn, stream, &append.id)?.unwrap_or(Seq::ZERO);
            return Ok(Appended { seq, duplicate: true, full: Vec::new() });
        }
        for (at, id) in ids.iter().enumerate() {
            let sub = &mut self.subs[*id as usize];
            batch.undo.push((*id, *sub));
            sub.last = base + at as u64;
            sub.count += 1;
            if !sub.dirty {
                sub.dirty = true;
                self.dirty.push(*id);
            }
        }
        self.next_seq = base + ids.len() as u64;
        batch.places += ids.len();
        batch.rows.push(row(append, ids, base, batch.time));
        Ok(Appended { seq: Seq(base), duplicate: false, full: Vec::new() })
    }
}

fn row(mut append: Append, ids: &[SubjectId], base: u64, time: Timestamp) -> Row {
    let (id, headers, body) = (append.id, append.headers, append.body);
    match (ids, append.subjects.pop()) {
        ([only], Some(subject)) => Row::One {
            subject: *only,
            entry: Arc::new(Entry { subject, seq: Seq(base), time, id, headers, body }),
        },
        _ => Row::Many(Arc::new(Many { base, time, id, headers, body, subjects: ids.into() })),
    }
}
