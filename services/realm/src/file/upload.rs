//! How a file comes in: a record first, then its parts in any order, and with the last one the message that names it.

use std::collections::HashSet;
use std::sync::Arc;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::command::Receiver;
use antar_proto::file::{FileInfo, Part, safe_name};
use antar_proto::{MessageId, UserName};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    FILES_PER_USER_MAX, FileError, FileRecord, FileState, Files, PART_BYTES_MAX, UPLOADS_PER_USER_MAX, key,
    part_key,
};
use crate::hex::hex;
use crate::send::{Said, Send, SendError, SendId};
use crate::shared::Shared;

/// What is known of a file whose type nothing tells.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A file that is to be sent, or a part of one.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    /// Its id, which becomes the message's.
    pub id: MessageId,
    /// For whom.
    pub to: &'a [Receiver],
    /// As the sender calls it.
    pub name: &'a str,
    /// Which part is at hand, of how many, and how large the whole is.
    pub part: Part,
    /// What the sender says the SHA-256 of the whole is.
    pub sha256: Option<&'a str>,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// It had been stored before.
    pub duplicate: bool,
    /// The file, if it is whole and sent; else there are parts to come.
    pub file: Option<FileInfo>,
    /// Receivers that do not exist.
    pub unknown: Vec<String>,
    /// Receivers whose mailbox is full.
    pub full: Vec<String>,
}

impl Shared {
    /// Stores one part; durable when this returns. The last one makes the file whole and sends the message, if no other is
    /// missing. Whatever is repeated is answered alike.
    pub(crate) async fn put_part(
        self: &Arc<Self>,
        owner: &UserName,
        new: NewFile<'_>,
        bytes: Bytes,
    ) -> Result<Stored, FileError> {
        let (record, unknown) = self.begin(owner, new, Some(bytes.len() as u64)).await?;
        let Part { number, parts, .. } = new.part;
        let part_key = part_key(record.id, number);
        let put = self.broker.kv_put(&self.files.parts, &part_key, bytes.clone(), Expect::Absent, None).await;
        let duplicate = match put {
            Ok(_) => false,
            Err(KvError::Conflict) => match self.files.part(record.id, number).await? {
                Some(there) if there == bytes => true,
                _ => return Err(FileError::Mismatch("the part was sent before, with other bytes".into())),
            },
            Err(error) => return Err(error.into()),
        };
        if number < parts {
            return Ok(Stored { duplicate, file: None, unknown, full: Vec::new() });
        }
        let file = self.complete(&record).await?;
        let full = self.announce(owner, &record, &file).await?;
        Ok(Stored { duplicate, file: Some(file), unknown, full })
    }

    /// The record of a file, made if this is the first that is heard of it. What is too much is refused here, before
    /// anything is stored.
    pub(super) async fn begin(
        &self,
        owner: &UserName,
        new: NewFile<'_>,
        length: Option<u64>,
    ) -> Result<(Arc<FileRecord>, Vec<String>), FileError> {
        let (most, size) = (self.config.file_bytes_max, new.part.size);
        if size > most {
            return Err(FileError::TooLarge(most));
        }
        if size == 0 {
            return Err(FileError::Refused("an empty file is not sent".into()));
        }
        if new.part.bytes().is_none_or(|bytes| bytes > PART_BYTES_MAX) {
            let why = format!(
                "{size} bytes cannot be {} parts: all but the last are equal, none is empty or has more than {PART_BYTES_MAX} bytes",
                new.part.parts
            );
            return Err(FileError::Refused(why));
        }
        if length.is_some() && new.part.bytes() != length {
            return Err(FileError::Refused("a part has another length than it has to have".into()));
        }
        if new.id.is_assigned() {
            return Err(SendError::IdAssigned.into());
        }
        let (to, unknown) = self.receivers_here(owner, new.to).await?;
        let key = key(new.id);
        let record = FileRecord {
            id: new.id,
            owner: owner.clone(),
            to,
            name: safe_name(new.name),
            size,
            parts: new.part.parts,
            claimed: new.sha256.map(str::to_ascii_lowercase),
            state: FileState::Open,
            created: Timestamp::now().0,
            media: None,
            sha256: None,
        };
        let known = match self.files.records.fresh(&key).await? {
            Some(known) => known,
            None => {
                self.files.check_quota(owner, size, self.config.user_file_bytes_max)?;
                match self.files.records.put(&key, &record, Expect::Absent, None).await {
                    Ok(()) => {}
                    Err(KvError::Conflict) => self.files.records.catch_up(&key).await?,
                    Err(error) => return Err(error.into()),
                }
                self.files.records.get(&key).ok_or(FileError::NoSuchFile)?
            }
        };
        let is_same = (&known.owner, &known.to, &known.name, known.size, known.parts)
            == (&record.owner, &record.to, &record.name, record.size, record.parts);
        if !is_same || known.state == FileState::Going {
            return Err(FileError::Mismatch("the id was used for another file".into()));
        }
        Ok((known, unknown))
    }

