//! Reading the log: from memory where the entries are fresh, else from the file.
//!
//! A read sees one moment: the sequence published when it began is its upper end, so that two subjects of one filter
//! are cut at the same place. Sequences that were moved from memory to table `run` meanwhile are not missed, because
//! the memory is looked at first, and not seen twice, because of the table only what lies below is then taken.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::index::{Index, Scope, StreamAt};
use super::pack::{self, PackedId, PackedSubjects, SubjectId, Unpackable};
use super::ring::{Many, Row};
use crate::{Entry, Filter, Page, ReadFrom, ReadLimit, Seq, Subject, Timestamp};

/// Most entries of one page, whatever was asked for.
const PAGE_ENTRIES_MAX: usize = 64 * 1024;

/// What a read found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) page: Page,
    /// Forward: every sequence up to here was looked at. Backward: every one from here on.
    pub(super) examined: u64,
    /// The scan was interrupted, for others to have their turn; it goes on from `examined`.
    pub(super) interrupted: bool,
}

/// Collects entries up to a limit.
struct Take {
    limit: ReadLimit,
    /// Taken for the same page by jobs before.
    before: usize,
    bytes: usize,
    look: Look,
}

impl Take {
    fn new(question: &Question) -> Self {
        let entries_max = question.limit.entries_max.clamp(1, PAGE_ENTRIES_MAX);
        let limit = ReadLimit { entries_max, ..question.limit };
        Self { limit, before: question.taken, bytes: question.taken_bytes, look: Look::default() }
    }

    /// Whether one more entry with so large a body goes in. The first always does.
    fn fits(&mut self, body_bytes: usize) -> bool {
        let taken = self.before + self.look.page.entries.len();
        let fits =
            taken < self.limit.entries_max && (taken == 0 || self.bytes + body_bytes <= self.limit.bytes_max);
        self.look.page.more |= !fits;
        fits
    }

    fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.body.len();
        self.look.examined = entry.seq.0;
        self.look.page.entries.push(entry);
    }
}

/// A read that memory cannot answer.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) filter: Filter,
    pub(super) stream: StreamAt,
    pub(super) from: ReadFrom,
    pub(super) limit: ReadLimit,
    /// Of an interrupted read: how much of the page is taken already.
    pub(super) taken: usize,
    pub(super) taken_bytes: usize,
}

impl Question {
    pub(super) fn new(filter: &Filter, stream: StreamAt, from: ReadFrom, limit: ReadLimit) -> Self {
        Self { filter: filter.clone(), stream, from, limit, taken: 0, taken_bytes: 0 }
    }
}

/// Answers from memory, if everything that is asked for is there.
pub(super) fn from_memory(index: &Index, question: &Question) -> Option<Look> {
    let mut take = Take::new(question);
    let from = match question.from {
        ReadFrom::Since(time) => ReadFrom::After(Seq(index.ring.since(time)?.base() - 1)),
        ReadFrom::End => ReadFrom::Before(Seq(u64::MAX)),
        other => other,
    };
    match (index.scope(&question.filter, question.stream), from) {
        (Scope::List(ids), ReadFrom::After(after)) => {
            let there = |id: &SubjectId| {
                let sub = &index.subs[*id as usize];
                sub.all_recent() || sub.last <= after.0
            };
            if after.0.saturating_add(1) < index.mem_from && !ids.iter().all(there) {
                return None;
            }
            let most = take.limit.entries_max + 1;
            let each = |id: SubjectId| index.subs[id as usize].recent_after(after.0).take(most);
            let mut seqs: Vec<(u64, SubjectId)> =
                ids.iter().flat_map(|id| each(*id).map(|seq| (seq, *id))).collect();
            if ids.len() > 1 {
                seqs.sort_unstable();
            }
            take_listed(index, &mut take, &seqs)?;
        }
        (Scope::List(ids), ReadFrom::Before(before)) => {
            let most = take.limit.entries_max + 1;
            let each = |id: SubjectId| index.subs[id as usize].recent_before(before.0).take(most);
            let mut seqs: Vec<(u64, SubjectId)> =
                ids.iter().flat_map(|id| each(*id).map(|seq| (seq, *id))).collect();
            if ids.len() > 1 {
                seqs.sort_unstable_by(|a, b| b.cmp(a));
            }
            take_listed(index, &mut take, &seqs)?;
            // What memory does not have is older than all it has, so a full page is right whatever is missing.
            if !take.look.page.more && !ids.iter().all(|id| index.subs[*id as usize].all_recent()) {
                return None;
            }
        }
        (Scope::Scan(_), ReadFrom::After(after)) => {
            if after.0.saturating_add(1) < index.mem_from {
                return None;
            }
            take_scanned(index, &mut take, question, index.ring.after(after.0), |seq| seq > after.0, false);
        }
        (Scope::Scan(_), ReadFrom::Before(before)) => {
            take_scanned(index, &mut take, question, index.ring.before(before.0), |seq| seq < before.0, true);
            if !take.look.page.more && index.mem_from > 1 {
                return None;
            }
        }
        (_, ReadFrom::Since(_) | ReadFrom::End) => return None,
    }
    if !take.look.page.more {
        take.look.examined = index.published;
    }
    Some(take.look)
}

