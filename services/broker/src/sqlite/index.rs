//! What is known of the log in memory: streams, subjects, where each subject's newest entries are, the newest rows.
//!
//! Everything here is committed, except that a subject may be known a moment before its first entry is. One writer
//! changes it, under a lock that is held for microseconds; all read it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use super::options::Limits;
use super::pack::SubjectId;
use super::ring::{Ring, Row};
use crate::{Filter, OpenError, Seq, StreamSpec, StreamUsage, Subject};

/// A filter that so many names have to be compared with counts as one with too many subjects to list.
const NAMES_LOOKED_AT_MAX: usize = 1024;

/// A stream by its place in [`Index::streams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamAt(pub(super) u16);

/// What a stream that is asked for is to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// It is there.
    Same,
    /// It is there with a lower limit.
    Raised(StreamAt),
    /// It is not there and can be made.
    New,
}

/// One subject.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) name: Subject,
    pub(super) stream: StreamAt,
    /// Its sequences from [`Index::mem_from`] on, oldest first, without the trimmed ones.
    pub(super) recent: VecDeque<u64>,
    /// Sequences up to here stand in table `run`, those after it in `recent` only.
    pub(super) flushed: u64,
    /// Sequences up to here were trimmed.
    pub(super) trimmed: u64,
    /// How many entries it ever had.
    pub(super) ever: u64,
    /// How many of them were trimmed.
    pub(super) gone: u64,
    /// Its last sequence, trimmed or not.
    pub(super) last: u64,
}

impl Sub {
    pub(super) fn new(name: Subject, stream: StreamAt) -> Self {
        Self { name, stream, recent: VecDeque::new(), flushed: 0, trimmed: 0, ever: 0, gone: 0, last: 0 }
    }

    /// Entries that are there.
    pub(super) fn count(&self) -> u64 {
        self.ever - self.gone
    }

    /// The sequence of the last entry that is there.
    pub(super) fn last_there(&self) -> Seq {
        if self.count() == 0 { Seq::ZERO } else { Seq(self.last) }
    }

    /// Whether all its entries are in `recent`.
    pub(super) fn all_recent(&self) -> bool {
        self.recent.len() as u64 == self.count()
    }

    /// Sequences after `seq` in `recent`.
    pub(super) fn recent_after(&self, seq: u64) -> impl Iterator<Item = u64> + '_ {
        self.recent.range(self.recent.partition_point(|at| *at <= seq)..).copied()
    }

    /// Sequences before `seq` in `recent`, newest first.
    pub(super) fn recent_before(&self, seq: u64) -> impl Iterator<Item = u64> + '_ {
        self.recent.range(..self.recent.partition_point(|at| *at < seq)).rev().copied()
    }
}

/// What a trim changed on one subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trimmed {
    pub(super) subject: SubjectId,
    pub(super) upto: u64,
    pub(super) removed: u64,
}

/// Which subjects a filter stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// These and no others, at the moment.
    List(Vec<SubjectId>),
    /// Too many to list: all of the stream's that match.
    Scan(StreamAt),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) streams: Vec<StreamSpec>,
    pub(super) subs: Vec<Sub>,
    ids: HashMap<Subject, SubjectId>,
    ordered: BTreeMap<Subject, SubjectId>,
    pub(super) ring: Ring,
    /// The last sequence that is committed and stands here.
    pub(super) published: u64,
    /// Every sequence up to here stands in table `run`.
    pub(super) indexed_upto: u64,
    /// From here on everything is in the ring and in the `recent` lists.
    pub(super) mem_from: u64,
    pub(super) limits: Limits,
}

impl Index {
    pub(super) fn id(&self, subject: &str) -> Option<SubjectId> {
        self.ids.get(subject).copied()
    }

    pub(super) fn sub(&self, subject: &str) -> Option<&Sub> {
        self.id(subject).and_then(|id| self.get(id))
    }

    pub(super) fn get(&self, id: SubjectId) -> Option<&Sub> {
        self.subs.get(id as usize)
    }

    /// How many entries there are in these streams, if they are there; `count` tells it of a subject.
    pub(super) fn usage<E>(
        &self,
        wanted: &[StreamSpec],
        mut count: impl FnMut(SubjectId, &Sub) -> Result<u64, E>,
    ) -> Result<Vec<StreamUsage>, E> {
        let mut entries = vec![0; self.streams.len()];
        for (id, sub) in (0..).zip(&self.subs) {
            entries[usize::from(sub.stream.0)] += count(id, sub)?;
        }
        let counted = |spec: &StreamSpec| {
            let at = self.streams.iter().position(|stream| stream.name == spec.name)?;
            Some(StreamUsage { name: spec.name.clone(), entries: entries[at], bytes: None })
        };
        Ok(wanted.iter().filter_map(counted).collect())
    }

    /// The stream that keeps `subject`.
    pub(super) fn stream_of(&self, subject: &str) -> Option<StreamAt> {
        let at = self.streams.iter().position(|stream| stream.filters.iter().any(|f| f.matches(subject)))?;
        Some(StreamAt(at as u16))
    }

