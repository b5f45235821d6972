//! Bytes of files between realms: how one realm asks another for some, and what it is answered. `proto-docs/federation.md` has
//! the format.
//!
//! Owns: that only a realm whose user was sent a file gets bytes of it, and that nobody but the file's own realm can refuse
//! them: question and answer are signed. Must not know: which bytes are wanted when.

use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Request, RequestError};
use antar_proto::{MessageId, RealmId};
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FileError, FileRecord, FileState, PART_BYTES_MAX, key_of};
use crate::card::CardRequest;
use crate::hex::hex;
use crate::places::Places;
use crate::shared::Shared;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// What is signed begins with these words, so that no signature of an envelope is one of a question or an answer.
const ASKED: &str = "antar file asked";
const ANSWERED: &str = "antar file answered";

/// Which bytes are wanted, by whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    from: RealmId,
    to: RealmId,
    file: MessageId,
    offset: u64,
    length: u64,
    /// Over all of these, by the asking realm.
    #[serde(default)]
    signature: String,
}

/// The head of an answer: a line of JSON, and behind it the bytes, if there are some.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<Refusal>,
    /// By the file's realm.
    signature: String,
}

/// Why a realm gets no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Refusal {
    /// There is no such file, or none that it was sent. It will get none.
    NoSuchFile,
    /// Not now.
    #[serde(other)]
    Later,
}

/// Why an asking realm has no bytes.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It will get none.
    #[error("its realm does not have the file")]
    Gone,
    /// Later perhaps.
    #[error("{0}")]
    Later(String),
}

impl From<RequestError> for AskError {
    fn from(error: RequestError) -> Self {
        Self::Later(error.to_string())
    }
}

impl Asked {
    fn signed(&self) -> String {
        let Self { from, to, file, offset, length, .. } = self;
        format!("{ASKED} {from} {to} {file} {offset} {length}")
    }

    /// What the signature of an answer is over.
    fn answered(&self, refused: Option<Refusal>, bytes: &[u8]) -> String {
        let Self { from, to, file, offset, length, .. } = self;
        let what = match refused {
            None => hex(&Sha256::digest(bytes)),
            Some(Refusal::NoSuchFile) => "no-such-file".into(),
            Some(Refusal::Later) => "later".into(),
        };
        format!("{ANSWERED} {to} {from} {file} {offset} {length} {what}")
    }
}

