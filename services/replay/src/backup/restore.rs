//! Makes a realm out of a backup.
//!
//! Owns: the order of the work. A mark is set first, and taken away last; a realm that has it does not start. Between them
//! entries are appended, compared with the file, and then, when it is known where positions have gone, keys and
//! queues are written and compared. Whatever breaks off leaves a beginning, and the same work goes on behind that.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use antar_broker::{
    Append, AppendError, Expect, KvError, LeaseError, OpenError, PendingAppend, ReadError, ReadLimit, Seq,
    SharedBroker, StreamSpec, Subject, Timestamp,
};
use antar_realm::restored::Restored;
use antar_realm::snapshot::{
    CURSORS, FILE_PARTS, FILES, KEY_SETTING, PEERS, Restoring, SETTINGS, STREAMS, Snapshot, StartRestoring,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::check::Contents;
use super::compare::{Positions, Wanted};
use super::frame::{FileError, Reader};
use super::record::{EntryRecord, KeyRecord, Record};
use super::seen::Seen;
use super::source::Source;

/// Most appends, and bytes of them, that wait for their acknowledgements.
const IN_FLIGHT_MAX: usize = 2_048;
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Keys that are written at once, and bytes of them.
const KEYS_AT_ONCE: usize = 64;
const KEY_BYTES_AT_ONCE: usize = 8 * 1024 * 1024;
/// How long a queue may take to hand out entries that are there.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);
/// The lease of a queue whose position is set, and what is taken at a time.
const QUEUE_LEASE: Duration = Duration::from_secs(30);
const QUEUE_PAGE: ReadLimit = ReadLimit { entries_max: 10_000, bytes_max: 16 * 1024 * 1024 };
/// A key that goes away sooner is not written: it would be gone before anybody asks.
const EXPIRES_AFTER_US: u64 = 1_000_000;

/// What may be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    /// The realm's limit for a box of a mailbox.
    pub mailbox_entries_max: u64,
    /// The private key is lost: the realm gets another one at its first start, which its peers have to trust.
    pub new_key: bool,
}

/// What was done.
#[derive(Debug)]
pub struct Restoration {
    /// The last one was broken off, and this one went on.
    pub went_on: bool,
    /// Entries that are there; those of one append count each.
    pub entries: u64,
    /// Keys that were written.
    pub keys: u64,
    /// Keys that have gone away by themselves since the backup: sessions, invitations.
    pub expired: u64,
    /// Entries that got another id, for one of theirs was there already.
    pub ids_apart: u64,
}

