//! What the writer knows ahead of everybody else: the state after the operations of the open transaction, and how to
//! go back to the state before it.

use std::sync::Arc;

use super::index::{StreamAt, Trimmed};
use super::insert::Inserts;
use super::kv::KvEvent;
use super::op::{Done, Failure};
use super::pack::SubjectId;
use super::ring::{Many, Row};
use crate::{Append, AppendError, Appended, Entry, Seq, StreamSpec, Subject, Timestamp};

/// Stands for a subject that no stream keeps.
pub(super) const NO_SUBJECT: SubjectId = SubjectId::MAX;

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

    /// Makes one append part of the transaction. Its answer, the last of the batch's, is set at once or when the rows
    /// that wait are written. An error ends the transaction.
    pub(super) fn append<'a>(
        &mut self,
        inserts: &mut Inserts<'_, 'a>,
        batch: &mut Batch,
        append: Append,
        ids: &'a [SubjectId],
        fence: &[SubjectId],
    ) -> rusqlite::Result<()> {
        let answer = batch.answers.len() - 1;
        if let Some(at) = ids.iter().position(|id| *id == NO_SUBJECT) {
            let why = format!("no stream keeps {}", append.subjects[at]);
            batch.answers[answer].1 = Err(AppendError::Refused(why));
            return Ok(());
        }
        let stream = self.subs[ids[0] as usize].stream;
        let foreign = |id: &SubjectId| *id == NO_SUBJECT || self.subs[*id as usize].stream != stream;
        if fence.iter().any(foreign) {
            let why = "what is expected is about a subject of another stream".into();
            batch.answers[answer].1 = Err(AppendError::Refused(why));
            return Ok(());
        }
        let waiting = inserts.waiting() as u64;
        let plain = |id: &SubjectId| {
            let sub = &self.subs[*id as usize];
            sub.stream == stream && sub.count + waiting < sub.count_max
        };
        // A fence that stands decides nothing that those who wait could change, unless one of them is on its subject.
        let stands = |fence: &SubjectId| {
            let last = self.subs[*fence as usize].last_there();
            append.expect_last.as_ref().is_some_and(|expected| expected.seq == last) && !inserts.is_on(*fence)
        };
        let is_free = append.expect_last.is_none() || fence.first().is_some_and(stands);
        if is_free && ids.iter().all(plain) {
            return inserts.add(self, batch, append, ids, answer);
        }
        // What is decided here depends on what became of those that wait.
        inserts.write(self, batch)?;
        batch.answers[answer].1 = self.append_now(inserts, batch, append, ids, fence.first().copied())?;
        Ok(())
    }

    /// An append that expects something, or meets a full subject, or belongs to several streams.
    fn append_now(
        &mut self,
        inserts: &mut Inserts<'_, '_>,
        batch: &mut Batch,
        mut append: Append,
        ids: &[SubjectId],
        fence: Option<SubjectId>,
    ) -> rusqlite::Result<Answer> {
        let full = self.full_places(ids);
        if let Some(error) = self.objection(&append, ids, fence, &full) {
            // A repetition is answered with the first time's sequence, whatever has become of the subject since.
            let stream = self.subs[ids[0] as usize].stream;
            return Ok(match inserts.known(stream, &append.id)? {
                Some(seq) => Ok(Appended { seq, duplicate: true, full: Vec::new() }),
                None => Err(error),
            });
        }
        if !full.is_empty() {
            return self.append_without(inserts, batch, append, ids, &full);
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
            let appended = inserts.now(self, batch, Append { subjects, ..append.clone() }, &ids)?;
            first.get_or_insert(appended);
        }
        Ok(Ok(first.expect("an append has a subject")))
    }

    /// Appends to those subjects that are not full; one is left at least.
    fn append_without(
        &mut self,
        inserts: &mut Inserts<'_, '_>,
        batch: &mut Batch,
        mut append: Append,
        ids: &[SubjectId],
        full: &[usize],
    ) -> rusqlite::Result<Answer> {
        let subjects = std::mem::take(&mut append.subjects);
        let all = subjects.into_iter().zip(ids.iter().copied()).enumerate();
        let (left_out, kept): (Vec<_>, Vec<_>) = all.partition(|(at, _)| full.binary_search(at).is_ok());
        let ids: Vec<SubjectId> = kept.iter().map(|(_, (_, id))| *id).collect();
        append.copies = 0;
        append.subjects = kept.into_iter().map(|(_, (subject, _))| subject).collect();
        append.expect_last = None;
        let answer = self.append_now(inserts, batch, append, &ids, None)?;
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

    fn objection(
        &self,
        append: &Append,
        ids: &[SubjectId],
        fence: Option<SubjectId>,
        full: &[usize],
    ) -> Option<AppendError> {
        let last = self.subs[fence.unwrap_or(ids[0]) as usize].last_there();
        if append.expect_last.as_ref().is_some_and(|expected| expected.seq != last) {
            return Some(AppendError::Conflict);
        }
        // The originals stand before the copies, and so do the full ones among them.
        let originals = ids.len() - append.copies.min(ids.len() - 1);
        let full_originals = full.iter().filter(|at| **at < originals).count();
        (full_originals == originals).then(|| AppendError::Full(append.subjects[0].clone()))
    }

    /// The first of so many new sequences.
    pub(super) fn take_seqs(&mut self, count: usize) -> u64 {
        let first = self.next_seq;
        self.next_seq += count as u64;
        first
    }

    /// Takes note of a row that is in the table.
    pub(super) fn stored(&mut self, batch: &mut Batch, append: Append, ids: &[SubjectId], base: u64) {
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
        batch.places += ids.len();
        batch.rows.push(row(append, ids, base, batch.time));
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
