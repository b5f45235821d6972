//! Files in lines: parts of them as base64, in requests and in replies.

use antar_proto::command::FileTo;
use antar_proto::file::{Part, Upload};
use antar_proto::{ErrorCode, MessageId, Tag};
use antar_realm::{FileError, NewFile, Send, Stored, TooMuch};
use axum::body::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::commands::{Handled, Refusal};
use crate::connection::Connection;

/// Most files in one reply to `files`.
const FILES_MAX: usize = 500;

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        let code = error.code();
        if code == ErrorCode::Unavailable {
            tracing::warn!(%error, "a file was not stored or not read");
            return code.into();
        }
        Self::detailed(code, error.to_string())
    }
}

/// A file as a request describes it.
pub(crate) struct Request<'a> {
    pub(crate) tag: Option<Tag<'a>>,
    pub(crate) to: &'a FileTo,
    pub(crate) name: &'a str,
    pub(crate) base64: &'a str,
    pub(crate) upload: Upload<'a>,
}

/// Who gets a file, as sends name them.
pub(crate) fn send_to(to: &FileTo) -> Result<Send<'_>, ErrorCode> {
    Ok(match to {
        FileTo::Users(receivers) => match receivers.as_slice() {
            [one] => Send::One(one),
            several => Send::Group(several),
        },
        FileTo::RealmUser(Some(realm), receiver) => Send::RealmOne(realm, receiver),
        FileTo::RealmUsers(Some(realm), receivers) => Send::RealmGroup(realm, receivers),
        FileTo::Group(Some(group)) => Send::Named(group),
        FileTo::RealmUser(None, _) | FileTo::RealmUsers(None, _) => return Err(ErrorCode::NoSuchRealm),
        FileTo::Group(None) => return Err(ErrorCode::NoSuchGroup),
    })
}

/// What is answered once a part of a file was stored.
pub(crate) fn stored_reply(new: &NewFile<'_>, stored: &Stored) -> Value {
    let part = new.part;
    let mut body = json!({"file_id": new.id, "part": part.number, "parts": part.parts});
    if let Value::Object(fields) = &mut body {
        if let Some(file) = &stored.file {
            fields.insert("message".into(), "File Sent".into());
            fields.insert("message_id".into(), json!(file.id));
            fields.insert("file".into(), json!(file));
        }
        for (name, users) in [("unknown", &stored.unknown), ("full", &stored.full)] {
            if !users.is_empty() {
                fields.insert(name.into(), json!(users));
            }
        }
        if stored.duplicate {
            fields.insert("duplicate".into(), true.into());
        }
    }
    body
}

impl Connection {
    /// Stores what a line carries of a file.
    pub(crate) async fn send_file(&mut self, token: &str, request: Request<'_>) -> Handled {
        let user = self.user(token).await?;
        let Request { tag, to, name, base64, upload } = request;
        let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| {
            Refusal::from(FileError::Refused("BASE64 is that of RFC 4648, padded and in one piece".into()))
        })?;
        let chosen = upload.id.or_else(|| tag.and_then(|tag| tag.message_id()));
        let whole = Part { number: 1, parts: 1, size: bytes.len() as u64 };
        let part = upload.part.unwrap_or(whole);
        let id = chosen.unwrap_or_else(MessageId::fresh);
        let new = NewFile { id, to: send_to(to)?, name, part, sha256: upload.sha256 };
        // The last part sends a message.
        if part.number == part.parts
            && let Err(TooMuch { of, wait }) =
                self.edge.realm.take_share(&user, Some(self.address), name.len())
        {
            let seconds = wait.as_secs() + 1;
            let detail = format!("this {of} has sent as much as it may in a minute: again in {seconds} s");
            return Err(Refusal::detailed(ErrorCode::RateLimited, detail));
        }
        let stored = self.edge.realm.put_part(&user, new, Bytes::from(bytes)).await?;
        Ok(stored_reply(&new, &stored))
    }

    /// A part of a file, in base64.
    pub(crate) async fn get_file(&mut self, token: &str, id: Option<MessageId>, part: u32) -> Handled {
        let user = self.user(token).await?;
        let id = id.ok_or(FileError::NoSuchFile)?;
        let got = self.edge.realm.file_part(&user, id, part).await?;
        let data = BASE64.encode(&got.bytes);
        Ok(json!({"file": got.file, "part": got.number, "parts": got.parts, "data": data}))
    }

    /// The files of a user.
    pub(crate) async fn list_files(&mut self, token: &str) -> Handled {
        let user = self.user(token).await?;
        let (files, more) = self.edge.realm.files(&user, FILES_MAX);
        Ok(if more { json!({"files": files, "more": true}) } else { json!({"files": files}) })
    }
}
