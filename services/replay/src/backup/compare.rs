//! Compares what was restored with its backup, entry by entry, and finds out on the way where positions have gone.

use std::collections::{BTreeSet, HashMap};

use antar_broker::{Entry, EntryId, Headers, Seq, Subject, Timestamp};
use antar_realm::restored::Restored;
use antar_realm::snapshot::STREAMS;
use bytes::Bytes;

use super::check::Contents;
use super::record::EntryRecord;

/// What an entry of a backup becomes.
pub(super) struct Wanted {
    pub(super) at: Vec<(Subject, Seq)>,
    pub(super) id: EntryId,
    pub(super) id_apart: EntryId,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

/// A backup was checked before it is read again.
const CHECKED: &str = "the file was checked; it has changed since";

impl Wanted {
    pub(super) fn of(
        record: EntryRecord,
        restored: Restored,
        contents: &Contents,
    ) -> Result<Self, &'static str> {
        let subject = |(text, seq): &(String, u64)| Subject::new(text).map(|subject| (subject, Seq(*seq)));
        let at: Vec<_> = record.at.iter().map(subject).collect::<Result<_, _>>().map_err(|_| CHECKED)?;
        let (first, seq) = at.first().ok_or(CHECKED)?;
        let id = EntryId::new(record.id).ok_or(CHECKED)?;
        let lane = match first.tokens().collect::<Vec<_>>()[..] {
            [_, _, "outbox", peer] => contents.epochs.get(peer).copied(),
            _ => None,
        };
        Ok(Self {
            id_apart: restored.id_apart(&id, *seq),
            id: restored.id(&id, *seq),
            headers: restored.headers(record.headers, *seq, Timestamp(record.time), lane),
            body: record.body.bytes().ok_or(CHECKED)?,
            at,
        })
    }

    /// Whether this is the entry on its subject number `at`.
    pub(super) fn is(&self, at: usize, entry: &Entry) -> bool {
        let sorted = |headers: &Headers| {
            let mut headers = headers.clone();
            headers.sort();
            headers
        };
        self.at.get(at).is_some_and(|(subject, _)| *subject == entry.subject)
            && (self.id == entry.id || self.id_apart == entry.id)
            && self.body == entry.body
            && sorted(&self.headers) == sorted(&entry.headers)
    }
}

/// Where positions have gone.
pub(super) struct Positions<'a> {
    contents: &'a Contents,
    cursors: HashMap<Subject, Cursors>,
    pub(super) queues: HashMap<Subject, Seq>,
    pub(super) inbox_upto: Seq,
}

/// Where the cursors of a subject have gone: a group has one for each member.
#[derive(Default)]
struct Cursors {
    /// Those before which the reading is not yet.
    left: BTreeSet<Seq>,
    gone: HashMap<Seq, Seq>,
    /// Where the entry is now that was read last.
    last: Seq,
}

impl<'a> Positions<'a> {
    pub(super) fn new(contents: &'a Contents) -> Self {
        let begun = |(subject, left): (&Subject, &BTreeSet<Seq>)| {
            (subject.clone(), Cursors { left: left.clone(), ..Cursors::default() })
        };
        let cursors = contents.cursors.iter().map(begun).collect();
        Self { contents, cursors, queues: HashMap::new(), inbox_upto: Seq::ZERO }
    }

    /// Where a cursor is now that was at `before`: behind the last entry that had been read.
    pub(super) fn cursor(&self, subject: &Subject, before: Seq) -> Seq {
        self.cursors
            .get(subject)
            .map_or(Seq::ZERO, |cursors| cursors.gone.get(&before).copied().unwrap_or(cursors.last))
    }

    /// Takes note that an entry of a stream that was at `before` is at `now`. They come in their order.
    pub(super) fn moved(&mut self, stream: &str, subject: &Subject, before: Seq, now: Seq) {
        if stream == STREAMS[0] {
            self.inbox_upto = now;
        }
        if let Some(cursors) = self.cursors.get_mut(subject) {
            while cursors.left.first().is_some_and(|upto| *upto < before) {
                cursors.gone.extend(cursors.left.pop_first().map(|upto| (upto, cursors.last)));
            }
            cursors.last = now;
        }
        if self.contents.queues.get(subject).is_some_and(|upto| before <= *upto) {
            self.queues.insert(subject.clone(), now);
        }
    }
}
