//! Builds the memory's picture of a file when it is opened.

use rusqlite::{Connection, OptionalExtension};

use super::index::{Index, StreamAt};
use super::options::Limits;
use super::pack::{PackedSubjects, SubjectId};
use super::read::{broken, decode, from_sql, to_sql};
use super::state::{State, Sub};
use crate::{Filter, StreamSpec, Subject, Timestamp};

/// What the file holds: for all to see, and for the writer.
pub(super) fn load(conn: &Connection, limits: Limits) -> rusqlite::Result<(Index, State)> {
    let meta = |key: &str| meta(conn, key);
    let mut index = Index::default();
    index.limits = limits;
    index.indexed_upto = meta("indexed_upto")?;
    index.mem_from = index.indexed_upto + 1;
    streams(conn, &mut index)?;
    subjects(conn, &mut index)?;
    runs(conn, &mut index)?;
    rows(conn, &mut index)?;

    let last: Option<(i64, i64)> = conn
        .query_row("SELECT seq, time FROM entry ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (last_seq, last_time) = last.map_or((0, 0), |(seq, time)| (from_sql(seq), from_sql(time)));
    let next_seq = meta("next_seq")?.max(last_seq + 1).max(index.published + 1).max(index.indexed_upto + 1);
    index.published = next_seq - 1;
    let limit =
        |stream: StreamAt| index.streams[usize::from(stream.0)].entries_per_subject_max.unwrap_or(u64::MAX);
    let subs: Vec<Sub> = index
        .subs
        .iter()
        .map(|sub| Sub {
            last: sub.last,
            count: sub.count(),
            count_max: limit(sub.stream),
            stream: sub.stream,
            dirty: sub.last > sub.flushed,
        })
        .collect();
    let dirty = (0..).zip(&subs).filter(|(_, sub)| sub.dirty).map(|(id, _)| id).collect();
    let unflushed_places = index.subs.iter().map(|sub| sub.recent.len()).sum();
    let mut state = State::default();
    (state.subs, state.dirty, state.unflushed_places) = (subs, dirty, unflushed_places);
    (state.next_seq, state.last_time) = (next_seq, Timestamp(last_time));
    state.kv_revision = meta("kv_revision")?;
    Ok((index, state))
}

/// One of the file's numbers.
pub(super) fn meta(conn: &Connection, key: &str) -> rusqlite::Result<u64> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    statement.query_row([key], |row| row.get(0)).map(from_sql)
}

fn damaged(what: &'static str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(what.into()),
    )
}

/// Reads the streams, all of them.
pub(super) fn streams(conn: &Connection, index: &mut Index) -> rusqlite::Result<()> {
    index.streams.clear();
    let mut statement =
        conn.prepare("SELECT name, filters, entries_per_subject_max FROM stream ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let filters: String = row.get(1)?;
        let filters: Result<Vec<Filter>, _> = filters.split(' ').map(Filter::new).collect();
        index.streams.push(StreamSpec {
            name: row.get(0)?,
            filters: filters.map_err(|_| damaged("a stream's filters are none"))?,
            entries_per_subject_max: row.get::<_, Option<i64>>(2)?.map(from_sql),
        });
    }
    Ok(())
}

/// Reads the subjects that the index does not have yet.
pub(super) fn subjects(conn: &Connection, index: &mut Index) -> rusqlite::Result<()> {
    let sql = "SELECT id, stream, name, trimmed, gone FROM subject WHERE id >= ?1 ORDER BY id";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([index.subs.len() as i64])?;
    while let Some(row) = rows.next()? {
        let id: SubjectId = row.get(0)?;
        let stream = StreamAt(row.get(1)?);
        let name: String = row.get(2)?;
        if usize::from(stream.0) >= index.streams.len() || (id as usize) != index.subs.len() {
            return Err(damaged("a subject belongs to no stream"));
        }
        let name = Subject::new(name).map_err(|_| damaged("a subject's name is none"))?;
        index.intern(&name, stream);
        let sub = &mut index.subs[id as usize];
        sub.trimmed = from_sql(row.get(3)?);
        sub.gone = from_sql(row.get(4)?);
        (sub.ever, sub.last, sub.flushed) = (sub.gone, sub.trimmed, sub.trimmed);
    }
    Ok(())
}

fn runs(conn: &Connection, index: &mut Index) -> rusqlite::Result<()> {
    let mut last = conn.prepare("SELECT last, cum FROM run WHERE subject = ?1 ORDER BY last DESC LIMIT 1")?;
    for (id, sub) in index.subs.iter_mut().enumerate() {
        let found: Option<(i64, i64)> =
            last.query_row([id as i64], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((last, cum)) = found
            && from_sql(last) > sub.trimmed
        {
            (sub.last, sub.flushed, sub.ever) = (from_sql(last), from_sql(last), from_sql(cum));
        }
    }
    Ok(())
}

/// Reads the entries that the file's own index does not have.
fn rows(conn: &Connection, index: &mut Index) -> rusqlite::Result<()> {
    let sql = "SELECT seq, time, id, subjects, headers, body FROM entry WHERE seq > ?1 ORDER BY seq";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([to_sql(index.indexed_upto)])?;
    while let Some(row) = rows.next()? {
        if row.get_ref(5)? == rusqlite::types::ValueRef::Null {
            continue;
        }
        let mut ids = Vec::new();
        PackedSubjects::unpack(row.get_ref(3)?, &mut ids).map_err(broken)?;
        if ids.iter().any(|id| index.get(*id).is_none()) {
            return Err(damaged("an entry has a subject that is not there"));
        }
        let decoded = decode(row, ids, |id| index.get(id).map(|sub| sub.name.clone()))?;
        index.reload(decoded);
    }
    Ok(())
}