impl Shared {
    /// Asks a realm for bytes of a file of its user.
    pub(super) async fn ask_for_bytes(
        &self,
        realm: &RealmId,
        file: MessageId,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, AskError> {
        let from = self.places.realm().clone();
        let mut asked = Asked { from, to: realm.clone(), file, offset, length, signature: String::new() };
        asked.signature = self.key.sign(asked.signed().as_bytes());
        let later = |why: &str| AskError::Later(why.into());
        let body = serde_json::to_vec(&CardRequest::FileBytes(asked.clone()))
            .map_err(|error| AskError::Later(error.to_string()))?;
        let reply = self.broker.request(&Places::info_of(realm), body.into(), ANSWER_TIME).await?;
        let end = reply.iter().position(|&b| b == b'\n').ok_or_else(|| later("the answer is none"))?;
        let bytes = reply.slice(end + 1..);
        let answer: Answer =
            serde_json::from_slice(&reply[..end]).map_err(|_| later("the answer is not readable"))?;
        let peer = self.peers.copy.get(realm.as_str());
        let key = peer.as_ref().and_then(|peer| peer.key.as_ref());
        let signed = asked.answered(answer.refused, &bytes);
        if !key.is_some_and(|key| key.has_signed(signed.as_bytes(), &answer.signature)) {
            return Err(later("the answer is not signed by the realm that was asked"));
        }
        match answer.refused {
            Some(Refusal::NoSuchFile) => Err(AskError::Gone),
            Some(Refusal::Later) => Err(later("the realm that was asked gives no bytes now")),
            None if bytes.len() as u64 == length => Ok(bytes),
            None => Err(later("the answer has another length")),
        }
    }

    /// Answers a realm that asks for bytes; one that has not signed its question gets no answer.
    pub(crate) fn answer_file(self: &Arc<Self>, request: Request, asked: Asked) {
        let peer = self.peers.copy.get(asked.from.as_str());
        let key = peer.as_ref().and_then(|peer| peer.key.as_ref());
        let is_signed = key.is_some_and(|key| key.has_signed(asked.signed().as_bytes(), &asked.signature));
        if !is_signed || asked.to != *self.places.realm() {
            tracing::warn!(realm = %self.places.realm(), from = %asked.from, file = %asked.file, "bytes of a file are asked for without a proof of who asks");
            return;
        }
        // Whoever gets no answer asks again.
        let Ok(permit) = self.files.answers.clone().try_acquire_owned() else { return };
        let is_closed = self.is_paused() || peer.is_some_and(|peer| peer.blocked);
        let shared = self.clone();
        self.tasks.spawn(async move {
            let given =
                async { if is_closed { Err(Refusal::Later) } else { shared.bytes_for(&asked).await } };
            // Cancel-safe: nothing is changed.
            tokio::select! {
                () = shared.stop.cancelled() => {}
                given = given => request.reply.send(shared.answer(&asked, given)),
            }
            drop(permit);
        });
    }

    fn answer(&self, asked: &Asked, given: Result<Bytes, Refusal>) -> Bytes {
        let (refused, bytes) = match given {
            Ok(bytes) => (None, bytes),
            Err(refusal) => (Some(refusal), Bytes::new()),
        };
        let signature = self.key.sign(asked.answered(refused, &bytes).as_bytes());
        let head = serde_json::to_vec(&Answer { refused, signature })
            .expect("an answer has nothing in it that can fail");
        let mut answer = BytesMut::with_capacity(head.len() + 1 + bytes.len());
        answer.extend_from_slice(&head);
        answer.put_u8(b'\n');
        answer.extend_from_slice(&bytes);
        answer.freeze()
    }

    /// The bytes that a realm asks for, if one of its users was sent the file.
    async fn bytes_for(&self, asked: &Asked) -> Result<Bytes, Refusal> {
        let record = self.files.records.fresh(&key_of(asked.file, None)).await.map_err(|_| Refusal::Later)?;
        let record = record.filter(|record| record.elsewhere.iter().any(|user| user.realm == asked.from));
        let record = record.filter(|record| record.state != FileState::Going).ok_or(Refusal::NoSuchFile)?;
        let end = asked.offset.checked_add(asked.length).filter(|&end| end <= record.size);
        let end = end.filter(|_| (1..=PART_BYTES_MAX).contains(&asked.length)).ok_or(Refusal::NoSuchFile)?;
        if record.info().is_none() {
            return Err(Refusal::Later);
        }
        self.files.range(&record, asked.offset, end).await.map_err(|error| {
            tracing::warn!(realm = %self.places.realm(), file = %asked.file, %error, "bytes of a file were not read");
            Refusal::Later
        })
    }
}

impl super::Files {
    /// The bytes from `start` to `end`, however the file is divided.
    async fn range(&self, record: &FileRecord, start: u64, end: u64) -> Result<Bytes, FileError> {
        let each = record.size.div_ceil(u64::from(record.parts.max(1)));
        let mut bytes = BytesMut::new();
        let mut at = start;
        while at < end {
            let number = u32::try_from(at / each + 1).unwrap_or(u32::MAX);
            let part = self.part(record, number).await?;
            let part = part.ok_or(FileError::Incomplete(number, record.parts))?;
            let from = usize::try_from(at % each).unwrap_or(usize::MAX).min(part.len());
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let taken = &part[from..part.len().min(from.saturating_add(wanted))];
            if taken.is_empty() {
                return Err(FileError::Incomplete(number, record.parts));
            }
            bytes.extend_from_slice(taken);
            at += taken.len() as u64;
        }
        Ok(bytes.freeze())
    }
}