    /// Who of these gets a file, each once, and the names of those who do not exist.
    async fn receivers_here(
        &self,
        from: &UserName,
        to: &[Receiver],
    ) -> Result<(Vec<UserName>, Vec<String>), FileError> {
        let own = self.places.realm();
        self.look_up(Send::Group(to)).await?;
        let (mut here, mut unknown, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for receiver in to {
            let user = match receiver {
                Receiver::User(user) => user,
                Receiver::Qualified(address) if address.realm == *own => &address.user,
                Receiver::Qualified(_) => return Err(FileError::OtherRealm),
                Receiver::Nobody(text) => {
                    unknown.push(text.clone());
                    continue;
                }
            };
            match self.takes_from(user, from, own.as_str()) {
                true if seen.insert(user) => here.push(user.clone()),
                true => {}
                false => unknown.push(receiver.to_string()),
            }
        }
        if here.is_empty() {
            return Err(SendError::NoSuchUser(unknown).into());
        }
        Ok((here, unknown))
    }

    /// Looks at all parts: whether they are there, what they are, and whether they are what was promised.
    async fn complete(&self, record: &FileRecord) -> Result<FileInfo, FileError> {
        if let Some(info) = record.info() {
            return Ok(info);
        }
        let (mut hasher, mut media) = (Sha256::new(), UNKNOWN_TYPE.to_owned());
        for number in 1..=record.parts {
            let Some(bytes) = self.files.part(record.id, number).await? else {
                return Err(FileError::Incomplete(number, record.parts));
            };
            if number == 1 {
                media = media_type(&bytes).into();
            }
            hasher.update(&bytes);
        }
        let sha256 = hex(&hasher.finalize());
        if record.claimed.as_ref().is_some_and(|claimed| *claimed != sha256) {
            self.files.remove(record.id).await?;
            return Err(FileError::Mismatch(format!(
                "what has arrived has the SHA-256 {sha256}; it was removed: send it again under another id"
            )));
        }
        let whole = FileRecord {
            state: FileState::Whole,
            media: Some(media),
            sha256: Some(sha256),
            ..record.clone()
        };
        self.files.replace(&whole).await?;
        whole.info().ok_or(FileError::NoSuchFile)
    }

    /// Sends the message that names a file, unless that was done. Who has a full mailbox.
    async fn announce(
        self: &Arc<Self>,
        owner: &UserName,
        record: &FileRecord,
        file: &FileInfo,
    ) -> Result<Vec<String>, FileError> {
        if record.state == FileState::Sent {
            return Ok(Vec::new());
        }
        let to: Vec<Receiver> = record.to.iter().cloned().map(Receiver::User).collect();
        let text = format!("[file] {} ({} bytes, {}): getfile {}", file.name, file.size, file.media, file.id);
        let said = Said { text: &text, file: Some(file) };
        // Stored under the file's id: what is sent again finds it there.
        let sent = self.send(owner, Send::Group(&to), said, SendId::Chosen(file.id)).await?.await?;
        let (media, sha256) = (Some(file.media.clone()), Some(file.sha256.clone()));
        self.files.replace(&FileRecord { state: FileState::Sent, media, sha256, ..record.clone() }).await?;
        Ok(sent.full)
    }
}

impl Files {
    /// Whether a user may have one more file of this size.
    ///
    /// Each edge looks at its copy, so files that are begun on several edges at the same moment may be too many together, by as
    /// many as there are edges.
    fn check_quota(&self, owner: &UserName, size: u64, bytes_max: u64) -> Result<(), FileError> {
        let (mut files, mut open, mut bytes) = (0, 0, 0_u64);
        for (_, record) in self.records.all() {
            if record.owner == *owner {
                files += 1;
                open += usize::from(record.state == FileState::Open);
                bytes = bytes.saturating_add(record.size);
            }
        }
        let refused = |why: String| Err(FileError::Quota(why));
        if bytes.saturating_add(size) > bytes_max {
            return refused(format!("your files have {bytes} bytes of the {bytes_max} that they may have"));
        }
        if files >= FILES_PER_USER_MAX {
            return refused(format!("you have {files} files, and may have no more"));
        }
        if open >= UPLOADS_PER_USER_MAX {
            return refused(format!("{open} of your files are not whole: end these first"));
        }
        Ok(())
    }

    /// Writes a record that has come further, unless it has come as far elsewhere.
    async fn replace(&self, record: &FileRecord) -> Result<(), FileError> {
        let key = key(record.id);
        let Some((known, revision)) = self.records.get_with_revision(&key) else {
            return Err(FileError::NoSuchFile);
        };
        if known.state == FileState::Going {
            return Err(FileError::NoSuchFile);
        }
        match self.records.put(&key, record, Expect::Revision(revision), None).await {
            Err(KvError::Conflict) => {
                self.records.catch_up(&key).await?;
                let there = self.records.get(&key).and_then(|there| there.info());
                if there == record.info() { Ok(()) } else { Err(FileError::NoSuchFile) }
            }
            other => Ok(other?),
        }
    }
}

/// What the first bytes of a file are; never what its sender says.
fn media_type(first: &[u8]) -> &'static str {
    if let Some(known) = infer::get(first) {
        return known.mime_type();
    }
    // The last character may go on in the next part.
    let is_text = match std::str::from_utf8(first) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    let is_plain = first.iter().all(|&b| b >= b' ' || matches!(b, b'\t' | b'\n' | b'\r' | 0x0c));
    if is_text && is_plain { "text/plain" } else { UNKNOWN_TYPE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_in_the_bytes() {
        for (bytes, media) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "image/png"),
            (b"%PDF-1.7\n", "application/pdf"),
            (b"halo\n", "text/plain"),
            (b"caf\xc3", "text/plain"),
            (b"\xff\xfe\x00\x01", UNKNOWN_TYPE),
            (b"a\0b", UNKNOWN_TYPE),
        ] {
            assert_eq!(media_type(bytes), media, "{bytes:?}");
        }
    }
}