/// Why a realm was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It is there already. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Its queues have positions of an earlier realm of the same id.
    #[error(
        "positions of an earlier realm are left; on NATS remove them by `nats kv del antar_queues KEY`, for {}",
        .0.join(", ")
    )]
    PositionsLeft(Vec<String>),
    /// The file has changed while it was read, or is not readable.
    #[error(transparent)]
    File(#[from] FileError),
    /// Streams or buckets cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The broker does not take an entry.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The broker does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Likewise.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A queue's position cannot be set.
    #[error(transparent)]
    Queue(#[from] LeaseError),
    /// What is there is not what the file says.
    #[error("what was restored is not as it is in the file: {0}")]
    Differs(String),
}

impl From<StartRestoring> for RestoreError {
    fn from(error: StartRestoring) -> Self {
        match error {
            StartRestoring::Open(error) => Self::Open(error),
            StartRestoring::Kv(KvError::Conflict) => {
                Self::Refused("somebody else is restoring this realm at the moment".into())
            }
            StartRestoring::Kv(error) => Self::Kv(error),
        }
    }
}

impl RestoreError {
    /// Whether a realm that does not start may have been left behind.
    pub fn leaves_a_part(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Makes the realm of a backup that was [checked](super::check()). Nobody may serve it meanwhile.
pub async fn restore(
    broker: &SharedBroker,
    path: &Path,
    contents: &Contents,
    options: Options,
) -> Result<Restoration, RestoreError> {
    let snapshot = Snapshot::new(contents.realm.clone());
    if contents.fullest_box > options.mailbox_entries_max {
        let needed = contents.fullest_box;
        return Err(RestoreError::Refused(format!(
            "a box of a mailbox has {needed} entries: restore it with limits.mailbox_entries_max of {needed} or more"
        )));
    }
    let (mark, went_on) = begin(broker, &snapshot, contents).await?;
    let restored = Restored { epoch: mark.at };
    let streams = snapshot.streams(options.mailbox_entries_max);
    let of_files = [FILES, FILE_PARTS].into_iter().filter_map(|name| snapshot.bucket(name));
    for bucket in snapshot.buckets().into_iter().map(|(_, bucket)| bucket).chain(of_files) {
        broker.open_bucket(&bucket).await?;
    }
    for spec in &streams {
        broker.open_stream(spec).await?;
    }
    let mut work = Work { broker, snapshot, path, contents, options, restored, streams, ids_apart: 0 };
    work.no_positions_are_left(&HashMap::new(), went_on).await?;
    work.append_all(went_on).await?;
    let positions = work.compare_all().await?;
    let (written, expired) = work.write_keys(&positions).await?;
    work.set_queues(&positions).await?;
    work.compare_keys(&written).await?;
    work.snapshot.unmark(broker).await?;
    let (entries, keys) = (contents.end.entries_total(), written.len() as u64);
    Ok(Restoration { went_on, entries, keys, expired, ids_apart: work.ids_apart })
}

/// Sets the mark, if there is nothing of the realm; or finds it there for the same file.
async fn begin(
    broker: &SharedBroker,
    snapshot: &Snapshot,
    contents: &Contents,
) -> Result<(Restoring, bool), RestoreError> {
    let realm = snapshot.realm();
    if let Some(mark) = snapshot.restoring(broker).await? {
        if mark.file == contents.digest {
            return Ok((mark, true));
        }
        return Err(RestoreError::Refused(format!(
            "restoring {realm} from another file was broken off: go on with that file, or remove what there is of the realm"
        )));
    }
    let found = snapshot.found(broker).await?;
    if !found.is_empty() {
        let found = found.join(", ");
        return Err(RestoreError::Refused(format!(
            "{realm} has something already, and is left alone: {found}"
        )));
    }
    // Larger than every epoch before, whatever the clock says.
    let newest = contents.epochs.values().max().copied().unwrap_or(0);
    let at = Timestamp::now().0.max(newest + 1);
    let mark = Restoring { file: contents.digest.clone(), at };
    snapshot.mark(broker, &mark).await?;
    Ok((mark, false))
}

struct Work<'a> {
    broker: &'a SharedBroker,
    snapshot: Snapshot,
    path: &'a Path,
    contents: &'a Contents,
    options: Options,
    restored: Restored,
    streams: [StreamSpec; 3],
    ids_apart: u64,
}

/// The keys that were written: bucket and key, and the value with when it goes away; of a part of a file its SHA-256.
type Written = HashMap<(String, String), (Bytes, Option<u64>)>;

impl Work<'_> {
    fn spec(&self, stream: &str) -> Result<&StreamSpec, RestoreError> {
        let at = STREAMS.iter().position(|name| *name == stream);
        at.map(|at| &self.streams[at]).ok_or_else(|| RestoreError::Differs(format!("no stream {stream}")))
    }

    fn wanted(&self, record: EntryRecord) -> Result<Wanted, RestoreError> {
        Wanted::of(record, self.restored, self.contents).map_err(|why| RestoreError::Differs(why.into()))
    }

    /// Appends all entries, in their order. What a restoring before has left is compared and passed over.
    async fn append_all(&mut self, went_on: bool) -> Result<(), RestoreError> {
        let (mut reader, _) = Reader::open(self.path)?;
        let (mut stream, mut there, mut seen) = (String::new(), None, Seen::new());
        let mut flight = Flight::default();
        while let Some(record) = reader.next()? {
            let Record::Entry(record) = record else { continue };
            if record.stream != stream {
                flight.land_all().await?;
                stream.clone_from(&record.stream);
                seen = Seen::new();
                let spec = self.spec(&stream)?.clone();
                there = went_on.then(|| Source::new(self.broker, &spec, Seq(u64::MAX)));
            }
            let wanted = self.wanted(record)?;
            let known = match &mut there {
                Some(source) => known(source, &wanted).await?,
                None => 0,
            };
            if known < wanted.at.len() {
                there = None;
            }
            self.append(wanted, known, &mut seen, &mut flight).await?;
        }
        flight.land_all().await
    }

    /// Appends an entry to all its subjects but the first `known`, which have it.
    async fn append(
        &mut self,
        wanted: Wanted,
        known: usize,
        seen: &mut Seen,
        flight: &mut Flight,
    ) -> Result<(), RestoreError> {
        let was_there = seen.insert(wanted.id.as_str()) || known > 0;
        let Wanted { at, id, id_apart, headers, body } = wanted;
        let subjects: Vec<Subject> = at.into_iter().skip(known).map(|(subject, _)| subject).collect();
        if subjects.is_empty() {
            return Ok(());
        }
        let append = |id| Append {
            subjects: subjects.clone(),
            id,
            headers: headers.clone(),
            body: body.clone(),
            expect_last: None,
            copies: 0,
            is_fresh: false,
        };
        if !was_there {
            let bytes = body.len();
            return flight.start(self.broker.append(append(id)).await?, bytes).await;
        }
        // Perhaps another entry has this id: then only its acknowledgement tells, and nothing may be behind it yet.
        flight.land_all().await?;
        let is_there = known > 0 || land(self.broker.append(append(id)).await?).await?;
        if is_there {
            self.ids_apart += 1;
            land(self.broker.append(append(id_apart)).await?).await?;
        }
        Ok(())
    }

    /// Reads everything back. Whatever was there before the restoring, or came beside it, is a difference.
    async fn compare_all(&self) -> Result<Positions<'_>, RestoreError> {
        let mut positions = Positions::new(self.contents);
        let (mut reader, _) = Reader::open(self.path)?;
        let mut sources: HashMap<&str, Source<'_>> = HashMap::new();
        for (name, spec) in STREAMS.iter().zip(&self.streams) {
            sources.insert(name, Source::new(self.broker, spec, Seq(u64::MAX)));
        }
        while let Some(record) = reader.next()? {
            let Record::Entry(record) = record else { continue };
            let (stream, first) = (record.stream.clone(), record.at.first().map_or(0, |(_, seq)| *seq));
            let differs = |what: &str| RestoreError::Differs(format!("{what} {stream} {first}"));
            let source = sources.get_mut(&*stream).ok_or_else(|| differs("there is no stream for"))?;
            let wanted = self.wanted(record)?;
            for (at, (subject, before)) in wanted.at.iter().enumerate() {
                let Some(entry) = source.next().await? else { return Err(differs("it lacks")) };
                if !wanted.is(at, &entry) {
                    return Err(differs("it has something else instead of"));
                }
                positions.moved(&stream, subject, *before, entry.seq);
            }
        }
        for (name, mut source) in sources {
            if let Some(entry) = source.next().await? {
                return Err(RestoreError::Differs(format!("{name} has an entry more, at {}", entry.seq)));
            }
        }
        if reader.digest() != self.contents.digest {
            return Err(RestoreError::Differs("the file has changed since it was checked".into()));
        }
        Ok(positions)
    }

    /// Writes all keys, as they are now: how many had gone away by themselves.
    async fn write_keys(&self, positions: &Positions<'_>) -> Result<(Written, u64), RestoreError> {
        let (mut reader, _) = Reader::open(self.path)?;
        let (mut written, mut expired, mut round, mut bytes) = (Written::new(), 0, Vec::new(), 0);
        loop {
            let record = reader.next()?;
            let is_over = matches!(record, None | Some(Record::Queue(_) | Record::Entry(_) | Record::End(_)));
            if let Some(Record::Key(record)) = record {
                let now = Timestamp::now().0;
                if record.expires.is_some_and(|expires| expires < now + EXPIRES_AFTER_US) {
                    expired += 1;
                } else if !(self.options.new_key && record.bucket == SETTINGS && record.key == KEY_SETTING) {
                    bytes += record.value.text_bytes();
                    round.push(record);
                }
            }
            if round.len() == KEYS_AT_ONCE || bytes >= KEY_BYTES_AT_ONCE || is_over {
                bytes = 0;
                let writes = round.drain(..).map(|record| self.write_key(record, positions));
                written.extend(futures_util::future::try_join_all(writes).await?);
            }
            if is_over {
                return Ok((written, expired));
            }
        }
    }

    async fn write_key(
        &self,
        record: KeyRecord,
        positions: &Positions<'_>,
    ) -> Result<((String, String), (Bytes, Option<u64>)), RestoreError> {
        let KeyRecord { bucket: name, key, value, expires } = record;
        let differs = |why: &str| RestoreError::Differs(format!("{why}: {name} {key}"));
        let bucket = self.snapshot.bucket(&name).ok_or_else(|| differs("no such bucket"))?;
        let mut value = value.bytes().ok_or_else(|| differs("a value is not readable"))?;
        if name == CURSORS {
            let subject = self.snapshot.cursor_subject(&key).ok_or_else(|| differs("a cursor of no box"))?;
            let before = serde_json::from_slice(&value).map_err(|_| differs("a cursor is no number"))?;
            value = Bytes::from(positions.cursor(&subject, Seq(before)).0.to_string());
        }
        if name == PEERS {
            let peer = self.restored.peer(&value, positions.inbox_upto);
            value = peer.map_err(|_| differs("a peer is not readable"))?;
        }
        if name == FILES {
            value = self.restored.file(&value);
        }
        let left = expires.map(|expires| expires.saturating_sub(Timestamp::now().0));
        let ttl = left.map(|left| Duration::from_micros(left.max(EXPIRES_AFTER_US)));
        self.broker.kv_put(&bucket, &key, value.clone(), Expect::Any, ttl).await?;
        let kept = if name == FILE_PARTS { sum(&value) } else { value };
        Ok(((name, key), (kept, expires)))
    }

    /// That no queue stands behind where it is to be. On NATS positions outlive streams that were removed by hand; a
    /// restoring that went on may have set its own.
    async fn no_positions_are_left(
        &self,
        wanted: &HashMap<Subject, Seq>,
        went_on: bool,
    ) -> Result<(), RestoreError> {
        let mut left = Vec::new();
        for subject in self.contents.queues.keys().filter(|_| !went_on) {
            let Some(name) = self.snapshot.queue_over(subject) else { continue };
            let upto = wanted.get(subject).copied().unwrap_or(Seq::ZERO);
            if self.broker.queue_state(&name).await?.is_some_and(|state| state.acked > upto) {
                left.push(name.as_str().to_owned());
            }
        }
        left.sort();
        if left.is_empty() { Ok(()) } else { Err(RestoreError::PositionsLeft(left)) }
    }

    /// Moves every queue to where it was.
    async fn set_queues(&self, positions: &Positions<'_>) -> Result<(), RestoreError> {
        self.no_positions_are_left(&positions.queues, false).await?;
        for (subject, upto) in &positions.queues {
            let Some(name) = self.snapshot.queue_over(subject) else { continue };
            let queue = self.broker.queue(&name, subject, QUEUE_LEASE).await?;
            let silent = || ReadError::Unavailable(format!("queue {} hands nothing out", name.as_str()));
            loop {
                let acked = self.broker.queue_state(&name).await?.map_or(Seq::ZERO, |state| state.acked);
                if acked >= *upto {
                    break;
                }
                let lease = tokio::time::timeout(QUEUE_TIMEOUT, queue.next(QUEUE_PAGE)).await;
                let lease = lease.map_err(|_| silent())??;
                let last = lease.entries.last().map_or(Seq::ZERO, |entry| entry.seq);
                queue.ack(&lease, last.min(*upto)).await?;
            }
        }
        Ok(())
    }

    /// Reads all keys back.
    async fn compare_keys(&self, written: &Written) -> Result<(), RestoreError> {
        let mut found = 0;
        let files = self.snapshot.bucket(FILES).map(|bucket| (FILES.to_owned(), bucket));
        for (name, bucket) in self.snapshot.buckets().into_iter().chain(files) {
            for entry in self.snapshot.kept_in(self.broker, &bucket).await? {
                if self.snapshot.is_mark(&name, &entry.key) {
                    continue;
                }
                let known = written.get(&(name.clone(), entry.key.clone()));
                if known.is_none_or(|(value, _)| *value != entry.value) {
                    return Err(RestoreError::Differs(format!("bucket {name} has another {}", entry.key)));
                }
                found += 1;
            }
        }
        let now = Timestamp::now().0;
        let soon = now + 60 * EXPIRES_AFTER_US;
        let (parts, others): (Vec<_>, Vec<_>) = written.iter().partition(|((name, _), _)| name == FILE_PARTS);
        for ((name, key), (wanted, _)) in parts {
            let bucket = self.snapshot.bucket(name).expect("a bucket of every realm");
            let there = self.broker.kv_get(&bucket, key).await?;
            if there.is_none_or(|entry| sum(&entry.value) != *wanted) {
                return Err(RestoreError::Differs(format!("bucket {name} has another {key}")));
            }
        }
        let stays = others.iter().filter(|(_, (_, expires))| expires.is_none_or(|at| at > soon)).count();
        if found < stays {
            return Err(RestoreError::Differs(format!("{found} of at least {stays} keys are there")));
        }
        Ok(())
    }
}

