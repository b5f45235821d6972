//! What a reader from outside remembers between its looks at the file: names that never change, and which sequences the
//! file's own index does not have yet.
//!
//! Everything that can change is read anew in each look, in its one transaction.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::session::Stamp;
use crate::sqlite::index::{Index, Scope, StreamAt};
use crate::sqlite::load;
use crate::sqlite::options::Limits;
use crate::sqlite::pack::{PackedSubjects, SubjectId};
use crate::sqlite::queue;
use crate::sqlite::read::{self, Listed, Look, Question, Scan, broken, from_sql, to_sql};
use crate::{Filter, ReadFrom, Seq, StreamSpec, StreamUsage, Subject};

/// A filter with more subjects than this is answered by reading the log. Fewer than for who serves the file: pages are
/// large here, and of each list as much is looked up as a page may hold.
const LISTS_MAX: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Picture {
    /// Of this file.
    file: Option<(u64, u64)>,
    /// Streams, and subjects with their names. Of each subject only `recent` is kept beside: its sequences in
    /// `indexed_upto..=seen_upto`.
    index: Index,
    /// Those that have such.
    recent: Vec<SubjectId>,
    indexed_upto: u64,
    seen_upto: u64,
}

/// One subject as it is in one look.
struct Now {
    trimmed: u64,
    gone: u64,
    /// Its last sequence in table `run`, and how many it ever had up to there.
    flushed: u64,
    ever: u64,
}

impl Picture {
    /// Takes in what is new. First of all in each look.
    pub(super) fn refresh(&mut self, conn: &Connection, stamp: &Stamp) -> rusqlite::Result<()> {
        if self.file != Some(stamp.file) {
            *self = Self { file: Some(stamp.file), ..Self::default() };
            self.index.limits = Limits { lists_max: LISTS_MAX, ..Limits::default() };
        }
        load::streams(conn, &mut self.index)?;
        load::subjects(conn, &mut self.index)
    }

