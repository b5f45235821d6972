//! Entries of the log, how they are appended, read and followed. Owns these types and their limits.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{Filter, Subject};

/// Largest body of one entry. NATS refuses more than 1 MiB by default (`max_payload`), headers included.
pub const ENTRY_BODY_BYTES_MAX: usize = 900 * 1024;
/// Longest [`EntryId`].
pub const ENTRY_ID_BYTES_MAX: usize = 160;
/// Most subjects of one append.
pub const SUBJECTS_MAX: usize = 4096;
/// Bytes of an append's headers together, names and values.
const HEADERS_BYTES_MAX: usize = 4096;
/// How long at least a repeated [`EntryId`] is recognised.
pub const IDEMPOTENCE_WINDOW: Duration = Duration::from_secs(10 * 60);

/// Place of an entry in its stream. Grows with every entry of the stream; numbers may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When an entry was stored: microseconds since 1970, by the broker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The present.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

/// What makes an append idempotent: the same id is the same append. At most [`ENTRY_ID_BYTES_MAX`] bytes of printable
/// ASCII without spaces. Ids that begin with their time (UUID v7) are the cheapest to keep. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryId(Arc<str>);

impl EntryId {
    /// Takes an id; `None` if it is empty, too long or has other bytes than printable ASCII.
    pub fn new(text: impl Into<Arc<str>>) -> Option<Self> {
        let text = text.into();
        let good = !text.is_empty()
            && text.len() <= ENTRY_ID_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_graphic());
        good.then_some(Self(text))
    }

    /// A fresh one.
    pub fn unique() -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        let text: &str = uuid::Uuid::now_v7().simple().encode_lower(&mut text);
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names (letters, digits and `-`, not beginning with `Nats-` or `KV-`) and values kept beside a body, in no order. Few
/// and small: at most 4 KiB together.
pub type Headers = Vec<(String, String)>;

/// One entry to be.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where it is to be found: at least one, at most [`SUBJECTS_MAX`], none twice.
    pub subjects: Vec<Subject>,
    /// Makes it idempotent.
    pub id: EntryId,
    /// Kept beside the body.
    pub headers: Headers,
    /// At most [`ENTRY_BODY_BYTES_MAX`].
    pub body: Bytes,
    /// Stored only if this is so at that moment.
    pub expect_last: Option<ExpectLast>,
    /// So many of the last subjects are copies of what the others get: if all the others are full, they get nothing.
    /// A repeated append may put another copy there, under the same id.
    pub copies: usize,
    /// The id was made for this append alone, and it is made once: a broker need not recognise a repetition of it, and may
    /// store it together with others that come at the same time. Whether one was stored whose acknowledgement did not
    /// come can be found out by reading only.
    pub is_fresh: bool,
}

impl Append {
    /// An append to one subject, without headers or expectations.
    pub fn new(subject: Subject, id: EntryId, body: impl Into<Bytes>) -> Self {
        Self {
            subjects: vec![subject],
            id,
            headers: Vec::new(),
            body: body.into(),
            expect_last: None,
            copies: 0,
            is_fresh: false,
        }
    }

    /// Refuses what can never be stored.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        let refused = |why: String| Err(AppendError::Refused(why));
        match self.subjects.len() {
            0 => return refused("no subject".into()),
            1 => {}
            count if count > SUBJECTS_MAX => {
                return refused(format!("{count} subjects are more than {SUBJECTS_MAX}"));
            }
            count => {
                if self.expect_last.as_ref().is_some_and(|expected| self.subjects.contains(&expected.subject))
                {
                    return refused("an expectation about one of several subjects".into());
                }
                let distinct: HashSet<&str> = self.subjects.iter().map(Subject::as_str).collect();
                if distinct.len() < count {
                    return refused("a subject twice".into());
                }
            }
        }
        if self.body.len() > ENTRY_BODY_BYTES_MAX {
            return refused(format!(
                "a body of {} bytes is more than {ENTRY_BODY_BYTES_MAX}",
                self.body.len()
            ));
        }
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers > HEADERS_BYTES_MAX {
            return refused(format!("headers of {headers} bytes are more than {HEADERS_BYTES_MAX}"));
        }
        Ok(())
    }

    /// The subject of an expectation that is not about the append's own.
    pub(crate) fn fence(&self) -> Option<&Subject> {
        let expected = self.expect_last.as_ref().map(|expected| &expected.subject);
        expected.filter(|subject| self.subjects.first() != Some(subject))
    }
}

/// That the last sequence on a subject is this one; [`Seq::ZERO`] stands for "no entry yet".
///
/// The append's own subject makes it a compare-and-set. Another subject of the same stream makes it a fence: who takes
/// work over appends to that subject, and whoever did the work before can append nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectLast {
    /// The subject.
    pub subject: Subject,
    /// Its last sequence.
    pub seq: Seq,
}

/// The acknowledgement of an append: it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence; with several subjects, that on the first that is not full.
    pub seq: Seq,
    /// It had been stored before: the sequence is that of the first time.
    pub duplicate: bool,
    /// Subjects that are full and got nothing; never all of them. Empty for a duplicate.
    pub full: Vec<Subject>,
}

/// Why there is no acknowledgement. What a caller does differently is a variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was stored; the same append may work later.
    #[error("not stored: {0}")]
    NotStored(String),
    /// Nothing was stored, and the same append will not work before something is trimmed. With several subjects, all
    /// that are not copies are full and this is the first.
    #[error("{0} is full")]
    Full(Subject),
    /// Nothing was stored: the last sequence of the subject in [`Append::expect_last`] is another.
    #[error("the subject's last sequence is not the one expected")]
    Conflict,
    /// Nothing was stored and never will be: too large, no subject, no stream for the subject.
    #[error("refused: {0}")]
    Refused(String),
    /// It may or may not have been stored. Append again with the same id.
    #[error("no acknowledgement: {0}")]
    Unknown(String),
}

