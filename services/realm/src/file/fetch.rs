//! Getting the bytes of files from other realms, beside the lane: text goes on meanwhile, and an outage only takes time.
//!
//! Each part is kept as it comes, so whoever goes on after a crash, or on another edge, begins where the other has stopped.
//! Of the edges one at a time works on a file: it says so in the record, again and again; one whose word grows old is
//! taken to be gone. If two should work on one, they write the same, and each message is delivered under a fence.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antar_broker::{Expect, KvError, Revision, Timestamp};
use antar_proto::file::{FileInfo, Part};
use antar_proto::{ErrorCode, RealmId};
use tokio::task::JoinSet;

use super::arrive::Undelivered;
use super::ask::AskError;
use super::{FileError, FileRecord, FileState};
use crate::clock::backoff;
use crate::hop::edge;
use crate::shared::Shared;

/// Parts that are on their way at once, of one file. So text between the same realms is not held up for long.
const WINDOW: u32 = 2;
/// Files of one realm that are on their way at once: a small one need not wait for a large one.
const FILES_AT_ONCE: usize = 2;
/// How often it is looked which files are to come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often an edge says that it works on a file, and after which time without a word it is taken to be gone.
const BEAT: Duration = Duration::from_secs(1);
const GONE_AFTER: Duration = Duration::from_secs(5);
/// Shortest and longest pause after a failure.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// What is known of a file that is to come.
struct Pending {
    /// The last word of whoever works on it, and since when it is known.
    word: (Revision, Instant),
    failures: u32,
    not_before: Instant,
    is_here: bool,
}