fn take_listed(index: &Index, take: &mut Take, seqs: &[(u64, SubjectId)]) -> Option<()> {
    take.look.page.entries.reserve(seqs.len().min(take.limit.entries_max));
    for (seq, id) in seqs {
        let row = index.ring.get(*seq)?;
        if !take.fits(row.body_bytes()) {
            break;
        }
        take.push(row.entry(&index.subs[*id as usize].name, *seq));
    }
    Some(())
}

fn take_scanned<'a>(
    index: &Index,
    take: &mut Take,
    question: &Question,
    rows: impl Iterator<Item = &'a Row>,
    within: impl Fn(u64) -> bool,
    backward: bool,
) {
    let mut matches = Matches::new(&question.filter, question.stream);
    for row in rows {
        let count = row.subjects().len();
        for step in 0..count {
            let at = if backward { count - 1 - step } else { step };
            let (id, seq) = (row.subjects()[at], row.base() + at as u64);
            let Some(name) = matches.live(index, id, seq).filter(|_| within(seq)) else { continue };
            if !take.fits(row.body_bytes()) {
                return;
            }
            take.push(row.entry(&name, seq));
        }
    }
}

/// Whether subjects match, remembered.
struct Matches<'a> {
    filter: &'a Filter,
    stream: StreamAt,
    known: HashMap<SubjectId, bool>,
}

impl<'a> Matches<'a> {
    fn new(filter: &'a Filter, stream: StreamAt) -> Self {
        Self { filter, stream, known: HashMap::new() }
    }

    /// The subject's name, if it matches and its entry `seq` was not trimmed.
    fn live(&mut self, index: &Index, id: SubjectId, seq: u64) -> Option<Subject> {
        let sub = index.get(id)?;
        let matched = *self
            .known
            .entry(id)
            .or_insert_with(|| sub.stream == self.stream && self.filter.matches(sub.name.as_str()));
        (matched && seq > sub.trimmed).then(|| sub.name.clone())
    }
}

/// Answers from the file and, for what is not yet in its index, from memory. Runs on a reading thread.
pub(super) fn from_file(
    conn: &Connection,
    index: &RwLock<Index>,
    question: &Question,
) -> rusqlite::Result<Look> {
    let scope = lock(index).scope(&question.filter, question.stream);
    let (from, backward) = match question.from {
        ReadFrom::After(seq) => (seq.0, false),
        ReadFrom::Since(time) => (before_time(conn, time)?, false),
        ReadFrom::Before(seq) => (seq.0, true),
        ReadFrom::End => (u64::MAX, true),
    };
    match scope {
        Scope::List(ids) => {
            let now = |from, most| Ok(subjects_now(&lock(index), &ids, from, backward, most));
            listed(conn, question, from, backward, now)
        }
        Scope::Scan(_) => {
            let mut matches = Matches::new(&question.filter, question.stream);
            let (published, rows_max) = {
                let index = lock(index);
                (index.published, index.limits.scanned_rows_max)
            };
            let live = |base: u64, ids: &[SubjectId], into: &mut Vec<(u64, Subject)>| {
                let index = lock(index);
                let places = ids.iter().enumerate().map(|(at, id)| (base + at as u64, *id));
                into.extend(places.filter_map(|(seq, id)| Some((seq, matches.live(&index, id, seq)?))));
                Ok(())
            };
            scanned(conn, question, (from, backward), Scan { published, rows_max }, live)
        }
    }
}

fn lock(index: &RwLock<Index>) -> std::sync::RwLockReadGuard<'_, Index> {
    index.read().unwrap_or_else(PoisonError::into_inner)
}

/// One subject as a listed read sees it.
pub(super) struct Listed {
    pub(super) id: SubjectId,
    pub(super) name: Subject,
    pub(super) flushed: u64,
    pub(super) trimmed: u64,
    /// Sequences that table `run` does not have, in the order of the read.
    pub(super) fresh: Vec<u64>,
}