    /// The one stream that `filter` reaches into; `None` if there is none or there are several.
    pub(super) fn stream_of_filter(&self, filter: &Filter) -> Option<StreamAt> {
        let mut reached = self
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.filters.iter().any(|theirs| theirs.overlaps(filter)));
        match (reached.next(), reached.next()) {
            (Some((at, _)), None) => Some(StreamAt(at as u16)),
            _ => None,
        }
    }

    /// Compares `spec` with what is there.
    pub(super) fn compare(&self, spec: &StreamSpec) -> Result<Compared, OpenError> {
        let named = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        if !named(&spec.name) {
            return Err(OpenError::Invalid(format!("{:?} is no name of a stream", spec.name)));
        }
        if spec.filters.is_empty() {
            return Err(OpenError::Invalid(format!("stream {} has no filters", spec.name)));
        }
        if let Some(at) = self.streams.iter().position(|stream| stream.name == spec.name) {
            let there = &self.streams[at];
            let differs = |what: &str, is: String, wanted: String| {
                Err(OpenError::Differs {
                    name: spec.name.clone(),
                    difference: format!("{what} {is}, not {wanted}"),
                })
            };
            let sorted = |spec: &StreamSpec| {
                let mut filters: Vec<&str> = spec.filters.iter().map(Filter::as_str).collect();
                filters.sort_unstable();
                filters.join(" ")
            };
            let limit = |spec: &StreamSpec| {
                spec.entries_per_subject_max.map_or("without a limit".to_owned(), |max| max.to_string())
            };
            if sorted(there) != sorted(spec) {
                return differs("its subjects are", sorted(there), sorted(spec));
            }
            let number = |spec: &StreamSpec| spec.entries_per_subject_max.unwrap_or(u64::MAX);
            return match number(spec).cmp(&number(there)) {
                Ordering::Equal => Ok(Compared::Same),
                Ordering::Greater => Ok(Compared::Raised(StreamAt(at as u16))),
                Ordering::Less => differs(
                    "its entries per subject can be raised, not lowered: they are",
                    limit(there),
                    limit(spec),
                ),
            };
        }
        for other in &self.streams {
            if other.filters.iter().any(|theirs| spec.filters.iter().any(|mine| mine.overlaps(theirs))) {
                return Err(OpenError::Invalid(format!(
                    "streams {} and {} would keep the same subjects",
                    spec.name, other.name
                )));
            }
        }
        if self.streams.len() >= usize::from(u16::MAX) {
            return Err(OpenError::Invalid("there are too many streams".into()));
        }
        Ok(Compared::New)
    }

    /// Gives `subject` a number.
    pub(super) fn intern(&mut self, subject: &Subject, stream: StreamAt) -> SubjectId {
        let id = SubjectId::try_from(self.subs.len()).expect("four billion subjects do not fit into memory");
        self.subs.push(Sub::new(subject.clone(), stream));
        self.ids.insert(subject.clone(), id);
        self.ordered.insert(subject.clone(), id);
        id
    }

    /// Forgets the subjects from number `from` on: the transaction that made them failed.
    pub(super) fn forget(&mut self, from: usize) {
        for sub in self.subs.drain(from.min(self.subs.len())..) {
            self.ids.remove(&sub.name);
            self.ordered.remove(&sub.name);
        }
    }

    /// Which subjects `filter`, which lies in `stream`, stands for.
    pub(super) fn scope(&self, filter: &Filter, stream: StreamAt) -> Scope {
        if filter.is_exact() {
            return Scope::List(self.id(filter.as_str()).into_iter().collect());
        }
        let prefix = filter.literal_prefix();
        let mut found = Vec::new();
        let names = self
            .ordered
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(name, _)| name.as_str().starts_with(prefix));
        for (looked_at, (name, id)) in names.enumerate() {
            if looked_at == NAMES_LOOKED_AT_MAX || found.len() == self.limits.lists_max {
                return Scope::Scan(stream);
            }
            if filter.matches(name.as_str()) {
                found.push(*id);
            }
        }
        Scope::List(found)
    }

    /// Takes committed rows in.
    pub(super) fn publish(&mut self, rows: impl Iterator<Item = Row>) {
        for row in rows {
            for (subject, seq) in row.places() {
                let sub = &mut self.subs[subject as usize];
                sub.recent.push_back(seq);
                sub.ever += 1;
                sub.last = seq;
            }
            self.published = row.end();
            self.ring.push(row);
        }
    }

    /// Takes in a row of the file whose places may already stand in table `run`, or be trimmed.
    pub(super) fn reload(&mut self, row: Row) {
        for (subject, seq) in row.places() {
            let sub = &mut self.subs[subject as usize];
            if seq > sub.trimmed {
                sub.recent.push_back(seq);
            }
            if seq > sub.flushed {
                sub.ever += 1;
                sub.last = seq;
            }
        }
        self.published = row.end();
        self.ring.push(row);
    }

    /// Lets go of the oldest rows above the ring's bounds, if the file's index has them.
    pub(super) fn evict(&mut self) {
        while self.ring.surplus(&self.limits).is_some_and(|row| row.end() <= self.indexed_upto) {
            let Some(row) = self.ring.pop() else { return };
            for (subject, seq) in row.places() {
                let recent = &mut self.subs[subject as usize].recent;
                while recent.front().is_some_and(|front| *front <= seq) {
                    recent.pop_front();
                }
                if recent.is_empty() && recent.capacity() > 64 {
                    recent.shrink_to_fit();
                }
            }
            self.mem_from = row.end() + 1;
        }
    }

    /// Takes a committed trim in.
    pub(super) fn trim(&mut self, trimmed: Trimmed) {
        let sub = &mut self.subs[trimmed.subject as usize];
        sub.trimmed = sub.trimmed.max(trimmed.upto);
        sub.flushed = sub.flushed.max(trimmed.upto);
        sub.gone += trimmed.removed;
        while sub.recent.front().is_some_and(|front| *front <= trimmed.upto) {
            sub.recent.pop_front();
        }
    }
}