/// Gets files until the realm stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pending: HashMap<String, Pending> = HashMap::new();
    let mut working = JoinSet::new();
    loop {
        shared.wait_unpaused().await;
        for (key, _) in shared.due(&mut pending) {
            let shared = shared.clone();
            working.spawn(async move {
                let got = Box::pin(shared.fetch(&key)).await;
                (key, got)
            });
        }
        // Cancel-safe: whatever is left is found at the next look.
        tokio::select! {
            () = shared.files.arrived.notified() => {}
            Some(done) = working.join_next() => {
                let Ok((key, got)) = done else { continue };
                let Some(file) = pending.get_mut(&key) else { continue };
                file.is_here = false;
                match got {
                    Ok(()) => file.failures = 0,
                    Err(why) => {
                        tracing::debug!(realm = %shared.places.realm(), file = key, why, "a file from another realm waits");
                        file.not_before =
                            Instant::now() + backoff(file.failures, RETRY_DELAY_MIN, RETRY_DELAY_MAX);
                        file.failures = file.failures.saturating_add(1);
                    }
                }
            }
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

impl FileRecord {
    /// Of another realm, and not delivered yet.
    fn is_to_come(&self) -> bool {
        self.origin.is_some() && matches!(self.state, FileState::Open | FileState::Whole)
    }
}

impl Shared {
    /// The files that are to be worked on here from now on, the oldest first.
    fn due(&self, pending: &mut HashMap<String, Pending>) -> Vec<(String, Arc<FileRecord>)> {
        let now = Instant::now();
        let mut files = self.files.records.select(FileRecord::is_to_come);
        files.sort_by_key(|(_, record, _)| record.created);
        pending.retain(|key, file| file.is_here || files.iter().any(|(known, ..)| known == key));
        let mut at_once: HashMap<RealmId, usize> = HashMap::new();
        let mut due = Vec::new();
        for (key, record, revision) in files {
            let Some(origin) = record.origin.clone() else { continue };
            let file = pending.entry(key.clone()).or_insert(Pending {
                word: (revision, now),
                failures: 0,
                not_before: now,
                is_here: false,
            });
            if file.word.0 != revision {
                file.word = (revision, now);
            }
            let at_once = at_once.entry(origin).or_default();
            let is_free = record.fetcher.as_ref().is_none_or(|by| *by == edge())
                || now.duration_since(file.word.1) >= GONE_AFTER;
            if file.is_here {
                *at_once += 1;
            } else if is_free && file.not_before <= now && *at_once < FILES_AT_ONCE {
                *at_once += 1;
                file.is_here = true;
                due.push((key, record));
            }
        }
        due
    }

    /// Gets what is missing of a file, and delivers the message that brings it. An error is tried again later.
    async fn fetch(self: &Arc<Self>, key: &str) -> Result<(), String> {
        let Some(record) = self.claim(key, true).await? else { return Ok(()) };
        let Some(origin) = record.origin.clone() else { return Ok(()) };
        let age = Duration::from_micros(Timestamp::now().0.saturating_sub(record.created));
        let why = if record.to.is_empty() {
            Some(ErrorCode::NoSuchUser)
        } else if self.peers.copy.get(origin.as_str()).is_none_or(|peer| peer.blocked) {
            Some(ErrorCode::RealmBlocked)
        } else if age > self.config.retention {
            Some(ErrorCode::NoSuchFile)
        } else {
            None
        };
        if let Some(why) = why {
            return self.give_up(&record, why.as_str()).await;
        }
        if record.info().is_none() {
            match self.fetch_parts(key, &record, &origin).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(AskError::Gone) => return self.give_up(&record, ErrorCode::NoSuchFile.as_str()).await,
                Err(AskError::Later(why)) => return Err(why),
            }
        }
        let file: FileInfo = match self.complete(&record, None).await {
            Ok(file) => file,
            Err(FileError::Mismatch(_)) => {
                return self.give_up(&record, ErrorCode::FileMismatch.as_str()).await;
            }
            Err(error) => return Err(error.to_string()),
        };
        match self.deliver_file(&record, &file).await {
            Ok(()) => Ok(()),
            Err(Undelivered::Refused(code)) => self.give_up(&record, &code).await,
            Err(Undelivered::Later(why)) => Err(why),
        }
    }

    async fn give_up(self: &Arc<Self>, record: &FileRecord, code: &str) -> Result<(), String> {
        match self.give_up_file(record, code).await {
            Ok(()) => Ok(()),
            Err(Undelivered::Refused(why) | Undelivered::Later(why)) => Err(why),
        }
    }

    /// Says that this edge works on a file: `None` if another one does, or it is no longer to come. At the `first` time
    /// whoever has worked on it is taken to be gone.
    async fn claim(&self, key: &str, first: bool) -> Result<Option<Arc<FileRecord>>, String> {
        let Some((record, revision)) = self.files.records.get_with_revision(key) else { return Ok(None) };
        let is_ours = record.fetcher.as_ref().is_some_and(|by| *by == edge());
        if !record.is_to_come() || !(first || is_ours) {
            return Ok(None);
        }
        let claimed = FileRecord { fetcher: Some(edge()), ..(*record).clone() };
        match self.files.records.put(key, &claimed, Expect::Revision(revision), None).await {
            Ok(()) => Ok(Some(Arc::new(claimed))),
            Err(KvError::Conflict) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Gets the parts that are not here; `false` if another edge has taken over.
    async fn fetch_parts(&self, key: &str, record: &FileRecord, origin: &RealmId) -> Result<bool, AskError> {
        let later = |error: String| AskError::Later(error);
        let mut next = self.first_missing(record).await.map_err(|error| later(error.to_string()))?;
        let mut said = Instant::now();
        while next <= record.parts {
            let upto = record.parts.min(next + (WINDOW - 1));
            let parts = (next..=upto).map(|number| self.fetch_part(record, origin, number));
            futures_util::future::try_join_all(parts).await?;
            next = upto + 1;
            if said.elapsed() >= BEAT {
                if self.claim(key, false).await.map_err(later)?.is_none() {
                    return Ok(false);
                }
                said = Instant::now();
            }
            self.wait_unpaused().await;
        }
        Ok(true)
    }

    async fn fetch_part(&self, record: &FileRecord, origin: &RealmId, number: u32) -> Result<(), AskError> {
        let part = Part { number, parts: record.parts, size: record.size };
        let length = part.bytes().ok_or_else(|| AskError::Later("it has no such part".into()))?;
        let each = record.size.div_ceil(u64::from(record.parts));
        let bytes = self.ask_for_bytes(origin, record.id, u64::from(number - 1) * each, length).await?;
        let key = record.part_key(number);
        match self.broker.kv_put(&self.files.parts, &key, bytes, Expect::Absent, None).await {
            // What is there came from the same realm; all of it together has to have the sum.
            Ok(_) | Err(KvError::Conflict) => Ok(()),
            Err(error) => Err(AskError::Later(error.to_string())),
        }
    }

    /// The first part of the first window that is not whole. Windows come one after the other.
    async fn first_missing(&self, record: &FileRecord) -> Result<u32, FileError> {
        let (mut whole, mut open) = (0, record.parts.div_ceil(WINDOW));
        while whole < open {
            let middle = whole + (open - whole) / 2;
            let first = middle * WINDOW + 1;
            let mut is_whole = true;
            for number in first..=record.parts.min(first + (WINDOW - 1)) {
                is_whole = is_whole && self.files.part(record, number).await?.is_some();
            }
            if is_whole { whole = middle + 1 } else { open = middle }
        }
        Ok(whole * WINDOW + 1)
    }
}
