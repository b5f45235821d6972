//! Removing entries: a part of the writer's work.
//!
//! A trim moves a subject's watermark. A row goes when the watermarks of all its subjects have passed it. As its id
//! must be recognised for a while, a young row first loses only its body.

use rusqlite::Connection;

use super::index::{Index, Trimmed};
use super::pack::{self, PackedSubjects, SubjectId};
use super::read::{broken, from_sql, to_sql};
use super::state::{Batch, State};
use crate::{IDEMPOTENCE_WINDOW, Timestamp};

/// Rows forgotten in one transaction.
const PURGED_MAX: usize = 2048;

/// How far one transaction got.
pub(super) struct Progress {
    pub(super) removed: u64,
    /// There is more to trim.
    pub(super) more: bool,
}

impl State {
    /// Trims a part of what is asked for. All appends must have been published before.
    pub(super) fn trim(
        &mut self,
        conn: &Connection,
        index: &Index,
        batch: &mut Batch,
        subject: SubjectId,
        upto: u64,
    ) -> rusqlite::Result<Progress> {
        let Some(sub) = index.get(subject) else { return Ok(Progress { removed: 0, more: false }) };
        let (upto, trimmed_max) = (upto.min(sub.last), index.limits.trimmed_max);
        let mut seqs = Vec::new();
        if sub.flushed > sub.trimmed {
            let sql = "SELECT first, seqs FROM run WHERE subject = ?1 AND last > ?2 ORDER BY last";
            let mut statement = conn.prepare_cached(sql)?;
            let mut runs = statement.query((subject, to_sql(sub.trimmed)))?;
            while seqs.len() <= trimmed_max
                && seqs.last().is_none_or(|last| *last < upto)
                && let Some(row) = runs.next()?
            {
                let packed = row.get_ref(1)?.as_blob_or_null()?.unwrap_or_default();
                pack::unpack_run(from_sql(row.get(0)?), packed, &mut seqs);
                seqs.retain(|seq| *seq > sub.trimmed);
            }
        }
        seqs.extend(sub.recent_after(sub.flushed.max(sub.trimmed)).take(trimmed_max + 1));
        let there = seqs.partition_point(|seq| *seq <= upto);
        seqs.truncate(there);
        let more = seqs.len() > trimmed_max;
        seqs.truncate(trimmed_max);
        let Some(last) = seqs.last().copied() else { return Ok(Progress { removed: 0, more: false }) };

        for seq in &seqs {
            remove_row_if_dead(conn, index, subject, last, *seq)?;
        }
        let removed = seqs.len() as u64;
        conn.prepare_cached("DELETE FROM run WHERE subject = ?1 AND last <= ?2")?
            .execute((subject, to_sql(last)))?;
        conn.prepare_cached("UPDATE subject SET trimmed = ?2, gone = ?3 WHERE id = ?1")?.execute((
            subject,
            to_sql(last),
            to_sql(sub.gone + removed),
        ))?;
        // The last rows may go: the next sequence must not be found out from them.
        conn.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'next_seq'")?
            .execute([to_sql(self.next_seq)])?;
        self.change(batch, subject, |sub| sub.count -= removed);
        batch.trims.push(Trimmed { subject, upto: last, removed });
        Ok(Progress { removed, more })
    }
}

fn remove_row_if_dead(
    conn: &Connection,
    index: &Index,
    subject: SubjectId,
    watermark: u64,
    seq: u64,
) -> rusqlite::Result<()> {
    let mut find = conn
        .prepare_cached("SELECT seq, time, subjects FROM entry WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1")?;
    let mut rows = find.query([to_sql(seq)])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let (base, time) = (from_sql(row.get(0)?), from_sql(row.get(1)?));
    let mut subjects = Vec::new();
    PackedSubjects::unpack(row.get_ref(2)?, &mut subjects).map_err(broken)?;
    drop(rows);
    let alive = subjects.iter().enumerate().any(|(at, other)| {
        let seq = base + at as u64;
        let passed =
            if *other == subject { watermark } else { index.get(*other).map_or(0, |sub| sub.trimmed) };
        seq > passed
    });
    if alive {
        return Ok(());
    }
    let forgettable = Timestamp(time) < forgettable_before();
    let sql = if forgettable {
        "DELETE FROM entry WHERE seq = ?1"
    } else {
        "UPDATE entry SET body = NULL, headers = NULL, subjects = x'' WHERE seq = ?1"
    };
    conn.prepare_cached(sql)?.execute([to_sql(base)]).map(drop)
}

fn forgettable_before() -> Timestamp {
    // Twice the window, for clocks are set.
    let window = u64::try_from(2 * IDEMPOTENCE_WINDOW.as_micros()).unwrap_or(u64::MAX);
    Timestamp(Timestamp::now().0.saturating_sub(window))
}

/// Forgets trimmed rows that are old enough.
pub(super) fn purge(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "DELETE FROM entry WHERE seq IN (SELECT seq FROM entry WHERE body IS NULL AND time < ?1 LIMIT ?2)",
    )?
    .execute((to_sql(forgettable_before().0), PURGED_MAX as i64))
    .map(drop)
}
