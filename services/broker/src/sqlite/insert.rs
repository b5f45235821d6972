//! Puts rows into table `entry`, several with one statement: most of an insert's cost is that of beginning and ending
//! one, and of walking to the right edge of the table and of its index of ids.
//!
//! Rows wait until there are enough, or somebody must know what became of them. Whether an id was there before shows
//! only then; a repetition leaves its sequence unused.

use rusqlite::{CachedStatement, Connection, OptionalExtension};

use super::index::StreamAt;
use super::pack::{self, PackedId, PackedSubjects, SubjectId};
use super::read::{from_sql, to_sql};
use super::state::{Batch, State};
use crate::{Append, Appended, EntryId, Seq, Timestamp};

/// Rows in one statement.
const TOGETHER: usize = 16;
/// Columns of a row.
const COLUMNS: usize = 7;

const ONE: &str =
    "INSERT INTO entry(seq, time, stream, id, subjects, headers, body) VALUES (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT(stream, id) DO NOTHING";
/// [`ONE`] with [`TOGETHER`] rows.
const MANY: &str = "INSERT INTO entry(seq, time, stream, id, subjects, headers, body) VALUES
     (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?),
     (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?),
     (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?),
     (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT(stream, id) DO NOTHING";

/// A row that is not yet in the table.
struct Waiting<'a> {
    append: Append,
    ids: &'a [SubjectId],
    stream: StreamAt,
    base: u64,
    /// Where its answer goes among the batch's.
    answer: usize,
}

/// The rows of the open transaction that wait.
pub(super) struct Inserts<'c, 'a> {
    conn: &'c Connection,
    one: CachedStatement<'c>,
    many: CachedStatement<'c>,
    waiting: Vec<Waiting<'a>>,
    headers: Vec<u8>,
}

impl<'c, 'a> Inserts<'c, 'a> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        let (one, many) = (conn.prepare_cached(ONE)?, conn.prepare_cached(MANY)?);
        Ok(Self { conn, one, many, waiting: Vec::with_capacity(TOGETHER), headers: Vec::new() })
    }

    /// How many rows wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a row that waits is on this subject.
    pub(super) fn is_on(&self, subject: SubjectId) -> bool {
        self.waiting.iter().any(|row| row.ids.contains(&subject))
    }

    /// The sequence under which the stream has this id.
    pub(super) fn known(&self, stream: StreamAt, id: &EntryId) -> rusqlite::Result<Option<Seq>> {
        let mut statement =
            self.conn.prepare_cached("SELECT seq FROM entry WHERE stream = ?1 AND id = ?2")?;
        let found = statement.query_row((stream.0, PackedId::of(id)), |row| row.get(0)).optional()?;
        Ok(found.map(|seq| Seq(from_sql(seq))))
    }

    /// Adds a row that may wait. Its answer is set when it is in the table.
    pub(super) fn add(
        &mut self,
        state: &mut State,
        batch: &mut Batch,
        append: Append,
        ids: &'a [SubjectId],
        answer: usize,
    ) -> rusqlite::Result<()> {
        let base = state.take_seqs(ids.len());
        let stream = state.subs[ids[0] as usize].stream;
        self.waiting.push(Waiting { append, ids, stream, base, answer });
        if self.waiting.len() == TOGETHER { self.write(state, batch) } else { Ok(()) }
    }

    /// Puts one row into the table at once. None may wait.
    pub(super) fn now(
        &mut self,
        state: &mut State,
        batch: &mut Batch,
        append: Append,
        ids: &[SubjectId],
    ) -> rusqlite::Result<Appended> {
        let base = state.take_seqs(ids.len());
        self.put(state, batch, append, ids, base)
    }

    fn put(
        &mut self,
        state: &mut State,
        batch: &mut Batch,
        append: Append,
        ids: &[SubjectId],
        base: u64,
    ) -> rusqlite::Result<Appended> {
        let stream = state.subs[ids[0] as usize].stream;
        bind(&mut self.one, 0, &mut self.headers, batch.time, &append, ids, stream, base)?;
        if self.one.raw_execute()? == 0 {
            let seq = self.known(stream, &append.id)?.unwrap_or(Seq::ZERO);
            return Ok(Appended { seq, duplicate: true, full: Vec::new() });
        }
        state.stored(batch, append, ids, base);
        Ok(Appended { seq: Seq(base), duplicate: false, full: Vec::new() })
    }

    /// Puts all that wait into the table.
    pub(super) fn write(&mut self, state: &mut State, batch: &mut Batch) -> rusqlite::Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        if waiting.len() < TOGETHER {
            for Waiting { append, ids, base, answer, .. } in waiting.drain(..) {
                batch.answers[answer].1 = Ok(self.put(state, batch, append, ids, base)?);
            }
            self.waiting = waiting;
            return Ok(());
        }
        for (at, row) in waiting.iter().enumerate() {
            let Waiting { append, ids, stream, base, .. } = row;
            bind(&mut self.many, at * COLUMNS, &mut self.headers, batch.time, append, ids, *stream, *base)?;
        }
        let all_new = self.many.raw_execute()? == TOGETHER;
        for Waiting { append, ids, stream, base, answer } in waiting.drain(..) {
            let seq = if all_new { Seq(base) } else { self.known(stream, &append.id)?.unwrap_or(Seq::ZERO) };
            let duplicate = seq != Seq(base);
            batch.answers[answer].1 = Ok(Appended { seq, duplicate, full: Vec::new() });
            if !duplicate {
                state.stored(batch, append, ids, base);
            }
        }
        self.waiting = waiting;
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "they are the columns")]
fn bind(
    statement: &mut CachedStatement<'_>,
    before: usize,
    headers: &mut Vec<u8>,
    time: Timestamp,
    append: &Append,
    ids: &[SubjectId],
    stream: StreamAt,
    base: u64,
) -> rusqlite::Result<()> {
    pack::pack_headers(&append.headers, headers);
    statement.raw_bind_parameter(before + 1, to_sql(base))?;
    statement.raw_bind_parameter(before + 2, to_sql(time.0))?;
    statement.raw_bind_parameter(before + 3, stream.0)?;
    statement.raw_bind_parameter(before + 4, PackedId::of(&append.id))?;
    statement.raw_bind_parameter(before + 5, PackedSubjects::of(ids))?;
    statement.raw_bind_parameter(before + 6, (!headers.is_empty()).then_some(&headers[..]))?;
    statement.raw_bind_parameter(before + 7, &append.body[..])
}
