//! Messages from other realms that bring files: taken over the lane, kept until the bytes are here, and then delivered.
//!
//! Owns: which of them are taken, and that each gets into each mailbox once. Must not know: how bytes are asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use antar_broker::{Expect, KvError, Seq, Timestamp};
use antar_proto::envelope::{Content, Envelope, Outcome};
use antar_proto::file::{FileInfo, is_sha256, safe_name};
use antar_proto::reply::State;
use antar_proto::{ErrorCode, MessageId, RealmId, UserName};
use bytes::Bytes;

use super::{FETCHES_PER_PEER_MAX, FILES_PER_PEER_MAX, FileError, FileRecord, FileState, PART_BYTES_MAX};
use crate::dead::Dead;
use crate::hop::log_hop;
use crate::mailbox::CLOCK_SKEW_US;
use crate::recall::INBOX_HEADER;
use crate::redrive::{Missing, Undone};
use crate::reign::fence;
use crate::shared::Shared;

/// Where the message that brings a file is kept, among the parts.
const MESSAGE: u32 = 0;
/// For so long what came for nothing counts among what a realm may have here.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A message that brings a file.
pub(crate) struct Brought<'a> {
    pub(crate) origin: &'a RealmId,
    pub(crate) id: MessageId,
    pub(crate) from: &'a UserName,
    /// Those who are here and take it.
    pub(crate) to: &'a [UserName],
    pub(crate) file: &'a FileInfo,
    /// Its envelope.
    pub(crate) body: &'a Bytes,
    pub(crate) inbox: Seq,
}

/// What is told of it at once, and why; or why it is put aside.
type Taken = Result<Option<(State, Option<ErrorCode>)>, Dead>;

impl Shared {
    /// Takes a message that brings a file, unless the file is too much: this is known before any of its bytes come. What its
    /// realm is told now: nothing while the bytes are asked for. Whatever is repeated changes nothing.
    pub(crate) async fn take_file(&self, brought: &Brought<'_>) -> Result<Taken, KvError> {
        let Brought { origin, id, file, .. } = *brought;
        let refused = |code| Ok(Some((State::Failed, Some(code))));
        if let Some(why) = flaw(id, file) {
            return Ok(Err(Dead::File(why)));
        }
        let record = FileRecord {
            id,
            owner: brought.from.clone(),
            origin: Some(origin.clone()),
            to: brought.to.to_vec(),
            elsewhere: Vec::new(),
            under: None,
            group: None,
            name: file.name.clone(),
            size: file.size,
            parts: u32::try_from(file.size.div_ceil(PART_BYTES_MAX)).unwrap_or(u32::MAX),
            claimed: Some(file.sha256.to_ascii_lowercase()),
            state: FileState::Open,
            created: Timestamp::now().0,
            media: None,
            sha256: None,
            fetcher: None,
            inbox: Some(brought.inbox.0),
        };
        let key = record.key();
        if let Some(known) = self.files.records.fresh(&key).await? {
            let same = |of: &FileRecord| (of.owner.clone(), of.name.clone(), of.size, of.claimed.clone());
            return Ok(match known.state {
                _ if same(&known) != same(&record) => Err(Dead::IdReused),
                FileState::Sent => Ok(Some((State::Delivered, None))),
                FileState::Going => refused(ErrorCode::NoSuchFile),
                FileState::Open | FileState::Whole => Ok(None),
            });
        }
        if file.size > self.config.file_bytes_max {
            return Ok(refused(ErrorCode::FileTooLarge));
        }
        if !self.has_room_for(origin, file.size) {
            return Ok(refused(ErrorCode::FileQuota));
        }
        let (parts, body) = (&self.files.parts, brought.body.clone());
        self.broker.kv_put(parts, &record.part_key(MESSAGE), body, Expect::Any, None).await?;
        match self.files.records.put(&key, &record, Expect::Absent, None).await {
            Ok(()) | Err(KvError::Conflict) => {}
            Err(error) => return Err(error),
        }
        tracing::info!(realm = %self.places.realm(), %origin, file = %id, size = file.size, "a file comes from another realm");
        self.files.arrived.notify_one();
        Ok(Ok(None))
    }