/// Reads subjects by their lists. `now` gives them as they are, with at most so many sequences from one on, and the last
/// sequence that is published.
pub(super) fn listed(
    conn: &Connection,
    question: &Question,
    mut from: u64,
    backward: bool,
    mut now: impl FnMut(u64, usize) -> rusqlite::Result<(Vec<Listed>, u64)>,
) -> rusqlite::Result<Look> {
    let mut take = Take::new(question);
    let most = take.limit.entries_max + 1;
    loop {
        let (subjects, published) = now(from, most)?;
        let mut seqs: Vec<(u64, usize)> = Vec::new();
        let mut cut = false;
        for (at, subject) in subjects.iter().enumerate() {
            let found = sequences(conn, subject, from, backward, most)?;
            cut |= found.len() == most;
            seqs.extend(found.into_iter().map(|seq| (seq, at)));
        }
        if backward {
            seqs.sort_unstable_by(|a, b| b.cmp(a))
        } else {
            seqs.sort_unstable()
        }
        seqs.truncate(most);
        let mut fetched: Option<Row> = None;
        for (seq, at) in &seqs {
            let subject = &subjects[*at];
            if !fetched.as_ref().is_some_and(|row| row.base() <= *seq && *seq <= row.end()) {
                fetched = fetch(conn, *seq, |_| Some(subject.name.clone()))?;
            }
            from = *seq;
            // Trimmed a moment ago.
            let Some(row) = &fetched else { continue };
            if !take.fits(row.body_bytes()) {
                return Ok(take.look);
            }
            take.push(row.entry(&subject.name, *seq));
        }
        if !cut {
            take.look.examined = published;
            return Ok(take.look);
        }
    }
}

fn subjects_now(
    index: &Index,
    ids: &[SubjectId],
    from: u64,
    backward: bool,
    most: usize,
) -> (Vec<Listed>, u64) {
    let subject = |id: &SubjectId| {
        let sub = index.get(*id)?;
        let fresh = if backward {
            sub.recent_before(from).take_while(|seq| *seq > sub.flushed).take(most).collect()
        } else {
            sub.recent_after(from.max(sub.flushed)).take(most).collect()
        };
        Some(Listed { id: *id, name: sub.name.clone(), flushed: sub.flushed, trimmed: sub.trimmed, fresh })
    };
    (ids.iter().filter_map(subject).collect(), index.published)
}

/// At most `most` sequences of one subject in the order of the read.
fn sequences(
    conn: &Connection,
    subject: &Listed,
    from: u64,
    backward: bool,
    most: usize,
) -> rusqlite::Result<Vec<u64>> {
    let mut found = Vec::new();
    if backward {
        found.extend_from_slice(&subject.fresh);
    }
    if found.len() < most && subject.flushed > subject.trimmed && (backward || from < subject.flushed) {
        let sql = if backward {
            "SELECT first, seqs FROM run WHERE subject = ?1 AND first < ?2 ORDER BY last DESC"
        } else {
            "SELECT first, seqs FROM run WHERE subject = ?1 AND last > ?2 ORDER BY last"
        };
        let mut statement = conn.prepare_cached(sql)?;
        let mut runs = statement.query((subject.id, to_sql(from)))?;
        let mut run = Vec::new();
        while found.len() < most
            && let Some(row) = runs.next()?
        {
            run.clear();
            pack::unpack_run(
                from_sql(row.get(0)?),
                row.get_ref(1)?.as_blob_or_null()?.unwrap_or_default(),
                &mut run,
            );
            if backward && run.last().is_none_or(|last| *last <= subject.trimmed) {
                break;
            }
            run.retain(|seq| *seq > subject.trimmed && *seq <= subject.flushed);
            let room = most - found.len();
            if backward {
                found.extend(run.iter().rev().filter(|seq| **seq < from).take(room));
            } else {
                found.extend(run.iter().filter(|seq| **seq > from).take(room));
            }
        }
    }
    if !backward {
        let room = most - found.len();
        found.extend(subject.fresh.iter().take(room));
    }
    Ok(found)
}

/// Bounds of one scan.
pub(super) struct Scan {
    /// The last sequence that is published.
    pub(super) published: u64,
    /// Rows to look at before it is interrupted.
    pub(super) rows_max: usize,
}