    pub(super) fn stream_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.index.streams.iter().map(|stream| stream.name.clone()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn stream_of(&self, filter: &Filter) -> Option<StreamAt> {
        self.index.stream_of_filter(filter)
    }

    /// Answers a question as the process that serves the file would.
    pub(super) fn answer(&mut self, conn: &Connection, question: &Question) -> rusqlite::Result<Look> {
        let (from, backward) = match question.from {
            ReadFrom::After(seq) => (seq.0, false),
            ReadFrom::Since(time) => (read::before_time(conn, time)?, false),
            ReadFrom::Before(seq) => (seq.0, true),
            ReadFrom::End => (u64::MAX, true),
        };
        let published = last_seq(conn)?;
        match self.index.scope(&question.filter, question.stream) {
            Scope::List(ids) => {
                self.find_recent(conn)?;
                let now = |from, most| {
                    let listed = ids.iter().map(|id| self.listed(conn, *id, from, backward, most));
                    Ok((listed.collect::<rusqlite::Result<_>>()?, published))
                };
                read::listed(conn, question, from, backward, now)
            }
            Scope::Scan(_) => {
                let (index, mut watermarks) = (&self.index, HashMap::new());
                let live = |base: u64, ids: &[SubjectId], into: &mut Vec<(u64, Subject)>| {
                    for (at, id) in ids.iter().enumerate() {
                        let watermark = match watermarks.get(id) {
                            Some(watermark) => *watermark,
                            None => {
                                let watermark = watermark(conn, index, question, *id)?;
                                watermarks.insert(*id, watermark);
                                watermark
                            }
                        };
                        let seq = base + at as u64;
                        if watermark.is_some_and(|watermark| seq > watermark)
                            && let Some(sub) = index.get(*id)
                        {
                            into.push((seq, sub.name.clone()));
                        }
                    }
                    Ok(())
                };
                let scan = Scan { published, rows_max: index.limits.scanned_rows_max };
                read::scanned(conn, question, (from, backward), scan, live)
            }
        }
    }

    /// The last sequence of a subject; `None` if no stream keeps it.
    pub(super) fn last(&mut self, conn: &Connection, subject: &Subject) -> rusqlite::Result<Option<Seq>> {
        let Some(id) = self.index.id(subject.as_str()) else {
            return Ok(self.index.stream_of(subject.as_str()).map(|_| Seq::ZERO));
        };
        self.find_recent(conn)?;
        let now = now(conn, id)?;
        let flushed = if now.flushed > now.trimmed { now.flushed } else { 0 };
        Ok(Some(Seq(self.fresh(id, &now).last().copied().unwrap_or(flushed))))
    }

    /// How many entries of a subject there are after `seq`; `None` if no stream keeps it.
    pub(super) fn count_after(
        &mut self,
        conn: &Connection,
        subject: &str,
        seq: u64,
    ) -> rusqlite::Result<Option<u64>> {
        let Some(id) = self.index.id(subject) else { return Ok(self.index.stream_of(subject).map(|_| 0)) };
        self.find_recent(conn)?;
        let now = now(conn, id)?;
        let fresh = self.fresh(id, &now).into_iter().filter(|fresh| *fresh > seq).count() as u64;
        if seq >= now.flushed {
            return Ok(Some(fresh));
        }
        let before = if seq <= now.trimmed { None } else { queue::upto_in_runs(conn, id, seq)? };
        Ok(Some(now.ever - before.unwrap_or(now.gone).max(now.gone) + fresh))
    }

    /// How many entries there are in these streams, if they are there.
    pub(super) fn usage(
        &mut self,
        conn: &Connection,
        wanted: &[StreamSpec],
    ) -> rusqlite::Result<Vec<StreamUsage>> {
        self.find_recent(conn)?;
        self.index.usage(wanted, |id, _| {
            let now = now(conn, id)?;
            Ok(now.ever - now.gone + self.fresh(id, &now).len() as u64)
        })
    }

    fn listed(
        &self,
        conn: &Connection,
        id: SubjectId,
        from: u64,
        backward: bool,
        most: usize,
    ) -> rusqlite::Result<Listed> {
        let now = now(conn, id)?;
        let mut fresh = self.fresh(id, &now);
        if backward {
            fresh.retain(|seq| *seq < from);
            fresh.reverse();
        } else {
            fresh.retain(|seq| *seq > from);
        }
        fresh.truncate(most);
        let name = self.index.subs[id as usize].name.clone();
        Ok(Listed { id, name, flushed: now.flushed, trimmed: now.trimmed, fresh })
    }

    /// Its sequences that table `run` does not have, in their order.
    fn fresh(&self, id: SubjectId, now: &Now) -> Vec<u64> {
        let above = now.flushed.max(now.trimmed);
        self.index.get(id).map_or_else(Vec::new, |sub| sub.recent_after(above).collect())
    }

    /// Looks through the rows behind the file's index. The writer keeps them few.
    fn find_recent(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let indexed_upto = load::meta(conn, "indexed_upto")?;
        if indexed_upto != self.indexed_upto {
            for id in self.recent.drain(..) {
                self.index.subs[id as usize].recent.clear();
            }
            (self.indexed_upto, self.seen_upto) = (indexed_upto, indexed_upto);
        }
        let sql = "SELECT seq, subjects FROM entry WHERE seq > ?1 AND body IS NOT NULL ORDER BY seq";
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([to_sql(self.seen_upto)])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            let base = from_sql(row.get(0)?);
            PackedSubjects::unpack(row.get_ref(1)?, &mut ids).map_err(broken)?;
            for (at, id) in ids.iter().enumerate() {
                let seq = base + at as u64;
                let Some(sub) = self.index.subs.get_mut(*id as usize) else { continue };
                if sub.recent.is_empty() {
                    self.recent.push(*id);
                }
                sub.recent.push_back(seq);
                self.seen_upto = seq;
            }
        }
        Ok(())
    }
}

/// Up to where a subject is trimmed; `None` if it does not match.
fn watermark(
    conn: &Connection,
    index: &Index,
    question: &Question,
    id: SubjectId,
) -> rusqlite::Result<Option<u64>> {
    let matches = |sub: &crate::sqlite::index::Sub| {
        sub.stream == question.stream && question.filter.matches(sub.name.as_str())
    };
    if !index.get(id).is_some_and(matches) {
        return Ok(None);
    }
    let mut statement = conn.prepare_cached("SELECT trimmed FROM subject WHERE id = ?1")?;
    statement.query_row([id], |row| row.get(0)).map(|trimmed| Some(from_sql(trimmed)))
}

fn now(conn: &Connection, id: SubjectId) -> rusqlite::Result<Now> {
    let (trimmed, gone) = conn
        .prepare_cached("SELECT trimmed, gone FROM subject WHERE id = ?1")?
        .query_row([id], |row| Ok((from_sql(row.get(0)?), from_sql(row.get(1)?))))?;
    let run: Option<(i64, i64)> = conn
        .prepare_cached("SELECT last, cum FROM run WHERE subject = ?1 ORDER BY last DESC LIMIT 1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (flushed, ever) = match run {
        Some((last, cum)) if from_sql(last) > trimmed => (from_sql(last), from_sql(cum)),
        _ => (trimmed, gone),
    };
    Ok(Now { trimmed, gone, flushed, ever })
}

/// The last sequence of the file.
fn last_seq(conn: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT seq, subjects FROM entry ORDER BY seq DESC LIMIT 1";
    let last = conn.query_row(sql, [], |row| {
        let mut ids = Vec::new();
        PackedSubjects::unpack(row.get_ref(1)?, &mut ids).map_err(broken)?;
        Ok(from_sql(row.get(0)?) + (ids.len() as u64).saturating_sub(1))
    });
    Ok(last.optional()?.unwrap_or(0))
}