    /// Whether one more file of this size is kept for a realm.
    fn has_room_for(&self, origin: &RealmId, size: u64) -> bool {
        let theirs = self.files.records.select(|record| record.origin.as_ref() == Some(origin));
        let open = theirs.iter().filter(|(_, record, _)| record.state != FileState::Sent).count();
        // What came for nothing counts too: else a realm could have us ask for bytes without end.
        let size = size.saturating_add(self.files.given_up.today(origin));
        let bytes = theirs.iter().map(|(_, record, _)| record.size).fold(size, u64::saturating_add);
        theirs.len() < FILES_PER_PEER_MAX
            && open < FETCHES_PER_PEER_MAX
            && bytes <= self.config.peer_file_bytes_max
    }

    /// Delivers the message that brings a file whose bytes are all here, and tells its realm.
    pub(super) async fn deliver_file(
        self: &Arc<Self>,
        record: &FileRecord,
        file: &FileInfo,
    ) -> Result<(), Undelivered> {
        let origin = record.origin.as_ref().ok_or(FileError::NoSuchFile)?;
        // A receiver may have been erased while the bytes came.
        let record = &*self.files.records.get(&record.key()).ok_or(FileError::NoSuchFile)?;
        let Some(mut envelope) = self.message_of(record).await? else {
            return Err(Undelivered::Refused(ErrorCode::NoSuchFile.as_str().into()));
        };
        let Content::Message { from, group, file: brought, .. } = &mut envelope.content else {
            return Err(Undelivered::Refused(ErrorCode::NoSuchFile.as_str().into()));
        };
        // What its sender says it is does not count.
        *brought = Some(file.clone());
        let (from, group) = (from.clone(), *group);
        let (mut users, gone): (Vec<_>, Vec<_>) =
            record.to.iter().cloned().partition(|user| self.takes_from(user, &record.owner, origin.as_str()));
        let body = Bytes::from(envelope.to_bytes());
        let fence = fence(self, self.places.redrive_fence()).await.map_err(Undone::from)?;
        let inbox = record.inbox.map(|inbox| (INBOX_HEADER.to_owned(), inbox.to_string()));
        let missing = Missing {
            origin,
            fence: &fence,
            since: Timestamp(record.created.saturating_sub(CLOCK_SKEW_US)),
            headers: inbox.into_iter().collect(),
            id: record.id,
            from: &from,
            body: &body,
        };
        let full = match users.is_empty() {
            true => Vec::new(),
            false => self.fill_boxes(&missing, &users).await?.into_iter().collect(),
        };
        users.retain(|user| !full.contains(user));
        let delivered = users.len();
        let all = [
            (gone, State::Failed, Some(ErrorCode::NoSuchUser)),
            (full, State::Failed, Some(ErrorCode::MailboxFull)),
            (users, State::Delivered, None),
        ];
        let outcome = |(users, state, reason): (Vec<UserName>, State, Option<ErrorCode>)| {
            let reason = reason.map(|code| code.as_str().to_owned());
            Outcome { id: record.id, sender: record.owner.clone(), users, state, reason, group }
        };
        let results = all.into_iter().filter(|(users, ..)| !users.is_empty()).map(outcome).collect();
        self.tell_of_file(record, origin, results).await?;
        if delivered == 0 {
            self.files.given_up.note(origin, record.size);
            return Ok(self.files.remove(&record.key()).await?);
        }
        log_hop(self.places.realm(), "delivered", Seq(record.inbox.unwrap_or_default()), &body);
        self.counts.delivered(origin, delivered);
        let (media, sha256) = (Some(file.media.clone()), Some(file.sha256.clone()));
        let sent = FileRecord { state: FileState::Sent, media, sha256, fetcher: None, ..record.clone() };
        Ok(self.files.replace(&sent).await?)
    }