/// Reads row by row. `live` adds those places of a row that match and are there, in the order of their sequences.
pub(super) fn scanned(
    conn: &Connection,
    question: &Question,
    (from, backward): (u64, bool),
    Scan { published, rows_max }: Scan,
    mut live: impl FnMut(u64, &[SubjectId], &mut Vec<(u64, Subject)>) -> rusqlite::Result<()>,
) -> rusqlite::Result<Look> {
    let mut take = Take::new(question);
    let sql = if backward {
        "SELECT seq, time, id, subjects, headers, body FROM entry WHERE seq < ?1 AND seq <= ?2 ORDER BY seq DESC"
    } else {
        "SELECT seq, time, id, subjects, headers, body FROM entry
         WHERE seq >= coalesce((SELECT max(seq) FROM entry WHERE seq <= ?1), 0) AND seq <= ?2 ORDER BY seq"
    };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((to_sql(from), to_sql(published)))?;
    let (mut ids, mut wanted) = (Vec::new(), Vec::new());
    let mut scanned = 0;
    while let Some(sql_row) = rows.next()? {
        if sql_row.get_ref(5)? == rusqlite::types::ValueRef::Null {
            continue;
        }
        let base = from_sql(sql_row.get(0)?);
        PackedSubjects::unpack(sql_row.get_ref(3)?, &mut ids).map_err(broken)?;
        scanned += 1;
        if scanned > rows_max {
            take.look.interrupted = true;
            take.look.examined = if backward { base + ids.len() as u64 } else { base - 1 };
            return Ok(take.look);
        }
        wanted.clear();
        live(base, &ids, &mut wanted)?;
        wanted.retain(|(seq, _)| if backward { *seq < from } else { *seq > from });
        let Some((_, name)) = wanted.first().cloned() else { continue };
        if backward {
            wanted.reverse();
        }
        let row = decode(sql_row, std::mem::take(&mut ids), |_| Some(name.clone()))?;
        for (seq, name) in wanted.drain(..) {
            if !take.fits(row.body_bytes()) {
                return Ok(take.look);
            }
            take.push(row.entry(&name, seq));
        }
    }
    take.look.examined = if backward { 0 } else { published };
    Ok(take.look)
}

/// The row that has the sequence `seq`; `None` if it was trimmed. `name` tells the name of a row's only subject.
pub(super) fn fetch(
    conn: &Connection,
    seq: u64,
    name: impl Fn(SubjectId) -> Option<Subject>,
) -> rusqlite::Result<Option<Row>> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, time, id, subjects, headers, body FROM entry WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1",
    )?;
    let mut rows = statement.query([to_sql(seq)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    if row.get_ref(5)? == rusqlite::types::ValueRef::Null {
        return Ok(None);
    }
    let mut ids = Vec::new();
    PackedSubjects::unpack(row.get_ref(3)?, &mut ids).map_err(broken)?;
    Ok(Some(decode(row, ids, name)?).filter(|row| row.end() >= seq))
}

/// Reads `seq, time, id, subjects, headers, body`.
pub(super) fn decode(
    row: &SqlRow<'_>,
    subjects: Vec<SubjectId>,
    name: impl Fn(SubjectId) -> Option<Subject>,
) -> rusqlite::Result<Row> {
    let base = from_sql(row.get(0)?);
    let time = Timestamp(from_sql(row.get(1)?));
    let id = PackedId::unpack(row.get_ref(2)?).map_err(broken)?;
    let headers =
        pack::unpack_headers(row.get_ref(4)?.as_blob_or_null()?.unwrap_or_default()).map_err(broken)?;
    let body = bytes::Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?);
    Ok(match subjects[..] {
        [] => return Err(broken(Unpackable)),
        [subject] => {
            let name = name(subject).ok_or(broken(Unpackable))?;
            Row::One {
                subject,
                entry: Arc::new(Entry { subject: name, seq: Seq(base), time, id, headers, body }),
            }
        }
        _ => Row::Many(Arc::new(Many { base, time, id, headers, body, subjects: subjects.into() })),
    })
}

/// The last sequence before the first entry stored at `time` or later. Times grow with sequences.
pub(super) fn before_time(conn: &Connection, time: Timestamp) -> rusqlite::Result<u64> {
    let mut last = conn.prepare_cached("SELECT coalesce(max(seq), 0) FROM entry")?;
    let mut at = conn.prepare_cached("SELECT seq, time FROM entry WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    // The answer is in low..=high: `low` is too old or nothing, and whatever begins above `high` is late enough.
    let (mut low, mut high) = (0_u64, from_sql(last.query_row([], |row| row.get(0))?));
    while low < high {
        let middle = low + (high - low) / 2 + 1;
        let found: Option<(i64, i64)> =
            at.query_row([to_sql(middle)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            Some((seq, stored)) if from_sql(stored) < time.0 => low = from_sql(seq).max(middle),
            _ => high = middle - 1,
        }
    }
    // A row's later sequences lie between its base and the next row's.
    let next: Option<i64> = at.query_row([to_sql(low + 1)], |row| row.get(0)).optional()?;
    Ok(next.map_or(i64::MAX as u64, |next| from_sql(next) - 1))
}

pub(super) fn broken(error: Unpackable) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}

/// Sequences and times stay far below 2^63; what is above stands for the end.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
