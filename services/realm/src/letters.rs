//! What operators do with dead letters: list them, look at them, give them up; and what became of each.
//!
//! Owns: the marks that say what became of a letter. Must not know: how one is delivered after all (`redrive`).

use std::time::Duration;

use antar_broker::{
    Append, AppendError, EntryId, Expect, Filter, KvError, ReadFrom, ReadLimit, Revision, Seq,
};
use data_encoding::BASE64;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::admin::{AdminReply, LetterInfo, LetterState, LettersWanted};
use crate::clock::{now_rfc3339, rfc3339};
use crate::dead::Claim;
use crate::event::RealmEvent;
use crate::letter::Letter;
use crate::places::DEAD;
use crate::shared::Shared;

/// Most letters in one reply: with the longest reason and ids each it stays far below the 1 MiB that a reply may have.
const LIST_PAGE: usize = 200;
/// How many letters are read at a time, and how many bytes of them one request looks at before it says that there are more.
const READ_PAGE: ReadLimit = ReadLimit { entries_max: LIST_PAGE, bytes_max: 4 * 1024 * 1024 };
const LIST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many ids of a letter's envelopes are shown in a list.
const IDS_SHOWN: usize = 4;
/// Bytes of a body in one reply.
const PART_BYTES: usize = 256 * 1024;
/// Longest name of an operator.
const BY_BYTES_MAX: usize = 128;
/// A mark is kept so much longer than its letter.
const MARK_BEYOND: Duration = Duration::from_secs(24 * 3600);
/// Longest time that a mark is kept: what brokers can count.
const MARK_AGE_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// How often a mark is tried that somebody else's came before.
const MARK_TRIES: u32 = 8;

/// What became of a letter, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) state: LetterState,
    by: String,
    /// RFC 3339, UTC.
    at: String,
}

impl Mark {
    /// Whether it was put there so long ago, by the clocks of this edge and of the one that has put it there.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        let put: Option<jiff::Timestamp> = self.at.parse().ok();
        put.is_none_or(|put| jiff::Timestamp::now().duration_since(put).unsigned_abs() > age)
    }
}

pub(crate) fn refused(code: &str, message: impl Into<String>) -> AdminReply {
    AdminReply::Refused { code: code.into(), message: message.into() }
}

impl From<AppendError> for AdminReply {
    fn from(error: AppendError) -> Self {
        Self::Unavailable { message: error.to_string() }
    }
}

impl Shared {
    /// A page of dead letters.
    pub(crate) async fn letters(&self, wanted: LettersWanted) -> Result<AdminReply, AdminReply> {
        let limit = wanted.limit.clamp(1, LIST_PAGE);
        let subject = Filter::from(&self.places.dead());
        let mut from = match (wanted.after, wanted.oldest_first) {
            (after, true) => ReadFrom::After(Seq(after.unwrap_or_default())),
            (Some(after), false) => ReadFrom::Before(Seq(after)),
            (None, false) => ReadFrom::End,
        };
        let (mut letters, mut bytes) = (Vec::new(), 0);
        loop {
            let page = self.broker.read(&subject, from, READ_PAGE).await?;
            let all = page.entries.iter().filter_map(Letter::of).filter(|letter| is_wanted(letter, &wanted));
            for info in try_join_all(all.map(|letter| self.info(letter))).await? {
                if !wanted.all_states && !matches!(info.state, LetterState::Open | LetterState::Redriving) {
                    continue;
                }
                if letters.len() == limit {
                    let next = letters.last().map(|last: &LetterInfo| last.letter);
                    return Ok(AdminReply::Letters { letters, next });
                }
                letters.push(info);
            }
            bytes += page.entries.iter().map(|entry| entry.body.len()).sum::<usize>();
            let Some(last) = page.entries.last().map(|entry| entry.seq).filter(|_| page.more) else {
                return Ok(AdminReply::Letters { letters, next: None });
            };
            if bytes > LIST_BYTES_MAX {
                return Ok(AdminReply::Letters { letters, next: Some(last.0) });
            }
            from = if wanted.oldest_first { ReadFrom::After(last) } else { ReadFrom::Before(last) };
        }
    }

    async fn info(&self, letter: Letter) -> Result<LetterInfo, KvError> {
        let mark = self.mark_of(&letter).await?.map(|(mark, _)| mark);
        let state = mark.as_ref().map_or(LetterState::Open, |mark| mark.state);
        let (by, at) = mark.map(|mark| (mark.by, mark.at)).unzip();
        Ok(LetterInfo {
            letter: letter.entry.seq.0,
            time: rfc3339(letter.entry.time),
            code: letter.code.clone(),
            reason: letter.reason.clone(),
            origin: letter.origin.as_ref().map(|(origin, _)| origin.to_string()),
            proven: letter.origin.as_ref().is_some_and(|(_, is_proven)| *is_proven),
            inbox_seq: letter.inbox_seq.0,
            ids: ids(&letter).take(IDS_SHOWN).collect(),
            bytes: letter.body.len(),
            lacks: letter.lacks.map(str::to_owned),
            lines: letter.lines,
            state,
            by,
            at,
        })
    }

    /// One letter, with a part of its body.
    pub(crate) async fn show_letter(&self, seq: u64, offset: usize) -> Result<AdminReply, AdminReply> {
        let letter = self.letter(seq).await?;
        let offset = offset.min(letter.body.len());
        let end = offset.saturating_add(PART_BYTES).min(letter.body.len());
        let (part, more) = (BASE64.encode(&letter.body[offset..end]), end < letter.body.len());
        let headers = letter.as_it_came(&self.places.inbox()).headers.clone();
        let info = Box::new(self.info(letter).await?);
        Ok(AdminReply::Letter { info, headers, part, more })
    }