    /// Gives a file up that will not come, and tells its realm why.
    pub(super) async fn give_up_file(
        self: &Arc<Self>,
        record: &FileRecord,
        reason: &str,
    ) -> Result<(), Undelivered> {
        let origin = record.origin.as_ref().ok_or(FileError::NoSuchFile)?;
        tracing::warn!(realm = %self.places.realm(), %origin, file = %record.id, reason, "a file from another realm is given up");
        let group = self
            .message_of(record)
            .await?
            .is_some_and(|envelope| matches!(envelope.content, Content::Message { group, .. } if group));
        let outcome = Outcome {
            id: record.id,
            sender: record.owner.clone(),
            users: record.to.clone(),
            state: State::Failed,
            reason: Some(reason.to_owned()),
            group,
        };
        self.tell_of_file(record, origin, vec![outcome]).await?;
        self.files.given_up.note(origin, record.size);
        Ok(self.files.remove(&record.key()).await?)
    }

    /// The message that brings a file, as it came.
    async fn message_of(&self, record: &FileRecord) -> Result<Option<Envelope>, FileError> {
        let body = self.files.part(record, MESSAGE).await?;
        Ok(body.and_then(|body| Envelope::from_bytes(&body).ok()))
    }

    async fn tell_of_file(
        &self,
        record: &FileRecord,
        origin: &RealmId,
        results: Vec<Outcome>,
    ) -> Result<(), Undelivered> {
        let key = format!("receipt/{origin}/file-{}", record.id.0.simple());
        let pending = self.append_receipt(origin, results, &key).await.map_err(Undone::from)?;
        self.finish_news(pending.await).await.map_err(|error| Undone::from(error).into())
    }
}

/// Bytes of files that were given up, of each realm, in the last day of 24 hours that has begun with one; as far as this edge has
/// given them up.
#[derive(Debug, Default)]
pub(super) struct GivenUp(Mutex<HashMap<RealmId, (Instant, u64)>>);

impl GivenUp {
    fn note(&self, origin: &RealmId, bytes: u64) {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        let now = Instant::now();
        let (since, sum) = all.entry(origin.clone()).or_insert((now, 0));
        if now.duration_since(*since) >= DAY {
            (*since, *sum) = (now, 0);
        }
        *sum = sum.saturating_add(bytes);
    }

    fn today(&self, origin: &RealmId) -> u64 {
        let all = self.0.lock().expect("no holder of this lock panics");
        all.get(origin).filter(|(since, _)| since.elapsed() < DAY).map_or(0, |(_, sum)| *sum)
    }
}

/// Why a message that brings a file is not in the mailboxes.
#[derive(Debug)]
pub(super) enum Undelivered {
    /// It never will be: the code.
    Refused(String),
    /// It is to be tried again.
    Later(String),
}

impl From<Undone> for Undelivered {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Refused(code, _) => Self::Refused(code),
            Undone::Fenced => Self::Later("something else is delivered at the same time".into()),
            Undone::Unavailable(why) => Self::Later(why),
        }
    }
}

impl From<FileError> for Undelivered {
    fn from(error: FileError) -> Self {
        Self::Later(error.to_string())
    }
}

/// What makes this no file that a message of this id could bring.
fn flaw(id: MessageId, file: &FileInfo) -> Option<String> {
    let media = |text: &str| text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
    let why = if file.id != id {
        "its file has another id"
    } else if file.name != safe_name(&file.name) {
        "the name of its file is not safe"
    } else if file.size == 0 {
        "its file is empty"
    } else if !is_sha256(&file.sha256) {
        "its file has no SHA-256"
    } else if !media(&file.media) {
        "the type of its file is none"
    } else {
        return None;
    };
    Some(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_realm_of_ours_would_send_is_no_file() {
        let id = MessageId::fresh();
        let good = FileInfo {
            id,
            name: "foto \u{2603}.png".into(),
            media: "image/png".into(),
            size: 7,
            sha256: "ab".repeat(32),
        };
        assert_eq!(flaw(id, &good), None);
        let with = |change: fn(&mut FileInfo)| {
            let mut file = good.clone();
            change(&mut file);
            flaw(id, &file)
        };
        assert!(with(|file| file.id = MessageId::fresh()).is_some());
        assert!(with(|file| file.name = "../x".into()).is_some());
        assert!(with(|file| file.name = "a\u{202e}gnp.exe".into()).is_some());
        assert!(with(|file| file.size = 0).is_some());
        assert!(with(|file| file.sha256 = "../../x".into()).is_some());
        assert!(with(|file| file.media = "text/html\r\nSet-Cookie: x".into()).is_some());
    }
}