impl AppendError {
    /// Whether nothing of a run may be stored behind what failed so: it may still be stored, or be tried again.
    pub(crate) fn ends_a_run(&self) -> bool {
        match self {
            Self::Full(_) | Self::Refused(_) => false,
            Self::NotStored(_) | Self::Conflict | Self::Unknown(_) => true,
        }
    }

    /// What became of those behind it.
    pub(crate) fn of_what_follows(self) -> Self {
        match self {
            Self::Conflict => Self::Conflict,
            other => Self::NotStored(format!("what goes before it was not stored: {other}")),
        }
    }
}

/// An append that has its place in the order and waits for its acknowledgement.
///
/// Dropping it does not take the append back.
#[must_use = "the acknowledgement has not come before this future is awaited"]
pub struct PendingAppend(Pending);

enum Pending {
    Oneshot(oneshot::Receiver<Result<Appended, AppendError>>),
    Boxed(Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>),
}

impl PendingAppend {
    /// Waits for the sender of `receiver`; a dropped sender is [`AppendError::Unknown`].
    pub fn from_oneshot(receiver: oneshot::Receiver<Result<Appended, AppendError>>) -> Self {
        Self(Pending::Oneshot(receiver))
    }

    /// Waits for any future.
    pub fn from_future(future: impl Future<Output = Result<Appended, AppendError>> + Send + 'static) -> Self {
        Self(Pending::Boxed(Box::pin(future)))
    }
}

impl Future for PendingAppend {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Pending::Oneshot(receiver) => Pin::new(receiver)
                .poll(cx)
                .map(|got| got.unwrap_or_else(|_| Err(AppendError::Unknown("the broker went away".into())))),
            Pending::Boxed(future) => future.as_mut().poll(cx),
        }
    }
}

/// One entry of the log. Shared by all who read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The subject under which it was found.
    pub subject: Subject,
    /// Its place.
    pub seq: Seq,
    /// When it was stored.
    pub time: Timestamp,
    /// What made its append idempotent.
    pub id: EntryId,
    /// Kept beside the body.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// Forward, from the first entry after this one.
    After(Seq),
    /// Forward, from the first entry stored at this time or later.
    Since(Timestamp),
    /// Backward, newest first, from the last entry before this one.
    Before(Seq),
    /// Backward, newest first, from the end.
    End,
}

/// How much one read returns at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Entries.
    pub entries_max: usize,
    /// Bytes of bodies, together.
    pub bytes_max: usize,
}

impl ReadLimit {
    /// A limit of so many entries and 1 MiB.
    pub const fn entries(entries_max: usize) -> Self {
        Self { entries_max, bytes_max: 1024 * 1024 }
    }
}

/// What a read returned.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The entries, in the order asked for.
    pub entries: Vec<Arc<Entry>>,
    /// There are more after the last of them.
    pub more: bool,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The broker does not answer; try again.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
    /// No stream keeps this subject, or the filter reaches over several.
    #[error("no one stream keeps {0}")]
    NoStream(Filter),
    /// The broker was closed.
    #[error("the broker was closed")]
    Closed,
}

/// A stream: which subjects it keeps and how much of them. All streams refuse what is beyond their limits (discard
/// new); none drops by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name, `[A-Za-z0-9_-]+`, for instance `REALM_a_MAIL`.
    pub name: String,
    /// The subjects it keeps. Filters of different streams may not overlap. Each begins with the same two tokens, for
    /// instance `realm.a`; what begins with these and `live` belongs to the broker, which may announce there what it has
    /// stored.
    pub filters: Vec<Filter>,
    /// Most entries on one subject; `None` is without a limit.
    pub entries_per_subject_max: Option<u64>,
}

/// Why a broker or a stream could not be opened. Nothing was changed or overwritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The broker cannot be reached, or another process holds its file; try again.
    #[error("{0}")]
    Unreachable(String),
    /// It is there with other settings than those asked for.
    #[error("stream {name} exists with other settings: {difference}")]
    Differs {
        /// The stream.
        name: String,
        /// What differs, for people.
        difference: String,
    },
    /// What is there is damaged.
    #[error("{0}")]
    Damaged(String),
    /// What is there was written by a newer version.
    #[error("{0}")]
    Newer(String),
    /// The request makes no sense: a bad name, overlapping filters, an unknown scheme.
    #[error("{0}")]
    Invalid(String),
}

/// Entries as they come. See [`crate::Broker::tail`].
pub struct Tail(Box<dyn TailSource>);

/// What an implementation gives behind a [`Tail`].
#[async_trait::async_trait]
pub trait TailSource: Send {
    /// See [`Tail::next_batch`].
    async fn next_batch(&mut self, limit: ReadLimit) -> Result<Vec<Arc<Entry>>, ReadError>;
}

impl Tail {
    /// Wraps an implementation's own.
    pub fn new(source: impl TailSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Waits until there is something and returns what there is, within `limit` (at least one entry).
    ///
    /// Cancel-safe: an entry is either returned or still to come.
    pub async fn next_batch(&mut self, limit: ReadLimit) -> Result<Vec<Arc<Entry>>, ReadError> {
        self.0.next_batch(limit).await
    }
}