/// What is remembered of a value that is too large to be.
fn sum(value: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(value))
}

/// How many of an entry's subjects have it, in what is left of a restoring that was broken off.
async fn known(source: &mut Source<'_>, wanted: &Wanted) -> Result<usize, RestoreError> {
    for at in 0..wanted.at.len() {
        match source.next().await? {
            Some(entry) if wanted.is(at, &entry) => {}
            Some(entry) => {
                let (subject, seq) = (&entry.subject, entry.seq);
                return Err(RestoreError::Differs(format!(
                    "what was left of the last time, {subject} {seq}, is not in the file: remove what there is of the realm"
                )));
            }
            None => return Ok(at),
        }
    }
    Ok(wanted.at.len())
}

/// Appends that wait for their acknowledgements, in order.
#[derive(Default)]
struct Flight {
    pending: VecDeque<(PendingAppend, usize)>,
    bytes: usize,
}

impl Flight {
    async fn start(&mut self, pending: PendingAppend, bytes: usize) -> Result<(), RestoreError> {
        self.pending.push_back((pending, bytes));
        self.bytes += bytes;
        while self.pending.len() > IN_FLIGHT_MAX || self.bytes > IN_FLIGHT_BYTES_MAX {
            self.land_one().await?;
        }
        Ok(())
    }

    async fn land_one(&mut self) -> Result<(), RestoreError> {
        if let Some((pending, bytes)) = self.pending.pop_front() {
            self.bytes -= bytes;
            land(pending).await?;
        }
        Ok(())
    }

    async fn land_all(&mut self) -> Result<(), RestoreError> {
        while !self.pending.is_empty() {
            self.land_one().await?;
        }
        Ok(())
    }
}

/// Waits for an acknowledgement; whether the id was there before.
async fn land(pending: PendingAppend) -> Result<bool, RestoreError> {
    let appended = pending.await?;
    match appended.full.into_iter().next() {
        Some(full) => Err(AppendError::Full(full).into()),
        None => Ok(appended.duplicate),
    }
}