    /// Gives a letter up.
    pub(crate) async fn drop_letter(&self, seq: u64, by: &str) -> Result<AdminReply, AdminReply> {
        let by = operator(by)?;
        let letter = self.letter(seq).await?;
        for _ in 0..MARK_TRIES {
            match self.mark_of(&letter).await?.map(|(mark, _)| mark.state) {
                Some(LetterState::Dropped) => return Ok(AdminReply::Dropped { already: true }),
                Some(LetterState::Redriven) => {
                    return Err(refused("redriven", format!("letter {seq} was redriven, it is delivered")));
                }
                Some(LetterState::Redriving | LetterState::Open) => {
                    let message = format!("somebody has begun to redrive letter {seq}: redrive it first");
                    return Err(refused("redriving", message));
                }
                None => {}
            }
            match self.put_mark(&letter, LetterState::Dropped, by, Expect::Absent).await {
                Ok(_) => {}
                Err(KvError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            }
            tracing::info!(realm = %self.places.realm(), letter = seq, by, "an operator gave a dead letter up");
            let key = format!("dead/{}/dropped", letter.key());
            let event = RealmEvent::DeadDropped { letter: seq, code: letter.code, by: by.to_owned() };
            self.record_once(&key, event).await?;
            return Ok(AdminReply::Dropped { already: false });
        }
        Err(AdminReply::Unavailable { message: format!("letter {seq} is changed by others all the time") })
    }

    /// The letter with this sequence.
    pub(crate) async fn letter(&self, seq: u64) -> Result<Letter, AdminReply> {
        let from = ReadFrom::After(Seq(seq.saturating_sub(1)));
        let page = self.broker.read(&Filter::from(&self.places.dead()), from, ReadLimit::entries(1)).await?;
        let letter = page.entries.first().filter(|entry| entry.seq.0 == seq).and_then(Letter::of);
        letter.ok_or_else(|| refused("no-such-letter", format!("there is no dead letter {seq}")))
    }

    /// What became of a letter so far, with what a compare-and-set needs.
    pub(crate) async fn mark_of(&self, letter: &Letter) -> Result<Option<(Mark, Revision)>, KvError> {
        let kept = self.broker.kv_get(&self.places.bucket(DEAD), &letter.key()).await?;
        let read = |entry: antar_broker::KvEntry| match serde_json::from_slice(&entry.value) {
            Ok(mark) => Ok((mark, entry.revision)),
            Err(error) => {
                Err(KvError::Unavailable(format!("the mark of letter {}: {error}", letter.entry.seq)))
            }
        };
        kept.map(read).transpose()
    }

    /// Says what became of a letter. The mark goes by itself, after the letter.
    pub(crate) async fn put_mark(
        &self,
        letter: &Letter,
        state: LetterState,
        by: &str,
        expect: Expect,
    ) -> Result<Revision, KvError> {
        let mark = Mark { state, by: by.to_owned(), at: now_rfc3339() };
        let bytes = serde_json::to_vec(&mark).expect("a mark has nothing in it that can fail");
        let age = self.config.retention.saturating_add(MARK_BEYOND).min(MARK_AGE_MAX);
        let bucket = self.places.bucket(DEAD);
        self.broker.kv_put(&bucket, &letter.key(), bytes.into(), expect, Some(age)).await
    }

    /// Takes a mark back.
    pub(crate) async fn remove_mark(&self, letter: &Letter, revision: Revision) -> Result<(), KvError> {
        let bucket = self.places.bucket(DEAD);
        self.broker.kv_delete(&bucket, &letter.key(), Expect::Revision(revision)).await
    }

    /// Notes an event and waits until it is stored; `key` makes it idempotent. A full log of events is no reason to stop.
    pub(crate) async fn record_once(&self, key: &str, event: RealmEvent) -> Result<(), AppendError> {
        let id =
            EntryId::new(key).ok_or_else(|| AppendError::Refused("the key of an event is no id".into()))?;
        let body = serde_json::to_vec(&event).expect("an event has nothing in it that can fail");
        match self.broker.append(Append::new(self.places.event(), id, body)).await?.await {
            Err(AppendError::Full(subject)) => {
                tracing::warn!(%subject, "an event was not recorded: there is no room for it");
                Ok(())
            }
            stored => stored.map(drop),
        }
    }
}

/// The ids of the envelopes that are meant, as far as they can be read.
pub(crate) fn ids(letter: &Letter) -> impl Iterator<Item = String> {
    let envelopes = letter.envelopes().into_iter();
    envelopes.filter_map(|(_, body)| Claim::of(&body)).map(|claim| claim.id.to_string())
}

fn is_wanted(letter: &Letter, wanted: &LettersWanted) -> bool {
    let origin = letter.origin.as_ref().map(|(origin, _)| origin.as_str());
    wanted.code.as_ref().is_none_or(|code| *code == letter.code)
        && wanted.origin.as_deref().is_none_or(|wanted| origin == Some(wanted))
}

/// The name of an operator, if it is one that can be kept.
pub(crate) fn operator(by: &str) -> Result<&str, AdminReply> {
    let is_sane = !by.is_empty() && by.len() <= BY_BYTES_MAX && !by.chars().any(char::is_control);
    let why = || format!("the name of who does it has 1 to {BY_BYTES_MAX} bytes and no control characters");
    is_sane.then_some(by).ok_or_else(|| refused("bad-request", why()))
}
